//! Grandfather, father, son: which snapshots stay (R88 to R90). Pure.

use serde::Serialize;

use crate::config::RetentionPolicy;
use crate::types::Timestamp;

/// Why a snapshot stays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The newest of one of the last hours.
    Hourly,
    /// The newest of one of the last days.
    Daily,
    /// The newest of one of the last ISO weeks.
    Weekly,
    /// The newest of one of the last months.
    Monthly,
    /// The newest of all.
    Latest,
    /// At least two stay.
    Minimum,
    /// Made later than now: one of two clocks is wrong, and nobody knows which.
    Future,
    /// A restore point that stays begins with it.
    Point,
}

/// The fewest snapshots that stay.
const FEWEST: usize = 2;

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

/// The number of the period of `tier` that holds `time`; each one is one more than the one before.
fn period(tier: Tier, time: Timestamp) -> i64 {
    let millis = time.millis();
    match tier {
        Tier::Daily => millis.div_euclid(DAY),
        // The first of January 1970 was a Thursday; ISO weeks begin on Mondays.
        Tier::Weekly => (millis.div_euclid(DAY) + 3).div_euclid(7),
        Tier::Monthly => {
            let date = jiff::tz::TimeZone::UTC.to_datetime(time.to_jiff());
            i64::from(date.year()) * 12 + i64::from(date.month())
        }
        Tier::Hourly | Tier::Latest | Tier::Minimum | Tier::Future | Tier::Point => {
            millis.div_euclid(HOUR)
        }
    }
}

/// Why each snapshot stays; for no reason, it need not. `created` are their times of creation, in the order
/// of their TXIDs.
///
/// Where the clock was set back, a snapshot counts as no older than the newest one before it, and a period
/// that was begun twice keeps a snapshot of each time: nothing goes earlier than it would have.
pub(super) fn select(
    created: &[Timestamp],
    policy: &RetentionPolicy,
    now: Timestamp,
) -> Vec<Vec<Tier>> {
    let mut reasons = vec![Vec::new(); created.len()];
    let counts = [
        (Tier::Hourly, policy.hourly),
        (Tier::Daily, policy.daily),
        (Tier::Weekly, policy.weekly),
        (Tier::Monthly, policy.monthly),
    ];
    for (tier, count) in counts {
        let chosen = of_tier(tier, count, created, now);
        for reasons in reasons
            .iter_mut()
            .zip(chosen)
            .filter_map(|(r, c)| c.then_some(r))
        {
            reasons.push(tier);
        }
    }
    for (reasons, created) in reasons.iter_mut().zip(created) {
        if reasons.is_empty() && *created > now {
            reasons.push(Tier::Future);
        }
    }
    if let Some(latest) = reasons.last_mut().filter(|reasons| reasons.is_empty()) {
        latest.push(Tier::Latest);
    }
    let kept = reasons.iter().filter(|reasons| !reasons.is_empty()).count();
    let next = reasons
        .iter_mut()
        .rev()
        .filter(|reasons| reasons.is_empty());
    for reasons in next.take(FEWEST.saturating_sub(kept)) {
        reasons.push(Tier::Minimum);
    }
    reasons
}

/// The newest snapshot of each of the `count` periods that end with the current one.
fn of_tier(tier: Tier, count: u32, created: &[Timestamp], now: Timestamp) -> Vec<bool> {
    let current = period(tier, now);
    let mut newest = i64::MIN;
    let periods: Vec<i64> = created.iter().map(|time| period(tier, *time)).collect();
    let mut chosen = Vec::with_capacity(created.len());
    for (at, (own, time)) in periods.iter().zip(created).enumerate() {
        let is_last = periods.get(at + 1) != Some(own);
        if *time <= now {
            newest = newest.max(*own);
        }
        // One from the future says nothing of its own age, nor of that of later ones.
        let counted = if *time <= now { newest } else { *own };
        let age = current.saturating_sub(counted);
        chosen.push(is_last && (0..i64::from(count)).contains(&age));
    }
    chosen
}

#[cfg(test)]
#[path = "tests/tiers.rs"]
mod tests;
