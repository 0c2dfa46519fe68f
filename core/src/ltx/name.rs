//! File names of LTX files.

use std::fmt;
use std::str::FromStr;

use super::{DecodeError, Header};
use crate::types::{Txid, TxidRange};

/// `<min>-<max>.ltx`: both TXIDs as 16 lowercase hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LtxName(pub TxidRange);

impl LtxName {
    /// Whether `header` is that of a file of this name.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Name`] if it covers other transactions.
    pub fn check(self, header: &Header) -> Result<(), DecodeError> {
        if self.0 == header.range {
            Ok(())
        } else {
            Err(DecodeError::Name {
                expected: self.0,
                found: header.range,
            })
        }
    }
}

impl fmt::Display for LtxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.ltx", self.0)
    }
}

/// Text that is no name of an LTX file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not named like an LTX file")]
pub struct ParseNameError(String);

impl FromStr for LtxName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseNameError(text.chars().take(80).collect()))
    }
}

fn parse(text: &str) -> Option<LtxName> {
    let (min, max) = text.strip_suffix(".ltx")?.split_once('-')?;
    let (min, max): (Txid, Txid) = (min.parse().ok()?, max.parse().ok()?);
    TxidRange::new(min, max).map(LtxName)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_two_lowercase_txids_and_nothing_else() {
        let text = "0000000000000002-00000000000000ff.ltx";
        let name: LtxName = text.parse().unwrap();
        assert_eq!((name.0.min().get(), name.0.max().get()), (2, 255));
        assert_eq!(name.to_string(), text);
        for bad in [
            "",
            "0000000000000002-00000000000000FF.ltx",
            "0000000000000002-00000000000000ff",
            "0000000000000002-00000000000000ff.ltx.tmp",
            "2-3.ltx",
            "0000000000000003-0000000000000002.ltx",
            "0000000000000000-0000000000000002.ltx",
            "x0000000000000002-00000000000000ff.ltx",
        ] {
            assert!(bad.parse::<LtxName>().is_err(), "{bad}");
        }
    }
}
