//! What happens, in the log.

use tracing::{debug, error, info, warn};
use walrust_core::engine::{Happening, Unfinished, WatchEvent};
use walrust_core::replica::{self, ReplicaEvent};
use walrust_core::types::Txid;
use walrust_core::{Error, ErrorKind};

/// The error that ends the process, a line for each of its lines: the faults of a configuration have one each.
pub(crate) fn ended(end: &Error) {
    for line in end.to_string().lines() {
        error!(kind = end.kind().name(), "{line}");
    }
    if end.kind() == ErrorKind::Internal {
        error!("this is a defect of walrust; please report it");
    }
}

/// What happened to a watched database.
pub(crate) fn watched(event: &WatchEvent) {
    let db = event.name.as_str();
    let txid = event.what.txid().map(Txid::get);
    match &event.what {
        Happening::Sync { bytes, frames, .. } => debug!(db, txid, bytes, frames, "stored"),
        Happening::Merge { bytes, .. } => debug!(db, txid, bytes, "merged"),
        Happening::Watching { .. } => info!(db, txid, "following"),
        Happening::Snapshot { bytes, reason, .. } => {
            info!(db, txid, bytes, reason = reason.name(), "snapshot stored");
        }
        Happening::Compact { objects, bytes } => info!(db, objects, bytes, "compacted"),
        Happening::Proven { duration_ms, .. } => {
            info!(db, txid, duration_ms, "proven by a restore")
        }
        Happening::Recovered { message, .. } => info!(db, txid, "works again: {message}"),
        Happening::Drained { .. } => info!(db, txid, "everything is stored"),
        Happening::Rebase {
            message, reason, ..
        } => warn!(db, txid, reason, "rebase: {message}"),
        Happening::Unproven { message, kind } => {
            error!(
                db,
                kind = kind.name(),
                "the newest state is not proven: {message}"
            );
        }
        Happening::Fenced { message } => error!(db, "fenced: {message}"),
        Happening::Error { message, kind } => error!(db, kind = kind.name(), "{message}"),
    }
}

/// What happened to a replica.
pub(crate) fn replicated(event: &ReplicaEvent) {
    let db = event.name.as_str();
    let txid = event.what.txid().map(Txid::get);
    match &event.what {
        replica::Happening::Bootstrapped { pages, .. } => info!(db, txid, pages, "replica made"),
        replica::Happening::Applied { files, pages, .. } => {
            debug!(db, txid, files, pages, "applied");
        }
        replica::Happening::CaughtUp { .. } => info!(db, txid, "at the newest state"),
        replica::Happening::Error { message, kind, .. } => {
            error!(db, kind = kind.name(), "{message}");
        }
    }
}

/// Names each database of which something stayed behind. Errors: NotDurable if there is one.
pub(crate) fn left_behind(unfinished: &[Unfinished]) -> walrust_core::Result<()> {
    for Unfinished {
        name,
        durable,
        error,
    } in unfinished
    {
        let durable = durable.map(Txid::get);
        let kind = error.kind().name();
        error!(db = %name, kind, durable_txid = durable, "stayed behind: {error}");
    }
    match unfinished {
        [] => Ok(()),
        some => {
            let names: Vec<&str> = some.iter().map(|one| one.name.as_str()).collect();
            let message = format!("not everything is stored of {}", names.join(", "));
            Err(Error::new(ErrorKind::NotDurable, message)
                .hint("a volume that is kept has it, and the next start stores it"))
        }
    }
}
