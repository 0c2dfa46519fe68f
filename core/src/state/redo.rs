//! The two redo files, written in turn, and the durable copy of the saved state.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::dir::Locked;
use super::entries::ENTRY;
use super::folder::{Damage, Folder};
use super::huge::Huge;
use super::record::{CRC, Record};
use super::saved::Saved;
use crate::error::{ErrorKind, Result};

const REDO: [&str; 2] = ["redo.0", "redo.1"];
const ANCHOR: &str = "saved";

/// A redo file longer than its record by this much is cut: the rest of a huge batch.
const SLACK: u64 = 1 << 20;

/// The open redo files.
#[derive(Debug)]
pub(super) struct Redo {
    folder: Arc<Locked>,
    files: [File; 2],
    /// Of the newest record whose entries are all in the table; 0 before the first.
    sequence: u64,
}

/// The newest whole record, and the file that has its entries.
pub(super) struct Found {
    pub(super) record: Record,
    pub(super) file: File,
}

impl Redo {
    /// Opens the files and says what the newest whole record in them is.
    pub(super) fn open(folder: &Arc<Locked>) -> Result<(Self, Option<Found>, Vec<Damage>)> {
        let (found, damage) = find(folder)?;
        let redo = Self {
            folder: Arc::clone(folder),
            files: [folder.writable(REDO[0])?, folder.writable(REDO[1])?],
            sequence: found.as_ref().map_or(0, |found| found.record.sequence),
        };
        Ok((redo, found, damage))
    }

    /// Writes the next record. Until [`Redo::applied`], another one takes its place.
    pub(super) fn write(&self, generation: u64, saved: Saved, entries: &[u8]) -> Result<Record> {
        let record = Record {
            sequence: self.sequence + 1,
            generation,
            entries: (entries.len() / ENTRY) as u64,
            entries_crc: crc_fast::checksum(CRC, entries),
            saved,
        };
        let bytes = [&record.encode()?, entries].concat();
        let [even, odd] = &self.files;
        let (name, file) = match record.sequence % 2 {
            0 => (REDO[0], even),
            _ => (REDO[1], odd),
        };
        let write = || {
            let size = file.metadata()?.len();
            if size > bytes.len() as u64 + SLACK {
                file.set_len(bytes.len() as u64)?;
            }
            file.write_all_at(&bytes, 0)
        };
        write().map_err(|error| self.folder.error(name, error))?;
        Ok(record)
    }

    /// Makes a huge batch the next record; also the file that has its entries.
    pub(super) fn adopt(
        &mut self,
        huge: Huge,
        generation: u64,
        saved: Saved,
    ) -> Result<(Record, File)> {
        let sequence = self.sequence + 1;
        let [even, odd] = &mut self.files;
        let (name, slot) = match sequence % 2 {
            0 => (REDO[0], even),
            _ => (REDO[1], odd),
        };
        let (record, file) = huge.finish(name, sequence, generation, saved)?;
        let entries = file.try_clone();
        *slot = file;
        Ok((
            record,
            entries.map_err(|error| self.folder.error(name, error))?,
        ))
    }

    /// The record's entries are in the table: the next one may go to the other file.
    pub(super) fn applied(&mut self, record: &Record) {
        self.sequence = record.sequence;
    }

    /// Makes the newest state durable.
    pub(super) fn anchor(&self, generation: u64, saved: Saved) -> Result<()> {
        let record = Record {
            sequence: self.sequence,
            generation,
            entries: 0,
            entries_crc: crc_fast::checksum(CRC, &[]),
            saved,
        };
        self.folder.replace(ANCHOR, &record.encode()?)
    }
}

fn find(folder: &Folder) -> Result<(Option<Found>, Vec<Damage>)> {
    let mut damage = Vec::new();
    let mut best: Option<Found> = None;
    // The durable copy last: with an equal number the record that has entries counts.
    for name in [REDO[0], REDO[1], ANCHOR] {
        match read(folder, name) {
            Ok(None) => {}
            Ok(Some(found)) => {
                let newer = |best: &Found| found.record.sequence > best.record.sequence;
                if best.as_ref().is_none_or(newer) {
                    best = Some(found);
                }
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                damage.push(Damage::new(name, error.message()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((best, damage))
}

fn read(folder: &Folder, name: &str) -> Result<Option<Found>> {
    let Some(file) = folder.file(name, OFlags::RDONLY)? else {
        return Ok(None);
    };
    Ok(Record::read(&file)?.map(|record| Found { record, file }))
}

/// The saved state in `folder`, as a look without the lock sees it.
pub(super) fn read_saved(folder: &Folder) -> Result<(Option<Saved>, Vec<Damage>)> {
    let (found, damage) = find(folder)?;
    Ok((found.map(|found| found.record.saved), damage))
}
