//! The store failing at each call of a short run, before and after it accepted the call.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::process::Command;

use walrust_tests::process::Process;
use walrust_tests::program::{
    Watch, assert_every_point, assert_newest, assert_no_rebase, files_of_kind, points, restore,
    ship, walrust,
};
use walrust_tests::scene::{Scene, Writer};
use walrust_tests::server::{Action, Server};
use walrust_tests::support::{PATIENCE, rounds};

const FAULTS: [Action; 4] = [
    Action::Fail(500),
    Action::FailAfter(500),
    Action::Drop,
    Action::DropAfter,
];

/// A short run: a base, incrementals in three starts, a snapshot.
fn run(scene: &Scene, writer: &mut Writer) {
    for _ in 0..3 {
        for _ in 0..3 {
            writer.row();
        }
        ship(
            &scene.bucket,
            &scene.database(),
            &["--sync-interval", "10ms"],
        )
        .expect_success();
    }
    writer.row();
    let mut snapshot = walrust(&scene.bucket, "snapshot");
    Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
}

fn calls_of_a_run() -> u64 {
    let server = Server::start();
    let scene = Scene::on("faults", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(1));
    run(&scene, &mut writer);
    assert_every_point(&scene);
    let calls = server.calls();
    calls.len() as u64
}

#[test]
fn r8_u11_one_failure_at_each_call_of_a_run() {
    let calls = calls_of_a_run();
    eprintln!("store_faults: {calls} calls in a run");
    let limit = calls.min(rounds(24).max(1));
    // Every call when there are enough rounds, else evenly spread ones.
    let chosen = (0..limit).map(|index| 1 + index * calls / limit);
    for number in chosen {
        for (index, fault) in FAULTS.into_iter().enumerate() {
            // By default two kinds a call: once before it was accepted, once after.
            if limit < calls && (number as usize + index) % 4 > 1 {
                continue;
            }
            let server = Server::start();
            let scene = Scene::on("fault", "a.db", server.bucket("backups"));
            let mut writer = scene.writer(scene.spec(1));
            server.rule(move |call| {
                if call.number == number {
                    fault
                } else {
                    Action::Pass
                }
            });
            run(&scene, &mut writer);
            server.no_rule();
            eprintln!("store_faults: {fault:?} at call {number}");
            assert_every_point(&scene);
            assert_no_rebase(&scene);
        }
    }
}

#[test]
fn u1_u2_everything_fails_from_a_call_on_then_kill_and_restart() {
    let calls = calls_of_a_run();
    let limit = calls.min(rounds(10).max(1));
    for index in 0..limit {
        let number = 1 + index * calls / limit;
        for after in [false, true] {
            let server = Server::start();
            let scene = Scene::on("broken", "a.db", server.bucket("backups"));
            let mut writer = scene.writer(scene.spec(2));
            server.rule(
                move |call| match (call.number < number, call.number == number && after) {
                    (true, _) => Action::Pass,
                    (false, true) => Action::DropAfter,
                    (false, false) => Action::Drop,
                },
            );
            let mut watch = Watch::start(
                &scene.bucket,
                &[&scene.database()],
                &["--sync-interval", "20ms"],
            );
            for _ in 0..6 {
                writer.row();
                std::thread::sleep(std::time::Duration::from_millis(40));
            }
            watch.process.kill();
            // What is visible has no hole: a restore is exact, or there is nothing to restore yet.
            server.no_rule();
            eprintln!("store_faults: nothing from call {number} on, accepted: {after}");
            let output = scene.path().join("after-kill.db");
            let restored = restore(&scene.bucket, scene.name(), &output, None);
            if restored.code() == 0 {
                scene.oracle().find(&output).unwrap();
            } else {
                assert!(
                    !scene
                        .bucket
                        .ltx_keys()
                        .iter()
                        .any(|key| key.contains("/0009/")),
                    "{}",
                    restored.stderr
                );
            }
            writer.row();
            ship(
                &scene.bucket,
                &scene.database(),
                &["--sync-interval", "10ms"],
            )
            .expect_success();
            assert_every_point(&scene);
            assert_no_rebase(&scene);
        }
    }
}

#[test]
fn r8_one_failure_at_each_call_of_restore_and_list() {
    let server = Server::start();
    let scene = Scene::on("read-faults", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(3));
    run(&scene, &mut writer);
    writer.row();
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    let oracle = scene.oracle();
    server.restart_count();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &oracle);
    let restore_calls = server.calls().len() as u64;
    for number in 1..=restore_calls {
        for fault in [Action::Fail(500), Action::Fail(503), Action::Drop] {
            server.restart_count();
            server.rule(move |call| {
                if call.number == number {
                    fault
                } else {
                    Action::Pass
                }
            });
            assert_newest(&scene.bucket, scene.name(), scene.path(), &oracle);
        }
    }
    // A listing that fails for good is an error, never an empty one.
    server.rule(|call| {
        if call.query.contains("list-type") {
            Action::Fail(500)
        } else {
            Action::Pass
        }
    });
    let output = scene.path().join("never.db");
    let refused = restore(&scene.bucket, scene.name(), &output, None);
    if refused.code() == 0 {
        oracle.check_file(&output, oracle.last().seq).unwrap();
    } else {
        refused.expect_failure();
        assert!(!output.exists());
    }
    let listed = Process::run(walrust(&scene.bucket, "list").arg("--json"), PATIENCE * 2);
    assert_eq!(listed.code(), 1, "{}", listed.stdout);
}

#[test]
fn u7_u17_start_with_the_first_reads_failing() {
    let server = Server::start();
    let scene = Scene::on("first-read", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(4));
    writer.row();
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    for status in [500, 503] {
        writer.row();
        server.restart_count();
        server.rule(move |call| {
            if call.number <= 3 && call.method == "GET" {
                Action::Fail(status)
            } else {
                Action::Pass
            }
        });
        ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
        server.no_rule();
        assert_every_point(&scene);
        assert_no_rebase(&scene);
    }
}

#[test]
fn u17_garbage_or_missing_manifest_is_rebuilt_never_taken_for_new() {
    let scene = Scene::new("manifest", "a.db");
    let mut writer = scene.writer(scene.spec(5));
    writer.row();
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    let manifest = scene.bucket.file("a.db/manifest.json");
    assert!(manifest.exists());
    for garbage in [Some("{"), Some(""), None] {
        match garbage {
            Some(text) => fs::write(&manifest, text).unwrap(),
            None => fs::remove_file(&manifest).unwrap(),
        }
        assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
        writer.row();
        ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
        let text = fs::read_to_string(&manifest).unwrap();
        assert!(
            serde_json::from_str::<serde_json::Value>(&text).is_ok(),
            "{text}"
        );
        assert_every_point(&scene);
        assert_no_rebase(&scene);
    }
}

#[test]
fn u17_an_index_with_a_hole_is_mended_without_a_new_base() {
    let scene = Scene::new("hole", "a.db");
    let mut writer = scene.writer(scene.spec(5));
    for _ in 0..5 {
        writer.row();
        ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    }
    let advertised = points(&scene.bucket, scene.name());
    let manifest = scene.bucket.file("a.db/manifest.json");
    let mut index: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&manifest).unwrap()).unwrap();
    let files = index["files"].as_array_mut().unwrap();
    files.retain(|file| file["level"] != 0 || file["min"].as_u64() > Some(4));
    fs::write(&manifest, index.to_string()).unwrap();
    assert!(points(&scene.bucket, scene.name()).len() < advertised.len());
    writer.row();
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    let now = points(&scene.bucket, scene.name());
    assert_eq!(now.len(), advertised.len() + 1, "{now:?}");
    assert_every_point(&scene);
    let snapshots = files_of_kind(&scene.bucket, scene.name(), "snapshot");
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
}

#[test]
fn u12_keys_with_digits_that_look_like_statuses() {
    let server = Server::start();
    let scene = Scene::on(
        "digits",
        "500-403-404.db",
        server.bucket("backups").below("412/503"),
    );
    let mut writer = scene.writer(scene.spec(6));
    writer.row();
    server.rule(|call| {
        if call.number % 7 == 3 {
            Action::Fail(503)
        } else {
            Action::Pass
        }
    });
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    writer.row();
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    server.no_rule();
    assert_every_point(&scene);
}

#[test]
fn memory_running_out_during_an_upload() {
    // An address space too small for the work: the process dies or fails somewhere inside, and loses nothing.
    let server = Server::start();
    let scene = Scene::on("memory", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(7));
    writer.commit("INSERT INTO blobs(data) VALUES (randomblob(8000000))");
    for megabytes in [24, 40, 60, 80, 120] {
        let mut limited = Command::new("sh");
        limited.args([
            "-c",
            &format!("ulimit -v {}; exec \"$@\"", megabytes * 1024),
            "sh",
        ]);
        let program = walrust(&scene.bucket, "watch");
        limited.arg(program.get_program()).args(program.get_args());
        limited
            .args(["--no-metrics", "--once"])
            .arg(scene.database());
        scene.bucket.environment(&mut limited);
        let output = Process::run(&mut limited, PATIENCE * 2);
        eprintln!(
            "memory: {megabytes} MiB of address space: exit {}",
            output.code()
        );
        writer.row();
    }
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    assert_every_point(&scene);
}
