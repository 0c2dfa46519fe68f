//! The databases of a status: what sidecars say, what checks found, and what is remembered where nobody answers.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use walrust_core::serve::DatabaseReport;
use walrust_core::types::{Timestamp, Txid};

use super::Scene;
use crate::api::{
    Check, CheckResult, DatabaseState, DatabaseStatus, TaskName, WalrustBackupStatus,
};
use crate::controller::facts::Mode;
use crate::jobs::{Outcome, Run};

/// A database to be backed up.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Writing {
    pub(super) status: DatabaseStatus,
    /// The kind of the error that stands.
    pub(super) error: Option<String>,
    /// Whether it may be missing.
    pub(super) optional: bool,
}

/// All databases.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Databases {
    pub(super) writing: Vec<Writing>,
    replicas: Vec<DatabaseStatus>,
}

/// What is known of the databases of `scene`.
pub(super) fn seen(scene: &Scene<'_>, former: &WalrustBackupStatus) -> Databases {
    let mut writing: BTreeMap<String, (bool, Writing)> = BTreeMap::new();
    let mut replicas = Vec::new();
    for pod in &scene.pods {
        let Some(report) = pod.report.as_deref() else {
            continue;
        };
        let silent = pod.silent.as_ref();
        let lost = silent.is_some_and(|(_, since)| scene.over(*since, scene.patience.unreachable));
        for one in &report.databases {
            let mut status = of_report(one, &pod.fact.name);
            if lost {
                status.state = DatabaseState::Unreachable;
                status.message = silent.map(|(message, _)| message.clone());
            }
            if pod.fact.mode == Mode::Replicate {
                replicas.push(status);
                continue;
            }
            let name = status.name.clone();
            let entry = Writing {
                optional: optional(scene, &name),
                error: one.error.as_ref().map(|error| error.kind.clone()),
                status,
            };
            // Of two pods the owner of the stream is the one that counts, then the one that stays.
            let rank = one.lease.held && !pod.fact.terminating;
            match writing.get(&name) {
                Some((held, _)) if *held && !rank => {}
                _ => {
                    writing.insert(name, (rank, entry));
                }
            }
        }
    }
    for old in former
        .databases
        .iter()
        .filter(|old| old.state != DatabaseState::Replica)
    {
        let known = scene
            .backup
            .spec
            .databases
            .iter()
            .any(|one| is_of(&one.name, &old.name));
        if known && !writing.contains_key(&old.name) {
            let entry = forgotten(scene, old.clone());
            writing.insert(old.name.clone(), (false, entry));
        }
    }
    let mut writing: Vec<Writing> = writing.into_values().map(|(_, entry)| entry).collect();
    for entry in &mut writing {
        let old = former
            .databases
            .iter()
            .find(|old| old.name == entry.status.name && old.state != DatabaseState::Replica);
        entry.status.last_verify = checked(scene, TaskName::Verify, &entry.status.name)
            .or_else(|| old.and_then(|old| old.last_verify.clone()));
        entry.status.last_drill = checked(scene, TaskName::RestoreDrill, &entry.status.name)
            .or_else(|| old.and_then(|old| old.last_drill.clone()));
    }
    Databases { writing, replicas }
}

/// What nobody speaks of any more, as it was last.
fn forgotten(scene: &Scene<'_>, old: DatabaseStatus) -> Writing {
    Writing {
        optional: optional(scene, &old.name),
        error: None,
        status: DatabaseStatus {
            state: DatabaseState::Unreachable,
            pod: None,
            lag_seconds: None,
            message: Some("no pod speaks of it".to_owned()),
            ..old
        },
    }
}

/// Whether `stream` is the one of the entry `name`, or of a file that its pattern matches.
fn is_of(name: &str, stream: &str) -> bool {
    stream
        .strip_prefix(name)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn optional(scene: &Scene<'_>, stream: &str) -> bool {
    let mut entries = scene.backup.spec.databases.iter();
    entries.any(|one| one.optional && is_of(&one.name, stream))
}

fn of_report(one: &DatabaseReport, pod: &str) -> DatabaseStatus {
    // Times of the API have whole seconds: what comes back from it must compare equal.
    let whole = |time: Timestamp| {
        let time = time.to_jiff();
        k8s_openapi::jiff::Timestamp::from_second(time.as_second()).unwrap_or(time)
    };
    let time = |time: Option<Timestamp>| time.map(|time| Time(whole(time)));
    let txid = |txid: Option<Txid>| txid.and_then(|txid| i64::try_from(txid.get()).ok());
    DatabaseStatus {
        name: one.name.to_string(),
        state: state(&one.state),
        pod: Some(pod.to_owned()),
        txid: txid(one.txid),
        durable_txid: txid(one.durable_txid),
        lag_seconds: Some(whole_seconds(one.lag_seconds)),
        last_sync_time: time(one.last_sync),
        last_snapshot_time: time(one.last_snapshot),
        earliest_recoverable_time: None,
        latest_recoverable_time: time(one.last_sync),
        last_verify: None,
        last_drill: None,
        message: one
            .error
            .as_ref()
            .map(|error| error.message.chars().take(512).collect()),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "clamped to a year before")]
fn whole_seconds(lag: f64) -> i64 {
    lag.clamp(0.0, 31_536_000.0) as i64
}

/// A word of a version that we do not know is no good news.
fn state(word: &str) -> DatabaseState {
    match word {
        "waiting_for_file" => DatabaseState::WaitingForFile,
        "acquiring_lease" => DatabaseState::AcquiringLease,
        "snapshotting" => DatabaseState::Snapshotting,
        "in_sync" => DatabaseState::InSync,
        "lagging" => DatabaseState::Lagging,
        "paused" => DatabaseState::Paused,
        "detached" => DatabaseState::Detached,
        "fenced" => DatabaseState::Fenced,
        "replica" => DatabaseState::Replica,
        _ => DatabaseState::Erroring,
    }
}

/// What the last run of `task` found of `database`.
fn checked(scene: &Scene<'_>, task: TaskName, database: &str) -> Option<Check> {
    let run: &Run = scene.tasks.get(&task)?.history.last_run.as_ref()?;
    let entry = run.databases.get(database);
    let result = match (&run.outcome, entry) {
        (_, Some(entry)) if entry.ok => CheckResult::Passed,
        (Outcome::Failed(_), Some(_)) => CheckResult::Failed,
        // A report has room for the worst ones: who is not in it went well.
        (Outcome::Passed, _) => CheckResult::Passed,
        (Outcome::Failed(_) | Outcome::Unclear(_), _) => return None,
    };
    Some(Check {
        time: Time(run.finished),
        result,
        txid: entry.and_then(|entry| i64::try_from(entry.txid?.get()).ok()),
        message: entry
            .map(|entry| entry.message.clone())
            .filter(|message| !message.is_empty()),
    })
}

impl Writing {
    /// Whether nothing is wrong with it.
    pub(super) fn is_well(&self) -> bool {
        match self.status.state {
            DatabaseState::InSync | DatabaseState::Paused | DatabaseState::Replica => true,
            DatabaseState::WaitingForFile => self.optional,
            DatabaseState::AcquiringLease
            | DatabaseState::Snapshotting
            | DatabaseState::Lagging
            | DatabaseState::Erroring
            | DatabaseState::Detached
            | DatabaseState::Fenced
            | DatabaseState::Unreachable => false,
        }
    }
}

impl Databases {
    /// `3/3`: in sync, of all that are there.
    pub(super) fn summary(&self) -> Option<String> {
        let there = || {
            let absent =
                |one: &&Writing| one.optional && one.status.state == DatabaseState::WaitingForFile;
            self.writing.iter().filter(move |one| !absent(one))
        };
        let in_sync = there()
            .filter(|one| one.status.state == DatabaseState::InSync)
            .count();
        let all = there().count();
        (all > 0).then(|| format!("{in_sync}/{all}"))
    }

    /// In powers of two, so that it does not change with every look.
    pub(super) fn max_lag(&self) -> Option<String> {
        let lags = self.writing.iter().filter_map(|one| one.status.lag_seconds);
        let lag = u64::try_from(lags.max()?).unwrap_or_default();
        let rounded = if lag == 0 { 0 } else { lag.next_power_of_two() };
        Some(format!("{rounded}s"))
    }

    /// At most `most` of them, worst first.
    pub(super) fn into_worst(self, most: usize) -> Vec<DatabaseStatus> {
        let mut writing = self.writing;
        writing.sort_by_key(|one| {
            let failed = |check: &Option<Check>| {
                check
                    .as_ref()
                    .is_some_and(|check| check.result == CheckResult::Failed)
            };
            let damaged = failed(&one.status.last_verify) || failed(&one.status.last_drill);
            (one.is_well(), !damaged, one.status.name.clone())
        });
        let writing = writing.into_iter().map(|one| one.status);
        writing.chain(self.replicas).take(most).collect()
    }
}
