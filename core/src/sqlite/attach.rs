//! Attaching to a database: all refusals, then the first read transaction.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::claim::{Claim, FileId};
use super::connection::{Access, Conn};
use super::source::{ATTACH_PATIENCE, Parts, Paths, Source, id_of};
use super::view::{DatabaseHeader, file_header};
use super::volume::{self, Ownership};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::with_suffix;

/// What attaching may do that it otherwise refuses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AttachOptions {
    /// Set `journal_mode=WAL` on a database that is in another mode (invariant 1).
    pub set_wal_mode: bool,
    /// Attach on a network file system.
    pub allow_network_fs: bool,
}

/// The refusals that need no connection: nothing of ours may be made beside a database that we must not
/// attach to, or it would be in its owner's way.
///
/// # Errors
/// Those of [`Source::attach`] for file systems, volumes and owners.
pub fn check_access(path: &Path, options: &AttachOptions) -> Result<()> {
    let database = resolve(path)?;
    let metadata = std::fs::metadata(&database).map_err(|e| Error::io(database.display(), e))?;
    if !options.allow_network_fs {
        volume::require_local(&database)?;
    }
    volume::require_shared_ownership(&database, Ownership::from(&metadata))
}

impl Source {
    /// Attaches to the database at `path` and leaves one read transaction open.
    ///
    /// # Errors
    /// `NotFound` if there is none; `Unsupported` for what is no SQLite database, is encrypted, not in
    /// WAL mode, or on a network file system; `Denied` for a read-only volume or where our files would
    /// lock the app out (invariant 12); `Busy` if another process holds it exclusively; `Exists` if this
    /// process has it attached already.
    pub fn attach(path: &Path, options: &AttachOptions) -> Result<Self> {
        let paths = Paths::of(path)?;
        attach(paths, options).map_err(|error| error.on(path.display()))
    }
}

impl Paths {
    /// The files of the database that `path` leads to. Symbolic links are followed, as SQLite does: the
    /// WAL lies beside the real file.
    fn of(path: &Path) -> Result<Self> {
        let database = resolve(path)?;
        Ok(Self {
            wal: with_suffix(&database, "-wal"),
            shm: with_suffix(&database, "-shm"),
            database,
        })
    }
}

/// The real, absolute path of a regular file.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    let real = path
        .canonicalize()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, "no such database").because(error)
            }
            _ => Error::io(path.display(), error),
        })
        .map_err(|error| error.on(path.display()))?;
    let metadata = std::fs::metadata(&real).map_err(|error| Error::io(path.display(), error))?;
    if metadata.is_file() {
        return Ok(real);
    }
    Err(Error::new(ErrorKind::Unsupported, "is no regular file").on(path.display()))
}

fn attach(paths: Paths, options: &AttachOptions) -> Result<Source> {
    let database = &paths.database;
    let metadata = std::fs::metadata(database).map_err(|e| Error::io(database.display(), e))?;
    let owner = Ownership::from(&metadata);
    if !options.allow_network_fs {
        volume::require_local(database)?;
    }
    volume::require_writable_volume(database)?;
    volume::require_shared_ownership(database, owner)?;
    volume::require_write_access(database)?;

    let claim = Claim::take(FileId::from(&metadata), database)?;
    let mut first = Conn::open(database, Access::ReadWrite)?;
    if first.is_read_only()? {
        return Err(Error::new(ErrorKind::Denied, "SQLite can only read it"));
    }
    let header = require_wal_mode(&first, database, options)?;
    volume::create_companions(database, owner)?;
    first.begin_read(ATTACH_PATIENCE).map_err(explain_busy)?;
    // Inside the transaction, which holds a lock on the file, nobody changes the mode any more.
    if !file_header(&first)?.wal_mode {
        return Err(not_in_wal_mode());
    }
    let wal = open_companion(&paths.wal, owner)?;
    // Opened after the connection and closed after the last: only a close can hurt (invariant 10).
    let shm = open_companion(&paths.shm, owner)?;
    if id_of(database)? != Some(claim.id()) || first.has_moved()? {
        return Err(Error::new(ErrorKind::Busy, "was replaced just now"));
    }
    Source::from_parts(Parts {
        first,
        wal,
        shm,
        claim,
        paths,
        app_version: header.sqlite_version,
    })
}

fn require_wal_mode(conn: &Conn, path: &Path, options: &AttachOptions) -> Result<DatabaseHeader> {
    let empty = conn.file_size()? == 0;
    let in_wal_mode = !empty && file_header(conn)?.wal_mode;
    if !in_wal_mode && !options.set_wal_mode {
        return Err(if empty {
            Error::new(ErrorKind::Unsupported, "is empty: no SQLite database yet")
                .hint("start the app first, or make it a WAL database with --set-wal-mode")
        } else {
            not_in_wal_mode()
        });
    }
    if !in_wal_mode {
        set_wal_mode(path)?;
    }
    file_header(conn)
}

pub(super) fn not_in_wal_mode() -> Error {
    Error::new(ErrorKind::Unsupported, "is not in WAL mode").hint(
        "run PRAGMA journal_mode=WAL in the app, or let walrust do it with --set-wal-mode \
         (set_wal_mode = true)",
    )
}

fn explain_busy(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Busy => error.hint(
            "another process holds the database exclusively: locking_mode=EXCLUSIVE in the app?",
        ),
        _ => error,
    }
}

/// Sets `journal_mode=WAL` on the database at `path`. The one change that walrust ever makes to a
/// database, and only where the user asked for it.
///
/// # Errors
/// `Busy` if the database is in use for longer than a few seconds.
pub fn set_wal_mode(path: &Path) -> Result<()> {
    let real = resolve(path)?;
    let conn = Conn::open(&real, Access::ReadWrite)?;
    conn.wait_for_locks(ATTACH_PATIENCE)?;
    conn.execute("PRAGMA query_only=0")?;
    let mode: String = conn.value("PRAGMA journal_mode=WAL")?;
    if mode == "wal" {
        return conn.close();
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("SQLite keeps journal_mode={mode}"),
    )
    .on(path.display()))
}

/// Opens `-wal` or `-shm` for reading.
fn open_companion(path: &Path, owner: Ownership) -> Result<File> {
    let file = File::open(path).map_err(|error| Error::io(path.display(), error))?;
    volume::adopt_group(path, &file, owner)?;
    Ok(file)
}
