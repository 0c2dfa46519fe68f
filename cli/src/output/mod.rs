//! Everything that is printed: results on stdout, all else on stderr (R9).

pub(crate) mod compaction;
pub(crate) mod control;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod explanation;
pub(crate) mod listing;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod text;
pub(crate) mod verification;

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;
use walrust_core::{Error, Result};

/// Standard output, as text for people or as JSON.
pub(crate) struct Out {
    stdout: Box<dyn Write + Send>,
    json: bool,
    color: bool,
    failure: Option<io::Error>,
}

/// A JSON document: `v` first (interfaces.md), then the result's own fields.
#[derive(Serialize)]
struct Document<'r, T: Serialize> {
    v: u8,
    #[serde(flatten)]
    result: &'r T,
}

impl Out {
    /// The process's standard output.
    pub(crate) fn stdout(json: bool) -> Self {
        Self {
            stdout: Box::new(io::stdout()),
            json,
            color: !json && may_style() && io::stdout().is_terminal(),
            failure: None,
        }
    }

    /// A page that nobody reads.
    pub(crate) fn nowhere(json: bool) -> Self {
        Self {
            stdout: Box::new(io::sink()),
            json,
            color: false,
            failure: None,
        }
    }

    /// Whether results are JSON; then nothing else may be printed.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// One line for people.
    pub(crate) fn line(&mut self, line: impl Display) {
        if !self.json {
            self.write(&format!("{line}\n"));
        }
    }

    /// `result` as one JSON object on one line, where JSON is asked for.
    pub(crate) fn json(&mut self, result: &impl Serialize) {
        if self.json {
            self.document(result);
        }
    }

    /// Text that somebody else composed: help, completions.
    pub(crate) fn raw(&mut self, text: &str) {
        self.write(text);
    }

    /// The mark before what succeeded.
    pub(crate) fn check_mark(&self) -> &'static str {
        if self.color {
            "\u{1b}[32m✓\u{1b}[0m"
        } else {
            "✓"
        }
    }

    fn document(&mut self, result: &impl Serialize) {
        match serde_json::to_string(&Document { v: 1, result }) {
            Ok(text) => self.write(&format!("{text}\n")),
            Err(error) => self.failure = Some(error.into()),
        }
    }

    fn write(&mut self, text: &str) {
        if self.failure.is_some() {
            return;
        }
        let written = self.stdout.write_all(text.as_bytes());
        if let Err(error) = written.and_then(|()| self.stdout.flush()) {
            self.failure = Some(error);
        }
    }

    /// That everything printed has arrived, as far as anybody wanted it.
    ///
    /// # Errors
    /// What writing failed with. A reader that has gone away has read enough: that is none.
    pub(crate) fn finish(self) -> Result<()> {
        match self.failure {
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Some(error) => Err(Error::io("standard output", error)),
            None => Ok(()),
        }
    }
}

#[derive(Serialize)]
struct Failure<'e> {
    error: FailureFields<'e>,
}

#[derive(Serialize)]
struct FailureFields<'e> {
    kind: &'static str,
    message: &'e str,
    object: Option<&'e str>,
    hint: Option<&'e str>,
}

/// Prints why a command fails as the JSON object, where results are JSON.
pub(crate) fn json_error(out: &mut Out, error: &Error) {
    out.json(&Failure {
        error: FailureFields {
            kind: error.kind().name(),
            message: error.message(),
            object: error.object(),
            hint: error.next_step(),
        },
    });
}

/// One line on stderr. Where nobody can read it, there is nobody to tell.
pub(crate) fn diagnostic(command: &str, line: &str) {
    let space = if command.is_empty() { "" } else { " " };
    let _ = writeln!(io::stderr(), "walrust{space}{command}: {line}");
}

/// Whether colours and cursor movements are welcome at all (R10).
pub(crate) fn may_style() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::{Arc, Mutex};

    use walrust_core::ErrorKind;

    use super::*;

    /// What was printed.
    #[derive(Clone, Default)]
    pub(crate) struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `print` prints, as text or as JSON.
    pub(crate) fn printed(json: bool, print: impl FnOnce(&mut Out)) -> String {
        let page = Page::default();
        let mut out = Out {
            stdout: Box::new(page.clone()),
            json,
            color: false,
            failure: None,
        };
        print(&mut out);
        out.finish().unwrap();
        page.text()
    }

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_broken_pipe_is_success_and_a_full_disk_is_not() {
        let finish = |kind| {
            let mut out = Out {
                stdout: Box::new(Broken(kind)),
                json: false,
                color: false,
                failure: None,
            };
            out.line("lost");
            out.finish()
        };
        assert!(finish(io::ErrorKind::BrokenPipe).is_ok());
        let error = finish(io::ErrorKind::StorageFull).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
    }

    #[test]
    fn an_error_as_json_has_all_its_fields() {
        let failure = Error::new(ErrorKind::NotFound, "no backup of this name")
            .on("app.db")
            .hint("see: walrust list");
        assert_eq!(
            printed(true, |out| json_error(out, &failure)),
            "{\"v\":1,\"error\":{\"kind\":\"not_found\",\"message\":\"no backup of this name\",\
             \"object\":\"app.db\",\"hint\":\"see: walrust list\"}}\n"
        );
        assert_eq!(printed(false, |out| json_error(out, &failure)), "");
    }
}
