//! Probes and metrics of the operator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::warn;

use crate::webhook::Served;

/// Connections served at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// How long one may last: a scrape of a thousand backups takes a fraction of a second.
const LONGEST: Duration = Duration::from_secs(30);

/// What is served.
#[derive(Default)]
pub struct Board {
    /// All metrics.
    pub registry: Registry,
    /// Whether the cluster knows our kinds.
    pub began: AtomicBool,
    /// What admission is answered with, where this operator does that.
    pub admission: Option<Arc<Served>>,
}

/// Serves `board` at `listener`, for ever.
pub async fn serve(listener: TcpListener, board: Arc<Board>) {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(board);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let mut server = http1::Builder::new();
            server
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(5));
            // What a client does wrong is its own affair.
            let _ = tokio::time::timeout(
                LONGEST,
                server.serve_connection(TokioIo::new(stream), service),
            )
            .await;
            drop(place);
        });
    }
}

async fn ready(State(board): State<Arc<Board>>) -> Response {
    let admission = board.admission.as_ref();
    let answers = admission.is_none_or(|served| served.is_ready());
    match board.began.load(Ordering::SeqCst) && answers {
        true => "ok\n".into_response(),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready to answer admission\n",
        )
            .into_response(),
    }
}

async fn metrics(State(board): State<Arc<Board>>) -> Response {
    let mut page = String::new();
    match prometheus_text::encode(&mut page, &board.registry) {
        Ok(()) => (
            [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )],
            page,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Listens on all addresses, of both families where there are two.
///
/// # Errors
/// Says which port somebody else has.
pub async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from(([0_u16; 8], port))).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).await,
    }
}
