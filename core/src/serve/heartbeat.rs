//! The heartbeat: a monitor elsewhere is told that all is well, and raises the alarm when it is told no more.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::time::{sleep, timeout};

use super::board::{Board, View};
use super::health::unready;
use crate::config::HeartbeatUrl;
use crate::error::{Error, ErrorKind, Result};

/// After so much health in a row the monitor is told.
const INTERVAL: Duration = Duration::from_secs(60);
/// How often health is looked at in that time.
const LOOKS: u32 = 12;
/// How long the monitor may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is read of its answer.
const ANSWER_BYTES: usize = 64 * 1024;

/// A heartbeat that is about to beat.
pub struct Heartbeat {
    url: HeartbeatUrl,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    interval: Duration,
}

impl Heartbeat {
    /// Tells `url`. Errors: Unsupported where the system has no certificates to trust.
    pub fn new(url: HeartbeatUrl) -> Result<Self> {
        let connector = HttpsConnectorBuilder::new().with_native_roots();
        let connector = connector
            .map_err(|error| {
                Error::new(ErrorKind::Unsupported, "no certificates of the system")
                    .on(&url)
                    .because(error)
            })?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            url,
            client: Client::builder(TokioExecutor::new()).build(connector),
            interval: INTERVAL,
        })
    }

    /// Beats for ever, as long as what `board` shows is healthy. A monitor that does not answer is told of in the
    /// log, once until it does.
    pub(super) async fn beat(self, board: Arc<Board>) {
        let mut answers = true;
        loop {
            let mut healthy = true;
            for _ in 0..LOOKS {
                sleep(self.interval / LOOKS).await;
                healthy &= is_healthy(&board.look());
            }
            if !healthy {
                tracing::debug!(url = %self.url, "no heartbeat: not everything was healthy");
                continue;
            }
            let told = self.tell().await;
            if let Err(error) = &told
                && answers
            {
                tracing::warn!("the heartbeat was not heard: {error}");
            }
            answers = told.is_ok();
        }
    }

    async fn tell(&self) -> Result<()> {
        let failed = |message: String| Error::new(ErrorKind::Unavailable, message).on(&self.url);
        let request = Request::get(self.url.uri())
            .header("user-agent", concat!("walrust/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(|error| failed(error.to_string()))?;
        let exchange = async {
            // The error may name the whole address.
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| match error.is_connect() {
                true => failed("cannot be connected to".to_owned()),
                false => failed("does not answer".to_owned()),
            })?;
            let status = answer.status();
            // Read to its end, so that the connection serves the next one.
            let _ = Limited::new(answer.into_body(), ANSWER_BYTES)
                .collect()
                .await;
            match status.is_client_error() || status.is_server_error() {
                true => Err(failed(format!("answers {}", status.as_u16()))),
                false => Ok(()),
            }
        };
        let late = |_| Err(failed("does not answer".to_owned()));
        timeout(PATIENCE, exchange).await.unwrap_or_else(late)
    }
}

/// Whether everything is ready and nothing fails.
fn is_healthy(view: &View) -> bool {
    let fails = view
        .databases
        .iter()
        .any(|seen| seen.status.error.is_some());
    let lags = view.replicas.iter().any(|replica| replica.error.is_some());
    view.facts.config_error.is_none() && !fails && !lags && unready(view).is_empty()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::serve::tests::{empty_board, failing_board};

    async fn monitor() -> (TcpListener, HeartbeatUrl) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = HeartbeatUrl::new(&format!("http://{address}/ping/token")).unwrap();
        (listener, url)
    }

    async fn answer(listener: &TcpListener, status: &str) -> String {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 1024];
        let length = stream.read(&mut head).await.unwrap();
        let answer =
            format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    }

    fn quick(url: HeartbeatUrl) -> Heartbeat {
        Heartbeat {
            interval: Duration::from_millis(50),
            ..Heartbeat::new(url).unwrap()
        }
    }

    #[tokio::test]
    async fn a_healthy_process_tells_its_monitor_again_and_again() {
        let (listener, url) = monitor().await;
        let beating = tokio::spawn(quick(url).beat(empty_board()));
        for _ in 0..3 {
            // An answer that is an error stops nothing.
            let head = answer(&listener, "500 No").await;
            assert!(head.starts_with("GET /ping/token HTTP/1.1\r\n"), "{head}");
        }
        beating.abort();
    }

    #[tokio::test]
    async fn what_fails_tells_nothing() {
        let (listener, url) = monitor().await;
        let beating = tokio::spawn(quick(url).beat(failing_board()));
        let heard = timeout(Duration::from_millis(500), listener.accept()).await;
        assert!(
            heard.is_err(),
            "a heartbeat though a pattern matches no file"
        );
        beating.abort();
    }

    #[tokio::test]
    async fn an_error_does_not_show_the_token() {
        let (listener, url) = monitor().await;
        let heartbeat = quick(url);
        let (told, _) = tokio::join!(heartbeat.tell(), answer(&listener, "404 Not Found"));
        let error = told.unwrap_err().to_string();
        assert!(
            error.contains("answers 404") && !error.contains("token"),
            "{error}"
        );
        drop(listener);
        let error = heartbeat.tell().await.unwrap_err().to_string();
        assert!(
            error.contains("cannot be connected to") && !error.contains("token"),
            "{error}"
        );
    }
}
