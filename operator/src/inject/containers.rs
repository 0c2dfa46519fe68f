//! Our two containers.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector, Probe,
    ResourceRequirements, SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Mode;
use crate::api::{Verify, WhenNoBackup, labels};
use crate::render::names::{CONFIG_DIRECTORY, CONFIG_FILE};
use crate::render::{Image, variables};

/// The program of sidecar and init container.
const PROGRAM: &str = "walrust-sidecar";
/// The name of the port, for monitors.
const PORT: &str = "walrust-metrics";
/// What is left of the grace period for the kubelet to stop us in.
const RESERVE: u64 = 5;
/// A day of seconds: a startup probe that gives up restarts the sidecar, which then captures nothing.
const PATIENT: i32 = 86_400;

/// When the application may start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    /// Once the sidecar serves.
    AtOnce,
    /// Once the lease is ours, where the configuration says so.
    Leased,
    /// Once every replica has a state that is fresh enough to be read.
    Readable,
}

impl Start {
    /// What holds the application: the kubelet starts the next container once this succeeded.
    fn probe(self) -> Probe {
        match self {
            Self::AtOnce => probe("/startupz", 1, 120),
            Self::Leased => probe("/startupz", 1, PATIENT),
            Self::Readable => probe("/readyz", 1, PATIENT),
        }
    }
}

/// What both containers share.
pub(super) struct Common {
    pub(super) mode: Mode,
    pub(super) image: Image,
    pub(super) resources: ResourceRequirements,
    pub(super) security: SecurityContext,
    pub(super) mounts: Vec<VolumeMount>,
    pub(super) variables: Vec<EnvVar>,
    pub(super) log_level: Option<String>,
}

impl Common {
    /// The init container that restores what is missing.
    pub(super) fn restore(&self, when: WhenNoBackup, verify: Verify) -> Container {
        let when = match when {
            WhenNoBackup::StartFresh => "start-fresh",
            WhenNoBackup::Fail => "fail",
        };
        let verify = match verify {
            Verify::None => "none",
            Verify::Quick => "quick",
            Verify::Full => "full",
        };
        let words = [
            "restore",
            "--if-missing",
            "--when-no-backup",
            when,
            "--verify",
            verify,
        ];
        self.container(labels::RESTORE_CONTAINER, &words)
    }

    /// The native sidecar: it starts before the application and stops after it.
    pub(super) fn sidecar(&self, port: u16, grace: i64, start: Start) -> Container {
        let port_text = port.to_string();
        let grace = u64::try_from(grace).unwrap_or_default();
        let grace = Duration::from_secs(grace.saturating_sub(RESERVE).max(1));
        let grace = format!("{}s", grace.as_secs());
        let words = [
            self.mode.word(),
            "--metrics-port",
            &port_text,
            "--grace",
            &grace,
        ];
        Container {
            restart_policy: Some("Always".to_owned()),
            ports: Some(vec![ContainerPort {
                name: Some(PORT.to_owned()),
                container_port: i32::from(port),
                ..ContainerPort::default()
            }]),
            startup_probe: Some(start.probe()),
            liveness_probe: Some(probe("/livez", 20, 3)),
            readiness_probe: match self.mode {
                Mode::Watch => None,
                // Readers behind a Service shall not see a state that is hours old.
                Mode::Replicate => Some(probe("/readyz", 5, 3)),
            },
            ..self.container(labels::CONTAINER, &words)
        }
    }

    fn container(&self, name: &str, words: &[&str]) -> Container {
        let config = format!("{CONFIG_DIRECTORY}/{CONFIG_FILE}");
        let config = ["--config", &config];
        let words = words.iter().chain(&config);
        let own = [
            field("WALRUST_POD_NAME", "metadata.name"),
            field("WALRUST_POD_UID", "metadata.uid"),
        ];
        let own = own.into_iter().chain(variables(self.log_level.as_deref()));
        Container {
            name: name.to_owned(),
            image: Some(self.image.name.clone()),
            image_pull_policy: self.image.policy(),
            command: Some(vec![PROGRAM.to_owned()]),
            args: Some(words.map(|word| (*word).to_owned()).collect()),
            env: Some(own.chain(self.variables.iter().cloned()).collect()),
            resources: Some(self.resources.clone()),
            security_context: Some(self.security.clone()),
            volume_mounts: Some(self.mounts.clone()),
            ..Container::default()
        }
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(PORT.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

/// A variable that holds a field of the pod.
fn field(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                ..ObjectFieldSelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}
