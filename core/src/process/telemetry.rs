//! Logs, on stderr (R9, R139).

use std::io;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::config::{Environment, LogFormat};

/// How much is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verbosity {
    /// Errors only.
    Quiet,
    /// What `RUST_LOG` says; where that is not set, warnings and errors.
    Warnings,
    /// What `RUST_LOG` says; where that is not set, also what walrust does.
    Work,
    /// What walrust does, whatever `RUST_LOG` says.
    Told,
    /// Also each commit.
    Commits,
    /// Everything, libraries included.
    Everything,
}

/// Begins to log; gives what is wrong with `RUST_LOG`, which then counts as unset. A second call in one process
/// keeps what the first began.
pub fn start_logging(
    verbosity: Verbosity,
    format: LogFormat,
    colors: bool,
    environment: &Environment,
) -> Result<(), String> {
    let (filter, told) = filter(verbosity, environment);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(false)
        .with_ansi(format == LogFormat::Text && colors);
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    told
}

fn filter(verbosity: Verbosity, environment: &Environment) -> (EnvFilter, Result<(), String>) {
    let of_walrust = |level: &str| {
        let names = ["walrust", "walrust_core", "walrust_sidecar"];
        let directives = names.map(|name| format!(",{name}={level}")).concat();
        EnvFilter::new(format!("warn{directives}"))
    };
    let warnings = || {
        let default = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into());
        default.parse_lossy("")
    };
    let fallback = match verbosity {
        Verbosity::Quiet => return (EnvFilter::new("error"), Ok(())),
        Verbosity::Told => return (of_walrust("info"), Ok(())),
        Verbosity::Commits => return (of_walrust("debug"), Ok(())),
        Verbosity::Everything => return (EnvFilter::new("trace"), Ok(())),
        Verbosity::Warnings => warnings(),
        Verbosity::Work => of_walrust("info"),
    };
    match environment.filled("RUST_LOG").map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, Ok(())),
        Some(Err(error)) => (fallback, Err(format!("RUST_LOG: {error}"))),
        None => (fallback, Ok(())),
    }
}
