//! What `explain` says a month will cost, against what a watch does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use walrust_tests::process::Process;
use walrust_tests::program::{App, Watch, walrust_configured};
use walrust_tests::scene::Scene;
use walrust_tests::server::Server;
use walrust_tests::support::{PATIENCE, until};
use walrust_tests::workload::Spec;

#[test]
fn r126_the_estimated_requests_are_those_of_a_watch() {
    let server = Server::start();
    let scene = Scene::on("estimate", "a.db", server.bucket("backups"));
    let configuration = scene.path().join("walrust.toml");
    let text = format!(
        "[s3]\nbucket = '{}'\n[[databases]]\npath = '{}'\n",
        scene.bucket.url(),
        scene.database().display()
    );
    fs::write(&configuration, text).unwrap();
    let spec = Spec {
        rate: Some(20.0),
        ..scene.spec(1)
    };
    let app = App::ready(&spec);
    let mut explain = walrust_configured(&scene.bucket, &configuration, "explain");
    let explained = Process::run(explain.arg("--json"), PATIENCE)
        .expect_success()
        .json();
    let month = explained["estimate"]["puts_month"].as_f64().unwrap();

    let mut command = walrust_configured(&scene.bucket, &configuration, "watch");
    let watch = Watch {
        process: Process::spawn(command.arg("--no-metrics")),
    };
    until("a base", PATIENCE, || {
        let keys = scene.bucket.ltx_keys();
        keys.iter().any(|key| key.contains("/0009/")).then_some(())
    });
    // The log of before is stored too.
    thread::sleep(Duration::from_secs(3));
    server.restart_count();
    let began = Instant::now();
    thread::sleep(Duration::from_secs(30));
    let writes = server.calls().iter().filter(|call| call.writes()).count();
    let expected = month * began.elapsed().as_secs_f64() / (30.0 * 86_400.0);
    let found = writes as f64;
    assert!(
        (expected * 0.8..expected * 1.2).contains(&found),
        "{found} requests that write, {expected} were expected"
    );
    app.stop();
    watch.drain();
}
