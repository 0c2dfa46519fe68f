//! The real sidecar beside real applications and a real server.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use walrust_tests::bucket::Bucket;
use walrust_tests::pod::{Sidecar, Volume, configuration, credentials, sidecar};
use walrust_tests::process::{Process, Signal};
use walrust_tests::program::{App, assert_newest, files_of_kind};
use walrust_tests::scene::Scene;
use walrust_tests::served::Served;
use walrust_tests::support::{PATIENCE, until};
use walrust_tests::weed::Weed;

fn entry(scene: &Scene) -> String {
    format!("[[databases]]\npath = \"{}\"\n", scene.database().display())
}

fn volume(scene: &Scene, text: &str) -> Volume {
    Volume::new(scene.path().join("config"), &[("walrust.toml", text)])
}

/// A sidecar that watches what the mounted configuration names.
#[track_caller]
fn watching(scene: &Scene, mount: &Volume) -> Sidecar {
    Sidecar::start(&mut sidecar(
        &scene.bucket,
        "watch",
        &mount.path("walrust.toml"),
    ))
}

#[track_caller]
fn wait_ready(served: &Served) {
    until("the sidecar is ready", PATIENCE * 2, || {
        served.unready().is_empty().then_some(())
    });
}

fn lag(scene: &Scene) -> String {
    format!("walrust_lag_seconds{{database=\"{}\"}}", scene.name())
}

fn status(served: &Served) -> Value {
    serde_json::from_str(&served.request("GET", "/status").1).unwrap()
}

fn named(served: &Served, name: &str) -> Value {
    let status = status(served);
    let all = status["databases"].as_array().unwrap();
    all.iter()
        .find(|one| one["name"] == name)
        .cloned()
        .unwrap_or(Value::Null)
}

#[test]
fn h1_h2_a_pod_from_before_its_database_to_its_last_commit() {
    let mut weed = Weed::start();
    let scene = Scene::on("pod", "a.db", weed.bucket("pod"));
    let mount = volume(&scene, &configuration(&scene.bucket, None, &entry(&scene)));
    let mut command = sidecar(&scene.bucket, "watch", &mount.path("walrust.toml"));
    let pod = Sidecar::start(command.env("WALRUST_POD_NAME", "app-0"));
    // Nothing is there: it waits and says so.
    assert_eq!(pod.served.unready(), ["waiting_for_file"]);
    assert_eq!(
        (pod.served.code("/livez"), pod.served.code("/startupz")),
        (200, 200)
    );
    assert_eq!(named(&pod.served, "a.db")["state"], "waiting_for_file");
    assert_eq!(status(&pod.served)["pod"], "app-0");
    let mut writer = scene.writer(scene.spec(1));
    writer.steps(5);
    wait_ready(&pod.served);
    until("lag is 0", PATIENCE, || {
        (pod.served.metric(&lag(&scene)) == 0.0).then_some(())
    });
    // The page for people says the same.
    let (code, page) = pod.served.request("GET", "/");
    let durable = named(&pod.served, "a.db")["durable_txid"].as_u64().unwrap();
    assert_eq!(code, 200);
    assert!(
        page.contains(&format!("data-field=\"durable_txid\">{durable}<")),
        "{page}"
    );
    // Nothing can be changed from outside the pod.
    for path in ["/sync", "/snapshot", "/detach"] {
        assert_eq!(pod.served.request("POST", path).0, 404, "{path}");
    }
    let (code, synced) = pod.control.request("POST", "/sync?database=a.db");
    assert_eq!(code, 200, "{synced}");
    // The bucket is gone, and comes back.
    weed.hang();
    writer.row();
    until("not ready", PATIENCE, || {
        (pod.served.unready() == ["lagging"]).then_some(())
    });
    assert_eq!(pod.served.code("/livez"), 200);
    let first = pod.served.metric(&lag(&scene));
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        pod.served.metric(&lag(&scene)) > first + 0.9,
        "the lag rises"
    );
    weed.resume();
    wait_ready(&pod.served);
    writer.row();
    pod.stop().expect_success();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
}

#[test]
fn r136_a_port_that_somebody_has_ends_a_sidecar_and_so_does_unusable_configuration() {
    let scene = Scene::new("pod-start", "a.db");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = configuration(&scene.bucket, None, &entry(&scene));
    let port = taken.local_addr().unwrap().port().to_string();
    let mount = volume(&scene, &text);
    let mut command = sidecar(&scene.bucket, "watch", &mount.path("walrust.toml"));
    let output = Process::run(command.args(["--metrics-port", &port]), PATIENCE).expect_failure();
    assert!(
        output.stderr.contains("another process has this port"),
        "{}",
        output.stderr
    );
    for (text, why) in [
        (text.replace("[sync]", "[synk]"), "unknown section `synk`"),
        (
            configuration(&scene.bucket, None, ""),
            "no database is named",
        ),
    ] {
        std::fs::write(scene.path().join("w.toml"), text).unwrap();
        let mut command = sidecar(&scene.bucket, "watch", &scene.path().join("w.toml"));
        let output = Process::run(&mut command, PATIENCE).expect_failure();
        assert!(output.stderr.contains(why), "{}", output.stderr);
    }
}

#[test]
fn a_configuration_is_exchanged_for_the_databases_that_changed_and_a_bad_one_is_refused() {
    let weed = Weed::start();
    let scene = Scene::on("pod-config", "a.db", weed.bucket("pod-config"));
    let other = Scene::on("pod-config-b", "b.db", scene.bucket.clone());
    scene.writer(scene.spec(1)).steps(3);
    let mut second = other.writer(other.spec(2));
    second.steps(3);
    let one = configuration(&scene.bucket, None, &entry(&scene));
    let two = format!("{one}{}", entry(&other));
    let mut mount = volume(&scene, &one);
    let pod = watching(&scene, &mount);
    wait_ready(&pod.served);
    let before = named(&pod.served, "a.db");
    let hash = status(&pod.served)["config_hash"].clone();
    mount.exchange(&[("walrust.toml", &two)]);
    until("the second is followed", PATIENCE, || {
        (named(&pod.served, "b.db")["state"] == "in_sync").then_some(())
    });
    let after = named(&pod.served, "a.db");
    assert_eq!(before["lease"], after["lease"], "the first was not touched");
    assert_ne!(status(&pod.served)["config_hash"], hash);
    // Broken: the one before stays in force.
    let good = status(&pod.served)["config_hash"].clone();
    mount.exchange(&[("walrust.toml", "[s3]\nbukket = 1")]);
    let refused = until("it is refused", PATIENCE, || {
        status(&pod.served)["config_error"]
            .as_str()
            .map(str::to_owned)
    });
    assert!(refused.contains("bukket"), "{refused}");
    assert_eq!(status(&pod.served)["config_hash"], good);
    assert_eq!(
        pod.served
            .metric("walrust_config_reload_total{outcome=\"refused\"}"),
        1.0
    );
    assert!(pod.served.request("GET", "/").1.contains("bukket"));
    second.row();
    until("the second goes on", PATIENCE, || {
        let database = named(&pod.served, "b.db");
        (database["durable_txid"] == database["txid"] && database["lag_seconds"] == 0.0)
            .then_some(())
    });
    // As it was, and then without the first.
    mount.exchange(&[("walrust.toml", &two)]);
    until("nothing is refused any more", PATIENCE, || {
        status(&pod.served)["config_error"].is_null().then_some(())
    });
    let only = configuration(&scene.bucket, None, &entry(&other));
    mount.exchange(&[("walrust.toml", &only)]);
    until("the first is let go", PATIENCE, || {
        named(&pod.served, "a.db").is_null().then_some(())
    });
    second.row();
    pod.stop().expect_success();
    assert_newest(&other.bucket, "b.db", other.path(), &other.oracle());
}

#[test]
fn rotated_credentials_count_without_a_restart_and_wrong_ones_heal() {
    let weed = Weed::start();
    let scene = Scene::on("pod-keys", "a.db", weed.bucket("pod-keys"));
    let mut writer = scene.writer(scene.spec(1));
    writer.steps(3);
    let folder = scene.path().join("keys");
    let mut keys = Volume::new(folder.clone(), &credentials(true));
    let mount = volume(
        &scene,
        &configuration(&scene.bucket, Some(&folder), &entry(&scene)),
    );
    let mut command = sidecar(&scene.bucket, "watch", &mount.path("walrust.toml"));
    command
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY");
    let pod = Sidecar::start(&mut command);
    wait_ready(&pod.served);
    keys.exchange(&credentials(false));
    writer.row();
    until("refused", PATIENCE, || {
        (named(&pod.served, "a.db")["error"]["kind"] == "denied").then_some(())
    });
    assert_eq!(pod.served.code("/livez"), 200);
    keys.exchange(&credentials(true));
    until("well again", PATIENCE * 2, || {
        named(&pod.served, "a.db")["error"].is_null().then_some(())
    });
    wait_ready(&pod.served);
    writer.row();
    pod.stop().expect_success();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
}

/// An init container's restore, with these keys.
fn init(scene: &Scene, text: &str, arguments: &[&str]) -> walrust_tests::process::Output {
    let path = scene.path().join("init.toml");
    std::fs::write(&path, text).unwrap();
    let mut command = sidecar(&scene.bucket, "restore", &path);
    Process::run(command.args(["--if-missing"]).args(arguments), PATIENCE * 3)
}

fn database_at(path: &Path) -> String {
    format!("[[databases]]\npath = \"{}\"\n", path.display())
}

#[test]
fn r142_an_init_restore_fails_closed() {
    const FRESH: &[&str] = &["--when-no-backup", "start-fresh"];
    let weed = Weed::start();
    let scene = Scene::on("pod-init", "a.db", weed.bucket("pod-init"));
    scene.writer(scene.spec(1)).steps(20);
    let mount = volume(&scene, &configuration(&scene.bucket, None, &entry(&scene)));
    let pod = watching(&scene, &mount);
    wait_ready(&pod.served);
    pod.stop().expect_success();
    let fresh = scene.path().join("new");
    std::fs::create_dir(&fresh).unwrap();
    let output = fresh.join("a.db");
    let text = |bucket: &Bucket| configuration(bucket, None, &database_at(&output));
    // A wrong key, and a bucket that is not there, are no "there is none".
    let keys = Volume::new(scene.path().join("wrong"), &credentials(false));
    let folder = keys.path("");
    let wrong = configuration(&scene.bucket, Some(&folder), &database_at(&output));
    init(&scene, &wrong, FRESH).expect_failure();
    let Bucket::S3 { endpoint, .. } = &scene.bucket else {
        panic!("a server")
    };
    let nowhere = Bucket::S3 {
        endpoint: endpoint.clone(),
        path: "no-such-bucket".to_owned(),
        root: None,
    };
    init(&scene, &text(&nowhere), FRESH).expect_failure();
    assert!(
        std::fs::read_dir(&fresh).unwrap().next().is_none(),
        "nothing is made"
    );
    // Another prefix has none: lawful only if told so.
    let empty = scene.bucket.below("empty");
    init(&scene, &text(&empty), &[]).expect_failure();
    init(&scene, &text(&empty), FRESH).expect_success();
    assert!(!output.exists());
    // The backup itself; then what is there is left alone, without a store.
    init(&scene, &text(&scene.bucket), FRESH).expect_success();
    let oracle = scene.oracle();
    let found = oracle.find(&output).unwrap();
    assert!(found.contains(&oracle.last().seq), "{found:?}");
    assert!(
        fresh.join(".a.db-walrust").exists(),
        "a watcher goes on from here"
    );
    init(&scene, &text(&nowhere), FRESH).expect_success();
    assert!(oracle.find(&output).is_ok());
}

/// A second pod whose volume was restored from the bucket.
fn successor(scene: &Scene, more: &str) -> (Scene, Volume) {
    let second = Scene::on("pod-second", scene.name(), scene.bucket.clone());
    let text = configuration(&scene.bucket, None, &entry(&second));
    let text = text.replace("[sync]", &format!("{more}\n[sync]"));
    init(&second, &text, &[]).expect_success();
    let mount = volume(&second, &text);
    (second, mount)
}

#[test]
fn u20_an_idle_owner_is_respected_a_released_lease_taken_and_the_gate_opens_then() {
    let weed = Weed::start();
    let scene = Scene::on("pod-lease", "a.db", weed.bucket("pod-lease"));
    scene.writer(scene.spec(1)).steps(5);
    let mount = volume(&scene, &configuration(&scene.bucket, None, &entry(&scene)));
    let first = watching(&scene, &mount);
    wait_ready(&first.served);
    let epoch = named(&first.served, "a.db")["lease"]["epoch"].clone();
    let (_second, config) = successor(&scene, "");
    let second = watching(&scene, &config);
    // The owner has been idle for longer than its lease, and answers.
    std::thread::sleep(Duration::from_secs(35));
    assert_eq!(second.served.unready(), ["acquiring_lease"]);
    assert_eq!(
        second.served.code("/startupz"),
        503,
        "the application is held"
    );
    assert_eq!(second.served.code("/livez"), 200);
    assert_eq!(named(&first.served, "a.db")["lease"]["epoch"], epoch);
    assert!(first.served.unready().is_empty());
    first.stop().expect_success();
    let began = Instant::now();
    wait_ready(&second.served);
    eprintln!("released: taken after {:?}", began.elapsed());
    until("the gate opens", PATIENCE, || {
        (second.served.code("/startupz") == 200).then_some(())
    });
    second.stop().expect_success();
}

#[test]
fn rule_14_a_restored_volume_whose_head_moved_is_brought_to_it_behind_the_gate() {
    let weed = Weed::start();
    let scene = Scene::on("pod-moved", "a.db", weed.bucket("pod-moved"));
    let mut writer = scene.writer(scene.spec(1));
    writer.steps(5);
    let mount = volume(&scene, &configuration(&scene.bucket, None, &entry(&scene)));
    let first = watching(&scene, &mount);
    wait_ready(&first.served);
    let (second, config) = successor(&scene, "");
    let (ungated, open) = successor(&scene, "gate_startup = \"never\"");
    let restored = std::fs::read(second.database()).unwrap();
    writer.steps(10);
    first.stop().expect_success();
    // Without a gate somebody may have it open: refused, and left as it is.
    let pod = watching(&scene, &open);
    until("refused", PATIENCE, || {
        (named(&pod.served, "a.db")["error"]["kind"] == "fenced").then_some(())
    });
    assert_eq!(pod.served.unready(), ["fenced"]);
    pod.stop();
    assert_eq!(std::fs::read(ungated.database()).unwrap(), restored);
    // Behind the gate it is restored again, and goes on from there.
    let pod = watching(&scene, &config);
    wait_ready(&pod.served);
    until("the gate opens", PATIENCE, || {
        (pod.served.code("/startupz") == 200).then_some(())
    });
    pod.stop().expect_success();
    let oracle = scene.oracle();
    let found = oracle.find(&second.database()).unwrap();
    assert!(found.contains(&oracle.last().seq), "{found:?}");
    assert_newest(&scene.bucket, "a.db", scene.path(), &oracle);
    let rebases = files_of_kind(&scene.bucket, "a.db", "rebase");
    assert!(rebases.is_empty(), "{rebases:?}");
}

#[test]
fn u20_a_dead_owner_is_replaced_within_two_leases() {
    let weed = Weed::start();
    let scene = Scene::on("pod-dead", "a.db", weed.bucket("pod-dead"));
    scene.writer(scene.spec(1)).steps(5);
    let mount = volume(&scene, &configuration(&scene.bucket, None, &entry(&scene)));
    let mut first = watching(&scene, &mount);
    wait_ready(&first.served);
    let (_second, config) = successor(&scene, "gate_startup = \"never\"");
    first.process.kill();
    let began = Instant::now();
    let second = watching(&scene, &config);
    assert_eq!(second.served.code("/startupz"), 200, "there is no gate");
    wait_ready(&second.served);
    eprintln!("dead: taken after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(50));
    second.stop().expect_success();
}

#[test]
fn r65_sigterm_under_load_ships_the_last_commit_of_twenty_databases_within_three_seconds() {
    const DATABASES: usize = 20;
    let weed = Weed::start();
    let bucket = weed.bucket("pod-load");
    let scenes: Vec<_> = (0..DATABASES)
        .map(|at| Scene::on("pod-load", &format!("d{at}.db"), bucket.clone()))
        .collect();
    let entries: String = scenes.iter().map(entry).collect();
    let mount = volume(&scenes[0], &configuration(&bucket, None, &entries));
    let mut apps: Vec<_> = scenes
        .iter()
        .zip(1..)
        .map(|(scene, seed)| {
            let mut spec = scene.spec(seed);
            spec.rate = Some(200.0 / DATABASES as f64);
            App::ready(&spec)
        })
        .collect();
    let mut pod = Sidecar::start(&mut sidecar(&bucket, "watch", &mount.path("walrust.toml")));
    wait_ready(&pod.served);
    for app in &mut apps {
        app.wait_commits(20);
    }
    // The application ends, and the sidecar right after it.
    for app in &mut apps {
        app.process.kill();
    }
    pod.process.signal(Signal::TERM);
    let began = Instant::now();
    pod.process.output(PATIENCE).expect_success();
    let took = began.elapsed();
    eprintln!("drained in {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    for scene in &scenes {
        let newest = {
            let _writer = scene.writer(scene.spec(99));
            scene.oracle()
        };
        assert_newest(&bucket, scene.name(), scene.path(), &newest);
    }
}

#[test]
fn u16_what_stays_behind_is_named_and_the_exit_status_is_1() {
    let mut weed = Weed::start();
    let scene = Scene::on("pod-late", "a.db", weed.bucket("pod-late"));
    let mut writer = scene.writer(scene.spec(1));
    writer.steps(3);
    let mount = volume(&scene, &configuration(&scene.bucket, None, &entry(&scene)));
    let path = mount.path("walrust.toml");
    let mut command = sidecar(&scene.bucket, "watch", &path);
    let mut pod = Sidecar::start(command.args(["--grace", "2s"]));
    wait_ready(&pod.served);
    weed.hang();
    writer.row();
    std::thread::sleep(Duration::from_millis(500));
    pod.process.signal(Signal::TERM);
    let output = pod.process.output(PATIENCE).expect_failure();
    assert!(
        output.stderr.contains("not everything is stored of a.db"),
        "{}",
        output.stderr
    );
    // A kept volume loses nothing.
    weed.resume();
    let pod = Sidecar::start(&mut sidecar(&scene.bucket, "watch", &path));
    wait_ready(&pod.served);
    pod.stop().expect_success();
    assert_newest(&scene.bucket, scene.name(), scene.path(), &scene.oracle());
}

#[test]
fn replicas_follow_their_sources_and_wait_for_those_that_are_not_there_yet() {
    let weed = Weed::start();
    let scene = Scene::on("pod-replica", "a.db", weed.bucket("pod-replica"));
    let folder = scene.path().join("replica");
    std::fs::create_dir(&folder).unwrap();
    let replica = folder.join("a.db");
    let more = format!(
        "[replicate]\ninterval = \"300ms\"\n{}local = \"{}\"\n",
        entry(&scene),
        replica.display()
    );
    let text = configuration(&scene.bucket, None, &more);
    let mount = volume(&scene, &text);
    let path = mount.path("walrust.toml");
    let mut process = Process::spawn(&mut sidecar(&scene.bucket, "replicate", &path));
    let served = Served::by(&mut process, "metrics");
    assert_eq!(served.unready(), ["no_base"]);
    assert_eq!(served.code("/livez"), 200);
    let mut writer = scene.writer(scene.spec(1));
    writer.steps(5);
    let watch = Sidecar::start(&mut sidecar(&scene.bucket, "watch", &path));
    wait_ready(&watch.served);
    wait_ready(&served);
    writer.row();
    until("the replica shows the newest commit", PATIENCE, || {
        let (theirs, ours) = (named(&watch.served, "a.db"), named(&served, "a.db"));
        let newest = theirs["txid"].as_u64()? == ours["txid"].as_u64()?;
        (newest && theirs["lag_seconds"] == 0.0).then_some(())
    });
    process.signal(Signal::TERM);
    process.output(PATIENCE).expect_success();
    watch.stop().expect_success();
    walrust_tests::support::assert_sound(&replica);
}
