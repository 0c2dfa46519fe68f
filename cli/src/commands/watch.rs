//! `walrust watch` (R41 to R70).

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use walrust_core::config::Resolved;
use walrust_core::engine::{Permission, Unfinished, WatchEvent};
use walrust_core::process::Signals;
use walrust_core::{Error, ErrorKind, Result};

use super::app::{App, ended_before};
use super::restore::before_start;
use super::runtime;
use crate::args::WatchArgs;
use crate::exit::Failed;
use crate::output::Out;
use crate::output::events::Printer;
use crate::settings::Settings;
use crate::wire::{self, Ended, WatchOptions};

/// Events between the engine and the printer; the printer never waits, so a few are enough.
const EVENTS: usize = 64;

/// Signals within this time of each other are one.
const SAME_WISH: Duration = Duration::from_secs(1);

/// How long an application may take to end where the watch cannot go on.
const APP_GRACE: Duration = Duration::from_secs(10);

/// Watches until a signal comes.
pub(crate) fn run(
    args: &WatchArgs,
    settings: &Settings,
    out: &mut Option<Out>,
) -> Result<(), Failed> {
    let runtime = runtime()?;
    if args.exec.is_some()
        && let Some(out) = out
    {
        runtime.block_on(async {
            Signals::listen()?
                .interrupting(before_start(settings, &args.databases, out))
                .await
        })?;
    }
    let resolved = settings.resolve()?;
    let options = WatchOptions {
        once: args.once,
        // What was not restored is made by the application.
        wait_for_files: args.exec.is_some(),
        permission: Permission {
            adopt: args.adopt,
            new_chain: args.new_chain,
            adopt_at: None,
        },
    };
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
    let ended = runtime.block_on(async {
        let mut app = args.exec.as_ref().map(App::start).transpose()?;
        let scanned = settings.clone();
        let scan = move || scanned.resolve_any();
        let ended = watch(resolved, scan, options, signals, &printer, app.as_mut()).await;
        Ok::<_, Error>((ended, app.as_ref().and_then(App::failure)))
    });
    // Whoever does not read standard output any more must not keep the process.
    *out = printer.finish();
    runtime.shutdown_background();
    let (ended, failure) = ended?;
    match (conclude(ended?), failure) {
        (Ok(()), Some(status)) => Err(Failed::Status(status)),
        (concluded, _) => concluded,
    }
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
    scan: impl Fn() -> Result<Resolved> + Clone + Send + 'static,
    options: WatchOptions,
    mut signals: Signals,
    printer: &Printer<WatchEvent>,
    mut app: Option<&mut App>,
) -> Result<Ended> {
    let mut asked: Option<Instant> = None;
    let shutdown = CancellationToken::new();
    let (sender, mut events) = mpsc::channel::<WatchEvent>(EVENTS);
    let engine = wire::watch(resolved, scan, options, sender, shutdown.clone());
    tokio::pin!(engine);
    let ended = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => printer.print(event),
            ended = &mut engine => break ended,
            () = ended_app(app.as_deref_mut()) => shutdown.cancel(),
            signal = signals.next() => {
                if let Some(app) = app.as_deref().filter(|app| app.runs()) {
                    // Its last commits are stored once it has ended.
                    app.pass_on(signal);
                    continue;
                }
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
    if let Some(app) = app.filter(|app| app.runs()) {
        // Nobody stores what it commits from here on.
        app.pass_on(Signal::TERM);
        if tokio::time::timeout(APP_GRACE, app.wait()).await.is_err() {
            app.pass_on(Signal::KILL);
            app.wait().await;
        }
        for Unfinished { name, error, .. } in ended?.unfinished {
            error!(db = %name, kind = error.kind().name(), "{error}");
        }
        return Err(ended_before());
    }
    ended
}

/// Returns when the application has ended; never without one.
async fn ended_app(app: Option<&mut App>) {
    match app.filter(|app| app.runs()) {
        Some(app) => app.wait().await,
        None => std::future::pending().await,
    }
}

/// Names each database that did not end well (R65, R67a).
fn conclude(ended: Ended) -> Result<(), Failed> {
    let mut kinds = Vec::new();
    for Unfinished {
        name,
        durable,
        error,
    } in ended.unfinished
    {
        let durable = match durable {
            Some(txid) => format!("stored up to TXID {}", txid.get()),
            None => "nothing is stored".to_owned(),
        };
        error!(db = %name, kind = error.kind().name(), "{error}; {durable}");
        kinds.push(error.kind());
    }
    let missing = ended.unmatched.iter().filter(|pattern| !pattern.optional);
    kinds.extend(missing.map(|_| ErrorKind::NotFound));
    Failed::told(kinds)
}

#[cfg(test)]
mod tests {
    use walrust_core::config::Unmatched;

    use super::*;

    #[test]
    fn a_database_that_failed_or_a_pattern_without_files_ends_in_an_error() {
        let unmatched = |optional| Ended {
            unfinished: Vec::new(),
            unmatched: vec![Unmatched {
                pattern: "/data/*.db".into(),
                optional,
                message: "no file matches".to_owned(),
            }],
        };
        assert!(conclude(unmatched(true)).is_ok());
        assert!(conclude(unmatched(false)).is_err());
        let failed = Unfinished {
            name: "app.db".parse().unwrap(),
            durable: None,
            error: Error::new(ErrorKind::Fenced, "another writer"),
        };
        let fenced = |unfinished| Ended {
            unfinished,
            unmatched: Vec::new(),
        };
        assert!(conclude(fenced(Vec::new())).is_ok());
        assert!(matches!(
            conclude(fenced(vec![failed])),
            Err(Failed::Told(ErrorKind::Fenced))
        ));
    }
}
