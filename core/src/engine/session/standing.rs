//! Whether the stream is ours, and what changes once it is.

use std::sync::Arc;

use super::super::open::{Found, reopen, with_past};
use super::super::past::Past;
use super::super::seek::{Answer, Search};
use super::super::watch::LASTING;
use super::look::ended;
use super::{End, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::lease::Lease;
use crate::process::blocking;

/// Whether we may write to the stream.
pub(in super::super) enum Standing {
    /// The lease is ours.
    Ours(Arc<Lease>),
    /// The store has not answered yet: what is captured waits in the spool.
    Seeking(Box<Search>),
}

impl Standing {
    /// The next answer of the store, where one is awaited.
    pub(super) async fn answer(&mut self) -> Result<Answer> {
        match self {
            Self::Ours(_) => std::future::pending().await,
            Self::Seeking(search) => search.answer().await,
        }
    }
}

impl Session<'_> {
    /// The lease, once it is ours.
    pub(super) fn lease(&self) -> Option<Arc<Lease>> {
        match &self.standing {
            Standing::Ours(lease) => Some(lease.clone()),
            Standing::Seeking(_) => None,
        }
    }

    /// Whether the store answered with an error that nobody's waiting mends.
    pub(super) fn is_refused(&self) -> bool {
        let lasts = |error: &Error| LASTING.contains(&error.kind().name());
        self.lease().is_none() && self.unanswered.as_ref().is_some_and(lasts)
    }

    /// The store answered, or not.
    pub(super) async fn answered(&mut self, answer: Result<Answer>) -> Result<Option<End>> {
        match answer {
            Ok(Answer::Ours(lease, found)) => self.anchor(lease, found).await,
            Ok(Answer::Unknown(_)) => {
                // What was captured continues another state than the head's: only the content can count.
                self.context.looks_first = true;
                let message = "the stream went on without this database; comparing their content";
                let error = Error::new(ErrorKind::Unavailable, message);
                Ok(Some(End::Reopen(error.on(&self.context.options.name))))
            }
            Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
            Err(error) if self.stopping && error.kind() == ErrorKind::Cancelled => {
                // Nobody waits for the lease any more.
                self.stop_by = Some(tokio::time::Instant::now());
                Ok(None)
            }
            Err(error) => self.answered_not(error).await,
        }
    }

    /// It is asked again after a pause.
    async fn answered_not(&mut self, error: Error) -> Result<Option<End>> {
        self.context.failed(&error).await;
        self.unanswered = Some(error);
        Ok(None)
    }

    /// The stream is ours: finds out how what was captured goes on from what is there.
    async fn anchor(&mut self, lease: Arc<Lease>, found: Found) -> Result<Option<End>> {
        self.context.lease = Some(lease.clone());
        let spooled = self.with(|capture, queue| capture.spool(queue)).await;
        if let Err(error) = spooled {
            return Ok(Some(ended(error)));
        }
        let Some(capture) = self.capture.take() else {
            return Err(Error::new(ErrorKind::Internal, "the capture is gone"));
        };
        let (store, remote) = (self.context.shared.store.clone(), found.remote.clone());
        let earlier = match self.resumed {
            None => None,
            Some(at) => {
                let past = Past {
                    store: &*store,
                    remote: remote.as_deref(),
                    dir: capture.dir.clone(),
                    scratch: &capture.scratch.clone(),
                    lineage: capture.stream.lineage,
                    page_size: capture.place.page_size,
                };
                match past.periods(at, &capture.spool).await {
                    Ok(earlier) => Some(earlier),
                    // The store went away again; what is captured goes on waiting.
                    Err(error) => {
                        self.capture = Some(capture);
                        if let Standing::Seeking(search) = &mut self.standing {
                            search.pause();
                        }
                        return self.answered_not(error).await;
                    }
                }
            }
        };
        let queue = std::mem::take(&mut self.queue);
        let options = self.context.open_options();
        let opened = blocking(move || reopen(options, *capture, queue, found, earlier)).await;
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return Ok(Some(ended(error))),
        };
        let opened = with_past(opened, &*store, remote.as_deref()).await?;
        let (txid, durable) = (opened.capture.place.txid, opened.durable);
        self.context.owns(lease.clone(), txid, durable).await;
        self.standing = Standing::Ours(lease);
        self.start_from(opened);
        self.look_again();
        Ok(None)
    }
}
