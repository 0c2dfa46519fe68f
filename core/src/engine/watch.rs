//! Watching many databases in one process: start them, follow what is wanted, route wakes, stop them
//! together, and say which of them did not end well (R63, R65, R67a).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::anchor::Permission;
use super::answer::answer;
use super::budget::Budget;
use super::control::Asked;
use super::counters::Counters;
use super::event::WatchEvent;
use super::leave::Leave;
use super::members::{Members, Set, Terms};
use super::session::Command;
use super::status::{DatabaseState, DatabaseStatus};
use super::worker::Shared;
use crate::clock::Clock;
use crate::config::ResolvedDatabase;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{Claims, HolderId, IdleOwner, LeasePolicy, Mode as LeaseMode};
use crate::sqlite::require_compile_options;
use crate::store::Store;
use crate::types::{DatabaseName, KeyPrefix, Txid};
use crate::wal::wake::Waker;

/// Images that stream at once: each holds up to three parts of 5 MiB.
const IMAGES: usize = 2;
/// Requests through state directories that may wait.
const REQUESTS: usize = 16;

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
    /// As part of a pod: files are waited for, and so are leases, however long; an idle owner is asked and not
    /// replaced, and whoever asks is answered; and the watch goes on where no database can be watched, for what
    /// is wrong may be mended from outside.
    pub patient: bool,
    /// Whether nobody can have the databases open until their streams are ours: then one that was restored before
    /// its stream went on is restored again.
    pub behind_gate: bool,
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
    set: watch::Receiver<Set>,
    pub(super) clock: Clock,
}

#[derive(Debug)]
pub(super) struct Handle {
    pub(super) name: DatabaseName,
    pub(super) status: watch::Receiver<DatabaseStatus>,
    pub(super) counters: Arc<Counters>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) leave: watch::Sender<Option<Leave>>,
}

impl WatchHandle {
    /// What is known of each database and what happened to it, as they were named; those that leave last.
    pub fn watched(&self) -> Vec<(DatabaseStatus, Arc<Counters>)> {
        let known = |handle: &Arc<Handle>| {
            let status = handle.status.borrow().clone();
            (status, handle.counters.clone())
        };
        self.set().iter().map(known).collect()
    }

    /// Sends `command` to the database called `name`. Errors: NotFound, or Cancelled at a stop.
    pub async fn command(&self, name: &DatabaseName, command: Command) -> Result<()> {
        let handle = self.find(name)?;
        let gone = |_| Error::new(ErrorKind::Cancelled, "the watch is stopping");
        handle.commands.send(command).await.map_err(gone)
    }

    /// The databases as they are at this moment.
    pub(super) fn set(&self) -> Set {
        self.set.borrow().clone()
    }
}

/// Databases that are about to be watched.
pub struct Watch {
    handle: WatchHandle,
    members: Members,
    patient: bool,
    requests: Option<mpsc::Receiver<Asked>>,
    /// With what whoever asks is answered, and the length of a lease.
    answering: Option<(Claims, Duration)>,
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
        let (ask, requests) = mpsc::channel(REQUESTS);
        let shared = Arc::new(Shared {
            requests: ask,
            store: options.store,
            clock: options.clock,
            events,
            images: Arc::new(Semaphore::new(IMAGES)),
            proofs: Semaphore::new(1),
            memory: Budget::new(options.memory_limit),
            compactions: Semaphore::new(1),
            waker: Arc::new(Waker::new()?),
            grace: options.grace,
            holder: (HolderId::random(), host_name()),
            lease: LeasePolicy {
                mode: options.lease,
                duration: options.lease_duration,
                idle: match options.patient {
                    true => IdleOwner::Ask,
                    false => IdleOwner::Replace,
                },
                ..LeasePolicy::default()
            },
            patient: options.patient,
            behind_gate: options.behind_gate,
        });
        let claims = Claims::new(shared.store.clone(), &options.prefix, &shared.holder.0);
        let answers = options.patient && options.lease != LeaseMode::Off;
        let answering = answers.then_some((claims, options.lease_duration));
        let terms = Terms {
            prefix: options.prefix,
            permission: options.permission,
            tracked: options.checksums,
            until: options.until,
            patient: options.patient,
        };
        let clock = shared.clock.clone();
        let (members, set) = Members::new(shared, terms, stop.clone(), &options.databases);
        Ok(Self {
            handle: WatchHandle { set, clock },
            members,
            patient: options.patient || options.until != Until::Stopped,
            requests: Some(requests),
            answering,
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

    /// Watches the databases of the options until told to stop, or until none can be watched. Names what did
    /// not end well.
    pub async fn run(self, stop: CancellationToken) -> Vec<Unfinished> {
        let (_, unchanging) = watch::channel(Wanted::default());
        self.follow(unchanging, stop).await
    }

    /// As [`Watch::run`], and follows what is wanted: whenever `wanted` changes, databases that are new in it
    /// are started, those that are no longer in it are drained and released, those with other settings are
    /// drained and started anew, and the others are not touched. Goes on while there is none, until the
    /// sender of `wanted` is gone.
    pub async fn follow(
        self,
        mut wanted: watch::Receiver<Wanted>,
        stop: CancellationToken,
    ) -> Vec<Unfinished> {
        let Self {
            handle,
            mut members,
            patient,
            requests,
            answering,
        } = self;
        drop(requests);
        let answering = async {
            match answering {
                Some((claims, lease)) => answer(claims, lease, handle.clone()).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(answering);
        let unusable = all_unusable(handle.set.clone());
        tokio::pin!(unusable);
        let (mut given_up, mut more) = (patient, true);
        members.start();
        while more && !stop.is_cancelled() || members.any_runs() {
            tokio::select! {
                () = members.work() => {}
                changed = wanted.changed(), if more => match changed {
                    Ok(()) => members.want(wanted.borrow_and_update().clone()),
                    Err(_) => more = false,
                },
                () = &mut unusable, if !given_up => {
                    given_up = true;
                    stop.cancel();
                }
                () = stop.cancelled(), if more => more = false,
                () = &mut answering => {}
            }
        }
        members.finish().await
    }
}

/// The databases that are to be watched, in the order in which they are shown.
pub type Wanted = Arc<Vec<ResolvedDatabase>>;

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
async fn all_unusable(mut set: watch::Receiver<Set>) {
    loop {
        let databases = set.borrow_and_update().clone();
        let unusable = async {
            for database in databases.iter() {
                let mut status = database.status.clone();
                if status.wait_for(is_unusable).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = unusable, if !databases.is_empty() => return,
            changed = set.changed() => if changed.is_err() {
                std::future::pending::<()>().await;
            },
        }
    }
}

fn is_unusable(status: &DatabaseStatus) -> bool {
    let never_worked = status.lease.epoch.is_none();
    let error = status.error.as_ref();
    let lasting = error.is_some_and(|error| LASTING.contains(&error.kind));
    (never_worked && lasting) || status.state == DatabaseState::Fenced
}

/// What people call this machine; a pod's name in Kubernetes.
pub(super) fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
