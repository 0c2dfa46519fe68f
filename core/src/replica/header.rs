//! The first 100 bytes of page 1: as the source has them, and as a replica must show them. Pure.
//!
//! SQLite rewrites some of them whenever page 1 is written, and a replica is in WAL mode whatever its source
//! was when it was copied. So a replica's page 1 differs from the source's in exactly these bytes:
//!
//! | bytes | here |
//! |---|---|
//! | 18-19 | 2: WAL mode |
//! | 24-27, 92-99 | change counter and version of the SQLite inside walrust |
//! | 28-31 | the size in pages: as the source's own, unless that was not valid there |
//! | 40-43 | the schema's version, moved on after a jump ([`SchemaVersion`]) |
//!
//! The true ones are kept in the state file and put back where the page is summed.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sqlite::DATABASE_HEADER_BYTES;
use crate::types::PageCount;

/// What may differ between a source's page 1 and its replica's.
const MASKED: [Range<usize>; 4] = [18..20, 24..32, 40..44, 92..100];

const WAL_MODE: [u8; 2] = [2, 2];
const RESERVED: usize = 20;
const PAGE_COUNT: Range<usize> = 28..32;
const SCHEMA: Range<usize> = 40..44;
const ENCODING: Range<usize> = 56..60;

/// The first 100 bytes of page 1 as the source has them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TrueHeader([u8; DATABASE_HEADER_BYTES]);

impl TrueHeader {
    /// The header of a source's page 1; nothing for what is shorter than any page.
    pub(super) fn of(page: &[u8]) -> Option<Self> {
        page.first_chunk().copied().map(Self)
    }

    /// The schema's version in the source.
    pub(super) fn schema(&self) -> u32 {
        word(&self.0, &SCHEMA)
    }

    /// Whether a database with this header can take the place of one with `other` while somebody reads it:
    /// SQLite keeps text encoding and reserved space for as long as a database is open.
    pub(super) fn fits(&self, other: &Self) -> bool {
        let encoding = |header: &Self| word(&header.0, &ENCODING);
        // A database without a table has no encoding yet.
        let same = encoding(other) == 0 || encoding(self) == encoding(other);
        same && self.0[RESERVED] == other.0[RESERVED]
    }

    /// Turns a replica's page 1 back into the source's.
    pub(super) fn restore(&self, page: &mut [u8]) {
        for range in MASKED {
            if let (Some(to), Some(from)) = (page.get_mut(range.clone()), self.0.get(range)) {
                to.copy_from_slice(from);
            }
        }
    }
}

/// Makes a source's page 1 what a replica shows.
pub(super) fn dress(page: &mut [u8], count: PageCount, schema: u32) {
    let fields: [(Range<usize>, &[u8]); 3] = [
        (18..20, &WAL_MODE),
        (PAGE_COUNT, &count.0.to_be_bytes()),
        (SCHEMA, &schema.to_be_bytes()),
    ];
    for (range, bytes) in fields {
        if let Some(field) = page.get_mut(range) {
            field.copy_from_slice(bytes);
        }
    }
}

/// Whether a replica's page 1 is dressed as it should be. The bytes that SQLite writes may be anything.
pub(super) fn is_dressed(page: &[u8], count: PageCount, schema: u32) -> bool {
    page.get(18..20) == Some(&WAL_MODE)
        && page.get(PAGE_COUNT) == Some(&count.0.to_be_bytes())
        && page.get(SCHEMA) == Some(&schema.to_be_bytes())
}

/// The schema's version that a replica's page 1 shows.
pub(super) fn shown_schema(page: &[u8]) -> u32 {
    word(page, &SCHEMA)
}

fn word(bytes: &[u8], range: &Range<usize>) -> u32 {
    let bytes = bytes.get(range.clone()).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// How the schema's version is shown. A connection that is open reads the schema anew only if its version is
/// another; so a state that does not grow out of the one before it, whatever its own version is, must show one
/// that nobody has seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SchemaVersion {
    /// What is added to the source's version, wrapping.
    offset: u32,
    /// The highest that was ever shown.
    highest: u32,
}

impl SchemaVersion {
    /// Of a new file, which nobody has open.
    pub(super) fn new(source: u32) -> Self {
        Self {
            offset: 0,
            highest: source,
        }
    }

    /// What is shown for the source's version.
    pub(super) fn shown(self, source: u32) -> u32 {
        source.wrapping_add(self.offset)
    }

    /// After commits of the source that follow each other.
    pub(super) fn followed(self, source: u32) -> Self {
        Self {
            highest: self.highest.max(self.shown(source)),
            ..self
        }
    }

    /// After a jump: another version than any before, `standing` included, which is shown now.
    pub(super) fn jumped(self, source: u32, standing: u32) -> Self {
        let shown = self.highest.max(standing).wrapping_add(1);
        Self {
            offset: shown.wrapping_sub(source),
            highest: shown,
        }
    }
}

impl fmt::Debug for TrueHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrueHeader({self})")
    }
}

impl fmt::Display for TrueHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for TrueHeader {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TrueHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| serde::de::Error::custom("a header is 200 hex digits"))
    }
}

fn parse(text: &str) -> Option<TrueHeader> {
    let digits = text.as_bytes();
    if digits.len() != 2 * DATABASE_HEADER_BYTES {
        return None;
    }
    let mut bytes = [0; DATABASE_HEADER_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? * 16 + low?).ok()?;
    }
    Some(TrueHeader(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Vec<u8> {
        (0..512).map(|byte| (byte % 251) as u8).collect()
    }

    #[test]
    fn a_page_is_the_source_s_again_whatever_sqlite_wrote_into_it() {
        let source = page();
        let header = TrueHeader::of(&source).unwrap();
        let mut shown = source.clone();
        dress(&mut shown, PageCount(9), 77);
        assert!(is_dressed(&shown, PageCount(9), 77));
        assert!(!is_dressed(&shown, PageCount(8), 77) && !is_dressed(&shown, PageCount(9), 78));
        assert_eq!(shown_schema(&shown), 77);
        for at in (24..28).chain(92..100) {
            shown[at] ^= 0xff;
        }
        assert!(is_dressed(&shown, PageCount(9), 77));
        header.restore(&mut shown);
        assert_eq!(shown, source);
        // Any other byte is the page's own.
        shown[60] ^= 1;
        header.restore(&mut shown);
        assert_ne!(shown, source);
    }

    #[test]
    fn text_is_200_hex_digits_and_nothing_else() {
        let header = TrueHeader::of(&page()).unwrap();
        let text = serde_json::to_string(&header).unwrap();
        assert_eq!(serde_json::from_str::<TrueHeader>(&text).unwrap(), header);
        for bad in ["\"\"", "\"00\"", "7", &text.replace('a', "g")] {
            assert!(serde_json::from_str::<TrueHeader>(bad).is_err(), "{bad}");
        }
        assert_eq!(TrueHeader::of(&[0; 99]), None);
    }

    #[test]
    fn the_schema_s_version_never_repeats_across_jumps() {
        let first = SchemaVersion::new(5);
        assert_eq!(first.shown(5), 5);
        let later = first.followed(8);
        // Another history with the very same version.
        let jumped = later.jumped(8, later.shown(8));
        assert_eq!(jumped.shown(8), 9);
        assert_eq!(jumped.shown(10), 11);
        // Back to an older file of it.
        let back = jumped.followed(10).jumped(2, jumped.shown(10));
        assert_eq!(back.shown(2), 12);
        // Somebody set it by hand.
        assert_eq!(back.jumped(2, 100).shown(2), 101);
        assert_eq!(SchemaVersion::new(u32::MAX).jumped(7, 7).shown(7), 0);
    }

    #[test]
    fn another_encoding_or_reserved_space_needs_a_new_file() {
        let mut bytes = page();
        bytes[56..60].copy_from_slice(&[0, 0, 0, 1]);
        let utf8 = TrueHeader::of(&bytes).unwrap();
        bytes[56..60].copy_from_slice(&[0, 0, 0, 2]);
        let utf16 = TrueHeader::of(&bytes).unwrap();
        bytes[56..60].copy_from_slice(&[0; 4]);
        let none = TrueHeader::of(&bytes).unwrap();
        assert!(utf8.fits(&utf8) && utf8.fits(&none));
        assert!(!utf16.fits(&utf8) && !none.fits(&utf8));
        bytes[20] ^= 1;
        let reserved = TrueHeader::of(&bytes).unwrap();
        assert!(!reserved.fits(&none));
    }
}
