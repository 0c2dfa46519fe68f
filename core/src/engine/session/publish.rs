//! Keeping the index in the bucket up to date: now and then, and at the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::worker::Context;
use super::Session;
use crate::error::{ErrorKind, Result};
use crate::manifest::{
    Due, EpochStart, FileEntry, Head, ManifestDelta, NewHead, Publisher, Unpublished, due,
};
use crate::types::Position;

/// Pause after the index could not be written.
const PAUSE: Duration = Duration::from_secs(5);

type Task = JoinHandle<(ManifestDelta, Result<()>)>;

/// What the index does not say yet.
pub(super) struct Index {
    /// Shared with the compaction: without conditional writes two of them would overwrite each other's index.
    pub(super) publisher: Arc<Mutex<Publisher>>,
    pub(super) task: Option<Task>,
    delta: ManifestDelta,
    unpublished: Unpublished,
    written: Instant,
    not_before: Option<Instant>,
    epoch_noted: bool,
}

impl Index {
    pub(super) fn new(context: &Context, now: Instant) -> Self {
        let publisher = Publisher::new(context.shared.store.clone(), context.layout.clone());
        Self {
            publisher: Arc::new(Mutex::new(publisher)),
            task: None,
            delta: ManifestDelta::default(),
            unpublished: Unpublished::default(),
            written: now,
            not_before: None,
            epoch_noted: false,
        }
    }

    /// The store has these files already and its index does not name them.
    pub(super) fn lacks(&mut self, files: Vec<FileEntry>) {
        self.unpublished.incrementals += files.len() as u64;
        self.delta.add.extend(files);
    }

    /// Whether the index names every snapshot and merged file that is stored.
    pub(super) fn is_settled(&self) -> bool {
        self.task.is_none() && !self.unpublished.notable
    }

    fn when(&self, now: Instant) -> Option<Instant> {
        let at = match due(self.unpublished, now.duration_since(self.written)) {
            Due::Never => return None,
            Due::Now => now,
            Due::In(wait) => now + wait,
        };
        Some(self.not_before.map_or(at, |earliest| earliest.max(at)))
    }
}

impl Session<'_> {
    /// An incremental was stored.
    pub(super) fn index_incremental(&mut self, entry: FileEntry) {
        if !self.index.epoch_noted
            && let Some(stream) = entry.stream
        {
            self.index.delta.epoch = Some(EpochStart {
                stream,
                first: entry.range().min(),
            });
            self.index.epoch_noted = true;
        }
        self.index_head(Head::from(&entry), &entry);
        if entry.kind.is_start() {
            self.index.unpublished.notable = true;
        }
        self.index.delta.add.push(entry);
        self.index.unpublished.incrementals += 1;
    }

    /// A snapshot (then `position` is its state) or a merged file was stored.
    pub(super) fn index_image(&mut self, entry: FileEntry, position: Option<Position>) {
        if let Some(position) = position {
            self.index_head(Head::from(position), &entry);
        }
        self.index.delta.add.push(entry);
        self.index.unpublished.notable = true;
    }

    fn index_head(&mut self, head: Head, entry: &FileEntry) {
        let newer = self
            .index
            .delta
            .head
            .is_none_or(|known| known.head.txid <= head.txid);
        if let Some(stream) = entry.stream.filter(|_| newer) {
            let new = NewHead {
                head,
                lineage: stream.lineage,
                page_size: entry.page_size,
            };
            self.index.delta.head = Some(new);
        }
    }

    /// When the index is due.
    pub(super) fn index_deadline(&self, now: Instant) -> Option<Instant> {
        if self.index.task.is_some() || !self.has_base {
            return None;
        }
        self.index.when(now)
    }

    /// Begins to write the index if it is due. Nothing is advertised before a base exists.
    pub(super) fn publish_if_due(&mut self, now: Instant) {
        if self.index_deadline(now).is_some_and(|at| at <= now) {
            self.publish(now);
        }
    }

    fn publish(&mut self, now: Instant) {
        let publisher = self.index.publisher.clone();
        let delta = std::mem::take(&mut self.index.delta);
        self.index.unpublished = Unpublished::default();
        self.index.written = now;
        let time = self.now();
        self.index.task = Some(tokio::spawn(async move {
            let done = publisher.lock().await.publish(&delta, time).await;
            (delta, done.map(drop))
        }));
    }

    /// The index was written, or not.
    pub(super) async fn published(
        &mut self,
        done: Result<(ManifestDelta, Result<()>)>,
    ) -> Result<()> {
        let (mut delta, done) = done?;
        match done {
            Ok(()) => {
                self.index.not_before = None;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
            Err(error) => {
                tracing::warn!(name = %self.context.options.name, %error, "the index was not written");
                self.context.counters.failed();
                let later = std::mem::take(&mut self.index.delta);
                delta.merge(later);
                self.index.delta = delta;
                self.index.unpublished.notable = true;
                self.index.not_before = Some(Instant::now() + PAUSE);
                Ok(())
            }
        }
    }

    /// Writes the index for the last time. Restores find what it lacks by listing, so trouble here is no
    /// failure of the stop.
    pub(super) async fn publish_last(&mut self) -> Result<()> {
        if self.index.task.is_some() {
            let done = super::join(&mut self.index.task).await;
            self.published(done).await?;
        }
        if self.index.delta.is_empty() || !self.has_base {
            return Ok(());
        }
        self.publish(Instant::now());
        let done = super::join(&mut self.index.task).await;
        match self.published(done).await {
            Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
