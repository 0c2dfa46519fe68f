//! `spec.sidecar`: the containers that join the application's pod.

use k8s_openapi::api::core::v1::{ResourceRequirements, SecurityContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Period;
use super::embedded::without_descriptions;

/// The containers that join the application's pod. What is left out is the operator's default.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sidecar {
    /// Another image than the operator's default. Refused unless the operator allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "self.contains('@sha256:') || self.matches(':[A-Za-z0-9_][A-Za-z0-9._-]*$') && !self.endsWith(':latest')",
         "message": "name a version of the image by tag or digest, and not latest"},
    ]))]
    pub image: Option<String>,

    /// When the image is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,

    /// Requests and limits of both containers. Not ephemeral-storage: its limit would become that of the whole pod and
    /// evict the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "!has(self.limits) || !('ephemeral-storage' in self.limits)",
         "message": "no limit of ephemeral-storage: it would become that of the whole pod and evict the application"},
    ]))]
    #[schemars(transform = without_descriptions)]
    pub resources: Option<ResourceRequirements>,

    /// Merged over the computed security context. Without runAsUser the container whose volumes are used must say one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "!(has(self.privileged) && self.privileged) && !(has(self.allowPrivilegeEscalation) && self.allowPrivilegeEscalation) && !(has(self.capabilities) && has(self.capabilities.add) && self.capabilities.add.size() > 0)",
         "message": "the sidecar needs no privileges: leave out privileged, allowPrivilegeEscalation and capabilities.add"},
    ]))]
    #[schemars(transform = without_descriptions)]
    pub security_context: Option<SecurityContext>,

    /// The port of metrics, probes and status on the pod's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 65535))]
    pub metrics_port: Option<i32>,

    /// The container whose volumes and user are used. None: the first that mounts every path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub container: Option<String>,

    /// Raises terminationGracePeriodSeconds of the pod to at least this, so that the last commits are stored after the
    /// application has stopped. At least 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "duration(self) >= duration('5s')",
         "message": "minTerminationGracePeriod is at least 5s"},
    ]))]
    pub min_termination_grace_period: Option<Period>,

    /// What is logged: a level, or directives as RUST_LOG takes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z0-9_:=,-]+$"))]
    pub log_level: Option<String>,
}

/// When an image is pulled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// Where the node does not have it.
    IfNotPresent,
    /// Never.
    Never,
}

impl PullPolicy {
    /// The word that Kubernetes uses.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}
