//! What a running watch says of itself: it must be true, whatever the store does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use walrust_tests::locks::{holds_read_mark, holds_shared};
use walrust_tests::process::Process;
use walrust_tests::program::{Watch, assert_newest, binary, walrust, walrust_configured};
use walrust_tests::scene::Scene;
use walrust_tests::served::Served;
use walrust_tests::server::{Action, Server};
use walrust_tests::support::{PATIENCE, plain_request, until};
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

/// An address of this machine that is not loopback, as other network namespaces see it. Nothing is sent.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // TEST-NET-1: any route there tells our side of it.
    socket.connect("192.0.2.1:9").expect("a route");
    socket.local_addr().unwrap().ip()
}

#[test]
fn h7_r136_other_machines_reach_the_metrics_where_they_shall_and_not_by_default() {
    let ours = own_address();
    assert!(!ours.is_loopback(), "{ours}");
    let scene = Scene::new("h7", "a.db");
    let mut writer = scene.writer(scene.spec(1));
    writer.row();
    let scrape = |address: &str| {
        let port = address.rsplit(':').next().unwrap();
        plain_request(&format!("http://{ours}:{port}"), "GET", "/metrics")
    };
    let (watch, served) = serving(&scene, "");
    wait_ready(&served);
    assert!(served.address().starts_with("127.0.0.1:"));
    assert_eq!(scrape(served.address()), None, "loopback is loopback");
    watch.drain();
    let configuration = configuration(&scene, "");
    let text = fs::read_to_string(&configuration).unwrap();
    fs::write(&configuration, text.replace("127.0.0.1:0", "0.0.0.0:0")).unwrap();
    let mut command = walrust_configured(&scene.bucket, &configuration, "watch");
    let mut process = Process::spawn(command.arg("-v"));
    let served = Served::by(&mut process, "metrics");
    let answer = scrape(served.address()).expect("an answer from outside");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("walrust_lag_seconds"), "{answer}");
    Watch { process }.drain();
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
fn r136_r139_a_port_that_is_taken_is_a_warning_and_the_watch_goes_on() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let scene = Scene::new("taken", "a.db");
    let mut writer = scene.writer(scene.spec(4));
    writer.steps(5);
    let mut command = walrust(&scene.bucket, "watch");
    command
        .arg(scene.database())
        .args(["--metrics-port", &port, "--log-format", "json"]);
    let mut process = Process::spawn(&mut command);
    let line = process.wait_for(PATIENCE, |line| line.contains("not served"));
    let logged: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(logged["level"], "WARN", "{line}");
    let message = logged["message"].as_str().unwrap();
    assert!(
        message.contains(&port) && message.contains("--metrics-port"),
        "{line}"
    );
    let watch = Watch { process };
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
}

/// `walrust COMMAND ARGUMENTS --json`, and its result.
fn ask(arguments: &[&str]) -> (i32, serde_json::Value) {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .args(["--json", "--exit-codes", "fine"]);
    let output = Process::run(&mut command, PATIENCE * 2);
    assert!(!output.stdout.is_empty(), "{}", output.stderr);
    (output.code(), output.json())
}

#[test]
fn k5_every_call_leaves_our_locks_alone() {
    let scene = Scene::new("locks", "a.db");
    let mut writer = scene.writer(scene.spec(5));
    writer.steps(5);
    let (mut watch, served) = serving(&scene, "control = \"127.0.0.1:0\"");
    let control = Served::by(&mut watch.process, "control");
    wait_ready(&served);
    watch.wait_attached(&scene);
    let (database, shm) = (scene.database(), scene.beside("-shm"));
    let path = database.to_str().unwrap();
    let held = |watch: &Watch| {
        holds_shared(watch.process.id(), &database) && holds_read_mark(watch.process.id(), &shm)
    };
    assert!(held(&watch));
    for arguments in [
        ["status", "--state", path].as_slice(),
        &["sync", "--state", path],
        &["status", "--control", control.address()],
        &["sync", "a.db", "--control", control.address()],
    ] {
        let (code, answer) = ask(arguments);
        assert_eq!(code, 0, "{arguments:?}: {answer}");
        assert!(held(&watch), "{arguments:?}");
    }
    for path in ["/metrics", "/status", "/readyz", "/livez"] {
        assert_eq!(served.code(path), 200, "{path}");
        assert!(held(&watch), "{path}");
    }
    let (code, body) = control.request("POST", "/snapshot");
    assert_eq!(code, 200, "{body}");
    assert!(held(&watch), "a snapshot");
    // The application's last close must find our lock and leave the log.
    drop(writer);
    assert!(scene.beside("-wal").exists());
    watch.drain();
}

#[test]
fn sync_answers_when_everything_committed_before_is_durable() {
    let server = Server::start();
    let scene = Scene::on("sync", "a.db", server.bucket("sync"));
    let mut writer = scene.writer(scene.spec(6));
    writer.steps(5);
    // An interval that no test outlives: only the call makes it durable in time.
    let path = scene.database();
    let path = path.to_str().unwrap();
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "1h"],
    );
    watch.wait_attached(&scene);
    for _ in 0..5 {
        writer.row();
        writer.row();
        let (code, answer) = ask(&["sync", "--state", path]);
        assert_eq!(code, 0, "{answer}");
        assert_eq!(answer["v"], 1);
        assert_eq!(answer["durable"], true);
        let one = &answer["databases"][0];
        assert_eq!(
            (&one["name"], &one["durable"]),
            (&"a.db".into(), &true.into())
        );
        assert_eq!(
            one["txid_hex"],
            format!("{:016x}", one["txid"].as_u64().unwrap())
        );
        assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
    }
    // The store is away: not durable, and it says so.
    server.outage(true);
    writer.row();
    let start = Instant::now();
    let (code, answer) = ask(&["sync", "--state", path, "--timeout", "1s"]);
    assert_eq!(code, 6, "{answer}");
    assert_eq!(answer["durable"], false);
    assert_eq!(answer["databases"][0]["error"]["kind"], "not_durable");
    assert!(start.elapsed() < Duration::from_secs(20));
    server.outage(false);
    let (code, answer) = ask(&["sync", "a.db", "--state", path, "--timeout", "1m"]);
    assert_eq!(code, 0, "{answer}");
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
    let (code, answer) = ask(&["sync", "other.db", "--state", path]);
    assert_eq!((code, &answer["error"]["kind"]), (3, &"not_found".into()));
    watch.drain();
    let (code, answer) = ask(&["sync", "--state", path]);
    assert_eq!((code, &answer["error"]["kind"]), (3, &"not_found".into()));
}

#[test]
fn a_detached_database_may_be_had_alone_and_is_followed_again() {
    let scene = Scene::new("detach", "a.db");
    let mut writer = scene.writer(scene.spec(7));
    writer.steps(10);
    let (watch, served) = serving(&scene, "");
    wait_ready(&served);
    let database = scene.database();
    let path = database.to_str().unwrap();
    let (code, answer) = ask(&["detach", "--state", path, "--for", "1h"]);
    assert_eq!(code, 0, "{answer}");
    let one = &answer["databases"][0];
    assert_eq!(one["txid"], one["durable_txid"], "{one}");
    let during = served.database();
    assert_eq!(during["state"], "detached", "{during}");
    assert_eq!(during["detached_until"], one["until"]);
    // Nothing of ours is left on it.
    let process = watch.process.id();
    assert!(!holds_shared(process, &database));
    assert!(!holds_read_mark(process, &scene.beside("-shm")));
    for file in open_files(process) {
        assert!(
            !file.starts_with(path) || file.contains("-walrust/"),
            "{file} is open"
        );
    }
    // What needs it alone.
    writer
        .connection
        .execute_batch("PRAGMA journal_mode = DELETE")
        .unwrap();
    writer.commit("INSERT INTO items(k, v, b) VALUES (1, 'alone', randomblob(300))");
    writer
        .connection
        .execute_batch("PRAGMA journal_mode = WAL")
        .unwrap();
    writer.row();
    // Its time is not up, but nobody sees commits: that is lag.
    until("the lag is beyond the bound", PATIENCE, || {
        (served.unready() == ["lagging"]).then_some(())
    });
    let (code, answer) = ask(&["sync", "--state", path, "--timeout", "5s"]);
    assert_ne!(code, 0, "{answer}");
    let message = answer["databases"][0]["error"]["message"].as_str().unwrap();
    assert!(message.contains("detached"), "{message}");
    // Until it is ended.
    let (code, answer) = ask(&["detach", "--state", path, "--for", "0"]);
    assert_eq!(code, 0, "{answer}");
    let (code, answer) = ask(&["sync", "--state", path, "--timeout", "1m"]);
    assert_eq!(code, 0, "{answer}");
    wait_ready(&served);
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
    // By itself.
    let (code, answer) = ask(&["detach", "a.db", "--state", path, "--for", "1s"]);
    assert_eq!(code, 0, "{answer}");
    writer.row();
    watch.wait_stored(&scene, PATIENCE);
    writer.row();
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
}

#[test]
fn a_database_is_let_go_while_the_store_is_away_and_a_stop_then_says_what_is_missing() {
    let server = Server::start();
    let scene = Scene::on("away", "a.db", server.bucket("away"));
    let mut writer = scene.writer(scene.spec(8));
    writer.steps(5);
    let (watch, served) = serving(&scene, "");
    wait_ready(&served);
    server.outage(true);
    writer.row();
    let database = scene.database();
    let path = database.to_str().unwrap();
    let (code, answer) = ask(&["detach", "--state", path, "--for", "1h"]);
    assert_eq!(code, 0, "{answer}");
    let one = &answer["databases"][0];
    assert!(one["txid"].as_u64() > one["durable_txid"].as_u64(), "{one}");
    assert!(!holds_shared(watch.process.id(), &database));
    server.outage(false);
    writer.row();
    let output = watch.stop();
    assert_eq!(output.code(), 1, "{}", output.stderr);
    assert!(
        output.stderr.contains("detached since"),
        "{}",
        output.stderr
    );
    // The next start finds the rest.
    let (watch, _) = serving(&scene, "");
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
}

#[test]
fn requests_over_http_are_bounded_and_explained() {
    let server = Server::start();
    let scene = Scene::on("http", "a.db", server.bucket("http"));
    let mut writer = scene.writer(scene.spec(9));
    writer.steps(5);
    let (mut watch, served) = serving(&scene, "control = \"127.0.0.1:0\"");
    let control = Served::by(&mut watch.process, "control");
    wait_ready(&served);
    // The port for probes changes nothing.
    assert_eq!(served.request("POST", "/sync").0, 404);
    writer.row();
    let (code, body) = control.request("POST", "/sync?database=a.db&timeout=30s");
    assert_eq!(code, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&answer["v"], &answer["durable"]),
        (&1.into(), &true.into())
    );
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
    for (method, path, expected) in [
        ("POST", "/sync?database=other.db", 404),
        ("POST", "/sync?timeout=never", 400),
        ("POST", "/sync?timeout=2h", 400),
        ("POST", "/sync?timout=1s", 400),
        ("POST", "/detach", 400),
        ("POST", "/detach?for=2d", 400),
        ("GET", "/sync", 405),
        ("POST", "/else", 404),
    ] {
        let (code, body) = control.request(method, path);
        assert_eq!(code, expected, "{path}: {body}");
    }
    server.outage(true);
    writer.row();
    let (code, body) = control.request("POST", "/sync?timeout=500ms");
    assert_eq!(code, 504, "{body}");
    assert!(body.contains("\"durable\":false"), "{body}");
    server.outage(false);
    let (code, body) = control.request("POST", "/detach?for=500ms");
    assert_eq!(code, 200, "{body}");
    until("the database is attached again", PATIENCE, || {
        (served.database()["state"] == "in_sync").then_some(())
    });
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
}

/// What the process has open.
fn open_files(process: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    links
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}
