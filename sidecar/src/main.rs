//! walrust beside an application in its pod: it waits for the databases, follows them, answers probes, obeys a
//! changed configuration, and ships the last commit on the way out.

mod args;
mod configuration;
mod gate;
mod history;
mod keeper;
mod mount;
mod page;
mod reloads;
mod replicate;
mod report;
mod restore;
mod serving;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;
use walrust_core::config::Environment;
use walrust_core::process::{Verbosity, start_logging};
use walrust_core::{Error, Result};

use crate::args::{Cli, Command};
use crate::configuration::Source;

fn main() -> ExitCode {
    walrust_core::memory::give_back_promptly();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and the version are no errors; there is nowhere to tell that they cannot be printed.
            let _ = error.print();
            return match error.use_stderr() {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            };
        }
    };
    let environment = Environment::of_process();
    let source = cli.command.source(environment.clone());
    let read = source.read();
    let format = source.log_format(read.as_ref().ok());
    let logging = start_logging(Verbosity::Work, format, false, &environment);
    if let Err(error) = logging {
        tracing::warn!("{error}");
    }
    match read.and_then(|file| run(&cli.command, source, file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::ended(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command, source: Source, file: walrust_core::config::File) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::io("runtime", error))?;
    let ended = runtime.block_on(async {
        match command {
            Command::Watch(args) => watch::run(args, source, file).await,
            Command::Replicate(args) => replicate::run(args, source, file).await,
            Command::Restore(args) => restore::run(args, source, file).await,
        }
    });
    // What still waits for the store or a disk must not keep the process.
    runtime.shutdown_background();
    ended
}
