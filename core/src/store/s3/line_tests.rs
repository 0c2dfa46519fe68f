//! What requests look like on the wire, for each provider: a proxy that writes them down.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::store::{Credentials, PathStyle, StoreConfig};

/// A proxy that answers 403 to everything, and the heads of the requests that came.
async fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            let mut piece = [0; 4096];
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read(&mut piece).await {
                    Ok(read) if read > 0 => head.extend_from_slice(&piece[..read]),
                    _ => break,
                }
            }
            let text = String::from_utf8_lossy(&head).into_owned();
            seen.lock().unwrap().push(text);
            let answer =
                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(answer).await;
        }
    });
    (format!("http://{address}"), heads)
}

/// The head of a conditional PUT to `endpoint`.
async fn head(endpoint: &str, region: Option<&str>, path_style: PathStyle) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("AWS_ACCESS_KEY_ID"), "key").unwrap();
    std::fs::write(folder.path().join("AWS_SECRET_ACCESS_KEY"), "secret").unwrap();
    let (proxy, heads) = proxy().await;
    let mut config = StoreConfig::new("s3://mine".parse().unwrap());
    // Over TLS a proxy would see nothing.
    config.endpoint = Some(endpoint.replace("https://", "http://"));
    config.region = region.map(str::to_owned);
    config.path_style = path_style;
    config.credentials = Credentials::Directory(folder.path().to_owned());
    config.proxy = Some(proxy);
    let store = S3Store::connect(&config).await.unwrap();
    let put = store.put("a/x", "1".into(), Put::over(ETag::new("abc123")));
    put.await.unwrap_err();
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 1, "no other host is asked: {heads:?}");
    heads[0].to_lowercase()
}

#[tokio::test]
async fn each_provider_is_spoken_to_in_its_own_way() {
    let quoted = "\"abc123\"";
    for (endpoint, url, region, version) in [
        (
            "https://fly.storage.tigris.dev",
            "http://mine.fly.storage.tigris.dev/a/x",
            "auto",
            quoted,
        ),
        (
            "https://0123.r2.cloudflarestorage.com",
            "http://0123.r2.cloudflarestorage.com/mine/a/x",
            "auto",
            quoted,
        ),
        (
            "https://s3.us-west-004.backblazeb2.com",
            "http://s3.us-west-004.backblazeb2.com/mine/a/x",
            "us-west-004",
            quoted,
        ),
        (
            "https://nyc3.digitaloceanspaces.com",
            "http://nyc3.digitaloceanspaces.com/mine/a/x",
            "us-east-1",
            "abc123",
        ),
        (
            "https://s3.example.org",
            "http://s3.example.org/mine/a/x",
            "us-east-1",
            quoted,
        ),
    ] {
        let head = head(endpoint, None, PathStyle::Auto).await;
        let first = head.lines().next().unwrap();
        assert!(first.starts_with(&format!("put {url}")), "{first}");
        assert!(
            head.contains(&format!("/{region}/s3/aws4_request")),
            "{head}"
        );
        assert!(head.contains(&format!("if-match: {version}\r\n")), "{head}");
    }
}

#[tokio::test]
async fn what_is_configured_wins_over_the_table() {
    let tigris = "https://fly.storage.tigris.dev";
    let head = head(tigris, Some("eu-west-1"), PathStyle::Always).await;
    assert!(
        head.starts_with("put http://fly.storage.tigris.dev/mine/a/x"),
        "{head}"
    );
    assert!(head.contains("/eu-west-1/s3/aws4_request"), "{head}");
}
