//! `walrust-operator selftest`: what `helm test` asks. Dry runs only: nothing is made.

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;

use crate::api::{WalrustBackup, labels};

/// A backup that nobody has.
const MISSING: &str = "walrust-selftest";

fn dry() -> PostParams {
    PostParams {
        dry_run: true,
        field_manager: None,
    }
}

fn backup(bucket: &str) -> anyhow::Result<WalrustBackup> {
    let backup = json!({
        "apiVersion": "walrust.dev/v1alpha1",
        "kind": "WalrustBackup",
        "metadata": {"name": MISSING},
        "spec": {
            "storage": {"bucket": bucket, "credentials": {"secretRef": {"name": MISSING}}},
            "databases": [{"name": "main", "path": "/data/app.db"}],
        },
    });
    serde_json::from_value(backup).context("an example")
}

/// The definitions take what is right and refuse what is wrong.
///
/// # Errors
/// Says which they did not.
pub async fn crds(client: Client, namespace: &str) -> anyhow::Result<String> {
    let api = Api::<WalrustBackup>::namespaced(client, namespace);
    let good = api.create(&dry(), &backup("walrust-selftest")?).await;
    good.context("the API server refuses a good WalrustBackup")?;
    match api.create(&dry(), &backup("Not_A_Bucket")?).await {
        Err(kube::Error::Api(status)) if status.is_invalid() => {
            Ok("the definitions are installed and check what is written".to_owned())
        }
        Err(error) => Err(error).context("a bad WalrustBackup is refused for another reason"),
        Ok(_) => bail!(
            "the API server takes a bad WalrustBackup: are the definitions of another version?"
        ),
    }
}

/// A pod that asks for a sidecar is seen by the webhook, which knows that there is no such backup.
///
/// # Errors
/// Says who answered instead.
pub async fn webhook(client: Client, namespace: &str) -> anyhow::Result<String> {
    let labels = [(labels::INJECT, "watch"), (labels::BACKUP, MISSING)];
    let mut pod = Pod {
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "app".to_owned(),
                image: Some("registry.example.test/app:1".to_owned()),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        ..Pod::default()
    };
    pod.metadata.generate_name = Some(format!("{MISSING}-"));
    pod.labels_mut()
        .extend(labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let api = Api::<Pod>::namespaced(client, namespace);
    match api.create(&dry(), &pod).await {
        Ok(_) => bail!(
            "a pod with the label {} starts unprotected: is the webhook installed?",
            labels::INJECT
        ),
        Err(error) => {
            let text = error.to_string();
            ensure!(
                text.contains(MISSING) && text.contains("WalrustBackup"),
                "the pod is refused, but not by the operator: {text}"
            );
            Ok("the webhook answers and looks for the backup".to_owned())
        }
    }
}
