//! From all sources to what holds: command line over environment over file over built-in default (R5).

use std::path::PathBuf;
use std::time::Duration;

use super::choices::LogFormat;
use super::databases;
use super::limits;
use super::metrics::MetricsLayer;
use super::retention::{RetentionLayer, RetentionPolicy};
use super::settings::{ReplicateSettings, Resolved, StoreLayer, StoreSettings, SyncLayer};
use super::{Environment, File};
use crate::error::{Error, ErrorKind, Result};
use crate::types::DatabaseName;

/// What is captured and neither spooled nor stored.
const DEFAULT_MEMORY: u64 = 16 << 20;

/// What the command line says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overrides {
    /// Over `[s3]`.
    pub store: StoreLayer,
    /// Over `[sync]` and over every database's own settings.
    pub sync: SyncLayer,
    /// Over `[retention]` and over every database's own.
    pub retention: RetentionLayer,
    /// Over `replicate.interval`.
    pub replicate_interval: Option<Duration>,
    /// Over `[metrics]`.
    pub metrics: MetricsLayer,
    /// Over `log.format`.
    pub log_format: Option<LogFormat>,
    /// Instead of the configured list (R68).
    pub databases: Vec<PathBuf>,
}

/// Everything, for commands that watch or read local databases.
pub fn resolve(
    file: Option<&File>,
    environment: &Environment,
    overrides: &Overrides,
) -> Result<Resolved> {
    let store = resolve_store(file, environment, overrides)?;
    let sync = layers(file, overrides).finish();
    let found = databases::find(file, &overrides.databases, |entry| {
        let file_layer = file.map(|file| file.sync.clone()).unwrap_or_default();
        let entry_layer = entry.map(|entry| entry.sync.clone()).unwrap_or_default();
        let own = overrides.sync.clone().over(&entry_layer);
        let of_entry = entry.map(|entry| entry.retention).unwrap_or_default();
        let retention = resolve_retention(file, overrides, of_entry)?;
        Ok((own.over(&file_layer).finish(), retention))
    })?;
    Ok(Resolved {
        store,
        sync,
        retention: resolve_retention(file, overrides, RetentionLayer::default())?,
        memory_limit: file
            .and_then(|file| file.memory_limit)
            .unwrap_or(DEFAULT_MEMORY),
        metrics: overrides
            .metrics
            .over(file.map(|file| file.metrics).unwrap_or_default()),
        heartbeat: file.and_then(|file| file.heartbeat.clone()),
        config_hash: file.map(|file| file.hash.clone()),
        log_format: log_format(file, overrides),
        databases: found.databases,
        unmatched: found.unmatched,
    })
}

/// What is kept of a database whose entry says `of_entry`. Errors: `Invalid` where no tier keeps anything.
pub fn resolve_retention(
    file: Option<&File>,
    overrides: &Overrides,
    of_entry: RetentionLayer,
) -> Result<RetentionPolicy> {
    let of_file = file.map(|file| file.retention).unwrap_or_default();
    overrides.retention.over(of_entry).over(of_file).finish()
}

/// The store alone, for commands that need no local database.
pub fn resolve_store(
    file: Option<&File>,
    environment: &Environment,
    overrides: &Overrides,
) -> Result<StoreSettings> {
    let from_file = file.map(|file| file.store.clone()).unwrap_or_default();
    let layer = overrides.store.clone();
    layer
        .over(from_environment(environment)?)
        .over(from_file)
        .finish()
        .ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "no bucket is named")
                .hint("give --bucket, or set `bucket` in [s3] of walrust.toml")
        })
}

/// How a replica is kept.
pub fn resolve_replicate(file: Option<&File>, overrides: &Overrides) -> ReplicateSettings {
    let default = ReplicateSettings::default();
    let of_file = file.and_then(|file| file.replicate_interval);
    ReplicateSettings {
        interval: overrides
            .replicate_interval
            .or(of_file)
            .unwrap_or(default.interval),
        allow_network_fs: layers(file, overrides).finish().allow_network_fs,
    }
}

/// How to log, which must be known before anything else.
pub fn log_format(file: Option<&File>, overrides: &Overrides) -> LogFormat {
    overrides
        .log_format
        .or_else(|| file.and_then(|file| file.log_format))
        .unwrap_or(LogFormat::Text)
}

fn layers(file: Option<&File>, overrides: &Overrides) -> SyncLayer {
    let file_layer = file.map(|file| file.sync.clone()).unwrap_or_default();
    overrides.sync.clone().over(&file_layer)
}

fn from_environment(environment: &Environment) -> Result<StoreLayer> {
    let wrong = |name: &str, error: String| Error::new(ErrorKind::Invalid, error).on(name);
    let region = ["AWS_REGION", "AWS_DEFAULT_REGION"]
        .into_iter()
        .find_map(|name| Some((name, environment.filled(name)?)));
    Ok(StoreLayer {
        endpoint: environment
            .filled("AWS_ENDPOINT_URL_S3")
            .map(limits::endpoint)
            .transpose()
            .map_err(|error| wrong("AWS_ENDPOINT_URL_S3", error.to_string()))?,
        region: match region {
            Some((name, region)) => {
                Some(limits::region(region).map_err(|error| wrong(name, error.to_string()))?)
            }
            None => None,
        },
        ..StoreLayer::default()
    })
}

impl Resolved {
    /// The databases that are left alone on purpose: name and file.
    pub fn paused(&self) -> Vec<(DatabaseName, PathBuf)> {
        let paused = self.databases.iter().filter(|database| database.paused);
        paused
            .map(|database| (database.name.clone(), database.path.clone()))
            .collect()
    }

    /// The patterns that match no file though one is required.
    pub fn missing(&self) -> Vec<PathBuf> {
        let required = self.unmatched.iter().filter(|pattern| !pattern.optional);
        required.map(|pattern| pattern.pattern.clone()).collect()
    }

    /// That there is something to watch now, or may be later.
    ///
    /// # Errors
    /// Invalid where no database is configured, `NotFound` where every pattern matches nothing.
    pub fn require_databases(&self) -> Result<()> {
        if !self.databases.is_empty() || self.unmatched.iter().any(|pattern| pattern.optional) {
            return Ok(());
        }
        match self.unmatched.first() {
            Some(pattern) => Err(Error::new(ErrorKind::NotFound, pattern.message.clone())
                .on(pattern.pattern.display())),
            None => Err(Error::new(ErrorKind::Invalid, "no database is named")
                .hint("name one, or add [[databases]] to walrust.toml")),
        }
    }
}
