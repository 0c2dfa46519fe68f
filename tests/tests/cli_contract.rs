//! What scripts and people rely on: usage, output lines, exit status, JSON.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;
use walrust_tests::bucket::Bucket;
use walrust_tests::process::{Output, Process, Signal};
use walrust_tests::program::{Watch, binary, list, points, restore, ship, walrust};
use walrust_tests::scene::Scene;
use walrust_tests::server::{Action, Server};
use walrust_tests::support::PATIENCE;

/// `walrust` with these arguments, in an empty environment of ours and this folder.
fn run(scene: &Scene, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    scene.bucket.environment(&mut command);
    command.args(arguments).current_dir(scene.path());
    Process::run(&mut command, PATIENCE)
}

/// Whether `line` is `pattern`, in which `*` stands for anything.
fn like(line: &str, pattern: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = line.strip_prefix(pieces.next().unwrap()) else {
        return false;
    };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else {
        return rest.is_empty();
    };
    for piece in middle {
        let Some(at) = rest.find(piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[track_caller]
fn assert_lines(text: &str, patterns: &[&str]) {
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), patterns.len(), "{text}");
    for (line, pattern) in lines.iter().zip(patterns) {
        assert!(like(line, pattern), "{line:?} is not {pattern:?}");
    }
}

/// A stream with a base and some incrementals.
fn published(test: &str) -> Scene {
    let scene = Scene::new(test, "myapp.db");
    let mut writer = scene.writer(scene.spec(1));
    writer.steps(10);
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    for _ in 0..3 {
        writer.row();
        ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    }
    scene
}

#[test]
fn r1_r3_help_and_version() {
    let scene = Scene::new("help", "a.db");
    for arguments in [&["help"][..], &["--help"], &["-h"]] {
        let output = run(&scene, arguments).expect_success();
        for command in [
            "snapshot", "watch", "restore", "list", "verify", "drill", "help",
        ] {
            assert!(output.stdout.contains(command), "{}", output.stdout);
        }
    }
    for command in ["snapshot", "watch", "restore", "list", "verify", "drill"] {
        for arguments in [
            &["help", command][..],
            &[command, "--help"],
            &[command, "-h"],
        ] {
            let output = run(&scene, arguments).expect_success();
            assert!(output.stdout.contains("--bucket"), "{}", output.stdout);
            assert!(output.stderr.is_empty(), "{}", output.stderr);
        }
    }
    for flag in ["--version", "-V"] {
        let output = run(&scene, &[flag]).expect_success();
        assert!(
            like(output.stdout.trim(), "walrust *.*.*"),
            "{}",
            output.stdout
        );
    }
}

#[test]
fn v13_r133_usage_errors_exit_1() {
    let scene = Scene::new("usage", "a.db");
    for arguments in [
        &["nonsense"][..],
        &["restore"],
        &["restore", "a.db", "--bucket", "b"],
        &["snapshot", "a.db"],
        &["list"],
        &["watch", "--bucket", "b"],
        &[
            "watch",
            "a.db",
            "--bucket",
            "b",
            "--snapshot-interval",
            "soon",
        ],
        &["watch", "a.db", "--bucket", "b", "--on-startup", "maybe"],
        &["list", "--bucket", "s3://"],
        &["list", "--bucket", "with space"],
        &["list", "--bucket", "b", "--config", "missing.toml"],
        &["restore", "../a.db", "--output", "o", "--bucket", "b"],
        &[
            "restore",
            "a.db",
            "--output",
            "o",
            "--bucket",
            "b",
            "--point-in-time",
            "yesterday",
        ],
    ] {
        let output = run(&scene, arguments);
        assert_eq!(
            output.code(),
            1,
            "{arguments:?}: {}{}",
            output.stdout,
            output.stderr
        );
        assert!(output.stdout.is_empty(), "{arguments:?}: {}", output.stdout);
        assert!(!output.stderr.is_empty(), "{arguments:?}");
        let fine = run(&scene, &[&["--exit-codes", "fine"], arguments].concat());
        assert!(
            [2, 3].contains(&fine.code()),
            "{arguments:?}: {} {}",
            fine.code(),
            fine.stderr
        );
    }
    // No subcommand is a usage error too.
    assert_eq!(run(&scene, &[]).code(), 1);
}

#[test]
fn r34_lines_of_snapshot() {
    let scene = published("snapshot-lines");
    let mut writer = scene.writer(scene.spec(2));
    writer.row();
    drop(writer);
    let url = scene.bucket.url();
    let database = scene.database();
    let database = database.to_str().unwrap();
    let output = run(&scene, &["snapshot", database, "--bucket", &url]).expect_success();
    let first = format!("Snapshotting myapp.db to {url}/myapp.db/...");
    assert_lines(
        &output.stdout,
        &[&first, "✓ Snapshot complete (*B, *s)", "  Checksum: *..."],
    );
    let checksum = output
        .stdout
        .lines()
        .last()
        .unwrap()
        .trim_start_matches("  Checksum: ")
        .trim_end_matches("...");
    assert!(
        checksum.len() == 16 && checksum.chars().all(|digit| digit.is_ascii_hexdigit()),
        "{checksum}"
    );
    // r35: the same value wherever it is shown.
    let report = restore(
        &scene.bucket,
        scene.name(),
        &scene.path().join("out.db"),
        None,
    )
    .json();
    assert_eq!(report["checksum"], checksum);
    // r40: a second one says that there is nothing to do.
    let again = run(&scene, &["snapshot", database, "--bucket", &url, "--json"]).expect_success();
    assert_eq!(again.json()["skipped"], true);
    // r39: what is no database uploads nothing.
    for (name, content) in [
        ("missing.db", None),
        (
            "text.db",
            Some("just text, longer than a header".repeat(40)),
        ),
    ] {
        let path = scene.path().join("data").join(name);
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let output = run(
            &scene,
            &["snapshot", path.to_str().unwrap(), "--bucket", &url],
        )
        .expect_failure();
        assert!(output.stderr.contains(name), "{}", output.stderr);
        assert!(
            !scene.bucket.keys().iter().any(|key| key.starts_with(name)),
            "{:?}",
            scene.bucket.keys()
        );
    }
}

#[test]
fn r52_r53_lines_of_watch() {
    let scene = Scene::new("watch-lines", "app.db");
    let mut writer = scene.writer(scene.spec(3));
    writer.row();
    let other = scene.path().join("data/users.db");
    let keep = rusqlite::Connection::open(&other).unwrap();
    keep.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(x)")
        .unwrap();
    let flags = ["--sync-interval", "50ms", "--max-changes", "40"];
    let mut watch = Watch::start(&scene.bucket, &[&scene.database(), &other], &flags);
    watch
        .process
        .wait_for(PATIENCE, |line| line == "Watching 2 database(s)...\n");
    watch
        .process
        .wait_for(PATIENCE, |line| line == "  - app.db\n");
    watch
        .process
        .wait_for(PATIENCE, |line| line == "  - users.db\n");
    watch.wait_stored(&scene, PATIENCE);
    writer.row();
    watch.process.wait_for(PATIENCE, |line| {
        like(line, "[20*-*-* *:*:*] app.db: WAL sync (* frames, *KB)\n")
    });
    for _ in 0..40 {
        writer.row();
    }
    watch.process.wait_for(PATIENCE, |line| {
        like(line, "[20*-*-* *:*:*] app.db: Max changes snapshot (*B)\n")
    });
    let output = watch.stop().expect_success();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "Watching 2 database(s)...",
            "  - app.db",
            "  - users.db",
            ""
        ]
    );
}

#[test]
fn r72_lines_of_restore() {
    let scene = published("restore-lines");
    let url = scene.bucket.url();
    let output = run(
        &scene,
        &[
            "restore",
            "myapp.db",
            "--output",
            "restored.db",
            "--bucket",
            &url,
        ],
    )
    .expect_success();
    let first = format!("Restoring myapp.db from {url}/...");
    assert_lines(
        &output.stdout,
        &[
            &first,
            "  Downloading snapshot... done (*B)",
            "  Applying WAL segments... done (* segments)",
            "  Verifying checksum... ✓ *...",
            "✓ Restored to restored.db",
        ],
    );
    let listed = run(&scene, &["list", "--bucket", &url, "--json"])
        .expect_success()
        .json();
    let segments = listed["databases"][0]["segments"].as_u64().unwrap();
    assert!(
        output
            .stdout
            .contains(&format!("done ({segments} segments)")),
        "{}",
        output.stdout
    );
    // r83: a missing parent folder.
    run(
        &scene,
        &[
            "restore",
            "myapp.db",
            "--output",
            "none/restored.db",
            "--bucket",
            &url,
        ],
    )
    .expect_failure();
    // r20: an unknown name tells what is there.
    let output = run(
        &scene,
        &["restore", "myapp", "--output", "x.db", "--bucket", &url],
    )
    .expect_failure();
    assert!(output.stderr.contains("myapp.db"), "{}", output.stderr);
}

#[test]
fn r117_lines_of_list() {
    let scene = published("list-lines");
    let mut writer = scene.writer(walrust_tests::workload::Spec::new(
        &scene.path().join("data/another.db"),
        &scene.path().join("log2"),
        4,
    ));
    writer.steps(10);
    ship::<&str>(&scene.bucket, &scene.path().join("data/another.db"), &[]).expect_success();
    let url = scene.bucket.url();
    // r119: what is not a database is no database.
    fs::create_dir_all(scene.bucket.file("photos")).unwrap();
    fs::write(scene.bucket.file("photos/cat.jpg"), "x").unwrap();
    let output = run(&scene, &["list", "--bucket", &url]).expect_success();
    let first = format!("Databases in {url}/:");
    let entry = [
        "    Latest snapshot: 20*-*-* *:*:* (*B)",
        "    WAL segments: *",
        "    Checksum: *...",
    ];
    let expected = [
        &[first.as_str(), "", "  another.db"][..],
        &entry[..],
        &["", "  myapp.db"][..],
        &entry[..],
    ]
    .concat();
    assert_lines(output.stdout.trim_end(), &expected);
    let empty = scene.bucket.below("nothing");
    fs::create_dir_all(empty.folder()).unwrap();
    let output = run(&scene, &["list", "--bucket", &empty.url()]).expect_success();
    assert_eq!(
        output
            .stdout
            .lines()
            .filter(|line| !line.is_empty())
            .count(),
        1,
        "{}",
        output.stdout
    );
    // r120: a damaged manifest is an entry, the others are still listed.
    fs::write(scene.bucket.file("another.db/manifest.json"), "{").unwrap();
    let output = run(&scene, &["list", "--bucket", &url]);
    assert_eq!(output.code(), 1);
    assert!(
        output.stdout.contains("myapp.db") && output.stdout.contains("another.db"),
        "{}",
        output.stdout
    );
}

/// The fields of an object, which may be more than those named.
#[track_caller]
fn assert_fields(value: &Value, fields: &str) {
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("{value} is no object"));
    let missing: Vec<_> = fields
        .split(' ')
        .filter(|field| !object.contains_key(*field))
        .collect();
    assert!(missing.is_empty(), "{missing:?} are missing in {value}");
}

#[test]
fn json_of_each_command() {
    let scene = published("json");
    let url = scene.bucket.url();
    let database = scene.database();
    let mut writer = scene.writer(scene.spec(5));
    writer.row();
    drop(writer);
    let snapshot = run(
        &scene,
        &[
            "snapshot",
            database.to_str().unwrap(),
            "--bucket",
            &url,
            "--json",
        ],
    )
    .json();
    assert_eq!(snapshot["v"], 1);
    assert_fields(
        &snapshot,
        "database name bucket key txid txid_hex bytes pages page_size checksum digest duration_ms skipped",
    );
    let restored = restore(
        &scene.bucket,
        scene.name(),
        &scene.path().join("out.db"),
        None,
    )
    .json();
    assert_eq!(restored["v"], 1);
    assert_fields(
        &restored,
        "name output txid txid_hex time checksum digest snapshot segments bytes_downloaded bytes_written requests \
         duration_ms verified format notes",
    );
    assert_eq!(
        restored["txid_hex"],
        format!("{:016x}", restored["txid"].as_u64().unwrap())
    );
    let all = run(&scene, &["list", "--bucket", &url, "--json"]).json();
    assert_fields(&all, "v bucket databases");
    assert_fields(
        &all["databases"][0],
        "name format latest_snapshot segments txid time checksum page_size objects bytes error",
    );
    assert_fields(
        &all["databases"][0]["latest_snapshot"],
        "key txid time bytes",
    );
    let one = list(&scene.bucket, scene.name());
    assert_fields(
        &one,
        "v name bucket format page_size lineage earliest latest files points",
    );
    assert_fields(
        &one["files"][0],
        "key kind min_txid max_txid first_commit last_commit created bytes pages checksum digest",
    );
    assert_eq!(one["latest"]["txid"], restored["txid"]);
    let error = run(
        &scene,
        &[
            "restore", "none.db", "--output", "x.db", "--bucket", &url, "--json",
        ],
    );
    assert_eq!(error.code(), 1);
    assert_fields(&error.json()["error"], "kind message object hint");
    // Events of watch: one object a line.
    let mut writer = scene.writer(scene.spec(6));
    let watch = Watch::start(
        &scene.bucket,
        &[&database],
        &["--json", "--sync-interval", "50ms"],
    );
    watch.wait_attached(&scene);
    writer.row();
    watch.wait_stored(&scene, PATIENCE);
    let output = watch.stop().expect_success();
    let events: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: BTreeSet<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert!(
        ["watching", "sync", "drained"]
            .iter()
            .all(|kind| kinds.contains(kind)),
        "{kinds:?}"
    );
    events
        .iter()
        .for_each(|event| assert_fields(event, "event time database name txid"));
}

#[test]
fn p1_p3_p4_targets_across_snapshots_and_outside() {
    let scene = Scene::new("targets", "a.db");
    let mut writer = scene.writer(scene.spec(7));
    let mut reached = Vec::new();
    for _ in 0..8 {
        let seq = writer.row();
        ship(&scene.bucket, &scene.database(), &["--on-startup", "true"]).expect_success();
        reached.push((
            list(&scene.bucket, "a.db")["latest"]["txid"]
                .as_u64()
                .unwrap(),
            seq,
        ));
    }
    let oracle = scene.oracle();
    let output = scene.path().join("out.db");
    for (txid, seq) in &reached {
        restore(&scene.bucket, "a.db", &output, Some(&txid.to_string())).expect_success();
        oracle.check_file(&output, *seq).unwrap();
        fs::remove_file(&output).unwrap();
    }
    let points = points(&scene.bucket, "a.db");
    let (earliest, latest) = (points.first().unwrap().txid, points.last().unwrap().txid);
    assert_eq!(latest, reached.last().unwrap().0);
    // p3: the future, by time and TXID; p4: before the first point.
    let refused = |target: &str| {
        restore(&scene.bucket, "a.db", &output, Some(target))
            .expect_failure()
            .stderr
    };
    for target in [
        "2099-01-01T00:00:00Z",
        &(latest + 1).to_string(),
        "txid:999999",
    ] {
        let told = refused(target);
        assert!(told.contains(&latest.to_string()), "{target}: {told}");
    }
    for target in ["2001-01-01", "2001-01-01T00:00:00+02:00"] {
        let told = refused(target);
        assert!(told.contains(&earliest.to_string()), "{target}: {told}");
    }
    assert!(!output.exists());
    // A time after the newest point, but not in the future, is the newest point.
    let now = jiff::Timestamp::from_millisecond(walrust_tests::record::now())
        .unwrap()
        .to_string();
    restore(&scene.bucket, "a.db", &output, Some(&now)).expect_success();
    oracle.check_file(&output, oracle.last().seq).unwrap();
}

#[test]
fn p8_list_shows_the_earliest_and_the_latest_restorable_time() {
    let scene = published("history");
    let (name, oracle) = (scene.name(), scene.oracle());
    let described = list(&scene.bucket, name);
    let points = points(&scene.bucket, name);
    assert!(points.len() > 2, "{described}");
    let url = scene.bucket.url();
    let lines = run(&scene, &["list", name, "--bucket", &url]).expect_success();
    let output = scene.path().join("out.db");
    let ends = [
        ("earliest", points.first().unwrap()),
        ("latest", points.last().unwrap()),
    ];
    for (which, point) in ends {
        assert_eq!(described[which]["txid"], point.txid, "{described}");
        assert_eq!(described[which]["time"], point.time.as_str(), "{described}");
        let told = |line: &str| {
            line.to_lowercase()
                .contains(&format!("{which} restore point"))
                && line.contains(&format!("(TXID: {})", point.txid))
        };
        assert!(lines.stdout.lines().any(told), "{which}: {}", lines.stdout);
        // As it is told, it is a target; and it is an end of the history.
        let report = restore(&scene.bucket, name, &output, Some(&point.time));
        let report = report.expect_success().json();
        assert_eq!(report["txid"], point.txid, "{report}");
        oracle.find(&output).unwrap();
        fs::remove_file(&output).unwrap();
    }
    let before = points.first().unwrap().millis() - 1;
    let before = jiff::Timestamp::from_millisecond(before).unwrap();
    let before = before.to_string();
    restore(&scene.bucket, name, &output, Some(&before)).expect_failure();
}

#[test]
fn restore_flags() {
    let scene = published("restore-flags");
    let oracle = scene.oracle();
    let output = scene.path().join("out.db");
    let restore_with = |name: &str, flags: &[&str]| {
        let mut command = walrust(&scene.bucket, "restore");
        command.arg(name).arg("--output").arg(&output).args(flags);
        Process::run(&mut command, PATIENCE)
    };
    // --when-no-backup
    restore_with("none.db", &["--if-missing"]).expect_failure();
    restore_with(
        "none.db",
        &["--if-missing", "--when-no-backup", "start-fresh"],
    )
    .expect_success();
    assert!(!output.exists());
    // --if-missing leaves what a watcher needs; a second run does nothing.
    restore_with("myapp.db", &["--if-missing"]).expect_success();
    oracle.check_file(&output, oracle.last().seq).unwrap();
    assert!(scene.path().join(".out.db-walrust").is_dir());
    fs::write(&output, "mine").unwrap();
    restore_with("myapp.db", &["--if-missing"]).expect_success();
    assert_eq!(fs::read(&output).unwrap(), b"mine");
    for verify in ["none", "quick", "full"] {
        let report =
            restore_with("myapp.db", &["--force", "--json", "--verify", verify]).expect_success();
        assert_eq!(report.json()["verified"], verify);
        oracle.check_file(&output, oracle.last().seq).unwrap();
    }
    // --force is refused while somebody has the database open.
    let keep = rusqlite::Connection::open(&output).unwrap();
    keep.execute_batch("PRAGMA journal_mode = WAL; BEGIN; SELECT * FROM items")
        .unwrap();
    restore_with("myapp.db", &["--force"]).expect_failure();
}

#[test]
fn r8_r5_bucket_from_the_configuration() {
    let scene = published("configured");
    let config = |text: String| fs::write(scene.path().join("walrust.toml"), text).unwrap();
    config(format!("[s3]\nbucket = \"{}\"\n", scene.bucket.url()));
    run(&scene, &["list"]).expect_success();
    run(&scene, &["list", "myapp.db"]).expect_success();
    run(&scene, &["restore", "myapp.db", "-o", "out.db"]).expect_success();
    // The flag is stronger than the file.
    let output = run(
        &scene,
        &["list", "--bucket", &scene.bucket.below("none").url()],
    );
    assert!(!output.stdout.contains("myapp.db"));
    // Databases from the file alone, with a prefix and a glob.
    fs::create_dir(scene.path().join("many")).unwrap();
    for name in ["one.db", "two.db"] {
        let path = scene.path().join("many").join(name);
        let connection = rusqlite::Connection::open(path).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(x)")
            .unwrap();
    }
    config(format!(
        "[s3]\nbucket = \"{}\"\n[[databases]]\npath = \"{}\"\nprefix = \"main\"\n[[databases]]\npath = \"{}/*.db\"\n\
         prefix = \"tenants\"\n",
        scene.bucket.url(),
        scene.database().display(),
        scene.path().join("many").display()
    ));
    run(&scene, &["watch", "--once", "--no-metrics"]).expect_success();
    let output = run(&scene, &["list"]).expect_success();
    for name in ["  main", "  tenants/one.db", "  tenants/two.db"] {
        assert!(
            output.stdout.lines().any(|line| line == name),
            "{}",
            output.stdout
        );
    }
    // v9: an unknown key is an error with its place.
    config("[s3]\nbuckets = \"b\"\n".to_owned());
    let output = run(&scene, &["list"]).expect_failure();
    assert!(
        output.stderr.contains("walrust.toml") && output.stderr.contains("buckets"),
        "{}",
        output.stderr
    );
}

#[test]
fn r19_v8_two_databases_under_one_name_are_refused() {
    let scene = published("collision");
    let other = scene.path().join("myapp.db");
    let connection = rusqlite::Connection::open(&other).unwrap();
    connection
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(x)")
        .unwrap();
    let watch = Watch::start::<&str>(&scene.bucket, &[&scene.database(), &other], &[]);
    let output = watch.process.output(PATIENCE).expect_failure();
    assert!(
        output.stderr.matches("myapp.db").count() >= 2,
        "{}",
        output.stderr
    );
    let watch = Watch::start::<&str>(&scene.bucket, &[&scene.database(), &scene.database()], &[]);
    watch.process.output(PATIENCE).expect_failure();
}

#[test]
fn r69_startup_errors_end_quickly() {
    let server = Server::start();
    let scene = Scene::on("startup-errors", "a.db", server.bucket("backups"));
    let missing = scene.path().join("missing.db");
    Watch::start::<&str>(&scene.bucket, &[&missing], &[])
        .process
        .output(PATIENCE)
        .expect_failure();
    let mut writer = scene.writer(scene.spec(8));
    writer.row();
    // Credentials that the store refuses.
    let mut command = walrust(&scene.bucket, "watch");
    command
        .arg("--no-metrics")
        .arg(scene.database())
        .env("AWS_SECRET_ACCESS_KEY", "not-the-secret");
    let output = Process::run(&mut command, PATIENCE).expect_failure();
    assert!(
        !output.stderr.contains("not-the-secret"),
        "{}",
        output.stderr
    );
    // None at all.
    let mut command = walrust(&scene.bucket, "list");
    command
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env("HOME", scene.path());
    Process::run(&mut command, PATIENCE).expect_failure();
    // A store that is not there yet is waited for.
    server.rule(|_| Action::Fail(503));
    let mut watch = Watch::start(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    walrust_tests::support::until("it tried several times", PATIENCE, || {
        assert!(
            watch.process.poll().is_none(),
            "{}",
            watch.process.printed()
        );
        (server
            .calls()
            .iter()
            .filter(|call| call.status == 503)
            .count()
            > 5)
        .then_some(())
    });
    server.no_rule();
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
}

#[test]
fn v12_piped_output_holds_results_only() {
    let scene = published("piped");
    let url = scene.bucket.url();
    let mut command = Command::new(binary());
    scene.bucket.environment(&mut command);
    command
        .args(["list", "--bucket", &url, "--json"])
        .env("RUST_LOG", "trace")
        .current_dir(scene.path());
    let output = Process::run(&mut command, PATIENCE).expect_success();
    assert_eq!(output.json()["v"], 1);
    assert!(!output.stdout.contains('\u{1b}'));
}

#[test]
fn sigint_drains_like_sigterm() {
    let scene = Scene::new("sigint", "a.db");
    let mut writer = scene.writer(scene.spec(9));
    let mut watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "1h"],
    );
    watch.wait_stored(&scene, PATIENCE);
    writer.row();
    writer.row();
    writer.row();
    watch.process.signal(Signal::INT);
    watch.process.output(PATIENCE).expect_success();
    let output = scene.path().join("out.db");
    restore(&scene.bucket, scene.name(), &output, None).expect_success();
    scene
        .oracle()
        .check_file(&output, scene.oracle().last().seq)
        .unwrap();
}

#[test]
fn completions_and_man_pages() {
    let scene = Scene::new("completions", "a.db");
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&scene, &["completions", shell]).expect_success();
        assert!(output.stdout.contains("snapshot"), "{shell}");
    }
    run(&scene, &["man", "pages"]).expect_success();
    assert!(fs::read_dir(scene.path().join("pages")).unwrap().count() >= 5);
}

#[test]
fn a_folder_is_as_good_as_a_bucket() {
    // The two commands of the quick start.
    let scene = Scene::new("quick-start", "a.db");
    let mut writer = scene.writer(scene.spec(10));
    writer.steps(5);
    let Bucket::Folder(folder) = &scene.bucket else {
        unreachable!()
    };
    fs::remove_dir(folder).unwrap();
    let url = scene.bucket.url();
    let database = scene.database();
    run(
        &scene,
        &[
            "watch",
            database.to_str().unwrap(),
            "--bucket",
            &url,
            "--once",
        ],
    )
    .expect_success();
    run(&scene, &["restore", "a.db", "-o", "back.db", "-b", &url]).expect_success();
    let oracle = scene.oracle();
    oracle
        .check_file(&scene.path().join("back.db"), oracle.last().seq)
        .unwrap();
}
