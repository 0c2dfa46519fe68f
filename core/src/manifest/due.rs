//! When the index is written again.

use std::time::Duration;

/// Objects stored since the index was written, after which it is written again: a restore's LIST of the
/// tail then needs one request.
const OBJECTS: u64 = 500;

/// The longest that a change waits.
const LONGEST: Duration = Duration::from_secs(60);

/// What changed since the index was last written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unpublished {
    /// Incrementals stored.
    pub incrementals: u64,
    /// A snapshot, merged file or removal among them, or a base: readers want to know at once.
    pub notable: bool,
    /// The stream ends here.
    pub last: bool,
}

/// When to write the index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// There is nothing to write.
    Never,
    /// At once.
    Now,
    /// After this time, if nothing else happens.
    In(Duration),
}

/// When to write the index, `since` after it was last written (or after the first change, where it
/// never was).
pub fn due(unpublished: Unpublished, since: Duration) -> Due {
    let Unpublished {
        incrementals,
        notable,
        last,
    } = unpublished;
    let changed = incrementals > 0 || notable;
    if !changed {
        return Due::Never;
    }
    match LONGEST.checked_sub(since) {
        Some(wait) if !notable && !last && incrementals < OBJECTS && !wait.is_zero() => {
            Due::In(wait)
        }
        _ => Due::Now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_written_when_it_matters_and_at_most_once_a_minute_otherwise() {
        let seconds = Duration::from_secs;
        let plain = |incrementals| Unpublished {
            incrementals,
            ..Unpublished::default()
        };
        let notable = |incrementals| Unpublished {
            notable: true,
            ..plain(incrementals)
        };
        let last = |incrementals| Unpublished {
            last: true,
            ..plain(incrementals)
        };
        for (unpublished, since, expected) in [
            (plain(0), 1000, Due::Never),
            (last(0), 1000, Due::Never),
            (plain(1), 0, Due::In(seconds(60))),
            (plain(499), 59, Due::In(seconds(1))),
            (plain(1), 60, Due::Now),
            (plain(1), 9000, Due::Now),
            (plain(500), 0, Due::Now),
            (notable(0), 0, Due::Now),
            (last(1), 0, Due::Now),
        ] {
            assert_eq!(
                due(unpublished, seconds(since)),
                expected,
                "{unpublished:?} {since}"
            );
        }
    }
}
