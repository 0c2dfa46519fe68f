//! What there is of one database: the index and a listing of everything, held against each other.
//!
//! Whatever cannot be read ends the look: a plan is never made from a part (R96).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::plan::{Standing, StoredFile};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{
    Catalog, FileEntry, FileKey, Format, IN_FLIGHT, Manifest, PageRef, Place, Root, Turns,
    read_all_facts, read_root, start_shown_by, visit_pages,
};
use crate::store::{Entry, Layout, ObjectMeta, Store};
use crate::types::{Digest, Lineage, Timestamp, Txid, TxidRange};

/// An object that no index names may be one that its writer is about to name. So old it is not.
const SETTLED: Duration = Duration::from_secs(3600);

/// Looks before giving up: each one that another compaction overtakes costs one.
const ATTEMPTS: u32 = 4;

/// An object that is to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Spare {
    pub(super) object: String,
    pub(super) size: u64,
}

/// A file that an earlier compaction took out of the index and did not delete, or not yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Leftover {
    pub(super) key: FileKey,
    /// Its size; nothing if the object is gone.
    pub(super) size: Option<u64>,
    /// Whether somebody named it again.
    pub(super) named: bool,
}

/// Everything that a plan is made from.
#[derive(Debug)]
pub(super) struct Look {
    /// All files that count, and those of writers whose turn had ended.
    pub(super) files: Vec<StoredFile>,
    pub(super) turns: Turns,
    /// The last TXID that the index names.
    pub(super) head: Txid,
    /// How many compactions went by.
    pub(super) compactions: u64,
    /// What the headers of those files say that the index does not name.
    pub(super) unnamed: HashMap<FileKey, FileEntry>,
    pub(super) leftovers: Vec<Leftover>,
    /// Pages that nothing names any more.
    pub(super) pages: Vec<Spare>,
    pub(super) notes: Vec<String>,
    /// The earlier one of the store's clock and ours.
    pub(super) now: Timestamp,
}

/// Looks at everything.
///
/// # Errors
///
/// `NotFound` for an unknown name, `Unsupported` for another program's backup, `Corrupt` where the index is
/// missing or damaged, `Busy` where other compactions keep going by, and those of the store.
pub(super) async fn look(store: &dyn Store, layout: &Layout, clock: &Clock) -> Result<Look> {
    let mut attempt = 1;
    loop {
        let manifest = read_index(store, layout).await?;
        let seen = Seen {
            store,
            layout,
            clock,
            manifest,
        };
        match seen.look().await {
            // Something went between two requests.
            Err(error) if error.kind() == ErrorKind::Busy && attempt < ATTEMPTS => {}
            Err(error) if error.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let object = error.object().unwrap_or_default();
                let message = "the object is gone, and it is still counted on";
                return Err(Error::new(ErrorKind::Corrupt, message)
                    .on(object)
                    .because(error)
                    .hint("nothing was deleted"));
            }
            looked => return looked,
        }
        attempt += 1;
    }
}

async fn read_index(store: &dyn Store, layout: &Layout) -> Result<Manifest> {
    let hint = "`walrust watch` writes it again when it starts; nothing is deleted until then";
    match read_root(store, layout).await? {
        Root::There { manifest, .. } => Ok(*manifest),
        Root::Damaged { reason, .. } => Err(Error::new(
            ErrorKind::Corrupt,
            format!("the index is damaged: {reason}"),
        )
        .on(layout.manifest())
        .hint(hint)),
        Root::Missing => {
            let catalog = Catalog::load(store, layout).await?;
            if catalog.format() == Format::Litestream {
                let message = "the backup was written by Litestream, which thins it itself";
                return Err(Error::new(ErrorKind::Unsupported, message).on(layout.folder()));
            }
            Err(Error::new(ErrorKind::Corrupt, "the index is missing")
                .on(layout.manifest())
                .hint(hint))
        }
    }
}

/// An index, and where it was read.
struct Seen<'s> {
    store: &'s dyn Store,
    layout: &'s Layout,
    clock: &'s Clock,
    manifest: Manifest,
}

/// What the index names.
#[derive(Default)]
struct Named {
    files: HashMap<FileKey, StoredFile>,
    pages: HashSet<(TxidRange, Digest)>,
    /// What the last compaction deletes.
    removed: HashSet<FileKey>,
}

impl Named {
    fn add(&mut self, entry: &FileEntry) {
        let file = StoredFile::new(entry, Standing::Named);
        self.files.insert(entry.key, file);
    }
}

/// What the listings show.
#[derive(Default)]
struct Listed {
    files: HashMap<FileKey, ObjectMeta>,
    pages: Vec<(TxidRange, Digest, ObjectMeta)>,
    foreign: Vec<String>,
    date: Option<Timestamp>,
}

impl Seen<'_> {
    async fn look(&self) -> Result<Look> {
        let mut named = self.named().await?;
        let listed = self.listed().await?;
        let now = self.clock.now();
        let store_time = listed.date.unwrap_or(now);
        let is_settled = |meta: &ObjectMeta| {
            let age = store_time.millis_since(meta.modified);
            i128::from(age) >= SETTLED.as_millis().cast_signed()
        };
        let mut notes = Vec::new();
        let leftovers = leftovers(&mut named, &listed);
        notes.extend(self.missing(&mut named, &listed).await?);
        let (unnamed, damaged) = self.unnamed(&named, &listed).await?;
        let known = self.lineages(&named);
        let is_ours = |entry: &FileEntry| {
            entry
                .stream
                .is_some_and(|stream| known.contains(&stream.lineage))
        };
        let (unnamed, strange): (Vec<_>, Vec<_>) = unnamed.into_iter().partition(is_ours);
        let strange = strange.iter().map(|entry| self.object(entry.key));
        notes.extend(note(
            "of another program or history",
            listed.foreign.iter().cloned().chain(strange),
        ));
        notes.extend(note(
            "damaged",
            damaged.into_iter().map(|key| self.object(key)),
        ));
        let mut files: Vec<StoredFile> = named.files.into_values().collect();
        files.extend(unnamed.iter().map(|entry| {
            let settled = listed.files.get(&entry.key).is_some_and(is_settled);
            let standing = if settled {
                Standing::Loose
            } else {
                Standing::Fresh
            };
            StoredFile::new(entry, standing)
        }));
        files.sort_by_key(|file| file.key);
        let spare = |(range, hash, meta): &(TxidRange, Digest, ObjectMeta)| {
            let unused = !named.pages.contains(&(*range, *hash)) && is_settled(meta);
            unused.then(|| Spare {
                object: meta.key.clone(),
                size: meta.size,
            })
        };
        Ok(Look {
            turns: self.turns(&files),
            files,
            head: self.manifest.head.txid,
            compactions: self.manifest.compactions,
            unnamed: unnamed
                .into_iter()
                .map(|entry| (entry.key, entry))
                .collect(),
            leftovers,
            pages: listed.pages.iter().filter_map(spare).collect(),
            notes,
            now: now.min(store_time),
        })
    }

    /// Whether another compaction went by since the index was read.
    async fn is_overtaken(&self) -> Result<bool> {
        let now = read_index(self.store, self.layout).await?;
        let same_pages = now.pages == self.manifest.pages && now.removed == self.manifest.removed;
        Ok(now.compactions != self.manifest.compactions || !same_pages)
    }

    fn object(&self, key: FileKey) -> String {
        self.layout.key(key.entry())
    }

    async fn named(&self) -> Result<Named> {
        let mut named = Named::default();
        let Named { removed, pages, .. } = &mut named;
        let gone = &self.manifest.removed;
        visit_pages(self.store, self.layout, gone, |reference, page| {
            pages.insert((reference.range, reference.hash));
            removed.extend(page.removed);
        })
        .await?;
        self.manifest
            .files
            .iter()
            .for_each(|entry| named.add(entry));
        let older = &self.manifest.pages;
        visit_pages(self.store, self.layout, older, |reference, page| {
            let PageRef { range, hash, .. } = reference;
            named.pages.insert((range, hash));
            page.files.iter().for_each(|entry| named.add(entry));
        })
        .await?;
        Ok(named)
    }

    /// Lists the folders of all levels and of the index. What lies beside them, databases with longer names
    /// say, is not looked at.
    async fn listed(&self) -> Result<Listed> {
        let folder = self.layout.folder();
        let mut listed = Listed::default();
        for below in self.store.list_folders(&folder).await? {
            let name = below.strip_prefix(&folder).unwrap_or_default();
            let is_level = name.len() == 5 && name.starts_with("000");
            if is_level || name == "index/" {
                self.list(&below, &mut listed).await?;
            }
        }
        Ok(listed)
    }

    async fn list(&self, folder: &str, listed: &mut Listed) -> Result<()> {
        let mut after: Option<String> = None;
        loop {
            let page = self.store.list(folder, after.as_deref()).await?;
            listed.date = page.date.or(listed.date);
            let last = page.objects.last().map(|last| last.key.clone());
            for meta in page.objects {
                match self.layout.parse(&meta.key) {
                    Some(Entry::IndexPage(range, hash)) => listed.pages.push((range, hash, meta)),
                    Some(entry) => match FileKey::from_entry(entry) {
                        Some(key) => drop(listed.files.insert(key, meta)),
                        None => listed.foreign.push(meta.key),
                    },
                    None => listed.foreign.push(meta.key),
                }
            }
            if !page.more {
                return Ok(());
            }
            if last.is_none() {
                let message = "the listing promises more keys and gives none";
                return Err(Error::new(ErrorKind::Unavailable, message).on(folder));
            }
            after = last;
        }
    }

    /// Takes out of `named` what is not there. A listing alone does not prove that: each object is asked
    /// for.
    ///
    /// Errors: `Busy` if another compaction went by; `Unavailable` if an object is there after all: then the
    /// listing was no whole one.
    async fn missing(&self, named: &mut Named, listed: &Listed) -> Result<Option<String>> {
        let unlisted = |key: &&FileKey| !listed.files.contains_key(key);
        let missing: Vec<FileKey> = named.files.keys().filter(unlisted).copied().collect();
        let mut asked = stream::iter(missing.clone())
            .map(|key| async move {
                let object = self.object(key);
                let there = self.store.head(&object).await?.is_some();
                Ok::<_, Error>((object, there))
            })
            .buffered(IN_FLIGHT);
        while let Some((object, there)) = asked.try_next().await? {
            if there {
                let message = "the store's listing leaves it out";
                return Err(Error::new(ErrorKind::Unavailable, message)
                    .on(object)
                    .hint("nothing is deleted; run it again"));
            }
        }
        if !missing.is_empty() && self.is_overtaken().await? {
            let message = "other compactions keep going by";
            return Err(Error::new(ErrorKind::Busy, message).on(self.layout.manifest()));
        }
        for key in &missing {
            named.files.remove(key);
        }
        let objects = missing.into_iter().map(|key| self.object(key));
        Ok(note("named by the index and missing", objects))
    }

    /// The headers of files that the index does not name, and the files that have none.
    async fn unnamed(
        &self,
        named: &Named,
        listed: &Listed,
    ) -> Result<(Vec<FileEntry>, Vec<FileKey>)> {
        let is_unnamed =
            |key: &FileKey| !named.files.contains_key(key) && !named.removed.contains(key);
        let files = listed.files.iter().filter(|(key, _)| is_unnamed(key));
        let places: Vec<Place> = files
            .map(|(key, meta)| Place {
                object: meta.key.clone(),
                file: *key,
                size: meta.size,
            })
            .collect();
        let keys: Vec<FileKey> = places.iter().map(|place| place.file).collect();
        let (mut entries, mut damaged) = (Vec::new(), Vec::new());
        for (key, read) in keys
            .into_iter()
            .zip(read_all_facts(self.store, places).await?)
        {
            match read {
                Ok(entry) => entries.push(entry),
                Err(_) => damaged.push(key),
            }
        }
        Ok((entries, damaged))
    }

    /// The histories that the index knows.
    fn lineages(&self, named: &Named) -> HashSet<Lineage> {
        let epochs = self
            .manifest
            .epochs
            .iter()
            .map(|start| start.stream.lineage);
        let files = named
            .files
            .values()
            .filter_map(|file| Some(file.stream?.lineage));
        epochs.chain(files).chain([self.manifest.lineage]).collect()
    }

    fn turns(&self, files: &[StoredFile]) -> Turns {
        let mut turns = Turns::new(self.manifest.epochs.iter().copied());
        files
            .iter()
            .filter_map(|file| start_shown_by(file.key, file.stream?))
            .for_each(|start| turns.add(start));
        turns
    }
}

/// What an earlier compaction was about to delete, taken out of `named`: somebody may be deleting it now.
fn leftovers(named: &mut Named, listed: &Listed) -> Vec<Leftover> {
    let removed = named.removed.iter().copied();
    let mut leftovers: Vec<Leftover> = removed
        .map(|key| Leftover {
            key,
            size: listed.files.get(&key).map(|meta| meta.size),
            named: named.files.contains_key(&key),
        })
        .filter(|leftover| leftover.size.is_some() || leftover.named)
        .collect();
    leftovers.sort_by_key(|leftover| leftover.key);
    for leftover in &leftovers {
        named.files.remove(&leftover.key);
    }
    leftovers
}

/// One line about objects that are left alone.
fn note(what: &str, objects: impl Iterator<Item = String>) -> Option<String> {
    let mut objects: Vec<String> = objects.collect();
    objects.sort_unstable();
    let (count, first) = (objects.len(), objects.first()?);
    Some(match count {
        1 => format!("{first} is {what}; it is left alone"),
        _ => format!("{count} objects are {what}, {first} the first; they are left alone"),
    })
}
