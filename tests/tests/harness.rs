//! The harness itself: an oracle that is wrong would let anything pass.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::process::Command;
use std::time::Duration;

use rusqlite::Connection;
use walrust_tests::litestream;
use walrust_tests::oracle::Oracle;
use walrust_tests::process::{Process, Signal};
use walrust_tests::program::App;
use walrust_tests::record::{Recorder, each_page, now};
use walrust_tests::scene::Scene;
use walrust_tests::server::{Action, Server};
use walrust_tests::shim::{Mode, Shim};
use walrust_tests::support::{
    PATIENCE, announce, assert_sound, plain_request, scratch, seeds, until,
};
use walrust_tests::weed::Weed;
use walrust_tests::workload::{Spec, Workload, checkpoint, create};

/// The bytes that SQLite itself leaves in the file once everything is copied back are the log's last image.
fn assert_file_is_last_commit(spec: &Spec) {
    let connection = Connection::open(&spec.database).unwrap();
    assert_eq!(checkpoint(&connection, "TRUNCATE").unwrap().0, 0);
    let oracle = Oracle::open(&spec.log);
    let found = oracle.find(&spec.database).unwrap();
    assert!(
        found.contains(&oracle.last().seq),
        "{found:?}, not {}",
        oracle.last().seq
    );
    drop(connection);
    assert_sound(&spec.database);
}

#[test]
fn the_log_of_three_random_processes_ends_in_the_file() {
    for seed in seeds(6) {
        announce("harness", seed);
        let folder = scratch("harness");
        let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
        let first = Spec {
            commits: Some(60),
            ..Spec::random(&database, &log, seed)
        };
        let apps: Vec<App> = (0..3)
            .map(|number| {
                let spec = Spec {
                    seed: seed * 100 + number,
                    ..first.clone()
                };
                if number == 0 {
                    App::ready(&spec)
                } else {
                    App::start(&spec)
                }
            })
            .collect();
        apps.into_iter().for_each(App::finish);
        let oracle = Oracle::open(&log);
        assert!(
            oracle.commits().len() > 100,
            "{} commits",
            oracle.commits().len()
        );
        assert!(
            oracle
                .commits()
                .iter()
                .all(|commit| commit.before <= commit.after && !commit.found)
        );
        assert_file_is_last_commit(&first);
    }
}

#[test]
fn the_oracle_knows_each_commit_and_no_other_bytes() {
    let folder = scratch("oracle");
    let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
    let spec = Spec {
        upheaval: true,
        ..Spec::new(&database, &log, 3)
    };
    let mut recorder = Recorder::open(&log);
    let mut connection = create(&spec, &mut recorder).unwrap();
    let mut workload = Workload::new(spec);
    let mut images = Vec::new();
    for _ in 0..40 {
        workload.step(&mut connection, &mut recorder).unwrap();
        let mut image = Vec::new();
        each_page(&connection, |_, page| image.extend_from_slice(page)).unwrap();
        images.push((recorder.last().unwrap(), image));
    }
    let oracle = Oracle::open(&log);
    for (seq, image) in &images {
        assert!(oracle.find_bytes(image).unwrap().contains(seq));
        assert_eq!(&oracle.image(*seq), image);
    }
    let (_, mut image) = images.pop().unwrap();
    image[5000] ^= 1;
    let error = oracle.find_bytes(&image).unwrap_err().to_string();
    assert!(error.contains("1 pages differ: [2]"), "{error}");
    // Two pages exchanged: same bytes, other order.
    image[5000] ^= 1;
    let (one, two) = image[4096..].split_at_mut(4096);
    one.swap_with_slice(&mut two[..4096]);
    assert!(oracle.find_bytes(&image).is_err());
}

#[test]
fn a_killed_writer_leaves_its_commit_to_the_next() {
    let folder = scratch("killed");
    let (database, log) = (folder.path().join("a.db"), folder.path().join("log"));
    let shim = Shim::build(folder.path());
    let spec = Spec {
        synchronous: "FULL".to_owned(),
        ..Spec::new(&database, &log, 5)
    };
    let bystander = {
        let mut recorder = Recorder::open(&log);
        create(&spec, &mut recorder).unwrap()
    };
    for mode in [Mode::DieBefore, Mode::DieAfter] {
        let mut app = App::start_with(&spec, |command| shim.apply(command, mode));
        let count = Oracle::open(&log).commits().len() as u64;
        app.wait_commits(count + 20);
        shim.arm();
        assert_eq!(app.process.wait(Duration::from_secs(20)).code(), Some(137));
        let next = App::start(&Spec {
            commits: Some(5),
            seed: 6,
            ..spec.clone()
        });
        next.finish();
    }
    // While somebody has the database open, a commit whose fsync did not return never happened.
    assert!(
        Oracle::open(&log)
            .commits()
            .iter()
            .all(|commit| !commit.found)
    );
    drop(bystander);
    assert_file_is_last_commit(&spec);

    // With nobody there, SQLite's recovery finds the frames in the file: the commit happened after all.
    let mut app = App::start_with(&spec, |command| shim.apply(command, Mode::DieAfter));
    app.wait_commits(Oracle::open(&log).commits().len() as u64 + 20);
    shim.arm();
    app.process.wait(Duration::from_secs(20));
    App::start(&Spec {
        commits: Some(5),
        seed: 7,
        ..spec.clone()
    })
    .finish();
    assert_eq!(
        Oracle::open(&log)
            .commits()
            .iter()
            .filter(|commit| commit.found)
            .count(),
        1
    );
    assert_file_is_last_commit(&spec);
}

#[test]
fn the_server_logs_fails_and_breaks_on_demand() {
    let server = Server::start();
    let bucket = server.bucket("one");
    assert!(bucket.keys().is_empty());
    let ask = |path: &str| plain_request(server.endpoint(), "GET", path);
    assert!(
        ask("/one/key").unwrap().starts_with("HTTP/1.1 403"),
        "unsigned requests are refused"
    );
    server.rule(|call| {
        if call.number == 2 {
            Action::Fail(503)
        } else {
            Action::Pass
        }
    });
    assert!(ask("/one/key").unwrap().starts_with("HTTP/1.1 503"));
    server.rule(|_| Action::Drop);
    assert_eq!(ask("/one/key").unwrap_or_default(), "");
    server.no_rule();
    server.outage(true);
    assert_eq!(ask("/one/key").unwrap_or_default(), "");
    server.outage(false);
    assert!(ask("/one/key").unwrap().starts_with("HTTP/1.1 403"));
    let statuses: Vec<u16> = server.calls().iter().map(|call| call.status).collect();
    assert_eq!(statuses, [403, 503, 0, 403]);
}

#[test]
fn seaweedfs_starts_and_has_a_bucket() {
    let weed = Weed::start();
    let bucket = weed.bucket("one");
    assert_eq!(bucket.url(), "s3://one");
    let answer = plain_request(weed.endpoint(), "GET", "/one/key").unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 403"),
        "unsigned requests are refused: {answer}"
    );
}

#[test]
fn litestream_restores_what_it_replicated() {
    let server = Server::start();
    for (number, bucket) in [Some(server.bucket("theirs").below("prefix")), None]
        .into_iter()
        .enumerate()
    {
        let scene = match bucket {
            Some(bucket) => Scene::on("litestream", "a.db", bucket),
            None => Scene::new("litestream", "a.db"),
        };
        let mut writer = scene.writer(scene.spec(number as u64));
        writer.steps(20);
        let mut process =
            litestream::replicate(scene.path(), &scene.database(), &scene.bucket, "a.db");
        until("its first file", PATIENCE, || {
            (!scene.bucket.ltx_keys().is_empty()).then_some(())
        });
        writer.steps(20);
        process.signal(Signal::TERM);
        process.wait(PATIENCE);
        writer.recorder.observe(&writer.connection).unwrap();
        let output = scene.path().join("restored.db");
        litestream::restore(scene.path(), &scene.bucket, "a.db", &output).expect_success();
        scene
            .oracle()
            .check_file(&output, scene.oracle().last().seq)
            .unwrap();
    }
}

#[test]
fn the_shim_moves_the_clock() {
    let folder = scratch("clock");
    let shim = Shim::build(folder.path());
    for seconds in [-4000, 500] {
        shim.move_clock(seconds);
        let mut command = Command::new("date");
        command.arg("+%s");
        shim.apply_clock(&mut command);
        let shown: i64 = Process::run(&mut command, PATIENCE)
            .stdout
            .trim()
            .parse()
            .unwrap();
        assert!((shown - now() / 1000 - seconds).abs() < 5, "{shown}");
    }
}
