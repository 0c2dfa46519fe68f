//! How databases are followed, kept and given back: the blocks that stand for sections of `walrust.toml`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MOST_TXID, Period};

/// How databases are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sync {
    /// Within this time a commit is durable; under sustained writing one upload per interval. At least 10ms.
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "duration(self) >= duration('10ms')",
         "message": "sync.interval is at least 10ms: every interval is one upload"},
    ]))]
    pub interval: Period,

    /// How often the newest stored state is restored to scratch, for proof, by the sidecar itself. Each time downloads
    /// the whole database. 0s is off; see schedules.restoreDrill for the same in a Job.
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "duration(self) == duration('0s') || duration(self) >= duration('1s')",
         "message": "sync.proveInterval is 0s (off) or at least 1s"},
    ]))]
    pub prove_interval: Period,
}

impl Default for Sync {
    fn default() -> Self {
        Self {
            interval: Period::seconds(1),
            prove_interval: Period::default(),
        }
    }
}

/// When snapshots are taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "duration(self.interval) > duration('0s') || self.maxChanges > 0 || duration(self.maxInterval) > duration('0s') || duration(self.onIdle) > duration('0s')",
     "message": "all triggers of snapshots are off: set one of interval, maxChanges, maxInterval and onIdle"},
]))]
pub struct Snapshots {
    /// The time from one snapshot to the next; 0s is off.
    pub interval: Period,

    /// A snapshot after so many changed pages; 0 is off.
    #[schemars(range(min = 0, max = MOST_TXID))]
    pub max_changes: i64,

    /// The longest time between snapshots while there are changes; 0s is off.
    pub max_interval: Period,

    /// A snapshot after so long without changes; 0s is off.
    pub on_idle: Period,

    /// A snapshot at each start of the sidecar.
    pub on_startup: bool,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            interval: Period::seconds(3_600),
            max_changes: 0,
            max_interval: Period::default(),
            on_idle: Period::default(),
            on_startup: false,
        }
    }
}

/// When the sidecar itself thins what is stored. Its credentials must then be allowed to delete; schedules.compact does
/// the same in a Job with credentials of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Compaction {
    /// After each snapshot.
    pub after_snapshot: bool,

    /// The time from one compaction to the next; 0s is off.
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "duration(self) == duration('0s') || duration(self) >= duration('1s')",
         "message": "compaction.interval is 0s (off) or at least 1s"},
    ]))]
    pub interval: Period,
}

/// What a compaction keeps. Without a compaction nothing is ever deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "self.hourly + self.daily + self.weekly + self.monthly > 0",
     "message": "hourly, daily, weekly and monthly are all 0: keep at least one snapshot in one of them"},
]))]
pub struct Retention {
    /// Of so many of the newest hours the newest snapshot each.
    #[schemars(range(min = 0, max = 8760))]
    pub hourly: i32,

    /// The same of days.
    #[schemars(range(min = 0, max = 3660))]
    pub daily: i32,

    /// The same of weeks.
    #[schemars(range(min = 0, max = 520))]
    pub weekly: i32,

    /// The same of months.
    #[schemars(range(min = 0, max = 240))]
    pub monthly: i32,

    /// How long every restore point stays.
    pub points: Period,

    /// How long the last restore point of each minute stays; behind that it is the last of each hour, back to the
    /// oldest snapshot.
    pub minutes: Period,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            hourly: 24,
            daily: 7,
            weekly: 12,
            monthly: 12,
            points: Period::seconds(24 * 3_600),
            minutes: Period::seconds(7 * 24 * 3_600),
        }
    }
}

/// How read replicas follow: pods labelled `walrust.dev/inject: replicate`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Replicate {
    /// The time from one look at the bucket to the next, at least 10ms.
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "duration(self) >= duration('10ms')",
         "message": "replicate.interval is at least 10ms: every look is a request"},
    ]))]
    pub interval: Period,
}

impl Default for Replicate {
    fn default() -> Self {
        Self {
            interval: Period::seconds(5),
        }
    }
}

/// What happens where a pod starts and a database file is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreOnEmpty {
    /// Whether missing files are restored before the application starts.
    pub enabled: bool,

    /// What to do where the bucket has never had the database: let the application make one, or keep it from starting.
    /// Once a database was in sync, it is always Fail, but for pods annotated `walrust.dev/allow-fresh: "true"`.
    pub when_no_backup: WhenNoBackup,

    /// What SQLite checks after a restore, beyond the proof of every byte.
    pub verify: Verify,
}

impl Default for RestoreOnEmpty {
    fn default() -> Self {
        Self {
            enabled: true,
            when_no_backup: WhenNoBackup::default(),
            verify: Verify::default(),
        }
    }
}

/// What to do where the bucket has never had the database. An error is never taken for "never had".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum WhenNoBackup {
    /// The application makes its database.
    #[default]
    StartFresh,
    /// The application does not start.
    Fail,
}

/// What SQLite checks after a restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum Verify {
    /// Nothing: checksum and digest prove the bytes.
    None,
    /// `PRAGMA quick_check`.
    #[default]
    Quick,
    /// `PRAGMA integrity_check`.
    Full,
}
