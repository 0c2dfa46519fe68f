//! The program as people and scripts meet it: arguments in; stdout, stderr and exit status out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the helpers of tests are tests"
)]

mod config;
mod explain;
mod help;
mod output;
mod restore;
mod status;

use std::path::Path;
use std::process::{Command, Stdio};

/// A directory with the program in an empty environment.
struct Shell(tempfile::TempDir);

/// What a run left behind.
#[derive(Debug)]
struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Shell {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    /// `walrust` and the arguments of `line`, which holds no quotes.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walrust"));
        command
            .args(line.split(' ').filter(|argument| !argument.is_empty()))
            .current_dir(self.path())
            .env_clear()
            .stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Ran {
        self.finish(&mut self.command(line))
    }

    fn finish(&self, command: &mut Command) -> Ran {
        let output = command.output().unwrap();
        Ran {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// The run failed with nothing on stdout and this one line on stderr.
    fn fails_with(&self, line: &str) {
        assert_eq!(
            (self.status, self.stderr.as_str()),
            (1, format!("{line}\n").as_str())
        );
        assert_eq!(self.stdout, "");
    }
}
