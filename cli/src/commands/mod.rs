//! One module for each command.

pub(crate) mod app;
mod compact;
mod control;
mod doctor;
mod drill;
mod explain;
mod help;
mod list;
mod replicate;
mod restore;
mod snapshot;
mod streams;
mod verify;
mod watch;

use walrust_core::{Error, Result};

use crate::args::{Command, Global};
use crate::exit::Failed;
use crate::output::Out;
use crate::settings::Settings;

/// Runs `command`; `out` is where its result goes, and is taken where printing outlives this call.
pub(crate) fn run(
    command: Command,
    global: &Global,
    settings: &Settings,
    out: &mut Option<Out>,
) -> Result<(), Failed> {
    match command {
        Command::Watch(args) => watch::run(&args, settings, out),
        Command::Replicate(args) => replicate::run(&args, settings, out),
        command => {
            let Some(out) = out else {
                return Ok(());
            };
            match command {
                Command::Snapshot(args) => {
                    let wanted = !(args.no_progress || global.quiet || global.json);
                    snapshot::run(settings, wanted, out)
                }
                Command::Restore(args) => {
                    let wanted = !(args.no_progress || global.quiet || global.json);
                    restore::run(&args, settings, wanted, out)
                }
                Command::List(args) => list::run(&args, settings, out),
                Command::Verify(args) => {
                    let wanted = !(args.no_progress || global.quiet || global.json);
                    verify::run(&args, settings, wanted, out)
                }
                Command::Explain => explain::run(settings, out),
                Command::Drill(args) => drill::run(&args, settings, out),
                Command::Compact(args) => compact::run(&args, settings, out),
                Command::Doctor(_) => doctor::run(settings, out),
                Command::Status(args) => control::status(&args, out),
                Command::Sync(args) => control::sync(&args, out),
                Command::Detach(args) => control::detach(&args, out),
                Command::Completions { shell } => help::completions(shell, out),
                Command::Man { directory } => help::man(&directory, out).map_err(Failed::from),
                Command::Help { command } => help::help(command.as_deref(), out),
                Command::Watch(_) | Command::Replicate(_) => Ok(()),
            }
        }
    }
}

/// The runtime of one command: a single thread, for what a backup does is wait.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("runtime", error))
}
