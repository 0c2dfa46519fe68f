//! The operator on a real API server, with the token and the rights that the chart gives it.
//!
//! One test, for it ends by looking at every request that the operator made: all of them allowed, and no right left unused.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use walrust_tests::chart::folder;
use walrust_tests::cluster::{Cluster, Kubectl, program, run};
use walrust_tests::operator::{
    NAMESPACE, Operator, Sidecar, condition, pod, pod_of_job, requests_of, set_ended, set_running,
    status, wait_condition,
};
use walrust_tests::process::Signal;
use walrust_tests::support::{PATIENCE, plain_request, until};

const USER: &str = "system:serviceaccount:walrust-system:walrust";
const SECOND: &str = "system:serviceaccount:walrust-system:second";

/// What a part of the test is called, and the part.
type Step = (&'static str, fn(&Cluster));

fn backup(name: &str, prefix: &str) -> Value {
    json!({
        "apiVersion": "walrust.dev/v1alpha1",
        "kind": "WalrustBackup",
        "metadata": {"name": name},
        "spec": {
            "storage": {"bucket": "team-backups", "prefix": prefix, "credentials": {"secretRef": {"name": "s3"}}},
            "databases": [{"name": "main", "path": "/data/app.db"}],
            "schedules": {
                "compact": {"cron": "23 * * * *"},
                "verify": {"cron": "17 3 * * *"},
                "restoreDrill": {"cron": "41 4 * * 0"},
            },
        },
    })
}

#[test]
fn the_operator_keeps_what_it_promises_with_exactly_the_rights_that_it_has() {
    let cluster = Cluster::start();
    install(&cluster);
    let mut operator = Operator::start("first", &cluster.kubeconfig_of(NAMESPACE, "walrust"));
    operator.wait_leading(PATIENCE);
    let steps: [Step; 6] = [
        (
            "what is deleted by hand comes back, and all goes with the backup",
            objects_come_back,
        ),
        (
            "a path conflict and a schedule that the API server refuses are told",
            refusals_are_told,
        ),
        (
            "the status says what the sidecars say",
            status_tells_the_truth,
        ),
        (
            "reports of Jobs become conditions",
            reports_become_conditions,
        ),
        ("a restore runs once", a_restore_runs_once),
        ("a quiet operator writes nothing", quiet_writes_nothing),
    ];
    for (claim, step) in steps {
        let start = Instant::now();
        step(&cluster);
        eprintln!("{claim}: {:.1} s", start.elapsed().as_secs_f64());
    }
    metrics_are_served(&mut operator);
    let start = Instant::now();
    leaders_do_not_fight(&cluster, operator);
    eprintln!(
        "two operators never fight: {:.1} s",
        start.elapsed().as_secs_f64()
    );
    every_right_is_used(&cluster);
}

fn install(cluster: &Cluster) {
    let mut command = cluster.kubectl().command(&program("helm"));
    command.args(["install", "walrust"]).arg(folder());
    command.args([
        "--namespace",
        NAMESPACE,
        "--create-namespace",
        "--set",
        "webhook.enabled=false",
    ]);
    run(&mut command).expect();
    let kubectl = cluster.kubectl();
    for kind in ["walrustbackups", "walrustrestores"] {
        let definition = format!("crd/{kind}.walrust.dev");
        kubectl.ok(["wait", "--for=condition=Established", &definition]);
    }
    // A second operator, told apart in the audit log.
    let own = kubectl.within(NAMESPACE);
    own.ok(["create", "serviceaccount", "second"]);
    let account = "--serviceaccount=walrust-system:second";
    own.ok(["create", "rolebinding", "second", "--role=walrust", account]);
    own.ok([
        "create",
        "clusterrolebinding",
        "second",
        "--clusterrole=walrust",
        account,
    ]);
}

fn space(cluster: &Cluster, name: &str) -> Kubectl {
    cluster.kubectl().within(&cluster.namespace(name))
}

fn objects_come_back(cluster: &Cluster) {
    let kubectl = space(cluster, "objects");
    kubectl.apply(&backup("notes", "").to_string()).expect();
    let made = wait_condition(&kubectl, "SchedulesReady", "True", "Scheduled");
    assert_eq!(condition(&made, "ConfigRendered").unwrap().0, "True");
    assert_eq!(
        condition(&made, "Ready").unwrap(),
        ("False".to_owned(), "NoPods".to_owned())
    );
    let config = kubectl.get("configmap", "notes-walrust").unwrap();
    let hash = config["metadata"]["annotations"]["walrust.dev/config-hash"]
        .as_str()
        .unwrap();
    assert_eq!(made["status"]["config"]["hash"], hash);
    assert_eq!(
        config["metadata"]["ownerReferences"][0]["uid"],
        made["metadata"]["uid"]
    );
    let text = config["data"]["walrust.toml"].clone();

    let edit = r#"{"data":{"walrust.toml":"mine = true"}}"#;
    kubectl.ok([
        "patch",
        "configmap",
        "notes-walrust",
        "--type=merge",
        "-p",
        edit,
    ]);
    until("the edit is undone", PATIENCE, || {
        let config = kubectl.get("configmap", "notes-walrust")?;
        (config["data"]["walrust.toml"] == text).then_some(())
    });
    for (kind, name) in [
        ("configmap", "notes-walrust"),
        ("cronjob", "notes-verify"),
        ("cronjob", "notes-restore-drill"),
    ] {
        let former = kubectl.get(kind, name).unwrap()["metadata"]["uid"].clone();
        kubectl.ok(["delete", kind, name]);
        until("it comes back", PATIENCE, || {
            let again = kubectl.get(kind, name)?;
            (again["metadata"]["uid"] != former).then_some(())
        });
    }
    let less = r#"[{"op":"remove","path":"/spec/schedules/verify"}]"#;
    kubectl.ok(["patch", "wb", "notes", "--type=json", "-p", less]);
    until("its CronJob goes", PATIENCE, || {
        kubectl
            .get("cronjob", "notes-verify")
            .is_none()
            .then_some(())
    });
    assert!(kubectl.get("cronjob", "notes-compact").is_some());
    kubectl.ok(["delete", "wb", "notes"]);
    until("everything goes with it", PATIENCE, || {
        let left = kubectl.list("configmap,cronjob", "walrust.dev/backup=notes");
        left.is_empty().then_some(())
    });
}

fn refusals_are_told(cluster: &Cluster) {
    let kubectl = space(cluster, "refusals");
    kubectl
        .apply(&backup("older", "shared").to_string())
        .expect();
    // Creation times have whole seconds.
    thread::sleep(Duration::from_millis(1_100));
    let mut younger = backup("notes", "shared/main");
    younger["spec"]["schedules"]["timeZone"] = "Nowhere/Never".into();
    kubectl.apply(&younger.to_string()).expect();
    let told = wait_condition(&kubectl, "Ready", "False", "PathConflict");
    let message = told["status"]["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("/older writes to"), "{message}");
    assert!(kubectl.get("configmap", "notes-walrust").is_none());

    kubectl.ok(["delete", "wb", "older"]);
    // The next look finds the place free.
    let touch = r#"{"metadata":{"annotations":{"touched":"1"}}}"#;
    kubectl.ok(["patch", "wb", "notes", "--type=merge", "-p", touch]);
    let told = wait_condition(&kubectl, "SchedulesReady", "False", "InvalidSchedule");
    assert_eq!(condition(&told, "ConfigRendered").unwrap().0, "True");

    // What belongs to somebody else is not taken.
    kubectl.ok([
        "create",
        "configmap",
        "theirs-walrust",
        "--from-literal=a=b",
    ]);
    kubectl.apply(&backup("theirs", "").to_string()).expect();
    until("the name is told to be taken", PATIENCE, || {
        let theirs = kubectl.get("wb", "theirs")?;
        (condition(&theirs, "ConfigRendered")?.1 == "ApplyFailed").then_some(())
    });
    assert_eq!(
        kubectl.get("configmap", "theirs-walrust").unwrap()["data"]["a"],
        "b"
    );
    // What is refused is tried again and again, which the last step would count.
    kubectl.ok(["delete", "wb", "--all"]);
}

/// The configuration that a backup's pods should run.
fn hash_of(backup: &Value) -> String {
    backup["status"]["config"]["hash"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// The pod `notes-0`, whose sidecar runs the configuration of this hash and has everything stored.
fn following(kubectl: &Kubectl, hash: &str) -> Sidecar {
    let sidecar = Sidecar::start(status(hash, "in_sync", None));
    kubectl.apply(&pod("notes-0", Some(sidecar.port))).expect();
    set_running(kubectl, "notes-0");
    sidecar
}

fn status_tells_the_truth(cluster: &Cluster) {
    let kubectl = space(cluster, "status");
    kubectl.apply(&backup("notes", "").to_string()).expect();
    let made = wait_condition(&kubectl, "Injected", "False", "NoPods");
    let hash = hash_of(&made);
    let sidecar = following(&kubectl, &hash);
    let synced = wait_condition(&kubectl, "Ready", "True", "Ready");
    assert_eq!(synced["status"]["summary"], "1/1");
    assert_eq!(synced["status"]["everSynced"], true);
    assert_eq!(synced["status"]["config"]["podsCurrent"], 1);
    let database = &synced["status"]["databases"][0];
    assert_eq!(
        (&database["state"], &database["txid"]),
        (&json!("InSync"), &json!(42))
    );

    for (state, error, reason) in [
        ("lagging", None, "Lagging"),
        (
            "erroring",
            Some(("denied", "403 from the store")),
            "AccessDenied",
        ),
        (
            "lagging",
            Some(("unavailable", "no answer")),
            "StorageUnreachable",
        ),
        ("fenced", None, "LeaseHeldElsewhere"),
        ("waiting_for_file", None, "DatabaseMissing"),
        ("detached", None, "Detached"),
        ("snapshotting", None, "Snapshotting"),
        ("a_word_of_tomorrow", None, "Erroring"),
    ] {
        sidecar.say(Some(status(&hash, state, error)));
        let told = wait_condition(&kubectl, "Replicating", "False", reason);
        assert_eq!(
            condition(&told, "Ready").unwrap(),
            ("False".to_owned(), reason.to_owned())
        );
        assert_eq!(told["status"]["summary"], "0/1");
    }
    sidecar.say(None);
    let told = wait_condition(&kubectl, "Replicating", "False", "Unreachable");
    assert_eq!(told["status"]["databases"][0]["state"], "Unreachable");
    sidecar.say(Some(status("0123456789ab", "in_sync", None)));
    wait_condition(&kubectl, "Injected", "False", "ConfigPending");
    let mut refused = status("0123456789ab", "in_sync", None);
    refused["config_error"] = "unknown key".into();
    sidecar.say(Some(refused));
    until("the sidecar's refusal is told", PATIENCE, || {
        let told = kubectl.get("wb", "notes")?;
        told.to_string()
            .contains("refuses the configuration: unknown key")
            .then_some(())
    });
    sidecar.say(Some(status(&hash, "in_sync", None)));
    wait_condition(&kubectl, "Ready", "True", "Ready");

    let other = Sidecar::start(status(&hash, "acquiring_lease", None));
    kubectl.apply(&pod("notes-1", Some(other.port))).expect();
    set_running(&kubectl, "notes-1");
    wait_condition(&kubectl, "Injected", "False", "MultipleWriters");
    kubectl.ok(["delete", "pod", "notes-1", "--force", "--grace-period=0"]);
    kubectl.apply(&pod("old", None)).expect();
    wait_condition(&kubectl, "Injected", "False", "RolloutNeeded");
    kubectl.ok(["delete", "pod", "old", "--force", "--grace-period=0"]);
    kubectl.ok([
        "patch",
        "wb",
        "notes",
        "--type=merge",
        "-p",
        r#"{"spec":{"suspend":true}}"#,
    ]);
    let told = wait_condition(&kubectl, "Ready", "False", "Suspended");
    assert_eq!(condition(&told, "Suspended").unwrap().0, "True");
    assert_eq!(
        kubectl.get("cronjob", "notes-verify").unwrap()["spec"]["suspend"],
        true
    );

    let events = kubectl.ok(["get", "events", "-o", "jsonpath={.items[*].reason}"]);
    for reason in [
        "SidecarRunning",
        "ReplicationLagging",
        "ReplicationRecovered",
        "MultipleWriters",
        "RolloutNeeded",
    ] {
        assert!(events.contains(reason), "no event {reason}: {events}");
    }
    kubectl.ok(["delete", "wb", "notes"]);
}

fn report(task: &str, ok: bool, message: &str) -> String {
    json!({
        "v": 1, "task": task, "ok": ok, "started": "2026-11-24T10:59:00Z", "finished": "2026-11-24T11:00:00Z",
        "databases": [{"name": "main", "ok": ok, "txid": 42, "message": message}], "truncated": false,
    })
    .to_string()
}

fn reports_become_conditions(cluster: &Cluster) {
    let kubectl = space(cluster, "reports");
    kubectl.apply(&backup("notes", "").to_string()).expect();
    let made = wait_condition(&kubectl, "Verified", "Unknown", "NeverRun");
    let _sidecar = following(&kubectl, &hash_of(&made));
    wait_condition(&kubectl, "Ready", "True", "Ready");
    let run_job = |from: &str, name: &str, exit_code: i32, message: &str| {
        let from = format!("--from=cronjob/notes-{from}");
        kubectl.ok(["create", "job", name, &from]);
        let pod = pod_of_job(&kubectl, name);
        set_ended(&kubectl, &pod, exit_code, message);
    };
    run_job("verify", "one", 0, &report("verify", true, ""));
    let told = wait_condition(&kubectl, "Verified", "True", "Passed");
    assert_eq!(
        told["status"]["databases"][0]["lastVerify"]["result"],
        "Passed"
    );
    // Jobs of one second have no order.
    thread::sleep(Duration::from_millis(1_100));
    run_job(
        "verify",
        "two",
        4,
        &report("verify", false, "page 3 of 0000000000000007.ltx"),
    );
    let told = wait_condition(&kubectl, "Verified", "False", "Failed");
    assert_eq!(
        condition(&told, "Ready").unwrap(),
        ("False".to_owned(), "Failed".to_owned())
    );
    assert!(
        told.to_string()
            .contains("main: page 3 of 0000000000000007.ltx")
    );
    // What was found is remembered, also when the Job is gone.
    kubectl.ok(["delete", "job", "two", "one"]);
    thread::sleep(Duration::from_secs(2));
    wait_condition(&kubectl, "Verified", "False", "Failed");
    thread::sleep(Duration::from_millis(1_100));
    run_job("verify", "three", 0, &report("verify", true, ""));
    wait_condition(&kubectl, "Verified", "True", "Passed");
    run_job("restore-drill", "drill", 0, &report("drill", true, ""));
    let told = wait_condition(&kubectl, "RestoreTested", "True", "Passed");
    assert_eq!(told["status"]["databases"][0]["lastDrill"]["txid"], 42);
    wait_condition(&kubectl, "Ready", "True", "Ready");
}

fn restore(name: &str, claim: &str) -> String {
    json!({
        "apiVersion": "walrust.dev/v1alpha1",
        "kind": "WalrustRestore",
        "metadata": {"name": name},
        "spec": {"backupRef": {"name": "notes"}, "database": "main", "target": {"claimName": claim, "path": "app.db"}},
    })
    .to_string()
}

fn a_restore_runs_once(cluster: &Cluster) {
    let kubectl = space(cluster, "restore");
    let phase = |name: &str, wanted: &str| {
        until(&format!("{name} is {wanted}"), PATIENCE, || {
            let restore = kubectl.get("wr", name)?;
            (restore["status"]["phase"] == wanted).then_some(restore)
        })
    };
    kubectl.apply(&restore("before", "data")).expect();
    let told = phase("before", "Blocked");
    assert_eq!(condition(&told, "Blocked").unwrap().1, "BackupNotFound");
    // In use before the backup is there: the restore would begin in between.
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}},
    });
    kubectl.apply(&claim.to_string()).expect();
    let user = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "user"},
        "spec": {
            "containers": [{"name": "app", "image": "registry.example.test/app:1"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    });
    kubectl.apply(&user.to_string()).expect();
    kubectl.apply(&backup("notes", "").to_string()).expect();
    until("the user of the claim is named", PATIENCE, || {
        let told = kubectl.get("wr", "before")?;
        (condition(&told, "Blocked")?.1 == "ClaimInUse"
            && told.to_string().contains("used by user"))
        .then_some(())
    });
    assert!(kubectl.get("job", "before-restore").is_none());
    kubectl.ok(["delete", "pod", "user", "--force", "--grace-period=0"]);
    phase("before", "Running");
    let pod = pod_of_job(&kubectl, "before-restore");
    set_ended(&kubectl, &pod, 0, &report("restore", true, ""));
    let told = phase("before", "Succeeded");
    assert_eq!(told["status"]["restoredTxid"], 42);
    // Over is over.
    kubectl.ok(["delete", "job", "before-restore"]);

    kubectl.apply(&restore("lost", "data")).expect();
    phase("lost", "Running");
    until("the Job is there", PATIENCE, || {
        kubectl.get("job", "lost-restore")
    });
    kubectl.ok(["delete", "job", "lost-restore", "--cascade=foreground"]);
    let told = phase("lost", "Failed");
    assert_eq!(condition(&told, "Failed").unwrap().1, "JobLost");
    assert_eq!(kubectl.list("jobs", "walrust.dev/task=restore").len(), 0);
}

fn quiet_writes_nothing(cluster: &Cluster) {
    let writes = || {
        let requests = requests_of(cluster, USER);
        let writes = requests.into_iter().filter(|(verb, _, resource, _)| {
            ["create", "update", "patch", "delete"].contains(&verb.as_str()) && resource != "leases"
        });
        writes.collect::<Vec<_>>()
    };
    // What the steps before began ends first.
    thread::sleep(Duration::from_secs(5));
    let before = writes().len();
    thread::sleep(Duration::from_secs(15));
    let after = writes();
    assert_eq!(
        after[before..],
        [],
        "30 looks at each sidecar, and nothing changed"
    );
}

fn metrics_are_served(operator: &mut Operator) {
    let endpoint = operator.endpoint();
    let page = plain_request(&endpoint, "GET", "/metrics").unwrap();
    for series in [
        "walrust_operator_leader 1",
        "walrust_operator_reconcile_total{kind=\"WalrustBackup\",outcome=\"ok\"}",
        "walrust_operator_scrape_total{outcome=\"unreachable\"}",
        "type=\"Verified\",status=\"True\",reason=\"Passed\"} 1",
        "walrust_backup_task_failures{",
    ] {
        assert!(page.contains(series), "no {series}: {page}");
    }
    assert!(
        plain_request(&endpoint, "GET", "/readyz")
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );
}

fn leaders_do_not_fight(cluster: &Cluster, mut first: Operator) {
    let account: PathBuf = cluster.kubeconfig_of(NAMESPACE, "second");
    let mut second = Operator::start("second", &account);
    let kubectl = space(cluster, "leaders");
    kubectl.apply(&backup("notes", "").to_string()).expect();
    wait_condition(&kubectl, "SchedulesReady", "True", "Scheduled");
    let writes = |user: &str| {
        let requests = requests_of(cluster, user);
        let writes = |verb: &str| ["create", "update", "patch", "delete"].contains(&verb);
        let writes = requests.iter().filter(|(verb, ..)| writes(verb));
        // A renewal that was on its way when the process was stopped is refused by its version.
        writes
            .filter(|(_, _, resource, _)| resource != "leases")
            .count()
    };
    assert_eq!(writes(SECOND), 0, "who does not lead writes nothing");

    first.process.signal(Signal::STOP);
    let stopped = Instant::now();
    second.wait_leading(Duration::from_secs(25));
    eprintln!(
        "a leader that stood still was followed after {:.1} s",
        stopped.elapsed().as_secs_f64()
    );
    let before = writes(USER);
    kubectl.ok(["delete", "configmap", "notes-walrust"]);
    first.process.signal(Signal::CONT);
    until("the second works", PATIENCE, || {
        kubectl.get("configmap", "notes-walrust")
    });
    let status = first.process.wait(PATIENCE);
    assert_eq!(status.code(), Some(1), "a lost lease ends the process");
    assert_eq!(writes(USER), before, "a former leader writes nothing");

    let mut third = Operator::start("third", &cluster.kubeconfig_of(NAMESPACE, "walrust"));
    second.process.kill();
    let killed = Instant::now();
    third.wait_leading(Duration::from_secs(25));
    eprintln!(
        "a killed leader was followed after {:.1} s",
        killed.elapsed().as_secs_f64()
    );
    // A leader that is asked to end gives the lease back.
    let mut fourth = Operator::start("fourth", &account);
    third.process.signal(Signal::TERM);
    assert!(third.process.wait(PATIENCE).success());
    let ended = Instant::now();
    fourth.wait_leading(Duration::from_secs(8));
    eprintln!(
        "a leader that ended was followed after {:.1} s",
        ended.elapsed().as_secs_f64()
    );
}

fn every_right_is_used(cluster: &Cluster) {
    let mut used = BTreeSet::new();
    for user in [USER, SECOND] {
        for (verb, group, resource, code) in requests_of(cluster, user) {
            assert_ne!(code, 403, "{user} may not {verb} {group} {resource}");
            used.insert(format!("{group} {resource} {verb}"));
        }
    }
    let kubectl = cluster.kubectl().within(NAMESPACE);
    let mut unused = Vec::new();
    for (kind, name) in [("clusterrole", "walrust"), ("role", "walrust")] {
        let role = kubectl.get(kind, name).unwrap();
        for rule in role["rules"].as_array().unwrap() {
            let words = |key: &str| {
                let words = rule[key].as_array().unwrap().iter();
                words
                    .map(|word| word.as_str().unwrap().to_owned())
                    .collect::<Vec<_>>()
            };
            for resource in words("resources") {
                for verb in words("verbs") {
                    let group = &words("apiGroups")[0];
                    let right = format!("{group} {resource} {verb}");
                    // Asked for beside a request and not by one: by the admission of owner references, and by a
                    // server-side apply that makes its object.
                    let applied = format!("{group} {resource} patch");
                    let beside = resource.ends_with("/finalizers")
                        || (verb == "create" && used.contains(&applied));
                    if !used.contains(&right) && !beside {
                        unused.push(right);
                    }
                }
            }
        }
    }
    assert_eq!(unused, [""; 0], "rights that nothing needed");
}
