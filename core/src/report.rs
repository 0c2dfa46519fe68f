//! What a scheduled task leaves for whoever started it: a Kubernetes Job's termination message, at most
//! [`MOST_BYTES`] long.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::types::{Timestamp, Txid};

/// The longest termination message that Kubernetes keeps.
pub const MOST_BYTES: usize = 4096;

/// A longer message says nothing more to whoever reads it in a status.
const LONGEST_MESSAGE: usize = 600;

/// What ran.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// `compact`.
    Compact,
    /// `verify`.
    Verify,
    /// `drill`.
    Drill,
    /// `restore`.
    Restore,
}

/// One database of a report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobEntry {
    /// Its name in the bucket.
    pub name: String,
    /// Whether all went well.
    pub ok: bool,
    /// The state that it is about.
    pub txid: Option<Txid>,
    /// What happened, in one line.
    pub message: String,
}

/// How a task went.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobReport {
    /// The version of this format.
    v: u32,
    /// What ran.
    pub task: Task,
    /// Whether all went well, also for the databases that are left out here.
    pub ok: bool,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// The databases, those that did not go well first.
    pub databases: Vec<JobEntry>,
    /// Whether databases or parts of messages are left out for length.
    pub truncated: bool,
}

impl JobReport {
    /// A report over `databases`, worst first.
    pub fn new(
        task: Task,
        started: Timestamp,
        finished: Timestamp,
        mut databases: Vec<JobEntry>,
    ) -> Self {
        databases.sort_by_key(|entry| entry.ok);
        Self {
            v: 1,
            task,
            ok: databases.iter().all(|entry| entry.ok),
            started,
            finished,
            databases,
            truncated: false,
        }
    }

    /// The report as JSON that fits: messages are cut, and the databases that went best are left out.
    ///
    /// Errors: `Internal`.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut fitting = Self {
            databases: Vec::new(),
            // The longer of the two words.
            truncated: false,
            ..self.clone()
        };
        let mut room = MOST_BYTES.saturating_sub(json(&fitting)?.len());
        for entry in &self.databases {
            let mut entry = entry.clone();
            let mut longest = LONGEST_MESSAGE;
            fitting.truncated |= cut(&mut entry.message, longest);
            let mut bytes = json(&entry)?;
            // The worst one is always told, however long its name.
            while fitting.databases.is_empty() && bytes.len() > room && longest > 0 {
                longest /= 2;
                fitting.truncated |= cut(&mut entry.message, longest);
                bytes = json(&entry)?;
            }
            let Some(left) = room.checked_sub(bytes.len() + 1) else {
                fitting.truncated = true;
                break;
            };
            room = left;
            fitting.databases.push(entry);
        }
        json(&fitting)
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()).because(error))
}

/// Cuts `text` to at most `longest` bytes; whether anything was cut.
fn cut(text: &mut String, longest: usize) -> bool {
    if text.len() <= longest {
        return false;
    }
    let end = (0..=longest).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, ok: bool, message: &str) -> JobEntry {
        JobEntry {
            name: name.to_owned(),
            ok,
            txid: Txid::new(7),
            message: message.to_owned(),
        }
    }

    fn report(databases: Vec<JobEntry>) -> JobReport {
        let time = Timestamp::from_millis(0);
        JobReport::new(Task::Verify, time, time, databases)
    }

    fn fitted(report: &JobReport) -> JobReport {
        let bytes = report.to_bytes().unwrap();
        assert!(bytes.len() <= MOST_BYTES, "{}", bytes.len());
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_short_report_is_whole_and_worst_first() {
        let report = report(vec![
            entry("a.db", true, "3 files verified"),
            entry("b.db", false, "x.ltx: File missing from S3"),
        ]);
        assert_eq!(
            String::from_utf8(report.to_bytes().unwrap()).unwrap(),
            concat!(
                r#"{"v":1,"task":"verify","ok":false,"started":"1970-01-01T00:00:00Z","finished":"1970-01-01T00:00:00Z","#,
                r#""databases":[{"name":"b.db","ok":false,"txid":7,"message":"x.ltx: File missing from S3"},"#,
                r#"{"name":"a.db","ok":true,"txid":7,"message":"3 files verified"}],"truncated":false}"#
            )
        );
        assert_eq!(fitted(&report), report);
    }

    #[test]
    fn a_long_report_keeps_the_worst_and_says_that_it_is_cut() {
        let mut many: Vec<JobEntry> = (0..10_000)
            .map(|number| entry(&format!("{number}.db"), true, "fine"))
            .collect();
        many.push(entry("bad.db", false, &"é".repeat(3000)));
        let fitted = fitted(&report(many));
        assert!(fitted.truncated && !fitted.ok);
        assert_eq!(fitted.databases[0].name, "bad.db");
        assert_eq!(fitted.databases[0].message.len(), LONGEST_MESSAGE);
        assert!(fitted.databases.len() > 30);
    }

    #[test]
    fn the_worst_is_told_however_long_it_is() {
        let control = "\u{1}".repeat(5000);
        for name in ["a".to_owned(), "\u{1}".repeat(500)] {
            let fitted = fitted(&report(vec![entry(&name, false, &control)]));
            assert_eq!(fitted.databases.len(), 1);
            assert!(fitted.truncated);
        }
    }
}
