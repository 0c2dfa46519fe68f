//! Redo records: a saved state and the page table entries that lead to it, under checksums.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `wlrsredo` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | length of the saved state |
//! | 16 | 8 | sequence number, from 1 |
//! | 24 | 8 | generation of the page table that the entries belong to; 0: there is none |
//! | 32 | 8 | number of entries |
//! | 40 | 8 | CRC-64 of the entries |
//! | 48 | 8 | CRC-64 of bytes 0 to 48 and of the saved state |
//! | 56 | | the saved state, JSON |
//! | 2048 | 28 each | the entries |
//!
//! Integers are little-endian.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::entries::{self, ENTRY};
use super::saved::Saved;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{PageNumber, PageSum};

const MAGIC: &[u8; 8] = b"wlrsredo";
const VERSION: u32 = 1;
const FIXED: usize = 56;

/// Where the entries start. A saved state needs about a third of it.
pub(super) const HEAD: usize = 2048;

/// Entries read at once: 64 KiB.
const CHUNK: usize = 65_536 / ENTRY * ENTRY;

pub(super) const CRC: crc_fast::CrcAlgorithm = crc_fast::CrcAlgorithm::Crc64GoIso;

/// The head of a redo record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) sequence: u64,
    pub(super) generation: u64,
    pub(super) entries: u64,
    pub(super) entries_crc: u64,
    pub(super) saved: Saved,
}

impl Record {
    /// The bytes before the entries.
    pub(super) fn encode(&self) -> Result<[u8; HEAD]> {
        let json = serde_json::to_vec(&self.saved).ok();
        let json = json.filter(|json| json.len() <= HEAD - FIXED);
        let json = json.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "the saved state does not fit its record",
            )
        })?;
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&VERSION.to_le_bytes());
        head[12..16].copy_from_slice(&(json.len() as u32).to_le_bytes());
        head[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        head[24..32].copy_from_slice(&self.generation.to_le_bytes());
        head[32..40].copy_from_slice(&self.entries.to_le_bytes());
        head[40..48].copy_from_slice(&self.entries_crc.to_le_bytes());
        head[FIXED..FIXED + json.len()].copy_from_slice(&json);
        let crc = head_crc(&head[..48], &json);
        head[48..56].copy_from_slice(&crc.to_le_bytes());
        Ok(head)
    }

    /// The record in `file` with every entry checked; nothing if the file is empty. Errors: Corrupt where
    /// it is torn or not ours.
    pub(super) fn read(file: &File) -> Result<Option<Self>> {
        let size = file.metadata().map_err(io)?.len();
        if size == 0 {
            return Ok(None);
        }
        if size < HEAD as u64 {
            return Err(torn("shorter than its head"));
        }
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0).map_err(io)?;
        let record = Self::decode(&head)?;
        let needed = record.entries.checked_mul(ENTRY as u64);
        if needed.is_none_or(|needed| needed > size - HEAD as u64) {
            return Err(torn("shorter than its entries"));
        }
        let mut crc = crc_fast::Digest::new(CRC);
        for_each_chunk(file, record.entries, |chunk| {
            crc.update(chunk);
            Ok(())
        })?;
        if crc.finalize() != record.entries_crc {
            return Err(torn("the checksum of its entries is wrong"));
        }
        Ok(Some(record))
    }

    fn decode(head: &[u8; HEAD]) -> Result<Self> {
        let word = |at: usize| -> u64 {
            let bytes = head.get(at..at + 8).and_then(|bytes| bytes.first_chunk());
            bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
        };
        let version = word(8) as u32;
        let length = (word(8) >> 32) as usize;
        if &head[..8] != MAGIC {
            return Err(torn("not a file of walrust's"));
        }
        let json = head[FIXED..].get(..length);
        let json = json.ok_or_else(|| torn("the length of its saved state is wrong"))?;
        if head_crc(&head[..48], json) != word(48) {
            return Err(torn("the checksum of its head is wrong"));
        }
        if version != VERSION {
            return Err(torn(&format!(
                "version {version}, this walrust knows {VERSION}"
            )));
        }
        let saved = serde_json::from_slice(json)
            .map_err(|error| torn(&format!("its saved state does not parse: {error}")))?;
        Ok(Self {
            sequence: word(16),
            generation: word(24),
            entries: word(32),
            entries_crc: word(40),
            saved,
        })
    }

    /// Every entry behind the head, ascending as it was written.
    pub(super) fn for_each_entry(
        &self,
        file: &File,
        mut each: impl FnMut(PageNumber, PageSum) -> Result<()>,
    ) -> Result<()> {
        for_each_chunk(file, self.entries, |chunk| {
            entries::decode_all(chunk).try_for_each(|(page, sum)| each(page, sum))
        })
    }
}

fn for_each_chunk(
    file: &File,
    entries: u64,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; CHUNK.min(usize::try_from(entries).unwrap_or(CHUNK) * ENTRY)];
    let (mut at, end) = (HEAD as u64, HEAD as u64 + entries * ENTRY as u64);
    while at < end {
        let length = buffer.len().min((end - at) as usize);
        let Some(chunk) = buffer.get_mut(..length) else {
            break;
        };
        file.read_exact_at(chunk, at).map_err(io)?;
        each(chunk)?;
        at += length as u64;
    }
    Ok(())
}

fn head_crc(fixed: &[u8], json: &[u8]) -> u64 {
    let mut crc = crc_fast::Digest::new(CRC);
    crc.update(fixed);
    crc.update(json);
    crc.finalize()
}

fn torn(problem: &str) -> Error {
    Error::new(ErrorKind::Corrupt, problem)
}

fn io(error: std::io::Error) -> Error {
    Error::io("redo record", error)
}
