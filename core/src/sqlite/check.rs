//! SQLite's own opinion of a database that nobody else has open, such as a staged restore.

use std::path::Path;

use super::attach::resolve;
use super::connection::{Access, Conn};
use crate::error::{Error, ErrorKind, Result};

/// How many faults are named.
const FAULTS_NAMED: usize = 3;
/// Page cache of a check, in KiB: the check walks every b-tree once, so that more helps little.
const CACHE_KIB: u32 = 8192;

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Checked {
    /// All is well.
    Sound,
    /// The check could not look everywhere, for the given reason: the schema needs a collation or
    /// function that only the app has. No fault was found.
    Partly(String),
}

/// Runs `PRAGMA quick_check`: the structure of all pages, not whether indexes match their tables.
///
/// The file is opened as immutable: nothing is made beside it, and nobody may write it meanwhile.
///
/// # Errors
/// `Corrupt`, naming the first faults.
pub fn quick_check(path: &Path) -> Result<Checked> {
    check(path, "quick_check")
}

/// Runs `PRAGMA integrity_check`: all of [`quick_check`], and indexes against their tables. Five times
/// slower (ic.py).
///
/// # Errors
/// `Corrupt`, naming the first faults.
pub fn integrity_check(path: &Path) -> Result<Checked> {
    check(path, "integrity_check")
}

fn check(path: &Path, pragma: &str) -> Result<Checked> {
    let conn = Conn::open(&resolve(path)?, Access::Immutable)?;
    let found = conn
        .execute(&format!("PRAGMA cache_size=-{CACHE_KIB}"))
        .and_then(|()| conn.column(&format!("PRAGMA {pragma}({FAULTS_NAMED})"), FAULTS_NAMED));
    let faults = match found {
        Ok(lines) => lines,
        Err(error) if needs_the_app(error.message()) => {
            return Ok(Checked::Partly(error.message().to_owned()));
        }
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            return Err(Error::new(ErrorKind::Corrupt, error.message()).on(path.display()));
        }
        Err(error) => return Err(error),
    };
    match faults.as_slice() {
        [only] if only == "ok" => Ok(Checked::Sound),
        faults => {
            let faults = faults.join("; ");
            Err(Error::new(ErrorKind::Corrupt, format!("{pragma}: {faults}")).on(path.display()))
        }
    }
}

/// Whether SQLite misses something that only the app registers. Its result code is the general one, so
/// that only the text tells.
fn needs_the_app(message: &str) -> bool {
    [
        "no such collation sequence",
        "no such function",
        "unknown function",
        "no such module",
        "unknown tokenizer",
    ]
    .iter()
    .any(|text| message.contains(text))
}
