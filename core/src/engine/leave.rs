//! Letting a database alone for a while: migrations and repairs want it exclusively.
//!
//! The wish is a state and not a message, so that it is found wherever the database's task is: in a session, between
//! two that failed, or already away. While away nothing of the database is open; the state directory stays locked,
//! so that no other watcher comes between, and what the spool holds is shipped if the lease is still ours.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::session::Command;
use super::status::DatabaseState;
use super::worker::{Context, drain_spool};
use crate::error::{Error, ErrorKind, Result};
use crate::state::StateDir;
use crate::types::Timestamp;

/// That a database is to be let alone, and for how long from the moment at which it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Leave {
    /// Tells it from every wish before, in the order in which they are made.
    pub(super) number: u64,
    pub(super) length: Duration,
}

/// A wish that is new to whoever granted those up to `granted`.
fn new(leave: Option<Leave>, granted: u64) -> Option<Leave> {
    leave.filter(|leave| leave.number > granted)
}

/// Waits until somebody wants the database to be let alone; those up to `granted` have been.
pub(super) async fn wanted(leave: &mut watch::Receiver<Option<Leave>>, granted: u64) {
    let wanted = leave.wait_for(|leave| new(*leave, granted).is_some());
    if wanted.await.is_err() {
        // Nobody is left who could want it.
        std::future::pending::<()>().await;
    }
}

/// Why a database is attached again.
enum Back {
    Stopped,
    InTime,
}

/// Stays away as long as somebody wants that. Nothing is attached when this is called.
///
/// # Errors
/// NotDurable at a stop: what was committed meanwhile, nobody has seen.
pub(super) async fn stay_away(context: &mut Context, dir: &Option<Arc<StateDir>>) -> Result<()> {
    let granted = context.status.borrow().leave;
    let Some(leave) = new(*context.leave.borrow_and_update(), granted) else {
        return Ok(());
    };
    tracing::warn!(db = %context.options.name, length = ?leave.length, "detached as asked");
    let since = context.shared.clock.now();
    let (_, nobody) = mpsc::channel(1);
    let mut commands = std::mem::replace(&mut context.commands, nobody);
    let full = context.spool_is_too_small;
    let (back, shipped) = rest(context, dir, &mut commands, leave).await;
    context.commands = commands;
    // An empty spool says nothing here about what would fit.
    context.spool_is_too_small = full;
    if !shipped {
        // A file may still be on its way: a new epoch tells it from what comes after.
        context.lease = None;
    }
    context.status.send_modify(|status| {
        status.detached_until = None;
        status.state = DatabaseState::AcquiringLease;
    });
    match back {
        Back::InTime => Ok(()),
        Back::Stopped => {
            let message = format!("detached since {since}: what was committed since is not stored");
            Err(Error::new(ErrorKind::NotDurable, message)
                .on(&context.options.name)
                .hint("the next start stores it"))
        }
    }
}

/// Ships the spool, refuses what needs the database, and waits; also whether everything was shipped.
async fn rest(
    context: &mut Context,
    dir: &Option<Arc<StateDir>>,
    commands: &mut mpsc::Receiver<Command>,
    leave: Leave,
) -> (Back, bool) {
    let (stop, status) = (context.stop.clone(), context.status.clone());
    let clock = context.shared.clock.clone();
    let mut wishes = context.leave.clone();
    let name = context.options.name.clone();
    let shipping = drain_spool(context, dir);
    tokio::pin!(shipping);
    let mut shipped = false;
    let grant = |leave: Leave| {
        let millis = i64::try_from(leave.length.as_millis()).unwrap_or(i64::MAX);
        let shown = clock.now().plus_millis(millis);
        status.send_modify(|status| {
            status.state = DatabaseState::Detached;
            status.detached_until = Some(shown);
            status.leave = leave.number;
        });
        (Instant::now() + leave.length, shown)
    };
    let (mut until, mut shown) = grant(leave);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return (Back::Stopped, shipped),
            // The sender lives as long as the watch.
            Ok(()) = wishes.changed() => match *wishes.borrow_and_update() {
                Some(other) => (until, shown) = grant(other),
                None => return (Back::InTime, shipped),
            },
            Some(command) = commands.recv() => refuse(command, shown),
            done = &mut shipping, if !shipped => {
                shipped = true;
                if let Err(error) = done {
                    tracing::warn!(db = %name, %error, "what waits in the spool is sent later");
                }
            }
            () = sleep_until(until) => return (Back::InTime, shipped),
        }
    }
}

fn refuse(command: Command, until: Timestamp) {
    let message = format!("the database is detached until {until}");
    let error = Error::new(ErrorKind::Unavailable, message).hint("end it: walrust detach --for 0");
    // Who asked may have given up.
    match command {
        Command::Sync(answer) => drop(answer.send(Err(error))),
        Command::Snapshot(answer) => drop(answer.send(Err(error))),
    }
}
