//! An app in another process: Python with the system's SQLite, which is also the oracle of bytes.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::types::PageNumber;

use super::{AttachOptions, Side, Source, View};
use crate::wal::{Continuation, ScanError, WalCursor, scan};

/// Reads one JSON list a line: a command and its arguments; answers with one JSON value a line.
const APP: &str = r#"
import sqlite3, sys, json, os, fcntl, struct, random
conns = {}
def run(name, args):
    if name == "open":
        conns[args[0]] = sqlite3.connect(args[1], isolation_level=None, timeout=float(args[2]))
        return None
    if name == "close":
        conns.pop(args[0]).close(); return None
    if name == "sql":
        return [list(r) for r in conns[args[0]].execute(args[1]).fetchall()]
    if name == "serialize":
        return conns[args[0]].serialize().hex()
    if name == "locks":
        # What other processes hold on a range of bytes: pid of the first holder or 0.
        fd = os.open(args[0], os.O_RDWR)
        q = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, int(args[1]), int(args[2]), 0)
        t = struct.unpack("hhqqi4x", fcntl.fcntl(fd, fcntl.F_GETLK, q))
        os.close(fd)
        return 0 if t[0] == fcntl.F_UNLCK else t[4]
    if name == "once":
        c = sqlite3.connect(args[0], isolation_level=None, timeout=10)
        r = [list(r) for r in c.execute(args[1]).fetchall()]
        c.close()
        return r
    if name == "python":
        scope = {"conns": conns}
        exec(args[0], globals(), scope)
        return scope.get("result")
for line in sys.stdin:
    name, *args = json.loads(line)
    try: out = {"ok": run(name, args)}
    except Exception as e: out = {"error": "%s: %s" % (type(e).__name__, e)}
    print(json.dumps(out), flush=True)
"#;

/// Another process with SQLite in it.
#[derive(Debug)]
pub(crate) struct App {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl App {
    pub(crate) fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-c", APP])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests need python3 with its sqlite3 module");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            input,
            output,
        }
    }

    /// An app with connection `a` to a fresh database in WAL mode that checkpoints only when told.
    pub(crate) fn with_database(path: &Path, page_size: u32) -> Self {
        let mut app = Self::start();
        app.open("a", path);
        app.sql("a", &format!("PRAGMA page_size={page_size}"));
        app.sql("a", "PRAGMA journal_mode=WAL");
        app.sql("a", "PRAGMA wal_autocheckpoint=0");
        app
    }

    pub(crate) fn try_call(&mut self, call: &[&str]) -> Result<serde_json::Value, String> {
        writeln!(self.input, "{}", serde_json::to_string(call).unwrap()).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let mut answer: serde_json::Value = serde_json::from_str(&line).unwrap();
        match answer.get("error") {
            Some(error) => Err(error.as_str().unwrap().to_owned()),
            None => Ok(answer["ok"].take()),
        }
    }

    #[track_caller]
    pub(crate) fn call(&mut self, call: &[&str]) -> serde_json::Value {
        match self.try_call(call) {
            Ok(value) => value,
            Err(error) => panic!("{call:?}: {error}"),
        }
    }

    #[track_caller]
    pub(crate) fn open(&mut self, name: &str, path: &Path) {
        self.call(&["open", name, path.to_str().unwrap(), "10"]);
    }

    #[track_caller]
    pub(crate) fn sql(&mut self, connection: &str, sql: &str) -> serde_json::Value {
        self.call(&["sql", connection, sql])
    }

    /// The page image of the database as this connection sees it.
    #[track_caller]
    pub(crate) fn image(&mut self, connection: &str) -> Vec<u8> {
        let hex = self.call(&["serialize", connection]);
        hex.as_str()
            .unwrap()
            .as_bytes()
            .chunks_exact(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// The process that locks `length` bytes at `start` of `path`, as seen from this one.
    pub(crate) fn lock_holder(&mut self, path: &Path, start: u64, length: u64) -> u64 {
        self.call(&[
            "locks",
            path.to_str().unwrap(),
            &start.to_string(),
            &length.to_string(),
        ])
        .as_u64()
        .unwrap()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory for one database.
pub(crate) struct Scratch {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

pub(crate) fn scratch(name: &str) -> Scratch {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    Scratch { directory, path }
}

#[track_caller]
pub(crate) fn attach(path: &Path) -> Source {
    Source::attach(path, &AttachOptions::default()).unwrap()
}

/// All pages of one side, as one image.
#[track_caller]
pub(crate) fn image_of(source: &mut Source, side: Side) -> Vec<u8> {
    let view = match side {
        Side::Old => *source.view(),
        Side::New => *source.newer_view().unwrap(),
    };
    let mut image = Vec::new();
    let mut page = Vec::new();
    for number in (1..=view.page_count.0).filter_map(PageNumber::new) {
        source.read_page(side, number, &mut page).unwrap();
        image.extend_from_slice(&page);
    }
    image
}

/// What one turn brought.
#[derive(Debug)]
pub(crate) struct Turned {
    pub(crate) view: View,
    pub(crate) frames: u32,
    pub(crate) commits: u32,
}

/// The smallest thing that captures: the image of the database, moved on by frames alone, and checked
/// after each turn against what SQLite says.
pub(crate) struct Capture {
    pub(crate) source: Source,
    pub(crate) image: Vec<u8>,
}

impl Capture {
    #[track_caller]
    pub(crate) fn attach(path: &Path) -> Self {
        let mut source = attach(path);
        let image = image_of(&mut source, Side::Old);
        Self { source, image }
    }

    /// One turn; panics where the frames do not lead from the older state to the newer one.
    #[track_caller]
    pub(crate) fn turn(&mut self) -> Turned {
        match self.try_turn() {
            Ok(turned) => turned,
            Err(error) => panic!("{error}"),
        }
    }

    #[track_caller]
    pub(crate) fn try_turn(&mut self) -> Result<Turned, ScanError> {
        turn_on(&mut self.source, &mut self.image)
    }
}

/// One turn of `source`, whose captured state is `captured`.
#[track_caller]
pub(crate) fn turn_on(source: &mut Source, captured: &mut Vec<u8>) -> Result<Turned, ScanError> {
    let old = *source.view();
    let view = source.begin_turn().unwrap();
    let mut turned = Turned {
        view,
        frames: 0,
        commits: 0,
    };
    let size = view.page_size;
    let mut smallest = old.page_count.min(view.page_count);
    let mut image = captured.clone();
    let mut framed = std::collections::HashSet::new();
    if let Some(end) = view.wal {
        let from = from(old.cursor(), &view, source);
        let mut buffer = Vec::new();
        let scanned = scan(
            source.wal().unwrap(),
            &from,
            &end,
            &mut buffer,
            &mut |frame| {
                let at = size.offset(frame.page) as usize;
                image.resize(image.len().max(at + size.bytes()), 0);
                image[at..at + size.bytes()].copy_from_slice(frame.data);
                framed.insert(frame.page);
                turned.frames += 1;
                if let Some(commit) = frame.commit {
                    turned.commits += 1;
                    smallest = smallest.min(commit);
                    framed.retain(|page| commit.holds(*page));
                }
                Ok(())
            },
        );
        match scanned {
            Ok(cursor) => assert_eq!(Some(cursor), view.cursor()),
            Err(error) => {
                source.cancel_turn().unwrap();
                return Err(error);
            }
        }
    }
    image.resize(size.total(view.page_count) as usize, 0);
    // What a shrink cut off may come back without a frame (e4.c).
    let mut page = Vec::new();
    for number in size.stored_pages(view.page_count) {
        if !smallest.holds(number) && !framed.contains(&number) {
            source.read_page(Side::New, number, &mut page).unwrap();
            let at = size.offset(number) as usize;
            image[at..at + size.bytes()].copy_from_slice(&page);
        }
    }
    assert!(
        image_of(source, Side::Old) == *captured,
        "the held state is stable"
    );
    assert!(
        image_of(source, Side::New) == image,
        "the frames lead to the newer state"
    );
    source.end_turn().unwrap();
    *captured = image;
    Ok(turned)
}

/// Where the frames behind the older state begin.
#[track_caller]
fn from(old: Option<WalCursor>, view: &View, source: &Source) -> WalCursor {
    let start = || WalCursor::start(source.wal().unwrap()).unwrap();
    let Some(old) = old else { return start() };
    match old.continuation(&view.wal.unwrap()) {
        Continuation::Same => old,
        Continuation::Restarted { .. } => start(),
        Continuation::Lost => panic!("a generation that was captured is gone"),
    }
}

/// What the first run of a test hands to the second.
const HANDED_ON: &str = "WALRUST_TEST_HANDED_ON";

/// Runs one test of this program again: as another user, in another namespace, or just alone.
#[track_caller]
pub(crate) fn again(launcher: &[&str], test: &str, hand_on: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), mode).unwrap();
    let program = directory.path().join("tests");
    // A copy, because another user may not reach the original.
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let (command, arguments) = launcher.split_first().unwrap();
    let output = Command::new(command)
        .args(arguments)
        .arg(&program)
        .args(["--exact", "--include-ignored", test])
        .env(HANDED_ON, hand_on)
        .current_dir("/")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What the first run of this test handed on; none in the first run.
pub(crate) fn handed_on() -> Option<PathBuf> {
    std::env::var_os(HANDED_ON).map(Into::into)
}
