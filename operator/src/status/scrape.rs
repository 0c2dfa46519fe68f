//! What sidecars say of themselves: `GET /status` of each pod, within bounds.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use walrust_core::serve::StatusReport;

/// For one pod, from the first packet to the last byte.
const LIMIT: Duration = Duration::from_secs(3);
/// A thousand databases need some 400 KiB.
const LARGEST: usize = 1 << 20;

/// Why a sidecar's status is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("{0}")]
    Unreachable(String),
    /// What answers is not one of ours.
    #[error("{0}")]
    Invalid(String),
}

/// Asks the sidecar at `ip` and `port`. No redirect is followed and no proxy used.
///
/// # Errors
/// [`Error::Unreachable`] after three seconds at the latest.
pub async fn status(ip: IpAddr, port: u16) -> Result<StatusReport, Error> {
    let address = SocketAddr::new(ip, port);
    match tokio::time::timeout(LIMIT, ask(address)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::Unreachable(format!(
            "{address} does not answer within 3s"
        ))),
    }
}

async fn ask(address: SocketAddr) -> Result<StatusReport, Error> {
    let unreachable =
        |error: &dyn std::fmt::Display| Error::Unreachable(format!("{address}: {error}"));
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| unreachable(&error))?;
    let handshake = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| unreachable(&error))?;
    let request = Request::get("/status")
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| unreachable(&error))?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| unreachable(&error))?;
        let code = response.status();
        if !code.is_success() {
            return Err(Error::Invalid(format!("{address} answers {code}")));
        }
        let body = Limited::new(response.into_body(), LARGEST).collect().await;
        let body = body.map_err(|error| Error::Invalid(format!("{address}: {error}")))?;
        serde_json::from_slice(&body.to_bytes())
            .map_err(|error| Error::Invalid(format!("{address}: no status: {error}")))
    };
    // The connection is driven here and ends with this function: nothing is left behind a slow pod.
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => Err(unreachable(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A server of one connection that says `answer` and, if told, nothing more for ever.
    async fn served(answer: Vec<u8>) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&answer).await;
            if answer.is_empty() {
                std::future::pending::<()>().await;
            }
        });
        port
    }

    async fn ask_for(answer: &str) -> Result<StatusReport, Error> {
        let port = served(answer.as_bytes().to_vec()).await;
        status(Ipv4Addr::LOCALHOST.into(), port).await
    }

    #[tokio::test]
    async fn a_status_is_read() {
        let body = r#"{"v":1,"version":"0.1.0","pod":null,"mode":"watch","config_hash":"5f0c2f6d9a31","config_error":null,
            "started":"2026-11-24T10:00:00Z","paused":false,"databases":[],"later":1}"#;
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let report = ask_for(&answer).await.unwrap();
        assert_eq!(report.config_hash.as_deref(), Some("5f0c2f6d9a31"));
    }

    #[tokio::test]
    async fn what_is_no_status_is_refused() {
        for answer in [
            "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        ] {
            let error = ask_for(answer).await.unwrap_err();
            assert!(matches!(error, Error::Invalid(_)), "{error}");
        }
        let long = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(2 << 20));
        assert!(matches!(ask_for(&long).await, Err(Error::Invalid(_))));
        assert!(matches!(
            ask_for("SSH-2.0\r\n").await,
            Err(Error::Unreachable(_))
        ));
    }

    #[tokio::test]
    async fn silence_ends_after_three_seconds() {
        let port = served(Vec::new()).await;
        let start = std::time::Instant::now();
        let error = status(Ipv4Addr::LOCALHOST.into(), port).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)), "{error}");
        assert!(start.elapsed() < LIMIT * 2);
    }
}
