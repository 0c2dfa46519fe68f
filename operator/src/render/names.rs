//! Names, labels and places that several objects share.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt as _};

use super::error::Error;
use crate::api::labels;

/// Where the ConfigMap is mounted.
pub const CONFIG_DIRECTORY: &str = "/etc/walrust";
/// The configuration of sidecars, and of Jobs that have no other.
pub const CONFIG_FILE: &str = "walrust.toml";
/// The configuration of Jobs whose credentials are of another kind.
pub const JOBS_FILE: &str = "jobs.toml";
/// Where keys are mounted, as files named like the variables.
pub const CREDENTIALS_DIRECTORY: &str = "/var/run/walrust/credentials";
/// Where the certificates to trust are mounted.
pub const CA_DIRECTORY: &str = "/var/run/walrust/ca";
/// Where our containers may write what does not last.
pub const TMP_DIRECTORY: &str = "/tmp";
/// Where admission would mount the application's API token.
pub const TOKEN_DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Where kubelet reads what a container said last.
pub const REPORT_FILE: &str = "/dev/termination-log";

/// Our volumes.
pub(crate) mod volumes {
    pub(crate) const CONFIG: &str = "walrust-config";
    pub(crate) const CREDENTIALS: &str = "walrust-credentials";
    pub(crate) const CA: &str = "walrust-ca";
    pub(crate) const TMP: &str = "walrust-tmp";
    pub(crate) const NO_TOKEN: &str = "walrust-no-token";
    pub(crate) const SCRATCH: &str = "walrust-scratch";
    pub(crate) const TARGET: &str = "walrust-target";
}

/// The name of the ConfigMap of a `WalrustBackup`.
pub fn config_map(backup: &str) -> String {
    format!("{backup}-walrust")
}

/// The name of the Job, and of the ConfigMap, of a `WalrustRestore`.
pub fn restore_job(restore: &str) -> String {
    format!("{restore}-restore")
}

/// Name and namespace of a resource that has both.
pub(crate) fn identity<K: Resource>(object: &K) -> Result<(String, String), Error> {
    let namespace = object.namespace().ok_or(Error::Nameless("namespace"))?;
    match object.meta().name.as_deref() {
        None | Some("") => Err(Error::Nameless("name")),
        Some(name) => Ok((name.to_owned(), namespace)),
    }
}

/// The metadata of an object that belongs to `owner`.
pub(super) fn metadata<K: Resource<DynamicType = ()>>(
    owner: &K,
    name: String,
    namespace: &str,
    labels: BTreeMap<String, String>,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        owner_references: owner_of(owner).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// None without a cluster: what is printed is nobody's. The owner waits for what it owns where it is deleted in the
/// foreground.
fn owner_of<K: Resource<DynamicType = ()>>(owner: &K) -> Option<OwnerReference> {
    Some(OwnerReference {
        block_owner_deletion: Some(true),
        ..owner.controller_owner_ref(&())?
    })
}

/// The labels of whatever the operator makes.
pub(super) fn labels(instance: &str, component: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "walrust"),
        ("app.kubernetes.io/instance", instance),
        ("app.kubernetes.io/component", component),
        ("app.kubernetes.io/part-of", "walrust"),
        ("app.kubernetes.io/managed-by", labels::FIELD_MANAGER),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}
