//! `verify`: every damage of a bucket that a real watch made is found, nothing else is blamed, `--fix` changes only
//! what it may, and nothing is reported beside a healthy watch.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;
use walrust_tests::bucket::Bucket;
use walrust_tests::process::{Output, Process};
use walrust_tests::program::{App, Watch, restore, walrust, walrust_configured};
use walrust_tests::scene::Scene;
use walrust_tests::server::{Action, Server};
use walrust_tests::support::{PATIENCE, announce, rounds, seeds, until};
use walrust_tests::workload::Spec;

/// `verify NAME --json` with these further arguments.
fn verify(bucket: &Bucket, name: &str, arguments: &[&str]) -> Output {
    let mut command = walrust(bucket, "verify");
    command.arg(name).arg("--json").args(arguments);
    Process::run(&mut command, PATIENCE * 2)
}

/// The issues of a report that are no notes: kind and file name.
fn issues(report: &Value) -> Vec<(String, String)> {
    let issues = report["issues"].as_array().unwrap().iter();
    issues
        .filter(|issue| issue["kind"] != "note")
        .map(|issue| {
            let key = issue["key"].as_str().unwrap();
            let name = key.trim_end_matches('/').rsplit('/').next().unwrap();
            let level = key.rsplit('/').nth(1).unwrap_or_default();
            let name = match name.ends_with(".ltx") {
                true => format!("{level}/{name}"),
                false => name.to_owned(),
            };
            (issue["kind"].as_str().unwrap().to_owned(), name)
        })
        .collect()
}

/// Commits and ships `count` rows, one object each.
fn ship_rows(watch: &Watch, scene: &Scene, writer: &mut walrust_tests::scene::Writer, count: u64) {
    for _ in 0..count {
        writer.row();
        watch.wait_stored(scene, PATIENCE);
    }
}

/// What a real watch leaves after a clean stop: snapshots at the start and in the middle, incrementals of one commit
/// each, and, if asked for, a merged file.
fn stored(test: &str, seed: u64, merged: bool) -> Scene {
    let scene = Scene::new(test, "a.db");
    let mut writer = scene.writer(Spec {
        page_size: 512,
        ..scene.spec(seed)
    });
    let flags = ["--sync-interval", "10ms"];
    let watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_attached(&scene);
    ship_rows(&watch, &scene, &mut writer, 4);
    let mut snapshot = walrust(&scene.bucket, "snapshot");
    Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
    ship_rows(&watch, &scene, &mut writer, 4);
    if merged {
        let there = || {
            scene
                .bucket
                .ltx_keys()
                .iter()
                .any(|key| key.contains("/0001/"))
        };
        until("a merged file", PATIENCE * 2, || there().then_some(()));
    }
    ship_rows(&watch, &scene, &mut writer, 3);
    watch.drain();
    scene
}

/// A fresh copy of the store, damaged.
fn damaged(scene: &Scene, damage: impl FnOnce(&Bucket)) -> Bucket {
    let folder = scene.path().join("damaged");
    let _ = fs::remove_dir_all(&folder);
    let copy = scene.bucket.copy_to(&folder);
    damage(&copy);
    copy
}

/// Every object but the manifest, and the manifest.
fn content(bucket: &Bucket) -> (BTreeMap<String, Vec<u8>>, Option<Vec<u8>>) {
    let read = |key: &String| fs::read(bucket.file(key)).ok();
    let keys = bucket.keys();
    let (manifest, others): (Vec<String>, Vec<String>) = keys
        .into_iter()
        .partition(|key| key.ends_with("/manifest.json"));
    let others = others.into_iter();
    let others = others.filter_map(|key| Some((key.clone(), read(&key)?)));
    // The lease is taken and given back where a manifest is written anew.
    let others = others.filter(|(key, _)| !key.ends_with("/lease.json"));
    (others.collect(), manifest.first().and_then(read))
}

/// What a cell of the matrix expects.
struct Expected<'a> {
    what: &'a str,
    /// Kind and place of each issue.
    issues: &'a [(&'a str, String)],
    /// Whether `--fix` writes the manifest.
    mends: bool,
}

/// One damage against verify, verify --deep, restore and verify --fix.
fn check_cell(scene: &Scene, copy: &Bucket, expected: &Expected<'_>) {
    let Expected {
        what,
        issues: wanted,
        mends,
    } = expected;
    let wanted: Vec<(String, String)> = wanted
        .iter()
        .map(|(kind, name)| ((*kind).to_owned(), name.clone()))
        .collect();
    let code = i32::from(!wanted.is_empty());
    let before = content(copy);
    let output = verify(copy, scene.name(), &[]);
    let report = output.json();
    assert_eq!(output.code(), code, "{what}: {report:#}");
    assert_eq!(issues(&report), wanted, "{what}: {report:#}");
    assert_eq!(report["ok"], wanted.is_empty(), "{what}");

    let output = scene.path().join("restored.db");
    let restored = restore(copy, scene.name(), &output, None);
    let exact = restored.code() == 0;
    if exact {
        let oracle = scene.oracle();
        oracle
            .check_file(&output, oracle.last().seq)
            .unwrap_or_else(|why| panic!("{what}: restored without an error, but {why}"));
        fs::remove_file(&output).unwrap();
    }
    let deep = verify(copy, scene.name(), &["--deep"]);
    let report = deep.json();
    assert_eq!(issues(&report), wanted, "{what}: {report:#}");
    assert_eq!(report["deep"]["ran"], true, "{what}");
    assert_eq!(
        report["deep"]["ok"], exact,
        "{what}: {report:#}\n{}",
        restored.stderr
    );
    assert_eq!(deep.code(), i32::from(code != 0 || !exact), "{what}");
    assert_eq!(content(copy), before, "{what}: reading changed something");

    let fixed = verify(copy, scene.name(), &["--fix"]).json();
    let after = content(copy);
    assert_eq!(after.0, before.0, "{what}: --fix touched an object");
    assert_eq!(after.1 != before.1, *mends, "{what}: {fixed:#}");
    let left = issues(&verify(copy, scene.name(), &[]).json());
    assert!(
        left.iter().all(|(kind, _)| kind != "orphan"),
        "{what}: {left:?}"
    );
    if !mends {
        assert_eq!(left, wanted, "{what}");
    }
}

/// The place of a file below its database.
fn place(key: &str) -> String {
    key.strip_prefix("a.db/").unwrap().to_owned()
}

/// Files worth damaging: both snapshots, a merged file, the first, a middle and the last incremental.
fn sample(scene: &Scene) -> Vec<String> {
    let keys = scene.bucket.ltx_keys();
    let of = |level: &str| -> Vec<String> {
        let keys = keys.iter().filter(|key| key.contains(level));
        keys.cloned().collect()
    };
    let incrementals = of("/0000/");
    let mut sample = of("/0009/");
    assert_eq!(sample.len(), 2, "{keys:?}");
    sample.extend(of("/0001/").into_iter().take(1));
    let middle = incrementals.len() / 2;
    for at in [0, middle, incrementals.len() - 1] {
        sample.push(incrementals[at].clone());
    }
    sample
}

#[test]
fn v1_the_damage_matrix() {
    let scene = stored("matrix", 1, true);
    check_cell(
        &scene,
        &damaged(&scene, |_| {}),
        &Expected {
            what: "nothing",
            issues: &[],
            mends: false,
        },
    );
    let other = stored("matrix-other", 2, false);
    let mut foreign = 0;
    for key in sample(&scene) {
        let file = place(&key);
        let error = [("error", file.clone())];
        let size = fs::metadata(scene.bucket.file(&key)).unwrap().len() as usize;
        let dropped = damaged(&scene, |copy| fs::remove_file(copy.file(&key)).unwrap());
        let what = format!("{key} dropped");
        check_cell(
            &scene,
            &dropped,
            &Expected {
                what: &what,
                issues: &[("orphan", file.clone())],
                mends: true,
            },
        );
        let change = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let copy = damaged(&scene, |copy| {
                let mut bytes = fs::read(copy.file(&key)).unwrap();
                change(&mut bytes);
                fs::write(copy.file(&key), bytes).unwrap();
            });
            let what = format!("{key} {what}");
            check_cell(
                &scene,
                &copy,
                &Expected {
                    what: &what,
                    issues: &error,
                    mends: false,
                },
            );
        };
        change("emptied", &|bytes| bytes.clear());
        change("cut in half", &|bytes| bytes.truncate(size / 2));
        change("cut by a byte", &|bytes| bytes.truncate(size - 1));
        change("flipped in the header", &|bytes| bytes[85] ^= 1);
        change("flipped in a frame's head", &|bytes| bytes[107] ^= 1);
        change("flipped in a page", &|bytes| bytes[115] ^= 0x20);
        change("flipped in the index", &|bytes| bytes[size - 27] ^= 2);
        change("flipped in the checksum", &|bytes| bytes[size - 12] ^= 1);
        change("flipped in the trailer", &|bytes| bytes[size - 1] ^= 1);
        let theirs = other.bucket.file(&key);
        if theirs.exists() {
            foreign += 1;
            let theirs = fs::read(theirs).unwrap();
            change("of another lineage", &|bytes| bytes.clone_from(&theirs));
        }
    }
    assert!(foreign > 2, "{foreign} keys in common");
}

#[test]
fn v1_r26_the_manifest_in_the_matrix() {
    let scene = stored("manifest", 3, false);
    let key = "a.db/manifest.json";
    let missing = damaged(&scene, |copy| fs::remove_file(copy.file(key)).unwrap());
    let manifest = [("error", "manifest.json".to_owned())];
    let expected = |what, mends| Expected {
        what,
        issues: if mends { &manifest[..] } else { &[] },
        mends,
    };
    check_cell(&scene, &missing, &expected("manifest missing", true));
    for (what, bytes) in [
        ("emptied", &b""[..]),
        ("cut", b"{\"v\":1,"),
        ("other", b"[]"),
    ] {
        let copy = damaged(&scene, |copy| fs::write(copy.file(key), bytes).unwrap());
        check_cell(&scene, &copy, &expected(what, true));
        // What was written is as good as what a watcher writes.
        let report = verify(&copy, scene.name(), &[]).expect_success().json();
        assert_eq!(report["files"], report["verified"], "{report:#}");
        assert_eq!(report["behind"], 0);
    }
    // An older one: everything behind it is checked, and a restore finds it.
    let stale = fs::read(scene.bucket.file(key)).unwrap();
    let mut writer = scene.writer(Spec {
        page_size: 512,
        ..scene.spec(3)
    });
    let flags = ["--sync-interval", "10ms"];
    let watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_attached(&scene);
    ship_rows(&watch, &scene, &mut writer, 3);
    watch.drain();
    let copy = damaged(&scene, |copy| fs::write(copy.file(key), &stale).unwrap());
    check_cell(&scene, &copy, &expected("stale", false));
    let report = verify(&copy, scene.name(), &[]).json();
    assert!(report["behind"].as_u64().unwrap() >= 3, "{report:#}");
    // A watch that is still running is left its manifest.
    let copy = damaged(&scene, |copy| fs::remove_file(copy.file(key)).unwrap());
    let lease = fs::read_to_string(copy.file("a.db/lease.json")).unwrap();
    let held = lease.replace("\"released\":true", "\"released\":false");
    assert_ne!(held, lease);
    fs::write(copy.file("a.db/lease.json"), &held).unwrap();
    let report = verify(&copy, scene.name(), &["--fix"]);
    assert_eq!(report.code(), 1);
    assert!(
        report.stdout.contains("holds the lease"),
        "{}",
        report.stdout
    );
    assert!(!copy.file(key).exists());
    assert_eq!(
        fs::read_to_string(copy.file("a.db/lease.json")).unwrap(),
        held
    );
}

#[test]
fn v1_exchanged_files_and_several_damages_at_once() {
    let scene = stored("several", 4, false);
    let keys = scene.bucket.ltx_keys();
    let incrementals: Vec<&String> = keys.iter().filter(|key| key.contains("/0000/")).collect();
    let (first, second) = (incrementals[2], incrementals[3]);
    let snapshots: Vec<&String> = keys.iter().filter(|key| key.contains("/0009/")).collect();
    for (one, other) in [
        (first, second),
        (snapshots[0], snapshots[1]),
        (snapshots[1], second),
    ] {
        let copy = damaged(&scene, |copy| {
            let (a, b) = (copy.file(one), copy.file(other));
            let (x, y) = (fs::read(&a).unwrap(), fs::read(&b).unwrap());
            fs::write(a, y).unwrap();
            fs::write(b, x).unwrap();
        });
        check_cell(
            &scene,
            &copy,
            &Expected {
                what: &format!("{one} and {other} exchanged"),
                issues: &[("error", place(one)), ("error", place(other))],
                mends: false,
            },
        );
    }
    let last = incrementals[incrementals.len() - 1];
    let copy = damaged(&scene, |copy| {
        fs::remove_file(copy.file(first)).unwrap();
        let mut bytes = fs::read(copy.file(last)).unwrap();
        bytes[120] ^= 1;
        fs::write(copy.file(last), bytes).unwrap();
    });
    let both = [("orphan", place(first)), ("error", place(last))];
    let report = verify(&copy, scene.name(), &[]).json();
    let both = both.map(|(kind, name)| (kind.to_owned(), name));
    assert_eq!(issues(&report), both, "{report:#}");
    // With --fix the gap shows, the damaged file stays as it is.
    let report = verify(&copy, scene.name(), &["--fix"]).json();
    let kinds: Vec<String> = issues(&report).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, ["orphan", "gap", "error"], "{report:#}");
    let gap = &report["issues"].as_array().unwrap()[1];
    let message = gap["message"].as_str().unwrap();
    assert!(message.starts_with("TXID gap: expected "), "{message}");
    assert!(
        gap["key"]
            .as_str()
            .unwrap()
            .ends_with(second.rsplit('/').next().unwrap())
    );
}

#[test]
fn v1_a_file_of_another_lineage_behind_the_manifest() {
    let scene = stored("stranger", 12, false);
    let other = stored("stranger-other", 13, false);
    let mut writer = other.writer(Spec {
        page_size: 512,
        ..other.spec(13)
    });
    let flags = ["--sync-interval", "10ms"];
    let watch = Watch::ready(&other.bucket, &[&other.database()], &flags);
    watch.wait_attached(&other);
    ship_rows(&watch, &other, &mut writer, 2);
    watch.drain();
    let ours = scene.bucket.ltx_keys();
    let theirs = other.bucket.ltx_keys();
    let next = theirs
        .iter()
        .find(|key| key.contains("/0000/") && !ours.contains(key))
        .unwrap();
    let copy = damaged(&scene, |copy| {
        fs::copy(other.bucket.file(next), copy.file(next)).unwrap();
    });
    check_cell(
        &scene,
        &copy,
        &Expected {
            what: "a stranger",
            issues: &[("error", place(next))],
            mends: false,
        },
    );
}

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
