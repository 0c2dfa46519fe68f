//! The calls into the engine, and its reports turned into ours. Nothing else of this program knows them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use walrust_core::clock::Clock;
use walrust_core::config::{
    HeartbeatUrl, MetricsLayer, MetricsSettings, ReplicateSettings, Rescan, Resolved,
    RetentionPolicy, StoreSettings, Unmatched,
};
use walrust_core::doctor::{self, Report};
use walrust_core::engine::{self, Unfinished, WatchEvent};
use walrust_core::lease::LeasePolicy;
use walrust_core::process::blocking;
use walrust_core::replica::{self, Replace, Replica, ReplicaEvent, ReplicaOptions};
use walrust_core::restore::{
    self, DatabaseDescription, DatabaseList, LeaveState, Overwrite, Progress, RestoreRequest,
    RestoreTarget, Verify, discover,
};
use walrust_core::retention::{self, CompactReport, CompactRequest, DryRun, Writer};
use walrust_core::serve::{Board, Facts, Heartbeat, Mode, Serving, Subject};
use walrust_core::store::{Layout, Meter};
use walrust_core::types::{DatabaseName, Timestamp, Txid};
use walrust_core::verify::{self, DrillReport, DrillRequest, Fix, VerifyReport, VerifyRequest};
use walrust_core::{Error, ErrorKind, Result};

use crate::args;
use crate::near::near;
use crate::output::progress::Bar;
use crate::output::report::{Outcome, RestoreReport, SnapshotReport};

/// One restore.
#[derive(Clone, Debug)]
pub(crate) struct RestoreJob {
    pub(crate) name: DatabaseName,
    pub(crate) output: std::path::PathBuf,
    pub(crate) target: RestoreTarget,
    /// Whether an existing output may be replaced.
    pub(crate) overwrite: bool,
    /// Whether to leave a state directory for a watcher.
    pub(crate) leave_state: bool,
    pub(crate) check: args::Verify,
}

/// One replica.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaJob {
    pub(crate) name: DatabaseName,
    pub(crate) local: std::path::PathBuf,
    pub(crate) settings: ReplicateSettings,
    /// Catch up, then end.
    pub(crate) once: bool,
    /// Whether another file may be replaced.
    pub(crate) replace: bool,
    /// Which configuration file is used.
    pub(crate) config_hash: Option<String>,
    /// Which address is told of health.
    pub(crate) heartbeat: Option<HeartbeatUrl>,
}

/// How to watch, beyond the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchOptions {
    /// Ship everything committed so far, then end.
    pub(crate) once: bool,
    /// Wait for databases that are not there yet, as if all were optional.
    pub(crate) wait_for_files: bool,
    /// What is allowed over a stream that is not known to be the database's (invariant 14).
    pub(crate) permission: engine::Permission,
}

/// Where metrics and probes are served unless told otherwise: where nobody but this machine asks (R136).
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 16767);

/// How often it is looked which files patterns mean.
const SCAN: Duration = Duration::from_secs(5);

/// How long a stop may take: within the 30 s that Kubernetes gives, and far below systemd's 90 s (R65).
const GRACE: Duration = Duration::from_secs(25);

/// Takes a snapshot of the one database of `resolved`.
pub(crate) async fn snapshot(resolved: &Resolved, _bar: &Bar) -> Result<SnapshotReport> {
    let started = Instant::now();
    let [database] = &resolved.databases[..] else {
        let message = "a snapshot is of one database";
        return Err(Error::new(ErrorKind::Invalid, message));
    };
    let meter = Meter::default();
    let options = engine_options(
        resolved,
        engine::Until::Snapshot,
        engine::Permission::default(),
        &meter,
    );
    let taken = engine::snapshot(options.await?).await?;
    Ok(SnapshotReport {
        database: database.path.clone(),
        name: database.name.clone(),
        bucket: resolved.store.location.to_string(),
        key: Some(taken.key),
        txid: Some(taken.txid).into(),
        bytes: taken.bytes,
        pages: taken.pages,
        page_size: taken.page_size,
        checksum: Some(taken.sum.checksum),
        digest: Some(taken.sum.digest),
        duration: started.elapsed(),
        skipped: taken.skipped,
    })
}

/// How a watch ended.
pub(crate) struct Ended {
    /// Databases that did not end well.
    pub(crate) unfinished: Vec<Unfinished>,
    /// Patterns that match no file.
    pub(crate) unmatched: Vec<Unmatched>,
}

/// Watches until `shutdown`. Where patterns stand, `scan` looks again and again which files they mean.
pub(crate) async fn watch(
    resolved: Resolved,
    scan: impl Fn() -> Result<Resolved> + Clone + Send + 'static,
    options: WatchOptions,
    events: mpsc::Sender<WatchEvent>,
    shutdown: CancellationToken,
) -> Result<Ended> {
    let until = match options.once {
        true => engine::Until::Shipped,
        false => engine::Until::Stopped,
    };
    let goes_on = until == engine::Until::Stopped;
    let wait = options.wait_for_files;
    let mut resolved = waited_for(resolved, wait);
    let rescan = Rescan::new(&resolved);
    if goes_on {
        resolved.databases = rescan.wanted().to_vec();
    }
    let meter = Meter::default();
    let options = engine_options(&resolved, until, options.permission, &meter).await?;
    let clock = options.clock.clone();
    let mut watch = engine::Watch::new(options, events, &shutdown)?;
    let settings = match goes_on {
        true => resolved.metrics.finish(Some(METRICS), None),
        // It is over soon; other processes may still ask it through the state directory.
        false => MetricsSettings::default(),
    };
    let facts = Facts {
        paused: resolved.paused(),
        missing: resolved.missing(),
        ready_lag: settings.ready_lag,
        ..Facts::new(Mode::Watch, resolved.config_hash.clone(), clock.now())
    };
    let board = Arc::new(Board::new(
        facts,
        Subject::Watch(watch.handle()),
        meter,
        clock,
    ));
    let mut serving = Serving::default();
    if let Some(requests) = watch.requests() {
        serving.requests(board.clone(), requests);
    }
    serve(&mut serving, &board, settings).await;
    if let Some(url) = resolved.heartbeat.clone().filter(|_| goes_on) {
        serving.heartbeat(board.clone(), Heartbeat::new(url)?);
    }
    if !goes_on || !Rescan::is_worthwhile(&resolved) {
        return Ok(Ended {
            unfinished: watch.run(shutdown).await,
            unmatched: resolved.unmatched,
        });
    }
    let (sender, wanted) = tokio::sync::watch::channel(engine::Wanted::default());
    let mut scanner = Scanner {
        scan: move || scan().map(|found| waited_for(found, wait)),
        rescan,
        sender,
        board,
        unmatched: resolved.unmatched,
    };
    let unfinished = tokio::select! {
        unfinished = watch.follow(wanted, shutdown) => unfinished,
        never = scanner.run() => never,
    };
    Ok(Ended {
        unfinished,
        unmatched: scanner.unmatched,
    })
}

/// `resolved`, with every database waited for if `wait`.
fn waited_for(mut resolved: Resolved, wait: bool) -> Resolved {
    for database in &mut resolved.databases {
        database.optional |= wait;
    }
    resolved
}

/// Looks again and again which files patterns mean.
struct Scanner<F> {
    scan: F,
    rescan: Rescan,
    sender: tokio::sync::watch::Sender<engine::Wanted>,
    board: Arc<Board>,
    /// The patterns that matched nothing in the last scan.
    unmatched: Vec<Unmatched>,
}

impl<F: Fn() -> Result<Resolved> + Clone + Send + 'static> Scanner<F> {
    async fn run<T>(&mut self) -> T {
        let mut trouble = None;
        loop {
            tokio::time::sleep(SCAN).await;
            // A directory of a network's file system may take long.
            match blocking(self.scan.clone()).await {
                Ok(found) => {
                    trouble = None;
                    self.found(found);
                }
                Err(error) => {
                    let message = error.to_string();
                    if trouble.as_ref() != Some(&message) {
                        tracing::error!("no other files are taken in: {message}");
                        trouble = Some(message);
                    }
                }
            }
        }
    }

    fn found(&mut self, found: Resolved) {
        if self.rescan.scanned(&found) {
            let wanted = self.rescan.wanted().to_vec();
            self.sender.send_replace(Arc::new(wanted));
        }
        self.board.scanned(found.paused(), found.missing());
        self.unmatched = found.unmatched;
    }
}

/// Serves what is asked for. What cannot be served is told, and no failure of the backup (R136).
async fn serve(serving: &mut Serving, board: &Arc<Board>, settings: MetricsSettings) {
    if let Some(address) = settings.listen {
        match serving.read_only(board.clone(), address).await {
            Ok(address) => tracing::info!(%address, "serving metrics"),
            Err(error) => tracing::warn!(
                "metrics and probes are not served: {}",
                error.hint("choose another with --metrics-port, or --no-metrics")
            ),
        }
    }
    if let Some(address) = settings.control {
        match serving.control(board.clone(), address).await {
            Ok(address) => tracing::info!(%address, "serving control"),
            Err(error) => tracing::warn!(
                "requests are not taken: {}",
                error.hint("choose another for `control` in [metrics]")
            ),
        }
    }
}

async fn engine_options(
    resolved: &Resolved,
    until: engine::Until,
    permission: engine::Permission,
    meter: &Meter,
) -> Result<engine::WatchOptions> {
    let settings = &resolved.store;
    Ok(engine::WatchOptions {
        store: walrust_core::store::open_metered(&settings.store_config(), meter).await?,
        prefix: settings.location.prefix(),
        databases: resolved.databases.clone(),
        permission,
        checksums: settings.checksums,
        lease: settings.lease.into(),
        lease_duration: settings.lease_duration,
        until,
        patient: false,
        behind_gate: false,
        memory_limit: resolved.memory_limit,
        grace: GRACE,
        clock: Clock::system(),
    })
}

/// Whether the bucket has anything of this database.
pub(crate) async fn has_backup(settings: &StoreSettings, name: &DatabaseName) -> Result<bool> {
    let (store, prefix) = settings.open_to_read().await?;
    restore::has_backup(&*store, &prefix, name).await
}

/// The names of all databases of a bucket.
pub(crate) async fn names(settings: &StoreSettings) -> Result<Vec<DatabaseName>> {
    let (store, prefix) = settings.open_to_read().await?;
    discover(&*store, &prefix).await
}

/// Restores one database.
pub(crate) async fn restore(
    settings: &StoreSettings,
    job: &RestoreJob,
    bar: &Bar,
) -> Result<RestoreReport> {
    let (store, prefix) = settings.open_to_read().await?;
    let request = RestoreRequest {
        layout: Layout::new(prefix, job.name.clone()),
        output: job.output.clone(),
        target: job.target,
        overwrite: match job.overwrite {
            true => Overwrite::Yes,
            false => Overwrite::No,
        },
        verify: match job.check {
            args::Verify::None => Verify::None,
            args::Verify::Quick => Verify::Quick,
            args::Verify::Full => Verify::Full,
        },
        state: match job.leave_state {
            true => LeaveState::Yes,
            false => LeaveState::No,
        },
    };
    let progress: Arc<dyn Progress> = Arc::new(bar.clone());
    let done = restore::restore(&store, &request, &Clock::system(), &progress).await;
    let done = match done {
        Ok(done) => done,
        Err(error) => return Err(with_near(error, settings, &job.name).await),
    };
    bar.clear();
    Ok(RestoreReport {
        txid: Txid::new(done.txid).into(),
        time: done.time,
        checksum: Some(done.checksum),
        digest: Some(done.digest),
        snapshot: Some(done.snapshot),
        snapshot_bytes: Some(done.snapshot_bytes),
        segments: Some(done.segments),
        bytes_downloaded: Some(done.bytes_downloaded),
        bytes_written: Some(done.bytes_written),
        requests: Some(done.requests),
        duration: Duration::from_millis(done.duration_ms),
        verified: Some(done.verified),
        format: Some(done.format),
        notes: done.notes,
        ..RestoreReport::nothing(job.name.clone(), job.output.clone(), Outcome::Restored)
    })
}

/// Verifies one database.
pub(crate) async fn verify(
    settings: &StoreSettings,
    name: &DatabaseName,
    fix: bool,
    deep: bool,
    bar: &Bar,
) -> Result<VerifyReport> {
    let (store, prefix) = settings.open_to_read().await?;
    let policy = LeasePolicy {
        mode: settings.lease.into(),
        duration: settings.lease_duration,
        ..LeasePolicy::default()
    };
    let request = VerifyRequest {
        layout: Layout::new(prefix, name.clone()),
        fix: match fix {
            true => Fix::Yes(policy),
            false => Fix::No,
        },
        deep,
        scratch: std::env::temp_dir(),
    };
    let progress: Arc<dyn Progress> = Arc::new(bar.clone());
    match verify::verify(&store, &request, &Clock::system(), &progress).await {
        Ok(report) => Ok(report),
        Err(error) => Err(with_near(error, settings, name).await),
    }
}

/// Restores one database to scratch; whatever fails is in the report.
pub(crate) async fn drill(
    settings: &StoreSettings,
    name: &DatabaseName,
    request: impl FnOnce(Layout) -> DrillRequest,
) -> DrillReport {
    let (store, prefix) = match settings.open_to_read().await {
        Ok(opened) => opened,
        Err(error) => return DrillReport::failed(name, &error),
    };
    let request = request(Layout::new(prefix, name.clone()));
    let report = verify::drill(&store, &request, &Clock::system()).await;
    match (report.failure, report.message.clone()) {
        (Some(ErrorKind::NotFound), Some(message)) => {
            let error = Error::new(ErrorKind::NotFound, message);
            let message = with_near(error, settings, name).await.to_string();
            DrillReport {
                message: Some(message),
                ..report
            }
        }
        _ => report,
    }
}

/// The time now.
pub(crate) fn now() -> Timestamp {
    Clock::system().now()
}

/// Keeps a replica until `shutdown`, or until it is at the newest state of its source.
pub(crate) async fn replicate(
    settings: &StoreSettings,
    job: ReplicaJob,
    metrics: MetricsLayer,
    events: mpsc::Sender<ReplicaEvent>,
    shutdown: CancellationToken,
) -> Result<()> {
    let (meter, clock) = (Meter::default(), Clock::system());
    let (store, prefix) = settings.open_to_read_metered(&meter).await?;
    let options = ReplicaOptions {
        store,
        layout: Layout::new(prefix, job.name.clone()),
        local: job.local,
        interval: job.settings.interval,
        replace: match job.replace {
            true => Replace::Yes,
            false => Replace::No,
        },
        allow_network_fs: job.settings.allow_network_fs,
        until: match job.once {
            true => replica::Until::CaughtUp,
            false => replica::Until::Stopped,
        },
        patient: false,
        clock: clock.clone(),
    };
    let replica = Replica::new(options, events)?;
    let mut serving = Serving::default();
    if !job.once {
        let served = metrics.finish(Some(METRICS), None);
        let facts = Facts {
            ready_lag: served.ready_lag,
            ..Facts::new(Mode::Replicate, job.config_hash, clock.now())
        };
        let subject = Subject::Replicas(vec![replica.status()]);
        let board = Arc::new(Board::new(facts, subject, meter, clock));
        // There is nothing to steer.
        let served = MetricsSettings {
            control: None,
            ..served
        };
        serve(&mut serving, &board, served).await;
        if let Some(url) = job.heartbeat {
            serving.heartbeat(board, Heartbeat::new(url)?);
        }
    }
    match replica.run(shutdown).await {
        Err(error) => Err(with_near(error, settings, &job.name).await),
        Ok(()) => Ok(()),
    }
}

/// Checks everything that `resolved` names.
pub(crate) async fn examine(resolved: &Resolved) -> Report {
    doctor::examine(resolved, &Clock::system()).await
}

/// The databases of a bucket.
pub(crate) async fn list(settings: &StoreSettings) -> Result<DatabaseList> {
    let (store, prefix) = settings.open_to_read().await?;
    restore::list_databases(&*store, &prefix).await
}

/// The files and restore points of one database.
pub(crate) async fn describe(
    settings: &StoreSettings,
    name: &DatabaseName,
) -> Result<DatabaseDescription> {
    let (store, prefix) = settings.open_to_read().await?;
    match restore::describe(&*store, &Layout::new(prefix, name.clone())).await {
        Ok(description) => Ok(description),
        Err(error) => Err(with_near(error, settings, name).await),
    }
}

/// Compacts one database, or says what that would do.
pub(crate) async fn compact(
    settings: &StoreSettings,
    name: &DatabaseName,
    policy: RetentionPolicy,
    dry_run: DryRun,
) -> Result<CompactReport> {
    let (store, prefix) = settings.open_to_read().await?;
    let request = CompactRequest {
        layout: Layout::new(prefix, name.clone()),
        policy,
        dry_run,
        writer: Writer::Elsewhere,
    };
    match retention::compact(&store, &request, &Clock::system()).await {
        Ok(report) => Ok(report),
        Err(error) => Err(with_near(error, settings, name).await),
    }
}

/// `error`, with the names that may have been meant if it is about a name that is not there (R20).
async fn with_near(error: Error, settings: &StoreSettings, name: &DatabaseName) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    // Whatever keeps the names from being listed, the error that led here is the one to tell.
    let stored = names(settings).await.unwrap_or_default();
    let near: Vec<&str> = near(name, &stored)
        .into_iter()
        .map(DatabaseName::as_str)
        .collect();
    match near.is_empty() || stored.contains(name) {
        true => error,
        false => error.hint(format!("did you mean {}?", near.join(", "))),
    }
}
