//! Memory is bounded by configuration, not by the size of a database, of a transaction, or of a backlog.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::env;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rusqlite::Connection;
use walrust_tests::process::Process;
use walrust_tests::program::{Watch, restore, walrust};
use walrust_tests::record::Recorder;
use walrust_tests::scene::Scene;
use walrust_tests::support::{PATIENCE, until};

/// What `watch`, `snapshot`, `restore`, `verify` and `drill` may have resident: 64 MiB, and what the code of a build without
/// optimisation takes more than a released one (it is mapped, and counts).
const LIMIT: u64 = if cfg!(debug_assertions) {
    84 << 20
} else {
    64 << 20
};

/// Runs a command to its end and gives its peak memory.
fn peak(command: &mut Command) -> u64 {
    let mut process = Process::spawn(command);
    let mut peak = 0;
    while process.poll().is_none() {
        peak = peak.max(process.peak_memory().unwrap_or(0));
        thread::sleep(Duration::from_millis(1));
    }
    process.output(PATIENCE).expect_success();
    peak
}

#[test]
fn s7_memory_does_not_follow_the_size_of_the_database() {
    let megabytes: u64 =
        env::var("WALRUST_TEST_MEMORY_MB").map_or(120, |text| text.parse().unwrap());
    for page_size in [512, 4096] {
        let scene = Scene::new("memory", "a.db");
        let connection = Connection::open(scene.database()).unwrap();
        connection
            .execute_batch(&format!(
                "PRAGMA page_size = {page_size}; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
                 CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB); BEGIN;"
            ))
            .unwrap();
        for _ in 0..megabytes {
            connection
                .execute_batch("INSERT INTO t(data) VALUES (randomblob(1000000))")
                .unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
        connection
            .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
            .unwrap();

        let mut once = walrust(&scene.bucket, "watch");
        once.args(["--no-metrics", "--once"]).arg(scene.database());
        let first = peak(&mut once);
        let mut snapshot = walrust(&scene.bucket, "snapshot");
        connection
            .execute_batch("INSERT INTO t(data) VALUES (randomblob(1000))")
            .unwrap();
        let second = peak(snapshot.arg(scene.database()));

        // A transaction of the size of the database, under watch.
        let watch = Watch::ready(
            &scene.bucket,
            &[&scene.database()],
            &["--sync-interval", "100ms"],
        );
        connection
            .execute_batch("DELETE FROM t WHERE id % 5 = 0; VACUUM")
            .unwrap();
        let mut recorder = Recorder::open(&scene.log());
        recorder.observe(&connection).unwrap();
        let digest = scene.oracle().last().digest.clone();
        let mut third = 0;
        until("the VACUUM is stored", PATIENCE * 3, || {
            third = third.max(watch.process.peak_memory().unwrap());
            let listed = walrust_tests::program::list(&scene.bucket, scene.name());
            let mut files = listed["files"].as_array().unwrap().iter();
            files
                .any(|file| file["digest"] == digest.as_str())
                .then_some(())
        });
        watch.drain();

        let output = scene.path().join("restored.db");
        let mut command = walrust(&scene.bucket, "restore");
        let fourth = peak(command.arg(scene.name()).arg("--output").arg(&output));
        scene
            .oracle()
            .check_file(&output, scene.oracle().last().seq)
            .unwrap();
        let fifth = peak(walrust(&scene.bucket, "verify").arg(scene.name()));
        let mut drill = walrust(&scene.bucket, "drill");
        drill.arg(scene.name()).arg("--scratch").arg(scene.path());
        let sixth = peak(&mut drill);
        eprintln!(
            "memory: page size {page_size}: watch {first}, snapshot {second}, VACUUM {third}, restore {fourth}, \
             verify {fifth}, drill {sixth}"
        );
        for (what, peak) in [
            ("watch", first),
            ("snapshot", second),
            ("VACUUM", third),
            ("restore", fourth),
            ("verify", fifth),
            ("drill", sixth),
        ] {
            assert!(peak <= LIMIT, "{what} had {peak} bytes resident");
        }
        std::fs::remove_file(&output).unwrap();
        restore(&scene.bucket, scene.name(), &output, None).expect_success();
    }
}
