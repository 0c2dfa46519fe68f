//! Snapshots of databases that cannot be watched: in rollback-journal mode, or where nothing can be written.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;
use walrust_tests::process::{Output, Process};
use walrust_tests::program::{files_of_kind, restore, walrust};
use walrust_tests::scene::Scene;
use walrust_tests::server::{Action, Server};
use walrust_tests::support::{PATIENCE, assert_sound, look};

/// A database in rollback-journal mode.
fn rollback(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = DELETE; CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB);
             INSERT INTO t(b) VALUES (randomblob(200000))",
        )
        .unwrap();
    connection
}

fn row(connection: &Connection) {
    connection
        .execute_batch("INSERT INTO t(b) VALUES (randomblob(20000))")
        .unwrap();
}

fn try_snapshot(scene: &Scene, path: &Path) -> Output {
    let mut command = walrust(&scene.bucket, "snapshot");
    Process::run(command.arg(path).arg("--json"), PATIENCE)
}

#[track_caller]
fn snapshot(scene: &Scene) -> Value {
    try_snapshot(scene, &scene.database())
        .expect_success()
        .json()
}

/// Restores to `point` and compares every byte.
#[track_caller]
fn assert_restores(scene: &Scene, point: Option<&str>, wanted: &[u8]) {
    let output = scene.path().join("restored.db");
    restore(&scene.bucket, scene.name(), &output, point).expect_success();
    assert!(fs::read(&output).unwrap() == wanted, "{point:?}");
    assert_sound(&output);
    fs::remove_file(&output).unwrap();
}

/// The TXIDs of the snapshots.
fn snapshots(scene: &Scene) -> Vec<u64> {
    let files = files_of_kind(&scene.bucket, scene.name(), "snapshot");
    let mut at: Vec<u64> = files
        .iter()
        .map(|file| file["max_txid"].as_u64().unwrap())
        .collect();
    at.sort_unstable();
    at
}

#[test]
fn r37_r40_rollback_mode_new_unchanged_and_changed() {
    let scene = Scene::new("rollback-chain", "a.db");
    let connection = rollback(&scene.database());
    let first = fs::read(scene.database()).unwrap();
    let taken = snapshot(&scene);
    assert_eq!(
        (&taken["txid"], &taken["skipped"]),
        (&1.into(), &false.into())
    );
    assert_restores(&scene, None, &first);

    let objects = scene.bucket.keys();
    let again = snapshot(&scene);
    assert_eq!(
        (&again["txid"], &again["skipped"]),
        (&1.into(), &true.into())
    );
    assert_eq!(again["checksum"], taken["checksum"]);
    assert_eq!(scene.bucket.keys(), objects);

    let mut states = vec![first];
    for txid in [2, 3] {
        row(&connection);
        states.push(fs::read(scene.database()).unwrap());
        let changed = snapshot(&scene);
        assert_eq!(
            (&changed["txid"], &changed["skipped"]),
            (&txid.into(), &false.into())
        );
    }
    assert_eq!(snapshots(&scene), [1, 2, 3]);
    let rebases = files_of_kind(&scene.bucket, scene.name(), "rebase");
    assert_eq!(rebases.len(), 2, "{rebases:?}");
    for (at, state) in states.iter().enumerate() {
        assert_restores(&scene, Some(&format!("txid:{}", at + 1)), state);
    }
    assert_restores(&scene, None, &states[2]);

    // Neither its mode nor a byte of it changed, and nothing lies beside it but our state.
    let mode: String = connection
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "delete");
    assert!(fs::read(scene.database()).unwrap() == states[2]);
    assert!(scene.state().is_dir());
    for suffix in ["-wal", "-shm", "-journal"] {
        assert!(!scene.beside(suffix).exists(), "{suffix}");
    }
}

#[test]
fn r37_rollback_mode_under_a_writer() {
    let scene = Scene::new("rollback-busy", "a.db");
    let connection = rollback(&scene.database());
    connection
        .execute_batch(
            "CREATE TABLE a(n INT); CREATE TABLE b(n INT);
             INSERT INTO a VALUES (0); INSERT INTO b VALUES (0);
             INSERT INTO t(b) VALUES (randomblob(20000000))",
        )
        .unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let done = &done;
        threads.spawn(move || {
            connection.busy_timeout(Duration::from_secs(20)).unwrap();
            while !done.load(Ordering::Relaxed) {
                connection
                    .execute_batch(
                        "BEGIN IMMEDIATE; UPDATE a SET n = n + 1; INSERT INTO t(b) VALUES (randomblob(9000));
                         UPDATE b SET n = n + 1; COMMIT",
                    )
                    .unwrap();
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        let taken: Vec<Output> = (0..3)
            .map(|_| try_snapshot(&scene, &scene.database()))
            .collect();
        done.store(true, Ordering::Relaxed);
        for output in taken {
            output.expect_success();
        }
    });
    assert_eq!(snapshots(&scene), [1, 2, 3]);
    for txid in 1..=3 {
        let output = scene.path().join("restored.db");
        restore(
            &scene.bucket,
            scene.name(),
            &output,
            Some(&format!("txid:{txid}")),
        )
        .expect_success();
        assert_sound(&output);
        let same: bool = look(&output)
            .query_row("SELECT (SELECT n FROM a) = (SELECT n FROM b)", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert!(same, "half a transaction");
        fs::remove_file(&output).unwrap();
    }
}

#[test]
fn r39_what_is_no_database_leaves_no_trace() {
    let scene = Scene::new("no-database", "a.db");
    let data = scene.path().join("data");
    let encrypted: Vec<u8> = (0..40_960_u32).map(|at| (at * 31 + at / 7) as u8).collect();
    fs::write(data.join("encrypted.db"), encrypted).unwrap();
    fs::write(data.join("empty.db"), "").unwrap();
    fs::create_dir(data.join("folder.db")).unwrap();
    for name in ["encrypted.db", "empty.db", "folder.db", "missing.db"] {
        let output = try_snapshot(&scene, &data.join(name)).expect_failure();
        assert_eq!(output.code(), 1, "{name}");
        assert!(output.stderr.contains(name), "{}", output.stderr);
        assert_eq!(scene.bucket.keys(), Vec::<String>::new(), "{name}");
        assert!(!data.join(format!(".{name}-walrust")).exists(), "{name}");
    }
}

#[test]
fn r40_an_unknown_database_does_not_enter_a_stream() {
    let scene = Scene::new("unknown", "a.db");
    rollback(&scene.database());
    snapshot(&scene);
    let other = scene.path().join("elsewhere");
    fs::create_dir(&other).unwrap();
    let copy = other.join("a.db");
    fs::copy(scene.database(), &copy).unwrap();
    let connection = Connection::open(&copy).unwrap();
    row(&connection);
    let objects = scene.bucket.keys();
    let output = try_snapshot(&scene, &copy).expect_failure();
    assert!(output.stderr.contains("--adopt"), "{}", output.stderr);
    assert_eq!(scene.bucket.keys(), objects);

    // While it is the head itself it is welcome, and may change from there.
    fs::remove_dir_all(other.join(".a.db-walrust")).unwrap();
    drop(connection);
    fs::copy(scene.database(), &copy).unwrap();
    let held = try_snapshot(&scene, &copy).expect_success().json();
    assert_eq!(held["skipped"], true);
    row(&Connection::open(&copy).unwrap());
    let changed = try_snapshot(&scene, &copy).expect_success().json();
    assert_eq!(changed["txid"], 2);
    assert_restores(&scene, None, &fs::read(&copy).unwrap());
    // The first database is behind now.
    row(&Connection::open(scene.database()).unwrap());
    try_snapshot(&scene, &scene.database()).expect_failure();
}

#[test]
fn r40_a_run_that_failed_half_way_is_gone_on_from() {
    let server = Server::start();
    let scene = Scene::on("half-way", "a.db", server.bucket("one"));
    let connection = rollback(&scene.database());
    // Without its first snapshot, without the base, without the snapshot behind the base.
    let mut txids = Vec::new();
    for part in ["/0009/", "/0000/", "/0009/"] {
        server.rule(move |call| {
            if call.writes() && call.path.contains(part) {
                Action::Fail(403)
            } else {
                Action::Pass
            }
        });
        row(&connection);
        try_snapshot(&scene, &scene.database()).expect_failure();
        server.no_rule();
        if txids.len() != 2 {
            row(&connection);
        }
        let taken = snapshot(&scene);
        assert_eq!(taken["skipped"], false);
        txids.push(taken["txid"].as_u64().unwrap());
        assert_restores(&scene, None, &fs::read(scene.database()).unwrap());
    }
    assert!(txids.is_sorted(), "{txids:?}");
    let last = format!("txid:{}", txids[2]);
    assert_restores(&scene, Some(&last), &fs::read(scene.database()).unwrap());
}

#[test]
fn r37_a_snapshot_never_sets_wal_mode() {
    let scene = Scene::new("keeps-mode", "a.db");
    let connection = rollback(&scene.database());
    let configuration = scene.path().join("walrust.toml");
    let text = format!(
        "[s3]\nbucket = \"{}\"\n[sync]\nset_wal_mode = true\n",
        scene.bucket.url()
    );
    fs::write(&configuration, text).unwrap();
    let mut command =
        walrust_tests::program::walrust_configured(&scene.bucket, &configuration, "snapshot");
    Process::run(command.arg(scene.database()), PATIENCE).expect_success();
    let mode: String = connection
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "delete");
}

/// `walrust snapshot` where the scene's data folder is mounted read-only; nothing where we may not mount.
fn on_read_only_volume(scene: &Scene) -> Option<Output> {
    let data = scene.path().join("data");
    let script =
        "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" || exit 77; exec \"$@\"";
    let inner = walrust(&scene.bucket, "snapshot");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(&data);
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.arg(scene.database()).arg("--json");
    let output = Process::run(&mut command, PATIENCE);
    let refused = output.stderr.contains("unshare") || output.code() == 77;
    if refused {
        eprintln!("needs the right to mount: {}", output.stderr);
    }
    (!refused).then_some(output)
}

#[test]
fn k10_read_only_volume_is_served_by_snapshot() {
    for wal in [false, true] {
        let scene = Scene::new("read-only-volume", "a.db");
        let connection = rollback(&scene.database());
        if wal {
            connection
                .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
                .unwrap();
            row(&connection);
        }
        connection.close().unwrap();
        let before = fs::read(scene.database()).unwrap();
        let Some(output) = on_read_only_volume(&scene) else {
            return;
        };
        let output = output.expect_success();
        assert_eq!(output.json()["txid"], 1);
        assert!(output.stderr.contains("--adopt"), "{}", output.stderr);
        let again = on_read_only_volume(&scene).unwrap().expect_success();
        assert_eq!(again.json()["skipped"], true);
        assert_restores(&scene, None, &before);
        assert!(fs::read(scene.database()).unwrap() == before);
        assert_eq!(fs::read_dir(scene.path().join("data")).unwrap().count(), 1);

        let connection = Connection::open(scene.database()).unwrap();
        row(&connection);
        if wal {
            // Beside a WAL nothing can be read without read marks.
            let output = on_read_only_volume(&scene).unwrap().expect_failure();
            assert!(output.stderr.contains("a WAL"), "{}", output.stderr);
        }
        connection.close().unwrap();
        let output = on_read_only_volume(&scene).unwrap().expect_failure();
        assert!(output.stderr.contains("--adopt"), "{}", output.stderr);
        assert_eq!(snapshots(&scene), [1]);
    }
}
