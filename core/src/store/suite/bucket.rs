//! Stores to run the suite against.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::store::{Credentials, FileStore, S3Store, Store, StoreConfig};

/// A store, and what must live as long as it.
pub(crate) struct Bucket {
    pub(crate) store: Arc<dyn Store>,
    /// The directory behind it, where there is one here.
    pub(crate) folder: TempDir,
    pub(crate) config: Option<StoreConfig>,
}

/// A directory as a store.
pub(crate) fn directory() -> Bucket {
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(&folder.path().join("root")).unwrap();
    Bucket {
        store: Arc::new(store),
        folder,
        config: None,
    }
}

fn credentials(folder: &TempDir, key: &str, secret: &str) -> Credentials {
    let path = folder.path().join(format!("credentials-{key}"));
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("AWS_ACCESS_KEY_ID"), key).unwrap();
    std::fs::write(path.join("AWS_SECRET_ACCESS_KEY"), secret).unwrap();
    Credentials::Directory(path)
}

/// A bucket that an S3 server in this process keeps.
pub(crate) async fn in_process() -> Bucket {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("s3");
    std::fs::create_dir_all(root.join("bucket")).unwrap();
    let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(&root).unwrap());
    service.set_auth(SimpleAuth::from_single("key", "secret"));
    let address = serve(service.build()).await;
    let mut config = StoreConfig::new("s3://bucket".parse().unwrap());
    config.endpoint = Some(format!("http://{address}"));
    config.region = Some("us-east-1".to_owned());
    config.credentials = credentials(&folder, "key", "secret");
    let store = S3Store::connect(&config).await.unwrap();
    Bucket {
        store: Arc::new(store),
        folder,
        config: Some(config),
    }
}

async fn serve(service: s3s::service::S3Service) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // This server looks first and writes then; one request at a time makes its conditions hold.
    let turn = Arc::new(Mutex::new(()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (service, turn) = (service.clone(), Arc::clone(&turn));
            let answer = service_fn(move |request| {
                let (service, turn) = (service.clone(), Arc::clone(&turn));
                async move {
                    let _turn = turn.lock().await;
                    hyper::service::Service::call(&service, request).await
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(connection);
        }
    });
    address
}

/// A fresh bucket of a SeaweedFS that lives as long as this process. `WEED_BIN` names the program.
pub(crate) async fn weed() -> Bucket {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let folder = tempfile::tempdir().unwrap();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("test-{}-{number}", std::process::id());
    let mut config = StoreConfig::new(name.parse().unwrap());
    config.endpoint = Some(weed_endpoint().to_owned());
    config.credentials = credentials(&folder, "key", "secret");
    let store = S3Store::connect(&config).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !store.create_bucket().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "SeaweedFS did not start"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Bucket {
        store: Arc::new(store),
        folder,
        config: Some(config),
    }
}

/// A port that is free, as is the one 10,000 above, where the program speaks gRPC.
fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(20_000..30_000);
        let free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

fn weed_endpoint() -> &'static str {
    static WEED: OnceLock<(TempDir, Child, String)> = OnceLock::new();
    let (_, _, endpoint) = WEED.get_or_init(|| {
        let weed = std::env::var("WEED_BIN").expect("WEED_BIN names a weed");
        let folder = tempfile::tempdir().unwrap();
        let identities = folder.path().join("s3.json");
        std::fs::write(&identities, IDENTITIES).unwrap();
        let port = free_port();
        // Our end of the pipe closes when this process ends, however it ends.
        let script = r#""$0" "$@" >/dev/null 2>&1 & weed=$!; cat >/dev/null; kill -9 $weed"#;
        let child = Command::new("sh")
            .args(["-c", script, &weed, "server", "-ip=127.0.0.1", "-s3"])
            .arg(format!("-dir={}", folder.path().display()))
            .arg(format!("-s3.port={port}"))
            .arg(format!("-s3.config={}", identities.display()))
            .arg(format!("-master.port={}", free_port()))
            .arg(format!("-volume.port={}", free_port()))
            .arg(format!("-filer.port={}", free_port()))
            .args([
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-master.volumeSizeLimitMB=64",
                "-volume.max=100",
            ])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        (folder, child, format!("http://127.0.0.1:{port}"))
    });
    endpoint
}

const IDENTITIES: &str = r#"{"identities": [{"name": "test", "actions": ["Admin", "Read", "Write", "List"],
    "credentials": [{"accessKey": "key", "secretKey": "secret"}]}]}"#;

impl Bucket {
    /// The same bucket with other credentials.
    pub(crate) async fn with_credentials(&self, key: &str, secret: &str) -> S3Store {
        let mut config = self.config.clone().unwrap();
        config.credentials = credentials(&self.folder, key, secret);
        S3Store::connect(&config).await.unwrap()
    }
}
