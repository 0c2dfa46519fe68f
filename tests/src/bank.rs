//! A database whose tables belong together: what a reader must find true in every state of it.
//!
//! Money moves between two tables and never changes in sum; a version stands in several places; pages come and go.

use fastrand::Rng;
use rusqlite::{Connection, params};

/// What all accounts hold together.
pub const TOTAL: i64 = 1_000_000;

/// Makes the tables.
pub fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
         BEGIN;
         CREATE TABLE left_side(id INTEGER PRIMARY KEY, amount INT NOT NULL);
         CREATE TABLE right_side(id INTEGER PRIMARY KEY, amount INT NOT NULL);
         CREATE TABLE meta(version INT NOT NULL, oldest INT NOT NULL);
         CREATE TABLE journal(version INTEGER PRIMARY KEY, note BLOB NOT NULL);
         CREATE INDEX journal_note ON journal(length(note), version);
         INSERT INTO left_side SELECT value, 1000 FROM (WITH RECURSIVE c(value) AS
             (SELECT 1 UNION ALL SELECT value + 1 FROM c WHERE value < 1000) SELECT value FROM c);
         INSERT INTO right_side SELECT id, 0 FROM left_side;
         INSERT INTO meta VALUES(0, 1);
         COMMIT;",
    )
}

/// Commits version `version`, which follows the one before.
pub fn commit(connection: &mut Connection, version: i64, rng: &mut Rng) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for _ in 0..rng.u32(1..6) {
        let (from, to) = (rng.u32(1..1001), rng.u32(1..1001));
        let amount = rng.i64(-500..500);
        transaction.execute(
            "UPDATE left_side SET amount = amount - ?2 WHERE id = ?1",
            params![from, amount],
        )?;
        transaction.execute(
            "UPDATE right_side SET amount = amount + ?2 WHERE id = ?1",
            params![to, amount],
        )?;
    }
    let length = rng.usize(10..4000);
    transaction.execute(
        "INSERT INTO journal VALUES(?1, ?2)",
        params![version, vec![(version % 251) as u8; length]],
    )?;
    transaction.execute("UPDATE meta SET version = ?1", [version])?;
    if version % 60 == 0 {
        // The database shrinks with the next VACUUM.
        transaction.execute("DELETE FROM journal WHERE version <= ?1 - 20", [version])?;
        transaction.execute("UPDATE meta SET oldest = max(oldest, ?1 - 19)", [version])?;
    }
    if version % 97 == 0 {
        transaction.execute_batch(&format!(
            "DROP TABLE IF EXISTS extra; CREATE TABLE extra(version_{version} INT);
             INSERT INTO extra VALUES({version})"
        ))?;
    }
    transaction.commit()?;
    if version % 120 == 0 {
        connection.execute_batch("VACUUM")?;
    }
    Ok(())
}

/// Checks one state, inside the open read transaction of `connection`, and gives its version.
pub fn check(connection: &Connection) -> Result<i64, String> {
    let number = |sql: &str| -> Result<i64, String> {
        connection
            .query_row(sql, [], |row| row.get(0))
            .map_err(|error| format!("{sql}: {error}"))
    };
    let version = number("SELECT version FROM meta")?;
    let oldest = number("SELECT oldest FROM meta")?;
    let expectations = [
        (
            "SELECT (SELECT sum(amount) FROM left_side) + (SELECT sum(amount) FROM right_side)",
            TOTAL,
        ),
        ("SELECT ifnull(max(version), 0) FROM journal", version),
        ("SELECT count(*) FROM journal", version - oldest + 1),
        (
            "SELECT count(*) FROM journal INDEXED BY journal_note WHERE length(note) > 0",
            version - oldest + 1,
        ),
        (
            "SELECT count(*) FROM journal WHERE note != CAST(printf('%.*c', length(note), char(version % 251)) AS BLOB)
             AND version % 251 BETWEEN 1 AND 127",
            0,
        ),
    ];
    for (sql, expected) in expectations {
        let found = number(sql)?;
        if found != expected {
            return Err(format!(
                "version {version}: {sql} gives {found}, not {expected}"
            ));
        }
    }
    Ok(version)
}
