//! Pages of a SQLite database: their numbers, their size, how many there are.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// Offset of the byte that SQLite locks. The page that holds it is never used and never stored.
/// Source: SQLite file format, section 1.4.
const LOCK_BYTE: u64 = 0x4000_0000;

/// The number of a page, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PageNumber(NonZeroU32);

impl PageNumber {
    /// The page with the database header.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// Page `value`, or nothing for 0.
    pub const fn new(value: u32) -> Option<Self> {
        match NonZeroU32::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The plain number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The next page, or nothing past 2^32 - 1.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for PageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for PageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageNumber({})", self.0)
    }
}

/// How many pages a database has; also the number of its last page.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct PageCount(pub u32);

impl PageCount {
    /// Whether `page` lies within the database.
    pub fn holds(self, page: PageNumber) -> bool {
        page.get() <= self.0
    }
}

impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Size of one database page in bytes: a power of two, 512 to 65536. Source: SQLite file format,
/// section 1.3.2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PageSize(u32);

/// A number that is no page size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("page size {0} is not a power of two from 512 to 65536")]
pub struct InvalidPageSize(pub u32);

impl TryFrom<u32> for PageSize {
    type Error = InvalidPageSize;

    fn try_from(value: u32) -> Result<Self, InvalidPageSize> {
        Self::new(value).ok_or(InvalidPageSize(value))
    }
}

impl From<PageSize> for u32 {
    fn from(size: PageSize) -> Self {
        size.0
    }
}

impl PageSize {
    /// The page size of `bytes`, or nothing if SQLite has no such size.
    pub const fn new(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 512 && bytes <= 65536 {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// The page size as a database header stores it in bytes 16 and 17, where 1 means 65536.
    pub const fn from_database_header(stored: u16) -> Option<Self> {
        Self::new(if stored == 1 { 65536 } else { stored as u32 })
    }

    /// Size in bytes.
    pub const fn bytes(self) -> usize {
        self.0 as usize
    }

    /// Size in bytes, as the 32 bits of file headers.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The page that holds SQLite's lock byte: it is never stored, and is zeros when restored.
    pub fn lock_page(self) -> PageNumber {
        let number = LOCK_BYTE / u64::from(self.0) + 1;
        PageNumber(NonZeroU32::MIN.saturating_add(number as u32 - 1))
    }

    /// Offset of `page` in the database file, in bytes.
    pub fn offset(self, page: PageNumber) -> u64 {
        u64::from(page.get() - 1) * u64::from(self.0)
    }

    /// Size of a database of `count` pages, in bytes.
    pub fn total(self, count: PageCount) -> u64 {
        u64::from(count.0) * u64::from(self.0)
    }

    /// Every page of a database of `count` pages that a file may hold, ascending: all but the lock page.
    pub fn stored_pages(self, count: PageCount) -> impl Iterator<Item = PageNumber> {
        let lock = self.lock_page();
        (1..=count.0)
            .filter_map(PageNumber::new)
            .filter(move |page| *page != lock)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sqlite_page_sizes_exist() {
        for good in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
            assert_eq!(PageSize::new(good).map(PageSize::get), Some(good));
        }
        for bad in [0, 1, 256, 513, 4095, 131_072, u32::MAX] {
            assert_eq!(PageSize::new(bad), None);
        }
        assert_eq!(PageSize::from_database_header(1), PageSize::new(65536));
    }

    #[test]
    fn the_lock_page_is_the_one_that_holds_byte_0x40000000() {
        for (size, page) in [(512, 2_097_153), (4096, 262_145), (65536, 16385)] {
            assert_eq!(PageSize::new(size).unwrap().lock_page().get(), page);
        }
    }
}
