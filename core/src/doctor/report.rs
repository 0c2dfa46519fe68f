//! What was found.

use serde::Serialize;

use crate::error::{Error, ErrorKind};

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It holds.
    Ok,
    /// It holds well enough, and there is something to know.
    Note,
    /// It does not hold.
    Failed,
}

/// One thing that was checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// What: `put`, or a database's name and what of it.
    pub name: String,
    /// Whether it is good enough to go on; a note is.
    pub ok: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, on one line.
    pub message: String,
    /// What to change, on one line.
    pub hint: Option<String>,
    /// What failed it.
    #[serde(skip)]
    pub kind: Option<ErrorKind>,
}

impl Check {
    fn new(name: impl Into<String>, outcome: Outcome, message: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ok: outcome != Outcome::Failed,
            outcome,
            message: one_line(&message.into()),
            hint: None,
            kind: None,
        }
    }

    pub(super) fn ok(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(name, Outcome::Ok, message)
    }

    pub(super) fn note(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(name, Outcome::Note, message)
    }

    pub(super) fn failed(
        name: impl Into<String>,
        kind: ErrorKind,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            kind: Some(kind),
            ..Self::new(name, Outcome::Failed, message)
        }
        .hint(hint)
    }

    /// A check that `error` fails. Its own next step is the hint.
    pub(super) fn failed_because(name: impl Into<String>, error: &Error) -> Self {
        Self {
            hint: error.next_step().map(str::to_owned),
            kind: Some(error.kind()),
            ..Self::new(name, Outcome::Failed, error.message())
        }
    }

    /// With this hint, where there is none.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }
}

/// `text` without line ends: some errors of the SDK have many.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ")
}

/// All checks, in the order in which they were made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Whether none failed.
    pub ok: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    pub(super) fn new(checks: Vec<Check>) -> Self {
        Self {
            ok: checks.iter().all(|check| check.ok),
            checks,
        }
    }

    /// The checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| !check.ok)
    }
}
