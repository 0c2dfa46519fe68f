//! `walrust doctor` against a real server, and beside a running `watch`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use serde_json::Value;
use walrust_tests::bucket::Bucket;
use walrust_tests::locks::holds_read_mark;
use walrust_tests::process::{Output, Process};
use walrust_tests::program::{Watch, restored_commits, walrust};
use walrust_tests::scene::Scene;
use walrust_tests::server::{Action, Server};
use walrust_tests::support::PATIENCE;

fn doctor(scene: &Scene, arguments: &[&str]) -> Output {
    let mut command = walrust(&scene.bucket, "doctor");
    command.arg(scene.database()).args(arguments);
    Process::run(&mut command, PATIENCE)
}

fn check<'r>(report: &'r Value, name: &str) -> &'r Value {
    let checks = report["checks"].as_array().expect("checks");
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {report}"))
}

#[test]
fn beside_a_watch_it_passes_changes_nothing_and_costs_no_lock() {
    let server = Server::start();
    let scene = Scene::on("doctor", "app.db", server.bucket("bucket"));
    let mut writer = scene.writer(scene.spec(1));
    writer.row();
    let watch = Watch::ready::<&str>(&scene.bucket, &[&scene.database()], &[]);
    watch.wait_attached(&scene);
    watch.wait_stored(&scene, PATIENCE);
    let before = scene.bucket.keys();
    let report = doctor(&scene, &["--json"]).expect_success().json();
    assert_eq!((&report["v"], &report["ok"]), (&1.into(), &true.into()));
    let state = check(&report, "app.db state");
    assert_eq!(state["message"], "held by a running watch");
    assert_eq!(check(&report, "if-match")["ok"], true);
    assert_eq!(scene.bucket.keys(), before);
    // k5: the watcher's read mark stands, and what is committed from now on is stored.
    assert!(holds_read_mark(watch.process.id(), &scene.beside("-shm")));
    let last = writer.row();
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    let (_, commits) = restored_commits(
        &scene.bucket,
        scene.name(),
        scene.path(),
        None,
        &scene.oracle(),
    );
    assert!(commits.contains(&last), "{commits:?}");
}

#[test]
fn a_right_that_is_missing_fails_with_what_to_change() {
    let server = Server::start();
    let scene = Scene::on("doctor-denied", "app.db", server.bucket("bucket"));
    let mut writer = scene.writer(scene.spec(2));
    writer.row();
    server.rule(|call| match call.method.as_str() {
        "PUT" | "POST" => Action::Fail(403),
        _ => Action::Pass,
    });
    let output = doctor(&scene, &[]).expect_failure();
    assert_eq!(output.code(), 1);
    let put = output
        .stdout
        .lines()
        .position(|line| line.starts_with("FAILED  put "));
    let put = put.unwrap_or_else(|| panic!("{}", output.stdout));
    let hint = output.stdout.lines().nth(put + 1).unwrap();
    assert_eq!(hint.trim(), "-> allow s3:PutObject on s3://bucket/*");
    assert!(output.stdout.contains("2 of "), "{}", output.stdout);
    assert!(scene.bucket.keys().is_empty());
    // r148: who may not delete backs up all the same.
    server.rule(|call| match call.method.as_str() {
        "DELETE" => Action::Fail(403),
        "POST" if call.query.starts_with("delete") => Action::Fail(403),
        _ => Action::Pass,
    });
    let report = doctor(&scene, &["--json"]).expect_success().json();
    assert_eq!(check(&report, "delete")["outcome"], "note");
    assert_eq!(check(&report, "abort")["outcome"], "note");
    let keys = scene.bucket.keys();
    assert!(
        keys.iter().all(|key| key.starts_with(".walrust/doctor/")),
        "{keys:?}"
    );
    let mut list = walrust(&scene.bucket, "list");
    list.arg("--json");
    let listed = Process::run(&mut list, PATIENCE).expect_success().json();
    assert_eq!(listed["databases"], Value::Array(Vec::new()));
}

#[test]
fn a_store_that_does_not_answer_is_one_failure_within_seconds() {
    let scene = Scene::on(
        "doctor-away",
        "app.db",
        Bucket::S3 {
            endpoint: "http://127.0.0.1:1".to_owned(),
            path: "bucket".to_owned(),
            root: None,
        },
    );
    let output = doctor(&scene, &["--json"]).expect_failure();
    let report = output.json();
    assert_eq!(check(&report, "bucket")["ok"], false);
    assert_eq!(check(&report, "app.db file")["ok"], false, "none is there");
}
