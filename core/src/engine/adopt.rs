//! Following files that are in the chain already: what an earlier run stored or spooled before it could
//! note it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::encode::{former_sums, missing};
use super::frames::Stretch;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Decoder, Header, Tracking, WalSpan};
use crate::state::{Boot, PageTable, Place, WalPlace};
use crate::types::{DatabaseSum, PageCount, PageNumber, PageSum};
use crate::wal::{WalCursor, WalEnd, frame_at, frame_offset};

/// A file with more pages is not compared with the log: 28 bytes each wait in memory.
const PROVABLE_PAGES: usize = 64 * 1024;

/// Decodes `file`, checks that it continues `place`, moves the page table over it and returns the place
/// that it leads to. `wal` is the log as it is now.
pub(super) fn follow(
    table: &mut PageTable,
    place: &Place,
    file: impl Read,
    wal: &File,
    scratch: &Path,
) -> Result<Place> {
    let mut decoder = Decoder::new(BufReader::with_capacity(256 * 1024, file))?;
    let header = decoder.header().clone();
    check(&header, place)?;
    let mut huge = table.huge()?;
    let mut sum = place.sum;
    let mut page = Vec::new();
    let mut chunk: Vec<(PageNumber, PageSum)> = Vec::new();
    let mut seen: Vec<(PageNumber, PageSum)> = Vec::new();
    loop {
        let next = decoder.next_page(&mut page)?;
        if let Some(number) = next {
            chunk.push((number, PageSum::of(number, &page)));
        }
        if chunk.len() >= 512 || next.is_none() {
            replace(table, place.page_count, &chunk, &mut sum)?;
            for (number, now) in chunk.drain(..) {
                if seen.len() < PROVABLE_PAGES {
                    seen.push((number, now));
                }
                huge.push(number, now)?;
            }
        }
        if next.is_none() {
            break;
        }
    }
    let verified = decoder.finish()?;
    former_sums(
        header.commit,
        place.page_count,
        place.page_size,
        table,
        &mut |former| {
            sum.remove(former);
        },
    )?;
    let post = verified.post_apply.is_none_or(|post| post == sum.checksum);
    if !post || header.digest.is_some_and(|digest| digest != sum.digest) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("{} does not lead to the state that it names", header.range),
        ));
    }
    if verified.pages > seen.len() as u64 {
        // Too many to compare with the log one by one: the pages of the database are compared instead.
        seen.clear();
    }
    let provable = !seen.is_empty() || verified.pages == 0;
    let end = match provable {
        true => end_of(table, place, &header, &seen, wal, scratch)?,
        false => None,
    };
    let reached = Place {
        txid: header.range.max(),
        sum,
        page_size: place.page_size,
        page_count: header.commit,
        wal: end,
    };
    table.commit_huge(huge, reached)?;
    Ok(reached)
}

fn check(header: &Header, place: &Place) -> Result<()> {
    let continues = header.range.min() == place.txid.next()
        && header.page_size == place.page_size
        && match header.tracking {
            Tracking::Tracked { pre_apply } => pre_apply == Some(place.sum.checksum),
            Tracking::Untracked => true,
        };
    if continues {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!(
            "{} does not continue TXID {}",
            header.range,
            place.txid.get()
        ),
    ))
}

fn replace(
    table: &PageTable,
    count: PageCount,
    chunk: &[(PageNumber, PageSum)],
    sum: &mut DatabaseSum,
) -> Result<()> {
    let known: Vec<_> = chunk
        .iter()
        .map(|(page, _)| *page)
        .filter(|page| count.holds(*page))
        .collect();
    table.lookup_all(&known, &mut |page, former| {
        let former = former.ok_or_else(|| missing(page))?;
        sum.remove(former);
        Ok(())
    })?;
    for (_, now) in chunk {
        sum.add(*now);
    }
    Ok(())
}

/// The place behind the file in the log, if the log proves it: the frames from the saved place on are there,
/// verified, and lead to exactly the file's state. Otherwise the log may hold other commits under the same numbers
/// (after a power loss, say), and only a comparison of pages tells. `table` is that of the saved place.
fn end_of(
    table: &PageTable,
    place: &Place,
    header: &Header,
    pages: &[(PageNumber, PageSum)],
    wal: &File,
    scratch: &Path,
) -> Result<Option<WalPlace>> {
    let Some((span, cursor)) = begin_of(place, header, wal) else {
        return Ok(None);
    };
    let frame_bytes = frame_offset(place.page_size, 1) - frame_offset(place.page_size, 0);
    let frames = u32::try_from(span.size / frame_bytes).ok();
    let frames = frames.and_then(|frames| cursor.frame().checked_add(frames));
    let last = frames.and_then(|frames| frame_at(wal, place.page_size, frames).ok()?);
    let Some((frames, last)) = frames.zip(last) else {
        return Ok(None);
    };
    let end = WalEnd {
        salt: span.salt,
        frames,
        checksum: last.checksum,
        big_endian: cursor.big_endian(),
    };
    let Ok((stretch, mut newest)) = Stretch::scan(wal, &cursor, &end, place.page_count, scratch)
    else {
        return Ok(None);
    };
    let mut held = pages.iter().peekable();
    let mut data = Vec::new();
    for page in stretch.candidates(header.commit).iter() {
        let Some(page) = PageNumber::new(page) else {
            continue;
        };
        // A page that the log does not have proves nothing.
        let frame = stretch.frame_of(&mut newest, page)?;
        let Some(frame) = frame.filter(|_| held.peek().is_none_or(|(next, _)| *next >= page))
        else {
            return Ok(None);
        };
        if stretch.read(wal, frame, &mut data).is_err() {
            // Cut off meanwhile.
            return Ok(None);
        }
        let expected = match held.next_if(|(next, _)| *next == page) {
            Some((_, sum)) => Some(*sum),
            // Written, and left as it was.
            None => table.lookup(page)?,
        };
        if expected != Some(PageSum::of(page, &data)) {
            return Ok(None);
        }
    }
    let WalEnd {
        salt,
        checksum,
        big_endian,
        ..
    } = end;
    // From its start on, the whole generation was read just now.
    let boot = match cursor.frame() {
        0 => Boot::current(),
        _ => place.wal.and_then(|saved| saved.boot),
    };
    Ok(held.next().is_none().then_some(WalPlace {
        salt,
        frame: frames,
        checksum,
        big_endian,
        boot,
    }))
}

/// Where the file's frames begin: at the saved place, or at the start of the generation that followed it, which
/// the file was the first to be captured from.
fn begin_of(place: &Place, header: &Header, wal: &File) -> Option<(WalSpan, WalCursor)> {
    let span = header.wal?;
    let saved = place.wal.filter(|saved| saved.salt == span.salt);
    let cursor = match saved {
        Some(saved) => WalCursor::from_saved(saved, place.page_size),
        None => WalCursor::start(wal).ok()?,
    };
    let fits = cursor.salt() == span.salt
        && cursor.page_size() == place.page_size
        && cursor.offset() == span.offset
        && cursor.is_proven_by(wal).ok()?;
    fits.then_some((span, cursor))
}
