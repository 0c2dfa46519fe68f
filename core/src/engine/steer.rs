//! Steering a running watch: make what is committed durable, take a snapshot, let a database alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::leave::Leave;
use super::session::{Command, Taken};
use super::watch::{Handle, WatchHandle};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{DatabaseName, Timestamp, Txid};

/// How soon a request is made again whose session ended before it answered.
const AGAIN: Duration = Duration::from_millis(100);

/// The number of the next wish to let a database alone.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl WatchHandle {
    /// Waits until everything that is committed now is durable; gives the newest transaction of that.
    ///
    /// # Errors
    /// NotFound for an unknown name, Unavailable while the database is detached, Cancelled at a stop.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn sync(&self, name: &DatabaseName) -> Result<Txid> {
        ask(&*self.find(name)?, Command::Sync).await
    }

    /// Takes a snapshot, or finds that the newest one holds the present state. Errors: as [`WatchHandle::sync`].
    pub async fn snapshot(&self, name: &DatabaseName) -> Result<Taken> {
        ask(&*self.find(name)?, Command::Snapshot).await
    }

    /// Lets the database alone for `length`, or no longer if that is zero. Returns once no connection of ours is
    /// open, with the time at which it will be attached again.
    ///
    /// # Errors
    /// NotFound for an unknown name, Cancelled at a stop or where the database is no longer watched.
    ///
    /// # Cancel safety
    /// Dropping the future takes the wish back.
    pub async fn detach(&self, name: &DatabaseName, length: Duration) -> Result<Timestamp> {
        let handle = self.find(name)?;
        let mut status = handle.status.clone();
        if length.is_zero() {
            handle.leave.send_replace(None);
            let back = status.wait_for(|status| status.detached_until.is_none());
            back.await.map_err(|_| stopping())?;
            return Ok(self.clock.now());
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let wish = Wish {
            leave: &handle.leave,
            made: Leave { number, length },
            granted: false,
        };
        let wish = wish.make();
        let gone = status.wait_for(|status| status.leave >= number);
        let until = gone.await.map_err(|_| stopping())?.detached_until;
        wish.granted();
        // It may be over already.
        Ok(until.unwrap_or_else(|| self.clock.now()))
    }

    pub(super) fn find(&self, name: &DatabaseName) -> Result<Arc<Handle>> {
        let set = self.set();
        let found = set.iter().find(|handle| handle.name == *name);
        found.cloned().ok_or_else(|| {
            let names = set.iter().map(|handle| handle.name.as_str());
            let names: Vec<&str> = names.take(10).collect();
            Error::new(ErrorKind::NotFound, "no database of this name is watched")
                .on(name)
                .hint(format!("watched: {}", names.join(", ")))
        })
    }
}

/// Sends a command until a session lives long enough to answer it.
async fn ask<T>(
    handle: &Handle,
    command: impl Fn(oneshot::Sender<Result<T>>) -> Command,
) -> Result<T> {
    let commands: &mpsc::Sender<Command> = &handle.commands;
    loop {
        let (answer, answered) = oneshot::channel();
        let sent = commands.send(command(answer)).await;
        sent.map_err(|_| stopping())?;
        match answered.await {
            Ok(answer) => return answer,
            Err(_) if commands.is_closed() => return Err(stopping()),
            Err(_) => sleep(AGAIN).await,
        }
    }
}

/// A wish to be let alone that is taken back unless it is granted.
struct Wish<'h> {
    leave: &'h watch::Sender<Option<Leave>>,
    made: Leave,
    granted: bool,
}

impl Wish<'_> {
    fn make(self) -> Self {
        self.leave.send_replace(Some(self.made));
        self
    }

    fn granted(mut self) {
        self.granted = true;
    }
}

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        let made = self.made;
        if !self.granted {
            let ours = |leave: &mut Option<Leave>| leave.take_if(|leave| *leave == made).is_some();
            self.leave.send_if_modified(ours);
        }
    }
}

fn stopping() -> Error {
    Error::new(ErrorKind::Cancelled, "the watch is stopping")
}
