//! Random work, many turns: the frames between two held snapshots lead from one to the other.

use super::super::testing::{App, Capture, scratch};

/// One random step of an app. Steps may fail (a VACUUM inside nothing, a full freelist): the database
/// is then what SQLite says it is.
fn step(random: &mut fastrand::Rng) -> String {
    let n = random.u32(1..30);
    match random.u32(0..12) {
        0..3 => format!(
            "INSERT INTO t(b) SELECT randomblob(1+abs(random())%{}) FROM \
             (WITH RECURSIVE c(v) AS (SELECT 1 UNION ALL SELECT v+1 FROM c WHERE v<{n}) SELECT v FROM c)",
            if random.bool() { 300 } else { 5000 }
        ),
        3..5 => format!(
            "DELETE FROM t WHERE id%{}={}",
            random.u32(2..6),
            random.u32(0..2)
        ),
        5 => format!(
            "BEGIN; INSERT INTO t(b) VALUES (zeroblob({})); \
             DELETE FROM t WHERE id>(SELECT max(id) FROM t)-3; COMMIT",
            random.u32(1..40000)
        ),
        6 => format!("PRAGMA incremental_vacuum({})", random.u32(1..100)),
        7 => format!(
            "BEGIN; SAVEPOINT a; INSERT INTO t(b) VALUES (randomblob({})); \
             CREATE TABLE z(x); ROLLBACK TO a; INSERT INTO t(b) VALUES (1); COMMIT",
            random.u32(1..20000)
        ),
        8 => format!(
            "BEGIN; CREATE TABLE y(a); INSERT INTO y VALUES (randomblob({})); DROP TABLE y; COMMIT",
            random.u32(1..40000)
        ),
        9 if random.u32(0..4) == 0 => "VACUUM".to_owned(),
        9 => "DELETE FROM t".to_owned(),
        10 => "BEGIN; INSERT INTO t(b) VALUES (randomblob(20000)); ROLLBACK".to_owned(),
        _ => format!(
            "UPDATE t SET b=randomblob({}) WHERE id%3=0",
            random.u32(1..2000)
        ),
    }
}

fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let place = scratch("app.db");
    let mut app = App::start();
    app.open("a", &place.path);
    app.sql("a", "PRAGMA page_size=512");
    app.sql("a", &format!("PRAGMA auto_vacuum={}", seed % 3));
    app.sql("a", "PRAGMA journal_mode=WAL");
    app.sql("a", "PRAGMA busy_timeout=0");
    app.sql("a", "PRAGMA synchronous=OFF");
    app.sql("a", "CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)");
    app.sql("a", "CREATE INDEX i ON t(b)");
    let mut capture = Capture::attach(&place.path);
    for turn in 0..20 {
        for _ in 0..random.u32(1..5) {
            for sql in step(&mut random).split("; ") {
                let _ = app.try_call(&["sql", "a", sql]);
            }
            match random.u32(0..9) {
                0..3 => drop(app.sql("a", "PRAGMA wal_checkpoint(PASSIVE)")),
                3 => drop(app.sql("a", "PRAGMA wal_checkpoint(TRUNCATE)")),
                _ => {}
            }
        }
        if random.bool() {
            capture.source.checkpoint_passive().unwrap();
        }
        capture.turn();
        assert!(capture.image == app.image("a"), "seed {seed}, turn {turn}");
    }
}

#[test]
fn frames_between_two_held_snapshots_lead_from_one_to_the_other() {
    for seed in 0..6 {
        run(seed);
    }
}
