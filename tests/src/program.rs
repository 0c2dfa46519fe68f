//! The binary under test: its commands, and what its JSON says.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::bucket::Bucket;
use crate::locks::holds_read_mark;
use crate::oracle::{Mismatch, Oracle};
use crate::process::{Output, Process, Signal};
use crate::scene::Scene;
use crate::support::{PATIENCE, built, until};
use crate::workload::Spec;

/// The binary.
pub fn binary() -> PathBuf {
    built("WALRUST_BIN", "walrust")
}

/// `walrust COMMAND` with the bucket's flag and environment.
pub fn walrust(bucket: &Bucket, command: &str) -> Command {
    let mut program = Command::new(binary());
    program.arg(command);
    bucket.apply(&mut program);
    program
}

/// `walrust` with a configuration file instead of a bucket flag.
pub fn walrust_configured(bucket: &Bucket, configuration: &Path, command: &str) -> Command {
    let mut program = Command::new(binary());
    program.arg(command).arg("--config").arg(configuration);
    bucket.environment(&mut program);
    program
}

/// A running `walrust watch`.
pub struct Watch {
    /// The process.
    pub process: Process,
}

impl Watch {
    /// Starts watching, with metrics off and these further arguments.
    pub fn start<S: AsRef<OsStr>>(bucket: &Bucket, databases: &[&Path], arguments: &[S]) -> Self {
        let mut command = walrust(bucket, "watch");
        command.arg("--no-metrics").args(databases).args(arguments);
        Self {
            process: Process::spawn(&mut command),
        }
    }

    /// Starts watching and waits for the first line.
    pub fn ready<S: AsRef<OsStr>>(bucket: &Bucket, databases: &[&Path], arguments: &[S]) -> Self {
        let mut watch = Self::start(bucket, databases, arguments);
        watch
            .process
            .wait_for(PATIENCE, |line| line.starts_with("Watching "));
        watch
    }

    /// Waits until the watcher holds a read mark on the scene's database: what is committed from now on, it sees.
    #[track_caller]
    pub fn wait_attached(&self, scene: &Scene) {
        until("a read mark of the watcher", PATIENCE, || {
            assert!(
                !self.process.ended(),
                "the watcher ended; it said:\n{}",
                self.process.printed()
            );
            holds_read_mark(self.process.id(), &scene.beside("-shm")).then_some(())
        });
    }

    /// Waits until the newest commit of the scene's application is stored; fails at once if the watcher ends.
    #[track_caller]
    pub fn wait_stored(&self, scene: &Scene, limit: Duration) {
        self.wait_log_stored(scene, &scene.log(), limit);
    }

    /// [`Watch::wait_stored`] for an application with another log.
    #[track_caller]
    pub fn wait_log_stored(&self, scene: &Scene, log: &Path, limit: Duration) {
        wait_stored(&scene.bucket, scene.name(), log, limit, || {
            assert!(
                !self.process.ended(),
                "the watcher ended; it said:\n{}",
                self.process.printed()
            );
        });
    }

    /// SIGTERM, then the end, which must come within 30 seconds.
    #[track_caller]
    pub fn stop(mut self) -> Output {
        self.process.signal(Signal::TERM);
        self.process.output(Duration::from_secs(30))
    }

    /// [`Watch::stop`], which must say that everything is stored.
    #[track_caller]
    pub fn drain(self) {
        self.stop().expect_success();
    }
}

/// `watch --once`: ships everything that is committed, and ends.
#[track_caller]
pub fn ship<S: AsRef<OsStr>>(bucket: &Bucket, database: &Path, arguments: &[S]) -> Output {
    let mut command = walrust(bucket, "watch");
    command
        .args(["--no-metrics", "--once"])
        .arg(database)
        .args(arguments);
    Process::run(&mut command, PATIENCE * 2)
}

/// `restore NAME` to `output`, to the newest state or to `point`.
pub fn restore(bucket: &Bucket, name: &str, output: &Path, point: Option<&str>) -> Output {
    let mut command = walrust(bucket, "restore");
    command.arg(name).arg("--output").arg(output).arg("--json");
    if let Some(point) = point {
        command.arg("--point-in-time").arg(point);
    }
    Process::run(&mut command, PATIENCE * 2)
}

/// A restore point as `list NAME` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The last transaction that it holds.
    pub txid: u64,
    /// RFC 3339.
    pub time: String,
}

impl Point {
    /// Milliseconds since 1970.
    pub fn millis(&self) -> i64 {
        let time: jiff::Timestamp = self.time.parse().unwrap();
        time.as_millisecond()
    }
}

/// `list NAME --json`.
#[track_caller]
pub fn list(bucket: &Bucket, name: &str) -> Value {
    let mut command = walrust(bucket, "list");
    command.arg(name).arg("--json");
    Process::run(&mut command, PATIENCE).expect_success().json()
}

/// The restore points that `list NAME` shows, oldest first.
#[track_caller]
pub fn points(bucket: &Bucket, name: &str) -> Vec<Point> {
    let listed = list(bucket, name);
    let points = listed["points"]
        .as_array()
        .expect("points")
        .iter()
        .map(|point| Point {
            txid: point["txid"].as_u64().expect("a TXID"),
            time: point["time"].as_str().expect("a time").to_owned(),
        });
    points.collect()
}

/// Restores to a fresh file in `folder`, checks it against the oracle, and gives the commits that it may be.
#[track_caller]
pub fn restored_commits(
    bucket: &Bucket,
    name: &str,
    folder: &Path,
    point: Option<&str>,
    oracle: &Oracle,
) -> (Value, Vec<u64>) {
    let output = folder.join("restored.db");
    let _ = std::fs::remove_file(&output);
    let report = restore(bucket, name, &output, point)
        .expect_success()
        .json();
    let mut found = oracle.find(&output);
    if found.is_err() {
        // An application that still runs may have committed what it had not yet recorded when the log was read.
        std::thread::sleep(Duration::from_secs(1));
        found = Oracle::open(oracle.dir()).find(&output);
    }
    let commits = found.unwrap_or_else(|mismatch| {
        let kept = folder.join("wrong.db");
        std::fs::rename(&output, &kept).unwrap();
        panic!(
            "restore of {point:?} is wrong: {mismatch}\nreport: {report}\nkept: {}",
            kept.display()
        )
    });
    std::fs::remove_file(&output).unwrap();
    (report, commits)
}

/// Checks that the newest state in the bucket is exactly the newest commit.
#[track_caller]
pub fn assert_newest(bucket: &Bucket, name: &str, folder: &Path, oracle: &Oracle) {
    let (report, commits) = restored_commits(bucket, name, folder, None, oracle);
    let last = oracle.last();
    assert!(
        commits.contains(&last.seq),
        "the bucket's newest state is commit {commits:?}, the newest commit is {} ({})\n{report}",
        last.seq,
        last.digest
    );
}

/// Waits until `list` shows the state of the newest commit as stored; `alive` panics where that cannot come.
#[track_caller]
pub fn wait_stored(
    bucket: &Bucket,
    name: &str,
    oracle_dir: &Path,
    limit: Duration,
    alive: impl Fn(),
) {
    let digest = Oracle::open(oracle_dir).last().digest.clone();
    until(
        &format!("{name} is stored with digest {digest}"),
        limit,
        || {
            alive();
            let mut command = walrust(bucket, "list");
            command.arg(name).arg("--json");
            let output = Process::run(&mut command, PATIENCE);
            let listed: Value = serde_json::from_str(&output.stdout).ok()?;
            let files = listed["files"].as_array()?;
            let stored = files.iter().any(|file| file["digest"] == digest.as_str());
            if !stored {
                // Each look is a process; leave the machine to the one that is waited for.
                std::thread::sleep(Duration::from_millis(40));
            }
            stored.then_some(())
        },
    );
}

/// Checks the newest state, and that every advertised point is exactly some commit.
#[track_caller]
pub fn assert_every_point(scene: &Scene) {
    let oracle = scene.oracle();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &oracle);
    for point in points(&scene.bucket, scene.name()) {
        let wanted = format!("txid:{}", point.txid);
        restored_commits(
            &scene.bucket,
            scene.name(),
            scene.path(),
            Some(&wanted),
            &oracle,
        );
    }
}

/// The files of this kind that `list NAME` shows.
#[track_caller]
pub fn files_of_kind(bucket: &Bucket, name: &str, kind: &str) -> Vec<Value> {
    let listed = list(bucket, name);
    let files = listed["files"].as_array().expect("files").iter();
    files.filter(|file| file["kind"] == kind).cloned().collect()
}

/// Checks that the stream never had to be re-anchored.
#[track_caller]
pub fn assert_no_rebase(scene: &Scene) {
    let rebases = files_of_kind(&scene.bucket, scene.name(), "rebase");
    assert!(rebases.is_empty(), "{rebases:?}");
}

/// A Mismatch is an error to `?` on in tests.
impl std::error::Error for Mismatch {}

/// A running `walrust-test-app`.
pub struct App {
    /// The process.
    pub process: Process,
    /// The folder of its commit log.
    pub log: PathBuf,
}

impl App {
    /// Starts the application.
    pub fn start(spec: &Spec) -> Self {
        Self::start_with(spec, |_| {})
    }

    /// Starts the application after `adjust` had its command.
    pub fn start_with(spec: &Spec, adjust: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(built("WALRUST_TEST_APP", "walrust-test-app"));
        command.arg(serde_json::to_string(spec).unwrap());
        adjust(&mut command);
        Self {
            process: Process::spawn(&mut command),
            log: spec.log.clone(),
        }
    }

    /// Starts the application and waits until its tables stand.
    pub fn ready(spec: &Spec) -> Self {
        let mut app = Self::start(spec);
        app.process.wait_for(PATIENCE, |line| line == "ready\n");
        app
    }

    /// Waits until it made all its commits.
    #[track_caller]
    pub fn finish(self) {
        self.process.output(PATIENCE * 5).expect_success();
    }

    /// Asks it to end, and waits.
    #[track_caller]
    pub fn stop(self) {
        let stop = self.log.join("stop");
        std::fs::write(&stop, "").unwrap();
        self.process.output(PATIENCE * 2).expect_success();
        std::fs::remove_file(stop).unwrap();
    }

    /// Waits until the log holds `count` commits.
    #[track_caller]
    pub fn wait_commits(&mut self, count: u64) {
        until(&format!("{count} commits"), PATIENCE * 3, || {
            let log = self.log.join("log");
            assert!(
                self.process.poll().is_none_or(|status| status.success()),
                "{}",
                self.process.printed()
            );
            (log.exists() && commits_in(&log) >= count).then_some(())
        });
    }
}

/// How many commits the log holds, without reading them.
fn commits_in(log: &Path) -> u64 {
    let text = std::fs::read(log).unwrap();
    text.split(|&byte| byte == b'\n')
        .filter(|line| line.starts_with(b"{\"Commit\""))
        .count() as u64
}
