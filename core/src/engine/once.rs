//! One snapshot now (R33 to R40): the engine opens the database as a watch would, so that the chain goes
//! on, ships what changed and then the snapshot, and lets go. What cannot be watched is copied instead.

use std::path::Path;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::control;
use super::plain;
use super::session::{Command, Taken};
use super::watch::{Watch, WatchOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::process::blocking;
use crate::replica::refuse_replica;
use crate::sqlite::{OneShot, require_compile_options};
use crate::types::DatabaseName;

/// Events of one snapshot; nobody reads them.
const EVENTS: usize = 16;

/// Takes a snapshot of the one database in `options`.
///
/// # Errors
///
/// Those of opening and storing; Invalid if there is not exactly one.
pub async fn snapshot(options: WatchOptions) -> Result<Taken> {
    let [database] = options.databases.as_slice() else {
        return Err(Error::new(
            ErrorKind::Invalid,
            "a snapshot is of one database",
        ));
    };
    require_compile_options()?;
    if let Some(source) = unwatchable(&database.path, database.sync.allow_network_fs).await? {
        return plain::snapshot(&options, database, source).await;
    }
    let (name, path) = (database.name.clone(), database.path.clone());
    watched(options, &name, &path).await
}

/// The database, opened for a copy, if it cannot be watched. What is no database at all ends here, before
/// anything is asked of the store (R39).
async fn unwatchable(path: &Path, allow_network_fs: bool) -> Result<Option<OneShot>> {
    let path = path.to_owned();
    let opened = blocking(move || {
        refuse_replica(&path)?;
        OneShot::open(&path, allow_network_fs)
    });
    match opened.await {
        Ok(source) => Ok(Some(source).filter(|source| !source.can_be_watched())),
        // This process watches it.
        Err(error) if error.kind() == ErrorKind::Exists => Ok(None),
        Err(error) => Err(error),
    }
}

async fn watched(options: WatchOptions, name: &DatabaseName, path: &Path) -> Result<Taken> {
    let stop = CancellationToken::new();
    let (events, mut listener) = mpsc::channel(EVENTS);
    let watch = Watch::new(options, events, &stop)?;
    let handle = watch.handle();
    let (answer, taken) = oneshot::channel();
    handle.command(name, Command::Snapshot(answer)).await?;
    let run = watch.run(stop.clone());
    tokio::pin!(run);
    tokio::pin!(taken);
    let mut result = None;
    let unfinished = loop {
        tokio::select! {
            biased;
            done = &mut taken, if result.is_none() => {
                result = Some(done);
                stop.cancel();
            }
            Some(_) = listener.recv() => {}
            unfinished = &mut run => break unfinished,
        }
    };
    match (unfinished.into_iter().next(), result) {
        // A watch on this machine has it: then the snapshot is that one's to take (R38).
        (Some(unfinished), None | Some(Err(_))) if unfinished.error.kind() == ErrorKind::Busy => {
            match control::ask_for_snapshot(path).await {
                Err(error) if error.kind() == ErrorKind::NotFound => Err(unfinished.error),
                asked => asked,
            }
        }
        (Some(unfinished), _) => Err(unfinished.error),
        (None, Some(Ok(taken))) => taken,
        (None, _) => Err(Error::new(
            ErrorKind::Cancelled,
            "stopped before the snapshot was taken",
        )),
    }
}
