//! Page frames: reading one after another, whichever of the two encodings each has.

use std::io::{self, BufReader, Read};

use lz4_flex::block;

use super::crc::{Shift, Sum, page_checksum};
use super::index::IndexEntry;
use super::lz4::{self, FrameError};
use super::section::SectionSum;
use super::{DecodeError, HEADER_BYTES, Header};
use crate::types::{PageCount, PageNumber, PageSize, PageSum};

/// The page is one LZ4 block behind its length.
pub(super) const FLAG_BLOCK: u16 = 1;
/// Page number, flags, and the length of the block.
pub(super) const BLOCK_HEADER_BYTES: usize = 10;

/// A page of a file together with the CRC that checking the file needed anyway.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Its number.
    pub number: PageNumber,
    /// Its content, exactly one page.
    pub data: &'a [u8],
    pub(super) content: Sum,
    pub(super) checksum: u64,
}

impl<'a> Page<'a> {
    /// A page that is to be written, read once for all CRCs that it goes into.
    pub fn new(number: PageNumber, data: &'a [u8], size: PageSize) -> Self {
        let content = Sum::of(data);
        Self {
            number,
            data,
            content,
            checksum: page_checksum(number, content, Shift::page(size)),
        }
    }

    /// What [`PageSum::of`] gives, for less.
    pub fn sum(&self) -> PageSum {
        PageSum::with_crc(self.number, self.data, self.checksum)
    }
}

/// Reads page frames and keeps the sums over them.
pub(super) struct PageReader<R> {
    source: BufReader<R>,
    page_size: PageSize,
    commit: PageCount,
    lock_page: PageNumber,
    shift: &'static Shift,
    sum: SectionSum,
    compressed: Vec<u8>,
    /// CRC of the last page alone, and its checksum.
    last: (Sum, u64),
}

impl<R: Read> PageReader<R> {
    /// Pages are small; larger pieces than this save nothing.
    const BUFFER: usize = 64 << 10;

    /// Reads a file's header, then its frames.
    pub(super) fn open(source: R) -> Result<(Header, Self), DecodeError> {
        let mut source = BufReader::with_capacity(Self::BUFFER, source);
        let mut bytes = [0; HEADER_BYTES];
        source
            .read_exact(&mut bytes)
            .map_err(|error| DecodeError::read(error, 0))?;
        let header = Header::decode(&bytes)?;
        let sum = SectionSum::behind_header(&bytes);
        let reader = Self::new(&header, source, sum);
        Ok((header, reader))
    }

    /// Reads the frames of a section that begins at byte `start` of the file.
    pub(super) fn section(header: &Header, source: R, start: u64) -> Self {
        let source = BufReader::with_capacity(Self::BUFFER, source);
        Self::new(header, source, SectionSum::empty(start))
    }

    fn new(header: &Header, source: BufReader<R>, sum: SectionSum) -> Self {
        Self {
            source,
            page_size: header.page_size,
            commit: header.commit,
            lock_page: header.page_size.lock_page(),
            shift: Shift::page(header.page_size),
            sum,
            compressed: Vec::new(),
            last: (Sum::default(), 0),
        }
    }

    pub(super) fn sum(&self) -> &SectionSum {
        &self.sum
    }

    pub(super) fn into_parts(self) -> (BufReader<R>, SectionSum) {
        (self.source, self.sum)
    }

    /// The page that the last [`PageReader::next`] read to `data`.
    pub(super) fn page<'a>(&self, number: PageNumber, data: &'a [u8]) -> Page<'a> {
        Page {
            number,
            data,
            content: self.last.0,
            checksum: self.last.1,
        }
    }

    /// Reads the next page to `data`, or the terminator.
    pub(super) fn next(&mut self, data: &mut Vec<u8>) -> Result<Option<PageNumber>, DecodeError> {
        let start = self.sum.end();
        let head: [u8; 6] = self.read_array(start)?;
        let [n0, n1, n2, n3, f0, f1] = head;
        let number = u32::from_be_bytes([n0, n1, n2, n3]);
        let flags = u16::from_be_bytes([f0, f1]);
        self.sum.cover(&head);
        let Some(page) = PageNumber::new(number) else {
            return match flags {
                0 => Ok(None),
                _ => Err(DecodeError::Terminator { found: flags }),
            };
        };
        let word: [u8; 4] = self.read_array(start)?;
        if flags & !FLAG_BLOCK != 0 {
            return Err(unknown_flags(number, flags, word, start));
        }
        self.check_number(page)?;
        data.resize(self.page_size.bytes(), 0);
        let length = if flags == FLAG_BLOCK {
            self.sum.cover(&word);
            self.read_block(page, u32::from_be_bytes(word), data)?
        } else {
            self.read_frame(page, u32::from_be_bytes(word), data)?
        };
        let content = Sum::of(data);
        self.last = (content, page_checksum(page, content, self.shift));
        let entry = IndexEntry {
            page,
            offset: start,
            length: BLOCK_HEADER_BYTES as u64 + length,
        };
        self.sum.add(&entry, content, self.last.1, self.shift);
        Ok(Some(page))
    }

    fn check_number(&self, page: PageNumber) -> Result<(), DecodeError> {
        match self.sum.last {
            Some(previous) if previous >= page => Err(DecodeError::PageOrder { page, previous }),
            _ if !self.commit.holds(page) => Err(DecodeError::PageBeyondEnd {
                page,
                commit: self.commit,
            }),
            _ if page == self.lock_page => Err(DecodeError::LockPage { page }),
            _ => Ok(()),
        }
    }

    /// Reads a block of `length` bytes, which is checked first, and returns the bytes read.
    fn read_block(
        &mut self,
        page: PageNumber,
        length: u32,
        data: &mut [u8],
    ) -> Result<u64, DecodeError> {
        let limit = lz4::block_limit(self.page_size);
        if length as usize > limit {
            return Err(DecodeError::BlockLength {
                page,
                length: length.into(),
                limit: limit as u64,
            });
        }
        self.compressed.resize(length as usize, 0);
        let start = self.sum.end();
        self.source
            .read_exact(&mut self.compressed)
            .map_err(|error| DecodeError::read(error, start))?;
        let found = block::decompress_into(&self.compressed, data)
            .map_err(|cause| DecodeError::Block { page, cause })?;
        self.check_filled(page, found)?;
        Ok(length.into())
    }

    fn check_filled(&self, page: PageNumber, found: usize) -> Result<(), DecodeError> {
        if found == self.page_size.bytes() {
            Ok(())
        } else {
            Err(DecodeError::ShortPage {
                page,
                found,
                expected: self.page_size,
            })
        }
    }

    /// Reads an LZ4 frame whose first four bytes are `magic`, and returns the bytes behind those.
    fn read_frame(
        &mut self,
        page: PageNumber,
        magic: u32,
        data: &mut [u8],
    ) -> Result<u64, DecodeError> {
        let start = self.sum.end();
        let mut counted = Counted {
            source: &mut self.source,
            read: 0,
        };
        lz4::read_frame(&mut counted, magic, data, &mut self.compressed).map_err(|error| {
            match error {
                FrameError::Read(error) => DecodeError::read(error, start),
                FrameError::Content(cause) => DecodeError::Frame { page, cause },
                FrameError::Block(cause) => DecodeError::Block { page, cause },
            }
        })?;
        Ok(counted.read)
    }

    fn read_array<const N: usize>(&mut self, start: u64) -> Result<[u8; N], DecodeError> {
        let mut bytes = [0; N];
        self.source
            .read_exact(&mut bytes)
            .map_err(|error| DecodeError::read(error, start))?;
        Ok(bytes)
    }
}

/// Older versions have no flags: their page, or its LZ4 frame, follows the page number at once.
fn unknown_flags(page: u32, flags: u16, word: [u8; 4], offset: u64) -> DecodeError {
    const FRAME_MAGIC_BEGIN: u16 = 0x0422;
    let first = offset == HEADER_BYTES as u64;
    if first && flags == FRAME_MAGIC_BEGIN && word.starts_with(&[0x4d, 0x18]) {
        DecodeError::Version { version: 2 }
    } else if first && flags == u16::from_be_bytes(*b"SQ") && word == *b"Lite" {
        DecodeError::Version { version: 1 }
    } else {
        DecodeError::PageFlags {
            page,
            offset,
            found: flags,
        }
    }
}

struct Counted<'a, R> {
    source: &'a mut R,
    read: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.read += length as u64;
        Ok(length)
    }
}
