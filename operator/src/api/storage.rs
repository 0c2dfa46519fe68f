//! `spec.storage`: where backups lie, and how to get there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Period;

/// Where backups lie, and how to get there.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// The bucket's name. It cannot be changed: make a new WalrustBackup for another bucket.
    #[schemars(
        length(min = 3, max = 63),
        regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$")
    )]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "self == oldSelf",
         "message": "the bucket cannot be changed: make a new WalrustBackup, which begins with a snapshot"},
    ]))]
    pub bucket: String,

    /// The prefix of all keys, without slashes at its ends. Empty: `<namespace>/<name>` of this resource, which
    /// status.effectivePrefix shows. It cannot be changed.
    #[serde(default)]
    #[schemars(
        length(max = 384),
        regex(pattern = r"^([A-Za-z0-9._=+@,:()!~' -]+(/[A-Za-z0-9._=+@,:()!~' -]+)*)?$")
    )]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "self == oldSelf",
         "message": "the prefix cannot be changed: make a new WalrustBackup, which begins with a snapshot"},
        {"rule": r"!self.matches('(^|/)(\\.{1,2}|index|ltx|\\.walrust|manifest\\.json|lease\\.json|000[0-9a-f])(/|$)')",
         "message": "a part of the prefix is '.', '..' or a name that walrust uses itself (index, ltx, 0000 to 000f, manifest.json, lease.json): choose another"},
    ]))]
    pub prefix: String,

    /// The address of an S3-compatible store, as https://s3.example.com or http://minio.minio:9000. None: Amazon S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 512),
        regex(pattern = r"^https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?/?$")
    )]
    pub endpoint: Option<String>,

    /// The region that requests are signed for. None: AWS_REGION of the pod, else us-east-1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_-]+$"))]
    pub region: Option<String>,

    /// Where the bucket's name stands in a request. None: in the path where an endpoint is set, else in the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<PathStyle>,

    /// How requests are authorized.
    pub credentials: Credentials,

    /// Certificates to trust beside the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,

    /// The single-writer lease. None: the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
}

/// Where the bucket's name stands in a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum PathStyle {
    /// In the path where an endpoint is set, else in the host.
    Auto,
    /// In the path: MinIO, SeaweedFS, Ceph.
    Path,
    /// In the host.
    Host,
}

/// How requests are authorized: exactly one of the two.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "has(self.secretRef) != has(self.workloadIdentity)",
     "message": "give exactly one of secretRef (keys in a Secret) and workloadIdentity (IRSA, Pod Identity)"},
]))]
pub struct Credentials {
    /// Keys in a Secret of this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,

    /// The identity of the pod's service account: IRSA, EKS Pod Identity and the like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<WorkloadIdentity>,
}

/// Keys in a Secret of this namespace. They are mounted as files and read again when they change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,

    /// Its key that holds the access key id.
    #[serde(default = "access_key_id")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub access_key_id_key: String,

    /// Its key that holds the secret access key.
    #[serde(default = "secret_access_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub secret_access_key_key: String,

    /// Its key that holds a session token, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub session_token_key: Option<String>,
}

fn access_key_id() -> String {
    "AWS_ACCESS_KEY_ID".to_owned()
}

fn secret_access_key() -> String {
    "AWS_SECRET_ACCESS_KEY".to_owned()
}

/// The identity of the pod's service account. Sidecars use the application's own service account.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIdentity {
    /// The service account of Jobs (compact, verify, restore drill, restore). None: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub job_service_account_name: Option<String>,
}

/// Certificates in a ConfigMap of this namespace, in PEM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// The ConfigMap.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub config_map_name: String,

    /// Its key.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".to_owned()
}

/// The single-writer lease in the bucket: of two pods on one stream only one writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// What the lease does: nobody writes without it (Enforce), who breaks it is only reported (Observe), or there is
    /// none (Off).
    #[serde(default)]
    pub mode: LeaseMode,

    /// How long a silent owner keeps the stream, at least 15s.
    #[serde(default = "lease_duration")]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "duration(self) >= duration('15s')",
         "message": "a lease lasts at least 15s: an owner looks again every 10s"},
    ]))]
    pub duration: Period,

    /// Whether the application waits for the lease before it starts: always, where this pod's volume was empty
    /// (Restored), or never.
    #[serde(default)]
    pub gate_startup: GateStartup,
}

fn lease_duration() -> Period {
    Period::seconds(30)
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            mode: LeaseMode::default(),
            duration: lease_duration(),
            gate_startup: GateStartup::default(),
        }
    }
}

/// What the lease does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum LeaseMode {
    /// Nobody writes without it.
    #[default]
    Enforce,
    /// Who breaks it is only reported.
    Observe,
    /// There is none.
    Off,
}

/// When the application waits for the lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum GateStartup {
    /// At every start.
    Always,
    /// Where this pod's volume was empty.
    #[default]
    Restored,
    /// Never.
    Never,
}
