//! A file in sections, each read by itself and at any time, and the check of the whole at the end.

use std::io::Read;
use std::ops::Range;

use super::crc::{Shift, Sum};
use super::index::{self, IndexEntry};
use super::page::{Page, PageReader};
use super::trailer;
use super::{DecodeError, HEADER_BYTES, Header, Verified};
use crate::types::PageNumber;

/// What is remembered of a run of page frames, so that the file can be checked without them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SectionSum {
    /// Pages read.
    pub pages: u64,
    /// The first of them.
    pub first: Option<PageNumber>,
    /// The last of them.
    pub last: Option<PageNumber>,
    /// Where the frames lie in the file.
    range: Range<u64>,
    /// Over what the file checksum covers.
    file: Sum,
    /// Over the index that these frames must have.
    index: Sum,
    /// XOR of the page checksums.
    rolling: u64,
}

impl SectionSum {
    /// Nothing yet, at byte `start` of the file.
    pub(super) fn empty(start: u64) -> Self {
        Self {
            pages: 0,
            first: None,
            last: None,
            range: start..start,
            file: Sum::default(),
            index: Sum::default(),
            rolling: 0,
        }
    }

    /// The start of a file: its header, no pages yet.
    pub(super) fn behind_header(header: &[u8; HEADER_BYTES]) -> Self {
        Self {
            file: Sum::of(header),
            ..Self::empty(HEADER_BYTES as u64)
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.range.end
    }

    pub(super) fn rolling(&self) -> u64 {
        self.rolling
    }

    pub(super) fn file(&self) -> Sum {
        self.file
    }

    pub(super) fn index(&self) -> Sum {
        self.index
    }

    /// Appends bytes to what the file checksum covers.
    pub(super) fn cover(&mut self, bytes: &[u8]) {
        self.file.update(bytes);
    }

    /// Appends a page whose header is covered already.
    pub(super) fn add(&mut self, entry: &IndexEntry, content: Sum, checksum: u64, shift: &Shift) {
        self.file.join_page(content, shift);
        index::expect(&mut self.index, entry);
        self.rolling ^= checksum;
        self.pages += 1;
        self.first = self.first.or(Some(entry.page));
        self.last = Some(entry.page);
        self.range.end = entry.end();
    }

    /// Appends the section that follows.
    fn append(&mut self, next: &Self) -> Result<(), DecodeError> {
        if next.range.start != self.range.end {
            return Err(DecodeError::SectionOrder {
                expected: self.range.end,
                found: next.range.start,
            });
        }
        match (self.last, next.first) {
            (Some(previous), Some(page)) if previous >= page => {
                return Err(DecodeError::PageOrder { page, previous });
            }
            _ => {}
        }
        self.file.join(next.file);
        self.index.join(next.index);
        self.rolling ^= next.rolling;
        self.pages += next.pages;
        self.first = self.first.or(next.first);
        self.last = next.last.or(self.last);
        self.range.end = next.range.end;
        Ok(())
    }
}

/// Reads the page frames at `range` of a file with this `header` and gives each page to `visitor`.
///
/// `source` begins at `range.start`, where a frame begins; `range.end` is the end of a frame (see
/// [`IndexEntry`]). Memory: a buffer of 64 KiB and two pages. What the visitor got is right only when
/// [`FileCheck::finish`] says so.
///
/// # Errors
///
/// Those of [`Decoder::next_page`](super::Decoder::next_page), or what the visitor gave.
pub fn decode_section<R: Read, E: From<DecodeError>>(
    header: &Header,
    range: Range<u64>,
    source: R,
    mut visitor: impl FnMut(Page<'_>) -> Result<(), E>,
) -> Result<SectionSum, E> {
    let length = range.end.saturating_sub(range.start);
    let mut reader = PageReader::section(header, source.take(length), range.start);
    let mut data = Vec::new();
    while reader.sum().end() < range.end {
        let Some(number) = reader.next(&mut data)? else {
            let offset = reader.sum().end();
            return Err(DecodeError::EarlyEnd { offset }.into());
        };
        visitor(reader.page(number, &data))?;
    }
    Ok(reader.into_parts().1)
}

/// Checks a file that was read in sections: header, sections in their order, tail.
#[derive(Debug)]
pub struct FileCheck {
    header: Header,
    pages: SectionSum,
}

impl FileCheck {
    /// Begins with the file's first 100 bytes.
    ///
    /// # Errors
    ///
    /// Those of [`Header::decode`].
    pub fn new(header: &[u8]) -> Result<Self, DecodeError> {
        let decoded = Header::decode(header)?;
        let bytes = header
            .first_chunk()
            .ok_or(DecodeError::Truncated { offset: 0 })?;
        Ok(Self {
            header: decoded,
            pages: SectionSum::behind_header(bytes),
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Adds the section that follows those so far.
    ///
    /// # Errors
    ///
    /// It does not follow, or its pages do not ascend from there.
    pub fn section(&mut self, section: &SectionSum) -> Result<(), DecodeError> {
        self.pages.append(section)
    }

    /// Reads what follows the last frame, from the terminator to the end of the file, and checks all.
    ///
    /// # Errors
    ///
    /// Those of [`Decoder::finish`](super::Decoder::finish).
    pub fn finish<R: Read>(mut self, mut tail: R) -> Result<Verified, DecodeError> {
        let mut terminator = [0; 6];
        let start = self.pages.end();
        tail.read_exact(&mut terminator)
            .map_err(|error| DecodeError::read(error, start))?;
        if terminator != [0; 6] {
            // A frame that no section held.
            return Err(DecodeError::SectionOrder {
                expected: start,
                found: start.saturating_add(6),
            });
        }
        self.pages.cover(&terminator);
        trailer::verify(self.header, &self.pages, tail)
    }
}
