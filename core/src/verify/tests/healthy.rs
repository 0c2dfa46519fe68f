//! V3: no alarm over what a watcher, a restart or a compaction lawfully leaves.

use super::{check, compacted, fill, mend, open, small_world};
use crate::ltx::Mark;
use crate::manifest::FileKey;
use crate::restore::tests::world::{World, range, stream, txid};
use crate::types::PageSize;
use crate::verify::IssueKind;

#[track_caller]
fn clean(report: &crate::verify::VerifyReport, what: &str) {
    assert!(
        report.ok && report.issues.is_empty(),
        "{what}: {:#?}",
        report.issues
    );
}

#[tokio::test]
async fn v3_a_history_with_every_kind_of_file_is_verified_whole() {
    for page_size in [512, 4096, 65536] {
        let mut world = World::new(1, page_size);
        fill(&mut world).await;
        world.publish().await;
        let report = check(&world).await;
        clean(&report, "whole");
        assert_eq!((report.files, report.verified, report.behind), (12, 12, 0));
        assert_eq!(
            (report.txid, report.page_size),
            (Some(txid(9)), PageSize::new(page_size))
        );
        assert_eq!(
            report.bytes,
            world.entries.iter().map(|entry| entry.size).sum::<u64>()
        );
    }
}

#[tokio::test]
async fn v3_random_histories_are_verified_with_and_without_a_tail_and_checksums() {
    for seed in 0..16 {
        let mut world = World::new(seed, 512);
        world.tracked = !seed.is_multiple_of(3);
        world.commit();
        world.snapshot(1).await;
        let mut boundary = 1;
        let mut behind = 1;
        while world.head() < 60 {
            let first = world.head() + 1;
            let batch = world.rng.u64(1..4);
            world.commits(batch);
            let last = world.head();
            let mark = match world.rng.u32(..12) {
                0 => Mark::Rebase,
                1 => Mark::Base,
                _ => Mark::None,
            };
            world
                .put(FileKey::incremental(range(first, last)), mark)
                .await;
            behind += 1;
            if world.rng.u32(..4) == 0 && last > boundary + 1 {
                let level = world.rng.u8(1..4);
                world.merged(level, boundary + 1, last).await;
                behind += 1;
                boundary = last;
            }
            if world.rng.u32(..8) == 0 {
                world.snapshot(last).await;
                behind += 1;
            }
            if world.rng.u32(..6) == 0 {
                world.publish().await;
                behind = 0;
            }
        }
        let report = check(&world).await;
        clean(&report, &format!("seed {seed}"));
        assert_eq!(report.verified, world.entries.len() as u64, "seed {seed}");
        assert_eq!(report.behind, behind, "seed {seed}");
    }
}

#[tokio::test]
async fn v3_writers_that_took_turns_and_a_new_history_are_fine() {
    let mut world = small_world(2).await;
    world.stream = stream(0xabc, 4);
    world.commits(2);
    world.incremental(10, 10).await;
    world.publish().await;
    // A new chain: another history, begun by a base.
    world.stream = stream(0xdef, 5);
    world
        .put(FileKey::incremental(range(11, 11)), Mark::Base)
        .await;
    world.commits(1);
    world.incremental(12, 12).await;
    world.snapshot(12).await;
    world.publish().await;
    clean(&check(&world).await, "turns");
}

#[tokio::test]
async fn v3_another_page_size_from_a_base_on_is_fine_and_elsewhere_is_not() {
    let mut world = small_world(3).await;
    world.page_size = PageSize::new(1024).unwrap();
    let image = world.images[&9].bytes.clone();
    world.commit_image(vec![7; image.len().next_multiple_of(1024)]);
    world
        .put(FileKey::incremental(range(10, 10)), Mark::Base)
        .await;
    world.commits(1);
    world.incremental(11, 11).await;
    world.publish().await;
    clean(&check(&world).await, "page size");
}

#[tokio::test]
async fn v3_what_a_compaction_thinned_is_not_missed() {
    // The incrementals that the second merged file of level 1 covers, and all before the second snapshot.
    let mut thinned = World::new(4, 512);
    thinned.commits(9);
    thinned.snapshot(5).await;
    thinned.merged(1, 6, 8).await;
    // Begins before the oldest snapshot.
    thinned.merged(2, 2, 8).await;
    thinned.incremental(9, 9).await;
    thinned.publish().await;
    compacted(&thinned);
    let report = check(&thinned).await;
    clean(&report, "thinned");
    assert_eq!(report.verified, 4);
    // A manifest made anew knows nothing of that, and excuses it.
    let path = thinned.bucket().join(thinned.layout.manifest());
    std::fs::remove_file(path).unwrap();
    let report = mend(&thinned).await;
    assert!(report.ok, "{:#?}", report.issues);
    clean(&check(&thinned).await, "thinned and rebuilt");
}

#[tokio::test]
async fn v3_a_base_that_was_lost_to_a_crash_leaves_a_note() {
    let mut world = World::new(5, 512);
    world.commits(4);
    world.incremental(2, 2).await;
    world.incremental(3, 3).await;
    world.snapshot(3).await;
    world.incremental(4, 4).await;
    world.publish().await;
    let report = check(&world).await;
    assert!(report.ok, "{:#?}", report.issues);
    let [note] = report.issues.as_slice() else {
        panic!("{:#?}", report.issues)
    };
    assert_eq!(note.kind, IssueKind::Note);
    assert!(
        note.message.contains("The files up to TXID 2 "),
        "{}",
        note.message
    );
    assert_eq!(report.verified, 4);
}

#[tokio::test]
async fn dead_files_and_what_the_manifest_forgot_are_notes() {
    let mut world = small_world(6).await;
    let late = FileKey::incremental(range(9, 10));
    world.commits(1);
    let (bytes, _) = world.encode(late, Mark::None, world.stream);
    world.stream = stream(0xabc, 2);
    world.incremental(10, 10).await;
    world.publish().await;
    world.put_bytes(late, bytes).await;
    let forgotten = FileKey::snapshot(txid(7));
    let (bytes, _) = world.encode(forgotten, Mark::None, stream(0xabc, 1));
    world.put_bytes(forgotten, bytes).await;
    let report = check(&world).await;
    assert!(
        report.ok && open(&report).is_empty(),
        "{:#?}",
        report.issues
    );
    let keys: Vec<_> = report
        .issues
        .iter()
        .map(|issue| issue.key.as_str())
        .collect();
    // No lease is there, so a writer may run: the snapshot is too young to be called forgotten.
    assert_eq!(keys, [format!("p/app.db/{late}")]);

    let lease = crate::lease::Record::new(
        world.stream,
        crate::lease::Holder {
            id: crate::lease::HolderId::random(),
            name: "gone".to_owned(),
            lock: None,
        },
        crate::types::Timestamp::default(),
    );
    let path = world.bucket().join(world.layout.lease());
    std::fs::write(&path, lease.clone().to_bytes().unwrap()).unwrap();
    assert_eq!(check(&world).await.issues.len(), 1, "a writer runs");
    std::fs::write(&path, lease.release().to_bytes().unwrap()).unwrap();
    let report = check(&world).await;
    assert!(report.ok);
    let keys: Vec<_> = report
        .issues
        .iter()
        .map(|issue| issue.key.as_str())
        .collect();
    let forgotten = format!("p/app.db/{forgotten}");
    assert!(keys.contains(&forgotten.as_str()), "{keys:?}");
    assert!(
        report
            .issues
            .iter()
            .all(|issue| issue.kind == IssueKind::Note)
    );
}

#[tokio::test]
async fn v4_an_empty_backup_is_no_success() {
    let world = World::new(7, 512);
    let error = super::run_on(&world.store, &world, super::Fix::No)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), crate::ErrorKind::NotFound);
    // Incrementals alone restore nothing.
    let mut world = World::new(7, 512);
    world.commits(3);
    world.incremental(2, 2).await;
    world.incremental(3, 3).await;
    let report = check(&world).await;
    super::only(
        &report,
        IssueKind::Error,
        "",
        "No snapshot is stored",
        "no base",
    );
    world.publish().await;
    let report = check(&world).await;
    super::only(
        &report,
        IssueKind::Error,
        "",
        "No snapshot is stored",
        "no base",
    );
}
