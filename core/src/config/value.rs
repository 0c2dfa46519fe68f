//! Durations and sizes as people write them, and the bounds that settings keep.

use std::num::NonZeroU64;
use std::time::Duration;

/// Why a value cannot be what it is meant to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Text that is no duration.
    #[error("{0:?} is not a duration: a number with ms, s, m, h or d, as in \"30s\"")]
    Duration(String),
    /// Text that is no size.
    #[error("{0:?} is not a size: a number with B, KiB, MiB, GiB or TiB, as in \"32MiB\"")]
    Size(String),
    /// Text that is no whole number.
    #[error("{0:?} is not a whole number")]
    Number(String),
    /// Text that is no region.
    #[error("{0:?} is not a region, as in \"us-east-1\"")]
    Region(String),
    /// Below what the setting can be.
    #[error("{found} is below the least possible {least}")]
    TooSmall {
        /// What was given.
        found: String,
        /// The bound.
        least: String,
    },
    /// Above what the setting can be.
    #[error("{found} is above the greatest possible {most}")]
    TooGreat {
        /// What was given.
        found: String,
        /// The bound.
        most: String,
    },
}

/// A hundred years: timers overflow somewhere behind it, and nobody waits that long.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A number with one unit: `ms`, `s`, `m`, `h` or `d`.
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    let wrong = || ValueError::Duration(shown(text));
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let unit = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    self::seconds(number * unit, text)
}

/// A number of seconds, or a number with a unit: as the command line takes it.
pub fn seconds_or_duration(text: &str) -> Result<Duration, ValueError> {
    match split(text) {
        Some((number, "")) => match number.parse() {
            Ok(number) => seconds(number, text),
            Err(_) => Err(ValueError::Duration(shown(text))),
        },
        _ => duration(text),
    }
}

/// A number of seconds that was written as `text`.
pub fn seconds(seconds: f64, text: &str) -> Result<Duration, ValueError> {
    if seconds.is_nan() {
        return Err(ValueError::Duration(shown(text)));
    }
    if seconds < 0.0 {
        return Err(ValueError::TooSmall {
            found: shown(text),
            least: "0".to_owned(),
        });
    }
    match Duration::try_from_secs_f64(seconds) {
        // Whole microseconds, so that 0.1 s is 100 ms.
        Ok(length) if length <= LONGEST => {
            Ok(Duration::from_micros((seconds * 1e6).round() as u64))
        }
        _ => Err(ValueError::TooGreat {
            found: shown(text),
            most: "36500d".to_owned(),
        }),
    }
}

/// A number with one unit of 1,024: `B`, `KiB`, `MiB`, `GiB`, `TiB`, also written `KB` or `K`.
pub fn size(text: &str) -> Result<u64, ValueError> {
    let wrong = || ValueError::Size(shown(text));
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let power = match unit.to_ascii_lowercase().as_str() {
        "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(wrong()),
    };
    let scale = 1024_u64.pow(power);
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(scale),
        Err(_) => {
            let number: f64 = number.parse().map_err(|_| wrong())?;
            let bytes = number * scale as f64;
            // Behind 2^53 a fraction of a unit is no longer exact; no disk is that large.
            (bytes < 9.0e15).then_some(bytes.round() as u64)
        }
    };
    match bytes {
        Some(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => Err(ValueError::TooGreat {
            found: shown(text),
            most: "8 EiB".to_owned(),
        }),
    }
}

/// A number of bytes, or a number with a unit: as the command line takes it.
pub fn bytes_or_size(text: &str) -> Result<u64, ValueError> {
    match text.parse::<u64>() {
        Ok(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => size(text),
    }
}

/// Digits (with a point, perhaps) and what follows them; nothing where there are no digits.
fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number.starts_with(|c: char| c.is_ascii_digit()) && !number.ends_with('.'))
        .then(|| (number, unit.trim_start()))
}

/// Enough of `text` to recognise it in an error.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// 0 means off.
pub fn or_off(length: Duration) -> Option<Duration> {
    (!length.is_zero()).then_some(length)
}

/// 0 means off.
pub fn count_or_off(count: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(count)
}

/// `length`, if it is at least `least`.
pub fn at_least(length: Duration, least: Duration) -> Result<Duration, ValueError> {
    if length < least {
        return Err(ValueError::TooSmall {
            found: format!("{length:?}"),
            least: format!("{least:?}"),
        });
    }
    Ok(length)
}

/// `length`, if it is at most `most`.
pub fn at_most(length: Duration, most: Duration) -> Result<Duration, ValueError> {
    if length > most {
        return Err(ValueError::TooGreat {
            found: format!("{length:?}"),
            most: format!("{most:?}"),
        });
    }
    Ok(length)
}

/// `number`, if it lies within `range`.
pub fn within(number: u64, range: std::ops::RangeInclusive<u64>) -> Result<u64, ValueError> {
    if number < *range.start() {
        return Err(ValueError::TooSmall {
            found: number.to_string(),
            least: range.start().to_string(),
        });
    }
    if number > *range.end() {
        return Err(ValueError::TooGreat {
            found: number.to_string(),
            most: range.end().to_string(),
        });
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("0s", 0),
            ("5m", 300_000),
            ("1.5h", 5_400_000),
            ("7d", 604_800_000),
            ("0.1s", 100),
            ("10 s", 10_000),
        ] {
            assert_eq!(
                duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for bad in [
            "",
            "s",
            "30",
            "1w",
            "5 minutes",
            "-1s",
            "1e3s",
            "1.s",
            ".5s",
            "1..2s",
            "NaN s",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn v11_zero_and_huge_durations_are_values_or_errors_never_overflow() {
        assert_eq!(seconds(0.0, "0"), Ok(Duration::ZERO));
        assert_eq!(or_off(Duration::ZERO), None);
        assert_eq!(duration("36500d"), Ok(LONGEST));
        for huge in ["36501d", "99999999999999999999d", &format!("{}s", u64::MAX)] {
            let error = duration(huge).unwrap_err();
            assert!(
                matches!(error, ValueError::TooGreat { .. }),
                "{huge}: {error}"
            );
        }
        for number in [f64::INFINITY, f64::MAX, f64::NAN, -1.0, f64::NEG_INFINITY] {
            assert!(seconds(number, "").is_err(), "{number}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("0B", 0),
            ("1KiB", 1 << 10),
            ("32MiB", 32 << 20),
            ("1.5GB", 3 << 29),
            ("2 T", 2 << 40),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "MiB",
            "1",
            "-1MiB",
            "1XiB",
            "99999999999TiB",
            "1.5.5MiB",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert_eq!(bytes_or_size("1024"), Ok(1024));
        assert!(bytes_or_size("18446744073709551615").is_err());
    }

    #[test]
    fn the_command_line_takes_plain_seconds() {
        assert_eq!(seconds_or_duration("1800"), Ok(Duration::from_secs(1800)));
        assert_eq!(seconds_or_duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds_or_duration("30m"), Ok(Duration::from_secs(1800)));
        assert!(seconds_or_duration("soon").is_err());
    }
}
