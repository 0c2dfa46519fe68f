//! Probes and metrics of the operator.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;
use walrust_core::serve::Listener;
use walrust_core::{ErrorKind, Result};

use crate::webhook::Served;

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
pub async fn serve(listener: Listener, board: Arc<Board>) {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(board);
    listener.serve(router, LONGEST).await;
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
/// Those of [`Listener::bind`].
pub async fn listen(port: u16) -> Result<Listener> {
    match Listener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        // A machine without IPv6.
        Err(error) if error.kind() != ErrorKind::Busy => {
            Listener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        bound => bound,
    }
}
