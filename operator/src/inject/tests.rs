use k8s_openapi::api::core::v1::{Pod, SecurityContext};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn backup() -> WalrustBackup {
    serde_json::from_value(json!({
        "apiVersion": "walrust.dev/v1alpha1",
        "kind": "WalrustBackup",
        "metadata": {"name": "notes", "namespace": "apps"},
        "spec": {
            "storage": {"bucket": "team-backups", "credentials": {"secretRef": {"name": "notes-s3"}}},
            "databases": [
                {"name": "main", "path": "/data/notes.db"},
                {"name": "tenants", "path": "/data/tenants/*.db"},
            ],
        },
    }))
    .unwrap()
}

/// `backup` with `value` at a field of its spec.
fn backup_with(pointer: &str, value: Value) -> WalrustBackup {
    let mut object = serde_json::to_value(backup()).unwrap();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    parent.insert(field.to_owned(), value);
    serde_json::from_value(object).unwrap()
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "notes-",
            "labels": {"walrust.dev/inject": "watch", "walrust.dev/backup": "notes"},
        },
        "spec": {
            "containers": [
                {"name": "proxy", "image": "p:1"},
                {
                    "name": "notes",
                    "image": "n:1",
                    "securityContext": {"runAsUser": 10001, "runAsGroup": 10002},
                    "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "notes"}],
                },
            ],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        },
    })
}

fn pod_with(pointer: &str, value: Value) -> Value {
    let mut pod = pod();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    match pod.pointer_mut(parent).unwrap() {
        Value::Object(parent) => drop(parent.insert(field.to_owned(), value)),
        Value::Array(parent) => parent.push(value),
        _ => panic!("{pointer}"),
    }
    pod
}

fn watch() -> Request {
    Request {
        mode: Mode::Watch,
        backup: "notes".to_owned(),
    }
}

fn injected(pod: &Value, backup: &WalrustBackup, settings: &Settings) -> Result<Value, Refusal> {
    let patch = inject(pod, &watch(), backup, settings)?;
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    Ok(pod)
}

fn ours(pod: &Value) -> Vec<Container> {
    let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
    let init = pod.spec.unwrap().init_containers.unwrap_or_default();
    init.into_iter()
        .filter(|it| it.name.starts_with("walrust"))
        .collect()
}

/// What a namespace that enforces `restricted` demands of a container, as the standard lists it.
fn is_restricted(security: &SecurityContext) -> bool {
    let capabilities = security.capabilities.as_ref().unwrap();
    let seccomp = security.seccomp_profile.as_ref().unwrap().type_.as_str();
    security.allow_privilege_escalation == Some(false)
        && security.privileged != Some(true)
        && security.run_as_non_root == Some(true)
        && security.run_as_user != Some(0)
        && capabilities.drop.as_deref() == Some(&["ALL".to_owned()])
        && capabilities.add.as_ref().is_none_or(Vec::is_empty)
        && ["RuntimeDefault", "Localhost"].contains(&seccomp)
}

#[test]
fn our_containers_run_as_the_container_that_owns_the_path_and_mount_what_it_mounts() {
    let containers = ours(&injected(&pod(), &backup(), &Settings::default()).unwrap());
    let names: Vec<&str> = containers.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["walrust-restore", "walrust"]);
    for container in containers {
        let security = container.security_context.unwrap();
        assert_eq!(
            (security.run_as_user, security.run_as_group),
            (Some(10001), Some(10002))
        );
        assert!(is_restricted(&security));
        assert_eq!(security.read_only_root_filesystem, Some(true));
        let mounts = container.volume_mounts.unwrap();
        let data: Vec<_> = mounts.iter().filter(|mount| mount.name == "data").collect();
        assert_eq!(data.len(), 1);
        assert_eq!(data[0].mount_path, "/data");
        assert_eq!(data[0].sub_path.as_deref(), Some("notes"));
        let limits = container.resources.unwrap().limits.unwrap();
        assert!(
            !limits.contains_key("ephemeral-storage"),
            "it would evict the application"
        );
    }
}

#[test]
fn pods_that_cannot_be_followed_are_refused_with_the_reason() {
    let mount = "/spec/containers/1/volumeMounts";
    for (pod, backup, message) in [
        (
            pod_with("/spec/hostNetwork", json!(true)),
            backup(),
            "hostNetwork",
        ),
        (
            pod_with("/spec/containers/-", json!({"name": "walrust"})),
            backup(),
            "container \"walrust\"",
        ),
        (
            pod_with("/spec/volumes/-", json!({"name": "walrust-config"})),
            backup(),
            "volume \"walrust-config\"",
        ),
        (
            pod_with(
                "/spec/containers/0/ports",
                json!([{"containerPort": 16767}]),
            ),
            backup(),
            "container \"proxy\" uses port 16767",
        ),
        (
            pod_with(
                "/spec/containers/0/ports",
                json!([{"containerPort": 16768}]),
            ),
            backup(),
            "port 16768",
        ),
        (
            pod_with(mount, json!([])),
            backup(),
            "\"/data/notes.db\" is on no volume of container \"proxy\" (it mounts nothing)",
        ),
        (
            pod_with(
                mount,
                json!([{"name": "data", "mountPath": "/data", "readOnly": true}]),
            ),
            backup(),
            "the mount at /data is read-only",
        ),
        (
            pod_with(
                "/spec/volumes",
                json!([{"name": "data", "configMap": {"name": "c"}}]),
            ),
            backup(),
            "volume \"data\" is read-only",
        ),
        (
            pod_with(
                "/spec/volumes",
                json!([{"name": "data", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}}]),
            ),
            backup(),
            "volume \"data\" is read-only",
        ),
        (
            pod_with(
                mount,
                json!([{"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/data/notes.db", "subPath": "notes.db"}]),
            ),
            backup(),
            "mount the directory",
        ),
        (
            pod_with(
                mount,
                json!([{"name": "data", "mountPath": "/data", "subPathExpr": "$(NOWHERE)"}]),
            ),
            backup(),
            "uses \"NOWHERE\", which container \"notes\" does not define",
        ),
        (
            pod_with("/spec/containers/1/securityContext", json!({})),
            backup(),
            "sidecar.securityContext.runAsUser",
        ),
        (
            pod_with(
                "/spec/containers/1/securityContext",
                json!({"runAsUser": 0}),
            ),
            backup(),
            "runs as root",
        ),
        (
            pod_with(
                "/metadata/annotations",
                json!({"walrust.dev/after": "chown"}),
            ),
            backup(),
            "names \"chown\", which is no init container",
        ),
        (
            pod(),
            backup_with("/spec/sidecar/container", json!("app")),
            "does not have (it has proxy, notes)",
        ),
        (
            pod(),
            backup_with("/spec/sidecar/container", json!("proxy")),
            "container \"proxy\" (it mounts nothing)",
        ),
        (
            pod(),
            backup_with("/spec/sidecar/image", json!("evil:1")),
            "spec.sidecar.image",
        ),
        (
            pod(),
            backup_with(
                "/spec/sidecar/securityContext",
                json!({"runAsNonRoot": false}),
            ),
            "runAsNonRoot: false is less than a restricted",
        ),
        (
            pod(),
            backup_with("/spec/storage/credentials", json!({})),
            "exactly one of secretRef",
        ),
        (
            json!({"spec": {"containers": 7}}),
            backup(),
            "the pod cannot be read",
        ),
    ] {
        let error = injected(&pod, &backup, &Settings::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(message) && !error.contains('\n'),
            "{message}: {error}"
        );
    }
}

#[test]
fn a_volume_may_not_cover_our_own_files() {
    for (mount, refused) in [
        ("/tmp", true),
        ("/var", true),
        ("/etc/walrust", true),
        ("/etc/walrust/x", true),
        ("/var/lib", false),
        ("/etc/app", false),
    ] {
        let mounts = json!([{"name": "data", "mountPath": mount}]);
        let pod = pod_with("/spec/containers/1/volumeMounts", mounts);
        let databases = json!([{"name": "main", "path": format!("{mount}/a.db")}]);
        let found = injected(
            &pod,
            &backup_with("/spec/databases", databases),
            &Settings::default(),
        );
        assert_eq!(
            matches!(found, Err(Refusal::Overlap { .. })),
            refused,
            "{mount}: {found:?}"
        );
    }
}

#[test]
fn labels_that_mean_nothing_are_refused_and_pods_without_are_left_alone() {
    let of = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter();
        let labels = pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Request::of(&labels.collect())
    };
    assert_eq!(
        of(&[("app", "x"), ("walrust.dev/backup", "notes")]),
        Ok(None)
    );
    assert_eq!(
        of(&[
            ("walrust.dev/inject", "watch"),
            ("walrust.dev/backup", "notes")
        ]),
        Ok(Some(watch()))
    );
    assert_eq!(
        of(&[
            ("walrust.dev/inject", "true"),
            ("walrust.dev/backup", "notes")
        ]),
        Err(Refusal::Mode("true".to_owned()))
    );
    assert_eq!(
        of(&[("walrust.dev/inject", "watch")]),
        Err(Refusal::NoBackup)
    );
    assert_eq!(
        of(&[("walrust.dev/inject", "watch"), ("walrust.dev/backup", "")]),
        Err(Refusal::NoBackup)
    );
}

#[test]
fn init_containers_of_ours_come_after_meshes_and_where_the_annotation_says() {
    let always = |name: &str| json!({"name": name, "restartPolicy": "Always"});
    let init = json!([{"name": "istio-init"}, always("istio-proxy"), {"name": "chown"}, {"name": "migrate"}]);
    let order = |pod: &Value| -> Vec<String> {
        let pod = injected(pod, &backup(), &Settings::default()).unwrap();
        let init = pod
            .pointer("/spec/initContainers")
            .unwrap()
            .as_array()
            .unwrap()
            .clone();
        init.iter()
            .map(|it| it["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut pod = pod_with("/spec/initContainers", init);
    let ours = ["walrust-restore", "walrust"];
    assert_eq!(
        order(&pod),
        [
            "istio-init",
            "istio-proxy",
            ours[0],
            ours[1],
            "chown",
            "migrate"
        ]
    );
    pod["metadata"]["annotations"] = json!({"walrust.dev/after": "chown"});
    assert_eq!(
        order(&pod),
        [
            "istio-init",
            "istio-proxy",
            "chown",
            ours[0],
            ours[1],
            "migrate"
        ]
    );
}

fn restore_words(pod: &Value, backup: &WalrustBackup) -> Vec<String> {
    let containers = ours(&injected(pod, backup, &Settings::default()).unwrap());
    containers[0].args.clone().unwrap()
}

/// DESIGN.md invariant 14: what had a backup is never replaced by an empty database.
#[test]
fn a_database_that_was_in_sync_once_never_starts_empty_again() {
    assert!(restore_words(&pod(), &backup()).contains(&"start-fresh".to_owned()));
    let mut known = backup();
    known.status = Some(crate::api::WalrustBackupStatus {
        ever_synced: true,
        ..Default::default()
    });
    assert!(restore_words(&pod(), &known).contains(&"fail".to_owned()));
    let allowed = pod_with(
        "/metadata/annotations",
        json!({"walrust.dev/allow-fresh": "true"}),
    );
    assert!(restore_words(&allowed, &known).contains(&"start-fresh".to_owned()));
    let mistyped = pod_with(
        "/metadata/annotations",
        json!({"walrust.dev/allow-fresh": "yes"}),
    );
    assert!(restore_words(&mistyped, &known).contains(&"fail".to_owned()));
}

#[test]
fn keys_are_readable_without_an_fs_group_and_for_the_group_with_one() {
    for (security, mode) in [(json!({}), 0o444), (json!({"fsGroup": 10001}), 0o440)] {
        let pod = pod_with("/spec/securityContext", security);
        let pod = injected(&pod, &backup(), &Settings::default()).unwrap();
        let volumes = pod.pointer("/spec/volumes").unwrap().as_array().unwrap();
        let keys = volumes
            .iter()
            .find(|it| it["name"] == "walrust-credentials")
            .unwrap();
        assert_eq!(keys["secret"]["defaultMode"], json!(mode));
    }
}

#[test]
fn the_grace_period_is_raised_and_never_lowered() {
    let of = |pod: &Value, least: &str| {
        let backup = backup_with("/spec/sidecar/minTerminationGracePeriod", json!(least));
        let pod = injected(pod, &backup, &Settings::default()).unwrap();
        pod.pointer("/spec/terminationGracePeriodSeconds").cloned()
    };
    assert_eq!(of(&pod(), "60s"), Some(json!(60)));
    assert_eq!(of(&pod(), "20s"), None);
    assert_eq!(of(&pod(), "30.1s"), Some(json!(31)));
    let longer = pod_with("/spec/terminationGracePeriodSeconds", json!(120));
    assert_eq!(of(&longer, "60s"), Some(json!(120)));
}

#[test]
fn root_sidecars_run_only_where_the_operator_allows_them() {
    let root = pod_with(
        "/spec/containers/1/securityContext",
        json!({"runAsUser": 0}),
    );
    let settings = Settings {
        allow_root: true,
        ..Settings::default()
    };
    let containers = ours(&injected(&root, &backup(), &settings).unwrap());
    let security = containers[0].security_context.clone().unwrap();
    assert_eq!(
        (security.run_as_user, security.run_as_non_root),
        (Some(0), Some(false))
    );
    assert_eq!(security.allow_privilege_escalation, Some(false));
}

#[test]
fn workload_identity_is_copied_also_where_it_comes_later() {
    let backup = backup_with("/spec/storage/credentials", json!({"workloadIdentity": {}}));
    let first = injected(&pod(), &backup, &Settings::default()).unwrap();
    let mut later = first;
    let app = later.pointer_mut("/spec/containers/1").unwrap();
    app["env"] = json!([
        {"name": "AWS_ROLE_ARN", "value": "arn:aws:iam::1:role/notes"},
        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"},
        {"name": "AWS_SECRET_ACCESS_KEY", "value": "not for us"},
    ]);
    let mount = json!({"name": "aws-iam-token", "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount", "readOnly": true});
    app["volumeMounts"].as_array_mut().unwrap().push(mount);
    let second = injected(&later, &backup, &Settings::default()).unwrap();
    let containers = ours(&second);
    assert_eq!(containers.len(), 2);
    for container in containers {
        let variables: Vec<_> = container
            .env
            .unwrap()
            .into_iter()
            .map(|it| it.name)
            .collect();
        assert!(
            variables.contains(&"AWS_ROLE_ARN".to_owned())
                && !variables.contains(&"AWS_SECRET_ACCESS_KEY".to_owned())
        );
        assert!(
            container
                .volume_mounts
                .unwrap()
                .iter()
                .any(|it| it.name == "aws-iam-token")
        );
    }
    assert_eq!(injected(&second, &backup, &Settings::default()), Ok(second));
}

/// Pods as others make them: any order of containers, mounts above and below, init containers, things we do not know.
fn pods() -> impl Strategy<Value = Value> {
    let mount = prop_oneof![
        Just("/data"),
        Just("/data/"),
        Just("/srv"),
        Just("/data/tenants"),
        Just("/cache")
    ];
    let mounts = proptest::collection::vec((mount, any::<bool>(), 0..3_usize), 0..4);
    let container = (mounts, proptest::option::of(1..3_i64), any::<bool>());
    let containers = proptest::collection::vec(container, 1..4);
    let init = proptest::sample::subsequence(
        vec!["istio-proxy", "chown", "migrate", "linkerd-proxy"],
        0..4,
    );
    (containers, init, proptest::option::of(0..4_i64), any::<bool>()).prop_map(|(containers, init, group, annotated)| {
        let containers: Vec<Value> = containers
            .into_iter()
            .enumerate()
            .map(|(at, (mounts, user, extra))| {
                let mounts: Vec<Value> = mounts
                    .into_iter()
                    .map(|(path, read_only, volume)| {
                        json!({"name": format!("v{volume}"), "mountPath": path, "readOnly": read_only, "unknown": at})
                    })
                    .collect();
                let mut container = json!({"name": format!("c{at}"), "image": "i:1", "volumeMounts": mounts});
                if let Some(user) = user {
                    container["securityContext"] = json!({"runAsUser": user});
                }
                if extra {
                    container["fieldOfTheFuture"] = json!({"a": [1, null]});
                }
                container
            })
            .collect();
        let init: Vec<Value> = init.into_iter().map(|name| json!({"name": name, "restartPolicy": "Always"})).collect();
        let mut pod = json!({"metadata": {}, "spec": {"containers": containers}});
        if !init.is_empty() {
            pod["spec"]["initContainers"] = json!(init);
        }
        if let Some(group) = group {
            pod["spec"]["securityContext"] = json!({"fsGroup": group, "runAsUser": 7});
            pod["spec"]["volumes"] = Value::Null;
        }
        if annotated {
            pod["metadata"]["annotations"] = json!({"a/b": "c"});
        }
        pod
    })
}

/// The mount that the kernel resolves `path` to.
fn mount_of<'c>(container: &'c Container, path: &str) -> Option<(&'c str, &'c str)> {
    let mounts = container.volume_mounts.iter().flatten();
    let covering = mounts
        .filter(|mount| path.starts_with(&format!("{}/", mount.mount_path.trim_end_matches('/'))));
    let deepest = covering.max_by_key(|mount| mount.mount_path.trim_end_matches('/').len())?;
    Some((&deepest.name, &deepest.mount_path))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn injecting_twice_changes_nothing_and_once_only_adds(pod in pods()) {
        let Ok(once) = injected(&pod, &backup(), &Settings::default()) else {
            return Ok(());
        };
        let twice = inject(&once, &watch(), &backup(), &Settings::default()).unwrap();
        prop_assert!(twice.0.is_empty(), "{twice}");

        prop_assert_eq!(once.pointer("/spec/containers"), pod.pointer("/spec/containers"));
        let init = |pod: &Value| pod.pointer("/spec/initContainers").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut rest = init(&once);
        rest.retain(|it| !it["name"].as_str().unwrap().starts_with("walrust"));
        prop_assert_eq!(rest, init(&pod));

        let typed: Pod = serde_json::from_value(once.clone()).unwrap();
        let spec = typed.spec.unwrap();
        let ours = ours(&once);
        prop_assert_eq!(ours.len(), 2);
        let names: Vec<_> = spec.volumes.unwrap().into_iter().map(|it| it.name).collect();
        for container in ours {
            prop_assert!(is_restricted(container.security_context.as_ref().unwrap()));
            for path in ["/data/notes.db", "/data/tenants/a.db"] {
                let own = mount_of(&container, path);
                prop_assert!(own.is_some());
                prop_assert!(spec.containers.iter().any(|app| mount_of(app, path) == own), "{path}");
            }
            let mut paths: Vec<_> = container.volume_mounts.unwrap().into_iter().map(|it| it.mount_path).collect();
            let all = paths.len();
            paths.sort();
            paths.dedup();
            prop_assert_eq!(paths.len(), all, "each path is mounted once");
        }
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        prop_assert_eq!(unique.len(), names.len(), "each volume has its own name");
    }
}
