//! Each check against a store in which it fails.

use std::sync::Arc;

use super::report::{Check, Outcome};
use super::{bucket, database, trial};
use crate::clock::Clock;
use crate::config::{LeaseMode, ResolvedDatabase, SyncSettings};
use crate::error::ErrorKind;
use crate::restore::discover;
use crate::state::StateDir;
use crate::store::suite::bucket::{self as stores, Bucket};
use crate::store::{
    Call, Credentials, Fault, Faulty, Operation, RetryPolicy, Store, StoreConfig, list_all,
};
use crate::types::{KeyPrefix, Timestamp};

fn prefix() -> KeyPrefix {
    "prod".parse().unwrap()
}

fn outcome(checks: &[Check], name: &str) -> Option<Outcome> {
    let check = checks.iter().find(|check| check.name == name)?;
    Some(check.outcome)
}

#[track_caller]
fn the<'c>(checks: &'c [Check], name: &str) -> &'c Check {
    let found = checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {checks:#?}"))
}

/// All that failed, each with a hint.
fn failed(checks: &[Check]) -> Vec<&str> {
    let failed = checks.iter().filter(|check| !check.ok);
    failed
        .map(|check| {
            assert!(check.hint.is_some(), "no hint: {check:?}");
            assert!(check.kind.is_some(), "{check:?}");
            assert!(!check.message.contains('\n'), "{check:?}");
            check.name.as_str()
        })
        .collect()
}

async fn tried(store: impl Store) -> Vec<Check> {
    trial::run(&store, &prefix(), LeaseMode::Enforce).await
}

fn refusing(bucket: &Bucket, operation: Operation) -> Faulty<Arc<dyn Store>> {
    Faulty::new(Arc::clone(&bucket.store), move |call: &Call| {
        (call.operation == operation).then_some(Fault::Before(ErrorKind::Denied))
    })
}

async fn left(bucket: &Bucket) -> Vec<String> {
    let objects = list_all(&*bucket.store, "", None).await.unwrap();
    objects.into_iter().map(|object| object.key).collect()
}

/// Uploads that were begun and not ended, where the store tells.
async fn uploads(bucket: &Bucket) -> usize {
    match bucket.store.stale_uploads("").await {
        Ok(found) => found.len(),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            0
        }
    }
}

#[tokio::test]
async fn a_good_store_passes_and_nothing_stays_behind() {
    for bucket in [stores::directory(), stores::in_process().await] {
        let checks = tried(Arc::clone(&bucket.store)).await;
        assert_eq!(failed(&checks), [""; 0], "{checks:#?}");
        let names: Vec<_> = checks.iter().map(|check| check.name.as_str()).collect();
        let all = [
            "put",
            "get",
            "if-none-match",
            "if-match",
            "multipart",
            "multipart if-none-match",
            "abort",
            "delete",
        ];
        assert_eq!(names, all);
        assert!(checks.iter().all(|check| check.outcome == Outcome::Ok));
        assert_eq!(left(&bucket).await, [""; 0]);
        assert_eq!(uploads(&bucket).await, 0);
    }
}

#[tokio::test]
#[ignore = "needs a SeaweedFS: WEED_BIN names the program"]
async fn a_seaweed_passes_and_nothing_stays_behind() {
    let bucket = stores::weed().await;
    let checks = examined(bucket.config.clone().unwrap()).await;
    assert_eq!(failed(&checks), [""; 0], "{checks:#?}");
    assert_eq!(
        (left(&bucket).await, uploads(&bucket).await),
        (Vec::new(), 0)
    );
}

#[tokio::test]
async fn each_right_that_is_missing_is_named() {
    let bucket = stores::in_process().await;
    let put = tried(refusing(&bucket, Operation::Put)).await;
    assert_eq!(failed(&put), ["put"]);
    assert_eq!(outcome(&put, "multipart"), Some(Outcome::Ok));
    let hint = the(&put, "put").hint.clone().unwrap();
    assert_eq!(hint, "allow s3:PutObject on s3://bucket/prod/*");
    let get = tried(refusing(&bucket, Operation::Get)).await;
    assert_eq!(failed(&get), ["get"]);
    let upload = tried(refusing(&bucket, Operation::BeginUpload)).await;
    assert_eq!(failed(&upload), ["multipart"]);
    let part = tried(refusing(&bucket, Operation::Part)).await;
    assert_eq!(failed(&part), ["multipart"]);
    let end = tried(refusing(&bucket, Operation::Complete)).await;
    assert_eq!(failed(&end), ["multipart"]);
    assert_eq!(left(&bucket).await, [""; 0]);
    let abort = tried(refusing(&bucket, Operation::Abort)).await;
    assert_eq!(failed(&abort), [""; 0], "{abort:#?}");
    assert_eq!(outcome(&abort, "abort"), Some(Outcome::Note));
}

#[tokio::test]
async fn r148_without_delete_it_is_a_note_and_what_stays_is_nobodys_database() {
    let bucket = stores::in_process().await;
    let checks = tried(refusing(&bucket, Operation::Delete)).await;
    assert_eq!(failed(&checks), [""; 0]);
    let delete = the(&checks, "delete");
    assert_eq!(delete.outcome, Outcome::Note);
    assert!(
        delete.message.contains("only compact needs it"),
        "{delete:?}"
    );
    let left = left(&bucket).await;
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(
        left.iter()
            .all(|key| key.starts_with("prod/.walrust/doctor/")),
        "{left:?}"
    );
    for prefix in [prefix(), KeyPrefix::default()] {
        assert_eq!(discover(&*bucket.store, &prefix).await.unwrap(), []);
    }
}

#[tokio::test]
async fn bytes_that_come_back_changed_are_told() {
    let bucket = stores::directory();
    let torn = Faulty::new(Arc::clone(&bucket.store), |call: &Call| {
        (call.operation == Operation::Get).then_some(Fault::Torn(0))
    });
    let checks = tried(torn).await;
    assert_eq!(failed(&checks), ["get"]);
    assert_eq!(the(&checks, "get").kind, Some(ErrorKind::Corrupt));
}

#[tokio::test]
async fn u8_conditions_that_are_ignored_or_unknown_are_told() {
    let all = ["if-none-match", "if-match", "multipart if-none-match"];
    let bucket = stores::directory();
    let careless = crate::lease::careless(Arc::clone(&bucket.store));
    let checks = tried(Arc::clone(&careless)).await;
    assert_eq!(failed(&checks), all);
    for name in all {
        let check = the(&checks, name);
        assert!(check.message.contains("unfenced"), "{check:?}");
    }
    assert_eq!(left(&bucket).await, [""; 0]);
    // Who uses no leases relies on no condition.
    let checks = trial::run(&*careless, &prefix(), LeaseMode::Off).await;
    assert_eq!(failed(&checks), [""; 0]);
    assert_eq!(outcome(&checks, "if-match"), Some(Outcome::Note));
    // A store that answers 501, as Backblaze does: the first put has no condition, the others have.
    let unknown = Faulty::new(Arc::clone(&bucket.store), |call: &Call| {
        let conditional = call.operation == Operation::Put && call.number > 1;
        (conditional).then_some(Fault::Before(ErrorKind::Unsupported))
    });
    let checks = tried(unknown).await;
    assert_eq!(failed(&checks), ["if-none-match", "if-match"]);
}

async fn examined(config: StoreConfig) -> Vec<Check> {
    at(config, &Clock::system()).await
}

async fn at(mut config: StoreConfig, clock: &Clock) -> Vec<Check> {
    config.retry = RetryPolicy {
        limit: std::time::Duration::ZERO,
        ..RetryPolicy::default()
    };
    bucket::examine(&config, &prefix(), LeaseMode::Enforce, clock).await
}

#[tokio::test]
async fn the_way_to_the_bucket_is_checked_step_by_step() {
    let bucket = stores::in_process().await;
    let good = bucket.config.clone().unwrap();
    let checks = examined(good.clone()).await;
    assert_eq!(failed(&checks), [""; 0], "{checks:#?}");
    let names: Vec<_> = checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(
        names[..6],
        ["credentials", "provider", "bucket", "clock", "list", "put"]
    );
    assert_eq!(
        the(&checks, "credentials").message,
        "found, access key key…"
    );

    let empty = tempfile::tempdir().unwrap();
    let no_keys = StoreConfig {
        credentials: Credentials::Directory(empty.path().to_owned()),
        ..good.clone()
    };
    assert_eq!(failed(&examined(no_keys).await), ["credentials"]);

    let mut absent = good.clone();
    absent.location = "s3://other".parse().unwrap();
    let checks = examined(absent).await;
    assert_eq!(failed(&checks), ["bucket"]);
    assert_eq!(the(&checks, "bucket").message, "no such bucket");
    assert_eq!(outcome(&checks, "put"), None, "{checks:#?}");

    let nobody = StoreConfig {
        endpoint: Some("http://127.0.0.1:1".to_owned()),
        ..good.clone()
    };
    let checks = examined(nobody).await;
    assert_eq!(failed(&checks), ["bucket"]);
    assert_eq!(the(&checks, "bucket").kind, Some(ErrorKind::Unavailable));

    let no_endpoint = StoreConfig {
        endpoint: Some("ftp://x".to_owned()),
        ..good.clone()
    };
    assert_eq!(failed(&examined(no_endpoint).await), ["configuration"]);

    let wrong = tempfile::tempdir().unwrap();
    std::fs::write(wrong.path().join("AWS_ACCESS_KEY_ID"), "key").unwrap();
    std::fs::write(wrong.path().join("AWS_SECRET_ACCESS_KEY"), "wrong").unwrap();
    let wrong_secret = StoreConfig {
        credentials: Credentials::Directory(wrong.path().to_owned()),
        ..good
    };
    let checks = examined(wrong_secret).await;
    assert_eq!(failed(&checks)[..2], ["list", "put"], "{checks:#?}");
    let hint = the(&checks, "list").hint.as_deref().unwrap();
    assert!(hint.contains("AWS_SECRET_ACCESS_KEY"), "{hint}");
}

#[tokio::test]
async fn r146_a_clock_that_is_wrong_is_told() {
    let bucket = stores::in_process().await;
    let config = bucket.config.clone().unwrap();
    let off = |seconds: i64| {
        let now = Clock::system().now().millis();
        Clock::manual(Timestamp::from_millis(now + seconds * 1000))
    };
    let checks = at(config.clone(), &off(60)).await;
    assert_eq!(outcome(&checks, "clock"), Some(Outcome::Note));
    assert!(
        the(&checks, "clock")
            .message
            .ends_with("ahead of the store's")
    );
    assert_eq!(failed(&checks), [""; 0]);
    let checks = at(config, &off(-3600)).await;
    assert_eq!(failed(&checks), ["clock"]);
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_no_empty_store() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("none");
    let config = StoreConfig::new(format!("file://{}", root.display()).parse().unwrap());
    assert_eq!(
        failed(&bucket::examine_directory(&config, &root).await),
        ["directory"]
    );
    assert!(!root.exists(), "looking makes nothing");
    std::fs::create_dir(&root).unwrap();
    let checks = bucket::examine_directory(&config, &root).await;
    assert_eq!(failed(&checks), [""; 0], "{checks:#?}");
}

fn configured(path: &std::path::Path) -> ResolvedDatabase {
    ResolvedDatabase {
        path: path.to_owned(),
        name: "app.db".parse().unwrap(),
        optional: false,
        paused: false,
        adopt_at: None,
        matched: false,
        sync: SyncSettings::default(),
        retention: crate::config::RetentionPolicy::default(),
    }
}

fn make(path: &std::path::Path, mode: &str) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = {mode}; CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES (1)"
        ))
        .unwrap();
    connection
}

#[test]
fn a_database_is_looked_at_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let mut app = configured(&path);
    let checks = database::examine(&app);
    assert_eq!(failed(&checks), ["app.db file"]);
    app.optional = true;
    assert_eq!(failed(&database::examine(&app)), [""; 0]);

    std::fs::write(&path, "").unwrap();
    assert_eq!(failed(&database::examine(&app)), ["app.db file"]);
    std::fs::write(&path, "no database".repeat(100)).unwrap();
    assert_eq!(failed(&database::examine(&app)).len(), 1);
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert_eq!(failed(&database::examine(&app)), ["app.db file"]);
    std::fs::remove_dir(&path).unwrap();

    let plain = make(&path, "DELETE");
    assert_eq!(failed(&database::examine(&app)), ["app.db journal"]);
    app.sync.set_wal_mode = true;
    let checks = database::examine(&app);
    assert_eq!(failed(&checks), [""; 0]);
    assert_eq!(outcome(&checks, "app.db journal"), Some(Outcome::Note));
    drop(plain);

    // Nothing appears beside it, and nothing that is there goes.
    let wal = make(&path, "WAL");
    let names = |folder: &std::path::Path| {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names(folder.path());
    let checks = database::examine(&app);
    assert_eq!(failed(&checks), [""; 0], "{checks:#?}");
    assert_eq!(outcome(&checks, "app.db state"), Some(Outcome::Ok));
    assert_eq!(names(folder.path()), before);
    drop(wal);
}

#[test]
fn k5_the_locks_of_this_process_survive_a_look() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let _app = make(&path, "WAL");
    let source = crate::sqlite::Source::attach(&path, &Default::default()).unwrap();
    let checks = database::examine(&configured(&path));
    assert_eq!(failed(&checks), [""; 0]);
    assert_eq!(
        the(&checks, "app.db file").message,
        "watched by this process"
    );
    drop(source);
    assert_eq!(database::examine(&configured(&path)).len(), 6);
}

#[test]
fn the_state_directory_tells_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let _app = make(&path, "WAL");
    let app = configured(&path);
    let held = StateDir::create_or_open(&path).unwrap();
    let message = |checks: Vec<Check>| the(&checks, "app.db state").message.clone();
    assert_eq!(message(database::examine(&app)), "held by a running watch");
    let place = held.path().to_owned();
    drop(held);
    assert_eq!(message(database::examine(&app)), "free");
    // A link could lead anywhere.
    std::fs::rename(&place, folder.path().join("moved")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("moved"), &place).unwrap();
    assert_eq!(failed(&database::examine(&app)), ["app.db state"]);
}
