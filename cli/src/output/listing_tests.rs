use walrust_core::restore::{Failure, SnapshotSummary};
use walrust_core::types::{Checksum, PageSize, Timestamp};

use super::*;
use crate::output::tests::printed;

fn checksum() -> Option<Checksum> {
    "a3f2b9c8d4e5f6a7".parse().ok()
}

fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_millis((1_705_314_600 + seconds) * 1000)
}

fn listed(name: &str) -> DatabaseSummary {
    DatabaseSummary {
        name: name.to_owned(),
        format: Some("walrust"),
        latest_snapshot: Some(SnapshotSummary {
            key: "k".to_owned(),
            txid: 100,
            time: Some(moment(0)),
            bytes: 1_258_291,
        }),
        segments: Some(47),
        txid: Some(147),
        time: Some(moment(9)),
        checksum: checksum(),
        page_size: PageSize::new(4096),
        objects: Some(48),
        bytes: Some(1_300_000),
        error: None,
    }
}

#[test]
fn list_prints_databases_with_a_line_between_them() {
    let mut small = listed("users.db");
    small.latest_snapshot.as_mut().unwrap().bytes = 256 << 10;
    small.latest_snapshot.as_mut().unwrap().time = Some(moment(60));
    small.checksum = "b4c3d2e1f0a98877".parse().ok();
    small.segments = Some(12);
    let report = DatabaseList {
        bucket: "s3://my-backups".to_owned(),
        databases: vec![listed("myapp.db"), small],
    };
    assert_eq!(
        printed(false, |out| print_list(&report, out)),
        "Databases in s3://my-backups/:\n\
         \n\
         \x20 myapp.db\n\
         \x20   Latest snapshot: 2024-01-15 10:30:00 (1.2 MB)\n\
         \x20   WAL segments: 47\n\
         \x20   Checksum: a3f2b9c8d4e5...\n\
         \n\
         \x20 users.db\n\
         \x20   Latest snapshot: 2024-01-15 10:31:00 (256 KB)\n\
         \x20   WAL segments: 12\n\
         \x20   Checksum: b4c3d2e1f0a9...\n"
    );
    assert!(report.is_sound());
}

#[test]
fn list_marks_what_is_foreign_or_damaged() {
    let mut foreign = listed("a.db");
    foreign.format = Some("litestream");
    foreign.checksum = None;
    let damaged = DatabaseSummary {
        latest_snapshot: None,
        segments: None,
        checksum: None,
        error: Some(Failure {
            kind: "corrupt",
            message: "does not parse".to_owned(),
            object: Some("b.db/manifest.json".to_owned()),
            hint: None,
        }),
        ..listed("b.db")
    };
    let report = DatabaseList {
        bucket: "file:///nas".to_owned(),
        databases: vec![foreign, damaged],
    };
    let text = printed(false, |out| print_list(&report, out));
    assert!(text.contains("\n  a.db (litestream)\n"), "{text}");
    assert!(
        text.ends_with("\n  b.db\n    Error: b.db/manifest.json: does not parse\n"),
        "{text}"
    );
    assert!(!report.is_sound());
    let empty = DatabaseList {
        bucket: "s3://b/p".to_owned(),
        databases: Vec::new(),
    };
    assert_eq!(
        printed(false, |out| print_list(&empty, out)),
        "No databases in s3://b/p/\n"
    );
    assert_eq!(
        printed(true, |out| print_list(&empty, out)),
        "{\"v\":1,\"bucket\":\"s3://b/p\",\"databases\":[]}\n"
    );
}

#[test]
fn list_of_one_database_aligns_its_files_and_shows_txids_in_decimal() {
    let file = |key: &str, kind, min, max, bytes| FileSummary {
        key: key.to_owned(),
        kind,
        min_txid: min,
        max_txid: max,
        first_commit: None,
        last_commit: Some(moment(0)),
        created: None,
        bytes,
        pages: None,
        checksum: None,
        digest: None,
    };
    let point = |value, seconds| PointSummary {
        txid: value,
        time: Some(moment(seconds)),
    };
    let details = DatabaseDescription {
        name: "app.db".to_owned(),
        bucket: "s3://b/p".to_owned(),
        format: "walrust",
        page_size: PageSize::new(4096),
        lineage: None,
        earliest: Some(point(100, 0)),
        latest: Some(point(101, 5)),
        files: vec![
            file("p/app.db/0009/1-64.ltx", "snapshot", 1, 100, 1_258_291),
            file("p/app.db/0000/65-65.ltx", "incremental", 101, 101, 700),
        ],
        clock_steps: Vec::new(),
        points: vec![point(100, 0), point(101, 5)],
        notes: vec!["one file was not used".to_owned()],
    };
    assert_eq!(
        printed(false, |out| print_description(&details, out)),
        "app.db in s3://b/p/app.db/:\n\
         \n\
         \x20 Earliest restore point: 2024-01-15 10:30:00 (TXID: 100)\n\
         \x20 Latest restore point:   2024-01-15 10:30:05 (TXID: 101)\n\
         \x20 Restore points:         2\n\
         \x20 Page size:              4096 bytes\n\
         \x20 Note: one file was not used\n\
         \n\
         \x20 0009/1-64.ltx   snapshot     TXID: 1-100  2024-01-15 10:30:00  1.2 MB\n\
         \x20 0000/65-65.ltx  incremental  TXID: 101    2024-01-15 10:30:00  700 B\n"
    );
    let value: serde_json::Value =
        serde_json::from_str(&printed(true, |out| print_description(&details, out))).unwrap();
    assert_eq!(value["points"][1]["txid"], 101);
    assert_eq!(value["files"][1]["kind"], "incremental");
    assert_eq!(value["earliest"]["time"], "2024-01-15T10:30:00Z");
}
