//! Databases of any name and any shape.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use walrust_tests::oracle::Oracle;
use walrust_tests::process::Process;
use walrust_tests::program::{
    App, Watch, assert_every_point, assert_newest, assert_no_rebase, list, points, restore,
    restored_commits, ship, walrust,
};
use walrust_tests::record::{Recorder, each_page};
use walrust_tests::scene::Scene;
use walrust_tests::server::Server;
use walrust_tests::support::{PATIENCE, assert_sound};
use walrust_tests::workload::{Spec, checkpoint, create};

const NAMES: [&str; 9] = [
    "a.sqlite",
    "a",
    "a.b.c",
    "a.db3",
    "with space.db",
    "käse ☃.db",
    "a#b?c.db",
    ".hidden",
    "a+b&c=%41.db",
];

#[test]
fn w10_any_name_over_s3_and_in_a_folder() {
    let server = Server::start();
    for bucket in [Some(server.bucket("names").below("some prefix")), None] {
        let scene = match bucket {
            Some(bucket) => Scene::on("names", "unused", bucket),
            None => Scene::new("names", "unused"),
        };
        let database = |name: &str| scene.path().join("data").join(name);
        let log = |name: &str| scene.path().join("logs").join(name);
        let apps = |seed: u64, commits: u64| {
            let spec = |name: &&str| Spec {
                commits: Some(commits),
                ..Spec::new(&database(name), &log(name), seed)
            };
            NAMES
                .iter()
                .map(|name| App::start(&spec(name)))
                .for_each(App::finish);
        };
        apps(1, 5);
        let paths: Vec<PathBuf> = NAMES.iter().map(|name| database(name)).collect();
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let watch = Watch::ready(&scene.bucket, &paths, &["--sync-interval", "100ms"]);
        apps(2, 20);
        watch.drain();
        let mut command = walrust(&scene.bucket, "list");
        let listed = Process::run(command.arg("--json"), PATIENCE)
            .expect_success()
            .json();
        let mut names: Vec<_> = NAMES.to_vec();
        names.sort_unstable();
        let found = listed["databases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["name"].as_str().unwrap());
        assert_eq!(found.collect::<Vec<_>>(), names);
        for name in NAMES {
            assert_newest(&scene.bucket, name, scene.path(), &Oracle::open(&log(name)));
        }
    }
}

#[test]
fn w12_populated_before_the_watcher_and_no_wal() {
    let scene = Scene::new("populated", "a.db");
    let mut writer = scene.writer(scene.random(11));
    writer.steps(100);
    assert_eq!(checkpoint(&writer.connection, "TRUNCATE").unwrap().0, 0);
    assert_eq!(fs::metadata(scene.beside("-wal")).unwrap().len(), 0);
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    watch.wait_stored(&scene, PATIENCE);
    writer.steps(30);
    watch.drain();
    assert_every_point(&scene);
    assert_no_rebase(&scene);
}

#[test]
fn wal_already_full_when_the_watcher_starts() {
    let scene = Scene::new("full", "a.db");
    let spec = Spec {
        autocheckpoint: 0,
        page_limit: 3000,
        ..scene.spec(12)
    };
    let mut writer = scene.writer(spec);
    writer.steps(30);
    for _ in 0..10 {
        writer.commit("INSERT INTO blobs(data) VALUES (randomblob(2000000))");
    }
    assert!(fs::metadata(scene.beside("-wal")).unwrap().len() > 20_000_000);
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    watch.wait_stored(&scene, PATIENCE);
    writer.steps(20);
    watch.drain();
    assert_every_point(&scene);
}

#[test]
fn w7_every_page_size_from_an_empty_database_on() {
    for shift in 0..8 {
        let scene = Scene::new("sizes", "a.db");
        let spec = Spec {
            page_size: 512 << shift,
            upheaval: true,
            ..scene.spec(shift)
        };
        let mut recorder = Recorder::open(&spec.log);
        let connection = create(&spec, &mut recorder).unwrap();
        drop(connection);
        let watch = Watch::ready(
            &scene.bucket,
            &[&scene.database()],
            &["--sync-interval", "50ms"],
        );
        let mut writer = scene.writer(spec);
        writer.steps(15);
        let _ = checkpoint(&writer.connection, "TRUNCATE").unwrap();
        writer.steps(15);
        watch.drain();
        assert_every_point(&scene);
        assert_eq!(list(&scene.bucket, scene.name())["page_size"], 512 << shift);
    }
}

#[test]
fn larger_than_the_lock_page() {
    let scene = Scene::new("lock-page", "a.db");
    let connection = Connection::open(scene.database()).unwrap();
    connection
        .execute_batch(
            "PRAGMA page_size = 65536; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB);
             INSERT INTO t(data) VALUES (zeroblob(500000000)), (zeroblob(500000000)), (zeroblob(90000000));",
        )
        .unwrap();
    connection
        .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .unwrap();
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "100ms"],
    );
    connection
        .execute_batch(
            "INSERT INTO t(data) VALUES (randomblob(3000000)); DELETE FROM t WHERE id = 3;
             INSERT INTO t(data) VALUES (randomblob(20000000));",
        )
        .unwrap();
    watch.drain();
    let output = scene.path().join("restored.db");
    restore(&scene.bucket, scene.name(), &output, None).expect_success();
    assert!(fs::metadata(&output).unwrap().len() > 1 << 30);
    assert_file_is(&output, &connection);
}

/// Compares page by page without holding either in memory.
fn assert_file_is(file: &Path, connection: &Connection) {
    let mut restored = File::open(file).unwrap();
    let mut buffer = Vec::new();
    each_page(connection, |page, expected| {
        buffer.resize(expected.len(), 0);
        restored.read_exact(&mut buffer).unwrap();
        assert!(buffer == expected, "page {page} differs");
    })
    .unwrap();
    assert_eq!(
        restored.read(&mut buffer).unwrap(),
        0,
        "the file is longer than the database"
    );
}

#[test]
fn r58_a_replaced_file_is_taken_up_and_history_stays() {
    let scene = Scene::new("replaced", "a.db");
    let mut writer = scene.writer(scene.spec(13));
    writer.steps(20);
    let flags = ["--sync-interval", "50ms"];
    let mut watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_stored(&scene, PATIENCE);
    writer.steps(20);
    watch.wait_stored(&scene, PATIENCE);
    let before = points(&scene.bucket, scene.name()).last().unwrap().clone();
    let last_before = scene.oracle().last().seq;
    drop(writer);

    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(scene.beside(suffix));
    }
    let mut writer = scene.writer(Spec {
        page_size: 4096,
        ..scene.spec(14)
    });
    writer.steps(30);
    watch.wait_stored(&scene, PATIENCE);
    writer.steps(10);
    assert!(
        watch.process.poll().is_none(),
        "{}",
        watch.process.printed()
    );
    watch.drain();
    assert_every_point(&scene);
    let wanted = before.txid.to_string();
    let (_, commits) = restored_commits(
        &scene.bucket,
        scene.name(),
        scene.path(),
        Some(&wanted),
        &scene.oracle(),
    );
    assert!(commits.contains(&last_before));
}

#[test]
fn another_page_size_is_a_new_base_in_the_same_chain() {
    let scene = Scene::new("repaged", "a.db");
    let mut writer = scene.writer(scene.spec(15));
    writer.steps(20);
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    drop(writer);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(scene.beside(suffix));
    }
    let mut writer = scene.writer(Spec {
        page_size: 16384,
        ..scene.spec(16)
    });
    writer.steps(20);
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    assert_every_point(&scene);
}

#[test]
fn k9_r62_not_in_wal_mode_is_an_error_of_its_own() {
    let scene = Scene::new("rollback", "good.db");
    let mut writer = scene.writer(scene.spec(17));
    writer.steps(5);
    let plain = scene.path().join("data/plain.db");
    let other = Connection::open(&plain).unwrap();
    other
        .execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)")
        .unwrap();

    let databases = [scene.database(), plain.clone()];
    let databases: Vec<&Path> = databases.iter().map(PathBuf::as_path).collect();
    let mut watch = Watch::ready(&scene.bucket, &databases, &["--sync-interval", "50ms"]);
    watch.process.wait_for(PATIENCE, |line| {
        line.contains("plain.db") && line.contains("--set-wal-mode")
    });
    writer.steps(10);
    watch.wait_stored(&scene, PATIENCE);
    let output = watch.stop();
    assert_eq!(output.code(), 1, "{}", output.stderr);
    assert!(output.stderr.contains("plain.db"), "{}", output.stderr);
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
    assert_eq!(
        fs::read(&plain).unwrap()[18..20],
        [1, 1],
        "the journal mode was changed"
    );

    // Told to, it sets the mode, and the database is like any other.
    drop(other);
    ship(&scene.bucket, &plain, &["--set-wal-mode"]).expect_success();
    assert_eq!(fs::read(&plain).unwrap()[18..20], [2, 2]);
    let output = scene.path().join("restored.db");
    restore(&scene.bucket, "plain.db", &output, None).expect_success();
    assert_sound(&output);
}

#[test]
fn a_database_that_comes_into_wal_mode_later_heals() {
    let scene = Scene::new("later", "a.db");
    let connection = Connection::open(scene.database()).unwrap();
    connection
        .execute_batch("CREATE TABLE items(id INTEGER PRIMARY KEY, k INT, v TEXT, b BLOB)")
        .unwrap();
    let other = scene.path().join("data/other.db");
    let keep = Connection::open(&other).unwrap();
    keep.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(x)")
        .unwrap();
    let databases = [scene.database(), other];
    let databases: Vec<&Path> = databases.iter().map(PathBuf::as_path).collect();
    let mut watch = Watch::ready(&scene.bucket, &databases, &["--sync-interval", "50ms"]);
    watch.process.wait_for(PATIENCE, |line| {
        line.contains("a.db") && line.contains("--set-wal-mode")
    });
    connection
        .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .unwrap();
    let mut recorder = Recorder::open(&scene.log());
    recorder.observe(&connection).unwrap();
    watch.wait_stored(&scene, Duration::from_secs(90));
    watch.stop();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
}
