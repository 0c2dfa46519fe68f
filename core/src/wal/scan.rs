//! Reading frames: from a cursor to the exact end that a read transaction sees, each one verified.

use std::fs::File;
use std::io;

use super::checksum::running_sum;
use super::cursor::{Continuation, WalCursor, WalEnd};
use super::frame::{FRAME_HEADER_BYTES, FrameHeader, frame_at, frame_bytes};
use super::header::{HeaderError, WalHeader};
use super::{RunningSum, Salt, read_full_at};
use crate::error::{Error, ErrorKind};
use crate::types::{PageCount, PageNumber};

/// How much is read at once, in bytes: it stays in the cache between the read, the checksum and the
/// receiver, and twice as much is not faster.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// One verified frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its number in the WAL, counted from 1.
    pub number: u32,
    /// The page.
    pub page: PageNumber,
    /// Size of the database after the commit that this frame ends.
    pub commit: Option<PageCount>,
    /// The page's content.
    pub data: &'a [u8],
}

/// Why the frames before a committed one cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum EarlyEnd {
    #[error("the file ends there")]
    EndOfFile,
    #[error("its salts are {found:08x?}, expected {expected:08x?}")]
    Salt { found: Salt, expected: Salt },
    #[error("its checksum is {found:08x?}, expected {expected:08x?}")]
    Checksum {
        found: RunningSum,
        expected: RunningSum,
    },
    #[error("it names page 0")]
    PageZero,
}

/// Why a scan did not come to its end. The cursor that it began with still stands.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ScanError {
    #[error("cannot read the WAL: {0}")]
    Io(#[from] io::Error),
    /// A frame before the end is not what SQLite's format asks for, although readers see the commits
    /// behind it: older SQLites leave frames with zero salts in a live WAL (failure catalogue, W14). The
    /// frames before `at` were handed out; only a rebase gets past it.
    #[error("frame {at} of {frames} in the WAL cannot be followed: {reason}")]
    EndsEarly {
        at: u32,
        frames: u32,
        reason: EarlyEnd,
    },
    /// The frames are right one by one, but do not end in the snapshot's checksum.
    #[error("the WAL has checksum {found:08x?} at frame {at}, but the snapshot {expected:08x?}")]
    Mismatch {
        at: u32,
        found: RunningSum,
        expected: RunningSum,
    },
    /// The end does not continue the cursor; ask [`WalCursor::continuation`] before.
    #[error("the WAL up to frame {frames} does not continue frame {frame}")]
    NotContinuous { frame: u32, frames: u32 },
    /// The receiver's own error.
    #[error(transparent)]
    Sink(Error),
}

impl From<ScanError> for Error {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Sink(error) => error,
            ScanError::Io(error) => Error::io("-wal", error),
            ScanError::EndsEarly { .. }
            | ScanError::Mismatch { .. }
            | ScanError::NotContinuous { .. } => {
                Error::new(ErrorKind::Corrupt, error.to_string()).because(error)
            }
        }
    }
}

/// Reads `wal` from behind `from` to exactly `end.frames`, verifies every salt and checksum, and gives
/// each frame to `sink`, in order.
///
/// What `sink` got counts only once this has returned the new cursor: until then nothing proves that
/// the frames lead to the state that the read transaction sees. `buffer` is resized to
/// what one read needs, [`CHUNK_BYTES`] at most (more for large pages), and may be used again.
pub fn scan(
    wal: &File,
    from: &WalCursor,
    end: &WalEnd,
    buffer: &mut Vec<u8>,
    sink: &mut dyn FnMut(Frame<'_>) -> Result<(), Error>,
) -> Result<WalCursor, ScanError> {
    if from.continuation(end) != Continuation::Same {
        return Err(ScanError::NotContinuous {
            frame: from.frame(),
            frames: end.frames,
        });
    }
    let size = frame_bytes(from.page_size());
    let frames = end.frames.saturating_sub(from.frame()) as usize;
    let per_chunk = (CHUNK_BYTES / size).min(frames).max(1);
    buffer.resize(per_chunk * size, 0);
    let mut at = *from;
    while at.frame() < end.frames {
        let wanted = per_chunk.min((end.frames - at.frame()) as usize) * size;
        let chunk = buffer.get_mut(..wanted).unwrap_or_default();
        let found = read_full_at(wal, chunk, at.offset())?;
        let whole = chunk.get(..found - found % size).unwrap_or_default();
        for frame in whole.chunks_exact(size) {
            at = verify(at, end.salt, frame, sink).map_err(|unfit| match unfit {
                Unfit::Frame(reason) => ends_early(&at, end, reason),
                Unfit::Sink(error) => ScanError::Sink(error),
            })?;
        }
        if found < wanted {
            return Err(ends_early(&at, end, EarlyEnd::EndOfFile));
        }
    }
    if at.checksum() != end.checksum {
        return Err(ScanError::Mismatch {
            at: at.frame(),
            found: at.checksum(),
            expected: end.checksum,
        });
    }
    Ok(at)
}

/// Reads what the generation before the one in `wal` holds behind `from`, and gives each frame to `sink`. `end` is
/// what a read transaction sees of the new one. Nothing if it is not certain that the old one ended where its
/// frames end; then what `sink` got counts for nothing.
///
/// The salts must say that the WAL was restarted once, the cursor's own frame must still stand or one that follows
/// it, and the slot behind the last frame of the old generation must hold a frame of a third, earlier one: then the
/// old one never wrote there. A slot beyond the file's end proves nothing (the file may have been cut), nor does one
/// that a writer overwrites meanwhile, nor one with zero salts, as older SQLites leave in the middle of a
/// commit (W14). Frames behind the last commit may be handed out too.
///
/// That holds within one boot. After a power cut the old generation may have ended anywhere before the cursor, and
/// have gone on from there, while later frames stand where they were.
pub fn scan_sealed(
    wal: &File,
    from: &WalCursor,
    end: &WalEnd,
    sink: &mut dyn FnMut(Frame<'_>) -> Result<(), Error>,
) -> Result<Option<WalCursor>, ScanError> {
    let once = from.continuation(end) == (Continuation::Restarted { once: true });
    if !once || end.frames > from.frame() || end.big_endian != from.big_endian() {
        return Ok(None);
    }
    match WalHeader::read(wal) {
        Ok(header) if header.salt == end.salt && header.page_size == from.page_size() => {}
        Err(HeaderError::Io(error)) => return Err(error.into()),
        Ok(_) | Err(_) => return Ok(None),
    }
    let own_is_gone = end.frames == from.frame();
    if !own_is_gone {
        let own = frame_at(wal, from.page_size(), from.frame())?;
        let stands = |own: FrameHeader| (own.salt, own.checksum) == (from.salt(), from.checksum());
        if !own.is_some_and(stands) {
            return Ok(None);
        }
    }
    let mut frame = vec![0; frame_bytes(from.page_size())];
    let mut at = *from;
    loop {
        if read_full_at(wal, &mut frame, at.offset())? < frame.len() {
            return Ok(None);
        }
        let salt = FrameHeader::decode(&frame).salt;
        if salt != from.salt() {
            let continued = !own_is_gone || at != *from;
            return Ok((continued && is_earlier(salt, from.salt())).then_some(at));
        }
        match verify(at, from.salt(), &frame, sink) {
            Ok(next) => at = next,
            Err(Unfit::Sink(error)) => return Err(ScanError::Sink(error)),
            Err(Unfit::Frame(_)) => return Ok(None),
        }
    }
}

/// Whether a generation with the salts `other` came before the one with `salt`: SQLite adds 1 to the first at
/// each restart.
fn is_earlier(other: Salt, salt: Salt) -> bool {
    let behind = salt[0].wrapping_sub(other[0]);
    other != [0, 0] && behind != 0 && behind < 1 << 31
}

/// Why a frame is not taken.
enum Unfit {
    Frame(EarlyEnd),
    Sink(Error),
}

/// Checks the frame behind `before`, which must be of the generation `salt`, and hands it out.
fn verify(
    before: WalCursor,
    salt: Salt,
    bytes: &[u8],
    sink: &mut dyn FnMut(Frame<'_>) -> Result<(), Error>,
) -> Result<WalCursor, Unfit> {
    let header = FrameHeader::decode(bytes);
    if header.salt != salt {
        return Err(Unfit::Frame(EarlyEnd::Salt {
            found: header.salt,
            expected: salt,
        }));
    }
    let (head, data) = bytes
        .split_at_checked(FRAME_HEADER_BYTES)
        .unwrap_or_default();
    let head = head.get(..8).unwrap_or_default();
    let sum = running_sum(before.big_endian(), head, before.checksum());
    let sum = running_sum(before.big_endian(), data, sum);
    if header.checksum != sum {
        return Err(Unfit::Frame(EarlyEnd::Checksum {
            found: header.checksum,
            expected: sum,
        }));
    }
    let Some(page) = header.page else {
        return Err(Unfit::Frame(EarlyEnd::PageZero));
    };
    let number = before.frame() + 1;
    sink(Frame {
        number,
        page,
        commit: header.commit,
        data,
    })
    .map_err(Unfit::Sink)?;
    Ok(before.after(number, sum))
}

fn ends_early(before: &WalCursor, end: &WalEnd, reason: EarlyEnd) -> ScanError {
    ScanError::EndsEarly {
        at: before.frame() + 1,
        frames: end.frames,
        reason,
    }
}
