//! Requests of other processes on this machine to a running watch, through the state directory's socket.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::session::{Command, Taken};
use super::status::DatabaseStatus;
use crate::error::{Error, ErrorKind, Result};
use crate::state::{ControlSocket, Incoming, Op, Request, StateDir, ask_watcher};

/// Requests that may wait.
const WAITING: usize = 8;
/// The longest that a snapshot of a running watch is waited for.
const SNAPSHOT_TIME: Duration = Duration::from_secs(3600);

/// Answers requests until `stop`; a socket that cannot be bound is told and is no failure of the watch.
pub(super) fn serve(
    dir: &StateDir,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<DatabaseStatus>,
    stop: CancellationToken,
) {
    let socket = match ControlSocket::bind(dir) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "no control socket: other commands cannot ask this watch");
            return;
        }
    };
    let (sender, mut incoming) = mpsc::channel::<Incoming>(WAITING);
    tokio::spawn(async move {
        let answering = async {
            while let Some(Incoming { request, reply }) = incoming.recv().await {
                let (commands, status) = (commands.clone(), status.clone());
                tokio::spawn(async move {
                    // Who asked may be gone.
                    let _ = reply.send(answer(&request, &commands, &status).await);
                });
            }
        };
        let (served, ()) = tokio::join!(socket.serve(sender, stop), answering);
        if let Err(error) = served {
            tracing::warn!(%error, "the control socket ended");
        }
    });
}

async fn answer(
    request: &Request,
    commands: &mpsc::Sender<Command>,
    status: &watch::Receiver<DatabaseStatus>,
) -> Result<Value> {
    match request.op {
        Op::Status => json(&*status.borrow()),
        Op::Snapshot { .. } => {
            let (reply, taken) = oneshot::channel();
            send(commands, Command::Snapshot(reply)).await?;
            json(&taken.await.map_err(|_| stopping())??)
        }
        Op::Sync { .. } => {
            let (reply, durable) = oneshot::channel();
            send(commands, Command::Sync(reply)).await?;
            json(&durable.await.map_err(|_| stopping())??)
        }
        Op::Detach { .. } => Err(Error::new(
            ErrorKind::Unsupported,
            "`detach` is not available in this version",
        )),
    }
}

async fn send(commands: &mpsc::Sender<Command>, command: Command) -> Result<()> {
    commands.send(command).await.map_err(|_| stopping())
}

fn stopping() -> Error {
    Error::new(ErrorKind::Cancelled, "the watch is stopping")
}

fn json(value: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))
}

/// Has the watch that holds the database at `path` take a snapshot.
pub(super) async fn ask_for_snapshot(path: &Path) -> Result<Taken> {
    let path = path.to_owned();
    let timeout_ms = u64::try_from(SNAPSHOT_TIME.as_millis()).ok();
    let request = Request {
        op: Op::Snapshot { timeout_ms },
        names: Vec::new(),
    };
    let answer = super::ship::blocking(move || ask_watcher(&path, &request, SNAPSHOT_TIME)).await?;
    serde_json::from_value(answer).map_err(|error| {
        Error::new(
            ErrorKind::Unsupported,
            format!("the watch answers otherwise: {error}"),
        )
    })
}
