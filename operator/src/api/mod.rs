//! What users write: `WalrustBackup` and `WalrustRestore`, and the labels that ask for a sidecar.
//!
//! The documentation of fields is what `kubectl explain` shows. A rule that the API server can check stands beside its
//! field, with a message that says what to write instead. Durations are [`Period`]s; zero is off, as in `walrust.toml`.
#![allow(
    rustdoc::bare_urls,
    reason = "these docs are the descriptions in the definitions, which are no Markdown"
)]

mod backup;
mod crds;
mod database;
mod embedded;
mod jobs;
pub mod labels;
mod period;
mod restore;
mod sidecar;
mod status;
mod storage;
mod tuning;

pub use backup::{DeletionPolicy, WalrustBackup, WalrustBackupSpec};
pub use crds::{all, to_yaml};
pub use database::{Database, SnapshotOverrides};
pub use jobs::{Drill, Jobs, PodOverrides, Schedule, Schedules, Scratch, VolumeClaimTemplate};
pub use period::{Period, PeriodError};
pub use restore::{
    BackupRef, IfExists, Moment, Target, WalrustRestore, WalrustRestoreSpec, WalrustRestoreStatus,
};
pub use sidecar::{PullPolicy, Sidecar};
pub use status::{
    Check, CheckResult, ConfigStatus, DatabaseState, DatabaseStatus, Phase, TaskName, TaskStatus,
    WalrustBackupStatus,
};
pub use storage::{
    CaBundle, Credentials, GateStartup, Lease, LeaseMode, PathStyle, SecretRef, Storage,
    WorkloadIdentity,
};
pub use tuning::{
    Compaction, Replicate, RestoreOnEmpty, Retention, Snapshots, Sync, Verify, WhenNoBackup,
};

/// The group of both kinds.
pub const GROUP: &str = "walrust.dev";
/// The version of both kinds.
pub const VERSION: &str = "v1alpha1";

/// The largest TXID that every JSON reader can hold: 2^53 - 1.
pub const MOST_TXID: i64 = 9_007_199_254_740_991;
