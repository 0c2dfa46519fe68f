//! What a compaction did, or would do, as people and scripts read it.

use serde::Serialize;

use super::tiers::Tier;
use crate::restore::PointSummary;
use crate::types::Timestamp;

/// A snapshot that stays or goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SnapshotLine {
    /// Its object.
    pub key: String,
    /// The state that it holds.
    pub txid: u64,
    /// When it was made; unknown for what an earlier compaction left behind.
    pub time: Option<Timestamp>,
    /// Its size.
    pub bytes: u64,
    /// Why it stays.
    pub tiers: Vec<Tier>,
}

/// A compaction of one database.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CompactReport {
    /// Its name.
    pub name: String,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The snapshots that stay, newest first.
    pub keep: Vec<SnapshotLine>,
    /// The snapshots that go, newest first.
    pub delete: Vec<SnapshotLine>,
    /// All objects that go, these snapshots among them.
    pub delete_objects: u64,
    /// Their size.
    pub free_bytes: u64,
    /// The first restore point afterwards.
    pub earliest: Option<PointSummary>,
    /// The last one.
    pub latest: Option<PointSummary>,
    /// Restore points afterwards.
    pub points_after: u64,
    /// What people should know.
    pub notes: Vec<String>,
}
