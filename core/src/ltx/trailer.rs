//! What follows the pages, and the checks that need the whole file.

use std::io::Read;

use super::crc::Sum;
use super::index::TERMINATOR_BYTES;
use super::section::SectionSum;
use super::{DecodeError, Header, Tracking};
use crate::types::{Checksum, FileChecksum};

/// Bytes behind the page index: its size (8), the post-apply checksum (8), the file checksum (8).
pub const TAIL_BYTES: usize = 24;

/// A file that was read to its end and whose every sum is right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// Its header.
    pub header: Header,
    /// The rolling checksum of the database after it; nothing exactly if the file tracks none.
    pub post_apply: Option<Checksum>,
    /// The checksum over the file.
    pub file_checksum: FileChecksum,
    /// Pages in it.
    pub pages: u64,
    /// Bytes of the whole file.
    pub size: u64,
}

/// Reads page index and trailer, which follow the terminator, and checks the file. `pages` covers
/// everything from the header to the terminator.
pub(super) fn verify<R: Read>(
    header: Header,
    pages: &SectionSum,
    mut source: R,
) -> Result<Verified, DecodeError> {
    if header.holds_every_page() && pages.pages != header.every_page() {
        return Err(DecodeError::Incomplete {
            found: pages.pages,
            expected: header.every_page(),
        });
    }
    let index_start = pages.end().saturating_add(TERMINATOR_BYTES);
    let mut file = pages.file();
    let index_length = read_index(pages.index(), &mut file, &mut source, index_start)?;
    let index_end = index_start.saturating_add(index_length);

    let mut field = || -> Result<[u8; 8], DecodeError> {
        let mut bytes = [0; 8];
        source
            .read_exact(&mut bytes)
            .map_err(|error| DecodeError::read(error, index_end))?;
        Ok(bytes)
    };
    let (size, post, sum) = (field()?, field()?, field()?);
    let found = u64::from_be_bytes(size);
    if found != index_length {
        return Err(DecodeError::IndexSize {
            found,
            expected: index_length,
        });
    }
    let end = index_end.saturating_add(TAIL_BYTES as u64);
    if reads_more(&mut source, end)? {
        return Err(DecodeError::TrailingBytes { offset: end });
    }
    file.update(&size);
    file.update(&post);
    let file_checksum = FileChecksum::from_crc(file.crc);
    let expected = u64::from_be_bytes(sum);
    if file_checksum.get() != expected {
        return Err(DecodeError::FileChecksum {
            expected,
            found: file_checksum,
        });
    }
    let post_apply = post_apply(&header, u64::from_be_bytes(post), pages.rolling())?;
    Ok(Verified {
        header,
        post_apply,
        file_checksum,
        pages: pages.pages,
        size: end,
    })
}

/// Reads as many bytes as the index of the frames must have, and compares. Returns their number.
fn read_index(
    mut expected: Sum,
    file: &mut Sum,
    source: &mut impl Read,
    start: u64,
) -> Result<u64, DecodeError> {
    expected.update(&[0]);
    let mut found = Sum::default();
    let mut piece = [0; 4096];
    while found.length < expected.length {
        let left = usize::try_from(expected.length - found.length).unwrap_or(usize::MAX);
        let length = left.min(piece.len());
        let piece = piece.get_mut(..length).unwrap_or_default();
        source
            .read_exact(piece)
            .map_err(|error| DecodeError::read(error, start))?;
        found.update(piece);
        file.update(piece);
    }
    if found == expected {
        Ok(found.length)
    } else {
        Err(DecodeError::Index)
    }
}

fn reads_more(source: &mut impl Read, offset: u64) -> Result<bool, DecodeError> {
    match source.read_exact(&mut [0]) {
        Ok(()) => Ok(true),
        Err(error) => match DecodeError::read(error, offset) {
            DecodeError::Truncated { .. } => Ok(false),
            error => Err(error),
        },
    }
}

fn post_apply(header: &Header, found: u64, rolling: u64) -> Result<Option<Checksum>, DecodeError> {
    let fault = |rule| Err(DecodeError::PostApply { found, rule });
    match header.tracking {
        Tracking::Untracked if found == 0 => return Ok(None),
        Tracking::Untracked => return fault("tracks no checksums"),
        Tracking::Tracked { .. } => {}
    }
    let Some(expected) = Checksum::new(found) else {
        return fault("tracks checksums");
    };
    if header.commit.0 == 0 && expected != Checksum::EMPTY {
        return fault("leaves no pages");
    }
    let found = Checksum::from_crc(rolling);
    if header.holds_every_page() && found != expected {
        return Err(DecodeError::DatabaseChecksum { expected, found });
    }
    Ok(Some(expected))
}
