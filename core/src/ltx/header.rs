//! The first 100 bytes of a file.

use bytes::{Buf, BufMut};

use super::DecodeError;
use crate::types::{Checksum, Digest, PageCount, PageSize, StreamId, Timestamp, Txid, TxidRange};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 100;

const MAGIC: u32 = 0x4c54_5831;
/// Version 1: the whole page block is one LZ4 frame.
const FLAG_VERSION_1_LZ4: u32 = 1;
const FLAG_NO_CHECKSUM: u32 = 2;
const MARK_REBASE: u32 = 1 << 31;
const MARK_BASE: u32 = 1 << 30;
const SPAN_MAX: u32 = MARK_BASE - 1;

/// Whether a file says which database states it leads from and to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracking {
    /// It holds the rolling checksums before and after; the one after is in the trailer.
    Tracked {
        /// The checksum of the state before; nothing exactly for a snapshot.
        pre_apply: Option<Checksum>,
    },
    /// It holds no rolling checksum, as all files of Litestream 0.5.
    Untracked,
}

/// The part of the WAL that the pages come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalSpan {
    /// Where its frames start in the WAL, in bytes; at least 1.
    pub offset: u64,
    /// Bytes of WAL covered.
    pub size: u64,
    /// Both salts of the WAL header.
    pub salt: [u32; 2],
}

/// How a file relates to the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mark {
    /// The pages that its transactions changed.
    #[default]
    None,
    /// The pages that differ from the state before, as the way between was not seen (invariant 6).
    Rebase,
    /// A rebase that holds every page, so that a restore may begin here.
    Base,
}

/// What the first 100 bytes say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// Page size of the database.
    pub page_size: PageSize,
    /// Size of the database after the file, in pages.
    pub commit: PageCount,
    /// The transactions covered. From TXID 1: a snapshot, which holds every page.
    pub range: TxidRange,
    /// When the last transaction was committed; of a snapshot, when it was made.
    pub timestamp: Timestamp,
    /// Whether the file holds rolling checksums.
    pub tracking: Tracking,
    /// Where in the WAL the pages come from.
    pub wal: Option<WalSpan>,
    /// [`StreamId::to_node_id`], or what another program wrote; 0 for Litestream.
    pub node: u64,
    /// The digest of the database after the file. Only files of a stream ([`Header::stream`]) have one.
    pub digest: Option<Digest>,
    /// How the file relates to the one before. Only in files of a stream.
    pub mark: Mark,
    /// Milliseconds from the first to the last commit covered, at most 2^30 - 1; more is written as that.
    /// Only in files of a stream.
    pub span_ms: u32,
}

impl Header {
    /// The stream that the file belongs to, or nothing where another program wrote it.
    pub fn stream(&self) -> Option<StreamId> {
        StreamId::from_node_id(self.node)
    }

    /// Whether a restore may begin with this file: it holds every page.
    pub fn holds_every_page(&self) -> bool {
        self.range.is_snapshot() || self.mark == Mark::Base
    }

    /// Whether `other` could stand before the same pages: only who wrote the file and what it follows (node,
    /// first TXID, pre-apply checksum and mark) may differ.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let tracked = |header: &Self| matches!(header.tracking, Tracking::Tracked { .. });
        tracked(self) == tracked(other)
            && self.range.max() == other.range.max()
            && self.holds_every_page() == other.holds_every_page()
            && Self {
                range: other.range,
                tracking: other.tracking,
                node: other.node,
                mark: other.mark,
                ..self.clone()
            } == *other
    }

    /// How many pages a file has that holds every page: all but the lock page.
    pub(super) fn every_page(&self) -> u64 {
        let lock = self.commit.holds(self.page_size.lock_page());
        u64::from(self.commit.0) - u64::from(lock)
    }

    /// The bytes. Digest, mark and span of a file without a stream are left out; [`Encoder::finish`]
    /// refuses headers that break a rule.
    ///
    /// [`Encoder::finish`]: super::Encoder::finish
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = &mut bytes[..];
        at.put_u32(MAGIC);
        let (flags, pre_apply) = match self.tracking {
            Tracking::Tracked { pre_apply } => (0, pre_apply.map_or(0, Checksum::get)),
            Tracking::Untracked => (FLAG_NO_CHECKSUM, 0),
        };
        at.put_u32(flags);
        at.put_u32(self.page_size.get());
        at.put_u32(self.commit.0);
        at.put_u64(self.range.min().get());
        at.put_u64(self.range.max().get());
        at.put_i64(self.timestamp.millis());
        at.put_u64(pre_apply);
        let wal = self.wal.unwrap_or(WalSpan {
            offset: 0,
            size: 0,
            salt: [0; 2],
        });
        at.put_u64(wal.offset);
        at.put_u64(wal.size);
        wal.salt.into_iter().for_each(|salt| at.put_u32(salt));
        at.put_u64(self.node);
        if self.stream().is_some() {
            let mark = match self.mark {
                Mark::None => 0,
                Mark::Rebase => MARK_REBASE,
                Mark::Base => MARK_REBASE | MARK_BASE,
            };
            at.put_u128(self.digest.map_or(0, Digest::get));
            at.put_u32(mark | self.span_ms.min(SPAN_MAX));
        }
        bytes
    }

    /// The rule that this header breaks, so that it must not be written.
    pub(super) fn fault(&self) -> Option<&'static str> {
        match (self.tracking, self.range.is_snapshot()) {
            (Tracking::Tracked { pre_apply: Some(_) }, true) => {
                return Some("a snapshot has no pre-apply checksum");
            }
            (Tracking::Tracked { pre_apply: None }, false) => {
                return Some("a tracked file that is no snapshot needs its pre-apply checksum");
            }
            // Litestream's encoder contradicts itself there, and its restore breaks.
            (Tracking::Untracked, _) if self.commit.0 == 0 => {
                return Some("a database without pages needs checksums");
            }
            _ => {}
        }
        let signed = |value: u64| value <= i64::MAX as u64;
        match self.wal {
            Some(wal) if wal.offset == 0 || !signed(wal.offset) || !signed(wal.size) => {
                return Some("a WAL span starts at byte 1 or later and has a signed length");
            }
            _ => {}
        }
        let ours = self.digest.is_some() || self.mark != Mark::None || self.span_ms != 0;
        (ours && self.stream().is_none()).then_some("digest, mark and span need a stream's node id")
    }

    /// Reads a header from the first 100 of `bytes`.
    ///
    /// # Errors
    ///
    /// Fewer bytes, another format or version, or a rule that a field breaks.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some(mut at) = bytes.get(..HEADER_BYTES) else {
            return Err(DecodeError::Truncated { offset: 0 });
        };
        let magic = at.get_u32();
        if magic != MAGIC {
            return Err(DecodeError::Magic { found: magic });
        }
        let flags = at.get_u32();
        if flags & FLAG_VERSION_1_LZ4 != 0 {
            return Err(DecodeError::Version { version: 1 });
        }
        if flags & !FLAG_NO_CHECKSUM != 0 {
            return Err(DecodeError::HeaderFlags { found: flags });
        }
        let size = at.get_u32();
        let page_size = PageSize::new(size).ok_or(DecodeError::PageSize { found: size })?;
        let commit = PageCount(at.get_u32());
        let range = txids(at.get_u64(), at.get_u64())?;
        let timestamp = Timestamp::from_millis(at.get_i64());
        let tracking = tracking(flags, range, at.get_u64())?;
        let (offset, size) = (at.get_i64(), at.get_i64());
        let wal = wal_span(offset, size, [at.get_u32(), at.get_u32()])?;
        let node = at.get_u64();
        let mut header = Self {
            page_size,
            commit,
            range,
            timestamp,
            tracking,
            wal,
            node,
            digest: None,
            mark: Mark::None,
            span_ms: 0,
        };
        // Another program may give these bytes another meaning one day.
        if header.stream().is_some() {
            let digest = at.get_u128();
            header.digest = (digest != 0).then_some(Digest::new(digest));
            let marks = at.get_u32();
            header.mark = mark(marks)?;
            header.span_ms = marks & SPAN_MAX;
        }
        Ok(header)
    }
}

fn txids(min: u64, max: u64) -> Result<TxidRange, DecodeError> {
    Txid::new(min)
        .zip(Txid::new(max))
        .and_then(|(min, max)| TxidRange::new(min, max))
        .ok_or(DecodeError::Txids { min, max })
}

fn tracking(flags: u32, range: TxidRange, stored: u64) -> Result<Tracking, DecodeError> {
    let fault = |rule| DecodeError::PreApply {
        found: stored,
        rule,
    };
    if flags & FLAG_NO_CHECKSUM != 0 {
        return match stored {
            0 => Ok(Tracking::Untracked),
            _ => Err(fault("tracks no checksums")),
        };
    }
    let pre_apply = Checksum::new(stored);
    match (range.is_snapshot(), pre_apply) {
        (true, None) if stored == 0 => Ok(Tracking::Tracked { pre_apply }),
        (true, _) => Err(fault("is a snapshot")),
        (false, Some(_)) => Ok(Tracking::Tracked { pre_apply }),
        (false, None) => Err(fault("tracks checksums")),
    }
}

fn wal_span(offset: i64, size: i64, salt: [u32; 2]) -> Result<Option<WalSpan>, DecodeError> {
    let fault = DecodeError::WalSpan { offset, size };
    match (u64::try_from(offset), u64::try_from(size)) {
        (Ok(0), Ok(0)) if salt == [0; 2] => Ok(None),
        (Ok(offset), Ok(size)) if offset != 0 => Ok(Some(WalSpan { offset, size, salt })),
        _ => Err(fault),
    }
}

fn mark(bits: u32) -> Result<Mark, DecodeError> {
    match (bits & MARK_REBASE != 0, bits & MARK_BASE != 0) {
        (false, false) => Ok(Mark::None),
        (true, false) => Ok(Mark::Rebase),
        (true, true) => Ok(Mark::Base),
        (false, true) => Err(DecodeError::Mark { found: bits }),
    }
}
