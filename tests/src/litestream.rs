//! Litestream's own binary, for both directions of compatibility.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::bucket::{ACCESS_KEY, Bucket, SECRET_KEY};
use crate::process::{Output, Process};
use crate::support::{PATIENCE, installed};

fn command(bucket: &Bucket) -> Command {
    let mut command = Command::new(installed("LITESTREAM_BIN", "litestream"));
    bucket.environment(&mut command);
    // It refuses to start with a bundle that it cannot read.
    command
        .env_remove("AWS_CA_BUNDLE")
        .env("LITESTREAM_ACCESS_KEY_ID", ACCESS_KEY);
    command.env("LITESTREAM_SECRET_ACCESS_KEY", SECRET_KEY);
    command
}

/// A configuration for one database below `path` of the bucket.
fn configuration(
    folder: &Path,
    database: &Path,
    bucket: &Bucket,
    path: &str,
) -> std::path::PathBuf {
    let replica = match bucket {
        Bucket::Folder(root) => format!(
            "      type: file\n      path: {}\n",
            root.join(path).display()
        ),
        Bucket::S3 {
            endpoint,
            path: bucket,
            ..
        } => {
            let (bucket, prefix) = bucket.split_once('/').unwrap_or((bucket, ""));
            let path = if prefix.is_empty() {
                path.to_owned()
            } else {
                format!("{prefix}/{path}")
            };
            format!(
                "      type: s3\n      bucket: {bucket}\n      path: {path}\n      endpoint: {endpoint}\n\
                 \x20     region: us-east-1\n      force-path-style: true\n      sync-interval: 100ms\n"
            )
        }
    };
    let text = format!(
        "dbs:\n  - path: {}\n    monitor-interval: 100ms\n    replica:\n{replica}",
        database.display()
    );
    let file = folder.join("litestream.yml");
    fs::write(&file, text).unwrap();
    file
}

/// Starts replicating `database` to `path` of the bucket.
pub fn replicate(folder: &Path, database: &Path, bucket: &Bucket, path: &str) -> Process {
    let mut command = command(bucket);
    command
        .arg("replicate")
        .arg("-config")
        .arg(configuration(folder, database, bucket, path));
    Process::spawn(&mut command)
}

/// Restores `path` of the bucket to `output` with Litestream.
pub fn restore(folder: &Path, bucket: &Bucket, path: &str, output: &Path) -> Output {
    let database = folder.join("the-original.db");
    let mut command = command(bucket);
    command
        .arg("restore")
        .arg("-config")
        .arg(configuration(folder, &database, bucket, path));
    command.arg("-o").arg(output).arg(&database);
    Process::run(&mut command, PATIENCE.max(Duration::from_secs(60)))
}
