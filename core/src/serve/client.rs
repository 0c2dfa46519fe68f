//! The other side: how a command reaches a running watch.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request as HttpRequest, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

use super::control::{Detached, Synced};
use super::status::StatusReport;
use crate::error::{Error, ErrorKind, Result};
use crate::state::{Op, Request, ask_watcher};
use crate::types::DatabaseName;

/// The status of ten thousand databases fits.
const LONGEST_ANSWER: usize = 16 << 20;
/// How long an answer may take beyond the time that the request itself takes.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long letting go may take.
const LETTING_GO: Duration = Duration::from_secs(60);

/// Where a running watch is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Contact {
    /// Through the state directory beside this database.
    State(PathBuf),
    /// At its control listener: `127.0.0.1:16768`.
    Control(String),
}

impl Contact {
    /// The status of the databases called `names`, of all if there are none.
    ///
    /// # Errors
    /// NotFound where nobody watches or a name is unknown, Unavailable without an answer, else what the watch says.
    pub async fn status(&self, names: &[DatabaseName]) -> Result<StatusReport> {
        match self {
            Self::State(path) => socket(path, Op::Status, names, PATIENCE).await,
            Self::Control(address) => {
                let mut report: StatusReport =
                    http(address, Method::GET, "/status".to_owned(), PATIENCE).await?;
                for name in names {
                    if !report.databases.iter().any(|known| known.name == *name) {
                        let message = "no database of this name is watched";
                        return Err(Error::new(ErrorKind::NotFound, message).on(name));
                    }
                }
                let wanted = |name: &DatabaseName| names.is_empty() || names.contains(name);
                report.databases.retain(|known| wanted(&known.name));
                Ok(report)
            }
        }
    }

    /// Makes everything durable that is committed now, in the databases called `names`, in all if there are none.
    /// Errors: as [`Contact::status`]; what else goes wrong stands in the answers.
    pub async fn sync(&self, names: &[DatabaseName], timeout: Duration) -> Result<Vec<Synced>> {
        let patience = timeout.saturating_add(PATIENCE);
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::State(path) => {
                let timeout_ms = Some(millis);
                socket(path, Op::Sync { timeout_ms }, names, patience).await
            }
            Self::Control(address) => {
                let named = self.named(names).await?;
                let all = named.iter().map(|name| {
                    let length = format!("{millis}ms");
                    let query = query("/sync", name, &[("timeout", &length)]);
                    http(address, Method::POST, query, patience)
                });
                join_all(all).await.into_iter().collect()
            }
        }
    }

    /// Has the databases called `names` let alone for `length`; without names the one that the contact names.
    /// Errors: as [`Contact::status`], Invalid for no name or too long a time, Busy where the watch did not let go.
    pub async fn detach(&self, names: &[DatabaseName], length: Duration) -> Result<Vec<Detached>> {
        let for_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::State(path) => socket(path, Op::Detach { for_ms }, names, LETTING_GO).await,
            Self::Control(_) if names.is_empty() => {
                let error = Error::new(ErrorKind::Invalid, "no database is named");
                Err(error.hint("walrust status shows their names"))
            }
            Self::Control(address) => {
                let length = format!("{for_ms}ms");
                let all = names.iter().map(|name| {
                    let query = query("/detach", name, &[("for", &length)]);
                    http(address, Method::POST, query, LETTING_GO)
                });
                join_all(all).await.into_iter().collect()
            }
        }
    }

    async fn named(&self, names: &[DatabaseName]) -> Result<Vec<DatabaseName>> {
        if !names.is_empty() {
            return Ok(names.to_vec());
        }
        let report = self.status(names).await?;
        let watched = report.databases.into_iter();
        let watched = watched.filter(|database| database.state != "paused");
        Ok(watched.map(|database| database.name).collect())
    }
}

async fn socket<T: DeserializeOwned>(
    path: &std::path::Path,
    op: Op,
    names: &[DatabaseName],
    patience: Duration,
) -> Result<T> {
    let (path, names) = (path.to_owned(), names.to_vec());
    let asking =
        tokio::task::spawn_blocking(move || ask_watcher(&path, &Request { op, names }, patience));
    let answer = asking
        .await
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    understood(answer?)
}

fn understood<T: DeserializeOwned>(answer: Value) -> Result<T> {
    serde_json::from_value(answer).map_err(|error| {
        let message = format!("the watch answers otherwise: {error}");
        Error::new(ErrorKind::Unsupported, message).hint("is it another version?")
    })
}

fn query(path: &str, name: &DatabaseName, more: &[(&str, &str)]) -> String {
    let pairs = [("database", name.as_str())];
    let pairs: Vec<_> = pairs.iter().chain(more).collect();
    // Pairs of text are always encoded.
    let query = serde_urlencoded::to_string(pairs).unwrap_or_default();
    format!("{path}?{query}")
}

/// What a control listener answers; its answers to trouble are errors, but for a sync that came too late.
async fn http<T: DeserializeOwned>(
    address: &str,
    method: Method,
    path: String,
    patience: Duration,
) -> Result<T> {
    let exchange = tokio::time::timeout(patience, exchange(address, method, path));
    let answer = exchange.await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", patience.as_secs());
        Err(Error::new(ErrorKind::Unavailable, message))
    });
    let answer = answer.map_err(|error| error.on(address))?;
    match Refusal::deserialize(&answer) {
        Ok(Refusal { error }) => {
            let kind = ErrorKind::named(&error.kind).unwrap_or(ErrorKind::Internal);
            let told = Error::new(kind, error.message);
            let told = error.object.into_iter().fold(told, Error::on);
            Err(error.hint.into_iter().fold(told, Error::hint))
        }
        Err(_) => understood(answer),
    }
}

#[derive(Deserialize)]
struct Refusal {
    error: Told,
}

#[derive(Deserialize)]
struct Told {
    kind: String,
    message: String,
    object: Option<String>,
    hint: Option<String>,
}

async fn exchange(address: &str, method: Method, path: String) -> Result<Value> {
    let stream = TcpStream::connect(address).await.map_err(|error| {
        let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
        let kind = if refused {
            ErrorKind::NotFound
        } else {
            ErrorKind::Unavailable
        };
        Error::new(kind, format!("nobody answers: {error}"))
            .hint("is a watch with a control listener running there?")
    })?;
    let broken = |error: hyper::Error| Error::new(ErrorKind::Unavailable, error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let request = HttpRequest::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, address)
        .body(Empty::<Bytes>::new())
        .map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()))?;
    let talk = async {
        let answer = sender.send_request(request).await.map_err(broken)?;
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER);
        let body = body.collect().await;
        body.map_err(|error| Error::new(ErrorKind::Unavailable, error.to_string()))
    };
    tokio::pin!(connection);
    tokio::pin!(talk);
    let body = tokio::select! {
        biased;
        body = &mut talk => body?,
        ended = &mut connection => {
            ended.map_err(broken)?;
            // What arrived before the end is there to be read.
            talk.await?
        }
    };
    serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        let message = format!("the answer is no JSON: {error}");
        Error::new(ErrorKind::Unsupported, message).hint("is this a control listener?")
    })
}
