//! What the operator was installed with: the defaults of what a resource leaves out, and what it may not ask for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};

use crate::api::{Lease, PathStyle, Period, PodOverrides, PullPolicy, RestoreOnEmpty};
use crate::yaml;

/// What the operator was installed with. The chart writes it as YAML from its values.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// The image with `walrust` and `walrust-sidecar` in it.
    pub image: String,
    /// When it is pulled; none: as Kubernetes does by itself.
    pub image_pull_policy: Option<PullPolicy>,
    /// Patterns of the images that `spec.sidecar.image` may name: `registry.example.com/walrust/*`.
    pub allowed_images: Vec<String>,
    /// Whether a sidecar may run as root beside an application that does.
    pub allow_root: bool,
    /// The first part of the prefix of resources that name none, so that clusters can share a bucket.
    pub cluster_name: String,
    /// The port of metrics, probes and status.
    pub metrics_port: u16,
    /// Requests and limits of the sidecar and the init container.
    pub resources: ResourceRequirements,
    /// The least grace period of pods with a sidecar.
    pub min_termination_grace_period: Option<Period>,
    /// The lease.
    pub lease: Lease,
    /// What happens where a pod starts without its database.
    pub restore_on_empty: RestoreOnEmpty,
    /// The time zone of schedules; none: the cluster's.
    pub time_zone: Option<String>,
    /// The store.
    pub s3: StoreDefaults,
    /// The pods of Jobs.
    pub jobs: JobDefaults,
}

/// The store of resources that do not say.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StoreDefaults {
    /// Another S3 than Amazon's.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: Option<String>,
    /// Where the bucket's name stands in a request.
    pub path_style: Option<PathStyle>,
}

/// The pods of Jobs of resources that do not say.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct JobDefaults {
    /// Requests and limits.
    pub resources: ResourceRequirements,
    /// The user; 0 leaves it to the platform, as OpenShift wants.
    pub run_as_user: i64,
    /// The nodes that they may run on.
    pub node_selector: BTreeMap<String, String>,
    /// The taints that they tolerate.
    pub tolerations: Vec<Toleration>,
    /// What else is set.
    pub pod_template: PodOverrides,
}

impl Settings {
    /// Reads what the chart wrote.
    ///
    /// # Errors
    /// Says where it is no YAML, or what is unknown in it.
    pub fn parse(text: &str) -> Result<Self, yaml::Error> {
        yaml::one(text)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            image: format!("walrust-sidecar:{}", env!("CARGO_PKG_VERSION")),
            image_pull_policy: None,
            allowed_images: Vec::new(),
            allow_root: false,
            cluster_name: String::new(),
            metrics_port: 16767,
            resources: resources([("cpu", "10m"), ("memory", "48Mi")], "256Mi"),
            min_termination_grace_period: None,
            lease: Lease::default(),
            restore_on_empty: RestoreOnEmpty::default(),
            time_zone: None,
            s3: StoreDefaults::default(),
            jobs: JobDefaults::default(),
        }
    }
}

impl Default for JobDefaults {
    fn default() -> Self {
        Self {
            resources: resources([("cpu", "50m"), ("memory", "64Mi")], "512Mi"),
            run_as_user: 65_532,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            pod_template: PodOverrides::default(),
        }
    }
}

/// Requests, and a limit of memory. Never one of ephemeral storage: it would become that of the whole pod.
fn resources(requests: [(&str, &str); 2], memory: &str) -> ResourceRequirements {
    let amounts = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter();
        let pairs =
            pairs.map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())));
        Some(pairs.collect::<BTreeMap<_, _>>())
    };
    ResourceRequirements {
        requests: amounts(&requests),
        limits: amounts(&[("memory", memory)]),
        ..ResourceRequirements::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_default_and_what_is_unknown_an_error() {
        assert_eq!(Settings::parse("{}").unwrap(), Settings::default());
        let settings = Settings::parse(
            "image: r.example.com/walrust:1\nmetricsPort: 9000\nlease: {mode: Observe}\ns3: {pathStyle: Path}\n\
             resources: {requests: {cpu: 1}}\n",
        );
        let settings = settings.unwrap();
        assert_eq!(settings.metrics_port, 9000);
        assert_eq!(settings.lease.duration, Period::seconds(30));
        assert_eq!(settings.s3.path_style, Some(PathStyle::Path));
        let error = Settings::parse("imagee: a\n").unwrap_err().to_string();
        assert!(error.contains("imagee"), "{error}");
    }

    #[test]
    fn settings_are_read_as_they_were_written() {
        let written = yaml::to_string(&Settings::default()).unwrap();
        assert_eq!(Settings::parse(&written).unwrap(), Settings::default());
    }
}
