//! Conditions: their types, their reasons, and the time at which each last turned.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Conditions of a `WalrustBackup`, in the order in which the first one that fails explains `Ready`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The ConfigMap is applied for this generation.
    ConfigRendered,
    /// The CronJobs that are wanted exist.
    SchedulesReady,
    /// One running pod to be backed up, with our sidecar and this configuration.
    Injected,
    /// Every database that is not optional is in sync.
    Replicating,
    /// The last verification passed, and is not older than two of its periods.
    Verified,
    /// The same of the restore drill.
    RestoreTested,
}

impl Kind {
    /// The word in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ConfigRendered => "ConfigRendered",
            Self::SchedulesReady => "SchedulesReady",
            Self::Injected => "Injected",
            Self::Replicating => "Replicating",
            Self::Verified => "Verified",
            Self::RestoreTested => "RestoreTested",
        }
    }
}

/// Sums up all others.
pub const READY: &str = "Ready";
/// True while `spec.suspend` is.
pub const SUSPENDED: &str = "Suspended";

/// What a condition says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    /// Good.
    True,
    /// Bad.
    False,
    /// Not to be said yet.
    Unknown,
}

impl Holds {
    /// The word in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition as it is now, before its time is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Whether it holds.
    pub holds: Holds,
    /// One word for programs.
    pub reason: &'static str,
    /// A sentence for people. Without numbers that move: a change is a write.
    pub message: String,
}

impl Verdict {
    pub(super) fn good(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Holds::True, reason, message)
    }

    pub(super) fn bad(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(Holds::False, reason, message)
    }

    /// A condition; what of `message` nobody would read is cut.
    pub(crate) fn new(holds: Holds, reason: &'static str, message: impl Into<String>) -> Self {
        // The API takes 32 KiB; what is longer than this nobody reads.
        let message: String = message.into();
        let message = message.chars().take(1_000).collect();
        Self {
            holds,
            reason,
            message,
        }
    }

    /// As the API has it. The time of the last turn is kept where nothing turned.
    pub fn condition(
        self,
        type_: &str,
        former: &[Condition],
        generation: Option<i64>,
        now: Timestamp,
    ) -> Condition {
        let status = self.holds.word().to_owned();
        let former = former.iter().find(|condition| condition.type_ == type_);
        let same = former.filter(|condition| condition.status == status);
        Condition {
            type_: type_.to_owned(),
            last_transition_time: same.map_or(Time(now), |condition| {
                condition.last_transition_time.clone()
            }),
            observed_generation: generation,
            reason: self.reason.to_owned(),
            message: self.message,
            status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let (then, now) = (Timestamp::UNIX_EPOCH, crate::now());
        let first = Verdict::bad("NoPods", "no pod").condition("Injected", &[], Some(1), then);
        let other_reason = Verdict::bad("RolloutNeeded", "old pods");
        let second = other_reason.condition("Injected", std::slice::from_ref(&first), Some(2), now);
        assert_eq!(second.last_transition_time, Time(then));
        assert_eq!(
            (second.reason.as_str(), second.observed_generation),
            ("RolloutNeeded", Some(2))
        );
        let third = Verdict::good("Injected", "").condition("Injected", &[second], Some(2), now);
        assert_eq!(third.last_transition_time, Time(now));
    }

    #[test]
    fn messages_are_cut() {
        let long = "ä".repeat(5_000);
        assert_eq!(Verdict::bad("Failed", long).message.chars().count(), 1_000);
    }
}
