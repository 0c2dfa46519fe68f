//! Requests of other processes on this machine to a running watch, through the sockets in the state directories.

use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::session::Taken;
use crate::error::{Error, ErrorKind, Result};
use crate::state::{ControlSocket, Incoming, Op, Request, StateDir, ask_watcher};
use crate::types::DatabaseName;

/// Requests that may wait.
const WAITING: usize = 8;
/// The longest that a snapshot of a running watch is waited for.
const SNAPSHOT_TIME: Duration = Duration::from_secs(3600);

/// A request to the watch that came through the state directory of one of its databases.
#[derive(Debug)]
pub struct Asked {
    /// That database.
    pub through: DatabaseName,
    /// What is asked. Dropping it answers with an error.
    pub incoming: Incoming,
}

/// Hands requests on until `stop`; a socket that cannot be bound is told and is no failure of the watch. What
/// is returned ends when the socket is gone, and with it its share of the directory's lock.
pub(super) fn serve(
    dir: &StateDir,
    through: DatabaseName,
    requests: mpsc::Sender<Asked>,
    stop: CancellationToken,
) -> Option<JoinHandle<()>> {
    let socket = match ControlSocket::bind(dir) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "no control socket: other commands cannot ask this watch");
            return None;
        }
    };
    let (sender, mut incoming) = mpsc::channel::<Incoming>(WAITING);
    Some(tokio::spawn(async move {
        let handing_on = async {
            while let Some(incoming) = incoming.recv().await {
                let through = through.clone();
                // Where nobody answers, the request is dropped, which says so.
                let _ = requests.send(Asked { through, incoming }).await;
            }
        };
        let (served, ()) = tokio::join!(socket.serve(sender, stop), handing_on);
        if let Err(error) = served {
            tracing::warn!(%error, "the control socket ended");
        }
    }))
}

/// Has the watch that holds the database at `path` take a snapshot.
pub(super) async fn ask_for_snapshot(path: &Path) -> Result<Taken> {
    let path = path.to_owned();
    let timeout_ms = u64::try_from(SNAPSHOT_TIME.as_millis()).ok();
    let request = Request {
        op: Op::Snapshot { timeout_ms },
        names: Vec::new(),
    };
    let answer =
        crate::process::blocking(move || ask_watcher(&path, &request, SNAPSHOT_TIME)).await?;
    serde_json::from_value(answer).map_err(|error| {
        Error::new(
            ErrorKind::Unsupported,
            format!("the watch answers otherwise: {error}"),
        )
    })
}
