//! The page table: the sum of every page of the last stored or spooled state, and that state.
//!
//! # Overview
//!
//! A batch of transactions is *layered* when it is encoded and *committed* when it is spooled or stored,
//! in the same order. Lookups see the newest layer first, then the disk. A commit writes a redo record
//! (state, entries, checksums, sequence number) into one of two files in turn, then the entries in place.
//!
//! # Invariants
//!
//! 9 (memory: layers up to a bound, everything else on disk) and 4 (the table is believed only after its
//! sum was found equal to the state's).
//!
//! # Crash table
//!
//! | died | found at the next start |
//! |---|---|
//! | while the record was written | it is torn; the other file has the one before, whose entries are all in place |
//! | while entries were written in place | the record is whole; its entries are written again |
//! | between a new table and its record | the record names another generation: no table, rebuilt by one local pass |
//! | with the machine, page cache lost | records torn or old, or a table of another time: the sum does not match; stream and epoch stand in the durable `saved` |

use std::collections::VecDeque;
use std::sync::Arc;

use super::dir::{Locked, StateDir};
use super::entries::Entries;
use super::folder::{Damage, Folder};
use super::huge::Huge;
use super::record::Record;
use super::redo::{Found, Redo};
use super::saved::{Place, Saved};
use super::table_file::{Fill, Patch, TABLE, TableFile};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{DatabaseSum, PageNumber, PageSize, PageSum};

/// Page table and saved state of one database.
#[derive(Debug)]
pub struct PageTable {
    folder: Arc<Locked>,
    redo: Redo,
    saved: Option<Saved>,
    table: Option<TableFile>,
    trust: Trust,
    pending: VecDeque<Layer>,
    pending_limit: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trust {
    /// The sum of the table was not compared yet.
    Unproven,
    /// The table holds the pages of the saved state.
    Proven,
    /// An entry could not be written: only the layer that is still pending hides the mixture.
    Torn,
}

#[derive(Debug)]
struct Layer {
    entries: Entries,
    place: Place,
}

/// Whether the table on disk is the table of the saved state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// It is.
    Proven,
    /// There is none, or it belongs to another state directory's past.
    Absent,
    /// It is another state's, or torn.
    Wrong {
        /// The sum that the saved state has.
        expected: DatabaseSum,
        /// The sum of the entries.
        found: DatabaseSum,
    },
}

impl PageTable {
    /// Opens the table in `dir` and finishes what a crash interrupted. Layers may hold at most
    /// `pending_limit` bytes. What is torn or foreign is reported and counts as absent.
    pub fn open(dir: &StateDir, pending_limit: usize) -> Result<(Self, Vec<Damage>)> {
        let folder = Arc::clone(dir.folder());
        let (redo, found, mut damage) = Redo::open(&folder)?;
        let table = match &found {
            None => None,
            Some(found) => replay(&folder, found, &mut damage)?,
        };
        let table = Self {
            folder,
            redo,
            saved: found.map(|found| found.record.saved),
            table,
            trust: Trust::Unproven,
            pending: VecDeque::new(),
            pending_limit,
        };
        Ok((table, damage))
    }

    /// The last committed state.
    pub fn saved(&self) -> Option<&Saved> {
        self.saved.as_ref()
    }

    /// The newest state: of the last layer, or else the committed one.
    pub fn newest(&self) -> Option<&Place> {
        let committed = self.saved.as_ref().map(|saved| &saved.place);
        self.pending.back().map(|layer| &layer.place).or(committed)
    }

    /// Bytes that the layers hold.
    pub fn pending_bytes(&self) -> usize {
        let bytes = |layer: &Layer| layer.entries.bytes().len();
        self.pending.iter().map(bytes).sum()
    }

    /// How many layers wait for their commit.
    pub fn pending_layers(&self) -> usize {
        self.pending.len()
    }

    /// Compares the sum of all entries on disk with the saved state's: one pass. Until it was proven, or
    /// installed anew, the table answers nothing.
    pub fn prove(&mut self) -> Result<Proof> {
        let (Some(table), Some(saved)) = (&self.table, &self.saved) else {
            return Ok(Proof::Absent);
        };
        let found = table.sum(saved.place.page_count)?;
        let expected = saved.place.sum;
        if found != expected {
            return Ok(Proof::Wrong { expected, found });
        }
        self.trust = Trust::Proven;
        Ok(Proof::Proven)
    }

    /// The sum of `page` in the newest state; nothing for a page that it does not have.
    pub fn lookup(&self, page: PageNumber) -> Result<Option<PageSum>> {
        let mut sum = None;
        self.lookup_all(&[page], &mut |_, found| {
            sum = found;
            Ok(())
        })?;
        Ok(sum)
    }

    /// The sums of `pages` (ascending) in the newest state, in that order.
    pub fn lookup_all(
        &self,
        pages: &[PageNumber],
        each: &mut dyn FnMut(PageNumber, Option<PageSum>) -> Result<()>,
    ) -> Result<()> {
        let (table, saved) = self.proven()?;
        table.lookup(pages, &mut |page, on_disk| {
            for layer in self.pending.iter().rev() {
                if !layer.place.page_count.holds(page) {
                    return each(page, None);
                }
                if let Some(sum) = layer.entries.find(page) {
                    return each(page, Some(sum));
                }
            }
            let within = saved.place.page_count.holds(page);
            each(page, on_disk.filter(|_| within))
        })
    }

    /// Puts a batch, as it was encoded, over the newest state. Errors: Exhausted past the bound, then
    /// nothing has changed; a layer over none is always taken, or a large one never could be.
    pub fn layer(&mut self, entries: Entries, place: Place) -> Result<()> {
        entries.check_within(place.page_count)?;
        self.check_follows(&place)?;
        let bytes = self.pending_bytes() + entries.bytes().len();
        if !self.pending.is_empty() && bytes > self.pending_limit {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!(
                    "{bytes} bytes of page sums wait to be stored, the limit is {}",
                    self.pending_limit
                ),
            ));
        }
        self.pending.push_back(Layer { entries, place });
        Ok(())
    }

    /// Makes the oldest layer the saved state: what it stands for is spooled or stored. Nothing if there
    /// is no layer. After an error the layer still waits, and the commit may be tried again.
    pub fn commit(&mut self) -> Result<Option<Place>> {
        let Some(layer) = self.pending.pop_front() else {
            return Ok(None);
        };
        let place = layer.place;
        let done = self.commit_layer(&layer);
        if let Err(error) = done {
            self.pending.push_front(layer);
            return Err(error);
        }
        Ok(Some(place))
    }

    /// As [`PageTable::commit`], for the `layers` oldest layers at once: one file stands for all of them, and a
    /// crash finds either none or all.
    pub fn commit_joined(&mut self, layers: usize) -> Result<Option<Place>> {
        if self.pending.len() < layers {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("fewer than {layers} batches wait for their commit"),
            ));
        }
        for _ in 1..layers {
            let (Some(older), Some(newer)) = (self.pending.pop_front(), self.pending.pop_front())
            else {
                break;
            };
            self.pending.push_front(Layer {
                entries: older.entries.joined(&newer.entries, newer.place.page_count),
                place: newer.place,
            });
        }
        self.commit()
    }

    fn commit_layer(&mut self, layer: &Layer) -> Result<()> {
        let saved = self.saved_at(layer.place)?;
        let record = self
            .redo
            .write(self.generation(), saved, layer.entries.bytes())?;
        self.apply(&record, |patch| {
            let mut entries = layer.entries.iter();
            entries.try_for_each(|(page, sum)| patch.put(page, sum))
        })
    }

    /// Forgets every layer: what only memory held is given up, and the saved state is the newest.
    pub fn drop_pending(&mut self) {
        self.pending.clear();
        if self.trust == Trust::Torn {
            self.trust = Trust::Unproven;
        }
    }

    /// A batch too large for memory, streamed to disk; [`PageTable::commit_huge`] ends it.
    pub fn huge(&self) -> Result<Huge> {
        self.proven()?;
        Huge::new(&self.folder)
    }

    /// Makes a huge batch the saved state. Errors: Internal if layers wait before it. After any other error
    /// the table answers nothing more until it is opened again, which finishes or undoes the batch.
    pub fn commit_huge(&mut self, huge: Huge, place: Place) -> Result<()> {
        self.check_nothing_pending()?;
        self.check_follows(&place)?;
        let saved = self.saved_at(place)?;
        let (record, entries) = self.redo.adopt(huge, self.generation(), saved)?;
        let applied = self.apply(&record, |patch| {
            record.for_each_entry(&entries, |page, sum| patch.put(page, sum))
        });
        if applied.is_err() {
            // No layer in memory hides what is half written.
            self.trust = Trust::Unproven;
        }
        applied
    }

    /// Starts a new table for a database of `page_size`: every page comes, ascending.
    pub fn fill(&self, page_size: PageSize) -> Result<Fill> {
        Fill::new(&self.folder, page_size)
    }

    /// Replaces table and state. Errors: Internal if layers wait, or if the sums differ.
    pub fn install(&mut self, fill: Fill, saved: Saved) -> Result<()> {
        self.check_nothing_pending()?;
        if fill.sum() != saved.place.sum {
            return Err(Error::new(
                ErrorKind::Internal,
                "a new page table has another sum than its state",
            ));
        }
        // Until its record stands, the new table belongs to no state.
        self.trust = Trust::Unproven;
        self.table = Some(fill.install()?);
        self.put_saved(saved)?;
        self.trust = Trust::Proven;
        Ok(())
    }

    /// Replaces the state where there is no table for it.
    pub fn install_without_table(&mut self, saved: Saved) -> Result<()> {
        self.check_nothing_pending()?;
        self.table = None;
        self.trust = Trust::Unproven;
        self.folder.remove(TABLE)?;
        self.put_saved(saved)
    }

    /// Changes what is known beside the place (epoch, heads, last snapshot) and makes it durable. Errors:
    /// NotFound before the first install.
    pub fn update(&mut self, change: impl FnOnce(&mut Saved)) -> Result<()> {
        let mut saved = self.known()?.clone();
        let place = saved.place;
        change(&mut saved);
        saved.place = place;
        self.put_saved(saved)
    }

    /// Makes the saved state durable, so that it outlives a power loss. Commits do not: a state that lags
    /// is proven or rebuilt. Worth it at a clean end, and now and then.
    pub fn anchor(&self) -> Result<()> {
        self.redo.anchor(self.generation(), self.known()?.clone())
    }

    /// Makes every write of entries fail, or work again.
    #[cfg(test)]
    pub(super) fn fail_table_writes(&mut self, fail: bool) {
        if let Some(table) = &mut self.table {
            table.reopen(&self.folder, fail);
        }
    }

    fn put_saved(&mut self, saved: Saved) -> Result<()> {
        let record = self.redo.write(self.generation(), saved, &[])?;
        self.redo.applied(&record);
        self.saved = Some(record.saved);
        self.anchor()
    }

    fn known(&self) -> Result<&Saved> {
        self.saved
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "no state is saved yet"))
    }

    fn saved_at(&self, place: Place) -> Result<Saved> {
        let saved = self.known()?.clone();
        Ok(Saved { place, ..saved })
    }

    fn proven(&self) -> Result<(&TableFile, &Saved)> {
        match (&self.table, &self.saved, self.trust) {
            (Some(table), Some(saved), Trust::Proven | Trust::Torn) => Ok((table, saved)),
            _ => Err(Error::new(
                ErrorKind::Internal,
                "the page table is not proven",
            )),
        }
    }

    fn check_nothing_pending(&self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Internal,
            "layers of the page table wait for their commit",
        ))
    }

    fn check_follows(&self, place: &Place) -> Result<()> {
        let (table, saved) = self.proven()?;
        let newest = self.newest().unwrap_or(&saved.place);
        if place.page_size == table.page_size && place.txid > newest.txid {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Internal,
            format!(
                "transaction {} with pages of {} does not follow {} with pages of {}",
                place.txid, place.page_size, newest.txid, table.page_size
            ),
        ))
    }

    fn generation(&self) -> u64 {
        self.table.as_ref().map_or(0, |table| table.generation)
    }

    /// Writes the entries of a record that stands, then makes its state the saved one.
    fn apply(
        &mut self,
        record: &Record,
        put: impl FnOnce(&mut Patch<'_>) -> Result<()>,
    ) -> Result<()> {
        let (table, _) = self.proven()?;
        let write = || {
            let mut patch = table.patch();
            put(&mut patch)?;
            patch.flush()?;
            table.truncate(record.saved.place.page_count)
        };
        if let Err(error) = write() {
            self.trust = Trust::Torn;
            return Err(error);
        }
        self.trust = Trust::Proven;
        self.redo.applied(record);
        self.saved = Some(record.saved.clone());
        Ok(())
    }
}

/// Opens the table that the record belongs to and writes the record's entries into it again.
fn replay(folder: &Folder, found: &Found, damage: &mut Vec<Damage>) -> Result<Option<TableFile>> {
    let table = match TableFile::open(folder) {
        Ok(table) => table,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            damage.push(Damage::new(TABLE, error.message()));
            None
        }
        Err(error) => return Err(error),
    };
    let record = &found.record;
    let Some(table) = table else {
        return Ok(None);
    };
    if table.generation != record.generation || table.page_size != record.saved.place.page_size {
        damage.push(Damage::new(TABLE, "belongs to another saved state"));
        return Ok(None);
    }
    let mut patch = table.patch();
    record.for_each_entry(&found.file, |page, sum| patch.put(page, sum))?;
    patch.flush()?;
    table.truncate(record.saved.place.page_count)?;
    Ok(Some(table))
}
