//! kubectl as a test uses it: one call, its whole answer.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::program;

/// kubectl with one identity. Nothing is cached outside the cluster's folder.
#[derive(Clone, Debug)]
pub struct Kubectl {
    home: PathBuf,
    kubeconfig: PathBuf,
    namespace: Option<String>,
}

/// What one call gave.
#[derive(Debug)]
pub struct Answer {
    /// Whether it exited with 0.
    pub ok: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error: refusals and warnings of the API server.
    pub stderr: String,
}

impl Answer {
    /// Standard output, after checking that the call succeeded.
    #[track_caller]
    pub fn expect(self) -> String {
        assert!(self.ok, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// Standard error, after checking that the call was refused.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(!self.ok, "was accepted: {}", self.stdout);
        self.stderr
    }
}

impl Kubectl {
    /// kubectl with the identity of `kubeconfig`; caches go to `home`.
    pub fn new(home: &Path, kubeconfig: &Path) -> Self {
        Self {
            home: home.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            namespace: None,
        }
    }

    /// The same, in `namespace` unless a call names another.
    pub fn within(&self, namespace: &str) -> Self {
        Self {
            namespace: Some(namespace.to_owned()),
            ..self.clone()
        }
    }

    /// `program` with this identity in its environment.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig);
        command.env("HOME", &self.home);
        // Helm's, which would else write below the user's home.
        for (variable, folder) in [
            ("XDG_CACHE_HOME", "cache"),
            ("XDG_CONFIG_HOME", "config"),
            ("XDG_DATA_HOME", "data"),
        ] {
            command.env(variable, self.home.join(folder));
        }
        for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"] {
            command.env_remove(proxy);
        }
        command
    }

    /// One call.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Answer {
        self.fed(arguments, "")
    }

    /// One call with `input` on standard input.
    pub fn fed<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
        input: &str,
    ) -> Answer {
        let mut command = self.command(&program("kubectl"));
        if let Some(namespace) = &self.namespace {
            command.args(["--namespace", namespace]);
        }
        command.args(arguments);
        finish(&mut command, input)
    }

    /// Standard output of a call that must succeed.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        self.run(arguments).expect()
    }

    /// The object that a call prints with `-o json`; nothing if it is not there.
    #[track_caller]
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let answer = self.run(["get", kind, name, "-o", "json", "--ignore-not-found"]);
        let text = answer.expect();
        (!text.trim().is_empty()).then(|| serde_json::from_str(&text).unwrap())
    }

    /// The objects of `kind` that carry `selector`; all with an empty one.
    #[track_caller]
    pub fn list(&self, kind: &str, selector: &str) -> Vec<Value> {
        let text = self.ok(["get", kind, "-l", selector, "-o", "json"]);
        let mut list: Value = serde_json::from_str(&text).unwrap();
        match list["items"].take() {
            Value::Array(items) => items,
            other => panic!("a list of {kind} holds {other}"),
        }
    }

    /// Server-side apply of `objects`: JSON or YAML.
    pub fn apply(&self, objects: &str) -> Answer {
        self.fed(["apply", "--server-side", "-f", "-"], objects)
    }

    /// Asks whether the API server would take `object`, and changes nothing.
    pub fn would_take(&self, object: &str) -> Answer {
        let dry = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
        self.fed(dry, object)
    }
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Answer {
    finish(command, "")
}

/// Runs `command` to its end with `input`.
pub fn finish(command: &mut Command, input: &str) -> Answer {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let feeder = std::thread::spawn(move || {
        // A command that does not read all of it says itself what is wrong.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    Answer {
        ok: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
