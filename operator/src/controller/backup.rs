//! One pass over a `WalrustBackup`: make what it asks for, look at what there is, say how it stands.
//!
//! Each step may fail alone; the status is written in any case.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;

use super::conflict;
use super::context::Context;
use super::error::{Error, Kind, jittered};
use super::facts::OwnFact;
use super::shelf::Group;
use crate::api::{TaskName, WalrustBackup, WalrustBackupStatus};
use crate::jobs;
use crate::render::{self, RenderedBackup};
use crate::status::changes::{notices, worth_writing};
use crate::status::{self, Scene, Step, Task, Wanted};

/// Who writes statuses.
pub(super) const STATUS_MANAGER: &str = "walrust-operator-status";
/// Any watch may miss something.
const SAFETY: Duration = Duration::from_secs(600);
/// The older of two backups may go, and nothing tells the younger.
const CONFLICT: Duration = Duration::from_secs(30);
const PATH_CONFLICT: &str = "PathConflict";

/// A pass, counted.
pub(super) async fn reconcile(
    backup: Arc<WalrustBackup>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let start = Instant::now();
    let result = pass(&backup, &context).await;
    let error = result.as_ref().err().map(Error::kind);
    context
        .common
        .metrics
        .passed("WalrustBackup", start.elapsed(), error);
    result
}

/// When to try again.
pub(super) fn on_error(backup: &WalrustBackup, error: &Error, context: &Context) -> Action {
    let group = Group {
        namespace: backup.namespace().unwrap_or_default(),
        name: backup.name_any(),
    };
    Action::requeue(context.common.backoff.failed(group, error.kind()))
}

async fn pass(backup: &WalrustBackup, context: &Context) -> Result<Action, Error> {
    let group = Group {
        namespace: backup.namespace().ok_or(Error::Incomplete("namespace"))?,
        name: backup.name_any(),
    };
    let uid = backup.uid().ok_or(Error::Incomplete("UID"))?;
    if backup.metadata.deletion_timestamp.is_some() {
        // What belongs to it is collected by Kubernetes.
        return Ok(Action::await_change());
    }
    let made = make(backup, &group, &uid, context).await;
    let written = describe(backup, &group, &made, context).await;
    if let Some(error) = made.error {
        return Err(error);
    }
    written?;
    context.common.backoff.went_well(&group);
    let conflict = made
        .config
        .as_ref()
        .is_err_and(|step| step.reason == PATH_CONFLICT);
    Ok(Action::requeue(jittered(if conflict {
        CONFLICT
    } else {
        SAFETY
    })))
}

/// What a resource was made into.
struct Made {
    wanted: Option<Wanted>,
    config: Result<(), Step>,
    schedules: Result<(), Step>,
    /// Name of the CronJob and its schedule.
    tasks: BTreeMap<TaskName, (String, String)>,
    /// Something to try again.
    error: Option<Error>,
}

/// Writes the objects of `backup`.
async fn make(backup: &WalrustBackup, group: &Group, uid: &str, context: &Context) -> Made {
    let settings = &context.common.settings;
    let refused = |reason: &'static str, message: String| {
        let step = Step { reason, message };
        Made {
            wanted: None,
            config: Err(step.clone()),
            schedules: Err(step),
            tasks: BTreeMap::new(),
            error: None,
        }
    };
    let backups = context.common.backups();
    let others = backups.iter().map(Arc::as_ref);
    if let Some(conflict) = conflict::find(backup, others, settings) {
        return refused(PATH_CONFLICT, conflict);
    }
    let rendered = match render::backup(backup, settings) {
        Ok(rendered) => rendered,
        Err(error @ render::Error::Schedule { .. }) => {
            // The configuration does not depend on it, but is rendered with it.
            return refused("InvalidSchedule", error.to_string());
        }
        Err(error) => return refused("InvalidSpec", error.to_string()),
    };
    let config = apply_config(&rendered, group, uid, context).await;
    let schedules = apply_schedules(&rendered, group, uid, context).await;
    let step = |result: &Result<(), Error>, invalid: &'static str| match result {
        Ok(()) => Ok(()),
        Err(error) => Err(Step {
            reason: if error.kind() == Kind::Invalid {
                invalid
            } else {
                "ApplyFailed"
            },
            message: error.line(),
        }),
    };
    let name = rendered.config_map.name_any();
    Made {
        config: step(&config, "InvalidSpec"),
        schedules: step(&schedules, "InvalidSchedule"),
        tasks: tasks(&rendered.cron_jobs),
        wanted: Some(Wanted {
            config_map: name,
            hash: rendered.config.hash,
            prefix: rendered.effective_prefix,
        }),
        error: config.err().or(schedules.err()),
    }
}

fn tasks(cron_jobs: &[CronJob]) -> BTreeMap<TaskName, (String, String)> {
    let named = cron_jobs.iter().filter_map(|job| {
        let name = job.name_any();
        let task = TaskName::ALL.into_iter().find(|task| {
            job.labels()
                .get(crate::api::labels::TASK)
                .map(String::as_str)
                == Some(task.word())
        })?;
        Some((task, (name, job.spec.as_ref()?.schedule.clone())))
    });
    named.collect()
}

fn seen<'f>(facts: &'f [Arc<OwnFact>], name: &str) -> Option<&'f OwnFact> {
    facts.iter().map(Arc::as_ref).find(|fact| fact.name == name)
}

async fn apply_config(
    rendered: &RenderedBackup,
    group: &Group,
    uid: &str,
    context: &Context,
) -> Result<(), Error> {
    let facts = context.config_maps.of(group);
    let object = &rendered.config_map;
    let fact = seen(&facts, &object.name_any());
    context
        .common
        .applied
        .apply(&context.common.client, object, fact, uid)
        .await
}

/// All of them are tried; the first error is told.
async fn apply_schedules(
    rendered: &RenderedBackup,
    group: &Group,
    uid: &str,
    context: &Context,
) -> Result<(), Error> {
    let (applied, client) = (&context.common.applied, &context.common.client);
    let facts = context.cron_jobs.of(group);
    let mut result = Ok(());
    for object in &rendered.cron_jobs {
        let fact = seen(&facts, &object.name_any());
        let done = applied.apply(client, object, fact, uid).await;
        result = result.and(done);
    }
    for fact in &facts {
        let wanted = rendered
            .cron_jobs
            .iter()
            .any(|object| object.name_any() == fact.name);
        if !wanted && fact.owner.as_deref() == Some(uid) {
            let done = applied
                .delete::<CronJob>(client, &group.namespace, fact)
                .await;
            result = result.and(done);
        }
    }
    result
}

/// Decides the status and writes it where that is worth it.
async fn describe(
    backup: &WalrustBackup,
    group: &Group,
    made: &Made,
    context: &Context,
) -> Result<(), Error> {
    let common = &context.common;
    // Times of the API have whole seconds.
    let now = crate::now();
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let (former, age) = common.written.former(group, backup, common.timing.numbers);
    let hash = made.wanted.as_ref().map(|wanted| wanted.hash.as_str());
    let scene = Scene {
        now,
        backup,
        former: former.clone().unwrap_or_default(),
        wanted: made.wanted.clone(),
        config: made.config.clone(),
        schedules: made.schedules.clone(),
        pods: context.scrapes.pods(context.pods.of(group), hash, now),
        tasks: histories(made, group, context, now),
        patience: common.timing.patience,
    };
    let status = status::decide(&scene);
    let failures = scene
        .tasks
        .iter()
        .map(|(task, own)| (*task, own.history.failures));
    common.metrics.show(group, &status, failures.collect());
    if !worth_writing(former.as_ref(), &status, age, common.timing.numbers) {
        return Ok(());
    }
    write(backup, group, &status, context).await?;
    let old = former.map(|former| former.conditions).unwrap_or_default();
    for notice in notices(&old, &status.conditions) {
        let event = Event {
            type_: if notice.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: notice.reason.to_owned(),
            note: Some(notice.note.chars().take(900).collect()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        // An event that is lost is no reason to do it all again.
        if let Err(error) = common
            .recorder
            .publish(&event, &backup.object_ref(&()))
            .await
        {
            tracing::warn!(backup = %group.name, %error, "event");
        }
    }
    common.written.remember(group.clone(), backup, status);
    Ok(())
}

fn histories(
    made: &Made,
    group: &Group,
    context: &Context,
    now: Timestamp,
) -> BTreeMap<TaskName, Task> {
    let (jobs, pods) = (context.jobs.of(group), context.job_pods.of(group));
    let jobs: Vec<_> = jobs.iter().map(Arc::as_ref).collect();
    let pods: Vec<_> = pods.iter().map(Arc::as_ref).collect();
    let facts = context.cron_jobs.of(group);
    let tasks = made.tasks.iter().map(|(task, (cron_job, schedule))| {
        let fact = seen(&facts, cron_job);
        let own = Task {
            cron_job: cron_job.clone(),
            last_schedule: fact.and_then(|fact| fact.last_schedule),
            last_success: fact.and_then(|fact| fact.last_success),
            period: jobs::period(schedule, now),
            history: jobs::history(*task, &jobs, &pods),
        };
        (*task, own)
    });
    tasks.collect()
}

async fn write(
    backup: &WalrustBackup,
    group: &Group,
    status: &WalrustBackupStatus,
    context: &Context,
) -> Result<(), Error> {
    let api = Api::<WalrustBackup>::namespaced(context.common.client.clone(), &group.namespace);
    let patch = json!({
        "apiVersion": WalrustBackup::api_version(&()),
        "kind": WalrustBackup::kind(&()),
        // Of this one, and not of a namesake that came after it.
        "metadata": {"name": group.name, "uid": backup.uid()},
        "status": status,
    });
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let written = api
        .patch_status(&group.name, &params, &Patch::Apply(&patch))
        .await;
    match written {
        Ok(_) => Ok(()),
        // It is gone: nobody is left to be told.
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(Error::api(
            "write the status of",
            format!("WalrustBackup {}", group.name),
        )(error)),
    }
}
