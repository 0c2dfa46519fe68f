//! One writer's change to the index, applied to whatever the index is by now.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::entry::{FileEntry, FileKey};
use super::live::Turns;
use super::rebuild::starts_of;
use super::root::{EpochStart, Head, Manifest, PageRef, VERSION};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Lineage, PageSize, StreamId, Timestamp, Txid};

/// What one writer knows to have changed. Never a list of what there is: another may have changed that.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ManifestDelta {
    /// Files that are stored now.
    pub add: Vec<FileEntry>,
    /// Files that the index shall no longer name.
    pub remove: Vec<FileKey>,
    /// The newest state, where this writer moved it.
    pub head: Option<NewHead>,
    /// This writer's turn, where it began.
    pub epoch: Option<EpochStart>,
    /// What makes this the change of a compaction.
    pub compaction: Option<Compaction>,
}

/// A compaction's part of a change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Compaction {
    /// How many compactions had gone by when it was planned: the plan relies on what the last of them kept.
    pub after: u64,
    /// The pages that name what it deletes.
    pub removed: Vec<PageRef>,
    /// The oldest state that stays restorable.
    pub oldest: Option<Txid>,
}

/// The newest state and the history and page size that belong to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewHead {
    /// The state.
    pub head: Head,
    /// The history that it belongs to.
    pub lineage: Lineage,
    /// Size of a page there.
    pub page_size: PageSize,
}

impl ManifestDelta {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes in a later change of the same writer.
    pub fn merge(&mut self, later: Self) {
        let removed: HashSet<FileKey> = later.remove.iter().copied().collect();
        self.add.retain(|file| !removed.contains(&file.key));
        self.remove
            .retain(|key| !later.add.iter().any(|file| file.key == *key));
        self.add.extend(later.add);
        self.remove.extend(later.remove);
        self.head = later.head.or(self.head);
        self.epoch = later.epoch.or(self.epoch);
        self.compaction = later.compaction.or(self.compaction.take());
    }

    /// The index after this change to `base`, which is nothing for a database that is new. The time of
    /// publication is the caller's.
    ///
    /// Errors: `Fenced` if a later writer's turn covers what this one adds; `Busy` if another compaction went
    /// by since this one was planned; `Internal` for a new database without a head.
    pub fn apply(&self, base: Option<&Manifest>, now: Timestamp) -> Result<Manifest> {
        let mut manifest = match (base, self.head) {
            (Some(base), _) => base.clone(),
            (None, Some(new)) => Manifest {
                version: VERSION,
                page_size: new.page_size,
                lineage: new.lineage,
                head: new.head,
                published: now,
                epochs: Vec::new(),
                files: Vec::new(),
                pages: Vec::new(),
                compactions: 0,
                removed: Vec::new(),
            },
            (None, None) => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "the first index of a database names no head",
                ));
            }
        };
        self.check_turn(&manifest)?;
        let removed = self.change_files(&mut manifest);
        self.note_turns(&mut manifest.epochs, &removed);
        if let Some(compaction) = &self.compaction {
            compaction.apply(&mut manifest)?;
        }
        if let Some(new) = self.head.filter(|new| new.head.txid >= manifest.head.txid) {
            manifest.head = new.head;
            manifest.lineage = new.lineage;
            manifest.page_size = new.page_size;
        }
        Ok(manifest)
    }

    /// A file that the index itself shows to be dead comes from a writer that lost its turn.
    fn check_turn(&self, manifest: &Manifest) -> Result<()> {
        let mut turns = Turns::new(manifest.epochs.iter().copied());
        // A new lineage is known by its own files alone.
        self.epoch
            .into_iter()
            .chain(starts_of(&self.add))
            .for_each(|start| turns.add(start));
        for file in &self.add {
            let dead = file
                .stream
                .is_some_and(|stream| turns.is_dead(stream, file.max()));
            if dead {
                let message = format!("{} belongs to a writer whose turn has ended", file.key);
                return Err(Error::new(ErrorKind::Fenced, message));
            }
        }
        Ok(())
    }

    /// Adds and removes; gives what was removed.
    fn change_files(&self, manifest: &mut Manifest) -> Vec<FileEntry> {
        let mut files: BTreeMap<FileKey, FileEntry> = std::mem::take(&mut manifest.files)
            .into_iter()
            .map(|file| (file.key, file))
            .collect();
        for file in &self.add {
            files.insert(file.key, file.clone());
        }
        let removed = self.remove.iter().filter_map(|key| files.remove(key));
        let removed = removed.collect();
        manifest.files = files.into_values().collect();
        removed
    }

    /// What the files tell of the writers' turns stays known when they are gone.
    fn note_turns(&self, epochs: &mut Vec<EpochStart>, removed: &[FileEntry]) {
        let known = Turns::new(epochs.iter().copied());
        let is_dead = |file: &&FileEntry| {
            file.stream
                .is_some_and(|stream| known.is_dead(stream, file.max()))
        };
        let living = removed.iter().filter(|file| !is_dead(file));
        let mut starts: HashMap<StreamId, Txid> = HashMap::new();
        for start in starts_of(self.add.iter().chain(living)).chain(self.epoch) {
            let first = starts.entry(start.stream).or_insert(start.first);
            *first = start.first.min(*first);
        }
        for (stream, first) in starts {
            add_epoch(epochs, EpochStart { stream, first });
        }
    }
}

/// More turns than this are thinned by a compaction, or each restart of a writer would make the index longer.
const MANY_EPOCHS: usize = 500;

impl Compaction {
    fn apply(&self, manifest: &mut Manifest) -> Result<()> {
        if manifest.compactions != self.after {
            let message = "another compaction went by meanwhile";
            return Err(Error::new(ErrorKind::Busy, message).hint("run it again"));
        }
        manifest.compactions += 1;
        manifest.removed = self.removed.clone();
        if let Some(oldest) = self.oldest.filter(|_| manifest.epochs.len() > MANY_EPOCHS) {
            thin_epochs(&mut manifest.epochs, oldest);
        }
        Ok(())
    }
}

/// Drops the turns that had passed before the oldest state that can be restored: they tell only of files
/// that no restore could use.
fn thin_epochs(epochs: &mut Vec<EpochStart>, oldest: Txid) {
    let all = epochs.clone();
    epochs.retain(|start| {
        let passed = |later: &EpochStart| {
            later.stream.lineage == start.stream.lineage
                && later.stream.epoch > start.stream.epoch
                && later.first <= oldest
        };
        !all.iter().any(passed)
    });
}

/// Adds a turn, keeping for each writer the smallest first TXID that anybody saw.
fn add_epoch(epochs: &mut Vec<EpochStart>, start: EpochStart) {
    match epochs.iter_mut().find(|known| known.stream == start.stream) {
        Some(known) => known.first = known.first.min(start.first),
        None => epochs.push(start),
    }
    epochs.sort_by_key(|known| (known.first, known.stream.epoch));
}
