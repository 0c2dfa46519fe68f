//! Looking at the WAL, and capturing what is there.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::budget::Budget;
use super::super::capture::{Batch, Capture, Captured, Turn};
use super::super::checkpoint::{Hold, Step};
use super::super::encode::Seen;
use super::{End, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::{Identity, Peek};
use crate::types::Timestamp;
use crate::wal::wake::WakeKind;

/// First and last pause while a writer is active but nothing new is committed yet.
const GLANCE: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(50));
/// How often an idle database is looked at behind the events: names, and what events may have missed.
const POLL: Duration = Duration::from_secs(10);
/// How often where the kernel grants no watch.
const POLL_UNWATCHED: Duration = Duration::from_millis(200);
/// Bounds of the pause between two looks at a WAL that grows towards its checkpoint.
const GROWING: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));
/// The same where it begins to grow.
const FIRST_GROWTH: Duration = Duration::from_millis(10);
/// A header that is being written or recovered is looked at again this soon.
const TORN: Duration = Duration::from_millis(1);
/// A captured batch larger than this goes to the spool.
const BATCH_MEMORY: u64 = 4 * 1024 * 1024;

/// What the last look showed, and when to look again.
#[derive(Debug)]
pub(super) struct Gaze {
    pub(super) next: Instant,
    /// When the oldest commit that is not captured was seen.
    pub(super) uncaptured_since: Option<Timestamp>,
    /// Length of the WAL in bytes.
    pub(super) wal_bytes: u64,
    /// Frames at the last look, and when that was.
    last: (u32, Instant),
    glance: Duration,
    names_checked: Instant,
    names_changed: bool,
    watched: bool,
    /// The next write is an event.
    armed: bool,
}

impl Gaze {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next: now,
            uncaptured_since: None,
            wal_bytes: 0,
            last: (0, now),
            glance: GLANCE.0,
            names_checked: now,
            names_changed: false,
            watched: true,
            armed: false,
        }
    }

    /// How long until the WAL has `threshold` frames if it grows as it did.
    fn until(&mut self, frames: u32, threshold: u32, now: Instant) -> Duration {
        let (before, at) = self.last;
        let passed = now.duration_since(at);
        if passed < FIRST_GROWTH / 2 {
            // Too short a time to tell.
            return FIRST_GROWTH;
        }
        self.last = (frames, now);
        if passed > 2 * GROWING.1 {
            // It was quiet until now, which says nothing about what begins.
            return FIRST_GROWTH;
        }
        // Shorter than before: it began anew in between.
        let grown = f64::from(frames.checked_sub(before).unwrap_or(frames));
        let missing = f64::from(threshold.saturating_sub(frames));
        if grown <= 0.0 {
            return GROWING.1;
        }
        // Half of it: writers speed up.
        let wait = passed.as_secs_f64() * missing / grown / 2.0;
        Duration::from_secs_f64(wait.min(GROWING.1.as_secs_f64())).clamp(GROWING.0, GROWING.1)
    }
}

impl Session<'_> {
    pub(super) fn woken(&mut self, kind: WakeKind) {
        match kind {
            WakeKind::Written => {}
            // It may be another file now.
            WakeKind::Names | WakeKind::Missed => self.gaze.names_changed = true,
            WakeKind::Unwatched => self.gaze.watched = false,
        }
        self.gaze.armed = false;
        self.gaze.glance = GLANCE.0;
        self.gaze.next = self.gaze.next.min(Instant::now());
    }

    /// Looks at the WAL, captures and checkpoints what is due, and says when to look again.
    pub(super) async fn look(&mut self, now: Instant) -> Result<Option<End>> {
        if let Some(end) = self.check_names(now)? {
            return Ok(Some(end));
        }
        let Some(peek) = self.peek(now)? else {
            return Ok(None);
        };
        let uncaptured = self.note(&peek);
        let (frames, behind) = if uncaptured {
            (peek.header.frames, self.behind(&peek))
        } else if self.may_restart() {
            // As good as empty: the next writer begins it anew.
            (0, 0)
        } else {
            (peek.header.frames, 0)
        };
        let step = self.checkpoints.step(frames, behind, now);
        let end = match step {
            Step::Leave if uncaptured && self.may_ship(now) => self.capture(false).await,
            Step::Leave => None,
            Step::Follow => {
                let ease = !self.is_eased(&peek);
                self.capture(ease).await
            }
            Step::Passive => self.checkpoint(false, frames).await,
            Step::Barrier => self.checkpoint(true, frames).await,
        };
        if end.is_some() {
            return Ok(end);
        }
        self.plan_next(now, &peek)?;
        if step != Step::Leave {
            // What was seen before is out of date, and writers were quick.
            let now = Instant::now();
            self.gaze.last = (self.captured_frames(), now);
            self.gaze.next = self.gaze.next.min(now + FIRST_GROWTH);
        }
        Ok(None)
    }

    fn peek(&mut self, now: Instant) -> Result<Option<Peek>> {
        let Some(capture) = &self.capture else {
            return Ok(None);
        };
        match capture.source.peek() {
            Ok(peek) => Ok(Some(peek)),
            Err(error) if error.kind() == ErrorKind::Busy => {
                self.gaze.next = now + TORN;
                // A header that is being written is a commit that nobody has seen.
                let time = self.now();
                self.gaze.uncaptured_since.get_or_insert(time);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Notes what a look showed; true if something is committed that is not captured.
    fn note(&mut self, peek: &Peek) -> bool {
        let Some(capture) = &self.capture else {
            return false;
        };
        let size = u64::from(capture.place.page_size.get()) + 24;
        self.gaze.wal_bytes = u64::from(peek.header.frames) * size;
        let uncaptured = match (capture.captured, peek.header.end()) {
            (Captured::Wal(cursor), Some(end)) => {
                let here = (cursor.salt(), cursor.frame(), cursor.checksum());
                here != (end.salt, end.frames, end.checksum)
            }
            (Captured::File, Some(_)) => true,
            (Captured::File | Captured::Wal(_), None) => false,
        };
        self.gaze.uncaptured_since = match (uncaptured, self.gaze.uncaptured_since) {
            (true, since) => since.or(Some(self.now())),
            (false, _) => None,
        };
        uncaptured
    }

    /// Whether the next writer restarts the log.
    fn may_restart(&self) -> bool {
        let capture = self.capture.as_ref();
        capture.is_some_and(|capture| capture.source.view().restartable)
    }

    /// Whether the app copies back itself what was captured by the last time that we followed a growing log.
    /// Then it also waits for the disk itself, and the log grows no faster than the disk takes.
    fn is_eased(&self, peek: &Peek) -> bool {
        peek.backfilled >= self.captured_frames()
    }

    /// How many frames of the log are captured; none where it begins anew.
    fn captured_frames(&self) -> u32 {
        match self.may_restart() {
            true => 0,
            false => self.captured_end(),
        }
    }

    /// Where in the log the captured part ends.
    fn captured_end(&self) -> u32 {
        match self.capture.as_ref().map(|capture| capture.captured) {
            Some(Captured::Wal(cursor)) => cursor.frame(),
            _ => 0,
        }
    }

    /// How many frames are committed and not captured.
    fn behind(&self, peek: &Peek) -> u32 {
        let frames = peek.header.frames;
        match self.capture.as_ref().map(|capture| capture.captured) {
            Some(Captured::Wal(cursor)) if cursor.salt() == peek.header.salt => {
                frames.saturating_sub(cursor.frame())
            }
            _ => frames,
        }
    }

    /// Whether the next object may be made now: nothing is on its way, and the last one is old enough.
    fn may_ship(&self, now: Instant) -> bool {
        self.sending() == 0 && self.ship_at(now) <= now
    }

    /// Compares the names with our descriptors now and then (invariant 13).
    fn check_names(&mut self, now: Instant) -> Result<Option<End>> {
        if !self.gaze.names_changed && now < self.gaze.names_checked + POLL {
            return Ok(None);
        }
        self.gaze.names_changed = false;
        self.gaze.names_checked = now;
        let Some(capture) = &self.capture else {
            return Ok(None);
        };
        let path = capture.source.path().display();
        Ok(match capture.source.identity()? {
            Identity::Same => None,
            Identity::Replaced => {
                let message = "the file was replaced while it was watched";
                Some(End::Reopen(
                    Error::new(ErrorKind::Unavailable, message).on(path),
                ))
            }
            Identity::Gone => {
                let message = "the file was removed while it was watched";
                Some(End::Reopen(
                    Error::new(ErrorKind::NotFound, message).on(path),
                ))
            }
        })
    }

    /// Captures everything committed; into the spool where it is much. While the log grows quickly it is also
    /// copied back as far as it is captured (`ease`).
    async fn capture(&mut self, ease: bool) -> Option<End> {
        let now = self.now();
        let seen = Seen {
            first: self.gaze.uncaptured_since.unwrap_or(now),
            last: now,
        };
        let merge = self.may_begin_images() && self.has_base;
        let budget = self.context.shared.memory.clone();
        let outcome = self
            .with(move |capture, queue| {
                if merge && capture.begin_merges(now)? {
                    end_batch(queue);
                }
                let frames = capture_into(capture, queue, seen, &budget)?;
                if ease {
                    capture.ease()?;
                }
                Ok(frames)
            })
            .await;
        match outcome {
            Ok(frames) => {
                self.captured(frames);
                None
            }
            Err(error) => Some(ended(error)),
        }
    }

    fn captured(&mut self, frames: Option<u64>) {
        self.gaze.uncaptured_since = None;
        if let Some(frames) = frames {
            self.activity.frames += frames.max(1);
            self.activity.last_change = Instant::now();
        }
    }

    /// Keeps the WAL short, which has `began` frames.
    async fn checkpoint(&mut self, barrier: bool, began: u32) -> Option<End> {
        let time = self.now();
        let seen = Seen {
            first: self.gaze.uncaptured_since.unwrap_or(time),
            last: time,
        };
        let start = Instant::now();
        let outcome = self
            .with(move |capture, queue| {
                capture.spool(queue)?;
                let mut batches = Vec::new();
                let done = capture.checkpoint(barrier, seen, &mut batches);
                let frames: u64 = batches.iter().map(|batch| batch.frames).sum();
                queue.extend(batches);
                done.map(|done| (done, frames, capture.barrier.take()))
            })
            .await;
        match outcome {
            Ok((outcome, frames, hold)) => {
                let lengths = (began, self.captured_end());
                tracing::debug!(?outcome, barrier, ?lengths, took = ?start.elapsed(), "checkpoint");
                self.checkpoints
                    .done(outcome, barrier, lengths, Instant::now());
                self.context.counters.checkpointed(start.elapsed());
                match hold {
                    Some(Hold::For(held)) => self.context.counters.barred(outcome, Some(held)),
                    Some(Hold::Refused) => self.context.counters.barred(outcome, None),
                    None => {}
                }
                self.captured((frames > 0).then_some(frames));
                None
            }
            Err(error) => Some(ended(error)),
        }
    }

    /// Decides when to look again, and sets the watch where nothing is going on.
    fn plan_next(&mut self, now: Instant, peek: &Peek) -> Result<()> {
        let frames = peek.header.frames;
        if self.gaze.uncaptured_since.is_some() {
            let next = self.checkpoints.next_step(frames, self.behind(peek));
            let grows = self.gaze.until(frames, next, now);
            // While an upload runs its end is what we wait for; it sets the time itself.
            let ship = if self.sending() == 0 {
                self.ship_at(now)
            } else {
                now + GROWING.1
            };
            let looks = now + grows;
            self.gaze.next = ship.min(looks).max(now + GLANCE.0);
            return Ok(());
        }
        self.gaze.last = (frames, now);
        if peek.writing {
            self.gaze.next = now + self.gaze.glance;
            self.gaze.glance = (self.gaze.glance * 2).min(GLANCE.1);
            return Ok(());
        }
        self.gaze.glance = GLANCE.0;
        if !self.gaze.armed {
            self.gaze.watched = self.context.arm();
            self.gaze.armed = self.gaze.watched;
            // A write between the look and the watch would be seen by nobody.
            let Some(again) = self.peek(now)? else {
                return Ok(());
            };
            if self.note(&again) || again.writing {
                self.gaze.next = now;
                return Ok(());
            }
        }
        self.gaze.next = now
            + if self.gaze.watched {
                POLL
            } else {
                POLL_UNWATCHED
            };
        Ok(())
    }
}

/// An image holds the captured state: what is captured next is another object.
pub(super) fn end_batch(queue: &mut VecDeque<Batch>) {
    if let Some(last) = queue.back_mut() {
        last.boundary = true;
    }
}

/// Captures everything committed to the end of `queue`; how many frames that were, if any.
fn capture_into(
    capture: &mut Capture,
    queue: &mut VecDeque<Batch>,
    seen: Seen,
    budget: &Arc<Budget>,
) -> Result<Option<u64>> {
    let may_restart = queue.iter().all(Batch::outlives_us);
    let mut turn = capture.turn(seen, budget.take(BATCH_MEMORY), may_restart)?;
    if matches!(turn, Turn::Held) {
        capture.spool(queue)?;
        turn = capture.turn(seen, budget.take(BATCH_MEMORY), true)?;
    }
    match turn {
        Turn::Nothing | Turn::Held => Ok(None),
        Turn::Batch(batch) => {
            let frames = batch.frames;
            queue.push_back(*batch);
            Ok(Some(frames))
        }
        Turn::Broken(why) => {
            tracing::warn!(reason = why.reason, message = %why.message, "rebasing");
            capture.spool(queue)?;
            let batch = capture.rebase(why, seen.last)?;
            let found = batch.is_some();
            queue.extend(batch);
            Ok(found.then_some(1))
        }
    }
}

/// What an error of the blocking half means for the session.
pub(super) fn ended(error: Error) -> End {
    match error.kind() {
        ErrorKind::Exhausted => End::Full(error),
        _ => End::Reopen(error),
    }
}
