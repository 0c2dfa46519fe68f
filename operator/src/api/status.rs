//! `WalrustBackup.status`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a backup is doing. Numbers that move all the time are written every few minutes; changes of state at once.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WalrustBackupStatus {
    /// The generation that the operator last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// ConfigRendered, SchedulesReady, Injected, Replicating, Verified, RestoreTested and Ready: True is good.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The prefix that is used in the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective_prefix: Option<String>,

    /// The rendered configuration, and how many pods run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigStatus>,

    /// Databases in sync, of all: `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,

    /// The greatest lag of all databases: `4s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lag: Option<String>,

    /// The oldest of the databases' last uploads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,

    /// The oldest of the databases' last verifications.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verify_time: Option<Time>,

    /// The earliest state to which every database can be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest_recoverable_time: Option<Time>,

    /// The latest state to which every database can be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_recoverable_time: Option<Time>,

    /// Whether all databases were in sync once: from then on a new pod never starts empty.
    #[serde(default)]
    pub ever_synced: bool,

    /// How many databases there are, also those that `databases` has no room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub databases_total: Option<i32>,

    /// The databases, worst first, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub databases: Vec<DatabaseStatus>,

    /// What runs on a schedule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["task"]))]
    pub tasks: Vec<TaskStatus>,
}

/// The rendered configuration, and how many pods run it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// The ConfigMap that holds walrust.toml.
    pub config_map_name: String,
    /// The first 12 hex digits of the SHA-256 of walrust.toml.
    pub hash: String,
    /// Pods that run it.
    pub pods_current: i32,
    /// Pods with our sidecar.
    pub pods_total: i32,
}

/// How one database is doing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// Its name in the bucket.
    pub name: String,
    /// What its sidecar is doing.
    pub state: DatabaseState,
    /// The pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The last transaction seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txid: Option<i64>,
    /// The last transaction stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable_txid: Option<i64>,
    /// The age of the oldest commit that is not stored, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<i64>,
    /// When something was last stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<Time>,
    /// When the last snapshot was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_snapshot_time: Option<Time>,
    /// The earliest state to which it can be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest_recoverable_time: Option<Time>,
    /// The latest state to which it can be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_recoverable_time: Option<Time>,
    /// The last verification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verify: Option<Check>,
    /// The last restore drill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_drill: Option<Check>,
    /// What is wrong, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a sidecar says of a database; [`DatabaseState::Unreachable`] is the operator's own word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum DatabaseState {
    /// The file is not there yet.
    WaitingForFile,
    /// Another writer owns the stream, or has until now.
    AcquiringLease,
    /// The first snapshot is under way.
    Snapshotting,
    /// Everything committed is stored, or will be within the interval.
    InSync,
    /// Commits wait for longer than they should.
    Lagging,
    /// It does not go on.
    Erroring,
    /// It was told to leave it alone.
    Paused,
    /// It let go of the file, for a while or because the disk is full.
    Detached,
    /// Another writer took over.
    Fenced,
    /// A read replica.
    Replica,
    /// Its sidecar does not answer.
    Unreachable,
}

/// How a check of a database went.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// When it ended.
    pub time: Time,
    /// How it went.
    pub result: CheckResult,
    /// The state that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txid: Option<i64>,
    /// What was found, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How a check went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum CheckResult {
    /// All is well.
    Passed,
    /// Something is wrong with the backup.
    Failed,
}

/// How a scheduled task is doing.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// The task.
    pub task: TaskName,
    /// Its CronJob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron_job_name: Option<String>,
    /// When it last began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// When it last went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Time>,
    /// Its last Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_job_name: Option<String>,
}

/// What runs in Jobs.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum TaskName {
    /// Deletes what retention does not keep.
    Compact,
    /// Reads every stored file.
    Verify,
    /// Restores to scratch.
    RestoreDrill,
}

impl TaskName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Compact, Self::Verify, Self::RestoreDrill];

    /// The word in names and labels.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Verify => "verify",
            Self::RestoreDrill => "restore-drill",
        }
    }
}

/// Where a restore stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Nothing has begun.
    Pending,
    /// Something is in the way: a pod that uses the claim, say.
    Blocked,
    /// The Job runs.
    Running,
    /// The database is there.
    Succeeded,
    /// It is not, and will not be tried again.
    Failed,
}
