//! What the manifest names, what a full listing shows, and what headers say of the rest.

use std::collections::{BTreeMap, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::chain::{History, Link, Road};
use super::names::{Index, Names, read_names};
use super::report::{Issue, IssueKind};
use crate::error::{Error, ErrorKind, Result};
use crate::lease::Record;
use crate::manifest::{
    EpochStart, FileEntry, FileKey, Format, Head, IN_FLIGHT, Keys, Place, Turns, is_damage,
    list_files, read_facts, starts_of,
};
use crate::store::{Layout, Store};
use crate::types::{Lineage, PageSize, StreamId, Timestamp, Txid};

/// How a file stands to the manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It names the file.
    Named,
    /// The file is newer than it, or there is none that could name it.
    Behind,
    /// It could name the file and does not.
    Unnamed,
}

/// One LTX file.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) key: FileKey,
    pub(super) object: String,
    /// The object's size; nothing where the listing does not show it.
    pub(super) listed: Option<u64>,
    /// What the manifest says, or else the header; nothing where that is damaged.
    pub(super) entry: Option<Box<FileEntry>>,
    pub(super) standing: Standing,
    /// Stored after its writer's turn had ended.
    pub(super) dead: bool,
    /// What is wrong with it is told already; nobody looks further.
    pub(super) spoilt: bool,
}

impl Item {
    fn stream(&self) -> Option<StreamId> {
        self.entry.as_ref().and_then(|entry| entry.stream)
    }

    fn is_start(&self) -> bool {
        let kind = self.entry.as_ref().map(|entry| entry.kind);
        self.key.range().is_snapshot() || kind.is_some_and(|kind| kind.is_start())
    }

    /// Whether its content can be looked at.
    pub(super) fn is_readable(&self) -> bool {
        self.listed.is_some() && !self.dead && !self.spoilt
    }
}

/// Everything about one database, at one moment.
#[derive(Clone, Debug)]
pub(super) struct Inventory {
    pub(super) layout: Layout,
    pub(super) format: Format,
    pub(super) index: Index,
    pub(super) items: BTreeMap<FileKey, Item>,
    /// The lease, if there is one that can be read.
    pub(super) lease: Option<Record>,
    /// The store's time.
    pub(super) date: Option<Timestamp>,
    /// What was wrong already.
    pub(super) issues: Vec<Issue>,
}

impl Inventory {
    /// Reads the manifest, then lists the folder, then reads the lease and the headers of the files that the
    /// manifest does not name: in this order, whatever a running writer adds is explained.
    ///
    /// Errors: `NotFound` where nothing of this name is stored, and those of the store.
    pub(super) async fn take(store: &dyn Store, layout: &Layout) -> Result<Self> {
        let names = read_names(store, layout).await?;
        let listing = list_files(store, layout).await?;
        if matches!(names.index, Index::Missing) && listing.files.is_empty() {
            let name = layout.name().as_str();
            let message = format!("no backup of {name:?} in {}", store.location());
            return Err(Error::new(ErrorKind::NotFound, message).hint("see: walrust list"));
        }
        let Names {
            index,
            entries,
            epochs,
            issues,
        } = names;
        let mut inventory = Self {
            layout: layout.clone(),
            format: Format::Walrust,
            index,
            items: BTreeMap::new(),
            lease: None,
            date: None,
            issues,
        };
        let keys = listing.keys;
        for entry in entries {
            inventory.add_named(keys, entry);
        }
        for listed in listing.files {
            inventory.add_listed(keys, listed.file, listed.size);
        }
        inventory.read_lease(store).await?;
        inventory.read_headers(store).await?;
        inventory.tell_format(keys);
        inventory.find_strangers();
        inventory.find_dead(epochs);
        Ok(inventory)
    }

    fn item(&mut self, keys: Keys, key: FileKey, standing: Standing) -> &mut Item {
        let object = keys.object(&self.layout, key);
        self.items.entry(key).or_insert(Item {
            key,
            object,
            listed: None,
            entry: None,
            standing,
            dead: false,
            spoilt: false,
        })
    }

    fn add_named(&mut self, keys: Keys, entry: FileEntry) {
        let item = self.item(keys, entry.key, Standing::Named);
        item.entry = Some(Box::new(entry));
    }

    fn add_listed(&mut self, keys: Keys, key: FileKey, size: u64) {
        let standing = match &self.index {
            Index::There { head, partial, .. } if key.range().max() <= head.txid && !partial => {
                Standing::Unnamed
            }
            Index::There { .. } | Index::Missing | Index::Damaged(_) => Standing::Behind,
        };
        self.item(keys, key, standing).listed = Some(size);
    }

    async fn read_lease(&mut self, store: &dyn Store) -> Result<()> {
        let key = self.layout.lease();
        let object = match store.get(&key, None).await {
            Ok(object) => object,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        self.date = object.date;
        match Record::from_bytes(&object.bytes) {
            Ok(record) => self.lease = Some(record),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let message = format!(
                    "The lease is damaged, no watcher starts: {}",
                    error.message()
                );
                self.issues
                    .push(Issue::new(IssueKind::Error, key, None, message));
            }
            // Of a newer program: it may hold it.
            Err(_) => {}
        }
        Ok(())
    }

    /// Reads the headers of the files of which the manifest says nothing. What has gone since the listing was
    /// never there.
    async fn read_headers(&mut self, store: &dyn Store) -> Result<()> {
        let unknown = self.items.values().filter(|item| item.entry.is_none());
        let places: Vec<Place> = unknown
            .filter_map(|item| {
                Some(Place {
                    object: item.object.clone(),
                    file: item.key,
                    size: item.listed?,
                })
            })
            .collect();
        let read: Vec<(FileKey, Option<Result<FileEntry>>)> = stream::iter(places)
            .map(|place| async move {
                match read_facts(store, &place).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok((place.file, None)),
                    Err(error) if !is_damage(&error) => Err(error),
                    read => Ok((place.file, Some(read))),
                }
            })
            .buffered(IN_FLIGHT)
            .try_collect()
            .await?;
        for (key, read) in read {
            match read {
                None => {
                    self.items.remove(&key);
                }
                Some(Ok(entry)) => {
                    if let Some(item) = self.items.get_mut(&key) {
                        item.entry = Some(Box::new(entry));
                    }
                }
                Some(Err(error)) => {
                    self.spoil(
                        key,
                        format!("Header cannot be decoded: {}", error.message()),
                    );
                }
            }
        }
        Ok(())
    }

    fn spoil(&mut self, key: FileKey, message: String) {
        if let Some(item) = self.items.get_mut(&key) {
            item.spoilt = true;
            let object = item.object.clone();
            self.issues
                .push(Issue::of_file(IssueKind::Error, key, object, message));
        }
    }

    fn tell_format(&mut self, keys: Keys) {
        let ours = keys == Keys::Hex
            && self
                .items
                .values()
                .any(|item| item.stream().is_some() || item.entry.is_none());
        if matches!(self.index, Index::Missing) && self.lease.is_none() && !ours {
            self.format = Format::Litestream;
        }
    }

    /// Files that the manifest does not name and that belong to no history that a restore could begin: put
    /// there by hand, or by mistake. Taken for a new writer's, they would end the turns of all others.
    fn find_strangers(&mut self) {
        if self.format == Format::Litestream {
            return;
        }
        let named = self
            .items
            .values()
            .filter(|item| item.standing == Standing::Named);
        let mut known: HashSet<Lineage> =
            named.filter_map(Item::stream).map(|s| s.lineage).collect();
        if let Index::There { lineage, .. } = &self.index {
            known.insert(*lineage);
        }
        let starts = self.items.values().filter(|item| item.is_start());
        known.extend(starts.filter_map(Item::stream).map(|stream| stream.lineage));
        let newest = self.lease.as_ref().map(Record::stream);
        known.extend(newest.map(|stream| stream.lineage));
        // Where nothing can be restored there is nothing to protect either.
        if known.is_empty() {
            return;
        }
        let strange: Vec<(FileKey, &str)> = (self.items.values())
            .filter(|item| item.standing != Standing::Named && item.entry.is_some())
            .filter_map(|item| Some((item.key, why_strange(item.stream(), &known, newest)?)))
            .collect();
        for (key, why) in strange {
            self.spoil(key, format!("Chain broken: {why}"));
        }
    }

    fn find_dead(&mut self, epochs: Vec<EpochStart>) {
        let mut turns = Turns::new(epochs);
        let telling = self.items.values().filter(|item| !item.spoilt);
        for start in starts_of(telling.filter_map(|item| item.entry.as_deref())) {
            turns.add(start);
        }
        for item in self.items.values_mut() {
            let max = item.key.range().max();
            item.dead = item
                .stream()
                .is_some_and(|stream| turns.is_dead(stream, max));
        }
    }

    /// The files that make up the chain. Those in `without` count as never stored.
    pub(super) fn links(&self, without: &HashSet<FileKey>) -> Vec<Link> {
        let there = self.items.values().filter(|item| !item.dead);
        there
            .filter(|item| !without.contains(&item.key))
            // A stranger leads nowhere; what is merely damaged is told by itself.
            .filter(|item| !(item.spoilt && item.entry.is_some()))
            .map(|item| Link {
                key: item.key,
                start: item.is_start(),
                lineage: item
                    .stream()
                    .map(|stream| stream.lineage)
                    .or(self.lineage()),
                counts: item.standing != Standing::Unnamed,
            })
            .collect()
    }

    /// The chain that they make.
    pub(super) fn road(&self, without: &HashSet<FileKey>) -> Road {
        let history = match &self.index {
            Index::There { history, .. } => *history,
            Index::Missing | Index::Damaged(_) => History::Thinned,
        };
        let head = self.head().map(|head| head.txid);
        Road::over(&self.links(without), head, history)
    }

    fn lineage(&self) -> Option<Lineage> {
        match &self.index {
            Index::There { lineage, .. } => Some(*lineage),
            Index::Missing | Index::Damaged(_) => self.lease.as_ref().map(|record| record.lineage),
        }
    }

    /// The newest state that the manifest names.
    pub(super) fn head(&self) -> Option<Head> {
        match &self.index {
            Index::There { head, .. } => Some(*head),
            Index::Missing | Index::Damaged(_) => None,
        }
    }

    /// The newest transaction that anything names.
    pub(super) fn newest(&self) -> Option<Txid> {
        let alive = self
            .items
            .values()
            .filter(|item| !item.dead && !item.spoilt);
        let files = alive.map(|item| item.key.range().max());
        files.chain(self.head().map(|head| head.txid)).max()
    }

    /// Size of a page at the head.
    pub(super) fn page_size(&self) -> Option<PageSize> {
        if let Index::There { page_size, .. } = &self.index {
            return Some(*page_size);
        }
        let alive = self
            .items
            .values()
            .filter(|item| !item.dead && !item.spoilt);
        let newest = alive.max_by_key(|item| item.key.range().max())?;
        newest.entry.as_ref().map(|entry| entry.page_size)
    }

    /// Named by the manifest, and not in the listing.
    pub(super) fn unlisted(&self) -> impl Iterator<Item = &Item> {
        self.items
            .values()
            .filter(|item| item.listed.is_none() && !item.dead)
    }

    /// The transactions with which files are missing.
    pub(super) fn gaps(&self) -> Vec<Txid> {
        let road = self.road(&HashSet::new());
        road.gaps.iter().map(|gap| gap.expected).collect()
    }

    /// Whether a second look, a moment later, might show less trouble.
    pub(super) fn is_suspicious(&self) -> bool {
        let spoilt = self.items.values().any(|item| item.spoilt);
        spoilt
            || !self.issues.is_empty()
            || self.unlisted().next().is_some()
            || !self.gaps().is_empty()
    }
}

fn why_strange(
    stream: Option<StreamId>,
    known: &HashSet<Lineage>,
    newest: Option<StreamId>,
) -> Option<&'static str> {
    let Some(stream) = stream else {
        return Some("it was written by another program");
    };
    if !known.contains(&stream.lineage) {
        return Some("it belongs to a history of which nothing else is there");
    }
    // A take-over is written to the lease before the first file.
    let later = newest
        .is_some_and(|newest| newest.lineage == stream.lineage && newest.epoch < stream.epoch);
    later.then_some("it names a writer that has never held the lease")
}
