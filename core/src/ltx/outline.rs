//! A written file without its pages: what it says, which pages it holds, and how it reads under another
//! header.

use std::io::{BufReader, Read, Seek, SeekFrom};

use super::crc::{Sum, advanced};
use super::index::{IndexLocation, IndexReader, TERMINATOR_BYTES};
use super::page::BLOCK_HEADER_BYTES;
use super::{DecodeError, EncodeError, HEADER_BYTES, Header, TAIL_BYTES};
use crate::types::{Checksum, FileChecksum, PageNumber};

/// Bytes of the file checksum, which a file ends with.
const CHECKSUM_BYTES: usize = 8;

/// Header, page index and trailer of a file. Nothing of it is checked against the pages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outline {
    /// The header.
    pub header: Header,
    /// The rolling checksum of the database after the file; nothing if it tracks none.
    pub post_apply: Option<Checksum>,
    /// Pages in it.
    pub pages: u64,
    head: [u8; HEADER_BYTES],
    checksum: u64,
    size: u64,
    index: u64,
}

impl Outline {
    /// Reads the file that `source` begins with and ends with, and gives each page's number to `visit`,
    /// ascending.
    ///
    /// # Errors
    ///
    /// Those of [`Header::decode`], [`IndexLocation::find`] and [`IndexReader`].
    pub fn read(
        mut source: impl Read + Seek,
        mut visit: impl FnMut(PageNumber),
    ) -> Result<Self, DecodeError> {
        let mut head = [0; HEADER_BYTES];
        let mut tail = [0; TAIL_BYTES];
        let size = source.seek(SeekFrom::End(0)).map_err(DecodeError::Io)?;
        let mut exactly = |at: u64, into: &mut [u8]| {
            source.seek(SeekFrom::Start(at)).map_err(DecodeError::Io)?;
            let read = source.read_exact(into);
            read.map_err(|error| DecodeError::read(error, at))
        };
        exactly(0, &mut head)?;
        let header = Header::decode(&head)?;
        exactly(size.saturating_sub(TAIL_BYTES as u64), &mut tail)?;
        let index = IndexLocation::find(tail, size)?;
        source
            .seek(SeekFrom::Start(index.offset))
            .map_err(DecodeError::Io)?;
        let mut pages = 0;
        for entry in IndexReader::new(BufReader::with_capacity(1 << 16, source), index) {
            visit(entry?.page);
            pages += 1;
        }
        let word = |at: usize| {
            let word = tail.get(at..).and_then(|rest| rest.first_chunk());
            word.map_or(0, |word| u64::from_be_bytes(*word))
        };
        Ok(Self {
            header,
            post_apply: Checksum::new(word(8)),
            pages,
            head,
            checksum: word(16),
            size,
            index: index.length,
        })
    }

    /// The file as another writer would have made it, or one that goes on from another state: node, first
    /// TXID, pre-apply checksum and mark may differ in `header`. If the file is not whole, the other one is not
    /// either. For files whose pages are stored as walrust's [`Encoder`](super::Encoder) does.
    ///
    /// # Errors
    ///
    /// A header that breaks a rule, or that says something else of the pages.
    pub fn under(&self, header: &Header) -> Result<Reheaded, EncodeError> {
        let fault = |rule| Err(EncodeError::Header { rule });
        if let Some(rule) = header.fault() {
            return fault(rule);
        }
        if !self.header.says_the_same(header) {
            return fault("another header says the same of the pages");
        }
        let new = header.encode();
        let page = BLOCK_HEADER_BYTES as u64 + self.header.page_size.bytes() as u64;
        let behind = self.pages * page
            + TERMINATOR_BYTES
            + self.index
            + (TAIL_BYTES - CHECKSUM_BYTES) as u64;
        // A CRC is linear: what the header changes is moved on by the length of what follows it. The flag
        // that a checksum has in place of its top bit stays.
        let change = advanced(Sum::of(&self.head).crc ^ Sum::of(&new).crc, behind);
        let checksum = FileChecksum::from_crc(self.checksum ^ change);
        Ok(Reheaded {
            header: new,
            checksum: checksum.get().to_be_bytes(),
            size: self.size,
        })
    }
}

/// The bytes in which a file under another header differs from what is written of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reheaded {
    header: [u8; HEADER_BYTES],
    checksum: [u8; CHECKSUM_BYTES],
    size: u64,
}

impl Reheaded {
    /// Puts them over `bytes`, which are those of the written file from `offset` on.
    pub fn lay_over(&self, offset: u64, bytes: &mut [u8]) {
        let checksum_at = self.size.saturating_sub(CHECKSUM_BYTES as u64);
        lay(&self.header, 0, offset, bytes);
        lay(&self.checksum, checksum_at, offset, bytes);
    }
}

/// Puts `part`, which belongs at `at` of a file, over `bytes`, which begin at `offset` of it.
fn lay(part: &[u8], at: u64, offset: u64, bytes: &mut [u8]) {
    let end = offset.saturating_add(bytes.len() as u64);
    let (from, to) = (at.max(offset), (at + part.len() as u64).min(end));
    if from >= to {
        return;
    }
    let source = part.get((from - at) as usize..(to - at) as usize);
    let target = bytes.get_mut((from - offset) as usize..(to - offset) as usize);
    if let (Some(source), Some(target)) = (source, target) {
        target.copy_from_slice(source);
    }
}
