//! One database, its application's log, and one place for its backups: what most tests start from.

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use tempfile::TempDir;

use crate::bucket::Bucket;
use crate::oracle::Oracle;
use crate::record::Recorder;
use crate::support::scratch;
use crate::workload::{Spec, Workload, create};

/// A scratch folder with a database in `data/`, its commit log in `log/`, and a bucket.
pub struct Scene {
    folder: TempDir,
    name: String,
    /// Where backups go.
    pub bucket: Bucket,
}

impl Scene {
    /// A scene whose bucket is a folder, and whose database has this name.
    pub fn new(test: &str, name: &str) -> Self {
        let folder = scratch(test);
        fs::create_dir(folder.path().join("data")).unwrap();
        let store = folder.path().join("store");
        fs::create_dir(&store).unwrap();
        Self {
            folder,
            name: name.to_owned(),
            bucket: Bucket::Folder(store),
        }
    }

    /// The same with this bucket.
    pub fn on(test: &str, name: &str, bucket: Bucket) -> Self {
        Self {
            bucket,
            ..Self::new(test, name)
        }
    }

    /// The scratch folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The database's name in the bucket.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.path().join("data").join(&self.name)
    }

    /// The state directory that walrust keeps beside it.
    pub fn state(&self) -> PathBuf {
        self.path()
            .join("data")
            .join(format!(".{}-walrust", self.name))
    }

    /// A file beside the database: `-wal`, `-shm`.
    pub fn beside(&self, suffix: &str) -> PathBuf {
        self.path()
            .join("data")
            .join(format!("{}{suffix}", self.name))
    }

    /// The folder of the commit log.
    pub fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    /// The commits so far.
    pub fn oracle(&self) -> Oracle {
        Oracle::open(&self.log())
    }

    /// A calm application.
    pub fn spec(&self, seed: u64) -> Spec {
        Spec::new(&self.database(), &self.log(), seed)
    }

    /// An application of which everything is drawn from the seed.
    pub fn random(&self, seed: u64) -> Spec {
        Spec::random(&self.database(), &self.log(), seed)
    }

    /// An application in this process (which is not walrust's), for tests that go commit by commit.
    pub fn writer(&self, spec: Spec) -> Writer {
        let mut recorder = Recorder::open(&spec.log);
        let connection = create(&spec, &mut recorder).unwrap();
        Writer {
            connection,
            recorder,
            workload: Workload::new(spec),
        }
    }
}

/// A connection with its recorder.
pub struct Writer {
    /// The connection, for what is not to be recorded.
    pub connection: Connection,
    /// The log.
    pub recorder: Recorder,
    workload: Workload,
}

impl Writer {
    /// Commits one statement or batch that makes one commit; gives its number in the log.
    #[track_caller]
    pub fn commit(&mut self, sql: &str) -> u64 {
        self.recorder
            .commit(&mut self.connection, |connection| {
                connection.execute_batch(sql)
            })
            .unwrap();
        self.recorder.last().unwrap()
    }

    /// Commits one more row.
    #[track_caller]
    pub fn row(&mut self) -> u64 {
        self.commit("INSERT INTO items(k, v, b) VALUES (1, 'row', randomblob(300))")
    }

    /// Takes random steps.
    #[track_caller]
    pub fn steps(&mut self, count: u64) {
        for _ in 0..count {
            self.workload
                .step(&mut self.connection, &mut self.recorder)
                .unwrap();
        }
    }
}
