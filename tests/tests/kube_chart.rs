//! The Helm chart on a real API server: installed, upgraded, taken away, installed again; what admission then does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "test code"
)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};
use walrust_tests::chart::{Helm, folder, named, variants};
use walrust_tests::cluster::{Answer, Cluster, program, run};
use walrust_tests::support::{PATIENCE, scratch, until};

const NAMESPACE: &str = "walrust-system";

/// The cluster, for one test at a time: the chart has objects outside namespaces.
fn alone() -> (MutexGuard<'static, ()>, &'static Cluster) {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that failed says so itself.
    let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    (turn, Cluster::shared())
}

fn helm(cluster: &Cluster, arguments: &[&str]) -> Answer {
    let mut command = cluster.kubectl().command(&program("helm"));
    command.args(["--namespace", NAMESPACE]).args(arguments);
    run(&mut command)
}

/// A release that is uninstalled at the end of its test.
struct Release<'c> {
    cluster: &'c Cluster,
}

impl<'c> Release<'c> {
    #[track_caller]
    fn install(cluster: &'c Cluster, chart: &Path, options: &[&str]) -> Self {
        let chart = chart.to_str().unwrap();
        let mut arguments = vec!["install", "walrust", chart, "--create-namespace"];
        arguments.extend(options);
        helm(cluster, &arguments).expect();
        Self { cluster }
    }

    #[track_caller]
    fn upgrade(&self, chart: &Path, options: &[&str]) {
        let mut arguments = vec!["upgrade", "walrust", chart.to_str().unwrap()];
        arguments.extend(options);
        helm(self.cluster, &arguments).expect();
    }
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        let _ = helm(self.cluster, &["uninstall", "walrust"]);
    }
}

fn backup(name: &str) -> String {
    json!({
        "apiVersion": "walrust.dev/v1alpha1",
        "kind": "WalrustBackup",
        "metadata": {"name": name},
        "spec": {
            "storage": {"bucket": "team-backups", "credentials": {"secretRef": {"name": "s3"}}},
            "databases": [{"name": "main", "path": "/data/app.db"}],
        },
    })
    .to_string()
}

fn pod(name: &str, inject: Option<&str>, containers: &[&str]) -> String {
    let mut labels = json!({"app": "notes"});
    if let Some(inject) = inject {
        labels["walrust.dev/inject"] = inject.into();
        labels["walrust.dev/backup"] = "notes".into();
    }
    let container = |name: &&str| json!({"name": name, "image": "registry.example.test/app:1"});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "initContainers": containers.iter().map(container).collect::<Vec<_>>(),
            "containers": [container(&"app")],
        },
    })
    .to_string()
}

/// Definitions of what other people's charts bring; only their names matter here.
fn stand_ins() -> String {
    let definition = |group: &str, kind: &str, version: &str| {
        let plural = format!("{}s", kind.to_lowercase());
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
                "versions": [{
                    "name": version, "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {
                        "type": "object",
                        "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                    }},
                }],
            },
        })
    };
    let prometheus = "monitoring.coreos.com";
    let definitions = [
        definition(prometheus, "ServiceMonitor", "v1"),
        definition(prometheus, "PodMonitor", "v1"),
        definition(prometheus, "PrometheusRule", "v1"),
        definition("cert-manager.io", "Certificate", "v1"),
        definition("cert-manager.io", "Issuer", "v1"),
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": definitions}).to_string()
}

#[test]
fn the_api_server_takes_every_object_of_every_variant() {
    let (_turn, cluster) = alone();
    let kubectl = cluster.kubectl();
    kubectl.apply(&stand_ins()).expect();
    for definition in [
        "servicemonitors.monitoring.coreos.com",
        "issuers.cert-manager.io",
    ] {
        let definition = format!("crd/{definition}");
        kubectl.ok(["wait", "--for=condition=Established", &definition]);
    }
    for namespace in [NAMESPACE, "apps", "shop"] {
        let _ = kubectl.run(["create", "namespace", namespace]);
    }
    // An uninstalled chart leaves its definitions, which other tests may have done.
    let definitions = ["walrustbackups.walrust.dev", "walrustrestores.walrust.dev"];
    let delete = ["delete", "crd", "--ignore-not-found"];
    kubectl.ok(delete.into_iter().chain(definitions));
    let offline = Helm::new();
    for file in variants() {
        let text = offline.template(&["-f", file.to_str().unwrap()]).expect();
        // Unknown fields are errors, as is everything that the server itself would refuse.
        let dry = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
        let answer = kubectl.fed(dry, &text);
        assert!(answer.ok, "{}: {}", file.display(), answer.stderr);
        assert!(!answer.stderr.contains("Warning"), "{}", answer.stderr);
    }
}

/// The chart as an older revision of it might have been: the definitions lack a column and a field.
fn older_chart(into: &Path) {
    let copy = |from: &Path| {
        let mut command = Command::new("cp");
        command.arg("-r").arg(from).arg(into);
        assert!(run(&mut command).ok);
    };
    copy(&folder());
    let path = into.join("walrust/files/crds/walrustbackups.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let mut definition: Value = serde_saphyr::from_str(&text).unwrap();
    let version = &mut definition["spec"]["versions"][0];
    version["additionalPrinterColumns"]
        .as_array_mut()
        .unwrap()
        .pop();
    let spec = &mut version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    assert!(spec.as_object_mut().unwrap().remove("suspend").is_some());
    let meta = definition["metadata"]["name"].as_str().unwrap();
    let text = format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: {meta}\nspec: {}\n",
        definition["spec"]
    );
    fs::write(&path, text).unwrap();
}

#[test]
fn an_upgrade_brings_new_definitions_and_backups_outlive_the_release() {
    let (_turn, cluster) = alone();
    let old = scratch("chart");
    older_chart(old.path());
    let release = Release::install(cluster, &old.path().join("walrust"), &[]);
    let apps = cluster.namespace("apps");
    let kubectl = cluster.kubectl().within(&apps);
    let definition = "crd/walrustbackups.walrust.dev";
    kubectl.ok(["wait", "--for=condition=Established", definition]);
    kubectl.apply(&backup("notes")).expect();
    let suspended = backup("notes").replace("\"databases\"", "\"suspend\": true, \"databases\"");
    let refusal = kubectl.apply(&suspended).refused();
    assert!(refusal.contains("suspend"), "{refusal}");

    release.upgrade(&folder(), &[]);
    until("the new field is taken", PATIENCE, || {
        kubectl.apply(&suspended).ok.then_some(())
    });
    let columns = kubectl.ok([
        "get",
        definition,
        "-o",
        "jsonpath={..additionalPrinterColumns[*].name}",
    ]);
    assert!(columns.ends_with("Age"), "{columns}");

    helm(cluster, &["uninstall", "walrust"]).expect();
    let deployments = kubectl.ok(["get", "deployment", "-n", NAMESPACE, "-o", "name"]);
    assert_eq!(deployments, "");
    for kind in [
        "mutatingwebhookconfiguration",
        "validatingadmissionpolicy",
        "clusterrole",
    ] {
        let left = kubectl.list(kind, "app.kubernetes.io/part-of=walrust");
        assert_eq!(
            left.iter().map(named).collect::<Vec<_>>(),
            [""; 0],
            "{kind}"
        );
    }
    let before = kubectl
        .get("walrustbackup", "notes")
        .expect("the backup stays");

    // Again: what stayed is taken over without being asked for.
    let _again = Release::install(cluster, &folder(), &[]);
    let after = kubectl.get("walrustbackup", "notes").unwrap();
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["spec"]["suspend"], true);
    kubectl.ok(["delete", "walrustbackup", "notes"]);
}

#[test]
fn while_no_operator_answers_only_labelled_pods_wait() {
    let (_turn, cluster) = alone();
    let _release = Release::install(cluster, &folder(), &[]);
    let apps = cluster.namespace("apps");
    let kubectl = cluster.kubectl().within(&apps);
    let refusal = until("the webhook is asked", PATIENCE, || {
        let answer = kubectl.would_take(&pod("a", Some("watch"), &[]));
        (!answer.ok).then_some(answer.stderr)
    });
    assert!(
        refusal.contains("inject.walrust.dev") || refusal.contains("walrust sidecar"),
        "{refusal}"
    );
    kubectl.would_take(&pod("b", None, &[])).expect();
}

#[test]
fn the_guard_refuses_labelled_pods_that_no_webhook_injected() {
    let (_turn, cluster) = alone();
    let options = ["--set", "webhook.failurePolicy=Ignore"];
    let _release = Release::install(cluster, &folder(), &options);
    let apps = cluster.namespace("apps");
    let kubectl = cluster.kubectl().within(&apps);
    for label in ["watch", "wacth", ""] {
        let refusal = until("the guard is in force", PATIENCE, || {
            let answer = kubectl.would_take(&pod("a", Some(label), &["setup"]));
            (!answer.ok).then_some(answer.stderr)
        });
        assert!(refusal.contains("has no walrust sidecar"), "{refusal}");
    }
    kubectl
        .would_take(&pod("b", Some("watch"), &["walrust"]))
        .expect();
    kubectl.would_take(&pod("c", None, &[])).expect();
}

#[test]
fn the_roles_admin_and_edit_write_backups_and_view_reads_them() {
    let (_turn, cluster) = alone();
    let _release = Release::install(cluster, &folder(), &[]);
    let apps = cluster.namespace("apps");
    let kubectl = cluster.kubectl().within(&apps);
    for (role, writes) in [("view", false), ("edit", true), ("admin", true)] {
        let (role_flag, user) = (format!("--clusterrole={role}"), format!("{role}-user"));
        let user_flag = format!("--user={user}");
        kubectl.ok(["create", "rolebinding", role, &role_flag, &user_flag]);
        let may = |verb: &str| {
            let answer = kubectl.run(["auth", "can-i", verb, "walrustbackups", "--as", &user]);
            answer.stdout.trim() == "yes"
        };
        until("the role is aggregated", PATIENCE, || {
            may("get").then_some(())
        });
        for verb in ["create", "update", "patch", "delete"] {
            if writes {
                until("the role is aggregated", PATIENCE, || {
                    may(verb).then_some(())
                });
            } else {
                assert!(!may(verb), "{role} may {verb}");
            }
        }
    }
}
