//! Looking at the WAL-index through one descriptor of `-shm`, without SQLite.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

use crate::error::{Error, ErrorKind, Result};
use crate::wal::{IndexHeader, IndexHeaderError, WalEnd};

/// The byte of `-shm` that stands for the WAL's write lock. Source: SQLite's wal.c, `UNIX_SHM_BASE`.
const WRITE_LOCK: u64 = 120;
/// Offset of nBackfill in the WAL-index: behind the two headers.
const BACKFILLED: u64 = 2 * IndexHeader::BYTES as u64;
/// How often a header that is being written is read again at once. Writing it takes a writer less
/// than a microsecond, a read about as much.
const TRIES: u32 = 100;

/// The WAL-index at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peek {
    /// The committed state.
    pub header: IndexHeader,
    /// Whether somebody holds the WAL's write lock.
    pub writing: bool,
    /// How many frames are copied back into the database. Equal to `header.frames`: the next turn
    /// would land on read mark 0.
    pub backfilled: u32,
}

/// Reads header, lock and backfill count.
pub(super) fn peek(shm: &File) -> Result<Peek> {
    // The lock comes first: a writer that had let it go before has published its header before.
    let writing = is_write_locked(shm)?;
    let backfilled = backfilled(shm)?;
    Ok(Peek {
        header: header(shm)?,
        writing,
        backfilled,
    })
}

/// Whether, for a transaction that sees `end`, the WAL may be started again under it. In doubt: yes.
pub(super) fn may_restart(shm: &File, end: &WalEnd) -> bool {
    // Backfill before header: a restart writes the header first, so that a count of the new
    // generation is never taken for the old one's.
    match (backfilled(shm), header(shm)) {
        (Ok(backfilled), Ok(header)) => header.salt != end.salt || backfilled >= end.frames,
        _ => true,
    }
}

fn backfilled(shm: &File) -> Result<u32> {
    let mut bytes = [0; 4];
    shm.read_exact_at(&mut bytes, BACKFILLED)
        .map_err(|error| Error::io("-shm", error))?;
    Ok(u32::from_ne_bytes(bytes))
}

/// The header, once both copies are equal and its checksum is right.
fn header(shm: &File) -> Result<IndexHeader> {
    let mut last = IndexHeaderError::Torn;
    for _ in 0..TRIES {
        let mut bytes = [0; 2 * IndexHeader::BYTES];
        shm.read_exact_at(&mut bytes, 0)
            .map_err(|error| Error::io("-shm", error))?;
        let (first, second) = bytes.split_at(IndexHeader::BYTES);
        let decoded = match first.first_chunk() {
            Some(first) if first.as_slice() == second => IndexHeader::decode(first),
            _ => Err(IndexHeaderError::Torn),
        };
        match decoded {
            Ok(header) => return Ok(header),
            Err(error) => last = error,
        }
        std::hint::spin_loop();
    }
    Err(Error::new(ErrorKind::Busy, last.to_string()).because(last))
}

fn is_write_locked(shm: &File) -> Result<bool> {
    let mut lock = Flock::from(FlockType::WriteLock);
    lock.offset_type = FlockOffsetType::Set;
    lock.start = WRITE_LOCK;
    lock.length = 1;
    fcntl_getlk(shm, &lock)
        .map(|holder| holder.is_some())
        .map_err(|error| Error::io("-shm", error.into()))
}
