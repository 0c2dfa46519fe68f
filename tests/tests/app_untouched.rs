//! The application's database stays the application's: schema, rows, bytes, locks, and who may open it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rusqlite::Connection;
use walrust_tests::locks::{holds_read_mark, holds_shared};
use walrust_tests::process::Process;
use walrust_tests::program::{
    App, Watch, assert_every_point, assert_newest, assert_no_rebase, restore, ship, walrust,
};
use walrust_tests::scene::Scene;
use walrust_tests::support::{PATIENCE, until};
use walrust_tests::workload::{Spec, checkpoint};

#[test]
fn k5_locks_survive() {
    let scene = Scene::new("locks", "a.db");
    let mut writer = scene.writer(scene.spec(1));
    writer.steps(20);
    let mut watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms", "--max-changes", "30"],
    );
    watch.wait_stored(&scene, PATIENCE);
    let id = watch.process.id();
    let check = |what: &str| {
        // A turn holds two transactions for a moment and ends one; there is always one.
        assert!(
            holds_shared(id, &scene.database()),
            "after {what}: no shared lock on the database"
        );
        assert!(
            holds_read_mark(id, &scene.beside("-shm")),
            "after {what}: no read mark"
        );
    };
    check("the base");
    for round in 0..8 {
        writer.steps(10);
        check("writes");
        watch.wait_stored(&scene, PATIENCE);
        check("an upload or snapshot");
        let mut snapshot = walrust(&scene.bucket, "snapshot");
        Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
        check("the snapshot command");
        let output = scene.path().join(format!("data/restored-{round}.db"));
        restore(&scene.bucket, scene.name(), &output, None).expect_success();
        check("a restore next door");
        let _ = checkpoint(&writer.connection, "PASSIVE").unwrap();
        check("a checkpoint");
    }
    // The application's last close must not delete the WAL while we hold it.
    drop(writer);
    assert!(scene.beside("-wal").exists());
    check("the application's last close");
    assert!(watch.process.poll().is_none());
    watch.drain();
    assert_every_point(&scene);
    assert_no_rebase(&scene);
}

#[test]
fn k1_attached_on_a_fully_checkpointed_wal() {
    let scene = Scene::new("mark-0", "a.db");
    let mut writer = scene.writer(Spec {
        autocheckpoint: 0,
        ..scene.spec(2)
    });
    writer.steps(20);
    assert_eq!(checkpoint(&writer.connection, "PASSIVE").unwrap().0, 0);
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    watch.wait_stored(&scene, PATIENCE);
    for _ in 0..20 {
        let _ = checkpoint(&writer.connection, "TRUNCATE").unwrap();
        writer.row();
        writer.row();
    }
    watch.drain();
    assert_every_point(&scene);
    assert_no_rebase(&scene);
}

#[test]
fn k10_schema_rows_and_bytes_are_the_applications() {
    let scene = Scene::new("untouched", "a.db");
    let spec = Spec {
        upheaval: true,
        checkpoints: true,
        ..scene.spec(3)
    };
    let mut writer = scene.writer(spec);
    writer.steps(30);
    let mode = fs::metadata(scene.database()).unwrap().mode();
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms", "--max-changes", "100"],
    );
    writer.steps(150);
    let tables = |connection: &Connection| -> Vec<String> {
        let mut statement = connection
            .prepare("SELECT name FROM sqlite_schema ORDER BY name")
            .unwrap();
        statement
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    };
    assert!(
        tables(&writer.connection)
            .iter()
            .all(|name| !name.contains("walrust"))
    );
    watch.drain();
    // Nothing was committed but by the application: the log's last image is what SQLite shows.
    let last = scene.oracle().last().seq;
    writer.recorder.observe(&writer.connection).unwrap();
    assert_eq!(
        scene.oracle().last().seq,
        last,
        "somebody else changed the database"
    );
    // The application's own close folds the WAL, as it would without us.
    drop(writer);
    assert!(
        !scene.beside("-wal").exists(),
        "somebody still has the database open"
    );
    scene.oracle().check_file(&scene.database(), last).unwrap();
    assert_eq!(fs::metadata(scene.database()).unwrap().mode(), mode);
    let beside: BTreeSet<_> = fs::read_dir(scene.path().join("data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        beside,
        BTreeSet::from([scene.name().to_owned(), ".a.db-walrust".to_owned()])
    );
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
}

#[test]
fn r37_snapshot_of_a_rollback_journal_database_leaves_it_alone() {
    let scene = Scene::new("rollback", "a.db");
    let connection = Connection::open(scene.database()).unwrap();
    connection
        .execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (randomblob(100000))")
        .unwrap();
    let before = fs::read(scene.database()).unwrap();
    let mut snapshot = walrust(&scene.bucket, "snapshot");
    Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
    assert!(fs::read(scene.database()).unwrap() == before);
    let output = scene.path().join("restored.db");
    restore(&scene.bucket, scene.name(), &output, None).expect_success();
    assert!(fs::read(&output).unwrap() == before);
    connection
        .execute_batch("INSERT INTO t VALUES (1)")
        .unwrap();
}

fn root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("needs root to run processes under other user ids");
    }
    root
}

/// The scene's data folder and what is in it belong to this user and group.
fn give(scene: &Scene, owner: u32, group: u32, mode: u32) {
    let data = scene.path().join("data");
    fs::set_permissions(scene.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(
        scene.path().join("store"),
        fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    for entry in fs::read_dir(&data).unwrap().flatten() {
        if entry.metadata().unwrap().is_file() {
            chown(entry.path(), Some(owner), Some(group)).unwrap();
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

fn ship_as(scene: &Scene, user: u32, group: u32) -> walrust_tests::process::Output {
    // The binary may lie below a folder that only root may enter.
    let copy = scene.path().join("walrust");
    fs::copy(walrust_tests::program::binary(), &copy).unwrap();
    let mut command = Command::new(&copy);
    command
        .args(["watch", "--no-metrics", "--once"])
        .arg(scene.database());
    scene.bucket.apply(&mut command);
    command.uid(user).gid(group).current_dir("/");
    Process::run(&mut command, PATIENCE)
}

#[test]
fn e9_an_application_of_another_user_is_never_locked_out() {
    if !root() {
        return;
    }
    const APP: u32 = 4201;
    const OTHER: u32 = 4202;
    // Nobody has it open: -wal and -shm are made by whoever comes first.
    let scene = Scene::new("users", "a.db");
    let mut writer = scene.writer(scene.spec(4));
    writer.steps(10);
    drop(writer);
    give(&scene, APP, APP, 0o644);
    let output = ship_as(&scene, OTHER, OTHER).expect_failure();
    assert!(
        [APP.to_string(), OTHER.to_string(), "644".to_owned()]
            .iter()
            .all(|word| output.stderr.contains(word)),
        "owner, mode and our user id belong in the error: {}",
        output.stderr
    );
    assert!(!scene.beside("-wal").exists() && !scene.beside("-shm").exists());

    // As the owner, and as root: the application goes on.
    for user in [APP, 0] {
        ship_as(&scene, user, user).expect_success();
        for suffix in ["-wal", "-shm"] {
            if let Ok(meta) = fs::metadata(scene.beside(suffix)) {
                let usable = meta.uid() == APP || meta.mode() & 0o006 == 0o006;
                assert!(
                    usable,
                    "{suffix} belongs to {} with mode {:o}",
                    meta.uid(),
                    meta.mode()
                );
            }
        }
        application_writes(&scene, APP);
    }
}

/// Another process, as this user, commits a row.
fn application_writes(scene: &Scene, user: u32) {
    let mut command = Command::new("python3");
    let code = "import sqlite3, sys\n\
                c = sqlite3.connect(sys.argv[1])\n\
                c.execute('INSERT INTO items(k, v) VALUES (1, 2)')\n\
                c.commit()\n";
    command
        .args(["-c", code])
        .arg(scene.database())
        .uid(user)
        .gid(user)
        .current_dir("/");
    Process::run(&mut command, PATIENCE).expect_success();
}

#[test]
fn e9_a_shared_group_may_watch() {
    if !root() {
        return;
    }
    const APP: u32 = 4203;
    const OTHER: u32 = 4204;
    const GROUP: u32 = 4205;
    let scene = Scene::new("group", "a.db");
    let mut writer = scene.writer(scene.spec(5));
    writer.steps(10);
    drop(writer);
    give(&scene, APP, GROUP, 0o660);
    ship_as(&scene, OTHER, GROUP).expect_success();
    for suffix in ["-wal", "-shm"] {
        if let Ok(meta) = fs::metadata(scene.beside(suffix)) {
            let usable = meta.gid() == GROUP && meta.mode() & 0o060 == 0o060;
            assert!(
                usable,
                "{suffix}: group {} mode {:o}",
                meta.gid(),
                meta.mode()
            );
        }
    }
}

#[test]
fn k10_read_only_directory_is_refused_by_watch_and_served_by_snapshot() {
    if !root() {
        return;
    }
    let scene = Scene::new("read-only", "a.db");
    let mut writer = scene.writer(scene.spec(6));
    writer.steps(10);
    drop(writer);
    give(&scene, 0, 0, 0o644);
    fs::set_permissions(scene.path().join("data"), fs::Permissions::from_mode(0o755)).unwrap();
    let output = ship_as(&scene, 4206, 4206).expect_failure();
    assert!(output.stderr.contains("a.db"), "{}", output.stderr);
    let mut command = Command::new(scene.path().join("walrust"));
    command
        .arg("snapshot")
        .arg(scene.database())
        .uid(4206)
        .gid(4206)
        .current_dir("/");
    scene.bucket.apply(&mut command);
    Process::run(&mut command, PATIENCE).expect_success();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
}

#[test]
fn w14_frames_with_zero_salts_of_an_older_sqlite() {
    // The system's SQLite, through Python, older than 3.51: spill, ROLLBACK TO, COMMIT.
    let code = r#"
import sqlite3, sys, time
assert sqlite3.sqlite_version_info < (3, 51)
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("PRAGMA journal_mode=WAL")
c.execute("PRAGMA cache_size=5")
c.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, b BLOB)")
print("ready", flush=True)
sys.stdin.readline()
for n in range(40):
    c.execute("BEGIN")
    c.execute("INSERT INTO t(b) VALUES (randomblob(3000))")
    c.execute("SAVEPOINT s")
    for m in range(60):
        c.execute("INSERT INTO t(b) VALUES (randomblob(3000))")
    c.execute("ROLLBACK TO s")
    c.execute("COMMIT")
    time.sleep(0.02)
print("done", flush=True)
sys.stdin.readline()
"#;
    let scene = Scene::new("zero-salts", "a.db");
    let mut child = Command::new("python3")
        .args(["-c", code])
        .arg(scene.database())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    until("a base", PATIENCE, || {
        scene
            .bucket
            .ltx_keys()
            .iter()
            .any(|key| key.contains("/0009/"))
            .then_some(())
    });
    std::io::Write::write_all(&mut input, b"go\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "done");
    let connection = Connection::open(scene.database()).unwrap();
    let mut recorder = walrust_tests::record::Recorder::open(&scene.log());
    recorder.observe(&connection).unwrap();
    watch.wait_stored(&scene, PATIENCE);
    drop(input);
    assert!(child.wait().unwrap().success());
    watch.drain();
    let output = scene.path().join("restored.db");
    restore(&scene.bucket, scene.name(), &output, None).expect_success();
    scene
        .oracle()
        .check_file(&output, scene.oracle().last().seq)
        .unwrap();
}

#[test]
fn beside_an_application_that_reads_all_the_time() {
    let scene = Scene::new("readers", "a.db");
    let spec = Spec {
        readers: 3,
        commits: Some(200),
        upheaval: true,
        ..scene.spec(7)
    };
    App::start(&Spec {
        commits: Some(10),
        ..spec.clone()
    })
    .finish();
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    App::start(&Spec { seed: 8, ..spec }).finish();
    watch.drain();
    assert_every_point(&scene);
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
}
