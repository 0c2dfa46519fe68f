//! Replicas kept by the real binary: what their readers see, what a kill leaves, what a poll costs.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rusqlite::Connection;
use serde_json::Value;
use walrust_tests::bank;
use walrust_tests::bucket::Bucket;
use walrust_tests::litestream;
use walrust_tests::process::{Process, Signal};
use walrust_tests::program::{
    App, Watch, binary, list, restore, ship, walrust, walrust_configured,
};
use walrust_tests::record::each_page;
use walrust_tests::replica::{Reader, Replica, stop};
use walrust_tests::scene::Scene;
use walrust_tests::server::{Action, Server};
use walrust_tests::support::{PATIENCE, announce, assert_sound, rounds, seeds, until};
use walrust_tests::weed::Weed;
use walrust_tests::workload::Spec;

const FAST: [&str; 2] = ["--interval", "20ms"];

fn seconds(usual: u64) -> Duration {
    let given = env::var("WALRUST_TEST_SECONDS").ok();
    Duration::from_secs(given.map_or(usual, |text| text.parse().unwrap()))
}

/// Commits about `rate` versions a second for `time`; gives the last one.
fn bank_for(database: &Path, rate: f64, time: Duration, version: &Arc<AtomicI64>) {
    let mut connection = Connection::open(database).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    let mut rng = Rng::with_seed(11);
    let (start, mut done) = (Instant::now(), 0.0);
    while start.elapsed() < time {
        let due = start + Duration::from_secs_f64(done / rate);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let next = version.load(Ordering::SeqCst) + 1;
        bank::commit(&mut connection, next, &mut rng).unwrap();
        version.store(next, Ordering::SeqCst);
        done += 1.0;
    }
}

#[test]
fn l2_readers_see_whole_states_in_order_while_a_hundred_commits_a_second_are_applied() {
    let scene = Scene::new("l2", "bank.db");
    let connection = Connection::open(scene.database()).unwrap();
    bank::create(&connection).unwrap();
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "10ms"],
    );
    watch.wait_attached(&scene);
    wait_for_base(&scene);
    let replica = Replica::of(&scene);
    replica.once().expect_success();
    let keeper = replica.start(&["--interval", "10ms"]);
    let reader = Reader::start(&replica.local);
    let second = Reader::start(&replica.local);
    let version = Arc::new(AtomicI64::new(0));
    let time = seconds(8);
    bank_for(&scene.database(), 100.0, time, &version);
    let committed = version.load(Ordering::SeqCst);
    drop(connection);
    watch.drain();
    let head = newest_txid(&scene);
    replica.wait_at(head, PATIENCE);
    let (states, more) = (reader.finish(), second.finish());
    let printed = stop(keeper).stdout;
    let applied = printed.matches("Applied").count() as u64;
    eprintln!(
        "l2: {committed} commits in {time:?}, {applied} batches, readers saw {states} and {more} states"
    );
    assert!(committed as u64 > time.as_secs() * 50, "{committed}");
    assert!(applied > time.as_secs(), "{printed}");
    assert!(states > time.as_secs() && more > time.as_secs());
    let connection = replica.reader();
    let shown = bank::check(&connection);
    let (after, state) = (newest_txid(&scene), replica.txid());
    assert_eq!(
        shown,
        Ok(committed),
        "head {head}, then {after}, the replica says {state}"
    );
    // The WAL was started again while readers came and went.
    let wal = fs::metadata(replica.beside("-wal")).unwrap().len();
    assert!(wal < 24 << 20, "the WAL has {wal} bytes");
}

fn wait_for_base(scene: &Scene) {
    until("a snapshot", PATIENCE, || {
        let keys = scene.bucket.ltx_keys();
        keys.iter().any(|key| key.contains("/0009/")).then_some(())
    });
}

fn newest_txid(scene: &Scene) -> u64 {
    list(&scene.bucket, scene.name())["latest"]["txid"]
        .as_u64()
        .unwrap()
}

#[test]
fn l12_killed_at_any_moment_it_is_valid_catches_up_and_never_steps_back() {
    for seed in seeds(1) {
        announce("replicate kill", seed);
        let mut rng = Rng::with_seed(seed);
        let scene = Scene::new("l12", "a.db");
        let spec = Spec {
            rate: Some(80.0),
            upheaval: true,
            page_limit: 300,
            ..scene.spec(seed)
        };
        let mut app = App::ready(&spec);
        let watch = Watch::ready(
            &scene.bucket,
            &[&scene.database()],
            &["--sync-interval", "10ms"],
        );
        watch.wait_attached(&scene);
        app.wait_commits(20);
        wait_for_base(&scene);
        let replica = Replica::of(&scene);
        let (mut reached, mut resumed, mut last) = (0, 0, 0);
        for round in 0..rounds(10) {
            let mut keeper = replica.start(&["--interval", "10ms"]);
            // The random moment is what is tried here: also within the first bootstrap.
            thread::sleep(Duration::from_millis(rng.u64(5..700)));
            assert!(keeper.poll().is_none(), "{}", keeper.printed());
            keeper.kill();
            let printed = keeper.printed();
            assert!(!printed.contains("made anew"), "round {round}: {printed}");
            if !replica.local.exists() {
                continue;
            }
            resumed += u64::from(!printed.contains("Bootstrapped"));
            let verdict: String = replica
                .reader()
                .query_row("PRAGMA integrity_check", [], |row| row.get(0))
                .unwrap();
            assert_eq!(verdict, "ok", "round {round}");
            let commits = replica.commits(&scene.oracle());
            let now = commits.iter().find(|seq| **seq >= reached);
            reached = *now.unwrap_or_else(|| panic!("round {round}: {commits:?} after {reached}"));
            let txid = replica.txid();
            assert!(txid >= last, "round {round}: TXID {txid} after {last}");
            last = txid;
        }
        app.stop();
        watch.drain();
        let output = replica.once().expect_success();
        assert!(!output.stderr.contains("made anew"), "{}", output.stderr);
        replica.assert_newest(&scene.oracle());
        eprintln!("l12: {resumed} resumed, up to TXID {last}");
        assert!(resumed > 0);
    }
}

#[test]
fn a_replica_of_any_workload_is_its_source_at_every_state_that_it_shows() {
    for seed in seeds(3) {
        announce("replicate random", seed);
        let scene = Scene::new("random", "a.db");
        let spec = Spec {
            rate: Some(60.0),
            commits: Some(150),
            ..scene.random(seed)
        };
        let app = App::ready(&spec);
        let watch = Watch::ready(
            &scene.bucket,
            &[&scene.database()],
            &["--sync-interval", "20ms"],
        );
        watch.wait_attached(&scene);
        wait_for_base(&scene);
        let replica = Replica::of(&scene);
        // Each run ends at some state: all of them are commits, in order.
        let mut reached = 0;
        while !app.process.ended() {
            let output = replica.once().expect_success();
            assert!(!output.stderr.contains("made anew"), "{}", output.stderr);
            let commits = replica.commits(&scene.oracle());
            let now = commits.iter().find(|seq| **seq >= reached);
            reached = *now.unwrap_or_else(|| panic!("{commits:?} after {reached}"));
        }
        app.finish();
        watch.drain();
        replica.once().expect_success();
        replica.assert_newest(&scene.oracle());
    }
}

#[test]
fn l9_r111_an_idle_poll_is_one_request_and_nothing_is_ever_written_to_the_store() {
    let server = Server::start();
    let scene = Scene::on("l9", "a.db", server.bucket("backups").below("deep/prefix"));
    let mut writer = scene.writer(scene.spec(1));
    for _ in 0..30 {
        writer.row();
        ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    }
    let replica = Replica::of(&scene);
    // Whatever it does, it needs no right to write or delete (R148).
    server.restart_count();
    server.rule(|call| match call.writes() {
        true => Action::Fail(403),
        false => Action::Pass,
    });
    let mut keeper = replica.start(&["--interval", "100ms"]);
    keeper.wait_for(PATIENCE, |line| line.starts_with("Bootstrapped"));
    replica.wait_at(newest_txid(&scene), PATIENCE);
    thread::sleep(Duration::from_millis(300));
    server.restart_count();
    let (start, time) = (Instant::now(), Duration::from_secs(3));
    thread::sleep(time);
    let calls = server.calls();
    let most = start.elapsed().as_millis() as usize / 100 + 1;
    assert!(
        calls.len() <= most && calls.len() >= most / 2,
        "{} requests in {most} intervals",
        calls.len()
    );
    for call in &calls {
        assert!(
            call.method == "GET" && call.query.contains("list-type=2"),
            "{call:?}"
        );
        assert!(call.received < 16 << 10, "{call:?}");
    }
    server.no_rule();
    writer.row();
    server.restart_count();
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    replica.wait_at(newest_txid(&scene), PATIENCE);
    stop(keeper);
    replica.assert_newest(&scene.oracle());
}

#[test]
fn a_replica_on_a_real_store() {
    let weed = Weed::start();
    let scene = Scene::on("weed", "a.db", weed.bucket("backups").below("p"));
    let spec = Spec {
        upheaval: true,
        ..scene.spec(5)
    };
    let mut writer = scene.writer(spec);
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    watch.wait_attached(&scene);
    writer.steps(10);
    watch.wait_stored(&scene, PATIENCE);
    let replica = Replica::of(&scene);
    let mut keeper = replica.start(&FAST);
    keeper.wait_for(PATIENCE, |line| line.starts_with("Bootstrapped"));
    for _ in 0..8 {
        writer.steps(5);
        watch.wait_stored(&scene, PATIENCE);
        replica.wait_at(newest_txid(&scene), PATIENCE);
        replica.assert_newest(&scene.oracle());
    }
    assert!(keeper.printed().contains("Applied"), "{}", keeper.printed());
    watch.drain();
    stop(keeper);
}

#[test]
fn l5_r107_the_examples_of_the_reference_with_a_path_without_directory() {
    let scene = Scene::new("l5", "mydb");
    let mut writer = scene.writer(scene.spec(1));
    writer.row();
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "20ms"],
    );
    watch.wait_attached(&scene);
    watch.wait_stored(&scene, PATIENCE);
    let folder = scene.path().join("work");
    fs::create_dir(&folder).unwrap();
    let source = format!("{}/mydb", scene.bucket.url());
    let mut command = Command::new(binary());
    scene.bucket.environment(&mut command);
    command
        .args([
            "replicate",
            &source,
            "--local",
            "replica.db",
            "--interval",
            "1s",
        ])
        .current_dir(&folder);
    let mut keeper = Process::spawn(&mut command);
    keeper.wait_for(PATIENCE, |line| line.starts_with("Bootstrapped"));
    writer.row();
    keeper.wait_for(PATIENCE, |line| line.contains("Applied"));
    assert!(folder.join("replica.db-replica-state").exists());
    watch.drain();
    keeper.signal(Signal::INT);
    let output = keeper.output(PATIENCE).expect_success();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(
        &lines[..4],
        [
            format!("Replicating {source} -> replica.db").as_str(),
            "Poll interval: 1s",
            "Press Ctrl+C to stop",
            "",
        ]
    );
    let pages = Connection::open(scene.database())
        .unwrap()
        .query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0))
        .unwrap();
    let bootstrapped = lines[4];
    assert!(
        bootstrapped.starts_with("Bootstrapped from snapshot: ")
            && bootstrapped.contains(" pages, TXID "),
        "{bootstrapped} ({pages})"
    );
    let applied = lines[5];
    let (time, rest) = applied.split_once("] ").unwrap();
    assert!(time.len() == 9 && time.starts_with('['), "{applied}");
    let txid = newest_txid(&scene);
    assert_eq!(rest, format!("Applied 1 LTX file(s), now at TXID {txid}"));
    assert_eq!(lines.len(), 6, "silent when nothing is new: {lines:?}");
    assert_eq!(output.stderr, "");
}

#[test]
fn events_as_json_tell_of_every_change() {
    let server = Server::start();
    let scene = Scene::on("json", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(1));
    writer.row();
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    let replica = Replica::of(&scene);
    let mut keeper = replica.start(&["--interval", "50ms", "--json"]);
    keeper.wait_for(PATIENCE, |line| line.contains("caught_up"));
    writer.row();
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    keeper.wait_for(PATIENCE, |line| line.contains("applied"));
    // One error, told once, and its end.
    server.outage(true);
    keeper.wait_for(PATIENCE * 2, |line| line.contains("\"error\""));
    server.outage(false);
    let caught_up = |text: &str| text.matches("caught_up").count();
    until("the end of the error", PATIENCE * 2, || {
        (caught_up(&keeper.printed()) == 2).then_some(())
    });
    let output = stop(keeper);
    let events: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["bootstrapped", "caught_up", "applied", "error", "caught_up"]
    );
    for event in &events {
        assert_eq!(event["v"], 1);
        for field in ["time", "txid", "files", "pages", "lag_seconds"] {
            assert!(event.get(field).is_some(), "{event}");
        }
    }
    assert_eq!(events[2]["files"], 1);
    assert_eq!(events[2]["lag_seconds"], 0.0);
    assert_eq!(events[3]["kind"], "unavailable");
    assert_eq!(events[3]["txid"], events[2]["txid"]);
}

#[test]
fn r112_what_cannot_pass_ends_with_status_1_and_names_the_cause() {
    let server = Server::start();
    let scene = Scene::on("r112", "app.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(1));
    writer.row();
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    let run = |source: &str, arguments: &[&str]| {
        let mut command = Command::new(binary());
        scene.bucket.environment(&mut command);
        let local = scene.path().join("r.db");
        command
            .arg("replicate")
            .arg(source)
            .arg("--local")
            .arg(local)
            .args(arguments);
        Process::run(&mut command, PATIENCE).expect_failure().stderr
    };
    let unknown = run("s3://backups/app", &[]);
    assert!(
        unknown.contains("no backup of \"app\"") && unknown.contains("did you mean app.db?"),
        "{unknown}"
    );
    let bucket = run("s3://absent/app.db", &[]);
    assert!(bucket.contains("absent"), "{bucket}");
    server.rule(|_| Action::Fail(403));
    let denied = run("s3://backups/app.db", &[]);
    assert!(denied.lines().count() == 1, "{denied}");
    server.no_rule();
    for (source, arguments) in [
        ("s3://backups", &[][..]),
        ("s3://backups/app.db", &["--interval", "5"]),
        ("s3://backups/app.db", &["--interval", "0s"]),
    ] {
        run(source, arguments);
    }
    assert!(!scene.path().join("r.db").exists());
}

#[test]
fn l6_r114_other_files_and_other_processes_are_left_alone() {
    let scene = Scene::new("l6", "a.db");
    let mut writer = scene.writer(scene.spec(1));
    writer.row();
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    let replica = Replica::of(&scene);
    fs::write(&replica.local, "precious").unwrap();
    let refused = replica.once().expect_failure().stderr;
    assert!(refused.contains("--replace"), "{refused}");
    assert_eq!(fs::read(&replica.local).unwrap(), b"precious");
    Process::run(&mut replica.command(&["--once", "--replace"]), PATIENCE).expect_success();
    replica.assert_newest(&scene.oracle());
    // The source itself is no place for its replica.
    let mut command = Command::new(binary());
    scene.bucket.environment(&mut command);
    command
        .args(["replicate", &replica.source(), "--once", "--local"])
        .arg(scene.database());
    Process::run(&mut command, PATIENCE).expect_failure();
    // A second replicator.
    let mut keeper = replica.start(&FAST);
    until("the lock is held", PATIENCE, || {
        let output = replica.once();
        (!output.status.success()).then_some(output.stderr)
    });
    let second = replica.once().expect_failure().stderr;
    assert!(second.contains("another walrust process"), "{second}");
    assert!(keeper.poll().is_none());
    // A watcher, a snapshot, a restore over it: while it is kept and after.
    let kept = fs::read(replica.beside("-replica-state")).unwrap();
    for while_kept in [true, false] {
        if !while_kept {
            keeper.signal(Signal::TERM);
            assert!(keeper.wait(PATIENCE).success());
        }
        let elsewhere = Bucket::Folder(scene.path().join("elsewhere"));
        let watched = ship(&elsewhere, &replica.local, &[] as &[&str]).expect_failure();
        assert!(
            watched.stderr.contains("is a replica of"),
            "{}",
            watched.stderr
        );
        let mut command = walrust(&elsewhere, "snapshot");
        command.arg(&replica.local);
        let snapshot = Process::run(&mut command, PATIENCE).expect_failure();
        assert!(
            snapshot.stderr.contains("is a replica of"),
            "{}",
            snapshot.stderr
        );
        assert!(elsewhere.ltx_keys().is_empty());
    }
    let mut command = walrust(&scene.bucket, "restore");
    let mut keeper = replica.start(&FAST);
    until("the lock is held", PATIENCE, || {
        (!replica.once().status.success()).then_some(())
    });
    command
        .args([scene.name(), "--force", "--output"])
        .arg(&replica.local);
    Process::run(&mut command, PATIENCE).expect_failure();
    keeper.signal(Signal::TERM);
    keeper.wait(PATIENCE);
    let after = fs::read(replica.beside("-replica-state")).unwrap();
    let txid = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap()["current_txid"].clone();
    assert_eq!(txid(&after), txid(&kept));
}

#[test]
fn l13_a_new_chain_is_followed_under_an_open_reader() {
    let scene = Scene::new("l13", "a.db");
    let mut writer = scene.writer(scene.spec(1));
    writer.steps(10);
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    let replica = Replica::of(&scene);
    let mut keeper = replica.start(&FAST);
    keeper.wait_for(PATIENCE, |line| line.starts_with("Bootstrapped"));
    let reader = replica.reader();
    let count = |connection: &Connection| {
        let sql = "SELECT count(*) FROM items";
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    count(&reader);
    reader.execute_batch("BEGIN").unwrap();
    let held = count(&reader);
    // The application's database is replaced by another one, of the same schema version.
    let version: i64 = writer
        .connection
        .query_row("PRAGMA schema_version", [], |row| row.get(0))
        .unwrap();
    drop(writer);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(scene.beside(suffix));
    }
    fs::remove_dir_all(scene.state()).unwrap();
    let connection = Connection::open(scene.database()).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; CREATE TABLE wrong(x); INSERT INTO wrong VALUES('wrong');
             CREATE TABLE items(id INTEGER PRIMARY KEY, k); INSERT INTO items(k) VALUES(1), (2);
             PRAGMA schema_version = {version}"
        ))
        .unwrap();
    ship(&scene.bucket, &scene.database(), &["--new-chain"]).expect_success();
    replica.wait_at(newest_txid(&scene), PATIENCE);
    assert!(
        keeper.printed().contains("new history"),
        "{}",
        keeper.printed()
    );
    assert_eq!(count(&reader), held, "an open transaction keeps its state");
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!(count(&reader), 2);
    connection
        .execute_batch("INSERT INTO items(k) VALUES(3)")
        .unwrap();
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    replica.wait_at(newest_txid(&scene), PATIENCE);
    assert_eq!(count(&reader), 3);
    let verdict: String = reader
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok");
    stop(keeper);
}

#[test]
fn l13_readers_in_a_loop_see_one_history_or_the_other_while_a_replica_is_made_anew() {
    let scene = Scene::new("l13-loop", "bank.db");
    let replica = Replica::of(&scene);
    let mut reader: Option<Reader> = None;
    let histories = 8;
    for history in 0..histories {
        let schema = reader.as_ref().map(|_| schema_version(&scene.database()));
        let mut connection = another_bank(&scene, history, schema);
        let arguments = if history == 0 {
            &[][..]
        } else {
            &["--new-chain"]
        };
        ship(&scene.bucket, &scene.database(), arguments).expect_success();
        let output = replica.once().expect_success();
        assert_eq!(output.stderr.contains("new history"), history > 0);
        let version = history * 1000 + 1;
        let shown = || bank::check(&replica.reader());
        assert_eq!(shown(), Ok(version));
        reader.get_or_insert_with(|| Reader::start(&replica.local));
        // It goes on from there.
        bank::commit(&mut connection, version + 1, &mut Rng::with_seed(1)).unwrap();
        ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
        replica.once().expect_success();
        assert_eq!(shown(), Ok(version + 1));
    }
    let states = reader.unwrap().finish();
    assert!(states >= histories as u64, "{states}");
}

/// Puts a database in the place of the scene's: other root pages, another size, later versions, and `schema` as the
/// version of its schema.
fn another_bank(scene: &Scene, history: i64, schema: Option<i64>) -> Connection {
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(scene.beside(suffix));
    }
    let _ = fs::remove_dir_all(scene.state());
    let mut connection = Connection::open(scene.database()).unwrap();
    let mut before = String::new();
    for table in 0..history % 3 {
        before += &format!("CREATE TABLE before_{table}(x INT, y INT);");
    }
    connection.execute_batch(&before).unwrap();
    bank::create(&connection).unwrap();
    let version = history * 1000;
    let start = format!("UPDATE meta SET version = {version}, oldest = {version} + 1");
    connection.execute_batch(&start).unwrap();
    bank::commit(&mut connection, version + 1, &mut Rng::with_seed(1)).unwrap();
    if let Some(schema) = schema {
        let same = format!("PRAGMA schema_version = {schema}");
        connection.execute_batch(&same).unwrap();
    }
    connection
}

fn schema_version(database: &Path) -> i64 {
    let connection = Connection::open(database).unwrap();
    let sql = "PRAGMA schema_version";
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn r114_a_local_write_is_undone_and_told() {
    let scene = Scene::new("r114", "a.db");
    let mut writer = scene.writer(scene.spec(1));
    writer.steps(5);
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    let replica = Replica::of(&scene);
    let mut keeper = replica.start(&FAST);
    keeper.wait_for(PATIENCE, |line| line.starts_with("Bootstrapped"));
    let connection = Connection::open(&replica.local).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    connection.execute_batch("DELETE FROM items").unwrap();
    keeper.wait_for(PATIENCE, |line| line.contains("somebody else wrote to it"));
    until("the replica is whole again", PATIENCE, || {
        let found =
            connection.query_row("SELECT count(*) FROM items", [], |row| row.get::<_, i64>(0));
        (found.unwrap() > 0).then_some(())
    });
    drop(connection);
    stop(keeper);
    replica.assert_newest(&scene.oracle());
}

#[test]
fn an_outage_of_the_store_is_waited_for_and_costs_nothing() {
    let server = Server::start();
    let scene = Scene::on("outage", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(1));
    writer.row();
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    let replica = Replica::of(&scene);
    let mut keeper = replica.start(&["--interval", "50ms", "--json"]);
    keeper.wait_for(PATIENCE, |line| line.contains("caught_up"));
    // Every third request fails in some way, for a while.
    let mut number = 0_u32;
    server.rule(move |_| {
        number += 1;
        match number % 3 {
            0 => [Action::Fail(503), Action::Drop, Action::DropAfter][number as usize / 3 % 3],
            _ => Action::Pass,
        }
    });
    for _ in 0..6 {
        writer.row();
        ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    }
    replica.wait_at(newest_txid(&scene), PATIENCE);
    server.no_rule();
    stop(keeper);
    replica.assert_newest(&scene.oracle());
}

#[test]
fn larger_than_the_lock_page() {
    let scene = Scene::new("replica-lock-page", "a.db");
    let connection = Connection::open(scene.database()).unwrap();
    connection
        .execute_batch(
            "PRAGMA page_size = 65536; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB);
             INSERT INTO t(data) VALUES (zeroblob(500000000)), (zeroblob(500000000)), (zeroblob(60000000));",
        )
        .unwrap();
    connection
        .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .unwrap();
    let pages = |connection: &Connection| {
        let sql = "PRAGMA page_count";
        connection
            .query_row(sql, [], |row| row.get::<_, u32>(0))
            .unwrap()
    };
    let lock_page = 0x4000_0000 / 65536 + 1;
    assert!(pages(&connection) < lock_page);
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    let replica = Replica::of(&scene);
    replica.once().expect_success();
    // Over it, and back before it, and over it again.
    for (sql, over) in [
        ("INSERT INTO t(data) VALUES (randomblob(40000000))", true),
        (
            "DELETE FROM t WHERE id = 4; PRAGMA incremental_vacuum",
            true,
        ),
        ("DELETE FROM t WHERE id IN (2, 3); VACUUM", false),
        ("INSERT INTO t(data) VALUES (zeroblob(700000000))", true),
    ] {
        connection.execute_batch(sql).unwrap();
        assert_eq!(pages(&connection) > lock_page, over, "{sql}");
        ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
        let output = replica.once().expect_success();
        assert!(!output.stderr.contains("made anew"), "{}", output.stderr);
        assert_same_pages(&replica, &connection);
    }
}

/// Compares page by page; but for the documented bytes of the first.
fn assert_same_pages(replica: &Replica, source: &Connection) {
    let digest = |connection: &Connection| {
        let mut sums = Vec::new();
        each_page(connection, |page, data| {
            let mut data = data.to_vec();
            if page == 1 {
                for range in [18..20, 24..32, 40..44, 92..100] {
                    data[range].fill(0);
                }
            }
            sums.push(xxhash_rust::xxh3::xxh3_64(&data));
        })
        .unwrap();
        sums
    };
    let (found, expected) = (digest(&replica.reader()), digest(source));
    assert_eq!(found.len(), expected.len());
    let differing = (0..found.len()).find(|at| found[*at] != expected[*at]);
    assert_eq!(
        differing.map(|at| at + 1),
        None,
        "the first page that differs"
    );
}

#[test]
fn memory_follows_neither_the_database_nor_the_size_of_a_change() {
    // As for the other commands: what the code of a build without optimisation takes more counts too.
    let limit: u64 = if cfg!(debug_assertions) {
        84 << 20
    } else {
        64 << 20
    };
    let scene = Scene::new("replica-memory", "a.db");
    let connection = Connection::open(scene.database()).unwrap();
    let fill = |count: u32| {
        format!(
            "INSERT INTO t(data) WITH RECURSIVE c(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM c WHERE v < {count})
             SELECT randomblob(1000000) FROM c"
        )
    };
    connection
        .execute_batch(
            "PRAGMA page_size = 512; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
             CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB)",
        )
        .unwrap();
    connection.execute_batch(&fill(60)).unwrap();
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    let replica = Replica::of(&scene);
    let peak = |what: &str| {
        let mut process = Process::spawn(&mut replica.command(&["--once"]));
        let mut peak = 0;
        while process.poll().is_none() {
            peak = peak.max(process.peak_memory().unwrap_or(0));
            thread::sleep(Duration::from_millis(1));
        }
        process.output(PATIENCE).expect_success();
        eprintln!("{what}: {} MiB", peak >> 20);
        assert!(peak < limit, "{what}: {} MiB", peak >> 20);
    };
    peak("bootstrap of 60 MB");
    connection.execute_batch(&fill(150)).unwrap();
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    peak("one file of 150 MB");
    assert_same_pages(&replica, &connection);
    // Made anew in place.
    fs::write(replica.beside("-replica-state"), "damaged").unwrap();
    peak("made anew, 210 MB");
    assert_same_pages(&replica, &connection);
}

#[test]
fn a_bucket_of_litestream_is_refused_clearly() {
    let scene = Scene::new("replica-litestream", "a.db");
    let mut writer = scene.writer(scene.spec(1));
    writer.row();
    let mut replicating =
        litestream::replicate(scene.path(), &scene.database(), &scene.bucket, "a.db");
    until("Litestream stored something", PATIENCE, || {
        (!scene.bucket.ltx_keys().is_empty()).then_some(())
    });
    replicating.signal(Signal::TERM);
    replicating.wait(PATIENCE);
    let replica = Replica::of(&scene);
    let refused = replica.once().expect_failure().stderr;
    assert!(
        refused.contains("written by Litestream") && refused.contains("walrust restore"),
        "{refused}"
    );
    assert!(!replica.local.exists());
}

#[test]
fn r115_a_warm_standby_takes_over_where_its_source_ended() {
    let scene = Scene::new("standby", "app.db");
    let mut writer = scene.writer(scene.spec(1));
    writer.steps(10);
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    let replica = Replica::of(&scene);
    let mut keeper = replica.start(&FAST);
    keeper.wait_for(PATIENCE, |line| line.starts_with("Bootstrapped"));
    writer.steps(10);
    ship(&scene.bucket, &scene.database(), &[] as &[&str]).expect_success();
    replica.wait_at(newest_txid(&scene), PATIENCE);
    stop(keeper);
    // Its machine is lost. The replica becomes the database.
    let head = newest_txid(&scene);
    fs::remove_file(replica.beside("-replica-state")).unwrap();
    let connection = Connection::open(&replica.local).unwrap();
    connection
        .execute_batch("INSERT INTO items(k, v, b) VALUES (1, 'after', x'00')")
        .unwrap();
    let configuration = scene.path().join("standby.toml");
    let text = format!(
        "[s3]\nbucket = \"{}\"\n[[databases]]\npath = \"{}\"\nname = \"app.db\"\n",
        scene.bucket.url(),
        replica.local.display()
    );
    fs::write(&configuration, text).unwrap();
    let mut command = walrust_configured(&scene.bucket, &configuration, "watch");
    command.args(["--once", "--no-metrics"]);
    Process::run(&mut command, PATIENCE).expect_success();
    assert!(newest_txid(&scene) > head);
    let restored = scene.path().join("restored.db");
    restore(&scene.bucket, scene.name(), &restored, None).expect_success();
    assert_sound(&restored);
    let image = fs::read(&restored).unwrap();
    let mut expected = Vec::new();
    each_page(&connection, |_, data| expected.extend_from_slice(data)).unwrap();
    assert!(image == expected, "the restored database is the new one");
}
