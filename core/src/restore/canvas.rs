//! The database that is being put together: each page is written once, the newest version first.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::large::{Section, Surface};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Page;
use crate::types::{DatabaseSum, PageCount, PageNumber, PageSize, PageSum};

/// Bytes that are gathered before they are written: a page of 512 bytes alone is hardly worth a call.
const RUN_BYTES: usize = 256 * 1024;

/// Gets the sum of each page as it is written, in no order.
pub trait PageSink: Send + Sync {
    /// The pages from `first` on have these sums.
    fn put(&self, first: PageNumber, sums: &[PageSum]) -> Result<()>;
}

/// A database file under construction. Shared by the threads that decode.
pub(super) struct Canvas {
    file: File,
    path: PathBuf,
    page_size: PageSize,
    commit: PageCount,
    /// One bit a page.
    done: Box<[AtomicU64]>,
    written: AtomicU64,
    sum: Mutex<DatabaseSum>,
    sink: Option<Box<dyn PageSink>>,
}

impl Canvas {
    /// An empty database of `commit` pages in `file`, which is at `path`.
    pub(super) fn new(
        file: File,
        path: PathBuf,
        page_size: PageSize,
        commit: PageCount,
        sink: Option<Box<dyn PageSink>>,
    ) -> Result<Self> {
        file.set_len(page_size.total(commit))
            .map_err(|error| Error::io(path.display(), error))?;
        // Zeroed memory costs nothing before it is touched, so a header that lies about the size does no
        // harm here.
        let words = usize::try_from(commit.0.div_ceil(64)).unwrap_or(0);
        let done = vec![0_u64; words].into_iter().map(AtomicU64::new).collect();
        Ok(Self {
            file,
            path,
            page_size,
            commit,
            done,
            written: AtomicU64::new(0),
            sum: Mutex::new(DatabaseSum::EMPTY),
            sink,
        })
    }

    /// Size of a page.
    pub(super) const fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Pages of the finished database.
    pub(super) const fn commit(&self) -> PageCount {
        self.commit
    }

    /// Bytes written so far.
    pub(super) fn bytes_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed) * self.page_size.bytes() as u64
    }

    /// Whether `page` was not written before; from now on it counts as written.
    fn claim(&self, page: PageNumber) -> bool {
        let index = page.get() - 1;
        let bit = 1 << (index % 64);
        let word = usize::try_from(index / 64)
            .ok()
            .and_then(|word| self.done.get(word));
        word.is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit == 0)
    }

    /// A writer for the pages of one file, or of one section of it. Pages behind `limit` were cut off
    /// later and are left out.
    fn brush(&self, limit: PageCount) -> Brush<'_> {
        Brush {
            canvas: self,
            limit: limit.min(self.commit),
            first: None,
            run: Vec::new(),
            sums: Vec::new(),
            total: DatabaseSum::EMPTY,
            pages: 0,
        }
    }

    /// The sums over the pages, once there is one of each.
    ///
    /// Errors: `Corrupt`, naming the first page that no file held.
    pub(super) fn finish(&self) -> Result<DatabaseSum> {
        let lock = self.page_size.lock_page();
        let expected = u64::from(self.commit.0) - u64::from(self.commit.holds(lock));
        if self.written.load(Ordering::Relaxed) != expected {
            let missing = self.first_missing(lock).map_or(0, PageNumber::get);
            let message = format!("no file of the chain holds page {missing}");
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let sum = self
            .sum
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(*sum)
    }

    fn first_missing(&self, lock: PageNumber) -> Option<PageNumber> {
        let words = (0_u32..).zip(&self.done);
        let clear = words.flat_map(|(index, word)| {
            let word = word.load(Ordering::Relaxed);
            let bits = if word == u64::MAX { 0..0 } else { 0..64 };
            bits.filter(move |bit| word & (1 << bit) == 0)
                .filter_map(move |bit| {
                    PageNumber::new(index.checked_mul(64)?.checked_add(bit)?.checked_add(1)?)
                })
        });
        clear
            .into_iter()
            .find(|page| *page != lock && self.commit.holds(*page))
    }

    /// Makes all pages durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|error| Error::io(self.path.display(), error))
    }
}

/// The canvas for the pages of one file. Those behind `limit` were cut off later.
pub(super) struct Layer {
    pub(super) canvas: Arc<Canvas>,
    pub(super) limit: PageCount,
}

impl Surface for Layer {
    fn section(&self) -> Box<dyn Section + '_> {
        Box::new(self.canvas.brush(self.limit))
    }
}

/// Gathers pages that follow each other and writes them together.
struct Brush<'a> {
    canvas: &'a Canvas,
    limit: PageCount,
    /// The first page of the run.
    first: Option<PageNumber>,
    run: Vec<u8>,
    sums: Vec<PageSum>,
    total: DatabaseSum,
    pages: u64,
}

impl Brush<'_> {
    fn flush(&mut self) -> Result<()> {
        let Some(first) = self.first.take() else {
            return Ok(());
        };
        let offset = self.canvas.page_size.offset(first);
        self.canvas
            .file
            .write_all_at(&self.run, offset)
            .map_err(|error| Error::io(self.canvas.path.display(), error))?;
        if let Some(sink) = &self.canvas.sink {
            sink.put(first, &self.sums)?;
        }
        self.pages += self.sums.len() as u64;
        self.run.clear();
        self.sums.clear();
        Ok(())
    }
}

impl Section for Brush<'_> {
    /// Writes `page` unless a newer file held it or cut it off.
    fn page(&mut self, page: Page<'_>) -> Result<()> {
        if !self.limit.holds(page.number) || !self.canvas.claim(page.number) {
            return Ok(());
        }
        let follows = self.first.is_some_and(|first| {
            u64::from(first.get()) + self.sums.len() as u64 == u64::from(page.number.get())
        });
        if !follows || self.run.len() >= RUN_BYTES {
            self.flush()?;
            self.first = Some(page.number);
        }
        let sum = page.sum();
        self.total.add(sum);
        self.sums.push(sum);
        self.run.extend_from_slice(page.data);
        Ok(())
    }

    /// Writes what is left.
    fn finish(mut self: Box<Self>) -> Result<()> {
        self.flush()?;
        let mut sum = self
            .canvas
            .sum
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        sum.join(self.total);
        self.canvas.written.fetch_add(self.pages, Ordering::Relaxed);
        Ok(())
    }
}
