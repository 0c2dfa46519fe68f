//! walrust: continuous backup, restore and replication of SQLite databases to S3-compatible storage.

mod args;
mod commands;
mod exit;
mod near;
mod output;
mod settings;
mod telemetry;
mod wire;

use std::process::ExitCode;

use clap::Parser as _;
use walrust_core::config::{Environment, LogFormat};

use crate::args::Cli;
use crate::output::Out;
use crate::settings::Settings;

fn main() -> ExitCode {
    walrust_core::memory::give_back_promptly();
    let Cli { global, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let arguments = std::env::args_os().skip(1);
            let arguments: Vec<String> = arguments
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect();
            return exit::usage(&error, &arguments);
        }
    };
    let (name, how) = (command.name(), global.exit_codes);
    let mut out = Some(Out::stdout(global.json));
    let settings = match Settings::load(&global, &command, Environment::of_process()) {
        Ok(settings) => settings,
        Err(error) => {
            let format = global.log_format.unwrap_or(LogFormat::Text);
            telemetry::start(&global, format, &Environment::of_process());
            let out = Out::stdout(global.json);
            return exit::end(name, out, Err(error.into()), format, how);
        }
    };
    let format = settings.log_format();
    telemetry::start(&global, format, settings.environment());
    let result = commands::run(command, &global, &settings, &mut out);
    // A page that did not come back has a reader who stopped reading.
    let out = out.unwrap_or_else(|| Out::nowhere(global.json));
    exit::end(name, out, result, format, how)
}
