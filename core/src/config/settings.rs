//! What can be set: each group once as a layer, where everything may be missing, and once resolved.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::choices::{Barrier, GateStartup, LeaseMode, LogFormat, PathStyle};
use super::encryption::Encryption;
use super::heartbeat::HeartbeatUrl;
use super::metrics::MetricsLayer;
use super::proxy::ProxyAddress;
use super::retention::RetentionPolicy;
use super::value::{count_or_off, or_off};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{self, Credentials, Meter, Store, StoreConfig, StoreLocation};
use crate::types::{DatabaseName, KeyPrefix, Txid};

/// `[s3]`: what one source says about the store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "the fields of `StoreSettings`, each as given")]
pub struct StoreLayer {
    pub location: Option<StoreLocation>,
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub path_style: Option<PathStyle>,
    pub credentials_dir: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub proxy: Option<ProxyAddress>,
    pub storage_class: Option<String>,
    pub sse: Option<Encryption>,
    pub tags: Option<BTreeMap<String, String>>,
    pub checksums: Option<bool>,
    pub lease: Option<LeaseMode>,
    pub lease_duration: Option<Duration>,
    pub gate_startup: Option<GateStartup>,
    pub max_requests: Option<NonZeroU32>,
    pub bandwidth: Option<u64>,
}

impl StoreLayer {
    /// This layer on top of `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            location: self.location.or(lower.location),
            endpoint: self.endpoint.or(lower.endpoint),
            region: self.region.or(lower.region),
            path_style: self.path_style.or(lower.path_style),
            credentials_dir: self.credentials_dir.or(lower.credentials_dir),
            ca_file: self.ca_file.or(lower.ca_file),
            proxy: self.proxy.or(lower.proxy),
            storage_class: self.storage_class.or(lower.storage_class),
            sse: self.sse.or(lower.sse),
            tags: self.tags.or(lower.tags),
            checksums: self.checksums.or(lower.checksums),
            lease: self.lease.or(lower.lease),
            lease_duration: self.lease_duration.or(lower.lease_duration),
            gate_startup: self.gate_startup.or(lower.gate_startup),
            max_requests: self.max_requests.or(lower.max_requests),
            bandwidth: self.bandwidth.or(lower.bandwidth),
        }
    }

    /// With the built-in defaults below; nothing where no bucket is named.
    pub(super) fn finish(self) -> Option<StoreSettings> {
        Some(StoreSettings {
            location: self.location?,
            endpoint: self.endpoint,
            region: self.region,
            path_style: self.path_style.unwrap_or(PathStyle::Auto),
            credentials_dir: self.credentials_dir,
            ca_file: self.ca_file,
            proxy: self.proxy,
            storage_class: self.storage_class,
            sse: self.sse,
            tags: self.tags.unwrap_or_default(),
            checksums: self.checksums.unwrap_or(true),
            lease: self.lease.unwrap_or(LeaseMode::Enforce),
            lease_duration: self.lease_duration.unwrap_or(Duration::from_secs(30)),
            gate_startup: self.gate_startup.unwrap_or(GateStartup::Restored),
            max_requests: self.max_requests.unwrap_or(DEFAULT_REQUESTS),
            bandwidth: self.bandwidth.and_then(count_or_off),
        })
    }
}

const DEFAULT_REQUESTS: NonZeroU32 = match NonZeroU32::new(16) {
    Some(requests) => requests,
    None => NonZeroU32::MIN,
};

/// Where databases are stored and how the store is used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StoreSettings {
    /// The bucket and the prefix in it, or a directory.
    #[serde(rename = "bucket", serialize_with = "shown")]
    pub location: StoreLocation,
    /// Another S3 than Amazon's.
    pub endpoint: Option<String>,
    /// The region that requests are signed for; none: that of the profile, else us-east-1 (R16).
    pub region: Option<String>,
    /// Whether the bucket's name stands in the path or in the host.
    pub path_style: PathStyle,
    /// A directory of files named like the `AWS_*` variables.
    pub credentials_dir: Option<PathBuf>,
    /// Certificates to trust beside the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// The proxy of all requests; none: that of the environment.
    pub proxy: Option<ProxyAddress>,
    /// The storage class of snapshots and merged files; none: the bucket's own.
    pub storage_class: Option<String>,
    /// Encryption on the server's side.
    pub sse: Option<Encryption>,
    /// Tags on each object.
    pub tags: BTreeMap<String, String>,
    /// Whether LTX files carry rolling checksums.
    pub checksums: bool,
    /// What the single-writer lease does.
    pub lease: LeaseMode,
    /// How long a silent owner keeps the stream.
    #[serde(serialize_with = "super::retention::seconds")]
    pub lease_duration: Duration,
    /// Whether a sidecar holds its pod's application until the streams are ours.
    pub gate_startup: GateStartup,
    /// Requests in flight at once, of all databases together.
    pub max_requests: NonZeroU32,
    /// Bytes a second, up and down together; none: no limit.
    pub bandwidth: Option<NonZeroU64>,
}

fn shown<S: Serializer>(location: &StoreLocation, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(location)
}

impl StoreSettings {
    /// The store, to read from, and the prefix in it. A directory must be there: one that is not mounted is no
    /// empty store.
    ///
    /// # Errors
    /// Those of [`store::open`], and those of a directory that is none.
    pub async fn open_to_read(&self) -> Result<(Arc<dyn Store>, KeyPrefix)> {
        self.open_to_read_metered(&Meter::default()).await
    }

    /// As [`StoreSettings::open_to_read`], with requests counted by `meter`.
    ///
    /// # Errors
    /// The same.
    pub async fn open_to_read_metered(&self, meter: &Meter) -> Result<(Arc<dyn Store>, KeyPrefix)> {
        if let StoreLocation::File { root } = &self.location {
            let there =
                std::fs::metadata(root).map_err(|error| Error::io(root.display(), error))?;
            if !there.is_dir() {
                let message = "not a directory";
                return Err(Error::new(ErrorKind::Invalid, message).on(root.display()));
            }
        }
        let store = store::open_metered(&self.store_config(), meter).await?;
        Ok((store, self.location.prefix()))
    }

    /// What the store must be told.
    pub fn store_config(&self) -> StoreConfig {
        let mut config = StoreConfig::new(self.location.clone());
        config.endpoint = self.endpoint.clone();
        config.region = self.region.clone();
        config.path_style = match self.path_style {
            PathStyle::Auto => store::PathStyle::Auto,
            PathStyle::Path => store::PathStyle::Always,
            PathStyle::Host => store::PathStyle::Never,
        };
        if let Some(directory) = &self.credentials_dir {
            config.credentials = Credentials::Directory(directory.clone());
        }
        config.ca_file.clone_from(&self.ca_file);
        config.proxy = self
            .proxy
            .as_ref()
            .map(ProxyAddress::url)
            .map(str::to_owned);
        config.storage_class.clone_from(&self.storage_class);
        config.encryption = self.sse.clone().map(store::Encryption::from);
        config.tags.clone_from(&self.tags);
        // Smaller than any usize that Linux has.
        config.max_requests = self.max_requests.try_into().unwrap_or(config.max_requests);
        config.bandwidth = self.bandwidth;
        config
    }
}

/// `[sync]`, or a part of it for one database: what one source says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "the fields of `SyncSettings`, each as given")]
pub struct SyncLayer {
    pub sync_interval: Option<Duration>,
    pub snapshot_interval: Option<Duration>,
    pub max_changes: Option<u64>,
    pub max_interval: Option<Duration>,
    pub on_idle: Option<Duration>,
    pub on_startup: Option<bool>,
    pub prove_interval: Option<Duration>,
    pub compact_after_snapshot: Option<bool>,
    pub compact_interval: Option<Duration>,
    pub checkpoint_pages: Option<NonZeroU32>,
    pub barrier: Option<Barrier>,
    pub spool_limit: Option<u64>,
    pub set_wal_mode: Option<bool>,
    pub allow_network_fs: Option<bool>,
}

impl SyncLayer {
    /// This layer on top of `lower`.
    #[must_use]
    pub fn over(self, lower: &Self) -> Self {
        Self {
            sync_interval: self.sync_interval.or(lower.sync_interval),
            snapshot_interval: self.snapshot_interval.or(lower.snapshot_interval),
            max_changes: self.max_changes.or(lower.max_changes),
            max_interval: self.max_interval.or(lower.max_interval),
            on_idle: self.on_idle.or(lower.on_idle),
            on_startup: self.on_startup.or(lower.on_startup),
            prove_interval: self.prove_interval.or(lower.prove_interval),
            compact_after_snapshot: self.compact_after_snapshot.or(lower.compact_after_snapshot),
            compact_interval: self.compact_interval.or(lower.compact_interval),
            checkpoint_pages: self.checkpoint_pages.or(lower.checkpoint_pages),
            barrier: self.barrier.or(lower.barrier),
            spool_limit: self.spool_limit.or(lower.spool_limit),
            set_wal_mode: self.set_wal_mode.or(lower.set_wal_mode),
            allow_network_fs: self.allow_network_fs.or(lower.allow_network_fs),
        }
    }

    /// With the built-in defaults below.
    pub(super) fn finish(self) -> SyncSettings {
        let default = SyncSettings::default();
        SyncSettings {
            sync_interval: self.sync_interval.unwrap_or(default.sync_interval),
            snapshot_interval: self
                .snapshot_interval
                .map_or(default.snapshot_interval, or_off),
            max_changes: self.max_changes.map_or(default.max_changes, count_or_off),
            max_interval: self.max_interval.map_or(default.max_interval, or_off),
            on_idle: self.on_idle.map_or(default.on_idle, or_off),
            on_startup: self.on_startup.unwrap_or(default.on_startup),
            prove_interval: self.prove_interval.map_or(default.prove_interval, or_off),
            compact_after_snapshot: self
                .compact_after_snapshot
                .unwrap_or(default.compact_after_snapshot),
            compact_interval: self
                .compact_interval
                .map_or(default.compact_interval, or_off),
            checkpoint_pages: self.checkpoint_pages.unwrap_or(default.checkpoint_pages),
            barrier: self.barrier.unwrap_or(default.barrier),
            spool_limit: self.spool_limit.unwrap_or(default.spool_limit),
            set_wal_mode: self.set_wal_mode.unwrap_or(default.set_wal_mode),
            allow_network_fs: self.allow_network_fs.unwrap_or(default.allow_network_fs),
        }
    }
}

/// How one database is watched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SyncSettings {
    /// The time between two objects under sustained writing; never 0.
    pub sync_interval: Duration,
    /// The time from one snapshot to the next.
    pub snapshot_interval: Option<Duration>,
    /// A snapshot after so many WAL frames.
    pub max_changes: Option<NonZeroU64>,
    /// The longest time between snapshots while there are changes.
    pub max_interval: Option<Duration>,
    /// A snapshot after so long without changes.
    pub on_idle: Option<Duration>,
    /// A snapshot at start.
    pub on_startup: bool,
    /// How often the newest stored state is restored to scratch, for proof.
    pub prove_interval: Option<Duration>,
    /// A compaction after each snapshot.
    pub compact_after_snapshot: bool,
    /// The time from one compaction to the next.
    pub compact_interval: Option<Duration>,
    /// The WAL's length, in pages, at which it is checkpointed.
    pub checkpoint_pages: NonZeroU32,
    /// Whether writers may be held for a moment where checkpoints never catch up.
    pub barrier: Barrier,
    /// Bytes on the local disk for what the store has not taken yet.
    pub spool_limit: u64,
    /// Whether to set WAL mode on a database that is not in it.
    pub set_wal_mode: bool,
    /// Whether to work on a network file system.
    pub allow_network_fs: bool,
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self {
            sync_interval: Duration::from_secs(1),
            snapshot_interval: Some(Duration::from_secs(3600)),
            max_changes: None,
            max_interval: None,
            on_idle: None,
            on_startup: false,
            prove_interval: None,
            compact_after_snapshot: false,
            compact_interval: None,
            // Measured: at 4,000 pages writers keep 0.96 of their speed and the WAL stays near 18 MB.
            checkpoint_pages: NonZeroU32::MIN.saturating_add(3_999),
            barrier: Barrier::Auto,
            spool_limit: 1 << 30,
            set_wal_mode: false,
            allow_network_fs: false,
        }
    }
}

/// How a replica is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct ReplicateSettings {
    /// The time from one look at its source to the next.
    pub interval: Duration,
    /// Whether it may lie on a network file system.
    pub allow_network_fs: bool,
}

impl Default for ReplicateSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            allow_network_fs: false,
        }
    }
}

/// Everything that a command needs to know, but for what it is asked to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// Where databases are stored.
    pub store: StoreSettings,
    /// How a database is watched that overrides nothing.
    pub sync: SyncSettings,
    /// What is kept of a database that overrides nothing.
    pub retention: RetentionPolicy,
    /// Bytes captured and not yet spooled or stored, of all databases together.
    pub memory_limit: u64,
    /// What is served while it runs, as far as anybody said.
    pub metrics: MetricsLayer,
    /// Which address is told of health.
    pub heartbeat: Option<HeartbeatUrl>,
    /// Which configuration file this is; none without one.
    pub config_hash: Option<String>,
    /// How to log.
    pub log_format: LogFormat,
    /// The databases, in the order given; names and files are all different.
    pub databases: Vec<ResolvedDatabase>,
    /// Patterns that match no file now.
    pub unmatched: Vec<Unmatched>,
}

/// One database to watch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ResolvedDatabase {
    /// Its file, as named.
    pub path: PathBuf,
    /// Its name in the bucket.
    pub name: DatabaseName,
    /// Whether to wait for a file that is not there.
    pub optional: bool,
    /// Whether to leave it alone for now.
    pub paused: bool,
    /// The head at which an unknown stream may be adopted.
    pub adopt_at: Option<Txid>,
    /// Whether a pattern matched it, which others may do later.
    #[serde(skip)]
    pub matched: bool,
    /// How it is watched.
    pub sync: SyncSettings,
    /// What a compaction keeps of it.
    pub retention: RetentionPolicy,
}

/// A pattern that matches no file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Unmatched {
    /// The pattern.
    pub pattern: PathBuf,
    /// Whether files may come later.
    pub optional: bool,
    /// Why nothing matches: the directory cannot be read, say.
    pub message: String,
}
