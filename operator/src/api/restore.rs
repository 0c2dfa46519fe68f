//! `WalrustRestore`: one state onto one claim, once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MOST_TXID, Phase, Storage, Verify};

/// Restores one database onto one claim, once.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "walrust.dev",
    version = "v1alpha1",
    kind = "WalrustRestore",
    plural = "walrustrestores",
    namespaced,
    status = "WalrustRestoreStatus",
    derive = "PartialEq",
    shortname = "wr",
    category = "walrust",
    doc = "Restores one database onto one claim, once. It waits while a pod uses the claim.",
    validation = Rule::new("self.metadata.name.size() <= 55").message(
        "the name has at most 55 characters: the name of its Job is 8 longer, and a Job's is a label of its pod"
    ),
    validation = Rule::new("self.spec == oldSelf.spec").message(
        "a restore cannot be changed: delete it and make a new one"
    ),
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Database","type":"string","jsonPath":".spec.database"}"#,
    printcolumn = r#"{"name":"Claim","type":"string","jsonPath":".spec.target.claimName"}"#,
    printcolumn = r#"{"name":"TXID","type":"integer","jsonPath":".status.restoredTxid"}"#,
    printcolumn = r#"{"name":"Backup","type":"string","priority":1,"jsonPath":".spec.backupRef.name"}"#,
    printcolumn = r#"{"name":"Path","type":"string","priority":1,"jsonPath":".spec.target.path"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.backupRef) != has(self.source)",
     "message": "give exactly one of backupRef (a WalrustBackup of this namespace) and source (a bucket, for a new cluster)"},
]))]
pub struct WalrustRestoreSpec {
    /// The WalrustBackup of this namespace whose database it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_ref: Option<BackupRef>,

    /// The bucket, where there is no WalrustBackup: in a new cluster, say. An empty prefix is the top of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Storage>,

    /// The database: its name in spec.databases; of a pattern `<name>/<file name>`.
    #[schemars(length(min = 1, max = 319))]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": r"self.split('/').all(part, part != '' && part != '.' && part != '..') && !self.matches('[\\x00-\\x1f]')",
         "message": "the database is a name of spec.databases, or <name>/<file name> for one of a pattern"},
    ]))]
    pub database: String,

    /// Which state. None: the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Moment>,

    /// Where it goes.
    pub target: Target,

    /// What SQLite checks after the restore, beyond the proof of every byte.
    #[serde(default)]
    pub verify: Verify,

    /// How long it may last, in seconds.
    #[serde(default = "one_hour")]
    #[schemars(range(min = 60, max = 604_800))]
    pub active_deadline_seconds: i64,

    /// The Job is deleted so many seconds after it ended. None: it stays until this resource is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i32>,
}

fn one_hour() -> i64 {
    3_600
}

/// A WalrustBackup of this namespace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRef {
    /// Its name.
    #[schemars(length(min = 1, max = 38))]
    pub name: String,
}

/// A state: by TXID or by time.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.txid) != has(self.time)",
     "message": "give one of txid and time, or leave out spec.to for the latest state"},
]))]
pub struct Moment {
    /// The state after this transaction, as `walrust list` and status show them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MOST_TXID))]
    pub txid: Option<i64>,

    /// The last state at or before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Time>,
}

/// Where a restored database goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// A PersistentVolumeClaim of this namespace, which no pod may use meanwhile.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub claim_name: String,

    /// The file, from the volume's root on: notes.db.
    #[schemars(length(min = 1, max = 1024))]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": r"!self.startsWith('/') && self.split('/').all(part, part != '' && part != '.' && part != '..') && !self.matches('[\\x00-\\x1f]')",
         "message": "the path is relative to the volume's root, without '.', '..' and empty parts: notes.db"},
    ]))]
    pub path: String,

    /// What to do where the file exists: fail, or rename it and what belongs to it to `<file>.pre-restore-<time>`.
    #[serde(default)]
    pub if_exists: IfExists,

    /// The user that the file shall belong to. None: the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: Option<i64>,

    /// The group that the file shall belong to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub run_as_group: Option<i64>,

    /// The group of the volume's files, as in a pod's security context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub fs_group: Option<i64>,
}

/// What to do where the file exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum IfExists {
    /// The restore fails; the file stays as it is.
    #[default]
    Fail,
    /// It is renamed.
    KeepAside,
}

/// How a restore is going.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WalrustRestoreStatus {
    /// The generation that the operator last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,

    /// Complete, Failed and Blocked.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The Job. Written before it is made, so that it is made once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,

    /// The TXID of the restored state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_txid: Option<i64>,

    /// The size of the restored file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_bytes: Option<i64>,

    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}
