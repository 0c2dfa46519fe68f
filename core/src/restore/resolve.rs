//! From what people ask for to a restore point: by TXID or by time (R78 to R80, R146). Pure.

use crate::error::{Error, ErrorKind, Result};
use crate::types::{Timestamp, Txid};

use super::plan::Point;

/// A clock that is set back by more than this begins a new stretch. Smaller steps are what time
/// synchronisation does every day.
const STEP_MS: i64 = 60_000;

/// A moment that lies this far ahead is not yet refused: clocks differ, and a commit may be on its way.
const AHEAD_MS: i64 = 10_000;

/// A place where the clock went back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockStep {
    /// The first point after it.
    pub txid: Txid,
    /// The time of the point before.
    pub from: Timestamp,
    /// The time of the point after.
    pub to: Timestamp,
}

/// The places where the clock went back by more than a minute from one point to the next.
pub fn clock_steps(points: &[Point]) -> Vec<ClockStep> {
    stretches(points)
        .windows(2)
        .filter_map(|pair| {
            let (before, after) = (pair[0].last()?, pair[1].first()?);
            Some(ClockStep {
                txid: after.txid,
                from: before.time,
                to: after.time,
            })
        })
        .collect()
}

/// A point whose time is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Timed {
    txid: Txid,
    time: Timestamp,
}

/// Points between two steps of the clock; none empty.
fn stretches(points: &[Point]) -> Vec<Vec<Timed>> {
    let mut stretches: Vec<Vec<Timed>> = Vec::new();
    for point in points {
        let Some(time) = point.time else { continue };
        let timed = Timed {
            txid: point.txid,
            time,
        };
        let goes_on = |stretch: &&mut Vec<Timed>| {
            let before = stretch.last().map(|before| before.time.millis_since(time));
            before.is_none_or(|back| back <= STEP_MS)
        };
        match stretches.last_mut().filter(goes_on) {
            Some(stretch) => stretch.push(timed),
            None => stretches.push(vec![timed]),
        }
    }
    stretches
}

/// The restore point that `time` means: the newest whose last commit was seen at or before it. Where the
/// clock was set back, the newest stretch between two steps that contains `time` decides. Of points
/// with equal times the one with the highest TXID counts.
///
/// Gives a note where `time` lies between the newest point and `now`.
///
/// Errors: `NotFound`, naming the earliest or the latest point, for a time before the first or ahead of `now`.
pub(super) fn point_at(
    points: &[Point],
    time: Timestamp,
    now: Timestamp,
) -> Result<(Txid, Option<String>)> {
    let stretches = stretches(points);
    let within = |stretch: &&Vec<Timed>| {
        let (first, last) = bounds(stretch);
        first <= time && time <= last
    };
    if let Some(stretch) = stretches.iter().rev().find(within) {
        return newest_in(stretch, time)
            .map(|point| (point.txid, None))
            .ok_or_else(|| none(points));
    }
    let (Some(newest), Some(last)) = (stretches.last(), points.last()) else {
        return Err(none(points));
    };
    if time > bounds(newest).1 {
        if time.millis_since(now) > AHEAD_MS {
            let message = format!("{time} lies in the future");
            return Err(Error::new(ErrorKind::NotFound, message).hint(range_of(points)));
        }
        let at = newest.last().map_or(time, |point| point.time);
        let note =
            format!("nothing was committed between {at} and {time}: this is the newest state");
        return Ok((last.txid, Some(note)));
    }
    // Between two stretches: a clock that went back further than the older stretch began.
    stretches
        .iter()
        .rev()
        .find_map(|stretch| newest_in(stretch, time))
        .map(|point| (point.txid, None))
        .ok_or_else(|| {
            let message = format!("{time} lies before the first restore point");
            Error::new(ErrorKind::NotFound, message).hint(range_of(points))
        })
}

fn bounds(stretch: &[Timed]) -> (Timestamp, Timestamp) {
    let times = || stretch.iter().map(|point| point.time);
    (
        times().min().unwrap_or_default(),
        times().max().unwrap_or_default(),
    )
}

fn newest_in(stretch: &[Timed], time: Timestamp) -> Option<Timed> {
    stretch
        .iter()
        .rev()
        .find(|point| point.time <= time)
        .copied()
}

fn none(points: &[Point]) -> Error {
    Error::new(ErrorKind::NotFound, "no restore point has a time").hint(range_of(points))
}

/// Why `txid` is no restore point, and which ones are near.
pub(super) fn no_such_point(points: &[Point], txid: Txid) -> Error {
    let before = points.iter().rev().find(|point| point.txid < txid);
    let after = points.iter().find(|point| point.txid > txid);
    let message = match (before, after) {
        (None, Some(_)) => format!("TXID {} lies before the first restore point", txid.get()),
        (Some(_), None) => format!("TXID {} is not stored yet", txid.get()),
        (Some(before), Some(after)) => format!(
            "TXID {} is no restore point; the nearest are {} and {}",
            txid.get(),
            shown(before),
            shown(after)
        ),
        (None, None) => "there is no restore point".to_owned(),
    };
    Error::new(ErrorKind::NotFound, message).hint(range_of(points))
}

/// The earliest and the latest point, for people.
pub(super) fn range_of(points: &[Point]) -> String {
    match (points.first(), points.last()) {
        (Some(first), Some(last)) => format!("earliest: {}, latest: {}", shown(first), shown(last)),
        _ => "there is no restore point".to_owned(),
    }
}

fn shown(point: &Point) -> String {
    match point.time {
        Some(time) => format!("TXID {} ({time})", point.txid.get()),
        None => format!("TXID {}", point.txid.get()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(times: &[i64]) -> Vec<Point> {
        (1..)
            .zip(times)
            .map(|(txid, seconds)| Point {
                txid: Txid::new(txid).unwrap(),
                time: Some(Timestamp::from_millis(seconds * 1000)),
            })
            .collect()
    }

    fn at(times: &[i64], seconds: i64, now: i64) -> Result<u64, String> {
        let moment = |seconds: i64| Timestamp::from_millis(seconds * 1000);
        point_at(&points(times), moment(seconds), moment(now))
            .map(|(txid, _)| txid.get())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn p2_the_newest_point_at_or_before_a_time_is_meant() {
        let times = [100, 110, 110, 130];
        for (seconds, expected) in [(100, 1), (109, 1), (110, 3), (129, 3), (130, 4), (140, 4)] {
            assert_eq!(at(&times, seconds, 150), Ok(expected), "{seconds}");
        }
    }

    #[test]
    fn p3_the_future_is_refused_and_the_latest_point_named() {
        let error = at(&[100, 200], 1000, 300).unwrap_err();
        assert!(
            error.contains("future") && error.contains("latest: TXID 2"),
            "{error}"
        );
        assert_eq!(at(&[100, 200], 305, 300), Ok(2), "clocks differ a little");
        let note = point_at(
            &points(&[100]),
            Timestamp::from_millis(150_000),
            Timestamp::from_millis(200_000),
        );
        assert!(note.unwrap().1.unwrap().contains("nothing was committed"));
    }

    #[test]
    fn p4_a_time_before_the_first_point_is_refused_and_it_is_named() {
        let error = at(&[100, 200], 99, 300).unwrap_err();
        assert!(
            error.contains("earliest: TXID 1 (1970-01-01T00:01:40Z)"),
            "{error}"
        );
        assert!(at(&[], 99, 300).is_err());
    }

    #[test]
    fn p7_after_a_step_of_the_clock_the_newest_stretch_that_contains_the_time_decides() {
        // Up to 1000, back to 500, on to 600; a small step of 30 s on the way is none.
        let times = [100, 1000, 500, 560, 530, 600];
        for (seconds, expected) in [
            (100, 1),
            (499, 1),
            (500, 3),
            (530, 5),
            (559, 5),
            (600, 6),
            (700, 1),
            (1000, 2),
        ] {
            assert_eq!(at(&times, seconds, 650), Ok(expected), "{seconds}");
        }
        let steps = clock_steps(&points(&times));
        assert_eq!(steps.len(), 1);
        assert_eq!((steps[0].txid.get(), steps[0].to.millis()), (3, 500_000));
    }

    #[test]
    fn p7_a_time_between_two_stretches_means_the_end_of_the_newest_before_it() {
        let times = [1000, 1100, 200, 300];
        assert_eq!(
            at(&times, 400, 500),
            Ok(4),
            "it is past the newest point and not ahead of now"
        );
        assert!(at(&times, 400, 310).unwrap_err().contains("future"));
        assert!(at(&times, 100, 310).is_err());
        assert_eq!(at(&times, 1050, 310), Ok(1));
    }

    #[test]
    fn p5_a_txid_between_points_names_its_neighbours() {
        let two = [
            Point {
                txid: Txid::new(3).unwrap(),
                time: None,
            },
            Point {
                txid: Txid::new(9).unwrap(),
                time: None,
            },
        ];
        let error = |txid| no_such_point(&two, Txid::new(txid).unwrap()).to_string();
        assert!(
            error(5).contains("the nearest are TXID 3 and TXID 9"),
            "{}",
            error(5)
        );
        assert!(error(2).contains("earliest: TXID 3"));
        assert!(error(10).contains("not stored yet") && error(10).contains("latest: TXID 9"));
    }
}
