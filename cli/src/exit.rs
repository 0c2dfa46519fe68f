//! How the process ends: messages and exit status (R133).

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap::error::ErrorKind as UsageKind;
use tracing::error;
use walrust_core::config::LogFormat;
use walrust_core::{Error, ErrorKind};

use crate::args::{Cli, ExitCodes};
use crate::output::{self, Out};

/// Why a command fails.
#[derive(Debug)]
pub(crate) enum Failed {
    /// What is still to be told.
    Error(Error),
    /// What the output already says.
    Told(ErrorKind),
    /// The application of `watch --exec` ended with this status, which becomes ours.
    Status(u8),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Failed {
    /// The most telling of several kinds: the first one that is not merely an error.
    pub(crate) fn told(kinds: impl IntoIterator<Item = ErrorKind>) -> Result<(), Self> {
        let mut kinds = kinds.into_iter().peekable();
        let Some(first) = kinds.peek().copied() else {
            return Ok(());
        };
        let telling = kinds.find(|kind| kind.fine_exit_status() != 1);
        Err(Self::Told(telling.unwrap_or(first)))
    }
}

/// The exit status of an error of `kind`.
fn status(kind: ErrorKind, how: ExitCodes) -> ExitCode {
    match how {
        ExitCodes::Simple => ExitCode::FAILURE,
        ExitCodes::Fine => ExitCode::from(kind.fine_exit_status()),
    }
}

/// Tells how `command` ended, and the status for it.
pub(crate) fn end(
    command: &str,
    mut out: Out,
    result: Result<(), Failed>,
    format: LogFormat,
    how: ExitCodes,
) -> ExitCode {
    let kind = match result {
        Ok(()) => None,
        Err(Failed::Status(status)) => {
            // Nothing that fails here matters more to whoever started the application.
            let _ = out.finish();
            return ExitCode::from(status);
        }
        Err(Failed::Told(kind)) => Some(kind),
        Err(Failed::Error(error)) => {
            tell(command, &error, format);
            output::json_error(&mut out, &error);
            Some(error.kind())
        }
    };
    match (out.finish(), kind) {
        (Err(error), None) => {
            tell(command, &error, format);
            status(error.kind(), how)
        }
        (_, Some(kind)) => status(kind, how),
        (Ok(()), None) => ExitCode::SUCCESS,
    }
}

/// One line on stderr for each line of the error: the faults of a configuration file have one each.
pub(crate) fn tell(command: &str, error: &Error, format: LogFormat) {
    match format {
        LogFormat::Json => error!(
            command,
            kind = error.kind().name(),
            object = error.object(),
            hint = error.next_step(),
            "{}",
            error.message()
        ),
        LogFormat::Text => {
            for line in error.to_string().lines() {
                output::diagnostic(command, line);
            }
        }
    }
    if error.kind() == ErrorKind::Internal {
        output::diagnostic(command, "this is a defect of walrust; please report it");
    }
}

/// Ends over a command line that does not parse, or that asks for help or version.
pub(crate) fn usage(error: &clap::Error, arguments: &[String]) -> ExitCode {
    let after = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let is_fine = after("--exit-codes") == Some("fine")
        || arguments
            .iter()
            .any(|argument| argument == "--exit-codes=fine");
    let how = if is_fine {
        ExitCodes::Fine
    } else {
        ExitCodes::Simple
    };
    let is_json = arguments.iter().any(|argument| argument == "--json");
    match error.kind() {
        UsageKind::DisplayHelp => print(&error.render().to_string(), how),
        UsageKind::DisplayVersion => {
            print(concat!("walrust ", env!("CARGO_PKG_VERSION"), "\n"), how)
        }
        UsageKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            output::diagnostic("", &format!("no command is given\n\n{}", error.render()));
            status(ErrorKind::Invalid, how)
        }
        _ => {
            let command = command_in(arguments);
            let error = one_line(error, &command);
            end(
                &command,
                Out::stdout(is_json),
                Err(error.into()),
                LogFormat::Text,
                how,
            )
        }
    }
}

/// Prints a text that was asked for.
fn print(text: &str, how: ExitCodes) -> ExitCode {
    let mut out = Out::stdout(false);
    out.raw(text);
    end("", out, Ok(()), LogFormat::Text, how)
}

/// The command among the arguments, for the message's beginning.
fn command_in(arguments: &[String]) -> String {
    let program = Cli::command();
    let names: Vec<&str> = program
        .get_subcommands()
        .flat_map(|command| std::iter::once(command.get_name()).chain(command.get_all_aliases()))
        .collect();
    let command = arguments
        .iter()
        .find(|argument| names.contains(&argument.as_str()));
    command.cloned().unwrap_or_default()
}

/// The parser's message in one line, with the way to help as the next step (R11).
fn one_line(error: &clap::Error, command: &str) -> Error {
    let text = error.render().to_string();
    let message = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .map(|line| line.strip_prefix("error: ").unwrap_or(line))
        .collect::<Vec<_>>()
        .join(" ");
    let space = if command.is_empty() { "" } else { " " };
    Error::new(ErrorKind::Invalid, message).hint(format!("see: walrust{space}{command} --help"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_failures_end_with_the_most_telling_status() {
        assert!(Failed::told([]).is_ok());
        for (kinds, expected) in [
            (
                vec![ErrorKind::Unavailable, ErrorKind::Fenced],
                ErrorKind::Fenced,
            ),
            (vec![ErrorKind::Busy, ErrorKind::Denied], ErrorKind::Busy),
        ] {
            match Failed::told(kinds) {
                Err(Failed::Told(kind)) => assert_eq!(kind, expected),
                other => panic!("{other:?}"),
            }
        }
    }
}
