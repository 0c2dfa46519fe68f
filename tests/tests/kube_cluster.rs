//! The test cluster itself: it answers, its parts can go away, and nothing of it stays.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use walrust_tests::cluster::{Access, Cluster, Part, host};
use walrust_tests::support::{PATIENCE, built, until};

/// Processes whose command line names `folder`.
fn processes(folder: &Path) -> usize {
    let folder = folder.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| String::from_utf8_lossy(line).contains(folder))
        .count()
}

#[track_caller]
fn assert_no_process(folder: &Path) {
    until("all processes have ended", PATIENCE, || {
        (processes(folder) == 0).then_some(())
    });
}

#[test]
fn a_cluster_answers_loses_parts_and_leaves_nothing_behind() {
    let start = Instant::now();
    let cluster = Cluster::start();
    eprintln!("cluster: started in {:.1} s", start.elapsed().as_secs_f64());
    let folder = cluster.access().folder.clone();
    assert_eq!(processes(&folder), 3);

    let namespace = cluster.namespace("there");
    let kubectl = cluster.kubectl().within(&namespace);
    kubectl.ok(["create", "configmap", "a", "--from-literal=b=c"]);
    cluster.kill(Part::ApiServer);
    kubectl.run(["get", "configmap", "a"]).refused();
    cluster.revive(Part::ApiServer);
    let stored = kubectl.get("configmap", "a").unwrap();
    assert_eq!(stored["data"]["b"], "c");

    // A token of a service account opens the door, but not every room.
    let own = cluster.kubeconfig_of(&namespace, "default");
    let account = walrust_tests::cluster::Kubectl::new(&folder, &own).within(&namespace);
    let refusal = account.run(["get", "configmap", "a"]).refused();
    let user = format!("system:serviceaccount:{namespace}:default");
    assert!(refusal.contains(&user), "{refusal}");
    until("the refusal is in the audit log", PATIENCE, || {
        let log = fs::read_to_string(&cluster.access().audit_log).unwrap();
        let line = log.lines().find(|line| line.contains(&user))?;
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        (entry["responseStatus"]["code"] == 403).then_some(())
    });

    let end = Instant::now();
    drop(cluster);
    eprintln!("cluster: ended in {:.1} s", end.elapsed().as_secs_f64());
    assert_no_process(&folder);
    assert!(!folder.exists());
}

#[test]
fn a_cluster_whose_owner_is_killed_ends_too() {
    let mut command = Command::new(built("WALRUST_TEST_CLUSTER", "walrust-test-cluster"));
    let mut owner = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(owner.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    let access: Access = serde_json::from_str(&line).unwrap();
    assert_eq!(processes(&access.folder), 3);
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert_no_process(&access.folder);
    // The folder of a killed owner is the next one's to remove; processes may still be letting go of their files.
    until("the folder is removed", Duration::from_secs(10), || {
        host::remove_stale();
        (!access.folder.exists()).then_some(())
    });
}
