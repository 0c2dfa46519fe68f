//! What a configuration will cost: requests and stored bytes, before anything runs.
//!
//! Requests follow from the settings and from how often something is committed; an idle database makes none. The
//! estimate is for databases that are written to all the time, and so the most that the settings can lead to.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::config::{ResolvedDatabase, RetentionPolicy, SyncSettings};
use crate::engine::{PART_BYTES, spacing};
use crate::lease::RECHECK;
use crate::sqlite::page_size_of;

/// Thirty days.
pub const MONTH: Duration = Duration::from_secs(30 * 86_400);
/// Pages that are compressed to learn how well the others will.
const SAMPLE: u64 = 200;
/// A snapshot of more bytes is sent in parts of this size.
const PART: f64 = PART_BYTES as f64;
/// Merged files that a stream makes in an hour: one a minute, one an hour, and a part of the day's.
const MERGED_AN_HOUR: f64 = 60.0 + 1.0 + 1.0 / 24.0;

/// Requests and bytes of one database or of several.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Estimate {
    /// Requests that write, in a month.
    pub puts_month: f64,
    /// Requests that read, in a month.
    pub gets_month: f64,
    /// Bytes of the snapshots that are kept at the end of it.
    pub stored_bytes: f64,
}

impl std::ops::Add for Estimate {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            puts_month: self.puts_month + other.puts_month,
            gets_month: self.gets_month + other.gets_month,
            stored_bytes: self.stored_bytes + other.stored_bytes,
        }
    }
}

/// The estimate for one database as it is now; a file that is not there yet counts as empty.
pub fn of(database: &ResolvedDatabase) -> Estimate {
    let bytes = snapshot_bytes(&database.path).unwrap_or(0.0);
    over(&database.sync, &database.retention, bytes)
}

/// The same for a database whose snapshots take `snapshot` bytes.
fn over(sync: &SyncSettings, retention: &RetentionPolicy, snapshot: f64) -> Estimate {
    let times = |every: Duration| MONTH.as_secs_f64() / every.as_secs_f64();
    let hours = MONTH.as_secs_f64() / 3600.0;
    let incrementals = times(spacing(sync.sync_interval));
    let snapshots = sync.snapshot_interval.map_or(0.0, times);
    let requests = match snapshot > PART {
        // Begin, the parts, and the end.
        true => 2.0 + (snapshot / PART).ceil(),
        false => 1.0,
    };
    let merged = MERGED_AN_HOUR * hours;
    // The index is written with each merged file of a minute, and with each snapshot.
    let index = 60.0 * hours + snapshots;
    let compacts = sync.compact_after_snapshot || sync.compact_interval.is_some();
    let kept = match compacts {
        true => snapshots.min(retention.snapshots() as f64),
        false => snapshots,
    };
    Estimate {
        puts_month: incrementals + snapshots * requests + merged + index,
        gets_month: times(RECHECK),
        // One at least: the base.
        stored_bytes: kept.max(1.0) * snapshot,
    }
}

/// What a snapshot of the file will take: its pages, compressed as some of them are.
fn snapshot_bytes(path: &Path) -> Option<f64> {
    let page_size = u64::from(page_size_of(path).ok()?.get());
    let file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let pages = length / page_size;
    let (step, mut read, mut packed) = ((pages / SAMPLE).max(1), 0, 0);
    let mut page = vec![0; usize::try_from(page_size).ok()?];
    for number in (0..pages).step_by(usize::try_from(step).ok()?) {
        file.read_exact_at(&mut page, number * page_size).ok()?;
        read += page.len();
        packed += lz4_flex::block::compress(&page).len().min(page.len());
    }
    (read > 0).then(|| length as f64 * packed as f64 / read as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_often_costs_more_and_compaction_bounds_what_is_kept() {
        let base = SyncSettings::default();
        let keep = RetentionPolicy::default();
        let estimate = |sync: &SyncSettings| over(sync, &keep, 1e6);
        let usual = estimate(&base);
        let slower = estimate(&SyncSettings {
            sync_interval: Duration::from_secs(10),
            ..base.clone()
        });
        assert!(slower.puts_month < usual.puts_month / 5.0, "{slower:?}");
        assert_eq!(usual.stored_bytes, 720.0 * 1e6, "hourly, a month");
        let compacting = estimate(&SyncSettings {
            compact_after_snapshot: true,
            ..base.clone()
        });
        assert_eq!(compacting.stored_bytes, 55.0 * 1e6);
        let large = over(&base, &keep, 100.0 * PART);
        let more = large.puts_month - usual.puts_month;
        assert_eq!(more, 720.0 * 101.0, "a hundred parts instead of one");
        let none = estimate(&SyncSettings {
            snapshot_interval: None,
            ..base
        });
        assert_eq!(none.stored_bytes, 1e6, "the base");
    }

    #[test]
    fn a_snapshot_is_as_large_as_its_pages_compress() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let app = rusqlite::Connection::open(&path).unwrap();
        app.execute_batch("CREATE TABLE t(v)").unwrap();
        let size = |sql: &str| {
            app.execute_batch(sql).unwrap();
            let length = std::fs::metadata(&path).unwrap().len() as f64;
            snapshot_bytes(&path).unwrap() / length
        };
        let text = size(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
             INSERT INTO t SELECT hex(zeroblob(1000)) FROM n",
        );
        assert!(text < 0.2, "{text}");
        let noise = size("DELETE FROM t; VACUUM; INSERT INTO t VALUES (randomblob(1000000))");
        assert!(noise > 0.9, "{noise}");
        assert_eq!(snapshot_bytes(&folder.path().join("none.db")), None);
        std::fs::write(&path, "short").unwrap();
        assert_eq!(snapshot_bytes(&path), None);
    }
}
