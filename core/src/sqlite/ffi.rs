//! The calls into SQLite that rusqlite does not offer. All `unsafe` code of walrust is here; what
//! leaves this file is safe to use in any order.
#![allow(
    unsafe_code,
    reason = "snapshots, file handles and page reads have no safe binding"
)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::{self, NonNull};
use std::sync::Once;

use rusqlite::Connection;
use rusqlite::ffi;

use super::connection::sqlite_error;
use crate::error::{Error, ErrorKind, Result};
use crate::wal::IndexHeader;

const MAIN: &CStr = c"main";

/// Sets what is the same for all connections of the process: no lookaside, no page cache set aside.
/// Together with a tiny `cache_size` a resting database then costs 80 KB instead of 720 (mem.c).
///
/// Takes effect only before SQLite's first use in the process; later calls change nothing.
pub(super) fn configure_process() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: `sqlite3_config` takes these argument types for these options, and refuses with
        // SQLITE_MISUSE, without any effect, once SQLite is initialized.
        unsafe {
            ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOOKASIDE, 0 as c_int, 0 as c_int);
            ffi::sqlite3_config(
                ffi::SQLITE_CONFIG_PAGECACHE,
                ptr::null_mut::<c_void>(),
                0 as c_int,
                0 as c_int,
            );
        }
    });
}

/// Invariant 11: the close of `connection` neither checkpoints nor deletes the WAL.
pub(super) fn keep_wal_on_close(connection: &Connection) -> Result<()> {
    // SAFETY: the handle is open while `connection` is borrowed; the option takes an int and a pointer
    // to an int, which may be null.
    let code = unsafe {
        ffi::sqlite3_db_config(
            connection.handle(),
            ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
            1 as c_int,
            ptr::null_mut::<c_int>(),
        )
    };
    check(connection, code)?;
    let mut persist: c_int = 1;
    // SAFETY: the option reads and writes one int, which outlives the call.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            MAIN.as_ptr(),
            ffi::SQLITE_FCNTL_PERSIST_WAL,
            (&raw mut persist).cast(),
        )
    };
    check(connection, code)
}

/// The WAL-index header that the open read transaction of `connection` sees; none if nothing was
/// written to the WAL yet.
///
/// Only to be called inside a read transaction that has begun to read: SQLite would otherwise begin it
/// here, and avoid read mark 0, so that the WAL would never restart.
pub(super) fn snapshot(connection: &Connection) -> Result<Option<[u8; IndexHeader::BYTES]>> {
    let mut snapshot: *mut ffi::sqlite3_snapshot = ptr::null_mut();
    // SAFETY: the handle is open; SQLite sets `snapshot` to its own allocation or to null.
    let code =
        unsafe { ffi::sqlite3_snapshot_get(connection.handle(), MAIN.as_ptr(), &mut snapshot) };
    if code == ffi::SQLITE_ERROR {
        return Ok(None);
    }
    check(connection, code)?;
    let Some(snapshot) = NonNull::new(snapshot) else {
        return Ok(None);
    };
    // SAFETY: SQLite returned SQLITE_OK, so that this is a `sqlite3_snapshot`, ours to read and to free
    // once.
    unsafe {
        let bytes = snapshot.as_ref().hidden;
        ffi::sqlite3_snapshot_free(snapshot.as_ptr());
        Ok(Some(bytes))
    }
}

/// The methods of the descriptor that SQLite itself holds on the database file.
///
/// Reading through it is the only way not to open and close a descriptor of our own, which would drop
/// the locks of the whole process (invariant 10).
fn database_file(
    connection: &Connection,
) -> Result<(*mut ffi::sqlite3_file, ffi::sqlite3_io_methods)> {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    // SAFETY: the option writes one pointer.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            MAIN.as_ptr(),
            ffi::SQLITE_FCNTL_FILE_POINTER,
            (&raw mut file).cast(),
        )
    };
    check(connection, code)?;
    // SAFETY: a file pointer of an open connection stays valid while the connection is open; its
    // methods are a static table, or null for a file that is not open.
    let methods = unsafe { file.as_ref().and_then(|file| file.pMethods.as_ref()) };
    match methods {
        Some(methods) => Ok((file, *methods)),
        None => Err(no_method("a descriptor")),
    }
}

fn no_method(what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("SQLite's file has no {what} for the database"),
    )
}

/// Size of the database file in bytes, through SQLite's own descriptor.
pub(super) fn file_size(connection: &Connection) -> Result<u64> {
    let (file, methods) = database_file(connection)?;
    let size_of = methods.xFileSize.ok_or_else(|| no_method("xFileSize"))?;
    let mut size: ffi::sqlite3_int64 = 0;
    // SAFETY: `file` belongs to `connection`, which is borrowed; the method writes one integer.
    let code = unsafe { size_of(file, &mut size) };
    check(connection, code)?;
    Ok(u64::try_from(size).unwrap_or(0))
}

/// Fills `out` from the database file at `offset`, through SQLite's own descriptor; false where the
/// file is shorter (the missing bytes are zeros).
pub(super) fn read_file(connection: &Connection, out: &mut [u8], offset: u64) -> Result<bool> {
    let (file, methods) = database_file(connection)?;
    let read = methods.xRead.ok_or_else(|| no_method("xRead"))?;
    let (Ok(length), Ok(offset)) = (c_int::try_from(out.len()), i64::try_from(offset)) else {
        return Ok(false);
    };
    // SAFETY: `file` belongs to `connection`, which is borrowed; the method writes at most `length`
    // bytes, the length of `out`.
    let code = unsafe { read(file, out.as_mut_ptr().cast(), length, offset) };
    if code == ffi::SQLITE_IOERR_SHORT_READ {
        return Ok(false);
    }
    check(connection, code)?;
    Ok(true)
}

/// Whether the file that `connection` has open no longer bears its name.
pub(super) fn has_moved(connection: &Connection) -> Result<bool> {
    let mut moved: c_int = 0;
    // SAFETY: the option writes one int.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            MAIN.as_ptr(),
            ffi::SQLITE_FCNTL_HAS_MOVED,
            (&raw mut moved).cast(),
        )
    };
    check(connection, code)?;
    Ok(moved != 0)
}

/// Runs a passive checkpoint: frames in the WAL, and how many of them are in the database now. Both are
/// -1 where there is no WAL.
pub(super) fn checkpoint_passive(connection: &Connection) -> Result<(i32, i32)> {
    let (mut log, mut done): (c_int, c_int) = (-1, -1);
    // SAFETY: both integers outlive the call.
    let code = unsafe {
        ffi::sqlite3_wal_checkpoint_v2(
            connection.handle(),
            MAIN.as_ptr(),
            ffi::SQLITE_CHECKPOINT_PASSIVE,
            &mut log,
            &mut done,
        )
    };
    check(connection, code)?;
    Ok((log, done))
}

/// Turns a result code into an error with the connection's own message.
fn check(connection: &Connection, code: c_int) -> Result<()> {
    if code == ffi::SQLITE_OK {
        return Ok(());
    }
    // SAFETY: the handle is open; the message is copied before any other call.
    let message = unsafe {
        let text = ffi::sqlite3_errmsg(connection.handle());
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    Err(sqlite_error(&rusqlite::Error::SqliteFailure(
        ffi::Error::new(code),
        message,
    )))
}

/// Prepares a statement that is used many times.
fn prepare(connection: &Connection, sql: &CStr) -> Result<NonNull<ffi::sqlite3_stmt>> {
    let mut statement: *mut ffi::sqlite3_stmt = ptr::null_mut();
    // SAFETY: the handle is open, the text ends in a zero byte; SQLite sets `statement`.
    let code = unsafe {
        ffi::sqlite3_prepare_v3(
            connection.handle(),
            sql.as_ptr(),
            -1,
            ffi::SQLITE_PREPARE_PERSISTENT as _,
            &mut statement,
            ptr::null_mut(),
        )
    };
    check(connection, code)?;
    NonNull::new(statement).ok_or_else(|| no_method("statement"))
}

/// A prepared read of one page by number, kept because preparing costs more than reading.
///
/// A statement that outlives its connection's drop only keeps SQLite from closing it: SQLite's
/// `sqlite3_close` refuses while statements exist.
#[derive(Debug)]
pub(super) struct PageQuery(NonNull<ffi::sqlite3_stmt>);

// SAFETY: the connection is opened with SQLITE_OPEN_NOMUTEX, so that it and its statements may be used
// by any thread, one at a time; `PageQuery` is kept beside its connection, which is Send likewise, and
// all its methods take `&mut self` and the connection.
unsafe impl Send for PageQuery {}

impl PageQuery {
    /// Prepares the read; SQLite parses the schema for it, which then stays in memory.
    pub(super) fn prepare(connection: &Connection) -> Result<Self> {
        const SQL: &CStr = c"SELECT data FROM sqlite_dbpage WHERE pgno = ?1";
        prepare(connection, SQL).map(Self)
    }

    /// Replaces `out` by the content of page `number`; false where the database ends before it.
    pub(super) fn read(
        &mut self,
        connection: &Connection,
        number: u32,
        out: &mut Vec<u8>,
    ) -> Result<bool> {
        out.clear();
        let statement = self.0.as_ptr();
        // SAFETY: the statement is prepared and not finalized; it has one parameter. The blob is copied
        // before the statement is stepped or reset.
        let code = unsafe {
            ffi::sqlite3_bind_int64(statement, 1, i64::from(number));
            let code = ffi::sqlite3_step(statement);
            if code == ffi::SQLITE_ROW {
                let data = ffi::sqlite3_column_blob(statement, 0).cast::<u8>();
                let length = usize::try_from(ffi::sqlite3_column_bytes(statement, 0)).unwrap_or(0);
                if !data.is_null() {
                    out.extend_from_slice(std::slice::from_raw_parts(data, length));
                }
            }
            code
        };
        let outcome = match code {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            code => check(connection, code).map(|()| false),
        };
        // SAFETY: as above. Its result repeats that of the step.
        unsafe { ffi::sqlite3_reset(statement) };
        outcome
    }
}

impl Drop for PageQuery {
    fn drop(&mut self) {
        // SAFETY: finalized only here, once.
        unsafe { ffi::sqlite3_finalize(self.0.as_ptr()) };
    }
}

/// A prepared write of one page by number, for the same reason.
#[derive(Debug)]
pub(super) struct PageWrite(NonNull<ffi::sqlite3_stmt>);

// SAFETY: as for `PageQuery`.
unsafe impl Send for PageWrite {}

impl PageWrite {
    /// Prepares the write; SQLite parses the schema for it.
    pub(super) fn prepare(connection: &Connection) -> Result<Self> {
        const SQL: &CStr = c"INSERT INTO sqlite_dbpage(pgno, data) VALUES(?1, ?2)";
        prepare(connection, SQL).map(Self)
    }

    /// Makes `data` the content of page `number`; without data, ends the database before it when the transaction
    /// commits, if no page is written any more.
    pub(super) fn write(
        &mut self,
        connection: &Connection,
        number: u32,
        data: Option<&[u8]>,
    ) -> Result<()> {
        let statement = self.0.as_ptr();
        let (start, length) = data.map_or((ptr::null(), 0), |data| (data.as_ptr(), data.len()));
        let length = c_int::try_from(length)
            .map_err(|error| Error::new(ErrorKind::Internal, "a page of 2 GiB").because(error))?;
        // SAFETY: the statement is prepared and not finalized; it has two parameters. SQLite reads the blob
        // until the binding is cleared below, while `data` is borrowed; a null pointer binds NULL.
        let code = unsafe {
            ffi::sqlite3_bind_int64(statement, 1, i64::from(number));
            ffi::sqlite3_bind_blob(
                statement,
                2,
                start.cast::<c_void>(),
                length,
                ffi::SQLITE_STATIC(),
            );
            ffi::sqlite3_step(statement)
        };
        let outcome = match code {
            ffi::SQLITE_DONE => Ok(()),
            code => check(connection, code),
        };
        // SAFETY: as above. The result of the reset repeats that of the step.
        unsafe {
            ffi::sqlite3_reset(statement);
            ffi::sqlite3_clear_bindings(statement);
        }
        outcome
    }
}

impl Drop for PageWrite {
    fn drop(&mut self) {
        // SAFETY: finalized only here, once.
        unsafe { ffi::sqlite3_finalize(self.0.as_ptr()) };
    }
}

/// A commit of `connection` never moves pages by itself. SQLite would, where the state that it cached at the
/// transaction's beginning was in full auto-vacuum mode and the pages written have a free list.
pub(super) fn never_vacuum_at_commit(connection: &Connection) -> Result<()> {
    unsafe extern "C" fn no_page(
        _: *mut c_void,
        _: *const c_char,
        _: c_uint,
        _: c_uint,
        _: c_uint,
    ) -> c_uint {
        0
    }
    // SAFETY: the handle is open; the callback has no state and may be called on any thread.
    let code = unsafe {
        ffi::sqlite3_autovacuum_pages(connection.handle(), Some(no_page), ptr::null_mut(), None)
    };
    check(connection, code)
}

/// Locks the database file so that nobody else can open it: SQLite gives them "busy". Whoever has it open
/// stays. Ends with the connection, which must not have opened the WAL.
///
/// Errors: `Busy` where somebody is just opening it.
pub(super) fn keep_others_out(connection: &Connection) -> Result<()> {
    let (file, methods) = database_file(connection)?;
    let lock = methods.xLock.ok_or_else(|| no_method("xLock"))?;
    for level in [
        ffi::SQLITE_LOCK_SHARED,
        ffi::SQLITE_LOCK_RESERVED,
        ffi::SQLITE_LOCK_EXCLUSIVE,
    ] {
        // SAFETY: `file` belongs to `connection`, which is borrowed; the levels come in the order that the
        // method wants. The last one fails where others have the file open, and then leaves the pending lock.
        unsafe { lock(file, level) };
    }
    let mut held: c_int = 0;
    // SAFETY: the option writes one int.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            MAIN.as_ptr(),
            ffi::SQLITE_FCNTL_LOCKSTATE,
            (&raw mut held).cast(),
        )
    };
    check(connection, code)?;
    if held >= ffi::SQLITE_LOCK_PENDING {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Busy, "somebody is opening it"))
}
