//! What one stretch of the WAL changed: which pages, where their newest content lies, how many commits.

use std::fs::File;
use std::iter::Peekable;
use std::path::Path;

use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64;

use super::sizes::SizeHistory;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::WalSpan;
use crate::state::{FrameSorter, SortedFrames};
use crate::types::{PageCount, PageNumber};
use crate::wal::{self, FRAME_HEADER_BYTES, Frame, ScanError, WalCursor, WalEnd, frame_offset};

/// The changes between a cursor and the end that a newer transaction sees.
pub(crate) struct Stretch {
    /// Where it began.
    pub(crate) from: WalCursor,
    /// Where it ended.
    pub(crate) end: WalCursor,
    pub(crate) changes: Changes,
}

/// What frames change, whatever their content.
pub(crate) struct Changes {
    /// Every page that has a frame.
    touched: RoaringBitmap,
    /// The sizes along the way.
    sizes: SizeHistory,
    /// Committed transactions.
    pub(crate) commits: u64,
    /// Page, size and content of the frame before, if it ended a commit.
    last: Option<(PageNumber, PageCount, u64)>,
}

impl Changes {
    /// None yet, from a database of `before` pages.
    pub(crate) fn new(before: PageCount) -> Self {
        Self {
            touched: RoaringBitmap::new(),
            sizes: SizeHistory::new(before),
            commits: 0,
            last: None,
        }
    }

    /// Takes the next frame, the `number`th of all.
    pub(crate) fn take(&mut self, frame: &Frame<'_>, number: u32) {
        self.touched.insert(frame.page.get());
        let Some(size) = frame.commit else {
            self.last = None;
            return;
        };
        self.sizes.commit(number, size);
        let commit = (frame.page, size, xxh3_64(frame.data));
        // SQLite pads a commit to the disk's sector by repeating its last frame: one transaction.
        if self.last != Some(commit) {
            self.commits += 1;
        }
        self.last = Some(commit);
    }

    /// The pages that may differ at a size of `count`, ascending: those with frames, and those that a
    /// shrink cut off and that came back.
    pub(crate) fn candidates(&self, count: PageCount) -> RoaringBitmap {
        let mut pages = self.touched.clone();
        let returned = self.sizes.smallest().0.saturating_add(1);
        if returned <= count.0 {
            pages.insert_range(returned..=count.0);
        }
        pages.remove_range(count.0.saturating_add(1)..);
        pages
    }
}

impl Stretch {
    /// Reads and verifies the frames behind `from` up to exactly `end`. What does not fit into memory goes to
    /// nameless files in `scratch`.
    pub(crate) fn scan(
        wal: &File,
        from: &WalCursor,
        end: &WalEnd,
        before: PageCount,
        scratch: &Path,
    ) -> std::result::Result<(Self, NewestFrames), ScanError> {
        let mut changes = Changes::new(before);
        let mut newest = FrameSorter::new(scratch);
        let mut buffer = Vec::new();
        let at = wal::scan(wal, from, end, &mut buffer, &mut |frame| {
            changes.take(&frame, frame.number);
            newest.push(frame.page, frame.number)
        })?;
        let frames = newest.finish().map_err(ScanError::Sink)?;
        let stretch = Self {
            from: *from,
            end: at,
            changes,
        };
        Ok((stretch, NewestFrames(frames.peekable())))
    }

    /// Frames covered.
    pub(crate) fn frames(&self) -> u32 {
        self.end.frame() - self.from.frame()
    }

    /// The stretch as file headers name it.
    pub(crate) fn span(&self) -> WalSpan {
        WalSpan {
            offset: self.from.offset(),
            size: self.end.offset() - self.from.offset(),
            salt: self.end.salt(),
        }
    }

    /// The frame with the content of `page` at the end, or nothing if the page must be asked of SQLite:
    /// it has no frame, or was cut off after its last one. Pages are asked for in ascending order.
    pub(crate) fn frame_of(
        &self,
        newest: &mut NewestFrames,
        page: PageNumber,
    ) -> Result<Option<u32>> {
        let frame = newest.of(page)?;
        Ok(frame.filter(|frame| *frame > self.changes.sizes.last_absence(page)))
    }

    /// Those of [`Changes::candidates`].
    pub(crate) fn candidates(&self, count: PageCount) -> RoaringBitmap {
        self.changes.candidates(count)
    }

    /// Every page of a database of `before` pages that may have another content afterwards, or none.
    pub(crate) fn disturbed(&self, before: PageCount) -> RoaringBitmap {
        self.candidates(before)
    }

    /// Reads the page of frame `number`.
    pub(crate) fn read(&self, wal: &File, number: u32, into: &mut Vec<u8>) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        let size = self.end.page_size();
        into.resize(size.bytes(), 0);
        let offset = frame_offset(size, number - 1) + FRAME_HEADER_BYTES as u64;
        wal.read_exact_at(into, offset)
            .map_err(|error| Error::io("write-ahead log", error))
    }
}

/// The newest frame of each page of a stretch, to be asked for in ascending order of the pages.
pub(crate) struct NewestFrames(Peekable<SortedFrames>);

impl NewestFrames {
    fn of(&mut self, page: PageNumber) -> Result<Option<u32>> {
        let before =
            |next: &Result<(PageNumber, u32)>| matches!(next, Ok((next, _)) if *next < page);
        while self.0.next_if(before).is_some() {}
        let here =
            |next: &Result<(PageNumber, u32)>| !matches!(next, Ok((next, _)) if *next != page);
        let found = self.0.next_if(here).transpose()?;
        Ok(found.map(|(_, frame)| frame))
    }
}

/// Why a stretch cannot be followed, as a reason for a rebase; errors of the file system are errors.
pub(crate) fn broken(error: ScanError) -> Result<(&'static str, String)> {
    match error {
        ScanError::EndsEarly { .. } => Ok(("wal_ends_early", error.to_string())),
        ScanError::Mismatch { .. } => Ok(("wal_checksum", error.to_string())),
        ScanError::NotContinuous { .. } => Ok(("wal_restarted", error.to_string())),
        ScanError::Io(error) => Err(Error::io("write-ahead log", error)),
        ScanError::Sink(error) => Err(error),
        #[allow(unreachable_patterns, reason = "a scan may learn to fail in more ways")]
        other => Err(Error::new(ErrorKind::Corrupt, other.to_string())),
    }
}
