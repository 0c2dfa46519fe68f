//! The definitions of both kinds, for `kubectl apply` and the chart.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

use super::{WalrustBackup, WalrustRestore};
use crate::yaml;

/// The definitions of both kinds.
pub fn all() -> [CustomResourceDefinition; 2] {
    [WalrustBackup::crd(), WalrustRestore::crd()]
}

/// A definition as YAML, with a line that says where it comes from.
///
/// # Errors
/// Only where a definition cannot be written as YAML, which the tests rule out.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, yaml::Error> {
    Ok(format!(
        "# Made by `walrust-operator crds`; do not edit.\n{}",
        yaml::to_string(crd)?
    ))
}
