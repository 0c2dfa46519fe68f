//! Which files a restore takes, and how many requests it makes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::world::{START, World, range, run, stream, txid};
use crate::error::ErrorKind;
use crate::ltx::Mark;
use crate::manifest::{Catalog, FileKey};
use crate::restore::{RestoreTarget, describe, list_databases, points};
use crate::store::{Fault, Faulty, Store};
use crate::types::Timestamp;

#[tokio::test]
async fn p1_targets_before_the_newest_snapshot_restore_from_an_older_one() {
    let mut world = World::new(40, 512);
    world.commit();
    world.snapshot(1).await;
    for _ in 0..20 {
        world.commits(2);
        let at = world.head();
        world.incremental(at - 1, at - 1).await;
        world.incremental(at, at).await;
        world.snapshot(at).await;
    }
    world.publish().await;
    for at in 1..=41 {
        let report = world.check(RestoreTarget::Txid(txid(at)), at).await;
        assert!(report.segments <= 1, "{report:?}");
    }
}

#[tokio::test]
async fn s6_a_snapshot_takes_no_txid_and_every_point_outlives_it() {
    let mut world = World::new(41, 512);
    world.commit();
    world.snapshot(1).await;
    for at in 2..=6 {
        world.commit();
        world.incremental(at, at).await;
        world.snapshot(at).await;
    }
    world.publish().await;
    for at in 2..=6 {
        std::fs::remove_file(world.path_of(FileKey::snapshot(txid(at)))).unwrap();
    }
    for at in 1..=6 {
        world.check(RestoreTarget::Txid(txid(at)), at).await;
    }
}

#[tokio::test]
async fn p3_p4_targets_outside_the_history_name_its_ends() {
    let world = World::simple(42, 512, 5).await;
    let now = START + 1_000_000_000;
    for (target, text) in [
        (RestoreTarget::Txid(txid(9)), "latest: TXID 5 ("),
        (
            RestoreTarget::At(Timestamp::from_millis(now + 3_600_000)),
            "latest: TXID 5 (",
        ),
        (
            RestoreTarget::At(Timestamp::from_millis(START)),
            "earliest: TXID 1 (",
        ),
    ] {
        let error = world.try_restore(target).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(text), "{error}");
    }
    let report = world
        .check(RestoreTarget::At(Timestamp::from_millis(now)), 5)
        .await;
    assert!(report.notes[0].contains("newest state"), "{report:?}");
}

#[tokio::test]
async fn g9_g10_merged_files_lead_on_where_their_incrementals_are_gone() {
    let mut world = World::new(43, 512);
    world.commit();
    world.snapshot(1).await;
    for at in 2..=12 {
        world.commit();
        world.incremental(at, at).await;
    }
    // No level 1 at all, the head only in a merged file.
    world.merged(2, 2, 6).await;
    world.merged(2, 7, 12).await;
    world.publish().await;
    let report = world.check(RestoreTarget::Latest, 12).await;
    assert_eq!(report.segments, 2, "merged files mean fewer objects");
    for at in 2..=12 {
        std::fs::remove_file(world.path_of(FileKey::incremental(range(at, at)))).unwrap();
    }
    world.check(RestoreTarget::Latest, 12).await;
    world.check(RestoreTarget::Txid(txid(6)), 6).await;
    let error = world
        .try_restore(RestoreTarget::Txid(txid(9)))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    // The same without the index, which still names the incrementals.
    std::fs::remove_file(world.bucket().join(world.layout.manifest())).unwrap();
    world.check(RestoreTarget::Latest, 12).await;
    let error = world
        .try_restore(RestoreTarget::Txid(txid(9)))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("the nearest are TXID 6"),
        "{error}"
    );
}

#[tokio::test]
async fn a_merged_file_may_begin_before_the_state_that_it_is_applied_to() {
    let mut world = World::new(44, 512);
    world.commits(10);
    world.snapshot(1).await;
    world.snapshot(5).await;
    world.merged(1, 2, 9).await;
    world.incremental(10, 10).await;
    world.publish().await;
    let report = world.check(RestoreTarget::Latest, 10).await;
    assert_eq!(report.segments, 2);
    assert!(
        report.snapshot.ends_with("0000000000000005.ltx"),
        "{report:?}"
    );
}

#[tokio::test]
async fn r13_requests_do_not_grow_with_the_history() {
    let mut requests = Vec::new();
    for rounds in [2, 30] {
        let mut world = World::new(45, 512);
        world.commit();
        world.snapshot(1).await;
        for _ in 0..rounds {
            world.commits(2);
            let at = world.head();
            world.incremental(at - 1, at - 1).await;
            world.incremental(at, at).await;
            world.snapshot(at).await;
        }
        world.commit();
        let at = world.head();
        world.incremental(at, at).await;
        world.publish().await;
        requests.push(world.check(RestoreTarget::Latest, at).await.requests);
    }
    // Index, tail, snapshot, incremental.
    assert_eq!(requests, [4, 4]);
}

#[tokio::test]
async fn the_tail_behind_the_index_is_restored_and_its_gaps_are_not() {
    let mut world = World::simple(46, 512, 3).await;
    for at in 4..=6 {
        world.commit();
        world.incremental(at, at).await;
    }
    world.check(RestoreTarget::Latest, 6).await;
    // An upload that died: its successors were stored and stay alone.
    std::fs::remove_file(world.path_of(FileKey::incremental(range(5, 5)))).unwrap();
    let report = world.check(RestoreTarget::Latest, 4).await;
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("gap after TXID 4")),
        "{report:?}"
    );
    let described = describe(&*world.store, &world.layout).await.unwrap();
    assert_eq!(described.latest.unwrap().txid, 4);
}

#[tokio::test]
async fn files_of_a_writer_whose_turn_had_ended_are_not_restored() {
    let old = stream(0xabc, 1);
    for published in [false, true] {
        let mut world = World::simple(47, 512, 4).await;
        // What the old writer stored after its turn: another history.
        let mut zombie = World::new(48, 512);
        zombie.commits(8);
        for (min, max) in [(6, 6), (7, 8)] {
            let key = FileKey::incremental(range(min, max));
            let (bytes, _) = zombie.encode(key, Mark::None, old);
            world.put_bytes(key, bytes).await;
        }
        let (bytes, _) = zombie.encode(FileKey::snapshot(txid(7)), Mark::None, old);
        world.put_bytes(FileKey::snapshot(txid(7)), bytes).await;
        world.stream = stream(0xabc, 2);
        world.commit();
        world.incremental(5, 5).await;
        if published {
            world.publish().await;
        }
        world.check(RestoreTarget::Latest, 5).await;
        let described = describe(&*world.store, &world.layout).await.unwrap();
        assert_eq!(described.latest.unwrap().txid, 5, "{published}");
        // The new writer goes on over the dead files' TXIDs.
        world.commits(3);
        world.incremental(6, 7).await;
        world.incremental(8, 8).await;
        world.check(RestoreTarget::Latest, 8).await;
        world.check(RestoreTarget::Txid(txid(7)), 7).await;
        std::fs::remove_file(world.bucket().join(world.layout.manifest())).unwrap();
        world.check(RestoreTarget::Latest, 8).await;
    }
}

#[tokio::test]
async fn a_new_lineage_begins_at_its_base_and_the_old_one_stays_restorable() {
    for published in [false, true] {
        let mut world = World::simple(49, 512, 4).await;
        world.stream = stream(0x777, 1);
        world.commits(3);
        world
            .put(FileKey::incremental(range(5, 5)), Mark::Base)
            .await;
        world.incremental(6, 6).await;
        world.incremental(7, 7).await;
        if published {
            world.publish().await;
        }
        let report = world.check(RestoreTarget::Latest, 7).await;
        assert_eq!(report.segments, 2, "{report:?}");
        for at in 1..=7 {
            world.check(RestoreTarget::Txid(txid(at)), at).await;
        }
    }
}

#[tokio::test]
async fn r84_a_compaction_that_runs_meanwhile_changes_the_plan_not_the_result() {
    let mut world = World::new(50, 512);
    world.commits(9);
    world.snapshot(1).await;
    for at in 2..=9 {
        world.incremental(at, at).await;
    }
    world.publish().await;
    let (layout, bucket) = (world.layout.clone(), world.bucket());
    let merged = FileKey::merged(crate::store::Level::new(1).unwrap(), range(2, 8));
    let (bytes, entry) = world.encode(merged, Mark::None, world.stream);
    // At the first read of an incremental, the compaction has just gone by.
    let script = move |call: &crate::store::Call| {
        if call.key.contains("/0000/") && call.key.ends_with("3.ltx") {
            let path = bucket.join(layout.key(merged.entry()));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &bytes).unwrap();
            for at in 2..=8 {
                let key = FileKey::incremental(range(at, at));
                let _ = std::fs::remove_file(bucket.join(layout.key(key.entry())));
            }
            let index = bucket.join(layout.manifest());
            let mut manifest =
                crate::manifest::Manifest::parse(&std::fs::read(&index).unwrap()).unwrap();
            manifest
                .files
                .retain(|file| file.key.level() != 0 || file.max().get() == 9);
            if !manifest.files.iter().any(|file| file.key == merged) {
                manifest.files.push(entry.clone());
            }
            std::fs::write(index, manifest.encode().unwrap()).unwrap();
        }
        None::<Fault>
    };
    let faulty: Arc<dyn Store> = Arc::new(Faulty::new(world.store.clone(), script));
    let report = run(&faulty, &world.request(RestoreTarget::Latest))
        .await
        .unwrap();
    assert_eq!((report.txid, report.segments), (9, 2), "{report:?}");
    assert!(std::fs::read(world.output()).unwrap() == world.images[&9].bytes);
}

#[tokio::test]
async fn r8_a_failure_of_any_single_request_is_an_error_never_a_shorter_restore() {
    let world = World::simple(51, 512, 5).await;
    std::fs::remove_file(world.bucket().join(world.layout.manifest())).unwrap();
    for with_index in [false, true] {
        if with_index {
            let mut publisher =
                crate::manifest::Publisher::new(world.store.clone(), world.layout.clone());
            publisher
                .publish(
                    &crate::manifest::ManifestDelta::default(),
                    Timestamp::default(),
                )
                .await
                .unwrap();
        }
        let calls = Arc::new(AtomicU64::new(0));
        let counter = calls.clone();
        let counting: Arc<dyn Store> = Arc::new(Faulty::new(world.store.clone(), move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            None
        }));
        run(&counting, &world.request(RestoreTarget::Latest))
            .await
            .unwrap();
        std::fs::remove_file(world.output()).unwrap();
        let total = calls.load(Ordering::SeqCst);
        assert!(total > 5);
        for number in 1..=total {
            let fault = Fault::Before(ErrorKind::Unavailable);
            let faulty: Arc<dyn Store> = Arc::new(Faulty::at(world.store.clone(), number, fault));
            let error = run(&faulty, &world.request(RestoreTarget::Latest))
                .await
                .unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::Unavailable,
                "request {number}: {error}"
            );
            world.nothing_left();
        }
    }
}

#[tokio::test]
async fn a_damaged_database_does_not_hide_the_others_in_a_list() {
    let world = World::simple(52, 512, 3).await;
    let other = world.bucket().join("p/nested/b.db");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("manifest.json"), "{").unwrap();
    std::fs::create_dir_all(world.bucket().join("p/photos/0001x")).unwrap();
    std::fs::write(world.bucket().join("p/photos/0001x/cat.jpg"), "cat").unwrap();
    std::fs::create_dir_all(world.bucket().join("p/films/0001")).unwrap();
    std::fs::write(world.bucket().join("p/films/0001/cat.mkv"), "cat").unwrap();
    let list = list_databases(&*world.store, world.layout.prefix())
        .await
        .unwrap();
    let names: Vec<&str> = list
        .databases
        .iter()
        .map(|database| database.name.as_str())
        .collect();
    assert_eq!(names, ["app.db", "nested/b.db"]);
    let (sound, damaged) = (&list.databases[0], &list.databases[1]);
    assert_eq!((sound.txid, sound.segments), (Some(3), Some(2)));
    assert_eq!(sound.checksum, Some(world.images[&3].sum.checksum));
    assert_eq!(sound.time, Some(world.images[&3].time));
    assert_eq!(sound.latest_snapshot.as_ref().unwrap().txid, 1);
    assert!(sound.error.is_none() && damaged.error.is_some() && !list.is_sound());
    let json = serde_json::to_value(&list).unwrap();
    assert_eq!(json["databases"][0]["page_size"], 512);
    assert!(json["databases"][1]["txid"].is_null());
}

#[tokio::test]
async fn p6_a_plan_exists_exactly_for_the_advertised_points() {
    let mut world = World::simple(53, 512, 4).await;
    world.commits(4);
    world.merged(1, 5, 6).await;
    world.incremental(8, 8).await;
    world.publish().await;
    let mut catalog = Catalog::load(&*world.store, &world.layout).await.unwrap();
    catalog.complete(&*world.store).await.unwrap();
    let advertised: Vec<u64> = points(&catalog)
        .iter()
        .map(|point| point.txid.get())
        .collect();
    assert_eq!(advertised, [1, 2, 3, 4, 6]);
    for at in 1..=9 {
        let planned = crate::restore::chain_to(&catalog, txid(at)).is_some();
        assert_eq!(planned, advertised.contains(&at), "{at}");
    }
    // The index names what a gap separates from the rest.
    let error = world.try_restore(RestoreTarget::Latest).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("transactions 7 to 7 are missing"),
        "{error}"
    );
}
