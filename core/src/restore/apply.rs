//! From a chain of files to the pages of the database: newest file first, so that each page is written
//! once.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::mpsc;

use super::arrive::{Arrived, fetch_all, read};
use super::canvas::{Canvas, Layer, PageSink};
use super::large::{Source, Surface, Target, joined};
use super::links::{Broken, Expected, Links};
use super::plan::LtxChain;
use super::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Header, Verified};
use crate::manifest::{Catalog, CatalogFile, FileEntry, FileKey, IN_FLIGHT, is_damage};
use crate::store::Store;
use crate::types::{DatabaseSum, PageCount, PageSize};

/// A database that was put together and proved.
#[derive(Debug)]
pub(super) struct Applied {
    /// The file that holds every page.
    pub(super) base: FileKey,
    /// Files applied over it.
    pub(super) segments: u64,
    /// The youngest file.
    pub(super) last: Verified,
    pub(super) sum: DatabaseSum,
    pub(super) page_size: PageSize,
    pub(super) commit: PageCount,
    pub(super) bytes_written: u64,
}

/// Why a chain was not applied.
#[derive(Debug)]
pub(super) enum Trouble {
    /// An object is gone. Perhaps a compaction took it away.
    Gone(FileKey, Error),
    /// An object is damaged, or does not fit the others.
    Damaged(FileKey, Error),
    /// Headers tell of writers that the plan did not know of.
    Learned(FileKey, Vec<FileEntry>, Error),
    /// Anything else.
    Failed(Error),
}

/// Gives the sink for the sums of a database's pages, once its page size is known.
pub(super) type OpenSink = Box<dyn Fn(PageSize) -> Result<Box<dyn PageSink>> + Send + Sync>;

/// What all files of a chain share.
struct Shared {
    links: Mutex<Links>,
    canvas: OnceLock<Arc<Canvas>>,
    /// Taken when the canvas is made.
    file: Mutex<Option<File>>,
    path: PathBuf,
    sink: Option<OpenSink>,
    learned: Mutex<Vec<FileEntry>>,
    /// What a header showed that is no damage of its file.
    writer: Mutex<Option<Error>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn canvas(&self, header: &Header) -> Result<Arc<Canvas>> {
        if let Some(canvas) = self.canvas.get() {
            return Ok(canvas.clone());
        }
        let file = lock(&self.file).take();
        let file =
            file.ok_or_else(|| Error::new(ErrorKind::Internal, "the staged file is taken"))?;
        let sink = self
            .sink
            .as_ref()
            .map(|open| open(header.page_size))
            .transpose()?;
        let path = self.path.clone();
        let canvas = Canvas::new(file, path, header.page_size, header.commit, sink)?;
        Ok(self.canvas.get_or_init(|| Arc::new(canvas)).clone())
    }
}

/// One file's way to the canvas.
struct FileTarget {
    shared: Arc<Shared>,
    key: FileKey,
    size: u64,
}

impl Target for FileTarget {
    fn open(&self, header: &Header) -> Result<Arc<dyn Surface>> {
        let limit = match lock(&self.shared.links).check_header(self.key.range(), header) {
            Ok(limit) => limit,
            Err(Broken::File(error)) => return Err(error),
            Err(Broken::Writer(error)) => {
                self.learn(header);
                let copy = Error::new(error.kind(), error.message());
                *lock(&self.shared.writer) = Some(copy);
                return Err(error);
            }
        };
        self.learn(header);
        let canvas = self.shared.canvas(header)?;
        Ok(Arc::new(Layer { canvas, limit }))
    }
}

impl FileTarget {
    fn learn(&self, header: &Header) {
        let entry = FileEntry::from_header(self.key, self.size, header, None, None);
        lock(&self.shared.learned).push(entry);
    }
}

/// Fetches and applies chains.
pub(super) struct Applier<'a> {
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) catalog: &'a Catalog,
    pub(super) progress: &'a Arc<dyn Progress>,
}

impl Applier<'_> {
    /// Writes the pages of `chain` to `file`, which is empty and lies at `path`, and proves them.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends all requests; `file` is then of no use.
    pub(super) async fn apply(
        &self,
        chain: &LtxChain,
        file: File,
        path: PathBuf,
        sink: Option<OpenSink>,
    ) -> Result<Applied, Trouble> {
        let shared = Arc::new(Shared {
            links: Mutex::default(),
            canvas: OnceLock::new(),
            file: Mutex::new(Some(file)),
            path,
            sink,
            learned: Mutex::default(),
            writer: Mutex::default(),
        });
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let wanted = chain.files().iter().rev().map(|file| self.source(file));
        let fetch = fetch_all(wanted.collect(), sender);
        let read = self.read_all(chain, &shared, receiver);
        // The reader ends first where a base makes older files unnecessary.
        let read = async {
            futures_util::pin_mut!(fetch, read);
            match futures_util::future::select(read, fetch).await {
                futures_util::future::Either::Left((read, _)) => read,
                futures_util::future::Either::Right(((), read)) => read.await,
            }
        };
        let (verified, base, segments) = read.await?;
        let canvas = shared.canvas.get().ok_or_else(|| {
            Trouble::Failed(Error::new(ErrorKind::Internal, "a chain without files"))
        })?;
        let last = chain.last().map_or(base, |file| file.key);
        let entry = self
            .catalog
            .file(last)
            .and_then(|file| file.entry.as_deref());
        let damaged = |error: Error| Trouble::Damaged(last, error.on(self.catalog.object(last)));
        let sum = canvas.finish().map_err(damaged)?;
        Expected::of(&verified, entry).check(sum).map_err(damaged)?;
        self.check_head(last, sum).map_err(damaged)?;
        self.sync(canvas).await.map_err(Trouble::Failed)?;
        Ok(Applied {
            base,
            segments,
            last: verified,
            sum,
            page_size: canvas.page_size(),
            commit: canvas.commit(),
            bytes_written: canvas.bytes_written(),
        })
    }

    /// Makes the pages durable before the file gets its name.
    async fn sync(&self, canvas: &Arc<Canvas>) -> Result<()> {
        let canvas = canvas.clone();
        joined(tokio::task::spawn_blocking(move || canvas.sync()).await)?
    }

    /// The index names the state at its head; the files must lead to it.
    fn check_head(&self, last: FileKey, sum: DatabaseSum) -> Result<()> {
        match self.catalog.head() {
            Some(head) if head.txid == last.range().max() => Expected {
                checksum: head.checksum,
                digest: head.digest,
            }
            .check(sum),
            _ => Ok(()),
        }
    }

    fn source(&self, file: &CatalogFile) -> Source {
        Source {
            store: self.store.clone(),
            object: self.catalog.object(file.key),
            size: file.size,
            progress: self.progress.clone(),
        }
    }

    /// Reads the files as they arrive, until one of them holds every page.
    async fn read_all(
        &self,
        chain: &LtxChain,
        shared: &Arc<Shared>,
        mut arrived: mpsc::Receiver<Result<Arrived>>,
    ) -> Result<(Verified, FileKey, u64), Trouble> {
        let mut newest = None;
        let mut last_key = None;
        for (segments, file) in (0..).zip(chain.files().iter().rev()) {
            let Some(arrived) = arrived.recv().await else {
                break;
            };
            let trouble = |error| self.trouble(file.key, shared, error);
            let verified = self
                .read(file, shared, arrived.map_err(trouble)?)
                .await
                .map_err(trouble)?;
            let whole = verified.header.holds_every_page();
            let newest = newest.get_or_insert(verified);
            if whole {
                return Ok((newest.clone(), file.key, segments));
            }
            last_key = Some(file.key);
        }
        let message = "the first file of the chain does not hold every page";
        let error = Error::new(ErrorKind::Corrupt, message);
        Err(match last_key {
            Some(key) => Trouble::Damaged(key, error.on(self.catalog.object(key))),
            None => Trouble::Failed(error),
        })
    }

    async fn read(
        &self,
        file: &CatalogFile,
        shared: &Arc<Shared>,
        arrived: Arrived,
    ) -> Result<Verified> {
        let target: Arc<dyn Target> = Arc::new(FileTarget {
            shared: shared.clone(),
            key: file.key,
            size: file.size,
        });
        let verified = read(&self.source(file), arrived, &target).await?;
        lock(&shared.links).add(&verified, file.entry.as_deref())?;
        Ok(verified)
    }

    fn trouble(&self, key: FileKey, shared: &Shared, error: Error) -> Trouble {
        let error = error.on(self.catalog.object(key));
        if let Some(error) = lock(&shared.writer).take() {
            let learned = std::mem::take(&mut *lock(&shared.learned));
            return Trouble::Learned(key, learned, error.on(self.catalog.object(key)));
        }
        match error.kind() {
            ErrorKind::NotFound => Trouble::Gone(key, error),
            _ if is_damage(&error) => Trouble::Damaged(key, error),
            _ => Trouble::Failed(error),
        }
    }
}
