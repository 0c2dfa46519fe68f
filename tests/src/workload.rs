//! What the application does: seeded random work that leans on what page-level replication gets wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::record::Recorder;

/// How long the application waits for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

/// What an application is to be. Serialised as JSON on the command line of `walrust-test-app`.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Spec {
    /// The database.
    pub database: PathBuf,
    /// The folder of the commit log.
    pub log: PathBuf,
    /// Of the random numbers.
    pub seed: u64,
    /// Bytes of a page, for a new database.
    pub page_size: u32,
    /// 0 none, 1 full, 2 incremental, for a new database.
    pub auto_vacuum: u8,
    /// `FULL`, `NORMAL` or `OFF`.
    pub synchronous: String,
    /// Frames after which SQLite checkpoints at a commit; 0 never.
    pub autocheckpoint: u32,
    /// Commits to make; none: until told to stop.
    pub commits: Option<u64>,
    /// Commits a second to aim at; none: as fast as it goes.
    pub rate: Option<f64>,
    /// Open a connection for each transaction and close it after.
    pub reopen: bool,
    /// Issue checkpoints of all four kinds now and then.
    pub checkpoints: bool,
    /// VACUUM, tables dropped, big deletes, regrowth; else inserts and updates only.
    pub upheaval: bool,
    /// Threads that hold read transactions for a while.
    pub readers: u32,
    /// Pages at which the workload turns to deleting.
    pub page_limit: u32,
}

impl Spec {
    /// Small, calm defaults.
    pub fn new(database: &Path, log: &Path, seed: u64) -> Self {
        Self {
            database: database.to_owned(),
            log: log.to_owned(),
            seed,
            page_size: 4096,
            auto_vacuum: 0,
            synchronous: "NORMAL".to_owned(),
            autocheckpoint: 1000,
            commits: None,
            rate: None,
            reopen: false,
            checkpoints: false,
            upheaval: false,
            readers: 0,
            page_limit: 600,
        }
    }

    /// Everything drawn from the seed: page size, auto-vacuum, who checkpoints, who reads, how it is closed.
    pub fn random(database: &Path, log: &Path, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let page_size = 512 << rng.u32(0..8);
        Self {
            page_size,
            auto_vacuum: rng.u8(0..3),
            synchronous: (*["NORMAL", "FULL"].get(rng.usize(0..2)).unwrap()).to_owned(),
            autocheckpoint: [0, 1000, 1000, 50][rng.usize(0..4)],
            reopen: rng.u8(0..4) == 0,
            checkpoints: rng.bool(),
            upheaval: rng.u8(0..4) != 0,
            readers: rng.u32(0..3),
            page_limit: if page_size > 16384 { 150 } else { 500 },
            ..Self::new(database, log, seed)
        }
    }
}

/// Opens a connection as the application does.
pub fn connect(spec: &Spec) -> rusqlite::Result<Connection> {
    let connection = Connection::open(&spec.database)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "synchronous", &spec.synchronous)?;
    connection.pragma_update(None, "wal_autocheckpoint", spec.autocheckpoint)?;
    // Small, so that larger transactions spill into the WAL before they commit.
    connection.pragma_update(None, "cache_size", 60)?;
    Ok(connection)
}

const SCHEMA: [&str; 7] = [
    "CREATE TABLE IF NOT EXISTS items(id INTEGER PRIMARY KEY, k INT, v TEXT, b BLOB)",
    "CREATE INDEX IF NOT EXISTS items_k ON items(k)",
    "CREATE INDEX IF NOT EXISTS items_v ON items(v, k)",
    "CREATE TABLE IF NOT EXISTS pairs(a TEXT, b INT, c BLOB, PRIMARY KEY(a, b)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY AUTOINCREMENT, n INT, note TEXT UNIQUE)",
    "CREATE VIRTUAL TABLE IF NOT EXISTS docs USING fts5(title, body)",
    "CREATE TABLE IF NOT EXISTS blobs(id INTEGER PRIMARY KEY, data BLOB)",
];

/// Makes the database in WAL mode with its tables, recorded commit by commit. Does nothing to one that has them.
pub fn create(spec: &Spec, recorder: &mut Recorder) -> rusqlite::Result<Connection> {
    let mut connection = connect(spec)?;
    let schema: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if schema > 0 {
        recorder.observe(&connection)?;
        return Ok(connection);
    }
    connection.pragma_update(None, "page_size", spec.page_size)?;
    connection.pragma_update(None, "auto_vacuum", spec.auto_vacuum)?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    recorder.observe(&connection)?;
    for statement in SCHEMA {
        recorder.commit(&mut connection, |connection| {
            connection.execute_batch(statement)
        })?;
    }
    Ok(connection)
}

/// One step of the application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A transaction of several statements.
    Transaction,
    /// A transaction that is rolled back.
    RolledBack,
    /// `VACUUM`.
    Vacuum,
    /// `PRAGMA incremental_vacuum`.
    IncrementalVacuum,
    /// A table made or dropped, with an index.
    Schema,
    /// Most rows go.
    BigDelete,
    /// Many rows come.
    Regrow,
    /// A checkpoint of this kind.
    Checkpoint(&'static str),
}

/// Draws steps and carries them out.
pub struct Workload {
    spec: Spec,
    rng: Rng,
    queued: Vec<Step>,
}

impl Workload {
    /// A workload that follows from the spec and its seed.
    pub fn new(spec: Spec) -> Self {
        let rng = Rng::with_seed(spec.seed ^ 0x9e37_79b9_7f4a_7c15);
        Self {
            spec,
            rng,
            queued: Vec::new(),
        }
    }

    fn draw(&mut self, page_count: u32) -> Step {
        if let Some(step) = self.queued.pop() {
            return step;
        }
        if page_count > self.spec.page_limit {
            // Shrink and regrow, so close together that one batch holds both.
            self.queued = vec![Step::Regrow, self.shrink()];
            return Step::BigDelete;
        }
        let dice = self.rng.u32(0..100);
        match dice {
            0..6 if self.spec.checkpoints => {
                Step::Checkpoint(["PASSIVE", "FULL", "RESTART", "TRUNCATE"][self.rng.usize(0..4)])
            }
            6..9 => Step::RolledBack,
            9..11 if self.spec.upheaval => Step::Vacuum,
            11..15 if self.spec.upheaval => Step::IncrementalVacuum,
            15..20 if self.spec.upheaval => Step::Schema,
            20..22 if self.spec.upheaval => {
                self.queued = vec![Step::Regrow, self.shrink()];
                Step::BigDelete
            }
            22..25 if self.spec.upheaval => Step::Regrow,
            _ => Step::Transaction,
        }
    }

    fn shrink(&mut self) -> Step {
        if self.spec.auto_vacuum == 2 && self.rng.bool() {
            Step::IncrementalVacuum
        } else {
            Step::Vacuum
        }
    }

    /// Draws one step and does it. `SQLITE_BUSY` and the like are returned as they are.
    pub fn step(
        &mut self,
        connection: &mut Connection,
        recorder: &mut Recorder,
    ) -> rusqlite::Result<Step> {
        let page_count = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
        let step = self.draw(page_count);
        if let Step::Checkpoint(kind) = step {
            // The log knows nothing of it: a checkpoint changes no page of the database that SQLite shows.
            checkpoint(connection, kind)?;
            return Ok(step);
        }
        let (rng, spec) = (&mut self.rng, &self.spec);
        recorder.commit(connection, |connection| {
            perform(step, connection, rng, spec)
        })?;
        Ok(step)
    }
}

/// Runs a checkpoint, waiting 50 ms at most for others; gives (busy, frames in the WAL, frames copied back).
pub fn checkpoint(connection: &Connection, kind: &str) -> rusqlite::Result<(i64, i64, i64)> {
    connection.busy_timeout(Duration::from_millis(50))?;
    let sql = format!("PRAGMA wal_checkpoint({kind})");
    let outcome = connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    connection.busy_timeout(BUSY_TIMEOUT)?;
    match outcome {
        Err(rusqlite::Error::SqliteFailure(error, _))
            if matches!(
                error.code,
                rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked
            ) =>
        {
            Ok((1, -1, -1))
        }
        other => other,
    }
}

fn perform(
    step: Step,
    connection: &mut Connection,
    rng: &mut Rng,
    spec: &Spec,
) -> rusqlite::Result<()> {
    match step {
        Step::Vacuum => connection.execute_batch("VACUUM"),
        Step::IncrementalVacuum => {
            let pages = rng.u32(0..60);
            connection.execute_batch(&format!("PRAGMA incremental_vacuum({pages})"))
        }
        Step::Checkpoint(_) => Ok(()),
        Step::Transaction | Step::RolledBack | Step::Schema | Step::BigDelete | Step::Regrow => {
            let transaction =
                connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            match step {
                Step::Schema => schema(&transaction, rng)?,
                Step::BigDelete => big_delete(&transaction, rng)?,
                Step::Regrow => {
                    for _ in 0..rng.u32(20..90) {
                        insert(&transaction, rng, spec)?;
                    }
                }
                _ => {
                    for _ in 0..rng.u32(1..6) {
                        statement(&transaction, rng, spec)?;
                    }
                }
            }
            if step == Step::RolledBack {
                transaction.rollback()
            } else {
                transaction.commit()
            }
        }
    }
}

fn text(rng: &mut Rng, most: usize) -> String {
    let length = rng.usize(1..most.max(2));
    (0..length)
        .map(|_| {
            if rng.u8(0..6) == 0 {
                ' '
            } else {
                rng.lowercase()
            }
        })
        .collect()
}

fn bytes(rng: &mut Rng, most: usize) -> Vec<u8> {
    let mut data = vec![0; rng.usize(0..most.max(2))];
    // Half of them compress.
    if rng.bool() {
        rng.fill(&mut data);
    }
    data
}

fn insert(connection: &Connection, rng: &mut Rng, spec: &Spec) -> rusqlite::Result<usize> {
    let page = spec.page_size as usize;
    match rng.u8(0..8) {
        0..3 => connection.execute(
            "INSERT INTO items(k, v, b) VALUES (?1, ?2, ?3)",
            params![
                rng.i32(0..5000),
                text(rng, 60),
                bytes(rng, page.min(8192) / 8)
            ],
        ),
        3 => connection.execute(
            "INSERT INTO pairs(a, b, c) VALUES (?1, ?2, ?3)
             ON CONFLICT(a, b) DO UPDATE SET c = excluded.c",
            params![text(rng, 6), rng.i32(0..40), bytes(rng, page / 6)],
        ),
        4 => connection.execute(
            "INSERT OR REPLACE INTO notes(n, note) VALUES (?1, ?2)",
            params![rng.i32(0..100), text(rng, 12)],
        ),
        5 => connection.execute(
            "INSERT INTO docs(title, body) VALUES (?1, ?2)",
            params![text(rng, 20), text(rng, 300)],
        ),
        // Several overflow pages.
        _ => connection.execute(
            "INSERT INTO blobs(data) VALUES (?1)",
            params![bytes(rng, page * 5)],
        ),
    }
}

fn statement(connection: &Connection, rng: &mut Rng, spec: &Spec) -> rusqlite::Result<()> {
    let low = rng.i32(0..5000);
    match rng.u8(0..12) {
        0 => connection.execute(
            "UPDATE items SET v = v || 'x', k = k + 1 WHERE k BETWEEN ?1 AND ?1 + 200",
            [low],
        )?,
        1 => connection.execute(
            "UPDATE items SET b = zeroblob(length(b) / 2 + 7) WHERE k % 97 = ?1 % 97",
            [low],
        )?,
        2 => connection.execute("DELETE FROM items WHERE k BETWEEN ?1 AND ?1 + 300", [low])?,
        3 => connection.execute("DELETE FROM pairs WHERE b = ?1 % 40", [low])?,
        4 => connection.execute(
            "UPDATE blobs SET data = zeroblob(?1) WHERE id % 7 = ?1 % 7",
            [low],
        )?,
        5 => connection.execute("DELETE FROM blobs WHERE id % 11 = ?1 % 11", [low])?,
        6 => connection.execute("DELETE FROM docs WHERE rowid % 13 = ?1 % 13", [low])?,
        7 => {
            connection.execute_batch("SAVEPOINT inner_work")?;
            for _ in 0..rng.u32(1..20) {
                insert(connection, rng, spec)?;
            }
            connection.execute_batch("ROLLBACK TO inner_work; RELEASE inner_work")?;
            insert(connection, rng, spec)?
        }
        _ => insert(connection, rng, spec)?,
    };
    Ok(())
}

fn schema(connection: &Connection, rng: &mut Rng) -> rusqlite::Result<()> {
    let name = format!("extra_{}", rng.u8(0..4));
    if rng.bool() {
        connection.execute_batch(&format!("DROP TABLE IF EXISTS {name}"))?;
    }
    connection.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {name}(x INTEGER PRIMARY KEY, y TEXT, z BLOB);
         CREATE INDEX IF NOT EXISTS {name}_y ON {name}(y)"
    ))?;
    for _ in 0..rng.u32(0..40) {
        let sql = format!("INSERT INTO {name}(y, z) VALUES (?1, ?2)");
        connection.execute(&sql, params![text(rng, 30), bytes(rng, 200)])?;
    }
    if rng.u8(0..3) == 0 {
        connection.execute_batch(&format!("DROP INDEX {name}_y; REINDEX items_k"))?;
    }
    Ok(())
}

fn big_delete(connection: &Connection, rng: &mut Rng) -> rusqlite::Result<()> {
    match rng.u8(0..3) {
        0 => connection.execute_batch("DELETE FROM blobs; DELETE FROM items WHERE id % 10 < 8"),
        1 => connection.execute_batch(
            "DELETE FROM items; DELETE FROM pairs; DELETE FROM blobs WHERE id % 10 < 8;
             INSERT INTO docs(docs) VALUES ('optimize')",
        ),
        _ => connection.execute_batch(
            "DROP TABLE IF EXISTS extra_0; DROP TABLE IF EXISTS extra_1; DROP TABLE IF EXISTS extra_2;
             DELETE FROM blobs WHERE id % 10 < 9; DELETE FROM docs WHERE rowid % 2",
        ),
    }
}
