//! Shipping the queue: one file at a time, in order, so that what is visible never has a hole.

use std::time::Duration;

use tokio::time::Instant;

use super::super::backoff::Backoff;
use super::super::capture::{Batch, Body, PART_BYTES};
use super::super::event::Happening;
use super::super::join::{self, Part};
use super::super::ship::{Bytestream, Shipped, ship};
use super::Session;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{FileEntry, FileKey};
use crate::store::Put;

impl Session<'_> {
    /// When the next object is due.
    pub(super) fn ship_at(&self, now: Instant) -> Instant {
        let hurried = self.stop_by.is_some() || !self.sync_waiters.is_empty();
        match self.last_ship {
            Some(last) if !hurried && !self.left_behind && !self.is_backlogged() => {
                last + self.policy.spacing()
            }
            Some(_) | None => now,
        }
    }

    /// Whether more waits than belongs into one object, or as much as makes one worth its request.
    fn is_backlogged(&self) -> bool {
        let size: u64 = self.queue.iter().map(|batch| batch.body.size()).sum();
        if size >= PART_BYTES as u64 {
            return true;
        }
        let waiting = self.queue.len();
        waiting > join::run_length(self.queue.iter(), self.policy.sync_interval)
    }

    /// How many batches at the front of the queue are on their way as one object, or are tried again.
    pub(super) fn sending(&self) -> usize {
        self.queue.iter().take_while(|batch| batch.sending).count()
    }

    /// When to begin the next upload.
    pub(super) fn ship_deadline(&self, now: Instant) -> Option<Instant> {
        self.lease()?;
        let front = self.queue.front()?;
        if self.upload.is_some() || matches!(front.body, Body::Streamed) {
            return None;
        }
        let retry = self.upload_retry.map(|backoff| backoff.until);
        // What is tried again was due before.
        Some(retry.unwrap_or_else(|| self.ship_at(now)))
    }

    /// Begins to send the oldest files, those of one interval as one, unless it is not time yet.
    pub(super) fn start_upload(&mut self, now: Instant) {
        if self.ship_deadline(now).is_none_or(|at| at > now) {
            return;
        }
        if self.sending() == 0 {
            let run = join::run_length(self.queue.iter(), self.policy.sync_interval);
            let front = self.queue.iter_mut().take(run);
            front.for_each(|batch| batch.sending = true);
        }
        let sending = self.sending();
        let headers = self.queue.iter().take(sending);
        let headers: Vec<_> = headers.map(|batch| batch.header.clone()).collect();
        let joined = join::header_of(&headers).ok().filter(|_| sending > 1);
        if joined.is_none() {
            let rest = self.queue.iter_mut().skip(1);
            rest.for_each(|batch| batch.sending = false);
        }
        let (Some(front), Some(capture), Some(lease)) =
            (self.queue.front(), &self.capture, self.lease())
        else {
            return;
        };
        let (header, body) = match joined {
            Some(header) => {
                let batches = self.queue.iter().take(sending);
                let parts = batches
                    .filter_map(|batch| batch.body.part(&capture.spool))
                    .collect();
                let scratch = capture.scratch.clone();
                (header, Bytestream::Parts { parts, scratch })
            }
            None => {
                let body = match front.body.part(&capture.spool) {
                    Some(Part::Memory(bytes)) => Bytestream::Memory(bytes),
                    Some(Part::File { path, size }) => Bytestream::File { path, size },
                    // The image that makes it is on its way.
                    None => return,
                };
                (front.header.clone(), body)
            }
        };
        let key = self.context.layout.incremental(header.range);
        let put = Put::new_object().created(header.timestamp);
        let target = self.context.target(&lease);
        self.upload = Some(tokio::spawn(ship(
            target, key, header, body, PART_BYTES, put,
        )));
        self.last_ship = Some(now);
        self.left_behind = self.queue.len() > self.sending().max(1);
    }

    /// The oldest file was stored, or not.
    pub(super) async fn uploaded(&mut self, done: Result<Result<Shipped>>) -> Result<()> {
        let now = Instant::now();
        self.gaze.next = now;
        match done.and_then(|shipped| shipped) {
            Ok(shipped) => {
                self.upload_retry = None;
                self.stored(shipped).await
            }
            Err(error) => self.upload_failed(error, now).await,
        }
    }

    async fn upload_failed(&mut self, error: Error, now: Instant) -> Result<()> {
        let from_spool = self
            .queue
            .front()
            .is_some_and(|batch| matches!(batch.body, Body::Spooled(_)));
        match error.kind() {
            ErrorKind::Fenced | ErrorKind::Cancelled | ErrorKind::Exists => Err(error),
            ErrorKind::Corrupt if from_spool => {
                // What the spool holds from here on cannot be trusted: a base follows.
                let kept = self
                    .queue
                    .front()
                    .and_then(|batch| batch.header.range.min().previous());
                if let (Some(kept), Some(capture)) = (kept, self.capture.as_mut()) {
                    capture.spool.break_off(Some(kept))?;
                }
                Err(error)
            }
            _ => {
                self.context.failed(&error).await;
                self.upload_retry = Some(Backoff::after(self.upload_retry, now));
                Ok(())
            }
        }
    }

    /// The store has what was sent: the page table may move over it.
    async fn stored(&mut self, shipped: Shipped) -> Result<()> {
        let sent = self.sending();
        let stored = self
            .with(move |capture, queue| {
                let rest = queue.split_off(sent.min(queue.len()));
                let sent = std::mem::replace(queue, rest);
                capture.stored(&sent)?;
                Ok(sent)
            })
            .await?;
        let batch = match shipped.joined {
            Some(joined) => Batch::joined(stored, *joined, Body::Streamed),
            None => stored.into_iter().next(),
        };
        let Some(batch) = batch else { return Ok(()) };
        self.note_stored(batch, shipped.bytes).await;
        self.context.recovered().await;
        Ok(())
    }

    /// A file of the chain is durable.
    pub(super) async fn note_stored(&mut self, batch: Batch, bytes: u64) {
        let range = batch.header.range;
        let txid = range.max();
        self.durable = Some(txid).max(self.durable);
        let key = FileKey::incremental(range);
        let pages = (batch.pages > 0).then_some(batch.pages);
        let entry = FileEntry::from_header(key, bytes, &batch.header, batch.post, pages);
        self.index_incremental(entry);
        let now = self.now();
        let waited = u64::try_from(now.millis_since(batch.seen.first)).unwrap_or(0);
        let counters = &self.context.counters;
        counters.sync_latency.note(Duration::from_millis(waited));
        self.context
            .status
            .send_modify(|status| status.last_sync = Some(now));
        let what = match batch.rebase {
            Some(why) => Happening::Rebase {
                txid,
                bytes,
                reason: why.reason,
                message: why.message,
            },
            None => Happening::Sync {
                txid,
                frames: batch.frames,
                page_size: batch.header.page_size,
                bytes,
            },
        };
        self.context.tell(what).await;
    }
}
