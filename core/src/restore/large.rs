//! One large file: fetched by parallel ranged reads, cut into sections, decoded on all cores.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::feed::Feed;
use super::frames::{Piece, Splitter};
use super::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{
    DecodeError, Decoder, FileCheck, HEADER_BYTES, Header, Page, SectionSum, Verified,
    decode_section,
};
use crate::store::Store;

/// Bytes of one ranged read. With [`PARTS_IN_FLIGHT`] they fill a fast line over a long way: 12 MiB every
/// 100 ms are a gigabit a second. Twice as much would not fit into 64 MiB with what is being decoded.
const PART: u64 = 2 * 1024 * 1024;
const PARTS_IN_FLIGHT: usize = 6;
/// Parts that arrived and wait for a core.
const PARTS_WAITING: usize = 1;

/// A file to read.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) object: String,
    /// Its size, which must be right.
    pub(crate) size: u64,
    pub(crate) progress: Arc<dyn Progress>,
}

/// Where a file's pages go once its header is known. Also the place for all checks of the header.
pub(crate) trait Target: Send + Sync + 'static {
    /// Called again where a file has to be read anew; what came until then does not count.
    ///
    /// Errors: those of a header that does not fit the chain.
    fn open(&self, header: &Header) -> Result<Arc<dyn Surface>>;
}

/// Takes the pages of one file, section by section, side by side.
pub(crate) trait Surface: Send + Sync {
    /// A place for the pages of one section.
    fn section(&self) -> Box<dyn Section + '_>;
}

/// Takes the pages of one section.
pub(crate) trait Section {
    /// The next page.
    fn page(&mut self, page: Page<'_>) -> Result<()>;

    /// There are no more pages.
    fn finish(self: Box<Self>) -> Result<()>;
}

impl Source {
    /// Reads the whole file. Errors name the object.
    pub(super) async fn read(&self, target: &Arc<dyn Target>) -> Result<Verified> {
        let verified = match self.read_in_sections(target).await {
            Ok(Some(verified)) => Ok(verified),
            Ok(None) => self.read_in_order(target).await,
            Err(error) => Err(error),
        };
        verified.map_err(|error| error.on(&self.object))
    }

    fn parts(&self) -> impl Iterator<Item = Range<u64>> + Send + use<> {
        let size = self.size;
        (0..size.div_ceil(PART)).map(move |part| part * PART..size.min((part + 1) * PART))
    }

    /// Sends the file's bytes in order.
    async fn fetch(&self, bytes: mpsc::Sender<Result<Bytes>>, counted: bool) -> Result<()> {
        let mut parts = stream::iter(self.parts())
            .map(|range| self.fetch_part(range))
            .buffered(PARTS_IN_FLIGHT);
        while let Some(part) = parts.next().await {
            let part = part?;
            if counted {
                self.progress.downloaded(part.len() as u64);
            }
            if bytes.send(Ok(part)).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn fetch_part(&self, range: Range<u64>) -> Result<Bytes> {
        let length = range.end - range.start;
        let object = self.store.get(&self.object, Some(range)).await?;
        if object.meta.size != self.size || object.bytes.len() as u64 != length {
            return Err(wrong_size(self.size, object.meta.size));
        }
        Ok(object.bytes)
    }

    /// Nothing if the frames name no lengths.
    async fn read_in_sections(&self, target: &Arc<dyn Target>) -> Result<Option<Verified>> {
        let (sender, receiver) = mpsc::channel(PARTS_WAITING);
        let decode = async {
            let sections = Sections::new(target.clone());
            match sections.read(receiver).await {
                Ok(verified) => Ok(Some(verified)),
                Err(Stop::NoLengths) => Ok(None),
                Err(Stop::Error(error)) => Err(error),
            }
        };
        let (fetched, decoded) = futures_util::join!(self.fetch(sender, true), decode);
        // What failed on the way explains a file that seems to end early.
        fetched.and(decoded)
    }

    /// One thread reads page after page.
    async fn read_in_order(&self, target: &Arc<dyn Target>) -> Result<Verified> {
        let (sender, feed) = Feed::new(PARTS_WAITING);
        let target = target.clone();
        let decode = tokio::task::spawn_blocking(move || read_all(feed, target.as_ref()));
        let (fetched, decoded) = futures_util::join!(self.fetch(sender, false), decode);
        fetched.and(joined(decoded)?)
    }
}

/// The size of an object is not what index or listing say.
pub(super) fn wrong_size(expected: u64, found: u64) -> Error {
    let message = format!("the object has {found} bytes, not {expected}");
    Error::new(ErrorKind::Corrupt, message)
}

/// Reads a file from its first byte to its last and hands its pages on.
pub(super) fn read_all(source: impl std::io::Read, target: &dyn Target) -> Result<Verified> {
    let mut decoder = Decoder::new(source)?;
    let surface = target.open(decoder.header())?;
    let mut section = surface.section();
    let mut data = Vec::new();
    while let Some(page) = decoder.next_summed(&mut data)? {
        section.page(page)?;
    }
    section.finish()?;
    Ok(decoder.finish()?)
}

/// What a blocking task gave; a panic of it is a defect of ours.
pub(crate) fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T> {
    result.map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))
}

enum Stop {
    NoLengths,
    Error(Error),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// Decodes sections as they come.
struct Sections {
    target: Arc<dyn Target>,
    open: Option<Open>,
    running: VecDeque<JoinHandle<Result<SectionSum>>>,
    cores: usize,
}

struct Open {
    check: FileCheck,
    surface: Arc<dyn Surface>,
}

impl Sections {
    fn new(target: Arc<dyn Target>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8));
        Self {
            target,
            open: None,
            running: VecDeque::new(),
            cores,
        }
    }

    async fn read(mut self, mut bytes: mpsc::Receiver<Result<Bytes>>) -> Result<Verified, Stop> {
        let mut splitter = Splitter::new();
        let mut tail = Vec::new();
        while tail.is_empty() {
            match bytes.recv().await {
                Some(part) => splitter.push(part?),
                None => break,
            }
            while let Some(piece) = splitter.next() {
                match piece {
                    Piece::Header(header) => self.open(&header)?,
                    Piece::Frames { range, bytes } => self.decode(range, bytes).await?,
                    Piece::Tail(bytes) => tail.push(bytes),
                    Piece::Unknown => return Err(Stop::NoLengths),
                }
            }
        }
        if splitter.end().is_some() {
            // A frame that was cut off: reading in order says where.
            return Err(Stop::NoLengths);
        }
        while !self.running.is_empty() {
            self.collect().await?;
        }
        let Some(Open { check, .. }) = self.open.take() else {
            return Err(DecodeError::Truncated { offset: 0 }.into());
        };
        let (sender, feed) = Feed::new(PARTS_WAITING);
        let finish = tokio::task::spawn_blocking(move || check.finish(feed));
        let send = async move {
            for piece in tail {
                let _ = sender.send(Ok(piece)).await;
            }
            while let Some(part) = bytes.recv().await {
                if sender.send(part).await.is_err() {
                    break;
                }
            }
        };
        let (finished, ()) = futures_util::join!(finish, send);
        Ok(joined(finished)??)
    }

    fn open(&mut self, header: &[u8]) -> Result<()> {
        let check = FileCheck::new(header)?;
        let surface = self.target.open(check.header())?;
        self.open = Some(Open { check, surface });
        Ok(())
    }

    async fn decode(&mut self, range: Range<u64>, bytes: Bytes) -> Result<(), Stop> {
        let Some(Open { check, surface }) = &self.open else {
            return Err(DecodeError::Truncated {
                offset: HEADER_BYTES as u64,
            }
            .into());
        };
        let (header, surface) = (check.header().clone(), surface.clone());
        self.running.push_back(tokio::task::spawn_blocking(move || {
            let mut section = surface.section();
            let sum = decode_section(&header, range, bytes.as_ref(), |page| section.page(page))?;
            section.finish()?;
            Ok(sum)
        }));
        // One more than cores, so that none waits for the next.
        if self.running.len() > self.cores {
            self.collect().await?;
        }
        Ok(())
    }

    async fn collect(&mut self) -> Result<(), Stop> {
        if let (Some(section), Some(open)) = (self.running.pop_front(), &mut self.open) {
            let sum = joined(section.await)??;
            open.check.section(&sum)?;
        }
        Ok(())
    }
}

impl Drop for Sections {
    /// A section that has not begun need not; one that has ends by itself and keeps what it needs.
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}
