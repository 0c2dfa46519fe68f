//! Snapshots and merged files, streamed from the moving database without holding it.
//!
//! A job stands for the pages of some set as they were at one TXID. It reads them in order from the
//! transaction that capture rests on. Before capture moves on, it gives the job the old version of
//! every page that changes and that the job has not passed: the *overlay*, a sparse file in which each
//! page lies at its own offset. So what comes out is exactly the state at the TXID, however long it
//! takes.

use std::path::Path;

use bytes::Bytes;
use roaring::RoaringBitmap;

use super::encode::FileMeta;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Encoder, Header, Page, Spill};
use crate::state::{Overlay, Spool};
use crate::store::Level;
use crate::types::{DatabaseSum, PageNumber, Position};

/// Which pages a job holds.
#[derive(Debug)]
pub(crate) enum PageSet {
    /// All: a snapshot, or the base after a lost lineage.
    All,
    /// Those that changed: a merged file.
    Some(RoaringBitmap),
}

impl PageSet {
    /// The first page at or behind `from`, up to `last`.
    fn at_or_after(&self, from: u32, last: u32) -> Option<u32> {
        let page = match self {
            Self::All => Some(from),
            Self::Some(pages) => pages.range(from..).next(),
        };
        page.filter(|page| *page <= last)
    }

    fn holds(&self, page: u32) -> bool {
        match self {
            Self::All => true,
            Self::Some(pages) => pages.contains(page),
        }
    }
}

/// What a step of a job gave.
#[derive(Debug)]
pub(crate) enum Piece {
    /// The next bytes of the file.
    Part(Bytes),
    /// The last bytes; the job is done.
    Last(Bytes),
}

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageKind {
    /// Every page: a restore may begin with it.
    Snapshot,
    /// Every page, as the next file of the chain.
    Base,
    /// The pages that changed over some period.
    Merged(Level),
}

/// One snapshot or merged file on its way.
pub(crate) struct ImageJob {
    kind: ImageKind,
    meta: FileMeta,
    header: Header,
    position: Position,
    pages: PageSet,
    /// The first page not yet encoded.
    next: u32,
    encoder: Option<Encoder<Vec<u8>>>,
    /// What is left to give of a file that is encoded.
    rest: Vec<u8>,
    /// Made when the first old page must be kept.
    overlay: Option<Overlay>,
    seen: DatabaseSum,
    /// Bytes given so far.
    size: u64,
    encoded_pages: u64,
}

impl std::fmt::Debug for ImageJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "ImageJob({:?}, {}, next page {})",
            self.kind, self.meta.range, self.next
        )
    }
}

impl ImageJob {
    /// A snapshot of `position`. A long page index waits in `directory`.
    pub(crate) fn snapshot(meta: FileMeta, position: Position, directory: &Path) -> Result<Self> {
        let kind = ImageKind::Snapshot;
        Self::new(
            kind,
            meta,
            DatabaseSum::EMPTY,
            position,
            PageSet::All,
            directory,
        )
    }

    /// A rebase with every page, behind a state with the sums `pre`.
    pub(crate) fn base(
        meta: FileMeta,
        pre: DatabaseSum,
        position: Position,
        directory: &Path,
    ) -> Result<Self> {
        Self::new(
            ImageKind::Base,
            meta,
            pre,
            position,
            PageSet::All,
            directory,
        )
    }

    /// The merged file that leads from `pre` to `position`.
    pub(crate) fn merge(
        meta: FileMeta,
        level: Level,
        pre: DatabaseSum,
        position: Position,
        pages: RoaringBitmap,
        directory: &Path,
    ) -> Result<Self> {
        let pages = PageSet::Some(pages);
        Self::new(
            ImageKind::Merged(level),
            meta,
            pre,
            position,
            pages,
            directory,
        )
    }

    fn new(
        kind: ImageKind,
        meta: FileMeta,
        pre: DatabaseSum,
        position: Position,
        pages: PageSet,
        directory: &Path,
    ) -> Result<Self> {
        let header = meta.header(pre, position.sum);
        let spill = Spill::Directory(directory.to_owned());
        let encoder = Encoder::new(header.encode().to_vec(), meta.page_size, meta.count, spill);
        Ok(Self {
            kind,
            meta,
            header,
            position,
            pages,
            next: 1,
            encoder: Some(encoder),
            rest: Vec::new(),
            overlay: None,
            seen: DatabaseSum::EMPTY,
            size: 0,
            encoded_pages: 0,
        })
    }

    /// What the job is for.
    pub(crate) fn kind(&self) -> ImageKind {
        self.kind
    }

    /// The file's header.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The state that the file leads to.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// Size of the finished file in bytes, and its pages.
    pub(crate) fn measures(&self) -> (u64, u64) {
        (self.size, self.encoded_pages)
    }

    /// Whether the old version of `page` must be saved before capture moves on.
    pub(crate) fn needs(&self, page: PageNumber) -> bool {
        let number = page.get();
        number >= self.next
            && self.meta.count.holds(page)
            && self.pages.holds(number)
            && !self
                .overlay
                .as_ref()
                .is_some_and(|overlay| overlay.holds(page))
    }

    /// Saves the old version of a page. Errors: Exhausted at the spool's limit.
    pub(crate) fn save(&mut self, page: PageNumber, data: &[u8], spool: &Spool) -> Result<()> {
        let overlay = match &mut self.overlay {
            Some(overlay) => overlay,
            none => none.insert(spool.overlay(self.meta.page_size)?),
        };
        overlay.keep(page, data)
    }

    /// Encodes until `part` bytes more are there, or the end; `read` gives a page as capture's resting transaction has
    /// it.
    pub(crate) fn step(
        &mut self,
        part: usize,
        read: &mut dyn FnMut(PageNumber, &mut Vec<u8>) -> Result<()>,
    ) -> Result<Piece> {
        let Some(mut encoder) = self.encoder.take() else {
            return Ok(self.give_rest(part));
        };
        let lock = self.meta.page_size.lock_page().get();
        let mut data = Vec::with_capacity(self.meta.page_size.bytes());
        while let Some(number) = self.pages.at_or_after(self.next, self.meta.count.0) {
            let Some(page) = PageNumber::new(number) else {
                break;
            };
            self.next = number.saturating_add(1);
            if number == lock {
                continue;
            }
            let kept = match &self.overlay {
                Some(overlay) => overlay.read(page, &mut data)?,
                None => false,
            };
            if !kept {
                read(page, &mut data)?;
            }
            let page = Page::new(page, &data, self.meta.page_size);
            if matches!(self.pages, PageSet::All) {
                self.seen.add(page.sum());
            }
            encoder.write(&page)?;
            if encoder.out().len() >= part {
                // All parts but the last are of one size: some stores insist.
                let rest = encoder.out_mut().split_off(part);
                let bytes = std::mem::replace(encoder.out_mut(), rest);
                self.encoder = Some(encoder);
                self.size += bytes.len() as u64;
                return Ok(Piece::Part(bytes.into()));
            }
        }
        self.audit()?;
        self.overlay = None;
        let done = encoder.finish(&self.header, self.meta.post_apply(self.position.sum))?;
        self.encoded_pages = done.pages;
        self.rest = done.out;
        Ok(self.give_rest(part))
    }

    fn give_rest(&mut self, part: usize) -> Piece {
        let behind = self.rest.split_off(self.rest.len().min(part));
        let bytes = Bytes::from(std::mem::replace(&mut self.rest, behind));
        self.size += bytes.len() as u64;
        if self.rest.is_empty() {
            Piece::Last(bytes)
        } else {
            Piece::Part(bytes)
        }
    }

    /// Every snapshot audits the chain: what was read must have the sums that capture maintained.
    fn audit(&self) -> Result<()> {
        if matches!(self.pages, PageSet::All) && self.seen != self.position.sum {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the pages of TXID {} have checksum {}, the chain says {}",
                    self.position.txid.get(),
                    self.seen.checksum,
                    self.position.sum.checksum
                ),
            ));
        }
        Ok(())
    }
}
