//! Compactions of real files in a store that fails, lies, and is written meanwhile.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::super::{CompactReport, CompactRequest, DryRun, Tier, Writer, compact};
use super::{DAY, HOUR, MINUTE, Periods, SECOND};
use crate::clock::Clock;
use crate::config::RetentionPolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{Holder, HolderId, Record};
use crate::ltx::Mark;
use crate::manifest::{FileKey, Manifest, ManifestDelta, Publisher};
use crate::restore::tests::world::{START, World, range, stream, txid};
use crate::restore::{RestoreTarget, describe};
use crate::store::memory::MemoryStore;
use crate::store::{
    Changed, ETag, Fault, Faulty, Layout, ListPage, Object, ObjectMeta, Operation, Put, PutOutcome,
    StaleUpload, Store, Upload,
};
use crate::types::Timestamp;

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A database with some history in a store in memory.
struct Scene {
    world: World,
    store: MemoryStore,
    clock: Clock,
    periods: Periods,
    now: i64,
}

impl Scene {
    async fn new(seed: u64) -> Self {
        let now = START - START.rem_euclid(DAY);
        let clock = Clock::manual(time(now));
        let store = MemoryStore::new(clock.clone());
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("bucket")).unwrap();
        let world = World::on(Arc::new(store.clone()), directory, seed, 512);
        let mut scene = Self {
            world,
            store,
            clock,
            periods: Periods::new(1),
            now,
        };
        scene.commit_image();
        scene.world.snapshot(1).await;
        scene
    }

    fn pass(&mut self, millis: i64) {
        self.now += millis;
        self.clock.set(time(self.now));
    }

    fn commit_image(&mut self) -> u64 {
        let at = self.world.commit();
        self.world.images.get_mut(&at).unwrap().time = time(self.now);
        at
    }

    /// The merged files of the periods that are over.
    async fn merge(&mut self) {
        let head = self.world.head();
        for merged in self.periods.due(self.now, head) {
            self.world
                .merged(merged.level, merged.min, merged.max)
                .await;
        }
    }

    /// A commit and its file, after the merges of the periods that are over.
    async fn commit(&mut self, mark: Mark) -> u64 {
        self.merge().await;
        let at = self.commit_image();
        self.world
            .put(FileKey::incremental(range(at, at)), mark)
            .await;
        self.periods.record(self.now);
        at
    }

    async fn snapshot(&mut self) {
        let head = self.world.head();
        let key = FileKey::snapshot(txid(head));
        if self.world.entries.iter().all(|entry| entry.key != key) {
            self.world.snapshot(head).await;
        }
    }

    /// Some days of random commits and snapshots, all published.
    async fn lived(seed: u64, commits: u64) -> Self {
        let mut scene = Self::new(seed).await;
        for _ in 0..commits {
            let pause = match scene.world.rng.u8(0..10) {
                0..5 => scene.world.rng.i64(SECOND..20 * SECOND),
                5..8 => scene.world.rng.i64(20 * SECOND..2 * MINUTE),
                8 => scene.world.rng.i64(MINUTE..2 * HOUR),
                _ => scene.world.rng.i64(HOUR..8 * HOUR),
            };
            scene.pass(pause);
            let mark = match scene.world.rng.u8(0..60) {
                0 => Mark::Rebase,
                _ => Mark::None,
            };
            scene.commit(mark).await;
            if scene.world.rng.u8(0..9) == 0 {
                scene.snapshot().await;
            }
            if scene.world.rng.u8(0..7) == 0 {
                scene.world.publish().await;
            }
        }
        scene.world.publish().await;
        scene
    }

    fn policy() -> RetentionPolicy {
        RetentionPolicy {
            hourly: 3,
            daily: 3,
            weekly: 1,
            monthly: 1,
            points: Duration::from_secs(3600),
            minutes: Duration::from_secs(86_400),
        }
    }

    fn request(&self, dry_run: DryRun) -> CompactRequest {
        CompactRequest {
            layout: self.world.layout.clone(),
            policy: Self::policy(),
            dry_run,
            writer: Writer::Elsewhere,
        }
    }

    async fn compact(&self, dry_run: DryRun) -> Result<CompactReport> {
        self.compact_over(Arc::new(self.store.clone()), dry_run)
            .await
    }

    async fn compact_over(&self, store: Arc<dyn Store>, dry_run: DryRun) -> Result<CompactReport> {
        compact(&store, &self.request(dry_run), &self.clock).await
    }

    async fn points(&self) -> BTreeSet<u64> {
        let described = describe(&self.store, &self.world.layout).await.unwrap();
        described.points.iter().map(|point| point.txid).collect()
    }

    /// Restores what is advertised, byte for byte; every `step`th point and always the last.
    async fn check_points(&self, step: usize) -> BTreeSet<u64> {
        let points = self.points().await;
        for (number, at) in points.iter().rev().enumerate() {
            if number % step == 0 {
                self.world.check(RestoreTarget::Txid(txid(*at)), *at).await;
            }
        }
        self.world
            .check(RestoreTarget::Latest, self.world.head())
            .await;
        points
    }

    /// The files, without the index.
    fn ltx_keys(&self) -> BTreeSet<String> {
        let keys = self.store.keys().into_iter();
        keys.filter(|key| key.ends_with(".ltx")).collect()
    }

    async fn manifest(&self) -> Manifest {
        let object = self.store.get(&self.world.layout.manifest(), None).await;
        Manifest::parse(&object.unwrap().bytes).unwrap()
    }
}

/// What is done before request number so and so.
type Before = dyn Fn(u64, Operation, &str) -> BoxFuture<'static, ()> + Send + Sync;

/// Does something before a request, and fails deletions after a while.
struct Stage {
    store: MemoryStore,
    calls: AtomicU64,
    before: Box<Before>,
    /// Objects that may still be deleted.
    deletions: AtomicU64,
    /// Whether conditions of writes are honoured.
    conditional: bool,
}

impl Stage {
    fn new(store: &MemoryStore) -> Self {
        Self {
            store: store.clone(),
            calls: AtomicU64::new(0),
            before: Box::new(|_, _, _| Box::pin(std::future::ready(()))),
            deletions: AtomicU64::new(u64::MAX),
            conditional: true,
        }
    }

    async fn begin(&self, operation: Operation, key: &str) {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        (self.before)(number, operation, key).await;
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stage")
    }
}

#[async_trait]
impl Store for Stage {
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Object> {
        self.begin(Operation::Get, key).await;
        self.store.get(key, range).await
    }

    async fn get_if_changed(&self, key: &str, etag: &ETag) -> Result<Changed> {
        self.begin(Operation::Get, key).await;
        self.store.get_if_changed(key, etag).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        self.begin(Operation::Head, key).await;
        self.store.head(key).await
    }

    async fn put(&self, key: &str, body: Bytes, how: Put) -> Result<PutOutcome> {
        self.begin(Operation::Put, key).await;
        let how = match self.conditional {
            true => how,
            false => Put::always(),
        };
        self.store.put(key, body, how).await
    }

    async fn begin_upload(&self, key: &str, how: Put) -> Result<Box<dyn Upload>> {
        self.store.begin_upload(key, how).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage> {
        self.begin(Operation::List, prefix).await;
        self.store.list(prefix, after).await
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.begin(Operation::List, prefix).await;
        self.store.list_folders(prefix).await
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<(String, Error)>> {
        let mut failures = Vec::new();
        for key in keys {
            self.begin(Operation::Delete, key).await;
            if key.contains(".walrust/") {
                self.store.delete(std::slice::from_ref(key)).await?;
                continue;
            }
            let left = self.deletions.load(Ordering::SeqCst);
            match left.checked_sub(1) {
                Some(left) => {
                    self.deletions.store(left, Ordering::SeqCst);
                    self.store.delete(std::slice::from_ref(key)).await?;
                }
                None => {
                    let error = Error::new(ErrorKind::Denied, "the store refuses").on(key);
                    failures.push((key.clone(), error));
                }
            }
        }
        Ok(failures)
    }

    async fn stale_uploads(&self, prefix: &str) -> Result<Vec<StaleUpload>> {
        self.store.stale_uploads(prefix).await
    }

    async fn abort_upload(&self, upload: &StaleUpload) -> Result<()> {
        self.store.abort_upload(upload).await
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

#[tokio::test]
async fn g1_g2_a_compaction_deletes_and_every_point_left_is_exact() {
    for seed in 0..6 {
        let mut scene = Scene::lived(seed, 120).await;
        let (before, keys) = (scene.points().await, scene.ltx_keys());
        let planned = scene.compact(DryRun::Yes).await.unwrap();
        assert_eq!(scene.ltx_keys(), keys, "a dry run deletes nothing");
        let report = scene.compact(DryRun::No).await.unwrap();
        assert_eq!((planned.dry_run, report.dry_run), (true, false));
        assert_eq!(
            (
                &planned.keep,
                &planned.delete,
                planned.delete_objects,
                planned.free_bytes
            ),
            (
                &report.keep,
                &report.delete,
                report.delete_objects,
                report.free_bytes
            )
        );
        let left = scene.ltx_keys();
        assert!(
            report.delete_objects > 20 && left.len() < keys.len(),
            "{report:?}"
        );
        assert_eq!(keys.len() - left.len(), report.delete_objects as usize);
        let after = scene.check_points(1).await;
        assert!(after.is_subset(&before) && after.len() < before.len());
        assert_eq!(after.len() as u64, report.points_after);
        assert_eq!(
            after.first().copied(),
            report.earliest.map(|point| point.txid)
        );
        // Everything of the last hour, and the last of each minute of the last day.
        let images = &scene.world.images;
        let mut minutes = std::collections::BTreeMap::new();
        for at in &before {
            let millis = images[at].time.millis();
            assert!(
                millis < scene.now - HOUR || after.contains(at),
                "seed {seed}: {at}"
            );
            minutes.insert(millis / MINUTE, *at);
        }
        for (minute, at) in minutes {
            let stays = minute * MINUTE < scene.now - DAY || after.contains(&at);
            assert!(stays, "seed {seed}: {at} ends a minute");
        }
        // Once more: nothing is left to do, and nothing is written.
        let again = scene.compact(DryRun::No).await.unwrap();
        assert_eq!(
            (again.delete_objects, &again.keep),
            (0, &report.keep),
            "{again:?}"
        );
        assert_eq!(scene.manifest().await.compactions, 1);
        // A watcher that comes back finds the head, and goes on.
        scene.pass(5 * HOUR);
        let at = scene.commit(Mark::None).await;
        scene.world.publish().await;
        scene.world.check(RestoreTarget::Latest, at).await;
        scene.compact(DryRun::No).await.unwrap();
        scene.check_points(1).await;
    }
}

#[tokio::test]
async fn g6_a_failure_after_any_number_of_deletions_loses_nothing_and_the_next_run_converges() {
    let scene = Scene::lived(11, 60).await;
    let saved = scene.store.save();
    let whole = scene.compact(DryRun::No).await.unwrap();
    let (expected, points) = (scene.ltx_keys(), scene.points().await);
    for deletions in 0..whole.delete_objects {
        scene.store.load(&saved);
        let stage = Stage {
            deletions: AtomicU64::new(deletions),
            ..Stage::new(&scene.store)
        };
        let error = scene
            .compact_over(Arc::new(stage), DryRun::No)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("were not deleted"), "{error}");
        assert_eq!(scene.points().await, points, "after {deletions}");
        let sample = if deletions % 5 == 0 { 4 } else { 1000 };
        scene.check_points(sample).await;
        // Also for who has no index, and must make do with what lies there.
        let index = scene.world.layout.manifest();
        let manifest = scene.store.get(&index, None).await.unwrap().bytes;
        scene.store.remove(&index);
        if deletions % 5 == 0 {
            scene.check_points(7).await;
        }
        scene.store.write(&index, manifest);
        let planned = scene.compact(DryRun::Yes).await.unwrap();
        assert_eq!(planned.delete_objects, whole.delete_objects - deletions);
        scene.compact(DryRun::No).await.unwrap();
        assert_eq!(scene.ltx_keys(), expected, "after {deletions}");
        assert_eq!(scene.points().await, points);
    }
}

#[tokio::test]
async fn g12_a_failure_of_any_request_deletes_nothing_that_a_point_needs() {
    let scene = Scene::lived(12, 50).await;
    let saved = scene.store.save();
    let (keys, mut planned) = (scene.ltx_keys(), 0);
    scene.compact(DryRun::No).await.unwrap();
    let (expected, points) = (scene.ltx_keys(), scene.points().await);
    for (number, fault) in (1..).flat_map(|number| {
        [Fault::Before, Fault::After].map(|fault| (number, fault(ErrorKind::Unavailable)))
    }) {
        scene.store.load(&saved);
        let faulty = Arc::new(Faulty::at(scene.store.clone(), number, fault));
        let calls = faulty.clone();
        let result = scene.compact_over(faulty, DryRun::No).await;
        if calls.calls() < number {
            assert!(number > 10 && planned > 3, "{number} requests");
            break;
        }
        let untouched = scene.ltx_keys() == keys;
        match result {
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{number}: {error}"),
            // The probe's own object may stay behind.
            Ok(_) => assert_eq!(scene.ltx_keys(), expected),
        }
        planned += u32::from(untouched);
        if !untouched {
            assert_eq!(scene.points().await, points, "{number}");
        }
        scene.check_points(15).await;
        scene.compact(DryRun::No).await.unwrap();
        assert_eq!(scene.ltx_keys(), expected, "{number} {fault:?}");
    }
}

#[tokio::test]
async fn g12_a_listing_that_leaves_objects_out_is_no_reason_to_delete_others() {
    let scene = Scene::lived(13, 40).await;
    let keys = scene.ltx_keys();
    let store = scene.store.clone();
    // Everything of a folder, or a part of it.
    for most in [0, 5] {
        let hiding = Hiding {
            store: store.clone(),
            most,
        };
        let error = scene
            .compact_over(Arc::new(hiding), DryRun::No)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(
            error.to_string().contains("listing leaves it out"),
            "{error}"
        );
        assert_eq!(scene.ltx_keys(), keys);
    }
}

/// A store whose listings forget.
#[derive(Debug)]
struct Hiding {
    store: MemoryStore,
    most: usize,
}

#[async_trait]
impl Store for Hiding {
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Object> {
        self.store.get(key, range).await
    }

    async fn get_if_changed(&self, key: &str, etag: &ETag) -> Result<Changed> {
        self.store.get_if_changed(key, etag).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        self.store.head(key).await
    }

    async fn put(&self, key: &str, body: Bytes, how: Put) -> Result<PutOutcome> {
        self.store.put(key, body, how).await
    }

    async fn begin_upload(&self, key: &str, how: Put) -> Result<Box<dyn Upload>> {
        self.store.begin_upload(key, how).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage> {
        let mut page = self.store.list(prefix, after).await?;
        if prefix.ends_with("/0000/") {
            page.objects.truncate(self.most);
            page.more = false;
        }
        Ok(page)
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.store.list_folders(prefix).await
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<(String, Error)>> {
        self.store.delete(keys).await
    }

    async fn stale_uploads(&self, prefix: &str) -> Result<Vec<StaleUpload>> {
        self.store.stale_uploads(prefix).await
    }

    async fn abort_upload(&self, upload: &StaleUpload) -> Result<()> {
        self.store.abort_upload(upload).await
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

#[tokio::test]
async fn g13_a_copy_of_the_bucket_gives_the_same_plan() {
    let mut scene = Scene::lived(14, 80).await;
    let original = scene.compact(DryRun::Yes).await.unwrap();
    // Copied later, under another clock's times; looked at at the same moment.
    let at = scene.now;
    scene.pass(DAY);
    let copy = scene.store.copy();
    scene.clock.set(time(at));
    let copied = scene
        .compact_over(Arc::new(copy), DryRun::Yes)
        .await
        .unwrap();
    assert_eq!(copied, original);
    assert!(original.delete_objects > 10);
}

/// Runs `scene`'s compaction once for each of its requests, with `between` done right before that one.
async fn at_every_request<F>(scene: &Scene, between: impl Fn() -> F, check: impl AsyncFn(u64))
where
    F: Future<Output = ()> + Send + 'static,
{
    let saved = scene.store.save();
    for at in 1.. {
        scene.store.load(&saved);
        let future: BoxFuture<'static, ()> = Box::pin(between());
        let once = Mutex::new(Some(future));
        let stage = Arc::new(Stage {
            before: Box::new(move |number, _, _| {
                let mut once = once.lock().unwrap();
                let now = once.take_if(|_| number == at);
                now.unwrap_or_else(|| Box::pin(std::future::ready(())))
            }),
            ..Stage::new(&scene.store)
        });
        let outcome = scene.compact_over(stage.clone(), DryRun::No).await;
        if stage.calls.load(Ordering::SeqCst) < at {
            assert!(at > 12, "{at} requests");
            return;
        }
        outcome.unwrap();
        check(at).await;
    }
}

#[tokio::test]
async fn r99_two_compactions_with_other_policies_lose_no_point_that_both_keep() {
    let scene = Scene::lived(15, 45).await;
    let saved = scene.store.save();
    let other = CompactRequest {
        policy: RetentionPolicy {
            hourly: 20,
            daily: 0,
            weekly: 0,
            monthly: 0,
            points: Duration::from_secs(7200),
            minutes: Duration::from_secs(60),
        },
        ..scene.request(DryRun::No)
    };
    let store: Arc<dyn Store> = Arc::new(scene.store.clone());
    compact(&store, &other, &scene.clock).await.unwrap();
    let theirs = scene.points().await;
    scene.store.load(&saved);
    scene.compact(DryRun::No).await.unwrap();
    let ours = scene.points().await;
    let both: BTreeSet<u64> = ours.intersection(&theirs).copied().collect();
    assert!(
        both.len() > 5 && both != ours && both != theirs,
        "{ours:?} {theirs:?}"
    );
    scene.store.load(&saved);
    let newest: BTreeSet<u64> = scene
        .world
        .images
        .iter()
        .filter(|(_, image)| image.time.millis() >= scene.now - HOUR)
        .map(|(at, _)| *at)
        .collect();
    let clock = scene.clock.clone();
    let between = || {
        let (store, other, clock) = (store.clone(), other.clone(), clock.clone());
        async move {
            compact(&store, &other, &clock).await.unwrap();
        }
    };
    at_every_request(&scene, between, async |at| {
        let points = scene.check_points(6).await;
        assert!(newest.is_subset(&points), "at request {at}");
        assert!(points.contains(&scene.world.head()));
        // One after the other they find nothing to do in the end.
        scene.compact(DryRun::No).await.unwrap();
        scene.check_points(6).await;
    })
    .await;
}

#[tokio::test]
async fn r99_what_a_watcher_stores_meanwhile_is_untouched() {
    let mut scene = Scene::lived(16, 45).await;
    let head = scene.world.head();
    scene.pass(10 * MINUTE);
    for _ in 0..3 {
        scene.pass(SECOND);
        scene.commit_image();
    }
    let layout = scene.world.layout.clone();
    let mut files = Vec::new();
    for at in head + 1..=head + 3 {
        let key = FileKey::incremental(range(at, at));
        files.push(scene.world.encode(key, Mark::None, scene.world.stream));
    }
    let snapshot = FileKey::snapshot(txid(head + 3));
    files.push(scene.world.encode(snapshot, Mark::None, scene.world.stream));
    let newest = files[2].1.clone();
    let store: Arc<dyn Store> = Arc::new(scene.store.clone());
    let clock = scene.clock.clone();
    let between = || {
        let (store, layout, files, newest) =
            (store.clone(), layout.clone(), files.clone(), newest.clone());
        let now = clock.now();
        async move {
            let mut delta = ManifestDelta::default();
            for (bytes, entry) in files {
                let key = layout.key(entry.key.entry());
                let put = store.put(&key, bytes.into(), Put::new_object()).await;
                assert!(matches!(put.unwrap(), PutOutcome::Stored { .. }));
                delta.add.push(entry);
            }
            delta.head = Some(crate::manifest::NewHead {
                head: (&newest).into(),
                lineage: newest.stream.unwrap().lineage,
                page_size: newest.page_size,
            });
            let mut publisher = Publisher::new(store, layout);
            publisher.publish(&delta, now).await.unwrap();
        }
    };
    at_every_request(&scene, between, async |at| {
        let points = scene.check_points(8).await;
        for new in head + 1..=head + 3 {
            assert!(points.contains(&new), "at request {at}");
        }
        let manifest = scene.manifest().await;
        let named = |key| manifest.files.iter().any(|file| file.key == key);
        assert!(named(snapshot) && named(newest.key), "at request {at}");
    })
    .await;
}

#[tokio::test]
async fn g14_restores_during_compactions_are_exact() {
    let scene = Scene::lived(17, 45).await;
    let saved = scene.store.save();
    let before = scene.points().await;
    scene.compact(DryRun::No).await.unwrap();
    let after = scene.points().await;
    // A compaction goes by between any two requests of a restore.
    for target in [
        *after.first().unwrap(),
        *after.last().unwrap(),
        *before.last().unwrap(),
    ] {
        for at in 1.. {
            scene.store.load(&saved);
            let (store, request, clock) = (
                Arc::new(scene.store.clone()) as Arc<dyn Store>,
                scene.request(DryRun::No),
                scene.clock.clone(),
            );
            let stage = Arc::new(Stage {
                before: Box::new(move |number, _, _| {
                    let (store, request, clock) = (store.clone(), request.clone(), clock.clone());
                    Box::pin(async move {
                        if number == at {
                            compact(&store, &request, &clock).await.unwrap();
                        }
                    })
                }),
                ..Stage::new(&scene.store)
            });
            let store: Arc<dyn Store> = stage.clone();
            let request = scene.world.request(RestoreTarget::Txid(txid(target)));
            let report = crate::restore::tests::world::run(&store, &request)
                .await
                .unwrap();
            assert_eq!(report.txid, target);
            let restored = std::fs::read(scene.world.output()).unwrap();
            assert!(restored == scene.world.images[&target].bytes);
            std::fs::remove_file(scene.world.output()).unwrap();
            if stage.calls.load(Ordering::SeqCst) < at {
                break;
            }
        }
    }
}

#[tokio::test]
async fn g14_the_newest_state_is_restored_also_where_it_stopped_being_that_meanwhile() {
    let mut scene = Scene::lived(27, 30).await;
    let head = scene.world.head();
    scene.pass(SECOND);
    scene.commit_image();
    scene.pass(SECOND);
    scene.commit_image();
    let mut files = Vec::new();
    for at in [head + 1, head + 2] {
        let key = FileKey::incremental(range(at, at));
        let (bytes, _) = scene.world.encode(key, Mark::None, scene.world.stream);
        files.push((scene.world.layout.key(key.entry()), Bytes::from(bytes)));
    }
    let old = scene
        .world
        .layout
        .key(FileKey::incremental(range(head, head)).entry());
    let saved = scene.store.save();
    let mut passed = 0;
    for at in 1.. {
        scene.store.load(&saved);
        // New commits come, and the state that was the newest cannot be restored any more.
        let (store, files, old) = (scene.store.clone(), files.clone(), old.clone());
        let stage = Arc::new(Stage {
            before: Box::new(move |number, _, _| {
                if number == at {
                    files
                        .iter()
                        .for_each(|(key, bytes)| drop(store.write(key, bytes.clone())));
                    if store.size_of(&old).is_some() {
                        store.remove(&old);
                    }
                }
                Box::pin(std::future::ready(()))
            }),
            ..Stage::new(&scene.store)
        });
        let merged = FileKey::merged(
            crate::store::Level::new(1).unwrap(),
            range(head - 3, head + 1),
        );
        let (bytes, _) = scene.world.encode(merged, Mark::None, scene.world.stream);
        let mut manifest = scene.manifest().await;
        let (_, entry) = scene.world.encode(merged, Mark::None, scene.world.stream);
        manifest.files.push(entry);
        manifest
            .files
            .retain(|file| file.key.range().max().get() != head);
        scene
            .store
            .write(&scene.world.layout.key(merged.entry()), bytes.into());
        scene.store.write(
            &scene.world.layout.manifest(),
            manifest.encode().unwrap().into(),
        );
        let store: Arc<dyn Store> = stage.clone();
        let request = scene.world.request(RestoreTarget::Latest);
        let report = crate::restore::tests::world::run(&store, &request)
            .await
            .unwrap();
        passed += u32::from(report.txid == head + 2);
        let restored = std::fs::read(scene.world.output()).unwrap();
        assert!(
            restored == scene.world.images[&report.txid].bytes,
            "request {at}"
        );
        std::fs::remove_file(scene.world.output()).unwrap();
        if stage.calls.load(Ordering::SeqCst) < at {
            break;
        }
    }
    assert!(passed > 1, "{passed}");
}

#[tokio::test]
async fn dead_files_go_before_the_files_that_show_that_they_are_dead() {
    let mut scene = Scene::new(18).await;
    for _ in 0..6 {
        scene.pass(20 * SECOND);
        scene.commit(Mark::None).await;
    }
    // The old writer's last words, another history over the same TXIDs.
    let mut zombie = World::new(1018, 512);
    zombie.commits(12);
    let old = scene.world.stream;
    for key in [
        FileKey::incremental(range(8, 8)),
        FileKey::incremental(range(9, 10)),
        FileKey::snapshot(txid(9)),
    ] {
        let (bytes, _) = zombie.encode(key, Mark::None, old);
        scene.world.put_bytes(key, bytes).await;
    }
    scene.world.stream = stream(0xabc, 2);
    scene.periods = Periods::new(7);
    for _ in 0..12 {
        scene.pass(20 * SECOND);
        let at = scene.commit_image();
        let key = FileKey::incremental(range(at, at));
        if scene.world.entries.iter().all(|entry| entry.key != key) && at != 8 {
            scene.world.put(key, Mark::None).await;
            continue;
        }
        // The key is taken: the new writer's file reaches further.
        scene.pass(SECOND);
        let at = scene.commit_image();
        scene
            .world
            .put(FileKey::incremental(range(at - 1, at)), Mark::None)
            .await;
    }
    let head = scene.world.head();
    scene.world.merged(1, 8, head - 1).await;
    scene.snapshot().await;
    scene.world.publish().await;
    scene.pass(3 * DAY);
    let index = scene.world.layout.manifest();
    let saved = scene.store.save();
    let whole = scene.compact(DryRun::No).await.unwrap();
    assert!(whole.delete.iter().any(|line| line.txid == 9), "{whole:?}");
    let expected = scene.ltx_keys();
    assert!(
        !expected
            .iter()
            .any(|key| key.ends_with("0000000000000008-0000000000000008.ltx"))
    );
    assert!(whole.delete_objects > 8, "{whole:?}");
    for deletions in 0..=whole.delete_objects {
        scene.store.load(&saved);
        let stage = Stage {
            deletions: AtomicU64::new(deletions),
            ..Stage::new(&scene.store)
        };
        let outcome = scene.compact_over(Arc::new(stage), DryRun::No).await;
        assert_eq!(outcome.is_ok(), deletions == whole.delete_objects);
        scene.check_points(1).await;
        // Where the dead cannot be deleted, nothing else is.
        if deletions < 3 {
            assert_eq!(
                saved_keys(&scene, &saved).len() - scene.ltx_keys().len(),
                deletions as usize
            );
        }
        // Without the index the files alone tell who is dead.
        let manifest = scene.store.get(&index, None).await.unwrap().bytes;
        scene.store.remove(&index);
        scene.check_points(1).await;
        scene.store.write(&index, manifest);
        scene.compact(DryRun::No).await.unwrap();
        assert_eq!(scene.ltx_keys(), expected);
    }
}

fn saved_keys(scene: &Scene, saved: &crate::store::memory::Saved) -> BTreeSet<String> {
    let other = MemoryStore::new(scene.clock.clone());
    other.load(saved);
    other
        .keys()
        .into_iter()
        .filter(|key| key.ends_with(".ltx"))
        .collect()
}

#[tokio::test]
async fn g7_what_is_not_ours_is_left_alone_and_told() {
    let scene = Scene::lived(19, 40).await;
    let folder = scene.world.layout.folder();
    let mut stranger = World::new(1019, 512);
    stranger.commits(6);
    // Of another history, of Litestream, damaged, and no files of ours at all.
    let key = FileKey::merged(crate::store::Level::new(4).unwrap(), range(2, 5));
    let (bytes, _) = stranger.encode(key, Mark::None, stream(0x999, 3));
    scene
        .store
        .write(&scene.world.layout.key(key.entry()), bytes.into());
    for name in [
        "0000/0000000000000002-0000000000000fff.ltx",
        "0002/notes.txt",
        "index/old.json",
        "0009/0000000000000001-00000000000000ff.ltx.part",
    ] {
        scene
            .store
            .write(&format!("{folder}{name}"), Bytes::from_static(b"hello"));
    }
    // A database below this one's name, and things that lie elsewhere.
    scene.store.write(
        &format!("{folder}more/0000/x"),
        Bytes::from_static(b"hello"),
    );
    scene
        .store
        .write(&format!("{folder}readme.txt"), Bytes::from_static(b"hello"));
    let strange: Vec<String> = {
        let hello = |key: &String| scene.store.size_of(key) == Some(5);
        let mut keys: Vec<String> = scene.store.keys().into_iter().filter(hello).collect();
        keys.push(scene.world.layout.key(key.entry()));
        keys
    };
    assert_eq!(strange.len(), 7);
    scene.clock.set(time(scene.now + 40 * DAY));
    let report = scene.compact(DryRun::No).await.unwrap();
    assert!(report.delete_objects > 10);
    let notes = report.notes.join("; ");
    assert!(
        notes.contains("4 objects are of another program or history"),
        "{notes}"
    );
    assert!(notes.contains("0000000000000fff.ltx is damaged"), "{notes}");
    let left = scene.store.keys();
    for key in &strange {
        assert!(left.contains(key), "{key}");
    }
    scene.check_points(3).await;
}

#[tokio::test]
async fn g9_an_idle_database_keeps_its_newest_incremental_and_little_else() {
    let mut scene = Scene::lived(20, 80).await;
    scene.pass(200 * DAY);
    scene.compact(DryRun::No).await.unwrap();
    let left = scene.ltx_keys();
    let head = scene.world.head();
    let incrementals: Vec<&String> = left.iter().filter(|key| key.contains("/0000/")).collect();
    assert!(
        incrementals
            .iter()
            .any(|key| key.ends_with(&format!("{head:016x}.ltx"))),
        "{left:?}"
    );
    assert!(
        left.iter().filter(|key| key.contains("/0009/")).count() <= 3,
        "{left:?}"
    );
    assert!(left.len() < 40, "{left:?}");
    scene.check_points(1).await;
    // The next writer finds the head there, whatever is left of the rest.
    let at = scene.commit(Mark::None).await;
    assert_eq!(at, head + 1);
    scene.world.check(RestoreTarget::Latest, at).await;
}

#[tokio::test]
async fn objects_that_nothing_names_go_when_they_are_an_hour_old_and_nobody_needs_them() {
    let mut scene = Scene::lived(21, 60).await;
    scene.pass(60 * DAY);
    scene.compact(DryRun::No).await.unwrap();
    let layout = scene.world.layout.clone();
    // A merged file and a snapshot of a writer that died before it named them; neither is needed.
    let points = scene.points().await;
    let old = (3..).find(|at| !points.contains(at)).unwrap();
    let keys = [
        FileKey::merged(crate::store::Level::new(1).unwrap(), range(2, old)),
        FileKey::snapshot(txid(old)),
    ];
    let mut objects = Vec::new();
    for key in keys {
        let (bytes, _) = scene.world.encode(key, Mark::None, scene.world.stream);
        objects.push(layout.key(key.entry()));
        scene.store.write(objects.last().unwrap(), bytes.into());
    }
    // And a page of an index that was never written.
    let page = crate::manifest::IndexPage::of_removed(vec![keys[0]]);
    let (bytes, reference) = page.encode().unwrap().unwrap();
    objects.push(layout.index_page(reference.range, reference.hash));
    scene.store.write(objects.last().unwrap(), bytes.into());
    let there = |scene: &Scene| -> Vec<bool> {
        let keys = scene.store.keys();
        objects.iter().map(|object| keys.contains(object)).collect()
    };
    scene.pass(50 * MINUTE);
    scene.compact(DryRun::No).await.unwrap();
    assert_eq!(there(&scene), [true, true, true], "they are fresh");
    scene.pass(11 * MINUTE);
    let report = scene.compact(DryRun::No).await.unwrap();
    assert!(report.delete_objects >= 3, "{report:?}");
    assert_eq!(there(&scene), [false, false, false]);
    scene.check_points(2).await;
    // The pages of the compactions themselves do not pile up either.
    for _ in 0..5 {
        scene.pass(2 * HOUR);
        scene.commit(Mark::None).await;
        scene.world.publish().await;
        scene.compact(DryRun::No).await.unwrap();
    }
    let pages = scene
        .store
        .keys()
        .into_iter()
        .filter(|key| key.contains("/index/"));
    assert!(pages.count() <= 2);
}

#[tokio::test]
async fn files_that_the_index_lost_are_found_kept_and_named_again() {
    let scene = Scene::lived(22, 40).await;
    let before = scene.points().await;
    let layout = scene.world.layout.clone();
    // A writer died before it named its last files, and the next one named only its own.
    let mut manifest = scene.manifest().await;
    let hidden: Vec<FileKey> = manifest
        .files
        .iter()
        .map(|file| file.key)
        .filter(|key| key.level() == 0 && (30..=36).contains(&key.range().max().get()))
        .collect();
    assert_eq!(hidden.len(), 7);
    manifest.files.retain(|file| !hidden.contains(&file.key));
    manifest
        .files
        .retain(|file| file.key.level() == 0 || file.key.range().max().get() < 30);
    scene
        .store
        .write(&layout.manifest(), manifest.encode().unwrap().into());
    assert!(scene.points().await.len() < before.len());
    scene.clock.set(time(scene.now));
    let report = scene.compact(DryRun::No).await.unwrap();
    let after = scene.check_points(1).await;
    assert_eq!(after.len() as u64, report.points_after);
    // Everything of the last hour is there again, by the index alone.
    for (at, image) in &scene.world.images {
        let recent = image.time.millis() >= scene.now - HOUR;
        assert!(!recent || after.contains(at), "{at}");
    }
    assert!(after.contains(&scene.world.head()));
    let again = scene.compact(DryRun::No).await.unwrap();
    assert_eq!(again.delete_objects, 0);
}

#[tokio::test]
async fn without_conditional_writes_no_watcher_may_live_elsewhere() {
    let scene = Scene::lived(23, 40).await;
    let layout = scene.world.layout.clone();
    let lease = Record::new(
        scene.world.stream,
        Holder {
            id: HolderId::random(),
            name: "app-0".to_owned(),
            lock: None,
        },
        time(scene.now),
    );
    let keys = scene.ltx_keys();
    scene
        .store
        .write(&layout.lease(), lease.to_bytes().unwrap());
    let unfenced = || -> Arc<dyn Store> {
        Arc::new(Stage {
            conditional: false,
            ..Stage::new(&scene.store)
        })
    };
    let error = scene
        .compact_over(unfenced(), DryRun::No)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(
        error.to_string().contains("no conditional writes"),
        "{error}"
    );
    assert_eq!(scene.ltx_keys(), keys);
    scene.compact_over(unfenced(), DryRun::Yes).await.unwrap();
    // The watcher itself may, through the publisher that it writes the index with.
    let saved = scene.store.save();
    let store = unfenced();
    let publisher = Publisher::new(store.clone(), layout.clone());
    let request = CompactRequest {
        writer: Writer::Here(Arc::new(tokio::sync::Mutex::new(publisher))),
        ..scene.request(DryRun::No)
    };
    let report = compact(&store, &request, &scene.clock).await.unwrap();
    assert!(report.delete_objects > 5);
    // And so may anybody once the lease was given back.
    scene.store.load(&saved);
    scene
        .store
        .write(&layout.lease(), lease.release().to_bytes().unwrap());
    scene.compact_over(unfenced(), DryRun::No).await.unwrap();
    scene.check_points(3).await;
    let probes = scene
        .store
        .keys()
        .into_iter()
        .filter(|key| key.contains("holders"));
    assert_eq!(probes.count(), 0, "the probe leaves nothing");
}

#[tokio::test]
async fn what_is_no_whole_backup_of_walrust_is_refused() {
    let scene = Scene::lived(24, 30).await;
    let (layout, keys) = (scene.world.layout.clone(), scene.ltx_keys());
    let index = layout.manifest();
    let manifest = scene.store.get(&index, None).await.unwrap().bytes;
    let fails = async |kind: ErrorKind, text: &str| {
        let error = scene.compact(DryRun::No).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(scene.ltx_keys(), keys);
    };
    scene.store.write(&index, Bytes::from_static(b"{"));
    fails(ErrorKind::Corrupt, "manifest.json: the index is damaged").await;
    scene.store.remove(&index);
    fails(ErrorKind::Corrupt, "manifest.json: the index is missing").await;
    scene.store.write(&index, Bytes::from_static(b"{\"v\": 2}"));
    fails(ErrorKind::Unsupported, "version 2").await;
    scene.store.write(&index, manifest);
    let request = CompactRequest {
        layout: Layout::new("p".parse().unwrap(), "other.db".parse().unwrap()),
        ..scene.request(DryRun::No)
    };
    let store: Arc<dyn Store> = Arc::new(scene.store.clone());
    let error = compact(&store, &request, &scene.clock).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[tokio::test]
async fn g8_a_lost_object_does_not_stop_compactions_and_is_told() {
    let mut scene = Scene::lived(25, 60).await;
    // One in the middle, which a merged file may or may not cover.
    let middle = scene
        .world
        .layout
        .key(FileKey::incremental(range(40, 40)).entry());
    scene.store.remove(&middle);
    let before: BTreeSet<u64> = scene.points().await;
    let report = scene.compact(DryRun::No).await.unwrap();
    let notes = report.notes.join("; ");
    assert!(
        notes.contains("40.ltx is named by the index and missing")
            || notes.contains("28.ltx is named by the index and missing"),
        "{notes}"
    );
    assert!(report.delete_objects > 0);
    let after = scene.points().await;
    assert!(after.is_subset(&before));
    for at in after.iter().filter(|at| **at != 40) {
        scene.world.check(RestoreTarget::Txid(txid(*at)), *at).await;
    }
    for _ in 0..3 {
        scene.pass(20 * DAY);
        scene.commit(Mark::None).await;
        scene.snapshot().await;
        scene.world.publish().await;
        scene.compact(DryRun::No).await.unwrap();
    }
    assert!(scene.ltx_keys().len() < 30, "{:?}", scene.ltx_keys());
    scene
        .world
        .check(RestoreTarget::Latest, scene.world.head())
        .await;
}

#[tokio::test]
async fn the_point_before_a_rebase_stays_for_a_month() {
    let mut scene = Scene::new(26).await;
    for _ in 0..20 {
        scene.pass(5 * SECOND);
        scene.commit(Mark::None).await;
    }
    let before = scene.world.head();
    scene.pass(5 * SECOND);
    scene.commit(Mark::Rebase).await;
    for _ in 0..20 {
        scene.pass(5 * SECOND);
        scene.commit(Mark::None).await;
    }
    scene.snapshot().await;
    scene.world.publish().await;
    for day in 1..40 {
        scene.pass(DAY);
        scene.commit(Mark::None).await;
        scene.snapshot().await;
        scene.world.publish().await;
        let report = scene.compact(DryRun::No).await.unwrap();
        let points = scene.points().await;
        let stays = points.contains(&before);
        assert_eq!(stays, day < 30, "day {day}");
        if stays && day > 5 {
            scene
                .world
                .check(RestoreTarget::Txid(txid(before)), before)
                .await;
            let begins = report
                .keep
                .iter()
                .filter(|line| line.tiers == [Tier::Point]);
            assert!(begins.count() <= 1, "{report:?}");
        }
    }
}

#[tokio::test]
async fn without_the_index_thinned_histories_still_tell_their_order() {
    let mut scene = Scene::new(28).await;
    // The first history is sparse, so that its incrementals stay; the second is busy, so that only merged
    // files stay of it; the third goes on.
    for _ in 0..8 {
        scene.pass(3 * HOUR);
        scene.commit(Mark::None).await;
    }
    for (lineage, pause, count) in [(0x777, SECOND, 300), (0x111, HOUR, 3)] {
        scene.world.stream = stream(lineage, 1);
        scene.periods = Periods::new(scene.world.head() + 1);
        scene.pass(DAY);
        let at = scene.commit_image();
        let base = FileKey::incremental(range(at, at));
        scene.world.put(base, Mark::Base).await;
        scene.snapshot().await;
        for _ in 0..count {
            scene.pass(pause);
            scene.commit(Mark::None).await;
        }
        scene.pass(DAY);
        scene.merge().await;
        scene.world.publish().await;
    }
    for _ in 0..2 {
        scene.pass(40 * DAY);
        scene.commit(Mark::None).await;
        scene.snapshot().await;
        scene.world.publish().await;
    }
    let request = CompactRequest {
        policy: RetentionPolicy {
            monthly: 12,
            daily: 200,
            ..Scene::policy()
        },
        ..scene.request(DryRun::No)
    };
    let store: Arc<dyn Store> = Arc::new(scene.store.clone());
    compact(&store, &request, &scene.clock).await.unwrap();
    let left = scene.manifest().await;
    let levels_of = |lineage: u64| -> BTreeSet<u8> {
        let ours = stream(lineage, 1).lineage;
        let files = left
            .files
            .iter()
            .filter(|file| file.stream.unwrap().lineage == ours);
        files.map(|file| file.key.level()).collect()
    };
    assert!(
        levels_of(0xabc).contains(&0) && !levels_of(0x777).contains(&0),
        "{left:?}"
    );
    assert!(levels_of(0x777).len() > 1);
    let points = scene.check_points(3).await;
    scene.store.remove(&scene.world.layout.manifest());
    assert_eq!(scene.points().await, points);
    scene.check_points(3).await;
    let mut publisher = Publisher::new(store, scene.world.layout.clone());
    publisher
        .publish(&ManifestDelta::default(), time(scene.now))
        .await
        .unwrap();
    assert_eq!(scene.points().await, points);
}

#[tokio::test]
async fn a_clock_that_runs_ahead_of_the_stores_thins_nothing_early() {
    let scene = Scene::lived(29, 80).await;
    let right = scene.compact(DryRun::Yes).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(scene.store.clone());
    let ahead = Clock::manual(time(scene.now + 3000 * DAY));
    let wrong = compact(&store, &scene.request(DryRun::Yes), &ahead)
        .await
        .unwrap();
    assert_eq!(wrong, right);
    // One that is behind keeps more, and never less.
    let behind = Clock::manual(time(scene.now - 10 * DAY));
    let careful = compact(&store, &scene.request(DryRun::Yes), &behind)
        .await
        .unwrap();
    assert!(careful.delete_objects < right.delete_objects);
    assert!(careful.points_after > right.points_after);
}

#[tokio::test]
async fn what_removed_files_told_of_their_writers_stays_known() {
    let mut scene = Scene::new(30).await;
    for epoch in 1..6 {
        scene.world.stream = stream(0xabc, epoch);
        for _ in 0..3 {
            scene.pass(10 * SECOND);
            scene.commit(Mark::None).await;
        }
    }
    scene.snapshot().await;
    scene.world.publish().await;
    // An index that was made before turns were noted.
    let mut manifest = scene.manifest().await;
    manifest.epochs.retain(|start| start.stream.epoch.get() > 4);
    let index = scene.world.layout.manifest();
    scene.store.write(&index, manifest.encode().unwrap().into());
    scene.pass(90 * DAY);
    scene.commit(Mark::None).await;
    scene.snapshot().await;
    scene.world.publish().await;
    scene.compact(DryRun::No).await.unwrap();
    let epochs = scene.manifest().await.epochs;
    let firsts: Vec<(u32, u64)> = epochs
        .iter()
        .map(|start| (start.stream.epoch.get(), start.first.get()))
        .collect();
    assert_eq!(firsts, [(1, 2), (2, 5), (3, 8), (4, 11), (5, 14)]);
}

#[tokio::test]
async fn a_lost_list_of_removals_is_an_error_and_not_an_empty_one() {
    let mut scene = Scene::lived(31, 40).await;
    scene.compact(DryRun::No).await.unwrap();
    let removed = scene.manifest().await.removed;
    let page = scene
        .world
        .layout
        .index_page(removed[0].range, removed[0].hash);
    scene.store.remove(&page);
    scene.pass(DAY);
    let keys = scene.ltx_keys();
    let error = scene.compact(DryRun::No).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("still counted on"), "{error}");
    assert_eq!(scene.ltx_keys(), keys);
    scene.check_points(5).await;
}
