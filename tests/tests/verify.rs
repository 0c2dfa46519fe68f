//! `verify`: every damage of a bucket that a real watch made is found, nothing else is blamed, `--fix` changes only
//! what it may, and nothing is reported beside a healthy watch.
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
use serde_json::Value;
use walrust_tests::bucket::Bucket;
use walrust_tests::damage::{damaged, issues, place, ship_rows, stored, verify};
use walrust_tests::process::{Output, Process};
use walrust_tests::program::{App, Watch, walrust, walrust_configured};
use walrust_tests::scene::Scene;
use walrust_tests::server::{Action, Server};
use walrust_tests::support::{PATIENCE, announce, rounds, seeds, until};
use walrust_tests::workload::Spec;

#[test]
fn v3_nothing_is_reported_beside_a_running_watch_under_load() {
    let server = Server::start();
    let scene = Scene::on("beside", "a.db", server.bucket("backups"));
    let spec = Spec {
        rate: Some(60.0),
        upheaval: true,
        checkpoints: true,
        ..scene.spec(5)
    };
    let mut app = App::ready(&spec);
    let flags = ["--sync-interval", "50ms", "--snapshot-interval", "4"];
    let mut watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    until("a snapshot in the manifest", PATIENCE, || {
        scene
            .bucket
            .file("a.db/manifest.json")
            .exists()
            .then_some(())
    });
    let began = Instant::now();
    let (mut runs, mut behind) = (0, 0);
    while began.elapsed() < Duration::from_secs(65) {
        let output = verify(&scene.bucket, scene.name(), &[]);
        assert!(
            watch.process.poll().is_none(),
            "{}",
            watch.process.printed()
        );
        let report = output.expect_success().json();
        assert_eq!(report["issues"], Value::Array(Vec::new()), "{report:#}");
        runs += 1;
        behind += report["behind"].as_u64().unwrap();
    }
    eprintln!("verify: {runs} runs beside the watch, {behind} files behind the manifest");
    assert!(runs > 10 && behind > 0);
    app.wait_commits(100);
    app.stop();
    watch.drain();
    let report = verify(&scene.bucket, scene.name(), &["--deep"]).expect_success();
    let report = report.json();
    assert_eq!(report["issues"], Value::Array(Vec::new()), "{report:#}");
    assert_eq!(
        (&report["behind"], &report["files"]),
        (&0.into(), &report["verified"])
    );
    let merged = scene
        .bucket
        .ltx_keys()
        .iter()
        .any(|key| key.contains("/0001/"));
    assert!(merged, "a minute has passed");
}

#[test]
fn v3_killed_watchers_and_restarts_leave_no_issue() {
    for seed in seeds(1) {
        announce("verify", seed);
        let mut rng = Rng::with_seed(seed);
        let scene = Scene::new("killed", "a.db");
        let spec = Spec {
            rate: Some(40.0),
            upheaval: true,
            checkpoints: true,
            ..scene.spec(seed)
        };
        let app = App::ready(&spec);
        let flags = ["--sync-interval", "30ms", "--snapshot-interval", "1"];
        let first = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
        until("a manifest", PATIENCE, || {
            scene
                .bucket
                .file("a.db/manifest.json")
                .exists()
                .then_some(())
        });
        drop(first);
        for round in 0..rounds(8) {
            let mut watch = Watch::start(&scene.bucket, &[&scene.database()], &flags);
            thread::sleep(Duration::from_millis(rng.u64(100..1800)));
            watch.process.kill();
            let output = verify(&scene.bucket, scene.name(), &[]);
            assert_eq!(output.code(), 0, "round {round}: {}", output.stdout);
            assert!(issues(&output.json()).is_empty());
        }
        let watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
        watch.wait_attached(&scene);
        app.stop();
        watch.drain();
        let output = verify(&scene.bucket, scene.name(), &["--deep"]);
        assert_eq!(output.code(), 0, "{}", output.stdout);
    }
}

#[test]
fn v5_r142_refusals_and_timeouts_are_errors_and_never_orphans() {
    let server = Server::start();
    let scene = Scene::on("refused", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(6));
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "10ms"],
    );
    watch.wait_attached(&scene);
    ship_rows(&watch, &scene, &mut writer, 5);
    watch.drain();
    let keys = scene.bucket.ltx_keys();
    let key = keys
        .iter()
        .rfind(|key| key.contains("/0000/"))
        .unwrap()
        .clone();
    let manifest = fs::read(scene.bucket.file("a.db/manifest.json")).unwrap();
    let unchanged = || {
        let now = fs::read(scene.bucket.file("a.db/manifest.json")).unwrap();
        assert_eq!(now, manifest);
    };

    // r148: reading needs to read, and nothing else.
    server.restart_count();
    verify(&scene.bucket, scene.name(), &[]).expect_success();
    assert!(
        server.calls().iter().all(|call| !call.writes()),
        "{:?}",
        server.calls()
    );

    // One object is refused to us.
    let refused = key.clone();
    server.rule(move |call| match call.path.ends_with(&refused) {
        true => Action::Fail(403),
        false => Action::Pass,
    });
    for arguments in [&[][..], &["--fix"]] {
        let output = verify(&scene.bucket, scene.name(), arguments).expect_failure();
        let report = output.json();
        assert_eq!(
            issues(&report),
            [("error".to_owned(), place(&key))],
            "{report:#}"
        );
        let message = report["issues"][0]["message"].as_str().unwrap();
        assert!(message.starts_with("Not checked: "), "{message}");
        unchanged();
    }
    // That is no damage.
    let output = verify(&scene.bucket, scene.name(), &["--exit-codes", "fine"]);
    assert_eq!(output.code(), 1);

    // The object is gone, and whoever asks for it is refused, as without the permission to list.
    let path = scene.bucket.file(&key);
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    for arguments in [&[][..], &["--fix"]] {
        let output = verify(&scene.bucket, scene.name(), arguments).expect_failure();
        assert!(!output.stdout.contains("orphan"), "{}", output.stdout);
        assert_eq!(output.json()["error"]["kind"], "denied");
        unchanged();
    }
    fs::write(&path, whole).unwrap();

    // No listing, no verdict.
    server.rule(|call| match call.query.contains("list-type") {
        true => Action::Fail(403),
        false => Action::Pass,
    });
    for arguments in [&[][..], &["--fix"]] {
        let output = verify(&scene.bucket, scene.name(), arguments).expect_failure();
        assert_eq!(output.json()["error"]["kind"], "denied");
        unchanged();
    }

    // What passes when it is tried again is no finding, whichever request it is.
    server.no_rule();
    server.restart_count();
    verify(&scene.bucket, scene.name(), &[]).expect_success();
    let calls = server.calls().len() as u64;
    for number in 1..=calls {
        for action in [
            Action::Fail(500),
            Action::Fail(503),
            Action::Drop,
            Action::DropAfter,
        ] {
            server.restart_count();
            server.rule(move |call| match call.number == number {
                true => action,
                false => Action::Pass,
            });
            let output = verify(&scene.bucket, scene.name(), &[]);
            assert_eq!(
                output.code(),
                0,
                "call {number} {action:?}: {}",
                output.stdout
            );
        }
    }
}

#[test]
fn v5_r132_exit_status_reports_and_all_databases() {
    let scene = stored("status", 7, false);
    let run = |arguments: &[&str]| {
        let mut command = walrust(&scene.bucket, "verify");
        command.args(arguments).current_dir(scene.path());
        Process::run(&mut command, PATIENCE)
    };
    let text = run(&["a.db"]).expect_success();
    assert!(text.stderr.is_empty(), "{}", text.stderr);
    assert!(
        text.stdout.contains("\nIssues:    0\n\n✓ All "),
        "{}",
        text.stdout
    );
    // Unknown: near names are told.
    let unknown = run(&["a"]).expect_failure();
    assert!(
        unknown.stderr.contains("did you mean a.db?"),
        "{}",
        unknown.stderr
    );
    assert_eq!(run(&["a", "--exit-codes", "fine"]).code(), 3);

    let keys = scene.bucket.ltx_keys();
    let key = keys.iter().rfind(|key| key.contains("/0009/")).unwrap();
    let whole = fs::read(scene.bucket.file(key)).unwrap();
    fs::remove_file(scene.bucket.file(key)).unwrap();
    let orphan = run(&["a.db", "--report", "report.json"]).expect_failure();
    let line = format!(
        "  [ORPHAN] {}: File missing from S3",
        key.rsplit('/').next().unwrap()
    );
    assert!(orphan.stdout.contains(&line), "{}", orphan.stdout);
    assert!(
        orphan
            .stdout
            .contains("\nRun with --fix to remove 1 orphaned manifest entries.\n"),
        "{}",
        orphan.stdout
    );
    assert_eq!(run(&["a.db", "--exit-codes", "fine"]).code(), 4);
    let job: Value =
        serde_json::from_slice(&fs::read(scene.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(
        (&job["v"], &job["task"], &job["ok"]),
        (&1.into(), &"verify".into(), &false.into())
    );
    assert_eq!(job["databases"][0]["name"], "a.db");
    // Everything fixed, and nothing else wrong.
    run(&["a.db", "--fix"]).expect_success();
    run(&["a.db"]).expect_success();
    fs::write(scene.bucket.file(key), whole).unwrap();

    // All: of the bucket, or of the configuration.
    let all = run(&["--all", "--json"]).expect_success().json();
    assert_eq!(
        (&all["ok"], &all["databases"][0]["name"]),
        (&true.into(), &"a.db".into())
    );
    let configuration = scene.path().join("w.toml");
    let text = format!(
        "[s3]\nbucket = \"{}\"\n[[databases]]\npath = \"/nowhere/*.db\"\n[[databases]]\npath = \"/nowhere/gone.sqlite\"\n",
        scene.bucket.url()
    );
    fs::write(&configuration, text).unwrap();
    let mut command = walrust_configured(&scene.bucket, &configuration, "verify");
    command
        .args(["--all", "--json", "--report"])
        .arg(scene.path().join("report.json"));
    let output = Process::run(&mut command, PATIENCE).expect_failure();
    let all = output.json();
    assert_eq!(all["ok"], false);
    assert_eq!(all["databases"][0]["ok"], true, "{all:#}");
    assert_eq!(all["databases"][1]["name"], "gone.sqlite");
    let job: Value =
        serde_json::from_slice(&fs::read(scene.path().join("report.json")).unwrap()).unwrap();
    assert_eq!(
        job["databases"][0]["name"], "gone.sqlite",
        "worst first: {job:#}"
    );

    // v4: nothing is no success.
    let empty = scene.path().join("other");
    fs::create_dir(&empty).unwrap();
    for command in ["verify", "drill"] {
        let mut command = walrust(&Bucket::Folder(empty.clone()), command);
        Process::run(command.arg("--all"), PATIENCE).expect_failure();
    }
}

fn drill(bucket: &Bucket, scratch: &Path, arguments: &[&str]) -> Output {
    let mut command = walrust(bucket, "drill");
    command
        .args(arguments)
        .arg("--json")
        .arg("--scratch")
        .arg(scratch);
    Process::run(&mut command, PATIENCE)
}

#[test]
fn drills_restore_any_state_and_leave_nothing() {
    let scene = stored("drill", 8, false);
    let scratch = scene.path().join("other");
    fs::create_dir(&scratch).unwrap();
    let is_empty = || fs::read_dir(&scratch).unwrap().next().is_none();
    let report = drill(&scene.bucket, &scratch, &["a.db"])
        .expect_success()
        .json();
    assert_eq!(report["ok"], true);
    let one = &report["databases"][0];
    let points = walrust_tests::program::points(&scene.bucket, "a.db");
    let newest = points.last().unwrap();
    assert_eq!(one["txid"], newest.txid);
    assert_eq!(one["time"], newest.time.as_str());
    assert_eq!(one["integrity"], "ok");
    let bytes = scene.oracle().image(scene.oracle().last().seq).len();
    assert_eq!(one["bytes"], bytes);
    for _ in 0..6 {
        let report = drill(&scene.bucket, &scratch, &["--all", "--random"]);
        let report = report.expect_success().json();
        let txid = report["databases"][0]["txid"].as_u64().unwrap();
        assert!(points.iter().any(|point| point.txid == txid), "{txid}");
    }
    assert!(is_empty());

    // One that fails does not stop the others, and says what is wrong.
    let keys = scene.bucket.ltx_keys();
    let last = keys.iter().rfind(|key| key.contains("/0000/")).unwrap();
    let copy = damaged(&scene, |copy| {
        let mut bytes = fs::read(copy.file(last)).unwrap();
        bytes[130] ^= 1;
        fs::write(copy.file(last), bytes).unwrap();
    });
    let job = scene.path().join("job.json");
    let path = job.to_str().unwrap();
    let output = drill(&copy, &scratch, &["a", "a.db", "--report", path]).expect_failure();
    let report = output.json();
    let message = |at: usize| report["databases"][at]["message"].as_str().unwrap();
    assert!(message(0).contains("did you mean a.db?"), "{}", message(0));
    assert!(
        message(1).contains(last.rsplit('/').next().unwrap()),
        "{}",
        message(1)
    );
    assert!(is_empty());
    let job: Value = serde_json::from_slice(&fs::read(job).unwrap()).unwrap();
    assert_eq!((&job["task"], &job["ok"]), (&"drill".into(), &false.into()));
}

#[test]
fn a_drill_that_is_stopped_leaves_nothing() {
    let server = Server::start();
    let scene = Scene::on("stopped", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(9));
    writer.commit("INSERT INTO items(k, v, b) VALUES (1, 'row', randomblob(3000000))");
    walrust_tests::program::ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    let scratch = scene.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    server.bandwidth(Some(1_000_000));
    let mut command = walrust(&scene.bucket, "drill");
    command.arg("a.db").arg("--scratch").arg(&scratch);
    let mut process = Process::spawn(&mut command);
    until("something in the scratch folder", PATIENCE, || {
        fs::read_dir(&scratch).unwrap().next().map(|_| ())
    });
    process.signal(walrust_tests::process::Signal::TERM);
    let output = process.output(Duration::from_secs(10));
    assert_eq!(output.code(), 1, "{}", output.stderr);
    assert!(
        output.stderr.contains("stopped by a signal"),
        "{}",
        output.stderr
    );
    assert!(fs::read_dir(&scratch).unwrap().next().is_none());
}

/// The events of a watch as they come, each once.
struct Events {
    seen: usize,
}

impl Events {
    /// The next `proven` or `unproven`.
    fn proof(&mut self, watch: &mut Watch) -> Value {
        let (mut at, mut found) = (0, None);
        let skip = self.seen;
        watch.process.wait_for(PATIENCE, |line| {
            at += 1;
            if at <= skip {
                return false;
            }
            found = serde_json::from_str::<Value>(line)
                .ok()
                .filter(|value| value["event"] == "proven" || value["event"] == "unproven");
            found.is_some()
        });
        self.seen = at;
        found.unwrap()
    }

    /// The next `wanted` that is at or after `txid`. The other kind may come once: of a proof that ran while the
    /// bucket changed.
    fn next(&mut self, watch: &mut Watch, wanted: &str, txid: u64) -> Value {
        let mut others = 0;
        loop {
            let event = self.proof(watch);
            if event["event"] != wanted {
                others += 1;
                assert!(others <= 1, "{event}");
            } else if event["txid"].as_u64().unwrap_or(txid) >= txid {
                return event;
            }
        }
    }
}

#[test]
fn continuous_proof_tells_what_restores_and_what_does_not() {
    let scene = Scene::new("proof", "a.db");
    let mut writer = scene.writer(scene.spec(10));
    let flags = [
        "--json",
        "--sync-interval",
        "10ms",
        "--prove-interval",
        "1s",
    ];
    let mut watch = Watch::start(&scene.bucket, &[&scene.database()], &flags);
    let mut events = Events { seen: 0 };
    let newest = || {
        let points = walrust_tests::program::points(&scene.bucket, "a.db");
        points.last().unwrap().txid
    };
    for _ in 0..3 {
        writer.row();
        watch.wait_stored(&scene, PATIENCE);
        let wanted = newest();
        // A sound bucket is never called unproven.
        let proven = loop {
            let event = events.proof(&mut watch);
            assert_eq!(event["event"], "proven", "{event}");
            if event["txid"].as_u64().unwrap() >= wanted {
                break event;
            }
        };
        assert_eq!(proven["txid"], wanted, "{proven}");
        assert!(proven["bytes"].as_u64().unwrap() > 4096, "{proven}");
    }
    // What is damaged in the bucket is told within the interval, though nothing is committed; and so is that it
    // restores again. The merged file of a minute would hold what is damaged: begin early in one.
    let left = 60_000 - walrust_tests::record::now().rem_euclid(60_000);
    if left < 30_000 {
        thread::sleep(Duration::from_millis(left.unsigned_abs() + 1_000));
    }
    writer.row();
    watch.wait_stored(&scene, PATIENCE);
    let wanted = newest();
    events.next(&mut watch, "proven", wanted);
    let keys = scene.bucket.ltx_keys();
    let last = keys.iter().rfind(|key| key.contains("/0000/")).unwrap();
    let name = last.rsplit('/').next().unwrap();
    let path = scene.bucket.file(last);
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[115] ^= 0x20;
    // Of a missing object that the manifest does not name yet only the TXID is known.
    for (damage, told) in [
        (None, "TXID"),
        (Some(&flipped[..]), name),
        (Some(&whole[..whole.len() / 2]), name),
    ] {
        match damage {
            None => fs::remove_file(&path).unwrap(),
            Some(bytes) => fs::write(&path, bytes).unwrap(),
        }
        let unproven = events.next(&mut watch, "unproven", 0);
        assert_eq!(unproven["kind"], "corrupt", "{unproven}");
        assert_eq!(unproven["txid"], Value::Null, "{unproven}");
        assert!(
            unproven["message"].as_str().unwrap().contains(told),
            "{unproven}"
        );
        fs::write(&path, &whole).unwrap();
        let proven = events.next(&mut watch, "proven", wanted);
        assert_eq!(proven["txid"], wanted, "{proven}");
    }
    watch.drain();
    let scratch = scene.state().join("scratch");
    assert!(fs::read_dir(scratch).unwrap().next().is_none());
}

#[test]
fn a_watch_that_is_killed_in_a_proof_starts_again_and_clears_up() {
    let server = Server::start();
    let scene = Scene::on("killed-proof", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(11));
    writer.commit("INSERT INTO items(k, v, b) VALUES (1, 'row', randomblob(3000000))");
    walrust_tests::program::ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    // Each proof takes seconds.
    server.bandwidth(Some(500_000));
    let flags = ["--prove-interval", "1s"];
    let mut watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    let scratch = scene.state().join("scratch");
    until("a proof that runs", PATIENCE, || {
        let mut names = fs::read_dir(&scratch).unwrap().map(Result::unwrap);
        names.find(|entry| entry.file_type().unwrap().is_dir())
    });
    watch.process.kill();
    assert!(fs::read_dir(&scratch).unwrap().next().is_some());
    server.bandwidth(None);
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--prove-interval", "0"],
    );
    writer.row();
    watch.wait_stored(&scene, PATIENCE);
    assert!(fs::read_dir(&scratch).unwrap().next().is_none());
    watch.drain();
}
