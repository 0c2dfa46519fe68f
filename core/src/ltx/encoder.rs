//! Writing a file.

use std::io::Write;
use std::path::PathBuf;

use super::crc::{Shift, Sum};
use super::index::{IndexEntry, IndexWriter};
use super::lz4::Compressor;
use super::page::{BLOCK_HEADER_BYTES, FLAG_BLOCK, Page};
use super::section::SectionSum;
use super::{EncodeError, HEADER_BYTES, Header, TAIL_BYTES, Tracking};
use crate::types::{Checksum, FileChecksum, PageCount, PageNumber, PageSize};

/// Where the page index waits until the pages are written: 6 to 12 bytes a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Spill {
    /// In memory.
    Memory,
    /// Beyond 1 MiB in a file without a name in this directory.
    Directory(PathBuf),
}

/// Writes a file. The header, which may need what is known only at the end, comes last: `out` receives
/// every byte behind it.
pub struct Encoder<W: Write> {
    out: W,
    page_size: PageSize,
    commit: PageCount,
    lock_page: PageNumber,
    shift: &'static Shift,
    compressor: Compressor,
    /// One frame.
    frame: Vec<u8>,
    index: IndexWriter,
    sum: SectionSum,
}

/// A file that was written to its end.
#[derive(Debug)]
pub struct Finished<W> {
    /// Has received everything behind the header.
    pub out: W,
    /// The file's first bytes.
    pub header: [u8; HEADER_BYTES],
    /// Bytes of the whole file.
    pub size: u64,
    /// Pages in it.
    pub pages: u64,
    /// The checksum over the file.
    pub file_checksum: FileChecksum,
}

impl<W: Write> Encoder<W> {
    /// Begins a file about a database of `commit` pages. Give a buffered output: a page is one write.
    pub fn new(out: W, page_size: PageSize, commit: PageCount, spill: Spill) -> Self {
        Self {
            out,
            page_size,
            commit,
            lock_page: page_size.lock_page(),
            shift: Shift::page(page_size),
            compressor: Compressor::new(page_size),
            frame: vec![0; BLOCK_HEADER_BYTES + Compressor::room(page_size)],
            index: IndexWriter::new(spill),
            sum: SectionSum::empty(HEADER_BYTES as u64),
        }
    }

    /// Bytes of the file so far, with its header.
    pub fn size(&self) -> u64 {
        self.sum.end()
    }

    /// What was written so far and not yet taken away.
    pub fn out(&self) -> &W {
        &self.out
    }

    /// As [`Encoder::out`], for outputs whose bytes are taken away in parts.
    pub fn out_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes the next page.
    ///
    /// # Errors
    ///
    /// Page numbers that do not ascend, leave the database or name the lock page; another length than
    /// one page; the output. The file is lost then.
    pub fn page(&mut self, number: PageNumber, data: &[u8]) -> Result<(), EncodeError> {
        self.write(&Page::new(number, data, self.page_size))
    }

    /// As [`Encoder::page`], for a page whose sums are needed elsewhere too: its CRC is known.
    ///
    /// # Errors
    ///
    /// Those of [`Encoder::page`].
    pub fn write(&mut self, page: &Page<'_>) -> Result<(), EncodeError> {
        let &Page {
            number,
            data,
            content,
            checksum,
        } = page;
        self.check(number, data)?;
        let Some((head, block)) = self.frame.split_first_chunk_mut::<BLOCK_HEADER_BYTES>() else {
            return Err(EncodeError::Header {
                rule: "a frame has a header",
            });
        };
        let length = self.compressor.compress(data, block)?;
        let [n0, n1, n2, n3] = number.get().to_be_bytes();
        let [f0, f1] = FLAG_BLOCK.to_be_bytes();
        let [l0, l1, l2, l3] = (length as u32).to_be_bytes();
        *head = [n0, n1, n2, n3, f0, f1, l0, l1, l2, l3];
        self.sum.cover(head);

        let frame = self.frame.get(..BLOCK_HEADER_BYTES + length);
        let frame = frame.unwrap_or_default();
        self.out.write_all(frame)?;
        let entry = IndexEntry {
            page: number,
            offset: self.sum.end(),
            length: frame.len() as u64,
        };
        self.index.push(&entry)?;
        self.sum.add(&entry, content, checksum, self.shift);
        Ok(())
    }

    fn check(&self, page: PageNumber, data: &[u8]) -> Result<(), EncodeError> {
        match self.sum.last {
            Some(previous) if previous >= page => Err(EncodeError::PageOrder { page, previous }),
            _ if !self.commit.holds(page) => Err(EncodeError::PageBeyondEnd {
                page,
                commit: self.commit,
            }),
            _ if page == self.lock_page => Err(EncodeError::LockPage { page }),
            _ if data.len() != self.page_size.bytes() => Err(EncodeError::PageLength {
                page,
                found: data.len(),
                expected: self.page_size,
            }),
            _ => Ok(()),
        }
    }

    /// Writes page index and trailer, flushes `out`, and makes the header. `post_apply` is the rolling
    /// checksum of the database after the file, given exactly if the header says that it is tracked.
    ///
    /// # Errors
    ///
    /// A header that breaks a rule or does not fit the pages; the output.
    pub fn finish(
        mut self,
        header: &Header,
        post_apply: Option<Checksum>,
    ) -> Result<Finished<W>, EncodeError> {
        self.check_header(header, post_apply)?;
        let header = header.encode();
        let mut file = Sum::of(&header);
        file.join(self.sum.file());

        let (out, mut size) = (&mut self.out, 0_u64);
        let terminator = [0; 6];
        file.update(&terminator);
        out.write_all(&terminator)?;
        self.index.drain(|piece| {
            file.update(piece);
            size += piece.len() as u64;
            out.write_all(piece)
        })?;
        let post_apply = post_apply.map_or(0, Checksum::get);
        let fields = [size.to_be_bytes(), post_apply.to_be_bytes()];
        file.update(fields.as_flattened());
        out.write_all(fields.as_flattened())?;
        let file_checksum = FileChecksum::from_crc(file.crc);
        out.write_all(&file_checksum.get().to_be_bytes())?;
        out.flush()?;
        Ok(Finished {
            out: self.out,
            header,
            size: self.sum.end() + terminator.len() as u64 + size + TAIL_BYTES as u64,
            pages: self.sum.pages,
            file_checksum,
        })
    }

    fn check_header(
        &self,
        header: &Header,
        post_apply: Option<Checksum>,
    ) -> Result<(), EncodeError> {
        let fault = |rule| Err(EncodeError::Header { rule });
        if let Some(rule) = header.fault() {
            return fault(rule);
        }
        if (header.page_size, header.commit) != (self.page_size, self.commit) {
            return fault("page size and commit are those that the pages were written with");
        }
        if header.holds_every_page() && self.sum.pages != header.every_page() {
            return Err(EncodeError::Incomplete {
                found: self.sum.pages,
                expected: header.every_page(),
            });
        }
        match (header.tracking, post_apply) {
            (Tracking::Untracked, None) => Ok(()),
            (Tracking::Untracked, Some(_)) => fault("an untracked file has no post-apply checksum"),
            (Tracking::Tracked { .. }, None) => fault("a tracked file has a post-apply checksum"),
            (Tracking::Tracked { .. }, Some(expected)) => {
                if self.commit.0 == 0 && expected != Checksum::EMPTY {
                    return fault("the post-apply checksum of no pages is the flag alone");
                }
                let found = Checksum::from_crc(self.sum.rolling());
                if header.holds_every_page() && found != expected {
                    return Err(EncodeError::DatabaseChecksum { expected, found });
                }
                Ok(())
            }
        }
    }
}
