//! One writer at a time: second watchers are refused or fenced, unknown databases are not published over known ones.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use walrust_tests::bucket::Bucket;
use walrust_tests::oracle::Oracle;
use walrust_tests::process::{Output, Process, Signal};
use walrust_tests::program::{
    Watch, assert_every_point, assert_newest, assert_no_rebase, files_of_kind, points,
    restored_commits, ship, walrust,
};
use walrust_tests::scene::{Scene, Writer};
use walrust_tests::server::Server;
use walrust_tests::support::PATIENCE;
use walrust_tests::weed::Weed;
use walrust_tests::workload::Spec;

/// As short as it may be, so that a takeover can be waited for.
const LEASE: Duration = Duration::from_secs(15);

/// A configuration with [`LEASE`].
fn short_lease(scene: &Scene) -> PathBuf {
    let file = scene.path().join("walrust.toml");
    fs::write(
        &file,
        format!("[s3]\nlease_duration = \"{}s\"\n", LEASE.as_secs()),
    )
    .unwrap();
    file
}

/// The same database name in another folder, with its own log: another host's copy.
struct Elsewhere {
    folder: PathBuf,
    name: String,
}

impl Elsewhere {
    fn new(scene: &Scene) -> Self {
        let folder = scene.path().join("elsewhere");
        fs::create_dir(&folder).unwrap();
        Self {
            folder,
            name: scene.name().to_owned(),
        }
    }

    fn database(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn spec(&self, seed: u64) -> Spec {
        Spec::new(&self.database(), &self.log(), seed)
    }

    fn writer(&self, scene: &Scene, seed: u64) -> Writer {
        scene.writer(self.spec(seed))
    }
}

/// Every LTX object and its bytes.
fn objects(bucket: &Bucket) -> BTreeMap<String, Vec<u8>> {
    bucket
        .ltx_keys()
        .into_iter()
        .map(|key| (key.clone(), fs::read(bucket.file(&key)).unwrap()))
        .collect()
}

fn assert_kept(before: &BTreeMap<String, Vec<u8>>, bucket: &Bucket) {
    let after = objects(bucket);
    for (key, bytes) in before {
        assert!(
            after.get(key) == Some(bytes),
            "{key} was changed or removed"
        );
    }
}

#[track_caller]
fn refused(output: Output, within: Duration, started: Instant, name: &str) -> Output {
    let output = output.expect_failure();
    assert!(
        started.elapsed() < within,
        "it took {:?}: {}{}",
        started.elapsed(),
        output.stdout,
        output.stderr
    );
    assert!(
        output.stderr.contains(name),
        "the error does not name {name}: {}",
        output.stderr
    );
    output
}

fn flags(configuration: &Path) -> Vec<String> {
    [
        "--sync-interval",
        "50ms",
        "--config",
        configuration.to_str().unwrap(),
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn u8_second_watcher_on_this_host_is_refused_at_once() {
    let scene = Scene::new("second", "a.db");
    let mut writer = scene.writer(scene.spec(1));
    writer.steps(10);
    let mut first = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    first.wait_stored(&scene, PATIENCE);
    for bucket in [scene.bucket.clone(), scene.bucket.below("other")] {
        let started = Instant::now();
        let second = Watch::start(&bucket, &[&scene.database()], &["--sync-interval", "50ms"]);
        refused(
            second.process.output(PATIENCE),
            Duration::from_secs(15),
            started,
            "a.db",
        );
        // Also through a link, which is the same file.
        let link = scene.path().join("link.db");
        let _ = std::os::unix::fs::symlink(scene.database(), &link);
        let linked = Watch::start(&bucket, &[&link], &["--sync-interval", "50ms"]);
        linked.process.output(PATIENCE).expect_failure();
    }
    writer.steps(10);
    assert!(first.process.poll().is_none());
    first.drain();
    assert_every_point(&scene);
}

#[test]
fn u10_u20_stopped_past_its_lease_while_another_takes_over() {
    let server = Server::start();
    let scene = Scene::on("takeover", "a.db", server.bucket("backups"));
    takeover(&scene);
}

#[test]
fn u10_takeover_on_seaweedfs() {
    let weed = Weed::start();
    takeover(&Scene::on("takeover-weed", "a.db", weed.bucket("backups")));
}

fn takeover(scene: &Scene) {
    let configuration = short_lease(scene);
    let flags = flags(&configuration);
    let mut writer = scene.writer(scene.spec(2));
    writer.steps(10);
    let mut first = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    first.wait_stored(scene, PATIENCE);
    writer.steps(10);
    first.wait_stored(scene, PATIENCE);
    first.process.signal(Signal::STOP);

    // Another host restores and goes on.
    let elsewhere = Elsewhere::new(scene);
    let mut restore = walrust(&scene.bucket, "restore");
    restore
        .arg(scene.name())
        .arg("--output")
        .arg(elsewhere.database())
        .arg("--resume");
    Process::run(&mut restore, PATIENCE).expect_success();
    assert!(
        scene
            .oracle()
            .check_file(&elsewhere.database(), scene.oracle().last().seq)
            .is_ok()
    );
    let mut other_writer = elsewhere.writer(scene, 3);
    let second = Watch::ready(&scene.bucket, &[&elsewhere.database()], &flags);
    other_writer.steps(10);
    second.wait_log_stored(scene, &elsewhere.log(), PATIENCE + LEASE);

    // The first wakes with commits that nobody has, and must not ship them.
    writer.steps(10);
    first.process.signal(Signal::CONT);
    let started = Instant::now();
    writer.steps(5);
    // How soon it meets the lease depends on the requests that the stop cut off.
    refused(
        first.process.output(PATIENCE),
        LEASE + Duration::from_secs(30),
        started,
        "a.db",
    );
    other_writer.steps(10);
    second.drain();

    assert_newest(
        &scene.bucket,
        scene.name(),
        scene.path(),
        &Oracle::open(&elsewhere.log()),
    );
    assert_points_are_in_either(scene, &elsewhere);
    // Once more: it stays refused, as what it has is not the head.
    let again = Watch::start(&scene.bucket, &[&scene.database()], &flags);
    again.process.output(PATIENCE).expect_failure();
    assert_newest(
        &scene.bucket,
        scene.name(),
        scene.path(),
        &Oracle::open(&elsewhere.log()),
    );
}

fn assert_points_are_in_either(scene: &Scene, elsewhere: &Elsewhere) {
    let (one, other) = (scene.oracle(), Oracle::open(&elsewhere.log()));
    let output = scene.path().join("either.db");
    for point in points(&scene.bucket, scene.name()) {
        let wanted = point.txid.to_string();
        walrust_tests::program::restore(&scene.bucket, scene.name(), &output, Some(&wanted))
            .expect_success();
        let found = one.find(&output).or_else(|_| other.find(&output));
        assert!(found.is_ok(), "{point:?}: {}", found.unwrap_err());
        fs::remove_file(&output).unwrap();
    }
}

#[test]
fn u8_a_copy_elsewhere_is_refused_and_history_stays() {
    let scene = Scene::new("copy", "a.db");
    let configuration = short_lease(&scene);
    let flags = flags(&configuration);
    let mut writer = scene.writer(scene.spec(4));
    writer.steps(20);
    let watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_stored(&scene, PATIENCE);
    // A clone of the whole volume, state directory and all, that then went its own way.
    let elsewhere = Elsewhere::new(&scene);
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(scene.path().join("data/."))
        .arg(&elsewhere.folder)
        .status()
        .unwrap();
    assert!(copied.success());
    let mut other_writer = elsewhere.writer(&scene, 5);
    other_writer.steps(10);
    let before = objects(&scene.bucket);
    for _ in 0..3 {
        // A writer that goes on keeps its lease.
        writer.row();
        watch.wait_stored(&scene, PATIENCE);
    }
    let second = Watch::start(&scene.bucket, &[&elsewhere.database()], &flags);
    let mut second = second.process;
    let deadline = Instant::now() + LEASE + Duration::from_secs(10);
    while second.poll().is_none() && Instant::now() < deadline {
        writer.row();
        watch.wait_stored(&scene, PATIENCE);
    }
    second.output(Duration::from_secs(5)).expect_failure();
    assert_kept(&before, &scene.bucket);
    writer.steps(10);
    watch.drain();
    assert_every_point(&scene);
}

/// A stream of 30 commits, its watcher stopped.
fn published(test: &str) -> (Scene, Writer) {
    let scene = Scene::new(test, "a.db");
    let mut writer = scene.writer(scene.spec(6));
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    watch.wait_stored(&scene, PATIENCE);
    writer.steps(30);
    watch.drain();
    (scene, writer)
}

#[test]
fn u17_unknown_database_over_a_known_stream_is_refused_unless_told() {
    for flag in ["--adopt", "--new-chain"] {
        let (scene, writer) = published("unknown");
        let elsewhere = Elsewhere::new(&scene);
        let mut other_writer = elsewhere.writer(&scene, 7);
        other_writer.steps(10);
        let before = objects(&scene.bucket);
        let started = Instant::now();
        let second = Watch::start(
            &scene.bucket,
            &[&elsewhere.database()],
            &["--sync-interval", "50ms"],
        );
        let output = refused(
            second.process.output(PATIENCE),
            Duration::from_secs(45),
            started,
            "a.db",
        );
        assert!(
            output.stderr.contains("--adopt") && output.stderr.contains("--new-chain"),
            "{}",
            output.stderr
        );
        assert_eq!(before, objects(&scene.bucket));

        let told = Watch::ready(
            &scene.bucket,
            &[&elsewhere.database()],
            &["--sync-interval", "50ms", flag],
        );
        told.wait_log_stored(&scene, &elsewhere.log(), PATIENCE);
        other_writer.steps(10);
        told.drain();
        assert_kept(&before, &scene.bucket);
        assert_newest(
            &scene.bucket,
            scene.name(),
            scene.path(),
            &Oracle::open(&elsewhere.log()),
        );
        assert_points_are_in_either(&scene, &elsewhere);
        drop(writer);
    }
}

#[test]
fn u17_empty_database_over_a_known_stream_is_refused() {
    let (scene, writer) = published("empty");
    drop(writer);
    let before = objects(&scene.bucket);
    let elsewhere = Elsewhere::new(&scene);
    let connection = rusqlite::Connection::open(elsewhere.database()).unwrap();
    connection
        .query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
        .unwrap();
    connection.execute_batch("CREATE TABLE t(x)").unwrap();
    let second = Watch::start(
        &scene.bucket,
        &[&elsewhere.database()],
        &["--sync-interval", "50ms"],
    );
    second.process.output(PATIENCE).expect_failure();
    assert_eq!(before, objects(&scene.bucket));
}

#[test]
fn a_lost_state_directory_of_the_same_state_goes_on() {
    let (scene, mut writer) = published("lost-state");
    fs::remove_dir_all(scene.state()).unwrap();
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    writer.steps(10);
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    assert_every_point(&scene);
    assert_no_rebase(&scene);
}

#[test]
fn u18_commits_lost_to_a_power_cut_are_followed_by_a_rebase() {
    let scene = Scene::new("power-cut", "a.db");
    let mut writer = scene.writer(Spec {
        autocheckpoint: 0,
        ..scene.spec(8)
    });
    writer.steps(20);
    let mut watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    watch.wait_stored(&scene, PATIENCE);
    writer.steps(5);
    watch.wait_stored(&scene, PATIENCE);
    // What the disk holds if nothing written from here on reaches it.
    let kept: Vec<_> = ["", "-wal"]
        .map(|suffix| fs::read(scene.beside(suffix)).unwrap())
        .into();
    let survives = scene.oracle().last().seq;
    writer.steps(10);
    watch.wait_stored(&scene, PATIENCE);
    let newest_before = points(&scene.bucket, scene.name()).last().unwrap().txid;
    watch.process.kill();
    drop(writer);
    for (suffix, bytes) in ["", "-wal"].iter().zip(kept) {
        fs::write(scene.beside(suffix), bytes).unwrap();
    }
    let _ = fs::remove_file(scene.beside("-shm"));

    let mut writer = scene.writer(scene.spec(9));
    assert!(
        scene
            .oracle()
            .with_digest(&scene.oracle().last().digest)
            .contains(&survives)
    );
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    writer.steps(10);
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    assert_eq!(
        files_of_kind(&scene.bucket, scene.name(), "rebase").len(),
        1
    );
    assert_every_point(&scene);
    // The point from before the cut is still there.
    let wanted = newest_before.to_string();
    restored_commits(
        &scene.bucket,
        scene.name(),
        scene.path(),
        Some(&wanted),
        &scene.oracle(),
    );
}
