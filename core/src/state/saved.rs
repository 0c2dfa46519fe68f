//! What is remembered between two runs: which stream this is, and where in it we are.

use serde::{Deserialize, Serialize};

use super::boot::Boot;
use crate::types::{DatabaseSum, Epoch, Lineage, PageCount, PageSize, StreamId, Timestamp, Txid};

/// The saved state of one database.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Saved {
    /// The history that the database belongs to.
    pub lineage: Lineage,
    /// The epoch under which we last wrote; nothing if this directory never held the lease (`restore`
    /// left it, say).
    pub epoch: Option<Epoch>,
    /// How far everything is stored or spooled.
    #[serde(flatten)]
    pub place: Place,
    /// The remote head that a restore to the newest state saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_head: Option<Head>,
    /// The remote head that an explicit point-in-time restore went back from: only it may be rebased onto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewind_from: Option<Head>,
    /// The newest snapshot of ours that is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_snapshot: Option<LastSnapshot>,
}

impl Saved {
    /// The stream as file headers name it, once we have written.
    pub fn stream(&self) -> Option<StreamId> {
        Some(StreamId {
            lineage: self.lineage,
            epoch: self.epoch?,
        })
    }
}

/// A state of the database: the last transaction stored or spooled, its sums, and where it ends in the
/// WAL. The page table holds exactly the pages of this state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// The last transaction stored or spooled.
    pub txid: Txid,
    /// Checksum and digest of the database after it.
    pub sum: DatabaseSum,
    /// Its page size.
    pub page_size: PageSize,
    /// Its size in pages.
    pub page_count: PageCount,
    /// Where it ends in the WAL; nothing if the database file alone was that state.
    pub wal: Option<WalPlace>,
}

/// A place in a WAL, as the saved form of a cursor: salts, the number of the last frame that belongs to
/// it (0: none yet), and the running checksum there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalPlace {
    /// The salts of the WAL's generation.
    pub salt: [u32; 2],
    /// The last frame, counted from 1.
    pub frame: u32,
    /// The running checksum after it.
    pub checksum: [u32; 2],
    /// Whether the WAL's checksums are big-endian.
    pub big_endian: bool,
    /// The boot in which it was certain that the WAL held everything up to here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,
}

/// The head of a remote stream, as somebody saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Its last transaction.
    pub txid: Txid,
    /// Who wrote the last file; nothing for another program's.
    pub stream: Option<StreamId>,
    /// The state there, where the files say it.
    pub sum: Option<DatabaseSum>,
}

/// A stored snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LastSnapshot {
    /// The state that it holds.
    pub txid: Txid,
    /// When it was made.
    pub time: Timestamp,
}
