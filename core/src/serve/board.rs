//! What is known of a process and its databases, for whoever asks.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::engine::{Counters, DatabaseStatus, WatchHandle};
use crate::error::{Error, ErrorKind, Result};
use crate::replica::ReplicaStatus;
use crate::store::{Counts, Meter};
use crate::types::{DatabaseName, Timestamp};

/// What a process does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// It watches databases.
    Watch,
    /// It keeps replicas.
    Replicate,
}

impl Mode {
    /// The mode in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Replicate => "replicate",
        }
    }
}

/// What holds for a process as a whole.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its version.
    pub version: &'static str,
    /// The pod that it runs in.
    pub pod: Option<String>,
    /// What it does.
    pub mode: Mode,
    /// Which configuration file it uses.
    pub config_hash: Option<String>,
    /// Why a newer one is not in use.
    pub config_error: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// Databases that are left alone on purpose: name and file.
    pub paused: Vec<(DatabaseName, PathBuf)>,
    /// Patterns that match no file, though one is required.
    pub missing: Vec<PathBuf>,
    /// A database whose oldest commit waits for longer is not ready.
    pub ready_lag: Option<Duration>,
    /// Whether the application is held until every lease was ours once.
    pub gated: bool,
}

impl Facts {
    /// A process of this version that began at `started`, with nothing else to say.
    pub fn new(mode: Mode, config_hash: Option<String>, started: Timestamp) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            pod: None,
            mode,
            config_hash,
            config_error: None,
            started,
            paused: Vec::new(),
            missing: Vec::new(),
            ready_lag: None,
            gated: false,
        }
    }
}

/// One database as it is now.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What is known of it; `wal_bytes` is the length of its file.
    pub status: DatabaseStatus,
    /// What happened to it.
    pub counters: Arc<Counters>,
}

/// Everything at one moment. What is served is a pure function of this.
#[derive(Clone, Debug)]
pub struct View {
    /// The moment.
    pub now: Timestamp,
    /// The process.
    pub facts: Facts,
    /// Requests to the store.
    pub counts: Counts,
    /// Configurations that were taken, and that were refused, since the start.
    pub reloads: [u64; 2],
    /// The watched databases, as they were named.
    pub databases: Vec<Seen>,
    /// The replicas, as they were named.
    pub replicas: Vec<ReplicaStatus>,
}

/// What a process keeps, to be looked at at any time.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Databases.
    Watch(WatchHandle),
    /// Replicas of databases.
    Replicas(Vec<watch::Receiver<ReplicaStatus>>),
}

/// Where all of it is looked up.
#[derive(Debug)]
pub struct Board {
    facts: RwLock<Facts>,
    subject: RwLock<Subject>,
    meter: Meter,
    reloads: [AtomicU64; 2],
    clock: Clock,
}

impl Board {
    /// The board of `subject`, whose store counts into `meter`.
    pub fn new(facts: Facts, subject: Subject, meter: Meter, clock: Clock) -> Self {
        Self {
            facts: RwLock::new(facts),
            subject: RwLock::new(subject),
            meter,
            reloads: Default::default(),
            clock,
        }
    }

    /// Another configuration was read: its hash, or why it is not in use.
    pub fn reloaded(&self, outcome: std::result::Result<String, String>) {
        let [taken, refused] = &self.reloads;
        let counter = if outcome.is_ok() { taken } else { refused };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut facts = self.facts.write().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(hash) => {
                facts.config_hash = Some(hash);
                facts.config_error = None;
            }
            Err(error) => facts.config_error = Some(error),
        }
    }

    /// A scan found the databases that are left alone, and the patterns that match no file.
    pub fn scanned(&self, paused: Vec<(DatabaseName, PathBuf)>, missing: Vec<PathBuf>) {
        let mut facts = self.facts.write().unwrap_or_else(PoisonError::into_inner);
        facts.paused = paused;
        facts.missing = missing;
    }

    /// Something else is kept from now on.
    pub fn turn_to(&self, subject: Subject) {
        *self.subject.write().unwrap_or_else(PoisonError::into_inner) = subject;
    }

    /// The application is held no longer, whatever becomes of the leases.
    pub fn open_gate(&self) {
        let mut facts = self.facts.write().unwrap_or_else(PoisonError::into_inner);
        facts.gated = false;
    }

    fn subject(&self) -> Subject {
        let subject = self.subject.read().unwrap_or_else(PoisonError::into_inner);
        subject.clone()
    }

    /// For steering. Errors: Unsupported where nothing is watched.
    pub(super) fn watch(&self) -> Result<WatchHandle> {
        match self.subject() {
            Subject::Watch(watch) => Ok(watch),
            Subject::Replicas(_) => Err(Error::new(
                ErrorKind::Unsupported,
                "a replica is not watched: nobody writes it",
            )),
        }
    }

    fn watched(&self) -> Vec<(DatabaseStatus, Arc<Counters>)> {
        self.watch()
            .map(|watch| watch.watched())
            .unwrap_or_default()
    }

    /// The names of the watched databases.
    pub(super) fn names(&self) -> Vec<DatabaseName> {
        let watched = self.watched().into_iter();
        watched.map(|(status, _)| status.name).collect()
    }

    /// What is known of one database.
    pub(super) fn status(&self, name: &DatabaseName) -> Option<DatabaseStatus> {
        let watched = self.watched().into_iter();
        let mut statuses = watched.map(|(status, _)| status);
        statuses.find(|status| status.name == *name)
    }

    /// How things are now. Looks at the length of each WAL; no file is opened.
    pub fn look(&self) -> View {
        let seen = self.watched().into_iter().map(|(mut status, counters)| {
            if let Some(length) = wal_length(&status.path) {
                status.wal_bytes = length;
            }
            Seen { status, counters }
        });
        View {
            now: self.clock.now(),
            facts: self.facts(),
            counts: self.meter.snapshot(),
            reloads: self.reloads.each_ref().map(|n| n.load(Ordering::Relaxed)),
            databases: seen.collect(),
            replicas: match self.subject() {
                Subject::Watch(_) => Vec::new(),
                Subject::Replicas(all) => all.iter().map(|one| one.borrow().clone()).collect(),
            },
        }
    }

    /// The databases whose tasks died of a defect, which only a new process mends.
    pub fn dead(&self) -> Vec<DatabaseName> {
        let all = self.watched().into_iter();
        all.filter(|(_, counters)| counters.died())
            .map(|(status, _)| status.name)
            .collect()
    }

    fn facts(&self) -> Facts {
        let facts = self.facts.read().unwrap_or_else(PoisonError::into_inner);
        facts.clone()
    }
}

/// The length of the WAL of the database at `path`, 0 without one; nothing where the database is not there.
fn wal_length(path: &Path) -> Option<u64> {
    let mut wal = path.canonicalize().ok()?.into_os_string();
    wal.push("-wal");
    Some(std::fs::metadata(wal).map_or(0, |meta| meta.len()))
}
