//! Results of the commands: the JSON of interfaces.md section 3, and the lines for people.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};
use walrust_core::restore::Verify;
use walrust_core::types::{Checksum, DatabaseName, Digest, PageSize, Timestamp, Txid};

use super::{Out, text};

/// A transaction, as decimal number and as the hex digits of file names.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct TxidFields {
    pub(crate) txid: Option<Txid>,
    #[serde(serialize_with = "hex")]
    txid_hex: Option<Txid>,
}

impl From<Option<Txid>> for TxidFields {
    fn from(txid: Option<Txid>) -> Self {
        Self {
            txid,
            txid_hex: txid,
        }
    }
}

fn hex<S: Serializer>(txid: &Option<Txid>, serializer: S) -> Result<S::Ok, S::Error> {
    match txid {
        Some(txid) => serializer.collect_str(txid),
        None => serializer.serialize_none(),
    }
}

fn millis<S: Serializer>(length: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    // A path need not be UTF-8; JSON must be.
    serializer.serialize_str(&path.to_string_lossy())
}

/// What `snapshot` did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SnapshotReport {
    #[serde(serialize_with = "lossy")]
    pub(crate) database: PathBuf,
    pub(crate) name: DatabaseName,
    pub(crate) bucket: String,
    pub(crate) key: Option<String>,
    #[serde(flatten)]
    pub(crate) txid: TxidFields,
    pub(crate) bytes: u64,
    pub(crate) pages: u64,
    pub(crate) page_size: PageSize,
    pub(crate) checksum: Option<Checksum>,
    pub(crate) digest: Option<Digest>,
    #[serde(rename = "duration_ms", serialize_with = "millis")]
    pub(crate) duration: Duration,
    /// The head already held this state.
    pub(crate) skipped: bool,
}

impl SnapshotReport {
    /// The lines behind `Snapshotting …`, or the JSON (R34).
    pub(crate) fn print(&self, out: &mut Out) {
        let (mark, took) = (out.check_mark(), text::duration(self.duration));
        match self.skipped {
            false => out.line(format!(
                "{mark} Snapshot complete ({}, {took})",
                text::size(self.bytes)
            )),
            true => out.line(format!(
                "{mark} Nothing to do: {} already holds this state{}",
                self.name,
                self.at()
            )),
        }
        if let Some(checksum) = self.checksum {
            out.line(format!("  Checksum: {checksum}..."));
        }
        out.json(self);
    }

    fn at(&self) -> String {
        self.txid
            .txid
            .map_or_else(String::new, |txid| format!(" (TXID: {})", txid.get()))
    }
}

/// How a restore ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The output holds the state.
    Restored,
    /// `--if-missing`: the output was there.
    Exists,
    /// `--when-no-backup start-fresh`: there is nothing to restore.
    NoBackup,
}

/// What `restore` did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RestoreReport {
    pub(crate) name: DatabaseName,
    #[serde(serialize_with = "lossy")]
    pub(crate) output: PathBuf,
    pub(crate) outcome: Outcome,
    #[serde(flatten)]
    pub(crate) txid: TxidFields,
    pub(crate) time: Option<Timestamp>,
    pub(crate) checksum: Option<Checksum>,
    pub(crate) digest: Option<Digest>,
    /// The key of the file that the restore began with.
    pub(crate) snapshot: Option<String>,
    /// Its bytes.
    pub(crate) snapshot_bytes: Option<u64>,
    /// Files applied on top of it.
    pub(crate) segments: Option<u64>,
    pub(crate) bytes_downloaded: Option<u64>,
    pub(crate) bytes_written: Option<u64>,
    pub(crate) requests: Option<u64>,
    #[serde(rename = "duration_ms", serialize_with = "millis")]
    pub(crate) duration: Duration,
    pub(crate) verified: Option<Verify>,
    /// `walrust` or `litestream`.
    pub(crate) format: Option<&'static str>,
    pub(crate) notes: Vec<String>,
    /// Whether the output must name TXID and time, since somebody asked for a point in time (R78).
    #[serde(skip)]
    pub(crate) names_point: bool,
}

impl RestoreReport {
    /// A restore that did nothing.
    pub(crate) fn nothing(name: DatabaseName, output: PathBuf, outcome: Outcome) -> Self {
        Self {
            name,
            output,
            outcome,
            txid: None.into(),
            time: None,
            checksum: None,
            digest: None,
            snapshot: None,
            snapshot_bytes: None,
            segments: None,
            bytes_downloaded: None,
            bytes_written: None,
            requests: None,
            duration: Duration::ZERO,
            verified: None,
            format: None,
            notes: Vec::new(),
            names_point: false,
        }
    }

    /// The lines behind `Restoring …` (R72).
    pub(crate) fn print_lines(&self, out: &mut Out) {
        let (mark, output) = (out.check_mark(), self.output.display());
        match self.outcome {
            Outcome::Restored => {}
            Outcome::Exists => {
                return out.line(format!("{mark} {output} is there already: nothing to do"));
            }
            Outcome::NoBackup => {
                return out.line(format!(
                    "{mark} No backup of {}: starting fresh, {output} is not made",
                    self.name
                ));
            }
        }
        let snapshot = text::size(self.snapshot_bytes.unwrap_or(0));
        out.line(format!("  Downloading snapshot... done ({snapshot})"));
        let segments = self.segments.unwrap_or(0);
        out.line(format!(
            "  Applying WAL segments... done ({segments} segments)"
        ));
        match self.checksum {
            Some(checksum) => out.line(format!("  Verifying checksum... {mark} {checksum}...")),
            None => out.line("  Verifying checksum... none is recorded"),
        }
        for note in &self.notes {
            out.line(format!("  Note: {note}"));
        }
        if self.names_point
            && let Some(txid) = self.txid.txid
        {
            let time = self
                .time
                .map_or_else(String::new, |time| format!(", {}", text::exact_time(time)));
            out.line(format!("  Restore point: TXID {}{time}", txid.get()));
        }
        out.line(format!("{mark} Restored to {output}"));
    }
}

/// What `restore --all` did.
#[derive(Debug, Serialize)]
pub(crate) struct RestoreAllReport {
    pub(crate) ok: bool,
    pub(crate) databases: Vec<RestoreAllEntry>,
}

/// One database of `restore --all`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum RestoreAllEntry {
    /// As [`RestoreReport`].
    Done(Box<RestoreReport>),
    /// What went wrong.
    Failed {
        name: DatabaseName,
        #[serde(serialize_with = "lossy")]
        output: PathBuf,
        error: String,
    },
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
