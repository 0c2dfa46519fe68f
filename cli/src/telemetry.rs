//! Logs, on stderr (R9, R139).

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use walrust_core::config::{Environment, LogFormat};

use crate::args::Global;
use crate::output::{diagnostic, may_style};

/// Begins to log. `-v` and `-q` win over `RUST_LOG`, as the command line does everywhere (R5).
pub(crate) fn start(global: &Global, format: LogFormat, environment: &Environment) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(global, environment))
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(format == LogFormat::Text && may_style() && io::stderr().is_terminal());
    // A second call, in one process, keeps the first subscriber.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

fn filter(global: &Global, environment: &Environment) -> EnvFilter {
    let quiet_libraries =
        |level: &str| EnvFilter::new(format!("warn,walrust={level},walrust_core={level}"));
    match (global.quiet, global.verbose) {
        (true, _) => return EnvFilter::new("error"),
        (false, 0) => {}
        (false, 1) => return quiet_libraries("info"),
        (false, 2) => return quiet_libraries("debug"),
        (false, _) => return EnvFilter::new("trace"),
    }
    let default = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into());
    match environment.filled("RUST_LOG").map(EnvFilter::try_new) {
        Some(Ok(filter)) => filter,
        Some(Err(error)) => {
            diagnostic("", &format!("RUST_LOG: {error}"));
            default.parse_lossy("")
        }
        None => default.parse_lossy(""),
    }
}
