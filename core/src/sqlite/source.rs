//! One attached database and the turns on it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::attach::not_in_wal_mode;
use super::claim::{Claim, FileId};
use super::connection::{Access, Conn, MOMENT};
use super::probe::{self, Peek};
use super::view::{SqliteVersion, View, file_header, file_page_count};
use crate::error::{Error, ErrorKind, Result};
use crate::types::PageNumber;

/// Which of the two transactions of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The resting one, whose state is captured.
    Old,
    /// The newer one, open between [`Source::begin_turn`] and its end.
    New,
}

/// What a passive checkpoint did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpointed {
    /// Frames in the WAL.
    pub log: u32,
    /// How many of them are in the database now.
    pub done: u32,
}

/// Whether the files at the names are those that we have open (invariant 13).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// They are.
    Same,
    /// At least one name leads to another file, or `-wal` or `-shm` is gone.
    Replaced,
    /// The database is gone.
    Gone,
}

/// The files of one database.
#[derive(Debug)]
pub(super) struct Paths {
    pub(super) database: PathBuf,
    pub(super) wal: PathBuf,
    pub(super) shm: PathBuf,
}

/// One attached database: two connections that take turns in holding a read transaction, so that from
/// attach to detach at least one is open (invariant 2).
///
/// Blocking; to be used by one thread at a time. The fields are dropped in their order: connections
/// first, then the descriptors of `-wal` and `-shm`, then the claim on the file (invariant 10).
#[derive(Debug)]
pub struct Source {
    sides: [Option<Conn>; 2],
    resting: usize,
    view: View,
    newer: Option<View>,
    wal: File,
    shm: File,
    claim: Claim,
    paths: Paths,
    app_version: Option<SqliteVersion>,
}

/// What attaching has made, before it is known to be whole.
pub(super) struct Parts {
    pub(super) first: Conn,
    pub(super) wal: File,
    pub(super) shm: File,
    pub(super) claim: Claim,
    pub(super) paths: Paths,
    pub(super) app_version: Option<SqliteVersion>,
}

impl Source {
    /// A source whose first connection has a read transaction open.
    pub(super) fn from_parts(parts: Parts) -> Result<Self> {
        // Should this fail, the bindings go in the reverse of this order: the claim last.
        let Parts {
            claim,
            shm,
            wal,
            first,
            paths,
            app_version,
        } = parts;
        let view = view_of(&first, &shm)?;
        let mut source = Self {
            sides: [Some(first), None],
            resting: 0,
            view,
            newer: None,
            wal,
            shm,
            claim,
            paths,
            app_version,
        };
        source.idle()?;
        Ok(source)
    }

    /// The database's absolute path.
    pub fn path(&self) -> &Path {
        &self.paths.database
    }

    /// Which file is attached.
    pub fn file_id(&self) -> FileId {
        self.claim.id()
    }

    /// The SQLite that had last written page 1 when we attached: the app's. `doctor` and `status` warn
    /// of one before [`SqliteVersion::WAL_RESET_MENDED`].
    pub fn app_version(&self) -> Option<SqliteVersion> {
        self.app_version
    }

    /// What the resting transaction sees: the captured state.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What the newer transaction sees, while a turn is open.
    pub fn newer_view(&self) -> Option<&View> {
        self.newer.as_ref()
    }

    /// Opens the newer transaction; both are open now.
    ///
    /// # Errors
    /// `Busy` while a recovery runs; then nothing has changed. `Unsupported` if the database left WAL
    /// mode.
    pub fn begin_turn(&mut self) -> Result<View> {
        if self.newer.is_some() {
            return Err(self.defect("a turn is open already"));
        }
        let conn = self.idle()?;
        conn.begin_read(MOMENT)?;
        match self
            .side(Side::New)
            .and_then(|conn| view_of(conn, &self.shm))
        {
            Ok(view) => {
                self.newer = Some(view);
                Ok(view)
            }
            Err(error) => {
                self.rest(1 - self.resting);
                Err(error.on(self.paths.database.display()))
            }
        }
    }

    /// Ends the older transaction; the newer one rests from here on. Only once everything up to its
    /// view is captured (invariant 2).
    pub fn end_turn(&mut self) -> Result<()> {
        let Some(view) = self.newer.take() else {
            return Err(self.defect("no turn is open"));
        };
        self.rest(self.resting);
        self.resting = 1 - self.resting;
        self.view = view;
        Ok(())
    }

    /// Ends the newer transaction; nothing was captured.
    pub fn cancel_turn(&mut self) -> Result<()> {
        if self.newer.take().is_none() {
            return Err(self.defect("no turn is open"));
        }
        self.rest(1 - self.resting);
        Ok(())
    }

    /// Replaces `out` by the page as that side's transaction sees it. The lock page is zeros.
    ///
    /// # Errors
    /// `Invalid` for a page beyond the side's view.
    pub fn read_page(&mut self, side: Side, page: PageNumber, out: &mut Vec<u8>) -> Result<()> {
        let view = match side {
            Side::Old => Some(self.view),
            Side::New => self.newer,
        };
        let Some(view) = view else {
            return Err(self.defect("no turn is open"));
        };
        if !view.page_count.holds(page) {
            let message = format!(
                "page {page} is beyond the {} of the database",
                view.page_count
            );
            return Err(Error::new(ErrorKind::Invalid, message).on(self.path().display()));
        }
        let size = view.page_size;
        let index = self.index(side);
        let found = match self.sides.get_mut(index) {
            Some(Some(_)) if page == size.lock_page() => false,
            Some(Some(conn)) => conn.read_page(page, out)?,
            _ => return Err(self.defect("a side without a connection")),
        };
        if !found {
            // Also a page that the WAL counts and page 1 does not: an app with a chunk size made its
            // file longer than its database. Nothing is in it.
            out.clear();
            out.resize(size.bytes(), 0);
        }
        if out.len() != size.bytes() {
            return Err(self.defect("SQLite returned a page of another size"));
        }
        Ok(())
    }

    /// The WAL-index header as it is now, and whether a writer holds the WAL's write lock. No call into
    /// SQLite.
    ///
    /// # Errors
    /// `Busy` while the header is being written or recovered.
    pub fn peek(&self) -> Result<Peek> {
        probe::peek(&self.shm).map_err(|error| error.on(self.paths.shm.display()))
    }

    /// Copies frames back into the database, up to the smallest read mark in use. Not inside a turn:
    /// the connection that does it must be at rest.
    ///
    /// # Errors
    /// `Busy` if somebody else is checkpointing.
    pub fn checkpoint_passive(&mut self) -> Result<Checkpointed> {
        if self.newer.is_some() {
            return Err(self.defect("a checkpoint inside a turn"));
        }
        let (log, done) = self.idle()?.checkpoint_passive()?;
        match (u32::try_from(log), u32::try_from(done)) {
            (Ok(log), Ok(done)) => Ok(Checkpointed { log, done }),
            _ => Err(
                Error::new(ErrorKind::Unsupported, "is no longer in WAL mode")
                    .on(self.path().display()),
            ),
        }
    }

    /// Whether the names still lead to the files that we have open.
    pub fn identity(&self) -> Result<Identity> {
        let Some(database) = id_of(&self.paths.database)? else {
            return Ok(Identity::Gone);
        };
        if database != self.claim.id() {
            return Ok(Identity::Replaced);
        }
        for (path, open) in [(&self.paths.wal, &self.wal), (&self.paths.shm, &self.shm)] {
            let ours = open
                .metadata()
                .map_err(|error| Error::io(path.display(), error))?;
            if id_of(path)? != Some(FileId::from(&ours)) {
                return Ok(Identity::Replaced);
            }
        }
        Ok(Identity::Same)
    }

    /// The `-wal` file. While we are attached SQLite neither deletes nor replaces it: another file at
    /// its name is [`Identity::Replaced`], never to be followed.
    pub fn wal(&self) -> Result<&File> {
        Ok(&self.wal)
    }

    /// The path of the `-wal` file.
    pub fn wal_path(&self) -> &Path {
        &self.paths.wal
    }

    /// Ends both transactions and closes everything, in the order that keeps locks whole. Dropping does
    /// the same, but swallows errors.
    pub fn detach(mut self) -> Result<()> {
        let mut outcome = Ok(());
        for side in &mut self.sides {
            if let Some(mut conn) = side.take() {
                if conn.is_reading() {
                    outcome = outcome.and(conn.end_read());
                }
                outcome = outcome.and(conn.close());
            }
        }
        outcome
    }

    /// The connection that rests outside a transaction; opened, and its WAL with it, if need be.
    fn idle(&mut self) -> Result<&mut Conn> {
        let index = 1 - self.resting;
        let Some(slot) = self.sides.get_mut(index) else {
            return Err(defect(&self.paths, "no second side"));
        };
        match slot {
            Some(conn) => Ok(conn),
            none => Ok(none.insert(open_idle(&self.paths.database)?)),
        }
    }

    fn index(&self, side: Side) -> usize {
        match side {
            Side::Old => self.resting,
            Side::New => 1 - self.resting,
        }
    }

    fn side(&self, side: Side) -> Result<&Conn> {
        match self.sides.get(self.index(side)) {
            Some(Some(conn)) => Ok(conn),
            _ => Err(self.defect("a side without a connection")),
        }
    }

    /// Ends the transaction of a side. A connection that parsed the schema, or whose rollback failed,
    /// is closed; its successor is opened when it is needed.
    fn rest(&mut self, index: usize) {
        let Some(slot) = self.sides.get_mut(index) else {
            return;
        };
        if let Some(conn) = slot
            && (conn.end_read().is_err() || conn.holds_schema())
        {
            *slot = None;
        }
    }

    pub(super) fn defect(&self, message: &str) -> Error {
        defect(&self.paths, message)
    }
}

fn defect(paths: &Paths, message: &str) -> Error {
    Error::new(ErrorKind::Internal, message).on(paths.database.display())
}

/// A connection outside a transaction, with its WAL open: only then can it checkpoint.
fn open_idle(path: &Path) -> Result<Conn> {
    let mut conn = Conn::open(path, Access::ReadWrite)?;
    conn.begin_read(MOMENT)?;
    conn.end_read()?;
    Ok(conn)
}

/// What the open read transaction of `conn` sees.
fn view_of(conn: &Conn, shm: &File) -> Result<View> {
    let header = conn.snapshot()?;
    let Some((header, end)) = header.and_then(|header| Some((header, header.end()?))) else {
        let header = file_header(conn)?;
        if !header.wal_mode {
            return Err(not_in_wal_mode());
        }
        return Ok(View {
            page_size: header.page_size,
            page_count: file_page_count(conn, &header)?,
            wal: None,
            restartable: true,
        });
    };
    let Some(page_size) = header.page_size else {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "the WAL-index names no page size",
        ));
    };
    Ok(View {
        page_size,
        page_count: header.pages,
        wal: Some(end),
        restartable: probe::may_restart(shm, &end),
    })
}

/// Which file `path` names now; none if there is none.
pub(super) fn id_of(path: &Path) -> Result<Option<FileId>> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(FileId::from(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path.display(), error)),
    }
}

/// How long a lock that others hold is waited for at attach, where an app that opens and closes for
/// every statement may hold it again and again.
pub(super) const ATTACH_PATIENCE: Duration = Duration::from_secs(2);
