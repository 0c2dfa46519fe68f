//! Finding out what the store has, and becoming its one writer, while the database may be captured already.
//!
//! # Cancellation
//!
//! Dropping a [`Search`] ends it. The lease may be taken then; the same process, or the next holder of the
//! state directory's lock, has it again at once.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::anchor::{Permission, RemoteHead, counts, permitted};
use super::backoff::Backoff;
use super::bridge::{Fetched, before};
use super::open::{Disk, Found};
use super::remote::Remote;
use super::status::DatabaseStatus;
use super::tenure::{Bid, acquire};
use super::worker::{Context, Shared, wait_shown};
use crate::error::{Error, ErrorKind, Result};
use crate::lease::Lease;
use crate::manifest::FileEntry;
use crate::state::{Saved, StateDir};
use crate::store::Layout;
use crate::types::{DatabaseName, Txid};

/// What the store said.
#[derive(Debug)]
pub(super) enum Answer {
    /// The lease is ours; this is what there is.
    Ours(Arc<Lease>, Found),
    /// The saved state does not show that the database goes on from this head: its content must (invariant 14).
    Unknown(RemoteHead),
}

/// Who asks the store, and with what knowledge. Nothing here changes while the database is captured.
#[derive(Clone)]
pub(super) struct Seeker {
    shared: Arc<Shared>,
    layout: Layout,
    name: DatabaseName,
    dir: Arc<StateDir>,
    permission: Permission,
    /// The saved state.
    saved: Option<Saved>,
    /// The last transaction that the store had by that state.
    stored: Option<Txid>,
    /// Whether the content was compared with the head and is the same.
    same: bool,
    /// Ours from the first time on that it was taken, also where what follows fails.
    lease: Arc<OnceLock<Arc<Lease>>>,
    stop: CancellationToken,
    status: watch::Sender<DatabaseStatus>,
}

impl Seeker {
    /// Seeks for the database of `context`, whose state is on `disk`.
    pub(super) fn new(context: &Context, disk: &Disk) -> Self {
        let saved = disk.saved().cloned();
        let at = saved.as_ref().map(|saved| saved.place.txid);
        Self {
            shared: context.shared.clone(),
            layout: context.layout.clone(),
            name: context.options.name.clone(),
            dir: disk.dir.clone(),
            permission: context.options.permission,
            stored: before(disk.spool()).or(at),
            saved,
            same: false,
            lease: Arc::new(
                context
                    .lease
                    .clone()
                    .map_or_else(OnceLock::new, OnceLock::from),
            ),
            stop: context.stop.clone(),
            status: context.status.clone(),
        }
    }

    /// As before, the content of the database being the head's.
    pub(super) fn of_same_content(self) -> Self {
        Self { same: true, ..self }
    }

    /// Looks at the store, takes the lease, and looks again: only what is listed under the lease is all that
    /// there is. Errors: Fenced once the wait for another writer is over; those of the store.
    pub(super) async fn seek(self) -> Result<Answer> {
        let remote = self.look().await?;
        if let Some(remote) = &remote {
            // Before anybody's lease is touched.
            let head = remote.head();
            if !self.may_go_on_from(&head) {
                return Ok(Answer::Unknown(head));
            }
        }
        let lease = self.take_lease(remote.as_ref()).await?;
        let remote = self.look().await?.map(Arc::new);
        let files = match &remote {
            Some(remote) => self.fetch(remote).await?,
            None => Vec::new(),
        };
        let stream = lease.stream_id();
        let found = Found {
            stream,
            remote,
            files,
        };
        Ok(Answer::Ours(lease, found))
    }

    async fn look(&self) -> Result<Option<Remote>> {
        Remote::look(&*self.shared.store, &self.layout, self.stored).await
    }

    fn may_go_on_from(&self, head: &RemoteHead) -> bool {
        let known = self.saved.as_ref().is_some_and(|saved| {
            saved.restored_head.is_some() || saved.rewind_from.is_some() || counts(saved, head)
        });
        known || self.same || permitted(self.permission, head, &self.name).is_ok()
    }

    /// Takes the lease, waiting for an owner that may be gone.
    async fn take_lease(&self, remote: Option<&Remote>) -> Result<Arc<Lease>> {
        if let Some(lease) = self.lease.get() {
            lease.check().await?;
            return Ok(lease.clone());
        }
        let known = self.saved.as_ref().and_then(Saved::stream);
        let bid = Bid {
            store: &self.shared.store,
            layout: &self.layout,
            clock: &self.shared.clock,
            holder: self.shared.holder.clone(),
            dir: Some(&self.dir),
            policy: self.shared.lease,
            new_chain: self.permission.new_chain,
            known: known.or(remote.and_then(Remote::stream)),
            stop: &self.stop,
            patient: self.shared.patient,
        };
        let now = self.shared.clock.now();
        let mut waits = |held: &Error| wait_shown(&self.status, self.shared.patient, held, now);
        let lease = Arc::new(acquire(bid, &mut waits).await?);
        Ok(self.lease.get_or_init(|| lease).clone())
    }

    /// Fetches what our own earlier runs stored behind the state that is known to be stored.
    async fn fetch(&self, remote: &Remote) -> Result<Vec<Fetched>> {
        let mut files = Vec::new();
        for entry in self.ours_behind(remote) {
            let file = remote
                .fetch(&*self.shared.store, &entry, self.dir.scratch())
                .await?;
            files.push((entry.key, file));
        }
        Ok(files)
    }

    fn ours_behind(&self, remote: &Remote) -> Vec<FileEntry> {
        let ours = self.saved.as_ref().and_then(Saved::stream);
        let (Some(ours), Some(mut at)) = (ours, self.stored) else {
            return Vec::new();
        };
        let mut files = Vec::new();
        for entry in &remote.behind {
            let ours = entry
                .stream
                .is_some_and(|theirs| theirs.lineage == ours.lineage && theirs.epoch <= ours.epoch);
            if !ours || entry.range().min() != at.next() {
                break;
            }
            at = entry.max();
            files.push(entry.clone());
        }
        files
    }
}

/// A seeker that goes on until the store answers.
pub(super) struct Search {
    seeker: Seeker,
    task: Option<JoinHandle<Result<Answer>>>,
    pause: Option<Backoff>,
}

impl Search {
    /// Begins to ask.
    pub(super) fn begin(seeker: Seeker) -> Self {
        let task = Some(tokio::spawn(seeker.clone().seek()));
        Self {
            seeker,
            task,
            pause: None,
        }
    }

    /// The next answer. After an error the next one asks again, after a pause. Dropping the future loses nothing.
    pub(super) async fn answer(&mut self) -> Result<Answer> {
        if self.task.is_none() {
            if let Some(pause) = self.pause {
                sleep_until(pause.until).await;
            }
            self.task = Some(tokio::spawn(self.seeker.clone().seek()));
        }
        let Some(task) = &mut self.task else {
            return std::future::pending().await;
        };
        let done = task.await;
        self.task = None;
        let answer = match done {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => {
                Err(Error::new(ErrorKind::Internal, "a worker panicked").hint("please report this"))
            }
            Err(_) => Err(Error::new(ErrorKind::Cancelled, "shutting down")),
        };
        if answer.is_err() {
            self.pause();
        }
        answer
    }

    /// The answer was of no use: the next one is asked for after a pause.
    pub(super) fn pause(&mut self) {
        self.pause = Some(Backoff::after(self.pause, Instant::now()));
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}
