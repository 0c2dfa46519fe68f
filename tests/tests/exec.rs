//! `watch --exec`, and databases that are not there yet.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;

use walrust_tests::process::{Process, Signal};
use walrust_tests::program::{
    App, Watch, assert_every_point, assert_newest, ship, walrust, walrust_configured,
};
use walrust_tests::scene::Scene;
use walrust_tests::support::{PATIENCE, built};
use walrust_tests::workload::Spec;

/// `watch --exec COMMAND` of the scene's database.
fn executing(scene: &Scene, command: &str) -> Process {
    let mut watch = walrust(&scene.bucket, "watch");
    watch
        .args(["--no-metrics", "--sync-interval", "100ms"])
        .arg(scene.database())
        .args(["--exec", command]);
    Process::spawn(&mut watch)
}

/// The command line of the application that runs `spec`.
fn application(spec: &Spec) -> String {
    let program = built("WALRUST_TEST_APP", "walrust-test-app");
    let spec = serde_json::to_string(spec).unwrap();
    format!("{} '{spec}'", program.display())
}

#[test]
fn an_application_is_restored_started_and_stored_to_its_last_commit() {
    let scene = Scene::new("exec", "a.db");
    let spec = Spec {
        commits: Some(60),
        rate: Some(100.0),
        ..scene.spec(1)
    };
    // Nothing is stored yet: the application makes its database.
    let output = executing(&scene, &application(&spec)).output(PATIENCE);
    output.expect_success();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());

    // The volume is lost.
    fs::remove_dir_all(scene.path().join("data")).unwrap();
    fs::create_dir(scene.path().join("data")).unwrap();
    let newest = scene.oracle().last().seq;
    let found = scene.path().join("found.db");
    let copy = format!("cp '{}' '{}'", scene.database().display(), found.display());
    executing(&scene, &copy).output(PATIENCE).expect_success();
    scene.oracle().check_file(&found, newest).unwrap();

    // It goes on from there, and a signal to us is one to it.
    let spec = Spec {
        commits: None,
        ..spec
    };
    let mut process = executing(&scene, &application(&spec));
    process.wait_for(PATIENCE, |line| line == "ready\n");
    walrust_tests::support::until("commits behind the restore", PATIENCE, || {
        (scene.oracle().last().seq > newest + 20).then_some(())
    });
    process.signal(Signal::TERM);
    // SIGTERM is 15: the test's application does not catch it.
    assert_eq!(process.output(PATIENCE).code(), 128 + 15);
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
    assert_every_point(&scene);
}

#[test]
fn the_status_of_the_application_is_ours_and_a_missing_program_is_named() {
    let scene = Scene::new("exec-status", "a.db");
    let output = executing(&scene, "sh -c 'exit 7'").output(PATIENCE);
    assert_eq!(output.code(), 7, "{}", output.stderr);
    let output = executing(&scene, "/no/such/program").output(PATIENCE);
    assert!(output.expect_failure().stderr.contains("/no/such/program"));
}

#[test]
fn an_application_is_not_started_where_its_backup_cannot_be_read() {
    let scene = Scene::new("exec-closed", "a.db");
    let mut writer = scene.writer(scene.spec(1));
    writer.row();
    drop(writer);
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    fs::remove_dir_all(scene.path().join("data")).unwrap();
    fs::create_dir(scene.path().join("data")).unwrap();
    // One byte of the only base is wrong.
    let base = scene.bucket.ltx_keys().pop().unwrap();
    let file = scene.bucket.file(&base);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let started = scene.path().join("started");
    let output = executing(&scene, &format!("touch '{}'", started.display())).output(PATIENCE);
    let output = output.expect_failure();
    assert!(output.stderr.contains(".ltx"), "{}", output.stderr);
    assert!(!started.exists() && !scene.database().exists());
}

#[test]
fn an_optional_database_is_waited_for_and_may_go_and_come_again() {
    let scene = Scene::new("optional", "a.db");
    let configuration = scene.path().join("walrust.toml");
    let text = format!(
        "[s3]\nbucket = '{}'\n[sync]\nsync_interval = '100ms'\n[[databases]]\npath = '{}'\noptional = true\n",
        scene.bucket.url(),
        scene.database().display()
    );
    fs::write(&configuration, text).unwrap();
    let mut command = walrust_configured(&scene.bucket, &configuration, "watch");
    let mut watch = Watch {
        process: Process::spawn(command.arg("--no-metrics").env("RUST_LOG", "info")),
    };
    watch
        .process
        .wait_for(PATIENCE, |line| line.contains("waiting for the file"));
    let spec = Spec {
        commits: Some(30),
        ..scene.spec(1)
    };
    App::start(&spec).finish();
    watch.wait_stored(&scene, PATIENCE);

    // Moved away with everything that belongs to it, as an upgrade does, and back.
    let away = scene.path().join("away");
    fs::create_dir(&away).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        let from = scene.beside(suffix);
        if from.exists() {
            fs::rename(&from, away.join(format!("a.db{suffix}"))).unwrap();
        }
    }
    watch.process.wait_for(PATIENCE, |line| {
        line.contains("removed while it was watched")
    });
    for suffix in ["-wal", "-shm", ""] {
        let from = away.join(format!("a.db{suffix}"));
        if from.exists() {
            fs::rename(&from, scene.beside(suffix)).unwrap();
        }
    }
    App::start(&spec).finish();
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    assert_every_point(&scene);
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
}
