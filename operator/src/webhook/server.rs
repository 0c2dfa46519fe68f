//! The HTTPS server: bounded in connections, sizes and time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Hook, Metrics, Outcome, Served};

/// API servers keep connections and open more under load; each costs some 30 KiB.
const CONNECTIONS: usize = 256;
/// A pod has at most 1.5 MiB in etcd; the review holds it once.
const BODY_BYTES: usize = 4 << 20;
/// The API server gives up after five seconds, as it is configured.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The API server closes what is idle after 90 seconds: it shall be the first to.
const IDLE: Duration = Duration::from_secs(120);
/// An answer to a body that came slowly helps nobody.
const ANSWER: Duration = Duration::from_secs(10);
/// How long answers that are under way may take once we are asked to stop.
const DRAIN: Duration = Duration::from_secs(5);

struct Shared {
    hook: Hook,
    metrics: Arc<Metrics>,
}

/// What answers, for tests without a socket.
pub fn router(hook: Hook, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/mutate", post(mutate))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(Arc::new(Shared { hook, metrics }))
}

async fn mutate(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    let began = Instant::now();
    let reviewed = shared.hook.review(&body).await;
    let (response, outcome) = match reviewed {
        Ok((answer, outcome)) => match serde_json::to_vec(&answer) {
            Ok(body) => (
                ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
                outcome,
            ),
            Err(_) => (
                StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                Outcome::Error,
            ),
        },
        Err(error) => {
            warn!(%error, "a request is no review");
            (
                (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
                Outcome::Error,
            )
        }
    };
    shared.metrics.answered(outcome, began.elapsed());
    response
}

/// Answers by `router` over TLS until `stop`; then what is under way is finished.
///
/// # Errors
/// Only where TLS cannot be set up.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    served: Arc<Served>,
    stop: CancellationToken,
) -> Result<(), rustls::Error> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(served)?));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            (Ok(place), Ok((stream, _))) => {
                let talk = converse(stream, acceptor.clone(), router.clone(), stop.clone());
                connections.spawn(async move {
                    talk.await;
                    drop(place);
                });
            }
            (Err(_), _) => break,
            (Ok(_), Err(error)) => {
                warn!(%error, "no connection was accepted");
                // Out of descriptors, say: that does not pass at once.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        warn!("answers that were under way are given up");
    }
    Ok(())
}

fn tls(served: Arc<Served>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(served);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The requests of one connection. `stop` ends it behind the one that is under way.
async fn converse(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
    stop: CancellationToken,
) {
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "no TLS"),
        Err(_) => return debug!("a handshake took too long"),
    };
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move { Ok::<Response, Infallible>(respond(router, request.map(Body::new)).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}

async fn respond(router: Router, request: Request) -> Response {
    use tower_service::Service as _;
    let mut router = router;
    match tokio::time::timeout(ANSWER, router.call(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}
