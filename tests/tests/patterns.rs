//! Databases that a pattern means: they come and go while one process watches, and each is whole.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use walrust_tests::oracle::Oracle;
use walrust_tests::process::{Process, Signal};
use walrust_tests::program::{Watch, assert_newest, wait_stored, walrust};
use walrust_tests::scene::{Scene, Writer};
use walrust_tests::served::Served;
use walrust_tests::support::{PATIENCE, until};
use walrust_tests::workload::Spec;

/// Scans are 5 seconds apart.
const SCANS: Duration = Duration::from_secs(12);

/// An application with a database of its own beside that of the scene.
fn another(scene: &Scene, name: &str, seed: u64) -> (Writer, PathBuf) {
    let log = scene.path().join(format!("log-{name}"));
    let database = scene.path().join("data").join(name);
    (scene.writer(Spec::new(&database, &log, seed)), log)
}

/// Watches every `*.db` of the scene's folder.
fn watching(scene: &Scene) -> (Watch, Served) {
    let mut command = walrust(&scene.bucket, "watch");
    command.args(["--metrics-port", "0", "--sync-interval", "100ms", "-v"]);
    command.arg(scene.path().join("data/*.db"));
    let mut process = Process::spawn(&mut command);
    let served = Served::by(&mut process, "metrics");
    (Watch { process }, served)
}

/// `walrust_durable_txid` of a database; nothing while it is not watched.
fn durable(served: &Served, name: &str) -> Option<f64> {
    let series = format!("walrust_durable_txid{{database=\"{name}\"}}");
    served.metrics().get(&series).copied()
}

#[test]
fn databases_come_and_go_under_a_pattern_and_the_others_are_not_touched() {
    let scene = Scene::new("patterns", "a.db");
    let mut first = scene.writer(scene.spec(1));
    first.steps(10);
    let (mut watch, served) = watching(&scene);
    watch.wait_stored(&scene, PATIENCE);
    // One more comes: first an empty file, as SQLite makes it, then a database.
    let empty = scene.path().join("data/b.db");
    fs::write(&empty, "").unwrap();
    until("the new file is known", SCANS, || durable(&served, "b.db"));
    let (mut second, second_log) = another(&scene, "b.db", 2);
    second.steps(10);
    until("the new database is stored", PATIENCE, || {
        durable(&served, "b.db").filter(|txid| *txid > 0.0)
    });
    first.row();
    second.row();
    watch.wait_stored(&scene, PATIENCE);
    // It goes again.
    watch_until_stored(&watch, &scene, "b.db", &second_log);
    drop(second);
    for suffix in ["", "-wal", "-shm"] {
        // Closing the last connection may have removed the log.
        let _ = fs::remove_file(scene.path().join(format!("data/b.db{suffix}")));
    }
    until("the file that went is let go", SCANS * 2, || {
        durable(&served, "b.db").is_none().then_some(())
    });
    assert!(!watch.process.ended());
    assert!(served.unready().is_empty());
    // The first one was never touched.
    first.row();
    watch.wait_stored(&scene, PATIENCE);
    watch.process.signal(Signal::TERM);
    let output = watch
        .process
        .output(Duration::from_secs(30))
        .expect_success();
    let touched = output.stdout.lines().chain(output.stderr.lines());
    let begun = touched.filter(|line| line.contains("a.db") && line.contains("rebase"));
    assert_eq!(begun.count(), 0, "{}", output.stdout);
    assert_newest(&scene.bucket, "a.db", scene.path(), &scene.oracle());
    assert_newest(
        &scene.bucket,
        "b.db",
        scene.path(),
        &Oracle::open(&second_log),
    );
}

fn watch_until_stored(watch: &Watch, scene: &Scene, name: &str, log: &Path) {
    wait_stored(&scene.bucket, name, log, PATIENCE, || {
        assert!(!watch.process.ended(), "{}", watch.process.printed());
    });
}

#[test]
fn a_hundred_databases_in_one_process_are_each_whole_at_the_stop() {
    const COUNT: usize = 100;
    let scene = Scene::new("hundred", "000.db");
    let name = |at: usize| format!("{at:03}.db");
    let mut writers: Vec<(Writer, PathBuf)> = (0..COUNT)
        .map(|at| another(&scene, &name(at), at as u64))
        .collect();
    let (mut watch, served) = watching(&scene);
    until("all have a base", PATIENCE * 3, || {
        let metrics = served.metrics();
        let based = |at: usize| {
            let series = format!("walrust_durable_txid{{database=\"{}\"}}", name(at));
            metrics.get(&series).is_some_and(|txid| *txid > 0.0)
        };
        (0..COUNT).all(based).then_some(())
    });
    assert_eq!(served.metric("walrust_databases_total"), COUNT as f64);
    for _ in 0..3 {
        for (writer, _) in &mut writers {
            writer.row();
        }
    }
    // The newest commits are stored on the way out.
    let began = Instant::now();
    watch.process.signal(Signal::TERM);
    watch
        .process
        .output(Duration::from_secs(30))
        .expect_success();
    eprintln!("{COUNT} databases drained in {:?}", began.elapsed());
    for at in (0..COUNT).step_by(9) {
        let oracle = Oracle::open(&writers[at].1);
        assert_newest(&scene.bucket, &name(at), scene.path(), &oracle);
    }
}
