//! `walrust-sidecar replicate`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use walrust_core::clock::Clock;
use walrust_core::config::streams::{self, Stream};
use walrust_core::config::{File, HeartbeatUrl, MetricsSettings, ReplicateSettings, StoreSettings};
use walrust_core::process::{Signals, blocking};
use walrust_core::replica::{Replace, Replica, ReplicaEvent, ReplicaOptions, ReplicaStatus, Until};
use walrust_core::restore::discover;
use walrust_core::serve::{Board, Facts, Heartbeat, Mode, Serving, Subject};
use walrust_core::store::{Layout, Meter, Store, open_metered};
use walrust_core::types::{DatabaseName, KeyPrefix};
use walrust_core::{Error, Result};

use crate::args::RunArgs;
use crate::configuration::Source;
use crate::history::History;
use crate::mount::Mount;
use crate::reloads::Reloads;
use crate::report;
use crate::serving::{self, EVERYWHERE, Shown};
use crate::watch::pod;

/// Events between the replicas and the log; nothing waits there.
const EVENTS: usize = 64;

/// How often the bucket is asked for names that patterns mean, and the file looked at without an event.
const LOOK: Duration = Duration::from_secs(30);

/// Keeps the replicas until a signal comes. Errors: unusable configuration, and a port that somebody has.
pub(crate) async fn run(args: &RunArgs, source: Source, file: File) -> Result<()> {
    let mut signals = Signals::listen()?;
    let (events, mut happened) = mpsc::channel::<ReplicaEvent>(EVENTS);
    let mut fleet = Fleet::new(source, file, events).await?;
    let shown = fleet.shown.clone();
    let mut serving = Serving::default();
    // Nobody can be told anything: a replica takes no requests.
    let settings = MetricsSettings {
        control: None,
        ..fleet.metrics
    };
    serving::start(&mut serving, &shown, settings).await?;
    if let Some(url) = fleet.heartbeat.clone() {
        serving.heartbeat(shown.board.clone(), Heartbeat::new(url)?);
    }
    {
        let keeping = fleet.keep();
        let remembering = serving::remember(&shown);
        tokio::pin!(keeping, remembering);
        loop {
            tokio::select! {
                Some(event) = happened.recv() => report::replicated(&event),
                () = &mut keeping => {}
                () = &mut remembering => {}
                _ = signals.next() => break,
            }
        }
    }
    info!("stopping");
    // What is not over by then is rolled back by SQLite, whenever the process ends.
    let _ = tokio::time::timeout(args.grace, fleet.end(&mut happened)).await;
    Ok(())
}

/// The replicas of a configuration.
struct Fleet {
    source: Source,
    file: File,
    settings: StoreSettings,
    how: ReplicateSettings,
    metrics: MetricsSettings,
    heartbeat: Option<HeartbeatUrl>,
    store: Arc<dyn Store>,
    prefix: KeyPrefix,
    meter: Meter,
    shown: Arc<Shown>,
    events: mpsc::Sender<ReplicaEvent>,
    running: BTreeMap<DatabaseName, Running>,
    tasks: JoinSet<()>,
    reloads: Reloads,
}

struct Running {
    path: PathBuf,
    status: watch::Receiver<ReplicaStatus>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Fleet {
    async fn new(source: Source, file: File, events: mpsc::Sender<ReplicaEvent>) -> Result<Self> {
        let (meter, clock) = (Meter::default(), Clock::system());
        let configuration = source.resolve(file)?;
        let resolved = configuration.resolved;
        let metrics = resolved.metrics.finish(Some(EVERYWHERE), None);
        let store = open_metered(&resolved.store.store_config(), &meter).await?;
        let hash = resolved.config_hash.clone();
        let facts = Facts {
            pod: pod(&source),
            paused: resolved.paused(),
            ready_lag: metrics.ready_lag,
            ..Facts::new(Mode::Replicate, hash, clock.now())
        };
        let board = Board::new(facts, Subject::Replicas(Vec::new()), meter.clone(), clock);
        let location = &resolved.store.location;
        let shown = Arc::new(Shown::new(Arc::new(board), location, History::default()));
        Ok(Self {
            how: source.replicate(&configuration.file),
            prefix: location.prefix(),
            settings: resolved.store,
            file: configuration.file,
            source,
            metrics,
            heartbeat: resolved.heartbeat,
            store,
            meter,
            reloads: Reloads::of(shown.board.clone()),
            shown,
            events,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
        })
    }

    /// Follows file and bucket, for ever.
    async fn keep(&mut self) {
        let mut mount = Mount::of(self.source.path());
        loop {
            if let Err(error) = self.look().await {
                // A bucket that does not answer is no fault of the file.
                warn!(
                    kind = error.kind().name(),
                    "which replicas are wanted is not known: {error}"
                );
            }
            while self.tasks.try_join_next().is_some() {}
            mount.changed(LOOK).await;
            let source = self.source.clone();
            match blocking(move || source.read()).await {
                Ok(file) if file.hash != self.file.hash => self.change(file).await,
                Ok(file) => self.reloads.taken(&file.hash, false),
                Err(error) => self.refuse(&error),
            }
        }
    }

    /// Ends all replicas.
    async fn end(&mut self, happened: &mut mpsc::Receiver<ReplicaEvent>) {
        self.running.clear();
        loop {
            tokio::select! {
                biased;
                Some(event) = happened.recv() => report::replicated(&event),
                ended = self.tasks.join_next() => if ended.is_none() {
                    return;
                },
            }
        }
    }

    /// Another file is in force, if it means something.
    async fn change(&mut self, file: File) {
        let changed = async {
            let settings = self.source.store(&file)?;
            if settings != self.settings {
                self.store = open_metered(&settings.store_config(), &self.meter).await?;
                self.prefix = settings.location.prefix();
                self.shown.set_location(&settings.location);
                self.settings = settings;
                self.running.clear();
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = changed.await {
            return self.refuse(&error);
        }
        let how = self.source.replicate(&file);
        if how != self.how {
            self.how = how;
            self.running.clear();
        }
        self.reloads.taken(&file.hash, true);
        self.file = file;
    }

    /// Starts the replicas that are wanted and missing, ends those that are not wanted.
    async fn look(&mut self) -> Result<()> {
        let mut file = self.file.clone();
        file.databases.retain(|entry| !entry.paused);
        let stored = match streams::has_pattern(&file) {
            true => discover(&*self.store, &self.prefix).await?,
            false => Vec::new(),
        };
        let wanted = streams::replicas(&file, &stored)?;
        let before = self.running.len();
        let is_wanted = |name: &DatabaseName, running: &Running| {
            let same = |stream: &Stream| stream.name == *name && stream.path == running.path;
            wanted.iter().any(same)
        };
        self.running
            .retain(|name, running| is_wanted(name, running));
        let mut changed = self.running.len() != before;
        for stream in wanted {
            if !self.running.contains_key(&stream.name) {
                let running = self.start(&stream)?;
                self.running.insert(stream.name, running);
                changed = true;
            }
        }
        if changed || before == 0 {
            let all = self.running.values().map(|one| one.status.clone());
            self.shown.board.turn_to(Subject::Replicas(all.collect()));
        }
        Ok(())
    }

    fn start(&mut self, stream: &Stream) -> Result<Running> {
        let options = ReplicaOptions {
            store: self.store.clone(),
            layout: Layout::new(self.prefix.clone(), stream.name.clone()),
            local: stream.path.clone(),
            interval: self.how.interval,
            replace: Replace::No,
            allow_network_fs: self.how.allow_network_fs,
            until: Until::Stopped,
            patient: true,
            clock: Clock::system(),
        };
        let replica = Replica::new(options, self.events.clone())?;
        let (status, stop) = (replica.status(), CancellationToken::new());
        let (name, path, token) = (stream.name.clone(), stream.path.clone(), stop.clone());
        info!(db = %name, path = %path.display(), "replica of it");
        self.tasks.spawn(async move {
            if let Err(error) = replica.run(token).await {
                warn!(db = %name, kind = error.kind().name(), "{error}");
            }
        });
        Ok(Running { path, status, stop })
    }

    fn refuse(&mut self, error: &Error) {
        self.reloads.refused(error, "the replicas stay as they are");
    }
}
