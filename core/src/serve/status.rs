//! `/status`, and what `walrust status` shows: everything about the process and its databases, as JSON.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::board::{Seen, View};
use crate::engine::StandingError;
use crate::replica::ReplicaStatus;
use crate::types::{DatabaseName, Lineage, Timestamp, Txid};

/// The process and its databases. Words are strings, so that another version's words can be shown.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StatusReport {
    /// The version that runs.
    pub version: String,
    /// The pod that it runs in.
    pub pod: Option<String>,
    /// `watch` or `replicate`.
    pub mode: String,
    /// Which configuration file is in use: the first 12 hex digits of its SHA-256.
    pub config_hash: Option<String>,
    /// Why a newer one is not.
    pub config_error: Option<String>,
    /// When the process began.
    pub started: Timestamp,
    /// Whether every database is left alone on purpose.
    pub paused: bool,
    /// The databases, as they were named.
    pub databases: Vec<DatabaseReport>,
}

/// One database.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DatabaseReport {
    /// Its name in the bucket.
    pub name: DatabaseName,
    /// Its file.
    pub path: String,
    /// Its state in a word.
    pub state: String,
    /// The newest captured transaction; of a replica, the last one applied.
    pub txid: Option<Txid>,
    /// The newest durable one; of a replica, the newest one of its source that was seen.
    pub durable_txid: Option<Txid>,
    /// Age of the oldest commit that is not durable; of a replica, how old what it shows may be.
    pub lag_seconds: f64,
    /// Until when it is let alone, if somebody asked for that.
    pub detached_until: Option<Timestamp>,
    /// When a file was last stored.
    pub last_sync: Option<Timestamp>,
    /// When a snapshot was last stored.
    pub last_snapshot: Option<Timestamp>,
    /// When the next one is due, as things stand.
    pub next_snapshot: Option<Timestamp>,
    /// Length of the WAL.
    pub wal_bytes: u64,
    /// What waits on the local disk for the store.
    pub spool_bytes: u64,
    /// The newest state that was restored for proof.
    pub proven_txid: Option<Txid>,
    /// When that was.
    pub proven_at: Option<Timestamp>,
    /// Whether the stream is ours.
    pub lease: LeaseReport,
    /// The error that stands.
    pub error: Option<ErrorReport>,
}

/// The lease of one stream.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeaseReport {
    /// Whether we own the stream.
    pub held: bool,
    /// Our epoch.
    pub epoch: Option<u32>,
    /// The stream's lineage.
    pub lineage: Option<Lineage>,
}

/// An error that stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorReport {
    /// What it means.
    pub kind: String,
    /// The error in one line.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

impl StatusReport {
    /// The report of `view`.
    pub fn new(view: &View) -> Self {
        let facts = &view.facts;
        let watched = view.databases.iter().map(|seen| watched(seen, view.now));
        let replicas = view.replicas.iter().map(|one| replica(one, view.now));
        let paused = facts.paused.iter();
        let paused = paused.map(|(name, path)| DatabaseReport::of(name, path, "paused"));
        Self {
            version: facts.version.to_owned(),
            pod: facts.pod.clone(),
            mode: facts.mode.name().to_owned(),
            config_hash: facts.config_hash.clone(),
            config_error: facts.config_error.clone(),
            started: facts.started,
            paused: view.databases.is_empty()
                && view.replicas.is_empty()
                && !facts.paused.is_empty(),
            databases: watched.chain(replicas).chain(paused).collect(),
        }
    }
}

impl DatabaseReport {
    /// A database of which nothing else is known.
    fn of(name: &DatabaseName, path: &Path, state: &str) -> Self {
        Self {
            name: name.clone(),
            path: path.to_string_lossy().into_owned(),
            state: state.to_owned(),
            txid: None,
            durable_txid: None,
            lag_seconds: 0.0,
            detached_until: None,
            last_sync: None,
            last_snapshot: None,
            next_snapshot: None,
            wal_bytes: 0,
            spool_bytes: 0,
            proven_txid: None,
            proven_at: None,
            lease: LeaseReport::default(),
            error: None,
        }
    }
}

fn watched(seen: &Seen, now: Timestamp) -> DatabaseReport {
    let status = &seen.status;
    DatabaseReport {
        txid: status.txid,
        durable_txid: status.durable_txid,
        lag_seconds: seconds(status.lag_millis(now)),
        detached_until: status.detached_until,
        last_sync: status.last_sync,
        last_snapshot: status.last_snapshot,
        next_snapshot: status.next_snapshot,
        wal_bytes: status.wal_bytes,
        spool_bytes: status.spool_bytes,
        proven_txid: status.proven_txid,
        proven_at: status.proven_at,
        lease: LeaseReport {
            held: status.lease.held,
            epoch: status.lease.epoch,
            lineage: status.lease.lineage,
        },
        error: status.error.as_ref().map(ErrorReport::new),
        ..DatabaseReport::of(&status.name, &status.path, status.state.name())
    }
}

/// A replica: what it holds, and how far its source is.
fn replica(status: &ReplicaStatus, now: Timestamp) -> DatabaseReport {
    DatabaseReport {
        txid: status.txid,
        durable_txid: status.head_txid,
        lag_seconds: seconds(status.lag_millis(now)),
        last_sync: status.last_applied,
        wal_bytes: status.wal_bytes,
        error: status.error.as_ref().map(ErrorReport::new),
        ..DatabaseReport::of(&status.name, &status.path, status.state.name())
    }
}

impl ErrorReport {
    fn new(error: &StandingError) -> Self {
        Self {
            kind: error.kind.to_owned(),
            message: error.message.clone(),
            since: error.since,
        }
    }
}

/// Milliseconds as JSON and metrics have them.
pub(super) fn seconds(millis: i64) -> f64 {
    millis as f64 / 1000.0
}
