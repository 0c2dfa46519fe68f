//! A person at a shell: command lines of the documentation, run as written in an empty directory.
//!
//! Only what names the outside world is exchanged: providers' endpoints and keys for those of the server that stands
//! in, and absolute paths for the same below the directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use regex_lite::{Captures, Regex};
use tempfile::TempDir;

use crate::bucket::{ACCESS_KEY, Bucket, SECRET_KEY};
use crate::process::{Output, Process, Signal};
use crate::program::binary;
use crate::support::{PATIENCE, installed, scratch};
use crate::weed::Weed;

/// Absolute paths of the documentation that lie below the directory here.
const ELSEWHERE: [&str; 5] = ["/var/lib", "/etc", "/mnt", "/dev/termination-log", "/opt"];

/// Endpoints of the documentation, for which SeaweedFS stands in.
const ENDPOINTS: [&str; 2] = ["https://fly.storage.tigris.dev", "http://localhost:9000"];

/// An interactive shell's state: a directory, exported variables, and what runs in the background.
pub struct Shell {
    folder: TempDir,
    endpoint: String,
    keys: [(Regex, String); 2],
    running: Vec<(String, Process)>,
}

impl Shell {
    /// A shell in an empty directory, with `weed` behind every endpoint and `walrust` on its path.
    pub fn new(test: &str, weed: &Weed) -> Self {
        let key = |name: &str, ours: &str| {
            let is = Regex::new(&format!(r"\b{name}=[^\s`]+")).unwrap();
            (is, format!("{name}={ours}"))
        };
        let shell = Self {
            folder: scratch(test),
            endpoint: weed.endpoint().to_owned(),
            keys: [
                key("(?:AWS|LITESTREAM)_ACCESS_KEY_ID", ACCESS_KEY),
                key("(?:AWS|LITESTREAM)_SECRET_ACCESS_KEY", SECRET_KEY),
            ],
            running: Vec::new(),
        };
        fs::create_dir_all(shell.beside("bin")).unwrap();
        shell.link("walrust", &binary());
        for folder in ["var/lib", "etc", "mnt", "dev"] {
            fs::create_dir_all(shell.beside("root").join(folder)).unwrap();
        }
        fs::create_dir(shell.path()).unwrap();
        let exports = format!(
            "export AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY} AWS_ENDPOINT_URL_S3={}\n",
            shell.endpoint
        );
        fs::write(shell.beside("exports"), exports).unwrap();
        shell
    }

    /// The directory.
    pub fn path(&self) -> PathBuf {
        self.beside("home")
    }

    /// What belongs to the harness lies beside the directory, not in it.
    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a program on the path.
    pub fn link(&self, name: &str, program: &Path) {
        std::os::unix::fs::symlink(program, self.beside("bin").join(name)).unwrap();
    }

    /// Puts a script on the path, for a program of the documentation that only a reader has.
    pub fn script(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.beside("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// `litestream` on the path.
    pub fn with_litestream(&self) {
        self.link("litestream", &installed("LITESTREAM_BIN", "litestream"));
    }

    /// `text` with the outside world exchanged.
    pub fn exchanged(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for endpoint in ENDPOINTS {
            text = text.replace(endpoint, &self.endpoint);
        }
        for (key, ours) in &self.keys {
            text = key
                .replace_all(&text, |found: &Captures<'_>| {
                    let name = found[0].split('=').next().unwrap_or_default();
                    let value = ours.rsplit('=').next().unwrap_or_default();
                    format!("{name}={value}")
                })
                .into_owned();
        }
        let root = self.beside("root");
        for path in ELSEWHERE {
            // Where a path begins: not in the middle of another one.
            let begins = Regex::new(&format!(r#"(^|[\s"'=(])((?:file://)?){path}"#)).unwrap();
            text = begins
                .replace_all(&text, format!("${{1}}${{2}}{}{path}", root.display()))
                .into_owned();
        }
        text
    }

    /// The file that an absolute or relative path of the documentation is here.
    pub fn file(&self, path: &str) -> PathBuf {
        self.path().join(self.exchanged(path))
    }

    fn bash(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        // Nothing of the caller's environment that speaks to AWS.
        Bucket::Folder(self.path()).environment(&mut command);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{}:{path}", self.beside("bin").display()))
            .env("HOME", self.beside("root"))
            .env("TMPDIR", self.folder.path())
            .current_dir(self.path())
            .arg("-c")
            .arg(script);
        command
    }

    /// Runs one command line to its end. What it exports stays.
    pub fn run(&self, line: &str) -> Output {
        let exports = self.beside("exports");
        let exports = exports.display();
        let line = self.exchanged(line);
        let script = format!(". {exports}\n{line}\nstatus=$?\nexport -p > {exports}\nexit $status");
        Process::run(&mut self.bash(&script), PATIENCE * 3)
    }

    /// Starts one command line that runs until it is stopped.
    pub fn start(&mut self, line: &str) -> &mut Process {
        let exports = self.beside("exports");
        let script = format!(". {}\nexec {}", exports.display(), self.exchanged(line));
        let process = Process::spawn(&mut self.bash(&script));
        self.running.push((line.to_owned(), process));
        &mut self.running.last_mut().unwrap().1
    }

    /// Takes in a process that was started otherwise.
    pub fn keep(&mut self, line: &str, process: Process) {
        self.running.push((line.to_owned(), process));
    }

    /// Gives the one away whose line holds `what`.
    #[track_caller]
    pub fn take(&mut self, what: &str) -> Process {
        let at = self
            .running
            .iter()
            .position(|(line, _)| line.contains(what));
        self.running.remove(at.expect("it runs")).1
    }

    /// The newest process in the background.
    pub fn newest(&mut self) -> &mut Process {
        &mut self.running.last_mut().expect("something runs").1
    }

    /// The lines whose processes run in the background.
    pub fn in_background(&self) -> Vec<&str> {
        self.running.iter().map(|(line, _)| line.as_str()).collect()
    }

    /// Ctrl-C to the processes whose line holds `what`, each of which must end well.
    #[track_caller]
    pub fn stop(&mut self, what: &str) -> Vec<Output> {
        let (stop, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.running)
            .into_iter()
            .partition(|(line, _)| line.contains(what));
        self.running = rest;
        let outputs = stop.into_iter().map(|(line, mut process)| {
            assert!(!process.ended(), "{line} ended: {}", process.printed());
            process.signal(Signal::INT);
            let output = process.output(Duration::from_secs(30));
            assert!(output.status.success(), "{line}: {output:?}");
            output
        });
        outputs.collect()
    }

    /// Makes a database in WAL mode with some rows, unless it is there.
    pub fn database(&self, path: &str) {
        let file = self.file(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let connection = rusqlite::Connection::open(file).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode=WAL;
                 CREATE TABLE IF NOT EXISTS t(x);
                 INSERT INTO t SELECT randomblob(900) FROM (VALUES (1),(2),(3),(4),(5));",
            )
            .unwrap();
    }
}
