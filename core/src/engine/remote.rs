//! What the store holds of one database before we write to it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::ops::Range;
use std::path::Path;

use super::anchor::RemoteHead;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Catalog, CatalogFile, FileEntry, FileKey, FileKind};
use crate::restore::chain_to;
use crate::store::{Layout, Store};
use crate::types::{DatabaseSum, StreamId, Timestamp, Txid};

/// How much of an object is fetched at once.
const RANGE: u64 = 8 * 1024 * 1024;

/// The remote history, as far as a writer must know it.
#[derive(Debug)]
pub(super) struct Remote {
    /// The file that leads to the newest state.
    newest: FileEntry,
    /// Whether a restore can begin anywhere.
    pub(super) has_start: bool,
    /// Incrementals behind the state that was asked about, oldest first.
    pub(super) behind: Vec<FileEntry>,
    catalog: Catalog,
}

impl Remote {
    /// The history under `layout`, or nothing where there is none; `saved` is the state that our own
    /// directory names.
    pub(super) async fn look(
        store: &dyn Store,
        layout: &Layout,
        saved: Option<Txid>,
    ) -> Result<Option<Self>> {
        let mut catalog = match Catalog::load(store, layout).await {
            Ok(catalog) => catalog,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // Behind the index at most a minute's files are unknown.
        catalog.read_headers(store, |file| !file.indexed).await?;
        let newest = catalog.live().iter().map(|file| file.range().max()).max();
        if newest.is_some_and(|newest| chain_to(&catalog, newest).is_none()) {
            // Before somebody stores every page anew: perhaps only the index does not know the way.
            catalog.list_everything(store).await?;
            catalog.read_headers(store, |file| !file.indexed).await?;
        }
        let live = catalog.live();
        let Some(newest) = live.iter().map(|file| file.range().max()).max() else {
            return Ok(None);
        };
        let head = live
            .iter()
            .filter(|file| file.range().max() == newest)
            .filter_map(|file| file.entry.as_deref())
            // The incremental tells who came last; a snapshot of the same state may be older.
            .min_by_key(|entry| entry.key.level())
            .cloned()
            .ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, "the newest file cannot be read")
                    .on(layout.folder())
                    .hint("see: walrust verify")
            })?;
        let behind = live
            .iter()
            .filter(|file| file.key.level() == 0)
            .filter_map(|file| file.entry.as_deref())
            .filter(|entry| saved.is_some_and(|saved| entry.range().min() > saved))
            .cloned()
            .collect();
        let has_start = chain_to(&catalog, newest).is_some();
        drop(live);
        Ok(Some(Self {
            newest: head,
            has_start,
            behind,
            catalog,
        }))
    }

    /// What decisions need of it.
    pub(super) fn head(&self) -> RemoteHead {
        RemoteHead {
            txid: self.txid(),
            stream: self.stream(),
            sum: self.sum(),
        }
    }

    /// The last transaction.
    pub(super) fn txid(&self) -> Txid {
        self.newest.max()
    }

    /// The newest snapshot, and when it was made.
    pub(super) fn snapshot(&self) -> Option<(Txid, Timestamp)> {
        let live = self.catalog.live();
        let entries = live.iter().filter_map(|file| file.entry.as_deref());
        let snapshots = entries.filter(|entry| entry.kind == FileKind::Snapshot);
        snapshots.map(|entry| (entry.max(), entry.created)).max()
    }

    /// Files that the index does not name: an earlier run died before it could. They belong into the next one, or
    /// its readers, who list only behind the last file that it names, would never see them.
    pub(super) fn unnamed(&self) -> Vec<FileEntry> {
        let live = self.catalog.live();
        let ours = |file: &&&CatalogFile| {
            let stream = file.entry.as_ref().and_then(|entry| entry.stream);
            !file.indexed && stream.is_some()
        };
        let unnamed = live.iter().filter(ours);
        unnamed
            .filter_map(|file| file.entry.as_deref().cloned())
            .collect()
    }

    /// Who wrote the newest file; nothing for another program's.
    pub(super) fn stream(&self) -> Option<StreamId> {
        self.newest.stream
    }

    /// The newest state, where the files say it.
    pub(super) fn sum(&self) -> Option<DatabaseSum> {
        Some(DatabaseSum {
            checksum: self.newest.post?,
            digest: self.newest.digest?,
        })
    }

    /// Fetches a file into an unnamed file in `directory`, positioned at its start.
    pub(super) async fn fetch(
        &self,
        store: &dyn Store,
        entry: &FileEntry,
        directory: &Path,
    ) -> Result<File> {
        let key = self.catalog.object(entry.key);
        fetch(store, &key, 0..entry.size, directory).await
    }

    /// What is known of the files that count.
    pub(super) fn entries(&self) -> impl Iterator<Item = FileEntry> {
        let live = self.catalog.live().into_iter();
        live.filter_map(|file| file.entry.as_deref().cloned())
    }

    /// The object that holds a file.
    pub(super) fn object(&self, key: FileKey) -> String {
        self.catalog.object(key)
    }
}

/// Fetches a part of an object into an unnamed file in `directory`, positioned at its start.
pub(super) async fn fetch(
    store: &dyn Store,
    key: &str,
    part: Range<u64>,
    directory: &Path,
) -> Result<File> {
    let fail = |error| Error::io(directory.display(), error);
    let mut file = tempfile::tempfile_in(directory).map_err(fail)?;
    let mut offset = part.start;
    while offset < part.end {
        let end = (offset + RANGE).min(part.end);
        let bytes = store.get(key, Some(offset..end)).await?.bytes;
        file.write_all(&bytes).map_err(fail)?;
        offset = end;
    }
    file.rewind().map_err(fail)?;
    Ok(file)
}

/// The first bytes of a file, as its header.
pub(super) fn header_of(file: &mut impl Read, key: FileKey) -> Result<crate::ltx::Header> {
    let mut head = [0; crate::ltx::HEADER_BYTES];
    file.read_exact(&mut head)
        .map_err(|error| Error::io(key, error))?;
    Ok(crate::ltx::Header::decode(&head)?)
}
