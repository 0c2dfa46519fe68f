//! Child processes whose lines can be waited for, and which never outlive their test.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Which stream a line came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<(Stream, String)>>,
    more: Condvar,
}

/// A running (or ended) child. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Lines>,
    pumps: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
    quiet: bool,
}

/// What an ended process left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Output {
    /// The exit status as a number; a signal is 128 plus its number, as in a shell.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// This output, after checking that the command succeeded.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(
            self.status.success(),
            "{}\nstdout: {}\nstderr: {}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }

    /// This output, after checking that the command failed with status 1 and said so on standard error.
    #[track_caller]
    pub fn expect_failure(self) -> Self {
        assert_eq!(
            self.code(),
            1,
            "stdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {:?}\nstderr: {}", self.stdout, self.stderr))
    }
}

impl Process {
    /// Starts `command` with its output piped to us.
    pub fn spawn(command: &mut Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        let lines = Arc::new(Lines::default());
        let out = child.stdout.take().unwrap();
        let err = child.stderr.take().unwrap();
        let pumps = vec![
            pump(out, Stream::Out, &lines),
            pump(err, Stream::Err, &lines),
        ];
        Self {
            name,
            child,
            lines,
            pumps,
            status: None,
            quiet: false,
        }
    }

    /// What this process prints is of no interest when a test fails.
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Whether it has ended; unlike [`Process::poll`] this leaves its exit status for later.
    pub fn ended(&self) -> bool {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        self.status.is_some() || !matches!(state, Some('R' | 'S' | 'D' | 'T' | 't'))
    }

    /// The most memory that it has had resident so far, in bytes; nothing once it has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes * 1024)
    }

    /// Runs `command` to its end, which must come within `limit`.
    #[track_caller]
    pub fn run(command: &mut Command, limit: Duration) -> Output {
        Self::spawn(command).output(limit)
    }

    /// Waits for the end and gives what was printed.
    #[track_caller]
    pub fn output(mut self, limit: Duration) -> Output {
        let status = self.wait(limit);
        for pump in self.pumps.drain(..) {
            pump.join().unwrap();
        }
        let text = |wanted: Stream| -> String {
            let lines = self.lines.lines.lock().unwrap();
            lines
                .iter()
                .filter(|(stream, _)| *stream == wanted)
                .map(|(_, line)| line.as_str())
                .collect()
        };
        Output {
            status,
            stdout: text(Stream::Out),
            stderr: text(Stream::Err),
        }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a line (of either stream, new or old) satisfies `wanted`, and gives it.
    #[track_caller]
    pub fn wait_for(&mut self, limit: Duration, mut wanted: impl FnMut(&str) -> bool) -> String {
        let deadline = Instant::now() + limit;
        let mut seen = 0;
        loop {
            let ended = self.poll().is_some() && self.pumps.iter().all(JoinHandle::is_finished);
            let mut lines = self.lines.lines.lock().unwrap();
            while let Some((_, line)) = lines.get(seen) {
                seen += 1;
                if wanted(line) {
                    return line.clone();
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || ended {
                drop(lines);
                panic!(
                    "{}: the line did not come ({:?}); it said:\n{}",
                    self.name,
                    self.status,
                    self.printed()
                );
            }
            let step = left.min(Duration::from_millis(50));
            lines = self.lines.more.wait_timeout(lines, step).unwrap().0;
            drop(lines);
        }
    }

    /// Everything printed so far, both streams in order of arrival.
    pub fn printed(&self) -> String {
        self.lines
            .lines
            .lock()
            .unwrap()
            .iter()
            .map(|(_, line)| line.as_str())
            .collect()
    }

    /// The exit status, if it has ended.
    pub fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status
    }

    /// Waits for the end, which must come within `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.poll() {
                return status;
            }
            if Instant::now() > deadline {
                panic!("{} does not end; it said:\n{}", self.name, self.printed());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends a signal; a process that has ended is left alone.
    pub fn signal(&mut self, signal: Signal) {
        if self.poll().is_none() {
            kill_process(Pid::from_child(&self.child), signal).unwrap();
        }
    }

    /// Kills it at once and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if self.status.is_none() {
            self.status = Some(self.child.wait().unwrap());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.poll().is_none() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::CONT);
            self.kill();
        }
        if thread::panicking() && !self.quiet {
            eprintln!(
                "---- {} ({:?}) said:\n{}----",
                self.name,
                self.status,
                self.printed()
            );
        }
    }
}

fn pump(from: impl Read + Send + 'static, stream: Stream, lines: &Arc<Lines>) -> JoinHandle<()> {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from
            .read_until(b'\n', &mut line)
            .is_ok_and(|count| count > 0)
        {
            let text = String::from_utf8_lossy(&line).into_owned();
            lines.lines.lock().unwrap().push((stream, text));
            lines.more.notify_all();
            line.clear();
        }
        lines.more.notify_all();
    })
}
