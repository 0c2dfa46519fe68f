//! `walrust watch` (R41 to R70).

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use walrust_core::config::{Resolved, Unmatched};
use walrust_core::engine::{Permission, Unfinished, WatchEvent};
use walrust_core::{Error, ErrorKind, Result};

use super::runtime;
use crate::args::WatchArgs;
use crate::exit::Failed;
use crate::output::Out;
use crate::output::events::Printer;
use crate::settings::Settings;
use crate::signals::Signals;
use crate::wire::{self, WatchOptions};

/// Events between the engine and the printer; the printer never waits, so a few are enough.
const EVENTS: usize = 64;

/// Signals within this time of each other are one.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Watches until a signal comes.
pub(crate) fn run(
    args: &WatchArgs,
    settings: &Settings,
    out: &mut Option<Out>,
) -> Result<(), Failed> {
    let resolved = settings.resolve()?;
    let options = WatchOptions {
        once: args.once,
        permission: Permission {
            adopt: args.adopt,
            new_chain: args.new_chain,
            adopt_at: None,
        },
    };
    let unmatched = resolved.unmatched.clone();
    let runtime = runtime()?;
    // Before anybody reads that we run: from then on a signal means a clean stop.
    let signals = {
        let _inside = runtime.enter();
        Signals::listen()?
    };
    if let Some(out) = out {
        announce(&resolved, out);
    }
    let Some(page) = out.take() else {
        return Ok(());
    };
    let printer = Printer::start(page).map_err(|error| Error::io("printer", error))?;
    let ended = runtime.block_on(watch(resolved, options, signals, &printer));
    // Whoever does not read standard output any more must not keep the process.
    *out = printer.finish();
    runtime.shutdown_background();
    conclude(ended?, &unmatched)
}

/// The opening lines (R52).
fn announce(resolved: &Resolved, out: &mut Out) {
    out.line(format!(
        "Watching {} database(s)...",
        resolved.databases.len()
    ));
    for database in &resolved.databases {
        out.line(format!("  - {}", database.name));
    }
    out.line("");
    for pattern in &resolved.unmatched {
        let shown = pattern.pattern.display();
        match pattern.optional {
            true => info!(pattern = %shown, "waiting for a file that matches"),
            false => error!(pattern = %shown, "{}", pattern.message),
        }
    }
}

async fn watch(
    resolved: Resolved,
    options: WatchOptions,
    mut signals: Signals,
    printer: &Printer,
) -> Result<Vec<Unfinished>> {
    let mut asked: Option<Instant> = None;
    let shutdown = CancellationToken::new();
    let (sender, mut events) = mpsc::channel::<WatchEvent>(EVENTS);
    let engine = wire::watch(resolved, options, sender, shutdown.clone());
    tokio::pin!(engine);
    let ended = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => printer.print(event),
            ended = &mut engine => break ended,
            () = signals.next() => {
                // One wish to stop may come as several signals: from a supervisor to the process and to its
                // group, say.
                let again = asked.is_some_and(|first| first.elapsed() < SAME_WISH);
                if again {
                    continue;
                }
                asked = Some(Instant::now());
                if shutdown.is_cancelled() {
                    let message = "a second signal came before everything was stored";
                    break Err(Error::new(ErrorKind::NotDurable, message)
                        .hint("what is captured waits in the state directory for the next start"));
                }
                info!("stopping: shipping what is left; a second signal stops at once");
                shutdown.cancel();
            }
        }
    };
    while let Ok(event) = events.try_recv() {
        printer.print(event);
    }
    ended
}

/// Names each database that did not end well (R65, R67a).
fn conclude(unfinished: Vec<Unfinished>, unmatched: &[Unmatched]) -> Result<(), Failed> {
    let mut kinds = Vec::new();
    for Unfinished {
        name,
        durable,
        error,
    } in unfinished
    {
        let durable = match durable {
            Some(txid) => format!("stored up to TXID {}", txid.get()),
            None => "nothing is stored".to_owned(),
        };
        error!(db = %name, kind = error.kind().name(), "{error}; {durable}");
        kinds.push(error.kind());
    }
    let missing = unmatched.iter().filter(|pattern| !pattern.optional);
    kinds.extend(missing.map(|_| ErrorKind::NotFound));
    Failed::told(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_failed_or_a_pattern_without_files_ends_in_an_error() {
        let unmatched = |optional| Unmatched {
            pattern: "/data/*.db".into(),
            optional,
            message: "no file matches".to_owned(),
        };
        assert!(conclude(Vec::new(), &[]).is_ok());
        assert!(conclude(Vec::new(), &[unmatched(true)]).is_ok());
        assert!(conclude(Vec::new(), &[unmatched(false)]).is_err());
        let fenced = Unfinished {
            name: "app.db".parse().unwrap(),
            durable: None,
            error: Error::new(ErrorKind::Fenced, "another writer"),
        };
        assert!(matches!(
            conclude(vec![fenced], &[]),
            Err(Failed::Told(ErrorKind::Fenced))
        ));
    }
}
