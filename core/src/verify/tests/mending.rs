//! R131: what `--fix` does, and what it leaves alone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Fix, check, flip, mend, name_of, open, run_on, small_world};
use crate::lease::{Holder, HolderId, LeasePolicy, Record};
use crate::ltx::Mark;
use crate::manifest::{FileKey, Manifest, ManifestDelta, Publisher};
use crate::restore::tests::world::{World, range, stream, txid, walk};
use crate::restore::{RestoreTarget, points};
use crate::store::Level;
use crate::types::Timestamp;
use crate::verify::IssueKind;

/// Everything in the bucket but the manifest and its pages.
fn objects(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    let walked = walk(&world.bucket()).into_iter();
    walked
        .filter(|path| {
            let text = path.to_str().unwrap();
            !text.ends_with(".json") && !text.contains(".walrust-tmp")
        })
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

fn manifest(world: &World) -> Manifest {
    let path = world.bucket().join(world.layout.manifest());
    Manifest::parse(&std::fs::read(path).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn r131_an_orphan_goes_and_the_gap_that_it_leaves_is_told() {
    let world = small_world(60).await;
    let key = FileKey::incremental(range(7, 7));
    std::fs::remove_file(world.path_of(key)).unwrap();
    let before = (objects(&world), manifest(&world));
    let report = mend(&world).await;
    let orphan = report
        .issues
        .iter()
        .find(|issue| issue.kind == IssueKind::Orphan)
        .unwrap();
    assert!(orphan.fixed && orphan.key.ends_with(&name_of(key)));
    let next = name_of(FileKey::incremental(range(8, 8)));
    super::only(
        &report,
        IssueKind::Gap,
        &next,
        "TXID gap: expected 7, found 8",
        "fixed",
    );
    assert_eq!(objects(&world), before.0);
    let mut expected = before.1;
    expected.files.retain(|file| file.key != key);
    let now = manifest(&world);
    expected.published = now.published;
    assert_eq!(now, expected, "only the entry goes");
    // The next time there is no orphan, and still the gap.
    super::only(
        &check(&world).await,
        IssueKind::Gap,
        &next,
        "expected 7, found 8",
        "later",
    );
    super::only(
        &mend(&world).await,
        IssueKind::Gap,
        &next,
        "expected 7, found 8",
        "again",
    );
}

#[tokio::test(start_paused = true)]
async fn r131_a_hole_right_before_a_snapshot_stays_a_gap() {
    let world = small_world(70).await;
    std::fs::remove_file(world.path_of(FileKey::incremental(range(4, 5)))).unwrap();
    let next = name_of(FileKey::incremental(range(6, 6)));
    let report = mend(&world).await;
    super::only(
        &report,
        IssueKind::Gap,
        &next,
        "expected 4, found 6",
        "fixed",
    );
    super::only(
        &check(&world).await,
        IssueKind::Gap,
        &next,
        "expected 4, found 6",
        "later",
    );
    // After a compaction it may have been thinned.
    super::compacted(&world);
    assert!(check(&world).await.ok);
}

#[tokio::test(start_paused = true)]
async fn r132_an_orphan_that_nothing_needs_is_fixed_and_that_is_all() {
    for key in [
        FileKey::merged(Level::new(1).unwrap(), range(2, 5)),
        FileKey::merged(Level::new(2).unwrap(), range(2, 8)),
        FileKey::snapshot(txid(5)),
    ] {
        let world = small_world(61).await;
        std::fs::remove_file(world.path_of(key)).unwrap();
        assert!(!check(&world).await.ok);
        let report = mend(&world).await;
        assert!(report.ok, "{key}: {:#?}", report.issues);
        assert_eq!(report.issues.len(), 1);
        let report = check(&world).await;
        assert!(
            report.ok && report.issues.is_empty(),
            "{key}: {:#?}",
            report.issues
        );
    }
}

#[tokio::test(start_paused = true)]
async fn points_that_are_lost_with_a_snapshot_are_told() {
    let world = small_world(62).await;
    std::fs::remove_file(world.path_of(FileKey::snapshot(txid(1)))).unwrap();
    let report = mend(&world).await;
    super::only(
        &report,
        IssueKind::Gap,
        "",
        "from TXID 1 to 3 are lost",
        "snapshot",
    );
    // The newest file: the manifest goes on naming the state.
    let world = small_world(62).await;
    std::fs::remove_file(world.path_of(FileKey::incremental(range(9, 9)))).unwrap();
    let report = mend(&world).await;
    let message = "expected 9, found nothing";
    super::only(&report, IssueKind::Gap, "manifest.json", message, "head");
    assert_eq!(manifest(&world).head.txid, txid(9));
}

#[tokio::test(start_paused = true)]
async fn damaged_files_are_left_alone() {
    let world = small_world(63).await;
    let damaged = FileKey::incremental(range(4, 5));
    flip(&world.path_of(damaged), 150);
    let key = FileKey::merged(Level::new(1).unwrap(), range(6, 8));
    std::fs::remove_file(world.path_of(key)).unwrap();
    let before = objects(&world);
    let report = mend(&world).await;
    super::only(
        &report,
        IssueKind::Error,
        &name_of(damaged),
        "Checksum",
        "left",
    );
    assert_eq!(objects(&world), before);
    assert!(manifest(&world).file(damaged).is_some());
}

#[tokio::test(start_paused = true)]
async fn r26_what_a_writer_publishes_meanwhile_is_kept() {
    let mut world = small_world(64).await;
    let key = FileKey::merged(Level::new(1).unwrap(), range(2, 5));
    std::fs::remove_file(world.path_of(key)).unwrap();
    let store = world.store.clone();
    let layout = world.layout.clone();
    let mut added = Vec::new();
    for at in 10..30 {
        world.commit();
        let key = FileKey::incremental(range(at, at));
        let (bytes, entry) = world.encode(key, Mark::None, world.stream);
        world.put_bytes(key, bytes).await;
        added.push(entry);
    }
    let writer = async {
        let mut publisher = Publisher::new(store, layout);
        for entry in &added {
            let delta = ManifestDelta {
                add: vec![entry.clone()],
                ..ManifestDelta::default()
            };
            publisher
                .publish(&delta, Timestamp::default())
                .await
                .unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (report, ()) = tokio::join!(mend(&world), writer);
    assert!(report.ok, "{:#?}", report.issues);
    let now = manifest(&world);
    assert!(now.file(key).is_none());
    assert!(added.iter().all(|entry| now.file(entry.key).is_some()));
}

fn lease(world: &World, epoch: u32) -> Record {
    let holder = Holder {
        id: HolderId::random(),
        name: "app-0".to_owned(),
        lock: None,
    };
    let writer = stream(0xabc, epoch);
    assert_eq!(writer.lineage, world.stream.lineage);
    Record::new(writer, holder, Timestamp::default())
}

#[tokio::test(start_paused = true)]
async fn r26_a_missing_or_damaged_manifest_is_written_anew_under_the_lease() {
    for damaged in [false, true] {
        for known in [false, true] {
            let world = small_world(65).await;
            let whole = manifest(&world);
            let path = world.bucket().join(world.layout.manifest());
            std::fs::remove_file(&path).unwrap();
            if damaged {
                std::fs::write(&path, "{").unwrap();
            }
            let lease_path = world.bucket().join(world.layout.lease());
            if known {
                let released = lease(&world, 4).release();
                std::fs::write(&lease_path, released.to_bytes().unwrap()).unwrap();
            }
            let before = objects(&world);
            let report = mend(&world).await;
            assert!(report.ok, "{:#?}", report.issues);
            assert!(report.issues[0].fixed);
            assert_eq!(objects(&world), before);
            let now = manifest(&world);
            let keys = |manifest: &Manifest| -> Vec<_> {
                manifest.files.iter().map(|file| file.key).collect()
            };
            assert_eq!(keys(&now), keys(&whole));
            assert_eq!((now.head, now.lineage), (whole.head, whole.lineage));
            // The lease was ours, of the same history, and is given back.
            let record = Record::from_bytes(&std::fs::read(&lease_path).unwrap()).unwrap();
            assert!(record.released);
            assert_eq!(record.lineage, world.stream.lineage);
            assert_eq!(record.epoch.get(), if known { 5 } else { 2 });
            let report = check(&world).await;
            assert!(
                report.ok && report.issues.is_empty(),
                "{:#?}",
                report.issues
            );
            let mut catalog = crate::manifest::Catalog::load(&*world.store, &world.layout)
                .await
                .unwrap();
            catalog.complete(&*world.store).await.unwrap();
            assert_eq!(points(&catalog).len(), 8);
            world.check(RestoreTarget::Latest, 9).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_may_live_keeps_its_lease_and_its_manifest() {
    let world = small_world(66).await;
    let path = world.bucket().join(world.layout.manifest());
    std::fs::remove_file(&path).unwrap();
    let lease_path = world.bucket().join(world.layout.lease());
    let held = lease(&world, 3).to_bytes().unwrap();
    std::fs::write(&lease_path, &held).unwrap();
    let report = mend(&world).await;
    assert!(!report.ok && !path.exists());
    let told = open(&report);
    assert!(
        told.iter()
            .any(|(_, _, message)| message.contains("app-0 holds the lease")),
        "{told:?}"
    );
    assert_eq!(std::fs::read(&lease_path).unwrap(), held);
}

#[tokio::test(start_paused = true)]
async fn a_manifest_is_not_made_from_files_that_do_not_belong_together() {
    let world = small_world(67).await;
    let path = world.bucket().join(world.layout.manifest());
    std::fs::remove_file(&path).unwrap();
    let mut other = World::new(68, 512);
    other.commits(9);
    let key = FileKey::incremental(range(7, 7));
    let (bytes, _) = other.encode(key, Mark::None, stream(0xdef, 1));
    std::fs::write(world.path_of(key), bytes).unwrap();
    let report = mend(&world).await;
    assert!(!path.exists());
    let names: Vec<_> = open(&report)
        .into_iter()
        .map(|(kind, name, _)| (kind, name))
        .collect();
    assert!(
        names.contains(&(IssueKind::Error, name_of(key))),
        "{names:?}"
    );
    assert!(
        names.contains(&(IssueKind::Error, "manifest.json".to_owned())),
        "{names:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_lease_nothing_but_the_version_that_was_read_is_replaced() {
    let world = small_world(69).await;
    let path = world.bucket().join(world.layout.manifest());
    std::fs::remove_file(&path).unwrap();
    let off = LeasePolicy {
        mode: crate::lease::Mode::Off,
        ..LeasePolicy::default()
    };
    let report = run_on(&world.store, &world, Fix::Yes(off)).await.unwrap();
    assert!(report.ok && path.exists());
    assert!(!world.bucket().join(world.layout.lease()).exists());
}
