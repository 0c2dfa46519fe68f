//! What a restore did, as people and scripts read it.

use serde::Serialize;

use crate::types::{Checksum, Digest, Timestamp};

/// How SQLite itself looks at a restored database. The proof of its bytes is made in any case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    /// Not at all.
    None,
    /// `PRAGMA quick_check`.
    #[default]
    Quick,
    /// `PRAGMA integrity_check`.
    Full,
}

/// A finished restore.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RestoreReport {
    /// The database's name in the bucket.
    pub name: String,
    /// Where it is now.
    pub output: String,
    /// The state restored.
    pub txid: u64,
    /// The same in the form of file names.
    pub txid_hex: String,
    /// When its last transaction was seen.
    pub time: Option<Timestamp>,
    /// Checksum over the pages.
    pub checksum: Checksum,
    /// Digest over the pages.
    pub digest: Digest,
    /// The object that the restore began with.
    pub snapshot: String,
    /// Its size in bytes.
    pub snapshot_bytes: u64,
    /// Files applied over it.
    pub segments: u64,
    /// Bytes that the store sent.
    pub bytes_downloaded: u64,
    /// Bytes written to the output.
    pub bytes_written: u64,
    /// Requests to the store, repeated ones included.
    pub requests: u64,
    /// From start to end.
    pub duration_ms: u64,
    /// How SQLite looked at it.
    pub verified: Verify,
    /// Who wrote the files: `walrust` or `litestream`.
    pub format: &'static str,
    /// What people should know.
    pub notes: Vec<String>,
}
