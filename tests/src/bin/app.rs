//! The application: runs the workload of a JSON spec, given as its one argument, until it is done or told to stop.
//!
//! Prints `ready` once the tables stand, and `done N` at its end, N being the last recorded commit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it reports by panicking"
)]

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rusqlite::ErrorCode;
use walrust_tests::record::Recorder;
use walrust_tests::workload::{Spec, Step, Workload, connect, create};

fn main() {
    let argument = std::env::args().nth(1).expect("a spec as JSON");
    let spec: Spec = serde_json::from_str(&argument).unwrap();
    let mut recorder = Recorder::open(&spec.log);
    let mut connection = create(&spec, &mut recorder).unwrap();
    say("ready");

    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..spec.readers)
        .map(|number| reader(&spec, number, &stop))
        .collect();
    let mut workload = Workload::new(spec.clone());
    let (start, mut done) = (Instant::now(), 0);
    while spec.commits.is_none_or(|commits| done < commits) && !recorder.stop_asked() {
        if let Some(rate) = spec.rate {
            let due = start + Duration::from_secs_f64(done as f64 / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        if spec.reopen {
            drop(connection);
            connection = connect(&spec).unwrap();
        }
        match workload.step(&mut connection, &mut recorder) {
            Ok(Step::Checkpoint(_)) => {}
            Ok(_) => done += 1,
            // VACUUM beside a reader that never ends, or a stale snapshot: what an application shrugs off.
            Err(rusqlite::Error::SqliteFailure(error, _))
                if matches!(
                    error.code,
                    ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked
                ) => {}
            Err(error) => panic!("{error}"),
        }
    }
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.join().unwrap();
    }
    drop(connection);
    say(&format!("done {}", recorder.last().unwrap()));
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// Holds read transactions, each for up to 300 ms.
fn reader(spec: &Spec, number: u32, stop: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (spec, stop) = (spec.clone(), Arc::clone(stop));
    thread::spawn(move || {
        let mut rng = Rng::with_seed(spec.seed ^ (u64::from(number) << 32));
        let connection = connect(&spec).unwrap();
        while !stop.load(Ordering::SeqCst) {
            let held = connection.execute_batch("BEGIN; SELECT count(*) FROM items");
            thread::sleep(Duration::from_millis(rng.u64(1..300)));
            if held.is_ok() {
                connection.execute_batch("COMMIT").unwrap();
            } else if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK").unwrap();
            }
        }
    })
}
