//! The definitions in `crds/` are what the program prints, and their rules do what their messages say.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test code")]

use std::path::Path;

use kube::CustomResourceExt as _;
use kube_cel::{Validator, apply_defaults};
use serde_json::{Value, json};
use walrust_operator::api::{self, WalrustBackup, WalrustRestore};

#[test]
fn the_checked_in_definitions_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds");
    for crd in api::all() {
        let path = folder.join(format!("{}.yaml", crd.spec.names.plural));
        let wanted = api::to_yaml(&crd).unwrap();
        if std::env::var_os("WALRUST_UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == wanted,
            "{} is not what `walrust-operator crds` prints: run this test with WALRUST_UPDATE_GOLDEN=1",
            path.display()
        );
    }
}

/// The schema of a kind as the API server evaluates it.
fn schema<K: kube::CustomResourceExt>() -> Value {
    let crd = serde_json::to_value(K::crd()).unwrap();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema")
        .unwrap()
        .clone()
}

/// What the rules of `schema` say to `new`, after defaults, and to the change from `old` to it.
fn complaints(schema: &Value, new: &Value, old: Option<&Value>) -> Vec<String> {
    match Validator::new().validate(schema, new, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors
            .into_vec()
            .into_iter()
            .map(|error| error.message)
            .collect(),
    }
}

fn backup() -> Value {
    json!({
        "apiVersion": "walrust.dev/v1alpha1",
        "kind": "WalrustBackup",
        "metadata": {"name": "notes", "namespace": "apps"},
        "spec": {
            "storage": {"bucket": "team-backups", "credentials": {"secretRef": {"name": "notes-s3"}}},
            "databases": [
                {"name": "main", "path": "/data/notes.db"},
                {"name": "tenants", "path": "/data/tenants/*.db"},
            ],
        },
    })
}

fn restore() -> Value {
    json!({
        "apiVersion": "walrust.dev/v1alpha1",
        "kind": "WalrustRestore",
        "metadata": {"name": "yesterday", "namespace": "apps"},
        "spec": {
            "backupRef": {"name": "notes"},
            "database": "main",
            "target": {"claimName": "notes-restored", "path": "notes.db"},
        },
    })
}

/// `object` with `value` at `pointer`, which may be new; null takes it out.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let mut at = &mut object;
    let mut parts = pointer.trim_start_matches('/').split('/').peekable();
    while let Some(part) = parts.next() {
        if let (Some(list), Ok(index)) = (at.as_array().map(Vec::len), part.parse::<usize>()) {
            assert!(index < list);
            at = &mut at[index];
        } else if parts.peek().is_some() {
            let map = at.as_object_mut().unwrap();
            at = map.entry(part).or_insert_with(|| json!({}));
        } else if value.is_null() {
            at.as_object_mut().unwrap().remove(part);
            return object;
        } else {
            at.as_object_mut().unwrap().insert(part.to_owned(), value);
            return object;
        }
    }
    *at = value;
    object
}

#[test]
fn each_rule_of_a_backup_refuses_its_bad_example_with_its_message() {
    let schema = schema::<WalrustBackup>();
    assert_eq!(complaints(&schema, &backup(), None), Vec::<String>::new());
    for (pointer, bad, message) in [
        ("/metadata/name", json!("n".repeat(39)), "38 characters"),
        ("/spec/storage/prefix", json!("a/../b"), "'..'"),
        (
            "/spec/storage/prefix",
            json!("index"),
            "walrust uses itself",
        ),
        ("/spec/storage/credentials", json!({}), "exactly one"),
        (
            "/spec/storage/credentials/workloadIdentity",
            json!({}),
            "exactly one",
        ),
        ("/spec/storage/lease/duration", json!("14s"), "15s"),
        ("/spec/databases/0/name", json!("0001"), "choose another"),
        (
            "/spec/databases/0/path",
            json!("data/notes.db"),
            "root of the container",
        ),
        (
            "/spec/databases/0/path",
            json!("/data/"),
            "root of the container",
        ),
        (
            "/spec/databases/0/path",
            json!("/data//a.db"),
            "root of the container",
        ),
        ("/spec/databases/0/path", json!("/data/../a.db"), "'..'"),
        ("/spec/databases/0/path", json!("/data/*/a.db"), "last part"),
        ("/spec/databases/0/path", json!("/data/${HOME}.db"), "${"),
        (
            "/spec/databases/0/path",
            json!("/data/a\nb.db"),
            "control character",
        ),
        (
            "/spec/databases/0/path",
            json!("/data/tenants/*.db"),
            "same path",
        ),
        ("/spec/databases/0/syncInterval", json!("1ms"), "10ms"),
        (
            "/spec/databases/0/retention",
            json!({"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}),
            "all 0",
        ),
        ("/spec/sync/interval", json!("0s"), "10ms"),
        ("/spec/sync/proveInterval", json!("10ms"), "at least 1s"),
        ("/spec/snapshots/interval", json!("0s"), "all triggers"),
        ("/spec/compaction/interval", json!("10ms"), "at least 1s"),
        (
            "/spec/retention",
            json!({"hourly": 0, "daily": 0, "weekly": 0, "monthly": 0}),
            "all 0",
        ),
        ("/spec/replicate/interval", json!("9ms"), "10ms"),
        (
            "/spec/schedules/verify",
            json!({"cron": "TZ=UTC 1 2 3 4 5"}),
            "schedules.timeZone",
        ),
        (
            "/spec/schedules/verify",
            json!({"cron": "1 2 3 4"}),
            "five fields",
        ),
        (
            "/spec/schedules/restoreDrill",
            json!({"cron": "@sometimes"}),
            "five fields",
        ),
        ("/spec/sidecar/image", json!("walrust:latest"), "not latest"),
        (
            "/spec/sidecar/image",
            json!("registry:5000/walrust"),
            "version of the image",
        ),
        (
            "/spec/sidecar/resources",
            json!({"limits": {"ephemeral-storage": "1Gi"}}),
            "evict the application",
        ),
        (
            "/spec/sidecar/securityContext",
            json!({"privileged": true}),
            "no privileges",
        ),
        (
            "/spec/sidecar/securityContext",
            json!({"capabilities": {"add": ["SYS_ADMIN"]}}),
            "no privileges",
        ),
        ("/spec/sidecar/minTerminationGracePeriod", json!("4s"), "5s"),
    ] {
        let found = complaints(&schema, &with(backup(), pointer, bad.clone()), None);
        assert!(
            found.iter().any(|text| text.contains(message)),
            "{pointer} = {bad}: {found:?}"
        );
    }
}

#[test]
fn each_rule_of_a_backup_takes_its_good_example() {
    let schema = schema::<WalrustBackup>();
    for (pointer, good) in [
        ("/metadata/name", json!("n".repeat(38))),
        ("/spec/storage/prefix", json!("prod/notes.index")),
        (
            "/spec/storage/credentials",
            json!({"workloadIdentity": {"jobServiceAccountName": "backup"}}),
        ),
        ("/spec/storage/lease/duration", json!("15s")),
        ("/spec/databases/0/path", json!("/data/..notes/.db")),
        ("/spec/databases/0/path", json!("/data/$HOME.db")),
        ("/spec/databases/0/path", json!("/data/tenant[0-9].db")),
        ("/spec/databases/0/syncInterval", json!("250ms")),
        ("/spec/databases/0/snapshots", json!({"interval": "0s"})),
        (
            "/spec/snapshots",
            json!({"interval": "0s", "onIdle": "10m"}),
        ),
        (
            "/spec/snapshots",
            json!({"interval": "0s", "maxChanges": 1}),
        ),
        (
            "/spec/retention",
            json!({"hourly": 0, "daily": 1, "weekly": 0, "monthly": 0, "points": "0s"}),
        ),
        (
            "/spec/schedules/verify",
            json!({"cron": "H */3 1-7 JAN MON-FRI"}),
        ),
        ("/spec/schedules/verify", json!({"cron": "@daily"})),
        ("/spec/sidecar/image", json!("registry:5000/walrust:0.1.0")),
        (
            "/spec/sidecar/image",
            json!(format!("walrust@sha256:{}", "0".repeat(64))),
        ),
        (
            "/spec/sidecar/resources",
            json!({"limits": {"memory": "1Gi"}}),
        ),
        (
            "/spec/sidecar/securityContext",
            json!({"runAsUser": 1000, "privileged": false}),
        ),
    ] {
        let found = complaints(&schema, &with(backup(), pointer, good.clone()), None);
        assert_eq!(found, Vec::<String>::new(), "{pointer} = {good}");
    }
}

#[test]
fn bucket_and_prefix_cannot_change_and_the_rest_can() {
    let schema = schema::<WalrustBackup>();
    let with_prefix = with(backup(), "/spec/storage/prefix", json!("a"));
    for (old, new, message) in [
        (
            backup(),
            with(backup(), "/spec/storage/bucket", json!("other")),
            "bucket cannot be changed",
        ),
        (
            with_prefix.clone(),
            with(backup(), "/spec/storage/prefix", json!("b")),
            "prefix cannot be changed",
        ),
        (with_prefix, backup(), "prefix cannot be changed"),
    ] {
        let found = complaints(&schema, &new, Some(&old));
        assert!(found.iter().any(|text| text.contains(message)), "{found:?}");
    }
    let changed = with(backup(), "/spec/suspend", json!(true));
    assert_eq!(
        complaints(&schema, &changed, Some(&backup())),
        Vec::<String>::new()
    );
}

#[test]
fn each_rule_of_a_restore_refuses_its_bad_example_with_its_message() {
    let schema = schema::<WalrustRestore>();
    assert_eq!(complaints(&schema, &restore(), None), Vec::<String>::new());
    let source = json!({"bucket": "team-backups", "credentials": {"secretRef": {"name": "s"}}});
    for (pointer, bad, message) in [
        ("/metadata/name", json!("n".repeat(56)), "55 characters"),
        ("/spec/backupRef", Value::Null, "exactly one"),
        ("/spec/source", source, "exactly one"),
        ("/spec/database", json!("a//b"), "name of spec.databases"),
        ("/spec/database", json!("../b"), "name of spec.databases"),
        ("/spec/to", json!({}), "latest state"),
        (
            "/spec/to",
            json!({"txid": 1, "time": "2026-11-21T09:30:00Z"}),
            "latest state",
        ),
        ("/spec/target/path", json!("/notes.db"), "relative"),
        ("/spec/target/path", json!("a/../../notes.db"), "relative"),
    ] {
        let found = complaints(&schema, &with(restore(), pointer, bad.clone()), None);
        assert!(
            found.iter().any(|text| text.contains(message)),
            "{pointer} = {bad}: {found:?}"
        );
    }
    for (pointer, good) in [
        ("/spec/database", json!("tenants/a b.db")),
        ("/spec/to", json!({"time": "2026-11-21T09:30:00Z"})),
        ("/spec/target/path", json!("deep/er/notes.db")),
    ] {
        let found = complaints(&schema, &with(restore(), pointer, good.clone()), None);
        assert_eq!(found, Vec::<String>::new(), "{pointer} = {good}");
    }
    let changed = with(restore(), "/spec/verify", json!("Full"));
    let found = complaints(&schema, &changed, Some(&restore()));
    assert!(
        found.iter().any(|text| text.contains("cannot be changed")),
        "{found:?}"
    );
}

/// A resource as the API server hands it out is read with the same defaults as one that was never there.
#[test]
fn defaults_of_the_definition_and_of_the_program_are_the_same() {
    let defaulted = apply_defaults(&schema::<WalrustBackup>(), &backup());
    let of_server: WalrustBackup = serde_json::from_value(defaulted.clone()).unwrap();
    let own: WalrustBackup = serde_json::from_value(backup()).unwrap();
    assert_eq!(of_server, own);
    assert_eq!(defaulted["spec"]["snapshots"]["interval"], json!("1h"));
    assert_eq!(defaulted["spec"]["retention"]["minutes"], json!("168h"));
    assert_eq!(defaulted["spec"]["storage"]["prefix"], json!(""));
    assert_eq!(defaulted["spec"]["deletionPolicy"], json!("Retain"));
}

#[test]
fn names_columns_and_subresource_are_what_kubectl_users_expect() {
    let crd = WalrustBackup::crd();
    let version = &crd.spec.versions[0];
    assert_eq!(crd.spec.names.short_names, Some(vec!["wb".to_owned()]));
    assert_eq!(crd.spec.names.categories, Some(vec!["walrust".to_owned()]));
    assert!(version.subresources.as_ref().unwrap().status.is_some());
    let columns = version.additional_printer_columns.as_ref().unwrap();
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    assert!(
        names.starts_with(&["Ready", "Reason", "In sync", "Lag"]),
        "{names:?}"
    );
    assert_eq!(
        WalrustRestore::crd().spec.names.short_names,
        Some(vec!["wr".to_owned()])
    );
}
