//! Transaction ids: one TXID is one committed transaction (invariant 3).

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number of one committed transaction, counted from 1. Printed as 16 lowercase hex digits, the
/// form of the LTX library; people are shown [`Txid::get`] in decimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Txid(NonZeroU64);

impl Txid {
    /// The first transaction of a stream.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// The TXID `value`, or nothing for 0.
    pub const fn new(value: u64) -> Option<Self> {
        match NonZeroU64::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The plain number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The TXID `count` transactions later, or nothing past 2^64 - 1.
    pub fn after(self, count: u64) -> Option<Self> {
        self.0.checked_add(count).map(Self)
    }

    /// The next TXID. Saturates at 2^64 - 1, which a stream that commits every nanosecond reaches
    /// after 584 years.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The TXID before this one, or nothing for the first.
    pub fn previous(self) -> Option<Self> {
        Self::new(self.get() - 1)
    }
}

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.get())
    }
}

impl fmt::Debug for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Txid({})", self.get())
    }
}

/// Text that is no TXID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a transaction id of 16 lowercase hex digits")]
pub struct ParseTxidError(String);

impl FromStr for Txid {
    type Err = ParseTxidError;

    /// Reads the 16 lowercase hex digits of a file name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseTxidError(text.chars().take(40).collect());
        let digits = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 16 || !text.bytes().all(digits) {
            return Err(error());
        }
        u64::from_str_radix(text, 16)
            .ok()
            .and_then(Self::new)
            .ok_or_else(error)
    }
}

/// The transactions `min..=max` that one file covers; never reversed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "RawRange")]
pub struct TxidRange {
    min: Txid,
    max: Txid,
}

/// A range as bytes from elsewhere hold it, not yet known to be in order.
#[derive(Deserialize)]
struct RawRange {
    min: Txid,
    max: Txid,
}

impl TryFrom<RawRange> for TxidRange {
    type Error = String;

    fn try_from(RawRange { min, max }: RawRange) -> Result<Self, String> {
        Self::new(min, max).ok_or_else(|| format!("range {min}-{max} is reversed"))
    }
}

impl TxidRange {
    /// The range `min..=max`, or nothing if it is reversed.
    pub fn new(min: Txid, max: Txid) -> Option<Self> {
        (min <= max).then_some(Self { min, max })
    }

    /// The range of one transaction.
    pub const fn single(txid: Txid) -> Self {
        Self {
            min: txid,
            max: txid,
        }
    }

    /// The range of a snapshot at `max`: `1..=max`.
    pub const fn snapshot(max: Txid) -> Self {
        Self {
            min: Txid::FIRST,
            max,
        }
    }

    /// The first transaction covered.
    pub const fn min(self) -> Txid {
        self.min
    }

    /// The last transaction covered: the state after the file is applied.
    pub const fn max(self) -> Txid {
        self.max
    }

    /// Whether this is the range of a snapshot, which needs no earlier file.
    pub fn is_snapshot(self) -> bool {
        self.min == Txid::FIRST
    }

    /// Whether a file of this range may be applied to the state at `at`: it starts no later than the
    /// next transaction and leads further.
    pub fn extends(self, at: Txid) -> bool {
        self.min <= at.next() && self.max > at
    }
}

impl fmt::Display for TxidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txid(value: u64) -> Txid {
        Txid::new(value).unwrap()
    }

    #[test]
    fn text_is_sixteen_lowercase_hex_digits_and_nothing_else() {
        assert_eq!(txid(255).to_string(), "00000000000000ff");
        assert_eq!("00000000000000ff".parse(), Ok(txid(255)));
        for bad in [
            "",
            "ff",
            "0000000000000000",
            "00000000000000FF",
            "+0000000000000ff",
            "00000000000000fff",
        ] {
            assert!(bad.parse::<Txid>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_is_never_reversed_and_extends_without_a_gap() {
        assert_eq!(TxidRange::new(txid(3), txid(2)), None);
        let range = TxidRange::new(txid(3), txid(5)).unwrap();
        assert!(range.extends(txid(2)) && range.extends(txid(4)));
        assert!(!range.extends(txid(1)) && !range.extends(txid(5)));
    }
}
