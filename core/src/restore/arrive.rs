//! Files on their way from the store: small ones whole and ahead of their turn, large ones when it comes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::large::{Source, Target, joined, read_all, wrong_size};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Verified;
use crate::manifest::IN_FLIGHT;

/// Files up to this size are fetched whole, many at a time.
const SMALL: u64 = 4 * 1024 * 1024;

/// KiB of small files that are on their way or wait for their turn.
const SMALL_KIB: u32 = 16 * 1024;

/// A file whose turn may come.
pub(crate) enum Arrived {
    /// Its bytes, and their share of the memory.
    Small(Bytes, OwnedSemaphorePermit),
    /// Too large to wait in memory.
    Large,
}

/// Fetches small files ahead of their turn, in the order of `wanted`. The result of each is sent, also an
/// error; ends early where nobody takes them any more.
pub(crate) async fn fetch_all(wanted: Vec<Source>, sender: mpsc::Sender<Result<Arrived>>) {
    let room = Arc::new(Semaphore::new(SMALL_KIB as usize));
    let mut files = stream::iter(wanted)
        .map(|source| fetch(source, room.clone()))
        .buffered(IN_FLIGHT);
    while let Some(arrived) = files.next().await {
        if sender.send(arrived).await.is_err() {
            return;
        }
    }
}

async fn fetch(source: Source, room: Arc<Semaphore>) -> Result<Arrived> {
    let Source {
        store,
        object,
        size,
        progress,
    } = source;
    if size > SMALL {
        return Ok(Arrived::Large);
    }
    let kib = u32::try_from(size.div_ceil(1024)).unwrap_or(SMALL_KIB);
    let permit = room
        .acquire_many_owned(kib.clamp(1, SMALL_KIB))
        .await
        .map_err(|error| Error::new(ErrorKind::Internal, error.to_string()))?;
    let found = store.get(&object, Some(0..size.max(1))).await;
    let found = found.map_err(|error| match error.kind() {
        // No range begins within an empty object.
        ErrorKind::Invalid => wrong_size(size, 0).on(&object),
        _ => error,
    })?;
    progress.downloaded(found.bytes.len() as u64);
    if found.meta.size != size || found.bytes.len() as u64 != size {
        return Err(wrong_size(size, found.meta.size).on(object));
    }
    Ok(Arrived::Small(found.bytes, permit))
}

/// Reads the file that arrived to its end and hands its pages to `target`.
pub(crate) async fn read(
    source: &Source,
    arrived: Arrived,
    target: &Arc<dyn Target>,
) -> Result<Verified> {
    match arrived {
        Arrived::Small(bytes, permit) => {
            let target = target.clone();
            let read = tokio::task::spawn_blocking(move || {
                let verified = read_all(bytes.as_ref(), target.as_ref());
                drop(permit);
                verified
            });
            joined(read.await)?
        }
        Arrived::Large => source.read(target).await,
    }
}
