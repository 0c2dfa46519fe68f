//! When a snapshot is due (R42 to R47). Pure: settings, what happened, now.

use std::time::Duration;

use tokio::time::Instant;

use super::SnapshotReason;

/// When to take snapshots. Zero durations and counts are off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotPolicy {
    /// After this long since the last one, if anything changed.
    pub interval: Duration,
    /// After this many WAL frames since the last one.
    pub max_changes: u64,
    /// With changes pending, no later than this after the last one.
    pub max_interval: Duration,
    /// After this long without a change, once an idle period.
    pub on_idle: Duration,
    /// At start.
    pub on_startup: bool,
}

/// What happened since the last snapshot of one database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Activity {
    /// When the last snapshot was taken, or watching began.
    pub(crate) last_snapshot: Instant,
    /// WAL frames captured since; 0: the newest snapshot holds the current state.
    pub(crate) frames: u64,
    /// When the last change was captured.
    pub(crate) last_change: Instant,
}

impl SnapshotPolicy {
    /// Why a snapshot is due at `now`, if one is. A snapshot that failed leaves `activity` as it was, so
    /// its reason stands (R47).
    pub(crate) fn due(&self, activity: &Activity, now: Instant) -> Option<SnapshotReason> {
        if activity.frames == 0 {
            return None;
        }
        if self.max_changes > 0 && activity.frames >= self.max_changes {
            return Some(SnapshotReason::MaxChanges);
        }
        self.deadlines(activity)
            .into_iter()
            .flatten()
            .find(|(at, _)| *at <= now)
            .map(|(_, why)| why)
    }

    /// When to ask [`SnapshotPolicy::due`] again if nothing else happens.
    pub(crate) fn next(&self, activity: &Activity) -> Option<Instant> {
        if activity.frames == 0 {
            return None;
        }
        self.deadlines(activity)
            .into_iter()
            .flatten()
            .map(|(at, _)| at)
            .min()
    }

    fn deadlines(&self, activity: &Activity) -> [Option<(Instant, SnapshotReason)>; 3] {
        let after = |start: Instant, wait: Duration, why| {
            if wait.is_zero() {
                None
            } else {
                Some((start.checked_add(wait)?, why))
            }
        };
        [
            after(
                activity.last_snapshot,
                self.interval,
                SnapshotReason::Scheduled,
            ),
            after(
                activity.last_snapshot,
                self.max_interval,
                SnapshotReason::MaxInterval,
            ),
            after(activity.last_change, self.on_idle, SnapshotReason::Idle),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFF: SnapshotPolicy = SnapshotPolicy {
        interval: Duration::ZERO,
        max_changes: 0,
        max_interval: Duration::ZERO,
        on_idle: Duration::ZERO,
        on_startup: false,
    };

    #[test]
    fn each_trigger_fires_at_its_time_and_none_without_changes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let activity = Activity {
            last_snapshot: start,
            frames: 5,
            last_change: at(10),
        };
        let ten = Duration::from_secs(10);
        let cases = [
            (
                SnapshotPolicy {
                    interval: ten,
                    ..OFF
                },
                9,
                None,
            ),
            (
                SnapshotPolicy {
                    interval: ten,
                    ..OFF
                },
                10,
                Some(SnapshotReason::Scheduled),
            ),
            (
                SnapshotPolicy {
                    max_changes: 6,
                    ..OFF
                },
                99,
                None,
            ),
            (
                SnapshotPolicy {
                    max_changes: 5,
                    ..OFF
                },
                0,
                Some(SnapshotReason::MaxChanges),
            ),
            (
                SnapshotPolicy {
                    max_interval: ten,
                    ..OFF
                },
                10,
                Some(SnapshotReason::MaxInterval),
            ),
            (
                SnapshotPolicy {
                    on_idle: ten,
                    ..OFF
                },
                19,
                None,
            ),
            (
                SnapshotPolicy {
                    on_idle: ten,
                    ..OFF
                },
                20,
                Some(SnapshotReason::Idle),
            ),
            (OFF, 1_000_000, None),
        ];
        for (policy, now, expected) in cases {
            assert_eq!(
                policy.due(&activity, at(now)),
                expected,
                "{policy:?} at {now}"
            );
            let unchanged = Activity {
                frames: 0,
                ..activity
            };
            assert_eq!(policy.due(&unchanged, at(now)), None, "nothing changed");
            assert_eq!(policy.next(&unchanged), None);
        }
        let huge = SnapshotPolicy {
            interval: Duration::MAX,
            ..OFF
        };
        assert_eq!(
            huge.next(&activity),
            None,
            "v11: huge intervals never come due and never overflow"
        );
    }
}
