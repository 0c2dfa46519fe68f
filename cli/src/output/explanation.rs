//! What `explain` prints (R123 to R125).

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Serialize, Serializer};
use walrust_core::config::{
    Resolved, ResolvedDatabase, RetentionPolicy, StoreSettings, SyncSettings, Unmatched,
};
use walrust_core::estimate::{self, Estimate};
use walrust_core::store::StoreLocation;

use super::report::lossy;
use super::{Out, text};

const TITLE: &str = "Configuration Summary";

/// There is no file to explain.
#[derive(Debug, Serialize)]
pub(crate) struct NoFile {
    config: Option<PathBuf>,
    looked_at: &'static str,
}

impl NoFile {
    /// `path` was looked at.
    pub(crate) fn looked_at(path: &'static str) -> Self {
        Self {
            config: None,
            looked_at: path,
        }
    }
}

/// A configuration, and what it leads to.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    config: PathBuf,
    s3: StoreSettings,
    #[serde(skip)]
    sync: SyncSettings,
    #[serde(rename = "sync")]
    shown: Shown,
    retention: RetentionPolicy,
    memory_limit: u64,
    databases: Vec<Entry>,
    estimate: Total,
}

/// Settings as key and value, in the order of the documentation.
#[derive(Debug)]
struct Shown(Vec<(&'static str, String)>);

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (*key, value.as_str())))
    }
}

/// One database, or a pattern that means none.
#[derive(Debug, Serialize)]
struct Entry {
    #[serde(serialize_with = "lossy")]
    path: PathBuf,
    target: Option<String>,
    overrides: Shown,
    paused: bool,
    error: Option<String>,
}

/// An estimate in whole numbers.
#[derive(Debug, Serialize)]
struct Total {
    puts_month: u64,
    gets_month: u64,
    stored_bytes: u64,
}

impl From<Estimate> for Total {
    fn from(estimate: Estimate) -> Self {
        // Far below what a u64 holds, and never below 0.
        Self {
            puts_month: estimate.puts_month as u64,
            gets_month: estimate.gets_month as u64,
            stored_bytes: estimate.stored_bytes as u64,
        }
    }
}

impl Explanation {
    /// Explains `resolved`, which comes from the file at `config`.
    pub(crate) fn of(config: &Path, resolved: &Resolved) -> Self {
        let watched = resolved
            .databases
            .iter()
            .filter(|database| !database.paused);
        let total = watched.map(estimate::of);
        let total = total.fold(Estimate::default(), |sum, one| sum + one);
        let databases = resolved
            .databases
            .iter()
            .map(|database| Entry::of(database, resolved));
        let unmatched = resolved.unmatched.iter().map(Entry::unmatched);
        Self {
            config: config.to_owned(),
            s3: resolved.store.clone(),
            sync: resolved.sync.clone(),
            shown: settings(&resolved.sync, &resolved.retention),
            retention: resolved.retention,
            memory_limit: resolved.memory_limit,
            databases: databases.chain(unmatched).collect(),
            estimate: total.into(),
        }
    }

    /// The lines for people.
    pub(crate) fn print(&self, out: &mut Out) {
        out.line(TITLE);
        out.line("=".repeat(TITLE.len()));
        out.line("");
        self.print_store(out);
        self.print_triggers(out);
        out.line("Compaction:");
        let after = enabled(self.sync.compact_after_snapshot);
        out.line(format!("  After snapshot: {after}"));
        let interval = self.sync.compact_interval.map(in_words);
        let interval = interval.map_or("disabled".to_owned(), |length| format!("every {length}"));
        out.line(format!("  Interval:       {interval}"));
        out.line("");
        self.print_retention(out);
        out.line("Databases:");
        self.databases.iter().for_each(|entry| entry.print(out));
        out.line("");
        self.print_summary(out);
    }

    fn print_store(&self, out: &mut Out) {
        out.line("S3 Storage:");
        out.line(format!("  Bucket:   {}", self.s3.location));
        match (&self.s3.endpoint, &self.s3.location) {
            (Some(endpoint), _) => out.line(format!("  Endpoint: {endpoint}")),
            (None, StoreLocation::S3 { .. }) => out.line("  Endpoint: none: AWS is used"),
            (None, StoreLocation::File { .. }) => out.line("  Endpoint: none: a directory"),
        }
        out.line("");
    }

    fn print_triggers(&self, out: &mut Out) {
        let sync = &self.sync;
        let or_disabled = |text: Option<String>| text.unwrap_or_else(|| "disabled".to_owned());
        let interval = or_disabled(sync.snapshot_interval.map(in_words));
        out.line("Snapshot Triggers (global defaults):");
        out.line(format!("  Interval:    {interval}"));
        let frames = sync
            .max_changes
            .map(|frames| format!("{frames} WAL frames"));
        out.line(format!("  Max changes: {}", or_disabled(frames)));
        if let Some(length) = sync.max_interval {
            out.line(format!("  Max interval: {}", in_words(length)));
        }
        let idle = or_disabled(sync.on_idle.map(in_words));
        out.line(format!("  On idle:     {idle}"));
        let on_startup = match sync.on_startup {
            true => "yes",
            false => "no",
        };
        out.line(format!("  On startup:  {on_startup}"));
        out.line("");
    }

    fn print_retention(&self, out: &mut Out) {
        out.line("Retention Policy (GFS rotation):");
        let keep = &self.retention;
        for (label, count, period) in [
            ("Hourly: ", keep.hourly, "hour"),
            ("Daily:  ", keep.daily, "day"),
            ("Weekly: ", keep.weekly, "week"),
            ("Monthly:", keep.monthly, "month"),
        ] {
            let s = if count == 1 { "" } else { "s" };
            match count {
                0 => out.line(format!("  {label} disabled")),
                _ => out.line(format!(
                    "  {label} {count} snapshot{s} (last {count} {period}{s})"
                )),
            }
        }
        out.line("");
    }

    fn print_summary(&self, out: &mut Out) {
        let automatic = self.sync.compact_after_snapshot || self.sync.compact_interval.is_some();
        out.line("Summary:");
        out.line(format!(
            "  Max snapshots retained per database: ~{}",
            self.retention.snapshots()
        ));
        out.line(format!("  Automatic compaction: {}", enabled(automatic)));
        out.line("");
        let Total {
            puts_month,
            gets_month,
            stored_bytes,
        } = self.estimate;
        out.line("Estimate for a month in which all of them are written to all the time (idle ones cost no request):");
        out.line(format!(
            "  Requests: {puts_month} that write, {gets_month} that read"
        ));
        out.line(format!(
            "  Storage:  {} of snapshots, and what changes between them",
            text::size(stored_bytes)
        ));
    }
}

fn enabled(on: bool) -> &'static str {
    match on {
        true => "enabled",
        false => "disabled",
    }
}

impl Entry {
    fn of(database: &ResolvedDatabase, resolved: &Resolved) -> Self {
        let own = settings(&database.sync, &database.retention);
        let global = settings(&resolved.sync, &resolved.retention);
        let differ = own.0.into_iter().zip(global.0);
        let overrides = differ.filter(|(own, global)| own != global);
        let scheme = match resolved.store.location {
            StoreLocation::S3 { .. } => "s3",
            StoreLocation::File { .. } => "file",
        };
        let missing = match database.path.try_exists() {
            Ok(true) => None,
            Ok(false) if database.optional => Some("not there yet, it is waited for".to_owned()),
            Ok(false) => Some("no such file".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        Self {
            path: database.path.clone(),
            target: Some(format!("{scheme}://.../{}/*", database.name)),
            overrides: Shown(overrides.map(|(own, _)| own).collect()),
            paused: database.paused,
            error: missing,
        }
    }

    fn unmatched(pattern: &Unmatched) -> Self {
        let waits = if pattern.optional {
            ", it is waited for"
        } else {
            ""
        };
        Self {
            path: pattern.pattern.clone(),
            target: None,
            overrides: Shown(Vec::new()),
            paused: false,
            error: Some(format!("{}{waits}", pattern.message)),
        }
    }

    fn print(&self, out: &mut Out) {
        let mut line = format!("  - {}", self.path.display());
        if let Some(target) = &self.target {
            line = format!("{line} -> {target}");
        }
        if self.paused {
            line += " (paused)";
        }
        if let Some(error) = &self.error {
            line = format!("{line} ({error})");
        }
        out.line(line);
        if !self.overrides.0.is_empty() {
            let pairs = self.overrides.0.iter();
            let pairs: Vec<String> = pairs.map(|(key, value)| format!("{key}={value}")).collect();
            out.line(format!("    Overrides: {}", pairs.join(", ")));
        }
    }
}

/// A length of time in words: `3600 seconds (60 minutes)`.
fn in_words(length: Duration) -> String {
    let seconds = length.as_secs_f64();
    let minutes = seconds / 60.0;
    match minutes > 1.0 && minutes.fract() == 0.0 {
        true => format!("{seconds} seconds ({minutes} minutes)"),
        false => format!("{seconds} seconds"),
    }
}

/// What a database may override, in the form in which overrides are listed.
fn settings(sync: &SyncSettings, keep: &RetentionPolicy) -> Shown {
    let length = |length: Option<Duration>| {
        length.map_or("off".to_owned(), |length| {
            format!("{}s", length.as_secs_f64())
        })
    };
    let count = |count: Option<u64>| count.map_or("off".to_owned(), |count| count.to_string());
    let tiers = format!(
        "{}/{}/{}/{}",
        keep.hourly, keep.daily, keep.weekly, keep.monthly
    );
    Shown(vec![
        ("interval", length(sync.snapshot_interval)),
        ("max_changes", count(sync.max_changes.map(u64::from))),
        ("max_interval", length(sync.max_interval)),
        ("on_idle", length(sync.on_idle)),
        ("on_startup", sync.on_startup.to_string()),
        (
            "compact_after_snapshot",
            sync.compact_after_snapshot.to_string(),
        ),
        ("compact_interval", length(sync.compact_interval)),
        ("retention", tiers),
        ("points", length(Some(keep.points))),
        ("minutes", length(Some(keep.minutes))),
        ("sync_interval", length(Some(sync.sync_interval))),
        ("prove_interval", length(sync.prove_interval)),
        ("checkpoint_pages", sync.checkpoint_pages.to_string()),
        ("barrier", sync.barrier.to_string()),
        ("spool_limit", sync.spool_limit.to_string()),
        ("set_wal_mode", sync.set_wal_mode.to_string()),
        ("allow_network_fs", sync.allow_network_fs.to_string()),
    ])
}
