use std::path::Path;

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};
use walrust_core::config::{Environment, File, streams};

use super::*;
use crate::api::WalrustRestore;

fn backup(spec: Value) -> WalrustBackup {
    let mut all = json!({
        "storage": {"bucket": "team-backups", "credentials": {"secretRef": {"name": "s3"}}},
        "databases": [{"name": "main", "path": "/data/notes.db"}],
    });
    all.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "walrust.dev/v1alpha1",
        "kind": "WalrustBackup",
        "metadata": {"name": "notes", "namespace": "apps"},
        "spec": all,
    }))
    .unwrap()
}

fn rendered(spec: Value) -> Result<RenderedBackup, Error> {
    super::backup(&backup(spec), &Settings::default())
}

/// What the sidecar reads out of what the operator wrote.
fn read(config: &Config) -> File {
    File::parse(
        Path::new("walrust.toml"),
        &config.toml,
        &Environment::default(),
    )
    .unwrap()
}

#[test]
fn the_sidecar_reads_the_hash_that_the_operator_wrote() {
    let rendered = rendered(json!({})).unwrap();
    assert_eq!(read(&rendered.config).hash, rendered.config.hash);
    let annotations = rendered.config_map.metadata.annotations.unwrap();
    assert_eq!(annotations["walrust.dev/config-hash"], rendered.config.hash);
}

#[test]
fn names_in_the_bucket_are_those_of_the_resource() {
    let rendered = rendered(json!({"databases": [
        {"name": "main", "path": "/data/notes.db"},
        {"name": "tenants", "path": "/data/tenants/*.db", "optional": true, "adoptAt": 42},
    ]}))
    .unwrap();
    assert_eq!(rendered.effective_prefix, "apps/notes");
    let file = read(&rendered.config);
    let stored = [
        "tenants/a.db".parse().unwrap(),
        "other/b.db".parse().unwrap(),
    ];
    let streams = streams::of(&file, &stored).unwrap();
    let names: Vec<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
    assert_eq!(names, ["main", "tenants/a.db"]);
    assert!(file.databases[1].optional && file.databases[1].adopt_at.is_some());
}

#[test]
fn strings_mean_themselves_whatever_is_in_them() {
    for path in [
        "/data/a\"b.db",
        "/data/$HOME.db",
        "/data/${HOME}.db",
        "/data/$${A}.db",
        "/data/ü \\.db",
        "/data/#.db",
        "/data/a\u{1}b.db",
    ] {
        let rendered = rendered(json!({"databases": [{"name": "main", "path": path}]}));
        match rendered {
            Ok(rendered) => assert_eq!(read(&rendered.config).databases[0].path, Path::new(path)),
            Err(error) => assert!(matches!(error, Error::Database { .. }), "{path}: {error}"),
        }
    }
}

#[test]
fn a_resource_with_the_longest_name_has_names_that_kubernetes_takes() {
    let mut longest = backup(json!({"schedules": {"restoreDrill": {"cron": "@daily"}}}));
    longest.metadata.name = Some("n".repeat(38));
    let rendered = super::backup(&longest, &Settings::default()).unwrap();
    let name = rendered.cron_jobs[0].metadata.name.as_deref().unwrap();
    assert!(name.len() <= 52, "{name}");
    longest.metadata.name = Some("n".repeat(39));
    assert!(matches!(
        super::backup(&longest, &Settings::default()),
        Err(Error::LongName(_))
    ));
}

fn pod_of(spec: Value) -> PodSpec {
    let rendered = rendered(spec).unwrap();
    let job = rendered.cron_jobs[0]
        .spec
        .clone()
        .unwrap()
        .job_template
        .spec
        .unwrap();
    job.template.spec.unwrap()
}

#[test]
fn jobs_mount_no_database_and_run_in_a_restricted_namespace() {
    let pod = pod_of(json!({"schedules": {"verify": {"cron": "@daily"}}}));
    let security = pod.security_context.unwrap();
    assert_eq!(
        (security.run_as_non_root, security.run_as_user),
        (Some(true), Some(65_532))
    );
    assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
    assert_eq!(pod.automount_service_account_token, Some(false));
    let container = &pod.containers[0];
    let own = container.security_context.clone().unwrap();
    assert_eq!(own.allow_privilege_escalation, Some(false));
    assert_eq!(own.capabilities.unwrap().drop.unwrap(), ["ALL"]);
    assert!(
        pod.volumes
            .unwrap()
            .iter()
            .all(|volume| volume.persistent_volume_claim.is_none())
    );
    assert_eq!(container.args.as_ref().unwrap()[0], "verify");
}

#[test]
fn suspending_pauses_every_database_and_every_schedule() {
    let rendered =
        rendered(json!({"suspend": true, "schedules": {"compact": {"cron": "@daily"}}})).unwrap();
    assert!(
        read(&rendered.config)
            .databases
            .iter()
            .all(|entry| entry.paused)
    );
    assert_eq!(
        rendered.cron_jobs[0].spec.as_ref().unwrap().suspend,
        Some(true)
    );
}

#[test]
fn settings_fill_what_a_resource_leaves_out() {
    let settings = Settings::parse(
        "clusterName: east\ns3: {endpoint: 'http://minio:9000', region: eu}\nlease: {mode: 'Off'}\ntimeZone: Asia/Tokyo\n",
    )
    .unwrap();
    let given = backup(json!({"schedules": {"compact": {"cron": "@daily"}}}));
    let rendered = super::backup(&given, &settings).unwrap();
    assert_eq!(rendered.effective_prefix, "east/apps/notes");
    let file = read(&rendered.config);
    assert_eq!(file.store.endpoint.as_deref(), Some("http://minio:9000"));
    assert_eq!(file.store.lease, Some(walrust_core::config::LeaseMode::Off));
    let cron = rendered.cron_jobs[0].spec.as_ref().unwrap();
    assert_eq!(cron.time_zone.as_deref(), Some("Asia/Tokyo"));
}

#[test]
fn a_restore_needs_exactly_one_source_and_a_known_database() {
    let restore = |spec: Value| -> WalrustRestore {
        let mut all = json!({"database": "main", "target": {"claimName": "c", "path": "a.db"}});
        all.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "walrust.dev/v1alpha1",
            "kind": "WalrustRestore",
            "metadata": {"name": "r", "namespace": "apps"},
            "spec": all,
        }))
        .unwrap()
    };
    let own = backup(
        json!({"databases": [{"name": "main", "path": "/a.db"}, {"name": "t", "path": "/t/*.db"}]}),
    );
    let of = |spec: Value, backup: Option<&WalrustBackup>| {
        super::restore(&restore(spec), backup, &Settings::default()).map(|rendered| rendered.job)
    };
    let named = json!({"backupRef": {"name": "notes"}});
    assert!(of(named.clone(), Some(&own)).is_ok());
    assert!(
        of(
            json!({"backupRef": {"name": "notes"}, "database": "t/x.db"}),
            Some(&own)
        )
        .is_ok()
    );
    for (spec, backup) in [
        (json!({}), Some(&own)),
        (named, None),
        (json!({"backupRef": {"name": "other"}}), Some(&own)),
        (
            json!({"backupRef": {"name": "notes"}, "database": "t"}),
            Some(&own),
        ),
        (
            json!({"backupRef": {"name": "notes"}, "database": "t/"}),
            Some(&own),
        ),
        (
            json!({"backupRef": {"name": "notes"}, "database": "main/x"}),
            Some(&own),
        ),
        (
            json!({"backupRef": {"name": "notes"}, "to": {}}),
            Some(&own),
        ),
    ] {
        assert!(of(spec.clone(), backup).is_err(), "{spec}");
    }
    let job = of(
        json!({"backupRef": {"name": "notes"}, "to": {"txid": 7}}),
        Some(&own),
    )
    .unwrap();
    assert_eq!(
        job.spec.unwrap().backoff_limit,
        Some(0),
        "what it did cannot be known: never twice"
    );
}
