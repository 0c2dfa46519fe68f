//! The file of the page table: a head of 64 bytes, then 24 bytes for each page, in page order. An entry
//! that was never written is zeros. The head is written once; another table is another file.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::dir::Locked;
use super::entries::out_of_order;
use super::folder::Folder;
use super::record::CRC;
use super::staged::Unfinished;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{DatabaseSum, PageCount, PageNumber, PageSize, PageSum};

pub(super) const TABLE: &str = "pages";
const MAGIC: &[u8; 8] = b"wlrspage";
const VERSION: u32 = 1;
pub(super) const HEAD: u64 = 64;
const ENTRY: u64 = PageSum::BYTES as u64;

/// The most that is read or written at once: 64 KiB of whole entries.
const CHUNK: usize = 65_536 / PageSum::BYTES * PageSum::BYTES;

/// Two wanted entries this near are read with one call: less than a disk block lies between them.
const NEAR: u64 = 4096;

/// The open page table.
#[derive(Debug)]
pub(super) struct TableFile {
    file: File,
    pub(super) page_size: PageSize,
    /// Random, never 0: a redo record names the table that its entries are for.
    pub(super) generation: u64,
}

fn offset(page: u32) -> u64 {
    HEAD + u64::from(page.saturating_sub(1)) * ENTRY
}

fn io(error: std::io::Error) -> Error {
    Error::io("page table", error)
}

fn head(page_size: PageSize, generation: u64) -> [u8; HEAD as usize] {
    let mut head = [0; HEAD as usize];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    head[12..16].copy_from_slice(&page_size.get().to_le_bytes());
    head[16..24].copy_from_slice(&generation.to_le_bytes());
    let crc = crc_fast::checksum(CRC, &head[..24]);
    head[24..32].copy_from_slice(&crc.to_le_bytes());
    head
}

impl TableFile {
    /// Opens the table; nothing if there is none. Errors: Corrupt where it is not ours.
    pub(super) fn open(folder: &Folder) -> Result<Option<Self>> {
        let Some(file) = folder.file(TABLE, OFlags::RDWR)? else {
            return Ok(None);
        };
        let foreign = |problem: &str| Error::new(ErrorKind::Corrupt, problem);
        if file.metadata().map_err(io)?.len() < HEAD {
            return Err(foreign("shorter than its head"));
        }
        let mut found = [0; HEAD as usize];
        file.read_exact_at(&mut found, 0).map_err(io)?;
        let page_size = u32::from_le_bytes([found[12], found[13], found[14], found[15]]);
        let generation = found[16..24]
            .first_chunk()
            .map_or(0, |b| u64::from_le_bytes(*b));
        let page_size = PageSize::new(page_size).ok_or_else(|| foreign("not a page table"))?;
        if generation == 0 || found != head(page_size, generation) {
            return Err(foreign("not a page table of this version"));
        }
        Ok(Some(Self {
            file,
            page_size,
            generation,
        }))
    }

    #[cfg(test)]
    pub(super) fn reopen(&mut self, folder: &Folder, read_only: bool) {
        let flags = if read_only {
            OFlags::RDONLY
        } else {
            OFlags::RDWR
        };
        self.file = folder.file(TABLE, flags).unwrap().unwrap();
    }

    /// Forgets the entries of every page beyond `count`, now and when the file grows again.
    pub(super) fn truncate(&self, count: PageCount) -> Result<()> {
        let end = HEAD + u64::from(count.0) * ENTRY;
        if self.file.metadata().map_err(io)?.len() > end {
            self.file.set_len(end).map_err(io)?;
        }
        Ok(())
    }

    /// The entries of the pages `first..=last`, read into `buffer`; zeros beyond the file's end.
    fn read(&self, first: u32, last: u32, buffer: &mut Vec<u8>) -> Result<()> {
        let length = (offset(last) + ENTRY - offset(first)) as usize;
        buffer.clear();
        buffer.resize(length, 0);
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset(first) + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io(error)),
            }
        }
        Ok(())
    }

    /// The entries of `pages` (ascending), neighbours with one read.
    pub(super) fn lookup(
        &self,
        pages: &[PageNumber],
        each: &mut dyn FnMut(PageNumber, Option<PageSum>) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = Vec::new();
        let mut rest = pages;
        while let [first, ..] = rest {
            let (group, behind) = rest.split_at(neighbours(rest)?);
            let last = group.last().unwrap_or(first);
            self.read(first.get(), last.get(), &mut buffer)?;
            for page in group {
                let at = (offset(page.get()) - offset(first.get())) as usize;
                let entry = buffer.get(at..).and_then(|entry| entry.first_chunk());
                each(*page, entry.and_then(PageSum::from_bytes))?;
            }
            rest = behind;
        }
        Ok(())
    }

    /// The sum of all entries up to `count`: one pass over the file.
    pub(super) fn sum(&self, count: PageCount) -> Result<DatabaseSum> {
        let mut sum = DatabaseSum::EMPTY;
        let mut buffer = Vec::with_capacity(CHUNK);
        let step = (CHUNK / PageSum::BYTES) as u32;
        let mut first = 1_u32;
        while first <= count.0 {
            let last = count.0.min(first.saturating_add(step - 1));
            self.read(first, last, &mut buffer)?;
            let (entries, _) = buffer.as_chunks();
            for page in entries.iter().filter_map(PageSum::from_bytes) {
                sum.add(page);
            }
            let Some(next) = last.checked_add(1) else {
                break;
            };
            first = next;
        }
        Ok(sum)
    }

    /// A writer of entries in place.
    pub(super) fn patch(&self) -> Patch<'_> {
        Patch {
            table: self,
            buffer: Vec::new(),
            first: 0,
        }
    }
}

/// How many of `pages`, from the first on, lie so near that one read is best. Errors: Internal where
/// they do not ascend.
fn neighbours(pages: &[PageNumber]) -> Result<usize> {
    let Some(first) = pages.first() else {
        return Ok(0);
    };
    for (index, pair) in pages.windows(2).enumerate() {
        let [before, page] = [pair[0], pair[1]];
        if page < before {
            return Err(out_of_order(page));
        }
        let [start, before, page] = [*first, before, page].map(|page| offset(page.get()));
        if page - before > NEAR || page - start >= CHUNK as u64 {
            return Ok(index + 1);
        }
    }
    Ok(pages.len())
}

/// Writes entries into the table, consecutive pages with one call.
#[derive(Debug)]
pub(super) struct Patch<'a> {
    table: &'a TableFile,
    buffer: Vec<u8>,
    first: u32,
}

impl Patch<'_> {
    pub(super) fn put(&mut self, page: PageNumber, sum: PageSum) -> Result<()> {
        let next = offset(self.first) + self.buffer.len() as u64;
        let follows = !self.buffer.is_empty() && offset(page.get()) == next;
        if !follows || self.buffer.len() >= CHUNK {
            self.flush()?;
            self.first = page.get();
        }
        self.buffer.extend_from_slice(&sum.to_bytes());
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        let at = offset(self.first);
        self.table.file.write_all_at(&self.buffer, at).map_err(io)?;
        self.buffer.clear();
        Ok(())
    }
}

/// A new page table being filled, pages ascending, at the speed of the disk. It takes the place of the
/// old one in `PageTable::install`; dropped before, nothing has happened.
#[derive(Debug)]
pub struct Fill {
    file: Unfinished,
    page_size: PageSize,
    generation: u64,
    next: u64,
    sum: DatabaseSum,
}

impl Fill {
    pub(super) fn new(folder: &Arc<Locked>, page_size: PageSize) -> Result<Self> {
        let generation = fastrand::u64(1..);
        let mut file = Unfinished::new(folder, CHUNK * 4)?;
        let head = head(page_size, generation);
        file.writer().write_all(&head).map_err(io)?;
        Ok(Self {
            file,
            page_size,
            generation,
            next: 1,
            sum: DatabaseSum::EMPTY,
        })
    }

    /// Adds the next page by its content.
    pub fn page(&mut self, page: PageNumber, data: &[u8]) -> Result<()> {
        self.push(page, PageSum::of(page, data))
    }

    /// Adds the next page by its sum. Errors: Internal if `page` is not above the one before.
    pub fn push(&mut self, page: PageNumber, sum: PageSum) -> Result<()> {
        if u64::from(page.get()) < self.next {
            return Err(out_of_order(page));
        }
        while self.next < u64::from(page.get()) {
            self.file
                .writer()
                .write_all(&[0; PageSum::BYTES])
                .map_err(io)?;
            self.next += 1;
        }
        self.file.writer().write_all(&sum.to_bytes()).map_err(io)?;
        self.next += 1;
        self.sum.add(sum);
        Ok(())
    }

    /// The sums of all pages so far.
    pub fn sum(&self) -> DatabaseSum {
        self.sum
    }

    /// Puts the new table in the place of the old one. Not durable by itself: a table that was lost is
    /// seen by its sum.
    pub(super) fn install(self) -> Result<TableFile> {
        Ok(TableFile {
            file: self.file.place(TABLE)?,
            page_size: self.page_size,
            generation: self.generation,
        })
    }
}
