//! What `verify` and `drill` print (R129 to R132).

use std::time::Duration;

use serde::Serialize;
use walrust_core::types::{DatabaseName, Txid};
use walrust_core::verify::{DrillReport, Issue, IssueKind, VerifyReport};

use super::{Out, text};

const TITLE: &str = "Verification Results";

/// The line before the work begins.
pub(crate) fn announce(name: &DatabaseName, location: &str, out: &mut Out) {
    out.line(format!(
        "Verifying integrity of '{name}' in {location}/{name}..."
    ));
    out.line("");
}

/// The lines behind it.
pub(crate) fn print(report: &VerifyReport, out: &mut Out) {
    print_found(report, out);
    out.line("");
    out.line(TITLE);
    out.line("=".repeat(TITLE.len()));
    out.line(format!(
        "Verified:  {} files ({})",
        report.verified,
        text::megabytes(report.bytes)
    ));
    let issues = report.issues.iter();
    let issues: Vec<&Issue> = issues
        .filter(|issue| issue.kind != IssueKind::Note)
        .collect();
    out.line(format!("Issues:    {}", issues.len()));
    print_issues("Issues Found:", &issues, out);
    let notes = report.issues.iter();
    let notes: Vec<&Issue> = notes
        .filter(|issue| issue.kind == IssueKind::Note)
        .collect();
    print_issues("Notes:", &notes, out);
    print_deep(report, out);
    print_next(report, out);
}

fn print_found(report: &VerifyReport, out: &mut Out) {
    match (report.manifest, report.format) {
        (true, _) => out.line(format!("Found {} LTX files in manifest", report.files)),
        (false, "litestream") => {
            out.line(format!("Found {} LTX files of Litestream", report.behind));
        }
        (false, _) => out.line(format!("Found {} LTX files and no manifest", report.behind)),
    }
    if report.manifest && report.behind > 0 {
        out.line(format!("Found {} LTX files behind it", report.behind));
    }
    if let Some(txid) = report.txid {
        out.line(format!("Current TXID: {}", txid.get()));
    }
    if let Some(page_size) = report.page_size {
        out.line(format!("Page size: {} bytes", page_size.get()));
    }
}

fn print_issues(title: &str, issues: &[&Issue], out: &mut Out) {
    if issues.is_empty() {
        return;
    }
    out.line("");
    out.line(title);
    for issue in issues {
        out.line(format!("  {}", line(issue)));
    }
}

/// One finding: its kind, the file's name as stored, what is wrong, and the transactions in decimal (R23).
fn line(issue: &Issue) -> String {
    let kind = match issue.kind {
        IssueKind::Orphan => "ORPHAN",
        IssueKind::Error | IssueKind::Gap => "ERROR",
        IssueKind::Note => "NOTE",
    };
    let mut parts = issue.key.trim_end_matches('/').rsplit('/');
    let name = parts.next().unwrap_or(&issue.key);
    // Merged files have the names of other files.
    let level = parts
        .next()
        .filter(|level| level.len() == 4 && !matches!(*level, "0000" | "0009"))
        .filter(|_| name.ends_with(".ltx"))
        .map_or_else(String::new, |level| format!("{level}, "));
    let txids = match (issue.min_txid, issue.max_txid) {
        (Some(min), Some(max)) if min == max => format!(" ({level}TXID: {max})"),
        (Some(min), Some(max)) => format!(" ({level}TXID: {min}-{max})"),
        _ => String::new(),
    };
    let fixed = if issue.fixed { " - fixed" } else { "" };
    format!("[{kind}] {name}: {}{txids}{fixed}", issue.message)
}

fn print_deep(report: &VerifyReport, out: &mut Out) {
    let (Some(ok), Some(message)) = (report.deep.ok, &report.deep.message) else {
        return;
    };
    out.line("");
    match ok {
        true => out.line(format!("Deep check: {message}")),
        false => out.line(format!("Deep check failed: {message}")),
    }
}

/// What was done, or what to do next.
fn print_next(report: &VerifyReport, out: &mut Out) {
    let mark = out.check_mark();
    if report.ok && report.issues.iter().all(|issue| !issue.fixed) {
        out.line("");
        return out.line(format!("{mark} All {} files verified", report.verified));
    }
    let orphans = |fixed: bool| {
        let orphans = report.issues.iter();
        let orphans = orphans.filter(|issue| issue.kind == IssueKind::Orphan);
        orphans.filter(|issue| issue.fixed == fixed).count()
    };
    let manifest = |fixed: bool| {
        let mut issues = report.issues.iter();
        issues.any(|issue| issue.fixable && issue.kind != IssueKind::Orphan && issue.fixed == fixed)
    };
    let mut said = |line: String| {
        out.line("");
        out.line(line);
    };
    if orphans(true) > 0 {
        let count = orphans(true);
        said(format!("{mark} Removed {count} orphaned manifest entries."));
    }
    if manifest(true) {
        said(format!("{mark} Wrote the manifest anew from the files."));
    }
    if orphans(false) > 0 {
        let count = orphans(false);
        said(format!(
            "Run with --fix to remove {count} orphaned manifest entries."
        ));
    }
    if manifest(false) {
        said("Run with --fix to write the manifest anew from the files.".to_owned());
    }
    let others = report.open_issues();
    let others = others
        .filter(|issue| issue.kind != IssueKind::Orphan)
        .count();
    if others > 0 {
        said(format!(
            "Note: {others} non-orphan issues found. These may require manual intervention:"
        ));
        out.line("  - Checksum failures indicate corrupted files");
        out.line("  - TXID gaps may require restoring from an earlier snapshot");
    }
}

/// What `verify --all` found.
#[derive(Debug, Serialize)]
pub(crate) struct VerifyAllReport {
    pub(crate) ok: bool,
    pub(crate) databases: Vec<VerifyAllEntry>,
}

/// One database of `verify --all`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum VerifyAllEntry {
    /// What was found.
    Done(Box<VerifyReport>),
    /// Why nothing was looked at.
    Failed {
        name: DatabaseName,
        ok: bool,
        error: String,
    },
}

impl VerifyAllReport {
    /// The last line, or the JSON.
    pub(crate) fn print(&self, out: &mut Out) {
        out.json(self);
        let sound =
            |entry: &&VerifyAllEntry| matches!(entry, VerifyAllEntry::Done(done) if done.ok);
        let (all, sound) = (
            self.databases.len(),
            self.databases.iter().filter(sound).count(),
        );
        out.line("");
        out.line(format!(
            "{sound} of {all} databases verified without issues"
        ));
    }
}

/// What `drill` did.
#[derive(Debug, Default, Serialize)]
pub(crate) struct DrillsReport {
    ok: bool,
    pub(crate) databases: Vec<DrillReport>,
}

impl DrillsReport {
    /// One more drill, with its line.
    pub(crate) fn add(&mut self, report: DrillReport, out: &mut Out) {
        let mark = if report.ok { out.check_mark() } else { "✗" };
        out.line(format!("{mark} {}", drill_line(&report)));
        self.databases.push(report);
        self.ok = self.databases.iter().all(|report| report.ok);
    }

    /// The JSON.
    pub(crate) fn print(&self, out: &mut Out) {
        out.json(self);
    }
}

fn drill_line(report: &DrillReport) -> String {
    let name = &report.name;
    if let Some(message) = &report.message {
        return format!("{name}: {message}");
    }
    let txid = report.txid.map_or(0, Txid::get);
    let time = report
        .time
        .map_or_else(String::new, |time| format!(" of {}", text::time(time)));
    let took = text::duration(Duration::from_millis(report.duration_ms));
    format!(
        "{name}: TXID {txid}{time} restored in {took} ({}), integrity_check: {}",
        text::size(report.bytes.unwrap_or(0)),
        report.integrity.as_deref().unwrap_or("not run")
    )
}

#[cfg(test)]
#[path = "verification_tests.rs"]
mod tests;
