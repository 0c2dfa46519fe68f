//! What files say of themselves: header and trailer by ranged reads, many at a time.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::entry::{FileEntry, FileKey, SMALLEST_FILE};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{HEADER_BYTES, Header};
use crate::store::Store;
use crate::types::Checksum;

/// Requests in flight: what hides the way to a distant store without asking it to slow us down.
pub const IN_FLIGHT: usize = 16;

/// A file of this size is read whole: one request instead of two, for at most a few packets more.
const WHOLE: u64 = 32 * 1024;

/// Database checksum and file checksum.
const TRAILER_BYTES: u64 = 16;

/// A file to look into.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The object.
    pub object: String,
    /// What its name says.
    pub file: FileKey,
    /// Its size.
    pub size: u64,
}

/// Reads the header and the trailer of one file; the pages between them are not looked at.
///
/// Errors: `NotFound` if the object is gone, `Corrupt` for a header that is none or that contradicts
/// the name (X3), and those of the store. All name the object.
pub async fn read_facts(store: &dyn Store, place: &Place) -> Result<FileEntry> {
    let Place { object, file, size } = place;
    if *size < SMALLEST_FILE {
        let message = format!("{size} bytes are no LTX file");
        return Err(Error::new(ErrorKind::Corrupt, message).on(object));
    }
    let (head, tail) = if *size <= WHOLE {
        let whole = store.get(object, None).await?.bytes;
        (whole.clone(), whole)
    } else {
        let header = store.get(object, Some(0..HEADER_BYTES as u64));
        let trailer = store.get(object, Some(size - TRAILER_BYTES..*size));
        let (header, trailer) = futures_util::try_join!(header, trailer)?;
        (header.bytes, trailer.bytes)
    };
    parse_facts(&head, &tail, *file, *size).map_err(|error| error.on(object))
}

/// `head` begins with the header, `tail` ends with the trailer.
fn parse_facts(head: &Bytes, tail: &Bytes, file: FileKey, size: u64) -> Result<FileEntry> {
    let short = || {
        Error::new(
            ErrorKind::Corrupt,
            "the object is shorter than it was listed",
        )
    };
    let header = Header::decode(head.get(..HEADER_BYTES).ok_or_else(short)?)?;
    file.entry().check_range(header.range)?;
    let trailer = tail
        .len()
        .checked_sub(TRAILER_BYTES as usize)
        .and_then(|start| tail.get(start..start + 8))
        .ok_or_else(short)?;
    let post = trailer
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte));
    Ok(FileEntry::from_header(
        file,
        size,
        &header,
        Checksum::new(post),
        None,
    ))
}

/// Reads many, [`IN_FLIGHT`] at a time, in the order of `places`. A damaged file is an error of its own
/// place; any other error is one of the whole.
pub async fn read_all_facts(
    store: &dyn Store,
    places: Vec<Place>,
) -> Result<Vec<Result<FileEntry>>> {
    stream::iter(places)
        .map(|place| async move {
            match read_facts(store, &place).await {
                Err(error) if !is_damage(&error) => Err(error),
                read => Ok(read),
            }
        })
        .buffered(IN_FLIGHT)
        .try_collect()
        .await
}

/// Whether an error lies in the object's bytes, and not in the way to them.
pub fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
}
