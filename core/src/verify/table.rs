//! The sums of every page of one state, 24 bytes each, and what a file would make of them.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use tempfile::SpooledTempFile;

use super::contents::Contents;
use crate::error::{Error, Result};
use crate::types::{DatabaseSum, PageCount, PageNumber, PageSize, PageSum, StreamId, Txid};

/// Below this size the table stays in memory: a database of 700 MB with pages of 4 KiB.
const IN_MEMORY: usize = 4 << 20;

/// Entries that are read or written at once: 48 KiB.
const RUN: usize = 2048;

/// One state of the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct State {
    pub(super) txid: Txid,
    pub(super) stream: Option<StreamId>,
    pub(super) page_size: PageSize,
    pub(super) commit: PageCount,
    pub(super) sum: DatabaseSum,
}

/// What applying a file gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    pub(super) state: State,
    /// Pages of the state that no file held.
    pub(super) missing: u64,
}

/// The sums of the pages of one state, in a file without a name once they are many.
pub(super) struct SumTable {
    file: SpooledTempFile,
    /// Pages that have a sum.
    present: u64,
    /// Pages of the state in it; 0 where there is none.
    commit: PageCount,
}

impl SumTable {
    /// An empty table, that moves to `scratch` when it grows.
    pub(super) fn new(scratch: &Path) -> Self {
        Self {
            file: tempfile::spooled_tempfile_in(IN_MEMORY, scratch),
            present: 0,
            commit: PageCount(0),
        }
    }

    /// What `contents` would make of `before`, the state in the table; of nothing for a file that holds every
    /// page. The table stays as it is.
    pub(super) fn predict(
        &mut self,
        before: Option<&State>,
        contents: &mut Contents,
    ) -> Result<Outcome> {
        let header = &contents.verified.header;
        let (commit, lock) = (header.commit, header.page_size.lock_page());
        let mut state = State {
            txid: header.range.max(),
            stream: header.stream(),
            page_size: header.page_size,
            commit,
            sum: contents.sum,
        };
        let wanted = u64::from(commit.0) - u64::from(commit.holds(lock));
        let Some(before) = before else {
            let missing = wanted.saturating_sub(contents.verified.pages);
            return Ok(Outcome { state, missing });
        };
        let mut present = self.present + contents.verified.pages;
        let mut gone = DatabaseSum::EMPTY;
        let mut take = |old: PageSum| {
            gone.add(old);
            present = present.saturating_sub(1);
        };
        contents.runs(RUN, |first, sums| self.read(first, sums.len(), &mut take))?;
        self.beyond(commit, take)?;
        state.sum.join(before.sum);
        subtract(&mut state.sum, gone);
        let missing = wanted.saturating_sub(present);
        Ok(Outcome { state, missing })
    }

    /// Makes the table that of the state which `contents` leads to.
    pub(super) fn apply(&mut self, contents: &mut Contents) -> Result<()> {
        let header = contents.verified.header.clone();
        if header.holds_every_page() {
            self.file.set_len(0).map_err(io)?;
            self.present = 0;
        }
        let mut replaced = 0;
        contents.runs(RUN, |first, sums| {
            self.read(first, sums.len(), |_| replaced += 1)?;
            self.write(first, sums)
        })?;
        self.beyond(header.commit, |_| replaced += 1)?;
        self.present = (self.present + contents.verified.pages).saturating_sub(replaced);
        self.commit = header.commit;
        // What was cut off must not come back when the database grows again.
        let end = offset(header.commit.0.saturating_add(1)).min(self.end()?);
        self.file.set_len(end).map_err(io)
    }

    fn end(&mut self) -> Result<u64> {
        self.file.seek(SeekFrom::End(0)).map_err(io)
    }

    /// The sums of the pages behind `commit`.
    fn beyond(&mut self, commit: PageCount, mut each: impl FnMut(PageSum)) -> Result<()> {
        let mut next = u64::from(commit.0) + 1;
        while next <= u64::from(self.commit.0) {
            let count = (u64::from(self.commit.0) - next + 1).min(RUN as u64);
            if let Some(first) = u32::try_from(next).ok().and_then(PageNumber::new) {
                self.read(first, count as usize, &mut each)?;
            }
            next += count;
        }
        Ok(())
    }

    /// The sums that are there of `count` pages from `first` on.
    fn read(
        &mut self,
        first: PageNumber,
        count: usize,
        mut each: impl FnMut(PageSum),
    ) -> Result<()> {
        self.file
            .seek(SeekFrom::Start(offset(first.get())))
            .map_err(io)?;
        let mut bytes = Vec::with_capacity(count * PageSum::BYTES);
        let limit = (count * PageSum::BYTES) as u64;
        (&mut self.file)
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(io)?;
        let entries = bytes.as_chunks::<{ PageSum::BYTES }>().0.iter();
        entries.filter_map(PageSum::from_bytes).for_each(&mut each);
        Ok(())
    }

    fn write(&mut self, first: PageNumber, sums: &[PageSum]) -> Result<()> {
        let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_bytes()).collect();
        self.file
            .seek(SeekFrom::Start(offset(first.get())))
            .and_then(|_| self.file.write_all(&bytes))
            .map_err(io)
    }
}

fn offset(page: u32) -> u64 {
    u64::from(page.saturating_sub(1)) * PageSum::BYTES as u64
}

/// Takes the sums of a set of pages away from those of a larger one.
fn subtract(sum: &mut DatabaseSum, gone: DatabaseSum) {
    sum.remove(PageSum {
        crc: gone.checksum.get(),
        hash: gone.digest.get(),
    });
}

fn io(error: std::io::Error) -> Error {
    Error::io("the sums of the pages", error).hint("room for temporary files: TMPDIR")
}
