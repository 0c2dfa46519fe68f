//! The state file beside a replica: how far it is, of what, and what its bytes do not say (R105).
//!
//! It is written whole (a temporary file, synced, renamed, the directory synced) after the data that it speaks
//! of; only a new file's state is written before the file gets its name, with the file's identity in it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::header::{SchemaVersion, TrueHeader};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{durable_write, with_suffix};
use crate::sqlite::FileId;
use crate::state::WalPlace;
use crate::types::{DatabaseSum, PageCount, PageSize, StreamId, Timestamp, Txid};

const VERSION: u32 = 1;

/// More than any state file of ours has.
const LONGEST: u64 = 64 * 1024;

/// What a replica is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaState {
    /// Version of this format.
    #[serde(rename = "v")]
    version: u32,
    /// What it is a replica of: `s3://bucket/prefix/name`.
    pub source: String,
    /// The last transaction applied.
    pub current_txid: Txid,
    /// When this was written.
    pub last_updated: Timestamp,
    /// Who wrote the last file applied.
    #[serde(flatten)]
    pub stream: StreamId,
    /// Checksum and digest of the source's pages there.
    #[serde(flatten)]
    pub sum: DatabaseSum,
    /// Size of the pages.
    pub page_size: PageSize,
    /// Size of the database.
    pub page_count: PageCount,
    /// When the last transaction was committed at the source.
    pub commit_time: Timestamp,
    /// The beginning of the source's page 1.
    pub true_header: TrueHeader,
    /// How the schema's version is shown.
    pub schema: SchemaVersion,
    /// Where the replica's WAL ended then; nothing where it held no frame.
    #[serde(default)]
    pub wal: Option<WalPlace>,
    /// The replica's file.
    pub file: FileId,
    /// The file whose place it takes. Counts until the replica's file bears its name.
    #[serde(default)]
    pub replaces: Option<FileId>,
}

/// A replica's state without what belongs to this file alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    pub(super) txid: Txid,
    pub(super) stream: StreamId,
    pub(super) sum: DatabaseSum,
    pub(super) page_size: PageSize,
    pub(super) page_count: PageCount,
    pub(super) time: Timestamp,
    pub(super) header: TrueHeader,
    pub(super) schema: SchemaVersion,
}

impl ReplicaState {
    /// The state of `file`, a replica of `source` at `standing`.
    pub(super) fn new(source: String, standing: &Standing, file: FileId) -> Self {
        Self {
            version: VERSION,
            source,
            current_txid: standing.txid,
            last_updated: Timestamp::default(),
            stream: standing.stream,
            sum: standing.sum,
            page_size: standing.page_size,
            page_count: standing.page_count,
            commit_time: standing.time,
            true_header: standing.header,
            schema: standing.schema,
            wal: None,
            file,
            replaces: None,
        }
    }

    /// Moves to `standing`.
    pub(super) fn advance(&mut self, standing: &Standing) {
        let advanced = Self::new(self.source.clone(), standing, self.file);
        *self = advanced;
    }

    /// The version of the schema that the replica's page 1 shows.
    pub(super) fn shown_schema(&self) -> u32 {
        self.schema.shown(self.true_header.schema())
    }

    /// Writes the state to `path`.
    pub(super) fn write(&mut self, path: &Path, now: Timestamp) -> Result<()> {
        self.last_updated = now;
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| {
            Error::new(ErrorKind::Internal, "the state of a replica is no JSON").because(error)
        })?;
        text.push(b'\n');
        durable_write(path, &text).map_err(|error| Error::io(path.display(), error))
    }
}

/// What stands where a state file would be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Nothing.
    Missing,
    /// Bytes that are none, and why.
    Damaged(String),
    /// A state.
    State(Box<ReplicaState>),
}

/// Where the state of the replica at `local` is: `replica.db` has `replica.db-replica-state`, and `replica` has
/// `replica.db-replica-state`, too (R105).
pub fn state_path(local: &Path) -> PathBuf {
    let name = local.file_name().map_or(&b""[..], OsStr::as_bytes);
    let suffix = match name.ends_with(b".db") {
        true => "-replica-state",
        false => ".db-replica-state",
    };
    with_suffix(local, suffix)
}

/// Reads a state file. Errors: those of the file system; a damaged one is none.
pub(super) fn read(path: &Path) -> Result<Found> {
    let fail = |error| Error::io(path.display(), error);
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.len() > LONGEST || !metadata.is_file() => {
            return Ok(Found::Damaged("no state file of walrust".to_owned()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(fail(error)),
    }
    let bytes = std::fs::read(path).map_err(fail)?;
    Ok(match serde_json::from_slice::<ReplicaState>(&bytes) {
        Ok(state) if state.version != VERSION => Found::Damaged(format!(
            "version {} is not known to this program",
            state.version
        )),
        Ok(state) => Found::State(Box::new(state)),
        Err(error) => Found::Damaged(error.to_string()),
    })
}

/// Refuses a database that is a replica: what would be stored of it is the stream that it is made from (R114).
///
/// # Errors
/// `Unsupported`, naming the source.
pub fn refuse_replica(database: &Path) -> Result<()> {
    let real = database.canonicalize();
    let real = real.as_deref().unwrap_or(database);
    let path = state_path(real);
    let what = match read(&path)? {
        Found::Missing => return Ok(()),
        Found::Damaged(_) => "a replica".to_owned(),
        Found::State(state) => format!("a replica of {}", state.source),
    };
    Err(Error::new(ErrorKind::Unsupported, format!("is {what}"))
        .on(database.display())
        .hint(format!(
            "watch the original; to make it a database of its own, stop replicate and remove {}",
            path.display()
        )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Epoch, Lineage};

    fn state() -> ReplicaState {
        let standing = Standing {
            txid: Txid::new(103).unwrap(),
            stream: StreamId {
                lineage: Lineage::new(7).unwrap(),
                epoch: Epoch::FIRST,
            },
            sum: DatabaseSum::EMPTY,
            page_size: PageSize::new(4096).unwrap(),
            page_count: PageCount(9),
            time: Timestamp::from_millis(1_705_314_609_000),
            header: TrueHeader::of(&[3; 512]).unwrap(),
            schema: SchemaVersion::new(4),
        };
        let file = FileId {
            device: 1,
            inode: 2,
        };
        ReplicaState::new("s3://my-bucket/mydb".to_owned(), &standing, file)
    }

    #[test]
    fn the_state_lies_where_the_reference_says() {
        for (local, expected) in [
            ("replica.db", "replica.db-replica-state"),
            (
                "/var/lib/app/replica.db",
                "/var/lib/app/replica.db-replica-state",
            ),
            ("replica", "replica.db-replica-state"),
            ("replica.sqlite", "replica.sqlite.db-replica-state"),
            (".db", ".db-replica-state"),
        ] {
            assert_eq!(state_path(Path::new(local)), Path::new(expected));
        }
    }

    #[test]
    fn the_state_is_json_with_the_fields_of_the_reference() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("replica.db-replica-state");
        let mut state = state();
        state
            .write(&path, Timestamp::from_millis(1_705_314_610_000))
            .unwrap();
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(json["current_txid"], 103);
        assert_eq!(json["last_updated"], "2024-01-15T10:30:10Z");
        assert_eq!(json["source"], "s3://my-bucket/mydb");
        assert_eq!(json["lineage"], "0000000007");
        assert_eq!(json["true_header"].as_str().unwrap().len(), 200);
        assert_eq!(read(&path).unwrap(), Found::State(Box::new(state)));
    }

    #[test]
    fn l10_a_damaged_state_is_damaged_and_never_absent_or_zero() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.db-replica-state");
        assert_eq!(read(&path).unwrap(), Found::Missing);
        let mut state = state();
        state.write(&path, Timestamp::default()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() - 2 {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(
                matches!(read(&path).unwrap(), Found::Damaged(_)),
                "{length}"
            );
        }
        let newer = String::from_utf8(whole)
            .unwrap()
            .replace("\"v\": 1", "\"v\": 2");
        std::fs::write(&path, newer).unwrap();
        assert!(matches!(read(&path).unwrap(), Found::Damaged(_)));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert!(matches!(read(&path).unwrap(), Found::Damaged(_)));
    }

    #[test]
    fn l14_a_replica_is_refused_as_a_database_to_watch() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("replica.db");
        std::fs::write(&database, "").unwrap();
        refuse_replica(&database).unwrap();
        state()
            .write(&state_path(&database), Timestamp::default())
            .unwrap();
        let error = refuse_replica(&database).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("s3://my-bucket/mydb"), "{error}");
    }
}
