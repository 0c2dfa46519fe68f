//! Lengths of time as Kubernetes writes them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A length of time, never negative, in whole milliseconds: `250ms`, `30s`, `1h30m`.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Period(Duration);

/// Text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a duration: whole hours, minutes, seconds and milliseconds, as in \"1h30m\" or \"250ms\""
)]
pub struct PeriodError(String);

/// Units in the order in which they are written, each with its milliseconds and its greatest number of digits. Hours may
/// have more than the API server takes: all minutes, seconds and milliseconds that it takes are written as hours too.
const UNITS: [(&str, u64, usize); 4] = [
    ("h", 3_600_000, 8),
    ("m", 60_000, 8),
    ("s", 1_000, 9),
    ("ms", 1, 9),
];

/// The same for the API server: the units may be missing, but not all.
const PATTERN: &str = r"^([0-9]{1,6}h)?([0-9]{1,8}m)?([0-9]{1,9}(\.[0-9]{1,3})?s)?([0-9]{1,9}ms)?$";

impl Period {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The length.
    pub const fn duration(self) -> Duration {
        self.0
    }

    /// Whether it means "off".
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let wrong = || PeriodError(text.chars().take(40).collect());
        let mut rest = text;
        let mut total: u64 = 0;
        for (unit, scale, most_digits) in UNITS {
            let Some((number, behind)) = number_with(rest, unit) else {
                continue;
            };
            let millis = millis(number, scale, most_digits).ok_or_else(wrong)?;
            total = total.saturating_add(millis);
            rest = behind;
        }
        match rest.is_empty() && !text.is_empty() {
            true => Ok(Self(Duration::from_millis(total))),
            false => Err(wrong()),
        }
    }
}

/// The number at the beginning of `text` and what is behind its unit, if that is `unit`.
fn number_with<'t>(text: &'t str, unit: &str) -> Option<(&'t str, &'t str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, behind) = text.split_at_checked(end)?;
    let letters = behind.find(|c: char| !c.is_ascii_alphabetic());
    let (found, behind) = behind.split_at_checked(letters.unwrap_or(behind.len()))?;
    (found == unit && !number.is_empty()).then_some((number, behind))
}

/// `number` units of `scale` milliseconds each. Only seconds may have a fraction.
fn millis(number: &str, scale: u64, most_digits: usize) -> Option<u64> {
    let (whole, fraction) = match number.split_once('.') {
        None => (number, ""),
        Some((whole, fraction)) if scale == 1_000 && !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
    };
    if whole.is_empty() || whole.len() > most_digits || fraction.len() > 3 {
        return None;
    }
    let behind: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(scale)?
        .checked_add(behind)
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        if seconds == 0 && millis == 0 {
            return f.write_str("0s");
        }
        for (amount, unit) in [
            (seconds / 3_600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (u64::from(millis), "ms"),
        ] {
            if amount > 0 {
                write!(f, "{amount}{unit}")?;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Period {
    type Error = PeriodError;

    fn try_from(text: String) -> Result<Self, PeriodError> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

impl JsonSchema for Period {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 2, "maxLength": 32, "pattern": PATTERN})
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn periods_are_what_go_writes() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("1s", 1_000),
            ("1.5s", 1_500),
            ("1m30.25s", 90_250),
            ("1h0m0s", 3_600_000),
            ("168h", 604_800_000),
            ("1h30m", 5_400_000),
            ("2s5ms", 2_005),
        ] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.duration(), Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn what_is_negative_in_days_or_without_a_unit_is_refused() {
        for bad in [
            "",
            "0",
            "30",
            "-1s",
            "7d",
            "1s1m",
            "1.5h",
            "1.s",
            ".5s",
            "1.0001s",
            "s",
            " 1s",
            "1 s",
            "1s ",
            "123456789h",
            "1e3s",
            "1us",
            "1ms1s",
            "1s1s",
            "١s",
        ] {
            assert!(bad.parse::<Period>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_period_is_read_as_it_was_written(millis in 0_u64..4_000_000_000_000) {
            let period = Period(Duration::from_millis(millis));
            prop_assert_eq!(period.to_string().parse(), Ok(period));
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = text.parse::<Period>();
        }
    }
}
