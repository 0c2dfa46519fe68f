//! Who wrote a file: the lineage of a stream and the epoch of its writer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const EPOCH_BITS: u32 = 24;
const LINEAGE_MAX: u64 = (1 << 40) - 1;

/// 40 random bits, never 0, that name one history of one database. A new chain over the same path has
/// another lineage. Printed as 10 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(u64);

impl Lineage {
    /// The lineage with these bits, or nothing for 0 or more than 40 bits.
    pub fn new(bits: u64) -> Option<Self> {
        (bits != 0 && bits <= LINEAGE_MAX).then_some(Self(bits))
    }

    /// A lineage that nobody has.
    pub fn random() -> Self {
        Self(fastrand::u64(1..=LINEAGE_MAX))
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010x}", self.0)
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lineage({self})")
    }
}

impl FromStr for Lineage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bits = (text.len() == 10)
            .then(|| u64::from_str_radix(text, 16).ok())
            .flatten();
        bits.and_then(Self::new)
            .ok_or_else(|| "a lineage is 10 hex digits, not all zero".to_owned())
    }
}

impl Serialize for Lineage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lineage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The turn of a writer within a lineage: each take-over of the lease is one higher. 24 bits, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(u32);

impl Epoch {
    /// The first writer's epoch.
    pub const FIRST: Self = Self(1);

    /// Epoch `value`, or nothing for 0 or more than 24 bits.
    pub fn new(value: u32) -> Option<Self> {
        (value != 0 && value < 1 << EPOCH_BITS).then_some(Self(value))
    }

    /// The plain number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The epoch of the next owner, or nothing after 16 million take-overs.
    pub fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }
}

/// Lineage and epoch together, as they fill the node id of each LTX file: lineage in the upper 40 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct StreamId {
    /// The history this file belongs to.
    pub lineage: Lineage,
    /// The writer that made it.
    pub epoch: Epoch,
}

impl StreamId {
    /// The 64 bits of a file header.
    pub fn to_node_id(self) -> u64 {
        self.lineage.0 << EPOCH_BITS | u64::from(self.epoch.0)
    }

    /// What a file header's node id says, or nothing where another program wrote the file.
    pub fn from_node_id(node: u64) -> Option<Self> {
        let epoch = Epoch::new((node & ((1 << EPOCH_BITS) - 1)) as u32)?;
        Some(Self {
            lineage: Lineage::new(node >> EPOCH_BITS)?,
            epoch,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_holds_lineage_and_epoch() {
        let id = StreamId {
            lineage: Lineage::new(0xab_cdef_0123).unwrap(),
            epoch: Epoch::new(7).unwrap(),
        };
        assert_eq!(id.to_node_id(), 0xabcd_ef01_2300_0007);
        assert_eq!(StreamId::from_node_id(id.to_node_id()), Some(id));
        assert_eq!(StreamId::from_node_id(0), None);
        assert_eq!(id.lineage.to_string().parse(), Ok(id.lineage));
    }
}
