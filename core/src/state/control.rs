//! The control socket: how `walrust status`, `sync`, `snapshot` and `detach` reach the running watcher.
//!
//! A client connects, sends one line of JSON, and gets one back: `{"ok": …}` or
//! `{"error": {"kind", "message", "hint"}}`. The socket lies in the state directory, which only its owner
//! may enter, so whoever reaches it may ask. Everything about a connection is bounded: the length of the
//! request, the time it takes, and how many are open.
//!
//! Cancellation: [`ControlSocket::serve`] ends when its token is cancelled; requests in work are dropped,
//! and their clients see the connection close.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::dir::{Locked, StateDir};
use super::folder::Folder;
use crate::error::{Error, ErrorKind, Result};
use crate::types::DatabaseName;

const SOCKET: &str = "control.sock";

/// The longest socket path that the kernel takes: 108 bytes with the closing zero.
const PATH_MAX: usize = 107;

/// A request that names a thousand databases fits.
const REQUEST_MAX: u64 = 256 << 10;

/// The status of ten thousand databases fits.
const ANSWER_MAX: u64 = 16 << 20;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 8;

/// How long a client may take to send its line, or to take the answer.
const LINE_TIME: Duration = Duration::from_secs(5);

/// How long a request may take that names no time of its own.
const WORK_TIME: Duration = Duration::from_secs(60);

/// The longest time that a request may name.
const WORK_MAX: Duration = Duration::from_secs(3600);

/// What a client asks for, of the named databases of the watcher; of all of them if it names none.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// What to do.
    #[serde(flatten)]
    pub op: Op,
    /// The databases.
    #[serde(default)]
    pub names: Vec<DatabaseName>,
}

/// The operations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// Say how things are.
    Status,
    /// Store everything committed before this call.
    Sync {
        /// Milliseconds until the answer says that it is not yet durable.
        timeout_ms: Option<u64>,
    },
    /// Make a snapshot now.
    Snapshot {
        /// Milliseconds to wait for its end.
        timeout_ms: Option<u64>,
    },
    /// Let go of the database, for work that needs it exclusively.
    Detach {
        /// Milliseconds until it is attached again by itself.
        for_ms: u64,
    },
}

impl Op {
    /// How long the answer may take.
    fn time(self) -> Duration {
        match self {
            Self::Sync { timeout_ms } | Self::Snapshot { timeout_ms } => {
                let own = timeout_ms.map(|ms| Duration::from_millis(ms).saturating_add(LINE_TIME));
                own.unwrap_or(WORK_TIME).min(WORK_MAX)
            }
            Self::Status | Self::Detach { .. } => WORK_TIME,
        }
    }
}

/// A request on its way to the engine. Dropping `reply` answers with an error.
#[derive(Debug)]
pub struct Incoming {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes; the client may be gone.
    pub reply: oneshot::Sender<Result<Value>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ok(Value),
    Error {
        kind: String,
        message: String,
        hint: Option<String>,
    },
}

/// The bound socket; its name goes when it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    folder: Arc<Locked>,
    listener: Option<UnixListener>,
}

impl ControlSocket {
    /// Binds the socket in `dir`. One that stands there is stale: the lock is ours.
    pub fn bind(dir: &StateDir) -> Result<Self> {
        let folder = Arc::clone(dir.folder());
        folder.remove(SOCKET)?;
        let bound = UnixListener::bind(reach(&folder)).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = bound.map_err(|error| folder.error(SOCKET, error))?;
        let socket = Self {
            folder,
            listener: Some(listener),
        };
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::chmodat(socket.folder.fd(), SOCKET, mode, AtFlags::empty())
            .map_err(|error| socket.folder.error(SOCKET, error.into()))?;
        Ok(socket)
    }

    /// Hands requests to `requests` until `stop`. Errors: those of the runtime at the start only.
    pub async fn serve(
        mut self,
        requests: mpsc::Sender<Incoming>,
        stop: CancellationToken,
    ) -> Result<()> {
        let Some(listener) = self.listener.take() else {
            return Ok(());
        };
        let listener = tokio::net::UnixListener::from_std(listener)
            .map_err(|error| self.folder.error(SOCKET, error))?;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(_) = connections.join_next() => {}
                accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(converse(stream, requests.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "control socket does not accept");
                        // Out of descriptors, say: that does not pass at once.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // A stale name is replaced by the next owner.
        let _ = self.folder.remove(SOCKET);
    }
}

/// A path to the socket that the kernel takes, however long the directory's own is.
fn reach(folder: &Folder) -> PathBuf {
    let plain = folder.path_of(SOCKET);
    if plain.as_os_str().len() <= PATH_MAX {
        return plain;
    }
    let fd = folder.fd().as_raw_fd();
    PathBuf::from(format!("/proc/self/fd/{fd}/{SOCKET}"))
}

async fn converse(stream: tokio::net::UnixStream, requests: mpsc::Sender<Incoming>) {
    let mut stream = BufReader::new(stream);
    let answer = match tokio::time::timeout(LINE_TIME, read_request(&mut stream)).await {
        Ok(Ok(request)) => ask(request, &requests).await,
        Ok(Err(error)) => Err(error),
        Err(_) => Err(Error::new(
            ErrorKind::Invalid,
            "the request did not arrive in time",
        )),
    };
    let answer = match answer {
        Ok(value) => Answer::Ok(value),
        Err(error) => Answer::Error {
            kind: error.kind().name().to_owned(),
            message: Error::new(error.kind(), error.message()).to_string(),
            hint: error.next_step().map(str::to_owned),
        },
    };
    let Ok(mut line) = serde_json::to_vec(&answer) else {
        return;
    };
    line.push(b'\n');
    let sent = tokio::time::timeout(LINE_TIME, stream.write_all(&line)).await;
    if !matches!(sent, Ok(Ok(()))) {
        tracing::debug!("a client of the control socket is gone");
    }
}

async fn read_request(stream: &mut BufReader<tokio::net::UnixStream>) -> Result<Request> {
    let mut line = Vec::new();
    let read = stream.take(REQUEST_MAX).read_until(b'\n', &mut line).await;
    read.map_err(|error| Error::io("control socket", error))?;
    if line.last() != Some(&b'\n') {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("the request is no line of at most {REQUEST_MAX} bytes"),
        ));
    }
    serde_json::from_slice(&line).map_err(|error| {
        Error::new(
            ErrorKind::Invalid,
            format!("the request is unknown: {error}"),
        )
    })
}

async fn ask(request: Request, requests: &mpsc::Sender<Incoming>) -> Result<Value> {
    let time = request.op.time();
    let gone = || Error::new(ErrorKind::Unavailable, "the watcher is stopping");
    let work = async {
        let (reply, answer) = oneshot::channel();
        let incoming = Incoming { request, reply };
        requests.send(incoming).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    };
    tokio::time::timeout(time, work).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", time.as_secs());
        Err(Error::new(ErrorKind::Unavailable, message))
    })
}

/// Asks the watcher of the database at `database`; blocks for at most `timeout`. Errors: NotFound if
/// nobody watches it, Unavailable without an answer in time, else what the watcher says.
pub fn ask_watcher(database: &Path, request: &Request, timeout: Duration) -> Result<Value> {
    let nobody = || {
        Error::new(
            ErrorKind::NotFound,
            "no walrust process is watching this database",
        )
        .on(database.display())
        .hint("start one: walrust watch")
    };
    let folder =
        Folder::open(&StateDir::path_for(database)?).map_err(|error| match error.kind() {
            ErrorKind::NotFound => nobody(),
            _ => error,
        })?;
    let line = talk(&folder, request, timeout).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => nobody(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::new(
            ErrorKind::Unavailable,
            format!("the watcher did not answer within {} s", timeout.as_secs()),
        )
        .on(database.display()),
        _ => folder.error(SOCKET, error),
    })?;
    let parsed = serde_json::from_slice(&line).map_err(|_| {
        Error::new(
            ErrorKind::Unavailable,
            "the watcher ended before it answered",
        )
        .on(database.display())
    })?;
    match parsed {
        Answer::Ok(value) => Ok(value),
        Answer::Error {
            kind,
            message,
            hint,
        } => {
            let error = Error::new(
                ErrorKind::named(&kind).unwrap_or(ErrorKind::Internal),
                message,
            )
            .on(database.display());
            Err(hint.into_iter().fold(error, Error::hint))
        }
    }
}

fn talk(folder: &Folder, request: &Request, timeout: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + timeout;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(io::Error::from(io::ErrorKind::TimedOut))
        } else {
            Ok(left)
        }
    };
    let mut stream = connect(&reach(folder), left()?)?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        stream.set_read_timeout(Some(left()?))?;
        let count = match stream.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        answer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        if count == 0 || answer.last() == Some(&b'\n') || answer.len() as u64 > ANSWER_MAX {
            return Ok(answer);
        }
    }
}

/// As `UnixStream::connect`, which would wait for ever where the watcher hangs and its queue is full.
fn connect(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC;
    let family = AddressFamily::UNIX;
    let socket: OwnedFd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(timeout))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(UnixStream::from(socket))
}
