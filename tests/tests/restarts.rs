//! Restarts cost next to nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::env;

use walrust_tests::program::{Watch, assert_no_rebase, files_of_kind, restore};
use walrust_tests::record::Recorder;
use walrust_tests::scene::Scene;
use walrust_tests::server::Server;
use walrust_tests::support::PATIENCE;
use walrust_tests::workload::Spec;

#[test]
fn s10_twenty_clean_restarts_upload_next_to_nothing() {
    let megabytes: u64 =
        env::var("WALRUST_TEST_RESTART_MB").map_or(100, |text| text.parse().unwrap());
    let server = Server::start();
    let scene = Scene::on("restarts", "a.db", server.bucket("backups"));
    let writer = scene.writer(Spec {
        page_limit: u32::MAX,
        ..scene.spec(1)
    });
    for _ in 0..megabytes {
        writer
            .connection
            .execute_batch("INSERT INTO blobs(data) VALUES (randomblob(1000000))")
            .unwrap();
    }
    let mut recorder = Recorder::open(&scene.log());
    recorder.observe(&writer.connection).unwrap();
    let watch = Watch::ready::<&str>(&scene.bucket, &[&scene.database()], &[]);
    watch.wait_stored(&scene, PATIENCE * 2);
    watch.drain();
    assert!(server.uploaded() > megabytes * 1_000_000);
    server.restart_count();
    for _ in 0..20 {
        Watch::ready::<&str>(&scene.bucket, &[&scene.database()], &[]).drain();
    }
    let (uploaded, requests) = (server.uploaded(), server.calls().len());
    eprintln!("restarts: {uploaded} bytes uploaded, {requests} requests");
    assert!(
        uploaded <= 64 << 10,
        "20 clean restarts uploaded {uploaded} bytes"
    );
    assert_eq!(
        files_of_kind(&scene.bucket, scene.name(), "snapshot").len(),
        1
    );
    assert_no_rebase(&scene);
    let output = scene.path().join("restored.db");
    restore(&scene.bucket, scene.name(), &output, None).expect_success();
    scene
        .oracle()
        .check_file(&output, scene.oracle().last().seq)
        .unwrap();
}

#[test]
fn s8_exactly_one_snapshot_at_start() {
    for on_startup in ["true", "false"] {
        let scene = Scene::new("startup", "a.db");
        let mut writer = scene.writer(scene.spec(2));
        writer.steps(20);
        let flags = ["--on-startup", on_startup, "--sync-interval", "50ms"];
        let watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
        watch.wait_stored(&scene, PATIENCE);
        writer.row();
        watch.wait_stored(&scene, PATIENCE);
        watch.drain();
        assert_eq!(
            files_of_kind(&scene.bucket, scene.name(), "snapshot").len(),
            1
        );
        // A snapshot at the next start only where asked for, and none when nothing changed since.
        for (change, more) in [(true, on_startup == "true"), (false, false)] {
            let before = files_of_kind(&scene.bucket, scene.name(), "snapshot").len();
            if change {
                writer.row();
            }
            Watch::ready(&scene.bucket, &[&scene.database()], &flags).drain();
            let after = files_of_kind(&scene.bucket, scene.name(), "snapshot").len();
            assert_eq!(
                after - before,
                usize::from(more),
                "on_startup {on_startup}, changed {change}"
            );
        }
    }
}
