//! One writer's change to the index, applied to whatever the index is by now.

use std::collections::{BTreeMap, HashSet};

use super::entry::{FileEntry, FileKey};
use super::live::Turns;
use super::rebuild::starts_of;
use super::root::{EpochStart, Head, Manifest, VERSION};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Lineage, PageSize, Timestamp};

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
        self.add.is_empty() && self.remove.is_empty() && self.head.is_none() && self.epoch.is_none()
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
    }

    /// The index after this change to `base`, which is nothing for a database that is new. The time of
    /// publication is the caller's.
    ///
    /// Errors: `Fenced` if a later writer's turn covers what this one adds; `Internal` for a new database
    /// without a head.
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
            },
            (None, None) => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "the first index of a database names no head",
                ));
            }
        };
        self.check_turn(&manifest)?;
        self.change_files(&mut manifest);
        for start in self.epoch.into_iter().chain(starts_of(&self.add)) {
            add_epoch(&mut manifest.epochs, start);
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

    fn change_files(&self, manifest: &mut Manifest) {
        let mut files: BTreeMap<FileKey, FileEntry> = std::mem::take(&mut manifest.files)
            .into_iter()
            .map(|file| (file.key, file))
            .collect();
        for file in &self.add {
            files.insert(file.key, file.clone());
        }
        for key in &self.remove {
            files.remove(key);
        }
        manifest.files = files.into_values().collect();
    }
}

/// Adds a turn, keeping for each writer the smallest first TXID that anybody saw.
fn add_epoch(epochs: &mut Vec<EpochStart>, start: EpochStart) {
    match epochs.iter_mut().find(|known| known.stream == start.stream) {
        Some(known) => known.first = known.first.min(start.first),
        None => epochs.push(start),
    }
    epochs.sort_by_key(|known| (known.first, known.stream.epoch));
}
