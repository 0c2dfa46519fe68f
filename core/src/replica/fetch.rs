//! A file of the stream on its way to the replica.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::{StreamExt, stream};

use crate::error::{Error, ErrorKind, Result};
use crate::store::Store;

/// Files up to this size are held in memory.
const SMALL: u64 = 4 << 20;
/// Bytes of one ranged read of a larger one.
const PART: u64 = 2 << 20;
/// Ranged reads at once: 12 MiB on their way fill a fast line.
const PARTS_IN_FLIGHT: usize = 6;

/// A file that has arrived whole, and not yet been looked into.
#[derive(Debug)]
pub(super) enum Fetched {
    /// A small one.
    Memory(Bytes),
    /// A large one, in a file without a name.
    Disk(File),
}

impl Fetched {
    /// Its bytes from the first on.
    pub(super) fn reader(self) -> Box<dyn Read + Send> {
        match self {
            Self::Memory(bytes) => Box::new(bytes.reader()),
            Self::Disk(file) => Box::new(file),
        }
    }
}

/// Fetches the object `key` of `size` bytes; a large one into `directory`.
///
/// # Errors
/// `NotFound` if it is gone, `Corrupt` for another size, and those of store and disk.
pub(super) async fn fetch(
    store: &Arc<dyn Store>,
    key: &str,
    size: u64,
    directory: &Path,
) -> Result<Fetched> {
    if size <= SMALL {
        return part(store, key, 0, size, size).await.map(Fetched::Memory);
    }
    let file =
        tempfile::tempfile_in(directory).map_err(|error| Error::io(directory.display(), error))?;
    let file = Arc::new(file);
    let starts = (0..size.div_ceil(PART)).map(|part| part * PART);
    let mut parts = stream::iter(starts)
        .map(|start| async move {
            let bytes = part(store, key, start, size.min(start + PART), size).await?;
            Ok::<_, Error>((start, bytes))
        })
        .buffered(PARTS_IN_FLIGHT);
    while let Some(arrived) = parts.next().await {
        let (start, bytes) = arrived?;
        let file = file.clone();
        let written = tokio::task::spawn_blocking(move || file.write_all_at(&bytes, start));
        written
            .await
            .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?
            .map_err(|error| Error::io(directory.display(), error))?;
    }
    drop(parts);
    let mut file = Arc::into_inner(file)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a fetched file is in use"))?;
    file.rewind()
        .map_err(|error| Error::io(directory.display(), error))?;
    Ok(Fetched::Disk(file))
}

async fn part(store: &Arc<dyn Store>, key: &str, start: u64, end: u64, size: u64) -> Result<Bytes> {
    let wrong = |found: u64| {
        let message = format!("the object has {found} bytes, not {size}");
        Error::new(ErrorKind::Corrupt, message).on(key)
    };
    let found = match store.get(key, Some(start..end.max(start + 1))).await {
        Ok(found) => found,
        // No range begins within an empty object.
        Err(error) if error.kind() == ErrorKind::Invalid => return Err(wrong(0)),
        Err(error) => return Err(error.on(key)),
    };
    match found.meta.size == size && found.bytes.len() as u64 == end - start {
        true => Ok(found.bytes),
        false => Err(wrong(found.meta.size)),
    }
}
