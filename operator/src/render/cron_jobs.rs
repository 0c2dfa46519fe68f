//! The CronJobs of a `WalrustBackup`: compact, verify, restore drill.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    CronJob, CronJobSpec, JobSpec, JobTemplateSpec, PodFailurePolicy,
    PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{
    EphemeralVolumeSource, PersistentVolumeClaimTemplate, Volume, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::cron;
use super::error::Error;
use super::job_pod::{JobPod, Work};
use super::names::{self, CONFIG_DIRECTORY, REPORT_FILE, TMP_DIRECTORY, volumes};
use super::pod::{empty_volume, mount};
use super::settings::Settings;
use crate::api::{Drill, Schedule, TaskName, WalrustBackup, labels};

/// Where drills restore to.
const SCRATCH_DIRECTORY: &str = "/scratch";

/// The exit status of a verification that found the backup damaged, with `--exit-codes fine`.
const DAMAGED: i32 = 4;

/// The name of a task's CronJob.
pub fn cron_job_name(backup: &str, task: TaskName) -> String {
    format!("{backup}-{}", task.word())
}

/// The CronJobs that `backup` asks for. `config_file` is the one for Jobs.
pub(super) fn of_backup(
    backup: &WalrustBackup,
    config_file: &str,
    settings: &Settings,
) -> Result<Vec<CronJob>, Error> {
    let schedules = &backup.spec.schedules;
    let drill = schedules.restore_drill.as_ref();
    let wanted = [
        (TaskName::Compact, schedules.compact.as_ref()),
        (TaskName::Verify, schedules.verify.as_ref()),
        (TaskName::RestoreDrill, drill.map(|drill| &drill.schedule)),
    ];
    let wanted = wanted.into_iter();
    let wanted = wanted.filter_map(|(task, schedule)| Some((task, schedule?)));
    wanted
        .map(|(task, schedule)| cron_job(backup, task, schedule, config_file, settings))
        .collect()
}

fn cron_job(
    backup: &WalrustBackup,
    task: TaskName,
    schedule: &Schedule,
    config_file: &str,
    settings: &Settings,
) -> Result<CronJob, Error> {
    let (name, namespace) = names::identity(backup)?;
    let seed = format!("{namespace}/{name}/{}", task.word());
    let cron = cron::resolve(&schedule.cron, &seed)
        .map_err(|message| Error::Schedule { task, message })?;
    let labels = task_labels(&name, task);
    let time_zone = &backup.spec.schedules.time_zone;
    let pod = JobPod::of_backup(backup, &name, work(task, config_file, backup), settings)?;
    Ok(CronJob {
        metadata: names::metadata(
            backup,
            cron_job_name(&name, task),
            &namespace,
            labels.clone(),
        ),
        spec: Some(CronJobSpec {
            schedule: cron,
            time_zone: time_zone.clone().or_else(|| settings.time_zone.clone()),
            suspend: Some(backup.spec.suspend || schedule.suspend),
            concurrency_policy: Some("Forbid".to_owned()),
            starting_deadline_seconds: Some(schedule.starting_deadline_seconds),
            successful_jobs_history_limit: Some(schedule.successful_jobs_history_limit),
            failed_jobs_history_limit: Some(schedule.failed_jobs_history_limit),
            job_template: JobTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels.clone()),
                    ..ObjectMeta::default()
                }),
                spec: Some(JobSpec {
                    backoff_limit: Some(backoff_limit(task)),
                    active_deadline_seconds: Some(schedule.active_deadline_seconds),
                    pod_failure_policy: Some(failure_policy()),
                    template: pod.template(labels),
                    ..JobSpec::default()
                }),
            },
        }),
        ..CronJob::default()
    })
}

/// The labels of a task's objects and pods.
fn task_labels(backup: &str, task: TaskName) -> BTreeMap<String, String> {
    let mut own = names::labels(backup, task.word());
    own.insert(labels::BACKUP.to_owned(), backup.to_owned());
    own.insert(labels::TASK.to_owned(), task.word().to_owned());
    own
}

/// A drill downloads everything: once more, not twice.
const fn backoff_limit(task: TaskName) -> i32 {
    match task {
        TaskName::Compact | TaskName::Verify => 2,
        TaskName::RestoreDrill => 1,
    }
}

fn failure_policy() -> PodFailurePolicy {
    PodFailurePolicy {
        rules: vec![
            // The backup is bad: to try again tells nothing new.
            PodFailurePolicyRule {
                action: "FailJob".to_owned(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(labels::CONTAINER.to_owned()),
                    operator: "In".to_owned(),
                    values: vec![DAMAGED],
                }),
                ..PodFailurePolicyRule::default()
            },
            // Drained or preempted: not the backup's fault.
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".to_owned(),
                    status: "True".to_owned(),
                }]),
                ..PodFailurePolicyRule::default()
            },
        ],
    }
}

fn work(task: TaskName, config_file: &str, backup: &WalrustBackup) -> Work {
    let verb: &[&str] = match task {
        TaskName::Compact => &["compact", "--all", "--force"],
        TaskName::Verify => &["verify", "--all"],
        TaskName::RestoreDrill => &["drill", "--all", "--scratch", SCRATCH_DIRECTORY],
    };
    let config = format!("{CONFIG_DIRECTORY}/{config_file}");
    let common = [
        "--config",
        &config,
        "--exit-codes",
        "fine",
        "--report",
        REPORT_FILE,
    ];
    let args = verb
        .iter()
        .chain(&common)
        .map(|word| (*word).to_owned())
        .collect();
    let mut work = Work::new("walrust", args);
    match (task, &backup.spec.schedules.restore_drill) {
        (TaskName::RestoreDrill, Some(drill)) => {
            work.volumes.push(scratch(drill));
            work.mounts.push(mount(volumes::SCRATCH, SCRATCH_DIRECTORY));
            work.mounts.push(mount(volumes::TMP, TMP_DIRECTORY));
            work.volumes
                .push(empty_volume(volumes::TMP, Some(Quantity("1Gi".to_owned()))));
        }
        _ => {
            work.mounts.push(mount(volumes::TMP, TMP_DIRECTORY));
            work.volumes
                .push(empty_volume(volumes::TMP, Some(Quantity("1Gi".to_owned()))));
        }
    }
    work
}

/// Where a drill restores to: the node's own disk, or a claim of its own.
fn scratch(drill: &Drill) -> Volume {
    let template = drill.scratch.as_ref();
    let Some(template) = template.and_then(|scratch| scratch.volume_claim_template.as_ref()) else {
        return empty_volume(volumes::SCRATCH, drill.scratch_size.clone());
    };
    let mut spec = template.spec.clone();
    if spec.access_modes.as_ref().is_none_or(Vec::is_empty) {
        spec.access_modes = Some(vec!["ReadWriteOnce".to_owned()]);
    }
    if spec.resources.is_none() {
        spec.resources = drill
            .scratch_size
            .clone()
            .map(|size| VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), size)].into()),
                ..VolumeResourceRequirements::default()
            });
    }
    Volume {
        name: volumes::SCRATCH.to_owned(),
        ephemeral: Some(EphemeralVolumeSource {
            volume_claim_template: Some(PersistentVolumeClaimTemplate {
                metadata: None,
                spec,
            }),
        }),
        ..Volume::default()
    }
}
