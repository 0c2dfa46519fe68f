//! Snapshots and merged files on their way to the store, part by part.

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::backoff::Backoff;
use super::super::capture::{Body, PART_BYTES};
use super::super::event::{Happening, SnapshotReason};
use super::super::image::{ImageKind, Piece};
use super::super::levels::Levels;
use super::super::ship::{Bytestream, PieceSource, Shipped, Wanted, ship};
use super::look::end_batch;
use super::{End, Session, Taken, died};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Header;
use crate::manifest::{FileEntry, FileKey};
use crate::store::{Put, Tier};
use crate::types::Position;

/// An image on its way.
pub(super) struct Image {
    kind: ImageKind,
    header: Header,
    position: Position,
    /// Frames captured since the last snapshot when this one began.
    frames: u64,
    /// Where the next part is asked for; nothing once the last one went.
    pub(super) pieces: Option<mpsc::Receiver<Wanted>>,
    /// Pages in the file, once it is encoded.
    pages: u64,
    pub(super) task: JoinHandle<Result<Shipped>>,
    /// The place among the process's streaming images.
    _slot: OwnedSemaphorePermit,
}

/// What comes from an image.
pub(super) enum ImageNews {
    /// The upload ended.
    Ended(Result<Result<Shipped>>),
    /// It wants the next part.
    Wants(Wanted),
}

/// Waits for news of `image`.
pub(super) async fn news(image: &mut Option<Image>) -> ImageNews {
    let Some(Image { task, pieces, .. }) = image else {
        return std::future::pending().await;
    };
    let request = async {
        match pieces {
            Some(requests) => requests.recv().await,
            None => None,
        }
    };
    tokio::select! {
        biased;
        done = &mut *task => ImageNews::Ended(done.map_err(|error| died(&error))),
        Some(wanted) = request => ImageNews::Wants(wanted),
    }
}

impl Session<'_> {
    /// Whether an image waits to be begun.
    pub(super) fn image_is_wanted(&self) -> bool {
        let jobs = self
            .capture
            .as_ref()
            .is_some_and(|capture| !capture.jobs.is_empty());
        let due = self
            .policy
            .snapshots
            .due(&self.activity, Instant::now())
            .is_some();
        (jobs || due || self.wanted.is_some()) && !self.images_pause(Instant::now())
    }

    /// Whether new images may be begun: none before the stream is ours, none while the store does not answer, for
    /// their old pages take room; and none soon after one failed.
    pub(super) fn may_begin_images(&self) -> bool {
        let answers = self.upload_retry.is_none() && self.lease().is_some();
        answers && !self.images_pause(Instant::now())
    }

    fn images_pause(&self, now: Instant) -> bool {
        self.image_retry.is_some_and(|backoff| now < backoff.until)
    }

    /// Whether the state that the next image holds is stored: else the image could outlive the chain that leads
    /// to it. A base is a part of the chain.
    fn next_image_may_stream(&self) -> bool {
        let job = self
            .capture
            .as_ref()
            .and_then(|capture| capture.jobs.first());
        job.is_some_and(|job| {
            let stored = self.durable >= Some(job.position().txid) || self.queue.is_empty();
            stored || job.kind() == ImageKind::Base
        })
    }

    /// Begins the next image: a waiting job, or the snapshot that is wanted or due.
    pub(super) fn start_image(&mut self, now: Instant) -> Option<End> {
        let lease = self.lease()?;
        if self.image.is_some() || self.images_pause(now) || self.stopping_without_need() {
            return None;
        }
        let base_comes = self
            .capture
            .as_ref()
            .is_some_and(|capture| capture.jobs.iter().any(|job| job.kind() == ImageKind::Base));
        if self.base_waits() && !base_comes {
            let message = "the base of the chain was given up";
            return Some(End::Reopen(Error::new(ErrorKind::Unavailable, message)));
        }
        if let Err(error) = self.prepare_image(now) {
            return Some(End::Reopen(error));
        }
        if !self.next_image_may_stream() {
            return None;
        }
        let capture = self.capture.as_ref()?;
        let job = capture.jobs.first()?;
        let slot = self
            .context
            .shared
            .images
            .clone()
            .try_acquire_owned()
            .ok()?;
        let header = job.header().clone();
        let layout = &self.context.layout;
        let (key, tier) = match job.kind() {
            ImageKind::Snapshot => (layout.snapshot(header.range.max()), Tier::Cold),
            ImageKind::Merged(level) => (layout.merged(level, header.range), Tier::Cold),
            ImageKind::Base => (layout.incremental(header.range), Tier::Hot),
        };
        let (source, requests) = PieceSource::new();
        let put = Put::new_object().created(header.timestamp).tier(tier);
        let target = self.context.target(&lease);
        let body = Bytestream::Pieces(source);
        let task = tokio::spawn(ship(target, key, header.clone(), body, PART_BYTES, put));
        self.image = Some(Image {
            kind: job.kind(),
            position: job.position(),
            header,
            frames: self.activity.frames,
            pieces: Some(requests),
            pages: 0,
            task,
            _slot: slot,
        });
        None
    }

    /// A stop waits for nothing but a base, be it the first one or one that the chain goes on with, and for a
    /// snapshot that was promised.
    pub(super) fn stopping_without_need(&self) -> bool {
        let needed = !self.has_base || self.base_waits() || self.snapshot_is_promised();
        self.stop_by.is_some() && !needed
    }

    /// Whether what is to be stored next is every page of the database.
    fn base_waits(&self) -> bool {
        let front = self.queue.front();
        front.is_some_and(|batch| matches!(batch.body, Body::Streamed))
    }

    /// Makes the job of a snapshot that is wanted or due.
    fn prepare_image(&mut self, now: Instant) -> Result<()> {
        if !self.may_begin_images() {
            return Ok(());
        }
        let time = self.now();
        let due = self.policy.snapshots.due(&self.activity, now);
        let has_base = self.has_base;
        let Some(capture) = &mut self.capture else {
            return Ok(());
        };
        if has_base && self.gaze.uncaptured_since.is_none() && capture.begin_merges(time)? {
            end_batch(&mut self.queue);
        }
        let under_way = capture
            .jobs
            .iter()
            .any(|job| job.kind() == ImageKind::Snapshot);
        let Some(reason) = self.wanted.or(due).filter(|_| !under_way) else {
            return Ok(());
        };
        if has_base && self.activity.frames == 0 {
            // The newest snapshot holds this state already.
            let place = capture.place;
            self.wanted = None;
            self.tell_taken(&Taken {
                key: self.context.layout.snapshot(place.txid),
                txid: place.txid,
                sum: place.sum,
                bytes: 0,
                pages: 0,
                page_size: place.page_size,
                skipped: true,
            });
            return Ok(());
        }
        self.wanted = Some(reason);
        capture.begin_snapshot(time)?;
        end_batch(&mut self.queue);
        Ok(())
    }

    /// When the running minute ends, if it needs a merged file.
    pub(super) fn merge_deadline(&self, now: Instant) -> Option<Instant> {
        if !self.has_base || self.image.is_some() {
            return None;
        }
        let time = self.now();
        let next = self.capture.as_ref()?.levels.next(time)?;
        let wait = u64::try_from(next.millis_since(time)).ok()?;
        Some(now + std::time::Duration::from_millis(wait + 20))
    }

    /// Encodes the next part of the image for whoever wants it.
    pub(super) async fn step(&mut self, wanted: Wanted) -> Result<()> {
        let outcome = self
            .with(|capture, _| {
                let piece = capture.step()?;
                let last = matches!(piece, Some(Piece::Last(_)));
                let job = last.then(|| capture.jobs.remove(0));
                Ok((piece, job.map(|job| job.measures().1)))
            })
            .await;
        match outcome {
            Ok((Some(piece), pages)) => {
                // An upload that ended meanwhile wants no more.
                let _ = wanted.send(piece);
                if let (Some(pages), Some(image)) = (pages, &mut self.image) {
                    image.pieces = None;
                    image.pages = pages;
                }
                Ok(())
            }
            // The jobs were given up meanwhile.
            Ok((None, _)) => {
                drop(wanted);
                if let Some(image) = &mut self.image {
                    image.pieces = None;
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.distrust().await?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The audit failed: the chain's sums are not the database's. The page table is given up, so that the
    /// next session stores every page again.
    async fn distrust(&mut self) -> Result<()> {
        self.with(|capture, queue| {
            queue.clear();
            capture.table.drop_pending();
            if let Some(saved) = capture.table.saved().cloned() {
                capture.table.install_without_table(saved)?;
            }
            Ok(())
        })
        .await
    }

    /// No room for old versions: everything that streams was dropped.
    pub(super) async fn abandon_images(&mut self, error: &Error) {
        tracing::warn!(%error, "a snapshot or merged file was given up");
        // What left no room stays for a while.
        self.image_retry = Some(Backoff::after(self.image_retry, Instant::now()));
        if let Some(image) = &mut self.image {
            image.pieces = None;
        }
    }

    /// The image was stored, or not.
    pub(super) async fn imaged(&mut self, done: Result<Result<Shipped>>) -> Result<()> {
        let now = Instant::now();
        self.gaze.next = now;
        let Some(image) = self.image.take() else {
            return Ok(());
        };
        match done.and_then(|shipped| shipped) {
            Ok(shipped) => {
                self.image_retry = None;
                self.image_stored(image, shipped, now).await
            }
            Err(error) => self.image_failed(&image, error, now).await,
        }
    }

    async fn image_stored(&mut self, image: Image, shipped: Shipped, now: Instant) -> Result<()> {
        let bytes = shipped.bytes;
        // The file of an earlier run with the same pages says itself who made it, and when.
        let header = shipped.found.as_deref().unwrap_or(&image.header);
        let range = image.header.range;
        let (txid, post) = (range.max(), Some(image.position.sum.checksum));
        let pages = (image.pages > 0).then_some(image.pages);
        match image.kind {
            ImageKind::Snapshot => {
                let entry =
                    FileEntry::from_header(FileKey::snapshot(txid), bytes, header, post, pages);
                self.has_base = true;
                self.durable = Some(txid).max(self.durable);
                self.index_image(entry, Some(image.position));
                self.activity.frames = self.activity.frames.saturating_sub(image.frames);
                self.activity.last_snapshot = now;
                self.compact_after_snapshot();
                let time = self.now();
                self.context
                    .status
                    .send_modify(|status| status.last_snapshot = Some(time));
                self.tell_taken(&Taken {
                    key: self.context.layout.snapshot(txid),
                    txid,
                    sum: image.position.sum,
                    bytes,
                    pages: image.pages,
                    page_size: image.header.page_size,
                    skipped: false,
                });
                let reason = self.wanted.take().unwrap_or(SnapshotReason::Scheduled);
                self.context
                    .tell(Happening::Snapshot {
                        txid,
                        bytes,
                        reason,
                    })
                    .await;
            }
            ImageKind::Merged(level) => {
                let key = FileKey::merged(level, range);
                let entry = FileEntry::from_header(key, bytes, header, post, pages);
                self.index_image(entry, None);
                self.settle_merge(move |levels| levels.stored(level, range))
                    .await?;
                self.context.tell(Happening::Merge { txid, bytes }).await;
            }
            ImageKind::Base => {
                self.has_base = true;
                if let Some(capture) = &mut self.capture {
                    capture.table.update(|saved| saved.rewind_from = None)?;
                }
                if let Some(mut batch) = self.queue.pop_front() {
                    batch.pages = image.pages;
                    self.note_stored(batch, bytes).await;
                }
            }
        }
        self.context.recovered().await;
        Ok(())
    }

    fn tell_taken(&mut self, taken: &Taken) {
        for waiter in self.snapshot_waiters.drain(..) {
            // Who asked may have given up.
            let _ = waiter.send(Ok(taken.clone()));
        }
    }

    /// A merged file is stored, or will not be.
    async fn settle_merge(
        &mut self,
        settle: impl FnOnce(&mut Levels) + Send + 'static,
    ) -> Result<()> {
        if self.capture.is_none() {
            return Ok(());
        }
        self.with(|capture, _| {
            settle(&mut capture.levels);
            capture.save_levels_if_due();
            Ok(())
        })
        .await
    }

    async fn image_failed(&mut self, image: &Image, error: Error, now: Instant) -> Result<()> {
        if error.kind() == ErrorKind::Fenced {
            return Err(error);
        }
        // Parts are gone that cannot be encoded again: the job begins anew.
        if let Some(capture) = &mut self.capture {
            capture
                .jobs
                .retain(|job| job.header().range != image.header.range || job.kind() != image.kind);
        }
        self.image_retry = Some(Backoff::after(self.image_retry, now));
        if error.kind() != ErrorKind::Cancelled {
            self.context.failed(&error).await;
        }
        match image.kind {
            ImageKind::Base => Err(error),
            ImageKind::Snapshot => Ok(()),
            ImageKind::Merged(level) => {
                let range = image.header.range;
                self.settle_merge(move |levels| levels.put_back(level, range))
                    .await
            }
        }
    }
}
