//! Random workloads: what is restored is, page by page, what SQLite had, at every advertised point and at random times.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::time::Duration;

use fastrand::Rng;
use walrust_tests::oracle::Oracle;
use walrust_tests::process::Process;
use walrust_tests::program::{
    App, Point, Watch, assert_every_point, assert_newest, assert_no_rebase, files_of_kind, points,
    restored_commits, walrust,
};
use walrust_tests::record::now;
use walrust_tests::scene::Scene;
use walrust_tests::server::Server;
use walrust_tests::support::{PATIENCE, announce, rounds, seeds};
use walrust_tests::workload::{Spec, checkpoint};

/// Longest time from a commit to the moment the watcher has seen it, on a loaded machine.
const SEEN_WITHIN: i64 = 5_000;

#[test]
fn p2_s1_every_point_and_random_times_are_exact() {
    for seed in seeds(8) {
        announce("exactness", seed);
        let server = Server::start();
        let scene = if seed % 2 == 0 {
            Scene::on("exactness", "a.db", server.bucket("backups").below("prod"))
        } else {
            Scene::new("exactness", "a.db")
        };
        run(&scene, seed);
        check(&scene, seed);
    }
}

/// Several random applications beside a watcher that takes several snapshots.
fn run(scene: &Scene, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let first = Spec {
        rate: Some(60.0),
        ..scene.random(seed)
    };
    // Half of the databases are populated before the watcher comes.
    let before = if rng.bool() { rng.u64(20..200) } else { 0 };
    App::start(&Spec {
        commits: Some(before),
        rate: None,
        ..first.clone()
    })
    .finish();

    let interval = ["20ms", "100ms", "400ms"][rng.usize(0..3)];
    let flags = [
        "--sync-interval",
        interval,
        "--max-changes",
        "400",
        "--on-idle",
        "2",
    ];
    let mut watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    let processes = rng.u64(1..4);
    let apps: Vec<App> = (0..processes)
        .map(|number| {
            let own = scene.random(seed * 1000 + number);
            // Page size and auto-vacuum belong to the database, the rest to each process.
            let page_size = first.page_size;
            App::start(&Spec {
                commits: Some(200 / processes),
                rate: if rng.u8(0..3) == 0 { None } else { Some(80.0) },
                page_size,
                auto_vacuum: first.auto_vacuum,
                upheaval: first.upheaval,
                page_limit: first.page_limit,
                ..own
            })
        })
        .collect();
    for app in apps {
        app.finish();
    }
    assert!(
        watch.process.poll().is_none(),
        "{}",
        watch.process.printed()
    );
    watch.drain();
}

fn check(scene: &Scene, seed: u64) {
    let oracle = scene.oracle();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &oracle);
    let points = points(&scene.bucket, scene.name());
    eprintln!(
        "exactness: seed {seed}: {} commits, {} points",
        oracle.commits().len(),
        points.len()
    );
    assert!(points.len() > 1, "{points:?}");
    assert!(points.is_sorted_by_key(|point| point.txid), "{points:?}");

    // Ascending points are ascending commits.
    let mut reached = 0;
    for point in &points {
        let wanted = format!("txid:{}", point.txid);
        let (report, commits) = restored_commits(
            &scene.bucket,
            scene.name(),
            scene.path(),
            Some(&wanted),
            &oracle,
        );
        assert_eq!(report["txid"], point.txid);
        let next = commits.iter().find(|seq| **seq >= reached);
        reached =
            *next.unwrap_or_else(|| panic!("{point:?} is commits {commits:?}, before {reached}"));
        assert_eq!(
            report["digest"],
            oracle.commits()[reached as usize].digest.as_str()
        );
        let commit = &oracle.commits()[reached as usize];
        assert!(
            point.millis() >= commit.before,
            "{point:?} is earlier than {commit:?}"
        );
    }
    random_times(scene, seed, &oracle, &points);
}

fn random_times(scene: &Scene, seed: u64, oracle: &Oracle, points: &[Point]) {
    let mut rng = Rng::with_seed(seed ^ 77);
    let (first, last) = (points.first().unwrap().millis(), now());
    for _ in 0..rounds(25) {
        let time = rng.i64(first..=last);
        let text = jiff::Timestamp::from_millisecond(time).unwrap().to_string();
        let (report, commits) = restored_commits(
            &scene.bucket,
            scene.name(),
            scene.path(),
            Some(&text),
            oracle,
        );
        // The newest point at or before the time; of points with equal times the newest.
        let expected = points.iter().rfind(|point| point.millis() <= time).unwrap();
        assert_eq!(report["txid"], expected.txid, "at {text}: {report}");
        let possible = commits.iter().any(|seq| {
            let commit = &oracle.commits()[*seq as usize];
            let next = oracle.commits().get(*seq as usize + 1);
            commit.before <= time && next.is_none_or(|next| next.after + SEEN_WITHIN > time)
        });
        assert!(possible, "at {text}: commits {commits:?}");
    }
}

#[test]
fn w13_p6_each_commit_is_one_txid() {
    let scene = Scene::new("txids", "a.db");
    let mut writer = scene.writer(scene.spec(1));
    writer.row();
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "10ms"],
    );
    watch.wait_stored(&scene, PATIENCE);
    let base = points(&scene.bucket, scene.name()).last().unwrap().txid;
    let base_seq = writer.recorder.last().unwrap();
    for _ in 0..100 {
        writer.row();
    }
    watch.drain();
    let points = points(&scene.bucket, scene.name());
    assert_eq!(points.last().unwrap().txid, base + 100);
    let oracle = scene.oracle();
    for point in points.iter().filter(|point| point.txid >= base) {
        let wanted = point.txid.to_string();
        let (_, commits) = restored_commits(
            &scene.bucket,
            scene.name(),
            scene.path(),
            Some(&wanted),
            &oracle,
        );
        assert_eq!(commits, [base_seq + point.txid - base]);
    }
}

#[test]
fn k2_w5_truncate_loop_beside_tiny_writes_loses_nothing() {
    let scene = Scene::new("truncate", "a.db");
    let mut writer = scene.writer(scene.spec(2));
    writer.row();
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "20ms"],
    );
    let other = rusqlite::Connection::open(scene.database()).unwrap();
    let mut busy = 0;
    for round in 0..150 {
        writer.row();
        if round % 3 == 0 {
            let kind = ["TRUNCATE", "RESTART", "FULL"][round / 3 % 3];
            busy += checkpoint(&other, kind).unwrap().0;
        }
    }
    eprintln!("truncate: {busy} of 50 checkpoints were busy");
    watch.drain();
    assert_every_point(&scene);
    assert_no_rebase(&scene);
}

#[test]
fn w9_writers_that_open_and_close_for_each_statement() {
    let scene = Scene::new("reopen", "a.db");
    let spec = Spec {
        reopen: true,
        commits: Some(250),
        checkpoints: true,
        ..scene.spec(9)
    };
    App::start(&Spec {
        commits: Some(0),
        ..spec.clone()
    })
    .finish();
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    let apps: Vec<App> = (0..2)
        .map(|seed| {
            App::start(&Spec {
                seed: 90 + seed,
                ..spec.clone()
            })
        })
        .collect();
    apps.into_iter().for_each(App::finish);
    watch.drain();
    assert_every_point(&scene);
    assert_no_rebase(&scene);
}

#[test]
fn w11_e4_shrink_and_regrow_inside_one_batch() {
    // Everything between two objects: the file keeps only the newest version of each page.
    for (seed, auto_vacuum) in [(1, 0), (2, 1), (3, 2)] {
        let scene = Scene::new("shrink", "a.db");
        let spec = Spec {
            auto_vacuum,
            page_size: 1024,
            ..scene.spec(seed)
        };
        let mut writer = scene.writer(spec);
        let grow = "INSERT INTO blobs(data) SELECT randomblob(5000) FROM generate";
        let grow = &grow.replace(
            "FROM generate",
            "FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60) SELECT i FROM n)",
        );
        writer.commit(grow);
        let watch = Watch::ready(
            &scene.bucket,
            &[&scene.database()],
            &["--sync-interval", "1s"],
        );
        for _ in 0..6 {
            for _ in 0..4 {
                writer.commit("DELETE FROM blobs WHERE id % 3");
                writer.commit(if auto_vacuum == 2 {
                    "PRAGMA incremental_vacuum"
                } else {
                    "VACUUM"
                });
                writer.commit(grow);
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        watch.drain();
        assert_every_point(&scene);
    }
}

#[test]
fn s5_s9_snapshot_beside_a_watcher() {
    let scene = Scene::new("beside", "a.db");
    let mut writer = scene.writer(scene.spec(4));
    writer.steps(10);
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    watch.wait_stored(&scene, PATIENCE);
    for _ in 0..3 {
        writer.steps(5);
        let mut snapshot = walrust(&scene.bucket, "snapshot");
        let output = Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
        assert!(
            output.stdout.contains("Snapshot complete"),
            "{}",
            output.stdout
        );
    }
    writer.steps(5);
    watch.drain();
    assert!(files_of_kind(&scene.bucket, scene.name(), "snapshot").len() > 3);
    assert_no_rebase(&scene);
    assert_every_point(&scene);
}
