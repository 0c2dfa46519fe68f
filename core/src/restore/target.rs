//! Which state a restore is to bring back, and how people write it (R78 to R80).

use std::fmt;
use std::str::FromStr;

use crate::types::{Timestamp, Txid};

/// The state to restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RestoreTarget {
    /// The newest restore point.
    #[default]
    Latest,
    /// The state after this transaction.
    Txid(Txid),
    /// The newest restore point whose last commit was seen at or before this moment.
    At(Timestamp),
}

/// Text that is neither a time nor a TXID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Something else.
    #[error("{0:?} is neither a time (2024-01-15T10:30:00Z) nor a TXID (42, or txid:42)")]
    Neither(String),
    /// Digits of which nobody knows whether they are decimal or the hex digits of a file name.
    #[error("TXID {0:?} begins with a zero: TXIDs are decimal here, in file names they are hex")]
    LeadingZero(String),
    /// A number that no transaction has.
    #[error("{0:?} is no TXID: they count from 1 to 18446744073709551615")]
    NoTxid(String),
}

impl FromStr for RestoreTarget {
    type Err = TargetError;

    /// ISO 8601 with or without offset (then UTC), a date (then its first moment in UTC), a TXID in
    /// decimal, or `txid:` and a TXID.
    fn from_str(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if let Some(number) = text.strip_prefix("txid:") {
            return txid(number);
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return txid(text);
        }
        time(text)
            .map(Self::At)
            .ok_or_else(|| TargetError::Neither(text.chars().take(60).collect()))
    }
}

fn txid(number: &str) -> Result<RestoreTarget, TargetError> {
    let shown = || number.chars().take(60).collect();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TargetError::NoTxid(shown()));
    }
    if number.len() > 1 && number.starts_with('0') {
        return Err(TargetError::LeadingZero(shown()));
    }
    let value = number.parse().ok().and_then(Txid::new);
    value
        .map(RestoreTarget::Txid)
        .ok_or_else(|| TargetError::NoTxid(shown()))
}

/// Fractions below a millisecond, which no recorded time has, are cut off: commits at that very
/// millisecond count as seen before.
fn time(text: &str) -> Option<Timestamp> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Some(moment.into());
    }
    let local = text.parse::<jiff::civil::DateTime>().ok()?;
    let moment = local.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    Some(moment.into())
}

impl fmt::Display for RestoreTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the latest state"),
            Self::Txid(txid) => write!(f, "TXID {}", txid.get()),
            Self::At(time) => write!(f, "{time}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_offsets_fractions_or_neither() {
        let base = 1_705_314_600_000;
        for (text, millis) in [
            ("2024-01-15T10:30:00Z", base),
            ("2024-01-15t10:30:00z", base),
            ("2024-01-15T10:30:00", base),
            ("2024-01-15 10:30:00", base),
            ("2024-01-15T10:30", base),
            (" 2024-01-15T10:30:00Z ", base),
            ("2024-01-15T12:30:00+02:00", base),
            ("2024-01-15T05:00:00-05:30", base),
            ("20240115T103000Z", base),
            ("2024-01-15T10:30:00.25Z", base + 250),
            ("2024-01-15T10:30:00.2509999", base + 250),
            ("2024-01-15", base - 37_800_000),
            ("1969-12-31T23:59:59Z", -1_000),
        ] {
            let expected = RestoreTarget::At(Timestamp::from_millis(millis));
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_number_is_a_txid() {
        for (text, value) in [
            ("42", 42),
            ("txid:42", 42),
            ("2024", 2024),
            ("18446744073709551615", u64::MAX),
        ] {
            let expected = RestoreTarget::Txid(Txid::new(value).unwrap());
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "latest",
            "yesterday",
            "-1",
            "0",
            "txid:",
            "txid:0",
            "txid:-3",
            "txid:2024-01-15",
            "txid:ff",
            "18446744073709551616",
            "0000000000000010",
            "00000000000000ff",
            "2024-13-01",
            "2024-02-30",
            "2024-01-15T25:00:00Z",
            "10:30:00",
        ] {
            assert!(bad.parse::<RestoreTarget>().is_err(), "{bad}");
        }
        assert!(matches!(
            "0000000000000010".parse::<RestoreTarget>(),
            Err(TargetError::LeadingZero(_))
        ));
    }
}
