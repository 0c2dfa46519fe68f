//! The 32 bytes at the start of a WAL.

use std::fs::File;
use std::io;

use super::checksum::running_sum;
use super::{RunningSum, Salt, read_full_at, word};
use crate::error::{Error, ErrorKind};
use crate::types::PageSize;

/// Size of the WAL's header, in bytes.
pub const WAL_HEADER_BYTES: usize = 32;

/// Magic number of a WAL whose checksums read little-endian words; the low bit set means big-endian.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// A WAL header whose checksum is right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalHeader {
    /// Whether checksums read words big-endian.
    pub big_endian: bool,
    /// Size of the pages in the frames.
    pub page_size: PageSize,
    /// How often this WAL was started again.
    pub sequence: u32,
    /// The generation.
    pub salt: Salt,
    /// Checksum of the header, with which the frames go on.
    pub checksum: RunningSum,
}

/// What is wrong with a WAL's header.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum HeaderError {
    #[error("the WAL has {0} bytes, too few for a header")]
    Short(usize),
    #[error("the WAL's magic number is {0:#010x}")]
    Magic(u32),
    #[error("the WAL's format version is {0}")]
    Version(u32),
    #[error("the WAL's page size is {0}")]
    PageSize(u32),
    #[error("the WAL's header has checksum {found:08x?}, expected {expected:08x?}")]
    Checksum {
        found: RunningSum,
        expected: RunningSum,
    },
    #[error("cannot read the WAL's header: {0}")]
    Io(#[from] io::Error),
}

impl From<HeaderError> for Error {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Io(error) => Self::io("-wal", error),
            HeaderError::Version(_) => {
                Self::new(ErrorKind::Unsupported, error.to_string()).because(error)
            }
            HeaderError::Short(_)
            | HeaderError::Magic(_)
            | HeaderError::PageSize(_)
            | HeaderError::Checksum { .. } => {
                Self::new(ErrorKind::Corrupt, error.to_string()).because(error)
            }
        }
    }
}

impl WalHeader {
    /// Reads and checks the header of `wal`.
    pub fn read(wal: &File) -> Result<Self, HeaderError> {
        let mut bytes = [0; WAL_HEADER_BYTES];
        match read_full_at(wal, &mut bytes, 0)? {
            WAL_HEADER_BYTES => Self::decode(&bytes),
            short => Err(HeaderError::Short(short)),
        }
    }

    /// Checks a header. A checksum of zeros is as wrong as any other (failure catalogue, W4).
    pub fn decode(bytes: &[u8; WAL_HEADER_BYTES]) -> Result<Self, HeaderError> {
        let magic = word(bytes, 0);
        if magic & !1 != MAGIC {
            return Err(HeaderError::Magic(magic));
        }
        let big_endian = magic & 1 == 1;
        let found = [word(bytes, 24), word(bytes, 28)];
        let expected = running_sum(big_endian, &bytes[..24], [0, 0]);
        if found != expected {
            return Err(HeaderError::Checksum { found, expected });
        }
        let version = word(bytes, 4);
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let stored = word(bytes, 8);
        Ok(Self {
            big_endian,
            page_size: PageSize::new(stored).ok_or(HeaderError::PageSize(stored))?,
            sequence: word(bytes, 12),
            salt: [word(bytes, 16), word(bytes, 20)],
            checksum: found,
        })
    }
}
