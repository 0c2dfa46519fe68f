//! The redo record of a batch too large for memory: its entries go straight to the disk, its head last.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::dir::Locked;
use super::entries::{self, out_of_order};
use super::record::{CRC, HEAD, Record};
use super::saved::Saved;
use super::staged::Unfinished;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{PageNumber, PageSum};

/// Entries of a batch without a bound, pages ascending; 64 KiB of memory.
#[derive(Debug)]
pub struct Huge {
    file: Unfinished,
    crc: crc_fast::Digest,
    count: u64,
    last: Option<PageNumber>,
}

fn io(error: std::io::Error) -> Error {
    Error::io("redo record", error)
}

impl Huge {
    pub(super) fn new(folder: &Arc<Locked>) -> Result<Self> {
        let mut file = Unfinished::new(folder, 65_536)?;
        let start = SeekFrom::Start(HEAD as u64);
        file.writer().seek(start).map_err(io)?;
        Ok(Self {
            file,
            crc: crc_fast::Digest::new(CRC),
            count: 0,
            last: None,
        })
    }

    /// Adds the next page. Errors: Internal if `page` is not above the one before.
    pub fn push(&mut self, page: PageNumber, sum: PageSum) -> Result<()> {
        if self.last.is_some_and(|last| last >= page) {
            return Err(out_of_order(page));
        }
        let entry = entries::encode(page, sum);
        self.crc.update(&entry);
        self.file.writer().write_all(&entry).map_err(io)?;
        self.last = Some(page);
        self.count += 1;
        Ok(())
    }

    /// How many pages changed.
    pub fn pages(&self) -> u64 {
        self.count
    }

    /// Ends the record and puts it where the next one belongs.
    pub(super) fn finish(
        mut self,
        name: &str,
        sequence: u64,
        generation: u64,
        saved: Saved,
    ) -> Result<(Record, File)> {
        let count = saved.place.page_count;
        if let Some(last) = self.last.filter(|last| !count.holds(*last)) {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("page {last} of a batch lies beyond its {count} pages"),
            ));
        }
        let record = Record {
            sequence,
            generation,
            entries: self.count,
            entries_crc: self.crc.finalize(),
            saved,
        };
        let head = record.encode()?;
        self.file.whole()?.write_all_at(&head, 0).map_err(io)?;
        let file = self.file.place(name)?;
        Ok((record, file))
    }
}
