//! A real Kubernetes API server on loopback: etcd, kube-apiserver with an audit log, kube-controller-manager.
//!
//! Everything but nodes is real: admission, garbage collection, CronJobs that make Jobs, tokens of service accounts.
//! Pods stay pending; a test "runs" one by writing its status.
//!
//! The processes belong to a program of their own, `walrust-test-cluster` ([`host`]), which ends them and removes its folder when
//! its standard input closes. So nothing stays behind, also when the test that started it is killed.

pub mod host;
mod kubectl;
mod pki;

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};

use serde::{Deserialize, Serialize};

pub use kubectl::{Answer, Kubectl, finish, run};

use crate::support::built;

/// Where the programs of the cluster are: `WALRUST_CLUSTER_BIN`, which `tests/cluster/install` prints.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    let Some(folder) = env::var_os("WALRUST_CLUSTER_BIN") else {
        panic!("no {name}: export WALRUST_CLUSTER_BIN=\"$(bash tests/cluster/install)\"")
    };
    let path = Path::new(&folder).join(name);
    assert!(
        path.exists(),
        "no {}: run bash tests/cluster/install",
        path.display()
    );
    path
}

/// What the host says once the cluster answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Access {
    /// The folder of the cluster; gone when it is.
    pub folder: PathBuf,
    /// `https://127.0.0.1:PORT`.
    pub server: String,
    /// Kubeconfig of a cluster administrator.
    pub kubeconfig: PathBuf,
    /// Certificate of the authority that signed the server's.
    pub ca: PathBuf,
    /// Every request that was not made by the cluster itself, one JSON object a line.
    pub audit_log: PathBuf,
}

/// A running cluster, ended by dropping it or by the end of this process.
pub struct Cluster {
    access: Access,
    lines: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    host: Child,
}

/// Part of the cluster that a test can take away and bring back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The API server; what it stored stays in etcd.
    ApiServer,
    /// The controllers: garbage collection, Jobs, service accounts.
    ControllerManager,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
        }
    }
}

impl Cluster {
    /// Starts one, which takes some ten seconds.
    #[track_caller]
    pub fn start() -> Self {
        // Named here, so that what is missing is said by the test itself.
        program("kube-apiserver");
        let mut command = Command::new(built("WALRUST_TEST_CLUSTER", "walrust-test-cluster"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut host = command.spawn().unwrap();
        let stdin = host.stdin.take().unwrap();
        let mut stdout = BufReader::new(host.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let access = serde_json::from_str(&line).unwrap_or_else(|_| {
            let _ = host.wait();
            panic!("the test cluster did not start; it said why above")
        });
        Self {
            access,
            lines: Mutex::new((stdin, stdout)),
            host,
        }
    }

    /// The one cluster that the tests of this process share, each in namespaces of its own.
    #[track_caller]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Where it is, and how to get in.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// kubectl as administrator.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.access.folder, &self.access.kubeconfig)
    }

    /// A new namespace whose name begins with `name`.
    pub fn namespace(&self, name: &str) -> String {
        let name = format!("{name}-{:06x}", fastrand::u32(..1 << 24));
        self.kubectl().ok(["create", "namespace", &name]);
        name
    }

    /// Kills a part.
    #[track_caller]
    pub fn kill(&self, part: Part) {
        self.tell(&format!("kill {}", part.name()));
    }

    /// Brings back a part that was killed; it answers when this returns.
    #[track_caller]
    pub fn revive(&self, part: Part) {
        self.tell(&format!("start {}", part.name()));
    }

    #[track_caller]
    fn tell(&self, order: &str) {
        let mut lines = self.lines.lock().unwrap();
        writeln!(lines.0, "{order}").unwrap();
        let mut answer = String::new();
        lines.1.read_line(&mut answer).unwrap();
        assert_eq!(answer.trim_end(), "done", "{order}");
    }

    /// A kubeconfig for what runs as `account` in `namespace`, with a token that the API server issued.
    pub fn kubeconfig_of(&self, namespace: &str, account: &str) -> PathBuf {
        let kubectl = self.kubectl();
        let token = kubectl.ok(["-n", namespace, "create", "token", account, "--duration=4h"]);
        let path = (self.access.folder).join(format!("{namespace}.{account}.kubeconfig"));
        let user = serde_json::json!({"token": token.trim()});
        pki::write_kubeconfig(&path, &self.access.server, &self.access.ca, &user);
        path
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The host ends at the end of its input.
        if let Ok(lines) = self.lines.get_mut() {
            let _ = lines.0.write_all(b"end\n");
        }
        let _ = self.host.wait();
    }
}
