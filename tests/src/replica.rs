//! A replica under test: the process that keeps it, and what its file holds.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::bucket::Bucket;
use crate::oracle::Oracle;
use crate::process::{Output, Process, Signal};
use crate::program::binary;
use crate::record::each_page;
use crate::scene::Scene;
use crate::support::{PATIENCE, built, until};

/// Bytes of page 1 that a replica may show differently.
pub const MASKED: [std::ops::Range<usize>; 4] = [18..20, 24..32, 40..44, 92..100];

/// Where a replica is, and what it is made from.
#[derive(Clone)]
pub struct Replica {
    /// Its file.
    pub local: PathBuf,
    bucket: Bucket,
    name: String,
}

impl Replica {
    /// The replica `replica.db` of the scene's database, in a folder of its own.
    pub fn of(scene: &Scene) -> Self {
        let folder = scene.path().join("replica");
        fs::create_dir_all(&folder).unwrap();
        Self::at(&folder.join("replica.db"), &scene.bucket, scene.name())
    }

    /// The replica `local` of a database in a bucket.
    pub fn at(local: &Path, bucket: &Bucket, name: &str) -> Self {
        Self {
            local: local.to_owned(),
            bucket: bucket.clone(),
            name: name.to_owned(),
        }
    }

    /// `s3://bucket/prefix/name`.
    pub fn source(&self) -> String {
        format!("{}/{}", self.bucket.url(), self.name)
    }

    /// `walrust replicate` with source, local and these arguments.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(binary());
        self.bucket.environment(&mut command);
        command
            .arg("replicate")
            .arg(self.source())
            .arg("--local")
            .arg(&self.local)
            .args(arguments);
        command
    }

    /// Starts keeping it.
    pub fn start<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Process {
        Process::spawn(&mut self.command(arguments))
    }

    /// Catches up and ends.
    #[track_caller]
    pub fn once(&self) -> Output {
        Process::run(&mut self.command(&["--once"]), PATIENCE * 2)
    }

    /// A file beside it.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.local.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    /// What its state file says, if there is one.
    pub fn state(&self) -> Option<Value> {
        let text = fs::read(self.beside("-replica-state")).ok()?;
        Some(serde_json::from_slice(&text).expect("a state file is whole at any moment"))
    }

    /// The TXID in its state file; 0 without one.
    pub fn txid(&self) -> u64 {
        let state = self.state();
        state.map_or(0, |state| state["current_txid"].as_u64().unwrap())
    }

    /// Waits until the state file names `txid` or a later one.
    #[track_caller]
    pub fn wait_at(&self, txid: u64, limit: Duration) {
        until(&format!("the replica at {txid}"), limit, || {
            (self.txid() >= txid).then_some(())
        });
    }

    /// A connection that only reads.
    pub fn reader(&self) -> Connection {
        let connection =
            Connection::open_with_flags(&self.local, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection
    }

    /// Every page as another process sees it.
    pub fn shown(&self) -> Vec<u8> {
        let mut image = Vec::new();
        each_page(&self.reader(), |_, data| image.extend_from_slice(data)).unwrap();
        image
    }

    /// The commits of the source that the replica may be, by its bytes: page 1 with the header that the state file
    /// names, or, after a kill at the wrong moment, the one that was to come.
    #[track_caller]
    pub fn commits(&self, oracle: &Oracle) -> Vec<u64> {
        let shown = self.shown();
        let folder = self.local.with_file_name(".replica.db-walrust");
        let states = [self.beside("-replica-state"), folder.join("replica.next")];
        let mut why = Vec::new();
        for path in states {
            let Ok(text) = fs::read(&path) else { continue };
            let Ok(state) = serde_json::from_slice::<Value>(&text) else {
                continue;
            };
            let image = with_header(&shown, state["true_header"].as_str().unwrap());
            match oracle.find_bytes(&image) {
                Ok(commits) => return commits,
                Err(error) => why.push(error.to_string()),
            }
        }
        panic!("the replica is no state of its source: {why:?}");
    }

    /// Checks that it is the newest commit, byte for byte but for the documented ones.
    #[track_caller]
    pub fn assert_newest(&self, oracle: &Oracle) {
        let commits = self.commits(oracle);
        let last = oracle.last().seq;
        assert!(commits.contains(&last), "{commits:?} is not {last}");
        let (shown, image) = (self.shown(), oracle.image(last));
        let differing: Vec<usize> = (0..shown.len())
            .filter(|at| shown[*at] != image[*at])
            .collect();
        let masked = |at: &usize| MASKED.iter().any(|range| range.contains(at));
        assert!(differing.iter().all(masked), "{differing:?}");
    }
}

/// `image` with the masked bytes of its first page replaced by those of `header`, which is hex.
fn with_header(image: &[u8], header: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&header[2 * at..2 * at + 2], 16).unwrap();
    let mut image = image.to_vec();
    for at in MASKED.into_iter().flatten() {
        image[at] = byte(at);
    }
    image
}

/// SIGTERM, then the end, which must come soon and be a success.
#[track_caller]
pub fn stop(mut process: Process) -> Output {
    process.signal(Signal::TERM);
    process.output(Duration::from_secs(30)).expect_success()
}

/// A `walrust-test-reader`, which checks what [`crate::bank`] promises.
pub struct Reader(Process);

impl Reader {
    /// Starts reading `database` until it is told to stop.
    pub fn start(database: &Path) -> Self {
        let mut command = Command::new(built("WALRUST_TEST_READER", "walrust-test-reader"));
        command.arg(database);
        let mut process = Process::spawn(&mut command);
        process.wait_for(PATIENCE, |line| line == "reading\n");
        Self(process)
    }

    /// Ends it; gives the number of states that it saw, and panics where it saw a violation.
    #[track_caller]
    pub fn finish(mut self) -> u64 {
        self.0.signal(Signal::TERM);
        let output = self.0.output(PATIENCE).expect_success();
        let last = output.stdout.lines().last().unwrap_or_default();
        let states = last
            .strip_prefix("states ")
            .and_then(|text| text.parse().ok());
        states.unwrap_or_else(|| panic!("{}", output.stdout))
    }
}
