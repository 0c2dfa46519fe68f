//! Shipping the queue: one file at a time, in order, so that what is visible never has a hole.

use tokio::time::Instant;

use super::super::capture::{Batch, Body, PART_BYTES};
use super::super::event::Happening;
use super::super::ship::{Bytestream, Shipped, ship};
use super::{Backoff, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{FileEntry, FileKey};
use crate::store::Put;

impl Session<'_> {
    /// Begins to send the oldest file, unless one is on its way or a pause runs.
    pub(super) fn start_upload(&mut self, now: Instant) {
        let paused = self.upload_retry.is_some_and(|backoff| now < backoff.until);
        if self.upload.is_some() || paused {
            return;
        }
        let (Some(batch), Some(capture)) = (self.queue.front(), &self.capture) else {
            return;
        };
        let body = match &batch.body {
            Body::Memory(bytes, _) => Bytestream::Memory(bytes.clone()),
            Body::Spooled(file) => Bytestream::File {
                path: capture.spool.path(file),
                size: file.size,
            },
            // The image that makes it is on its way.
            Body::Streamed => return,
        };
        let key = self.context.layout.incremental(batch.header.range);
        let put = Put::new_object().created(batch.header.timestamp);
        let target = self.context.target(&self.lease);
        let header = batch.header.clone();
        self.upload = Some(tokio::spawn(ship(
            target, key, header, body, PART_BYTES, put,
        )));
        self.last_ship = Some(now);
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

    /// The store has the oldest file: the page table may move over it.
    async fn stored(&mut self, shipped: Shipped) -> Result<()> {
        let front = self
            .with(|capture, queue| {
                let Some(front) = queue.pop_front() else {
                    return Ok(None);
                };
                capture.stored(&front, queue)?;
                Ok(Some(front))
            })
            .await?;
        let Some(batch) = front else { return Ok(()) };
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
