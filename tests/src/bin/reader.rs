//! A reader of a replica: checks in a loop that every state it sees is whole, that a transaction keeps its state, and
//! that no state comes before one that it has seen. Ends at SIGTERM.
//!
//! Prints `reading` once it has read, and `states N` at its end, N being how many different states it saw.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it reports by panicking"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use walrust_tests::bank::check;

fn main() {
    let path = PathBuf::from(std::env::args_os().nth(1).expect("a database"));
    let stop = Arc::new(AtomicBool::new(false));
    wait_for_signal(&stop);
    // One that stays, one that opens for each look, one that holds its transactions.
    let stays = connect(&path);
    let mut seen = Seen::default();
    look(&stays, &mut seen, Duration::ZERO);
    say("reading");
    let mut round = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        round += 1;
        look(&stays, &mut seen, Duration::ZERO);
        if round.is_multiple_of(7) {
            look(&connect(&path), &mut seen, Duration::ZERO);
        }
        if round.is_multiple_of(20) {
            look(&stays, &mut seen, Duration::from_millis(60));
        }
        if round.is_multiple_of(40) {
            let verdict: String = stays
                .query_row("PRAGMA integrity_check", [], |row| row.get(0))
                .unwrap();
            assert_eq!(verdict, "ok");
        }
    }
    say(&format!("states {}", seen.states));
}

#[derive(Default)]
struct Seen {
    version: i64,
    states: u64,
}

fn connect(path: &Path) -> Connection {
    let started = Instant::now();
    loop {
        let opened = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
        match opened {
            Ok(connection) => {
                connection.busy_timeout(Duration::from_secs(20)).unwrap();
                return connection;
            }
            Err(error) => assert!(started.elapsed() < Duration::from_secs(20), "{error}"),
        }
    }
}

/// One transaction, looked at twice with `pause` between.
fn look(connection: &Connection, seen: &mut Seen, pause: Duration) {
    connection.execute_batch("BEGIN").unwrap();
    let version = check(connection).unwrap_or_else(|violation| panic!("{violation}"));
    if !pause.is_zero() {
        std::thread::sleep(pause);
        let again = check(connection).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(again, version, "the state changed within a transaction");
    }
    connection.execute_batch("COMMIT").unwrap();
    assert!(
        version >= seen.version,
        "version {version} after {}",
        seen.version
    );
    seen.states += u64::from(version > seen.version);
    seen.version = version;
}

fn wait_for_signal(stop: &Arc<AtomicBool>) {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let kind = tokio::signal::unix::SignalKind::terminate();
            let mut signal = tokio::signal::unix::signal(kind).unwrap();
            signal.recv().await;
        });
        stop.store(true, Ordering::SeqCst);
    });
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}
