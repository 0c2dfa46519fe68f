//! What can be restored of one database: the index, the tail that it does not name yet, and, where there
//! is no index, whatever lies in the folder.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::entry::{FileEntry, FileKey, FileKind};
use super::facts::{Place, read_all_facts};
use super::listing::{Keys, Listed, list_files, list_tail};
use super::live::Turns;
use super::pages::{Root, read_pages, read_root};
use super::rebuild::start_shown_by;
use super::root::{EpochStart, Head, Manifest, PageRef};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Layout, Store};
use crate::types::{Lineage, PageSize, Timestamp, Txid, TxidRange};

/// Who writes to a database's folder.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Format {
    /// walrust.
    Walrust,
    /// Litestream 0.5.
    Litestream,
}

impl Format {
    /// The format's name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Walrust => "walrust",
            Self::Litestream => "litestream",
        }
    }
}

/// One LTX file of the folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CatalogFile {
    /// Level and transactions, by its name.
    pub key: FileKey,
    /// Size in bytes.
    pub size: u64,
    /// What the index or the file's header says of it, once somebody asked.
    pub entry: Option<Box<FileEntry>>,
    /// Whether the index names it. If so it must be there; the tail behind the index may have holes, for
    /// uploads run side by side.
    pub indexed: bool,
}

impl CatalogFile {
    /// The transactions that the file covers.
    pub const fn range(&self) -> TxidRange {
        self.key.range()
    }

    /// Whether a restore may begin here, as far as is known.
    pub fn is_start(&self) -> bool {
        self.range().is_snapshot()
            || self
                .entry
                .as_ref()
                .is_some_and(|entry| entry.kind.is_start())
    }

    /// What it is, as far as is known.
    pub fn kind(&self) -> FileKind {
        match &self.entry {
            Some(entry) => entry.kind,
            None => FileKind::of(self.key, crate::ltx::Mark::None),
        }
    }

    /// When its last transaction was seen, if that is known.
    pub fn time(&self) -> Option<Timestamp> {
        self.entry.as_ref().map(|entry| entry.time())
    }
}

/// Tries at reading the index while others replace its pages.
const PAGE_ATTEMPTS: u32 = 4;

/// The files of one database, and what is known of each.
#[derive(Clone, Debug)]
pub struct Catalog {
    layout: Layout,
    keys: Keys,
    format: Format,
    head: Option<Head>,
    lineage: Option<Lineage>,
    page_size: Option<PageSize>,
    epochs: Vec<EpochStart>,
    files: BTreeMap<FileKey, CatalogFile>,
    /// Pages of the index that nobody needed yet.
    unread: Vec<PageRef>,
    /// Files that are gone or damaged: no plan may use them.
    lost: HashMap<FileKey, String>,
    whole: bool,
    /// What people should know.
    pub warnings: Vec<String>,
}

impl Catalog {
    /// Reads the index and lists the incrementals behind it: two requests, whatever the history's
    /// length.
    /// Without an index, lists the whole folder.
    ///
    /// Errors: `NotFound` where there is no file of this name, `Unsupported` for the index of a newer
    /// program, and those of the store.
    pub async fn load(store: &dyn Store, layout: &Layout) -> Result<Self> {
        match read_root(store, layout).await? {
            Root::There { manifest, .. } => {
                let mut catalog = Self::of_index(layout, *manifest);
                let last = catalog.files.keys().rfind(|key| key.level() == 0).copied();
                let tail = list_tail(store, layout, last).await?;
                catalog.add_listed(tail);
                // Two writers overlap: which of them counts, only the headers tell.
                if catalog.tail_overlaps() {
                    catalog.read_headers(store, |_| true).await?;
                }
                Ok(catalog)
            }
            Root::Damaged { reason, .. } => {
                let warning =
                    format!("manifest.json is damaged ({reason}); the files were listed instead");
                Self::of_listing(store, layout, Some(warning)).await
            }
            Root::Missing => Self::of_listing(store, layout, None).await,
        }
    }

    /// Reads everything: the pages of the index, and the headers of all files that no index describes.
    ///
    /// Errors: `NotFound` where a page of the index or a file has gone meanwhile, and those of the store.
    pub async fn complete(&mut self, store: &dyn Store) -> Result<()> {
        self.read_index_pages(store).await?;
        self.read_headers(store, |_| true).await
    }

    /// Lists the whole folder as well, where so far only the tail was listed. What the index names and the
    /// folder does not hold is lost.
    pub async fn list_everything(&mut self, store: &dyn Store) -> Result<()> {
        if self.whole {
            return Ok(());
        }
        self.read_index_pages(store).await?;
        self.list_folder(store).await
    }

    async fn list_folder(&mut self, store: &dyn Store) -> Result<()> {
        let listing = list_files(store, &self.layout).await?;
        let there: HashSet<FileKey> = listing.files.iter().map(|listed| listed.file).collect();
        for key in self.files.keys().filter(|key| !there.contains(key)) {
            self.lost.insert(*key, "the object is missing".to_owned());
        }
        self.add_listed(listing.files);
        self.whole = true;
        Ok(())
    }

    /// Reads the pages of the index. Where one is damaged or gone for good, the folder is listed instead.
    pub async fn read_index_pages(&mut self, store: &dyn Store) -> Result<()> {
        for attempt in 1.. {
            let error = match read_pages(store, &self.layout, &self.unread).await {
                Ok(entries) => {
                    self.unread.clear();
                    entries
                        .into_iter()
                        .for_each(|entry| self.add_entry(entry, true));
                    return Ok(());
                }
                Err(error) => error,
            };
            let gone = error.kind() == ErrorKind::NotFound;
            if gone && attempt < PAGE_ATTEMPTS {
                // Another writer replaced the page, and the root with it.
                let fresh = Box::pin(Self::load(store, &self.layout)).await?;
                let lost = std::mem::replace(self, fresh).lost;
                self.lost.extend(lost);
            } else if gone || error.kind() == ErrorKind::Corrupt {
                self.unread.clear();
                self.warnings
                    .push(format!("{error}; the files were listed instead"));
                return self.list_folder(store).await;
            } else {
                return Err(error);
            }
        }
        Ok(())
    }

    /// Reads the headers of the files that `wanted` names and nothing is known of. A damaged one is lost.
    pub async fn read_headers(
        &mut self,
        store: &dyn Store,
        wanted: impl Fn(&CatalogFile) -> bool,
    ) -> Result<()> {
        let places: Vec<Place> = (self.files.values())
            .filter(|file| file.entry.is_none() && !self.lost.contains_key(&file.key))
            .filter(|file| wanted(file))
            .map(|file| Place {
                object: self.object(file.key),
                file: file.key,
                size: file.size,
            })
            .collect();
        let keys: Vec<FileKey> = places.iter().map(|place| place.file).collect();
        for (key, read) in keys.into_iter().zip(read_all_facts(store, places).await?) {
            match read {
                Ok(entry) => self.learn(entry),
                Err(error) => self.lose(key, error.message()),
            }
        }
        Ok(())
    }

    /// Takes in what a file's header says.
    pub fn learn(&mut self, entry: FileEntry) {
        let indexed = self.files.get(&entry.key).is_some_and(|file| file.indexed);
        self.add_entry(entry, indexed);
    }

    /// Leaves a file out of all plans, saying why.
    pub fn lose(&mut self, key: FileKey, reason: &str) {
        self.lost.insert(key, reason.to_owned());
    }

    /// Why a file is left out of all plans.
    pub fn loss(&self, key: FileKey) -> Option<&str> {
        self.lost.get(&key).map(String::as_str)
    }

    /// The files that were left out, by level and range.
    pub fn losses(&self) -> impl Iterator<Item = (FileKey, &str)> {
        self.files
            .keys()
            .filter_map(|key| Some((*key, self.loss(*key)?)))
    }

    /// Files that plans may use: neither dead nor lost.
    pub fn live(&self) -> Vec<&CatalogFile> {
        let turns = self.turns();
        let usable =
            |file: &&CatalogFile| !self.lost.contains_key(&file.key) && !is_dead(&turns, file);
        self.files.values().filter(usable).collect()
    }

    /// Files of writers whose turn had ended when they were stored.
    pub fn dead(&self) -> Vec<&CatalogFile> {
        let turns = self.turns();
        self.files
            .values()
            .filter(|file| is_dead(&turns, file))
            .collect()
    }

    /// The writers' turns, as the index and the files show them.
    pub fn turns(&self) -> Turns {
        let mut turns = Turns::new(self.epochs.iter().copied());
        let entries = self.files.values().filter_map(|file| file.entry.as_deref());
        entries
            .filter_map(|entry| start_shown_by(entry.key, entry.stream?))
            .for_each(|start| turns.add(start));
        turns
    }

    /// The lineage that a file belongs to: what it says, or else that of the head.
    pub fn lineage_of(&self, file: &CatalogFile) -> Option<Lineage> {
        match &file.entry {
            Some(entry) => entry.stream.map(|stream| stream.lineage),
            None => self.lineage,
        }
    }

    /// All files, by level and range.
    pub fn files(&self) -> impl Iterator<Item = &CatalogFile> {
        self.files.values()
    }

    /// The file at `key`.
    pub fn file(&self, key: FileKey) -> Option<&CatalogFile> {
        self.files.get(&key)
    }

    /// The object that holds a file.
    pub fn object(&self, key: FileKey) -> String {
        self.keys.object(&self.layout, key)
    }

    /// Whose keys these are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Who wrote the files.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The newest state that the index names; nothing without an index.
    pub const fn head(&self) -> Option<Head> {
        self.head
    }

    /// The history that the head belongs to, if it is known.
    pub const fn lineage(&self) -> Option<Lineage> {
        self.lineage
    }

    /// Size of a page at the head, if it is known.
    pub const fn page_size(&self) -> Option<PageSize> {
        self.page_size
    }

    /// The writers' turns that the index names.
    pub fn epochs(&self) -> &[EpochStart] {
        &self.epochs
    }

    /// Whether every file's entry is known and every object was listed.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The last TXID that anything names: the index, or a file that is not dead. A lost file names it
    /// too, or its loss would pass for an older state.
    pub fn last_named(&self) -> Option<Txid> {
        let turns = self.turns();
        let files = self.files.values().filter(|file| !is_dead(&turns, file));
        let files = files.map(|file| file.range().max());
        files.chain(self.head.map(|head| head.txid)).max()
    }

    fn of_index(layout: &Layout, manifest: Manifest) -> Self {
        let mut catalog = Self::empty(layout, Keys::Hex, Format::Walrust);
        catalog.head = Some(manifest.head);
        catalog.lineage = Some(manifest.lineage);
        catalog.page_size = Some(manifest.page_size);
        catalog.epochs = manifest.epochs;
        catalog.unread = manifest.pages;
        for entry in manifest.files {
            catalog.add_entry(entry, true);
        }
        catalog
    }

    async fn of_listing(
        store: &dyn Store,
        layout: &Layout,
        warning: Option<String>,
    ) -> Result<Self> {
        let listing = list_files(store, layout).await?;
        let Some(newest) = listing
            .files
            .iter()
            .max_by_key(|listed| listed.file.range().max())
        else {
            if let Some(warning) = warning {
                return Err(Error::new(ErrorKind::Corrupt, warning).on(layout.manifest()));
            }
            let message = format!(
                "no backup of {:?} in {}",
                layout.name().as_str(),
                store.location()
            );
            return Err(Error::new(ErrorKind::NotFound, message).hint("see: walrust list"));
        };
        let newest = newest.file;
        let mut catalog = Self::empty(layout, listing.keys, Format::Litestream);
        catalog.whole = true;
        catalog.add_listed(listing.files);
        catalog
            .read_headers(store, |file| file.key == newest)
            .await?;
        let stream = catalog
            .file(newest)
            .and_then(|file| file.entry.as_ref()?.stream);
        if listing.keys == Keys::Hex && (stream.is_some() || catalog.loss(newest).is_some()) {
            catalog.format = Format::Walrust;
            let missing = "manifest.json is missing; the files were listed instead".to_owned();
            catalog.warnings.push(warning.unwrap_or(missing));
            // Which of the files are dead, only their headers tell.
            catalog.complete(store).await?;
            catalog.adopt_newest();
        }
        Ok(catalog)
    }

    /// Whether incrementals of which only the names are known overlap each other.
    fn tail_overlaps(&self) -> bool {
        let mut reached = None;
        self.files
            .values()
            .filter(|file| file.key.level() == 0)
            .any(|file| {
                let overlaps = reached.is_some_and(|reached| file.range().min() <= reached);
                reached = reached.max(Some(file.range().max()));
                overlaps && file.entry.is_none()
            })
    }

    /// Takes lineage and page size from the newest living file.
    fn adopt_newest(&mut self) {
        let live = self.live();
        let newest = live.into_iter().max_by_key(|file| file.range().max());
        let entry = newest.and_then(|file| file.entry.clone());
        self.lineage = entry
            .as_ref()
            .and_then(|entry| entry.stream)
            .map(|stream| stream.lineage);
        self.page_size = entry.map(|entry| entry.page_size);
        if self.lineage.is_none() && self.page_size.is_some() {
            self.format = Format::Litestream;
            self.warnings.clear();
        }
    }

    fn empty(layout: &Layout, keys: Keys, format: Format) -> Self {
        Self {
            layout: layout.clone(),
            keys,
            format,
            head: None,
            lineage: None,
            page_size: None,
            epochs: Vec::new(),
            files: BTreeMap::new(),
            unread: Vec::new(),
            lost: HashMap::new(),
            whole: false,
            warnings: Vec::new(),
        }
    }

    fn add_listed(&mut self, listed: Vec<Listed>) {
        for Listed { file, size } in listed {
            let known = self.files.entry(file).or_insert(CatalogFile {
                key: file,
                size,
                entry: None,
                indexed: false,
            });
            known.size = size;
        }
    }

    fn add_entry(&mut self, entry: FileEntry, indexed: bool) {
        let size = entry.size;
        let file = self.files.entry(entry.key).or_insert(CatalogFile {
            key: entry.key,
            size,
            entry: None,
            indexed,
        });
        file.indexed |= indexed;
        file.entry = Some(Box::new(entry));
    }
}

fn is_dead(turns: &Turns, file: &CatalogFile) -> bool {
    let stream = file.entry.as_ref().and_then(|entry| entry.stream);
    stream.is_some_and(|stream| turns.is_dead(stream, file.range().max()))
}
