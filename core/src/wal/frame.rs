//! One frame: a page and where it belongs.

use std::fs::File;
use std::io;

use super::header::WAL_HEADER_BYTES;
use super::{RunningSum, Salt, read_full_at, word};
use crate::types::{PageCount, PageNumber, PageSize};

/// Size of a frame's header, in bytes; the page follows.
pub const FRAME_HEADER_BYTES: usize = 24;

/// The header of one frame, as it stands in the file: nothing is verified yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The page; none if the frame names page 0, which no database has.
    pub page: Option<PageNumber>,
    /// Size of the database after the commit that this frame ends.
    pub commit: Option<PageCount>,
    /// The generation it was written in.
    pub salt: Salt,
    /// The running checksum up to and with this frame.
    pub checksum: RunningSum,
}

impl FrameHeader {
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let commit = word(bytes, 4);
        Self {
            page: PageNumber::new(word(bytes, 0)),
            commit: (commit != 0).then_some(PageCount(commit)),
            salt: [word(bytes, 8), word(bytes, 12)],
            checksum: [word(bytes, 16), word(bytes, 20)],
        }
    }
}

/// Size of a frame in bytes.
pub(super) const fn frame_bytes(page_size: PageSize) -> usize {
    FRAME_HEADER_BYTES + page_size.bytes()
}

/// Offset in the file, in bytes, at which `count` frames end; also where frame `count + 1` begins.
pub fn frame_offset(page_size: PageSize, count: u32) -> u64 {
    WAL_HEADER_BYTES as u64 + u64::from(count) * frame_bytes(page_size) as u64
}

/// The header of frame `number` (counted from 1), for proving a saved cursor; nothing where the file
/// is too short or `number` is 0.
pub fn frame_at(wal: &File, page_size: PageSize, number: u32) -> io::Result<Option<FrameHeader>> {
    let Some(before) = number.checked_sub(1) else {
        return Ok(None);
    };
    let mut bytes = [0; FRAME_HEADER_BYTES];
    let found = read_full_at(wal, &mut bytes, frame_offset(page_size, before))?;
    Ok((found == bytes.len()).then(|| FrameHeader::decode(&bytes)))
}
