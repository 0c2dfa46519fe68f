//! `WalrustBackup`.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Compaction, Database, Jobs, Replicate, RestoreOnEmpty, Retention, Schedules, Sidecar,
    Snapshots, Storage, Sync, WalrustBackupStatus,
};

/// The databases of an application, where they are backed up to, and what is done to keep the backups good. Pods ask for
/// it by two labels on their template: `walrust.dev/inject: watch` (or `replicate`) and `walrust.dev/backup: <name>`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "walrust.dev",
    version = "v1alpha1",
    kind = "WalrustBackup",
    plural = "walrustbackups",
    namespaced,
    status = "WalrustBackupStatus",
    derive = "PartialEq",
    shortname = "wb",
    category = "walrust",
    doc = "Continuous backup of the SQLite databases of an application to S3-compatible storage.",
    validation = Rule::new("self.metadata.name.size() <= 38").message(
        "the name has at most 38 characters: it is part of the names of CronJobs, which Kubernetes limits to 52"
    ),
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"In sync","type":"string","description":"databases in sync, of all","jsonPath":".status.summary"}"#,
    printcolumn = r#"{"name":"Lag","type":"string","description":"age of the oldest commit that is not stored yet","jsonPath":".status.maxLag"}"#,
    printcolumn = r#"{"name":"Verified","type":"string","jsonPath":".status.conditions[?(@.type==\"Verified\")].status"}"#,
    printcolumn = r#"{"name":"Tested","type":"string","description":"whether the last restore drill went well","jsonPath":".status.conditions[?(@.type==\"RestoreTested\")].status"}"#,
    printcolumn = r#"{"name":"From","type":"date","description":"the earliest state to which every database can be restored","jsonPath":".status.earliestRecoverableTime"}"#,
    printcolumn = r#"{"name":"To","type":"date","description":"the latest state to which every database can be restored","jsonPath":".status.latestRecoverableTime"}"#,
    printcolumn = r#"{"name":"Bucket","type":"string","priority":1,"jsonPath":".spec.storage.bucket"}"#,
    printcolumn = r#"{"name":"Prefix","type":"string","priority":1,"jsonPath":".status.effectivePrefix"}"#,
    printcolumn = r#"{"name":"Last verify","type":"date","priority":1,"jsonPath":".status.lastVerifyTime"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct WalrustBackupSpec {
    /// Where backups lie, and how to get there.
    pub storage: Storage,

    /// The files, 1 to 64; a pattern counts as one.
    #[schemars(length(min = 1, max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "self.all(one, self.exists_one(other, other.path == one.path))",
         "message": "two databases have the same path: a file has one history"},
    ]))]
    pub databases: Vec<Database>,

    /// How databases are followed.
    #[serde(default)]
    pub sync: Sync,

    /// When snapshots are taken.
    #[serde(default)]
    pub snapshots: Snapshots,

    /// When the sidecar itself thins what is stored.
    #[serde(default)]
    pub compaction: Compaction,

    /// What a compaction keeps.
    #[serde(default)]
    pub retention: Retention,

    /// How read replicas follow.
    #[serde(default)]
    pub replicate: Replicate,

    /// What happens where a pod starts and a database file is not there. None: the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_on_empty: Option<RestoreOnEmpty>,

    /// What runs on a schedule: compaction, verification, restore drills.
    #[serde(default)]
    pub schedules: Schedules,

    /// The containers that join the application's pod.
    #[serde(default)]
    pub sidecar: Sidecar,

    /// The pods of Jobs.
    #[serde(default)]
    pub jobs: Jobs,

    /// Stops uploads and schedules; nothing is deleted.
    #[serde(default)]
    pub suspend: bool,

    /// What happens to the bucket's content when this resource is deleted: it stays.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// What happens to the bucket's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays.
    #[default]
    Retain,
}
