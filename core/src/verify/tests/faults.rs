//! R142, V5: what cannot be asked is no orphan, and reading writes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Fix, check, name_of, open, run_on, small_world};
use crate::error::ErrorKind;
use crate::manifest::FileKey;
use crate::restore::tests::world::{World, range};
use crate::store::{Fault, Faulty, Operation, Store};
use crate::verify::IssueKind;

#[tokio::test(start_paused = true)]
async fn v5_any_single_request_that_fails_is_an_error_and_never_an_orphan() {
    let world = small_world(50).await;
    for damaged in [false, true] {
        if damaged {
            std::fs::remove_file(world.path_of(FileKey::incremental(range(3, 3)))).unwrap();
        }
        for kind in [ErrorKind::Unavailable, ErrorKind::Denied, ErrorKind::Busy] {
            let mut tried = 0;
            for number in 1.. {
                let faulty = Faulty::at(world.store.clone(), number, Fault::Before(kind));
                let faulty = Arc::new(faulty);
                let store: Arc<dyn Store> = faulty.clone();
                let result = run_on(&store, &world, Fix::No).await;
                if faulty.calls() < number {
                    break;
                }
                tried += 1;
                let what = format!("request {number} {kind}");
                match result {
                    Err(error) => assert_eq!(error.kind(), kind, "{what}"),
                    Ok(report) => {
                        let orphans = report.issues.iter();
                        let orphans: Vec<_> = orphans
                            .filter(|issue| issue.kind == IssueKind::Orphan)
                            .map(|issue| issue.key.ends_with("0003-0000000000000003.ltx"))
                            .collect();
                        assert_eq!(orphans, vec![true; usize::from(damaged)], "{what}");
                        let unread: Vec<_> = report
                            .issues
                            .iter()
                            .filter_map(|issue| issue.unread)
                            .collect();
                        assert_eq!(unread, [kind], "{what}: {:#?}", report.issues);
                        let expected = if damaged { ErrorKind::Corrupt } else { kind };
                        assert_eq!(report.failure(), Some(expected), "{what}");
                    }
                }
            }
            assert!(tried > 14, "{tried}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_away_ends_the_verification() {
    let world = small_world(51).await;
    let store: Arc<dyn Store> = Arc::new(Faulty::new(world.store.clone(), |call| {
        call.key
            .ends_with(".ltx")
            .then_some(Fault::Before(ErrorKind::Unavailable))
    }));
    let error = run_on(&store, &world, Fix::No).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn r148_reading_writes_nothing_whatever_is_found() {
    let world = small_world(52).await;
    let wrote = Arc::new(AtomicBool::new(false));
    let noted = wrote.clone();
    let store: Arc<dyn Store> = Arc::new(Faulty::new(world.store.clone(), move |call| {
        let reads = matches!(
            call.operation,
            Operation::Get | Operation::Head | Operation::List
        );
        noted.fetch_or(!reads, Ordering::SeqCst);
        (!reads).then_some(Fault::Before(ErrorKind::Denied))
    }));
    assert!(run_on(&store, &world, Fix::No).await.unwrap().ok);
    std::fs::remove_file(world.path_of(FileKey::incremental(range(3, 3)))).unwrap();
    std::fs::remove_file(world.bucket().join(world.layout.manifest())).unwrap();
    let report = run_on(&store, &world, Fix::No).await.unwrap();
    assert!(!report.ok && !wrote.load(Ordering::SeqCst));
    // Asked to mend, and refused: told, and still wrong.
    let report = run_on(&store, &world, super::yes()).await.unwrap();
    assert!(wrote.load(Ordering::SeqCst));
    let told = open(&report)
        .into_iter()
        .any(|(_, _, message)| message.contains("Not fixed"));
    assert!(told && !report.ok, "{:#?}", report.issues);
}

/// Thins the first two incrementals away as a compaction does: the manifest first.
fn compact(world: &World, thinned: &World) {
    let manifest = world.layout.manifest();
    std::fs::copy(
        thinned.bucket().join(&manifest),
        world.bucket().join(&manifest),
    )
    .unwrap();
    for key in [range(2, 2), range(3, 3), range(4, 5)] {
        std::fs::remove_file(world.path_of(FileKey::incremental(key))).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn r99_a_compaction_that_runs_meanwhile_is_no_finding() {
    let mut thinned = World::new(53, 512);
    super::fill(&mut thinned).await;
    thinned.publish().await;
    let path = thinned.bucket().join(thinned.layout.manifest());
    let mut manifest = crate::manifest::Manifest::parse(&std::fs::read(&path).unwrap()).unwrap();
    manifest.compactions = 1;
    manifest
        .files
        .retain(|file| file.key.level() != 0 || file.range().min().get() > 5);
    std::fs::write(&path, manifest.encode().unwrap()).unwrap();

    let calls = {
        let world = small_world(53).await;
        let faulty = Arc::new(Faulty::new(world.store.clone(), |_| None));
        let store: Arc<dyn Store> = faulty.clone();
        run_on(&store, &world, Fix::No).await.unwrap();
        faulty.calls()
    };
    for number in 1..=calls {
        let world = small_world(53).await;
        let (bucket, from) = (world.store.clone(), thinned.bucket());
        let target = world.bucket();
        let layout = world.layout.clone();
        let store: Arc<dyn Store> = Arc::new(Faulty::new(bucket, move |call| {
            if call.number == number {
                let manifest = layout.manifest();
                std::fs::copy(from.join(&manifest), target.join(&manifest)).unwrap();
                for key in [range(2, 2), range(3, 3), range(4, 5)] {
                    std::fs::remove_file(target.join(layout.incremental(key))).unwrap();
                }
            }
            None
        }));
        let report = run_on(&store, &world, Fix::No).await.unwrap();
        assert!(report.ok, "at request {number}: {:#?}", report.issues);
    }
    // Before the verification began: the same.
    let world = small_world(53).await;
    compact(&world, &thinned);
    let report = check(&world).await;
    assert!(
        report.ok && report.issues.is_empty(),
        "{:#?}",
        report.issues
    );
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_behind_is_asked_again() {
    let world = small_world(54).await;
    let hidden = world.path_of(FileKey::incremental(range(8, 8)));
    let aside = world.directory.path().join("bucket/aside");
    std::fs::rename(&hidden, &aside).unwrap();
    let (back, there) = (hidden.clone(), aside.clone());
    let mut listed = false;
    // The object shows up after the first listing of the incrementals.
    let store: Arc<dyn Store> = Arc::new(Faulty::new(world.store.clone(), move |call| {
        if listed && there.exists() {
            std::fs::rename(&there, &back).unwrap();
        }
        listed |= call.operation == Operation::List && call.key.ends_with("/0000/");
        None
    }));
    let report = run_on(&store, &world, Fix::No).await.unwrap();
    assert!(
        report.ok && report.issues.is_empty(),
        "{:#?}",
        report.issues
    );
    let name = name_of(FileKey::incremental(range(8, 8)));
    assert_eq!(report.verified, 12, "{name}");
}

#[tokio::test(start_paused = true)]
async fn v5_what_a_listing_does_not_show_and_the_store_has_is_no_orphan() {
    let world = small_world(55).await;
    let key = FileKey::incremental(range(8, 8));
    let object = world.layout.key(key.entry());
    let bytes = std::fs::read(world.path_of(key)).unwrap();
    std::fs::remove_file(world.path_of(key)).unwrap();
    let store: Arc<dyn Store> = Arc::new(Faulty::new(world.store.clone(), |call| {
        (call.operation == Operation::List).then_some(Fault::Stale(1))
    }));
    let how = crate::store::Put::new_object();
    store.put(&object, bytes.into(), how).await.unwrap();
    let report = run_on(&store, &world, super::yes()).await.unwrap();
    super::only(
        &report,
        IssueKind::Error,
        &name_of(key),
        "Not checked",
        "stale",
    );
    assert_eq!(report.failure(), Some(ErrorKind::Unavailable));
}
