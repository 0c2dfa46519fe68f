//! Which snapshots stay, as a table.

use super::*;

const MINUTE: i64 = 60_000;

/// A Wednesday, 10:30 UTC.
fn now() -> Timestamp {
    "2024-05-15T10:30:00Z"
        .parse::<jiff::Timestamp>()
        .unwrap()
        .into()
}

fn at(text: &str) -> Timestamp {
    text.parse::<jiff::Timestamp>().unwrap().into()
}

fn policy(hourly: u32, daily: u32, weekly: u32, monthly: u32) -> RetentionPolicy {
    RetentionPolicy {
        hourly,
        daily,
        weekly,
        monthly,
        ..RetentionPolicy::default()
    }
}

/// A snapshot every hour on the half hour, for `hours` hours up to now.
fn every_hour(hours: i64) -> Vec<Timestamp> {
    (0..hours)
        .rev()
        .map(|ago| now().plus_millis(-ago * HOUR))
        .collect()
}

fn kept(created: &[Timestamp], policy: RetentionPolicy) -> Vec<(usize, Vec<Tier>)> {
    let reasons = select(created, &policy, now());
    let kept = reasons
        .into_iter()
        .enumerate()
        .filter(|(_, reasons)| !reasons.is_empty());
    // By age: 0 is the newest.
    kept.map(|(place, reasons)| (created.len() - 1 - place, reasons))
        .rev()
        .collect()
}

fn ages(created: &[Timestamp], policy: RetentionPolicy) -> Vec<usize> {
    kept(created, policy)
        .into_iter()
        .map(|(age, _)| age)
        .collect()
}

#[test]
fn g5_every_tier_does_what_its_number_says() {
    let year = every_hour(24 * 400);
    // The hour of the day is 10, so the newest of yesterday is 11 hours ago.
    let days = |count: usize| (0..count - 1).map(|day| 11 + 24 * day);
    for (hourly, expected) in [(1, 1), (3, 3), (24, 24), (48, 48), (8760, 8760)] {
        let found = ages(&year, policy(hourly, 0, 0, 0));
        // At least two stay.
        let expected: Vec<usize> = (0..std::cmp::max(expected, 2)).collect();
        assert_eq!(found, expected, "{hourly} hours");
    }
    let found = ages(&year, policy(0, 7, 0, 0));
    assert_eq!(found, [0].into_iter().chain(days(7)).collect::<Vec<_>>());
    // Wednesday 10:30: Sunday 23:30 is 59 hours ago.
    let found = ages(&year, policy(0, 0, 4, 0));
    assert_eq!(found, [0, 59, 59 + 168, 59 + 336]);
    // April ended 14 days and 11 hours ago, March 30 days before that, February 31 days.
    let month = 14 * 24 + 11;
    let found = ages(&year, policy(0, 0, 0, 4));
    assert_eq!(found, [0, month, month + 30 * 24, month + 61 * 24]);
    // The union, and the default.
    let all = ages(&year, RetentionPolicy::default());
    // Yesterday's newest is one of the last 24 hours, Sunday's one of the last 7 days, and 2023 ended on a
    // Sunday.
    assert_eq!(all.len(), 24 + 5 + 10 + 10, "{all:?}");
    assert_eq!(
        all.last(),
        Some(&(month + (30 + 31 + 29 + 31 + 31 + 30 + 31 + 30 + 31 + 31) * 24))
    );
}

#[test]
fn g5_more_hours_keep_more_and_each_snapshot_says_why() {
    let created = every_hour(100);
    assert_eq!(ages(&created, policy(48, 0, 0, 0)).len(), 48);
    let found = kept(&created, policy(2, 2, 1, 1));
    assert_eq!(
        found,
        [
            (
                0,
                vec![Tier::Hourly, Tier::Daily, Tier::Weekly, Tier::Monthly]
            ),
            (1, vec![Tier::Hourly]),
            (11, vec![Tier::Daily]),
        ]
    );
}

#[test]
fn r88_the_newest_of_a_period_stays_and_periods_end_with_the_current_one() {
    let created = [
        at("2024-05-15T08:00:00Z"),
        at("2024-05-15T08:59:59.999Z"),
        at("2024-05-15T09:00:00Z"),
        at("2024-05-15T10:00:00Z"),
        at("2024-05-15T10:29:00Z"),
    ];
    assert_eq!(
        ages(&created, policy(1, 0, 0, 0)),
        [0, 1],
        "the second for the minimum"
    );
    assert_eq!(ages(&created, policy(2, 0, 0, 0)), [0, 2]);
    assert_eq!(ages(&created, policy(3, 0, 0, 0)), [0, 2, 3]);
    // A quiet hour counts: nothing moves into its place.
    let quiet = [at("2024-05-15T07:00:00Z"), at("2024-05-15T10:00:00Z")];
    assert_eq!(
        kept(&quiet, policy(3, 0, 0, 0)),
        [(0, vec![Tier::Hourly]), (1, vec![Tier::Minimum])]
    );
}

#[test]
fn iso_weeks_begin_on_monday_also_around_new_year() {
    for (sunday, monday) in [
        ("2023-12-31T23:59:59Z", "2024-01-01T00:00:00Z"),
        ("2020-12-27T12:00:00Z", "2020-12-28T12:00:00Z"),
        ("1970-01-04T12:00:00Z", "1970-01-05T00:00:00Z"),
        ("1969-12-28T23:00:00Z", "1969-12-29T01:00:00Z"),
    ] {
        let week = |text| period(Tier::Weekly, at(text));
        assert_eq!(week(sunday) + 1, week(monday), "{sunday}");
    }
    // 2020-12-28 to 2021-01-03 is one ISO week.
    let week = |text| period(Tier::Weekly, at(text));
    assert_eq!(week("2020-12-31T00:00:00Z"), week("2021-01-03T23:00:00Z"));
    let month = |text| period(Tier::Monthly, at(text));
    assert_eq!(
        month("2023-12-31T23:59:59Z") + 1,
        month("2024-01-01T00:00:00Z")
    );
}

#[test]
fn r89_r90_the_latest_and_at_least_two_stay_and_the_next_newest_is_added() {
    let old: Vec<Timestamp> = (0..5)
        .map(|n| at("2020-01-01T00:00:00Z").plus_millis(n * HOUR))
        .collect();
    assert_eq!(
        kept(&old, policy(24, 7, 12, 12)),
        [(0, vec![Tier::Latest]), (1, vec![Tier::Minimum])]
    );
    assert_eq!(ages(&old[..1], policy(1, 1, 1, 1)), [0]);
    assert!(ages(&[], policy(1, 1, 1, 1)).is_empty());
    let mixed = [old.clone(), vec![now().plus_millis(-MINUTE)]].concat();
    assert_eq!(ages(&mixed, policy(1, 1, 1, 1)), [0, 1]);
}

#[test]
fn r97_what_was_made_in_the_future_stays() {
    let future = now().plus_millis(5 * 365 * 24 * HOUR);
    let mut created = every_hour(3);
    created.insert(1, future);
    created.insert(1, future);
    let found = kept(&created, policy(1, 0, 0, 0));
    assert_eq!(
        found,
        [
            (0, vec![Tier::Hourly]),
            (2, vec![Tier::Future]),
            (3, vec![Tier::Future])
        ]
    );
    // A broken clock that was mended does not keep everything for ever.
    let mut created = vec![future];
    created.extend(every_hour(100));
    assert_eq!(ages(&created, policy(24, 0, 0, 0)).len(), 25);
    // Times at the ends of what a file can hold.
    for time in [i64::MIN, i64::MAX] {
        let created = [Timestamp::from_millis(time), now()];
        assert_eq!(ages(&created, policy(1, 1, 1, 1)), [0, 1]);
    }
}

#[test]
fn r146_a_clock_that_was_set_back_makes_no_snapshot_older() {
    // The clock goes back by 40 hours after the third of today's snapshots.
    let mut created = every_hour(3);
    created.extend((0..3).map(|n| now().plus_millis(-40 * HOUR + n * HOUR)));
    // All six count as of this hour, and each run of one hour keeps its last.
    let found = ages(&created, policy(3, 0, 0, 0));
    assert_eq!(found, [0, 1, 2, 3, 4, 5]);
    // By its own time nothing of the last 24 hours would be left but the first three.
    assert!(ages(&created, policy(0, 1, 0, 0)).contains(&0));
}

#[test]
fn what_was_thinned_once_is_not_thinned_again() {
    for seed in 0..500 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut time = now().plus_millis(-rng.i64(1..900) * 24 * HOUR);
        let mut created = Vec::new();
        for _ in 0..rng.usize(1..200) {
            time = time.plus_millis(match rng.u8(0..30) {
                0 => -rng.i64(0..60 * 24 * HOUR),
                1 => rng.i64(0..40 * 24 * HOUR),
                _ => rng.i64(0..30 * HOUR),
            });
            created.push(time);
        }
        let policy = policy(
            rng.u32(0..30),
            rng.u32(0..10),
            rng.u32(0..10),
            rng.u32(1..10),
        );
        let reasons = select(&created, &policy, now());
        let left: Vec<(Timestamp, Vec<Tier>)> = created
            .iter()
            .copied()
            .zip(reasons)
            .filter(|(_, reasons)| !reasons.is_empty())
            .collect();
        let times: Vec<Timestamp> = left.iter().map(|(time, _)| *time).collect();
        let again = select(&times, &policy, now());
        let expected: Vec<Vec<Tier>> = left.into_iter().map(|(_, reasons)| reasons).collect();
        assert_eq!(again, expected, "seed {seed}");
        assert!(times.len() >= created.len().min(2));
    }
}
