//! Merged files: exact at their ends, and no point inside their range is lost or wrong.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::time::Duration;

use walrust_tests::program::{
    App, Watch, assert_every_point, files_of_kind, points, restore, restored_commits,
};
use walrust_tests::scene::Scene;
use walrust_tests::support::{PATIENCE, until};
use walrust_tests::workload::Spec;

#[test]
fn p5_merged_files_restore_exactly() {
    let scene = Scene::new("merges", "a.db");
    let spec = Spec {
        rate: Some(15.0),
        upheaval: true,
        checkpoints: true,
        auto_vacuum: 2,
        ..scene.spec(1)
    };
    let mut app = App::ready(&spec);
    app.wait_commits(10);
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "200ms"],
    );
    // A merged file ends with a minute of the clock.
    let merged = || {
        scene
            .bucket
            .ltx_keys()
            .into_iter()
            .filter(|key| key.contains("/0001/"))
            .collect::<Vec<_>>()
    };
    until(
        "a merged file",
        PATIENCE * 2 + Duration::from_secs(20),
        || (!merged().is_empty()).then_some(()),
    );
    let count = scene.oracle().commits().len() as u64;
    app.wait_commits(count + 20);
    app.stop();
    watch.drain();
    assert!(!files_of_kind(&scene.bucket, scene.name(), "merged").is_empty());
    assert_every_point(&scene);

    // Without the incrementals that it replaces: its end is exact, the inside exact or refused.
    let key = merged().pop().unwrap();
    let range = key
        .rsplit('/')
        .next()
        .unwrap()
        .trim_end_matches(".ltx")
        .to_owned();
    let (min, max) = range.split_once('-').unwrap();
    let (min, max) = (
        u64::from_str_radix(min, 16).unwrap(),
        u64::from_str_radix(max, 16).unwrap(),
    );
    let copy = scene.bucket.copy_to(&scene.path().join("copy"));
    for key in copy.ltx_keys().iter().filter(|key| key.contains("/0000/")) {
        let name = key
            .rsplit('/')
            .next()
            .unwrap()
            .trim_end_matches(".ltx")
            .to_owned();
        let end = u64::from_str_radix(name.split_once('-').unwrap().1, 16).unwrap();
        if (min..=max).contains(&end) {
            fs::remove_file(copy.file(key)).unwrap();
        }
    }
    let oracle = scene.oracle();
    let (_, commits) = restored_commits(
        &copy,
        scene.name(),
        scene.path(),
        Some(&max.to_string()),
        &oracle,
    );
    assert!(!commits.is_empty());
    let inside: Vec<_> = points(&scene.bucket, scene.name())
        .into_iter()
        .filter(|point| (min..max).contains(&point.txid))
        .collect();
    for point in inside.iter().step_by(inside.len().div_ceil(10).max(1)) {
        let output = scene.path().join("inside.db");
        let outcome = restore(&copy, scene.name(), &output, Some(&point.txid.to_string()));
        if outcome.code() == 0 {
            oracle.find(&output).unwrap();
            fs::remove_file(&output).unwrap();
        } else {
            outcome.expect_failure();
            assert!(!output.exists());
        }
    }
}
