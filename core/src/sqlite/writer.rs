//! A database that walrust alone writes, page by page, while others read it: a replica.
//!
//! All goes through SQLite's own write transactions, so that a reader keeps the state that it began with and
//! sees the next one when it begins again. Whether somebody else wrote is known from the WAL-index, which counts
//! commits.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::attach::{not_in_wal_mode, resolve};
use super::claim::{Claim, FileId};
use super::connection::{Access, Conn};
use super::source::{Checkpointed, Identity, id_of};
use super::view::{file_header, file_page_count};
use super::volume::{self, Ownership};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{PageCount, PageNumber, PageSize};
use crate::wal::WalEnd;

/// How long a lock is waited for that others hold: a writer, or a recovery.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a WAL keeps on disk when it restarts: enough for the next changes, not the size of a bootstrap.
const WAL_LIMIT: u64 = 16 << 20;

/// The committed state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Size of the pages.
    pub page_size: PageSize,
    /// Size of the database.
    pub page_count: PageCount,
    /// Where the WAL ends; none if the database file alone is the state.
    pub end: Option<WalEnd>,
    /// Counts commits while anybody has the database open, wrapping.
    change: u32,
}

impl Committed {
    /// Whether nothing was committed between `other` and this, both seen through one [`PageWriter`].
    pub fn is(&self, other: &Self) -> bool {
        self.change == other.change
    }

    fn follows(&self, before: &Self, commits: u32) -> bool {
        self.change == before.change.wrapping_add(commits)
    }
}

/// Whether a directory can hold a database that others read while we write it.
///
/// # Errors
/// `Unsupported` for a network file system, unless that is allowed.
pub fn check_volume(directory: &Path, allow_network_fs: bool) -> Result<()> {
    match allow_network_fs {
        true => Ok(()),
        false => volume::require_local(directory),
    }
}

/// An open database in WAL mode. Blocking; to be used by one thread at a time.
///
/// The fields are dropped in their order: the claim on the file last (invariant 10).
#[derive(Debug)]
pub struct PageWriter {
    conn: Conn,
    claim: Claim,
    path: PathBuf,
}

impl PageWriter {
    /// Opens the database at `path`, which is in WAL mode.
    ///
    /// # Errors
    /// `NotFound` if there is none; `Unsupported` for what is no SQLite database or not in WAL mode; `Denied`
    /// where we may not write or our files would lock its readers out; `Exists` if this process has it open.
    pub fn open(path: &Path) -> Result<Self> {
        let path = resolve(path)?;
        open(&path).map_err(|error| error.on(path.display()))
    }

    /// Which file it is.
    pub fn file_id(&self) -> FileId {
        self.claim.id()
    }

    /// Whether its name still leads to it.
    pub fn identity(&self) -> Result<Identity> {
        Ok(match id_of(&self.path)? {
            None => Identity::Gone,
            Some(id) if id == self.claim.id() => Identity::Same,
            Some(_) => Identity::Replaced,
        })
    }

    /// The committed state now.
    pub fn look(&mut self) -> Result<Committed> {
        self.conn.begin_read(PATIENCE)?;
        let committed = committed(&self.conn);
        let ended = self.conn.end_read();
        committed.and_then(|committed| ended.map(|()| committed))
    }

    /// Gives every page of one committed state, ascending, without the lock page.
    pub fn read_all(
        &mut self,
        each: &mut dyn FnMut(PageNumber, &[u8]) -> Result<()>,
    ) -> Result<Committed> {
        self.conn.begin_read(PATIENCE)?;
        let outcome = self.read_pages(each);
        let ended = self.conn.end_read();
        outcome.and_then(|committed| ended.map(|()| committed))
    }

    fn read_pages(
        &mut self,
        each: &mut dyn FnMut(PageNumber, &[u8]) -> Result<()>,
    ) -> Result<Committed> {
        let committed = committed(&self.conn)?;
        let mut data = Vec::new();
        for page in committed.page_size.stored_pages(committed.page_count) {
            read_page(&mut self.conn, &committed, page, &mut data)?;
            each(page, &data)?;
        }
        Ok(committed)
    }

    /// Begins a transaction over the committed state, whatever it is.
    pub fn begin(&mut self) -> Result<PageTransaction<'_>> {
        self.conn.begin_read(PATIENCE)?;
        match committed(&self.conn) {
            Ok(before) => Ok(PageTransaction {
                writer: self,
                before,
                wrote: false,
                open: true,
            }),
            Err(error) => {
                self.conn.end_read()?;
                Err(error)
            }
        }
    }

    /// Copies frames back into the database, as far as no reader is in the way; waits for nobody.
    pub fn checkpoint(&mut self) -> Result<Checkpointed> {
        match self.conn.checkpoint_passive() {
            Ok((log, done)) => Ok(Checkpointed {
                log: u32::try_from(log).unwrap_or(0),
                done: u32::try_from(done).unwrap_or(0),
            }),
            // A reader with the right to write is at it.
            Err(error) if error.kind() == ErrorKind::Busy => Ok(Checkpointed { log: 1, done: 0 }),
            Err(error) => Err(error),
        }
    }

    /// Lets the WAL begin anew with the next commit: copies all frames back and waits, for at most `patience`, until
    /// no reader needs one any more. Readers wait for nothing: those that come meanwhile read the database file.
    pub fn restart_wal(&mut self, patience: Duration) -> Result<()> {
        self.conn.wait_for_locks(patience)?;
        let outcome = self.conn.execute("PRAGMA wal_checkpoint(RESTART)");
        self.conn.wait_for_locks(PATIENCE)?;
        match outcome {
            // A reader with the right to write is checkpointing.
            Err(error) if error.kind() == ErrorKind::Busy => Ok(()),
            outcome => outcome,
        }
    }

    /// Nobody else can open the database until what is given is dropped; whoever has it open stays, and reads on.
    ///
    /// # Errors
    /// `Busy` where somebody is just opening it.
    pub fn keep_others_out(&self) -> Result<ClosedToOthers> {
        // Not through our connection: SQLite denies that lock to one that shares a WAL-index with others.
        ClosedToOthers::lock(&self.path, None)
    }

    /// Closes it. The WAL stays.
    pub fn close(self) -> Result<()> {
        self.conn.close()
    }
}

/// A database file that nobody can open, by whatever name, until this is dropped: SQLite says "busy".
#[derive(Debug)]
pub struct ClosedToOthers {
    _conn: Conn,
    _claim: Option<Claim>,
}

impl ClosedToOthers {
    /// Closes the file at `path`, which nobody has open.
    ///
    /// # Errors
    /// `Busy` where somebody has, after all.
    pub fn close(path: &Path) -> Result<Self> {
        let path = resolve(path)?;
        let metadata =
            std::fs::metadata(&path).map_err(|error| Error::io(path.display(), error))?;
        let claim = Claim::take(FileId::from(&metadata), &path)?;
        Self::lock(&path, Some(claim))
    }

    fn lock(path: &Path, claim: Option<Claim>) -> Result<Self> {
        let conn = Conn::open(path, Access::ReadWrite)?;
        conn.keep_others_out()?;
        Ok(Self {
            _conn: conn,
            _claim: claim,
        })
    }
}

/// A write transaction. Dropping it leaves the database as it was.
#[derive(Debug)]
pub struct PageTransaction<'w> {
    writer: &'w mut PageWriter,
    before: Committed,
    wrote: bool,
    open: bool,
}

impl PageTransaction<'_> {
    /// The state that the transaction is made over.
    pub fn before(&self) -> &Committed {
        &self.before
    }

    /// Replaces `data` by a page as it was before the transaction.
    ///
    /// # Errors
    /// `Corrupt` for a page that the database does not have.
    pub fn read(&mut self, page: PageNumber, data: &mut Vec<u8>) -> Result<()> {
        read_page(&mut self.writer.conn, &self.before, page, data)
    }

    /// Writes a page that is not the first.
    ///
    /// # Errors
    /// `Busy` if somebody else wrote since the transaction began, or is writing.
    pub fn write(&mut self, page: PageNumber, data: &[u8]) -> Result<()> {
        self.wrote = true;
        self.writer.conn.write_page(page, data)
    }

    /// Writes page 1, and ends the database behind `count` pages. Comes last.
    ///
    /// # Errors
    /// As [`PageTransaction::write`]; `Unsupported` for no pages at all.
    pub fn finish(&mut self, first: &[u8], count: PageCount) -> Result<()> {
        self.wrote = true;
        let end = count.0.checked_add(1).and_then(PageNumber::new);
        let (Some(end), 1..) = (end, count.0) else {
            let message = "a database without pages has no WAL mode";
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let cut = (count < self.before.page_count).then_some(end);
        self.writer.conn.write_first(first, cut)
    }

    /// Commits. Gives the state after it, or nothing where somebody else has committed since.
    pub fn commit(mut self) -> Result<Option<Committed>> {
        self.writer.conn.commit()?;
        self.open = false;
        let after = self.writer.look()?;
        let alone = after.follows(&self.before, u32::from(self.wrote));
        Ok(alone.then_some(after))
    }
}

impl Drop for PageTransaction<'_> {
    fn drop(&mut self) {
        if self.open
            && let Err(error) = self.writer.conn.end_read()
        {
            tracing::warn!(%error, "a transaction could not be rolled back");
        }
    }
}

fn open(path: &Path) -> Result<PageWriter> {
    let metadata = std::fs::metadata(path).map_err(|error| Error::io(path.display(), error))?;
    let owner = Ownership::from(&metadata);
    volume::require_shared_ownership(path, owner)?;
    volume::require_write_access(path)?;
    let claim = Claim::take(FileId::from(&metadata), path)?;
    let mut conn = Conn::open(path, Access::ReadWrite)?;
    if conn.is_read_only()? {
        return Err(Error::new(ErrorKind::Denied, "SQLite can only read it"));
    }
    if !file_header(&conn)?.wal_mode {
        return Err(not_in_wal_mode());
    }
    volume::create_companions(path, owner)?;
    conn.begin_read(PATIENCE)?;
    conn.end_read()?;
    conn.prepare_for_writing(WAL_LIMIT, PATIENCE)?;
    Ok(PageWriter {
        conn,
        claim,
        path: path.to_owned(),
    })
}

/// What the open read transaction of `conn` sees.
fn committed(conn: &Conn) -> Result<Committed> {
    let header = conn.snapshot()?;
    // Without a frame since the index was made, nothing was committed since.
    let change = header.as_ref().map_or(0, |header| header.change);
    if let Some(header) = header
        && let Some(end) = header.end()
    {
        let page_size = header
            .page_size
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the WAL-index names no page size"))?;
        return Ok(Committed {
            page_size,
            page_count: header.pages,
            end: Some(end),
            change,
        });
    }
    let header = file_header(conn)?;
    if !header.wal_mode {
        return Err(not_in_wal_mode());
    }
    Ok(Committed {
        page_size: header.page_size,
        page_count: file_page_count(conn, &header)?,
        end: None,
        change,
    })
}

fn read_page(
    conn: &mut Conn,
    committed: &Committed,
    page: PageNumber,
    data: &mut Vec<u8>,
) -> Result<()> {
    let whole = conn.read_page(page, data)? && data.len() == committed.page_size.bytes();
    match whole {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Corrupt,
            format!("page {page} cannot be read"),
        )),
    }
}
