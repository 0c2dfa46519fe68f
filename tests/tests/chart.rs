//! The Helm chart without a cluster: what it renders, what it refuses, its alerts, its documentation.
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

use serde_json::Value;
use walrust_tests::chart::{Helm, folder, named, repository, values_table, variants};
use walrust_tests::cluster::program;
use walrust_tests::process::Process;
use walrust_tests::support::{PATIENCE, scratch};

/// Series of the operator, in docs/kubernetes/metrics.md.
const OPERATOR_METRICS: &str = "docs/kubernetes/metrics.md";

#[test]
fn every_variant_is_linted_strictly_and_rendered() {
    let helm = Helm::new();
    let chart = folder();
    for file in variants() {
        let file = file.to_str().unwrap();
        let chart = chart.to_str().unwrap();
        helm.run(&["lint", "--strict", chart, "-f", file]).expect();
        let objects = helm.render(&["-f", file]);
        for object in &objects {
            check_object(file, object);
        }
        let place =
            |object: &Value| format!("{} in {}", named(object), object["metadata"]["namespace"]);
        let names: BTreeSet<String> = objects.iter().map(place).collect();
        assert_eq!(names.len(), objects.len(), "{file}: a name twice");
    }
}

/// What holds for every object of every variant.
#[track_caller]
fn check_object(file: &str, object: &Value) {
    let name = format!("{file}: {}", named(object));
    if !name.ends_with("-extra") {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/part-of"], "walrust", "{name}");
    }
    let pod = match object["kind"].as_str().unwrap() {
        "Pod" => &object["spec"],
        "Deployment" => &object["spec"]["template"]["spec"],
        _ => return,
    };
    for container in pod["containers"].as_array().unwrap() {
        let image = container["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').expect("a tag or digest");
        assert_ne!(tag, "latest", "{name}");
        // What a namespace with the label `restricted` wants.
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
        assert_eq!(
            context["capabilities"]["drop"],
            serde_json::json!(["ALL"]),
            "{name}"
        );
        assert!(container["resources"]["limits"]["memory"].is_string());
        assert!(container["resources"]["requests"]["cpu"].is_string());
    }
    let context = &pod["securityContext"];
    assert_eq!(context["runAsNonRoot"], true, "{name}");
    assert_eq!(
        context["seccompProfile"]["type"], "RuntimeDefault",
        "{name}"
    );
    assert_ne!(pod["serviceAccountName"], "default", "{name}");
}

/// Kinds that belong to no namespace.
const CLUSTER_SCOPED: [&str; 6] = [
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

fn cluster_scoped(objects: &[Value]) -> Vec<String> {
    let mut names: Vec<String> = objects
        .iter()
        .filter(|object| CLUSTER_SCOPED.contains(&object["kind"].as_str().unwrap()))
        .map(named)
        .collect();
    names.sort();
    names
}

#[test]
fn an_operator_of_some_namespaces_has_few_objects_outside_them() {
    let helm = Helm::new();
    let chart = folder();
    let file = chart.join("ci/namespaced-values.yaml");
    let objects = helm.render(&["-f", file.to_str().unwrap()]);
    assert_eq!(
        cluster_scoped(&objects),
        [
            "ClusterRole/r-walrust-walrust-system",
            "ClusterRoleBinding/r-walrust-walrust-system",
            "CustomResourceDefinition/walrustbackups.walrust.dev",
            "CustomResourceDefinition/walrustrestores.walrust.dev",
            "MutatingWebhookConfiguration/r-walrust-walrust-system",
            "ValidatingAdmissionPolicy/r-walrust-walrust-system",
            "ValidatingAdmissionPolicyBinding/r-walrust-walrust-system",
        ]
    );
    let role = objects
        .iter()
        .find(|object| object["kind"] == "ClusterRole")
        .unwrap();
    assert_eq!(
        role["rules"],
        serde_json::json!([{
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["mutatingwebhookconfigurations"],
            "resourceNames": ["r-walrust-walrust-system"],
            "verbs": ["get", "patch"],
        }])
    );
    for object in &objects {
        let webhook = match object["kind"].as_str().unwrap() {
            "MutatingWebhookConfiguration" => &object["webhooks"][0]["namespaceSelector"],
            "ValidatingAdmissionPolicy" => &object["spec"]["matchConstraints"]["namespaceSelector"],
            _ => continue,
        };
        assert_eq!(
            webhook["matchExpressions"],
            serde_json::json!([{
                "key": "kubernetes.io/metadata.name", "operator": "In", "values": ["apps", "shop"],
            }])
        );
    }

    let file = chart.join("ci/no-webhook-values.yaml");
    let objects = helm.render(&["-f", file.to_str().unwrap()]);
    assert_eq!(
        cluster_scoped(&objects),
        [
            "CustomResourceDefinition/walrustbackups.walrust.dev",
            "CustomResourceDefinition/walrustrestores.walrust.dev",
        ]
    );
}

#[test]
fn the_operator_may_do_what_is_listed_here_and_nothing_else() {
    let objects = Helm::new().render(&[]);
    let mut rights = Vec::new();
    for object in &objects {
        let kind = object["kind"].as_str().unwrap();
        let ours = object["metadata"]["name"] == "r-walrust";
        if !ours || !["Role", "ClusterRole"].contains(&kind) {
            continue;
        }
        for rule in object["rules"].as_array().unwrap() {
            let words = |key: &str| -> String {
                let list = rule[key].as_array().map_or(&[][..], Vec::as_slice);
                let words: Vec<&str> = list.iter().map(|word| word.as_str().unwrap()).collect();
                words.join(" ")
            };
            let names = words("resourceNames");
            let limit = match names.is_empty() {
                true => String::new(),
                false => format!(" named {names}"),
            };
            rights.push(format!(
                "{kind}: {} {}{limit}: {}",
                words("apiGroups"),
                words("resources"),
                words("verbs")
            ));
        }
    }
    let wanted = [
        "ClusterRole: walrust.dev walrustbackups: get list watch",
        "ClusterRole: walrust.dev walrustrestores: list watch",
        "ClusterRole: walrust.dev walrustbackups/status walrustrestores/status: patch",
        "ClusterRole: walrust.dev walrustbackups/finalizers walrustrestores/finalizers: update",
        "ClusterRole:  configmaps: get list watch create patch",
        "ClusterRole: batch cronjobs: get list watch create patch delete",
        "ClusterRole: batch jobs: get list watch create",
        "ClusterRole:  pods: list watch",
        "ClusterRole:  persistentvolumeclaims: get",
        "ClusterRole: events.k8s.io events: create patch",
        "ClusterRole: admissionregistration.k8s.io mutatingwebhookconfigurations named r-walrust: get patch",
        "Role: coordination.k8s.io leases: create",
        "Role: coordination.k8s.io leases named r-walrust: get update",
        "Role:  secrets: create",
        "Role:  secrets named r-walrust-webhook-tls: get list watch patch",
    ];
    assert_eq!(rights, wanted);
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let helm = Helm::new();
    for (value, complaint) in [
        ("replicaCont=2", "replicaCont"),
        ("replicaCount=0", "replicaCount"),
        ("image.tag=latest", "tag"),
        ("image.digest=sha256:12", "digest"),
        ("webhook.failurePolicy=Maybe", "failurePolicy"),
        ("webhook.certs.mode=own", "mode"),
        ("webhook.certs.mode=existingSecret", "secretName is needed"),
        ("webhook.url=http://here/mutate", "url"),
        (
            "serviceAccount.create=false",
            "serviceAccount.name is needed",
        ),
        ("defaults.s3.endpoint=minio:9000", "endpoint"),
        (
            "defaults.resources.limits.ephemeral-storage=1Gi",
            "ephemeral-storage",
        ),
        ("metrics.port=0", "port"),
        ("watchNamespaces={Apps}", "watchNamespaces"),
        (
            "prometheusRule.thresholds.storageErrorRatio=2",
            "storageErrorRatio",
        ),
        ("logLevel=loud", "logLevel"),
    ] {
        let refusal = helm.template(&["--set", value]).refused();
        assert!(refusal.contains(complaint), "{value}: {refusal}");
    }
}

#[test]
fn a_pod_disruption_budget_is_only_for_several_operators() {
    let helm = Helm::new();
    let budgets = |options: &[&str]| {
        let objects = helm.render(options);
        let kinds = objects
            .iter()
            .map(|object| object["kind"].as_str().unwrap());
        kinds.filter(|kind| *kind == "PodDisruptionBudget").count()
    };
    assert_eq!(budgets(&[]), 1);
    // With one it would keep the node from being drained for ever.
    assert_eq!(budgets(&["--set", "replicaCount=1"]), 0);
}

#[test]
fn with_self_made_certificates_the_chart_leaves_the_authority_to_the_operator() {
    let objects = Helm::new().render(&[]);
    let webhook = objects
        .iter()
        .find(|object| object["kind"] == "MutatingWebhookConfiguration")
        .unwrap();
    let webhook = &webhook["webhooks"][0];
    assert!(webhook["clientConfig"].get("caBundle").is_none());
    assert_eq!(webhook["failurePolicy"], "Fail");
    assert_eq!(webhook["sideEffects"], "None");
    assert!(webhook.get("matchConditions").is_none());
}

#[test]
fn definitions_are_those_of_the_repository_and_stay() {
    let chart = folder().join("files/crds");
    let source = repository().join("crds");
    let files = |folder: &Path| -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    let names = files(&source);
    assert_eq!(names.len(), 2);
    assert_eq!(
        files(&chart),
        names,
        "cp crds/*.yaml charts/walrust/files/crds/"
    );
    let helm = Helm::new();
    let rendered = helm.render(&["--show-only", "templates/crds.yaml"]);
    for (name, rendered) in names.iter().zip(&rendered) {
        let text = fs::read_to_string(source.join(name)).unwrap();
        let copy = fs::read_to_string(chart.join(name)).unwrap();
        assert!(text == copy, "cp crds/*.yaml charts/walrust/files/crds/");
        let definition: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(rendered["spec"], definition["spec"], "{name}");
        let annotations = &rendered["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/resource-policy"], "keep");
    }
    let gone = helm.render(&["--set", "crds.keep=false"]);
    let kept = gone.iter().filter(|object| {
        let annotations = &object["metadata"]["annotations"];
        annotations.get("helm.sh/resource-policy").is_some()
    });
    assert_eq!(kept.count(), 0);
    let none = helm.render(&["--set", "crds.install=false"]);
    assert!(
        none.iter()
            .all(|object| object["kind"] != "CustomResourceDefinition")
    );
}

#[test]
fn the_readme_is_made_from_the_values() {
    let path = folder().join("README.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("<!-- values -->\n").expect("a mark");
    let (_, after) = rest.split_once("<!-- end -->").expect("a mark");
    let wanted = format!(
        "{before}<!-- values -->\n{}<!-- end -->{after}",
        values_table()
    );
    if std::env::var_os("WALRUST_BLESS").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let current = fs::read_to_string(&path).unwrap() == wanted;
    assert!(
        current,
        "make it anew: WALRUST_BLESS=1 cargo test --workspace --test chart the_readme"
    );
}

#[test]
fn every_alert_fires_and_does_not_as_its_cases_say() {
    let folder_of_rules = scratch("alerts");
    let (rules, text) = rendered_rules();
    fs::write(folder_of_rules.path().join("rules.yaml"), text).unwrap();
    let cases = fs::read_to_string(folder().join("tests/alerts.yaml")).unwrap();
    fs::write(folder_of_rules.path().join("alerts.yaml"), &cases).unwrap();
    for arguments in [
        ["check", "rules", "rules.yaml"],
        ["test", "rules", "alerts.yaml"],
    ] {
        let mut command = Command::new(program("promtool"));
        command.current_dir(folder_of_rules.path()).args(arguments);
        Process::run(&mut command, PATIENCE).expect_success();
    }

    let cases: Value = serde_saphyr::from_str(&cases).unwrap();
    let cases = cases["tests"].as_array().unwrap().iter();
    let cases: Vec<&Value> = cases
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap())
        .collect();
    for rule in rules.as_array().unwrap() {
        let alert = &rule["alert"];
        let fires = |case: &&&Value| case.get("exp_alerts").is_some();
        let own = || cases.iter().filter(|case| case["alertname"] == *alert);
        assert!(own().any(|case| fires(&case)), "{alert} never fires");
        assert!(own().any(|case| !fires(&case)), "{alert} is never quiet");
    }
}

/// The alerts as the chart installs them, and a rule file for promtool.
fn rendered_rules() -> (Value, String) {
    let options = [
        "--set",
        "prometheusRule.enabled=true",
        "--show-only",
        "templates/prometheusrule.yaml",
    ];
    let mut objects = Helm::new().render(&options);
    let spec = objects.remove(0)["spec"].take();
    let rules = spec["groups"][0]["rules"].clone();
    assert!(rules.as_array().unwrap().len() >= 19);
    (rules, spec.to_string())
}

#[test]
fn alerts_and_dashboard_ask_only_for_series_that_exist() {
    let mut known = BTreeSet::new();
    for page in ["docs/metrics.md", OPERATOR_METRICS] {
        let text = fs::read_to_string(repository().join(page)).unwrap();
        known.extend(metric_names(&text));
    }
    let (rules, _) = rendered_rules();
    let dashboard = fs::read_to_string(folder().join("files/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut queries = Vec::new();
    collect(&rules, "expr", &mut queries);
    collect(&dashboard, "expr", &mut queries);
    assert!(queries.len() > 50);
    for query in queries {
        for name in metric_names(&query) {
            let base = name.trim_end_matches("_bucket");
            assert!(
                known.contains(&name) || known.contains(base),
                "no series {name}: {query}"
            );
        }
    }
}

fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("walrust_"))
        .map(str::to_owned)
        .collect()
}

/// Every string under `key`, however deep.
fn collect(value: &Value, key: &str, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == key => into.push(text.clone()),
                    other => collect(other, key, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, key, into)),
        _ => {}
    }
}
