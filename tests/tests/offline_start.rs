//! The store away when walrust starts: what the state directory knows suffices to follow the application, and once
//! the store answers, nothing is missing and nothing is stored twice.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use walrust_core::ltx::Header;
use walrust_core::types::StreamId;
use walrust_tests::locks::holds_read_mark;
use walrust_tests::oracle::Oracle;
use walrust_tests::process::{Process, Signal};
use walrust_tests::program::{
    App, Watch, assert_every_point, assert_newest, assert_no_rebase, files_of_kind, points, walrust,
};
use walrust_tests::scene::{Scene, Writer};
use walrust_tests::server::{Action, Server};
use walrust_tests::support::{PATIENCE, announce, rounds, seeds, until};
use walrust_tests::workload::{Spec, checkpoint};

const FLAGS: [&str; 2] = ["--sync-interval", "50ms"];

fn watch(scene: &Scene) -> Watch {
    Watch::ready(&scene.bucket, &[&scene.database()], &FLAGS)
}

fn spooled(scene: &Scene) -> usize {
    let names = fs::read_dir(scene.state().join("spool"));
    names.map_or(0, |names| {
        let names = names.flatten().map(|entry| entry.file_name());
        names
            .filter(|name| name.to_string_lossy().ends_with(".ltx"))
            .count()
    })
}

fn objects(scene: &Scene, folder: &str) -> Vec<String> {
    let mut keys = scene.bucket.ltx_keys();
    keys.retain(|key| key.contains(folder));
    keys
}

/// The epoch of the lease.
fn lease_epoch(scene: &Scene) -> u64 {
    let lease = fs::read(scene.bucket.file("a.db/lease.json")).unwrap();
    let lease: serde_json::Value = serde_json::from_slice(&lease).unwrap();
    lease["epoch"].as_u64().unwrap()
}

/// The epoch that an object was stored under.
fn epoch_of(scene: &Scene, key: &str) -> u64 {
    let header = Header::decode(&fs::read(scene.bucket.file(key)).unwrap()).unwrap();
    let stream = StreamId::from_node_id(header.node).unwrap();
    u64::from(stream.epoch.get())
}

/// A stream of some commits, which its watcher no longer follows: killed, or stopped in peace.
fn published(test: &str, server: &Server, kill: bool) -> (Scene, Writer) {
    let scene = Scene::on(test, "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(1));
    writer.steps(10);
    let mut first = watch(&scene);
    first.wait_stored(&scene, PATIENCE);
    writer.steps(10);
    first.wait_stored(&scene, PATIENCE);
    if kill {
        first.process.kill();
    } else {
        first.drain();
    }
    (scene, writer)
}

/// Commits while the application empties its log in every way that SQLite knows.
fn write_and_checkpoint(scene: &Scene, writer: &mut Writer) -> u64 {
    let before = scene.oracle().commits().len();
    for kind in ["TRUNCATE", "RESTART", "FULL", "PASSIVE", "TRUNCATE"] {
        writer.steps(8);
        checkpoint(&writer.connection, kind).unwrap();
        // A commit of its own to the watcher, too.
        thread::sleep(Duration::from_millis(150));
    }
    (scene.oracle().commits().len() - before) as u64
}

#[test]
fn u7_k12_commits_before_the_store_answers_are_followed() {
    for kill in [true, false] {
        let server = Server::start();
        let (scene, mut writer) = published("offline", &server, kill);
        let (known, snapshots) = (
            points(&scene.bucket, scene.name()),
            objects(&scene, "/0009/"),
        );
        server.outage(true);
        let mut second = watch(&scene);
        second.wait_attached(&scene);
        let made = write_and_checkpoint(&scene, &mut writer);
        until("something in the spool", PATIENCE, || {
            writer.row();
            thread::sleep(Duration::from_millis(100));
            (spooled(&scene) > 0).then_some(())
        });
        writer.steps(5);
        assert!(second.process.poll().is_none());
        server.outage(false);
        second.wait_stored(&scene, PATIENCE);
        second.drain();
        assert_no_rebase(&scene);
        assert_every_point(&scene);
        assert_eq!(
            snapshots,
            objects(&scene, "/0009/"),
            "nothing is stored twice"
        );
        let now = points(&scene.bucket, scene.name());
        for point in &known {
            assert!(now.contains(point), "{point:?} is gone: {now:?}");
        }
        assert!(
            now.len() > known.len() + 3,
            "{made} commits became {} points",
            now.len() - known.len()
        );
    }
}

#[test]
fn u7_killed_again_before_the_store_answers() {
    for seed in seeds(1) {
        announce("offline_start", seed);
        let mut rng = Rng::with_seed(seed);
        let server = Server::start();
        let (scene, mut writer) = published("offline-kills", &server, true);
        server.outage(true);
        for _ in 0..rounds(4) {
            let mut again = watch(&scene);
            again.wait_attached(&scene);
            let until = Instant::now() + Duration::from_millis(rng.u64(500..5000));
            while Instant::now() < until {
                writer.row();
                thread::sleep(Duration::from_millis(rng.u64(1..80)));
            }
            again.process.kill();
            if rng.bool() {
                writer.row();
            }
        }
        let last = watch(&scene);
        last.wait_attached(&scene);
        server.outage(false);
        last.wait_stored(&scene, PATIENCE);
        last.drain();
        // The log stood all the time: everything is proven.
        assert_no_rebase(&scene);
        assert_every_point(&scene);
        assert_eq!(objects(&scene, "/0009/").len(), 1);
    }
}

#[test]
fn u9_stored_before_the_kill_and_captured_again_before_the_store_answers() {
    let server = Server::start();
    let scene = Scene::on("unnoted", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(2));
    writer.steps(10);
    let mut first = watch(&scene);
    first.wait_stored(&scene, PATIENCE);
    for round in 0..3 {
        // The store has the next object, and nobody hears of it.
        server.rule(
            |call| match call.method == "PUT" && call.path.contains("/0000/") {
                true => Action::DropAfter,
                false => Action::Pass,
            },
        );
        let before = objects(&scene, "/0000/").len();
        writer.steps(3);
        until("an object", PATIENCE, || {
            (objects(&scene, "/0000/").len() > before).then_some(())
        });
        first.process.kill();
        server.no_rule();
        let known = points(&scene.bucket, scene.name());
        if round > 0 {
            // Not only what was stored already.
            writer.steps(2);
        }
        server.outage(true);
        first = watch(&scene);
        first.wait_attached(&scene);
        until("something in the spool", PATIENCE, || {
            thread::sleep(Duration::from_millis(50));
            (spooled(&scene) > 0).then_some(())
        });
        if round > 1 {
            write_and_checkpoint(&scene, &mut writer);
        }
        server.outage(false);
        first.wait_stored(&scene, PATIENCE);
        let now = points(&scene.bucket, scene.name());
        for point in &known {
            assert!(now.contains(point), "{point:?} is gone: {now:?}");
        }
    }
    first.drain();
    assert_no_rebase(&scene);
    assert_every_point(&scene);
    assert_eq!(objects(&scene, "/0009/").len(), 1);
}

#[test]
fn u7_under_load_the_log_stays_short_while_the_store_is_away_at_start() {
    let server = Server::start();
    let scene = Scene::on("offline-load", "a.db", server.bucket("backups"));
    let spec = Spec {
        rate: Some(100.0),
        upheaval: true,
        page_limit: 1500,
        ..scene.spec(3)
    };
    let mut app = App::ready(&spec);
    app.wait_commits(20);
    let mut first = watch(&scene);
    until("a snapshot", PATIENCE, || {
        (!objects(&scene, "/0009/").is_empty()).then_some(())
    });
    first.process.kill();
    server.outage(true);
    let mut second = watch(&scene);
    second.wait_attached(&scene);
    let (begun, mut longest) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(10) {
        let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
        longest = longest.max(size(&scene.beside("-wal")));
        thread::sleep(Duration::from_millis(20));
    }
    eprintln!("offline_start: WAL at most {longest} bytes");
    assert!(longest < 32 << 20, "the WAL grew to {longest} bytes");
    assert!(second.process.poll().is_none());
    server.outage(false);
    app.stop();
    second.wait_stored(&scene, PATIENCE * 2);
    second.drain();
    assert_every_point(&scene);
}

#[test]
fn k8_the_spool_runs_full_before_the_store_has_ever_answered() {
    let server = Server::start();
    let (scene, mut writer) = published("offline-full", &server, true);
    server.outage(true);
    let flags = [FLAGS[0], FLAGS[1], "--spool-limit", "8MiB"];
    let mut second = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    second.wait_attached(&scene);
    for _ in 0..30 {
        writer.commit("INSERT INTO blobs(data) VALUES (randomblob(1000000))");
        thread::sleep(Duration::from_millis(100));
    }
    second
        .process
        .wait_for(PATIENCE, |line| line.contains("spool_limit"));
    assert!(second.process.poll().is_none());
    server.outage(false);
    writer.row();
    second.wait_stored(&scene, PATIENCE * 2);
    second.drain();
    assert_every_point(&scene);
}

#[test]
fn u16_stopped_before_the_store_answered_keeps_the_tail_and_says_so() {
    let server = Server::start();
    let (scene, mut writer) = published("offline-stop", &server, false);
    server.outage(true);
    let mut second = watch(&scene);
    second.wait_attached(&scene);
    writer.steps(10);
    second.process.signal(Signal::TERM);
    let output = second.process.output(Duration::from_secs(35));
    assert_eq!(output.code(), 1, "{}", output.stderr);
    assert!(output.stderr.contains("a.db"), "{}", output.stderr);
    assert!(spooled(&scene) > 0);
    // The log may begin anew now: what was captured is in the spool.
    writer.steps(1);
    let known = objects(&scene, "/0000/");
    let before = lease_epoch(&scene);
    server.outage(false);
    let third = watch(&scene);
    third.wait_stored(&scene, PATIENCE);
    third.drain();
    // U10: under the epoch of the run that stored it, for the one that captured it had none.
    assert!(lease_epoch(&scene) > before);
    for key in objects(&scene, "/0000/") {
        if !known.contains(&key) {
            assert_eq!(epoch_of(&scene, &key), lease_epoch(&scene), "{key}");
        }
    }
    assert_no_rebase(&scene);
    assert_every_point(&scene);
}

#[test]
fn u17_without_a_state_the_database_is_left_alone_until_the_store_answers() {
    let server = Server::start();
    let scene = Scene::on("offline-new", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(4));
    writer.steps(10);
    server.outage(true);
    let mut first = watch(&scene);
    thread::sleep(Duration::from_secs(4));
    for _ in 0..3 {
        writer.steps(5);
        // Nobody holds a read mark: the log is emptied.
        checkpoint(&writer.connection, "TRUNCATE").unwrap();
        let length = fs::metadata(scene.beside("-wal")).unwrap().len();
        assert_eq!(length, 0);
    }
    assert!(first.process.poll().is_none());
    server.outage(false);
    first.wait_stored(&scene, PATIENCE);
    writer.steps(5);
    first.drain();
    assert_every_point(&scene);
}

#[test]
fn u20_another_writer_went_on_before_the_store_answered() {
    let server = Server::start();
    let (scene, mut writer) = published("offline-other", &server, false);
    // Elsewhere the stream goes on.
    let elsewhere = scene.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let (database, log) = (elsewhere.join("a.db"), elsewhere.join("log"));
    let mut restore = walrust(&scene.bucket, "restore");
    restore
        .arg("a.db")
        .arg("--output")
        .arg(&database)
        .arg("--resume");
    Process::run(&mut restore, PATIENCE).expect_success();
    let mut other_writer = scene.writer(Spec::new(&database, &log, 5));
    other_writer.steps(5);
    let other = Watch::ready(&scene.bucket, &[&database], &FLAGS);
    other.wait_log_stored(&scene, &log, PATIENCE);
    other.drain();

    server.outage(true);
    let second = watch(&scene);
    second.wait_attached(&scene);
    until("something in the spool", PATIENCE, || {
        writer.row();
        thread::sleep(Duration::from_millis(100));
        (spooled(&scene) > 0).then_some(())
    });
    let before = scene.bucket.ltx_keys();
    server.outage(false);
    let refused = second.process.output(PATIENCE * 2).expect_failure();
    assert!(refused.stderr.contains("--adopt"), "{}", refused.stderr);
    assert_eq!(before, scene.bucket.ltx_keys());
    assert_newest(
        &scene.bucket,
        scene.name(),
        scene.path(),
        &Oracle::open(&log),
    );
}

#[test]
fn u18_commits_lost_to_a_power_cut_and_others_made_before_the_store_answers() {
    let server = Server::start();
    let scene = Scene::on("offline-cut", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(Spec {
        autocheckpoint: 0,
        ..scene.spec(6)
    });
    writer.steps(20);
    let mut first = watch(&scene);
    first.wait_stored(&scene, PATIENCE);
    writer.steps(5);
    first.wait_stored(&scene, PATIENCE);
    // What the disk holds if nothing written from here on reaches it, the state directory included.
    let kept = scene.path().join("kept");
    let copy = |from: &Path, to: &Path| {
        let mut copy = std::process::Command::new("cp");
        assert!(copy.arg("-a").arg(from).arg(to).status().unwrap().success());
    };
    first.process.signal(Signal::STOP);
    copy(&scene.path().join("data"), &kept);
    first.process.signal(Signal::CONT);
    writer.steps(10);
    first.wait_stored(&scene, PATIENCE);
    let advertised = points(&scene.bucket, scene.name());
    first.process.kill();
    drop(writer);
    for suffix in ["", "-wal"] {
        let bytes = fs::read(kept.join(format!("a.db{suffix}"))).unwrap();
        fs::write(scene.beside(suffix), bytes).unwrap();
    }
    let _ = fs::remove_file(scene.beside("-shm"));
    for file in ["redo.0", "redo.1", "saved", "pages"] {
        let (from, to) = (
            kept.join(".a.db-walrust").join(file),
            scene.state().join(file),
        );
        fs::write(to, fs::read(from).unwrap()).unwrap();
    }

    server.outage(true);
    let second = watch(&scene);
    second.wait_attached(&scene);
    // The same numbers, other commits.
    let mut writer = scene.writer(scene.spec(7));
    until("something in the spool", PATIENCE, || {
        writer.row();
        thread::sleep(Duration::from_millis(50));
        (spooled(&scene) > 3).then_some(())
    });
    server.outage(false);
    writer.row();
    second.wait_stored(&scene, PATIENCE);
    second.drain();
    assert_every_point(&scene);
    let now = points(&scene.bucket, scene.name());
    for point in &advertised {
        assert!(now.contains(point), "{point:?} is gone: {now:?}");
    }
}

#[test]
fn a_restored_database_is_followed_before_the_store_answers() {
    let server = Server::start();
    let (scene, writer) = published("offline-restored", &server, false);
    drop(writer);
    let (database, log) = (scene.path().join("new.db"), scene.path().join("new-log"));
    let mut restore = walrust(&scene.bucket, "restore");
    restore
        .arg("a.db")
        .arg("--output")
        .arg(&database)
        .arg("--resume");
    Process::run(&mut restore, PATIENCE).expect_success();
    fs::create_dir(scene.path().join("pod")).unwrap();
    let home = scene.path().join("pod/a.db");
    fs::rename(&database, &home).unwrap();
    fs::rename(
        scene.path().join(".new.db-walrust"),
        scene.path().join("pod/.a.db-walrust"),
    )
    .unwrap();
    server.outage(true);
    let mut second = Watch::ready(&scene.bucket, &[&home], &FLAGS);
    let shm = scene.path().join("pod/a.db-shm");
    until("a read mark of the watcher", PATIENCE, || {
        holds_read_mark(second.process.id(), &shm).then_some(())
    });
    let mut writer = scene.writer(Spec::new(&home, &log, 8));
    let spool = scene.path().join("pod/.a.db-walrust/spool");
    until("something in the spool", PATIENCE, || {
        writer.row();
        thread::sleep(Duration::from_millis(100));
        let files = fs::read_dir(&spool).map_or(0, Iterator::count);
        (files > 2).then_some(())
    });
    // Once more: the restored head is still what counts.
    second.process.kill();
    let second = Watch::ready(&scene.bucket, &[&home], &FLAGS);
    writer.row();
    thread::sleep(Duration::from_secs(3));
    server.outage(false);
    second.wait_log_stored(&scene, &log, PATIENCE);
    second.drain();
    assert!(files_of_kind(&scene.bucket, "a.db", "rebase").is_empty());
    assert!(files_of_kind(&scene.bucket, "a.db", "base").is_empty());
    assert_newest(&scene.bucket, "a.db", scene.path(), &Oracle::open(&log));
}

#[test]
fn r6_what_waits_of_another_lineage_under_equal_numbers_is_never_taken() {
    // In the place of what waits here, or where nothing waits.
    for own_waits in [true, false] {
        let server = Server::start();
        let [mut ours, mut theirs] = ["ours", "theirs"].map(|bucket| {
            let scene = Scene::on("lineages", "a.db", server.bucket(bucket));
            let mut writer = scene.writer(scene.spec(9));
            writer.row();
            let first = watch(&scene);
            first.wait_stored(&scene, PATIENCE);
            writer.row();
            first.wait_stored(&scene, PATIENCE);
            first.drain();
            (scene, writer)
        });
        let head = |scene: &Scene| points(&scene.bucket, scene.name()).pop().unwrap().txid;
        assert_eq!(head(&ours.0), head(&theirs.0));
        server.outage(true);
        let wait = |(scene, writer): &mut (Scene, Writer)| {
            let mut run = watch(scene);
            run.wait_attached(scene);
            writer.commit("UPDATE items SET b = randomblob(500)");
            run.process.signal(Signal::TERM);
            run.process.output(Duration::from_secs(35)).expect_failure();
            assert_eq!(spooled(scene), 1);
        };
        wait(&mut theirs);
        if own_waits {
            wait(&mut ours);
        }
        server.outage(false);
        let (scene, writer) = &mut ours;
        let spool = scene.state().join("spool");
        for file in fs::read_dir(theirs.0.state().join("spool")).unwrap() {
            let file = file.unwrap();
            assert_eq!(spool.join(file.file_name()).exists(), own_waits);
            fs::copy(file.path(), spool.join(file.file_name())).unwrap();
        }
        writer.row();
        let run = watch(scene);
        run.wait_stored(scene, PATIENCE);
        run.drain();
        assert_every_point(scene);
    }
}
