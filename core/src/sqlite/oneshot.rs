//! One exact copy of a database in any journal mode, for `walrust snapshot` (R37).
//!
//! | database | how |
//! |---|---|
//! | WAL mode | one read transaction for the whole pass; writers go on |
//! | rollback mode | short lock windows, so that writers are held up for moments only; the pass restarts when a commit came in between, and after 3 restarts one window spans the pass, with a warning |
//! | WAL mode where we cannot write, no WAL | as immutable; others may still write, so that the pass counts only if the file is the same after it |
//! | read-only volume, no WAL | the same |

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::attach::resolve;
use super::claim::{Claim, FileId};
use super::connection::{Access, Conn};
use super::view::{DatabaseHeader, file_header, file_page_count};
use super::volume::{self, Ownership};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::with_suffix;
use crate::types::{PageCount, PageNumber, PageSize};

/// How often a pass begins anew before one window spans it.
const RESTARTS: u32 = 3;
/// How long a lock window lasts: what a writer waits at most.
const WINDOW: Duration = Duration::from_millis(5);
/// How long the database is left alone between two windows: a tenth of them.
const PAUSE: Duration = Duration::from_micros(500);
/// How long a writer's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes the pages of one pass.
pub trait PageSink {
    /// A pass begins; whatever came before is void.
    fn begin(&mut self, page_size: PageSize, page_count: PageCount) -> Result<()>;
    /// The next page, ascending, without the lock page.
    fn page(&mut self, page: PageNumber, data: &[u8]) -> Result<()>;
}

/// What happens during a copy that people may want to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyEvent {
    /// A commit came in between; the pass began anew.
    Restarted {
        /// How often so far.
        times: u32,
    },
    /// Commits keep coming: writers wait until this pass is done.
    Held,
}

/// How the pages can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Wal,
    Rollback,
    Immutable,
}

/// What a pass found.
enum Pass {
    Done,
    Moved,
}

/// A database opened for one copy.
#[derive(Debug)]
pub struct OneShot {
    conn: Conn,
    mode: Mode,
    path: PathBuf,
    claim: Claim,
}

impl OneShot {
    /// Opens the database at `path`.
    ///
    /// # Errors
    /// As [`super::Source::attach`], but for the journal mode; `Denied` for a read-only volume with a
    /// WAL or a hot journal, which only a writer can read.
    pub fn open(path: &Path, allow_network_fs: bool) -> Result<Self> {
        open(path, allow_network_fs).map_err(|error| error.on(path.display()))
    }

    /// Whether it could be watched instead: it is in WAL mode, and we may set read marks.
    pub fn can_be_watched(&self) -> bool {
        self.mode == Mode::Wal
    }

    /// Which file it is.
    pub fn file_id(&self) -> FileId {
        self.claim.id()
    }

    /// Gives every page of one committed state to `sink`.
    ///
    /// # Errors
    /// `Busy` if a writer holds the database for longer than half a minute, or if a file on a read-only
    /// volume keeps changing.
    pub fn copy(
        &mut self,
        sink: &mut dyn PageSink,
        event: &mut dyn FnMut(CopyEvent),
    ) -> Result<()> {
        let outcome = match self.mode {
            Mode::Wal => self.held_pass(sink),
            Mode::Rollback => self.rollback_passes(sink, event),
            Mode::Immutable => self.immutable_passes(sink, event),
        };
        if self.conn.is_reading() {
            let ended = self.conn.end_read();
            return outcome.and(ended);
        }
        outcome
    }

    fn held_pass(&mut self, sink: &mut dyn PageSink) -> Result<()> {
        self.conn.begin_read(PATIENCE)?;
        let (size, count) = match self.conn.snapshot()? {
            Some(header) if header.frames > 0 => match header.page_size {
                Some(size) => (size, header.pages),
                None => return Err(Error::new(ErrorKind::Corrupt, "no page size in -shm")),
            },
            _ => self.file_size_in_pages()?,
        };
        sink.begin(size, count)?;
        let mut page = Vec::new();
        for number in size.stored_pages(count) {
            read(&mut self.conn, size, number, &mut page)?;
            sink.page(number, &page)?;
        }
        self.conn.end_read()
    }

    fn rollback_passes(
        &mut self,
        sink: &mut dyn PageSink,
        event: &mut dyn FnMut(CopyEvent),
    ) -> Result<()> {
        for times in 0..=RESTARTS {
            if times > 0 {
                event(CopyEvent::Restarted { times });
            }
            if let Pass::Done = self.windowed_pass(sink, Some(WINDOW))? {
                return Ok(());
            }
        }
        event(CopyEvent::Held);
        match self.windowed_pass(sink, None)? {
            Pass::Done => Ok(()),
            Pass::Moved => Err(Error::new(
                ErrorKind::Internal,
                "the database changed under our lock",
            )),
        }
    }

    /// One pass in windows of the given length; without one, a single window spans it.
    fn windowed_pass(&mut self, sink: &mut dyn PageSink, window: Option<Duration>) -> Result<Pass> {
        self.conn.begin_read(PATIENCE)?;
        // The change counter (bytes 24 to 27) moves with every commit; the rest of the header with a
        // change of the journal mode. In rollback mode the file is the state while we hold the lock.
        let first = self.conn.file_head::<{ DatabaseHeader::BYTES }>()?;
        let header = file_header(&self.conn)?;
        if header.wal_mode && self.mode == Mode::Rollback {
            return Err(Error::new(ErrorKind::Busy, "changed to WAL mode just now"));
        }
        let (size, count) = (header.page_size, file_page_count(&self.conn, &header)?);
        sink.begin(size, count)?;
        let mut since = Instant::now();
        let mut page = Vec::new();
        for number in size.stored_pages(count) {
            if window.is_some_and(|window| since.elapsed() >= window) {
                self.conn.end_read()?;
                // Whoever waits for us takes the lock now.
                std::thread::sleep(PAUSE);
                self.conn.begin_read(PATIENCE)?;
                if self.conn.file_head::<{ DatabaseHeader::BYTES }>()? != first {
                    self.conn.end_read()?;
                    return Ok(Pass::Moved);
                }
                since = Instant::now();
            }
            read(&mut self.conn, size, number, &mut page)?;
            sink.page(number, &page)?;
        }
        self.conn.end_read()?;
        Ok(Pass::Done)
    }

    fn immutable_passes(
        &mut self,
        sink: &mut dyn PageSink,
        event: &mut dyn FnMut(CopyEvent),
    ) -> Result<()> {
        for times in 0..=RESTARTS {
            if times > 0 {
                event(CopyEvent::Restarted { times });
                self.conn = Conn::open(&self.path, Access::Immutable)?;
            }
            let before = Fingerprint::of(&self.path)?;
            let outcome = self.windowed_pass(sink, None);
            if Fingerprint::of(&self.path)? == before && before.holds(&self.claim) {
                return outcome.map(|_| ());
            }
        }
        Err(Error::new(
            ErrorKind::Busy,
            "changes while it is read: it is read-only only for us",
        )
        .hint("run the snapshot where the app runs"))
    }

    fn file_size_in_pages(&self) -> Result<(PageSize, PageCount)> {
        let header = file_header(&self.conn)?;
        Ok((header.page_size, file_page_count(&self.conn, &header)?))
    }
}

/// Reads one page; one that SQLite does not count is zeros.
fn read(conn: &mut Conn, size: PageSize, number: PageNumber, page: &mut Vec<u8>) -> Result<()> {
    if !conn.read_page(number, page)? {
        page.clear();
        page.resize(size.bytes(), 0);
    }
    Ok(())
}

fn open(path: &Path, allow_network_fs: bool) -> Result<OneShot> {
    let path = resolve(path)?;
    let metadata = std::fs::metadata(&path).map_err(|error| Error::io(path.display(), error))?;
    if !allow_network_fs {
        volume::require_local(&path)?;
    }
    let claim = Claim::take(FileId::from(&metadata), &path)?;
    let (conn, mode) = if volume::is_read_only(&path)? {
        require_nothing_beside(&path)?;
        open_unwritable(&path)?
    } else {
        open_writable(&path, Ownership::from(&metadata))?
    };
    Ok(OneShot {
        conn,
        mode,
        path,
        claim,
    })
}

/// A database that we cannot write, with nothing beside it.
fn open_unwritable(path: &Path) -> Result<(Conn, Mode)> {
    let conn = Conn::open(path, Access::Immutable)?;
    file_header(&conn)?;
    Ok((conn, Mode::Immutable))
}

/// The database at `path` as on a volume that we cannot write.
#[cfg(test)]
pub(super) fn open_immutable(path: PathBuf) -> Result<OneShot> {
    require_nothing_beside(&path)?;
    let metadata = std::fs::metadata(&path).map_err(|error| Error::io(path.display(), error))?;
    let claim = Claim::take(FileId::from(&metadata), &path)?;
    let (conn, mode) = open_unwritable(&path)?;
    Ok(OneShot {
        conn,
        mode,
        path,
        claim,
    })
}

/// A volume that can be written: a database in WAL mode needs its read marks there, unless it has no WAL.
fn open_writable(path: &Path, owner: Ownership) -> Result<(Conn, Mode)> {
    let mut conn = Conn::open(path, Access::ReadOnly)?;
    if !file_header(&conn)?.wal_mode {
        conn.begin_read(PATIENCE).map_err(explain_hot_journal)?;
        conn.end_read()?;
        return Ok((conn, Mode::Rollback));
    }
    conn.close()?;
    let allowed = volume::require_shared_ownership(path, owner)
        .and_then(|()| volume::require_write_access(path));
    if let Err(error) = allowed {
        // Read marks are for readers of a WAL; the database alone needs none.
        let alone = error.kind() == ErrorKind::Denied && require_nothing_beside(path).is_ok();
        return if alone {
            open_unwritable(path)
        } else {
            Err(error)
        };
    }
    volume::create_companions(path, owner)?;
    Ok((Conn::open(path, Access::ReadWrite)?, Mode::Wal))
}

fn explain_hot_journal(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Denied => Error::new(
            ErrorKind::Denied,
            "a crash left a journal that must be rolled back first, which would write",
        )
        .hint("open it once with the app or sqlite3")
        .because(error),
        _ => error,
    }
}

/// On a read-only volume: no WAL and no journal that say more than the database.
fn require_nothing_beside(path: &Path) -> Result<()> {
    for (suffix, what) in [("-wal", "a WAL"), ("-journal", "a journal")] {
        let beside = with_suffix(path, suffix);
        if std::fs::metadata(&beside).is_ok_and(|metadata| metadata.len() > 0) {
            return Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "is read-only and lies beside {what}, which cannot be read without writing"
                ),
            )
            .hint("run the snapshot where it can be written"));
        }
    }
    Ok(())
}

/// What changes when somebody writes a file.
#[derive(PartialEq, Eq)]
struct Fingerprint {
    id: FileId,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    fn of(path: &Path) -> Result<Self> {
        require_nothing_beside(path)?;
        let metadata: Metadata =
            std::fs::metadata(path).map_err(|error| Error::io(path.display(), error))?;
        Ok(Self {
            id: FileId::from(&metadata),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn holds(&self, claim: &Claim) -> bool {
        self.id == claim.id()
    }
}
