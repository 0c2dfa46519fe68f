//! One file read to its end: what it says of itself, and the sums of its pages.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::SpooledTempFile;

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Header, Page, Verified};
use crate::manifest::is_damage;
use crate::restore::{Arrived, Section, Source, Surface, Target, read};
use crate::types::{DatabaseSum, PageNumber, PageSum, TxidRange};

/// Below this size the sums of a file's pages stay in memory: 37,000 pages.
const IN_MEMORY: usize = 1 << 20;

/// Page number and sum.
const RECORD: usize = 4 + PageSum::BYTES;

/// A file whose every byte was read and is right, and the sums of its pages.
pub(super) struct Contents {
    pub(super) verified: Verified,
    /// Over its pages alone.
    pub(super) sum: DatabaseSum,
    pages: SpooledTempFile,
}

/// Why a file is not what it should be.
#[derive(Debug)]
pub(super) enum Unread {
    /// Its header.
    Header(Error),
    /// What follows that.
    Data(Error),
    /// Nothing is said about the file: it could not be fetched.
    Unfetched(Error),
    /// Nothing is said about the file: there is trouble here.
    Failed(Error),
}

impl Contents {
    /// Reads the file that arrived, which must cover `range`. Long lists of pages wait in `scratch`.
    pub(super) async fn read(
        source: &Source,
        arrived: Result<Arrived>,
        range: TxidRange,
        scratch: &Path,
    ) -> Result<Self, Unread> {
        let collector = Arc::new(Collector {
            range,
            scratch: scratch.to_owned(),
            current: Mutex::default(),
        });
        let target: Arc<dyn Target> = collector.clone();
        let verified = match arrived {
            Ok(arrived) => read(source, arrived, &target).await,
            Err(error) => Err(error),
        };
        let pages = lock(&collector.current).take();
        match (verified, pages) {
            (Ok(verified), Some(pages)) => {
                let mut taken = lock(&pages.taken);
                let empty = Taken::empty(scratch);
                let Taken { sum, file } = std::mem::replace(&mut *taken, empty);
                Ok(Self {
                    verified,
                    sum,
                    pages: file,
                })
            }
            (Ok(_), None) => {
                let message = "a file without a header was read";
                Err(Unread::Failed(Error::new(ErrorKind::Internal, message)))
            }
            (Err(error), Some(pages)) if pages.is_broken() => Err(Unread::Failed(error)),
            (Err(error), _) if !is_damage(&error) => Err(Unread::Unfetched(error)),
            (Err(error), None) => Err(Unread::Header(error)),
            (Err(error), Some(_)) => Err(Unread::Data(error)),
        }
    }

    /// Gives the sums in runs of at most `most` pages that follow each other.
    pub(super) fn runs(
        &mut self,
        most: usize,
        mut each: impl FnMut(PageNumber, &[PageSum]) -> Result<()>,
    ) -> Result<()> {
        self.pages.seek(SeekFrom::Start(0)).map_err(io)?;
        let mut run = Run::default();
        let mut bytes = Vec::with_capacity(most * RECORD);
        loop {
            bytes.clear();
            (&mut self.pages)
                .take((most * RECORD) as u64)
                .read_to_end(&mut bytes)
                .map_err(io)?;
            for record in bytes.as_chunks::<RECORD>().0 {
                let Some((page, sum)) = parse(record) else {
                    continue;
                };
                if !run.takes(page, most) {
                    run.give(&mut each)?;
                }
                run.push(page, sum);
            }
            if bytes.is_empty() {
                return run.give(&mut each);
            }
        }
    }
}

#[derive(Default)]
struct Run {
    first: Option<PageNumber>,
    sums: Vec<PageSum>,
}

impl Run {
    fn takes(&self, page: PageNumber, most: usize) -> bool {
        self.sums.len() < most
            && self.first.is_none_or(|first| {
                u64::from(first.get()) + self.sums.len() as u64 == u64::from(page.get())
            })
    }

    fn push(&mut self, page: PageNumber, sum: PageSum) {
        self.first.get_or_insert(page);
        self.sums.push(sum);
    }

    fn give(&mut self, each: &mut impl FnMut(PageNumber, &[PageSum]) -> Result<()>) -> Result<()> {
        if let Some(first) = self.first.take() {
            each(first, &self.sums)?;
            self.sums.clear();
        }
        Ok(())
    }
}

fn parse(record: &[u8; RECORD]) -> Option<(PageNumber, PageSum)> {
    let (number, sum) = record.split_first_chunk::<4>()?;
    let page = PageNumber::new(u32::from_be_bytes(*number))?;
    Some((page, PageSum::from_bytes(sum.first_chunk()?)?))
}

fn io(error: std::io::Error) -> Error {
    Error::io("the sums of a file's pages", error).hint("room for temporary files: TMPDIR")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks the header and collects the pages.
struct Collector {
    range: TxidRange,
    scratch: PathBuf,
    /// A file that has to be read anew has a new one: sections of the former reading may still run.
    current: Mutex<Option<Arc<Pages>>>,
}

impl Target for Collector {
    fn open(&self, header: &Header) -> Result<Arc<dyn Surface>> {
        if header.range != self.range {
            let message = format!(
                "it holds TXIDs {}, its name says {}",
                header.range, self.range
            );
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let pages = Arc::new(Pages {
            taken: Mutex::new(Taken::empty(&self.scratch)),
            broken: AtomicBool::new(false),
        });
        *lock(&self.current) = Some(pages.clone());
        Ok(pages)
    }
}

struct Pages {
    taken: Mutex<Taken>,
    /// The scratch file cannot be written.
    broken: AtomicBool,
}

impl Pages {
    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

struct Taken {
    sum: DatabaseSum,
    file: SpooledTempFile,
}

impl Taken {
    fn empty(scratch: &Path) -> Self {
        Self {
            sum: DatabaseSum::EMPTY,
            file: tempfile::spooled_tempfile_in(IN_MEMORY, scratch),
        }
    }
}

impl Surface for Pages {
    fn section(&self) -> Box<dyn Section + '_> {
        Box::new(Part {
            pages: self,
            sum: DatabaseSum::EMPTY,
            records: Vec::new(),
        })
    }
}

/// The pages of one section.
struct Part<'a> {
    pages: &'a Pages,
    sum: DatabaseSum,
    records: Vec<u8>,
}

impl Part<'_> {
    fn flush(&mut self) -> Result<()> {
        let mut taken = lock(&self.pages.taken);
        let written = taken.file.write_all(&self.records);
        self.records.clear();
        written.map_err(|error| {
            self.pages.broken.store(true, Ordering::Relaxed);
            io(error)
        })
    }
}

impl Section for Part<'_> {
    fn page(&mut self, page: Page<'_>) -> Result<()> {
        let sum = page.sum();
        self.sum.add(sum);
        self.records
            .extend_from_slice(&page.number.get().to_be_bytes());
        self.records.extend_from_slice(&sum.to_bytes());
        // A section of tiny frames has many pages.
        if self.records.len() >= IN_MEMORY / 4 {
            self.flush()?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.flush()?;
        lock(&self.pages.taken).sum.join(self.sum);
        Ok(())
    }
}
