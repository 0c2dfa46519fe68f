use walrust_core::types::PageSize;
use walrust_core::verify::Deep;

use super::*;
use crate::output::tests::printed;

fn issue(kind: IssueKind, key: &str, txids: Option<(u64, u64)>, message: &str) -> Issue {
    Issue {
        kind,
        key: key.to_owned(),
        min_txid: txids.map(|(min, _)| min),
        max_txid: txids.map(|(_, max)| max),
        message: message.to_owned(),
        fixable: kind == IssueKind::Orphan,
        fixed: false,
        unread: None,
    }
}

fn report(issues: Vec<Issue>) -> VerifyReport {
    VerifyReport {
        name: "myapp.db".to_owned(),
        ok: issues.iter().all(|issue| !issue.is_open()),
        files: 47,
        behind: 0,
        bytes: 12_939_428,
        txid: Txid::new(1523),
        page_size: PageSize::new(4096),
        verified: 45,
        issues,
        deep: Deep::default(),
        format: "walrust",
        manifest: true,
        duration_ms: 12,
    }
}

fn orphan() -> Issue {
    issue(
        IssueKind::Orphan,
        "p/myapp.db/0000/0000000000000064-0000000000000069.ltx",
        Some((100, 105)),
        "File missing from S3",
    )
}

#[test]
fn r129_verify_prints_the_lines_of_the_reference() {
    let name: DatabaseName = "myapp.db".parse().unwrap();
    let report = report(vec![
        orphan(),
        issue(
            IssueKind::Error,
            "p/myapp.db/0000/00000000000000c8-00000000000000d2.ltx",
            Some((200, 210)),
            "Checksum verification failed: file checksum a, the trailer says b",
        ),
    ]);
    let text = printed(false, |out| {
        announce(&name, "s3://my-backups", out);
        print(&report, out);
    });
    assert_eq!(
        text,
        "Verifying integrity of 'myapp.db' in s3://my-backups/myapp.db...

Found 47 LTX files in manifest
Current TXID: 1523
Page size: 4096 bytes

Verification Results
====================
Verified:  45 files (12.34 MB)
Issues:    2

Issues Found:
  [ORPHAN] 0000000000000064-0000000000000069.ltx: File missing from S3 (TXID: 100-105)
  [ERROR] 00000000000000c8-00000000000000d2.ltx: Checksum verification failed: file checksum a, the trailer says b (TXID: 200-210)

Run with --fix to remove 1 orphaned manifest entries.

Note: 1 non-orphan issues found. These may require manual intervention:
  - Checksum failures indicate corrupted files
  - TXID gaps may require restoring from an earlier snapshot
"
    );
}

#[test]
fn r132_without_issues_a_line_says_that_all_is_verified() {
    let text = printed(false, |out| print(&report(Vec::new()), out));
    assert!(
        text.ends_with("Verified:  45 files (12.34 MB)\nIssues:    0\n\n✓ All 45 files verified\n"),
        "{text}"
    );
    let note = issue(
        IssueKind::Note,
        "p/myapp.db/0001/0000000000000002-0000000000000002.ltx",
        Some((2, 2)),
        "Not in the manifest",
    );
    let behind = VerifyReport {
        behind: 3,
        ..report(vec![note])
    };
    let text = printed(false, |out| print(&behind, out));
    assert!(text.contains("Found 3 LTX files behind it\n"), "{text}");
    assert!(
        text.ends_with(
            "Issues:    0\n\nNotes:\n  [NOTE] 0000000000000002-0000000000000002.ltx: Not in the manifest (0001, TXID: 2)\n\n✓ All 45 files verified\n"
        ),
        "{text}"
    );
}

#[test]
fn r131_what_was_mended_is_told_and_what_is_left() {
    let fixed = Issue {
        fixed: true,
        ..orphan()
    };
    let gap = issue(
        IssueKind::Gap,
        "p/myapp.db/0000/000000000000006a-000000000000006a.ltx",
        Some((100, 105)),
        "TXID gap: expected 100, found 106",
    );
    let text = printed(false, |out| print(&report(vec![fixed.clone(), gap]), out));
    let end = "Issues Found:
  [ORPHAN] 0000000000000064-0000000000000069.ltx: File missing from S3 (TXID: 100-105) - fixed
  [ERROR] 000000000000006a-000000000000006a.ltx: TXID gap: expected 100, found 106 (TXID: 100-105)

✓ Removed 1 orphaned manifest entries.

Note: 1 non-orphan issues found. These may require manual intervention:
  - Checksum failures indicate corrupted files
  - TXID gaps may require restoring from an earlier snapshot
";
    assert!(text.ends_with(end), "{text}");
    let text = printed(false, |out| print(&report(vec![fixed]), out));
    assert!(
        text.ends_with("- fixed\n\n✓ Removed 1 orphaned manifest entries.\n"),
        "{text}"
    );
    let manifest = Issue {
        fixable: true,
        ..issue(
            IssueKind::Error,
            "p/myapp.db/manifest.json",
            None,
            "File missing from S3",
        )
    };
    let missing = VerifyReport {
        manifest: false,
        behind: 46,
        files: 0,
        ..report(vec![manifest])
    };
    let text = printed(false, |out| print(&missing, out));
    assert!(
        text.starts_with("Found 46 LTX files and no manifest\n"),
        "{text}"
    );
    assert!(
        text.contains("  [ERROR] manifest.json: File missing from S3\n"),
        "{text}"
    );
    assert!(
        text.contains("\nRun with --fix to write the manifest anew from the files.\n"),
        "{text}"
    );
}

#[test]
fn verify_as_json_has_every_field() {
    let text = printed(true, |out| {
        print(&report(Vec::new()), out);
        out.json(&report(vec![orphan()]));
    });
    assert_eq!(
        text,
        concat!(
            r#"{"v":1,"name":"myapp.db","ok":false,"files":47,"behind":0,"bytes":12939428,"txid":1523,"#,
            r#""page_size":4096,"verified":45,"issues":[{"kind":"orphan","#,
            r#""key":"p/myapp.db/0000/0000000000000064-0000000000000069.ltx","min_txid":100,"max_txid":105,"#,
            r#""message":"File missing from S3","fixable":true,"fixed":false}],"#,
            r#""deep":{"ran":false,"ok":null,"message":null},"format":"walrust","manifest":true,"duration_ms":12}"#,
            "\n"
        )
    );
}

#[test]
fn drills_print_a_line_each_and_one_json_object() {
    let good = DrillReport {
        name: "a.db".to_owned(),
        ok: true,
        txid: Txid::new(7),
        time: Some(walrust_core::types::Timestamp::from_millis(
            1_705_314_600_000,
        )),
        bytes: Some(1_258_291),
        duration_ms: 445,
        integrity: Some("ok".to_owned()),
        message: None,
        failure: None,
    };
    let bad = DrillReport {
        ok: false,
        name: "b.db".to_owned(),
        message: Some("no backup".to_owned()),
        ..good.clone()
    };
    let text = printed(false, |out| {
        let mut drills = DrillsReport::default();
        drills.add(good.clone(), out);
        drills.add(bad.clone(), out);
        drills.print(out);
    });
    assert_eq!(
        text,
        "✓ a.db: TXID 7 of 2024-01-15 10:30:00 restored in 445ms (1.2 MB), integrity_check: ok\n✗ b.db: no backup\n"
    );
    let text = printed(true, |out| {
        let mut drills = DrillsReport::default();
        drills.add(good, out);
        drills.print(out);
    });
    assert_eq!(
        text,
        concat!(
            r#"{"v":1,"ok":true,"databases":[{"name":"a.db","ok":true,"txid":7,"time":"2024-01-15T10:30:00Z","#,
            r#""bytes":1258291,"duration_ms":445,"integrity":"ok","message":null}]}"#,
            "\n"
        )
    );
}
