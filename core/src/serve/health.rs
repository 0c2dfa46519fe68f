//! Whether databases are ready: a pure judgement of what is known.

use serde::Serialize;

use super::board::{Seen, View};
use crate::engine::{DatabaseState, StandingError};
use crate::replica::ReplicaStatus;
use crate::types::DatabaseName;

/// Why the process is not ready.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Reason {
    /// The database's name in the bucket, or the pattern that matches no file.
    pub database: String,
    /// Why, in a word: `waiting_for_file`, `fenced`, `acquiring_lease`, `no_base` or `lagging`.
    pub reason: &'static str,
    /// The same for people.
    pub message: String,
}

impl Reason {
    fn new(
        name: &DatabaseName,
        reason: &'static str,
        message: String,
        error: Option<&StandingError>,
    ) -> Self {
        Self {
            database: name.to_string(),
            reason,
            message: match error {
                Some(error) => format!("{message}: {}", error.message),
                None => message,
            },
        }
    }
}

/// Everything that keeps the process from being ready. An idle database is ready, however idle; one that is paused,
/// or whose optional file is missing, keeps nobody waiting.
pub fn unready(view: &View) -> Vec<Reason> {
    let missing = view.facts.missing.iter().map(|pattern| Reason {
        database: pattern.to_string_lossy().into_owned(),
        reason: "waiting_for_file",
        message: "no file matches".to_owned(),
    });
    let databases = view.databases.iter();
    let replicas = view.replicas.iter();
    missing
        .chain(databases.filter_map(|seen| judge(seen, view)))
        .chain(replicas.filter_map(|replica| judge_replica(replica, view)))
        .collect()
}

fn judge_replica(replica: &ReplicaStatus, view: &View) -> Option<Reason> {
    let lag = replica.lag_millis(view.now);
    let (reason, message) = if replica.txid.is_none() {
        ("no_base", "there is nothing to read yet".to_owned())
    } else if is_late(lag, view) {
        let message = format!("what it shows may be {} s old", lag / 1000);
        ("lagging", message)
    } else {
        return None;
    };
    Some(Reason::new(
        &replica.name,
        reason,
        message,
        replica.error.as_ref(),
    ))
}

/// Whether a lag of so many milliseconds is above the bound.
fn is_late(lag: i64, view: &View) -> bool {
    let bound = view.facts.ready_lag.map(|lag| lag.as_millis());
    bound.is_some_and(|bound| u128::try_from(lag).is_ok_and(|lag| lag > bound))
}

fn judge(seen: &Seen, view: &View) -> Option<Reason> {
    let status = &seen.status;
    let lag = status.lag_millis(view.now);
    let (reason, message) = if status.state == DatabaseState::WaitingForFile {
        if status.optional {
            return None;
        }
        ("waiting_for_file", "the file is not there yet".to_owned())
    } else if status.state == DatabaseState::Fenced {
        ("fenced", "another writer owns the stream".to_owned())
    } else if !status.lease.held {
        ("acquiring_lease", "the stream is not ours yet".to_owned())
    } else if status.durable_txid.is_none() {
        ("no_base", "nothing can be restored yet".to_owned())
    } else if is_late(lag, view) {
        let seconds = lag / 1000;
        let message = format!("the oldest commit that is not durable is {seconds} s old");
        ("lagging", message)
    } else {
        return None;
    };
    Some(Reason::new(
        &status.name,
        reason,
        message,
        status.error.as_ref(),
    ))
}

/// Whether the application may start. A file that is not there is the application's to make.
pub fn started(view: &View) -> bool {
    let held = |seen: &Seen| {
        let status = &seen.status;
        status.lease.epoch.is_none() && status.state != DatabaseState::WaitingForFile
    };
    !view.facts.gated || !view.databases.iter().any(held)
}
