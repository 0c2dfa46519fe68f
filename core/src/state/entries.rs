//! Entries of the page table on their way to the disk: 4 bytes page number (little-endian) and the 24
//! bytes of its sum.

use crate::error::{Error, ErrorKind, Result};
use crate::types::{PageCount, PageNumber, PageSum};

/// Bytes of one entry in a redo record.
pub(super) const ENTRY: usize = 4 + PageSum::BYTES;

/// The changed pages of one batch with their new sums: ascending, each page once. 28 bytes a page.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entries(Vec<u8>);

impl Entries {
    /// No page changed.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds the next page. Errors: Internal if `page` is not above the one before.
    pub fn push(&mut self, page: PageNumber, sum: PageSum) -> Result<()> {
        if self.last().is_some_and(|last| last >= page) {
            return Err(out_of_order(page));
        }
        self.0.extend_from_slice(&encode(page, sum));
        Ok(())
    }

    /// How many pages changed.
    pub fn len(&self) -> usize {
        self.0.len() / ENTRY
    }

    /// Whether no page changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pages and their sums, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (PageNumber, PageSum)> {
        decode_all(&self.0)
    }

    /// The sum of `page`, if it is among them.
    pub fn find(&self, page: PageNumber) -> Option<PageSum> {
        let (entries, _) = self.0.as_chunks::<ENTRY>();
        let key = |entry: &[u8; ENTRY]| decode(entry).map(|(page, _)| page);
        let at = entries.binary_search_by_key(&Some(page), key).ok()?;
        decode(entries.get(at)?).map(|(_, sum)| sum)
    }

    /// These and the `newer` ones, which count where both have a page, up to a size of `count`.
    pub(super) fn joined(&self, newer: &Self, count: PageCount) -> Self {
        let (mut older, mut newer) = (self.iter().peekable(), newer.iter().peekable());
        let mut joined = Self::new();
        loop {
            let next = match (older.peek(), newer.peek()) {
                (Some((old, _)), Some((new, _))) if old < new => older.next(),
                (Some((old, _)), Some((new, _))) => {
                    if old == new {
                        older.next();
                    }
                    newer.next()
                }
                (Some(_), None) => older.next(),
                (None, _) => newer.next(),
            };
            let Some((page, sum)) = next else {
                return joined;
            };
            if count.holds(page) {
                joined.0.extend_from_slice(&encode(page, sum));
            }
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Errors: Internal if a page lies beyond `count`.
    pub(super) fn check_within(&self, count: PageCount) -> Result<()> {
        match self.last() {
            Some(last) if !count.holds(last) => Err(Error::new(
                ErrorKind::Internal,
                format!("page {last} of a batch lies beyond its {count} pages"),
            )),
            _ => Ok(()),
        }
    }

    fn last(&self) -> Option<PageNumber> {
        let (_, last) = self.0.as_rchunks::<ENTRY>();
        decode(last.last()?).map(|(page, _)| page)
    }
}

pub(super) fn out_of_order(page: PageNumber) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("page {page} comes out of order into the page table"),
    )
}

pub(super) fn encode(page: PageNumber, sum: PageSum) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..4].copy_from_slice(&page.get().to_le_bytes());
    entry[4..].copy_from_slice(&sum.to_bytes());
    entry
}

fn decode(entry: &[u8; ENTRY]) -> Option<(PageNumber, PageSum)> {
    let (page, sum) = entry.split_first_chunk::<4>()?;
    let page = PageNumber::new(u32::from_le_bytes(*page))?;
    Some((page, PageSum::from_bytes(sum.first_chunk()?)?))
}

/// The entries in `bytes`. Those that are none are left out: only bytes under a checksum come here.
pub(super) fn decode_all(bytes: &[u8]) -> impl Iterator<Item = (PageNumber, PageSum)> {
    bytes.as_chunks::<ENTRY>().0.iter().filter_map(decode)
}
