//! `compact`: what goes, what stays, and that nobody is disturbed by it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use walrust_tests::aged::{MOMENTS, aged};
use walrust_tests::bucket::Bucket;
use walrust_tests::process::{Output, Process};
use walrust_tests::program::{
    App, Watch, assert_every_point, assert_newest, assert_no_rebase, files_of_kind, list, points,
    restored_commits, ship, walrust, walrust_configured,
};
use walrust_tests::scene::Scene;
use walrust_tests::server::{Action, Server};
use walrust_tests::support::{PATIENCE, announce, rounds, seeds, until};
use walrust_tests::weed::Weed;
use walrust_tests::workload::Spec;

/// `compact NAME` with these further arguments.
fn compact(bucket: &Bucket, name: &str, arguments: &[&str]) -> Output {
    let mut command = walrust(bucket, "compact");
    command.arg(name).args(arguments);
    Process::run(&mut command, PATIENCE)
}

#[track_caller]
fn compact_json(bucket: &Bucket, name: &str, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--json"]].concat();
    compact(bucket, name, &arguments).expect_success().json()
}

fn txids(lines: &Value) -> Vec<u64> {
    let lines = lines.as_array().unwrap().iter();
    lines.map(|line| line["txid"].as_u64().unwrap()).collect()
}

/// The commit log's number of each point.
fn advertised(scene: &Scene) -> Vec<u64> {
    let points = points(&scene.bucket, scene.name());
    points.into_iter().map(|point| point.txid).collect()
}

/// The objects of the database but for what a compaction itself writes.
fn ltx(bucket: &Bucket) -> BTreeSet<String> {
    bucket.ltx_keys().into_iter().collect()
}

/// Every so many points, and always the first and the last.
#[track_caller]
fn assert_some_points(scene: &Scene, most: usize) {
    let oracle = scene.oracle();
    let points = points(&scene.bucket, scene.name());
    let step = points.len().div_ceil(most).max(1);
    for point in points.iter().step_by(step).chain(points.last()) {
        let wanted = format!("txid:{}", point.txid);
        restored_commits(
            &scene.bucket,
            scene.name(),
            scene.path(),
            Some(&wanted),
            &oracle,
        );
    }
    assert_newest(&scene.bucket, scene.name(), scene.path(), &oracle);
}

#[test]
fn g5_g11_g13_every_tier_and_the_points_do_what_their_settings_say() {
    let scene = aged("aged", "a.db", None);
    let all: Vec<u64> = files_of_kind(&scene.bucket, scene.name(), "snapshot")
        .iter()
        .map(|file| file["max_txid"].as_u64().unwrap())
        .collect();
    assert_eq!(all.len(), MOMENTS.len() + 1, "one at the start");
    let before = ltx(&scene.bucket);
    let kept = |arguments: &[&str]| {
        let plan = compact_json(&scene.bucket, scene.name(), arguments);
        assert_eq!(plan["dry_run"], true);
        let (keep, delete) = (txids(&plan["keep"]), txids(&plan["delete"]));
        assert!(keep.is_sorted_by(|a, b| a > b) && delete.is_sorted_by(|a, b| a > b));
        let mut both = [keep.clone(), delete].concat();
        both.sort_unstable();
        assert_eq!(both, all, "{plan}");
        // One more may be there for the points before the oldest of them.
        let lines = plan["keep"].as_array().unwrap().iter();
        let by_tier = lines.filter(|line| line["tiers"] != serde_json::json!(["point"]));
        by_tier.count()
    };
    let only = |tier: &str, count: &str| {
        let mut arguments = Vec::new();
        for name in ["--hourly", "--daily", "--weekly", "--monthly"] {
            arguments.extend([name, if name == tier { count } else { "0" }]);
        }
        kept(&arguments)
    };
    // The hours of the last two days, by the moments above; two stay at least.
    assert_eq!([only("--hourly", "1"), only("--hourly", "3")], [2, 2]);
    assert_eq!([only("--hourly", "6"), only("--hourly", "24")], [3, 4]);
    assert_eq!(only("--hourly", "48"), 6);
    assert!(only("--daily", "6") >= 5 && only("--daily", "2") < only("--daily", "6"));
    assert!(only("--monthly", "12") >= 4 && only("--monthly", "1") == 2);
    assert!(only("--weekly", "12") > only("--weekly", "2"));
    assert!(
        kept(&[])
            > kept(&[
                "--hourly",
                "6",
                "--daily",
                "3",
                "--weekly",
                "4",
                "--monthly",
                "3"
            ])
    );
    assert_eq!(ltx(&scene.bucket), before, "a dry run deletes nothing");

    // The plan is the same over a copy, whatever the copy's objects are dated.
    let copy = scene.bucket.copy_to(&scene.path().join("copy"));
    let plan = compact_json(&scene.bucket, scene.name(), &[]);
    assert_eq!(compact_json(&copy, scene.name(), &[]), plan);
    assert!(plan["delete_objects"].as_u64().unwrap() > 5, "{plan}");

    // The configuration says the same as the flags, and an entry of its own more than the rest.
    let configuration = scene.path().join("walrust.toml");
    let text = |entry: &str| {
        format!(
            "[s3]\nbucket = \"{}\"\n[retention]\nhourly = 0\ndaily = 0\nweekly = 0\nmonthly = 12\n\
             points = 0\n[[databases]]\npath = \"{}\"\n{entry}",
            scene.bucket.url(),
            scene.database().display()
        )
    };
    let configured = |entry: &str| {
        fs::write(&configuration, text(entry)).unwrap();
        let mut command = walrust_configured(&scene.bucket, &configuration, "compact");
        command.args([scene.name(), "--json"]);
        let plan = Process::run(&mut command, PATIENCE).expect_success().json();
        {
            let lines = plan["keep"].as_array().unwrap().iter();
            let by_tier = lines.filter(|line| line["tiers"] != serde_json::json!(["point"]));
            by_tier.count()
        }
    };
    assert_eq!(configured(""), only("--monthly", "12"));
    assert_eq!(
        configured("retention = { hourly = 48, monthly = 0 }"),
        only("--hourly", "48")
    );

    // For people: the lines of the reference.
    let shown = compact(&scene.bucket, scene.name(), &[])
        .expect_success()
        .stdout;
    let mut lines = shown.lines();
    assert_eq!(lines.next(), Some("Compaction plan for 'a.db':"));
    let (keep, delete) = (txids(&plan["keep"]), txids(&plan["delete"]));
    let megabytes = plan["free_bytes"].as_u64().unwrap() as f64 / 1_048_576.0;
    let counts = format!(
        "  Keep: {} snapshots, Delete: {} snapshots, Free: {megabytes:.2} MB",
        keep.len(),
        delete.len()
    );
    assert_eq!(lines.next(), Some(counts.as_str()));
    assert!(
        shown.contains(&format!("\n\nKeeping {} snapshots:\n", keep.len())),
        "{shown}"
    );
    assert!(
        shown.contains(&format!("\n\nDeleting {} snapshots:\n", delete.len())),
        "{shown}"
    );
    let newest = format!(
        "  0000000000000001-{:016x}.ltx (TXID: {}, 0 minutes ago)",
        keep[0], keep[0]
    );
    assert!(shown.contains(&newest), "{shown}");
    assert!(shown.contains("months ago)\n"), "{shown}");
    let last = "\n\nDry-run mode: no files deleted. Use --force to actually delete.\n";
    assert!(shown.ends_with(last), "{shown}");

    // And it is done.
    let done = compact(&scene.bucket, scene.name(), &["--force"])
        .expect_success()
        .stdout;
    assert!(done.contains("Compaction complete: deleted "), "{done}");
    let after = ltx(&scene.bucket);
    assert!(after.is_subset(&before) && after.len() < before.len());
    assert_eq!(
        before.len() - after.len(),
        plan["delete_objects"].as_u64().unwrap() as usize
    );
    assert_eq!(
        advertised(&scene).len() as u64,
        plan["points_after"].as_u64().unwrap()
    );
    assert_eq!(
        advertised(&scene)[0],
        plan["earliest"]["txid"].as_u64().unwrap()
    );
    assert_every_point(&scene);
    let again = compact(&scene.bucket, scene.name(), &["--force"])
        .expect_success()
        .stdout;
    assert!(
        again.starts_with("Nothing to delete: 'a.db' keeps "),
        "{again}"
    );
    assert_eq!(again.lines().count(), 1);

    // The next watcher goes on from there, also after everything but the boundaries went.
    let strict = ["--force", "--points", "0", "--hourly", "2"];
    compact(&scene.bucket, scene.name(), &strict).expect_success();
    let mut writer = scene.writer(scene.spec(1));
    writer.row();
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    assert_every_point(&scene);
}

/// The flags of `watch` and `compact` for these counts of hours, days, weeks and months.
fn tiers(prefix: &str, counts: [u32; 4]) -> Vec<String> {
    let names = ["hourly", "daily", "weekly", "monthly"].into_iter();
    let flags = names
        .zip(counts)
        .map(|(name, count)| format!("--{prefix}{name}={count}"));
    flags.collect()
}

#[test]
fn g11_r48_r49_each_retention_setting_of_a_watch_has_its_effect() {
    let scene = aged("watch-flags", "a.db", None);
    let snapshots = || -> Vec<u64> {
        let files = files_of_kind(&scene.bucket, scene.name(), "snapshot");
        let txids = files.iter().map(|file| file["max_txid"].as_u64().unwrap());
        txids.rev().collect()
    };
    let configuration = scene.path().join("walrust.toml");
    // Each step takes one tier away; the last one says so for this database alone.
    let steps = [
        [48, 7, 12, 12],
        [1, 7, 12, 12],
        [1, 1, 12, 12],
        [1, 1, 1, 12],
        [1, 1, 1, 1],
    ];
    for (number, counts) in steps.into_iter().enumerate() {
        let flags = tiers("", counts);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let plan = || compact_json(&scene.bucket, scene.name(), &flags);
        let planned = plan();
        assert!(
            !txids(&planned["delete"]).is_empty(),
            "{counts:?}: {planned}"
        );
        let mut command = if number + 1 < steps.len() {
            let mut command = walrust(&scene.bucket, "watch");
            command
                .args(["--compact-interval", "1", "--snapshot-interval", "0"])
                .args(tiers("retain-", counts))
                .arg(scene.database());
            command
        } else {
            let text = format!(
                "[s3]\nbucket = \"{}\"\n[sync]\nsnapshot_interval = 0\n\
                 [retention]\nhourly = 1\ndaily = 1\nweekly = 1\n\
                 [[databases]]\npath = \"{}\"\ncompact_interval = 1\nretention = {{ monthly = 1 }}\n",
                scene.bucket.url(),
                scene.database().display()
            );
            fs::write(&configuration, text).unwrap();
            walrust_configured(&scene.bucket, &configuration, "watch")
        };
        let watch = Watch {
            process: Process::spawn(command.arg("--no-metrics")),
        };
        let left = until("the watch has compacted", PATIENCE, || {
            let left = plan();
            (left["delete_objects"] == 0).then_some(left)
        });
        watch.drain();
        // Unless an hour ended in between, exactly what was to go went.
        if planned["keep"] == left["keep"] {
            assert_eq!(snapshots(), txids(&planned["keep"]), "{counts:?}");
        }
    }
    assert_no_rebase(&scene);
    assert_every_point(&scene);
}

/// A folder as it was, put back at will.
struct Saved {
    folder: std::path::PathBuf,
    copy: std::path::PathBuf,
}

impl Saved {
    fn new(folder: &Path, copy: &Path) -> Self {
        let saved = Self {
            folder: folder.to_owned(),
            copy: copy.to_owned(),
        };
        copy_all(&saved.folder, &saved.copy);
        saved
    }

    fn load(&self) {
        fs::remove_dir_all(&self.folder).unwrap();
        copy_all(&self.copy, &self.folder);
    }
}

/// With hidden files, which the server keeps beside objects, and with times.
fn copy_all(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn g6_deletions_that_fail_after_any_number_lose_nothing_and_the_next_run_converges() {
    let server = Server::start();
    let scene = aged("partial", "a.db", Some(server.bucket("backups")));
    let root = scene.bucket.folder().to_owned();
    let saved = Saved::new(&root, &scene.path().join("saved"));
    let force = ["--force", "--points", "0", "--hourly", "3", "--daily", "3"];
    let whole = compact_json(&scene.bucket, scene.name(), &force);
    let (expected, points) = (ltx(&scene.bucket), advertised(&scene));
    let objects = whole["delete_objects"].as_u64().unwrap();
    assert!(objects > 20, "{whole}");
    for deletions in 0..objects {
        saved.load();
        // One by one, as stores have it that know no deletion of many.
        let left = AtomicU64::new(deletions);
        server.rule(move |call| match call.method.as_str() {
            "POST" if call.query.contains("delete") => Action::Fail(501),
            "DELETE" if call.path.contains(".walrust") => Action::Pass,
            "DELETE" if left.load(Ordering::SeqCst) == 0 => Action::Fail(403),
            "DELETE" => {
                left.fetch_sub(1, Ordering::SeqCst);
                Action::Pass
            }
            _ => Action::Pass,
        });
        let failed = compact(&scene.bucket, scene.name(), &force).expect_failure();
        server.no_rule();
        let told = format!(
            "{} of {objects} objects were not deleted",
            objects - deletions
        );
        assert!(failed.stderr.contains(&told), "{}", failed.stderr);
        assert_eq!(advertised(&scene), points, "after {deletions}");
        if deletions % 6 == 0 {
            assert_some_points(&scene, 5);
        }
        let rest = compact_json(&scene.bucket, scene.name(), &force);
        assert_eq!(rest["delete_objects"], objects - deletions);
        assert_eq!(ltx(&scene.bucket), expected, "after {deletions}");
        assert_eq!(advertised(&scene), points);
    }
    assert_some_points(&scene, 20);
}

#[test]
fn g12_a_store_that_fails_a_request_has_nothing_deleted() {
    let server = Server::start();
    let scene = aged("no-list", "a.db", Some(server.bucket("backups")));
    let before = ltx(&scene.bucket);
    let force = ["--force", "--points", "0", "--hourly", "3"];
    for (what, status) in [("list-type", 403), ("manifest.json", 403), ("/index/", 403)] {
        server.rule(move |call| {
            let hit =
                call.method == "GET" && format!("{}?{}", call.path, call.query).contains(what);
            if hit {
                Action::Fail(status)
            } else {
                Action::Pass
            }
        });
        let outcome = compact(&scene.bucket, scene.name(), &force);
        server.no_rule();
        // There are no pages of the index yet.
        if what != "/index/" {
            outcome.expect_failure();
            assert_eq!(ltx(&scene.bucket), before, "{what}");
        } else {
            outcome.expect_success();
        }
    }
    // Now there is one, which names what was deleted.
    let before = ltx(&scene.bucket);
    server.rule(|call| {
        let hit = call.method == "GET" && call.path.contains("/index/");
        if hit { Action::Fail(403) } else { Action::Pass }
    });
    compact(
        &scene.bucket,
        scene.name(),
        &["--force", "--hourly", "1", "--daily", "1"],
    )
    .expect_failure();
    server.no_rule();
    assert_eq!(ltx(&scene.bucket), before);
    assert_some_points(&scene, 10);
}

/// A watch that keeps points for seconds and snapshots whenever it can.
fn hasty(scene: &Scene, points: &str) -> Vec<String> {
    let configuration = scene.path().join("hasty.toml");
    let text =
        format!("[retention]\nhourly = 2\ndaily = 1\npoints = \"{points}\"\nminutes = \"1h\"\n");
    fs::write(&configuration, text).unwrap();
    let configuration = configuration.display().to_string();
    [
        "--config",
        &configuration,
        "--sync-interval",
        "50ms",
        "--max-changes",
        "60",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn g1_g2_a_watch_compacts_beside_its_writers_and_every_point_left_is_exact() {
    for seed in seeds(1) {
        announce("compact", seed);
        let scene = Scene::new("hasty", "a.db");
        let spec = Spec {
            rate: Some(12.0),
            upheaval: true,
            checkpoints: true,
            auto_vacuum: 2,
            ..scene.spec(seed)
        };
        let mut app = App::ready(&spec);
        app.wait_commits(10);
        let mut flags = hasty(&scene, "4s");
        flags.extend(["--compact-after-snapshot".to_owned(), "--json".to_owned()]);
        let mut watch = Watch::start(&scene.bucket, &[&scene.database()], &flags);
        watch
            .process
            .wait_for(PATIENCE, |line| line.contains("\"watching\""));
        // Across the end of a minute, so that merged files take the place of others.
        let merged = || {
            scene
                .bucket
                .ltx_keys()
                .iter()
                .any(|key| key.contains("/0001/"))
        };
        until(
            "a merged file",
            PATIENCE * 2 + Duration::from_secs(20),
            || merged().then_some(()),
        );
        for _ in 0..rounds(4) {
            let count = scene.oracle().commits().len() as u64;
            app.wait_commits(count + 40);
            // What is listed may go the next moment; what is listed afterwards is exact.
            let oracle = scene.oracle();
            restored_commits(&scene.bucket, scene.name(), scene.path(), None, &oracle);
        }
        app.stop();
        let output = watch.stop().expect_success();
        let events: Vec<Value> = output
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let of = |name: &'static str| events.iter().filter(move |event| event["event"] == name);
        let freed: u64 = of("compact")
            .filter_map(|event| event["bytes"].as_u64())
            .sum();
        assert!(of("compact").count() > 2 && freed > 0, "{}", output.stdout);
        assert_eq!(
            of("error").count() + of("rebase").count(),
            0,
            "{}",
            output.stdout
        );
        let stored = of("sync").count();
        let left = scene
            .bucket
            .ltx_keys()
            .iter()
            .filter(|key| key.contains("/0000/"))
            .count();
        assert!(left < stored, "{left} of {stored}");
        assert_every_point(&scene);
        let snapshots = files_of_kind(&scene.bucket, scene.name(), "snapshot").len();
        let taken = of("snapshot").count();
        assert!(snapshots < taken, "{snapshots} of {taken}");
        // Another compaction finds what the last one left, and nothing breaks.
        compact(&scene.bucket, scene.name(), &["--force", "--points", "0"]).expect_success();
        assert_every_point(&scene);
    }
}

#[test]
fn g14_r99_restores_watch_and_three_compactions_at_once() {
    let server = Server::start();
    let scene = Scene::on("all-at-once", "a.db", server.bucket("backups"));
    let spec = Spec {
        rate: Some(25.0),
        checkpoints: true,
        ..scene.spec(7)
    };
    let mut app = App::ready(&spec);
    app.wait_commits(10);
    let mut flags = hasty(&scene, "1s");
    flags.extend(["--compact-interval", "1", "--compact-after-snapshot"].map(str::to_owned));
    let mut watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch
        .process
        .wait_for(PATIENCE, |line| line.contains("WAL sync"));
    let (bucket, name, end) = (&scene.bucket, scene.name(), AtomicBool::new(false));
    let problems: Mutex<Vec<String>> = Mutex::default();
    thread::scope(|scope| {
        for hourly in ["1", "2"] {
            let (end, problems) = (&end, &problems);
            scope.spawn(move || {
                while !end.load(Ordering::SeqCst) {
                    let flags = ["--force", "--points", "1s", "--hourly", hourly];
                    let output = compact(bucket, name, &flags);
                    // Others may keep going by; that is told, and harmless.
                    let excused = output.stderr.contains("other compactions");
                    if output.code() != 0 && !excused {
                        problems.lock().unwrap().push(output.stderr);
                    }
                }
            });
        }
        for round in 0..rounds(20) {
            let oracle = scene.oracle();
            let folder = scene.path();
            let (report, _) = restored_commits(bucket, name, folder, None, &oracle);
            assert!(report["txid"].as_u64() > Some(1), "{round}: {report}");
        }
        end.store(true, Ordering::SeqCst);
    });
    let problems = problems.into_inner().unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    app.stop();
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    assert_no_rebase(&scene);
    assert_every_point(&scene);
    compact(bucket, name, &["--force"]).expect_success();
    assert_every_point(&scene);
}

#[test]
fn g1_on_a_real_server_a_compaction_deletes_what_it_says() {
    let weed = Weed::start();
    let scene = Scene::on("weed", "a.db", weed.bucket("backups"));
    let mut writer = scene.writer(scene.spec(12));
    writer.row();
    let flags = ["--sync-interval", "10ms"];
    let watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    for _ in 0..5 {
        for _ in 0..3 {
            writer.row();
            watch.wait_stored(&scene, PATIENCE);
        }
        let mut snapshot = walrust(&scene.bucket, "snapshot");
        Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
    }
    let objects = || {
        let listed = list(&scene.bucket, scene.name());
        listed["files"].as_array().unwrap().len() as u64
    };
    let before = objects();
    let flags = ["--force", "--points", "0", "--hourly", "1", "--daily", "1"];
    let done = compact_json(&scene.bucket, scene.name(), &flags);
    let deleted = done["delete_objects"].as_u64().unwrap();
    assert!(deleted >= 3, "{done}");
    assert_eq!(objects(), before - deleted);
    assert_every_point(&scene);
    writer.row();
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    // A minute may have ended meanwhile.
    compact_json(&scene.bucket, scene.name(), &flags);
    let again = compact_json(&scene.bucket, scene.name(), &flags);
    assert_eq!(
        (&again["delete_objects"], &again["notes"]),
        (&0.into(), &serde_json::json!([]))
    );
    assert_no_rebase(&scene);
    assert_every_point(&scene);
}

#[test]
fn r148_r49_without_the_right_to_delete_a_watch_goes_on_and_says_so() {
    let server = Server::start();
    let scene = Scene::on("no-delete", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(8));
    writer.steps(10);
    // Snapshots go, and no point does.
    let mut flags = hasty(&scene, "1h");
    flags.extend(["--compact-interval", "1"].map(str::to_owned));
    server.rule(|call| {
        let deletes =
            call.method == "DELETE" || (call.method == "POST" && call.query.contains("delete"));
        if deletes {
            Action::Fail(403)
        } else {
            Action::Pass
        }
    });
    let mut watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    let mut snapshots = || {
        for _ in 0..4 {
            writer.row();
            watch.wait_stored(&scene, PATIENCE);
            let mut snapshot = walrust(&scene.bucket, "snapshot");
            Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
        }
    };
    snapshots();
    watch.process.wait_for(PATIENCE, |line| {
        line.contains("the compaction failed") && line.contains("were not deleted")
    });
    let before = ltx(&scene.bucket);
    let points = advertised(&scene);
    assert_some_points(&scene, 10);
    server.no_rule();
    until("the deletions are made up for", PATIENCE, || {
        (!before.is_subset(&ltx(&scene.bucket))).then_some(())
    });
    let left = advertised(&scene);
    assert!(
        points.iter().all(|point| left.contains(point)),
        "{points:?} {left:?}"
    );
    writer.row();
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    assert_no_rebase(&scene);
    assert_every_point(&scene);
}

#[test]
fn p6_what_a_killed_watch_stored_is_listed_after_the_next_start_and_compacted() {
    let scene = Scene::new("killed", "a.db");
    let mut writer = scene.writer(scene.spec(9));
    writer.row();
    let flags = ["--sync-interval", "10ms"];
    let mut watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_stored(&scene, PATIENCE);
    for _ in 0..6 {
        writer.row();
        watch.wait_stored(&scene, PATIENCE);
    }
    // The index is not a minute old, and knows nothing of them.
    watch.process.kill();
    let before = advertised(&scene);
    assert!(before.len() >= 7, "{before:?}");
    writer.row();
    ship(&scene.bucket, &scene.database(), &flags).expect_success();
    let after = advertised(&scene);
    assert_eq!(
        after[..before.len()],
        before,
        "what came before the kill is listed no more"
    );
    assert!(after.len() > before.len());
    assert_every_point(&scene);
    compact(&scene.bucket, scene.name(), &["--force"]).expect_success();
    assert_eq!(advertised(&scene), after);
    assert_every_point(&scene);
}

#[test]
fn r20_r93_names_reports_and_all_databases_of_a_configuration() {
    let scene = Scene::new("names", "app.db");
    let mut writer = scene.writer(scene.spec(10));
    writer.steps(5);
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    let report = scene.path().join("report");
    let arguments = ["--report", &report.display().to_string()];
    let unknown = compact(&scene.bucket, "app", &arguments).expect_failure();
    assert!(
        unknown.stderr.contains("no backup of \"app\""),
        "{}",
        unknown.stderr
    );
    assert!(
        unknown.stderr.contains("did you mean app.db?"),
        "{}",
        unknown.stderr
    );
    let read = || -> Value { serde_json::from_slice(&fs::read(&report).unwrap()).unwrap() };
    let written = read();
    assert_eq!(
        (&written["task"], &written["ok"]),
        (&"compact".into(), &false.into())
    );
    assert_eq!(written["databases"][0]["name"], "app");
    let mut alias = walrust(&scene.bucket, "prune");
    alias.arg("app.db").args(arguments);
    Process::run(&mut alias, PATIENCE).expect_success();
    let written = read();
    assert_eq!(
        (&written["ok"], &written["truncated"]),
        (&true.into(), &false.into())
    );
    assert!(
        written["databases"][0]["txid"].as_u64() >= Some(1),
        "{written}"
    );

    // All of a configuration: one that fails does not hide the other.
    let configuration = scene.path().join("walrust.toml");
    let text = format!(
        "[s3]\nbucket = \"{}\"\n[[databases]]\npath = \"{}\"\n[[databases]]\npath = \"/nowhere/gone.db\"\n",
        scene.bucket.url(),
        scene.database().with_file_name("*.db").display()
    );
    fs::write(&configuration, text).unwrap();
    // Local files are not needed: the pattern's are asked of the bucket.
    fs::rename(scene.path().join("data"), scene.path().join("elsewhere")).unwrap();
    let mut command = walrust_configured(&scene.bucket, &configuration, "compact");
    command.args(["--all", "--json"]).args(arguments);
    let output = Process::run(&mut command, PATIENCE).expect_failure();
    let all = output.json();
    assert_eq!((&all["v"], &all["ok"]), (&1.into(), &false.into()), "{all}");
    let databases = all["databases"].as_array().unwrap();
    assert_eq!(databases.len(), 2, "{all}");
    assert_eq!(
        (&databases[0]["name"], &databases[0]["dry_run"]),
        (&"app.db".into(), &true.into())
    );
    assert!(
        databases[1]["error"]
            .as_str()
            .unwrap()
            .contains("no backup of \"gone.db\""),
        "{all}"
    );
    let written = read();
    assert_eq!(
        written["databases"][0]["name"], "gone.db",
        "the worst first: {written}"
    );
    assert_eq!(written["databases"][1]["ok"], true);
    // Errors as JSON, and what can never be right.
    let refused = compact(
        &scene.bucket,
        "app.db",
        &[
            "--hourly",
            "0",
            "--daily",
            "0",
            "--weekly",
            "0",
            "--monthly",
            "0",
            "--json",
        ],
    );
    let refused = refused.expect_failure().json();
    assert!(
        refused["error"]["message"]
            .as_str()
            .unwrap()
            .contains("all 0"),
        "{refused}"
    );
}
