//! `kill -9` of the watcher at random moments: the bucket always restores, and nothing is lost in the end.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::thread;
use std::time::Duration;

use fastrand::Rng;
use walrust_tests::program::{
    App, Watch, assert_every_point, assert_newest, assert_no_rebase, points, restored_commits,
};
use walrust_tests::scene::Scene;
use walrust_tests::server::Server;
use walrust_tests::support::{PATIENCE, announce, rounds, seeds};
use walrust_tests::workload::Spec;

#[test]
fn u15_w8_killed_watcher_with_autocheckpoint_1000() {
    for seed in seeds(1) {
        kill_rounds(seed, 1000, rounds(12));
    }
}

#[test]
fn u9_r66_killed_watcher_with_autocheckpoint_off() {
    for seed in seeds(1) {
        kill_rounds(seed, 0, rounds(12));
    }
}

fn kill_rounds(seed: u64, autocheckpoint: u32, rounds: u64) {
    announce("kill_watcher", seed);
    let mut rng = Rng::with_seed(seed ^ u64::from(autocheckpoint));
    let server = Server::start();
    let scene = Scene::on("kill-watcher", "a.db", server.bucket("backups"));
    // No VACUUM: with autocheckpoint off the WAL stands, and the bytes sent are to follow the changes.
    let spec = Spec {
        autocheckpoint,
        rate: Some(60.0),
        page_limit: 2000,
        ..scene.spec(seed)
    };
    let mut app = App::ready(&spec);
    let mut flags = vec!["--sync-interval".to_owned(), "50ms".to_owned()];
    if autocheckpoint == 0 {
        // Here nobody restarts the WAL, we neither: so continuity must always be proven without a rebase.
        let configuration = scene.path().join("walrust.toml");
        std::fs::write(&configuration, "[sync]\ncheckpoint_pages = 1000000\n").unwrap();
        flags.extend(["--config".to_owned(), configuration.display().to_string()]);
    }
    let first = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    app.wait_commits(20);
    wait_for_base(&scene);
    drop(first);
    let (sent_before, commits_before) = (server.uploaded(), scene.oracle().commits().len());

    let mut reached = 0;
    for round in 0..rounds {
        let mut watch = Watch::start(&scene.bucket, &[&scene.database()], &flags);
        // The random moment is what is tried here; there is nothing to wait for.
        thread::sleep(Duration::from_millis(rng.u64(20..1500)));
        assert!(
            watch.process.poll().is_none(),
            "round {round}: {}",
            watch.process.printed()
        );
        watch.process.kill();
        let printed = watch.process.printed();
        // Where the WAL still stands, nothing is ever re-anchored.
        assert!(
            autocheckpoint != 0 || !printed.contains("rebase"),
            "round {round}: {printed}"
        );
        let oracle = scene.oracle();
        let (_, commits) =
            restored_commits(&scene.bucket, scene.name(), scene.path(), None, &oracle);
        let now = commits.iter().find(|seq| **seq >= reached);
        reached = *now.unwrap_or_else(|| panic!("round {round}: {commits:?} after {reached}"));
    }
    let watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    // The application's last close would delete the WAL with what nobody has seen.
    watch.wait_attached(&scene);
    app.stop();
    watch.drain();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
    assert_every_point(&scene);

    if autocheckpoint == 0 {
        assert_no_rebase(&scene);
        let oracle = scene.oracle();
        let changed: u64 = oracle.commits()[commits_before..]
            .iter()
            .map(|commit| commit.changed.len() as u64 * u64::from(commit.page_size))
            .sum();
        let sent = server.uploaded() - sent_before;
        eprintln!("kill_watcher: sent {sent} bytes for {changed} changed");
        assert!(
            sent < 2 * changed,
            "sent {sent} bytes for {changed} changed"
        );
    }
}

/// Waits until there is something to restore.
fn wait_for_base(scene: &Scene) {
    walrust_tests::support::until("a snapshot", PATIENCE, || {
        scene
            .bucket
            .ltx_keys()
            .iter()
            .any(|key| key.contains("/0009/"))
            .then_some(())
    });
}

#[test]
fn u2_what_was_stored_before_a_kill_is_in_the_next_index() {
    let scene = Scene::new("unindexed", "a.db");
    let mut writer = scene.writer(scene.spec(32));
    for _ in 0..3 {
        let mut watch = Watch::ready(
            &scene.bucket,
            &[&scene.database()],
            &["--sync-interval", "50ms"],
        );
        // Killed before the index names them.
        for _ in 0..4 {
            writer.row();
            watch.wait_stored(&scene, PATIENCE);
        }
        watch.process.kill();
    }
    let advertised = points(&scene.bucket, scene.name());
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    writer.row();
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    let now = points(&scene.bucket, scene.name());
    assert!(now.len() > advertised.len(), "{now:?} after {advertised:?}");
    for point in advertised {
        assert!(now.contains(&point), "{point:?} is gone: {now:?}");
    }
    assert_every_point(&scene);
}

#[test]
fn s10_base_lost_to_a_crash_is_remade() {
    // Killed while the base is on its way, again and again.
    let server = Server::start();
    server.bandwidth(Some(1_000_000));
    let scene = Scene::on("base", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(Spec {
        page_limit: 5000,
        ..scene.spec(31)
    });
    writer.commit("INSERT INTO blobs(data) VALUES (randomblob(3000000))");
    let mut rng = Rng::with_seed(31);
    for _ in 0..rounds(6) {
        let mut watch = Watch::ready(
            &scene.bucket,
            &[&scene.database()],
            &["--sync-interval", "50ms"],
        );
        writer.row();
        thread::sleep(Duration::from_millis(rng.u64(50..1500)));
        watch.process.kill();
        writer.row();
    }
    server.bandwidth(None);
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    assert_every_point(&scene);
}

#[test]
fn k12_checkpoint_and_restart_of_the_wal_while_we_were_away() {
    let scene = Scene::new("away", "a.db");
    let mut writer = scene.writer(scene.spec(33));
    writer.steps(20);
    for round in 0..4 {
        let mut watch = Watch::ready(
            &scene.bucket,
            &[&scene.database()],
            &["--sync-interval", "50ms"],
        );
        watch.wait_stored(&scene, PATIENCE);
        watch.process.kill();
        writer.steps(5);
        let kind = ["PASSIVE", "TRUNCATE", "RESTART", "FULL"][round];
        walrust_tests::workload::checkpoint(&writer.connection, kind).unwrap();
        writer.steps(5);
    }
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    assert_every_point(&scene);
}

#[test]
fn k12_what_the_log_still_shows_is_no_rebase() {
    // Copied back while nobody watched, so that any writer may restart the log; or restarted, once, by a commit
    // that is shorter than what was captured before.
    for restarted in [false, true] {
        let scene = Scene::new("sealed", "a.db");
        let mut writer = scene.writer(Spec {
            autocheckpoint: 0,
            ..scene.spec(34)
        });
        // A long generation: what lies behind the end of a shorter one shows that it is the end.
        for _ in 0..60 {
            writer.row();
        }
        walrust_tests::workload::checkpoint(&writer.connection, "RESTART").unwrap();
        for _ in 0..3 {
            let mut watch = Watch::ready(
                &scene.bucket,
                &[&scene.database()],
                &["--sync-interval", "50ms"],
            );
            // Before anybody overwrites what it goes on from.
            watch.wait_stored(&scene, PATIENCE);
            for _ in 0..4 {
                writer.row();
            }
            watch.wait_stored(&scene, PATIENCE);
            watch.process.kill();
            writer.commit("DELETE FROM items WHERE id % 3 = 1");
            writer.row();
            walrust_tests::workload::checkpoint(&writer.connection, "PASSIVE").unwrap();
            if restarted {
                writer.row();
            }
        }
        let watch = Watch::ready(
            &scene.bucket,
            &[&scene.database()],
            &["--sync-interval", "50ms"],
        );
        watch.wait_stored(&scene, PATIENCE);
        watch.drain();
        assert_no_rebase(&scene);
        assert_every_point(&scene);
    }
}
