//! What must not leave the program, and what somebody who may write to the bucket must not achieve.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use regex_lite::Regex;
use walrust_tests::bucket::SECRET_KEY;
use walrust_tests::page::checkout;
use walrust_tests::process::{Output, Process};
use walrust_tests::program::{
    Watch, assert_newest, binary, files_of_kind, list, restore, ship, walrust,
};
use walrust_tests::scene::Scene;
use walrust_tests::server::{Action, Server};
use walrust_tests::support::PATIENCE;

/// Every file below `folder`.
fn files(folder: &Path, visit: &mut dyn FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            files(&path, visit);
        } else if kind.is_file() {
            visit(&path, &fs::read(&path).unwrap());
        }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    let windows = &mut bytes.windows(text.len());
    windows.any(|window| window == text.as_bytes())
}

#[test]
fn x2_no_secret_is_printed_logged_or_kept() {
    let server = Server::start();
    let scene = Scene::on("secrets", "a.db", server.bucket("backups"));
    let mut writer = scene.writer(scene.spec(1));
    writer.row();
    let database = scene.database();
    let database = database.to_str().unwrap();
    let token = "a-session-token-that-nobody-may-see";
    let run = |arguments: &[&str]| -> Output {
        let mut command = Command::new(binary());
        scene.bucket.environment(&mut command);
        command
            .args(arguments)
            .env("RUST_LOG", "trace")
            .env("AWS_SESSION_TOKEN", token)
            .current_dir(scene.path());
        Process::run(&mut command, PATIENCE)
    };
    let url = scene.bucket.url();
    let all: [&[&str]; 8] = [
        &["watch", database, "--once", "--no-metrics", "-b", &url],
        &["snapshot", database, "-b", &url],
        &["list", "-b", &url],
        &["restore", "a.db", "-o", "out.db", "-b", &url],
        &["verify", "a.db", "-b", &url, "--deep"],
        &["compact", "a.db", "-b", &url],
        &["doctor", database, "-b", &url, "--json"],
        &[
            "replicate",
            &format!("{url}/a.db"),
            "--local",
            "r.db",
            "--once",
        ],
    ];
    let check = |what: &[&str], output: &Output| {
        for secret in [SECRET_KEY, token] {
            for (stream, text) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
                let line = text.lines().find(|line| line.contains(secret));
                assert!(line.is_none(), "{what:?}, {stream}: {line:?}");
            }
        }
    };
    for arguments in all {
        check(arguments, &run(arguments));
    }
    // Nor where something goes wrong.
    server.rule(|_| Action::Fail(403));
    for arguments in all {
        let output = run(arguments);
        assert_ne!(output.code(), 0, "{arguments:?}");
        check(arguments, &output);
    }
    let endpoint = [
        "list",
        "-b",
        &url,
        "--endpoint",
        "http://me:word-of-mine@127.0.0.1:1",
    ];
    let output = run(&endpoint);
    let told = format!("{}{}", output.stdout, output.stderr);
    assert!(!told.contains("word-of-mine"), "{told}");
    // Nor in what stays: state directories, the replica's, the bucket.
    files(scene.path(), &mut |path, bytes| {
        for secret in [SECRET_KEY, token, "word-of-mine"] {
            assert!(!holds(bytes, secret), "{}", path.display());
        }
    });
}

#[test]
fn x2_no_key_of_anybody_is_in_the_repository() {
    let keys = [
        r"AKIA[0-9A-Z]{16}",
        r"ASIA[0-9A-Z]{16}",
        r"tid_[A-Za-z0-9_]{20,}",
        r"tsec_[A-Za-z0-9_+/]{20,}",
        r"gh[pousr]_[A-Za-z0-9]{30,}",
        r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=\n]{100,}",
    ];
    let keys = keys.map(|key| Regex::new(key).unwrap());
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(checkout())
        .output()
        .expect("git");
    assert!(listed.status.success(), "{listed:?}");
    let names = String::from_utf8(listed.stdout).unwrap();
    let mut seen = 0;
    for name in names.split('\0').filter(|name| !name.is_empty()) {
        let Ok(bytes) = fs::read(checkout().join(name)) else {
            // Removed, and not committed yet.
            continue;
        };
        let text = String::from_utf8_lossy(&bytes);
        // Documented as examples by Amazon.
        let text = text.replace("AKIAIOSFODNN7EXAMPLE", "");
        let found = keys.iter().find_map(|key| key.find(&text));
        assert!(found.is_none(), "{name}: {found:?}");
        seen += 1;
    }
    assert!(seen > 300, "{seen} files");
}

/// Three objects, then a copy of the bucket as it was, then three more.
fn with_a_past(test: &str) -> (Scene, walrust_tests::scene::Writer) {
    let scene = Scene::new(test, "a.db");
    let mut writer = scene.writer(scene.spec(1));
    let more = |writer: &mut walrust_tests::scene::Writer| {
        for _ in 0..3 {
            writer.row();
            ship::<&str>(&scene.bucket, &scene.database(), &[]).expect_success();
        }
    };
    more(&mut writer);
    scene.bucket.copy_to(&scene.path().join("past"));
    more(&mut writer);
    (scene, writer)
}

/// The bucket is as it was then.
fn roll_back(scene: &Scene) {
    fs::remove_dir_all(scene.bucket.folder()).unwrap();
    let past = walrust_tests::bucket::Bucket::Folder(scene.path().join("past"));
    past.copy_to(scene.bucket.folder());
}

#[test]
fn x6_a_bucket_that_was_set_back_is_noticed_and_never_goes_on_with_a_gap() {
    let (scene, mut writer) = with_a_past("set-back");
    let before = list(&scene.bucket, "a.db")["latest"]["txid"].as_u64();
    roll_back(&scene);
    let then = list(&scene.bucket, "a.db")["latest"]["txid"].as_u64();
    assert!(then < before);
    writer.row();
    let output = ship::<&str>(&scene.bucket, &scene.database(), &[]);
    let told = &output.stderr;
    if output.status.success() {
        // It may go on from there, if it says so and leaves no hole.
        assert!(told.contains("rebase"), "{told}");
        assert!(!files_of_kind(&scene.bucket, "a.db", "rebase").is_empty());
        assert_newest(&scene.bucket, "a.db", scene.path(), &scene.oracle());
    } else {
        assert!(told.contains("a.db"), "{told}");
        ship(&scene.bucket, &scene.database(), &["--adopt"]).expect_success();
        assert_newest(&scene.bucket, "a.db", scene.path(), &scene.oracle());
    }
    let mut verify = walrust(&scene.bucket, "verify");
    Process::run(verify.arg("a.db"), PATIENCE).expect_success();
}

#[test]
fn x6_a_bucket_that_is_set_back_under_a_running_watch_is_noticed() {
    let (scene, mut writer) = with_a_past("set-back-live");
    let flags = ["--sync-interval", "20ms"];
    let watch = Watch::ready(&scene.bucket, &[&scene.database()], &flags);
    watch.wait_attached(&scene);
    writer.row();
    watch.wait_stored(&scene, PATIENCE);
    roll_back(&scene);
    for _ in 0..5 {
        writer.row();
    }
    let output = watch.stop();
    let restored = scene.path().join("restored.db");
    let newest = restore(&scene.bucket, "a.db", &restored, None);
    if newest.status.success() {
        // Then it is a state that there was, and if the watch said that all is stored, it is the newest.
        let found = scene.oracle().find(&restored).unwrap();
        let exact = found.contains(&scene.oracle().last().seq);
        assert!(exact || !output.status.success(), "{output:?}");
    }
    // Whatever it was, the next start mends it.
    let again = ship::<&str>(&scene.bucket, &scene.database(), &[]);
    if !again.status.success() {
        ship(&scene.bucket, &scene.database(), &["--adopt"]).expect_success();
    }
    assert_newest(&scene.bucket, "a.db", scene.path(), &scene.oracle());
}
