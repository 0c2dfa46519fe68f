//! `walrust-sidecar watch`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;
use walrust_core::Result;
use walrust_core::clock::Clock;
use walrust_core::config::File;
use walrust_core::engine::{Permission, Unfinished, Until, Watch, WatchEvent, WatchOptions};
use walrust_core::process::Signals;
use walrust_core::serve::{Board, Facts, Heartbeat, Mode, Serving, Subject, started};
use walrust_core::store::{Meter, open_metered};

use crate::args::RunArgs;
use crate::configuration::{Configuration, Source};
use crate::gate::Gate;
use crate::history::History;
use crate::keeper::{Keeper, show};
use crate::report;
use crate::serving::{self, EVERYWHERE, LOOPBACK, Shown};

/// Events between the engine and the log; nothing waits there.
const EVENTS: usize = 64;

/// How often a shut gate is looked at.
const GATE_LOOK: Duration = Duration::from_millis(100);

/// Follows the databases until a signal comes. Errors: unusable configuration, a port that somebody has, and what
/// stayed behind at the end.
pub(crate) async fn run(args: &RunArgs, source: Source, file: File) -> Result<()> {
    // From here on a signal means a clean stop.
    let mut signals = Signals::listen()?;
    let configuration = source.resolve(file)?;
    let mut process = Process::new(args, source, &configuration).await?;
    let stop = CancellationToken::new();
    let ended = process.watch(configuration, &stop);
    tokio::pin!(ended);
    let unfinished = loop {
        tokio::select! {
            ended = &mut ended => break ended?,
            _ = signals.next() => {
                info!("stopping: shipping what is left");
                stop.cancel();
            }
        }
    };
    report::left_behind(&unfinished)
}

/// What stays the same while the databases and their store change.
struct Process {
    source: Source,
    grace: Duration,
    gate: Gate,
    gated: bool,
    meter: Meter,
    clock: Clock,
    serving: Serving,
    shown: Option<Arc<Shown>>,
}

impl Process {
    async fn new(args: &RunArgs, source: Source, configuration: &Configuration) -> Result<Self> {
        let gate = Gate::of(source.environment());
        let resolved = &configuration.resolved;
        let gated = gate.is_shut(resolved.store.gate_startup, &resolved.databases);
        Ok(Self {
            source,
            grace: args.grace,
            gate,
            gated,
            meter: Meter::default(),
            clock: Clock::system(),
            serving: Serving::default(),
            shown: None,
        })
    }

    /// Watches until `stop`, over changes of the store's settings.
    async fn watch(
        &mut self,
        mut configuration: Configuration,
        stop: &CancellationToken,
    ) -> Result<Vec<Unfinished>> {
        loop {
            // Ends one turn alone.
            let turn = stop.child_token();
            let (events, mut happened) = mpsc::channel::<WatchEvent>(EVENTS);
            let options = self.options(&configuration).await?;
            let mut watch = Watch::new(options, events, &turn)?;
            let shown = self.show(&configuration, &watch).await?;
            let board = shown.board.clone();
            if let Some(requests) = watch.requests() {
                self.serving.requests(board.clone(), requests);
            }
            let keeper = Keeper::new(self.source.clone(), board.clone(), configuration);
            let following = watch.follow(keeper.wanted(), turn.clone());
            let keeping = keeper.run();
            let (gate, gated) = (&self.gate, self.gated);
            let side = async { tokio::join!(serving::remember(&shown), hold(gate, gated, &board)) };
            tokio::pin!(following, keeping, side);
            let mut next = None;
            let unfinished = loop {
                tokio::select! {
                    biased;
                    Some(event) = happened.recv() => report::watched(&event),
                    unfinished = &mut following => break unfinished,
                    changed = &mut keeping, if next.is_none() => {
                        next = Some(changed);
                        turn.cancel();
                    }
                    _ = &mut side => {}
                }
            };
            while let Ok(event) = happened.try_recv() {
                report::watched(&event);
            }
            match next.filter(|_| !stop.is_cancelled()) {
                None => return Ok(unfinished),
                Some(changed) => {
                    // It waits on the local disk, and goes to the store that is named now.
                    for left in &unfinished {
                        tracing::warn!(db = %left.name, "left for the next turn: {}", left.error);
                    }
                    self.gated &= !started(&board.look());
                    configuration = changed;
                }
            }
        }
    }

    async fn options(&self, configuration: &Configuration) -> Result<WatchOptions> {
        let resolved = &configuration.resolved;
        let store = &resolved.store;
        Ok(WatchOptions {
            store: open_metered(&store.store_config(), &self.meter).await?,
            prefix: store.location.prefix(),
            databases: walrust_core::config::Rescan::new(resolved)
                .wanted()
                .to_vec(),
            permission: Permission::default(),
            checksums: store.checksums,
            lease: store.lease.into(),
            lease_duration: store.lease_duration,
            until: Until::Stopped,
            patient: true,
            behind_gate: self.gated,
            memory_limit: resolved.memory_limit,
            grace: self.grace,
            clock: self.clock.clone(),
        })
    }

    /// Serves `watch`: for the first time, or in the place of the one before.
    async fn show(&mut self, configuration: &Configuration, watch: &Watch) -> Result<Arc<Shown>> {
        let resolved = &configuration.resolved;
        let subject = Subject::Watch(watch.handle());
        if let Some(shown) = &self.shown {
            shown.board.turn_to(subject);
            shown.set_location(&resolved.store.location);
            show(&shown.board, resolved);
            return Ok(shown.clone());
        }
        let settings = resolved.metrics.finish(Some(EVERYWHERE), Some(LOOPBACK));
        let hash = resolved.config_hash.clone();
        let facts = Facts {
            pod: pod(&self.source),
            paused: resolved.paused(),
            missing: resolved.missing(),
            ready_lag: settings.ready_lag,
            gated: self.gated,
            ..Facts::new(Mode::Watch, hash, self.clock.now())
        };
        let board = Board::new(facts, subject, self.meter.clone(), self.clock.clone());
        let shown = Arc::new(Shown::new(
            Arc::new(board),
            &resolved.store.location,
            History::default(),
        ));
        serving::start(&mut self.serving, &shown, settings).await?;
        if let Some(url) = resolved.heartbeat.clone() {
            self.serving
                .heartbeat(shown.board.clone(), Heartbeat::new(url)?);
        }
        Ok(self.shown.insert(shown).clone())
    }
}

/// The pod's name.
pub(crate) fn pod(source: &Source) -> Option<String> {
    source
        .environment()
        .filled("WALRUST_POD_NAME")
        .map(str::to_owned)
}

/// Opens the gate once everything is ours.
async fn hold(gate: &Gate, gated: bool, board: &Board) {
    if gated {
        info!("the application is held until the streams are ours");
        while !started(&board.look()) {
            tokio::time::sleep(GATE_LOOK).await;
        }
        info!("the application may start");
    }
    gate.opened();
    board.open_gate();
}
