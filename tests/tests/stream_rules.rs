//! What keeps a stream whole: snapshots at any moment, starts under load, the spool, the clock, the format's version.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use walrust_core::ltx::Decoder;
use walrust_core::types::{DatabaseSum, PageSum};
use walrust_tests::process::{Process, Signal};
use walrust_tests::program::{
    App, Watch, assert_every_point, assert_newest, assert_no_rebase, files_of_kind, list, points,
    restore, restored_commits, ship, walrust, walrust_configured,
};
use walrust_tests::scene::Scene;
use walrust_tests::server::{Action, Server};
use walrust_tests::shim::Shim;
use walrust_tests::support::{PATIENCE, announce, rounds, seeds, until};
use walrust_tests::workload::{Spec, checkpoint, connect};

#[test]
fn s2_s4_snapshots_under_writes_checkpoints_and_readers() {
    for seed in seeds(1) {
        announce("snapshots", seed);
        let scene = Scene::new("snapshots", "a.db");
        let spec = Spec {
            readers: 2,
            checkpoints: true,
            upheaval: true,
            ..scene.spec(seed)
        };
        App::start(&Spec {
            commits: Some(50),
            ..spec.clone()
        })
        .finish();
        let watch = Watch::ready(
            &scene.bucket,
            &[&scene.database()],
            &["--sync-interval", "50ms"],
        );
        let apps = [1, 2].map(|number| {
            App::start(&Spec {
                seed: seed * 10 + number,
                rate: Some(150.0),
                ..spec.clone()
            })
        });
        for _ in 0..rounds(6) {
            let mut snapshot = walrust(&scene.bucket, "snapshot");
            Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
        }
        let [one, two] = apps;
        let stop = scene.log().join("stop");
        fs::write(&stop, "").unwrap();
        one.process.output(PATIENCE).expect_success();
        two.process.output(PATIENCE).expect_success();
        watch.drain();
        assert!(files_of_kind(&scene.bucket, scene.name(), "snapshot").len() > 2);
        assert_no_rebase(&scene);
        assert_every_point(&scene);
    }
}

/// Checksum and digest of the pages that are stored in a snapshot, computed from these pages alone.
fn sums_of_pages(file: &Path) -> (String, String) {
    let mut decoder = Decoder::new(fs::File::open(file).unwrap()).unwrap();
    let (mut sum, mut page) = (DatabaseSum::EMPTY, Vec::new());
    while let Some(number) = decoder.next_page(&mut page).unwrap() {
        sum.add(PageSum::of(number, &page));
    }
    decoder.finish().unwrap();
    (sum.checksum.to_string(), sum.digest.to_string())
}

#[test]
fn s3_checksum_and_digest_are_those_of_the_bytes_that_are_stored() {
    let scene = Scene::new("sums", "a.db");
    let spec = Spec {
        rate: Some(150.0),
        checkpoints: true,
        upheaval: true,
        ..scene.spec(3)
    };
    let mut app = App::ready(&spec);
    app.wait_commits(20);
    // Without a watch: one that reads a busy file in one pass.
    let snapshot = || {
        let mut command = walrust(&scene.bucket, "snapshot");
        command.arg(scene.database()).arg("--json");
        let report = Process::run(&mut command, PATIENCE).expect_success().json();
        let key = report["key"].as_str().unwrap();
        let file = scene.bucket.file(key);
        let (checksum, digest) = sums_of_pages(&file);
        assert_eq!(report["checksum"], checksum.as_str(), "{report}");
        assert_eq!(report["digest"], digest.as_str(), "{report}");
    };
    for _ in 0..rounds(3) {
        snapshot();
    }
    // Beside one: pages that change under it come from its overlay.
    let flags = ["--sync-interval", "50ms"];
    let watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_attached(&scene);
    for _ in 0..rounds(4) {
        snapshot();
    }
    app.stop();
    watch.drain();
    let stored = files_of_kind(&scene.bucket, scene.name(), "snapshot");
    assert!(stored.len() > 4, "{stored:?}");
    for entry in stored {
        let file = scene.bucket.file(entry["key"].as_str().unwrap());
        let (checksum, digest) = sums_of_pages(&file);
        assert_eq!(entry["checksum"], checksum.as_str(), "{entry}");
        assert_eq!(entry["digest"], digest.as_str(), "{entry}");
    }
    assert_every_point(&scene);
}

#[test]
fn s2_one_shot_snapshots_of_a_busy_database_without_a_watcher() {
    let scene = Scene::new("one-shot", "a.db");
    let spec = Spec {
        checkpoints: true,
        upheaval: true,
        rate: Some(200.0),
        ..scene.spec(2)
    };
    let mut app = App::ready(&spec);
    app.wait_commits(30);
    for _ in 0..rounds(8) {
        let mut snapshot = walrust(&scene.bucket, "snapshot");
        Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
    }
    app.stop();
    let oracle = scene.oracle();
    for point in points(&scene.bucket, scene.name()) {
        let wanted = point.txid.to_string();
        restored_commits(
            &scene.bucket,
            scene.name(),
            scene.path(),
            Some(&wanted),
            &oracle,
        );
    }
}

#[test]
fn k6_a_checkpoint_at_each_step_of_the_first_snapshot_is_seen() {
    for kind in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        // The request in the middle of which the application writes and empties its log.
        let mut number = 1;
        while checkpointed_at(number, kind) {
            number += 1;
        }
        assert!(
            number > 5,
            "only {number} requests until the first commit was stored"
        );
    }
}

/// Attaches a database for the first time; gives whether there was a request of this number before all was stored.
fn checkpointed_at(number: u64, kind: &str) -> bool {
    let server = Server::start();
    let scene = Scene::on("window", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(Spec {
        autocheckpoint: 0,
        ..scene.spec(number)
    });
    writer.steps(20);
    let (reached, at) = mpsc::channel();
    let (go_on, done) = mpsc::channel::<()>();
    let mut seen = 0;
    server.rule(move |_| {
        seen += 1;
        if seen == number {
            reached.send(()).unwrap();
            let _ = done.recv_timeout(PATIENCE);
        }
        Action::Pass
    });
    let watch = Watch::start(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "10ms"],
    );
    let stored = || {
        let folder = |folder: &str| {
            let keys = scene.bucket.ltx_keys();
            keys.iter().any(|key| key.contains(folder))
        };
        folder("/0009/") && folder("/0000/")
    };
    let mut hit = false;
    until("the request, or the end of the start", PATIENCE, || {
        match at.recv_timeout(Duration::from_millis(20)) {
            Ok(()) => hit = true,
            Err(_) if stored() => {}
            Err(_) => {
                // Something to capture, once there is a watcher; nothing that empties the log.
                if scene
                    .bucket
                    .ltx_keys()
                    .iter()
                    .any(|key| key.contains("/0009/"))
                {
                    writer.row();
                }
                return None;
            }
        }
        Some(())
    });
    if hit {
        for _ in 0..2 {
            writer.row();
            checkpoint(&writer.connection, kind).unwrap();
            writer.commit("DELETE FROM items WHERE id % 5 = 2");
            checkpoint(&writer.connection, kind).unwrap();
        }
        writer.row();
    }
    // Whether it waits now or comes later.
    drop(go_on);
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    assert_no_rebase(&scene);
    assert_every_point(&scene);
    hit
}

#[test]
fn s6_snapshots_at_every_position_leave_the_chain_without_holes() {
    let scene = Scene::new("positions", "a.db");
    let mut writer = scene.writer(scene.spec(3));
    let mut snapshots = Vec::new();
    for _ in 0..5 {
        writer.row();
        writer.steps(3);
        ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
        let mut snapshot = walrust(&scene.bucket, "snapshot");
        Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
    }
    writer.row();
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    let listed = list(&scene.bucket, scene.name());
    let mut next = None;
    for file in listed["files"].as_array().unwrap() {
        let (min, max) = (
            file["min_txid"].as_u64().unwrap(),
            file["max_txid"].as_u64().unwrap(),
        );
        match file["kind"].as_str().unwrap() {
            "snapshot" => snapshots.push(file["key"].as_str().unwrap().to_owned()),
            "incremental" | "rebase" => {
                assert!(next.is_none_or(|next| next == min), "a hole before {file}");
                next = Some(max + 1);
            }
            _ => {}
        }
    }
    assert!(snapshots.len() >= 5, "{listed}");
    assert_every_point(&scene);
    // Without the snapshots in the middle every point behind the base is still exact.
    let copy = scene.bucket.copy_to(&scene.path().join("copy"));
    let all: Vec<String> = copy
        .ltx_keys()
        .into_iter()
        .filter(|key| key.contains("/0009/"))
        .collect();
    for key in &all[1..] {
        fs::remove_file(copy.file(key)).unwrap();
    }
    let oracle = scene.oracle();
    for point in points(&scene.bucket, scene.name()) {
        let output = scene.path().join("out.db");
        let outcome = restore(&copy, scene.name(), &output, Some(&point.txid.to_string()));
        outcome.expect_success();
        oracle.find(&output).unwrap();
        fs::remove_file(&output).unwrap();
    }
    assert_newest(&copy, scene.name(), scene.path(), &oracle);
}

#[test]
fn k13_starts_that_race_writers_and_checkpoints() {
    for seed in seeds(1) {
        announce("starts", seed);
        let scene = Scene::new("starts", "a.db");
        let spec = Spec {
            checkpoints: true,
            autocheckpoint: 50,
            rate: Some(150.0),
            ..scene.spec(seed)
        };
        let mut app = App::ready(&spec);
        app.wait_commits(20);
        for _ in 0..rounds(8) {
            let watch = Watch::ready(
                &scene.bucket,
                &[&scene.database()],
                &["--sync-interval", "20ms"],
            );
            let count = scene.oracle().commits().len() as u64;
            app.wait_commits(count + 20);
            watch.drain();
            let oracle = scene.oracle();
            restored_commits(&scene.bucket, scene.name(), scene.path(), None, &oracle);
        }
        app.stop();
        ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
        assert_every_point(&scene);
    }
}

#[test]
fn k3_k11_folded_locally_while_the_store_refuses_then_killed() {
    let server = Server::start();
    let scene = Scene::on("folded", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(5));
    writer.steps(20);
    let flags = ["--sync-interval", "50ms"];
    let mut watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_stored(&scene, PATIENCE);
    server.rule(|call| {
        if call.writes() {
            Action::Fail(503)
        } else {
            Action::Pass
        }
    });
    for _ in 0..10 {
        writer.steps(10);
        let _ = checkpoint(&writer.connection, "TRUNCATE").unwrap();
    }
    watch.process.kill();
    // Not folded behind our back, or captured first: at most the points in between are lost, never the state.
    server.no_rule();
    let watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    assert_every_point(&scene);
}

fn spool_files(state: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![state.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "ltx") {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn u6_a_flipped_bit_in_the_spool_is_never_uploaded() {
    let server = Server::start();
    let scene = Scene::on("spool-bit", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(6));
    writer.steps(20);
    let flags = ["--sync-interval", "50ms"];
    let mut watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_stored(&scene, PATIENCE);
    server.outage(true);
    // A stop without the store leaves the tail in the spool.
    for _ in 0..5 {
        writer.steps(10);
    }
    watch.process.signal(Signal::TERM);
    watch
        .process
        .output(Duration::from_secs(30))
        .expect_failure();
    let files = spool_files(&scene.state());
    assert!(!files.is_empty(), "nothing was spooled");
    for file in files {
        let mut bytes = fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&file, bytes).unwrap();
    }
    server.outage(false);
    writer.row();
    let watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_stored(&scene, PATIENCE);
    watch.drain();
    assert_every_point(&scene);
}

#[test]
fn u19_a_full_bucket_heals_when_there_is_room_again() {
    let server = Server::start();
    let scene = Scene::on("full-bucket", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(7));
    writer.steps(20);
    let mut watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "50ms"],
    );
    watch.wait_stored(&scene, PATIENCE);
    for status in [507, 403, 429] {
        server.restart_count();
        server.rule(move |call| {
            if call.method == "PUT" {
                Action::Fail(status)
            } else {
                Action::Pass
            }
        });
        writer.steps(10);
        until("the store refused a few times", PATIENCE, || {
            let refused = server
                .calls()
                .iter()
                .filter(|call| call.status == status)
                .count();
            (refused >= 2).then_some(())
        });
        assert!(
            watch.process.poll().is_none(),
            "{}",
            watch.process.printed()
        );
        server.no_rule();
        watch.wait_stored(&scene, Duration::from_secs(120));
    }
    watch.drain();
    assert_no_rebase(&scene);
    assert_every_point(&scene);
}

#[test]
fn r12_a_newer_format_is_refused_not_guessed_at() {
    let scene = Scene::new("newer", "a.db");
    let mut writer = scene.writer(scene.spec(8));
    writer.steps(10);
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    let file = scene.bucket.file("a.db/manifest.json");
    let mut manifest: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let versions: Vec<String> = manifest
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, value)| {
            value.is_u64()
                && (name.as_str() == "v" || name.contains("version") || name.contains("schema"))
        })
        .map(|(name, _)| name.clone())
        .collect();
    assert!(
        !versions.is_empty(),
        "the manifest carries no version: {manifest}"
    );
    for name in versions {
        manifest[name] = 1000.into();
    }
    fs::write(&file, manifest.to_string()).unwrap();
    let output = scene.path().join("out.db");
    let refused = restore(&scene.bucket, scene.name(), &output, None).expect_failure();
    assert!(
        refused.stderr.contains("manifest.json"),
        "{}",
        refused.stderr
    );
    assert!(!output.exists());
    writer.row();
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_failure();
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        manifest.to_string(),
        "a newer manifest was replaced"
    );
}

#[test]
fn p7_a_clock_that_steps_back() {
    let scene = Scene::new("clock", "a.db");
    let shim = Shim::build(scene.path());
    let mut writer = scene.writer(scene.spec(9));
    writer.row();
    let start = |seconds: i64| {
        shim.move_clock(seconds);
        let mut command = walrust(&scene.bucket, "watch");
        command
            .args(["--no-metrics", "--sync-interval", "10ms"])
            .arg(scene.database());
        shim.apply_clock(&mut command);
        let mut watch = Watch {
            process: Process::spawn(&mut command),
        };
        watch
            .process
            .wait_for(PATIENCE, |line| line.starts_with("Watching "));
        watch
    };
    // 400 s back twice: once between two runs, once while it runs.
    let watch = start(0);
    watch.wait_stored(&scene, PATIENCE);
    for seconds in [0, -400] {
        shim.move_clock(seconds);
        for _ in 0..4 {
            writer.row();
            watch.wait_stored(&scene, PATIENCE);
        }
    }
    watch.drain();
    let watch = start(-800);
    for _ in 0..4 {
        writer.row();
        watch.wait_stored(&scene, PATIENCE);
    }
    watch.drain();
    // Order is by TXID: the newest state is the newest commit, whatever its time.
    assert_every_point(&scene);
    let points = points(&scene.bucket, scene.name());
    assert!(points.is_sorted_by_key(|point| point.txid));
    let times: Vec<i64> = points
        .iter()
        .map(walrust_tests::program::Point::millis)
        .collect();
    let steps = times
        .windows(2)
        .filter(|pair| pair[0] - pair[1] > 60_000)
        .count();
    assert_eq!(steps, 2, "{times:?}");
    // A time that two stretches hold means the newer one.
    let newest = points.last().unwrap();
    let (report, _) = restored_commits(
        &scene.bucket,
        scene.name(),
        scene.path(),
        Some(&newest.time),
        &scene.oracle(),
    );
    assert_eq!(report["txid"], newest.txid);
}

#[test]
fn readers_of_the_shm_see_a_watcher_started_before_the_application() {
    // Everybody else closes; the next writer finds the WAL as it was, whoever opens first.
    let scene = Scene::new("first", "a.db");
    let spec = scene.spec(10);
    let mut writer = scene.writer(spec.clone());
    writer.steps(5);
    drop(writer);
    let watch = Watch::ready(
        &scene.bucket,
        &[&scene.database()],
        &["--sync-interval", "20ms"],
    );
    watch.wait_stored(&scene, PATIENCE);
    for _ in 0..20 {
        let mut writer = scene.writer(spec.clone());
        writer.row();
        drop(writer);
        // An exclusive lock is refused to the application while we are attached, and nothing breaks.
        let connection = connect(&spec).unwrap();
        connection.busy_timeout(Duration::from_millis(1)).unwrap();
        let _ = connection.query_row("PRAGMA journal_mode = DELETE", [], |row| {
            row.get::<_, String>(0)
        });
    }
    watch.drain();
    assert_every_point(&scene);
    assert_no_rebase(&scene);
}

#[test]
fn a_checkpoint_in_between_holds_no_later_commit_back() {
    let scene = Scene::new("in-phase", "a.db");
    let configuration = scene.path().join("walrust.toml");
    let text = format!(
        "[s3]\nbucket = '{}'\n[sync]\nsync_interval = '400ms'\ncheckpoint_pages = 200\n\
         [[databases]]\npath = '{}'\n",
        scene.bucket.url(),
        scene.database().display()
    );
    fs::write(&configuration, text).unwrap();
    // A calm writer: the log is checkpointed every second or so, in the middle of an interval.
    let spec = Spec {
        rate: Some(50.0),
        autocheckpoint: 0,
        ..scene.spec(5)
    };
    let app = App::ready(&spec);
    let mut command = walrust_configured(&scene.bucket, &configuration, "watch");
    let watch = Watch {
        process: Process::spawn(command.args(["--no-metrics", "--json"])),
    };
    std::thread::sleep(Duration::from_secs(8));
    app.stop();
    let ended = watch.stop().expect_success();

    // From the last commit that an object holds to the moment at which the object was stored.
    let oracle = scene.oracle();
    let listed = list(&scene.bucket, "a.db");
    let files = listed["files"].as_array().unwrap();
    let late = |event: &Value| -> Option<i64> {
        let file = files.iter().find(|file| {
            file["max_txid"] == event["txid"] && file["kind"].as_str() == Some("incremental")
        })?;
        let commit = *oracle.with_digest(file["digest"].as_str()?).first()?;
        let stored: jiff::Timestamp = event["time"].as_str()?.parse().ok()?;
        let mut commits = oracle.commits().iter();
        let commit = commits.find(|known| known.seq == commit)?;
        Some(stored.as_millisecond() - commit.after)
    };
    let events = ended.stdout.lines();
    let events = events.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lateness: Vec<i64> = events
        .filter(|event| event["event"] == "sync")
        .filter_map(|event| late(&event))
        .collect();
    assert!(lateness.len() > 15, "{lateness:?}");
    let late = lateness.iter().filter(|millis| **millis > 200).count();
    assert!(late < lateness.len() / 3, "{lateness:?}");
}
