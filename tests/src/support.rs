//! Scratch folders, seeds, deadlines, and where the binaries are.

use std::env;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;

/// Within this a program that is not stuck has answered, also on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A scratch folder, kept if `WALRUST_TEST_KEEP` is set.
pub fn scratch(name: &str) -> TempDir {
    let mut builder = tempfile::Builder::new();
    let prefix = format!("walrust-{name}-");
    let keep = env::var_os("WALRUST_TEST_KEEP").is_some();
    let folder = builder
        .prefix(&prefix)
        .disable_cleanup(keep)
        .tempdir()
        .unwrap();
    if keep {
        eprintln!("{name}: {}", folder.path().display());
    }
    folder
}

/// The seeds to run: those of `WALRUST_TEST_SEED` (`7` or `7,8`), or else `WALRUST_TEST_SEEDS` (a number) of them
/// from 1 on, by default `usual`. Each is printed by [`announce`].
pub fn seeds(usual: u64) -> Vec<u64> {
    if let Ok(text) = env::var("WALRUST_TEST_SEED") {
        return text
            .split(',')
            .map(|seed| seed.trim().parse().unwrap())
            .collect();
    }
    (1..=number("WALRUST_TEST_SEEDS", usual)).collect()
}

/// Rounds to run: `WALRUST_TEST_ROUNDS`, by default `usual`.
pub fn rounds(usual: u64) -> u64 {
    number("WALRUST_TEST_ROUNDS", usual)
}

/// Says which seed runs, so that a failure can be repeated with `WALRUST_TEST_SEED`.
pub fn announce(test: &str, seed: u64) {
    eprintln!("{test}: WALRUST_TEST_SEED={seed}");
}

fn number(variable: &str, usual: u64) -> u64 {
    match env::var(variable) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|error| panic!("{variable}: {error}")),
        Err(_) => usual,
    }
}

/// Waits until `check` gives something; `what` is for the message when it does not within `limit`.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A program under test: `variable` names it, else it lies beside the test's own binaries.
pub fn built(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = env::var_os(variable) {
        return path.into();
    }
    let this = env::current_exe().unwrap();
    let folders = this.ancestors().skip(1).take(2);
    let found = folders
        .map(|folder| folder.join(name))
        .find(|path| path.exists());
    found.unwrap_or_else(|| {
        panic!(
            "no {name} beside {}: cargo build --workspace --bins",
            this.display()
        )
    })
}

/// A program from elsewhere: `variable` names it, else it is looked up on PATH.
pub fn installed(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = env::var_os(variable) {
        return path.into();
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("no {name}: set {variable}, or run `bash .ci/run`, which installs it")
    })
}

/// Opens a restored database for looking; nothing is left beside it.
pub fn look(database: &Path) -> Connection {
    let uri = format!("file:{}?immutable=1", percent(database));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags).unwrap()
}

fn percent(path: &Path) -> String {
    let text = path.to_str().unwrap();
    text.bytes()
        .map(|byte| match byte {
            b'/' | b'.' | b'-' | b'_' => char::from(byte).to_string(),
            byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            byte => format!("%{byte:02x}"),
        })
        .collect()
}

/// Whether `PRAGMA integrity_check` is content.
#[track_caller]
pub fn assert_sound(database: &Path) {
    let verdict: String = look(database)
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(verdict, "ok", "{}", database.display());
}

/// One unsigned HTTP request to `endpoint`; the whole answer as text, or nothing if nobody answers.
pub fn plain_request(endpoint: &str, method: &str, path: &str) -> Option<String> {
    plain_upload(endpoint, method, path, &[])
}

/// [`plain_request`] with a body.
pub fn plain_upload(endpoint: &str, method: &str, path: &str, body: &[u8]) -> Option<String> {
    let answer = plain_bytes(endpoint, method, path, body)?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

/// [`plain_upload`], with the answer as it came.
pub fn plain_bytes(endpoint: &str, method: &str, path: &str, body: &[u8]) -> Option<Vec<u8>> {
    let host = endpoint.strip_prefix("http://")?;
    let mut stream = TcpStream::connect(host).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(answer)
}

/// Ports that were free a moment ago; all are held until the last is found, so that they differ.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}
