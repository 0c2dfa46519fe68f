//! SeaweedFS on loopback: a real S3 server that honours conditional writes.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::bucket::{ACCESS_KEY, Bucket, SECRET_KEY};
use crate::process::{Process, Signal};
use crate::support::{
    free_ports, installed, plain_bytes, plain_request, plain_upload, scratch, until,
};

/// A running server.
pub struct Weed {
    endpoint: String,
    filer: String,
    process: Process,
    _folder: TempDir,
}

impl Weed {
    /// Starts a server of its own, on ports that the system picks, in a scratch folder.
    pub fn start() -> Self {
        let folder = scratch("weed");
        let ports = free_ports(8);
        let endpoint = format!("http://127.0.0.1:{}", ports[0]);
        let filer = format!("http://127.0.0.1:{}", ports[6]);
        let mut command = command(folder.path(), &ports);
        let mut process = Process::spawn(&mut command).quiet();
        until("SeaweedFS answers", Duration::from_secs(90), || {
            assert!(
                process.poll().is_none(),
                "SeaweedFS ended: {}",
                process.printed()
            );
            let answer = plain_request(&endpoint, "GET", "/healthz")?;
            answer.starts_with("HTTP/1.1 200").then_some(())
        });
        Self {
            endpoint,
            filer,
            process,
            _folder: folder,
        }
    }

    /// A new, empty bucket.
    pub fn bucket(&self, name: &str) -> Bucket {
        // A bucket is a folder of the filer, which may come up a little after the S3 side.
        until("the bucket is made", Duration::from_secs(60), || {
            let answer = plain_request(&self.filer, "POST", &format!("/buckets/{name}/"))?;
            answer.starts_with("HTTP/1.1 2").then_some(())
        });
        Bucket::S3 {
            endpoint: self.endpoint.clone(),
            path: name.to_owned(),
            root: None,
        }
    }

    /// A bucket without anything in it, whatever was there.
    pub fn fresh_bucket(&self, name: &str) -> Bucket {
        let path = format!("/buckets/{name}/?recursive=true&ignoreRecursiveError=true");
        plain_request(&self.filer, "DELETE", &path).expect("an answer");
        self.bucket(name)
    }

    /// Puts an object there as somebody else than the program would: past S3, over what may be there.
    pub fn put(&self, bucket: &str, key: &str, bytes: &[u8]) {
        let path = format!("/buckets/{bucket}/{key}");
        let answer = plain_upload(&self.filer, "PUT", &path, bytes).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 2"), "{key}: {answer}");
    }

    /// Puts every object of a folder there.
    pub fn fill(&self, bucket: &str, from: &Bucket) {
        for key in from.keys() {
            self.put(bucket, &key, &fs::read(from.file(&key)).unwrap());
        }
    }

    /// What is there.
    pub fn get(&self, bucket: &str, key: &str) -> Vec<u8> {
        let path = format!("/buckets/{bucket}/{key}");
        let answer = plain_bytes(&self.filer, "GET", &path, &[]).expect("an answer");
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = answer.split_at(head.expect("a head") + 4);
        assert!(head.starts_with(b"HTTP/1.1 200"), "{key}");
        body.to_vec()
    }

    /// Removes an object, as [`Weed::put`] puts one.
    pub fn remove(&self, bucket: &str, key: &str) {
        let path = format!("/buckets/{bucket}/{key}");
        let answer = plain_request(&self.filer, "DELETE", &path).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 2"), "{key}: {answer}");
    }

    /// Nobody is answered until [`Weed::resume`].
    pub fn hang(&mut self) {
        self.process.signal(Signal::STOP);
    }

    /// After [`Weed::hang`].
    pub fn resume(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

fn command(folder: &Path, ports: &[u16]) -> Command {
    let configuration = folder.join("s3.json");
    let identity = serde_json::json!({"identities": [{
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }]});
    fs::write(&configuration, identity.to_string()).unwrap();
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    let mut command = Command::new(installed("WEED_BIN", "weed"));
    command
        .current_dir(folder)
        .arg(format!("-logdir={}", folder.display()))
        .arg("server");
    command.args([
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=1024",
        "-master.electionTimeout=1s",
        "-volume.max=0",
        "-filer",
        "-s3",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]);
    command.arg(format!("-dir={}", data.display()));
    command.arg(format!("-s3.config={}", configuration.display()));
    for (name, pair) in ["s3", "master", "volume", "filer"]
        .iter()
        .zip(ports.chunks_exact(2))
    {
        command.arg(format!("-{name}.port={}", pair[0]));
        command.arg(format!("-{name}.port.grpc={}", pair[1]));
    }
    for name in [
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command
}
