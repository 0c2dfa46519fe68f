//! Checksums of pages, of files, and of whole databases.
//!
//! Two sums describe a database. The *checksum* is LTX's: the XOR of a CRC-64 of each page. It is
//! linear, so exchanging two pages leaves it unchanged; therefore the *digest* stands beside it: the
//! sum modulo 2^128 of XXH3-128 of each page, seeded with its number. Both change by a page at a time.

use std::fmt;
use std::str::FromStr;

use crc_fast::CrcAlgorithm;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::PageNumber;

/// Every stored checksum has this bit, so that none equals 0, which means "absent".
const FLAG: u64 = 1 << 63;

/// The CRC-64 of the LTX format.
pub(crate) const CRC: CrcAlgorithm = CrcAlgorithm::Crc64GoIso;

macro_rules! flagged_checksum {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// The value as a file stores it, or nothing if the top bit is clear.
            pub const fn new(stored: u64) -> Option<Self> {
                if stored & FLAG == 0 { None } else { Some(Self(stored)) }
            }

            /// The checksum of a CRC: its top bit is replaced by the flag.
            pub const fn from_crc(crc: u64) -> Self {
                Self(crc | FLAG)
            }

            /// The 64 bits as a file stores them.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let stored = (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
                stored.and_then(Self::new).ok_or_else(|| "a checksum is 16 hex digits with the top bit set".to_owned())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

flagged_checksum! {
    /// The rolling checksum of a whole database: 64 bits with the top bit set. What people are shown.
    Checksum
}

flagged_checksum! {
    /// The checksum over the bytes of one LTX file: 64 bits with the top bit set.
    FileChecksum
}

impl Checksum {
    /// The checksum of a database without pages.
    pub const EMPTY: Self = Self(FLAG);
}

/// The 128-bit digest of a whole database: proof that its pages are these, in this order. Printed as 32
/// hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(u128);

impl Digest {
    /// The digest with this value.
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// The plain value.
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let value = (text.len() == 32)
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten();
        value
            .map(Self)
            .ok_or_else(|| "a digest is 32 hex digits".to_owned())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What one page adds to the sums of its database; 24 bytes in the page table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageSum {
    /// CRC-64 over the page number (4 bytes, big-endian) and the page, with the flag.
    pub crc: u64,
    /// XXH3-128 of the page, seeded with the page number.
    pub hash: u128,
}

impl PageSum {
    /// Bytes of [`PageSum::to_bytes`].
    pub const BYTES: usize = 24;

    /// The sum of `page` with the content `data`.
    pub fn of(page: PageNumber, data: &[u8]) -> Self {
        let mut crc = crc_fast::Digest::new(CRC);
        crc.update(&page.get().to_be_bytes());
        crc.update(data);
        Self::with_crc(page, data, crc.finalize())
    }

    /// The same where the CRC over page number and page is known already.
    pub(crate) fn with_crc(page: PageNumber, data: &[u8], crc: u64) -> Self {
        Self {
            crc: crc | FLAG,
            hash: xxh3_128_with_seed(data, u64::from(page.get())),
        }
    }

    /// The entry of the page table: CRC, then hash, little-endian. All zeros never stands for a page.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.crc.to_le_bytes());
        bytes[8..].copy_from_slice(&self.hash.to_le_bytes());
        bytes
    }

    /// The sum that an entry of the page table holds, or nothing for an entry that was never written.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (crc, hash) = bytes.split_at(8);
        let crc = u64::from_le_bytes(crc.try_into().ok()?);
        let hash = u128::from_le_bytes(hash.try_into().ok()?);
        (crc & FLAG != 0).then_some(Self { crc, hash })
    }
}

/// Checksum and digest of a whole database, maintained page by page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct DatabaseSum {
    /// LTX's rolling checksum.
    pub checksum: Checksum,
    /// The digest beside it.
    pub digest: Digest,
}

impl DatabaseSum {
    /// The sums of a database without pages.
    pub const EMPTY: Self = Self {
        checksum: Checksum::EMPTY,
        digest: Digest(0),
    };

    /// Adds a page that was not there.
    pub fn add(&mut self, page: PageSum) {
        self.checksum = Checksum::from_crc(self.checksum.0 ^ page.crc);
        self.digest = Digest(self.digest.0.wrapping_add(page.hash));
    }

    /// Takes away a page that was there.
    pub fn remove(&mut self, page: PageSum) {
        self.checksum = Checksum::from_crc(self.checksum.0 ^ page.crc);
        self.digest = Digest(self.digest.0.wrapping_sub(page.hash));
    }

    /// Joins the sums of two disjoint sets of pages.
    pub fn join(&mut self, other: Self) {
        self.checksum = Checksum::from_crc(self.checksum.0 ^ other.checksum.0);
        self.digest = Digest(self.digest.0.wrapping_add(other.digest.0));
    }
}

impl Default for DatabaseSum {
    fn default() -> Self {
        Self::EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: u32) -> PageNumber {
        PageNumber::new(number).unwrap()
    }

    #[test]
    fn the_crc_is_go_iso() {
        assert_eq!(crc_fast::checksum(CRC, b"123456789"), 0xb909_56c7_75a4_1001);
        let oracle = crc::Crc::<u64>::new(&crc::CRC_64_GO_ISO);
        let data: Vec<u8> = (0..70_000_u32).map(|i| (i * 7 + i / 256) as u8).collect();
        for length in [
            0, 1, 7, 15, 16, 17, 127, 128, 129, 512, 4096, 65_536, 70_000,
        ] {
            assert_eq!(
                crc_fast::checksum(CRC, &data[..length]),
                oracle.checksum(&data[..length]),
                "{length}"
            );
        }
    }

    #[test]
    fn pages_and_databases_have_the_checksums_of_the_format() {
        assert_eq!(
            PageSum::of(page(1), &[0x31; 512]).crc,
            0xeb1a_9992_3104_4ddd
        );
        assert_eq!(PageSum::of(page(2), &[0; 4096]).crc, 0xf790_1e47_304c_a33f);
        let mut sum = DatabaseSum::EMPTY;
        for n in 1..=3_u8 {
            sum.add(PageSum::of(page(n.into()), &[n; 512]));
        }
        assert_eq!(sum.checksum.to_string(), "efffffffecd99000");
    }

    #[test]
    fn the_digest_sees_what_the_checksum_does_not() {
        let (a, b) = ([1; 512], [2; 512]);
        let (mut straight, mut swapped) = (DatabaseSum::EMPTY, DatabaseSum::EMPTY);
        straight.add(PageSum::of(page(1), &a));
        straight.add(PageSum::of(page(2), &b));
        swapped.add(PageSum::of(page(1), &b));
        swapped.add(PageSum::of(page(2), &a));
        assert_eq!(straight.checksum, swapped.checksum);
        assert_ne!(straight.digest, swapped.digest);
        straight.remove(PageSum::of(page(2), &b));
        straight.remove(PageSum::of(page(1), &a));
        assert_eq!(straight, DatabaseSum::EMPTY);
    }

    #[test]
    fn a_page_table_entry_is_24_bytes_and_zeros_are_none() {
        let sum = PageSum::of(page(9), &[7; 1024]);
        assert_eq!(PageSum::from_bytes(&sum.to_bytes()), Some(sum));
        assert_eq!(PageSum::from_bytes(&[0; 24]), None);
    }
}
