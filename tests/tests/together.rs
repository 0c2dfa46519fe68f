//! Everything at once on one database: an application, its watch, compactions, verifications, restores and a replica,
//! over a store that fails, with a watch that is killed now and then. Nothing is lost, nothing gets stuck, and what
//! stands at the end is exact.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;
use walrust_tests::bucket::Bucket;
use walrust_tests::process::{Output, Process, Signal};
use walrust_tests::program::{App, Watch, assert_every_point, assert_newest, walrust};
use walrust_tests::replica::Replica;
use walrust_tests::scene::Scene;
use walrust_tests::server::{Action, Server};
use walrust_tests::support::{PATIENCE, announce, seeds, until};
use walrust_tests::workload::Spec;

/// `WALRUST_TEST_TOGETHER_SECONDS`: 300 is what a release is tried with.
fn seconds() -> Duration {
    let text = std::env::var("WALRUST_TEST_TOGETHER_SECONDS");
    Duration::from_secs(text.map_or(25, |text| text.parse().unwrap()))
}

/// Every sixth request meets something.
fn trouble(rng: &mut Rng) -> Action {
    match rng.u32(..60) {
        0 | 1 => Action::Fail(503),
        2 => Action::Fail(500),
        3 => Action::FailAfter(500),
        4 | 5 => Action::Drop,
        6 => Action::DropAfter,
        7..=9 => Action::Delay(Duration::from_millis(rng.u64(..300))),
        _ => Action::Pass,
    }
}

/// How often a command worked, and how often the store's failures were too many for it.
#[derive(Default, Debug)]
struct Tally {
    worked: AtomicU64,
    gave_up: AtomicU64,
}

impl Tally {
    /// Counts `output`; gives it if the command worked.
    fn count(&self, output: Output, problems: &Mutex<Vec<String>>) -> Option<Output> {
        match output.code() {
            0 => {
                self.worked.fetch_add(1, Ordering::SeqCst);
                Some(output)
            }
            // With fine exit codes: neither usage, nor damage, nor a missing database, nor a lost lease.
            1 => {
                self.gave_up.fetch_add(1, Ordering::SeqCst);
                None
            }
            code => {
                let told = format!("status {code}: {}{}", output.stdout, output.stderr);
                problems.lock().unwrap().push(told);
                None
            }
        }
    }

    fn worked(&self) -> u64 {
        self.worked.load(Ordering::SeqCst)
    }
}

/// `walrust COMMAND NAME` with exit codes that tell what it was.
fn run(bucket: &Bucket, command: &str, name: &str, arguments: &[&str]) -> Output {
    let mut command = walrust(bucket, command);
    command
        .arg(name)
        .args(["--exit-codes", "fine"])
        .args(arguments);
    Process::run(&mut command, PATIENCE * 2)
}

/// What `verify` found that a failing store does not explain.
fn blamed(report: &Value) -> Vec<Value> {
    let issues = report["issues"].as_array().unwrap().iter();
    let blamed = issues.filter(|issue| {
        let message = issue["message"].as_str().unwrap();
        issue["kind"] != "note" && !message.to_lowercase().contains("not checked")
    });
    blamed.cloned().collect()
}

#[test]
fn g14_r99_watch_retention_verify_restore_and_replica_against_each_other() {
    for seed in seeds(1) {
        announce("together", seed);
        together(seed);
    }
}

fn together(seed: u64) {
    let server = Server::start();
    let scene = Scene::on("together", "a.db", server.bucket("backups"));
    let spec = Spec {
        rate: Some(30.0),
        upheaval: true,
        checkpoints: true,
        ..scene.spec(seed)
    };
    let mut app = App::ready(&spec);
    app.wait_commits(10);
    let configuration = scene.path().join("hasty.toml");
    let policy = "[retention]\nhourly = 2\ndaily = 1\npoints = \"2s\"\nminutes = \"1h\"\n";
    fs::write(&configuration, policy).unwrap();
    let flags = [
        "--config",
        configuration.to_str().unwrap(),
        "--sync-interval",
        "50ms",
        "--max-changes",
        "80",
        "--compact-interval",
        "2",
        "--compact-after-snapshot",
    ];
    let mut watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch
        .process
        .wait_for(PATIENCE, |line| line.contains("WAL sync"));
    let mut rng = Rng::with_seed(seed);
    let mut faults = rng.fork();
    server.rule(move |_| trouble(&mut faults));

    let replica = Replica::of(&scene);
    let mut keeper = replica.start(&["--interval", "100ms"]);
    let end = AtomicBool::new(false);
    let problems: Mutex<Vec<String>> = Mutex::default();
    let [compacted, verified, restored] = [(); 3].map(|()| Tally::default());
    let proven = AtomicU64::new(0);
    let (bucket, name) = (&scene.bucket, scene.name());
    let goes_on = || !end.load(Ordering::SeqCst);
    thread::scope(|scope| {
        scope.spawn(|| {
            while goes_on() {
                let flags = ["--force", "--points", "2s", "--hourly", "2"];
                let output = run(bucket, "compact", name, &flags);
                compacted.count(output, &problems);
            }
        });
        scope.spawn(|| {
            while goes_on() {
                let output = run(bucket, "verify", name, &["--json"]);
                let report = serde_json::from_str::<Value>(&output.stdout).unwrap_or_default();
                if report["issues"].is_array() {
                    let blamed = blamed(&report);
                    if !blamed.is_empty() {
                        problems.lock().unwrap().push(format!("{blamed:#?}"));
                    }
                    verified.worked.fetch_add(1, Ordering::SeqCst);
                } else {
                    verified.count(output, &problems);
                }
            }
        });
        scope.spawn(|| {
            let output = scene.path().join("restored.db");
            while goes_on() {
                let _ = fs::remove_file(&output);
                let flags = ["--output", output.to_str().unwrap(), "--json"];
                let newest = restored.count(run(bucket, "restore", name, &flags), &problems);
                let Some(newest) = newest else { continue };
                let txid = newest.json()["txid"].as_u64().unwrap();
                let before = proven.fetch_max(txid, Ordering::SeqCst);
                // What was restored once is never missing again.
                let mut found = scene.oracle().find(&output);
                if found.is_err() {
                    // Committed a moment ago, and not recorded yet.
                    thread::sleep(Duration::from_secs(1));
                    found = scene.oracle().find(&output);
                }
                if txid < before || found.is_err() {
                    let told = format!("TXID {txid} after {before}: {found:?}");
                    problems.lock().unwrap().push(told);
                }
            }
        });
        let began = Instant::now();
        let mut kills = 0;
        while began.elapsed() < seconds() {
            thread::sleep(Duration::from_millis(rng.u64(3000..6000)));
            match rng.u32(..3) {
                0 => {
                    server.outage(true);
                    thread::sleep(Duration::from_millis(rng.u64(300..2500)));
                    server.outage(false);
                }
                1 => {
                    watch.process.kill();
                    watch = Watch::start(&scene.bucket, &[&scene.database()], &flags);
                    kills += 1;
                }
                _ => {
                    keeper.kill();
                    keeper = replica.start(&["--interval", "100ms"]);
                }
            }
            assert!(!watch.process.ended(), "{}", watch.process.printed());
            // Nothing is stuck: what is committed now gets there, in spite of everything.
            let target = proven.load(Ordering::SeqCst);
            until("newer states are restored", PATIENCE * 2, || {
                let problems = problems.lock().unwrap();
                assert!(problems.is_empty(), "{problems:#?}");
                (proven.load(Ordering::SeqCst) > target).then_some(())
            });
        }
        end.store(true, Ordering::SeqCst);
        eprintln!(
            "{kills} kills, compact {compacted:?}, verify {verified:?}, restore {restored:?}"
        );
    });
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{problems:#?}");
    for tally in [&compacted, &verified, &restored] {
        assert!(tally.worked() > 2, "{tally:?}");
    }
    server.no_rule();
    app.stop();
    watch.wait_stored(&scene, PATIENCE);
    until("the replica is there", PATIENCE, || {
        let last = scene.oracle().last().seq;
        replica
            .commits(&scene.oracle())
            .contains(&last)
            .then_some(())
    });
    keeper.signal(Signal::TERM);
    keeper.output(PATIENCE).expect_success();
    watch.drain();
    assert_every_point(&scene);
    let report = run(&scene.bucket, "verify", scene.name(), &["--json", "--deep"]);
    let report = report.expect_success().json();
    assert_eq!(report["ok"], true, "{report:#}");
    run(&scene.bucket, "compact", scene.name(), &["--force"]).expect_success();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
}
