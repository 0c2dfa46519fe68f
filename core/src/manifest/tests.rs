//! The index under many writers, many entries, and faults.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::error::{ErrorKind, Result};
use crate::restore::tests::world::{START, World, range, stream, txid};
use crate::store::{Call, Fault, Faulty, FileStore, Layout, Level, Operation, Store};
use crate::types::{Digest, PageCount, PageSize, Timestamp};

struct Bucket {
    _directory: tempfile::TempDir,
    store: Arc<dyn Store>,
    layout: Layout,
}

fn bucket() -> Bucket {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(FileStore::open(directory.path()).unwrap());
    Bucket {
        _directory: directory,
        store,
        layout: Layout::new("".parse().unwrap(), "app.db".parse().unwrap()),
    }
}

impl Bucket {
    fn publisher(&self) -> Publisher {
        Publisher::new(self.store.clone(), self.layout.clone())
    }

    async fn root(&self) -> Manifest {
        match read_root(&*self.store, &self.layout).await.unwrap() {
            Root::There { manifest, .. } => *manifest,
            other => panic!("{other:?}"),
        }
    }

    async fn all(&self) -> BTreeMap<FileKey, FileEntry> {
        let root = self.root().await;
        let older = read_pages(&*self.store, &self.layout, &root.pages)
            .await
            .unwrap();
        let count = root.files.len() + older.len();
        let all: BTreeMap<_, _> = (root.files.into_iter().chain(older))
            .map(|file| (file.key, file))
            .collect();
        assert_eq!(all.len(), count, "an entry stands in two places");
        all
    }
}

fn entry(key: FileKey) -> FileEntry {
    let max = key.range().max().get();
    let time = |txid: u64| Timestamp::from_millis(START + txid as i64 * 1000);
    FileEntry {
        key,
        kind: FileKind::of(key, crate::ltx::Mark::None),
        size: 1000 + max,
        page_size: PageSize::new(4096).unwrap(),
        commit: PageCount(77),
        pages: Some(3),
        first_commit: Some(time(key.range().min().get())),
        last_commit: Some(time(max)),
        created: time(max),
        pre: (!key.range().is_snapshot()).then(|| "8000000000000001".parse().unwrap()),
        post: Some("8000000000000002".parse().unwrap()),
        digest: Some(Digest::new(u128::from(max) << 64)),
        stream: Some(stream(0xabc, 1)),
    }
}

fn incremental(at: u64) -> FileEntry {
    entry(FileKey::incremental(range(at, at)))
}

fn delta(files: impl IntoIterator<Item = FileEntry>) -> ManifestDelta {
    let add: Vec<FileEntry> = files.into_iter().collect();
    let newest = add.iter().max_by_key(|file| file.max());
    ManifestDelta {
        head: newest.map(|file| NewHead {
            head: Head::from(file),
            lineage: stream(0xabc, 1).lineage,
            page_size: file.page_size,
        }),
        add,
        ..ManifestDelta::default()
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(START)
}

#[test]
fn every_kind_of_entry_reads_back() {
    let merged = FileKey::merged(Level::new(3).unwrap(), range(2, 9));
    let files = vec![
        incremental(7),
        entry(merged),
        entry(FileKey::snapshot(txid(9))),
    ];
    let manifest = delta(files.clone()).apply(None, now()).unwrap();
    let bytes = manifest.encode().unwrap();
    assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
    assert_eq!(manifest.files.len(), 3);
    for file in &files {
        assert_eq!(FileKey::from_entry(file.key.entry()), Some(file.key));
        assert_eq!(manifest.file(file.key), Some(file));
    }
    // A cut or garbled index is damaged, never a shorter one.
    for length in 0..bytes.len() {
        assert_eq!(
            Manifest::parse(&bytes[..length]).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }
    let text = String::from_utf8(bytes).unwrap();
    for (from, to) in [
        ("\"level\":9", "\"level\":10"),
        ("\"level\":9,\"min\":1", "\"level\":9,\"min\":2"),
        ("\"min\":7,\"max\":7", "\"min\":7,\"max\":6"),
        ("\"size\":1007", "\"size\":7"),
        ("\"page_size\":4096", "\"page_size\":4095"),
        ("\"kind\":\"incremental\"", "\"kind\":\"snapshot\""),
        ("\"txid\":9", "\"txid\":0"),
    ] {
        assert!(text.contains(from), "{from}: {text}");
        let changed = text.replacen(from, to, 1);
        assert_eq!(
            Manifest::parse(changed.as_bytes()).unwrap_err().kind(),
            ErrorKind::Corrupt,
            "{to}"
        );
    }
    let newer = text.replacen("{\"v\":1", "{\"v\":2", 1);
    assert_eq!(
        Manifest::parse(newer.as_bytes()).unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

#[tokio::test]
async fn r26_writers_side_by_side_lose_nothing_of_each_other() {
    let bucket = bucket();
    bucket
        .publisher()
        .publish(&delta([incremental(2)]), now())
        .await
        .unwrap();
    let write = async |level: u8| -> Result<u32> {
        let mut publisher = bucket.publisher();
        let mut conflicts = 0;
        for at in 0..8 {
            let key = FileKey::merged(Level::new(level).unwrap(), range(2, 10 + at));
            conflicts += publisher
                .publish(&delta([entry(key)]), now())
                .await?
                .conflicts;
        }
        Ok(conflicts)
    };
    let conflicts = futures_util::try_join!(write(1), write(2), write(3), write(4)).unwrap();
    assert!(
        conflicts.0 + conflicts.1 + conflicts.2 + conflicts.3 > 0,
        "they never met"
    );
    assert_eq!(bucket.all().await.len(), 33);
    assert_eq!(bucket.root().await.head.txid, txid(17));
}

#[tokio::test]
async fn a_change_that_is_there_already_is_not_written_again() {
    let bucket = bucket();
    let mut publisher = bucket.publisher();
    assert!(
        publisher
            .publish(&delta([incremental(2)]), now())
            .await
            .unwrap()
            .written
    );
    assert!(
        !publisher
            .publish(&delta([incremental(2)]), now())
            .await
            .unwrap()
            .written
    );
    assert!(
        !bucket
            .publisher()
            .publish(&delta([incremental(2)]), now())
            .await
            .unwrap()
            .written
    );
    // An older head never takes the place of a newer one.
    publisher
        .publish(&delta([incremental(9)]), now())
        .await
        .unwrap();
    publisher
        .publish(&delta([incremental(3)]), now())
        .await
        .unwrap();
    assert_eq!(bucket.root().await.head.txid, txid(9));
}

#[tokio::test]
async fn the_root_stays_small_and_the_pages_hold_the_rest() {
    let bucket = bucket();
    let mut publisher = bucket.publisher();
    let mut expected = BTreeSet::new();
    let (mut at, mut snapshot) = (1, 0);
    for round in 0..60_u64 {
        let mut files: Vec<FileEntry> = (0..500)
            .map(|_| {
                at += 1;
                incremental(at)
            })
            .collect();
        if round % 3 == 0 {
            snapshot = at;
            files.push(entry(FileKey::snapshot(txid(at))));
            files.push(entry(FileKey::merged(
                Level::new(1).unwrap(),
                range(at - 400, at),
            )));
        }
        expected.extend(files.iter().map(|file| file.key));
        publisher.publish(&delta(files), now()).await.unwrap();
        let root = bucket.root().await;
        assert!(root.encode().unwrap().len() < ROOT_LIMIT);
        assert_eq!(publisher.manifest(), Some(&root));
        // The newest stay where the first request finds them.
        for newest in at - 100..=at {
            assert!(
                root.file(FileKey::incremental(range(newest, newest)))
                    .is_some()
            );
        }
        assert!(root.file(FileKey::snapshot(txid(snapshot))).is_some());
    }
    assert_eq!(
        bucket.all().await.into_keys().collect::<BTreeSet<_>>(),
        expected
    );
    let count: u64 = bucket
        .root()
        .await
        .pages
        .iter()
        .map(|page| page.files)
        .sum();
    assert!(count > 28_000);
    // What retention removes goes from the pages too.
    let gone: Vec<FileKey> = expected
        .iter()
        .copied()
        .filter(|key| key.range().max().get() < 20_000)
        .collect();
    let retention = ManifestDelta {
        remove: gone.clone(),
        ..ManifestDelta::default()
    };
    assert!(
        bucket
            .publisher()
            .publish(&retention, now())
            .await
            .unwrap()
            .written
    );
    gone.iter().for_each(|key| assert!(expected.remove(key)));
    assert_eq!(
        bucket.all().await.into_keys().collect::<BTreeSet<_>>(),
        expected
    );
    assert!(bucket.root().await.encode().unwrap().len() < ROOT_LIMIT);
}

#[tokio::test]
async fn pages_are_folded_before_their_references_fill_the_root() {
    let mut manifest = delta([incremental(2)]).apply(None, now()).unwrap();
    let reference = |at: u64| PageRef {
        range: range(at, at + 1),
        hash: Digest::new(u128::from(at)),
        files: 10,
        depth: 1,
    };
    manifest.pages = (1..9000).map(|at| reference(2 * at)).collect();
    let pages = spill(&mut manifest).unwrap();
    assert!(manifest.encode().unwrap().len() < ROOT_LIMIT && !pages.is_empty());
    let below: u64 = manifest.pages.iter().map(|page| page.files).sum();
    assert_eq!(below, 89_990);
    let parsed = IndexPage::parse(&pages[0].bytes, &pages[0].reference).unwrap();
    assert_eq!((parsed.pages.len(), pages[0].reference.depth), (64, 2));
    assert_eq!(
        manifest.pages.iter().map(|page| page.depth).max(),
        Some(2),
        "the tree stays flat"
    );
    let mut wrong = pages[0].bytes.clone();
    wrong[30] ^= 1;
    assert_eq!(
        IndexPage::parse(&wrong, &pages[0].reference)
            .unwrap_err()
            .kind(),
        ErrorKind::Corrupt
    );
}

#[tokio::test]
async fn a_missing_index_is_rebuilt_from_the_objects() {
    let mut world = World::simple(80, 512, 6).await;
    world.merged(1, 2, 4).await;
    world.snapshot(5).await;
    world.publish().await;
    let path = world.bucket().join(world.layout.manifest());
    let before = Manifest::parse(&std::fs::read(&path).unwrap()).unwrap();
    for text in [None, Some("garbage"), Some("")] {
        match text {
            None => std::fs::remove_file(&path).unwrap(),
            Some(text) => std::fs::write(&path, text).unwrap(),
        }
        let mut publisher = Publisher::new(world.store.clone(), world.layout.clone());
        let Found::Rebuilt(rebuilt) = publisher.load().await.unwrap() else {
            panic!("{text:?}");
        };
        let strip = |manifest: &Manifest| {
            let mut manifest = manifest.clone();
            manifest.files.iter_mut().for_each(|file| file.pages = None);
            manifest.published = Timestamp::default();
            manifest
        };
        assert_eq!(strip(&rebuilt), strip(&before));
        assert!(
            publisher
                .publish(&ManifestDelta::default(), now())
                .await
                .unwrap()
                .written
        );
        let written = Manifest::parse(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(strip(&written), strip(&before));
        assert!(matches!(publisher.load().await.unwrap(), Found::Index(_)));
    }
}

#[tokio::test]
async fn u17_trouble_on_the_way_never_makes_a_database_new() {
    let bucket = bucket();
    assert_eq!(bucket.publisher().load().await.unwrap(), Found::Nothing);
    bucket
        .publisher()
        .publish(&delta([incremental(2)]), now())
        .await
        .unwrap();
    for kind in [ErrorKind::Unavailable, ErrorKind::Denied] {
        for number in 1..=1 {
            let faulty = Faulty::at(bucket.store.clone(), number, Fault::Before(kind));
            let mut publisher = Publisher::new(Arc::new(faulty), bucket.layout.clone());
            assert_eq!(publisher.load().await.unwrap_err().kind(), kind);
        }
    }
    // Without the index, every request must answer before the folder counts as empty.
    let world = World::simple(81, 512, 3).await;
    std::fs::remove_file(world.bucket().join(world.layout.manifest())).unwrap();
    let mut succeeded = false;
    for number in 1..20 {
        let faulty = Faulty::at(
            world.store.clone(),
            number,
            Fault::Before(ErrorKind::Unavailable),
        );
        let mut publisher = Publisher::new(Arc::new(faulty), world.layout.clone());
        match publisher.load().await {
            Ok(found) => {
                assert!(matches!(found, Found::Rebuilt(_)));
                succeeded = true;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        }
    }
    assert!(succeeded);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_neither_lost_nor_doubled() {
    let bucket = bucket();
    bucket
        .publisher()
        .publish(&delta([incremental(2)]), now())
        .await
        .unwrap();
    let script = |call: &Call| {
        (call.operation == Operation::Put).then_some(Fault::After(ErrorKind::Unavailable))
    };
    let mut publisher = Publisher::new(
        Arc::new(Faulty::new(bucket.store.clone(), script)),
        bucket.layout.clone(),
    );
    let change = delta([incremental(3)]);
    assert_eq!(
        publisher.publish(&change, now()).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    // It was stored; trying again finds it done.
    assert!(!publisher.publish(&change, now()).await.unwrap().written);
    assert_eq!(bucket.all().await.len(), 2);
}

#[tokio::test]
async fn a_writer_whose_turn_has_ended_cannot_publish() {
    let bucket = bucket();
    let mut later = delta([incremental(5)]);
    later.add[0].stream = Some(stream(0xabc, 2));
    later.epoch = Some(EpochStart {
        stream: stream(0xabc, 2),
        first: txid(5),
    });
    bucket.publisher().publish(&later, now()).await.unwrap();
    let error = bucket
        .publisher()
        .publish(&delta([incremental(6)]), now())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    bucket
        .publisher()
        .publish(&delta([incremental(4)]), now())
        .await
        .unwrap();
    assert_eq!(bucket.root().await.head.txid, txid(5));
}

#[test]
fn later_changes_of_one_writer_win_over_its_earlier_ones() {
    let mut change = delta([incremental(2), incremental(3)]);
    let mut later = delta([incremental(4)]);
    later.remove = vec![incremental(2).key];
    change.merge(later);
    let manifest = change.apply(None, now()).unwrap();
    let keys: Vec<u64> = manifest.files.iter().map(|file| file.max().get()).collect();
    assert_eq!(keys, [3, 4]);
    let mut again = ManifestDelta {
        remove: vec![incremental(5).key],
        ..ManifestDelta::default()
    };
    again.merge(delta([incremental(5)]));
    assert!(again.remove.is_empty() && again.add.len() == 1);
}
