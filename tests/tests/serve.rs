//! What a running watch says of itself: it must be true, whatever the store does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walrust_tests::process::Process;
use walrust_tests::program::{Watch, walrust, walrust_configured};
use walrust_tests::scene::Scene;
use walrust_tests::served::Served;
use walrust_tests::server::{Action, Server};
use walrust_tests::support::{PATIENCE, until};
use walrust_tests::weed::Weed;

/// A watch that serves on a port of its own, and finds a commit late after two seconds.
fn serving(scene: &Scene, more: &str) -> (Watch, Served) {
    let configuration = configuration(scene, more);
    let mut command = walrust_configured(&scene.bucket, &configuration, "watch");
    let mut process = Process::spawn(command.arg("-v"));
    let served = Served::by(&mut process, "metrics");
    (Watch { process }, served)
}

fn configuration(scene: &Scene, more: &str) -> PathBuf {
    let path = scene.path().join("w.toml");
    let text = format!(
        "[s3]\nbucket = \"{}\"\n[sync]\nsync_interval = \"100ms\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         ready_lag = \"2s\"\n{more}\n[[databases]]\npath = \"{}\"\n",
        scene.bucket.url(),
        scene.database().display()
    );
    fs::write(&path, text).unwrap();
    path
}

fn of(name: &str, scene: &Scene) -> String {
    format!("{name}{{database=\"{}\"}}", scene.name())
}

#[track_caller]
fn wait_ready(served: &Served) {
    until("the watch is ready", PATIENCE * 2, || {
        served.unready().is_empty().then_some(())
    });
}

fn file_size(path: &Path) -> f64 {
    fs::metadata(path).unwrap().len() as f64
}

#[test]
fn h1_h2_readiness_and_lag_follow_the_store_and_liveness_does_not() {
    let mut weed = Weed::start();
    let scene = Scene::on("served", "a.db", weed.bucket("served"));
    let mut writer = scene.writer(scene.spec(1));
    writer.steps(10);
    // Before there is a base nothing is backed up.
    weed.hang();
    let (watch, served) = serving(&scene, "");
    assert_eq!(served.unready(), ["acquiring_lease"]);
    assert_eq!(served.metric(&of("walrust_durable_txid", &scene)), 0.0);
    weed.resume();
    wait_ready(&served);
    let lag = of("walrust_lag_seconds", &scene);
    until("lag is 0", PATIENCE, || {
        (served.metric(&lag) == 0.0).then_some(())
    });
    let before = served.database();
    assert_eq!(before["state"], "in_sync", "{before}");
    assert_eq!(before["txid"], before["durable_txid"]);
    assert_eq!(served.metric(&of("walrust_lease_held", &scene)), 1.0);
    // Idle for longer than the bound.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(served.unready(), [""; 0]);
    // The bucket is gone.
    weed.hang();
    writer.row();
    until("the lag is beyond the bound", PATIENCE, || {
        (served.metric(&lag) > 2.0).then_some(())
    });
    assert_eq!(served.unready(), ["lagging"]);
    let first = served.metric(&lag);
    std::thread::sleep(Duration::from_secs(1));
    assert!(served.metric(&lag) > first + 0.9, "the lag rises");
    for path in ["/livez", "/healthz", "/startupz"] {
        assert_eq!(served.code(path), 200, "{path}");
    }
    let during = served.database();
    assert_eq!(during["durable_txid"], before["durable_txid"]);
    // And comes back.
    weed.resume();
    wait_ready(&served);
    until("lag is 0 again", PATIENCE, || {
        (served.metric(&lag) == 0.0).then_some(())
    });
    let after = served.database();
    assert!(after["durable_txid"].as_u64() > before["durable_txid"].as_u64());
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
}

#[test]
fn h3_r135_what_fails_counts_and_so_does_what_works() {
    let server = Server::start();
    let scene = Scene::on("counted", "a.db", server.bucket("counted"));
    let mut writer = scene.writer(scene.spec(2));
    writer.steps(5);
    let (watch, served) = serving(&scene, "");
    wait_ready(&served);
    let metric = |name: &str| served.metric(&of(name, &scene));
    until("the first snapshot counts", PATIENCE, || {
        (metric("walrust_snapshot_count_total") == 1.0).then_some(())
    });
    assert_eq!(metric("walrust_error_count_total"), 0.0);
    let synced = metric("walrust_sync_latency_seconds_count");
    writer.row();
    watch.wait_stored(&scene, PATIENCE);
    until("a sync counts", PATIENCE, || {
        (metric("walrust_sync_latency_seconds_count") > synced).then_some(())
    });
    assert!(metric("walrust_last_sync_timestamp") > 1.7e9);
    assert_eq!(
        metric("walrust_wal_size_bytes"),
        file_size(&scene.beside("-wal"))
    );
    let sent = served.metric("walrust_storage_bytes_total{direction=\"sent\"}");
    assert!(sent > 4096.0, "{sent}");
    // Uploads that fail.
    let unavailable = "walrust_storage_requests_total{operation=\"put\",outcome=\"unavailable\"}";
    assert_eq!(served.metric(unavailable), 0.0);
    server.rule(|call| match call.writes() {
        true => Action::Fail(503),
        false => Action::Pass,
    });
    writer.row();
    until("the failure counts", PATIENCE * 2, || {
        (metric("walrust_error_count_total") >= 1.0).then_some(())
    });
    assert!(served.metric(unavailable) >= 1.0);
    assert!(served.metric("walrust_retry_total{operation=\"put\"}") >= 1.0);
    assert_eq!(served.database()["error"]["kind"], "unavailable");
    assert_eq!(served.code("/livez"), 200);
    server.no_rule();
    watch.wait_stored(&scene, PATIENCE * 2);
    until("nothing fails any more", PATIENCE, || {
        served.database()["error"].is_null().then_some(())
    });
    let failures = metric("walrust_error_count_total");
    writer.row();
    watch.wait_stored(&scene, PATIENCE);
    assert_eq!(metric("walrust_error_count_total"), failures);
    watch.drain();
}

#[test]
fn h8_a_rebase_counts_by_its_reason() {
    let scene = Scene::new("rebased", "a.db");
    let mut writer = scene.writer(scene.spec(3));
    writer.steps(5);
    let (watch, served) = serving(&scene, "");
    wait_ready(&served);
    watch.drain();
    // Whoever restarts the log while nobody watches takes the proof of continuity.
    writer.row();
    writer
        .connection
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    writer.row();
    let (watch, served) = serving(&scene, "");
    let rebase = format!(
        "walrust_rebase_total{{database=\"{}\",reason=\"wal_restarted\"}}",
        scene.name()
    );
    until("the rebase counts", PATIENCE, || {
        (served.metric(&rebase) == 1.0).then_some(())
    });
    watch.drain();
}

#[test]
fn r136_a_port_that_is_taken_is_a_warning_and_the_watch_goes_on() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let scene = Scene::new("taken", "a.db");
    let mut writer = scene.writer(scene.spec(4));
    writer.steps(5);
    let mut command = walrust(&scene.bucket, "watch");
    command
        .arg(scene.database())
        .args(["--metrics-port", &port]);
    let mut process = Process::spawn(&mut command);
    let line = process.wait_for(PATIENCE, |line| line.contains("not served"));
    assert!(
        line.contains(&port) && line.contains("--metrics-port"),
        "{line}"
    );
    let watch = Watch { process };
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
}
