//! The databases of a running watch: which there are, their tasks, and what becomes of each.
//!
//! ```text
//! prepared -> running -> ended            as wanted
//!                |
//!                +-> leaving -> gone      no longer wanted, or wanted with other settings:
//!                                         then another is started once this one has let go
//! ```
//!
//! There is never more than one task for a name, so two settings of one database never meet.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::anchor::Permission;
use super::checkpoint::Barrier;
use super::counters::{Counters, Vital};
use super::prove;
use super::session::{CompactionPolicy, Policy};
use super::status::DatabaseStatus;
use super::trigger::SnapshotPolicy;
use super::watch::{Handle, Unfinished, Until, Wanted};
use super::worker::{Context, Shared, WorkerEnd, WorkerOptions, run};
use crate::config::{self, ResolvedDatabase};
use crate::error::{Error, ErrorKind};
use crate::sqlite::AttachOptions;
use crate::store::Layout;
use crate::types::KeyPrefix;
use crate::wal::wake::{WakeKind, Waker, WatchId};

/// Requests to one database that may wait.
const COMMANDS: usize = 16;
/// Wakes of one database that may wait; equal ones are one.
const WAKES: usize = 4;
/// Descriptors that a database needs: two connections (with -wal and -shm), -wal, -shm, page table, two
/// redo files, lock, directories.
const DESCRIPTORS: u64 = 16;

/// The databases as whoever shows or steers them sees them.
pub(super) type Set = Arc<Vec<Arc<Handle>>>;

/// What holds for all databases of a watch.
pub(super) struct Terms {
    pub(super) prefix: KeyPrefix,
    pub(super) permission: Permission,
    pub(super) tracked: bool,
    pub(super) until: Until,
    pub(super) patient: bool,
}

/// One database.
struct Member {
    database: ResolvedDatabase,
    handle: Arc<Handle>,
    id: WatchId,
    stop: CancellationToken,
    stage: Stage,
}

/// How far it is.
enum Stage {
    Prepared(Box<Context>),
    Running,
    /// Told to end though the watch goes on.
    Leaving,
    Ended,
}

/// All of them.
pub(super) struct Members {
    shared: Arc<Shared>,
    terms: Terms,
    stop: CancellationToken,
    members: Vec<Member>,
    routes: HashMap<WatchId, mpsc::Sender<WakeKind>>,
    wanted: Wanted,
    next: u64,
    tasks: JoinSet<WorkerEnd>,
    running: HashMap<Id, WatchId>,
    provers: JoinSet<()>,
    unfinished: Vec<Unfinished>,
    shown: watch::Sender<Set>,
}

impl Members {
    /// Prepares `databases`, which end at `stop`.
    pub(super) fn new(
        shared: Arc<Shared>,
        terms: Terms,
        stop: CancellationToken,
        databases: &[ResolvedDatabase],
    ) -> (Self, watch::Receiver<Set>) {
        let (shown, set) = watch::channel(Set::default());
        let mut members = Self {
            shared,
            terms,
            stop,
            members: Vec::new(),
            routes: HashMap::new(),
            wanted: Arc::new(databases.to_vec()),
            next: 0,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            provers: JoinSet::new(),
            unfinished: Vec::new(),
            shown,
        };
        members.follow_wanted();
        (members, set)
    }

    /// Starts what is prepared.
    pub(super) fn start(&mut self) {
        for member in &mut self.members {
            if !matches!(member.stage, Stage::Prepared(_)) {
                continue;
            }
            let Stage::Prepared(context) = std::mem::replace(&mut member.stage, Stage::Running)
            else {
                continue;
            };
            let name = &member.database.name;
            // What stayed behind before is this task's to bring.
            self.unfinished
                .retain(|unfinished| unfinished.name != *name);
            if let Some(proving) = prove::proving(&context) {
                self.provers.spawn(proving);
            }
            let vital = Vital(context.counters.clone());
            let task = self.tasks.spawn(async move {
                let end = run(*context).await;
                vital.ended();
                end
            });
            self.running.insert(task.id(), member.id);
        }
    }

    /// Whether any database's task goes on.
    pub(super) fn any_runs(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Another set is wanted.
    pub(super) fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        self.follow_wanted();
        self.start();
    }

    /// Routes wakes until a task ends, and deals with that. Safe to cancel.
    pub(super) async fn work(&mut self) {
        let ended = tokio::select! {
            ended = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => ended,
            () = route(&self.shared.waker, &self.routes) => None,
        };
        let left = match ended {
            Some(Ok((task, end))) => self.ended(task, Ok(end)),
            Some(Err(error)) => self.ended(error.id(), Err(error)),
            None => return,
        };
        while self.provers.try_join_next().is_some() {}
        // One that left may be wanted with other settings.
        if left && !self.stop.is_cancelled() {
            self.follow_wanted();
            self.start();
        }
    }

    /// Ends the proofs; what did not end well.
    pub(super) async fn finish(mut self) -> Vec<Unfinished> {
        self.provers.shutdown().await;
        self.unfinished
    }

    /// Deals with the end of a database's task; whether it was one that was to leave.
    fn ended(&mut self, task: Id, end: Result<WorkerEnd, JoinError>) -> bool {
        let Some(id) = self.running.remove(&task) else {
            return false;
        };
        let Some(member) = self.members.iter_mut().find(|member| member.id == id) else {
            return false;
        };
        let left = matches!(member.stage, Stage::Leaving);
        member.stage = Stage::Ended;
        let status = member.handle.status.borrow();
        let (durable, all) = (status.durable_txid, status.durable_txid >= status.txid);
        drop(status);
        let name = member.database.name.clone();
        let error = match end {
            Ok(WorkerEnd::Drained) => None,
            // A file that is gone has nothing more to store.
            Ok(WorkerEnd::Failed(error)) if left && all => {
                tracing::warn!(db = %name, "no longer watched: {error}");
                None
            }
            Ok(WorkerEnd::Failed(error)) => Some(error),
            Err(died) => Some(
                Error::new(ErrorKind::Internal, format!("its task died: {died}"))
                    .hint("please report this"),
            ),
        };
        if let Some(error) = &error
            && left
        {
            tracing::error!(db = %name, kind = error.kind().name(), "no longer watched: {error}");
        }
        self.unfinished.extend(error.map(|error| Unfinished {
            name,
            durable,
            error,
        }));
        if left {
            self.members.retain(|member| member.id != id);
            self.routes.remove(&id);
            self.show();
        }
        left
    }

    /// Tells those to leave that are not wanted as they are, and prepares those that are missing.
    fn follow_wanted(&mut self) {
        let wanted = self.wanted.clone();
        let as_wanted = |member: &Member| wanted.contains(&member.database);
        for member in &mut self.members {
            if !as_wanted(member) && matches!(member.stage, Stage::Running) {
                member.stage = Stage::Leaving;
                member.stop.cancel();
            }
        }
        let leaves = |member: &Member| matches!(member.stage, Stage::Leaving);
        let counters: HashMap<_, _> = self
            .members
            .iter()
            .map(|member| (member.database.name.clone(), member.handle.counters.clone()))
            .collect();
        self.members
            .retain(|member| as_wanted(member) || leaves(member));
        let members = &self.members;
        let stays = |id: &WatchId| members.iter().any(|member| member.id == *id);
        self.routes.retain(|id, _| stays(id));
        for database in wanted.iter().filter(|database| !database.paused) {
            let known = |member: &Member| member.database.name == database.name;
            if !self.members.iter().any(known) {
                let counted = counters.get(&database.name).cloned().unwrap_or_default();
                let member = self.prepare(database.clone(), counted);
                self.members.push(member);
            }
        }
        let place = |member: &Member| {
            let same = |database: &ResolvedDatabase| database.name == member.database.name;
            wanted.iter().position(same).unwrap_or(usize::MAX)
        };
        self.members.sort_by_cached_key(place);
        raise_descriptor_limit(self.members.len() as u64);
        self.show();
    }

    fn show(&self) {
        let handles = self.members.iter().map(|member| member.handle.clone());
        self.shown.send_replace(Arc::new(handles.collect()));
    }

    fn prepare(&mut self, database: ResolvedDatabase, counters: Arc<Counters>) -> Member {
        let id = WatchId(self.next);
        self.next += 1;
        let first = DatabaseStatus {
            blind_since: Some(self.shared.clock.now()),
            optional: database.optional,
            ..DatabaseStatus::new(database.name.clone(), database.path.clone())
        };
        let (status, statuses) = watch::channel(first);
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (wake, wakes) = mpsc::channel(WAKES);
        let (leave, leaves) = watch::channel(None);
        let stop = self.stop.child_token();
        self.routes.insert(id, wake);
        let context = Context {
            shared: self.shared.clone(),
            options: worker_options(database.clone(), &self.terms),
            layout: Layout::new(self.terms.prefix.clone(), database.name.clone()),
            stop: stop.clone(),
            commands: receiver,
            leave: leaves,
            wakes,
            id,
            status,
            counters: counters.clone(),
            lease: None,
            control: None,
            spool_is_too_small: false,
            looks_first: false,
            next_compaction: None,
            stop_by: None,
        };
        let handle = Handle {
            name: database.name.clone(),
            status: statuses,
            counters,
            commands,
            leave,
        };
        Member {
            database,
            handle: Arc::new(handle),
            id,
            stop,
            stage: Stage::Prepared(Box::new(context)),
        }
    }
}

/// Hands wakes to their databases; returns where no more can come.
async fn route(waker: &Waker, routes: &HashMap<WatchId, mpsc::Sender<WakeKind>>) {
    loop {
        match waker.next().await {
            Ok(event) => {
                if let Some(wake) = routes.get(&event.id) {
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

fn worker_options(database: ResolvedDatabase, terms: &Terms) -> WorkerOptions {
    let sync = database.sync;
    let off = Duration::ZERO;
    WorkerOptions {
        path: PathBuf::from(&database.path),
        optional: database.optional || terms.patient,
        name: database.name,
        attach: AttachOptions {
            set_wal_mode: sync.set_wal_mode,
            allow_network_fs: sync.allow_network_fs,
        },
        permission: Permission {
            adopt_at: database.adopt_at,
            ..terms.permission
        },
        spool_limit: sync.spool_limit,
        tracked: terms.tracked,
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
        prove_interval: sync
            .prove_interval
            .filter(|_| terms.until == Until::Stopped),
        until: terms.until,
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
