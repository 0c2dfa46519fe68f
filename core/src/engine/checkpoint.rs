//! When we checkpoint the WAL ourselves, and how politely. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Longest time that the barrier holds the write lock: the app's commit latency is ours to protect.
pub(crate) const BARRIER_LIMIT: Duration = Duration::from_millis(20);
/// Pause after another reader kept the WAL from restarting; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The same where only the time did not suffice: the rest is shorter next time.
const FIRST_LATE: Duration = Duration::from_millis(10);
const LONGEST_LATE: Duration = Duration::from_millis(100);

/// What a checkpoint led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The next writer restarts the WAL.
    Restartable,
    /// Writers were quicker than we, or the lock was not to be had.
    Late,
    /// Another reader holds frames back.
    Blocked,
}

/// What became of the write lock of a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It was not to be had.
    Refused,
    /// Nobody could write for so long.
    For(Duration),
}

impl Outcome {
    /// All outcomes, in the order of their discriminants.
    pub(crate) const ALL: [Self; 3] = [Self::Restartable, Self::Late, Self::Blocked];

    /// The outcome as the metric's label names it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Restartable => "restartable",
            Self::Late => "late",
            Self::Blocked => "blocked",
        }
    }
}

/// Whether the write lock may be taken for a moment to let the WAL restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// When writers never pause.
    Auto,
    /// Never: the WAL may grow as long as writers do not pause.
    Off,
}

/// What to do about the length of the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Leave,
    /// Capture what the log grew by, and copy back what is captured: it grows quickly.
    Follow,
    /// Checkpoint, without taking the write lock.
    Passive,
    /// Checkpoint; where writers never pause, with the barrier.
    Barrier,
}

/// Decides on checkpoints of one database.
#[derive(Debug)]
pub(crate) struct CheckpointPolicy {
    /// WAL length in frames past which we checkpoint.
    pub(crate) threshold: u32,
    /// Whether the barrier is allowed.
    pub(crate) barrier: Barrier,
    /// How many frames a burst added while we shortened the log, lately.
    growth: u32,
    /// The log's length when the attempts began that still go on.
    begun: Option<u32>,
    pause: Duration,
    late: Duration,
    not_before: Option<Instant>,
    /// When a checkpoint without the barrier that was late may be tried again.
    not_passive_before: Option<Instant>,
}

impl CheckpointPolicy {
    /// A policy that has not tried anything yet.
    pub(crate) fn new(threshold: u32, barrier: Barrier) -> Self {
        Self {
            threshold,
            barrier,
            // A quick writer, until one was seen.
            growth: threshold.saturating_add(threshold / 4),
            begun: None,
            pause: FIRST_PAUSE,
            late: FIRST_LATE,
            not_before: None,
            not_passive_before: None,
        }
    }

    /// The next step for a WAL of `frames` frames, of which `behind` are not captured.
    pub(crate) fn step(&self, frames: u32, behind: u32, now: Instant) -> Step {
        let rested = |at: Option<Instant>| at.is_none_or(|at| now >= at);
        if self.threshold == 0 {
            return Step::Leave;
        }
        // Writers that pause let it restart without the barrier; in a burst that would be time lost.
        let calm = behind < self.follow_at() / 4;
        let barrier_at = if calm {
            self.threshold
        } else {
            self.burst_at()
        };
        if rested(self.not_before) {
            if self.barrier == Barrier::Auto && frames >= barrier_at {
                return Step::Barrier;
            }
            if frames >= self.passive_at() && rested(self.not_passive_before) {
                return Step::Passive;
            }
        }
        if behind >= self.follow_at() {
            Step::Follow
        } else {
            Step::Leave
        }
    }

    /// The length at which there is something to do next, for a WAL of `frames` frames, `behind` not captured.
    pub(crate) fn next_step(&self, frames: u32, behind: u32) -> u32 {
        let follow = frames
            .saturating_sub(behind)
            .saturating_add(self.follow_at());
        [self.burst_at(), self.passive_at(), self.threshold]
            .into_iter()
            .filter(|at| *at > frames)
            .fold(follow, u32::min)
    }

    fn follow_at(&self) -> u32 {
        (self.threshold / 4).max(1)
    }

    /// Early enough that a single cycle that takes three times as long as all before does no harm.
    fn half(&self) -> u32 {
        (self.threshold / 2).max(1)
    }

    fn passive_at(&self) -> u32 {
        (self.threshold - self.threshold / 4).max(1)
    }

    /// Where a burst's log is shortened: so early that what it adds meanwhile leaves it below twice the
    /// threshold.
    fn burst_at(&self) -> u32 {
        let most = self.threshold.saturating_add(self.threshold / 4 * 3);
        most.saturating_sub(self.growth)
            .clamp(self.follow_at(), self.half())
    }

    /// A checkpoint ended, which had the barrier or not. It began with a log of `began` frames and ended
    /// with one of `frames`.
    pub(crate) fn done(
        &mut self,
        outcome: Outcome,
        barrier: bool,
        (began, frames): (u32, u32),
        now: Instant,
    ) {
        let begun = *self.begun.get_or_insert(began);
        match outcome {
            Outcome::Restartable => {
                self.begun = None;
                // One cycle that was quicker by chance is no slower writer.
                let grown = frames.saturating_sub(begun);
                self.growth = grown.max(self.growth - self.growth / 32);
                self.pause = FIRST_PAUSE;
                self.late = FIRST_LATE;
                self.not_before = None;
                self.not_passive_before = None;
            }
            Outcome::Late if !barrier => self.not_passive_before = Some(now + LONGEST_LATE),
            Outcome::Late => {
                self.not_before = Some(now + self.late);
                self.late = (self.late * 2).min(LONGEST_LATE);
            }
            Outcome::Blocked => {
                self.not_before = Some(now + self.pause);
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_met_as_early_as_the_last_one_was_quick() {
        let now = Instant::now();
        let mut policy = CheckpointPolicy::new(4000, Barrier::Auto);
        assert_eq!(policy.step(1999, 1000, now), Step::Follow);
        assert_eq!(
            policy.step(2000, 1000, now),
            Step::Barrier,
            "nothing known yet"
        );
        assert_eq!(policy.step(2000, 200, now), Step::Leave, "no burst");
        // Two attempts, and 5,600 frames from the first one on.
        policy.done(Outcome::Late, true, (2000, 4000), now);
        policy.done(Outcome::Restartable, true, (4000, 7600), now);
        assert_eq!(policy.step(1399, 1000, now), Step::Follow);
        assert_eq!(policy.step(1400, 1000, now), Step::Barrier);
        assert_eq!(policy.next_step(1100, 0), 1400);
        // As early as that only while writers stay quick.
        for _ in 0..30 {
            policy.done(Outcome::Restartable, true, (1400, 1500), now);
        }
        assert_eq!(policy.step(1999, 1000, now), Step::Follow);
        assert_eq!(policy.step(2000, 1000, now), Step::Barrier);
        // Whatever was seen, something is captured before.
        policy.done(Outcome::Restartable, true, (3000, 30_000), now);
        assert_eq!(policy.step(999, 999, now), Step::Leave);
        assert_eq!(policy.step(1000, 999, now), Step::Barrier);
    }

    #[test]
    fn a_long_wal_is_checkpointed_with_patience_where_others_block() {
        let now = Instant::now();
        let mut policy = CheckpointPolicy::new(4000, Barrier::Auto);
        policy.growth = 0;
        assert_eq!(policy.step(1999, 999, now), Step::Leave);
        assert_eq!(policy.step(1999, 1000, now), Step::Follow);
        assert_eq!(policy.step(2999, 249, now), Step::Leave);
        assert_eq!(policy.step(3000, 249, now), Step::Passive);
        assert_eq!(policy.step(3000, 250, now), Step::Barrier, "a burst");
        policy.done(Outcome::Late, false, (3000, 3000), now);
        assert_eq!(policy.step(3999, 249, now), Step::Leave, "writers go on");
        assert_eq!(policy.step(4000, 9, now), Step::Barrier);
        assert_eq!(policy.next_step(500, 200), 1300);
        assert_eq!(policy.next_step(2500, 200), 3000);
        assert_eq!(policy.next_step(3500, 0), 4000);
        assert_eq!(policy.next_step(9000, 0), 10_000);
        for outcome in [Outcome::Blocked, Outcome::Late] {
            let mut waited = Duration::ZERO;
            for _ in 0..20 {
                policy.done(outcome, true, (9000, 9000), now + waited);
                assert_eq!(policy.step(9000, 0, now + waited), Step::Leave, "backs off");
                waited += LONGEST_PAUSE;
                assert_eq!(
                    policy.step(9000, 0, now + waited),
                    Step::Barrier,
                    "but never for ever"
                );
            }
        }
        policy.done(Outcome::Restartable, true, (9000, 9000), now);
        policy.done(Outcome::Late, true, (9000, 9000), now);
        assert_eq!(
            policy.step(9000, 0, now + FIRST_LATE),
            Step::Barrier,
            "soon where only time lacked"
        );
        assert_eq!(
            CheckpointPolicy::new(4000, Barrier::Off).step(9000, 0, now),
            Step::Passive
        );
        assert_eq!(
            CheckpointPolicy::new(0, Barrier::Auto).step(9000, 9000, now),
            Step::Leave
        );
    }
}
