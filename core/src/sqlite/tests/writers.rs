//! Apps with odd habits, and locks that must outlive whatever we do.

use super::super::Side;
use super::super::testing::{App, Capture, image_of, scratch};
use crate::types::PageCount;
use crate::wal::{EarlyEnd, ScanError};

/// First byte and length of SQLite's SHARED lock on a database. Source: SQLite's os.h.
const SHARED: (u64, u64) = (0x4000_0002, 510);
/// The bytes of `-shm` that stand for the read marks.
const READ_MARKS: (u64, u64) = (123, 5);

#[test]
fn k5_locks_survive_every_read_of_ours() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    app.call(&["close", "a"]);
    let mut capture = Capture::attach(&place.path);
    let shm = place.directory.path().join("app.db-shm");
    let us = u64::from(std::process::id());
    for i in 0..20 {
        // Opens, writes and closes: each time it looks for itself as the last one.
        let insert = format!("INSERT INTO t VALUES ({i})");
        app.call(&["once", place.path.to_str().unwrap(), &insert]);
        assert_eq!(app.lock_holder(&place.path, SHARED.0, SHARED.1), us);
        assert_eq!(app.lock_holder(&shm, READ_MARKS.0, READ_MARKS.1), us);
        assert_eq!(capture.turn().commits, 1, "its last close kept the WAL");
        image_of(&mut capture.source, Side::Old);
        capture.source.peek().unwrap();
        capture.source.identity().unwrap();
        capture.source.checkpoint_passive().unwrap();
        let barrier = std::time::Duration::from_secs(1);
        capture.source.barrier(barrier, |_| Ok(())).unwrap();
        // A second attachment would close descriptors of its own.
        let second = super::super::Source::attach(&place.path, &Default::default());
        assert!(second.unwrap_err().message().contains("already has"));
        assert_eq!(app.lock_holder(&place.path, SHARED.0, SHARED.1), us);
        assert_eq!(app.lock_holder(&shm, READ_MARKS.0, READ_MARKS.1), us);
    }
}

#[test]
fn w9_an_app_that_opens_and_closes_for_each_statement_is_captured_whole() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    app.call(&["close", "a"]);
    let path = place.path.to_str().unwrap().to_owned();
    let writer = std::thread::spawn(move || {
        for i in 0..300 {
            app.call(&["once", &path, &format!("INSERT INTO t VALUES ({i})")]);
        }
        app
    });
    let mut capture = Capture::attach(&place.path);
    while !writer.is_finished() {
        capture.turn();
    }
    let mut app = writer.join().unwrap();
    capture.turn();
    app.open("a", &place.path);
    assert_eq!(app.sql("a", "SELECT count(*) FROM t")[0][0], 300);
    assert!(capture.image == app.image("a"));
}

#[test]
fn w7_a_fresh_database_of_any_page_size_is_followed_from_its_first_commit() {
    for shift in 9..=16 {
        let page_size = 1 << shift;
        let place = scratch("app.db");
        let mut app = App::with_database(&place.path, page_size);
        let mut capture = Capture::attach(&place.path);
        assert_eq!(capture.source.view().page_size.get(), page_size);
        app.sql("a", "CREATE TABLE t(v)");
        app.sql("a", "INSERT INTO t VALUES (zeroblob(100000))");
        capture.turn();
        app.sql("a", "PRAGMA wal_checkpoint(PASSIVE)");
        capture.turn();
        app.sql("a", "INSERT INTO t VALUES (1)");
        assert_eq!(capture.turn().commits, 1);
        assert!(capture.image == app.image("a"), "page size {page_size}");
    }
}

#[test]
fn w11_a_shrink_between_two_turns_ends_at_the_final_size() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 1024);
    app.sql("a", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    app.sql("a", "INSERT INTO t VALUES (1, zeroblob(200000))");
    let mut capture = Capture::attach(&place.path);
    let before = capture.source.view().page_count;
    app.sql("a", "INSERT INTO t VALUES (2, randomblob(50000))");
    app.sql("a", "DELETE FROM t WHERE id = 1");
    app.sql("a", "VACUUM");
    let turned = capture.turn();
    assert!(turned.view.page_count < before);
    assert!(capture.image == app.image("a"));
}

#[test]
fn w12_an_empty_wal_beside_a_full_database_is_attached() {
    let place = scratch("app.db");
    let mut app = App::start();
    app.open("a", &place.path);
    app.sql("a", "CREATE TABLE t(v)");
    app.sql("a", "INSERT INTO t VALUES (randomblob(50000))");
    app.sql("a", "PRAGMA journal_mode=WAL");
    app.sql("a", "SELECT count(*) FROM t");
    let mut capture = Capture::attach(&place.path);
    assert_eq!(capture.source.view().wal, None);
    assert!(capture.source.view().page_count > PageCount(10));
    assert!(capture.image == app.image("a"));
    app.sql("a", "INSERT INTO t VALUES (1)");
    assert_eq!(capture.turn().commits, 1);
}

#[test]
fn w13_a_hundred_commits_are_a_hundred_commits() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    let mut capture = Capture::attach(&place.path);
    for i in 0..100 {
        app.sql("a", &format!("INSERT INTO t VALUES ({i})"));
    }
    assert_eq!(capture.turn().commits, 100);
}

/// Appends a commit frame with right salts and checksum, as a writer leaves it that dies inside the
/// WAL's fsync: SQLite never had it.
const GHOST: &str = r#"
def ghost(path):
    d = open(path, "rb").read()
    size, = struct.unpack(">I", d[8:12])
    a, c = struct.unpack(">2I", d[-size - 8:-size])
    order = ">" if d[3] & 1 else "<"
    head, page = struct.pack(">2I", 2, 2), bytes([7]) * size
    w = struct.unpack(order + "%dI" % (2 + size // 4), head + page)
    for i in range(0, len(w), 2):
        a = (a + w[i] + c) & 0xffffffff; c = (c + w[i + 1] + a) & 0xffffffff
    open(path, "ab").write(head + d[16:24] + struct.pack(">2I", a, c) + page)
"#;

#[test]
fn w2_a_valid_commit_frame_that_sqlite_never_had_is_not_captured() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    app.sql("a", "INSERT INTO t VALUES (1)");
    let mut capture = Capture::attach(&place.path);
    let wal = capture.source.wal_path().to_str().unwrap().to_owned();
    app.call(&["python", &format!("{GHOST}\nghost({wal:?})")]);
    assert_eq!(capture.turn().frames, 0);
    app.sql("a", "INSERT INTO t VALUES (2)");
    assert_eq!(capture.turn().commits, 1);
    assert!(capture.image == app.image("a"));
}

/// The workload of an older SQLite (before 3.51) that leaves frames with zero salts in a live WAL.
const SPILLED_SAVEPOINT: &str = r#"
r, db = random.Random(1), conns["a"]
db.execute("PRAGMA cache_size=5")
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
db.execute("BEGIN")
for _ in range(60): db.execute("INSERT INTO t(v) VALUES (?)", (r.randbytes(3000),))
db.execute("COMMIT")
for k in range(1, 30):
    db.execute("BEGIN")
    db.execute("SAVEPOINT s")
    for _ in range(40): db.execute("UPDATE t SET v=? WHERE id=?", (r.randbytes(3000), r.randrange(1, 20)))
    db.execute("ROLLBACK TO s")
    db.execute("RELEASE s")
    for _ in range(3): db.execute("UPDATE t SET v=? WHERE id=?", (r.randbytes(3000), r.randrange(1, 60)))
    db.execute("COMMIT")
result = sqlite3.sqlite_version_info[1]
"#;

#[test]
fn w14_zero_salts_before_the_end_are_told_and_the_snapshot_still_holds_the_state() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    let mut capture = Capture::attach(&place.path);
    let minor = app.call(&["python", SPILLED_SAVEPOINT]).as_u64().unwrap();
    if minor >= 51 {
        // Mended there; then the whole WAL must be readable.
        capture.turn();
        return;
    }
    let before = *capture.source.view();
    match capture.try_turn() {
        Err(ScanError::EndsEarly { reason, .. }) => {
            assert!(
                matches!(reason, EarlyEnd::Salt { found: [0, 0], .. }),
                "{reason}"
            );
        }
        other => panic!("SQLite 3.{minor} left no zero salts: {other:?}"),
    }
    assert_eq!(capture.source.view(), &before, "the cursor did not move");
    capture.source.begin_turn().unwrap();
    assert!(image_of(&mut capture.source, Side::New) == app.image("a"));
    capture.source.end_turn().unwrap();
    // Once restarted, the WAL is sound again.
    capture.source.checkpoint_passive().unwrap();
    capture.source.begin_turn().unwrap();
    capture.source.end_turn().unwrap();
    capture.image = app.image("a");
    app.sql("a", "UPDATE t SET v = 1 WHERE id = 7");
    assert_eq!(capture.turn().commits, 1);
}

#[test]
fn a_schema_that_does_not_parse_does_not_stop_page_reads() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    app.sql("a", "PRAGMA writable_schema=1");
    app.sql("a", "UPDATE sqlite_schema SET sql = 'CREATE GARBAGE'");
    let mut capture = Capture::attach(&place.path);
    assert!(capture.image == app.image("a"));
    capture.turn();
}
