//! The header of the WAL-index: 48 bytes that say what is committed. It stands twice at the start of
//! `-shm`, and is what a snapshot of a read transaction consists of.

use super::checksum::running_sum;
use super::cursor::WalEnd;
use super::{RunningSum, Salt};
use crate::types::{PageCount, PageSize};

/// One checked WAL-index header. Two that are equal mean that nothing was committed in between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexHeader {
    /// Counts committed transactions, wrapping.
    pub change: u32,
    /// Whether the WAL's checksums read words big-endian.
    pub big_endian: bool,
    /// Page size; none before the first frame of a fresh WAL-index.
    pub page_size: Option<PageSize>,
    /// Committed frames (mxFrame).
    pub frames: u32,
    /// Size of the database after the last commit; 0 where the file decides.
    pub pages: PageCount,
    /// The running checksum at the last committed frame. Stale while `frames` is 0.
    pub checksum: RunningSum,
    /// The generation.
    pub salt: Salt,
}

/// Why 48 bytes are no WAL-index header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum IndexHeaderError {
    #[error("the WAL-index is not initialized")]
    Uninitialized,
    #[error("the WAL-index header is being written")]
    Torn,
}

impl IndexHeader {
    /// Size of one copy, in bytes.
    pub const BYTES: usize = 48;

    /// Decodes one copy. The fields are in this machine's byte order, but for the salts, which are the
    /// bytes of the WAL's header.
    pub fn decode(bytes: &[u8; Self::BYTES]) -> Result<Self, IndexHeaderError> {
        let native = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let big = |at: usize| native(at).to_ne_bytes();
        if bytes[12] == 0 {
            return Err(IndexHeaderError::Uninitialized);
        }
        let sum = running_sum(cfg!(target_endian = "big"), &bytes[..40], [0, 0]);
        if sum != [native(40), native(44)] {
            return Err(IndexHeaderError::Torn);
        }
        let stored = u32::from(u16::from_ne_bytes([bytes[14], bytes[15]]));
        Ok(Self {
            change: native(8),
            big_endian: bytes[13] != 0,
            page_size: PageSize::new((stored & 0xfe00) + ((stored & 1) << 16)),
            frames: native(16),
            pages: PageCount(native(20)),
            checksum: [native(24), native(28)],
            salt: [u32::from_be_bytes(big(32)), u32::from_be_bytes(big(36))],
        })
    }

    /// Where the WAL ends for a reader of this header; none if it holds no committed frame, so that
    /// the database file alone is the state.
    pub fn end(&self) -> Option<WalEnd> {
        (self.frames > 0).then_some(WalEnd {
            salt: self.salt,
            frames: self.frames,
            checksum: self.checksum,
            big_endian: self.big_endian,
        })
    }
}
