//! Requests that make a running watch do something: the same for the state directories' sockets and for HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::board::Board;
use super::status::StatusReport;
use crate::engine::{Asked, Taken};
use crate::error::{Error, ErrorKind, Result};
use crate::state::{Op, Request};
use crate::types::{DatabaseName, Timestamp, Txid};

/// How long a sync is waited for that names no time of its own.
pub const SYNC_TIME: Duration = Duration::from_secs(30);

/// The longest that a request may wait for the store.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How long a snapshot is waited for that names no time of its own.
pub(super) const SNAPSHOT_TIME: Duration = Duration::from_secs(55);

/// The longest that a database may be detached by one request: whoever forgets it loses no more than a day.
pub const LONGEST_LEAVE: Duration = Duration::from_secs(24 * 3600);

/// How long letting go may take before the answer says that it did not happen.
const LETTING_GO: Duration = Duration::from_secs(50);

/// What a sync came to, for one database.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Synced {
    /// The database's name in the bucket.
    pub name: DatabaseName,
    /// Everything up to here is durable.
    pub txid: Option<Txid>,
    /// The same in 16 hex digits.
    pub txid_hex: Option<String>,
    /// Whether everything that was committed before the call is durable.
    pub durable: bool,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Why it is not.
    pub error: Option<Trouble>,
}

/// What kept a request from being done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trouble {
    /// What it means.
    pub kind: String,
    /// The same for people.
    pub message: String,
}

/// A database that is let alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Detached {
    /// Its name in the bucket.
    pub name: DatabaseName,
    /// When it is attached again.
    pub until: Timestamp,
    /// The newest captured transaction.
    pub txid: Option<Txid>,
    /// The newest durable one; what lies between waits on the local disk.
    pub durable_txid: Option<Txid>,
}

/// The status of the databases called `names`, of all if there are none. Errors: NotFound.
pub(super) fn status(board: &Board, names: &[DatabaseName]) -> Result<StatusReport> {
    let mut report = StatusReport::new(&board.look());
    if !names.is_empty() {
        for name in names {
            if !report.databases.iter().any(|known| known.name == *name) {
                let message = "no database of this name is watched";
                return Err(Error::new(ErrorKind::NotFound, message).on(name));
            }
        }
        report.databases.retain(|known| names.contains(&known.name));
    }
    Ok(report)
}

/// Makes everything durable that is committed now, in the databases called `names`, in all if there are none.
/// Errors: NotFound; what else goes wrong stands in the answers.
pub(super) async fn sync(
    board: &Board,
    names: &[DatabaseName],
    timeout: Duration,
) -> Result<Vec<Synced>> {
    let known = board.names();
    if let Some(name) = names.iter().find(|name| !known.contains(name)) {
        let message = "no database of this name is watched";
        return Err(Error::new(ErrorKind::NotFound, message).on(name));
    }
    let names = if names.is_empty() { &known } else { names };
    Ok(join_all(names.iter().map(|name| sync_one(board, name, timeout))).await)
}

async fn sync_one(board: &Board, name: &DatabaseName, timeout: Duration) -> Synced {
    let began = Instant::now();
    let syncing = async { board.watch()?.sync(name).await };
    let outcome = match tokio::time::timeout(timeout, syncing).await {
        Ok(outcome) => outcome,
        Err(_) => Err(not_durable(board, name, timeout)),
    };
    let durable = outcome.is_ok();
    let (txid, error) = match outcome {
        Ok(txid) => (Some(txid), None),
        Err(error) => {
            let trouble = Trouble {
                kind: error.kind().name().to_owned(),
                message: error.to_string(),
            };
            (
                board.status(name).and_then(|status| status.durable_txid),
                Some(trouble),
            )
        }
    };
    Synced {
        name: name.clone(),
        txid,
        txid_hex: txid.map(|txid| txid.to_string()),
        durable,
        duration_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        error,
    }
}

fn not_durable(board: &Board, name: &DatabaseName, timeout: Duration) -> Error {
    let mut message = format!("not durable within {} s", timeout.as_secs_f64());
    let standing = board.status(name).and_then(|status| status.error);
    if let Some(standing) = standing {
        message = format!("{message}: {}", standing.message);
    }
    Error::new(ErrorKind::NotDurable, message)
}

/// Takes a snapshot.
pub(super) async fn snapshot(
    board: &Board,
    name: &DatabaseName,
    timeout: Duration,
) -> Result<Taken> {
    let taken = tokio::time::timeout(timeout, board.watch()?.snapshot(name)).await;
    taken.unwrap_or_else(|_| {
        let message = format!("not stored within {} s", timeout.as_secs_f64());
        Err(Error::new(ErrorKind::NotDurable, message).on(name))
    })
}

/// Lets databases alone for `length`; attaches them again if that is zero.
pub(super) async fn detach(
    board: &Board,
    names: &[DatabaseName],
    length: Duration,
) -> Result<Vec<Detached>> {
    if length > LONGEST_LEAVE {
        let message = "a database is detached for at most one day";
        return Err(Error::new(ErrorKind::Invalid, message).on("--for"));
    }
    let all = names.iter().map(|name| detach_one(board, name, length));
    join_all(all).await.into_iter().collect()
}

async fn detach_one(board: &Board, name: &DatabaseName, length: Duration) -> Result<Detached> {
    let gone = tokio::time::timeout(LETTING_GO, board.watch()?.detach(name, length)).await;
    let until = gone.unwrap_or_else(|_| {
        let message = "the watch is busy with this database and did not let go";
        Err(Error::new(ErrorKind::Busy, message).on(name))
    })?;
    let status = board.status(name);
    Ok(Detached {
        name: name.clone(),
        until,
        txid: status.as_ref().and_then(|status| status.txid),
        durable_txid: status.and_then(|status| status.durable_txid),
    })
}

/// Answers a request that came through a state directory.
pub(super) async fn answer(board: Arc<Board>, asked: Asked) {
    let Request { op, names } = asked.incoming.request;
    let own = asked.through;
    // What concerns one database concerns, unnamed, the one whose directory it came through.
    let one = names.first().unwrap_or(&own);
    let some = match names.is_empty() {
        true => std::slice::from_ref(&own),
        false => &names,
    };
    let millis = |ms: Option<u64>, usual| ms.map_or(usual, Duration::from_millis);
    let answer = match op {
        Op::Status => status(&board, &names).and_then(|report| json(&report)),
        Op::Sync { timeout_ms } => {
            let synced = sync(&board, &names, millis(timeout_ms, SYNC_TIME)).await;
            synced.and_then(|synced| json(&synced))
        }
        Op::Snapshot { timeout_ms } => {
            let taken = snapshot(&board, one, millis(timeout_ms, SNAPSHOT_TIME)).await;
            taken.and_then(|taken| json(&taken))
        }
        Op::Detach { for_ms } => {
            let detached = detach(&board, some, Duration::from_millis(for_ms)).await;
            detached.and_then(|detached| json(&detached))
        }
    };
    // Who asked may be gone.
    let _ = asked.incoming.reply.send(answer);
}

fn json(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))
}
