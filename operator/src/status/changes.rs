//! When a status is written, and what is told about it: a write wakes every watcher.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::WalrustBackupStatus;

/// How often numbers that only move are written.
pub const NUMBERS_EVERY: Duration = Duration::from_secs(300);

/// Whether `new` is to be written over `old`; `age` is how long ago the last one was.
pub fn worth_writing(
    old: Option<&WalrustBackupStatus>,
    new: &WalrustBackupStatus,
    age: Duration,
    numbers_every: Duration,
) -> bool {
    let Some(old) = old else {
        return true;
    };
    still(old) != still(new) || (age >= numbers_every && old != new)
}

/// A status without what moves while all is well.
fn still(status: &WalrustBackupStatus) -> WalrustBackupStatus {
    let mut status = status.clone();
    status.max_lag = None;
    status.last_sync_time = None;
    status.latest_recoverable_time = None;
    status.earliest_recoverable_time = None;
    for database in &mut status.databases {
        database.txid = None;
        database.durable_txid = None;
        database.lag_seconds = None;
        database.last_sync_time = None;
        database.last_snapshot_time = None;
        database.earliest_recoverable_time = None;
        database.latest_recoverable_time = None;
    }
    status
}

/// Something that people should hear of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Notice {
    /// Whether it is bad.
    pub warning: bool,
    /// One word.
    pub reason: &'static str,
    /// A sentence.
    pub note: String,
}

/// What turned between two statuses.
pub fn notices(old: &[Condition], new: &[Condition]) -> Vec<Notice> {
    let told = new.iter().filter_map(|condition| {
        let former = old.iter().find(|former| former.type_ == condition.type_);
        let same = |former: &Condition| {
            former.status == condition.status && former.reason == condition.reason
        };
        if former.is_some_and(same) {
            return None;
        }
        let was = former.map(|former| former.status.as_str());
        let (warning, reason) = word(condition, was)?;
        Some(Notice {
            warning,
            reason,
            note: condition.message.clone(),
        })
    });
    told.collect()
}

/// The event of a condition that turned, which was `was`.
fn word(condition: &Condition, was: Option<&str>) -> Option<(bool, &'static str)> {
    let pair = (condition.type_.as_str(), condition.status.as_str());
    Some(match (pair, condition.reason.as_str()) {
        (("ConfigRendered", "True"), _) => (false, "ConfigRendered"),
        (("ConfigRendered", "False"), "PathConflict") => (true, "PathConflict"),
        (("ConfigRendered", "False"), _) => (true, "ConfigRefused"),
        (("SchedulesReady", "False"), _) => (true, "SchedulesRefused"),
        (("Injected", "True"), _) => (false, "SidecarRunning"),
        (("Injected", "False"), "RolloutNeeded") => (true, "RolloutNeeded"),
        (("Injected", "False"), "MultipleWriters") => (true, "MultipleWriters"),
        (("Injected", "False"), "ConfigPending") => (true, "ConfigPending"),
        (("Replicating", "True"), _) if was == Some("False") => (false, "ReplicationRecovered"),
        (("Replicating", "True"), _) => (false, "ReplicationRunning"),
        (("Replicating", "False"), "Lagging") => (true, "ReplicationLagging"),
        (("Replicating", "False"), "NoPods" | "Suspended" | "Snapshotting") => return None,
        (("Replicating", "False"), _) => (true, "ReplicationStopped"),
        (("Verified", "True"), _) => (false, "VerifyPassed"),
        (("Verified", "False"), "Failed") => (true, "VerifyFailed"),
        (("RestoreTested", "True"), _) => (false, "DrillPassed"),
        (("RestoreTested", "False"), "Failed") => (true, "DrillFailed"),
        _ => return None,
    })
}
