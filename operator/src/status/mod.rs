//! What a `WalrustBackup` says of itself: a pure function of what was rendered, applied, and seen of pods and Jobs.

pub mod changes;
pub mod conditions;
mod databases;
mod replication;
pub mod scrape;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use walrust_core::serve::StatusReport;

use self::conditions::{Holds, Kind, READY, SUSPENDED, Verdict};
use crate::api::{ConfigStatus, TaskName, TaskStatus, WalrustBackup, WalrustBackupStatus};
use crate::controller::facts::{Mode, PodFact};
use crate::jobs::{History, Outcome};

/// Most databases of a status; an object of etcd has 1.5 MiB.
const MOST_DATABASES: usize = 100;

/// How long something may last before it is called wrong.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A sidecar that does not answer.
    pub unreachable: Duration,
    /// A pod that runs another configuration: the kubelet takes up to a minute and a half to show it a new one.
    pub config: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            unreachable: Duration::from_secs(60),
            config: Duration::from_secs(180),
        }
    }
}

/// What is known of a pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What Kubernetes says of it.
    pub fact: Arc<PodFact>,
    /// What its sidecar said last.
    pub report: Option<Arc<StatusReport>>,
    /// Why it does not answer, and since when.
    pub silent: Option<(String, Timestamp)>,
    /// Since when it runs another configuration than the newest.
    pub outdated: Option<Timestamp>,
}

/// What was done for a backup, or why not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// One word, where it was not done.
    pub reason: &'static str,
    /// Why.
    pub message: String,
}

/// The configuration that pods are to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The ConfigMap that holds it.
    pub config_map: String,
    /// What tells it from others.
    pub hash: String,
    /// The prefix that is used in the bucket.
    pub prefix: String,
}

/// One task that has a schedule.
#[derive(Clone, PartialEq, Debug)]
pub struct Task {
    /// The CronJob.
    pub cron_job: String,
    /// When that last ran.
    pub last_schedule: Option<Timestamp>,
    /// When it last went well, by its own account.
    pub last_success: Option<Timestamp>,
    /// How far apart runs are.
    pub period: Option<Duration>,
    /// What became of them.
    pub history: History,
}

/// Everything that a status depends on.
#[derive(Debug)]
pub struct Scene<'a> {
    /// This moment.
    pub now: Timestamp,
    /// The resource.
    pub backup: &'a WalrustBackup,
    /// Its status so far.
    pub former: WalrustBackupStatus,
    /// What pods are to run; none if it cannot be rendered.
    pub wanted: Option<Wanted>,
    /// Whether the ConfigMap stands.
    pub config: Result<(), Step>,
    /// Whether the CronJobs stand.
    pub schedules: Result<(), Step>,
    /// Pods that carry this backup's label.
    pub pods: Vec<Pod>,
    /// Tasks that have a schedule.
    pub tasks: BTreeMap<TaskName, Task>,
    /// How long things may last.
    pub patience: Patience,
}

impl Scene<'_> {
    /// Pods to be backed up that are not about to go.
    fn writers(&self) -> impl Iterator<Item = &Pod> {
        self.pods
            .iter()
            .filter(|pod| pod.fact.mode == Mode::Watch && !pod.fact.terminating)
    }

    /// Whether `since` is longer ago than `limit`.
    fn over(&self, since: Timestamp, limit: Duration) -> bool {
        Duration::try_from(self.now.duration_since(since)).is_ok_and(|age| age > limit)
    }
}

/// The status of `scene`.
pub fn decide(scene: &Scene<'_>) -> WalrustBackupStatus {
    let former = &scene.former;
    let databases = databases::seen(scene, former);
    let replicating = replication::verdict(scene, &databases.writing);
    let verdicts = [
        (
            Kind::ConfigRendered,
            Some(step(&scene.config, "Rendered", "walrust.toml is applied")),
        ),
        (Kind::SchedulesReady, Some(schedules(scene))),
        (Kind::Injected, Some(injected(scene))),
        (Kind::Replicating, Some(replicating)),
        (Kind::Verified, check(scene, TaskName::Verify)),
        (Kind::RestoreTested, check(scene, TaskName::RestoreDrill)),
    ];
    let in_sync = verdicts.iter().any(|(kind, verdict)| {
        let holds = verdict.as_ref().map(|verdict| verdict.holds);
        *kind == Kind::Replicating && holds == Some(Holds::True)
    });
    let conditions = conditions(scene, former, verdicts);
    let summary = databases.summary();
    let total = i32::try_from(databases.writing.len()).unwrap_or(i32::MAX);
    let oldest = |times: Vec<Option<Time>>| {
        times
            .into_iter()
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .min()
    };
    let last_sync = oldest(
        databases
            .writing
            .iter()
            .map(|one| one.status.last_sync_time.clone())
            .collect(),
    );
    let last_verify = databases.writing.iter().map(|one| {
        one.status
            .last_verify
            .as_ref()
            .map(|check| check.time.clone())
    });
    WalrustBackupStatus {
        observed_generation: scene.backup.metadata.generation,
        conditions,
        effective_prefix: scene.wanted.as_ref().map(|wanted| wanted.prefix.clone()),
        config: config(scene),
        summary,
        max_lag: databases.max_lag(),
        last_verify_time: oldest(last_verify.collect()),
        earliest_recoverable_time: None,
        latest_recoverable_time: last_sync.clone(),
        last_sync_time: last_sync,
        ever_synced: former.ever_synced || (in_sync && total > 0),
        databases_total: Some(total),
        databases: databases.into_worst(MOST_DATABASES),
        tasks: tasks(scene),
    }
}

fn step(step: &Result<(), Step>, reason: &'static str, message: &str) -> Verdict {
    match step {
        Ok(()) => Verdict::good(reason, message),
        Err(step) => Verdict::bad(step.reason, step.message.clone()),
    }
}

fn schedules(scene: &Scene<'_>) -> Verdict {
    let message = match scene.tasks.is_empty() {
        true => "nothing is scheduled",
        false => "the CronJobs are applied",
    };
    step(&scene.schedules, "Scheduled", message)
}

fn injected(scene: &Scene<'_>) -> Verdict {
    let writers: Vec<&Pod> = scene.writers().collect();
    let bare: Vec<&str> = writers
        .iter()
        .filter(|pod| pod.fact.port.is_none())
        .map(|pod| pod.fact.name.as_str())
        .collect();
    let running: Vec<&Pod> = writers
        .iter()
        .copied()
        .filter(|pod| pod.fact.port.is_some() && pod.fact.running)
        .collect();
    if !bare.is_empty() {
        let pods = bare.join(", ");
        return Verdict::bad(
            "RolloutNeeded",
            format!("without a sidecar, since they are older than the operator: {pods}"),
        );
    }
    let names = || {
        running
            .iter()
            .map(|pod| pod.fact.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match running.as_slice() {
        [] => Verdict::bad(
            "NoPods",
            "no pod with the labels walrust.dev/inject=watch and walrust.dev/backup runs",
        ),
        [pod] => one_writer(scene, pod),
        [_, _, ..] => Verdict::bad(
            "MultipleWriters",
            format!("only one of these pods can be backed up: {}", names()),
        ),
    }
}

fn one_writer(scene: &Scene<'_>, pod: &Pod) -> Verdict {
    let name = &pod.fact.name;
    let report = pod.report.as_deref();
    if let Some(error) = report.and_then(|report| report.config_error.as_deref()) {
        return Verdict::bad(
            "ConfigPending",
            format!("{name} refuses the configuration: {error}"),
        );
    }
    if pod
        .outdated
        .is_some_and(|since| scene.over(since, scene.patience.config))
    {
        return Verdict::bad(
            "ConfigPending",
            format!("{name} still runs an older configuration"),
        );
    }
    Verdict::good("Injected", format!("{name} runs the sidecar"))
}

/// None where the task has no schedule.
fn check(scene: &Scene<'_>, task: TaskName) -> Option<Verdict> {
    let own = scene.tasks.get(&task)?;
    let twice = own.period.map(|period| period * 2);
    let old = |since: Timestamp| twice.is_some_and(|twice| scene.over(since, twice));
    let word = task.word();
    let run = own.history.last_run.as_ref();
    if let Some(run) = run
        && let Outcome::Failed(message) = &run.outcome
    {
        return Some(Verdict::bad("Failed", message.clone()));
    }
    // Jobs are deleted: what was found stays in the status.
    let kind = match task {
        TaskName::RestoreDrill => Kind::RestoreTested,
        TaskName::Verify | TaskName::Compact => Kind::Verified,
    };
    let former = scene
        .former
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind.word());
    if let (Some(former), None) = (former, run)
        && former.reason == "Failed"
    {
        return Some(Verdict::bad("Failed", former.message.clone()));
    }
    let remark = match run.map(|run| &run.outcome) {
        Some(Outcome::Unclear(message)) => format!("; the last Job could not tell: {message}"),
        _ => String::new(),
    };
    let success = own.history.last_success.max(own.last_success);
    Some(match success {
        Some(success) if old(success) => Verdict::bad(
            "Stale",
            format!("{word} last passed more than two of its periods ago{remark}"),
        ),
        Some(_) => Verdict::good("Passed", format!("the last {word} passed{remark}")),
        None => {
            let created = scene
                .backup
                .creation_timestamp()
                .map_or(scene.now, |time| time.0);
            let holds = if old(created) {
                Holds::False
            } else {
                Holds::Unknown
            };
            Verdict::new(holds, "NeverRun", format!("{word} has not run yet{remark}"))
        }
    })
}

fn conditions(
    scene: &Scene<'_>,
    former: &WalrustBackupStatus,
    verdicts: [(Kind, Option<Verdict>); 6],
) -> Vec<Condition> {
    let generation = scene.backup.metadata.generation;
    let make = |type_: &str, verdict: Verdict| {
        verdict.condition(type_, &former.conditions, generation, scene.now)
    };
    let ready = ready(scene, &verdicts);
    let suspended = match scene.backup.spec.suspend {
        true => Verdict::new(
            Holds::True,
            "Suspended",
            "spec.suspend is set: nothing is uploaded or scheduled",
        ),
        false => Verdict::new(Holds::False, "Running", ""),
    };
    let own = verdicts.into_iter();
    let own = own.filter_map(|(kind, verdict)| Some(make(kind.word(), verdict?)));
    own.chain([make(SUSPENDED, suspended), make(READY, ready)])
        .collect()
}

fn ready(scene: &Scene<'_>, verdicts: &[(Kind, Option<Verdict>)]) -> Verdict {
    if scene.backup.spec.suspend {
        return Verdict::bad(
            "Suspended",
            "spec.suspend is set: nothing is uploaded or scheduled",
        );
    }
    let given = || {
        verdicts
            .iter()
            .filter_map(|(kind, verdict)| Some((*kind, verdict.as_ref()?)))
    };
    // A check that has not run yet says nothing bad.
    let needed = |kind: Kind| !matches!(kind, Kind::Verified | Kind::RestoreTested);
    let first = given().find(|(kind, verdict)| match verdict.holds {
        Holds::True => false,
        Holds::False => true,
        Holds::Unknown => needed(*kind),
    });
    match first {
        None => Verdict::good("Ready", "every database is backed up"),
        Some((kind, verdict)) => Verdict::new(
            verdict.holds,
            verdict.reason,
            format!("{}: {}", kind.word(), verdict.message),
        ),
    }
}

fn config(scene: &Scene<'_>) -> Option<ConfigStatus> {
    let wanted = scene.wanted.as_ref()?;
    let with_sidecar = || scene.pods.iter().filter(|pod| pod.fact.port.is_some());
    let runs = |pod: &&Pod| {
        let report = pod.report.as_deref();
        report.is_some_and(|report| report.config_hash.as_ref() == Some(&wanted.hash))
    };
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    Some(ConfigStatus {
        config_map_name: wanted.config_map.clone(),
        hash: wanted.hash.clone(),
        pods_current: count(with_sidecar().filter(runs).count()),
        pods_total: count(with_sidecar().count()),
    })
}

fn tasks(scene: &Scene<'_>) -> Vec<TaskStatus> {
    let tasks = scene.tasks.iter();
    tasks
        .map(|(task, own)| TaskStatus {
            task: *task,
            cron_job_name: Some(own.cron_job.clone()),
            last_schedule_time: own.last_schedule.map(Time),
            last_success_time: own.history.last_success.max(own.last_success).map(Time),
            last_job_name: own.history.last_job.clone(),
        })
        .collect()
}
