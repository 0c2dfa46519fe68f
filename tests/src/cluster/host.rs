//! The program that owns a test cluster: starts it, says where it is, obeys, and takes it down.
//!
//! Protocol: one line of JSON ([`Access`]) on standard output once the cluster answers; then a line on standard input is an order
//! (`kill PART`, `start PART`), answered with `done`; `end`, the end of the input, SIGINT or SIGTERM end everything. The kernel
//! kills the cluster's processes should this program be killed, and the next start removes the folder that stayed then.

use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use super::pki::{Authority, write_kubeconfig};
use super::{Access, program};
use crate::support::{free_ports, plain_request};

const PREFIX: &str = "walrust-cluster-";
/// The API server needs some eight seconds on a quiet machine.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Runs a cluster until told to end. What goes wrong is said on standard error.
pub fn run() {
    remove_stale();
    let mut plane = ControlPlane::new();
    plane.start_all();
    say(&serde_json::to_string(&plane.access).unwrap());
    for order in orders() {
        match order.split_once(' ') {
            Some(("kill", part)) => plane.part(part).kill(),
            Some(("start", part)) => {
                plane.part(part).start();
                plane.wait_ready();
            }
            _ => break,
        }
        say("done");
    }
}

fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    // Nobody listens any more: the input ends as well, and that ends us.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Lines of standard input; `end` at its end and at a signal.
fn orders() -> mpsc::IntoIter<String> {
    let (send, orders) = mpsc::channel();
    let signalled = send.clone();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
        let _ = send.send("end".to_owned());
    });
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut interrupt = signal(SignalKind::interrupt()).unwrap();
            let mut terminate = signal(SignalKind::terminate()).unwrap();
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        let _ = signalled.send("end".to_owned());
    });
    orders.into_iter()
}

/// Removes folders of clusters whose host was killed: nobody holds their lock.
pub fn remove_stale() {
    let Ok(entries) = fs::read_dir(env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join("lock")) else {
            continue;
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// One process of the cluster.
struct Part {
    name: &'static str,
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Part {
    fn new(name: &'static str, folder: &Path, arguments: Vec<String>) -> Self {
        Self {
            name,
            arguments,
            log: folder.join(format!("{name}.log")),
            child: None,
        }
    }

    /// Called on the main thread only: the kernel kills the child when the thread that started it ends.
    fn start(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.arg(program(self.name)).args(&self.arguments);
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn ended(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_none_or(|child| child.try_wait().is_ok_and(|status| status.is_some()))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill();
    }
}

struct ControlPlane {
    // Dropped in this order: what uses etcd ends before it, the folder last.
    controllers: Part,
    server: Part,
    etcd: Part,
    etcd_endpoint: String,
    access: Access,
    _lock: File,
    _folder: TempDir,
}

impl ControlPlane {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir().unwrap();
        let path = folder.path();
        let lock = File::create(path.join("lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();

        let ports = free_ports(3);
        let etcd_endpoint = format!("http://127.0.0.1:{}", ports[0]);
        let server = format!("https://127.0.0.1:{}", ports[2]);
        let authority = Authority::new(&path.join("pki"));
        let (account_key, account_public) = authority.key_pair("service-accounts");
        let access = Access {
            folder: path.to_owned(),
            kubeconfig: path.join("admin.kubeconfig"),
            ca: authority.certificate(),
            audit_log: path.join("audit.log"),
            server,
        };
        let admin = authority.sign(Some("system:masters"), "admin", &[]);
        write_kubeconfig(
            &access.kubeconfig,
            &access.server,
            &access.ca,
            &admin.user(),
        );
        let manager = authority.sign(None, "system:kube-controller-manager", &[]);
        let manager_config = path.join("controller-manager.kubeconfig");
        write_kubeconfig(&manager_config, &access.server, &access.ca, &manager.user());
        let policy = path.join("audit-policy.json");
        fs::write(&policy, audit_policy().to_string()).unwrap();
        let names = [
            "localhost",
            "127.0.0.1",
            "kubernetes.default.svc",
            "10.96.0.1",
        ];
        let serving = authority.sign(None, "kube-apiserver", &names);

        let etcd = Part::new("etcd", path, etcd_arguments(path, &etcd_endpoint, ports[1]));
        let mut arguments = server_arguments(&etcd_endpoint, ports[2]);
        for (flag, file) in [
            ("tls-cert-file", &serving.certificate),
            ("tls-private-key-file", &serving.key),
            ("client-ca-file", &access.ca),
            ("service-account-key-file", &account_public),
            ("service-account-signing-key-file", &account_key),
            ("audit-policy-file", &policy),
            ("audit-log-path", &access.audit_log),
        ] {
            arguments.push(format!("--{flag}={}", file.display()));
        }
        let mut manager_arguments = manager_arguments();
        for (flag, file) in [
            ("kubeconfig", &manager_config),
            ("authentication-kubeconfig", &manager_config),
            ("authorization-kubeconfig", &manager_config),
            ("service-account-private-key-file", &account_key),
            ("root-ca-file", &access.ca),
        ] {
            manager_arguments.push(format!("--{flag}={}", file.display()));
        }
        Self {
            controllers: Part::new("kube-controller-manager", path, manager_arguments),
            server: Part::new("kube-apiserver", path, arguments),
            etcd,
            etcd_endpoint,
            access,
            _lock: lock,
            _folder: folder,
        }
    }

    fn start_all(&mut self) {
        self.etcd.start();
        self.wait("etcd", |plane| {
            let answer = plain_request(&plane.etcd_endpoint, "GET", "/health")?;
            answer.contains("\"health\":\"true\"").then_some(())
        });
        self.server.start();
        self.controllers.start();
        self.wait_ready();
    }

    /// Waits until pods could be made: the controllers have been here too.
    fn wait_ready(&mut self) {
        self.wait("kube-apiserver", |plane| {
            plane.kubectl(&["get", "--raw", "/readyz"]).then_some(())
        });
        if self.controllers.child.is_some() {
            self.wait("kube-controller-manager", |plane| {
                let account = ["-n", "default", "get", "serviceaccount", "default"];
                plane.kubectl(&account).then_some(())
            });
        }
    }

    fn kubectl(&self, arguments: &[&str]) -> bool {
        let kubectl = super::Kubectl::new(&self.access.folder, &self.access.kubeconfig);
        kubectl.run(arguments).ok
    }

    fn wait(&mut self, what: &str, ready: impl Fn(&Self) -> Option<()>) {
        let deadline = Instant::now() + START_LIMIT;
        while ready(self).is_none() {
            for part in [&mut self.etcd, &mut self.server, &mut self.controllers] {
                if part.child.is_some() && part.ended() {
                    give_up(&format!("{} ended", part.name), &part.log);
                }
            }
            if Instant::now() > deadline {
                give_up(&format!("{what} does not answer"), &self.part(what).log);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn part(&mut self, name: &str) -> &mut Part {
        match name {
            "etcd" => &mut self.etcd,
            "kube-apiserver" => &mut self.server,
            "kube-controller-manager" => &mut self.controllers,
            other => panic!("no part {other}"),
        }
    }
}

/// Unwinds, so that what was started ends.
fn give_up(what: &str, log: &Path) -> ! {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(20)..].join("\n");
    panic!("{what}; the end of its log:\n{tail}")
}

fn etcd_arguments(folder: &Path, endpoint: &str, peer_port: u16) -> Vec<String> {
    let peer = format!("http://127.0.0.1:{peer_port}");
    vec![
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls={endpoint}"),
        format!("--advertise-client-urls={endpoint}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        // Its folder does not outlive it.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

fn server_arguments(etcd: &str, port: u16) -> Vec<String> {
    let fixed = [
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        // A loopback address is not for publishing, and nothing here asks for it.
        "--endpoint-reconciler-type=none",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--authorization-mode=Node,RBAC",
        // The second is what makes an owner reference need the right to it, as some clusters do.
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
        "--allow-privileged=true",
        // Services of webhooks are resolved to their endpoints: there is no kube-proxy.
        "--enable-aggregator-routing=true",
        "--profiling=false",
    ];
    let mut arguments: Vec<String> = fixed.iter().map(|&text| text.to_owned()).collect();
    arguments.push(format!("--etcd-servers={etcd}"));
    arguments.push(format!("--secure-port={port}"));
    arguments
}

fn manager_arguments() -> Vec<String> {
    let fixed = [
        "--secure-port=0",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--pvclaimbinder-sync-period=1s",
        "--profiling=false",
    ];
    fixed.iter().map(|&text| text.to_owned()).collect()
}

/// Who asked for what, but for the cluster's own controllers.
fn audit_policy() -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            {"level": "None", "users": ["system:apiserver", "system:kube-controller-manager"]},
            {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
            {"level": "Metadata"},
        ],
    })
}
