//! Where backups go: a folder, or a bucket of a server on loopback.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Access key that our servers accept.
pub const ACCESS_KEY: &str = "testkey";
/// Secret key that our servers accept.
pub const SECRET_KEY: &str = "testsecret";

/// A place for backups, as the program is told of it.
#[derive(Clone, Debug)]
pub enum Bucket {
    /// `file://` and the folder.
    Folder(PathBuf),
    /// A bucket, with prefix, behind an endpoint.
    S3 {
        /// `http://127.0.0.1:PORT`.
        endpoint: String,
        /// `bucket` or `bucket/prefix`.
        path: String,
        /// Where the server keeps the bucket's objects as files, if it does.
        root: Option<PathBuf>,
    },
}

impl Bucket {
    /// What `--bucket` takes.
    pub fn url(&self) -> String {
        match self {
            Self::Folder(folder) => format!("file://{}", folder.display()),
            Self::S3 { path, .. } => format!("s3://{path}"),
        }
    }

    /// Gives `command` the bucket flag and the environment that reaches it.
    pub fn apply(&self, command: &mut Command) {
        command.arg("--bucket").arg(self.url());
        self.environment(command);
    }

    /// Gives `command` the endpoint and keys, and nothing else of the caller's environment that speaks to AWS.
    pub fn environment(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let foreign = ["AWS_", "RUST_LOG", "WALRUST_", "LITESTREAM"];
            if foreign.iter().any(|prefix| text.starts_with(prefix))
                || text.to_lowercase().ends_with("_proxy")
            {
                command.env_remove(name);
            }
        }
        command
            .env("NO_COLOR", "1")
            .env("AWS_EC2_METADATA_DISABLED", "true");
        if let Self::S3 { endpoint, .. } = self {
            command
                .env("AWS_ENDPOINT_URL_S3", endpoint)
                .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
                .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
                .env("AWS_REGION", "us-east-1");
        }
    }

    /// The same store under another prefix.
    pub fn below(&self, prefix: &str) -> Self {
        match self {
            Self::Folder(folder) => Self::Folder(folder.join(prefix)),
            Self::S3 {
                endpoint,
                path,
                root,
            } => Self::S3 {
                endpoint: endpoint.clone(),
                path: format!("{path}/{prefix}"),
                root: root.as_ref().map(|root| root.join(prefix)),
            },
        }
    }

    /// The folder in which the objects lie as plain files.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::S3 { root, .. } => root.as_deref().expect("this server keeps no plain files"),
        }
    }

    /// Every object below this bucket's prefix, by key relative to it, sorted. Only where objects lie as files.
    pub fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut folders = vec![self.folder().to_owned()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else {
                continue;
            };
            for entry in entries {
                let path = entry.unwrap().path();
                if path.ends_with(".walrust-tmp") {
                    // A folder's own housekeeping: its lock, and files that are not whole yet.
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let key = path
                        .strip_prefix(self.folder())
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned();
                    // Temporary files of a store that lets only whole objects be seen.
                    if !key.rsplit('/').next().unwrap_or_default().starts_with('.') {
                        keys.push(key);
                    }
                }
            }
        }
        keys.sort();
        keys
    }

    /// The keys of LTX files.
    pub fn ltx_keys(&self) -> Vec<String> {
        let mut keys = self.keys();
        keys.retain(|key| key.ends_with(".ltx"));
        keys
    }

    /// The file behind `key`.
    pub fn file(&self, key: &str) -> PathBuf {
        self.folder().join(key)
    }

    /// Bytes of all objects together.
    pub fn total_bytes(&self) -> u64 {
        self.keys()
            .iter()
            .map(|key| fs::metadata(self.file(key)).map_or(0, |meta| meta.len()))
            .sum()
    }

    /// A copy of the whole store in `folder`, as another folder bucket.
    pub fn copy_to(&self, folder: &Path) -> Self {
        for key in self.keys() {
            let target = folder.join(&key);
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            // An object may be replaced or deleted while we copy; what is gone is gone.
            let _ = fs::copy(self.file(&key), target);
        }
        fs::create_dir_all(folder).unwrap();
        Self::Folder(folder.to_owned())
    }
}
