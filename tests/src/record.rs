//! The application's side of the oracle: each commit under one lock, and the image it left.
//!
//! A folder holds `log` (a JSON record a line), `pages` (every page image once) and `lock`. Processes take
//! turns: lock, note the intent, commit, read every page through SQLite, append the difference to the
//! image before. So the log is exact for any number of writers. A process that dies between intent and record
//! leaves the question to the next one, which records what SQLite then shows.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use walrust_core::clock::Clock;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// One line of the log.
#[derive(Serialize, Deserialize, Debug)]
pub enum Record {
    /// A commit is about to be tried.
    Intent {
        /// Milliseconds since 1970.
        at: i64,
    },
    /// It came to nothing: the image is what it was.
    Unchanged,
    /// It happened.
    Commit(Commit),
}

/// One commit and the pages that it changed.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Commit {
    /// Counts from 0, the state when recording began.
    pub seq: u64,
    /// Milliseconds since 1970 before the commit was tried.
    pub before: i64,
    /// Milliseconds since 1970 after it returned.
    pub after: i64,
    /// Bytes of a page.
    pub page_size: u32,
    /// Pages of the database.
    pub page_count: u32,
    /// The image's digest, 32 hex digits: the sum of XXH3-128, seeded with the page number, over all pages.
    pub digest: String,
    /// Found by a later process, because the one that committed died before recording it.
    pub found: bool,
    /// Number and place in `pages` of each page that differs from the image before.
    pub changed: Vec<(u32, u64)>,
}

/// A page of the newest recorded image: its hash, and where its bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    pub(crate) hash: u128,
    pub(crate) at: u64,
}

/// Writes the log. One a connection or thread; any number of processes.
pub struct Recorder {
    dir: PathBuf,
    lock: File,
    log: File,
    pages: File,
    read_to: u64,
    next_seq: u64,
    image: Vec<Stored>,
    page_size: u32,
    known: HashMap<u128, u64>,
    intent: Option<i64>,
}

impl Recorder {
    /// Opens the log in `dir`, which is made if it does not exist.
    pub fn open(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            options.read(true).append(true).create(true);
            options.open(dir.join(name)).unwrap()
        };
        Self {
            lock: open("lock"),
            log: open("log"),
            pages: open("pages"),
            dir: dir.to_owned(),
            read_to: 0,
            next_seq: 0,
            image: Vec::new(),
            page_size: 0,
            known: HashMap::new(),
            intent: None,
        }
    }

    /// Whether somebody asked the application to end.
    pub fn stop_asked(&self) -> bool {
        self.dir.join("stop").exists()
    }

    /// Runs `work`, which makes at most one commit, and records what came of it.
    pub fn commit<T>(
        &mut self,
        connection: &mut Connection,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.turn(|this| {
            this.settle(connection)?;
            let before = now();
            this.append(&Record::Intent { at: before });
            this.intent = Some(before);
            let outcome = work(connection);
            this.look(connection, false)?;
            outcome
        })
    }

    /// Records the state as it is, if it differs from the last one.
    pub fn observe(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.turn(|this| {
            this.settle(connection)?;
            this.intent.get_or_insert_with(now);
            this.look(connection, this.next_seq > 0)
        })
    }

    /// The number of the last recorded commit.
    pub fn last(&self) -> Option<u64> {
        self.next_seq.checked_sub(1)
    }

    fn turn<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        retry(|| flock(&self.lock, FlockOperation::LockExclusive));
        self.catch_up();
        let outcome = work(self);
        retry(|| flock(&self.lock, FlockOperation::Unlock));
        outcome
    }

    /// Closes what a dead process left open.
    fn settle(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.intent.is_some() {
            self.look(connection, true)?;
        }
        Ok(())
    }

    /// Reads what others appended; the lock is held.
    fn catch_up(&mut self) {
        let mut text = Vec::new();
        self.log.seek(SeekFrom::Start(self.read_to)).unwrap();
        self.log.read_to_end(&mut text).unwrap();
        let whole = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |at| at + 1);
        for line in text[..whole]
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            self.apply(serde_json::from_slice(line).unwrap());
        }
        self.read_to += whole as u64;
        if whole < text.len() {
            // The writer died within its write; what it had to say is what the next look finds.
            self.log.set_len(self.read_to).unwrap();
        }
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Intent { at } => self.intent = Some(at),
            Record::Unchanged => self.intent = None,
            Record::Commit(commit) => {
                self.intent = None;
                self.next_seq = commit.seq + 1;
                if commit.page_size != self.page_size {
                    self.image.clear();
                    self.page_size = commit.page_size;
                }
                let absent = Stored {
                    hash: 0,
                    at: u64::MAX,
                };
                self.image.resize(commit.page_count as usize, absent);
                for (page, at) in commit.changed {
                    let hash = self.hash_at(at);
                    self.known.insert(hash, at);
                    self.image[page as usize - 1] = Stored { hash, at };
                }
            }
        }
    }

    fn hash_at(&mut self, at: u64) -> u128 {
        let mut bytes = [0; 16];
        self.pages.seek(SeekFrom::Start(at)).unwrap();
        self.pages.read_exact(&mut bytes).unwrap();
        u128::from_le_bytes(bytes)
    }

    fn append(&mut self, record: &Record) {
        let mut line = serde_json::to_vec(record).unwrap();
        line.push(b'\n');
        self.log.write_all(&line).unwrap();
        self.read_to += line.len() as u64;
    }

    /// Reads every page as SQLite shows it, and records the difference; the lock is held.
    fn look(&mut self, connection: &Connection, found: bool) -> rusqlite::Result<()> {
        let after = now();
        let before = self.intent.unwrap_or(after);
        let (page_size, hashes, fresh) = self.read_image(connection)?;
        let same = page_size == self.page_size
            && hashes.len() == self.image.len()
            && self
                .image
                .iter()
                .zip(&hashes)
                .all(|(old, new)| old.hash == *new);
        if same && self.next_seq > 0 {
            self.append(&Record::Unchanged);
            self.intent = None;
            return Ok(());
        }
        let mut place = self.pages.seek(SeekFrom::End(0)).unwrap();
        let mut block = Vec::new();
        for (hash, data) in fresh {
            block.extend_from_slice(&hash.to_le_bytes());
            block.extend_from_slice(&data);
            self.known.insert(hash, place);
            place += 16 + data.len() as u64;
        }
        self.pages.write_all(&block).unwrap();
        let grown = page_size != self.page_size;
        let changed = hashes.iter().enumerate().filter_map(|(index, hash)| {
            let old = self.image.get(index).filter(|_| !grown);
            (old.map(|stored| stored.hash) != Some(*hash))
                .then(|| (index as u32 + 1, self.known[hash]))
        });
        let commit = Commit {
            seq: self.next_seq,
            before,
            after,
            page_size,
            page_count: hashes.len() as u32,
            digest: format!("{:032x}", digest(page_size, &hashes)),
            found,
            changed: changed.collect(),
        };
        self.append(&Record::Commit(commit.clone()));
        self.apply(Record::Commit(commit));
        Ok(())
    }

    /// Page size, the hash of every page, and the bytes of those that `pages` does not hold.
    #[allow(clippy::type_complexity, reason = "one caller, three lines above")]
    fn read_image(
        &self,
        connection: &Connection,
    ) -> rusqlite::Result<(u32, Vec<u128>, Vec<(u128, Vec<u8>)>)> {
        let mut hashes = Vec::new();
        let mut fresh = HashMap::new();
        let page_size = each_page(connection, |page, data| {
            let hash = xxh3_128_with_seed(data, u64::from(page));
            hashes.push(hash);
            if !self.known.contains_key(&hash) {
                fresh.entry(hash).or_insert_with(|| data.to_vec());
            }
        })?;
        Ok((page_size, hashes, fresh.into_iter().collect()))
    }
}

/// Calls `visit` with each page of the database as SQLite shows it now, ascending; gives the page size.
/// The lock page is shown as zeros.
pub fn each_page(
    connection: &Connection,
    mut visit: impl FnMut(u32, &[u8]),
) -> rusqlite::Result<u32> {
    // One statement is one read transaction, so all pages are of one moment.
    let mut statement =
        connection.prepare("SELECT pgno, data FROM sqlite_dbpage('main') ORDER BY pgno")?;
    let mut rows = statement.query([])?;
    let mut page_size = 0;
    while let Some(row) = rows.next()? {
        let data = row.get_ref(1)?.as_blob()?;
        page_size = data.len() as u32;
        visit(row.get(0)?, data);
    }
    Ok(page_size)
}

/// The digest of an image whose pages have these hashes, in order.
pub(crate) fn digest(page_size: u32, hashes: &[u128]) -> u128 {
    let lock_page = 0x4000_0000_u64
        .checked_div(u64::from(page_size))
        .map(|before| before as usize);
    let counted = hashes
        .iter()
        .enumerate()
        .filter(|(index, _)| Some(*index) != lock_page);
    counted.fold(0, |sum, (_, hash)| sum.wrapping_add(*hash))
}

/// Milliseconds since 1970.
pub fn now() -> i64 {
    Clock::system().now().millis()
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<()>) {
    while let Err(error) = call() {
        assert_eq!(error, rustix::io::Errno::INTR, "lock of the commit log");
    }
}
