//! Places in a WAL that are known to be good.

use std::fs::File;
use std::io;

use serde::{Deserialize, Serialize};

use super::frame::{frame_at, frame_offset};
use super::header::{HeaderError, WalHeader};
use super::{RunningSum, Salt};
use crate::types::PageSize;

/// Where a read transaction stands in the WAL: the last committed frame that it sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalEnd {
    /// The generation.
    pub salt: Salt,
    /// Number of committed frames (mxFrame), at least 1.
    pub frames: u32,
    /// The running checksum at the last of them.
    pub checksum: RunningSum,
    /// Whether the WAL's checksums read words big-endian.
    pub big_endian: bool,
}

impl WalEnd {
    /// The cursor of whoever has everything up to here.
    pub fn cursor(&self, page_size: PageSize) -> WalCursor {
        WalCursor {
            salt: self.salt,
            frame: self.frames,
            checksum: self.checksum,
            page_size,
            big_endian: self.big_endian,
        }
    }
}

/// How many frames of which generation are captured. Only a scan, a read transaction's snapshot and
/// a checked WAL header make one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalCursor {
    salt: Salt,
    frame: u32,
    checksum: RunningSum,
    page_size: PageSize,
    big_endian: bool,
}

/// How what a read transaction sees relates to a cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Continuation {
    /// The same generation, at or behind the cursor: scan on from it.
    Same,
    /// Another generation. It continues the cursor at its frame 1 exactly if the old one was captured
    /// to its end, which the cursor alone cannot tell.
    Restarted {
        /// The salts say that the WAL was restarted exactly once since: SQLite adds 1 to the first salt
        /// at each restart. A WAL that was deleted and made anew has random salts.
        once: bool,
    },
    /// The same generation, but shorter than the cursor or with another page size or checksum: what was
    /// captured is no longer there.
    Lost,
}

impl WalCursor {
    /// The start of the generation in `wal`, by its own checked header.
    pub fn start(wal: &File) -> Result<Self, HeaderError> {
        Ok(WalHeader::read(wal)?.start())
    }

    /// A cursor that was saved earlier: it counts only once [`WalCursor::is_proven_by`] says so.
    pub fn from_saved(saved: crate::state::WalPlace, page_size: PageSize) -> Self {
        let crate::state::WalPlace {
            salt,
            frame,
            checksum,
            big_endian,
            boot: _,
        } = saved;
        Self {
            salt,
            frame,
            checksum,
            page_size,
            big_endian,
        }
    }

    pub(super) fn after(mut self, frame: u32, checksum: RunningSum) -> Self {
        self.frame = frame;
        self.checksum = checksum;
        self
    }

    /// The generation.
    pub fn salt(&self) -> Salt {
        self.salt
    }

    /// Number of the last captured frame; 0 at the start of a generation.
    pub fn frame(&self) -> u32 {
        self.frame
    }

    /// The running checksum there.
    pub fn checksum(&self) -> RunningSum {
        self.checksum
    }

    /// Size of the pages in the WAL.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Whether the WAL's checksums read words big-endian.
    pub fn big_endian(&self) -> bool {
        self.big_endian
    }

    /// Offset in the file, in bytes, behind the last captured frame.
    pub fn offset(&self) -> u64 {
        frame_offset(self.page_size, self.frame)
    }

    /// How `end` continues this cursor.
    pub fn continuation(&self, end: &WalEnd) -> Continuation {
        if end.salt != self.salt {
            let once = end.salt[0] == self.salt[0].wrapping_add(1);
            return Continuation::Restarted { once };
        }
        let at_cursor = end.frames == self.frame && end.checksum == self.checksum;
        if end.big_endian == self.big_endian && (at_cursor || end.frames > self.frame) {
            Continuation::Same
        } else {
            Continuation::Lost
        }
    }

    /// Whether `wal` holds what this cursor says: the generation, and a frame that ends with the
    /// cursor's running checksum, which covers everything before it.
    ///
    /// A header that is no longer right, or a file too short, proves nothing: `false`.
    pub fn is_proven_by(&self, wal: &File) -> io::Result<bool> {
        let header = match WalHeader::read(wal) {
            Ok(header) => header,
            Err(HeaderError::Io(error)) => return Err(error),
            Err(_) => return Ok(false),
        };
        let same = header.salt == self.salt
            && header.page_size == self.page_size
            && header.big_endian == self.big_endian;
        if !same || self.frame == 0 {
            return Ok(same && header.checksum == self.checksum);
        }
        let frame = frame_at(wal, self.page_size, self.frame)?;
        Ok(frame.is_some_and(|frame| frame.salt == self.salt && frame.checksum == self.checksum))
    }
}

impl WalHeader {
    /// The place before the first frame.
    pub fn start(&self) -> WalCursor {
        WalCursor {
            salt: self.salt,
            frame: 0,
            checksum: self.checksum,
            page_size: self.page_size,
            big_endian: self.big_endian,
        }
    }
}
