//! Events of a real kernel for a real app.

use std::time::Duration;

use super::super::wake::{Armed, WakeEvent, WakeKind, Waker, WatchId};
use crate::sqlite::testing::{App, again, attach, handed_on, scratch};

const ID: WatchId = WatchId(7);

/// The next event, or none within a time that is long for a local file.
async fn next(waker: &Waker) -> Option<WakeEvent> {
    tokio::time::timeout(Duration::from_secs(5), waker.next())
        .await
        .ok()
        .map(|event| event.unwrap())
}

/// What is there already, for one who expects nothing.
async fn nothing(waker: &Waker) -> bool {
    tokio::time::timeout(Duration::from_millis(50), waker.next())
        .await
        .is_err()
}

fn event(kind: WakeKind) -> Option<WakeEvent> {
    Some(WakeEvent { id: ID, kind })
}

#[tokio::test]
async fn many_writes_are_one_event_until_armed_again() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    let _source = attach(&place.path);
    let waker = Waker::new().unwrap();
    assert_eq!(waker.add(ID, &place.path).unwrap(), Armed::Watching);
    assert!(nothing(&waker).await);
    for round in 0..3 {
        for i in 0..20 {
            app.sql("a", &format!("INSERT INTO t VALUES ({i})"));
        }
        assert_eq!(
            next(&waker).await,
            event(WakeKind::Written),
            "round {round}"
        );
        assert!(nothing(&waker).await, "round {round}");
        assert_eq!(waker.arm(ID).unwrap(), Armed::Watching);
        assert_eq!(waker.arm(ID).unwrap(), Armed::Watching, "twice is once");
    }
    waker.remove(ID);
    app.sql("a", "INSERT INTO t VALUES (1)");
    assert!(nothing(&waker).await);
}

#[tokio::test]
async fn names_that_come_go_and_move_are_events_of_their_database_only() {
    let place = scratch("app.db");
    let other = place.directory.path().join("other.db");
    let wal = crate::fs::with_suffix(&place.path, "-wal");
    std::fs::write(&place.path, b"x").unwrap();
    let waker = Waker::new().unwrap();
    assert_eq!(waker.add(ID, &place.path).unwrap(), Armed::NoWal);
    assert_eq!(waker.add(WatchId(8), &other).unwrap(), Armed::NoWal);
    std::fs::write(place.directory.path().join("unrelated"), b"x").unwrap();
    assert!(nothing(&waker).await);
    std::fs::write(&wal, b"x").unwrap();
    assert_eq!(next(&waker).await, event(WakeKind::Names));
    assert_eq!(waker.arm(ID).unwrap(), Armed::Watching);
    std::fs::remove_file(&wal).unwrap();
    assert_eq!(next(&waker).await, event(WakeKind::Names));
    std::fs::rename(&place.path, place.directory.path().join("moved")).unwrap();
    assert_eq!(next(&waker).await, event(WakeKind::Names));
    assert!(nothing(&waker).await);
    waker.remove(ID);
    std::fs::write(&other, b"x").unwrap();
    let id = WatchId(8);
    let kind = WakeKind::Names;
    assert_eq!(next(&waker).await, Some(WakeEvent { id, kind }));
}

#[tokio::test]
async fn a_directory_that_goes_is_an_event_of_all_its_databases() {
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("inner");
    std::fs::create_dir(&directory).unwrap();
    let waker = Waker::new().unwrap();
    assert_eq!(
        waker.add(ID, &directory.join("a.db")).unwrap(),
        Armed::NoWal
    );
    std::fs::rename(&directory, outer.path().join("moved")).unwrap();
    assert_eq!(next(&waker).await, event(WakeKind::Names));
    std::fs::remove_dir(outer.path().join("moved")).unwrap();
    assert_eq!(next(&waker).await, event(WakeKind::Names));
    std::fs::create_dir(&directory).unwrap();
    assert_eq!(waker.arm(ID).unwrap(), Armed::NoWal);
    std::fs::write(directory.join("a.db-wal"), b"x").unwrap();
    assert_eq!(next(&waker).await, event(WakeKind::Names));
}

#[tokio::test]
async fn without_inotify_a_database_is_called_unwatched_once() {
    let waker = Waker::polling();
    let path = std::path::Path::new("/nowhere/app.db");
    assert_eq!(waker.add(ID, path).unwrap(), Armed::Polling);
    assert_eq!(waker.arm(ID).unwrap(), Armed::Polling);
    assert_eq!(next(&waker).await, event(WakeKind::Unwatched));
    assert!(nothing(&waker).await);
}

#[tokio::test]
#[ignore = "needs unshare(1) and user namespaces"]
async fn past_the_kernels_limit_of_watches_a_database_is_polled() {
    const TEST: &str = "wal::tests::wakes::past_the_kernels_limit_of_watches_a_database_is_polled";
    const ONE_WATCH: &str = "echo 1 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
    let Some(directory) = handed_on() else {
        let directory = tempfile::tempdir().unwrap();
        let launcher = ["unshare", "--map-root-user", "sh", "-c", ONE_WATCH, "sh"];
        return again(&launcher, TEST, directory.path());
    };
    let path = directory.join("app.db");
    std::fs::write(crate::fs::with_suffix(&path, "-wal"), b"x").unwrap();
    let waker = Waker::new().unwrap();
    assert_eq!(waker.add(ID, &path).unwrap(), Armed::Polling);
    assert_eq!(next(&waker).await, event(WakeKind::Unwatched));
    // The directory's watch was granted.
    std::fs::write(&path, b"x").unwrap();
    assert_eq!(next(&waker).await, event(WakeKind::Names));
    waker.remove(ID);
    assert_eq!(waker.add(ID, &path).unwrap(), Armed::Polling);
}
