//! `walrust-operator` as a process outside the cluster, with the rights that the chart gives it, and pods that are only said to run.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::{Cluster, Kubectl};
use crate::process::Process;
use crate::support::{PATIENCE, built, until};

/// Where the chart installs it.
pub const NAMESPACE: &str = "walrust-system";

/// A running operator.
pub struct Operator {
    /// The process.
    pub process: Process,
}

impl Operator {
    /// Starts one as `name`, with the identity of `kubeconfig`. It asks sidecars every half second.
    pub fn start(name: &str, kubeconfig: &PathBuf) -> Self {
        let mut command = Command::new(built("WALRUST_OPERATOR_BIN", "walrust-operator"));
        command
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_LOG", "info");
        command
            .env("POD_NAMESPACE", NAMESPACE)
            .env("POD_NAME", name);
        command.args(["run", "--lease", "walrust", "--metrics-port", "0"]);
        command.args([
            "--scrape-millis",
            "500",
            "--unreachable-millis",
            "2000",
            "--pending-millis",
            "2000",
        ]);
        for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(proxy);
        }
        Self {
            process: Process::spawn(&mut command),
        }
    }

    /// Waits until it leads.
    #[track_caller]
    pub fn wait_leading(&mut self, limit: Duration) {
        self.process
            .wait_for(limit, |line| line.contains("leading"));
    }

    /// Where it serves metrics: `http://127.0.0.1:PORT`.
    #[track_caller]
    pub fn endpoint(&mut self) -> String {
        let line = self
            .process
            .wait_for(PATIENCE, |line| line.contains("serving metrics"));
        let port = line.trim().rsplit(':').next().unwrap();
        format!("http://127.0.0.1:{port}")
    }
}

/// A sidecar's `/status` that says whatever a test wants, until it is dropped.
pub struct Sidecar {
    /// Its port on 127.0.0.1.
    pub port: u16,
    status: Arc<Mutex<Option<Value>>>,
}

impl Sidecar {
    /// Says `status`.
    pub fn start(status: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let status = Arc::new(Mutex::new(Some(status)));
        let said = Arc::clone(&status);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut request = [0; 1024];
                let _ = stream.read(&mut request);
                // Nobody there: the connection just ends.
                let Some(status) = said.lock().unwrap().clone() else {
                    continue;
                };
                let body = status.to_string();
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self { port, status }
    }

    /// Says `status` from now on; nothing with `None`.
    pub fn say(&self, status: Option<Value>) {
        *self.status.lock().unwrap() = status;
    }
}

/// A status with one database.
pub fn status(config_hash: &str, state: &str, error: Option<(&str, &str)>) -> Value {
    let error = error.map(|(kind, message)| json!({"kind": kind, "message": message, "since": "2026-11-24T10:00:00Z"}));
    json!({
        "v": 1, "version": "0.1.0", "pod": "notes-0", "mode": "watch", "config_hash": config_hash, "config_error": null,
        "started": "2026-11-24T10:00:00Z", "paused": false,
        "databases": [{
            "name": "main", "path": "/data/app.db", "state": state, "txid": 42, "durable_txid": 42, "lag_seconds": 0.0,
            "detached_until": null, "last_sync": "2026-11-24T10:00:01Z", "last_snapshot": "2026-11-24T10:00:00Z",
            "next_snapshot": null, "wal_bytes": 4096, "spool_bytes": 0, "proven_txid": null, "proven_at": null,
            "lease": {"held": true, "epoch": 1, "lineage": null}, "error": error,
        }],
    })
}

/// A pod of the backup `notes`; with a sidecar that listens at `port`, if one is given.
pub fn pod(name: &str, port: Option<u16>) -> String {
    let sidecar = port.map(|port| {
        json!({
            "name": "walrust", "image": "registry.example.test/walrust:1", "restartPolicy": "Always",
            "ports": [{"name": "walrust-metrics", "containerPort": port}],
        })
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"walrust.dev/inject": "watch", "walrust.dev/backup": "notes"}},
        "spec": {
            "initContainers": sidecar.into_iter().collect::<Vec<_>>(),
            "containers": [{"name": "app", "image": "registry.example.test/app:1"}],
        },
    })
    .to_string()
}

/// Says of a pod that it runs, at 127.0.0.1.
#[track_caller]
pub fn set_running(kubectl: &Kubectl, pod: &str) {
    let status = json!({"status": {
        "phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}], "startTime": "2026-11-24T10:00:00Z",
    }});
    set_status(kubectl, pod, &status);
}

/// Says of a Job's pod how its container ended.
#[track_caller]
pub fn set_ended(kubectl: &Kubectl, pod: &str, exit_code: i32, message: &str) {
    let phase = if exit_code == 0 {
        "Succeeded"
    } else {
        "Failed"
    };
    let status = json!({"status": {"phase": phase, "containerStatuses": [{
        "name": "walrust", "image": "walrust", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {
            "exitCode": exit_code, "message": message, "finishedAt": "2026-11-24T11:00:00Z", "startedAt": "2026-11-24T10:59:00Z",
        }},
    }]}});
    set_status(kubectl, pod, &status);
}

#[track_caller]
fn set_status(kubectl: &Kubectl, pod: &str, status: &Value) {
    let patch = status.to_string();
    kubectl.ok([
        "patch",
        "pod",
        pod,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ]);
}

/// Status and reason of a condition of an object.
pub fn condition(object: &Value, kind: &str) -> Option<(String, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == kind)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some((text(&found["status"]), text(&found["reason"])))
}

/// Waits until a condition of the backup `notes` is `status` with `reason`, and gives the backup.
#[track_caller]
pub fn wait_condition(kubectl: &Kubectl, kind: &str, status: &str, reason: &str) -> Value {
    let mut last = Value::Null;
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(backup) = kubectl.get("walrustbackup", "notes") {
            if condition(&backup, kind) == Some((status.to_owned(), reason.to_owned())) {
                return backup;
            }
            last = backup;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{kind} is not {status}/{reason}: {:#}",
            last["status"]
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// The pod of a Job, once the Job controller has made it.
#[track_caller]
pub fn pod_of_job(kubectl: &Kubectl, job: &str) -> String {
    until("the Job has a pod", PATIENCE, || {
        let pods = kubectl.list("pods", &format!("batch.kubernetes.io/job-name={job}"));
        pods.first()?["metadata"]["name"]
            .as_str()
            .map(str::to_owned)
    })
}

/// Requests of `user` that the audit log has, as `(verb, group, resource/subresource, code)`.
pub fn requests_of(cluster: &Cluster, user: &str) -> Vec<(String, String, String, u64)> {
    let log = std::fs::read_to_string(&cluster.access().audit_log).unwrap();
    let entries = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let entries = entries.filter(|entry| entry["user"]["username"] == user);
    entries
        .filter(|entry| entry["objectRef"]["resource"].is_string())
        .map(|entry| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let object = &entry["objectRef"];
            let resource = match object["subresource"].as_str() {
                Some(sub) => format!("{}/{sub}", text(&object["resource"])),
                None => text(&object["resource"]),
            };
            let code = entry["responseStatus"]["code"].as_u64().unwrap_or_default();
            (
                text(&entry["verb"]),
                text(&object["apiGroup"]),
                resource,
                code,
            )
        })
        .collect()
}
