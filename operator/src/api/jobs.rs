//! `spec.schedules` and `spec.jobs`: what runs beside the application, in pods of its own.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, LocalObjectReference, PersistentVolumeClaimSpec, ResourceRequirements, Toleration,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Credentials;
use super::embedded::without_descriptions;

/// What runs when. A schedule that is left out does not run.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedules {
    /// The time zone of the schedules, as Europe/Berlin. None: the operator's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_+/-]+$"))]
    pub time_zone: Option<String>,

    /// Deletes what spec.retention does not keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compact: Option<Schedule>,

    /// Reads every stored file to its last byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Schedule>,

    /// Restores every database to scratch, checks it and throws it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore_drill: Option<Drill>,
}

/// When a task runs, and what is kept of its runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Five fields or a macro as @daily. A `H` in a field stands for a number that is drawn from this resource's name, so
    /// that not all resources run at once: `H 3 * * *` runs once between 03:00 and 03:59.
    #[schemars(length(min = 6, max = 128))]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": r"self.matches('^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$') || self.matches('^[0-9A-Za-z*/,-]+( +[0-9A-Za-z*/?,-]+){4}$')",
         "message": "a schedule has five fields, as '17 3 * * *', or is a macro as @daily; the time zone goes into schedules.timeZone"},
    ]))]
    pub cron: String,

    /// Whether it does not run for now.
    #[serde(default)]
    pub suspend: bool,

    /// How many Jobs that went well are kept.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 50))]
    pub successful_jobs_history_limit: i32,

    /// How many Jobs that failed are kept.
    #[serde(default = "three")]
    #[schemars(range(min = 0, max = 50))]
    pub failed_jobs_history_limit: i32,

    /// How late a run may still begin, in seconds.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 10, max = 604_800))]
    pub starting_deadline_seconds: i64,

    /// How long a run may last, in seconds.
    #[serde(default = "one_hour")]
    #[schemars(range(min = 60, max = 604_800))]
    pub active_deadline_seconds: i64,
}

fn three() -> i32 {
    3
}

fn five_minutes() -> i64 {
    300
}

fn one_hour() -> i64 {
    3_600
}

/// When restore drills run, and where they restore to.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drill {
    /// When it runs, and what is kept of its runs.
    #[serde(flatten)]
    pub schedule: Schedule,

    /// The size of the scratch volume: room for the largest database. Where no volumeClaimTemplate is given it is the
    /// node's own disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch_size: Option<Quantity>,

    /// Another place to restore to than the node's own disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<Scratch>,
}

/// Another place to restore to than the node's own disk.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Scratch {
    /// A claim that lives as long as the Job's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim_template: Option<VolumeClaimTemplate>,
}

/// A claim that lives as long as the Job's pod.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaimTemplate {
    /// As of any PersistentVolumeClaim. Without accessModes and a size it is ReadWriteOnce of scratchSize.
    #[serde(default)]
    #[schemars(transform = without_descriptions)]
    pub spec: PersistentVolumeClaimSpec,
}

/// The pods of Jobs. What is left out is the operator's default.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Jobs {
    /// Requests and limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = without_descriptions)]
    pub resources: Option<ResourceRequirements>,

    /// The nodes that they may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,

    /// The taints that they tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[schemars(transform = without_descriptions)]
    pub tolerations: Vec<Toleration>,

    /// Credentials of their own. Then those of the sidecars need no right to delete, and a stolen pod cannot erase
    /// history. None: storage.credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,

    /// What else is set on the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodOverrides>,
}

/// What else is set on the pods of Jobs.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodOverrides {
    /// Annotations, as those that keep a service mesh out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,

    /// Labels beside the operator's own, which win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,

    /// The priority class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// Node and pod affinity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = without_descriptions)]
    pub affinity: Option<Affinity>,

    /// Secrets to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(transform = without_descriptions)]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}
