//! One watched database from start to stop: sessions, and what lies between them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::anchor::{Permission, RemoteHead, permitted};
use super::budget::Budget;
use super::capture::PART_BYTES;
use super::catch_up::catch_up;
use super::control::{self, Asked};
use super::counters::Counters;
use super::event::{Happening, WatchEvent};
use super::leave::{self, Leave, stay_away};
use super::open::{Disk, OpenOptions, Opened, open, open_here, sum_of, with_past};
use super::remote::{Remote, header_of};
use super::seek::{Answer, Search, Seeker};
use super::session::{Command, End, Policy, Session, Standing};
use super::ship::{Bytestream, Target, ship};
use super::status::{DatabaseState, DatabaseStatus, StandingError};
use super::watch::Until;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{HolderId, Lease, LeasePolicy};
use crate::ltx::Header;
use crate::manifest::FileKey;
use crate::process::blocking;
use crate::replica::refuse_replica;
use crate::sqlite::{AttachOptions, DATABASE_HEADER_BYTES, Source, check_access};
use crate::state::StateDir;
use crate::store::{Layout, Put, Store};
use crate::types::{DatabaseName, Timestamp, Txid};
use crate::wal::wake::{Armed, WakeKind, Waker, WatchId};

/// First and last pause between two sessions that failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// How often a file that is not there is looked for.
const FILE_POLL: Duration = Duration::from_millis(500);
/// A session that lived this long was no failure.
const LONG_SESSION: Duration = Duration::from_secs(60);
/// How long the store may take to answer before a database is captured without it.
const HOLD: Duration = Duration::from_secs(2);
/// The longest that giving the lease back may take.
const RELEASE_TIME: Duration = Duration::from_secs(5);

/// What all databases of a process share.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) events: mpsc::Sender<WatchEvent>,
    /// Where requests go that come through state directories.
    pub(super) requests: mpsc::Sender<Asked>,
    /// Images that may stream at once: each holds some parts in memory.
    pub(super) images: Arc<Semaphore>,
    /// One proof at a time.
    pub(super) proofs: Semaphore,
    pub(super) waker: Arc<Waker>,
    /// For captured commits.
    pub(super) memory: Arc<Budget>,
    /// Compactions that may run at once.
    pub(super) compactions: Semaphore,
    /// How long a stop may take.
    pub(super) grace: Duration,
    /// This process among the holders of leases, and its name for people.
    pub(super) holder: (HolderId, String),
    /// How leases are dealt with.
    pub(super) lease: LeasePolicy,
    /// Whether leases are waited for however long, and asked for again once lost.
    pub(super) patient: bool,
    /// Whether nobody can have the databases open until their streams are ours.
    pub(super) behind_gate: bool,
}

/// Settings of one database.
#[derive(Debug, Clone)]
pub(super) struct WorkerOptions {
    pub(super) path: PathBuf,
    /// Whether to wait for a file that is not there.
    pub(super) optional: bool,
    pub(super) name: DatabaseName,
    pub(super) attach: AttachOptions,
    pub(super) permission: Permission,
    pub(super) spool_limit: u64,
    pub(super) tracked: bool,
    pub(super) policy: Policy,
    /// How often the newest state is restored for proof.
    pub(super) prove_interval: Option<Duration>,
    /// When to end.
    pub(super) until: Until,
}

/// How a database's worker ended.
#[derive(Debug)]
pub(super) enum WorkerEnd {
    /// Everything is durable.
    Drained,
    /// It cannot go on, or something stayed behind.
    Failed(Error),
}

/// What a session works with.
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) options: WorkerOptions,
    pub(super) layout: Layout,
    pub(super) stop: CancellationToken,
    pub(super) commands: mpsc::Receiver<Command>,
    /// Until when the database is to be let alone.
    pub(super) leave: watch::Receiver<Option<Leave>>,
    pub(super) wakes: mpsc::Receiver<WakeKind>,
    pub(super) id: WatchId,
    pub(super) status: watch::Sender<DatabaseStatus>,
    pub(super) counters: Arc<Counters>,
    /// The lease, from the first session on. Given up where something of ours may still be on its way: a new
    /// epoch tells it from what comes after.
    pub(super) lease: Option<Arc<Lease>>,
    /// What answers at the state directory's socket, from when that is ours.
    pub(super) control: Option<JoinHandle<()>>,
    /// A batch did not fit into an empty spool: the next session streams what there is.
    pub(super) spool_is_too_small: bool,
    /// Nothing is attached before the store has answered: capturing first led to nothing.
    pub(super) looks_first: bool,
    /// When a compaction is due.
    pub(super) next_compaction: Option<Instant>,
    /// When a stop must be over, once it was asked for.
    pub(super) stop_by: Option<Instant>,
}

impl Context {
    /// Where files go. Sessions begin only with a lease.
    pub(super) fn target(&self, lease: &Arc<Lease>) -> Target {
        Target {
            store: self.shared.store.clone(),
            lease: lease.clone(),
        }
    }

    /// Tells whoever listens. A full channel waits: nobody may be told less than what happened.
    pub(super) async fn tell(&self, what: Happening) {
        self.counters.told(&what);
        let event = WatchEvent {
            time: self.shared.clock.now(),
            database: self.options.path.clone(),
            name: self.options.name.clone(),
            what,
        };
        // A listener that went away wants to know no more.
        let _ = self.shared.events.send(event).await;
    }

    /// Notes an error; the first of a kind is told.
    pub(super) async fn failed(&self, error: &Error) {
        self.counters.failed();
        let standing = StandingError::new(error, self.shared.clock.now());
        let known = self.status.borrow().error.as_ref().map(|known| known.kind);
        let state = match error.kind() {
            ErrorKind::Fenced => DatabaseState::Fenced,
            _ => DatabaseState::Erroring,
        };
        self.status.send_modify(|status| {
            status.state = state;
            status.lease.held &= state != DatabaseState::Fenced;
            let since = status.error.as_ref().map(|known| known.since);
            let since = since.unwrap_or(standing.since);
            status.error = Some(StandingError {
                since,
                ..standing.clone()
            });
        });
        if known != Some(standing.kind) {
            let message = error.to_string();
            self.tell(Happening::Error {
                kind: error.kind(),
                message,
            })
            .await;
        }
    }

    /// Another writer has the lease, and is waited for.
    pub(super) fn waits_for_lease(&self, held: &Error) {
        wait_shown(
            &self.status,
            self.shared.patient,
            held,
            self.shared.clock.now(),
        );
    }

    /// Nothing is attached any more.
    fn is_blind(&self) {
        let now = self.shared.clock.now();
        self.status.send_modify(|status| {
            status.blind_since.get_or_insert(now);
        });
    }

    /// Nothing fails any more.
    pub(super) async fn recovered(&self) {
        let mut had = None;
        self.status.send_modify(|status| had = status.error.take());
        if let Some(error) = had {
            let txid = self.status.borrow().durable_txid;
            self.tell(Happening::Recovered {
                txid,
                message: error.message,
            })
            .await;
        }
    }

    /// Sets the one-shot watch on the WAL again; false where the database must be polled.
    pub(super) fn arm(&self) -> bool {
        match self.shared.waker.arm(self.id) {
            Ok(Armed::Watching | Armed::NoWal) => true,
            Ok(Armed::Polling) => false,
            Err(error) => {
                tracing::debug!(%error, "no watch");
                false
            }
        }
    }

    /// Whether the database is attached before the store has answered.
    fn captures_at_once(&self, disk: &Disk) -> bool {
        let told = self.options.permission != Permission::default() || self.spool_is_too_small;
        let looks_first = self.looks_first || told || self.options.until != Until::Stopped;
        disk.saved().is_some() && !looks_first
    }

    /// The stream is ours and goes on from `txid`; what is there ends with `durable`.
    pub(super) async fn owns(&mut self, lease: Arc<Lease>, txid: Txid, durable: Option<Txid>) {
        // What was asked for is done, and remembered until its base is stored; asking again would begin
        // another chain at each hiccup.
        self.options.permission = Permission::default();
        self.spool_is_too_small = false;
        self.looks_first = false;
        let stream = lease.stream_id();
        self.status.send_modify(|status| {
            status.txid = Some(txid);
            status.durable_txid = durable;
            status.lease.held = true;
            status.lease.epoch = Some(stream.epoch.get());
            status.lease.lineage = Some(stream.lineage);
        });
        self.lease = Some(lease);
        self.recovered().await;
    }

    pub(super) fn open_options(&self) -> OpenOptions {
        let options = &self.options;
        OpenOptions {
            path: options.path.clone(),
            name: options.name.clone(),
            attach: options.attach,
            permission: options.permission,
            prefer_base: self.spool_is_too_small,
            tracked: options.tracked,
            interval: options.policy.sync_interval,
        }
    }
}

/// Runs one database until it is told to stop or cannot go on. After a stop another may be begun at once.
pub(super) async fn run(mut context: Context) -> WorkerEnd {
    let end = live(&mut context).await;
    if context.stop.is_cancelled()
        && let Some(control) = context.control.take()
        && let Err(error) = control.await
    {
        tracing::warn!(db = %context.options.name, %error, "the control socket ended");
    }
    end
}

async fn live(context: &mut Context) -> WorkerEnd {
    let mut dir = None;
    let mut pause = PAUSE.0;
    loop {
        if context.options.optional && !wait_for_file(context).await {
            return WorkerEnd::Drained;
        }
        if let Err(error) = stay_away(context, &dir).await {
            context.failed(&error).await;
            release(context).await;
            return WorkerEnd::Failed(error);
        }
        let began = Instant::now();
        let caught_up = match context.shared.behind_gate && dir.is_none() {
            true => catch_up(context).await,
            false => Ok(()),
        };
        let outcome = match caught_up {
            Ok(()) => session(context, &mut dir).await,
            Err(error) => Err(error),
        };
        context.is_blind();
        if began.elapsed() > LONG_SESSION {
            // What worked until now is tried again at once.
            pause = PAUSE.0;
        }
        let error = match outcome {
            Ok(End::Drained) => {
                let txid = context.status.borrow().durable_txid;
                release(context).await;
                context.tell(Happening::Drained { txid }).await;
                return WorkerEnd::Drained;
            }
            Ok(End::LetGo) => continue,
            Ok(End::Reopen(error)) => error,
            // Also while it was opened: a rebase may be larger than the spool.
            Ok(End::Full(error)) | Err(error) if error.kind() == ErrorKind::Exhausted => {
                context.failed(&error).await;
                context.looks_first = true;
                context
                    .status
                    .send_modify(|status| status.state = DatabaseState::Detached);
                match drain_spool(context, &dir).await {
                    Ok(()) => error,
                    Err(error) => error,
                }
            }
            Ok(End::Full(error)) | Err(error) => error,
        };
        context.failed(&error).await;
        let fenced = error.kind() == ErrorKind::Fenced;
        if fenced {
            // It is another's now; to write again takes another epoch.
            context.lease = None;
        }
        let ends = match fenced {
            true => !context.shared.patient,
            false => error.kind() == ErrorKind::NotDurable,
        };
        if ends || context.stop.is_cancelled() || context.options.until != Until::Stopped {
            return WorkerEnd::Failed(error);
        }
        let until = Instant::now() + pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        let granted = context.status.borrow().leave;
        tokio::select! {
            () = context.stop.cancelled() => return WorkerEnd::Failed(error),
            () = leave::wanted(&mut context.leave, granted) => {}
            () = sleep_until(until) => {}
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// Shows in `status` that another writer is waited for, and who that is where the wait may be long.
pub(super) fn wait_shown(
    status: &watch::Sender<DatabaseStatus>,
    patient: bool,
    held: &Error,
    now: Timestamp,
) {
    status.send_modify(|status| {
        status.state = DatabaseState::AcquiringLease;
        if patient && status.error.is_none() {
            status.error = Some(StandingError::new(held, now));
        }
    });
}

/// Gives the lease back, so that the next writer need not wait. Without it that one waits a lease.
async fn release(context: &Context) {
    let Some(lease) = &context.lease else { return };
    let released = tokio::time::timeout(RELEASE_TIME, lease.release()).await;
    if let Ok(Err(error)) = released {
        tracing::warn!(name = %context.options.name, %error, "the lease was not given back");
    }
}

async fn session(context: &mut Context, dir: &mut Option<Arc<StateDir>>) -> Result<End> {
    let (stop, grace) = (context.stop.clone(), context.shared.grace);
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(grace).await;
    };
    let (standing, opened) = tokio::select! {
        begun = begin(context, dir) => begun?,
        () = late => {
            let message = "stopped before the database was opened and its store looked at";
            return Err(Error::new(ErrorKind::NotDurable, message));
        }
    };
    let real = opened.capture.source.path().to_owned();
    if let Err(error) = context.shared.waker.add(context.id, &real).map(drop) {
        tracing::warn!(%error, "no events for this database: it is polled");
    }
    let (txid, durable) = (opened.capture.place.txid, opened.durable);
    context
        .status
        .send_modify(|status| status.blind_since = None);
    context.tell(Happening::Watching { txid: Some(txid) }).await;
    if let Standing::Ours(lease) = &standing {
        context.owns(lease.clone(), txid, durable).await;
    }
    let policy = context.options.policy.clone();
    let (id, waker) = (context.id, context.shared.waker.clone());
    let end = Session::new(context, policy, standing, opened).run().await;
    waker.remove(id);
    end
}

/// Opens the database and takes the stream's lease; or, where the store does not answer soon and the saved state
/// suffices, captures it at once.
///
/// Without a saved state it is not attached before the store answers: what would be captured could not be restored
/// to, for the first base can only be made then, and until then the application's log is its own.
async fn begin(
    context: &mut Context,
    dir: &mut Option<Arc<StateDir>>,
) -> Result<(Standing, Opened)> {
    let held = state_dir(context, dir).await?;
    let disk = open_disk(context, held.clone()).await?;
    let seeker = Seeker::new(context, &disk);
    let mut search = Search::begin(seeker.clone());
    if !context.captures_at_once(&disk) {
        let answer = search.answer().await?;
        return own(context, disk, None, seeker, answer).await;
    }
    let (options, clock) = (context.open_options(), context.shared.clock.clone());
    let (path, attach) = (options.path.clone(), options.attach);
    let source = blocking(move || Source::attach(&path, &attach)).await?;
    let answer = match timeout(HOLD, search.answer()).await {
        Ok(Ok(answer)) => return own(context, disk, Some(source), seeker, answer).await,
        Ok(Err(error)) if error.kind() == ErrorKind::Fenced => return Err(error),
        Ok(Err(error)) => {
            context.failed(&error).await;
            Some(error)
        }
        Err(_) => None,
    };
    let opened = blocking(move || open_here(options, disk, source, clock)).await?;
    match (opened, answer) {
        (Some(opened), _) => Ok((Standing::Seeking(Box::new(search)), opened)),
        (None, Some(error)) => Err(error),
        (None, None) => {
            let answer = search.answer().await?;
            let disk = open_disk(context, held).await?;
            own(context, disk, None, seeker, answer).await
        }
    }
}

async fn state_dir(
    context: &mut Context,
    dir: &mut Option<Arc<StateDir>>,
) -> Result<Arc<StateDir>> {
    if let Some(held) = dir {
        return Ok(held.clone());
    }
    let path = context.options.path.clone();
    require_file(&path)?;
    let attach = context.options.attach;
    let checked = path.clone();
    blocking(move || {
        refuse_replica(&checked)?;
        check_access(&checked, &attach)
    })
    .await?;
    let held = blocking(move || StateDir::create_or_open(&path)).await?;
    let (name, requests) = (context.options.name.clone(), &context.shared.requests);
    let (requests, stop) = (requests.clone(), context.stop.clone());
    context.control = control::serve(&held, name, requests, stop);
    Ok(dir.insert(Arc::new(held)).clone())
}

async fn open_disk(context: &Context, dir: Arc<StateDir>) -> Result<Disk> {
    let limit = context.options.spool_limit;
    blocking(move || Disk::open(dir, limit)).await
}

/// Opens the database as the stream's one writer.
async fn own(
    context: &mut Context,
    disk: Disk,
    source: Option<Source>,
    seeker: Seeker,
    answer: Answer,
) -> Result<(Standing, Opened)> {
    let (source, answer) = match answer {
        Answer::Ours(..) => (source, answer),
        Answer::Unknown(head) => {
            drop(source);
            refuse_unknown(context, &head).await?;
            (None, seeker.of_same_content().seek().await?)
        }
    };
    let Answer::Ours(lease, found) = answer else {
        return Err(Error::new(
            ErrorKind::Internal,
            "an unknown database of known content",
        ));
    };
    context.lease = Some(lease.clone());
    let (options, clock) = (context.open_options(), context.shared.clock.clone());
    let remote = found.remote.clone();
    let opened = blocking(move || open(options, disk, source, found, clock)).await?;
    let opened = with_past(opened, &*context.shared.store, remote.as_deref()).await?;
    Ok((Standing::Ours(lease), opened))
}

/// Refuses a database whose content is not the head's (invariant 14).
async fn refuse_unknown(context: &Context, head: &RemoteHead) -> Result<()> {
    let options = context.open_options();
    let sum = blocking({
        let options = options.clone();
        move || sum_of(&options)
    })
    .await?;
    if head.sum == Some(sum) {
        Ok(())
    } else {
        permitted(options.permission, head, &options.name)
    }
}

/// Waits until the database's file is there and has a header; false where a stop came first, or where only
/// what is there now is wanted.
async fn wait_for_file(context: &Context) -> bool {
    let path = &context.options.path;
    loop {
        let is_there = match std::fs::metadata(path) {
            Ok(file) => file.len() >= DATABASE_HEADER_BYTES as u64,
            // Whatever else is wrong with it is told where it is opened.
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        };
        if is_there {
            let now = context.shared.clock.now();
            context.status.send_if_modified(|status| {
                let waited = status.state == DatabaseState::WaitingForFile;
                if waited {
                    status.state = DatabaseState::AcquiringLease;
                    status.blind_since = Some(now);
                }
                waited
            });
            return true;
        }
        if context.status.borrow().state != DatabaseState::WaitingForFile {
            tracing::info!(name = %context.options.name, path = %path.display(), "waiting for the file");
            context.status.send_modify(|status| {
                status.state = DatabaseState::WaitingForFile;
                status.error = None;
            });
        }
        let stopped = timeout_at(Instant::now() + FILE_POLL, context.stop.cancelled()).await;
        if stopped.is_ok() || context.options.until != Until::Stopped {
            return false;
        }
    }
}

fn require_file(path: &std::path::Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::NotFound, "no such file").on(path.display()))
        }
        Err(error) => Err(Error::io(path.display(), error)),
    }
}

/// Ships what the spool holds, oldest first, with nothing attached: the database may be written freely
/// meanwhile, and a rebase follows.
pub(super) async fn drain_spool(context: &mut Context, dir: &Option<Arc<StateDir>>) -> Result<()> {
    let (Some(dir), Some(lease)) = (dir.clone(), context.lease.clone()) else {
        return Ok(());
    };
    let (held, limit) = (dir.clone(), context.options.spool_limit);
    let first = blocking(move || Ok(Disk::open(held, limit)?.spool().front())).await?;
    let Some(first) = first else {
        // Not the backlog: one batch alone is too much.
        context.spool_is_too_small = true;
        return Ok(());
    };
    let head = head(context, first.range.min()).await?;
    if head.is_some_and(|head| head.next() < first.range.min()) {
        // It follows a base that never arrived; the next session makes another from the database itself.
        return Ok(());
    }
    // What was stored as one object may still lie here as several files.
    let (held, limit) = (dir.clone(), context.options.spool_limit);
    blocking(move || Disk::open(held, limit)?.drop_stored(head)).await?;
    let mut pause = PAUSE.0;
    loop {
        let (held, limit) = (dir.clone(), context.options.spool_limit);
        let next = blocking(move || {
            let disk = Disk::open(held, limit)?;
            let Some(file) = disk.spool().front() else {
                return Ok(None);
            };
            let key = FileKey::incremental(file.range);
            let header = header_of(&mut disk.spool().open_file(&file)?, key)?;
            Ok(Some((file, disk.spool().path(&file), header)))
        })
        .await?;
        let Some((file, path, header)) = next else {
            return Ok(());
        };
        let key = context.layout.incremental(file.range);
        let put = Put::new_object().created(header.timestamp);
        let header = Header {
            node: lease.stream_id().to_node_id(),
            ..header
        };
        let body = Bytestream::File {
            path,
            size: file.size,
        };
        match ship(context.target(&lease), key, header, body, PART_BYTES, put).await {
            Ok(_) => {
                let (held, limit) = (dir.clone(), context.options.spool_limit);
                blocking(move || Disk::open(held, limit)?.stored(file.range)).await?;
                context
                    .status
                    .send_modify(|status| status.durable_txid = Some(file.range.max()));
                pause = PAUSE.0;
            }
            Err(error) if error.kind().is_transient() => {
                let until = Instant::now() + pause;
                if timeout_at(until, context.stop.cancelled()).await.is_ok() {
                    return Err(not_durable(file.range.max(), &error));
                }
                pause = (pause * 2).min(PAUSE.1);
            }
            Err(error) => return Err(error),
        }
    }
}

/// The newest transaction that the store has, which is asked until it answers; `min` waits to be stored.
async fn head(context: &Context, min: Txid) -> Result<Option<Txid>> {
    let mut pause = PAUSE.0;
    loop {
        match Remote::look(&*context.shared.store, &context.layout, None).await {
            Ok(remote) => return Ok(remote.map(|remote| remote.txid())),
            Err(error) if error.kind().is_transient() => {
                let until = Instant::now() + pause;
                if timeout_at(until, context.stop.cancelled()).await.is_ok() {
                    return Err(not_durable(min, &error));
                }
                pause = (pause * 2).min(PAUSE.1);
            }
            Err(error) => return Err(error),
        }
    }
}

/// What a stop leaves behind.
pub(super) fn not_durable(txid: Txid, cause: &Error) -> Error {
    Error::new(
        ErrorKind::NotDurable,
        format!("stopped before TXID {} was stored: {cause}", txid.get()),
    )
    .hint("it stays in the spool and is sent at the next start")
}
