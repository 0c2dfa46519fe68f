//! What is wrong in a configuration file, and where.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind};

/// A place in a text file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What, in one line.
    pub message: String,
}

/// Everything that is wrong in one file; never empty where it is an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Faults {
    /// The file.
    pub path: PathBuf,
    /// In the order of the file.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Faults {
    /// One line each: `file:line:column: what`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            let path = self.path.display();
            write!(f, "{separator}{path}:{}: {}", fault.place, fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl From<Faults> for Error {
    /// The message holds one line for each fault.
    fn from(faults: Faults) -> Self {
        Self::new(ErrorKind::Invalid, faults.to_string())
    }
}

/// The text of a configuration file, which knows where its bytes stand.
pub(super) struct Source<'t>(pub(super) &'t str);

impl Source<'_> {
    /// The place of the first byte of `span`.
    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let before = self.0.get(..span.start).unwrap_or(self.0);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}
