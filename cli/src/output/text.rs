//! Sizes, durations and times as people read them.

use std::time::Duration;

use walrust_core::types::Timestamp;

/// A size in powers of 1,024: `512 B`, `256 KB`, `1.2 MB` (R34, R118).
pub(crate) fn size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let kilobytes = (u128::from(bytes) + 512) / 1024;
    if kilobytes < 1024 {
        return format!("{kilobytes} KB");
    }
    let tenths = |scale: u64| (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    // What rounds up to a whole larger unit is shown in that one: 1,023.99 MB are 1.0 GB.
    let (tenths, unit) = [(1 << 20, "MB"), (1 << 30, "GB")]
        .into_iter()
        .map(|(scale, unit)| (tenths(scale), unit))
        .find(|(tenths, _)| *tenths < 10_240)
        .unwrap_or((tenths(1 << 40), "TB"));
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// A size in megabytes with two decimals: `12.34 MB` (R129).
pub(crate) fn megabytes(bytes: u64) -> String {
    let hundredths = (u128::from(bytes) * 100 + (1 << 19)) >> 20;
    format!("{}.{:02} MB", hundredths / 100, hundredths % 100)
}

/// The page images of a sync in kilobytes, without a space: `16KB`; half a kilobyte only with pages of
/// 512 bytes (R53).
pub(crate) fn kilobytes(bytes: u64) -> String {
    match (bytes / 1024, bytes % 1024) {
        (whole, 0) => format!("{whole}KB"),
        (whole, rest) => format!("{whole}.{}KB", rest * 10 / 1024),
    }
}

/// `445ms` below a second, else `1.2s` (R34).
pub(crate) fn duration(length: Duration) -> String {
    let millis = length.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    let tenths = (millis + 50) / 100;
    format!("{}.{}s", tenths / 10, tenths % 10)
}

/// How long ago `time` was: `2 hours ago`, in minutes, hours, days, weeks or months (R92).
pub(crate) fn age(time: Timestamp, now: Timestamp) -> String {
    let minutes = now.millis_since(time).div_euclid(60_000);
    if minutes < 0 {
        return "in the future".to_owned();
    }
    let (number, unit) = [
        (60, 1, "minute"),
        (24 * 60, 60, "hour"),
        (7 * 24 * 60, 24 * 60, "day"),
        (30 * 24 * 60, 7 * 24 * 60, "week"),
    ]
    .into_iter()
    .find(|(below, _, _)| minutes < *below)
    .map_or((minutes / (30 * 24 * 60), "month"), |(_, length, unit)| {
        (minutes / length, unit)
    });
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural} ago")
}

/// `2024-01-15 10:30:00`, in UTC.
pub(crate) fn time(time: Timestamp) -> String {
    time.to_jiff().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// `10:30:05`, in UTC.
pub(crate) fn time_of_day(time: Timestamp) -> String {
    time.to_jiff().strftime("%H:%M:%S").to_string()
}

/// A length of time in its largest whole unit, as it may be given: `5s`, `500ms`, `2m`, `1h`.
pub(crate) fn interval(length: Duration) -> String {
    let millis = length.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")];
    let whole = units
        .into_iter()
        .find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// [`time`] with milliseconds where there are some, for times that are to be given back to walrust.
pub(crate) fn exact_time(time: Timestamp) -> String {
    let format = match time.millis().rem_euclid(1000) {
        0 => "%Y-%m-%d %H:%M:%S",
        _ => "%Y-%m-%d %H:%M:%S%.3f",
    };
    time.to_jiff().strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_1024_based_with_one_decimal_from_megabytes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KB"),
            (1535, "1 KB"),
            (1536, "2 KB"),
            (256 << 10, "256 KB"),
            ((1 << 20) - 513, "1023 KB"),
            ((1 << 20) - 512, "1.0 MB"),
            (1 << 20, "1.0 MB"),
            (1_258_291, "1.2 MB"),
            ((1 << 30) - 1, "1.0 GB"),
            (5 << 30, "5.0 GB"),
            (3 << 40, "3.0 TB"),
            (u64::MAX, "16777216.0 TB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn megabytes_have_two_decimals() {
        for (bytes, text) in [
            (0, "0.00 MB"),
            (5242, "0.00 MB"),
            (5243, "0.01 MB"),
            (12_939_428, "12.34 MB"),
            (5 << 30, "5120.00 MB"),
        ] {
            assert_eq!(megabytes(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn kilobytes_of_small_pages_are_not_rounded_away() {
        assert_eq!(kilobytes(4 * 4096), "16KB");
        assert_eq!(kilobytes(2 * 4096), "8KB");
        assert_eq!(kilobytes(3 * 512), "1.5KB");
        assert_eq!(kilobytes(0), "0KB");
    }

    #[test]
    fn ages_have_one_unit() {
        let now = Timestamp::from_millis(1_705_314_600_000);
        let (hour, day) = (60, 24 * 60);
        for (minutes, text) in [
            (-1, "in the future"),
            (0, "0 minutes ago"),
            (1, "1 minute ago"),
            (59, "59 minutes ago"),
            (hour, "1 hour ago"),
            (5 * hour + 59, "5 hours ago"),
            (day, "1 day ago"),
            (6 * day, "6 days ago"),
            (7 * day, "1 week ago"),
            (29 * day, "4 weeks ago"),
            (30 * day, "1 month ago"),
            (125 * day, "4 months ago"),
        ] {
            assert_eq!(
                age(now.plus_millis(-minutes * 60_000), now),
                text,
                "{minutes}"
            );
        }
        assert!(age(Timestamp::from_millis(i64::MIN), now).ends_with("months ago"));
    }

    #[test]
    fn durations_and_times() {
        assert_eq!(duration(Duration::from_millis(445)), "445ms");
        assert_eq!(duration(Duration::from_millis(999)), "999ms");
        assert_eq!(duration(Duration::from_millis(1000)), "1.0s");
        assert_eq!(duration(Duration::from_millis(1249)), "1.2s");
        assert_eq!(duration(Duration::from_millis(61_960)), "62.0s");
        for (millis, text) in [
            (5000, "5s"),
            (500, "500ms"),
            (1500, "1500ms"),
            (60_000, "1m"),
            (90_000, "90s"),
            (3_600_000, "1h"),
            (0, "0ms"),
        ] {
            assert_eq!(interval(Duration::from_millis(millis)), text);
        }
        let moment = Timestamp::from_millis(1_705_314_600_250);
        assert_eq!(time_of_day(moment), "10:30:00");
        assert_eq!(time(moment), "2024-01-15 10:30:00");
        assert_eq!(exact_time(moment), "2024-01-15 10:30:00.250");
        assert_eq!(exact_time(Timestamp::from_millis(0)), "1970-01-01 00:00:00");
    }
}
