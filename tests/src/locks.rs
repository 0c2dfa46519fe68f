//! POSIX locks as the kernel shows them to anybody: seen from outside, without touching a file.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The POSIX locks that the process holds on a file, as the kernel shows them to anybody: (type, from, to).
fn locks(process: u32, file: &Path) -> BTreeSet<(String, u64, u64)> {
    let Ok(inode) = fs::metadata(file).map(|meta| meta.ino()) else {
        return BTreeSet::new();
    };
    let table = fs::read_to_string("/proc/locks").unwrap();
    let lines = table.lines().filter_map(|line| {
        let words: Vec<&str> = line
            .split_whitespace()
            .filter(|word| *word != "->")
            .collect();
        let [_, "POSIX", _, kind, pid, place, from, to] = words[..] else {
            return None;
        };
        let held = pid.parse() == Ok(process) && place.rsplit(':').next()?.parse() == Ok(inode);
        let to = if to == "EOF" {
            u64::MAX
        } else {
            to.parse().ok()?
        };
        held.then_some((kind.to_owned(), from.parse().ok()?, to))
    });
    lines.collect()
}

/// SQLite's shared lock on the database file.
pub fn holds_shared(process: u32, database: &Path) -> bool {
    locks(process, database)
        .iter()
        .any(|(_, from, to)| *from <= 0x4000_0002 && *to >= 0x4000_0002)
}

/// A read mark in the `-shm` file: bytes 123 to 127.
pub fn holds_read_mark(process: u32, shm: &Path) -> bool {
    locks(process, shm)
        .iter()
        .any(|(_, from, to)| *to >= 123 && *from <= 127)
}
