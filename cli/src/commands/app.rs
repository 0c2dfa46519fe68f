//! `watch --exec`: the application runs beneath us, and what it committed last is stored after it ended.

use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use walrust_core::{Error, ErrorKind, Result};

/// A command line as a shell would split it; there is no shell, so that a signal reaches the application
/// itself and an image needs none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    program: String,
    arguments: Vec<String>,
}

impl std::str::FromStr for CommandLine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = shell_words::split(text)
            .map_err(|error| error.to_string())?
            .into_iter();
        Ok(Self {
            program: words.next().ok_or("no command")?,
            arguments: words.collect(),
        })
    }
}

/// A running application.
pub(super) struct App {
    program: String,
    child: Child,
    status: Option<ExitStatus>,
}

impl App {
    /// Starts it, with our standard input and output.
    pub(super) fn start(command: &CommandLine) -> Result<Self> {
        let child = Command::new(&command.program)
            .args(&command.arguments)
            // Whatever ends us early must not leave an application that nobody backs up.
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::io(&command.program, error).hint("named by --exec"))?;
        Ok(Self {
            program: command.program.clone(),
            child,
            status: None,
        })
    }

    /// Passes a signal on, unless the terminal gave it to both of us.
    pub(super) fn pass_on(&self, signal: Signal) {
        if signal == Signal::INT && std::io::stdin().is_terminal() {
            return;
        }
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw)
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::warn!(program = %self.program, %error, "the signal was not passed on");
        }
    }

    /// Waits for its end.
    pub(super) async fn wait(&mut self) {
        match self.child.wait().await {
            Ok(status) => {
                self.status = Some(status);
                tracing::info!(program = %self.program, %status, "the application ended");
            }
            Err(error) => {
                tracing::error!(program = %self.program, %error, "the application is lost");
                self.status = Some(ExitStatus::from_raw(1 << 8));
            }
        }
    }

    /// Whether it still runs.
    pub(super) fn runs(&self) -> bool {
        self.status.is_none()
    }

    /// Its exit status as a shell gives it, where that is not 0.
    pub(super) fn failure(&self) -> Option<u8> {
        let status = self.status?;
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        u8::try_from(code).ok().filter(|code| *code != 0)
    }
}

/// The end of a watch whose application still ran.
pub(super) fn ended_before() -> Error {
    Error::new(
        ErrorKind::NotDurable,
        "the watch ended before the application, which was stopped",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_split_as_a_shell_does() {
        let line: CommandLine = "app --name 'a b' \"c\" d\\ e".parse().unwrap();
        assert_eq!(line.program, "app");
        assert_eq!(line.arguments, ["--name", "a b", "c", "d e"]);
        assert!("".parse::<CommandLine>().is_err());
        assert!("app 'open".parse::<CommandLine>().is_err());
    }

    #[tokio::test]
    async fn the_status_is_that_of_a_shell() {
        for (line, status) in [
            ("true", None),
            ("sh -c 'exit 7'", Some(7)),
            ("sh -c 'kill -9 $$'", Some(137)),
        ] {
            let mut app = App::start(&line.parse().unwrap()).unwrap();
            assert!(app.runs());
            app.wait().await;
            assert!(!app.runs());
            assert_eq!(app.failure(), status, "{line}");
        }
        let missing = App::start(&"/no/such/program".parse().unwrap());
        assert!(missing.is_err_and(|error| error.to_string().contains("--exec")));
    }
}
