//! What is kept of pods, Jobs, CronJobs and ConfigMaps.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::core::PartialObjectMeta;

use super::shelf::Group;
use crate::api::{TaskName, labels};

/// What a pod asked for by its label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// To be backed up.
    Watch,
    /// To read.
    Replicate,
}

/// A pod with the label `walrust.dev/inject`.
#[derive(Clone, PartialEq, Debug)]
pub struct PodFact {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// What it asked for.
    pub mode: Mode,
    /// Its address, once it has one.
    pub ip: Option<IpAddr>,
    /// The port of metrics and status; none: it has no sidecar.
    pub port: Option<u16>,
    /// Whether its containers run.
    pub running: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// When it began to run.
    pub started: Option<Timestamp>,
}

impl PodFact {
    /// None for pods that have ended.
    pub(crate) fn of(pod: &Pod) -> Option<(Group, Self)> {
        let group = Group::of(pod, labels::BACKUP)?;
        let mode = match pod.labels().get(labels::INJECT)?.as_str() {
            "watch" => Mode::Watch,
            "replicate" => Mode::Replicate,
            _ => return None,
        };
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        let sidecar = pod.spec.as_ref().and_then(sidecar);
        let fact = Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            mode,
            ip: status.and_then(|status| status.pod_ip.as_deref()?.parse().ok()),
            port: sidecar.and_then(port),
            // A native sidecar runs while the application's own init containers do.
            running: phase == Some("Running") || status.is_some_and(sidecar_runs),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            started: status.and_then(|status| Some(status.start_time.as_ref()?.0)),
        };
        Some((group, fact))
    }
}

fn sidecar(spec: &k8s_openapi::api::core::v1::PodSpec) -> Option<&Container> {
    let init = spec.init_containers.iter().flatten();
    init.chain(&spec.containers)
        .find(|container| container.name == labels::CONTAINER)
}

fn port(container: &Container) -> Option<u16> {
    let ports = container.ports.iter().flatten();
    let mut named = ports.filter(|port| port.name.as_deref() == Some("walrust-metrics"));
    u16::try_from(named.next()?.container_port).ok()
}

fn sidecar_runs(status: &k8s_openapi::api::core::v1::PodStatus) -> bool {
    let statuses = status.init_container_statuses.iter().flatten();
    statuses
        .filter(|status| status.name == labels::CONTAINER)
        .any(|status| {
            status
                .state
                .as_ref()
                .is_some_and(|state| state.running.is_some())
        })
}

/// What a Job's pod said last.
#[derive(Clone, PartialEq, Debug)]
pub struct JobPodFact {
    /// The Job.
    pub job: String,
    /// When the container ended.
    pub finished: Timestamp,
    /// With which status.
    pub exit_code: i32,
    /// Its termination message: the report.
    pub message: Arc<str>,
}

impl JobPodFact {
    /// None while it runs.
    pub(crate) fn of(pod: &Pod) -> Option<(Group, Self)> {
        let group = Group::of(pod, labels::BACKUP)?;
        Some((group, Self::read(pod)?))
    }

    /// The same, whoever it belongs to.
    pub(crate) fn read(pod: &Pod) -> Option<Self> {
        let job = pod.labels().get("batch.kubernetes.io/job-name")?.clone();
        let statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
        let mut ours = statuses.filter(|status| status.name == labels::CONTAINER);
        let ended = ours.next()?.state.as_ref()?.terminated.as_ref()?;
        Some(Self {
            job,
            finished: ended.finished_at.as_ref()?.0,
            exit_code: ended.exit_code,
            message: ended.message.as_deref().unwrap_or_default().into(),
        })
    }
}

/// How a Job stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JobState {
    /// It has not ended.
    Active,
    /// It went well.
    Complete,
    /// It did not: why.
    Failed(String),
}

impl JobState {
    /// As the Job's conditions say.
    pub(crate) fn of(job: &Job) -> Self {
        let conditions = job
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        for condition in conditions.filter(|condition| condition.status == "True") {
            match condition.type_.as_str() {
                "Complete" => return Self::Complete,
                "Failed" => {
                    let reason = condition.reason.as_deref().unwrap_or("Failed");
                    let message = condition.message.as_deref().unwrap_or_default();
                    return Self::Failed(format!("{reason}: {message}"));
                }
                _ => {}
            }
        }
        Self::Active
    }
}

/// A Job of a `WalrustBackup`.
#[derive(Clone, PartialEq, Debug)]
pub struct JobFact {
    /// Its name.
    pub name: String,
    /// What it does.
    pub task: TaskName,
    /// When it was made.
    pub created: Timestamp,
    /// When it ended well.
    pub completed: Option<Timestamp>,
    /// How it stands.
    pub state: JobState,
}

impl JobFact {
    pub(crate) fn of(job: &Job) -> Option<(Group, Self)> {
        let group = Group::of(job, labels::BACKUP)?;
        let word = job.labels().get(labels::TASK)?;
        let task = TaskName::ALL.into_iter().find(|task| task.word() == word)?;
        let completed = job
            .status
            .as_ref()
            .and_then(|status| status.completion_time.as_ref());
        let fact = Self {
            name: job.name_any(),
            task,
            created: job.metadata.creation_timestamp.as_ref()?.0,
            completed: completed.map(|time| time.0),
            state: JobState::of(job),
        };
        Some((group, fact))
    }
}

/// An object that we apply: what tells whether somebody changed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnFact {
    /// Its name.
    pub name: String,
    /// Which state of it.
    pub version: String,
    /// The UID of the resource that controls it.
    pub owner: Option<String>,
    /// Of a CronJob: when it last ran.
    pub last_schedule: Option<Timestamp>,
    /// Of a CronJob: when it last went well.
    pub last_success: Option<Timestamp>,
}

fn owner(
    references: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference],
) -> Option<String> {
    let mut controllers = references
        .iter()
        .filter(|owner| owner.controller == Some(true));
    controllers.next().map(|owner| owner.uid.clone())
}

impl OwnFact {
    pub(crate) fn of_config_map(
        object: &PartialObjectMeta<k8s_openapi::api::core::v1::ConfigMap>,
    ) -> Option<(Group, Self)> {
        let group = Group::of(object, labels::BACKUP)?;
        let fact = Self {
            name: object.name_any(),
            version: object.resource_version()?,
            owner: owner(object.owner_references()),
            last_schedule: None,
            last_success: None,
        };
        Some((group, fact))
    }

    pub(crate) fn of_cron_job(object: &CronJob) -> Option<(Group, Self)> {
        let group = Group::of(object, labels::BACKUP)?;
        let status = object.status.as_ref();
        let time = |time: &Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
            time.as_ref().map(|time| time.0)
        };
        let fact = Self {
            name: object.name_any(),
            version: object.resource_version()?,
            owner: owner(object.owner_references()),
            last_schedule: status.and_then(|status| time(&status.last_schedule_time)),
            last_success: status.and_then(|status| time(&status.last_successful_time)),
        };
        Some((group, fact))
    }
}
