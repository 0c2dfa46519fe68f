//! What happened to one database since the process began, counted: what metrics are made of.
//!
//! Counting is a relaxed atomic addition, so that it costs nothing where commits are quick.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::checkpoint::Outcome;
use super::event::{Happening, REBASE_REASONS};

/// Bounds of the timings' buckets, from a quick local step to a minute.
const BOUNDS: [Duration; 8] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(60),
];

/// How often things took how long.
#[derive(Debug, Default)]
pub struct Timings {
    /// By bucket; the last one is for what took longer than every bound.
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Timings {
    pub(super) fn note(&self, took: Duration) {
        let at = BOUNDS.iter().take_while(|bound| took > **bound).count();
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The upper bound of each bucket in seconds, the last one infinite, and how many fell into it.
    pub fn buckets(&self) -> [(f64, u64); BOUNDS.len() + 1] {
        std::array::from_fn(|at| {
            let bound = BOUNDS.get(at).map_or(f64::INFINITY, Duration::as_secs_f64);
            let count = self.counts.get(at).map_or(0, load);
            (bound, count)
        })
    }

    /// All of them together, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_micros(load(&self.micros)).as_secs_f64()
    }
}

/// Counts of one database.
#[derive(Debug, Default)]
pub struct Counters {
    errors: AtomicU64,
    snapshots: AtomicU64,
    proofs: AtomicU64,
    failed_proofs: AtomicU64,
    rebases: [AtomicU64; REBASE_REASONS.len()],
    checkpoints: AtomicU64,
    barriers: [AtomicU64; Outcome::ALL.len()],
    /// From the oldest commit of a file to the moment at which the file was stored.
    pub sync_latency: Timings,
    /// Checkpoints, from the first turn to the last.
    pub checkpoint: Timings,
    /// For how long the application's writers had to wait for a barrier.
    pub barrier: Timings,
    ended: AtomicBool,
    died: AtomicBool,
}

impl Counters {
    /// Counts what is told.
    pub(super) fn told(&self, what: &Happening) {
        match what {
            Happening::Snapshot { .. } => add(&self.snapshots),
            Happening::Rebase { reason, .. } => {
                // One that is not listed counts as the last, which is called so.
                let at = REBASE_REASONS.iter().position(|known| known == reason);
                let at = at.unwrap_or(REBASE_REASONS.len() - 1);
                self.rebases.get(at).into_iter().for_each(add);
            }
            Happening::Proven { .. } => add(&self.proofs),
            Happening::Unproven { .. } => add(&self.failed_proofs),
            Happening::Watching { .. }
            | Happening::Sync { .. }
            | Happening::Merge { .. }
            | Happening::Compact { .. }
            | Happening::Fenced { .. }
            | Happening::Error { .. }
            | Happening::Recovered { .. }
            | Happening::Drained { .. } => {}
        }
    }

    /// Something failed, told or not.
    pub(super) fn failed(&self) {
        add(&self.errors);
    }

    /// A checkpoint was made.
    pub(super) fn checkpointed(&self, took: Duration) {
        add(&self.checkpoints);
        self.checkpoint.note(took);
    }

    /// A barrier was tried; `held` is how long it held writers, if it did.
    pub(super) fn barred(&self, outcome: Outcome, held: Option<Duration>) {
        self.barriers
            .get(outcome as usize)
            .into_iter()
            .for_each(add);
        if let Some(held) = held {
            self.barrier.note(held);
        }
    }

    /// Failures: uploads, snapshots, the index, whole sessions.
    pub fn errors(&self) -> u64 {
        load(&self.errors)
    }

    /// Snapshots stored.
    pub fn snapshots(&self) -> u64 {
        load(&self.snapshots)
    }

    /// Proofs by restore that succeeded.
    pub fn proofs(&self) -> u64 {
        load(&self.proofs)
    }

    /// Proofs by restore that failed.
    pub fn failed_proofs(&self) -> u64 {
        load(&self.failed_proofs)
    }

    /// Rebases, by reason.
    pub fn rebases(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.rebases.iter().map(load);
        REBASE_REASONS.into_iter().zip(counts)
    }

    /// Checkpoints made because the WAL was long.
    pub fn checkpoints(&self) -> u64 {
        load(&self.checkpoints)
    }

    /// Barriers, by what they led to.
    pub fn barriers(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.barriers.iter().map(load);
        Outcome::ALL.into_iter().map(Outcome::name).zip(counts)
    }

    /// Whether the database's task died of a defect: only another process can watch it again.
    pub fn died(&self) -> bool {
        self.died.load(Ordering::Relaxed)
    }
}

/// Notes the death of a task that does not reach its end.
pub(super) struct Vital(pub(super) std::sync::Arc<Counters>);

impl Vital {
    /// The task came to its end.
    pub(super) fn ended(self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        if !self.0.ended.load(Ordering::Relaxed) {
            self.0.died.store(true, Ordering::Relaxed);
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::types::Txid;

    #[test]
    fn timings_fall_into_the_bucket_that_holds_them() {
        let timings = Timings::default();
        for millis in [0, 1, 2, 60_000, 60_001] {
            timings.note(Duration::from_millis(millis));
        }
        let counts = timings.buckets().map(|(_, count)| count);
        assert_eq!(counts, [2, 1, 0, 0, 0, 0, 0, 1, 1]);
        assert!((timings.sum_seconds() - 120.004).abs() < 1e-9);
        assert!(timings.buckets()[8].0.is_infinite());
    }

    #[test]
    fn h8_every_rebase_counts_also_one_for_a_reason_without_a_name() {
        let counters = Counters::default();
        for reason in ["wal_restarted", "something new"] {
            counters.told(&Happening::Rebase {
                txid: Txid::FIRST,
                bytes: 1,
                reason,
                message: String::new(),
            });
        }
        let counted: Vec<_> = counters.rebases().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [("wal_restarted", 1), ("other", 1)]);
    }

    #[test]
    fn a_task_that_does_not_reach_its_end_died() {
        let counters = Arc::new(Counters::default());
        Vital(counters.clone()).ended();
        assert!(!counters.died());
        let counters = Arc::new(Counters::default());
        drop(Vital(counters.clone()));
        assert!(counters.died());
    }
}
