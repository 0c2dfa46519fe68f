use super::*;
use crate::output::tests::printed;

fn txid(value: u64) -> Txid {
    Txid::new(value).unwrap()
}

fn checksum() -> Option<Checksum> {
    "a3f2b9c8d4e5f6a7".parse().ok()
}

fn moment(seconds: i64) -> Timestamp {
    Timestamp::from_millis((1_705_314_600 + seconds) * 1000)
}

fn snapshot() -> SnapshotReport {
    SnapshotReport {
        database: "myapp.db".into(),
        name: "myapp.db".parse().unwrap(),
        bucket: "s3://my-backups".to_owned(),
        key: Some("myapp.db/0009/x.ltx".to_owned()),
        txid: Some(txid(255)).into(),
        bytes: 1_258_291,
        pages: 400,
        page_size: PageSize::new(4096).unwrap(),
        checksum: checksum(),
        digest: None,
        duration: Duration::from_millis(445),
        skipped: false,
    }
}

#[test]
fn snapshot_prints_size_time_and_checksum() {
    assert_eq!(
        printed(false, |out| snapshot().print(out)),
        "✓ Snapshot complete (1.2 MB, 445ms)\n  Checksum: a3f2b9c8d4e5f6a7...\n"
    );
    let skipped = SnapshotReport {
        skipped: true,
        ..snapshot()
    };
    assert_eq!(
        printed(false, |out| skipped.print(out)),
        "✓ Nothing to do: myapp.db already holds this state (TXID: 255)\n  Checksum: a3f2b9c8d4e5f6a7...\n"
    );
}

#[test]
fn snapshot_as_json_has_every_field() {
    assert_eq!(
        printed(true, |out| snapshot().print(out)),
        concat!(
            r#"{"v":1,"database":"myapp.db","name":"myapp.db","bucket":"s3://my-backups","#,
            r#""key":"myapp.db/0009/x.ltx","txid":255,"txid_hex":"00000000000000ff","#,
            r#""bytes":1258291,"pages":400,"page_size":4096,"checksum":"a3f2b9c8d4e5f6a7","#,
            r#""digest":null,"duration_ms":445,"skipped":false}"#,
            "\n"
        )
    );
}

fn restore() -> RestoreReport {
    RestoreReport {
        outcome: Outcome::Restored,
        txid: Some(txid(42)).into(),
        time: Some(moment(0)),
        checksum: checksum(),
        snapshot_bytes: Some(1_258_291),
        segments: Some(47),
        ..RestoreReport::nothing(
            "myapp.db".parse().unwrap(),
            "restored.db".into(),
            Outcome::Restored,
        )
    }
}

#[test]
fn restore_prints_its_steps() {
    assert_eq!(
        printed(false, |out| restore().print_lines(out)),
        "  Downloading snapshot... done (1.2 MB)\n\
         \x20 Applying WAL segments... done (47 segments)\n\
         \x20 Verifying checksum... ✓ a3f2b9c8d4e5f6a7...\n\
         ✓ Restored to restored.db\n"
    );
}

#[test]
fn a_restore_to_a_point_in_time_names_it() {
    let report = RestoreReport {
        names_point: true,
        notes: vec!["an older snapshot was used".to_owned()],
        segments: Some(0),
        ..restore()
    };
    let text = printed(false, |out| report.print_lines(out));
    assert!(text.contains("done (0 segments)\n"), "{text}");
    assert!(
        text.contains("  Note: an older snapshot was used\n"),
        "{text}"
    );
    assert!(
        text.ends_with(
            "  Restore point: TXID 42, 2024-01-15 10:30:00\n✓ Restored to restored.db\n"
        ),
        "{text}"
    );
}

#[test]
fn a_restore_that_does_nothing_says_why() {
    let report =
        |outcome| RestoreReport::nothing("a.db".parse().unwrap(), "out.db".into(), outcome);
    let exists = report(Outcome::Exists);
    assert_eq!(
        printed(false, |out| exists.print_lines(out)),
        "✓ out.db is there already: nothing to do\n"
    );
    let text = printed(true, |out| out.json(&report(Outcome::NoBackup)));
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["outcome"], "no_backup");
    for field in [
        "txid",
        "txid_hex",
        "time",
        "checksum",
        "digest",
        "snapshot",
        "segments",
        "bytes_downloaded",
        "bytes_written",
        "requests",
        "verified",
        "format",
    ] {
        assert_eq!(value.get(field), Some(&serde_json::Value::Null), "{field}");
    }
}
