//! What can be wrong with an LTX file, and with a call to write one.

use std::io;

use crate::types::{Checksum, FileChecksum, PageCount, PageNumber, PageSize, TxidRange};
use crate::{Error, ErrorKind};

/// Why bytes are not an LTX file that walrust takes.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end within the file.
    #[error("the file ends within what begins at byte {offset}")]
    Truncated {
        /// Begin of what is cut off.
        offset: u64,
    },
    /// Other first bytes than `LTX1`.
    #[error("not an LTX file: it begins with {found:08x}")]
    Magic {
        /// The first four bytes.
        found: u32,
    },
    /// A file of an older library.
    #[error("LTX version {version} is not supported, only version 3")]
    Version {
        /// The version that the bytes look like.
        version: u8,
    },
    /// A flag of the header that version 3 does not know.
    #[error("header flags {found:08x} are unknown: damage, or a newer format")]
    HeaderFlags {
        /// All flags.
        found: u32,
    },
    /// No page size of SQLite.
    #[error("page size {found} is not a power of two from 512 to 65536")]
    PageSize {
        /// The field.
        found: u32,
    },
    /// A TXID of 0, or a reversed range.
    #[error("TXIDs {min} to {max} are no range")]
    Txids {
        /// The lower field.
        min: u64,
        /// The upper field.
        max: u64,
    },
    /// A pre-apply checksum where none may be, or none where one must be.
    #[error("pre-apply checksum {found:016x} does not fit a file that {rule}")]
    PreApply {
        /// The field.
        found: u64,
        /// What the rest of the header says.
        rule: &'static str,
    },
    /// WAL fields that contradict each other.
    #[error("WAL offset {offset} and size {size} contradict each other")]
    WalSpan {
        /// The field, signed.
        offset: i64,
        /// The field, signed.
        size: i64,
    },
    /// A base that is no rebase.
    #[error("marks {found:08x} name a base that is no rebase")]
    Mark {
        /// Bytes 96 to 99.
        found: u32,
    },
    /// The name of the file and its header differ.
    #[error("the header covers {found}, the name {expected}")]
    Name {
        /// What the name says.
        expected: TxidRange,
        /// What the header says.
        found: TxidRange,
    },
    /// A flag of a page that version 3 does not know.
    #[error(
        "page {page} at byte {offset}: flags {found:04x} are unknown: damage, or a newer format"
    )]
    PageFlags {
        /// The page's number field.
        page: u32,
        /// Where its frame begins.
        offset: u64,
        /// All flags.
        found: u16,
    },
    /// Page numbers that do not ascend.
    #[error("page {page} follows page {previous}")]
    PageOrder {
        /// The later one.
        page: PageNumber,
        /// The earlier one.
        previous: PageNumber,
    },
    /// A page beyond the size of the database.
    #[error("page {page} lies beyond the database of {commit} pages")]
    PageBeyondEnd {
        /// The page.
        page: PageNumber,
        /// The size.
        commit: PageCount,
    },
    /// The page of SQLite's lock byte, which is never stored.
    #[error("the lock page {page} is stored")]
    LockPage {
        /// The page.
        page: PageNumber,
    },
    /// Compressed data longer than a page can need.
    #[error("page {page}: {length} compressed bytes, at most {limit} are possible")]
    BlockLength {
        /// The page.
        page: PageNumber,
        /// The field.
        length: u64,
        /// The bound.
        limit: u64,
    },
    /// Compressed data that do not decode.
    #[error("page {page}: {cause}")]
    Block {
        /// The page.
        page: PageNumber,
        /// What LZ4 found.
        cause: lz4_flex::block::DecompressError,
    },
    /// Compressed data of less than a page.
    #[error("page {page}: {found} bytes instead of {expected}")]
    ShortPage {
        /// The page.
        page: PageNumber,
        /// Bytes decoded.
        found: usize,
        /// The page size.
        expected: PageSize,
    },
    /// An LZ4 frame of a page that is wrong or outside what the format allows.
    #[error("page {page}: LZ4 frame with {cause}")]
    Frame {
        /// The page.
        page: PageNumber,
        /// What is wrong.
        cause: &'static str,
    },
    /// The end of the pages within a section.
    #[error("the page block ends at byte {offset}, within a section")]
    EarlyEnd {
        /// Where.
        offset: u64,
    },
    /// Sections that were not given in the order of the file, each behind the other.
    #[error("a section begins at byte {found}, the one before ended at byte {expected}")]
    SectionOrder {
        /// End of the sections so far.
        expected: u64,
        /// Begin of the next one.
        found: u64,
    },
    /// A snapshot with gaps.
    #[error("{found} pages of {expected} in a file that must hold every page")]
    Incomplete {
        /// Pages in the file.
        found: u64,
        /// Pages of the database without the lock page.
        expected: u64,
    },
    /// Page number 0 with something behind it.
    #[error("the page block ends with flags {found:04x} instead of zeros")]
    Terminator {
        /// The flags.
        found: u16,
    },
    /// A page index that does not say where the pages lie, or not in the shortest form.
    #[error("the page index does not match the pages")]
    Index,
    /// A page index that cannot be read.
    #[error("page index, byte {offset}: {cause}")]
    IndexEntry {
        /// Offset within the index.
        offset: u64,
        /// What is wrong.
        cause: &'static str,
    },
    /// A wrong length of the index.
    #[error("the page index has {expected} bytes, its size field says {found}")]
    IndexSize {
        /// The field.
        found: u64,
        /// What it must be (or the most that the file has room for).
        expected: u64,
    },
    /// A post-apply checksum where none may be, or none where one must be.
    #[error("post-apply checksum {found:016x} does not fit a file that {rule}")]
    PostApply {
        /// The field.
        found: u64,
        /// What the header says.
        rule: &'static str,
    },
    /// The pages of a snapshot have another checksum than its trailer says.
    #[error("the pages' checksum is {found}, the trailer says {expected}")]
    DatabaseChecksum {
        /// Of the trailer.
        expected: Checksum,
        /// Of the pages.
        found: Checksum,
    },
    /// The file is damaged.
    #[error("file checksum {found}, the trailer says {expected:016x}")]
    FileChecksum {
        /// Of the trailer.
        expected: u64,
        /// Of the bytes.
        found: FileChecksum,
    },
    /// Bytes behind the trailer.
    #[error("bytes follow the trailer, which ends at byte {offset}")]
    TrailingBytes {
        /// The end of the trailer.
        offset: u64,
    },
    /// The source of the bytes.
    #[error(transparent)]
    Io(io::Error),
}

impl DecodeError {
    /// What an error of the source at `offset` means.
    pub(super) fn read(error: io::Error, offset: u64) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Truncated { offset }
        } else {
            Self::Io(error)
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Io(error) => io_error(error),
            DecodeError::Version { .. } => Self::new(ErrorKind::Unsupported, error.to_string())
                .hint("Litestream 0.5.0 and later write version 3")
                .because(error),
            _ => Self::new(ErrorKind::Corrupt, error.to_string()).because(error),
        }
    }
}

/// Why an LTX file was not written. All but `Io` are mistakes of the caller.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// Page numbers that do not ascend.
    #[error("page {page} follows page {previous}")]
    PageOrder {
        /// The later one.
        page: PageNumber,
        /// The earlier one.
        previous: PageNumber,
    },
    /// A page beyond the size of the database.
    #[error("page {page} lies beyond the database of {commit} pages")]
    PageBeyondEnd {
        /// The page.
        page: PageNumber,
        /// The size.
        commit: PageCount,
    },
    /// The page of SQLite's lock byte, which is never stored.
    #[error("page {page} is the lock page")]
    LockPage {
        /// The page.
        page: PageNumber,
    },
    /// A page of another size.
    #[error("page {page} has {found} bytes instead of {expected}")]
    PageLength {
        /// The page.
        page: PageNumber,
        /// Bytes given.
        found: usize,
        /// The page size.
        expected: PageSize,
    },
    /// A snapshot with gaps.
    #[error("{found} pages of {expected} in a file that must hold every page")]
    Incomplete {
        /// Pages given.
        found: u64,
        /// Pages of the database without the lock page.
        expected: u64,
    },
    /// A header that no file may have.
    #[error("LTX header: {rule}")]
    Header {
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// The pages of a snapshot have another checksum than the caller says.
    #[error("the pages' checksum is {found}, not {expected}")]
    DatabaseChecksum {
        /// As given.
        expected: Checksum,
        /// Of the pages.
        found: Checksum,
    },
    /// The output, or the file that the page index is spilled to.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<EncodeError> for Error {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::Io(error) => io_error(error),
            _ => Self::new(ErrorKind::Internal, error.to_string()).because(error),
        }
    }
}

/// An error of reader or writer: our own where one went through `std::io`, else by its kind; without
/// an object, which only the caller knows.
fn io_error(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(error) => {
            let kind = Error::io("", error.kind().into()).kind();
            Error::new(kind, error.to_string()).because(error)
        }
    }
}
