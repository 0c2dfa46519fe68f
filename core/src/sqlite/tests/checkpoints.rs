//! Whoever checkpoints, every commit is captured (failure catalogue, K).

use std::time::{Duration, Instant};

use super::super::testing::{App, Capture, scratch, turn_on};

/// Result row of `PRAGMA wal_checkpoint`: whether it was busy.
fn is_busy(app: &mut App, kind: &str) -> bool {
    let row = app.sql("a", &format!("PRAGMA wal_checkpoint({kind})"));
    row[0][0] == 1
}

#[test]
fn k1_mark_zero_lets_one_restart_happen_and_loses_nothing() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "PRAGMA busy_timeout=0");
    app.sql("a", "CREATE TABLE t(v)");
    app.sql("a", "PRAGMA wal_checkpoint(PASSIVE)");
    let mut capture = Capture::attach(&place.path);
    assert!(capture.source.view().restartable, "on read mark 0");
    assert!(
        !is_busy(&mut app, "TRUNCATE"),
        "nothing of the WAL is needed"
    );
    app.sql("a", "INSERT INTO t VALUES (1)");
    app.sql("a", "INSERT INTO t VALUES (2)");
    assert!(is_busy(&mut app, "TRUNCATE"), "not captured yet");
    assert_eq!(capture.turn().commits, 2);
    assert!(!capture.source.view().restartable);
    assert!(
        is_busy(&mut app, "TRUNCATE"),
        "a mark above 0 holds the WAL"
    );
    app.sql("a", "INSERT INTO t VALUES (3)");
    assert_eq!(capture.turn().commits, 1);
    assert!(capture.image == app.image("a"));
}

#[test]
fn k2_every_commit_of_a_truncate_loop_is_captured() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 1024);
    app.sql("a", "PRAGMA busy_timeout=0");
    app.sql("a", "CREATE TABLE t(v)");
    let mut capture = Capture::attach(&place.path);
    let (mut commits, mut truncated) = (0, 0);
    for i in 0..60 {
        app.sql("a", &format!("INSERT INTO t VALUES ({i})"));
        truncated += u32::from(!is_busy(&mut app, "TRUNCATE"));
        if i % 3 == 0 {
            commits += capture.turn().commits;
            // Now everything is captured; the checkpoint may empty the WAL at the turn after next.
            app.sql("a", "PRAGMA wal_checkpoint(PASSIVE)");
            commits += capture.turn().commits;
            truncated += u32::from(!is_busy(&mut app, "TRUNCATE"));
        }
    }
    commits += capture.turn().commits;
    assert_eq!(commits, 60);
    assert!(truncated > 10, "truncated {truncated} times");
    assert!(capture.image == app.image("a"));
}

#[test]
fn k7_no_commit_slips_through_a_barrier_that_lost_its_lock() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "PRAGMA busy_timeout=0");
    app.sql("a", "CREATE TABLE t(v)");
    let mut capture = Capture::attach(&place.path);
    app.sql("a", "INSERT INTO t VALUES (1)");
    capture.turn();
    let barrier = capture
        .source
        .barrier(Duration::ZERO, |source| {
            app.sql("a", "PRAGMA busy_timeout=5000");
            app.sql("a", "INSERT INTO t VALUES (2)");
            app.sql("a", "PRAGMA busy_timeout=0");
            assert!(is_busy(&mut app, "TRUNCATE"));
            let done = source.checkpoint_passive()?;
            assert!(
                done.done < done.log,
                "our own mark holds the new commit back"
            );
            app.sql("a", "INSERT INTO t VALUES (3)");
            assert!(is_busy(&mut app, "TRUNCATE"));
            Ok(())
        })
        .unwrap();
    assert!(barrier.expired);
    assert_eq!(capture.turn().commits, 2);
    assert!(capture.image == app.image("a"));
}

#[test]
fn our_close_as_the_last_connection_keeps_the_wal() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    let capture = Capture::attach(&place.path);
    app.sql("a", "INSERT INTO t VALUES (1)");
    app.call(&["close", "a"]);
    let wal = std::fs::read(capture.source.wal_path()).unwrap();
    assert!(!wal.is_empty());
    let database = std::fs::read(&place.path).unwrap();
    let path = capture.source.wal_path().to_owned();
    let cursor = capture.source.view().cursor().unwrap();
    capture.source.detach().unwrap();
    assert!(std::fs::read(&path).unwrap() == wal);
    assert!(std::fs::read(&place.path).unwrap() == database);
    // What the next start proves its continuity with.
    let file = std::fs::File::open(path).unwrap();
    assert!(cursor.is_proven_by(&file).unwrap());
    let mut again = Capture::attach(&place.path);
    app.open("a", &place.path);
    assert!(again.image == app.image("a"));
    assert_eq!(again.turn().commits, 0);
}

#[test]
fn a_writer_that_never_pauses_is_captured_whole_and_its_wal_stays_small() {
    const WRITER: &str = "import threading
globals()['c'] = sqlite3.connect(PATH, isolation_level=None, timeout=30, check_same_thread=False)
c.execute('PRAGMA wal_autocheckpoint=0')
c.execute('PRAGMA synchronous=OFF')
def write():
    for i in range(4000): c.execute('INSERT OR REPLACE INTO t VALUES (?, randomblob(300))', (i % 97,))
globals()['thread'] = threading.Thread(target=write)
thread.start()";
    /// Frames after which the WAL is to be restarted.
    const THRESHOLD: u32 = 300;
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 1024);
    app.sql("a", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let mut capture = Capture::attach(&place.path);
    let path = format!("{:?}", place.path.to_str().unwrap());
    app.call(&["python", &WRITER.replace("PATH", &path)]);
    let (mut commits, mut restarts, mut last) = (0, 0, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while commits < 4000 {
        assert!(Instant::now() < deadline, "{commits} commits");
        let turned = capture.turn();
        commits += turned.commits;
        let frames = turned.view.wal.map_or(0, |end| end.frames);
        restarts += u32::from(frames < last);
        last = frames;
        if frames < THRESHOLD {
            continue;
        }
        let Capture { source, image } = &mut capture;
        source.checkpoint_passive().unwrap();
        let barrier = source.barrier(Duration::from_millis(20), |source| {
            commits += turn_on(source, image).unwrap().commits;
            source.checkpoint_passive()?;
            commits += turn_on(source, image).unwrap().commits;
            Ok(())
        });
        match barrier {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), crate::ErrorKind::Busy, "{error}"),
        }
    }
    app.call(&["python", "thread.join()"]);
    assert_eq!((commits, capture.turn().commits), (4000, 0));
    assert!(capture.image == app.image("a"));
    assert!(restarts > 0);
}

#[test]
fn k4_a_busy_or_partial_checkpoint_is_told_and_the_wal_stays_protected() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "PRAGMA busy_timeout=0");
    app.sql("a", "PRAGMA wal_autocheckpoint=0");
    app.sql("a", "CREATE TABLE t(v)");
    let mut capture = Capture::attach(&place.path);

    // Another reader holds back what comes behind it.
    app.open("b", &place.path);
    app.sql("b", "BEGIN");
    app.sql("b", "SELECT count(*) FROM t");
    app.sql("a", "INSERT INTO t VALUES (1)");
    assert_eq!(capture.turn().commits, 1);
    let partial = capture.source.checkpoint_passive().unwrap();
    assert!(partial.done < partial.log, "{partial:?}");
    assert!(is_busy(&mut app, "TRUNCATE"));
    app.sql("b", "COMMIT");
    let whole = capture.source.checkpoint_passive().unwrap();
    assert_eq!(whole.done, whole.log);

    // Another process is at it.
    let shm = format!("{}-shm", place.path.display());
    let hold = format!(
        "import os, fcntl\nglobal held\nheld = os.open('{shm}', os.O_RDWR)\nfcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 121)"
    );
    app.call(&["python", &hold]);
    app.sql("a", "INSERT INTO t VALUES (2)");
    let busy = capture.source.checkpoint_passive().unwrap_err();
    assert_eq!(busy.kind(), crate::ErrorKind::Busy, "{busy}");
    assert!(is_busy(&mut app, "TRUNCATE"), "held off all the same");
    assert_eq!(capture.turn().commits, 1, "capture goes on");
    app.call(&[
        "python",
        "import fcntl\nfcntl.lockf(held, fcntl.LOCK_UN, 1, 121)",
    ]);
    let whole = capture.source.checkpoint_passive().unwrap();
    assert_eq!(whole.done, whole.log);
    app.sql("a", "INSERT INTO t VALUES (3)");
    assert_eq!(capture.turn().commits, 1);
    assert!(capture.image == app.image("a"));
}
