//! The root of the index: what a database's folder holds, in at most [`ROOT_LIMIT`] bytes.

use serde::{Deserialize, Serialize};

use super::entry::{FileEntry, FileKey};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{
    Checksum, DatabaseSum, Digest, Lineage, PageSize, Position, StreamId, Timestamp, Txid,
    TxidRange,
};

/// The layout that this program writes. One that it does not know is refused, never guessed at.
pub const VERSION: u32 = 1;

/// The root object stays below this size, so that the one GET of each restore is a short one.
pub const ROOT_LIMIT: usize = 256 * 1024;

/// No object of the index may be longer: ten times what we write, small enough to be held in memory.
pub const OBJECT_LIMIT: u64 = 4 * 1024 * 1024;

/// Pages below pages: those of the root, those that took the place of 64 of them, and so on. Three hold
/// more files than a bucket does.
pub(super) const DEEPEST: u32 = 6;

/// The newest state that the index names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    /// Its last transaction.
    pub txid: Txid,
    /// Checksum of the database there; unknown where only untracked files tell of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<Checksum>,
    /// Digest of the database there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

impl From<Position> for Head {
    fn from(position: Position) -> Self {
        let DatabaseSum { checksum, digest } = position.sum;
        Self {
            txid: position.txid,
            checksum: Some(checksum),
            digest: Some(digest),
        }
    }
}

impl From<&FileEntry> for Head {
    fn from(file: &FileEntry) -> Self {
        Self {
            txid: file.max(),
            checksum: file.post,
            digest: file.digest,
        }
    }
}

/// Where a writer's turn begins: the TXID of its first incremental.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct EpochStart {
    /// The writer.
    #[serde(flatten)]
    pub stream: StreamId,
    /// Its first transaction. Files of earlier writers that reach it are dead.
    pub first: Txid,
}

/// An immutable part of the index, named by its range and the hash of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct PageRef {
    /// From the smallest to the largest TXID of its files.
    #[serde(flatten)]
    pub range: TxidRange,
    /// XXH3-128 of its bytes.
    pub hash: Digest,
    /// Files below it.
    pub files: u64,
    /// Pages on the longest way from it to a file, itself included.
    pub depth: u32,
}

/// The index of one database.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    #[serde(rename = "v")]
    pub version: u32,
    /// Size of a page at the head.
    pub page_size: PageSize,
    /// The history that the head belongs to.
    pub lineage: Lineage,
    /// The newest state.
    pub head: Head,
    /// When the index was last written.
    pub published: Timestamp,
    /// Every writer's turn, by first TXID.
    pub epochs: Vec<EpochStart>,
    /// Snapshots, merged files and the newest incrementals, by level and range.
    pub files: Vec<FileEntry>,
    /// Where the older entries are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<PageRef>,
    /// How many compactions went by: before the first, no file may be missing; a
    /// plan that was made before the last of them is void.
    #[serde(default)]
    pub compactions: u64,
    /// Pages that name what the last compaction deletes. Written before the first deletion, so that
    /// whoever looks meanwhile, or after a crash, relies on none of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<PageRef>,
}

/// A page of the index.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IndexPage {
    /// [`VERSION`].
    #[serde(rename = "v")]
    pub version: u32,
    /// Entries, by level and range.
    pub files: Vec<FileEntry>,
    /// Further pages below this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pages: Vec<PageRef>,
    /// Files that a compaction deletes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<FileKey>,
    /// Random. No page has the name of an earlier one, so that one which nothing names any more can be
    /// deleted without fear that somebody takes it up again.
    #[serde(default)]
    pub salt: u64,
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

/// Errors: `Unsupported` for another version, `Corrupt` for anything else that is wrong.
fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T> {
    if bytes.len() as u64 > OBJECT_LIMIT {
        let message = format!("{} bytes are too many for an index", bytes.len());
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    let corrupt =
        |error: serde_json::Error| Error::new(ErrorKind::Corrupt, error.to_string()).because(error);
    let Versioned { v } = serde_json::from_slice(bytes).map_err(corrupt)?;
    if v != VERSION {
        let message = format!("the index has version {v}, this program knows {VERSION}");
        return Err(Error::new(ErrorKind::Unsupported, message).hint("use a newer walrust"));
    }
    serde_json::from_slice(bytes).map_err(corrupt)
}

fn check_entries(files: &[FileEntry]) -> Result<()> {
    let wrong = files.iter().find_map(FileEntry::contradiction);
    match wrong {
        Some(message) => Err(Error::new(ErrorKind::Corrupt, message)),
        None => Ok(()),
    }
}

impl Manifest {
    /// Reads a root. Errors: `Unsupported` for another version, `Corrupt`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let manifest: Self = parse(bytes)?;
        check_entries(&manifest.files)?;
        Ok(manifest)
    }

    /// The bytes of the root.
    pub fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    /// The entry of `key`, if the root holds it.
    pub fn file(&self, key: FileKey) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.key == key)
    }
}

/// Salts are numbers that every reader of JSON holds exactly.
const SALTS: u64 = 1 << 53;

impl IndexPage {
    /// A page of `files` and of the pages below it.
    pub(crate) fn new(files: Vec<FileEntry>, pages: Vec<PageRef>) -> Self {
        Self {
            version: VERSION,
            files,
            pages,
            removed: Vec::new(),
            salt: fastrand::u64(..SALTS),
        }
    }

    /// A page that names what a compaction deletes.
    pub(crate) fn of_removed(removed: Vec<FileKey>) -> Self {
        Self {
            removed,
            ..Self::new(Vec::new(), Vec::new())
        }
    }

    /// Reads a page. Errors: `Unsupported` for another version, `Corrupt` also for bytes of another hash.
    pub fn parse(bytes: &[u8], reference: &PageRef) -> Result<Self> {
        if hash(bytes) != reference.hash {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the page of the index has another hash than its name",
            ));
        }
        let page: Self = parse(bytes)?;
        check_entries(&page.files)?;
        Ok(page)
    }

    /// The bytes of the page and what the root keeps of it; nothing for a page without content.
    pub fn encode(&self) -> Result<Option<(Vec<u8>, PageRef)>> {
        let ranges = (self.files.iter().map(FileEntry::range))
            .chain(self.pages.iter().map(|page| page.range))
            .chain(self.removed.iter().map(|key| key.range()));
        let Some(range) = ranges.reduce(span) else {
            return Ok(None);
        };
        let bytes = encode(self)?;
        let below: u64 = self.pages.iter().map(|page| page.files).sum();
        let reference = PageRef {
            range,
            hash: hash(&bytes),
            files: (self.files.len() + self.removed.len()) as u64 + below,
            depth: 1 + self.pages.iter().map(|page| page.depth).max().unwrap_or(0),
        };
        Ok(Some((bytes, reference)))
    }
}

/// The smallest range that holds both.
fn span(a: TxidRange, b: TxidRange) -> TxidRange {
    TxidRange::new(a.min().min(b.min()), a.max().max(b.max())).unwrap_or(a)
}

fn hash(bytes: &[u8]) -> Digest {
    Digest::new(xxhash_rust::xxh3::xxh3_128(bytes))
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()).because(error))
}
