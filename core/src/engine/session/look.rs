//! Looking at the WAL, and capturing what is there.

use std::time::Duration;

use tokio::time::Instant;

use super::super::budget::Room;
use super::super::capture::{Batch, Captured, Turn};
use super::super::checkpoint::Step;
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
        let (before, at) = std::mem::replace(&mut self.last, (frames, now));
        let grown = f64::from(frames.saturating_sub(before));
        let missing = f64::from(threshold.saturating_sub(frames));
        let passed = now.duration_since(at).as_secs_f64();
        if passed > 2.0 * GROWING.1.as_secs_f64() {
            // It was quiet until now, which says nothing about what begins.
            return FIRST_GROWTH;
        }
        if grown <= 0.0 {
            return GROWING.1;
        }
        // Half of it: writers speed up.
        let wait = (passed * missing / grown / 2.0).min(GROWING.1.as_secs_f64());
        Duration::from_secs_f64(wait).clamp(GROWING.0, GROWING.1)
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
        let end = match self.checkpoints.step(peek.header.frames, now) {
            Step::Leave if uncaptured && self.may_ship(now) => self.capture().await,
            Step::Leave => None,
            Step::Passive => self.checkpoint(false).await,
            Step::Barrier => self.checkpoint(true).await,
        };
        if end.is_some() {
            return Ok(end);
        }
        self.plan_next(now, &peek)
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

    /// Whether the next object may be made now: nothing is on its way, and the last one is old enough.
    fn may_ship(&self, now: Instant) -> bool {
        let hurried = self.stop_by.is_some() || !self.sync_waiters.is_empty();
        self.is_shipped() && (hurried || self.ship_at(now) <= now)
    }

    fn ship_at(&self, now: Instant) -> Instant {
        self.last_ship
            .map_or(now, |last| last + self.policy.spacing())
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

    /// Captures everything committed; into the spool where it is much.
    async fn capture(&mut self) -> Option<End> {
        let now = self.now();
        let seen = Seen {
            first: self.gaze.uncaptured_since.unwrap_or(now),
            last: now,
        };
        let merge = self.is_shipped() && self.has_base;
        let budget = self.context.shared.memory.clone();
        let outcome = self
            .with(move |capture, queue| {
                if merge {
                    capture.begin_merges(now)?;
                }
                let peek = capture.source.peek()?;
                let mut room = budget.take(BATCH_MEMORY);
                let spool = capture.needs_spool(peek.header.frames, room.bytes());
                if spool {
                    capture.spool(queue.iter_mut())?;
                    room = Room::none();
                }
                let may_restart = queue.iter().all(Batch::outlives_us);
                match capture.turn(seen, room, may_restart)? {
                    Turn::Nothing => Ok(None),
                    Turn::Batch(batch) => {
                        let frames = batch.frames;
                        queue.push_back(*batch);
                        Ok(Some(frames))
                    }
                    Turn::Broken(why) => {
                        tracing::warn!(reason = why.reason, message = %why.message, "rebasing");
                        capture.spool(queue.iter_mut())?;
                        let batch = capture.rebase(why, now)?;
                        let found = batch.is_some();
                        queue.extend(batch);
                        Ok(found.then_some(1))
                    }
                }
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

    /// Keeps the WAL short.
    async fn checkpoint(&mut self, barrier: bool) -> Option<End> {
        let time = self.now();
        let seen = Seen {
            first: self.gaze.uncaptured_since.unwrap_or(time),
            last: time,
        };
        let outcome = self
            .with(move |capture, queue| {
                capture.spool(queue.iter_mut())?;
                let mut batches = Vec::new();
                let done = capture.checkpoint(barrier, seen, &mut batches);
                let frames: u64 = batches.iter().map(|batch| batch.frames).sum();
                queue.extend(batches);
                done.map(|done| (done, frames))
            })
            .await;
        match outcome {
            Ok((outcome, frames)) => {
                tracing::debug!(?outcome, frames, "checkpoint");
                self.checkpoints.done(outcome, Instant::now());
                self.captured((frames > 0).then_some(frames));
                None
            }
            Err(error) => Some(ended(error)),
        }
    }

    /// Decides when to look again, and sets the watch where nothing is going on.
    fn plan_next(&mut self, now: Instant, peek: &Peek) -> Result<Option<End>> {
        let frames = peek.header.frames;
        if self.gaze.uncaptured_since.is_some() {
            let grows = self.gaze.until(frames, self.policy.checkpoint_pages, now);
            // While an upload runs its end is what we wait for; it sets the time itself.
            let ship = if self.is_shipped() {
                self.ship_at(now)
            } else {
                now + GROWING.1
            };
            let patience = self.checkpoints.not_before().unwrap_or(now);
            let looks = (now + grows).max(patience);
            self.gaze.next = ship.min(looks).max(now + GLANCE.0);
            return Ok(None);
        }
        self.gaze.last = (frames, now);
        if peek.writing {
            self.gaze.next = now + self.gaze.glance;
            self.gaze.glance = (self.gaze.glance * 2).min(GLANCE.1);
            return Ok(None);
        }
        self.gaze.glance = GLANCE.0;
        if !self.gaze.armed {
            self.gaze.watched = self.context.arm();
            self.gaze.armed = self.gaze.watched;
            // A write between the look and the watch would be seen by nobody.
            let Some(again) = self.peek(now)? else {
                return Ok(None);
            };
            if self.note(&again) || again.writing {
                self.gaze.next = now;
                return Ok(None);
            }
        }
        self.gaze.next = now
            + if self.gaze.watched {
                POLL
            } else {
                POLL_UNWATCHED
            };
        Ok(None)
    }
}

/// What an error of the blocking half means for the session.
fn ended(error: Error) -> End {
    match error.kind() {
        ErrorKind::Exhausted => End::Full(error),
        _ => End::Reopen(error),
    }
}
