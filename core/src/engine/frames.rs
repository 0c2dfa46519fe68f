//! What one stretch of the WAL changed: which pages, where their newest content lies, how many commits.

use std::fs::File;

use roaring::RoaringBitmap;
use xxhash_rust::xxh3::xxh3_64;

use super::sizes::SizeHistory;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::WalSpan;
use crate::types::{PageCount, PageNumber};
use crate::wal::{self, FRAME_HEADER_BYTES, Frame, ScanError, WalCursor, WalEnd, frame_offset};

/// Frames that are collected before older ones of the same page are dropped; beyond it the list stays below
/// two entries a page, 8 bytes each, all in memory.
const COLLECTED: usize = 1 << 18;

/// The changes between a cursor and the end that a newer transaction sees.
pub(crate) struct Stretch {
    /// Where it began.
    pub(crate) from: WalCursor,
    /// Where it ended.
    pub(crate) end: WalCursor,
    /// Every page that has a frame.
    pub(crate) touched: RoaringBitmap,
    /// The sizes along the way.
    pub(crate) sizes: SizeHistory,
    /// Committed transactions.
    pub(crate) commits: u64,
    newest: Vec<(u32, u32)>,
}

impl Stretch {
    /// Reads and verifies the frames behind `from` up to exactly `end`.
    pub(crate) fn scan(
        wal: &File,
        from: &WalCursor,
        end: &WalEnd,
        before: PageCount,
    ) -> std::result::Result<Self, ScanError> {
        let mut collected = Collector {
            touched: RoaringBitmap::new(),
            sizes: SizeHistory::new(before),
            commits: 0,
            newest: Vec::new(),
            last: None,
        };
        let mut buffer = Vec::new();
        let at = wal::scan(wal, from, end, &mut buffer, &mut |frame| {
            collected.take(&frame);
            Ok(())
        })?;
        let mut newest = collected.newest;
        compact(&mut newest);
        Ok(Self {
            from: *from,
            end: at,
            touched: collected.touched,
            sizes: collected.sizes,
            commits: collected.commits,
            newest,
        })
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
    /// it has no frame, or was cut off after its last one.
    pub(crate) fn frame_of(&self, page: PageNumber) -> Option<u32> {
        let at = self
            .newest
            .binary_search_by_key(&page.get(), |(page, _)| *page)
            .ok()?;
        let (_, frame) = self.newest.get(at)?;
        (*frame > self.sizes.last_absence(page)).then_some(*frame)
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

struct Collector {
    touched: RoaringBitmap,
    sizes: SizeHistory,
    commits: u64,
    newest: Vec<(u32, u32)>,
    /// Page, size and content of the frame before, if it ended a commit.
    last: Option<(PageNumber, PageCount, u64)>,
}

impl Collector {
    fn take(&mut self, frame: &Frame<'_>) {
        self.touched.insert(frame.page.get());
        self.newest.push((frame.page.get(), frame.number));
        if self.newest.len() >= COLLECTED.max(2 * self.touched.len() as usize) {
            compact(&mut self.newest);
        }
        let Some(size) = frame.commit else {
            self.last = None;
            return;
        };
        self.sizes.commit(frame.number, size);
        let commit = (frame.page, size, xxh3_64(frame.data));
        // SQLite pads a commit to the disk's sector by repeating its last frame: one transaction.
        if self.last != Some(commit) {
            self.commits += 1;
        }
        self.last = Some(commit);
    }
}

/// Keeps the newest frame of each page, sorted by page.
fn compact(newest: &mut Vec<(u32, u32)>) {
    newest.sort_unstable_by_key(|(page, frame)| (*page, u32::MAX - *frame));
    newest.dedup_by_key(|(page, _)| *page);
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
