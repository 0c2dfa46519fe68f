//! What is known of one watched database: the entry of `/status` and of `walrust status`.

use std::path::PathBuf;

use serde::Serialize;

use crate::error::Error;
use crate::types::{DatabaseName, Lineage, Timestamp, Txid};

/// The state of one database in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DatabaseState {
    /// The file does not exist yet.
    WaitingForFile,
    /// Another writer may still own the stream.
    AcquiringLease,
    /// The first base is on its way: nothing can be restored yet.
    Snapshotting,
    /// Everything seen is durable.
    InSync,
    /// Commits wait to become durable.
    Lagging,
    /// Something fails; it is tried again.
    Erroring,
    /// Let go on purpose or because the spool was full; commits are not followed.
    Detached,
    /// Another writer owns the stream.
    Fenced,
}

impl DatabaseState {
    /// The state in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WaitingForFile => "waiting_for_file",
            Self::AcquiringLease => "acquiring_lease",
            Self::Snapshotting => "snapshotting",
            Self::InSync => "in_sync",
            Self::Lagging => "lagging",
            Self::Erroring => "erroring",
            Self::Detached => "detached",
            Self::Fenced => "fenced",
        }
    }
}

/// What a lease says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LeaseStatus {
    /// Whether we own the stream.
    pub held: bool,
    /// The writer's epoch.
    pub epoch: Option<u32>,
    /// The stream's lineage.
    pub lineage: Option<Lineage>,
}

/// An error that stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StandingError {
    /// What it means.
    pub kind: &'static str,
    /// The error in one line.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

impl StandingError {
    /// `error`, standing since `since`.
    pub fn new(error: &Error, since: Timestamp) -> Self {
        Self {
            kind: error.kind().name(),
            message: error.to_string(),
            since,
        }
    }
}

/// Everything that is known of one watched database.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DatabaseStatus {
    /// Its name in the bucket.
    pub name: DatabaseName,
    /// Its file.
    pub path: PathBuf,
    /// Whether nobody waits for its file.
    pub optional: bool,
    /// The state in a word.
    pub state: DatabaseState,
    /// The newest captured transaction.
    pub txid: Option<Txid>,
    /// The newest durable one.
    pub durable_txid: Option<Txid>,
    /// When the oldest commit that is not durable was seen.
    pub pending_since: Option<Timestamp>,
    /// Since when nothing is attached: what was committed since, nobody has seen.
    pub blind_since: Option<Timestamp>,
    /// When a file was last stored.
    pub last_sync: Option<Timestamp>,
    /// When a snapshot was last stored.
    pub last_snapshot: Option<Timestamp>,
    /// The newest state that was restored for proof, and found sound.
    pub proven_txid: Option<Txid>,
    /// When that was.
    pub proven_at: Option<Timestamp>,
    /// When the next snapshot is due, if one is.
    pub next_snapshot: Option<Timestamp>,
    /// Until when the database is let alone, if somebody wants that.
    pub detached_until: Option<Timestamp>,
    /// The last wish to be let alone that was granted.
    pub(crate) leave: u64,
    /// Length of the WAL in bytes, as far as SQLite uses it.
    pub wal_bytes: u64,
    /// Bytes in the spool, overlays included.
    pub spool_bytes: u64,
    /// The lease.
    pub lease: LeaseStatus,
    /// The error that stands, if any.
    pub error: Option<StandingError>,
}

impl DatabaseStatus {
    /// A database that was just named.
    pub fn new(name: DatabaseName, path: PathBuf) -> Self {
        Self {
            name,
            path,
            optional: true,
            state: DatabaseState::AcquiringLease,
            txid: None,
            durable_txid: None,
            pending_since: None,
            blind_since: None,
            last_sync: None,
            last_snapshot: None,
            proven_txid: None,
            proven_at: None,
            next_snapshot: None,
            detached_until: None,
            leave: 0,
            wal_bytes: 0,
            spool_bytes: 0,
            lease: LeaseStatus {
                held: false,
                epoch: None,
                lineage: None,
            },
            error: None,
        }
    }

    /// Age of the oldest commit that is not durable, in milliseconds; 0 when idle (R135). Where nothing is
    /// attached a commit may be as old as that.
    pub fn lag_millis(&self, now: Timestamp) -> i64 {
        // Where no file is, nothing is committed.
        let blind = self
            .blind_since
            .filter(|_| self.state != DatabaseState::WaitingForFile);
        let oldest = self.pending_since.into_iter().chain(blind).min();
        oldest.map_or(0, |since| now.millis_since(since).max(0))
    }
}
