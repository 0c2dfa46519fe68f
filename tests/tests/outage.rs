//! The store away or slow, under load: nothing lost, WAL and spool bounded, caught up without a restart.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::env;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use walrust_tests::process::Signal;
use walrust_tests::program::{App, Watch, assert_every_point, assert_newest, assert_no_rebase};
use walrust_tests::scene::Scene;
use walrust_tests::server::{Action, Server};
use walrust_tests::support::PATIENCE;
use walrust_tests::workload::Spec;

/// The application's WAL must not grow beyond this.
const WAL_LIMIT: u64 = 32 << 20;

fn seconds(usual: u64) -> Duration {
    let text = env::var("WALRUST_TEST_OUTAGE_SECONDS");
    Duration::from_secs(text.map_or(usual, |text| text.parse().unwrap()))
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

fn folder_size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => folder_size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// The largest WAL and state directory seen while `time` passes.
fn observe(scene: &Scene, time: Duration) -> (u64, u64) {
    let (start, mut wal, mut state) = (Instant::now(), 0, 0);
    while start.elapsed() < time {
        wal = wal.max(size(&scene.beside("-wal")));
        state = state.max(folder_size(&scene.state()));
        thread::sleep(Duration::from_millis(20));
    }
    (wal, state)
}

#[test]
fn u13_r64_outage_under_load_loses_nothing() {
    let server = Server::start();
    let scene = Scene::on("outage", "a.db", server.bucket("backups"));
    // 8 pages a commit, 100 commits a second: several WAL thresholds go by in the outage.
    let spec = Spec {
        rate: Some(100.0),
        upheaval: true,
        page_limit: 1500,
        ..scene.spec(1)
    };
    let app = App::ready(&spec);
    let mut watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "100ms"],
    );
    wait_stored_under_load(&scene, &server);
    server.outage(true);
    let (wal, state) = observe(&scene, seconds(8));
    eprintln!("outage: WAL at most {wal} bytes, state directory at most {state}");
    assert!(wal < WAL_LIMIT, "the WAL grew to {wal} bytes");
    assert!(
        watch.process.poll().is_none(),
        "{}",
        watch.process.printed()
    );
    server.outage(false);
    app.stop();
    watch.wait_stored(&scene, PATIENCE * 2);
    watch.drain();
    assert_no_rebase(&scene);
    assert_every_point(&scene);
}

fn wait_stored_under_load(scene: &Scene, server: &Server) {
    walrust_tests::support::until("incrementals behind the base", PATIENCE, || {
        let keys = scene.bucket.ltx_keys();
        let incrementals = keys.iter().filter(|key| key.contains("/0000/")).count();
        (incrementals > 3 && keys.iter().any(|key| key.contains("/0009/"))).then_some(())
    });
    assert!(server.uploaded() > 0);
}

#[test]
fn k8_spool_limit_reached_detaches_and_catches_up() {
    let server = Server::start();
    let scene = Scene::on("spool", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(Spec {
        page_limit: u32::MAX,
        ..scene.spec(2)
    });
    writer.steps(10);
    let flags = ["--sync-interval", "100ms", "--spool-limit", "8MiB"];
    let mut watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_stored(&scene, PATIENCE);
    server.outage(true);
    // New pages each time, so that nothing of an earlier batch is replaced by a later one.
    for _ in 0..40 {
        writer.commit("INSERT INTO blobs(data) VALUES (randomblob(1000000))");
        assert!(
            folder_size(&scene.state()) < 24 << 20,
            "{}",
            folder_size(&scene.state())
        );
        thread::sleep(Duration::from_millis(30));
    }
    let (wal, state) = observe(&scene, seconds(8));
    eprintln!("spool: WAL at most {wal} bytes, state directory at most {state}");
    // Detached: nothing of ours holds the WAL, so the application can restart it.
    assert!(
        size(&scene.beside("-wal")) < 3 * WAL_LIMIT,
        "{}",
        size(&scene.beside("-wal"))
    );
    assert!(
        watch.process.poll().is_none(),
        "{}",
        watch.process.printed()
    );
    server.outage(false);
    writer.row();
    watch.wait_stored(&scene, PATIENCE * 2);
    writer.steps(10);
    watch.drain();
    // By a rebase where the application restarted its WAL meanwhile, without one where the WAL still stood: the
    // newest commit and every advertised point decide.
    assert_every_point(&scene);
}

#[test]
fn s7_snapshot_under_load_to_a_slow_store_keeps_the_wal_small() {
    let server = Server::start();
    let scene = Scene::on("slow", "a.db", server.bucket("backups"));
    let megabytes: u64 = env::var("WALRUST_TEST_SLOW_MB").map_or(40, |text| text.parse().unwrap());
    let writer = scene.writer(Spec {
        page_limit: u32::MAX,
        ..scene.spec(3)
    });
    for _ in 0..megabytes {
        // Not recorded: the first image that counts is the one when the application starts.
        writer
            .connection
            .execute_batch("INSERT INTO blobs(data) VALUES (randomblob(1000000))")
            .unwrap();
    }
    drop(writer);
    server.bandwidth(Some(4_000_000));
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "500ms"],
    );
    // Small images would cost the recorder a pass over everything for each commit: write without it.
    let connection = rusqlite::Connection::open(scene.database()).unwrap();
    connection.busy_timeout(Duration::from_secs(10)).unwrap();
    let (start, mut wal, mut commits) = (Instant::now(), 0, 0_u64);
    while !scene
        .bucket
        .ltx_keys()
        .iter()
        .any(|key| key.contains("/0009/"))
    {
        connection
            .execute_batch(
                "INSERT INTO items(k, v, b) VALUES (abs(random()) % 5000, 'x', randomblob(6000))",
            )
            .unwrap();
        commits += 1;
        wal = wal.max(size(&scene.beside("-wal")));
        // The line takes 4 MB a second, of which incrementals have their part.
        assert!(
            start.elapsed() < PATIENCE * 5 + Duration::from_secs(megabytes),
            "no snapshot after {commits} commits"
        );
        thread::sleep(Duration::from_millis(1));
    }
    eprintln!("slow store: {commits} commits beside the snapshot, WAL at most {wal} bytes");
    assert!(wal < WAL_LIMIT, "the WAL grew to {wal} bytes");
    server.bandwidth(None);
    watch.drain();
    let mut recorder = walrust_tests::record::Recorder::open(&scene.log());
    recorder.observe(&connection).unwrap();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
}

#[test]
fn u14_one_denied_prefix_does_not_stop_the_others() {
    let server = Server::start();
    let scene = Scene::on("denied", "good.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(4));
    let bad = scene.path().join("data/bad.db");
    let other = rusqlite::Connection::open(&bad).unwrap();
    other
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(x)")
        .unwrap();
    server.rule(|call| {
        if call.path.contains("bad.db") {
            Action::Fail(403)
        } else {
            Action::Pass
        }
    });
    let mut watch = Watch::ready(
        &scene.bucket,
        &[&scene.database(), &bad],
        &["--sync-interval", "50ms"],
    );
    writer.steps(20);
    watch.wait_stored(&scene, PATIENCE);
    assert!(watch.process.poll().is_none());
    // It heals without a restart.
    server.no_rule();
    walrust_tests::support::until(
        "the other database is stored",
        Duration::from_secs(120),
        || {
            scene
                .bucket
                .ltx_keys()
                .iter()
                .any(|key| key.starts_with("bad.db/0009/"))
                .then_some(())
        },
    );
    watch.drain();
}

#[test]
fn u16_sigterm_with_the_store_away_keeps_the_tail_and_says_so() {
    let server = Server::start();
    let scene = Scene::on("sigterm", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(5));
    writer.steps(10);
    let mut watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    watch.wait_stored(&scene, PATIENCE);
    server.outage(true);
    writer.steps(10);
    watch.process.signal(Signal::TERM);
    let output = watch.process.output(Duration::from_secs(30));
    assert_eq!(output.code(), 1, "{}", output.stderr);
    assert!(output.stderr.contains("a.db"), "{}", output.stderr);
    // u3: the next start ships it.
    server.outage(false);
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    watch.drain();
    assert_no_rebase(&scene);
    assert_every_point(&scene);
}
