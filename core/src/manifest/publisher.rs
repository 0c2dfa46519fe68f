//! Writes the index by compare-and-swap.
//!
//! # Overview
//!
//! load -> apply our own change -> store new pages -> replace the root if it is still the one loaded. On a
//! conflict the same change is applied to what is there now.
//!
//! # Invariants
//!
//! - The root is replaced only over the version that was read (R26), and created only where nothing was.
//! - A missing root counts as a new database only if a listing finds no file either.
//! - Pages are stored before the root that names them, and are never changed.
//!
//! # Crash table
//!
//! | after | left behind | next time |
//! |---|---|---|
//! | storing pages | pages that no root names | others are stored; compact deletes these |
//! | replacing the root | everything done | nothing to do |
//!
//! # Cancellation
//!
//! Dropping the future may leave either; the next call reads the root again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::delta::ManifestDelta;
use super::entry::FileKey;
use super::facts::IN_FLIGHT;
use super::listing::list_files;
use super::pages::{Root, read_pages, read_root_to_replace};
use super::rebuild::rebuild;
use super::root::{Manifest, PageRef};
use super::spill::spill;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Condition, ETag, Layout, Put, PutOutcome, Store};
use crate::types::Timestamp;

/// Conflicts in a row after which somebody else should look. Writers of one index are a watcher, a
/// compaction and a verify, so three in a row are already rare.
const ATTEMPTS: u32 = 12;
/// Grows with each conflict; a random part keeps two writers from meeting again.
const PAUSE: Duration = Duration::from_millis(20);

/// Writes one database's index.
#[derive(Debug)]
pub struct Publisher {
    store: Arc<dyn Store>,
    layout: Layout,
    /// The index as we last read or wrote it; nothing while a write is open.
    known: Option<(Manifest, ETag)>,
}

/// What is in a database's folder.
#[derive(Clone, PartialEq, Debug)]
pub enum Found {
    /// An index.
    Index(Box<Manifest>),
    /// Neither index nor files: the database is new.
    Nothing,
    /// Files whose index was missing or damaged, rebuilt from their headers and not yet written.
    Rebuilt(Box<Manifest>),
}

/// What publishing did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Published {
    /// Whether the root was written; it is not where nothing would change.
    pub written: bool,
    /// Conflicts with other writers on the way.
    pub conflicts: u32,
}

/// The root's state to write over.
struct Base {
    manifest: Option<Manifest>,
    condition: Condition,
    /// Whether `manifest` was made from the files because there was none to read.
    rebuilt: bool,
}

impl Publisher {
    /// A publisher that has read nothing yet.
    pub fn new(store: Arc<dyn Store>, layout: Layout) -> Self {
        Self {
            store,
            layout,
            known: None,
        }
    }

    /// The index as it is now, rebuilt where it is missing or damaged.
    pub async fn load(&mut self) -> Result<Found> {
        let base = self.read_base().await?;
        Ok(match base.manifest {
            None => Found::Nothing,
            Some(manifest) if base.rebuilt => Found::Rebuilt(Box::new(manifest)),
            Some(manifest) => Found::Index(Box::new(manifest)),
        })
    }

    /// The index as this publisher last read or wrote it.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.known.as_ref().map(|(manifest, _)| manifest)
    }

    /// Makes `delta` part of the index.
    ///
    /// Errors: `Fenced` if a later writer's turn covers what `delta` adds, `Busy` after many conflicts in a
    /// row or where another compaction went by, and those of the store.
    pub async fn publish(&mut self, delta: &ManifestDelta, now: Timestamp) -> Result<Published> {
        for conflicts in 0..ATTEMPTS {
            let base = match self.known.take() {
                Some((manifest, etag)) => Base {
                    manifest: Some(manifest),
                    condition: Condition::IfMatch(etag),
                    rebuilt: false,
                },
                None => self.read_base().await?,
            };
            // Until the write has ended, nobody knows what is there.
            self.known = None;
            if let Some(written) = self.write(base, delta, now).await? {
                return Ok(Published { written, conflicts });
            }
            let pause = PAUSE * (conflicts + 1);
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        }
        let message = format!("{ATTEMPTS} other writers in a row changed the index");
        Err(Error::new(ErrorKind::Busy, message).on(self.layout.manifest()))
    }

    /// Whether the root was written; nothing for a conflict.
    async fn write(
        &mut self,
        base: Base,
        delta: &ManifestDelta,
        now: Timestamp,
    ) -> Result<Option<bool>> {
        let before = self.open_pages(base.manifest.as_ref(), delta).await?;
        let mut manifest = delta.apply(before.as_ref(), now)?;
        if let (Some(same), Condition::IfMatch(etag)) = (&base.manifest, &base.condition)
            && *same == manifest
            && !base.rebuilt
        {
            self.known = Some((manifest, etag.clone()));
            return Ok(Some(false));
        }
        manifest.published = now;
        for page in spill(&mut manifest)? {
            let key = self
                .layout
                .index_page(page.reference.range, page.reference.hash);
            // Refused: an earlier try at this request got there, for the name holds the bytes' hash.
            self.store
                .put(&key, Bytes::from(page.bytes), Put::new_object())
                .await?;
        }
        let how = Put {
            condition: base.condition,
            ..Put::default()
        };
        let body = Bytes::from(manifest.encode()?);
        match self.store.put(&self.layout.manifest(), body, how).await? {
            PutOutcome::Stored { etag, .. } => {
                self.known = etag.map(|etag| (manifest, etag));
                Ok(Some(true))
            }
            PutOutcome::Refused { .. } => Ok(None),
        }
    }

    /// `manifest` with the pages opened that hold entries which `delta` removes.
    async fn open_pages(
        &self,
        manifest: Option<&Manifest>,
        delta: &ManifestDelta,
    ) -> Result<Option<Manifest>> {
        let Some(mut manifest) = manifest.cloned() else {
            return Ok(None);
        };
        let in_root: HashSet<FileKey> = manifest.files.iter().map(|file| file.key).collect();
        let elsewhere = delta.remove.iter().filter(|key| !in_root.contains(key));
        let elsewhere = Wanted::new(elsewhere.copied());
        let (perhaps, mut shut): (Vec<PageRef>, Vec<_>) = std::mem::take(&mut manifest.pages)
            .into_iter()
            .partition(|page| elsewhere.may_lie_in(page));
        let mut reading = stream::iter(perhaps)
            .map(|page| async move {
                let files = read_pages(&*self.store, &self.layout, &[page]).await?;
                Ok::<_, Error>((page, files))
            })
            .buffered(IN_FLIGHT);
        while let Some((page, files)) = reading.try_next().await? {
            match files.iter().any(|file| elsewhere.holds(&file.key)) {
                true => manifest.files.extend(files),
                false => shut.push(page),
            }
        }
        shut.sort_by_key(|page| (page.range.max(), page.range.min()));
        manifest.pages = shut;
        Ok(Some(manifest))
    }

    async fn read_base(&mut self) -> Result<Base> {
        self.known = None;
        let condition = match read_root_to_replace(&*self.store, &self.layout).await? {
            Root::There { manifest, etag } => {
                let etag = etag.ok_or_else(|| self.no_version())?;
                self.known = Some((manifest.as_ref().clone(), etag.clone()));
                return Ok(Base {
                    manifest: Some(*manifest),
                    condition: Condition::IfMatch(etag),
                    rebuilt: false,
                });
            }
            Root::Damaged { reason, etag } => {
                tracing::warn!(db = %self.layout.name(), error = reason, "the index is damaged and is rebuilt");
                Condition::IfMatch(etag.ok_or_else(|| self.no_version())?)
            }
            Root::Missing => Condition::IfAbsent,
        };
        let listing = list_files(&*self.store, &self.layout).await?;
        let manifest = match listing.files.is_empty() {
            true => None,
            false => Some(rebuild(&*self.store, &self.layout, listing).await?),
        };
        Ok(Base {
            manifest,
            condition,
            rebuilt: true,
        })
    }

    fn no_version(&self) -> Error {
        Error::new(
            ErrorKind::Unsupported,
            "the store names no version of the index",
        )
        .on(self.layout.manifest())
    }
}

/// Files that are looked for in the pages, by first TXID.
struct Wanted(Vec<FileKey>);

impl Wanted {
    fn new(keys: impl Iterator<Item = FileKey>) -> Self {
        let mut keys: Vec<FileKey> = keys.collect();
        keys.sort_by_key(|key| (key.range(), key.level()));
        Self(keys)
    }

    /// Whether some file may be in `page`, by what its name says.
    fn may_lie_in(&self, page: &PageRef) -> bool {
        let first = self
            .0
            .partition_point(|key| key.range().min() < page.range.min());
        let behind = self.0.get(first..).unwrap_or_default();
        behind
            .iter()
            .take_while(|key| key.range().min() <= page.range.max())
            .any(|key| key.range().max() <= page.range.max())
    }

    fn holds(&self, key: &FileKey) -> bool {
        let place = |key: &FileKey| (key.range(), key.level());
        self.0.binary_search_by_key(&place(key), place).is_ok()
    }
}
