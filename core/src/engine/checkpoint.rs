//! When we checkpoint the WAL ourselves, and how politely (DESIGN section 4, step 6). Pure.

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
    pause: Duration,
    late: Duration,
    not_before: Option<Instant>,
}

impl CheckpointPolicy {
    /// A policy that has not tried anything yet.
    pub(crate) fn new(threshold: u32, barrier: Barrier) -> Self {
        Self {
            threshold,
            barrier,
            pause: FIRST_PAUSE,
            late: FIRST_LATE,
            not_before: None,
        }
    }

    /// The next step for a WAL of `frames` frames.
    pub(crate) fn step(&self, frames: u32, now: Instant) -> Step {
        if self.threshold == 0 || frames < self.threshold {
            return Step::Leave;
        }
        if self.not_before.is_some_and(|at| now < at) {
            return Step::Leave;
        }
        match self.barrier {
            Barrier::Auto => Step::Barrier,
            Barrier::Off => Step::Passive,
        }
    }

    /// A checkpoint ended.
    pub(crate) fn done(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Restartable => {
                self.pause = FIRST_PAUSE;
                self.late = FIRST_LATE;
                self.not_before = None;
            }
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

    /// When a checkpoint that is put off may be tried again.
    pub(crate) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wal_is_checkpointed_with_patience_where_others_block() {
        let now = Instant::now();
        let mut policy = CheckpointPolicy::new(4000, Barrier::Auto);
        assert_eq!(policy.step(3999, now), Step::Leave);
        assert_eq!(policy.step(4000, now), Step::Barrier);
        for outcome in [Outcome::Blocked, Outcome::Late] {
            let mut waited = Duration::ZERO;
            for _ in 0..20 {
                policy.done(outcome, now + waited);
                assert_eq!(policy.step(9000, now + waited), Step::Leave, "backs off");
                waited += LONGEST_PAUSE;
                assert_eq!(
                    policy.step(9000, now + waited),
                    Step::Barrier,
                    "but never for ever"
                );
            }
        }
        policy.done(Outcome::Restartable, now);
        policy.done(Outcome::Late, now);
        assert_eq!(
            policy.step(9000, now + FIRST_LATE),
            Step::Barrier,
            "soon where only time lacked"
        );
        assert_eq!(
            CheckpointPolicy::new(4000, Barrier::Off).step(9000, now),
            Step::Passive
        );
        assert_eq!(
            CheckpointPolicy::new(0, Barrier::Auto).step(9000, now),
            Step::Leave
        );
    }
}
