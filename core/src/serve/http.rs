//! The HTTP side: which path answers what, and a server that nobody can wear out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::board::Board;
use super::control::{self as verbs, LONGEST_WAIT, SYNC_TIME};
use super::health::{started, unready};
use super::metrics::{Format, render};
use super::status::StatusReport;
use crate::config::value::seconds_or_duration;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{DatabaseName, NameError};

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// How long a client may take to send its request's head.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// The longest head. Probes and scrapes need a few hundred bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// The most headers of one request.
const HEADERS: usize = 64;

/// What may be asked by anybody who reaches the port: nothing changes anything.
pub fn read_only(board: Arc<Board>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/healthz", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(unknown)
        .with_state(board)
}

/// What changes something: for loopback alone. Browsers are refused, whatever page they show.
pub fn control(board: Arc<Board>) -> Router {
    Router::new()
        .route("/status", get(status))
        .route("/sync", post(sync))
        .route("/snapshot", post(snapshot))
        .route("/detach", post(detach))
        .fallback(unknown_verb)
        .layer(axum::middleware::from_fn(refuse_browsers))
        .with_state(board)
}

/// An idle database and an absent bucket are no reason to end a process: only what a new process would mend is.
async fn livez(State(board): State<Arc<Board>>) -> Response {
    let dead = board.dead();
    match dead.is_empty() {
        true => "ok\n".into_response(),
        false => json(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({"alive": false, "dead": dead}),
        ),
    }
}

async fn readyz(State(board): State<Arc<Board>>) -> Response {
    let reasons = unready(&board.look());
    let ready = reasons.is_empty();
    let code = match ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    json(code, &json!({"ready": ready, "reasons": reasons}))
}

async fn startupz(State(board): State<Arc<Board>>) -> Response {
    match started(&board.look()) {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "waiting for leases\n").into_response(),
    }
}

async fn metrics(State(board): State<Arc<Board>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    // Hundreds of databases take some milliseconds, which are the engine's on its own thread.
    let page = tokio::task::spawn_blocking(move || render(board.look(), format)).await;
    match page {
        Ok(Ok(page)) => ([(header::CONTENT_TYPE, format.content_type())], page).into_response(),
        Ok(Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn status(State(board): State<Arc<Board>>) -> Response {
    document(StatusCode::OK, &StatusReport::new(&board.look()))
}

async fn unknown() -> Response {
    let paths = "no such path; there are /livez, /readyz, /startupz, /metrics and /status\n";
    (StatusCode::NOT_FOUND, paths).into_response()
}

async fn unknown_verb() -> Response {
    let paths = "no such path; there are /status and, for POST, /sync, /snapshot and /detach\n";
    (StatusCode::NOT_FOUND, paths).into_response()
}

/// A page from elsewhere can make a browser on this machine post here; a browser then says where it got it from.
async fn refuse_browsers(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return failure(&Error::new(ErrorKind::Denied, "browsers are not served"));
    }
    next.run(request).await
}

/// What a request names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asking {
    database: Option<String>,
    timeout: Option<String>,
    r#for: Option<String>,
}

impl Asking {
    /// The database; unnamed, the only one.
    fn database(&self, board: &Board) -> Result<DatabaseName> {
        match &self.database {
            Some(name) => name.parse().map_err(|error: NameError| {
                Error::new(ErrorKind::Invalid, error.to_string()).on("database")
            }),
            None => {
                match &board.names()[..] {
                    [only] => Ok(only.clone()),
                    _ => Err(Error::new(ErrorKind::Invalid, "no database is named")
                        .hint("?database=NAME")),
                }
            }
        }
    }
}

fn time(given: Option<&str>, usual: Duration) -> Result<Duration> {
    match given.map(seconds_or_duration) {
        None => Ok(usual),
        Some(Ok(time)) if time <= LONGEST_WAIT => Ok(time),
        Some(Ok(_)) => Err(Error::new(ErrorKind::Invalid, "at most one hour").on("timeout")),
        Some(Err(error)) => Err(Error::new(ErrorKind::Invalid, error.to_string()).on("timeout")),
    }
}

async fn sync(State(board): State<Arc<Board>>, Query(asking): Query<Asking>) -> Response {
    let done = async {
        let name = asking.database(&board)?;
        let time = time(asking.timeout.as_deref(), SYNC_TIME)?;
        let mut synced = verbs::sync(&board, std::slice::from_ref(&name), time).await?;
        Ok(synced.pop())
    };
    match done.await {
        Ok(Some(synced)) => {
            let kind = synced.error.as_ref().map(|error| error.kind.as_str());
            let kind = kind.and_then(ErrorKind::named);
            document(kind.map_or(StatusCode::OK, code), &synced)
        }
        Ok(None) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(error) => failure(&error),
    }
}

async fn snapshot(State(board): State<Arc<Board>>, Query(asking): Query<Asking>) -> Response {
    let done = async {
        let name = asking.database(&board)?;
        let time = time(asking.timeout.as_deref(), verbs::SNAPSHOT_TIME)?;
        verbs::snapshot(&board, &name, time).await
    };
    answer(done.await)
}

async fn detach(State(board): State<Arc<Board>>, Query(asking): Query<Asking>) -> Response {
    let done = async {
        let name = asking.database(&board)?;
        let length = asking.r#for.as_deref().map(seconds_or_duration).transpose();
        let length = length
            .map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()).on("for"))?
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "for how long?").hint("?for=5m"))?;
        let mut detached = verbs::detach(&board, std::slice::from_ref(&name), length).await?;
        detached
            .pop()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "no answer"))
    };
    answer(done.await)
}

fn answer(done: Result<impl Serialize>) -> Response {
    match done {
        Ok(body) => document(StatusCode::OK, &body),
        Err(error) => failure(&error),
    }
}

fn failure(error: &Error) -> Response {
    let body = json!({"error": {
        "kind": error.kind().name(),
        "message": error.message(),
        "object": error.object(),
        "hint": error.next_step(),
    }});
    document(code(error.kind()), &body)
}

/// What an error means in HTTP.
const fn code(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Exists | ErrorKind::Fenced | ErrorKind::Busy => StatusCode::CONFLICT,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::NotDurable => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Unavailable | ErrorKind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Exhausted => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Corrupt | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[derive(Serialize)]
struct Document<'a, T: Serialize> {
    v: u8,
    #[serde(flatten)]
    body: &'a T,
}

/// `body` as a JSON document, `v` first.
pub(super) fn document(code: StatusCode, body: &impl Serialize) -> Response {
    json(code, &Document { v: 1, body })
}

fn json(code: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(text) => {
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (code, kind, text + "\n").into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A port that is ours.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Takes the port. Must be called on a runtime.
    ///
    /// # Errors
    /// `Busy` if somebody has it, and whatever else the system says.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                Error::new(ErrorKind::Busy, "another process has this port").on(address)
            }
            _ => Error::io(address, error),
        };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// The address, with the port that the system chose where 0 was asked for.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers by `router`, for ever, each connection for at most `time`. Dropping the future closes everything.
    pub async fn serve(self, router: Router, time: Duration) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let router = router.clone();
                    connections.spawn(async move {
                        let served = tokio::time::timeout(time, converse(stream, router));
                        if served.await.is_err() {
                            tracing::debug!("a connection took too long");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(address = %self.address, %error, "no connection was accepted");
                    // Out of descriptors, say: that does not pass at once.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// One request and its answer. A connection that is kept would hold a place while nobody asks.
async fn converse(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended early");
    }
}
