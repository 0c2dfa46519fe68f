//! Litestream's buckets restore with us, and ours, written without checksums, with Litestream.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use walrust_tests::bucket::Bucket;
use walrust_tests::litestream;
use walrust_tests::oracle::digest_of;
use walrust_tests::process::{Process, Signal};
use walrust_tests::program::{list, restore, walrust_configured};
use walrust_tests::record::each_page;
use walrust_tests::scene::{Scene, Writer};
use walrust_tests::server::Server;
use walrust_tests::support::{PATIENCE, assert_sound, scratch};
use walrust_tests::weed::Weed;
use walrust_tests::workload::Spec;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/litestream")
}

/// Name, size and SHA-256 of the databases that Litestream 0.5.17 restores from the fixtures.
const FIXTURES: [(&str, u64, &str); 4] = [
    (
        "p512",
        5632,
        "dcc6927703ed644f35bc8d21e3ee459ba177ed318f9fa43534ad123e773c1b90",
    ),
    (
        "p4096",
        40960,
        "e5cbb1408d4858a6051dc67e758db9b2dc81cc21d0c16a0a896775444f4a2bee",
    ),
    (
        "p4096-frame",
        40960,
        "e5cbb1408d4858a6051dc67e758db9b2dc81cc21d0c16a0a896775444f4a2bee",
    ),
    (
        "p65536",
        458_752,
        "dea2c6c732007d13cbaf8a34d0b5a28b70fd686c903b169f412d070c52e8e800",
    ),
];

fn sha256(file: &Path) -> String {
    let output = Process::run(Command::new("sha256sum").arg(file), PATIENCE).expect_success();
    output.stdout.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn both_page_encodings_and_the_layout_of_folders() {
    let scratch = scratch("fixtures");
    let bucket = Bucket::Folder(fixtures());
    for (name, size, sum) in FIXTURES {
        let output = scratch.path().join(name);
        let report = restore(&bucket, name, &output, None)
            .expect_success()
            .json();
        assert_eq!(report["format"], "litestream", "{report}");
        assert_eq!(report["txid"], 5, "{report}");
        assert_eq!(fs::metadata(&output).unwrap().len(), size, "{name}");
        assert_sound(&output);
        assert_eq!(sha256(&output), sum, "{name}");
    }
    // The same files in the layout that Litestream uses on S3: levels as four digits, right below the name.
    let server = Server::start();
    let bucket = server.bucket("litestream");
    for (name, _, _) in FIXTURES {
        for level in [0, 1, 9] {
            let from = fixtures().join(name).join(format!("ltx/{level}"));
            let to = bucket.file(&format!("{name}/{level:04}"));
            for entry in fs::read_dir(from).into_iter().flatten() {
                let entry = entry.unwrap();
                fs::create_dir_all(&to).unwrap();
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
    for (name, _, sum) in FIXTURES {
        let output = scratch.path().join(format!("{name}-s3"));
        restore(&bucket, name, &output, None).expect_success();
        assert_eq!(sha256(&output), sum, "{name}");
    }
    let listed = list(&bucket, "p512");
    assert_eq!(listed["format"], "litestream");
}

/// The image of the live database, Litestream's own tables included.
fn live_digest(writer: &Writer) -> String {
    let mut image = Vec::new();
    each_page(&writer.connection, |_, page| image.extend_from_slice(page)).unwrap();
    digest_of(&image).unwrap()
}

#[test]
fn what_litestream_writes_is_restored_exactly() {
    let weed = Weed::start();
    let server = Server::start();
    let places = [
        weed.bucket("theirs").below("some/prefix"),
        server.bucket("theirs"),
    ];
    let folder = Scene::new("theirs-folder", "a.db");
    let scenes = places
        .into_iter()
        .map(|bucket| Scene::on("theirs", "a.db", bucket))
        .chain([folder]);
    for scene in scenes {
        let mut writer = scene.writer(Spec {
            upheaval: true,
            ..scene.spec(1)
        });
        writer.steps(20);
        let mut process =
            litestream::replicate(scene.path(), &scene.database(), &scene.bucket, "a.db");
        for _ in 0..6 {
            writer.steps(10);
            std::thread::sleep(std::time::Duration::from_millis(150));
        }
        // It ships its tail at SIGTERM; when it has gone nothing changes any more.
        process.signal(Signal::TERM);
        process.wait(PATIENCE);
        let expected = live_digest(&writer);
        let output = scene.path().join("restored.db");
        let report = restore(&scene.bucket, "a.db", &output, None)
            .expect_success()
            .json();
        assert_eq!(report["format"], "litestream");
        assert_eq!(
            digest_of(&fs::read(&output).unwrap()).unwrap(),
            expected,
            "{}",
            scene.bucket.url()
        );
        assert_sound(&output);
    }
}

#[test]
fn r29_litestream_restores_what_we_write_without_checksums() {
    let weed = Weed::start();
    let scene = Scene::on("ours", "a.db", weed.bucket("ours"));
    let configuration = scene.path().join("walrust.toml");
    let text = format!(
        "[s3]\nbucket = \"{}\"\nchecksums = false\n",
        scene.bucket.url()
    );
    fs::write(&configuration, text).unwrap();
    let mut writer = scene.writer(Spec {
        upheaval: true,
        ..scene.spec(2)
    });
    let ship = || {
        let mut command = walrust_configured(&scene.bucket, &configuration, "watch");
        command
            .args(["--no-metrics", "--once"])
            .arg(scene.database());
        Process::run(&mut command, PATIENCE).expect_success();
    };
    for round in 0..5 {
        writer.steps(15);
        ship();
        let output = scene.path().join(format!("litestream-{round}.db"));
        litestream::restore(scene.path(), &scene.bucket, "a.db", &output).expect_success();
        let oracle = scene.oracle();
        oracle.check_file(&output, oracle.last().seq).unwrap();
        // And so do we; the chain is in the manifest.
        let output = scene.path().join(format!("own-{round}.db"));
        restore(&scene.bucket, "a.db", &output, None).expect_success();
        oracle.check_file(&output, oracle.last().seq).unwrap();
    }
}

#[test]
fn damage_in_a_litestream_folder_is_never_restored() {
    let scratch = scratch("their-damage");
    let expected = {
        let output = scratch.path().join("sound.db");
        restore(&Bucket::Folder(fixtures()), "p512", &output, None).expect_success();
        fs::read(&output).unwrap()
    };
    let mut found = 0;
    // Level 1 holds a copy of most of level 0, so either may serve.
    for key in Bucket::Folder(fixtures())
        .ltx_keys()
        .iter()
        .filter(|key| key.starts_with("p512/"))
    {
        for at in [3, 60, 110, 200] {
            let copy = Bucket::Folder(fixtures()).copy_to(&scratch.path().join("copy"));
            let mut bytes = fs::read(copy.file(key)).unwrap();
            bytes[at] ^= 4;
            fs::write(copy.file(key), bytes).unwrap();
            let output = scratch.path().join("damaged.db");
            let outcome = restore(&copy, "p512", &output, None);
            if outcome.code() == 0 {
                assert!(fs::read(&output).unwrap() == expected, "{key}: byte {at}");
                fs::remove_file(&output).unwrap();
            } else {
                found += 1;
                outcome.expect_failure();
                assert!(!output.exists());
            }
        }
    }
    assert!(found > 0);
}
