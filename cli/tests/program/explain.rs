//! `walrust explain`.

use super::Shell;

const FILE: &str = r#"
[s3]
bucket = "s3://my-backups/prod"
endpoint = "https://fly.storage.tigris.dev"
proxy = "http://me:word@proxy:3128"

[sync]
snapshot_interval = 3600
max_changes = 100
on_idle = 60
on_startup = true
compact_after_snapshot = true

[[databases]]
path = "app.db"
prefix = "main"

[[databases]]
path = "users.db"
prefix = "users"
snapshot_interval = 1800
max_changes = 50

[[databases]]
path = "more/*.db"
"#;

const EXPLAINED: &str = "\
Configuration Summary
=====================

S3 Storage:
  Bucket:   s3://my-backups/prod
  Endpoint: https://fly.storage.tigris.dev

Snapshot Triggers (global defaults):
  Interval:    3600 seconds (60 minutes)
  Max changes: 100 WAL frames
  On idle:     60 seconds
  On startup:  yes

Compaction:
  After snapshot: enabled
  Interval:       disabled

Retention Policy (GFS rotation):
  Hourly:  24 snapshots (last 24 hours)
  Daily:   7 snapshots (last 7 days)
  Weekly:  12 snapshots (last 12 weeks)
  Monthly: 12 snapshots (last 12 months)

Databases:
  - app.db -> s3://.../main/*
  - users.db -> s3://.../users/*
    Overrides: interval=1800s, max_changes=50
  - more/*.db (no file matches)

Summary:
  Max snapshots retained per database: ~55
  Automatic compaction: enabled
";

#[test]
fn r124_the_configuration_is_explained_as_in_the_reference() {
    let shell = Shell::new();
    shell.write("walrust.toml", FILE);
    for name in ["app.db", "users.db"] {
        shell.write(name, "");
    }
    std::fs::create_dir(shell.path().join("more")).unwrap();
    let ran = shell.run("explain");
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    let (explained, estimate) = ran.stdout.split_at(EXPLAINED.len());
    assert_eq!(explained, EXPLAINED);
    assert!(
        estimate.contains("Requests: ") && estimate.contains("Storage: "),
        "{estimate}"
    );
    assert_eq!(
        shell.run("explain --config walrust.toml").stdout,
        ran.stdout
    );
    // Nothing was made.
    assert_eq!(std::fs::read_dir(shell.path()).unwrap().count(), 4);

    let ran = shell.run("explain --json");
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["databases"][1]["overrides"]["interval"], "1800s");
    assert_eq!(json["databases"][1]["target"], "s3://.../users/*");
    assert_eq!(json["databases"][2]["error"], "no file matches");
    assert_eq!(json["s3"]["lease_duration"], 30.0);
    assert!(json["estimate"]["puts_month"].as_u64() > Some(1_000_000));
    assert!(!ran.stdout.contains("word"), "a password is shown");
}

#[test]
fn r122_r125_what_is_missing_or_unset_is_said() {
    let shell = Shell::new();
    let ran = shell.run("explain");
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout.contains("./walrust.toml"), "{}", ran.stdout);
    let ran = shell.run("explain --config none.toml");
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("none.toml"), "{}", ran.stderr);

    shell.write(
        "walrust.toml",
        "[s3]\nbucket = \"b00\"\n[sync]\nsnapshot_interval = 0\nmax_interval = 90\ncompact_interval = \"1h\"\n\
         [retention]\nweekly = 0\nhourly = 1\n\
         [[databases]]\npath = \"gone.db\"\nretention = { daily = 3 }\non_idle = 0.5\n\
         [[databases]]\npath = \"later.db\"\noptional = true\npaused = true\n",
    );
    let ran = shell.run("explain");
    for line in [
        "  Endpoint: none: AWS is used",
        "  Interval:    disabled",
        "  Max changes: disabled",
        "  Max interval: 90 seconds",
        "  On idle:     disabled",
        "  On startup:  no",
        "  After snapshot: disabled",
        "  Interval:       every 3600 seconds (60 minutes)",
        "  Hourly:  1 snapshot (last 1 hour)",
        "  Weekly:  disabled",
        "  - gone.db -> s3://.../gone.db/* (no such file)",
        "    Overrides: on_idle=0.5s, retention=1/3/0/12",
        "  - later.db -> s3://.../later.db/* (paused) (not there yet, it is waited for)",
        "  Max snapshots retained per database: ~20",
        "  Automatic compaction: enabled",
    ] {
        assert!(
            ran.stdout.lines().any(|found| found == line),
            "{line}\n{}",
            ran.stdout
        );
    }
}
