//! The write-ahead log as SQLite writes it: bytes in, verified frames out.
//!
//! # Overview
//!
//! [`scan`] reads a `-wal` file from a [`WalCursor`] to the exact frame at which a read transaction of
//! ours stands ([`WalEnd`]) and verifies every salt and the running checksum on the way. [`wake`]
//! says when a writer is active. Nothing here knows SQLite's library.
//!
//! # Invariants
//!
//! * Nothing behind the given end is read: it may be uncommitted, rolled back, or about to be
//!   rewritten in place with the same salts.
//! * A [`WalCursor`] is only made where the bytes were verified: by a scan that came to its end, by the
//!   WAL's own checked header, or from the snapshot of a read transaction.
//!
//! Source of all numbers: SQLite file format, section 4, and "WAL-mode File Format".

mod checksum;
mod cursor;
mod frame;
mod header;
mod index;
mod scan;
pub mod wake;

#[cfg(test)]
mod tests;

pub use cursor::{Continuation, WalCursor, WalEnd};
pub use frame::{FRAME_HEADER_BYTES, FrameHeader, frame_at, frame_offset};
pub use header::{HeaderError, WAL_HEADER_BYTES, WalHeader};
pub use index::{IndexHeader, IndexHeaderError};
pub use scan::{CHUNK_BYTES, EarlyEnd, Frame, ScanError, scan, scan_sealed};

/// The two random words that tell one generation of a WAL from the next.
pub type Salt = [u32; 2];

/// The WAL's running checksum.
pub type RunningSum = [u32; 2];

/// Reads exactly `out`, or says how many bytes there were.
fn read_full_at(file: &std::fs::File, out: &mut [u8], offset: u64) -> std::io::Result<usize> {
    use std::os::unix::fs::FileExt as _;
    let mut filled = 0;
    while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The big-endian word at `offset`; 0 where the slice is too short, which callers exclude by length.
fn word(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..offset + 4)
        .and_then(|word| word.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}
