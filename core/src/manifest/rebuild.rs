//! The index from the objects themselves, where it is missing or damaged (R26).

use super::entry::{FileEntry, FileKey, FileKind};
use super::facts::{Place, read_all_facts};
use super::holes::holes;
use super::listing::Listing;
use super::live::Turns;
use super::root::{EpochStart, Head, Manifest, VERSION};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Layout, Store};
use crate::types::{Epoch, StreamId, Timestamp};

/// The turns that incrementals show: a writer's first TXID is that of its first incremental.
pub(crate) fn starts_of<'a>(
    files: impl IntoIterator<Item = &'a FileEntry>,
) -> impl Iterator<Item = EpochStart> {
    files
        .into_iter()
        .filter(|file| file.key.level() == 0)
        .filter_map(|file| {
            Some(EpochStart {
                stream: file.stream?,
                first: file.range().min(),
            })
        })
}

/// What a file shows of the turns. A merged file may begin before the turn of its writer, of which it tells
/// nothing; but its lineage had begun there, which counts where the incrementals are thinned. So it stands
/// for the first epoch, which ends no other.
pub(crate) fn start_shown_by(key: FileKey, stream: StreamId) -> Option<EpochStart> {
    let epoch = match key.level() {
        0 => stream.epoch,
        _ => Epoch::FIRST,
    };
    (!key.range().is_snapshot()).then_some(EpochStart {
        stream: StreamId { epoch, ..stream },
        first: key.range().min(),
    })
}

fn starts_shown_by(files: &[FileEntry]) -> impl Iterator<Item = EpochStart> {
    files
        .iter()
        .filter_map(|file| start_shown_by(file.key, file.stream?))
}

/// Reads every listed file's header and trailer and makes the index of them. Dead files are left out.
///
/// Errors: `Exists` for files of another program, `Corrupt` where no file is whole; those of the store.
pub async fn rebuild(store: &dyn Store, layout: &Layout, listing: Listing) -> Result<Manifest> {
    let places = listing
        .files
        .iter()
        .map(|listed| Place {
            object: listing.keys.object(layout, listed.file),
            file: listed.file,
            size: listed.size,
        })
        .collect();
    let mut files = Vec::new();
    for read in read_all_facts(store, places).await? {
        match read {
            Ok(file) => files.push(file),
            // Its place in the chain stays empty, so no restore goes past it.
            Err(error) => {
                tracing::warn!(db = %layout.name(), %error, "a damaged file is left out of the index")
            }
        }
    }
    index_of(files).map_err(|error| error.on(layout.folder()))
}

/// The index that names `files`.
fn index_of(mut files: Vec<FileEntry>) -> Result<Manifest> {
    let foreign = files.iter().find(|file| file.stream.is_none());
    if let Some(foreign) = foreign {
        let message = format!("{} was written by another program", foreign.key);
        return Err(Error::new(ErrorKind::Exists, message)
            .hint("walrust restores such a backup but does not continue it"));
    }
    let turns = Turns::new(starts_shown_by(&files));
    let alive = |file: &FileEntry| {
        !file
            .stream
            .is_some_and(|stream: StreamId| turns.is_dead(stream, file.max()))
    };
    files.retain(alive);
    files.sort_by_key(|file| file.key);
    // A file whose digest is known says most of the head.
    let newest = files.iter().max_by_key(|file| {
        (
            file.max(),
            file.post.is_some(),
            file.kind != FileKind::Snapshot,
        )
    });
    let (Some(newest), Some(stream)) = (newest, newest.and_then(|file| file.stream)) else {
        return Err(Error::new(
            ErrorKind::Corrupt,
            "no file belongs to a living writer",
        ));
    };
    let mut epochs: Vec<EpochStart> = Vec::new();
    for start in starts_shown_by(&files) {
        match epochs.iter_mut().find(|known| known.stream == start.stream) {
            Some(known) => known.first = known.first.min(start.first),
            None => epochs.push(start),
        }
    }
    epochs.sort_by_key(|start| (start.first, start.stream.epoch));
    // What is missing may have been thinned: nobody knows.
    let compactions = u64::from(has_holes(&files));
    Ok(Manifest {
        version: VERSION,
        page_size: newest.page_size,
        lineage: stream.lineage,
        head: Head::from(newest),
        published: Timestamp::default(),
        epochs,
        files,
        pages: Vec::new(),
        compactions,
        removed: Vec::new(),
    })
}

fn has_holes(files: &[FileEntry]) -> bool {
    let starts = files.iter().filter(|file| file.kind.is_start());
    let incrementals = files.iter().filter(|file| file.key.level() == 0);
    let incrementals = incrementals.map(FileEntry::range).collect();
    !holes(starts.map(FileEntry::max).min(), incrementals).is_empty()
}
