//! Whether a lease may be taken, and whether a write needs another look at it. Nothing here acts.

use std::time::Duration;

use crate::clock::Clock;
use crate::config;
use crate::types::{Epoch, Lineage, StreamId, Timestamp};

use super::record::{Holder, Record};

/// A write whose end lies this long after the last look at the lease needs another look before it is
/// called durable; a new owner waits this long where the old one may have written meanwhile.
pub const RECHECK: Duration = Duration::from_secs(10);

/// What our state directory knows of the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// Its history.
    pub lineage: Lineage,
    /// The last epoch that we wrote in.
    pub epoch: Epoch,
}

/// How leases are dealt with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeasePolicy {
    /// Whether a lease binds us.
    pub mode: Mode,
    /// How old the newest object of a living writer may get.
    pub duration: Duration,
    /// Whether a writer that has nothing to write is asked first (the sidecar).
    pub idle: IdleOwner,
    /// Whether the stream begins another history.
    pub lineage: NewLineage,
}

impl Default for LeasePolicy {
    fn default() -> Self {
        Self {
            mode: Mode::Enforce,
            duration: Duration::from_secs(30),
            idle: IdleOwner::Replace,
            lineage: NewLineage::No,
        }
    }
}

/// Whether a lease binds us.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Who does not hold the lease does not write.
    #[default]
    Enforce,
    /// The lease is taken and watched; a foreign one is told, and does not stop us.
    Observe,
    /// No lease is read or written.
    Off,
}

impl From<config::LeaseMode> for Mode {
    fn from(mode: config::LeaseMode) -> Self {
        match mode {
            config::LeaseMode::Enforce => Self::Enforce,
            config::LeaseMode::Observe => Self::Observe,
            config::LeaseMode::Off => Self::Off,
        }
    }
}

/// What becomes of an owner whose stream is idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IdleOwner {
    /// It is replaced when its newest object is old.
    #[default]
    Replace,
    /// It is asked, and replaced if it does not answer.
    Ask,
}

/// Whether taking the lease begins another history.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NewLineage {
    /// The history goes on.
    #[default]
    No,
    /// Told so (`--new-chain`).
    Yes,
}

/// Why the lease may be ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ground {
    /// There was none.
    Fresh,
    /// The owner gave it back.
    Released,
    /// The owner was we, in this process or, by the lock that we hold, in one that is gone.
    SameHolder,
    /// The owner has written nothing for one lease.
    Expired,
    /// The owner was asked and has not answered for one lease.
    Silent,
    /// It is not; we were told not to mind.
    Observed,
}

/// What to do about the lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Take(Ground),
    /// Put a claim, and wait for an answer.
    Ask,
    /// The owner lives; it may be gone after this time.
    Wait(Duration),
}

/// What is seen of the stream: all times by the store's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    /// The lease, where there is one.
    pub(super) record: Option<&'a Record>,
    /// When the newest object or the lease itself was written.
    pub(super) newest: Option<Timestamp>,
    /// The store's time.
    pub(super) now: Timestamp,
}

pub(super) fn judge(
    seen: Seen<'_>,
    us: &Holder,
    known: Option<Known>,
    policy: &LeasePolicy,
) -> Verdict {
    if let Some(record) = seen.record
        && is_free(record, us, known)
    {
        return Verdict::Take(if record.released {
            Ground::Released
        } else {
            Ground::SameHolder
        });
    }
    let Some(newest) = seen.newest else {
        return Verdict::Take(if seen.record.is_some() {
            Ground::Expired
        } else {
            Ground::Fresh
        });
    };
    let age = seen.now.millis_since(newest);
    let lease = i64::try_from(policy.duration.as_millis()).unwrap_or(i64::MAX);
    if age >= lease {
        return match (seen.record, policy.idle) {
            // Nobody can be asked where no lease names anybody.
            (None, _) => Verdict::Take(Ground::Fresh),
            (Some(_), IdleOwner::Replace) => Verdict::Take(Ground::Expired),
            (Some(_), IdleOwner::Ask) => Verdict::Ask,
        };
    }
    // An object from the future: the store's clock was set back, so ages tell nothing. Asking works
    // without clocks.
    let slack = i64::try_from(RECHECK.as_millis()).unwrap_or(i64::MAX);
    if age < -slack && seen.record.is_some() {
        return Verdict::Ask;
    }
    let left = u64::try_from(lease.saturating_sub(age)).unwrap_or(0);
    Verdict::Wait(Duration::from_millis(left).min(policy.duration.saturating_mul(2)))
}

/// Whether the lease may be taken whatever the age of the newest object.
pub(super) fn is_free(record: &Record, us: &Holder, known: Option<Known>) -> bool {
    record.released || is_ours(record, us, known)
}

/// Whether the lease names this process, or the state directory whose lock we hold.
fn is_ours(record: &Record, us: &Holder, known: Option<Known>) -> bool {
    if record.holder.id == us.id {
        return true;
    }
    let same_lock = us.lock.is_some() && record.holder.lock == us.lock;
    same_lock && known.is_none_or(|known| known.lineage == record.lineage)
}

/// The stream id that a take-over writes under, or nothing when the epochs of a lineage are used up.
pub(super) fn next_stream(
    record: Option<&Record>,
    known: Option<Known>,
    lineage: NewLineage,
) -> Option<StreamId> {
    let found = record.map(|record| Known {
        lineage: record.lineage,
        epoch: record.epoch,
    });
    // A bucket that was restored from its own backup may have an older lease than we remember.
    let last = match (found, known) {
        (Some(found), Some(known))
            if found.lineage == known.lineage && known.epoch > found.epoch =>
        {
            Some(known)
        }
        (Some(found), _) => Some(found),
        (None, known) => known,
    };
    let lineage = match (lineage, last) {
        (NewLineage::No, Some(last)) => last.lineage,
        (NewLineage::No, None) | (NewLineage::Yes, _) => Lineage::random(),
    };
    // Epochs go on growing in a new lineage: within one key space, later is always higher.
    let epoch = match last {
        Some(last) => last.epoch.next()?,
        None => Epoch::FIRST,
    };
    Some(StreamId { lineage, epoch })
}

/// A point in time by two clocks: one that nobody sets, which goes on while the machine sleeps, and the
/// wall's, which shows a virtual machine that stood still.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    steady: Duration,
    wall: Timestamp,
}

impl Moment {
    /// A point in time, for tests.
    pub const fn at(steady: Duration, wall: Timestamp) -> Self {
        Self { steady, wall }
    }

    /// Now.
    pub fn now(clock: &Clock) -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self {
            steady: Duration::new(seconds, nanos),
            wall: clock.now(),
        }
    }

    /// How long ago `earlier` may be: the longer of what the two clocks say, and for ever if one went
    /// backwards.
    fn since(self, earlier: Self) -> Duration {
        let wall = u64::try_from(self.wall.millis_since(earlier.wall)).map(Duration::from_millis);
        match (self.steady.checked_sub(earlier.steady), wall) {
            (Some(steady), Ok(wall)) => steady.max(wall),
            _ => Duration::MAX,
        }
    }
}

/// Whether a write that ended at `ended` is durable only if another look says that the lease is still
/// ours. `looked` is when the last look *began*. One comparison covers all: a write that took long, one
/// that follows a pause, and steady writing.
pub fn must_recheck(looked: Moment, ended: Moment) -> bool {
    ended.since(looked) >= RECHECK
}
