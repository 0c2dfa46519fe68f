//! `WalrustBackup` and `WalrustRestore` on a real API server: every rule with an example that it refuses, defaults,
//! what cannot be changed, unknown fields, columns.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use walrust_tests::chart::repository;
use walrust_tests::cluster::{Cluster, Kubectl};
use walrust_tests::support::{PATIENCE, until};

const KINDS: [&str; 2] = ["walrustbackups", "walrustrestores"];

/// A cluster with both definitions, and a namespace of it.
fn installed(name: &str) -> Kubectl {
    let cluster = Cluster::shared();
    let kubectl = cluster.kubectl();
    for kind in KINDS {
        let file = repository().join(format!("crds/{kind}.yaml"));
        kubectl.apply(&fs::read_to_string(file).unwrap()).expect();
        let definition = format!("crd/{kind}.walrust.dev");
        kubectl.ok(["wait", "--for=condition=Established", &definition]);
        until("the kind is served", PATIENCE, || {
            kubectl.run(["get", kind]).ok.then_some(())
        });
    }
    kubectl.within(&cluster.namespace(name))
}

fn backup() -> Value {
    json!({
        "apiVersion": "walrust.dev/v1alpha1",
        "kind": "WalrustBackup",
        "metadata": {"name": "notes"},
        "spec": {
            "storage": {"bucket": "team-backups", "credentials": {"secretRef": {"name": "s3"}}},
            "databases": [{"name": "main", "path": "/data/app.db"}],
        },
    })
}

fn restore() -> Value {
    json!({
        "apiVersion": "walrust.dev/v1alpha1",
        "kind": "WalrustRestore",
        "metadata": {"name": "before"},
        "spec": {
            "backupRef": {"name": "notes"},
            "database": "main",
            "target": {"claimName": "restored", "path": "app.db"},
        },
    })
}

/// `object` with `value` at the dotted `place`; `null` takes away what is there.
fn with(mut object: Value, place: &str, value: Value) -> Value {
    let mut at = &mut object;
    for part in place.split('.') {
        at = match part.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[part],
        };
    }
    *at = value;
    without_nulls(object)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(
                fields
                    .map(|(name, value)| (name, without_nulls(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// A place, what is wrong there, what is right there, and the complaint.
type Case = (&'static str, Value, Value, &'static str);

fn backup_cases() -> Vec<Case> {
    let keys = json!({"name": "s3"});
    vec![
        (
            "metadata.name",
            json!("a".repeat(39)),
            json!("a".repeat(38)),
            "the name has at most 38",
        ),
        (
            "spec.storage.bucket",
            json!("No"),
            json!("my.bucket-1"),
            "spec.storage.bucket",
        ),
        (
            "spec.storage.prefix",
            json!("/a"),
            json!("a/b"),
            "spec.storage.prefix",
        ),
        (
            "spec.storage.prefix",
            json!("a/../b"),
            json!("a/b"),
            "a part of the prefix is",
        ),
        (
            "spec.storage.prefix",
            json!("a/index"),
            json!("a/indices"),
            "a part of the prefix is",
        ),
        (
            "spec.storage.endpoint",
            json!("minio:9000"),
            json!("http://minio:9000"),
            "spec.storage.endpoint",
        ),
        (
            "spec.storage.credentials",
            json!({}),
            json!({"workloadIdentity": {"jobServiceAccountName": "b"}}),
            "give exactly one of secretRef",
        ),
        (
            "spec.storage.credentials",
            json!({"secretRef": keys, "workloadIdentity": {"jobServiceAccountName": "b"}}),
            json!({"secretRef": keys}),
            "give exactly one of secretRef",
        ),
        (
            "spec.storage.lease",
            json!({"duration": "10s"}),
            json!({"duration": "15s"}),
            "a lease lasts at least 15s",
        ),
        (
            "spec.storage.lease",
            json!({"mode": "Maybe"}),
            json!({"mode": "Observe"}),
            "Unsupported value",
        ),
        (
            "spec.databases",
            json!([]),
            json!([{"name": "a", "path": "/a"}]),
            "spec.databases",
        ),
        (
            "spec.databases",
            json!([{"name": "a", "path": "/a"}, {"name": "b", "path": "/a"}]),
            json!([{"name": "a", "path": "/a"}, {"name": "b", "path": "/b"}]),
            "two databases have the same path",
        ),
        (
            "spec.databases",
            json!([{"name": "a", "path": "/a"}, {"name": "a", "path": "/b"}]),
            json!([{"name": "a", "path": "/a"}]),
            "Duplicate value",
        ),
        (
            "spec.databases.0.name",
            json!("index"),
            json!("indices"),
            "walrust uses this name itself",
        ),
        (
            "spec.databases.0.name",
            json!("000a"),
            json!("00a"),
            "walrust uses this name itself",
        ),
        (
            "spec.databases.0.path",
            json!("data/app.db"),
            json!("/data/app.db"),
            "the path is that of a file",
        ),
        (
            "spec.databases.0.path",
            json!("/data/"),
            json!("/data"),
            "the path is that of a file",
        ),
        (
            "spec.databases.0.path",
            json!("/data/../app.db"),
            json!("/data/..app.db"),
            "the path has a part",
        ),
        (
            "spec.databases.0.path",
            json!("/data/*/a.db"),
            json!("/data/*.db"),
            "a pattern may stand in the last part",
        ),
        (
            "spec.databases.0.path",
            json!("/data/${HOME}.db"),
            json!("/data/$HOME.db"),
            "the path contains ${",
        ),
        (
            "spec.databases.0.path",
            json!("/data/a\nb.db"),
            json!("/data/a b.db"),
            "the path contains ${",
        ),
        (
            "spec.databases.0.syncInterval",
            json!("5ms"),
            json!("10ms"),
            "syncInterval is at least 10ms",
        ),
        (
            "spec.databases.0.retention",
            json!({"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}),
            json!({"hourly": 1, "daily": 0, "weekly": 0, "monthly": 0}),
            "keep at least one snapshot",
        ),
        (
            "spec.retention",
            json!({"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}),
            json!({"hourly": 0, "daily": 0, "weekly": 0, "monthly": 1}),
            "keep at least one snapshot",
        ),
        (
            "spec.retention",
            json!({"hourly": -1}),
            json!({"hourly": 8760}),
            "spec.retention.hourly",
        ),
        (
            "spec.sync",
            json!({"interval": "1ms"}),
            json!({"interval": "100ms"}),
            "sync.interval is at least 10ms",
        ),
        (
            "spec.sync",
            json!({"interval": "-1s"}),
            json!({"interval": "1s"}),
            "spec.sync.interval",
        ),
        (
            "spec.sync",
            json!({"proveInterval": "500ms"}),
            json!({"proveInterval": "0s"}),
            "sync.proveInterval is 0s",
        ),
        (
            "spec.snapshots",
            json!({"interval": "0s", "maxChanges": 0}),
            json!({"interval": "0s", "maxChanges": 5}),
            "all triggers of snapshots are off",
        ),
        (
            "spec.compaction",
            json!({"interval": "10ms"}),
            json!({"interval": "1h"}),
            "compaction.interval is 0s",
        ),
        (
            "spec.replicate",
            json!({"interval": "1ms"}),
            json!({"interval": "5s"}),
            "replicate.interval is at least 10ms",
        ),
        (
            "spec.schedules",
            json!({"verify": {"cron": "17 3 * *"}}),
            json!({"verify": {"cron": "17 3 * * *"}}),
            "a schedule has five fields",
        ),
        (
            "spec.schedules",
            json!({"compact": {"cron": "TZ=UTC 1 1 * * *"}}),
            json!({"compact": {"cron": "@daily"}}),
            "a schedule has five fields",
        ),
        (
            "spec.schedules",
            json!({"restoreDrill": {"cron": "@never"}}),
            json!({"restoreDrill": {"cron": "H 3 * * H"}}),
            "a schedule has five fields",
        ),
        (
            "spec.sidecar",
            json!({"image": "r.test/w:latest"}),
            json!({"image": "r.test/w:1.0"}),
            "name a version of the image",
        ),
        (
            "spec.sidecar",
            json!({"image": "r.test:5000/w"}),
            json!({"image": format!("r.test:5000/w@sha256:{}", "0".repeat(64))}),
            "name a version of the image",
        ),
        (
            "spec.sidecar",
            json!({"minTerminationGracePeriod": "1s"}),
            json!({"minTerminationGracePeriod": "60s"}),
            "minTerminationGracePeriod is at least 5s",
        ),
        (
            "spec.sidecar",
            json!({"resources": {"limits": {"ephemeral-storage": "1Gi"}}}),
            json!({"resources": {"limits": {"memory": "1Gi"}}}),
            "no limit of ephemeral-storage",
        ),
        (
            "spec.sidecar",
            json!({"securityContext": {"privileged": true}}),
            json!({"securityContext": {"runAsUser": 1000}}),
            "the sidecar needs no privileges",
        ),
        (
            "spec.sidecar",
            json!({"metricsPort": 80}),
            json!({"metricsPort": 9000}),
            "spec.sidecar.metricsPort",
        ),
        (
            "spec.jobs",
            json!({"credentials": {}}),
            json!({"credentials": {"secretRef": {"name": "jobs"}}}),
            "give exactly one of secretRef",
        ),
        (
            "spec.deletionPolicy",
            json!("Delete"),
            json!("Retain"),
            "Unsupported value",
        ),
    ]
}

fn restore_cases() -> Vec<Case> {
    let source = json!({"bucket": "b-1", "credentials": {"secretRef": {"name": "s3"}}});
    vec![
        (
            "metadata.name",
            json!("a".repeat(56)),
            json!("a".repeat(55)),
            "the name has at most 55",
        ),
        (
            "spec.backupRef",
            Value::Null,
            json!({"name": "notes"}),
            "give exactly one of backupRef",
        ),
        (
            "spec.source",
            source,
            Value::Null,
            "give exactly one of backupRef",
        ),
        (
            "spec.database",
            json!("a/../b"),
            json!("tenants/a.db"),
            "the database is a name of spec.databases",
        ),
        (
            "spec.to",
            json!({}),
            json!({"txid": 7}),
            "give one of txid and time",
        ),
        (
            "spec.to",
            json!({"txid": 7, "time": "2026-11-21T09:30:00Z"}),
            json!({"time": "2026-11-21T09:30:00Z"}),
            "give one of txid and time",
        ),
        (
            "spec.to",
            json!({"txid": 0}),
            json!({"txid": 9_007_199_254_740_991_i64}),
            "spec.to.txid",
        ),
        (
            "spec.target.path",
            json!("/app.db"),
            json!("db/app.db"),
            "the path is relative to the volume's root",
        ),
        (
            "spec.target.path",
            json!("../app.db"),
            json!("..app.db"),
            "the path is relative to the volume's root",
        ),
        (
            "spec.target.ifExists",
            json!("Replace"),
            json!("KeepAside"),
            "Unsupported value",
        ),
        (
            "spec.target.runAsUser",
            json!(0),
            json!(1),
            "spec.target.runAsUser",
        ),
        (
            "spec.activeDeadlineSeconds",
            json!(1),
            json!(60),
            "spec.activeDeadlineSeconds",
        ),
    ]
}

#[test]
fn every_rule_refuses_its_bad_example_and_takes_its_good_one() {
    let kubectl = installed("rules");
    let mut complaints: Vec<&str> = Vec::new();
    for (base, cases) in [(backup(), backup_cases()), (restore(), restore_cases())] {
        kubectl.would_take(&base.to_string()).expect();
        for (place, bad, good, complaint) in cases {
            let bad = with(base.clone(), place, bad);
            let answer = kubectl.would_take(&bad.to_string());
            assert!(!answer.ok, "{complaint}: taken: {bad}");
            assert!(
                answer.stderr.contains(complaint),
                "{complaint}: {}",
                answer.stderr
            );
            let good = with(base.clone(), place, good);
            let answer = kubectl.would_take(&good.to_string());
            assert!(answer.ok, "{complaint}: {}", answer.stderr);
            complaints.push(complaint);
        }
    }
    // What is shown below: an object that exists cannot be changed so.
    complaints.extend(["cannot be changed"]);
    for message in messages() {
        let shown = complaints
            .iter()
            .any(|complaint| message.contains(complaint));
        assert!(shown, "no example for the rule: {message}");
    }
}

/// The messages of all rules of both definitions.
fn messages() -> BTreeSet<String> {
    fn collect(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if name == "x-kubernetes-validations" {
                        let rules = value.as_array().unwrap().iter();
                        into.extend(rules.map(|rule| rule["message"].as_str().unwrap().to_owned()));
                    } else {
                        collect(value, into);
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
            _ => {}
        }
    }
    let mut messages = BTreeSet::new();
    for kind in KINDS {
        let text = fs::read_to_string(repository().join(format!("crds/{kind}.yaml"))).unwrap();
        collect(&serde_saphyr::from_str(&text).unwrap(), &mut messages);
    }
    assert!(messages.len() > 25);
    messages
}

#[test]
fn what_is_left_out_gets_the_documented_default() {
    let kubectl = installed("defaults");
    let made = kubectl.would_take(&backup().to_string()).expect();
    let made: Value = serde_json::from_str(&made).unwrap();
    let spec = &made["spec"];
    for (place, wanted) in [
        ("/sync/interval", json!("1s")),
        ("/snapshots/interval", json!("1h")),
        ("/snapshots/onStartup", json!(false)),
        ("/retention/hourly", json!(24)),
        ("/retention/daily", json!(7)),
        ("/retention/weekly", json!(12)),
        ("/retention/monthly", json!(12)),
        ("/replicate/interval", json!("5s")),
        ("/suspend", json!(false)),
        ("/deletionPolicy", json!("Retain")),
        ("/databases/0/optional", json!(false)),
        (
            "/storage/credentials/secretRef/accessKeyIdKey",
            json!("AWS_ACCESS_KEY_ID"),
        ),
    ] {
        let found = spec.pointer(place);
        let same = found.is_some_and(|found| same_value(found, &wanted));
        assert!(same, "{place}: {found:?}, not {wanted}");
    }
    let made = kubectl.would_take(&restore().to_string()).expect();
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["spec"]["target"]["ifExists"], "Fail");
    assert_eq!(made["spec"]["verify"], "Quick");
    assert_eq!(made["spec"]["activeDeadlineSeconds"], 3600);
}

/// Durations have more than one spelling.
fn same_value(found: &Value, wanted: &Value) -> bool {
    let seconds = |value: &Value| match value.as_str() {
        Some("1h" | "3600s" | "60m" | "1h0m0s") => Some(3600),
        Some("1s") => Some(1),
        Some("5s") => Some(5),
        _ => None,
    };
    found == wanted || (seconds(wanted).is_some() && seconds(found) == seconds(wanted))
}

#[test]
fn the_place_of_a_backup_and_a_whole_restore_cannot_be_changed() {
    let kubectl = installed("fixed");
    kubectl
        .apply(&with(backup(), "spec.storage.prefix", json!("prod")).to_string())
        .expect();
    for (place, value, complaint) in [
        ("bucket", "other-bucket", "the bucket cannot be changed"),
        ("prefix", "other", "the prefix cannot be changed"),
    ] {
        let patch = json!({"spec": {"storage": {place: value}}}).to_string();
        let refusal = kubectl
            .run(["patch", "wb", "notes", "--type=merge", "-p", &patch])
            .refused();
        assert!(refusal.contains(complaint), "{refusal}");
    }
    let patch = r#"{"spec":{"suspend":true}}"#;
    kubectl.ok(["patch", "wb", "notes", "--type=merge", "-p", patch]);

    kubectl.apply(&restore().to_string()).expect();
    let patch = r#"{"spec":{"database":"other"}}"#;
    let refusal = kubectl
        .run(["patch", "wr", "before", "--type=merge", "-p", patch])
        .refused();
    assert!(refusal.contains("a restore cannot be changed"), "{refusal}");
}

#[test]
fn unknown_fields_are_told_and_columns_shown() {
    let kubectl = installed("columns");
    let odd = with(backup(), "spec.retension", json!({"hourly": 3})).to_string();
    let strict = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
    let refusal = kubectl.fed(strict, &odd).refused();
    assert!(
        refusal.contains("unknown field \"spec.retension\""),
        "{refusal}"
    );
    let warned = kubectl.fed(
        ["create", "--dry-run=server", "--validate=warn", "-f", "-"],
        &odd,
    );
    assert!(
        warned.ok && warned.stderr.contains("unknown field"),
        "{}",
        warned.stderr
    );

    kubectl.apply(&backup().to_string()).expect();
    kubectl.apply(&restore().to_string()).expect();
    let status = json!({"status": {
        "summary": "1/1", "maxLag": "0s", "databases": [{"name": "main", "state": "InSync"}],
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Ready", "message": "",
            "lastTransitionTime": "2026-11-24T10:00:00Z",
        }],
    }})
    .to_string();
    kubectl.ok([
        "patch",
        "wb",
        "notes",
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ]);
    let table = kubectl.ok(["get", "wb"]);
    let (head, row) = table.split_once('\n').unwrap();
    for column in [
        "NAME", "READY", "REASON", "IN SYNC", "LAG", "VERIFIED", "TESTED", "AGE",
    ] {
        assert!(head.contains(column), "{head}");
    }
    assert!(row.contains("True") && row.contains("1/1"), "{row}");
    let table = kubectl.ok(["get", "wr"]);
    assert!(
        table.contains("PHASE") && table.contains("restored"),
        "{table}"
    );
    // Both kinds under one word.
    let names = kubectl.ok(["get", "walrust", "-o", "name"]);
    assert_eq!(names.lines().count(), 2, "{names}");
}
