//! What a file may say.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{faults, parse, parse_with};
use crate::config::{
    Barrier, Encryption, Environment, File, GateStartup, LeaseMode, LogFormat, PathStyle,
    ProxyAddress, RetentionLayer,
};
use crate::error::{Error, ErrorKind};
use crate::types::Txid;

/// Every key that this version takes.
const FULL: &str = r#"
[s3]
bucket = "s3://my-backups/prod"
endpoint = "https://fly.storage.tigris.dev"
region = "eu-west-1"
path_style = "auto"
credentials_dir = "/run/s3"
ca_file = "/etc/ssl/own-ca.pem"
proxy = "http://user:word@proxy:3128"
storage_class = "STANDARD_IA"
sse = { mode = "aws:kms", key = "alias/backups" }
tags = { team = "payments", stage = "prod" }
checksums = false
lease = "observe"
lease_duration = "45s"
gate_startup = "always"
max_requests = 8
bandwidth = "10MiB"

[sync]
sync_interval = "250ms"
snapshot_interval = 1800
max_changes = 100
max_interval = "2h"
on_idle = 0.5
on_startup = true
prove_interval = "6h"
compact_after_snapshot = true
compact_interval = "6h"
checkpoint_pages = 1000
barrier = "off"
memory_limit = "32MiB"
spool_limit = 1073741824
set_wal_mode = true
allow_network_fs = true

[retention]
hourly = 48
daily = 0
weekly = 8
monthly = 6
points = "12h"
minutes = "3d"

[replicate]
interval = "500ms"

[metrics]
listen = "[::]:16767"
control = ""
ready_lag = "90s"

[log]
format = "json"

[[databases]]
path = "/var/lib/app/*.db"
prefix = "main"
optional = true
paused = true
adopt_at = 42
max_changes = 0
wal_sync_interval = "10s"
compact_interval = 0
retention = { hourly = 12, points = 60 }

[[databases]]
path = "/var/lib/users.db"
name = "users"
local = "/var/lib/replica.db"
"#;

#[test]
fn every_key_is_read() {
    let file = parse(FULL);
    let store = &file.store;
    assert_eq!(store.location, "s3://my-backups/prod".parse().ok());
    assert_eq!(
        store.endpoint.as_deref(),
        Some("https://fly.storage.tigris.dev")
    );
    assert_eq!(store.region.as_deref(), Some("eu-west-1"));
    assert_eq!(store.path_style, Some(PathStyle::Auto));
    assert_eq!(store.credentials_dir, Some(PathBuf::from("/run/s3")));
    assert_eq!(store.ca_file, Some(PathBuf::from("/etc/ssl/own-ca.pem")));
    let proxy = store.proxy.as_ref().map(ProxyAddress::url);
    assert_eq!(proxy, Some("http://user:word@proxy:3128"));
    assert_eq!(store.storage_class.as_deref(), Some("STANDARD_IA"));
    let key = Some("alias/backups".to_owned());
    assert_eq!(store.sse, Some(Encryption::Kms { key }));
    let tags = [("stage", "prod"), ("team", "payments")];
    let tags = tags.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(store.tags, Some(tags.into()));
    assert_eq!(store.checksums, Some(false));
    assert_eq!(store.lease, Some(LeaseMode::Observe));
    assert_eq!(store.lease_duration, Some(Duration::from_secs(45)));
    assert_eq!(store.gate_startup, Some(GateStartup::Always));
    assert_eq!(store.max_requests.map(u32::from), Some(8));
    assert_eq!(store.bandwidth, Some(10 << 20));
    let sync = &file.sync;
    assert_eq!(sync.sync_interval, Some(Duration::from_millis(250)));
    assert_eq!(sync.snapshot_interval, Some(Duration::from_secs(1800)));
    assert_eq!(sync.max_changes, Some(100));
    assert_eq!(sync.max_interval, Some(Duration::from_secs(7200)));
    assert_eq!(sync.on_idle, Some(Duration::from_millis(500)));
    assert_eq!(sync.on_startup, Some(true));
    assert_eq!(sync.prove_interval, Some(Duration::from_secs(21_600)));
    assert_eq!(sync.compact_after_snapshot, Some(true));
    assert_eq!(sync.compact_interval, Some(Duration::from_secs(21_600)));
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let expected = RetentionLayer {
        hourly: Some(48),
        daily: Some(0),
        weekly: Some(8),
        monthly: Some(6),
        points: seconds(43_200),
        minutes: seconds(259_200),
    };
    assert_eq!(file.retention, expected);
    assert_eq!(sync.checkpoint_pages.map(u32::from), Some(1000));
    assert_eq!(sync.barrier, Some(Barrier::Off));
    assert_eq!(sync.spool_limit, Some(1 << 30));
    assert_eq!(sync.set_wal_mode, Some(true));
    assert_eq!(sync.allow_network_fs, Some(true));
    assert_eq!(file.memory_limit, Some(32 << 20));
    let metrics = file.metrics;
    assert_eq!(metrics.listen, Some("[::]:16767".parse().ok()));
    assert_eq!(metrics.control, Some(None));
    assert_eq!(metrics.ready_lag, Some(Duration::from_secs(90)));
    assert_eq!(file.log_format, Some(LogFormat::Json));
    assert_eq!(file.hash.len(), 12);
    assert_eq!(parse("").hash, "e3b0c44298fc", "of no bytes");
    let [app, users] = &file.databases[..] else {
        panic!("two databases");
    };
    assert_eq!(app.path, Path::new("/var/lib/app/*.db"));
    assert_eq!(app.prefix, "main".parse().ok());
    assert!(app.optional && app.paused);
    assert_eq!(app.adopt_at, Txid::new(42));
    assert_eq!(app.sync.max_changes, Some(0));
    assert_eq!(app.sync.sync_interval, Some(Duration::from_secs(10)));
    assert_eq!(app.sync.compact_interval, seconds(0));
    let expected = RetentionLayer {
        hourly: Some(12),
        points: seconds(60),
        ..RetentionLayer::default()
    };
    assert_eq!(app.retention, expected);
    assert_eq!(users.retention, RetentionLayer::default());
    assert_eq!(users.prefix, "users".parse().ok());
    assert_eq!(users.local, Some("/var/lib/replica.db".into()));
    assert_eq!(app.local, None);
    assert!(!users.optional && !users.paused);
    assert_eq!(file.replicate_interval, Some(Duration::from_millis(500)));
}

#[test]
fn v9_unknown_keys_are_refused_in_every_section() {
    let expected = [
        ("color = 1", "1:1: unknown section `color`"),
        (
            "[S3]\nbucket = \"bkt\"",
            "1:2: unknown section `S3` (did you mean `s3`?)",
        ),
        (
            "[s3]\nbuckets = \"b\"",
            "2:1: unknown key in [s3]: `buckets` (did you mean `bucket`?)",
        ),
        ("[sync]\nfoo = 1", "2:1: unknown key in [sync]: `foo`"),
        ("[log]\nlevel = \"x\"", "2:1: unknown key in [log]: `level`"),
        (
            "[[databases]]\npath = \"a\"\n  pathh = 1",
            "3:3: unknown key in [[databases]]: `pathh` (did you mean `path`?)",
        ),
        (
            "[retention]\nyearly = 1",
            "2:1: unknown key in [retention]: `yearly`",
        ),
        (
            "[[databases]]\npath = \"a\"\nretention = { hourli = 1 }",
            "3:15: unknown key in [retention]: `hourli` (did you mean `hourly`?)",
        ),
        ("[sync.deep]\nx = 1", "1:7: unknown key in [sync]: `deep`"),
    ];
    for (text, fault) in expected {
        assert_eq!(faults(text), [fault], "{text}");
    }
}

#[test]
fn encryption_is_one_of_three_and_takes_what_belongs_to_it() {
    let read = |sse: &str| parse(&format!("[s3]\nsse = {{ {sse} }}")).store.sse;
    assert_eq!(read("mode = \"AES256\""), Some(Encryption::Aes256));
    assert_eq!(
        read("mode = \"aws:kms\""),
        Some(Encryption::Kms { key: None })
    );
    let key_file = PathBuf::from("/run/key");
    assert_eq!(
        read("mode = \"customer\", key_file = \"/run/key\""),
        Some(Encryption::Customer { key_file })
    );
    for (sse, fault) in [
        ("", "2:7: `sse` without `mode`: AES256, aws:kms or customer"),
        (
            "mode = \"aes\"",
            "2:16: `mode` is none of AES256, aws:kms, customer",
        ),
        (
            "mode = \"customer\"",
            "2:16: `mode`: customer wants a `key_file`",
        ),
        (
            "mode = \"AES256\", key = \"a\"",
            "2:32: `key` belongs to the mode aws:kms",
        ),
        (
            "mode = \"aws:kms\", key_file = \"a\"",
            "2:38: `key_file` belongs to the mode customer",
        ),
        (
            "mode = 1",
            "2:16: `mode`: wants a string, found a whole number",
        ),
        (
            "mode = \"AES256\", kye = \"a\"",
            "2:26: unknown key in [s3.sse]: `kye` (did you mean `key`?)",
        ),
    ] {
        assert_eq!(
            faults(&format!("[s3]\nsse = {{ {sse} }}")),
            [fault],
            "{sse}"
        );
    }
}

#[test]
fn tags_and_classes_that_s3_refuses_are_refused_here() {
    let tags: Vec<String> = (0..11).map(|n| format!("t{n} = \"v\"")).collect();
    for (text, fault) in [
        (
            format!("tags = {{ {} }}", tags.join(", ")),
            "an object has at most 10 tags",
        ),
        (
            "tags = { \"aws:x\" = \"v\" }".to_owned(),
            "`aws:x`: a tag's key is 1 to 128 letters, digits or `_.:/=+-@`, and does not begin with aws:",
        ),
        (
            "tags = { team = 1 }".to_owned(),
            "`team`: wants a string, found a whole number",
        ),
        (
            "storage_class = \"GLACIER\"".to_owned(),
            "`storage_class`: objects of the class GLACIER cannot be read at once: a restore would fail",
        ),
        (
            "proxy = \"socks5://p:1\"".to_owned(),
            "`proxy`: a proxy's address begins with http:// or https://",
        ),
    ] {
        let faults = faults(&format!("[s3]\n{text}"));
        assert!(
            faults.len() == 1 && faults[0].ends_with(fault),
            "{faults:?}"
        );
    }
}

#[test]
fn all_faults_are_reported_in_the_order_of_the_file() {
    let text = "\
[s3]
bucket = 7
lease = \"maybe\"
[sync]
sync_interval = 0
max_changes = -1
on_startup = \"yes\"
barrier = \"on\"
[[databases]]
prefix = \"..\"
[[databases]]
path = \"a\"
memory_limit = 5
";
    assert_eq!(
        faults(text),
        [
            "2:10: `bucket`: wants a string, found a whole number",
            "3:9: `lease`: \"maybe\" is none of enforce, observe, off",
            "5:17: `sync_interval`: 0ns is below the least possible 10ms",
            "6:15: `max_changes`: -1 is below 0",
            "7:14: `on_startup`: wants true or false, found a string",
            "8:11: `barrier`: \"on\" is none of auto, off",
            "9:1: a database without `path`",
            "10:10: `prefix`: name \"..\": \"..\" cannot be a component of a name",
            "13:16: `memory_limit`: it holds for the whole process and belongs into [sync]",
        ]
    );
}

#[test]
fn wrong_values_name_key_and_bound() {
    for (text, fault) in [
        ("[s3]\nbucket = \"\"", "2:10: `bucket`: must not be empty"),
        (
            "[s3]\nendpoint = \"localhost\"",
            "2:12: `endpoint`: an endpoint begins with http:// or https://",
        ),
        (
            "[s3]\nmax_requests = 0",
            "2:16: `max_requests`: 0 is below the least possible 1",
        ),
        (
            "[s3]\nbandwidth = 1.5",
            "2:13: `bandwidth`: wants a size, found a fraction",
        ),
        (
            "[metrics]\nlisten = \"16767\"",
            "2:10: `listen`: wants an address and a port, as in 127.0.0.1:16767 or [::]:16767, or \"\" for off",
        ),
        (
            "[metrics]\ncontrol = \"0.0.0.0:1\"",
            "2:11: `control`: whoever reaches it may detach databases: it must be a loopback address",
        ),
        (
            "[sync]\nsnapshot_interval = \"60\"",
            "2:21: `snapshot_interval`: \"60\" is not a duration: a number with ms, s, m, h or d, as in \"30s\"",
        ),
        (
            "[sync]\nsnapshot_interval = 9223372036854775807",
            "2:21: `snapshot_interval`: 9223372036854775807 is above the greatest possible 36500d",
        ),
        (
            "[sync]\non_idle = inf",
            "2:11: `on_idle`: inf is above the greatest possible 36500d",
        ),
        (
            "[sync]\nmax_changes = 99999999999999999999",
            "2:15: `max_changes`: 99999999999999999999 is too great",
        ),
        (
            "[sync]\nmemory_limit = \"1KiB\"",
            "2:16: `memory_limit`: 1024 is below the least possible 1048576",
        ),
        (
            "[retention]\nhourly = 8761",
            "2:10: `hourly`: 8761 is above the greatest possible 8760",
        ),
        (
            "[retention]\nweekly = \"1\"",
            "2:10: `weekly`: wants a whole number, found a string",
        ),
        (
            "[sync]\ncompact_interval = \"10ms\"",
            "2:20: `compact_interval`: 10ms is below the least possible 1s",
        ),
        (
            "[[databases]]\npath = \"a\"\nretention = 7",
            "3:13: `retention` is a table, found a whole number",
        ),
        ("s3 = 1", "1:6: `s3` is a table, found a whole number"),
        (
            "databases = 1",
            "1:13: `databases` is a list of tables: write [[databases]]",
        ),
        ("databases = [1]", "1:14: a database is a table"),
        (
            "[sync]\nsync_interval = 1\nwal_sync_interval = 1",
            "3:21: `sync_interval` and `wal_sync_interval` mean the same; give one of them",
        ),
        (
            "[[databases]]\npath = \"a\"\nprefix = \"a\"\nname = \"b\"",
            "4:8: `prefix` and `name` mean the same; give one of them",
        ),
        (
            "[s3]\nbucket = \"${NOT_SET}\"",
            "2:10: `bucket`: environment variable NOT_SET is not set (give a default with ${NOT_SET:-…})",
        ),
    ] {
        assert_eq!(faults(text), [fault], "{text}");
    }
}

#[test]
fn broken_syntax_has_a_place_too() {
    for (text, place) in [
        ("[s3]\nbucket = ", "2:"),
        ("[s3\n", "1:"),
        ("[s3]\nbucket = \"a\"\nbucket = \"bkt\"\n", "3:1"),
        ("[s3]\nüüü = = 1", "2:"),
    ] {
        let faults = faults(text);
        assert!(faults[0].starts_with(place), "{text}: {faults:?}");
        assert!(!faults[0].contains('\n'));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("w.toml");
    std::fs::write(&path, b"[s3]\nx = \"\xff\"").unwrap();
    let error = File::load(&path, &Environment::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(
        error.to_string().ends_with("w.toml:2:6: not UTF-8 text"),
        "{error}"
    );
}

#[test]
fn an_error_has_one_line_for_each_fault() {
    let faults = File::parse(
        Path::new("/etc/w.toml"),
        "a = 1\nb = 2",
        &Environment::default(),
    )
    .unwrap_err();
    let error = Error::from(faults);
    assert_eq!(
        error.to_string(),
        "/etc/w.toml:1:1: unknown section `a`\n/etc/w.toml:2:1: unknown section `b`"
    );
}

#[test]
fn variables_are_replaced_in_strings() {
    let environment: Environment = [("BUCKET", "bkt"), ("EVERY", "5m")].into_iter().collect();
    let file = parse_with(
        "[s3]\nbucket = \"s3://${BUCKET}/${STAGE:-prod}\"\n[sync]\nsnapshot_interval = \"${EVERY}\"",
        &environment,
    );
    assert_eq!(file.store.location, "s3://bkt/prod".parse().ok());
    assert_eq!(file.sync.snapshot_interval, Some(Duration::from_secs(300)));
}

#[test]
fn path_style_may_be_a_boolean() {
    let style = |text: &str| {
        parse(&format!("[s3]\npath_style = {text}"))
            .store
            .path_style
    };
    assert_eq!(style("true"), Some(PathStyle::Path));
    assert_eq!(style("\"false\""), Some(PathStyle::Host));
}

#[test]
fn a_missing_file_is_an_error_with_its_path() {
    let error =
        File::load(Path::new("/no/such/walrust.toml"), &Environment::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.object(), Some("/no/such/walrust.toml"));
}
