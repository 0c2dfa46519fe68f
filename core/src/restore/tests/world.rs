//! A database that never was: random page images for every TXID, and the files that tell of them. The
//! images are the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Clock;
use crate::ltx::{Encoder, Header, Mark, Spill, Tracking};
use crate::manifest::{EpochStart, FileEntry, FileKey, Head, ManifestDelta, NewHead, Publisher};
use crate::restore::{
    LeaveState, Overwrite, Progress, RestoreReport, RestoreRequest, RestoreTarget, Silent, Verify,
    restore,
};
use crate::store::{FileStore, Layout, Level, Put, PutOutcome, Store};
use crate::types::{
    DatabaseSum, Epoch, Lineage, PageCount, PageNumber, PageSize, PageSum, StreamId, Timestamp,
    Txid, TxidRange,
};

/// The state after one transaction.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    pub(crate) sum: DatabaseSum,
    /// Pages that the transaction changed, cut off or added.
    pub(crate) touched: BTreeSet<u32>,
    pub(crate) time: Timestamp,
}

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) layout: Layout,
    pub(crate) page_size: PageSize,
    pub(crate) stream: StreamId,
    pub(crate) tracked: bool,
    /// By TXID, from 1.
    pub(crate) images: BTreeMap<u64, Image>,
    pub(crate) entries: Vec<FileEntry>,
    pub(crate) rng: fastrand::Rng,
    publisher: Publisher,
    unpublished: ManifestDelta,
}

pub(crate) fn txid(value: u64) -> Txid {
    Txid::new(value).unwrap()
}

pub(crate) fn range(min: u64, max: u64) -> TxidRange {
    TxidRange::new(txid(min), txid(max)).unwrap()
}

pub(crate) fn stream(lineage: u64, epoch: u32) -> StreamId {
    StreamId {
        lineage: Lineage::new(lineage).unwrap(),
        epoch: Epoch::new(epoch).unwrap(),
    }
}

/// Milliseconds of the first commit; each further one is a second later.
pub(crate) const START: i64 = 1_700_000_000_000;

impl World {
    pub(crate) fn new(seed: u64, page_size: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bucket = directory.path().join("bucket");
        let store = Arc::new(FileStore::open(&bucket).unwrap());
        Self::on(store, directory, seed, page_size)
    }

    /// On another store; `directory` is for what restores make.
    pub(crate) fn on(
        store: Arc<dyn Store>,
        directory: tempfile::TempDir,
        seed: u64,
        page_size: u32,
    ) -> Self {
        let layout = Layout::new("p".parse().unwrap(), "app.db".parse().unwrap());
        let publisher = Publisher::new(store.clone(), layout.clone());
        Self {
            directory,
            store,
            layout,
            page_size: PageSize::new(page_size).unwrap(),
            stream: stream(0xabc, 1),
            tracked: true,
            images: BTreeMap::new(),
            entries: Vec::new(),
            rng: fastrand::Rng::with_seed(seed),
            publisher,
            unpublished: ManifestDelta::default(),
        }
    }

    /// Forgets everything, and empties the folder: somebody begins anew under the same name.
    pub(crate) fn begin_anew(&mut self) {
        let folder = self.bucket().join(self.layout.folder());
        std::fs::remove_dir_all(folder).unwrap();
        self.images.clear();
        self.entries.clear();
        self.unpublished = ManifestDelta::default();
        self.publisher = Publisher::new(self.store.clone(), self.layout.clone());
    }

    pub(crate) fn head(&self) -> u64 {
        self.images.keys().last().copied().unwrap_or(0)
    }

    fn page_of(bytes: &[u8], size: usize, page: u32) -> Option<&[u8]> {
        let start = (page as usize - 1) * size;
        bytes.get(start..start + size)
    }

    fn random_page(&mut self) -> Vec<u8> {
        let size = self.page_size.bytes();
        let mut page = vec![self.rng.u8(..); size];
        let noise = self.rng.usize(..size);
        let start = self.rng.usize(..=size - noise);
        for byte in &mut page[start..start + noise] {
            *byte = self.rng.u8(..);
        }
        page
    }

    /// Commits one transaction: some pages change, and sometimes the database shrinks or grows.
    pub(crate) fn commit(&mut self) -> u64 {
        let next = self.head() + 1;
        let size = self.page_size.bytes();
        let mut bytes = self
            .images
            .get(&(next - 1))
            .map_or(Vec::new(), |image| image.bytes.clone());
        let before = (bytes.len() / size) as u32;
        let count = match self.rng.u32(..10) {
            0 if before > 4 => self.rng.u32(1..before),
            1..=3 => before + self.rng.u32(1..12),
            _ => before.max(3),
        };
        let mut touched: BTreeSet<u32> = (before.min(count) + 1..=before.max(count)).collect();
        bytes.resize(count as usize * size, 0);
        for _ in 0..self.rng.u32(1..6) {
            touched.insert(self.rng.u32(1..=count));
        }
        for page in touched.iter().filter(|page| **page <= count) {
            let content = self.random_page();
            let start = (*page as usize - 1) * size;
            bytes[start..start + size].copy_from_slice(&content);
        }
        let image = Image {
            bytes,
            sum: DatabaseSum::EMPTY,
            touched,
            time: Timestamp::from_millis(START + next as i64 * 1000),
        };
        self.images.insert(next, image);
        self.recompute(next);
        next
    }

    /// Commits the state `bytes` that something else made.
    pub(crate) fn commit_image(&mut self, bytes: Vec<u8>) -> u64 {
        let next = self.head() + 1;
        let size = self.page_size.bytes();
        let before = self
            .images
            .get(&(next - 1))
            .map_or(Vec::new(), |image| image.bytes.clone());
        let count = (bytes.len().max(before.len()) / size) as u32;
        let differs =
            |page: &u32| Self::page_of(&before, size, *page) != Self::page_of(&bytes, size, *page);
        let image = Image {
            touched: (1..=count).filter(differs).collect(),
            bytes,
            sum: DatabaseSum::EMPTY,
            time: Timestamp::from_millis(START + next as i64 * 1000),
        };
        self.images.insert(next, image);
        self.recompute(next);
        next
    }

    /// Computes the sums of an image anew.
    pub(crate) fn recompute(&mut self, at: u64) {
        let size = self.page_size.bytes();
        let image = self.images.get_mut(&at).unwrap();
        image.sum = DatabaseSum::EMPTY;
        for (page, content) in (1..).zip(image.bytes.chunks(size)) {
            image
                .sum
                .add(PageSum::of(PageNumber::new(page).unwrap(), content));
        }
    }

    pub(crate) fn commits(&mut self, count: u64) {
        for _ in 0..count {
            self.commit();
        }
    }

    fn pages(&self, range: TxidRange, mark: Mark) -> Vec<u32> {
        let last = &self.images[&range.max().get()];
        let count = (last.bytes.len() / self.page_size.bytes()) as u32;
        if range.is_snapshot() || mark == Mark::Base {
            return (1..=count).collect();
        }
        let mut pages = BTreeSet::new();
        for txid in range.min().get()..=range.max().get() {
            pages.extend(self.images[&txid].touched.iter().copied());
        }
        pages.into_iter().filter(|page| *page <= count).collect()
    }

    /// The bytes of the file of `range` as `stream` writes it.
    pub(crate) fn encode(
        &self,
        key: FileKey,
        mark: Mark,
        stream: StreamId,
    ) -> (Vec<u8>, FileEntry) {
        let range = key.range();
        let last = &self.images[&range.max().get()];
        let commit = PageCount((last.bytes.len() / self.page_size.bytes()) as u32);
        let before = range.min().get() - 1;
        let pre = self.images.get(&before).map(|image| image.sum.checksum);
        let tracking = match (self.tracked, range.is_snapshot()) {
            (false, _) => Tracking::Untracked,
            (true, true) => Tracking::Tracked { pre_apply: None },
            (true, false) => Tracking::Tracked { pre_apply: pre },
        };
        let span = (range.max().get() - range.min().get()) as u32 * 1000;
        let header = Header {
            page_size: self.page_size,
            commit,
            range,
            timestamp: last.time,
            tracking,
            wal: None,
            node: stream.to_node_id(),
            digest: Some(last.sum.digest),
            mark,
            span_ms: if range.is_snapshot() { 0 } else { span },
        };
        let mut encoder = Encoder::new(Vec::new(), self.page_size, commit, Spill::Memory);
        for page in self.pages(range, mark) {
            let content = Self::page_of(&last.bytes, self.page_size.bytes(), page).unwrap();
            encoder
                .page(PageNumber::new(page).unwrap(), content)
                .unwrap();
        }
        let post = self.tracked.then_some(last.sum.checksum);
        let finished = encoder.finish(&header, post).unwrap();
        let mut bytes = finished.header.to_vec();
        bytes.extend_from_slice(&finished.out);
        assert_eq!(bytes.len() as u64, finished.size);
        let mut entry =
            FileEntry::from_header(key, finished.size, &header, post, Some(finished.pages));
        entry.digest = header.digest;
        (bytes, entry)
    }

    pub(crate) async fn put(&mut self, key: FileKey, mark: Mark) -> FileEntry {
        let (bytes, entry) = self.encode(key, mark, self.stream);
        self.put_bytes(key, bytes).await;
        self.note(entry.clone());
        entry
    }

    /// Lets the index name a file with the next publication.
    pub(crate) fn note(&mut self, entry: FileEntry) {
        self.entries.push(entry.clone());
        self.unpublished.add.push(entry);
    }

    pub(crate) async fn put_bytes(&self, key: FileKey, bytes: Vec<u8>) {
        let object = self.layout.key(key.entry());
        let outcome = self
            .store
            .put(&object, Bytes::from(bytes), Put::new_object())
            .await
            .unwrap();
        assert!(matches!(outcome, PutOutcome::Stored { .. }), "{object}");
    }

    pub(crate) async fn snapshot(&mut self, at: u64) -> FileEntry {
        self.put(FileKey::snapshot(txid(at)), Mark::None).await
    }

    pub(crate) async fn incremental(&mut self, min: u64, max: u64) -> FileEntry {
        self.put(FileKey::incremental(range(min, max)), Mark::None)
            .await
    }

    pub(crate) async fn merged(&mut self, level: u8, min: u64, max: u64) -> FileEntry {
        self.put(
            FileKey::merged(Level::new(level).unwrap(), range(min, max)),
            Mark::None,
        )
        .await
    }

    /// Writes the index as a watcher does.
    pub(crate) async fn publish(&mut self) {
        let newest = self.unpublished.add.iter().map(FileEntry::max).max();
        self.unpublished.head = newest.map(|newest| NewHead {
            head: Head {
                txid: newest,
                checksum: self
                    .tracked
                    .then(|| self.images[&newest.get()].sum.checksum),
                digest: Some(self.images[&newest.get()].sum.digest),
            },
            lineage: self.stream.lineage,
            page_size: self.page_size,
        });
        let own = |file: &&FileEntry| file.stream == Some(self.stream) && file.key.level() == 0;
        let first = self
            .entries
            .iter()
            .filter(own)
            .map(|file| file.range().min())
            .min();
        self.unpublished.epoch = first.map(|first| EpochStart {
            stream: self.stream,
            first,
        });
        let delta = std::mem::take(&mut self.unpublished);
        self.publisher
            .publish(&delta, Timestamp::from_millis(START))
            .await
            .unwrap();
    }

    /// A base and an incremental for each further commit, published.
    pub(crate) async fn simple(seed: u64, page_size: u32, commits: u64) -> Self {
        let mut world = Self::new(seed, page_size);
        world.commit();
        world.snapshot(1).await;
        for _ in 1..commits {
            let at = world.commit();
            world.incremental(at, at).await;
        }
        world.publish().await;
        world
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.directory.path().join("out.db")
    }

    pub(crate) fn request(&self, target: RestoreTarget) -> RestoreRequest {
        RestoreRequest {
            layout: self.layout.clone(),
            output: self.output(),
            target,
            overwrite: Overwrite::No,
            verify: Verify::None,
            state: LeaveState::No,
        }
    }

    pub(crate) async fn try_restore(&self, target: RestoreTarget) -> crate::Result<RestoreReport> {
        run(&self.store, &self.request(target)).await
    }

    /// Restores and compares with the oracle; leaves nothing.
    pub(crate) async fn check(&self, target: RestoreTarget, expected: u64) -> RestoreReport {
        let report = self.try_restore(target).await.unwrap();
        assert_eq!(report.txid, expected, "{target:?}");
        let image = &self.images[&expected];
        let restored = std::fs::read(self.output()).unwrap();
        assert!(
            restored == image.bytes,
            "{target:?}: other bytes than the image at {expected}"
        );
        assert_eq!(
            (report.checksum, report.digest),
            (image.sum.checksum, image.sum.digest)
        );
        std::fs::remove_file(self.output()).unwrap();
        self.nothing_left();
        report
    }

    /// Exactly the bucket is left in the directory.
    pub(crate) fn nothing_left(&self) {
        let names = std::fs::read_dir(self.directory.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["bucket"]);
    }

    pub(crate) fn path_of(&self, key: FileKey) -> PathBuf {
        self.bucket().join(self.layout.key(key.entry()))
    }

    pub(crate) fn bucket(&self) -> PathBuf {
        self.directory.path().join("bucket")
    }
}

pub(crate) async fn run(
    store: &Arc<dyn Store>,
    request: &RestoreRequest,
) -> crate::Result<RestoreReport> {
    let clock = Clock::manual(Timestamp::from_millis(START + 1_000_000_000));
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    restore(store, request, &clock, &progress).await
}

/// All files below `directory`.
pub(crate) fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}
