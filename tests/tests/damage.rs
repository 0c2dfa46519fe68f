//! Damaged buckets: a restore gives exact bytes, or exits 1 naming the object.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use fastrand::Rng;
use walrust_tests::bucket::Bucket;
use walrust_tests::oracle::Oracle;
use walrust_tests::process::Process;
use walrust_tests::program::{restore, ship, walrust};
use walrust_tests::scene::Scene;
use walrust_tests::shim::Shim;
use walrust_tests::support::{PATIENCE, announce, rounds, seeds};

/// A small stream: base, incrementals, a second snapshot in the middle, incrementals; stopped cleanly.
fn published(test: &str, seed: u64) -> Scene {
    let scene = Scene::new(test, "a.db");
    let mut writer = scene.writer(walrust_tests::workload::Spec {
        page_size: 512,
        ..scene.spec(seed)
    });
    for round in 0..6 {
        writer.steps(4);
        writer.row();
        ship(
            &scene.bucket,
            &scene.database(),
            &["--sync-interval", "10ms"],
        )
        .expect_success();
        if round == 2 {
            let mut snapshot = walrust(&scene.bucket, "snapshot");
            Process::run(snapshot.arg(scene.database()), PATIENCE).expect_success();
        }
    }
    scene
}

/// Restores the newest state of a damaged copy: exact, or a failure that names `object` and leaves nothing.
fn exact_or_named(
    bucket: &Bucket,
    scene: &Scene,
    oracle: &Oracle,
    object: &str,
    what: &str,
) -> bool {
    let output = scene.path().join("restored.db");
    let outcome = restore(bucket, scene.name(), &output, None);
    if outcome.code() == 0 {
        let newest = oracle.last().seq;
        if let Err(mismatch) = oracle.check_file(&output, newest) {
            panic!("{what}: restored without an error, but {mismatch}");
        }
        fs::remove_file(&output).unwrap();
        return true;
    }
    assert_eq!(outcome.code(), 1, "{what}: {}", outcome.stderr);
    assert!(
        !outcome.stderr.contains("panicked"),
        "{what}: {}",
        outcome.stderr
    );
    let file = Path::new(object).file_name().unwrap().to_str().unwrap();
    let told = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(
        told.contains(file),
        "{what}: the error does not name {file}: {told}"
    );
    assert_nothing_left(scene, &output, what);
    false
}

fn assert_nothing_left(scene: &Scene, output: &Path, what: &str) {
    assert!(!output.exists(), "{what}: a file was left");
    let names: Vec<_> = fs::read_dir(scene.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    let known = ["data", "log", "store", "damaged", "stores", "other"];
    let strange = names
        .iter()
        .find(|name| !known.contains(&name.to_str().unwrap()));
    assert!(strange.is_none(), "{what}: {strange:?} was left");
}

/// A fresh copy of the store for each damage.
fn damaged(scene: &Scene, damage: impl FnOnce(&Bucket)) -> Bucket {
    let folder = scene.path().join("damaged");
    let _ = fs::remove_dir_all(&folder);
    let copy = scene.bucket.copy_to(&folder);
    damage(&copy);
    copy
}

#[test]
fn r1_r3_flipped_bytes() {
    for seed in seeds(1) {
        announce("damage", seed);
        let scene = published("flips", seed);
        let oracle = scene.oracle();
        let mut rng = Rng::with_seed(seed);
        let (mut exact, mut named) = (0, 0);
        for key in scene.bucket.keys() {
            let length = fs::metadata(scene.bucket.file(&key)).unwrap().len() as usize;
            let flips = if key.ends_with(".ltx") { rounds(14) } else { 6 };
            // The header's and the trailer's bytes are few and matter most.
            let near = [0, 4, 9, 13, 17, 30, 45, 70, 85, 97];
            for index in 0..flips as usize {
                let at = match index {
                    index if index < 4 => near[rng.usize(0..near.len())],
                    4 | 5 => length.saturating_sub(1 + rng.usize(0..24)),
                    _ => rng.usize(0..length.max(1)),
                };
                if at >= length {
                    continue;
                }
                let bit = 1 << rng.u8(0..8);
                let what = format!("{key}: byte {at} of {length} ^ {bit}");
                let copy = damaged(&scene, |copy| {
                    let mut bytes = fs::read(copy.file(&key)).unwrap();
                    bytes[at] ^= bit;
                    fs::write(copy.file(&key), bytes).unwrap();
                });
                if exact_or_named(&copy, &scene, &oracle, &key, &what) {
                    exact += 1;
                } else {
                    named += 1;
                }
            }
        }
        eprintln!("damage: {exact} flips without effect, {named} found");
        assert!(named > 0 && exact > 0);
    }
}

#[test]
fn r1_removed_and_truncated_objects() {
    let scene = published("removed", 2);
    let oracle = scene.oracle();
    for key in scene.bucket.keys() {
        let copy = damaged(&scene, |copy| fs::remove_file(copy.file(&key)).unwrap());
        exact_or_named(&copy, &scene, &oracle, &key, &format!("{key} removed"));
        let length = fs::metadata(scene.bucket.file(&key)).unwrap().len();
        for rest in [0, 1, 50, 100, length / 2, length.saturating_sub(1)] {
            let copy = damaged(&scene, |copy| {
                let file = fs::OpenOptions::new()
                    .write(true)
                    .open(copy.file(&key))
                    .unwrap();
                file.set_len(rest.min(length)).unwrap();
            });
            exact_or_named(
                &copy,
                &scene,
                &oracle,
                &key,
                &format!("{key} cut to {rest}"),
            );
        }
    }
}

#[test]
fn r2_objects_of_another_lineage() {
    let scene = published("lineage", 3);
    let other = published("lineage-other", 4);
    let oracle = scene.oracle();
    let mut swapped = 0;
    for key in scene.bucket.ltx_keys() {
        if !other.bucket.file(&key).exists() {
            continue;
        }
        swapped += 1;
        let copy = damaged(&scene, |copy| {
            fs::copy(other.bucket.file(&key), copy.file(&key)).unwrap();
        });
        exact_or_named(
            &copy,
            &scene,
            &oracle,
            &key,
            &format!("{key} of another lineage"),
        );
    }
    assert!(swapped > 2, "the two streams have {swapped} keys in common");
}

#[test]
fn r81_an_older_snapshot_serves_when_the_newest_is_damaged() {
    let scene = published("older", 5);
    let oracle = scene.oracle();
    let snapshots: Vec<_> = scene
        .bucket
        .ltx_keys()
        .into_iter()
        .filter(|key| key.contains("/0009/"))
        .collect();
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
    let newest = snapshots.last().unwrap();
    let copy = damaged(&scene, |copy| {
        let mut bytes = fs::read(copy.file(newest)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(copy.file(newest), bytes).unwrap();
    });
    assert!(exact_or_named(
        &copy,
        &scene,
        &oracle,
        newest,
        "newest snapshot damaged"
    ));
}

#[test]
fn r9_r10_r3_the_output_and_what_lies_beside_it() {
    let scene = published("output", 6);
    let oracle = scene.oracle();
    let folder = scene.path().join("other");
    fs::create_dir(&folder).unwrap();
    let output = folder.join("out.db");
    fs::write(&output, "mine").unwrap();
    // r10: an existing file is not overwritten unasked.
    let refused = restore(&scene.bucket, scene.name(), &output, None).expect_failure();
    assert!(
        refused.stderr.contains("out.db") && refused.stderr.contains("--force"),
        "{}",
        refused.stderr
    );
    assert_eq!(fs::read(&output).unwrap(), b"mine");

    // r3: also not when told to and the restore fails.
    let first = scene
        .bucket
        .ltx_keys()
        .into_iter()
        .find(|key| key.contains("/0000/"))
        .unwrap();
    let copy = damaged(&scene, |copy| {
        for key in copy.ltx_keys().iter().filter(|key| **key >= first) {
            let mut bytes = fs::read(copy.file(key)).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(copy.file(key), bytes).unwrap();
        }
    });
    let forced = |bucket: &Bucket| {
        let mut command = walrust(bucket, "restore");
        command
            .arg(scene.name())
            .arg("--output")
            .arg(&output)
            .arg("--force");
        Process::run(&mut command, PATIENCE)
    };
    forced(&copy).expect_failure();
    assert_eq!(fs::read(&output).unwrap(), b"mine");

    // r9: what a former database left beside it is never replayed.
    let mut scratch = scene.writer(walrust_tests::workload::Spec::new(
        &folder.join("out2.db"),
        &folder.join("log"),
        9,
    ));
    scratch.steps(30);
    for suffix in ["-wal", "-shm"] {
        fs::copy(
            folder.join(format!("out2.db{suffix}")),
            folder.join(format!("out.db{suffix}")),
        )
        .unwrap();
    }
    forced(&scene.bucket).expect_success();
    for suffix in ["-wal", "-shm", "-journal"] {
        assert!(
            !folder.join(format!("out.db{suffix}")).exists(),
            "a stale {suffix} was left"
        );
    }
    oracle.check_file(&output, oracle.last().seq).unwrap();
    // The same without the database itself: refused or removed, never left to be replayed.
    fs::remove_file(&output).unwrap();
    fs::copy(folder.join("out2.db-wal"), folder.join("out.db-wal")).unwrap();
    let outcome = restore(&scene.bucket, scene.name(), &output, None);
    if outcome.code() == 0 {
        assert!(!folder.join("out.db-wal").exists());
        oracle.check_file(&output, oracle.last().seq).unwrap();
    } else {
        assert!(!output.exists());
    }
}

#[test]
fn r13_request_count_does_not_follow_the_history() {
    let count = |snapshots: u64| {
        let server = walrust_tests::server::Server::start();
        let scene = Scene::on("requests", "a.db", server.bucket("backups"));
        let mut writer = scene.writer(scene.spec(8));
        for _ in 0..snapshots {
            writer.row();
            ship(&scene.bucket, &scene.database(), &["--on-startup", "true"]).expect_success();
        }
        server.restart_count();
        let output = scene.path().join("restored.db");
        restore(&scene.bucket, scene.name(), &output, None).expect_success();
        scene
            .oracle()
            .check_file(&output, scene.oracle().last().seq)
            .unwrap();
        server.calls().len()
    };
    let (few, many) = (count(2), count(12));
    assert!(
        many <= few + 2,
        "{few} requests for 2 snapshots, {many} for 12"
    );
}

#[test]
fn r11_a_restored_database_is_on_the_disk_before_it_has_its_name() {
    let scene = Scene::new("power-cut", "a.db");
    let mut writer = scene.writer(scene.spec(9));
    writer.steps(10);
    ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
    let shim = Shim::build(scene.path());
    let oracle = scene.oracle();
    // A new file, and in the place of another one.
    for number in 0..2 {
        let (output, disk) = (
            scene.path().join("out/a.db"),
            scene.path().join(format!("disk-{number}")),
        );
        fs::create_dir_all(output.parent().unwrap()).unwrap();
        fs::create_dir(&disk).unwrap();
        let mut command = walrust(&scene.bucket, "restore");
        command
            .arg(scene.name())
            .arg("--force")
            .arg("--output")
            .arg(&output);
        shim.apply_disk(&mut command, &disk);
        Process::run(&mut command, PATIENCE).expect_success();
        oracle.check_file(&output, oracle.last().seq).unwrap();
        // What is left if the power fails now: all of its bytes, which were there before it had its name.
        let inode = fs::metadata(&output).unwrap().ino().to_string();
        let kept = disk.join(&inode);
        assert!(fs::read(kept).unwrap() == fs::read(&output).unwrap());
        let log = fs::read_to_string(disk.join("log")).unwrap();
        let lines: Vec<_> = log.lines().collect();
        let last = |start: &str| lines.iter().rposition(|line| line.starts_with(start));
        let folder = format!("{}/", output.parent().unwrap().display());
        let synced = last(&format!("file {inode} ")).unwrap();
        let staged = format!("file {inode} {folder}.walrust-restore-");
        assert_eq!(last(&staged), Some(synced), "{log}");
        // And the name.
        let named = last(&format!("directory {}", folder.trim_end_matches('/')));
        assert!(named.is_some_and(|named| named > synced), "{log}");
    }
}
