//! `walrust replicate` (R101 to R115).

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;
use walrust_core::config::{MetricsLayer, StoreSettings};
use walrust_core::process::Signals;
use walrust_core::replica::ReplicaEvent;
use walrust_core::{Error, Result};

use super::runtime;
use crate::args::ReplicateArgs;
use crate::exit::Failed;
use crate::output::events::Printer;
use crate::output::{Out, text};
use crate::settings::Settings;
use crate::wire::{self, ReplicaJob};

/// Events between the replica and the printer; the printer never waits, so a few are enough.
const EVENTS: usize = 64;

/// Keeps a replica until a signal comes.
pub(crate) fn run(
    args: &ReplicateArgs,
    settings: &Settings,
    out: &mut Option<Out>,
) -> Result<(), Failed> {
    let store = settings.store()?;
    let job = ReplicaJob {
        name: args.source.name.clone(),
        local: args.local.clone(),
        settings: settings.replicate(),
        once: args.once,
        replace: args.replace,
        config_hash: settings.file().map(|file| file.hash.clone()),
        heartbeat: settings.file().and_then(|file| file.heartbeat.clone()),
    };
    let metrics = settings.metrics();
    let runtime = runtime()?;
    // Before anybody reads that we run: from then on a signal means a clean stop.
    let signals = {
        let _inside = runtime.enter();
        Signals::listen()?
    };
    if let Some(out) = out {
        announce(args, &job, out);
    }
    let Some(page) = out.take() else {
        return Ok(());
    };
    let printer = Printer::start(page).map_err(|error| Error::io("printer", error))?;
    let ended = runtime.block_on(replicate(&store, job, metrics, signals, &printer));
    // Whoever does not read standard output any more must not keep the process.
    *out = printer.finish();
    runtime.shutdown_background();
    ended.map_err(Failed::from)
}

/// The opening lines (R107).
fn announce(args: &ReplicateArgs, job: &ReplicaJob, out: &mut Out) {
    out.line(format!(
        "Replicating {} -> {}",
        args.source,
        args.local.display()
    ));
    if !job.once {
        let interval = text::interval(job.settings.interval);
        out.line(format!("Poll interval: {interval}"));
        out.line("Press Ctrl+C to stop");
    }
    out.line("");
}

async fn replicate(
    store: &StoreSettings,
    job: ReplicaJob,
    metrics: MetricsLayer,
    mut signals: Signals,
    printer: &Printer<ReplicaEvent>,
) -> Result<()> {
    let shutdown = CancellationToken::new();
    let (sender, mut events) = mpsc::channel::<ReplicaEvent>(EVENTS);
    let replica = wire::replicate(store, job, metrics, sender, shutdown.clone());
    tokio::pin!(replica);
    let ended = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => printer.print(event),
            ended = &mut replica => break ended,
            _ = signals.next() => {
                info!("stopping");
                shutdown.cancel();
            }
        }
    };
    while let Ok(event) = events.try_recv() {
        printer.print(event);
    }
    ended
}
