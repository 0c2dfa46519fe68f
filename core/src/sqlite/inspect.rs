//! A look at a database from outside: what would keep a watcher from attaching, each by itself, without
//! a connection, a lock or a file of ours.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::attach::resolve;
use super::claim::{Claim, FileId};
use super::view::{DatabaseHeader, HeaderKind, SqliteVersion};
use super::volume::{self, Ownership};
use crate::error::{Error, ErrorKind, Result};
use crate::types::PageSize;

/// What a look shows. Each error is the one with which attaching would be refused.
#[derive(Debug)]
pub struct Facts {
    /// What the file's header says.
    pub header: Result<Header>,
    /// That it lies on a local file system.
    pub local: Result<()>,
    /// That we may write the volume, the file and its directory.
    pub writable: Result<()>,
    /// That files which we create do not lock its owner out (invariant 12).
    pub ownership: Result<()>,
}

/// The header of a database, as far as a watcher cares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Whether it is in WAL mode.
    pub wal_mode: bool,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// The library that wrote page 1 last; none in files of very old ones.
    pub sqlite_version: Option<SqliteVersion>,
}

/// Looks at the database at `path`.
///
/// # Errors
/// `NotFound` if there is none, `Unsupported` for what is no regular file, `Exists` if this process has it
/// attached: closing a descriptor of it would drop our own locks (invariant 10).
pub fn inspect(path: &Path) -> Result<Facts> {
    let database = resolve(path)?;
    let metadata =
        std::fs::metadata(&database).map_err(|error| Error::io(path.display(), error))?;
    let claim = Claim::take(FileId::from(&metadata), &database)?;
    let facts = Facts {
        header: header(&database),
        local: volume::require_local(&database),
        writable: volume::require_writable_volume(&database)
            .and_then(|()| volume::require_write_access(&database)),
        ownership: volume::require_shared_ownership(&database, Ownership::from(&metadata)),
    };
    // Held until the last descriptor is closed.
    drop(claim);
    Ok(facts)
}

fn header(path: &Path) -> Result<Header> {
    let fault = |error| Error::io(path.display(), error);
    let unsupported =
        |message: &str| Error::new(ErrorKind::Unsupported, message).on(path.display());
    let file = File::open(path).map_err(fault)?;
    let bytes = file.metadata().map_err(fault)?.len();
    let mut head = [0; DatabaseHeader::BYTES];
    if bytes == 0 {
        return Err(unsupported("is empty: no SQLite database yet").hint("start the app first"));
    }
    if bytes < head.len() as u64 {
        return Err(unsupported("is no SQLite database: too short for a header"));
    }
    file.read_exact_at(&mut head, 0).map_err(fault)?;
    match DatabaseHeader::decode(&head) {
        HeaderKind::Database(header) => Ok(Header {
            wal_mode: header.wal_mode,
            bytes,
            sqlite_version: header.sqlite_version,
        }),
        HeaderKind::Foreign => Err(unsupported("is no SQLite database, or an encrypted one")),
    }
}

/// The page size that the header of the database at `path` names. Not for a database that this process has
/// attached: closing a descriptor of it would drop our own locks (invariant 10).
///
/// # Errors
/// Those of reading, and `Corrupt` where the header names none.
pub fn page_size_of(path: &Path) -> Result<PageSize> {
    let mut header = [0; 18];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut header, 0))
        .map_err(|error| Error::io(path.display(), error))?;
    let size = u16::from_be_bytes([header[16], header[17]]);
    PageSize::from_database_header(size).ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "its header names no page size").on(path.display())
    })
}
