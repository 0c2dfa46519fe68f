//! Holding the write lock for moments, and never longer, whatever else goes wrong.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::connection::{Access, Conn};
use super::source::Source;
use crate::error::{Error, ErrorKind, Result};

/// How long the write lock is tried for. A writer in a closed loop leaves gaps of some 10 µs, so that
/// a few milliseconds of tries find one; an app's long transaction is not worth waiting for.
const TRY_FOR: Duration = Duration::from_millis(5);
/// Stack of the thread that holds the lock: it runs two statements that touch no table.
const STACK_BYTES: usize = 256 * 1024;

/// What became of a barrier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Barrier<T> {
    /// What the work returned.
    pub value: T,
    /// How long the write lock was held.
    pub held: Duration,
    /// The limit passed before the work was done: it went on without the lock.
    pub expired: bool,
}

/// What the thread with the lock says.
struct Released {
    held: Duration,
    expired: bool,
    outcome: Result<()>,
}

impl Source {
    /// Runs `work` while a control connection, opened for it, holds the WAL's write lock: no writer
    /// commits. A thread of its own gives the lock up after `limit`, even if `work` hangs.
    ///
    /// # Errors
    /// `Busy` if the lock is not to be had within a few milliseconds; then `work` did not run.
    pub fn barrier<T>(
        &mut self,
        limit: Duration,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<Barrier<T>> {
        let holder = WriteHold::start(self.path(), limit)?;
        let value = work(self);
        let released = holder.released();
        let (value, released) = (value?, released?);
        released.outcome?;
        Ok(Barrier {
            value,
            held: released.held,
            expired: released.expired,
        })
    }
}

impl Source {
    /// Holds the WAL's write lock for at most `limit`, for work that is more than one call.
    ///
    /// # Errors
    /// `Busy` if the lock is not to be had within a few milliseconds.
    pub fn hold_writes(&self, limit: Duration) -> Result<WriteHold> {
        WriteHold::start(self.path(), limit)
    }
}

/// The WAL's write lock, held by a thread that gives it up by itself. Dropping this lets go as well.
pub struct WriteHold {
    done: SyncSender<()>,
    thread: Option<JoinHandle<Released>>,
}

impl WriteHold {
    /// Lets writers go on. Returns how long they could not, and whether the limit had ended it before.
    ///
    /// # Errors
    /// Those of SQLite's rollback, which then happened by closing.
    pub fn release(self) -> Result<(Duration, bool)> {
        let released = self.released()?;
        released.outcome?;
        Ok((released.held, released.expired))
    }

    /// Returns once the lock is held.
    fn start(path: &Path, limit: Duration) -> Result<Self> {
        let conn = Conn::open(path, Access::ReadWrite)?;
        // BEGIN IMMEDIATE counts as a write for `query_only`; nothing is written.
        conn.execute("PRAGMA query_only=0")?;
        let (locked, is_locked) = sync_channel(1);
        let (done, is_done) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("barrier".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || hold(conn, limit, &locked, &is_done))
            .map_err(|error| Error::io(path.display(), error))?;
        let holder = Self {
            done,
            thread: Some(thread),
        };
        match is_locked.recv() {
            Ok(outcome) => outcome.map(|()| holder),
            Err(_) => Err(thread_died(path)),
        }
    }

    fn released(mut self) -> Result<Released> {
        self.let_go()
            .unwrap_or_else(|| Err(thread_died(Path::new("barrier"))))
    }

    fn let_go(&mut self) -> Option<Result<Released>> {
        // Full or closed: the thread knows already.
        let _ = self.done.try_send(());
        let thread = self.thread.take()?;
        Some(thread.join().map_err(|_| thread_died(Path::new("barrier"))))
    }
}

impl Drop for WriteHold {
    fn drop(&mut self) {
        self.let_go();
    }
}

fn thread_died(on: &Path) -> Error {
    Error::new(ErrorKind::Internal, "the thread with the write lock died").on(on.display())
}

/// Takes the lock, says so, and rolls back when told or when `limit` has passed.
fn hold(
    conn: Conn,
    limit: Duration,
    locked: &SyncSender<Result<()>>,
    is_done: &Receiver<()>,
) -> Released {
    let never_held = |outcome| Released {
        held: Duration::ZERO,
        expired: false,
        outcome,
    };
    if let Err(error) = begin_immediate(&conn) {
        let _ = locked.send(Err(error));
        return never_held(Ok(()));
    }
    let since = Instant::now();
    if locked.send(Ok(())).is_err() {
        return never_held(conn.execute("ROLLBACK"));
    }
    let expired = matches!(is_done.recv_timeout(limit), Err(RecvTimeoutError::Timeout));
    // If this fails, the close behind it ends the transaction.
    let outcome = conn.execute("ROLLBACK");
    let held = since.elapsed();
    Released {
        held,
        expired,
        outcome: outcome.and(conn.close()),
    }
}

fn begin_immediate(conn: &Conn) -> Result<()> {
    let deadline = Instant::now() + TRY_FOR;
    loop {
        match conn.execute("BEGIN IMMEDIATE") {
            Err(error) if error.kind() == ErrorKind::Busy && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            outcome => return outcome,
        }
    }
}
