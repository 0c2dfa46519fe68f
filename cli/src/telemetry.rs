//! Logs, on stderr (R9, R139).

use std::io::{self, IsTerminal as _};

use walrust_core::config::{Environment, LogFormat};
use walrust_core::process::{Verbosity, start_logging};

use crate::args::Global;
use crate::output::{diagnostic, may_style};

/// Begins to log. `-v` and `-q` win over `RUST_LOG`, as the command line does everywhere (R5).
pub(crate) fn start(global: &Global, format: LogFormat, environment: &Environment) {
    let verbosity = match (global.quiet, global.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Warnings,
        (false, 1) => Verbosity::Told,
        (false, 2) => Verbosity::Commits,
        (false, _) => Verbosity::Everything,
    };
    let colors = may_style() && io::stderr().is_terminal();
    if let Err(error) = start_logging(verbosity, format, colors, environment) {
        diagnostic("", &error);
    }
}
