//! Schedules, with the numbers drawn that a resource leaves open.

use sha2::{Digest as _, Sha256};

/// What each field of a schedule counts: its first and its last value. Days of a month that every month has.
const FIELDS: [(&str, u64, u64); 5] = [
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of month", 1, 28),
    ("month", 1, 12),
    ("day of week", 0, 6),
];

/// `schedule` with each `H` replaced by a number that `seed` draws, always the same one; `H/15` becomes `7-59/15`, say.
///
/// # Errors
/// A message where it has not five fields, or an `H` is used otherwise.
pub(super) fn resolve(schedule: &str, seed: &str) -> Result<String, String> {
    if schedule.starts_with('@') {
        return Ok(schedule.to_owned());
    }
    let given: Vec<&str> = schedule.split_ascii_whitespace().collect();
    if given.len() != FIELDS.len() {
        return Err(format!("{schedule:?} has {} fields, not five", given.len()));
    }
    let draws = Sha256::digest(seed.as_bytes());
    let fields = given.iter().zip(FIELDS).enumerate();
    let fields = fields.map(|(at, (text, (name, first, last)))| {
        // Four bytes a field: five of them fit the 32 of the digest.
        let drawn = draws.iter().skip(at * 4).take(4);
        let drawn = drawn.fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        field(text, drawn, first, last).ok_or_else(|| {
            format!("{schedule:?}: {text:?} is no {name}: H or H/n, n from 1 to {last}")
        })
    });
    Ok(fields.collect::<Result<Vec<_>, _>>()?.join(" "))
}

fn field(text: &str, drawn: u64, first: u64, last: u64) -> Option<String> {
    let Some(rest) = text.strip_prefix('H') else {
        return Some(text.to_owned());
    };
    if rest.is_empty() {
        return Some((first + drawn % (last - first + 1)).to_string());
    }
    let step: u64 = rest.strip_prefix('/')?.parse().ok()?;
    if !(1..=last).contains(&step) {
        return None;
    }
    // Days of a month go on behind the 28th where they are counted in steps.
    let last = if last == 28 { 31 } else { last };
    Some(format!("{}-{last}/{step}", first + drawn % step))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_lone_h_is_drawn() {
        for same in ["@daily", "17 3 * * *", "0 0 1 JAN THU", "*/5 1-3,7 * * 1-5"] {
            assert_eq!(resolve(same, "a/b/verify").as_deref(), Ok(same));
        }
        let drawn = resolve("H 3 * * H", "a/b/verify").unwrap();
        assert_eq!(resolve("H 3 * * H", "a/b/verify").unwrap(), drawn);
        assert_ne!(resolve("H 3 * * H", "a/c/verify").unwrap(), drawn);
        for bad in [
            "",
            "1 2 3 4",
            "1 2 3 4 5 6",
            "H/0 * * * *",
            "H/60 * * * *",
            "Hx * * * *",
            "H-5 * * * *",
        ] {
            assert!(resolve(bad, "a").is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn drawn_numbers_lie_within_their_field(seed in "[a-z/-]{1,20}", step in 1_u64..60) {
            let drawn = resolve("H H H H H", &seed).unwrap();
            for (text, (_, first, last)) in drawn.split(' ').zip(FIELDS) {
                let number: u64 = text.parse().unwrap();
                prop_assert!((first..=last).contains(&number));
            }
            if step <= 59 {
                let stepped = resolve(&format!("H/{step} * * * *"), &seed).unwrap();
                let first: u64 = stepped.split('-').next().unwrap().parse().unwrap();
                prop_assert!(first < step);
            }
        }
    }

    #[test]
    fn many_resources_spread_over_the_hour() {
        let mut minutes: Vec<String> = (0..600)
            .map(|number| resolve("H 3 * * *", &format!("apps/app-{number}/verify")).unwrap())
            .collect();
        minutes.sort();
        minutes.dedup();
        assert!(minutes.len() > 50, "{} different minutes", minutes.len());
    }
}
