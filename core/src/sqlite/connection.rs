//! One connection as walrust opens them: small, quiet, and harmless when it closes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, ffi};

use super::ffi as raw;
use super::view::SqliteVersion;
use crate::error::{Error, ErrorKind, Result};
use crate::types::PageNumber;
use crate::wal::IndexHeader;

/// How long a lock that others hold for moments (recovery, a last close) is waited for.
pub(super) const MOMENT: Duration = Duration::from_millis(50);

/// Pages in the cache of a connection; SQLite needs a few for a walk through the schema.
const CACHE_PAGES: u32 = 4;

/// Page cache of a connection that writes, in KiB: what does not fit goes to the WAL before the commit.
const WRITE_CACHE_KIB: u32 = 2048;

/// Checks that the SQLite inside this program was compiled as walrust needs it.
///
/// # Errors
/// `Internal`, naming what is missing: the build lost its flags.
pub fn require_compile_options() -> Result<()> {
    const NEEDED: [&str; 2] = ["ENABLE_DBPAGE_VTAB", "ENABLE_SNAPSHOT"];
    let oldest = SqliteVersion::WAL_RESET_MENDED;
    raw::configure_process();
    let connection = Connection::open_in_memory().map_err(|error| sqlite_error(&error))?;
    let mut statement = connection
        .prepare("PRAGMA compile_options")
        .map_err(|error| sqlite_error(&error))?;
    let options = statement
        .query_map([], |row| row.get::<_, String>(0))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .map_err(|error| sqlite_error(&error))?;
    let missing = NEEDED
        .into_iter()
        .filter(|needed| !options.iter().any(|option| option == needed))
        .collect::<Vec<_>>();
    let problem = if !missing.is_empty() {
        format!("SQLite was compiled without {}", missing.join(", "))
    } else if rusqlite::version_number().cast_unsigned() < oldest.0 {
        format!("SQLite is {}, older than {oldest}", rusqlite::version())
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Internal, problem)
        .hint("build with the LIBSQLITE3_FLAGS of .cargo/config.toml"))
}

/// What SQLite's own error means for us. The path is the caller's to add.
pub(super) fn sqlite_error(error: &rusqlite::Error) -> Error {
    let rusqlite::Error::SqliteFailure(code, message) = error else {
        return Error::new(ErrorKind::Internal, format!("sqlite: {error}"));
    };
    let kind = match code.extended_code & 0xff {
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => ErrorKind::Busy,
        ffi::SQLITE_CORRUPT => ErrorKind::Corrupt,
        ffi::SQLITE_NOTADB => ErrorKind::Unsupported,
        ffi::SQLITE_PERM | ffi::SQLITE_AUTH | ffi::SQLITE_READONLY | ffi::SQLITE_CANTOPEN => {
            ErrorKind::Denied
        }
        ffi::SQLITE_FULL | ffi::SQLITE_NOMEM => ErrorKind::Exhausted,
        ffi::SQLITE_IOERR => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let message = message.clone().unwrap_or_else(|| code.to_string());
    Error::new(
        kind,
        format!("sqlite: {message} (code {})", code.extended_code),
    )
}

/// Which lock files a connection may need and make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// Read and write, never create: SQLite writes read marks and locks, never the database.
    ReadWrite,
    /// Nothing but reads, as the file system allows no more.
    ReadOnly,
    /// Nothing but reads, of a file that nobody can change: no locks, no WAL.
    Immutable,
}

/// One connection to a database.
///
/// The statements come first, so that they are dropped before what they were prepared on.
#[derive(Debug)]
pub(super) struct Conn {
    pages: Option<raw::PageQuery>,
    write: Option<raw::PageWrite>,
    sqlite: Connection,
    path: PathBuf,
    reading: bool,
}

impl Conn {
    /// Opens `path`, which must be absolute: SQLite would take a name that begins with `file:` for a
    /// URI.
    pub(super) fn open(path: &Path, access: Access) -> Result<Self> {
        raw::configure_process();
        let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX
            | match access {
                Access::ReadWrite => OpenFlags::SQLITE_OPEN_READ_WRITE,
                Access::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
                Access::Immutable => OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
            };
        let opened = match access {
            Access::ReadWrite | Access::ReadOnly => Connection::open_with_flags(path, flags),
            Access::Immutable => Connection::open_with_flags(immutable_uri(path), flags),
        };
        let sqlite = opened.map_err(|error| sqlite_error(&error).on(path.display()))?;
        let conn = Self {
            pages: None,
            write: None,
            sqlite,
            path: path.to_owned(),
            reading: false,
        };
        conn.prepare_for_rest()?;
        Ok(conn)
    }

    fn prepare_for_rest(&self) -> Result<()> {
        raw::keep_wal_on_close(&self.sqlite).map_err(|error| self.on(error))?;
        self.sqlite
            .busy_timeout(Duration::ZERO)
            .map_err(|error| self.error(&error))?;
        // None of these reads the database; `cache_size` would, and parse the schema.
        self.execute(
            "PRAGMA query_only=1; PRAGMA wal_autocheckpoint=0; PRAGMA temp_store=2; \
             PRAGMA mmap_size=0",
        )
    }

    /// Runs statements that return nothing of interest.
    pub(super) fn execute(&self, sql: &str) -> Result<()> {
        self.sqlite
            .execute_batch(sql)
            .map_err(|error| self.error(&error))
    }

    /// One value of one row.
    pub(super) fn value<T: rusqlite::types::FromSql>(&self, sql: &str) -> Result<T> {
        self.sqlite
            .query_row(sql, [], |row| row.get(0))
            .map_err(|error| self.error(&error))
    }

    /// The first column of all rows, at most `limit`.
    pub(super) fn column(&self, sql: &str, limit: usize) -> Result<Vec<String>> {
        let mut statement = self.sqlite.prepare(sql).map_err(|e| self.error(&e))?;
        statement
            .query_map([], |row| row.get(0))
            .and_then(|rows| rows.take(limit).collect())
            .map_err(|error| self.error(&error))
    }

    /// Waits for `busy_timeout` instead of coming back at once.
    pub(super) fn wait_for_locks(&self, timeout: Duration) -> Result<()> {
        self.sqlite
            .busy_timeout(timeout)
            .map_err(|error| self.error(&error))
    }

    /// Opens the read transaction: from here on SQLite sees one state. Tries again for at most
    /// `patience` while others hold a lock.
    ///
    /// `schema_version` reads the header of page 1 and parses nothing.
    pub(super) fn begin_read(&mut self, patience: Duration) -> Result<()> {
        self.execute("BEGIN")?;
        let deadline = Instant::now() + patience;
        loop {
            let Err(error) = self.value::<i64>("PRAGMA schema_version") else {
                self.reading = true;
                return Ok(());
            };
            if error.kind() != ErrorKind::Busy || Instant::now() >= deadline {
                // Nothing is open that a failed ROLLBACK could keep: the next BEGIN would say so.
                let _ = self.execute("ROLLBACK");
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the read transaction.
    pub(super) fn end_read(&mut self) -> Result<()> {
        self.reading = false;
        self.execute("ROLLBACK")
    }

    /// Whether a read transaction is open.
    pub(super) fn is_reading(&self) -> bool {
        self.reading
    }

    /// Whether the schema was parsed, which then stays in memory until the connection is reopened.
    pub(super) fn holds_schema(&self) -> bool {
        self.pages.is_some()
    }

    /// The WAL-index header of the open read transaction; none before anything was written to the WAL.
    pub(super) fn snapshot(&self) -> Result<Option<IndexHeader>> {
        let Some(bytes) = raw::snapshot(&self.sqlite).map_err(|error| self.on(error))? else {
            return Ok(None);
        };
        match IndexHeader::decode(&bytes) {
            Ok(header) => Ok(Some(header)),
            Err(error) => Err(Error::new(ErrorKind::Internal, error.to_string())
                .on(self.path.display())
                .because(error)),
        }
    }

    /// Replaces `out` by page `page` as the transaction sees it; false where SQLite's database ends
    /// before it.
    pub(super) fn read_page(&mut self, page: PageNumber, out: &mut Vec<u8>) -> Result<bool> {
        if self.pages.is_none() {
            self.look_past_schema()?;
        }
        let query = match &mut self.pages {
            Some(query) => query,
            none => {
                let query = raw::PageQuery::prepare(&self.sqlite)
                    .map_err(|error| error.on(self.path.display()))?;
                none.insert(query)
            }
        };
        query
            .read(&self.sqlite, page.get(), out)
            .map_err(|error| error.on(self.path.display()))
    }

    /// writable_schema lets pages be read and written although the schema does not parse; a connection for
    /// reading is `query_only` all the same. cache_size parses the schema, as statements over pages do; a
    /// connection that needs no pages keeps none.
    fn look_past_schema(&self) -> Result<()> {
        self.execute(&format!(
            "PRAGMA writable_schema=1; PRAGMA cache_size={CACHE_PAGES}"
        ))
    }

    /// Makes this the connection that writes pages: each commit is durable, a page is only where it is put, and
    /// the WAL shrinks back to `wal_limit` bytes when it restarts.
    pub(super) fn prepare_for_writing(&self, wal_limit: u64, patience: Duration) -> Result<()> {
        self.wait_for_locks(patience)?;
        raw::never_vacuum_at_commit(&self.sqlite).map_err(|error| self.on(error))?;
        self.look_past_schema()?;
        self.execute(&format!(
            "PRAGMA query_only=0; PRAGMA synchronous=FULL; PRAGMA journal_size_limit={wal_limit}; \
             PRAGMA cache_size=-{WRITE_CACHE_KIB}"
        ))
    }

    /// Writes a page into the transaction that [`Conn::begin_read`] began.
    pub(super) fn write_page(&mut self, page: PageNumber, data: &[u8]) -> Result<()> {
        self.write(page, Some(data))
    }

    /// The same for page 1, and ends the database before page `end` at the commit. Nothing may follow.
    ///
    /// The schema's version comes last. Before the next statement SQLite would read the new schema, through what
    /// it remembers of the old pages.
    pub(super) fn write_first(&mut self, first: &[u8], end: Option<PageNumber>) -> Result<()> {
        const SCHEMA: std::ops::Range<usize> = 40..44;
        let stored = |page: &[u8]| {
            let bytes = page.get(SCHEMA).and_then(<[u8]>::first_chunk);
            bytes.map_or(0, |bytes| i32::from_be_bytes(*bytes))
        };
        let (standing, new) = (self.value::<i32>("PRAGMA schema_version")?, stored(first));
        let mut page = first.to_vec();
        if let Some(field) = page.get_mut(SCHEMA) {
            field.copy_from_slice(&standing.to_be_bytes());
        }
        self.write(PageNumber::FIRST, Some(&page))?;
        if let Some(end) = end {
            self.write(end, None)?;
        }
        match standing == new {
            true => Ok(()),
            false => self.execute(&format!("PRAGMA schema_version={new}")),
        }
    }

    fn write(&mut self, page: PageNumber, data: Option<&[u8]>) -> Result<()> {
        let statement = match &mut self.write {
            Some(statement) => statement,
            none => {
                let statement = raw::PageWrite::prepare(&self.sqlite)
                    .map_err(|error| error.on(self.path.display()))?;
                none.insert(statement)
            }
        };
        statement
            .write(&self.sqlite, page.get(), data)
            .map_err(|error| error.on(self.path.display()))
    }

    /// Commits the transaction that [`Conn::begin_read`] began.
    pub(super) fn commit(&mut self) -> Result<()> {
        self.execute("COMMIT")?;
        self.reading = false;
        // SQLite's b-trees remember what the pages were before we wrote them behind their back.
        self.execute("PRAGMA shrink_memory")
    }

    /// Nobody else can open the database while this connection lives; whoever has it open stays. For one that has
    /// not opened the WAL.
    pub(super) fn keep_others_out(&self) -> Result<()> {
        raw::keep_others_out(&self.sqlite).map_err(|error| self.on(error))
    }

    /// The first `N` bytes of the database file, which in WAL mode may be older than page 1; none if
    /// the file is shorter.
    pub(super) fn file_head<const N: usize>(&self) -> Result<Option<[u8; N]>> {
        let mut head = [0; N];
        let whole = raw::read_file(&self.sqlite, &mut head, 0).map_err(|error| self.on(error))?;
        Ok(whole.then_some(head))
    }

    /// Size of the database file in bytes.
    pub(super) fn file_size(&self) -> Result<u64> {
        raw::file_size(&self.sqlite).map_err(|error| self.on(error))
    }

    /// Whether the open file no longer bears its name.
    pub(super) fn has_moved(&self) -> Result<bool> {
        raw::has_moved(&self.sqlite).map_err(|error| self.on(error))
    }

    /// Whether SQLite could open the file only for reading.
    pub(super) fn is_read_only(&self) -> Result<bool> {
        self.sqlite
            .is_readonly("main")
            .map_err(|error| self.error(&error))
    }

    /// Copies frames back into the database, as far as no reader is in the way.
    pub(super) fn checkpoint_passive(&self) -> Result<(i32, i32)> {
        raw::checkpoint_passive(&self.sqlite).map_err(|error| self.on(error))
    }

    /// Closes, which SQLite may refuse only for our own defects.
    pub(super) fn close(self) -> Result<()> {
        let Self {
            pages,
            write,
            sqlite,
            path,
            ..
        } = self;
        drop((pages, write));
        sqlite
            .close()
            .map_err(|(_, error)| sqlite_error(&error).on(path.display()))
    }

    fn error(&self, error: &rusqlite::Error) -> Error {
        sqlite_error(error).on(self.path.display())
    }

    fn on(&self, error: Error) -> Error {
        error.on(self.path.display())
    }
}

/// `path` as a URI that promises SQLite an unchanging file.
fn immutable_uri(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            other => {
                // Writing to a String cannot fail.
                let _ = write!(uri, "%{other:02X}");
            }
        }
    }
    uri.push_str("?immutable=1");
    uri
}
