//! The lines of a running watch or replica (R52, R53, R107).

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use tracing::{error, warn};
use walrust_core::engine::{Happening, WatchEvent};
use walrust_core::replica::{self, ReplicaEvent};
use walrust_core::types::DatabaseName;

use super::{Out, text};

/// How an event is told to people.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A line on stdout.
    Line(String),
    /// We go on, but less well.
    Warning(String),
    /// Somebody must look.
    Error(String),
}

/// An event that people and programs read, each in their way.
pub(crate) trait Event: Serialize + Send + 'static {
    /// How it is told to people; some events are only for programs.
    fn told(&self) -> Option<Told>;

    /// The database that it is about.
    fn name(&self) -> &DatabaseName;
}

impl Event for WatchEvent {
    fn told(&self) -> Option<Told> {
        line(self)
    }

    fn name(&self) -> &DatabaseName {
        &self.name
    }
}

impl Event for ReplicaEvent {
    fn told(&self) -> Option<Told> {
        Some(match &self.what {
            replica::Happening::Bootstrapped { txid, pages, .. } => Told::Line(format!(
                "Bootstrapped from snapshot: {pages} pages, TXID {}",
                txid.get()
            )),
            replica::Happening::Applied { txid, files, .. } => Told::Line(format!(
                "[{}] Applied {files} LTX file(s), now at TXID {}",
                text::time_of_day(self.time),
                txid.get()
            )),
            replica::Happening::Error { message, .. } => Told::Error(message.clone()),
            replica::Happening::CaughtUp { .. } => return None,
        })
    }

    fn name(&self) -> &DatabaseName {
        &self.name
    }
}

fn line(event: &WatchEvent) -> Option<Told> {
    let line = |what: String| {
        Told::Line(format!(
            "[{}] {}: {what}",
            text::time(event.time),
            event.name
        ))
    };
    Some(match &event.what {
        // The opening lines have named it; merges are housekeeping.
        Happening::Watching { .. } | Happening::Merge { .. } => return None,
        // So is a compaction that found nothing to do.
        Happening::Compact { objects: 0, .. } => return None,
        Happening::Compact { objects, bytes } => line(format!(
            "Compaction ({objects} {}, {} freed)",
            if *objects == 1 { "object" } else { "objects" },
            text::size(*bytes)
        )),
        Happening::Sync {
            frames, page_size, ..
        } => {
            let kilobytes = text::kilobytes(frames * u64::from(page_size.get()));
            line(format!("WAL sync ({frames} frames, {kilobytes})"))
        }
        Happening::Snapshot { bytes, reason, .. } => line(format!(
            "{} snapshot ({})",
            reason.title(),
            text::size(*bytes)
        )),
        Happening::Rebase { message, txid, .. } => {
            Told::Warning(format!("rebase at TXID {}: {message}", txid.get()))
        }
        Happening::Proven {
            txid,
            bytes,
            duration_ms,
        } => line(format!(
            "Proven: TXID {} restores ({}, {})",
            txid.get(),
            text::size(*bytes),
            text::duration(Duration::from_millis(*duration_ms))
        )),
        Happening::Unproven { message, .. } => {
            Told::Error(format!("the newest state is not proven: {message}"))
        }
        Happening::Fenced { message } => Told::Error(format!("fenced: {message}")),
        Happening::Error { message, .. } => Told::Error(message.clone()),
        Happening::Recovered { message, .. } => line(format!("Recovered ({message})")),
        Happening::Drained { txid } => {
            let txid = (*txid)?.get();
            line(format!("Stopped, everything is stored up to TXID {txid}"))
        }
    })
}

/// Prints events from a thread of its own: a terminal that somebody stopped must never stop a backup.
pub(crate) struct Printer<E> {
    queue: SyncSender<E>,
    dropped: Arc<AtomicU64>,
    done: Receiver<()>,
    out: Arc<Mutex<Option<Out>>>,
    _thread: JoinHandle<()>,
}

/// Events that may wait for a slow reader: some minutes of one busy database, 200 KB.
const WAITING: usize = 1024;

/// How long the end waits for a reader that has stopped reading.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl<E: Event> Printer<E> {
    /// A printer onto `out`.
    pub(crate) fn start(out: Out) -> io::Result<Self> {
        let (queue, events) = sync_channel::<E>(WAITING);
        let (finished, done) = sync_channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let out = Arc::new(Mutex::new(Some(out)));
        let (missed, page) = (dropped.clone(), out.clone());
        let thread = std::thread::Builder::new()
            .name("printer".to_owned())
            .spawn(move || {
                let mut page = page.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(out) = page.as_mut() {
                    for event in events {
                        print(out, &event);
                        let missed = missed.swap(0, Ordering::Relaxed);
                        if missed > 0 {
                            warn!(
                                missed,
                                "lines were not printed: nobody read standard output"
                            );
                        }
                    }
                }
                drop(page);
                let _ = finished.send(());
            })?;
        Ok(Self {
            queue,
            dropped,
            done,
            out,
            _thread: thread,
        })
    }

    /// Prints `event` when the reader gets there, or drops it where too many wait.
    pub(crate) fn print(&self, event: E) {
        if self.queue.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Prints what waits and gives the page back, unless its reader has stopped reading.
    pub(crate) fn finish(self) -> Option<Out> {
        drop(self.queue);
        match self.done.recv_timeout(LAST_WORDS) {
            Err(RecvTimeoutError::Timeout) => None,
            Ok(()) | Err(RecvTimeoutError::Disconnected) => self
                .out
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        }
    }
}

fn print<E: Event>(out: &mut Out, event: &E) {
    if out.is_json() {
        out.json(event);
    }
    match event.told() {
        Some(Told::Line(line)) => out.line(line),
        // What somebody must look at is a diagnostic, which follows the log's format.
        Some(Told::Warning(what)) => warn!(db = %event.name(), "{what}"),
        Some(Told::Error(what)) => error!(db = %event.name(), "{what}"),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use walrust_core::ErrorKind;
    use walrust_core::engine::SnapshotReason;
    use walrust_core::types::{PageSize, Timestamp, Txid};

    use super::*;
    use crate::output::tests::printed;

    fn event(what: Happening) -> WatchEvent {
        WatchEvent {
            time: Timestamp::from_millis(1_705_314_600_000),
            database: "/var/lib/app.db".into(),
            name: "app.db".parse().unwrap(),
            what,
        }
    }

    fn txid(value: u64) -> Txid {
        Txid::new(value).unwrap()
    }

    #[test]
    fn lines_are_those_of_the_reference() {
        let cases = [
            (
                Happening::Sync {
                    txid: txid(7),
                    frames: 4,
                    page_size: PageSize::new(4096).unwrap(),
                    bytes: 900,
                },
                "[2024-01-15 10:30:00] app.db: WAL sync (4 frames, 16KB)",
            ),
            (
                Happening::Snapshot {
                    txid: txid(7),
                    bytes: 1_258_291,
                    reason: SnapshotReason::Scheduled,
                },
                "[2024-01-15 10:30:00] app.db: Scheduled snapshot (1.2 MB)",
            ),
            (
                Happening::Snapshot {
                    txid: txid(7),
                    bytes: 256 << 10,
                    reason: SnapshotReason::MaxChanges,
                },
                "[2024-01-15 10:30:00] app.db: Max changes snapshot (256 KB)",
            ),
        ];
        let proven = Happening::Proven {
            txid: txid(7),
            bytes: 1_258_291,
            duration_ms: 445,
        };
        let proof = "[2024-01-15 10:30:00] app.db: Proven: TXID 7 restores (1.2 MB, 445ms)";
        for (what, expected) in cases.into_iter().chain([(proven, proof)]) {
            assert_eq!(line(&event(what)), Some(Told::Line(expected.to_owned())));
        }
        let compaction = |objects, bytes| line(&event(Happening::Compact { objects, bytes }));
        let told = "[2024-01-15 10:30:00] app.db: Compaction (55 objects, 127.5 MB freed)";
        assert_eq!(
            compaction(55, 133_693_440),
            Some(Told::Line(told.to_owned()))
        );
        assert_eq!(compaction(0, 0), None);
        let trouble = line(&event(Happening::Error {
            kind: ErrorKind::Unavailable,
            message: "no route".to_owned(),
        }));
        assert_eq!(trouble, Some(Told::Error("no route".to_owned())));
    }

    #[test]
    fn r107_the_lines_of_a_replica_are_those_of_the_reference() {
        let event = |what| ReplicaEvent {
            // 2024-01-15T10:30:05Z
            time: Timestamp::from_millis(1_705_314_605_250),
            database: "replica.db".into(),
            name: "mydb".parse().unwrap(),
            what,
        };
        let bootstrapped = event(replica::Happening::Bootstrapped {
            txid: txid(100),
            files: 3,
            pages: 1024,
            lag_millis: 0,
            reason: None,
        });
        let applied = event(replica::Happening::Applied {
            txid: txid(103),
            files: 2,
            pages: 7,
            lag_millis: 0,
        });
        let caught_up = event(replica::Happening::CaughtUp { txid: txid(103) });
        let text = printed(false, |out| {
            print(out, &bootstrapped);
            print(out, &applied);
            print(out, &caught_up);
        });
        assert_eq!(
            text,
            "Bootstrapped from snapshot: 1024 pages, TXID 100\n\
             [10:30:05] Applied 2 LTX file(s), now at TXID 103\n"
        );
        let json = printed(true, |out| print(out, &caught_up));
        assert!(
            json.starts_with("{\"v\":1,\"event\":\"caught_up\","),
            "{json}"
        );
    }

    #[test]
    fn h8_a_rebase_is_loud() {
        let shown = line(&event(Happening::Rebase {
            txid: txid(9),
            bytes: 1,
            reason: "wal_restarted",
            message: "the WAL was restarted while walrust was away".to_owned(),
        }))
        .unwrap();
        assert!(matches!(shown, Told::Warning(text) if text.starts_with("rebase at TXID 9: ")));
    }

    #[test]
    fn as_json_every_event_is_one_object_and_line() {
        let text = printed(true, |out| {
            print(out, &event(Happening::Watching { txid: None }));
            print(
                out,
                &event(Happening::Drained {
                    txid: Some(txid(3)),
                }),
            );
        });
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["event"], "watching");
        assert_eq!(lines[1]["txid"], 3);
        assert!(text.starts_with("{\"v\":1,"));
    }

    #[test]
    fn a_printer_prints_in_order_and_gives_the_page_back() {
        let page = crate::output::tests::Page::default();
        let out = Out {
            stdout: Box::new(page.clone()),
            json: false,
            color: false,
            failure: None,
        };
        let printer = Printer::start(out).unwrap();
        for number in 1..=20 {
            printer.print(event(Happening::Drained {
                txid: Some(txid(number)),
            }));
        }
        assert!(printer.finish().is_some());
        let text = page.text();
        assert_eq!(text.lines().count(), 20);
        assert!(text.ends_with("TXID 20\n"), "{text}");
    }
}
