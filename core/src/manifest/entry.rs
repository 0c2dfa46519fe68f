//! What the index says of one LTX file.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ltx::{Header, Mark, Tracking};
use crate::store::{Entry, Level};
use crate::types::{Checksum, Digest, PageCount, PageSize, StreamId, Timestamp, Txid, TxidRange};

/// An LTX file without pages. Source: the LTX format.
pub(super) const SMALLEST_FILE: u64 = 131;

/// What a file is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// Every page of the database; a restore may begin here.
    Snapshot,
    /// The pages that the transactions of its range changed, as captured.
    Incremental,
    /// The pages that several incrementals changed, as of the last of them.
    Merged,
    /// An incremental that bridges transactions which were not seen one by one.
    Rebase,
    /// A rebase that holds every page; a restore may begin here.
    Base,
}

impl FileKind {
    /// Whether a restore may begin with a file of this kind.
    pub const fn is_start(self) -> bool {
        match self {
            Self::Snapshot | Self::Base => true,
            Self::Incremental | Self::Merged | Self::Rebase => false,
        }
    }

    /// What the file `key` with the mark `mark` is.
    pub fn of(key: FileKey, mark: Mark) -> Self {
        if key.range.is_snapshot() {
            return Self::Snapshot;
        }
        match mark {
            Mark::Base => Self::Base,
            Mark::Rebase => Self::Rebase,
            Mark::None if key.level == 0 => Self::Incremental,
            Mark::None => Self::Merged,
        }
    }

    /// The kind's name in `list NAME`, where a base is one sort of rebase.
    pub const fn shown(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Incremental => "incremental",
            Self::Merged => "merged",
            Self::Rebase | Self::Base => "rebase",
        }
    }
}

/// Which file: its level and the transactions that it covers. There is one object for each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawKey")]
pub struct FileKey {
    level: u8,
    #[serde(flatten)]
    range: TxidRange,
}

/// A key as bytes from elsewhere hold it.
#[derive(Deserialize)]
struct RawKey {
    level: u8,
    #[serde(flatten)]
    range: TxidRange,
}

impl TryFrom<RawKey> for FileKey {
    type Error = String;

    fn try_from(RawKey { level, range }: RawKey) -> Result<Self, String> {
        Self::new(level, range).ok_or_else(|| format!("no file {range} can be at level {level}"))
    }
}

/// The level of snapshots.
const SNAPSHOTS: u8 = 9;

impl FileKey {
    /// The file of `range` at `level`: 0 as captured, 1 to 8 merged, 9 snapshots, which begin at TXID 1.
    pub fn new(level: u8, range: TxidRange) -> Option<Self> {
        let valid = level < SNAPSHOTS || (level == SNAPSHOTS && range.is_snapshot());
        valid.then_some(Self { level, range })
    }

    /// A file as captured.
    pub const fn incremental(range: TxidRange) -> Self {
        Self { level: 0, range }
    }

    /// A merged file.
    pub const fn merged(level: Level, range: TxidRange) -> Self {
        Self {
            level: level.get(),
            range,
        }
    }

    /// The snapshot at `max`.
    pub const fn snapshot(max: Txid) -> Self {
        Self {
            level: SNAPSHOTS,
            range: TxidRange::snapshot(max),
        }
    }

    /// The file that a parsed object key means, or nothing for objects that are no LTX file.
    pub fn from_entry(entry: Entry) -> Option<Self> {
        match entry {
            Entry::Incremental(range) => Some(Self::incremental(range)),
            Entry::Merged(level, range) => Some(Self::merged(level, range)),
            Entry::Snapshot(max) => Some(Self::snapshot(max)),
            Entry::IndexPage(..) | Entry::Manifest | Entry::Lease => None,
        }
    }

    /// The place in the store's layout.
    pub fn entry(self) -> Entry {
        match Level::new(self.level) {
            Some(level) => Entry::Merged(level, self.range),
            None if self.level == 0 => Entry::Incremental(self.range),
            None => Entry::Snapshot(self.range.max()),
        }
    }

    /// 0 as captured, 1 to 8 merged, 9 snapshots.
    pub const fn level(self) -> u8 {
        self.level
    }

    /// The transactions that the file covers.
    pub const fn range(self) -> TxidRange {
        self.range
    }
}

impl fmt::Display for FileKey {
    /// Folder and name, as walrust's layout writes them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}/{}.ltx", self.level, self.range)
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKey({self})")
    }
}

/// One LTX file, as the manifest describes it: everything that plans need without reading the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileEntry {
    /// Level and transactions: the file's place.
    #[serde(flatten)]
    pub key: FileKey,
    /// What it is.
    pub kind: FileKind,
    /// Size of the object in bytes.
    pub size: u64,
    /// Size of a page.
    pub page_size: PageSize,
    /// Size of the database after the file, in pages.
    pub commit: PageCount,
    /// Pages in the file; unknown where the index was rebuilt from headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages: Option<u64>,
    /// When the first of its transactions was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_commit: Option<Timestamp>,
    /// When the last of its transactions was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_commit: Option<Timestamp>,
    /// When the file was made.
    pub created: Timestamp,
    /// Checksum of the database before the file; none for snapshots and untracked files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre: Option<Checksum>,
    /// Checksum of the database after the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post: Option<Checksum>,
    /// Digest of the database after the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Who wrote it; none for files of other programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamId>,
}

impl FileEntry {
    /// What a file's header, its place and its size say of it.
    pub fn from_header(
        key: FileKey,
        size: u64,
        header: &Header,
        post: Option<Checksum>,
        pages: Option<u64>,
    ) -> Self {
        let kind = FileKind::of(key, header.mark);
        // A snapshot's header holds its creation, not a commit.
        let last_commit = (kind != FileKind::Snapshot).then_some(header.timestamp);
        Self {
            key,
            kind,
            size,
            page_size: header.page_size,
            commit: header.commit,
            pages,
            first_commit: last_commit.map(|last| last.plus_millis(-i64::from(header.span_ms))),
            last_commit,
            created: header.timestamp,
            pre: match header.tracking {
                Tracking::Tracked { pre_apply } => pre_apply,
                Tracking::Untracked => None,
            },
            post,
            digest: header.digest,
            stream: header.stream(),
        }
    }

    /// The transactions that the file covers.
    pub const fn range(&self) -> TxidRange {
        self.key.range
    }

    /// The state that the file leads to.
    pub const fn max(&self) -> Txid {
        self.key.range.max()
    }

    /// The time of the file's last transaction, as well as it is known.
    pub fn time(&self) -> Timestamp {
        self.last_commit.unwrap_or(self.created)
    }

    /// What contradicts itself in an entry that came from elsewhere.
    pub(super) fn contradiction(&self) -> Option<String> {
        let snapshot = self.kind == FileKind::Snapshot;
        if snapshot != self.key.range.is_snapshot() {
            return Some(format!("{} is listed as a {}", self.key, self.kind.shown()));
        }
        if self.size < SMALLEST_FILE {
            return Some(format!("{} is listed with {} bytes", self.key, self.size));
        }
        None
    }
}
