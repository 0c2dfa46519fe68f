//! Large files, and the memory that they take.

use super::{check, flip, name_of, only, run_on};
use crate::manifest::FileKey;
use crate::restore::tests::large::large_world;
use crate::restore::tests::memory::{large_snapshot, peak_kib};
use crate::restore::tests::world::txid;
use crate::verify::{Fix, IssueKind};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_files_are_checked_in_sections() {
    for page_size in [512, 4096, 65536] {
        let world = large_world(page_size).await;
        let report = check(&world).await;
        assert!(
            report.ok && report.issues.is_empty(),
            "{:#?}",
            report.issues
        );
        assert_eq!(report.verified, 5);
        assert!(report.bytes > 18 << 20);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_damage_in_a_large_file_is_found_wherever_it_is() {
    let mut world = large_world(4096).await;
    let key = FileKey::snapshot(txid(3));
    let path = world.path_of(key);
    let length = std::fs::metadata(&path).unwrap().len() as usize;
    let mut places: Vec<usize> = (0..8).map(|_| world.rng.usize(..length)).collect();
    places.extend([
        0,
        30,
        105,
        109,
        length - 1,
        length - 12,
        length - 20,
        length - 40,
    ]);
    for at in places {
        flip(&path, at);
        let what = format!("byte {at} of {length}");
        let report = check(&world).await;
        only(&report, IssueKind::Error, &name_of(key), "", &what);
        assert_eq!(report.verified, 4, "{what}");
        flip(&path, at);
    }
    assert!(check(&world).await.ok);
}

/// Run it alone: the peak is the process's.
#[test]
#[ignore = "takes minutes and gigabytes"]
fn s7_ten_million_pages_are_verified_in_64_mib() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.max_blocking_threads(4).enable_all();
    runtime.build().unwrap().block_on(async {
        let (world, count, sum) = large_snapshot().await;
        let before = peak_kib();
        let started = std::time::Instant::now();
        let report = run_on(&world.store, &world, Fix::No).await.unwrap();
        let peak = peak_kib();
        eprintln!("{count}: {sum:?}, {:?}", started.elapsed());
        eprintln!("peak {before} KiB while encoding, {peak} KiB after the verification");
        // There is no manifest.
        assert_eq!(
            (report.verified, report.issues.len()),
            (1, 1),
            "{report:#?}"
        );
        assert!(peak < 64 * 1024, "{peak} KiB");
    });
}
