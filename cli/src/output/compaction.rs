//! What `compact` prints (R92, R93, R98).

use serde::Serialize;
use walrust_core::retention::{CompactReport, SnapshotLine};
use walrust_core::types::{DatabaseName, Timestamp};

use super::{Out, text};

/// The plan, and what became of it. `now` is what ages are counted from.
pub(crate) fn print_compaction(report: &CompactReport, now: Timestamp, out: &mut Out) {
    let name = &report.name;
    if report.keep.is_empty() && report.delete.is_empty() {
        return out.line(format!("No snapshots of '{name}': nothing to compact."));
    }
    for note in &report.notes {
        out.line(format!("Note: {note}"));
    }
    if report.delete_objects == 0 && !report.dry_run {
        return out.line(format!(
            "Nothing to delete: '{name}' keeps {} and {}.",
            count(report.keep.len(), "snapshot"),
            count(report.points_after, "restore point")
        ));
    }
    print_plan(report, now, out);
    if report.dry_run {
        return out.line("Dry-run mode: no files deleted. Use --force to actually delete.");
    }
    out.line(format!(
        "{} Compaction complete: deleted {}, freed {}",
        out.check_mark(),
        count(report.delete_objects, "file"),
        text::megabytes(report.free_bytes)
    ));
}

fn print_plan(report: &CompactReport, now: Timestamp, out: &mut Out) {
    out.line(format!("Compaction plan for '{}':", report.name));
    let (keep, delete) = (report.keep.len(), report.delete.len());
    out.line(format!(
        "  Keep: {keep} snapshots, Delete: {delete} snapshots, Free: {}",
        text::megabytes(report.free_bytes)
    ));
    print_snapshots("Keeping", &report.keep, now, out);
    print_snapshots("Deleting", &report.delete, now, out);
    out.line("");
    let others = report.delete_objects.saturating_sub(delete as u64);
    if others > 0 {
        let what = if others == 1 { "file" } else { "files" };
        out.line(format!(
            "Deleting {others} other {what} that no kept restore point needs."
        ));
    }
    match &report.earliest {
        Some(point) => {
            let time = point
                .time
                .map(|time| format!("{}, ", text::exact_time(time)));
            out.line(format!(
                "Earliest restore point afterwards: {}TXID: {} ({})",
                time.unwrap_or_default(),
                point.txid,
                count(report.points_after, "restore point")
            ));
        }
        None => out.line("Nothing can be restored."),
    }
    out.line("");
}

fn print_snapshots(what: &str, snapshots: &[SnapshotLine], now: Timestamp, out: &mut Out) {
    if snapshots.is_empty() {
        return;
    }
    out.line("");
    out.line(format!("{what} {} snapshots:", snapshots.len()));
    for snapshot in snapshots {
        let file = snapshot.key.rsplit('/').next().unwrap_or(&snapshot.key);
        let age = snapshot
            .time
            .map_or_else(|| "of unknown age".to_owned(), |time| text::age(time, now));
        out.line(format!("  {file} (TXID: {}, {age})", snapshot.txid));
    }
}

/// `1 file`, `2 files`.
fn count(number: impl Into<Number>, what: &str) -> String {
    match number.into().0 {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

struct Number(u64);

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self(number as u64)
    }
}

/// What `compact --all` did.
#[derive(Debug, Serialize)]
pub(crate) struct CompactAllReport {
    pub(crate) ok: bool,
    pub(crate) databases: Vec<CompactAllEntry>,
}

/// One database of `compact --all`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum CompactAllEntry {
    /// As [`CompactReport`].
    Done(Box<CompactReport>),
    /// What went wrong.
    Failed { name: DatabaseName, error: String },
}

#[cfg(test)]
#[path = "compaction_tests.rs"]
mod tests;
