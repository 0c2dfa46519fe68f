//! Watching many databases in one process: start them, route wakes, stop them together, and say which
//! of them did not end well (R63, R65, R67a).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::anchor::Permission;
use super::budget::Budget;
use super::checkpoint::Barrier;
use super::control::Asked;
use super::counters::{Counters, Vital};
use super::event::WatchEvent;
use super::leave::Leave;
use super::prove;
use super::session::{Command, CompactionPolicy, Policy};
use super::status::{DatabaseState, DatabaseStatus};
use super::trigger::SnapshotPolicy;
use super::worker::{Context, Shared, WorkerEnd, WorkerOptions, run};
use crate::clock::Clock;
use crate::config::{self, ResolvedDatabase};
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{HolderId, LeasePolicy, Mode as LeaseMode};
use crate::sqlite::{AttachOptions, require_compile_options};
use crate::store::{Layout, Store};
use crate::types::{DatabaseName, KeyPrefix, Txid};
use crate::wal::wake::{WakeKind, Waker, WatchId};

/// Images that stream at once: each holds up to three parts of 5 MiB.
const IMAGES: usize = 2;
/// Requests to one database that may wait.
const COMMANDS: usize = 16;
/// Wakes of one database that may wait; equal ones are one.
const WAKES: usize = 4;
/// Descriptors that a database needs: two connections (with -wal and -shm), -wal, -shm, page table, two
/// redo files, lock, directories.
const DESCRIPTORS: u64 = 16;

/// How to watch, beyond each database's own settings.
pub struct WatchOptions {
    /// Where to.
    pub store: Arc<dyn Store>,
    /// The part of the bucket that holds the databases.
    pub prefix: KeyPrefix,
    /// Which databases.
    pub databases: Vec<ResolvedDatabase>,
    /// What is allowed over unknown streams.
    pub permission: Permission,
    /// Files with rolling checksums; false for Litestream releases that refuse them.
    pub checksums: bool,
    /// Whether a lease binds us.
    pub lease: LeaseMode,
    /// How long a silent owner keeps a stream.
    pub lease_duration: Duration,
    /// When to end.
    pub until: Until,
    /// What captured commits may take of the memory, in bytes, until they are spooled or stored; all
    /// databases together.
    pub memory_limit: u64,
    /// How long a stop may take.
    pub grace: Duration,
    /// The time of day.
    pub clock: Clock,
}

/// When a watch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When told to; what fails is tried again.
    Stopped,
    /// When everything committed before the start is stored, or at the first error.
    Shipped,
    /// As `Stopped`, but at the first error, and with a snapshot at the start.
    Snapshot,
}

/// How one database ended that did not end well.
#[derive(Debug)]
pub struct Unfinished {
    /// Its name in the bucket.
    pub name: DatabaseName,
    /// Everything up to here is in the bucket.
    pub durable: Option<Txid>,
    /// Why.
    pub error: Error,
}

/// A running watch, for whoever shows or steers it.
#[derive(Clone, Debug)]
pub struct WatchHandle {
    pub(super) databases: Arc<Vec<Handle>>,
    pub(super) clock: Clock,
}

#[derive(Debug)]
pub(super) struct Handle {
    pub(super) name: DatabaseName,
    pub(super) status: watch::Receiver<DatabaseStatus>,
    counters: Arc<Counters>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) leave: watch::Sender<Option<Leave>>,
}

impl WatchHandle {
    /// What is known of each database, as they were named.
    pub fn statuses(&self) -> Vec<DatabaseStatus> {
        self.databases
            .iter()
            .map(|handle| handle.status.borrow().clone())
            .collect()
    }

    /// What happened to each database, counted, as they were named.
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        let counters = |handle: &Handle| handle.counters.clone();
        self.databases.iter().map(counters).collect()
    }

    /// Sends `command` to the database called `name`. Errors: NotFound, or Cancelled at a stop.
    pub async fn command(&self, name: &DatabaseName, command: Command) -> Result<()> {
        let handle = self.databases.iter().find(|handle| handle.name == *name);
        let handle = handle.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "no database of this name is watched").on(name)
        })?;
        let gone = |_| Error::new(ErrorKind::Cancelled, "the watch is stopping");
        handle.commands.send(command).await.map_err(gone)
    }
}

/// Databases that are about to be watched.
pub struct Watch {
    handle: WatchHandle,
    contexts: Vec<Context>,
    wakes: HashMap<WatchId, mpsc::Sender<WakeKind>>,
    waker: Arc<Waker>,
    until: Until,
    requests: Option<mpsc::Receiver<Asked>>,
}

impl Watch {
    /// Prepares everything; nothing is opened before [`Watch::run`]. Must be called on a runtime.
    ///
    /// # Errors
    ///
    /// Internal if this program's SQLite lacks what walrust needs; Unavailable without inotify.
    pub fn new(
        options: WatchOptions,
        events: mpsc::Sender<WatchEvent>,
        stop: &CancellationToken,
    ) -> Result<Self> {
        require_compile_options()?;
        raise_descriptor_limit(options.databases.len() as u64);
        let waker = Arc::new(Waker::new()?);
        let (ask, requests) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared {
            requests: ask,
            store: options.store,
            clock: options.clock,
            events,
            images: Arc::new(Semaphore::new(IMAGES)),
            proofs: Semaphore::new(1),
            memory: Budget::new(options.memory_limit),
            compactions: Semaphore::new(1),
            waker: waker.clone(),
            grace: options.grace,
            holder: (HolderId::random(), host_name()),
            lease: LeasePolicy {
                mode: options.lease,
                duration: options.lease_duration,
                ..LeasePolicy::default()
            },
        });
        let (mut contexts, mut handles, mut routes) = (Vec::new(), Vec::new(), HashMap::new());
        for (at, database) in options.databases.into_iter().enumerate() {
            let id = WatchId(at as u64);
            let layout = Layout::new(options.prefix.clone(), database.name.clone());
            let first = DatabaseStatus {
                blind_since: Some(shared.clock.now()),
                ..DatabaseStatus::new(database.name.clone(), database.path.clone())
            };
            let counters = Arc::new(Counters::default());
            let (status, statuses) = watch::channel(first);
            let (commands, receiver) = mpsc::channel(COMMANDS);
            let (wake, wakes) = mpsc::channel(WAKES);
            let (leave, leaves) = watch::channel(None);
            handles.push(Handle {
                name: database.name.clone(),
                status: statuses,
                counters: counters.clone(),
                commands,
                leave,
            });
            routes.insert(id, wake);
            contexts.push(Context {
                shared: shared.clone(),
                options: worker_options(
                    database,
                    options.permission,
                    options.checksums,
                    options.until,
                ),
                layout,
                stop: stop.clone(),
                commands: receiver,
                leave: leaves,
                wakes,
                id,
                status,
                counters,
                lease: None,
                spool_is_too_small: false,
                looks_first: false,
                next_compaction: None,
                stop_by: None,
            });
        }
        let handle = WatchHandle {
            databases: Arc::new(handles),
            clock: shared.clock.clone(),
        };
        Ok(Self {
            handle,
            contexts,
            wakes: routes,
            waker,
            until: options.until,
            requests: Some(requests),
        })
    }

    /// What other processes on this machine ask, through the state directories; once. Where nobody takes it they
    /// are told so.
    pub fn requests(&mut self) -> Option<mpsc::Receiver<Asked>> {
        self.requests.take()
    }

    /// For showing and steering.
    pub fn handle(&self) -> WatchHandle {
        self.handle.clone()
    }

    /// Watches until told to stop, or until no database can be watched. Names what did not end well.
    pub async fn run(self, stop: CancellationToken) -> Vec<Unfinished> {
        let Self {
            handle,
            contexts,
            wakes,
            waker,
            until,
            requests,
        } = self;
        let mut provers = prove::start(&contexts, &stop);
        drop(requests);
        let mut tasks = JoinSet::new();
        for context in contexts {
            let name = context.options.name.clone();
            let status = context.status.subscribe();
            let vital = Vital(context.counters.clone());
            tasks.spawn(async move {
                let end = run(context).await;
                vital.ended();
                (name, end, status)
            });
        }
        let unusable = async {
            if until != Until::Stopped {
                std::future::pending::<()>().await;
            }
            all_unusable(&handle).await;
        };
        tokio::pin!(unusable);
        let mut unfinished = Vec::new();
        let mut died = Vec::new();
        let mut ended: Vec<DatabaseName> = Vec::new();
        let mut given_up = false;
        loop {
            tokio::select! {
                done = tasks.join_next() => match done {
                    None => break,
                    Some(Ok((name, WorkerEnd::Failed(error), status))) => {
                        ended.push(name.clone());
                        let durable = status.borrow().durable_txid;
                        unfinished.push(Unfinished { name, durable, error });
                    }
                    Some(Ok((name, WorkerEnd::Drained, _))) => ended.push(name),
                    Some(Err(error)) => died.push(error.to_string()),
                },
                () = route(&waker, &wakes) => {}
                () = &mut unusable, if !given_up => {
                    given_up = true;
                    stop.cancel();
                }
            }
        }
        provers.shutdown().await;
        if !died.is_empty() {
            let lost = handle
                .databases
                .iter()
                .filter(|handle| !ended.contains(&handle.name));
            unfinished.extend(lost.map(|handle| {
                Unfinished {
                    name: handle.name.clone(),
                    durable: handle.status.borrow().durable_txid,
                    error: Error::new(
                        ErrorKind::Internal,
                        format!("its task died: {}", died.join(", ")),
                    )
                    .hint("please report this"),
                }
            }));
        }
        unfinished
    }
}

/// Hands wakes to their databases; returns where no more can come.
async fn route(waker: &Waker, wakes: &HashMap<WatchId, mpsc::Sender<WakeKind>>) {
    loop {
        match waker.next().await {
            Ok(event) => {
                if let Some(wake) = wakes.get(&event.id) {
                    // Full: it will look anyway.
                    let _ = wake.try_send(event.kind);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no more events: databases are polled");
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Kinds of errors that nobody's waiting mends: wrong names, wrong files, wrong credentials, and another
/// watcher on this machine.
pub(super) const LASTING: [&str; 6] = [
    ErrorKind::NotFound.name(),
    ErrorKind::Unsupported.name(),
    ErrorKind::Invalid.name(),
    ErrorKind::Fenced.name(),
    ErrorKind::Denied.name(),
    ErrorKind::Busy.name(),
];

/// Returns once every database has an error that waiting does not mend: then there is nothing to watch.
async fn all_unusable(handle: &WatchHandle) {
    let mut statuses: Vec<_> = handle
        .databases
        .iter()
        .map(|handle| handle.status.clone())
        .collect();
    for status in &mut statuses {
        let unusable = |status: &DatabaseStatus| {
            let never_worked = status.lease.epoch.is_none();
            let error = status.error.as_ref();
            let lasting = error.is_some_and(|error| LASTING.contains(&error.kind));
            (never_worked && lasting) || status.state == DatabaseState::Fenced
        };
        if status.wait_for(unusable).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn worker_options(
    database: ResolvedDatabase,
    permission: Permission,
    tracked: bool,
    until: Until,
) -> WorkerOptions {
    let sync = database.sync;
    let off = Duration::ZERO;
    WorkerOptions {
        path: PathBuf::from(&database.path),
        optional: database.optional,
        name: database.name,
        attach: AttachOptions {
            set_wal_mode: sync.set_wal_mode,
            allow_network_fs: sync.allow_network_fs,
        },
        permission: Permission {
            adopt_at: database.adopt_at,
            ..permission
        },
        spool_limit: sync.spool_limit,
        tracked,
        policy: Policy {
            sync_interval: sync.sync_interval,
            snapshots: SnapshotPolicy {
                interval: sync.snapshot_interval.unwrap_or(off),
                max_changes: sync.max_changes.map_or(0, |number| number.get()),
                max_interval: sync.max_interval.unwrap_or(off),
                on_idle: sync.on_idle.unwrap_or(off),
                on_startup: sync.on_startup,
            },
            compaction: CompactionPolicy {
                after_snapshot: sync.compact_after_snapshot,
                interval: sync.compact_interval,
                retention: database.retention,
            },
            checkpoint_pages: sync.checkpoint_pages.get(),
            barrier: match sync.barrier {
                config::Barrier::Auto => Barrier::Auto,
                config::Barrier::Off => Barrier::Off,
            },
        },
        // What ends by itself is not proved on the way.
        prove_interval: sync.prove_interval.filter(|_| until == Until::Stopped),
        until,
    }
}

/// Room for the descriptors of all databases, as far as the system grants it.
fn raise_descriptor_limit(databases: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = 256 + databases * DESCRIPTORS;
    let now = limit.current.unwrap_or(u64::MAX);
    if now >= wanted {
        return;
    }
    let current = limit.maximum.map_or(wanted, |most| most.min(wanted));
    let raised = Rlimit {
        current: Some(current),
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() || current < wanted {
        tracing::warn!(
            limit = current,
            wanted,
            "the limit of open files may be too low"
        );
    }
}

/// What people call this machine; a pod's name in Kubernetes.
pub(super) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
