//! What one read transaction sees.

use std::fmt;

use super::connection::Conn;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{PageCount, PageSize};
use crate::wal::{WalCursor, WalEnd};

/// The state that one read transaction sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// Size of the pages.
    pub page_size: PageSize,
    /// Size of the database.
    pub page_count: PageCount,
    /// Where the WAL ends for it. None: the WAL holds no committed frame and the database file is the
    /// state; no frame may be read and no checksum compared. After an older view of ours this also
    /// means that nothing was committed since: what our mark did not cover could not be copied back.
    pub wal: Option<WalEnd>,
    /// Whether the WAL may be started again while only this transaction is open: everything in it is
    /// copied back, and the transaction may stand on read mark 0. Before the older transaction ends,
    /// everything captured must then be spooled or stored. May be true without need, never false.
    pub restartable: bool,
}

impl View {
    /// The cursor of whoever has captured this state; none where there is no place in the WAL yet.
    pub fn cursor(&self) -> Option<WalCursor> {
        self.wal.map(|end| end.cursor(self.page_size))
    }
}

/// The version of a SQLite library, as its number: 3051003 is 3.51.3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct SqliteVersion(pub u32);

impl SqliteVersion {
    /// The first version without the WAL-reset bug: before it, a checkpoint that races a restart of the
    /// WAL can corrupt the database.
    pub const WAL_RESET_MENDED: Self = Self(3_051_003);
}

impl fmt::Display for SqliteVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = self;
        write!(
            f,
            "{}.{}.{}",
            number / 1_000_000,
            number / 1000 % 1000,
            number % 1000
        )
    }
}

/// The header of a database, as far as it is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DatabaseHeader {
    pub(super) page_size: PageSize,
    /// The number of pages that the header itself names, if it is to be believed.
    pub(super) page_count: Option<PageCount>,
    pub(super) wal_mode: bool,
    /// Who wrote page 1 last; none in files of very old libraries.
    pub(super) sqlite_version: Option<SqliteVersion>,
}

/// Bytes of a database's header, which page 1 begins with. Source: SQLite file format, section 1.3.
pub const DATABASE_HEADER_BYTES: usize = 100;

/// What the first bytes of a file say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HeaderKind {
    Database(DatabaseHeader),
    Foreign,
}

impl DatabaseHeader {
    pub(super) const BYTES: usize = DATABASE_HEADER_BYTES;
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";

    /// Source: SQLite file format, section 1.3.
    pub(super) fn decode(bytes: &[u8; Self::BYTES]) -> HeaderKind {
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let stored = u16::from_be_bytes([bytes[16], bytes[17]]);
        let Some(page_size) = PageSize::from_database_header(stored) else {
            return HeaderKind::Foreign;
        };
        if !bytes.starts_with(Self::MAGIC) {
            return HeaderKind::Foreign;
        }
        // The size counts only if whoever wrote it last knew of it: SQLite before 3.7 did not.
        let valid = word(28) != 0 && word(24) == word(92);
        HeaderKind::Database(Self {
            page_size,
            page_count: valid.then_some(PageCount(word(28))),
            wal_mode: bytes[18] == 2 && bytes[19] == 2,
            sqlite_version: (word(96) != 0).then(|| SqliteVersion(word(96))),
        })
    }
}

/// The header in the database file, which in WAL mode may be older than page 1.
///
/// # Errors
/// `Unsupported` for a file that is no SQLite database.
pub(super) fn file_header(conn: &Conn) -> Result<DatabaseHeader> {
    let Some(head) = conn.file_head::<{ DatabaseHeader::BYTES }>()? else {
        let problem = match conn.file_size()? {
            0 => "is empty: no SQLite database yet",
            _ => "is no SQLite database: too short for a header",
        };
        return Err(Error::new(ErrorKind::Unsupported, problem));
    };
    match DatabaseHeader::decode(&head) {
        HeaderKind::Database(header) => Ok(header),
        HeaderKind::Foreign => Err(Error::new(
            ErrorKind::Unsupported,
            "is no SQLite database, or an encrypted one",
        )),
    }
}

/// Size of the database where the file alone is the state.
///
/// The header's own count comes first: apps that set a chunk size have files longer than their
/// database.
pub(super) fn file_page_count(conn: &Conn, header: &DatabaseHeader) -> Result<PageCount> {
    if let Some(count) = header.page_count {
        return Ok(count);
    }
    let pages = conn.file_size()? / u64::from(header.page_size.get());
    u32::try_from(pages).map(PageCount).map_err(|error| {
        Error::new(
            ErrorKind::Corrupt,
            format!("has {pages} pages, more than SQLite knows"),
        )
        .because(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_print_and_compare_as_people_know_them() {
        let debian = SqliteVersion(3_040_001);
        assert_eq!(debian.to_string(), "3.40.1");
        assert!(debian < SqliteVersion::WAL_RESET_MENDED);
        assert_eq!(SqliteVersion::WAL_RESET_MENDED.to_string(), "3.51.3");
    }
}
