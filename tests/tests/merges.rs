//! Merged files: exact at their ends, and no point inside their range is lost or wrong.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use walrust_tests::bucket::Bucket;
use walrust_tests::process::Process;
use walrust_tests::program::{
    App, Watch, assert_every_point, assert_no_rebase, files_of_kind, list, points, restore,
    restored_commits, ship, walrust,
};
use walrust_tests::scene::{Scene, Writer};
use walrust_tests::server::{Action, Server};
use walrust_tests::shim::Shim;
use walrust_tests::support::{PATIENCE, until};
use walrust_tests::workload::Spec;

#[test]
fn p5_merged_files_restore_exactly() {
    let scene = Scene::new("merges", "a.db");
    let spec = Spec {
        rate: Some(15.0),
        upheaval: true,
        checkpoints: true,
        auto_vacuum: 2,
        ..scene.spec(1)
    };
    let mut app = App::ready(&spec);
    app.wait_commits(10);
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "200ms"],
    );
    // A merged file ends with a minute of the clock.
    let merged = || {
        scene
            .bucket
            .ltx_keys()
            .into_iter()
            .filter(|key| key.contains("/0001/"))
            .collect::<Vec<_>>()
    };
    until(
        "a merged file",
        PATIENCE * 2 + Duration::from_secs(20),
        || (!merged().is_empty()).then_some(()),
    );
    let count = scene.oracle().commits().len() as u64;
    app.wait_commits(count + 20);
    app.stop();
    watch.drain();
    assert!(!files_of_kind(&scene.bucket, scene.name(), "merged").is_empty());
    assert_every_point(&scene);

    // Without the incrementals that it replaces: its end is exact, the inside exact or refused.
    let key = merged().pop().unwrap();
    let range = key
        .rsplit('/')
        .next()
        .unwrap()
        .trim_end_matches(".ltx")
        .to_owned();
    let (min, max) = range.split_once('-').unwrap();
    let (min, max) = (
        u64::from_str_radix(min, 16).unwrap(),
        u64::from_str_radix(max, 16).unwrap(),
    );
    let copy = scene.bucket.copy_to(&scene.path().join("copy"));
    for key in copy.ltx_keys().iter().filter(|key| key.contains("/0000/")) {
        let name = key
            .rsplit('/')
            .next()
            .unwrap()
            .trim_end_matches(".ltx")
            .to_owned();
        let end = u64::from_str_radix(name.split_once('-').unwrap().1, 16).unwrap();
        if (min..=max).contains(&end) {
            fs::remove_file(copy.file(key)).unwrap();
        }
    }
    let oracle = scene.oracle();
    let (_, commits) = restored_commits(
        &copy,
        scene.name(),
        scene.path(),
        Some(&max.to_string()),
        &oracle,
    );
    assert!(!commits.is_empty());
    let inside: Vec<_> = points(&scene.bucket, scene.name())
        .into_iter()
        .filter(|point| (min..max).contains(&point.txid))
        .collect();
    for point in inside.iter().step_by(inside.len().div_ceil(10).max(1)) {
        let output = scene.path().join("inside.db");
        let outcome = restore(&copy, scene.name(), &output, Some(&point.txid.to_string()));
        if outcome.code() == 0 {
            oracle.find(&output).unwrap();
            fs::remove_file(&output).unwrap();
        } else {
            outcome.expect_failure();
            assert!(!output.exists());
        }
    }
}

/// A scene whose watcher sees the time that the test says.
struct Clockwork {
    scene: Scene,
    shim: Shim,
    writer: Writer,
    /// The start of minute 0, in seconds since 1970.
    origin: i64,
}

impl Clockwork {
    fn new(scene: Scene, seed: u64) -> Self {
        let shim = Shim::build(scene.path());
        let writer = scene.writer(scene.spec(seed));
        // An hour begins well before and ends well after minute 0, so that only what the test does crosses one.
        let origin = now() / 3600 * 3600 + 1200;
        let clockwork = Self {
            scene,
            shim,
            writer,
            origin,
        };
        clockwork.minute(0);
        clockwork
    }

    /// Five seconds past the start of a minute; real time goes on from there.
    fn minute(&self, number: i64) {
        self.shim.move_clock(self.origin + number * 60 + 5 - now());
    }

    fn start(&self) -> Watch {
        let mut command = walrust(&self.scene.bucket, "watch");
        command
            .args(["--no-metrics", "--sync-interval", "10ms"])
            .arg(self.scene.database());
        self.shim.apply_clock(&mut command);
        let mut watch = Watch {
            process: Process::spawn(&mut command),
        };
        watch
            .process
            .wait_for(PATIENCE, |line| line.starts_with("Watching "));
        watch
    }

    /// Commits, a file for each.
    fn files(&mut self, watch: &Watch, count: u32) {
        for _ in 0..count {
            self.writer.row();
            self.writer.steps(1);
            self.writer.row();
            watch.wait_stored(&self.scene, PATIENCE);
        }
    }

    /// Waits until a merged file of `level` ends with the newest incremental.
    fn wait_merged(&self, watch: &Watch, level: u8) {
        until("a merged file of everything", PATIENCE, || {
            assert_eq!(
                watch.process.printed().matches("panic").count(),
                0,
                "{}",
                watch.process.printed()
            );
            let end = |level| {
                ranges(&self.scene.bucket, level)
                    .last()
                    .map(|range| range.1)
            };
            (end(level).is_some() && end(level) == end(0)).then_some(())
        });
    }

    /// Checks that the merged files of `level` hold the whole chain, and that what they lead to is exact without
    /// the files that they replace.
    fn check(&self, level: u8) {
        let scene = &self.scene;
        assert_no_rebase(scene);
        let incrementals = ranges(&scene.bucket, 0);
        let merged = ranges(&scene.bucket, level);
        let first = incrementals[0].0;
        let reached = merged.iter().fold(first - 1, |reached, (min, max)| {
            assert!(*min <= reached + 1, "a hole behind {reached}: {merged:?}");
            reached.max(*max)
        });
        let ends: Vec<u64> = incrementals.iter().map(|range| range.1).collect();
        assert_eq!(Some(&reached), ends.last(), "{merged:?}");

        let copy = scene.bucket.copy_to(&scene.path().join("copy"));
        for key in copy.ltx_keys() {
            let folder = format!("/{level:04x}/");
            if !key.contains(&folder) && !key.contains("/0009/") {
                fs::remove_file(copy.file(&key)).unwrap();
            }
        }
        let oracle = scene.oracle();
        for (_, max) in merged {
            assert!(ends.contains(&max), "{max} ends no file");
            let point = Some(format!("txid:{max}"));
            let at = |bucket| {
                let point = point.as_deref();
                restored_commits(bucket, scene.name(), scene.path(), point, &oracle).1
            };
            assert_eq!(at(&copy), at(&scene.bucket), "at {max}");
        }
    }
}

fn now() -> i64 {
    walrust_tests::record::now() / 1000
}

/// The transactions of the files of a level, in order.
fn ranges(bucket: &Bucket, level: u8) -> Vec<(u64, u64)> {
    let folder = format!("/{level:04x}/");
    let keys = bucket.ltx_keys().into_iter();
    let mut ranges: Vec<_> = keys
        .filter(|key| key.contains(&folder))
        .map(|key| range_of(&key))
        .collect();
    ranges.sort_unstable();
    ranges
}

fn range_of(key: &str) -> (u64, u64) {
    let name = key.rsplit('/').next().unwrap().trim_end_matches(".ltx");
    let (min, max) = name.split_once('-').unwrap();
    let number = |text| u64::from_str_radix(text, 16).unwrap();
    (number(min), number(max))
}

#[test]
fn p5_periods_go_on_over_restarts_kills_and_hours() {
    let mut clockwork = Clockwork::new(Scene::new("periods", "a.db"), 3);
    let watch = clockwork.start();
    clockwork.files(&watch, 3);
    watch.drain();
    let mut watch = clockwork.start();
    clockwork.files(&watch, 2);
    watch.process.kill();
    // Once more, without waiting for anything; and while nobody watches.
    let mut watch = clockwork.start();
    clockwork.writer.row();
    watch.process.kill();
    clockwork.writer.row();
    let watch = clockwork.start();
    clockwork.files(&watch, 2);
    watch.drain();
    clockwork.minute(1);
    let watch = clockwork.start();
    clockwork.wait_merged(&watch, 1);
    assert_eq!(ranges(&clockwork.scene.bucket, 1).len(), 1);

    // The sets are damaged: the files tell.
    clockwork.files(&watch, 3);
    watch.drain();
    fs::write(clockwork.scene.state().join("changed"), "no sets").unwrap();
    let mut watch = clockwork.start();
    clockwork.files(&watch, 1);
    watch.process.kill();
    clockwork.minute(2);
    let watch = clockwork.start();
    clockwork.wait_merged(&watch, 1);
    clockwork.files(&watch, 2);
    watch.drain();
    clockwork.minute(63);
    let watch = clockwork.start();
    clockwork.wait_merged(&watch, 1);
    clockwork.wait_merged(&watch, 2);
    watch.drain();
    assert_every_point(&clockwork.scene);
    clockwork.check(1);
    clockwork.check(2);
    assert_eq!(ranges(&clockwork.scene.bucket, 2).len(), 1);
}

#[test]
fn p5_a_merge_that_failed_is_made_up_for() {
    let server = Server::start();
    let scene = Scene::on("failed-merge", "a.db", server.bucket("backups"));
    let mut clockwork = Clockwork::new(scene, 4);
    let failed = Arc::new(AtomicU32::new(0));
    let count = failed.clone();
    server.rule(move |call| {
        // The first is failed while the watcher goes on, the second just before it is killed.
        let merge = call.method == "PUT" && call.path.contains("/0001/");
        if merge && count.fetch_add(1, Ordering::SeqCst) < 2 {
            Action::Fail(403)
        } else {
            Action::Pass
        }
    });
    let mut watch = clockwork.start();
    clockwork.files(&watch, 3);
    clockwork.minute(1);
    clockwork.files(&watch, 1);
    let wait_failed = |count| {
        until("a merge that failed", PATIENCE, || {
            (failed.load(Ordering::SeqCst) >= count).then_some(())
        });
    };
    wait_failed(1);
    clockwork.minute(2);
    wait_failed(2);
    watch.process.kill();
    let watch = clockwork.start();
    clockwork.files(&watch, 2);
    clockwork.minute(3);
    watch.drain();
    let watch = clockwork.start();
    clockwork.wait_merged(&watch, 1);
    watch.drain();
    assert!(failed.load(Ordering::SeqCst) > 2);
    assert_every_point(&clockwork.scene);
    clockwork.check(1);
}

#[test]
fn p5_periods_go_on_over_starts_without_the_store() {
    let server = Server::start();
    let scene = Scene::on("offline-merge", "a.db", server.bucket("backups"));
    let mut clockwork = Clockwork::new(scene, 5);
    let mut watch = clockwork.start();
    clockwork.files(&watch, 3);
    watch.process.kill();
    server.outage(true);
    for _ in 0..2 {
        watch = clockwork.start();
        watch.wait_attached(&clockwork.scene);
        // Longer than the store is waited for.
        for _ in 0..20 {
            clockwork.writer.row();
            std::thread::sleep(Duration::from_millis(200));
        }
        watch.process.kill();
    }
    let watch = clockwork.start();
    watch.wait_attached(&clockwork.scene);
    for _ in 0..20 {
        clockwork.writer.row();
        std::thread::sleep(Duration::from_millis(200));
    }
    server.outage(false);
    clockwork.files(&watch, 2);
    clockwork.minute(1);
    clockwork.wait_merged(&watch, 1);
    watch.drain();
    assert_every_point(&clockwork.scene);
    clockwork.check(1);
    assert_eq!(ranges(&clockwork.scene.bucket, 1).len(), 1);
}

#[test]
fn r7_restore_reads_what_each_writer_stores_and_there_is_no_other_layout() {
    let mut clockwork = Clockwork::new(Scene::new("layout", "a.db"), 6);
    // The watcher, over two minutes; and snapshots beside it and without it.
    let mut watch = clockwork.start();
    let snapshot = |scene: &Scene| {
        let mut snapshot = walrust(&scene.bucket, "snapshot");
        Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
    };
    for minute in 1..=2 {
        clockwork.files(&watch, 3);
        watch.drain();
        clockwork.minute(minute);
        watch = clockwork.start();
        clockwork.wait_merged(&watch, 1);
    }
    snapshot(&clockwork.scene);
    clockwork.files(&watch, 1);
    watch.drain();
    let Clockwork { scene, writer, .. } = &mut clockwork;
    writer.row();
    snapshot(scene);
    // Whoever restarted the log while nobody watched; all at once; and a history that begins anew.
    writer.row();
    walrust_tests::workload::checkpoint(&writer.connection, "TRUNCATE").unwrap();
    writer.row();
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    writer.row();
    ship(&scene.bucket, &scene.database(), &["--new-chain"]).expect_success();
    writer.row();
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();

    let name = scene.name();
    for key in scene.bucket.keys() {
        let parts: Vec<_> = key.split('/').collect();
        let known = match parts[..] {
            [first, "manifest.json" | "lease.json"] => first == name,
            [first, "index", _] => first == name,
            [first, level, file] => {
                let ranged = file.len() == 37 && file.ends_with(".ltx");
                let level = u8::from_str_radix(level, 16).ok();
                first == name && ranged && level.is_some_and(|level| level <= 3 || level == 9)
            }
            [".walrust", ..] => true,
            _ => false,
        };
        assert!(known, "{key} is of no known layout");
    }
    let listed = |bucket: &Bucket| {
        let described = list(bucket, name);
        let files = described["files"].as_array().unwrap().iter();
        let mut keys: Vec<_> = files
            .map(|file| file["key"].as_str().unwrap().to_owned())
            .collect();
        keys.sort();
        keys
    };
    let mut keys = scene.bucket.ltx_keys();
    keys.sort();
    assert_eq!(listed(&scene.bucket), keys);
    assert_every_point(scene);

    // Each object alone leads on from what ends before it, without an index that could know better.
    let oracle = scene.oracle();
    for (number, key) in keys.iter().enumerate() {
        let copy = scene
            .bucket
            .copy_to(&scene.path().join(format!("copy-{number}")));
        fs::remove_file(copy.file(&format!("{name}/manifest.json"))).unwrap();
        let _ = fs::remove_dir_all(copy.file(&format!("{name}/index")));
        if number == 0 {
            assert_eq!(listed(&copy), keys);
        }
        let (min, max) = range_of(key);
        for other in keys.iter().filter(|other| *other != key) {
            if range_of(other).1 >= min {
                fs::remove_file(copy.file(other)).unwrap();
            }
        }
        let at = |bucket| {
            restored_commits(
                bucket,
                name,
                scene.path(),
                Some(&format!("txid:{max}")),
                &oracle,
            )
            .1
        };
        assert_eq!(at(&copy), at(&scene.bucket), "{key}");
        fs::remove_dir_all(copy.folder()).unwrap();
    }
}
