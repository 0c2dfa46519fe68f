//! `walrust.toml`, from a resource and the operator's defaults.
//!
//! What is written is read back by the loader of the programs that use it, so that a configuration that they refuse is
//! an error here and not in a pod.

use std::path::Path;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use walrust_core::config::{Environment, File};

use super::error::Error;
use super::names::{CA_DIRECTORY, CREDENTIALS_DIRECTORY};
use super::settings::Settings;
use crate::api::{
    Credentials, Database, GateStartup, LeaseMode, PathStyle, Period, Retention, Storage,
    WalrustBackupSpec,
};

/// A configuration file and what tells it from others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Its text.
    pub toml: String,
    /// The first 12 hex digits of the SHA-256 of its bytes, as `/status` shows it.
    pub hash: String,
}

/// The prefix that is really used: the given one, or `<cluster>/<namespace>/<name>`.
pub fn effective_prefix(given: &str, namespace: &str, name: &str, settings: &Settings) -> String {
    match (given, settings.cluster_name.as_str()) {
        ("", "") => format!("{namespace}/{name}"),
        ("", cluster) => format!("{cluster}/{namespace}/{name}"),
        (given, _) => given.to_owned(),
    }
}

/// The configuration of the databases of `spec`, with `credentials` to reach `prefix`.
pub(super) fn of_backup(
    spec: &WalrustBackupSpec,
    prefix: &str,
    credentials: &Credentials,
    settings: &Settings,
) -> Result<Config, Error> {
    let databases = spec.databases.iter();
    let databases = databases.map(|database| Entry::new(database, spec.suspend));
    finish(&Document {
        s3: Store::new(&spec.storage, prefix, credentials, settings),
        sync: Some(SyncSection {
            sync_interval: length(spec.sync.interval),
            prove_interval: length(spec.sync.prove_interval),
            snapshot_interval: length(spec.snapshots.interval),
            max_changes: spec.snapshots.max_changes,
            max_interval: length(spec.snapshots.max_interval),
            on_idle: length(spec.snapshots.on_idle),
            on_startup: spec.snapshots.on_startup,
            compact_after_snapshot: spec.compaction.after_snapshot,
            compact_interval: length(spec.compaction.interval),
        }),
        retention: Some(RetentionSection::new(&spec.retention)),
        replicate: Some(ReplicateSection {
            interval: length(spec.replicate.interval),
        }),
        databases: databases.collect::<Result<_, Error>>()?,
    })
}

/// The configuration of a store alone, for a restore that has no `WalrustBackup`.
pub(super) fn of_store(storage: &Storage, settings: &Settings) -> Result<Config, Error> {
    finish(&Document {
        s3: Store::new(storage, &storage.prefix, &storage.credentials, settings),
        sync: None,
        retention: None,
        replicate: None,
        databases: Vec::new(),
    })
}

fn finish(document: &Document) -> Result<Config, Error> {
    let toml = toml::to_string(document).map_err(|error| Error::Config(error.to_string()))?;
    let path = Path::new("walrust.toml");
    let file = File::parse(path, &toml, &Environment::default())
        .map_err(|faults| Error::Config(one_line(&faults.to_string())))?;
    for (text, kept) in document.databases.iter().zip(&file.databases) {
        // A path that means something else in there would be another file's backup.
        if Path::new(&unescaped(&text.path)) != kept.path {
            return Err(Error::Database {
                name: text.name.clone(),
                message: "the path does not survive walrust.toml".to_owned(),
            });
        }
    }
    Ok(Config {
        hash: hash(&toml),
        toml,
    })
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(", ")
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[derive(Serialize)]
struct Document {
    s3: Store,
    #[serde(skip_serializing_if = "Option::is_none")]
    sync: Option<SyncSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention: Option<RetentionSection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replicate: Option<ReplicateSection>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    databases: Vec<Entry>,
}

#[derive(Serialize)]
struct Store {
    bucket: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_style: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credentials_dir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<String>,
    lease: &'static str,
    lease_duration: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate_startup: Option<&'static str>,
}

impl Store {
    fn new(
        storage: &Storage,
        prefix: &str,
        credentials: &Credentials,
        settings: &Settings,
    ) -> Self {
        let lease = storage.lease.unwrap_or(settings.lease);
        let given = |own: &Option<String>, default: &Option<String>| {
            own.as_ref().or(default.as_ref()).map(|text| escaped(text))
        };
        let path_style = storage.path_style.or(settings.s3.path_style);
        let has_files = credentials.secret_ref.is_some();
        let ca = storage.ca_bundle.as_ref();
        Self {
            bucket: match prefix {
                "" => format!("s3://{}", escaped(&storage.bucket)),
                prefix => format!("s3://{}/{}", escaped(&storage.bucket), escaped(prefix)),
            },
            endpoint: given(&storage.endpoint, &settings.s3.endpoint),
            region: given(&storage.region, &settings.s3.region),
            path_style: path_style.map(|style| match style {
                PathStyle::Auto => "auto",
                PathStyle::Path => "true",
                PathStyle::Host => "false",
            }),
            credentials_dir: has_files.then(|| CREDENTIALS_DIRECTORY.to_owned()),
            ca_file: ca.map(|ca| format!("{CA_DIRECTORY}/{}", escaped(&ca.key))),
            lease: match lease.mode {
                LeaseMode::Enforce => "enforce",
                LeaseMode::Observe => "observe",
                LeaseMode::Off => "off",
            },
            lease_duration: length(lease.duration),
            gate_startup: match lease.gate_startup {
                GateStartup::Always => Some("always"),
                // What the sidecar does where nothing is said.
                GateStartup::Restored => None,
                GateStartup::Never => Some("never"),
            },
        }
    }
}

#[derive(Serialize)]
struct SyncSection {
    sync_interval: String,
    prove_interval: String,
    snapshot_interval: String,
    max_changes: i64,
    max_interval: String,
    on_idle: String,
    on_startup: bool,
    compact_after_snapshot: bool,
    compact_interval: String,
}

#[derive(Serialize)]
struct RetentionSection {
    hourly: i32,
    daily: i32,
    weekly: i32,
    monthly: i32,
    points: String,
    minutes: String,
}

impl RetentionSection {
    fn new(retention: &Retention) -> Self {
        Self {
            hourly: retention.hourly,
            daily: retention.daily,
            weekly: retention.weekly,
            monthly: retention.monthly,
            points: length(retention.points),
            minutes: length(retention.minutes),
        }
    }
}

#[derive(Serialize)]
struct ReplicateSection {
    interval: String,
}

#[derive(Serialize)]
struct Entry {
    name: String,
    path: String,
    #[serde(skip_serializing_if = "is_false")]
    optional: bool,
    #[serde(skip_serializing_if = "is_false")]
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    adopt_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sync_interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot_interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_changes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_idle: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention: Option<RetentionSection>,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "what serde calls it with"
)]
fn is_false(value: &bool) -> bool {
    !value
}

impl Entry {
    fn new(database: &Database, paused: bool) -> Result<Self, Error> {
        let snapshots = database.snapshots.unwrap_or_default();
        let wrong = |message: &str| Error::Database {
            name: database.name.clone(),
            message: message.to_owned(),
        };
        if !database.path.starts_with('/') || database.path.ends_with('/') {
            return Err(wrong(
                "the path is that of a file from the root of the container on",
            ));
        }
        if database
            .path
            .split('/')
            .any(|part| matches!(part, "." | ".."))
        {
            return Err(wrong("the path has a part '.' or '..'"));
        }
        Ok(Self {
            name: escaped(&database.name),
            path: escaped(&database.path),
            optional: database.optional,
            paused,
            adopt_at: database.adopt_at,
            sync_interval: database.sync_interval.map(length),
            snapshot_interval: snapshots.interval.map(length),
            max_changes: snapshots.max_changes,
            max_interval: snapshots.max_interval.map(length),
            on_idle: snapshots.on_idle.map(length),
            retention: database.retention.as_ref().map(RetentionSection::new),
        })
    }
}

/// The file replaces `${NAME}` from the environment; a text of a resource means itself.
fn escaped(text: &str) -> String {
    text.replace("${", "$${")
}

fn unescaped(text: &str) -> String {
    text.replace("$${", "${")
}

/// A length of time as the file takes it: one number with one unit.
fn length(period: Period) -> String {
    let (seconds, millis) = (
        period.duration().as_secs(),
        period.duration().subsec_millis(),
    );
    match (seconds, millis) {
        (_, 1..) => format!("{}ms", period.duration().as_millis()),
        (0, 0) => "0s".to_owned(),
        (seconds, 0) if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        (seconds, 0) if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        (seconds, 0) => format!("{seconds}s"),
    }
}

/// A time as commands take it.
pub(super) fn time(time: &Time) -> String {
    time.0.to_string()
}
