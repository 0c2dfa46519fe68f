//! The state directory that a restore leaves, so that a watcher continues the chain (invariant 14).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::canvas::PageSink;
use crate::error::{Error, Result};
use crate::state::{Head, PageTable, Place, Saved, StateDir};
use crate::types::{Lineage, PageNumber, PageSize, PageSum};

/// Nothing is layered over the table here.
const PENDING: usize = 0;

/// Entries read at once: 48 KiB.
const ENTRIES: usize = 2048;

/// The sums of the pages by number, in a file without a name: a restore that fails leaves nothing.
#[derive(Clone, Debug)]
pub(super) struct SumFile(Arc<File>);

impl SumFile {
    /// An empty file in `directory`.
    pub(super) fn create(directory: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(directory)
            .map_err(|error| Error::io(directory.display(), error))?;
        Ok(Self(Arc::new(file)))
    }

    fn error(error: std::io::Error) -> Error {
        Error::io("the sums of the restored pages", error)
    }

    /// Gives all sums, ascending.
    pub(super) fn read(
        &self,
        mut each: impl FnMut(PageNumber, PageSum) -> Result<()>,
    ) -> Result<()> {
        let length = self.0.metadata().map_err(Self::error)?.len();
        let mut buffer = vec![0; ENTRIES * PageSum::BYTES];
        let (mut offset, mut number) = (0_u64, 0_u32);
        while offset < length {
            let left = usize::try_from(length - offset).unwrap_or(usize::MAX);
            let piece_length = left.min(buffer.len());
            let Some(piece) = buffer.get_mut(..piece_length) else {
                break;
            };
            self.0.read_exact_at(piece, offset).map_err(Self::error)?;
            offset += piece.len() as u64;
            for entry in piece.as_chunks::<{ PageSum::BYTES }>().0 {
                number = number.saturating_add(1);
                // The lock page has none.
                if let (Some(page), Some(sum)) =
                    (PageNumber::new(number), PageSum::from_bytes(entry))
                {
                    each(page, sum)?;
                }
            }
        }
        Ok(())
    }
}

impl PageSink for SumFile {
    fn put(&self, first: PageNumber, sums: &[PageSum]) -> Result<()> {
        let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_bytes()).collect();
        let offset = u64::from(first.get() - 1) * PageSum::BYTES as u64;
        self.0.write_all_at(&bytes, offset).map_err(Self::error)
    }
}

/// What the state directory says of the restored database.
#[derive(Clone, Debug)]
pub(super) struct Leaving {
    pub(super) lineage: Lineage,
    pub(super) place: Place,
    pub(super) page_size: PageSize,
    /// The newest state of the stream when the restore ran.
    pub(super) head: Head,
    /// Whether an older state was asked for, so that the head is given up.
    pub(super) rewound: bool,
}

/// Records the restored database in the state directory beside it. A directory that is in use already
/// keeps its lineage, table and spool: what waits there is shipped before anything else.
pub(super) fn leave(dir: &StateDir, sums: Option<&SumFile>, leaving: &Leaving) -> Result<()> {
    let (mut table, damage) = PageTable::open(dir, PENDING)?;
    for damage in damage {
        tracing::warn!(path = %dir.path().display(), ?damage, "damaged state is left out");
    }
    let (restored_head, rewind_from) = match leaving.rewound {
        false => (Some(leaving.head), None),
        true => (None, Some(leaving.head)),
    };
    // What an earlier restore left and nobody used is made anew with the database.
    if table.saved().is_some() && sums.is_none() {
        return table.update(|saved| {
            saved.restored_head = restored_head;
            saved.rewind_from = rewind_from;
        });
    }
    let saved = Saved {
        lineage: leaving.lineage,
        epoch: None,
        place: leaving.place,
        restored_head,
        rewind_from,
        last_snapshot: None,
    };
    let Some(sums) = sums else {
        return table.install_without_table(saved);
    };
    let mut fill = table.fill(leaving.page_size)?;
    sums.read(|page, sum| fill.push(page, sum))?;
    table.install(fill, saved)
}
