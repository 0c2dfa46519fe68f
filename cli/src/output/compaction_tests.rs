//! The lines of a compaction, whole.

use walrust_core::restore::PointSummary;
use walrust_core::retention::Tier;

use super::*;
use crate::output::tests::printed;

const HOUR: i64 = 3_600_000;
const NOW: i64 = 1_705_314_600_000;

fn snapshot(txid: u64, hours: i64, tiers: &[Tier]) -> SnapshotLine {
    SnapshotLine {
        key: format!("prod/myapp.db/0009/0000000000000001-{txid:016x}.ltx"),
        txid,
        time: Some(Timestamp::from_millis(NOW - hours * HOUR)),
        bytes: 1_000_000,
        tiers: tiers.to_vec(),
    }
}

fn report(dry_run: bool) -> CompactReport {
    CompactReport {
        name: "myapp.db".to_owned(),
        dry_run,
        keep: vec![
            snapshot(100, 2, &[Tier::Hourly, Tier::Daily]),
            snapshot(95, 5, &[Tier::Hourly]),
        ],
        delete: vec![snapshot(42, 24 * 95, &[]), snapshot(38, 24 * 125, &[])],
        delete_objects: 14,
        free_bytes: 133_693_440,
        earliest: Some(PointSummary {
            txid: 60,
            time: Some(Timestamp::from_millis(NOW - 30 * HOUR)),
        }),
        latest: None,
        points_after: 41,
        notes: Vec::new(),
    }
}

fn shown(report: &CompactReport) -> String {
    printed(false, |out| {
        print_compaction(report, Timestamp::from_millis(NOW), out);
    })
}

const PLAN: &str = "\
Compaction plan for 'myapp.db':
  Keep: 2 snapshots, Delete: 2 snapshots, Free: 127.50 MB

Keeping 2 snapshots:
  0000000000000001-0000000000000064.ltx (TXID: 100, 2 hours ago)
  0000000000000001-000000000000005f.ltx (TXID: 95, 5 hours ago)

Deleting 2 snapshots:
  0000000000000001-000000000000002a.ltx (TXID: 42, 3 months ago)
  0000000000000001-0000000000000026.ltx (TXID: 38, 4 months ago)

Deleting 12 other files that no kept restore point needs.
Earliest restore point afterwards: 2024-01-14 04:30:00, TXID: 60 (41 restore points)

";

#[test]
fn r92_r98_a_dry_run_is_the_reference_s_and_names_the_earliest_point() {
    let expected =
        format!("{PLAN}Dry-run mode: no files deleted. Use --force to actually delete.\n");
    assert_eq!(shown(&report(true)), expected);
}

#[test]
fn r93_what_was_done_is_counted_and_nothing_to_do_is_one_line() {
    let done = format!("{PLAN}✓ Compaction complete: deleted 14 files, freed 127.50 MB\n");
    assert_eq!(shown(&report(false)), done);
    let nothing = CompactReport {
        delete: Vec::new(),
        delete_objects: 0,
        free_bytes: 0,
        ..report(false)
    };
    assert_eq!(
        shown(&nothing),
        "Nothing to delete: 'myapp.db' keeps 2 snapshots and 41 restore points.\n"
    );
    let none = CompactReport {
        keep: Vec::new(),
        ..nothing
    };
    assert_eq!(
        shown(&none),
        "No snapshots of 'myapp.db': nothing to compact.\n"
    );
}

#[test]
fn a_plan_without_deletions_has_no_list_of_them() {
    let plan = CompactReport {
        delete: Vec::new(),
        delete_objects: 1,
        free_bytes: 700,
        earliest: None,
        notes: vec!["x is damaged; it is left alone".to_owned()],
        ..report(true)
    };
    let text = shown(&plan);
    assert!(
        text.starts_with("Note: x is damaged; it is left alone\nCompaction plan"),
        "{text}"
    );
    assert!(
        text.contains("Delete: 0 snapshots, Free: 0.00 MB\n"),
        "{text}"
    );
    assert!(!text.contains("Deleting 0"), "{text}");
    assert!(text.contains("\nDeleting 1 other file that no"), "{text}");
    assert!(text.contains("\nNothing can be restored.\n"), "{text}");
}

#[test]
fn json_has_the_fields_of_the_interface() {
    let value = serde_json::to_value(report(true)).unwrap();
    for field in [
        "name",
        "dry_run",
        "keep",
        "delete",
        "delete_objects",
        "free_bytes",
        "earliest",
        "points_after",
    ] {
        assert!(value.get(field).is_some(), "{field}");
    }
    assert_eq!(
        value["keep"][0],
        serde_json::json!({
            "key": "prod/myapp.db/0009/0000000000000001-0000000000000064.ltx",
            "txid": 100,
            "time": "2024-01-15T08:30:00Z",
            "bytes": 1_000_000,
            "tiers": ["hourly", "daily"],
        })
    );
    assert_eq!(value["earliest"]["txid"], 60);
    let text = printed(true, |out| {
        print_compaction(&report(true), Timestamp::default(), out)
    });
    assert_eq!(text, "", "the caller prints the one document");
}
