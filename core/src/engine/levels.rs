//! Merged files: which pages changed since each boundary, and when a period is over (DESIGN section 6).
//!
//! Level 0001 ends at the last point of each UTC minute, 0002 of each hour, 0003 of each day. The
//! files are written from our own read snapshot, so nothing is downloaded for them.

use roaring::RoaringBitmap;

use super::encode::Seen;
use crate::store::Level;
use crate::types::{DatabaseSum, Position, Timestamp, Txid, TxidRange};

/// Length of the periods in milliseconds, by level from 0001.
const PERIODS: [i64; 3] = [60_000, 3_600_000, 86_400_000];

/// A merged file that is due.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) level: Level,
    pub(crate) range: TxidRange,
    /// The state before it.
    pub(crate) before: DatabaseSum,
    pub(crate) pages: RoaringBitmap,
    pub(crate) seen: Seen,
}

/// What changed since the last boundary of each level.
#[derive(Debug)]
pub(crate) struct Levels([Period; 3]);

#[derive(Debug, Clone)]
struct Period {
    /// The boundary: where the next merged file of the level begins.
    start: Position,
    pages: RoaringBitmap,
    /// Files of the level below since the boundary: one alone needs no merging.
    files: u32,
    seen: Option<Seen>,
}

impl Period {
    fn new(start: Position) -> Self {
        Self {
            start,
            pages: RoaringBitmap::new(),
            files: 0,
            seen: None,
        }
    }

    fn is_over(&self, length: i64, now: Timestamp) -> bool {
        // A clock that steps back ends a period too: a boundary too many does no harm.
        let number = |time: Timestamp| time.millis().div_euclid(length);
        self.seen
            .is_some_and(|seen| number(seen.last) != number(now))
    }
}

impl Levels {
    /// Periods that begin at `start`.
    pub(crate) fn new(start: Position) -> Self {
        Self([Period::new(start), Period::new(start), Period::new(start)])
    }

    /// A file was captured that changed `pages`.
    pub(crate) fn record(&mut self, pages: &RoaringBitmap, seen: Seen) {
        for period in &mut self.0 {
            period.pages |= pages;
            let first = period.seen.map_or(seen.first, |earlier| earlier.first);
            period.seen = Some(Seen {
                first,
                last: seen.last,
            });
        }
        self.0[0].files += 1;
    }

    /// The merged files of all periods that are over at `now`, as of `position`, which is the newest
    /// captured state; their periods begin anew.
    pub(crate) fn due(&mut self, now: Timestamp, position: Position) -> Vec<Due> {
        let mut due = Vec::new();
        for (at, length) in PERIODS.into_iter().enumerate() {
            let Some(period) = self
                .0
                .get_mut(at)
                .filter(|period| period.is_over(length, now))
            else {
                continue;
            };
            let ended = std::mem::replace(period, Period::new(position));
            if let Some(above) = self.0.get_mut(at + 1) {
                above.files += 1;
            }
            let range = TxidRange::new(ended.start.txid.next(), position.txid);
            let level = u8::try_from(at + 1).ok().and_then(Level::new);
            if let (Some(range), Some(level), Some(seen), 2..) =
                (range, level, ended.seen, ended.files)
            {
                due.push(Due {
                    level,
                    range,
                    before: ended.start.sum,
                    pages: ended.pages,
                    seen,
                });
            }
        }
        due
    }

    /// Where the running minute begins: each period begins where a minute does.
    pub(crate) fn boundary(&self) -> Txid {
        let [minutes, ..] = &self.0;
        minutes.start.txid
    }

    /// When the shortest running period ends, if anything is in it.
    pub(crate) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let [minutes, ..] = &self.0;
        minutes.seen?;
        let length = PERIODS[0];
        Some(Timestamp::from_millis(
            (now.millis().div_euclid(length) + 1) * length,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(txid: u64) -> Position {
        Position {
            txid: Txid::new(txid).unwrap(),
            sum: DatabaseSum::EMPTY,
        }
    }

    fn pages(numbers: &[u32]) -> RoaringBitmap {
        numbers.iter().copied().collect()
    }

    fn time(minutes: i64, seconds: i64) -> Timestamp {
        Timestamp::from_millis(minutes * 60_000 + seconds * 1000)
    }

    #[test]
    fn a_minute_with_several_files_becomes_one_with_the_union_of_their_pages() {
        let mut levels = Levels::new(at(1));
        levels.record(&pages(&[1, 5]), Seen::at(time(0, 3)));
        levels.record(&pages(&[1, 9]), Seen::at(time(0, 59)));
        assert!(
            levels.due(time(0, 59), at(7)).is_empty(),
            "the minute is not over"
        );
        let due = levels.due(time(1, 0), at(7));
        let [minute] = due.as_slice() else {
            panic!("{due:?}")
        };
        assert_eq!(
            (
                minute.level.get(),
                minute.range.min().get(),
                minute.range.max().get()
            ),
            (1, 2, 7)
        );
        assert_eq!(minute.pages, pages(&[1, 5, 9]));
        assert!(levels.due(time(1, 1), at(7)).is_empty(), "nothing new");

        levels.record(&pages(&[2]), Seen::at(time(1, 5)));
        assert!(
            levels.due(time(2, 0), at(8)).is_empty(),
            "one file alone is not merged"
        );
    }

    #[test]
    fn an_hour_joins_its_minutes() {
        let mut levels = Levels::new(at(1));
        let mut txid = 1;
        for minute in 58..62 {
            for second in [10, 20] {
                txid += 1;
                let due = levels.due(time(minute, second), at(txid - 1));
                let hours: Vec<_> = due.iter().filter(|due| due.level.get() == 2).collect();
                assert_eq!(hours.len(), usize::from(minute == 60 && second == 10));
                if let Some(hour) = hours.first() {
                    assert_eq!((hour.range.min().get(), hour.range.max().get()), (2, 5));
                    assert_eq!(hour.pages, pages(&[2, 3, 4, 5]));
                }
                levels.record(&pages(&[txid as u32]), Seen::at(time(minute, second)));
            }
        }
    }
}
