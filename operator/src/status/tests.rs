use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::conditions::READY;
use super::*;
use crate::jobs::Run;
use crate::status::changes::{notices, worth_writing};

fn now() -> Timestamp {
    "2026-11-24T12:00:00Z".parse().unwrap()
}

fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

fn backup() -> WalrustBackup {
    serde_json::from_value(json!({
        "apiVersion": "walrust.dev/v1alpha1",
        "kind": "WalrustBackup",
        "metadata": {"name": "notes", "namespace": "apps", "generation": 3, "creationTimestamp": "2026-11-24T10:00:00Z"},
        "spec": {
            "storage": {"bucket": "b", "credentials": {"secretRef": {"name": "s3"}}},
            "databases": [
                {"name": "main", "path": "/data/app.db"},
                {"name": "more", "path": "/data/more/*.db", "optional": true},
            ],
        },
    }))
    .unwrap()
}

fn pod(name: &str, databases: serde_json::Value) -> Pod {
    let report = json!({
        "version": "0.1.0", "pod": name, "mode": "watch", "config_hash": "aaa", "config_error": null,
        "started": "2026-11-24T10:00:00Z", "paused": false, "databases": databases,
    });
    Pod {
        fact: Arc::new(PodFact {
            name: name.to_owned(),
            uid: name.to_owned(),
            mode: Mode::Watch,
            ip: None,
            port: Some(16767),
            running: true,
            terminating: false,
            started: Some(ago(600)),
        }),
        report: Some(Arc::new(serde_json::from_value(report).unwrap())),
        silent: None,
        outdated: None,
    }
}

fn database(name: &str, state: &str, lag: f64) -> serde_json::Value {
    json!({
        "name": name, "path": "/data/app.db", "state": state, "txid": 7, "durable_txid": 7, "lag_seconds": lag,
        "detached_until": null, "last_sync": "2026-11-24T11:59:00.250Z", "last_snapshot": null, "next_snapshot": null,
        "wal_bytes": 0, "spool_bytes": 0, "proven_txid": null, "proven_at": null,
        "lease": {"held": true, "epoch": 1, "lineage": null}, "error": null,
    })
}

fn scene(backup: &WalrustBackup, pods: Vec<Pod>) -> Scene<'_> {
    Scene {
        now: now(),
        backup,
        former: WalrustBackupStatus::default(),
        wanted: Some(Wanted {
            config_map: "notes-walrust".to_owned(),
            hash: "aaa".to_owned(),
            prefix: "apps/notes".to_owned(),
        }),
        config: Ok(()),
        schedules: Ok(()),
        pods,
        tasks: BTreeMap::new(),
        patience: Patience::default(),
    }
}

fn verify(last_success: Option<Timestamp>, last_run: Option<Run>) -> Task {
    Task {
        cron_job: "notes-verify".to_owned(),
        last_schedule: None,
        last_success,
        period: Some(Duration::from_secs(3_600)),
        history: History {
            last_run,
            ..History::default()
        },
    }
}

fn reason(status: &WalrustBackupStatus, kind: &str) -> (String, String) {
    let condition = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .unwrap();
    (condition.status.clone(), condition.reason.clone())
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn all_is_well_when_every_database_that_must_be_there_is_in_sync() {
    let backup = backup();
    let pod = pod(
        "notes-0",
        json!([
            database("main", "in_sync", 0.0),
            database("more", "waiting_for_file", 0.0)
        ]),
    );
    let status = decide(&scene(&backup, vec![pod]));
    assert_eq!(reason(&status, READY), pair("True", "Ready"));
    assert_eq!(status.summary.as_deref(), Some("1/1"));
    assert_eq!(status.max_lag.as_deref(), Some("0s"));
    assert!(status.ever_synced);
    assert_eq!(status.observed_generation, Some(3));
    // Whole seconds, as the API gives them back.
    let synced: Time = Time("2026-11-24T11:59:00Z".parse().unwrap());
    assert_eq!(status.databases[0].last_sync_time, Some(synced));
}

#[test]
fn a_sidecar_may_be_silent_for_a_while() {
    let backup = backup();
    for (since, wanted) in [
        (59, pair("True", "InSync")),
        (61, pair("False", "Unreachable")),
    ] {
        let mut pod = pod("notes-0", json!([database("main", "in_sync", 0.0)]));
        pod.silent = Some(("no answer".to_owned(), ago(since)));
        let status = decide(&scene(&backup, vec![pod]));
        assert_eq!(reason(&status, "Replicating"), wanted);
    }
}

#[test]
fn what_is_known_of_a_database_outlives_its_pod_but_not_its_entry() {
    let backup = backup();
    let first = decide(&scene(
        &backup,
        vec![pod(
            "notes-0",
            json!([
                database("main", "in_sync", 0.0),
                database("more/a.db", "in_sync", 0.0),
                database("gone", "in_sync", 0.0),
            ]),
        )],
    ));
    assert_eq!(first.databases.len(), 3);
    let mut scene = scene(&backup, Vec::new());
    scene.former = first;
    let status = decide(&scene);
    let names: Vec<&str> = status
        .databases
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["main", "more/a.db"]);
    assert!(
        status
            .databases
            .iter()
            .all(|one| one.pod.is_none() && one.txid == Some(7))
    );
    assert!(status.ever_synced);
    assert_eq!(reason(&status, READY), pair("False", "NoPods"));
}

#[test]
fn a_check_is_unknown_then_stale_and_a_failure_stays() {
    let backup = backup();
    let run = |outcome: Outcome| Run {
        finished: ago(60),
        outcome,
        databases: BTreeMap::new(),
    };
    let damaged = || Outcome::Failed("page 3".to_owned());
    let unclear = || Outcome::Unclear("OOMKilled".to_owned());
    for (task, wanted) in [
        (verify(Some(ago(7_100)), None), pair("True", "Passed")),
        (verify(Some(ago(7_300)), None), pair("False", "Stale")),
        (
            verify(Some(ago(60)), Some(run(Outcome::Passed))),
            pair("True", "Passed"),
        ),
        (
            verify(Some(ago(600)), Some(run(damaged()))),
            pair("False", "Failed"),
        ),
        (
            verify(Some(ago(600)), Some(run(unclear()))),
            pair("True", "Passed"),
        ),
        (
            verify(None, Some(run(unclear()))),
            pair("Unknown", "NeverRun"),
        ),
    ] {
        let mut scene = scene(&backup, Vec::new());
        if wanted.0 == "Unknown" {
            // Made an hour ago, which is less than two periods.
            scene.now = ago(3_600);
        }
        scene.tasks.insert(TaskName::Verify, task);
        assert_eq!(reason(&decide(&scene), "Verified"), wanted);
    }
    let mut first = scene(&backup, Vec::new());
    first.tasks.insert(
        TaskName::Verify,
        verify(Some(ago(600)), Some(run(damaged()))),
    );
    let former = decide(&first);
    let mut second = scene(&backup, Vec::new());
    second.former = former;
    second
        .tasks
        .insert(TaskName::Verify, verify(Some(ago(600)), None));
    assert_eq!(
        reason(&decide(&second), "Verified"),
        pair("False", "Failed")
    );
}

#[test]
fn numbers_that_move_are_written_now_and_then_and_turns_at_once() {
    let backup = backup();
    let at = |lag: f64, state: &str| {
        decide(&scene(
            &backup,
            vec![pod("notes-0", json!([database("main", state, lag)]))],
        ))
    };
    let every = Duration::from_secs(300);
    let (old, moved, lagging) = (at(0.0, "in_sync"), at(3.0, "in_sync"), at(90.0, "lagging"));
    assert!(worth_writing(None, &old, Duration::ZERO, every));
    assert!(!worth_writing(Some(&old), &old, every * 2, every));
    assert!(!worth_writing(
        Some(&old),
        &moved,
        Duration::from_secs(299),
        every
    ));
    assert!(worth_writing(Some(&old), &moved, every, every));
    assert!(worth_writing(Some(&moved), &lagging, Duration::ZERO, every));
    let told = notices(&old.conditions, &lagging.conditions);
    let told: Vec<(bool, &str)> = told
        .iter()
        .map(|notice| (notice.warning, notice.reason))
        .collect();
    assert_eq!(told, [(true, "ReplicationLagging")]);
    assert_eq!(notices(&old.conditions, &moved.conditions), []);
}

#[test]
fn the_worst_databases_come_first() {
    let backup = backup();
    let states = ["in_sync", "in_sync", "erroring", "in_sync"];
    let databases = states.iter().enumerate();
    let databases: Vec<_> = databases
        .map(|(at, state)| database(&format!("more/{at}.db"), state, 0.0))
        .collect();
    let status = decide(&scene(&backup, vec![pod("notes-0", json!(databases))]));
    assert_eq!(status.databases[0].name, "more/2.db");
    assert_eq!(status.databases_total, Some(4));
    assert_eq!(status.summary.as_deref(), Some("3/4"));
}
