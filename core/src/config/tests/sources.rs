//! Which source wins.

use std::time::Duration;

use super::parse;
use crate::config::{
    Environment, Overrides, ReplicateSettings, RetentionLayer, RetentionPolicy, StoreLayer,
    SyncLayer, resolve, resolve_replicate, resolve_retention, resolve_store,
};
use crate::error::ErrorKind;

fn bucket() -> Overrides {
    Overrides {
        store: StoreLayer {
            location: "bkt".parse().ok(),
            ..StoreLayer::default()
        },
        ..Overrides::default()
    }
}

#[test]
fn v6_command_line_over_environment_over_file_over_default() {
    let file = parse("[s3]\nendpoint = \"http://file\"\nregion = \"file\"\nbucket = \"from-file\"");
    let empty = parse("");
    let environment: Environment = [
        ("AWS_ENDPOINT_URL_S3", "http://environment"),
        ("AWS_REGION", "environment"),
    ]
    .into_iter()
    .collect();
    let nothing = Environment::default();
    let mut command = bucket();
    command.store.endpoint = Some("http://command".to_owned());
    command.store.region = Some("command".to_owned());
    for (file, environment, overrides, endpoint, region) in [
        (
            &file,
            &environment,
            &command,
            Some("http://command"),
            Some("command"),
        ),
        (
            &file,
            &environment,
            &bucket(),
            Some("http://environment"),
            Some("environment"),
        ),
        (
            &file,
            &nothing,
            &bucket(),
            Some("http://file"),
            Some("file"),
        ),
        (
            &file,
            &nothing,
            &Overrides::default(),
            Some("http://file"),
            Some("file"),
        ),
        (
            &empty,
            &environment,
            &bucket(),
            Some("http://environment"),
            Some("environment"),
        ),
        (&empty, &nothing, &bucket(), None, None),
    ] {
        let store = resolve_store(Some(file), environment, overrides).unwrap();
        assert_eq!(store.endpoint.as_deref(), endpoint);
        assert_eq!(store.region.as_deref(), region);
    }
    let store = resolve_store(Some(&file), &nothing, &bucket()).unwrap();
    assert_eq!(store.location.to_string(), "s3://bkt");
}

#[test]
fn v6_a_database_overrides_the_file_and_the_command_line_overrides_both() {
    let file = parse(
        "[s3]\nbucket = \"bkt\"\n[sync]\nsnapshot_interval = 100\nmax_changes = 5\non_startup = true\n\
         [[databases]]\npath = \"a.db\"\n\
         [[databases]]\npath = \"b.db\"\nsnapshot_interval = 0\non_startup = false\nmax_changes = 7",
    );
    let resolve = |overrides: &Overrides| {
        let resolved = resolve(Some(&file), &Environment::default(), overrides).unwrap();
        let of = |index: usize| {
            let sync = &resolved.databases[index].sync;
            (
                sync.snapshot_interval.map(|interval| interval.as_secs()),
                sync.max_changes.map(u64::from),
                sync.on_startup,
            )
        };
        [of(0), of(1)]
    };
    assert_eq!(
        resolve(&Overrides::default()),
        [(Some(100), Some(5), true), (None, Some(7), false)]
    );
    let command = Overrides {
        sync: SyncLayer {
            snapshot_interval: Some(Duration::from_secs(9)),
            max_changes: Some(0),
            ..SyncLayer::default()
        },
        ..Overrides::default()
    };
    assert_eq!(
        resolve(&command),
        [(Some(9), None, true), (Some(9), None, false)]
    );
}

#[test]
fn v6_every_sync_setting_takes_the_highest_layer_that_names_it() {
    use crate::config::Barrier;
    let pages = |number| crate::config::limits::checkpoint_pages(number).ok();
    let layer = |n: u64, flag: bool, barrier| SyncLayer {
        sync_interval: Some(Duration::from_secs(n)),
        snapshot_interval: Some(Duration::from_secs(n)),
        max_changes: Some(n),
        max_interval: Some(Duration::from_secs(n)),
        on_idle: Some(Duration::from_secs(n)),
        on_startup: Some(flag),
        prove_interval: Some(Duration::from_secs(n)),
        compact_after_snapshot: Some(flag),
        compact_interval: Some(Duration::from_secs(n)),
        checkpoint_pages: pages(n),
        barrier: Some(barrier),
        spool_limit: Some(n << 20),
        set_wal_mode: Some(flag),
        allow_network_fs: Some(flag),
    };
    let (high, low) = (layer(2, true, Barrier::Off), layer(3, false, Barrier::Auto));
    assert_eq!(high.clone().over(&low), high);
    assert_eq!(SyncLayer::default().over(&low), low);
    assert_eq!(low.clone().over(&SyncLayer::default()), low);
}

#[test]
fn v6_retention_of_a_database_overrides_the_file_and_the_command_line_overrides_both() {
    let file = parse(
        "[s3]\nbucket = \"bkt\"\n[sync]\ncompact_interval = 0\n\
         [retention]\nhourly = 5\ndaily = 6\npoints = \"2h\"\n\
         [[databases]]\npath = \"a.db\"\n\
         [[databases]]\npath = \"b.db\"\nretention = { hourly = 9, minutes = 60 }",
    );
    let resolve = |retention: RetentionLayer| {
        let overrides = Overrides {
            retention,
            ..Overrides::default()
        };
        let resolved = resolve(Some(&file), &Environment::default(), &overrides).unwrap();
        assert_eq!(resolved.sync.compact_interval, None);
        let shown = |policy: RetentionPolicy| {
            (
                (policy.hourly, policy.daily, policy.weekly, policy.monthly),
                (policy.points.as_secs(), policy.minutes.as_secs()),
            )
        };
        let all = resolved
            .databases
            .iter()
            .map(|database| shown(database.retention));
        all.chain([shown(resolved.retention)]).collect::<Vec<_>>()
    };
    let minutes = 7 * 86_400;
    assert_eq!(
        resolve(RetentionLayer::default()),
        [
            ((5, 6, 12, 12), (7200, minutes)),
            ((9, 6, 12, 12), (7200, 60)),
            ((5, 6, 12, 12), (7200, minutes))
        ]
    );
    let command = RetentionLayer {
        hourly: Some(1),
        weekly: Some(0),
        ..RetentionLayer::default()
    };
    assert_eq!(
        resolve(command)[..2],
        [
            ((1, 6, 0, 12), (7200, minutes)),
            ((1, 6, 0, 12), (7200, 60))
        ]
    );
}

#[test]
fn r88_a_policy_that_keeps_no_snapshot_is_refused() {
    let none = RetentionLayer {
        hourly: Some(0),
        daily: Some(0),
        weekly: Some(0),
        monthly: Some(0),
        ..RetentionLayer::default()
    };
    let overrides = Overrides {
        retention: none,
        ..bucket()
    };
    let error = resolve_retention(None, &overrides, RetentionLayer::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("all 0"), "{error}");
    // One database's own is enough to be wrong, and it is named.
    let file = parse(
        "[s3]\nbucket = \"bkt\"\n[[databases]]\npath = \"b.db\"\n\
         retention = { hourly = 0, daily = 0, weekly = 0, monthly = 0 }",
    );
    let error = resolve(Some(&file), &Environment::default(), &Overrides::default()).unwrap_err();
    assert!(error.to_string().starts_with("b.db: retention"), "{error}");
}

#[test]
fn v10_the_region_has_a_default_and_two_variables() {
    let region = |variables: &[(&str, &str)]| {
        let environment = variables.iter().copied().collect();
        resolve_store(None, &environment, &bucket()).unwrap().region
    };
    assert_eq!(region(&[]), None);
    assert_eq!(region(&[("AWS_REGION", "")]), None);
    assert_eq!(region(&[("AWS_DEFAULT_REGION", "d")]).as_deref(), Some("d"));
    assert_eq!(
        region(&[("AWS_DEFAULT_REGION", "d"), ("AWS_REGION", "r")]).as_deref(),
        Some("r")
    );
}

#[test]
fn no_bucket_and_unusable_variables_are_errors_that_hold_no_secret() {
    let error = resolve_store(None, &Environment::default(), &Overrides::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("--bucket"), "{error}");
    let environment = [("AWS_ENDPOINT_URL_S3", "https://u:hunter2@h")]
        .into_iter()
        .collect();
    let error = resolve_store(None, &environment, &bucket()).unwrap_err();
    assert!(
        error.to_string().starts_with("AWS_ENDPOINT_URL_S3: "),
        "{error}"
    );
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    assert!(!format!("{environment:?}").contains("hunter2"));
}

#[test]
fn v11_zero_is_off_and_never_a_busy_loop() {
    let file = parse(
        "[s3]\nbucket = \"bkt\"\nbandwidth = 0\n[sync]\nsnapshot_interval = 0\nmax_changes = 0\n\
         max_interval = \"0s\"\non_idle = 0.0",
    );
    let resolved = resolve(Some(&file), &Environment::default(), &Overrides::default()).unwrap();
    let sync = &resolved.sync;
    assert_eq!(sync.snapshot_interval, None);
    assert_eq!(
        (sync.max_changes, sync.max_interval, sync.on_idle),
        (None, None, None)
    );
    assert_eq!(resolved.store.bandwidth, None);
    assert!(!sync.sync_interval.is_zero());
}

#[test]
fn v6_the_interval_of_a_replica_comes_from_the_command_line_then_the_file() {
    let file = parse("[replicate]\ninterval = 30\n[sync]\nallow_network_fs = true");
    let seconds = Duration::from_secs;
    let given = |interval| Overrides {
        replicate_interval: interval,
        ..Overrides::default()
    };
    let resolved = resolve_replicate(Some(&file), &given(Some(seconds(1))));
    assert_eq!(resolved.interval, seconds(1));
    assert!(resolved.allow_network_fs);
    assert_eq!(
        resolve_replicate(Some(&file), &given(None)).interval,
        seconds(30)
    );
    let default = resolve_replicate(None, &given(None));
    assert_eq!(default, ReplicateSettings::default());
    assert_eq!(default.interval, seconds(5));
}
