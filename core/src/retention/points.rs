//! Which restore points stay (R94). Pure.

use std::time::Duration;

use crate::config::RetentionPolicy;
use crate::types::{Timestamp, Txid};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// How long the last point before a rebase or a new history stays: long enough to find out that the
/// database was replaced by mistake.
const REBASED: Duration = Duration::from_secs(30 * 86_400);

/// A restore point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stop {
    pub(super) txid: Txid,
    /// When its last transaction was seen.
    pub(super) time: Timestamp,
    /// Nothing but a snapshot leads there: it stays and goes with that one.
    pub(super) only_snapshot: bool,
}

/// A file that bridges what was not seen, or begins a new history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Break {
    pub(super) min: Txid,
    pub(super) max: Txid,
    pub(super) time: Timestamp,
}

/// A snapshot that stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Snapshot {
    pub(super) txid: Txid,
    pub(super) created: Timestamp,
}

/// `now` less `length`.
fn before(now: Timestamp, length: Duration) -> Timestamp {
    let millis = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
    now.plus_millis(-millis)
}

/// The breaks that are young enough for the point before them to stay. `snapshots` are those that stay, by
/// TXID: one that was made before the break tells of a clock that was set back.
pub(super) fn recent(breaks: &[Break], snapshots: &[Snapshot], now: Timestamp) -> Vec<Break> {
    let since = before(now, REBASED);
    let is_recent = |found: &&Break| {
        let earlier = snapshots
            .iter()
            .take_while(|snapshot| snapshot.txid < found.min);
        let newest = earlier.map(|snapshot| snapshot.created).max();
        newest.max(Some(found.time)) >= Some(since)
    };
    breaks.iter().filter(is_recent).copied().collect()
}

/// The place of the last stop before `txid`.
fn last_before(stops: &[Stop], txid: Txid) -> Option<usize> {
    stops
        .partition_point(|stop| stop.txid < txid)
        .checked_sub(1)
}

/// Which of `stops`, which ascend, must be restorable by more than their own snapshot. `snapshots` are those
/// that stay, by TXID; `breaks` the recent ones.
///
/// A point's age is that of the largest time recorded at or before it, so that a clock that was set back
/// makes no point older; times ahead of `now` count for nobody but the point itself, which stays. The last
/// point of a period is the one that a point of another period follows: that holds whatever else is thinned,
/// so the same history thinned twice is thinned once.
pub(super) fn retained(
    stops: &[Stop],
    snapshots: &[Snapshot],
    breaks: &[Break],
    policy: &RetentionPolicy,
    now: Timestamp,
) -> Vec<bool> {
    let every = before(now, policy.points);
    let minutes = before(now, policy.minutes).millis().div_euclid(MINUTE);
    let oldest = snapshots.first().map(|snapshot| snapshot.txid);
    let mut dated = snapshots
        .iter()
        .filter(|snapshot| snapshot.created <= now)
        .peekable();
    let mut newest = Timestamp::from_millis(i64::MIN);
    let mut retained = vec![false; stops.len()];
    let own: Vec<(usize, &Stop)> = (0..)
        .zip(stops)
        .filter(|(_, stop)| !stop.only_snapshot)
        .collect();
    for (at, (place, stop)) in own.iter().enumerate() {
        let ahead = stop.time > now;
        if !ahead {
            newest = newest.max(stop.time);
        }
        while let Some(snapshot) = dated.next_if(|snapshot| snapshot.txid <= stop.txid) {
            newest = newest.max(snapshot.created);
        }
        let next = own.get(at + 1).map(|(_, next)| next.time.millis());
        let is_last = |length: i64| {
            let number = |millis: i64| millis.div_euclid(length);
            next.map(number) != Some(number(stop.time.millis()))
        };
        let of_minute = is_last(MINUTE) && newest.millis().div_euclid(MINUTE) >= minutes;
        let of_hour = is_last(HOUR) && oldest.is_some_and(|oldest| oldest <= stop.txid);
        let stays = ahead || newest >= every || of_minute || of_hour;
        if let Some(retained) = retained.get_mut(*place) {
            *retained = stays;
        }
    }
    let kept = breaks.iter().flat_map(|found| {
        let at = stops.binary_search_by_key(&found.max, |stop| stop.txid);
        [last_before(stops, found.min), at.ok()]
    });
    // The newest state stays, whatever leads there.
    for at in kept.flatten().chain(stops.len().checked_sub(1)) {
        if let Some(retained) = retained.get_mut(at) {
            *retained = true;
        }
    }
    retained
}
