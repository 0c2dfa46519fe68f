//! Merged files: which pages changed since each boundary, and when a period is over.
//!
//! Level 0001 ends at the last point of each UTC minute, 0002 of each hour, 0003 of each day. The
//! files are written from our own read snapshot, so nothing is downloaded for them.
//!
//! # Invariants
//!
//! - A period that was cut for a merged file is *under way* until that file is stored; if it never is, the
//!   period joins the running one again. So no stretch is left out.
//! - What is saved counts periods under way as running: after a crash they are.

use roaring::RoaringBitmap;

use super::encode::Seen;
use crate::state::PageSet;
use crate::store::Level;
use crate::types::{DatabaseSum, Position, Timestamp, Txid, TxidRange};

/// Length of the periods in milliseconds, by level from 0001.
const PERIODS: [i64; 3] = [60_000, 3_600_000, 86_400_000];

/// Files after which the periods are saved at the latest. Each that is not in what was saved costs a start after
/// a crash a request; each saving costs two syncs of the local disk.
const MOST_UNSAVED: u32 = 64;

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
pub(crate) struct Levels {
    running: [Period; 3],
    under_way: Vec<Cut>,
    unsaved: Unsaved,
    /// What changed before they began is not known yet: nothing may be saved.
    awaits_past: bool,
}

/// A period whose merged file is not stored yet.
#[derive(Debug)]
struct Cut {
    /// Place of the level among the periods.
    at: usize,
    range: TxidRange,
    period: Period,
}

/// What a crash would make the next start gather anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Unsaved {
    /// So many files.
    files: u32,
    /// Whether a boundary moved.
    boundary: bool,
}

/// What changed since one boundary.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Period {
    /// The boundary: where the next merged file of the level begins.
    pub(crate) start: Position,
    pub(crate) pages: RoaringBitmap,
    /// Files of the level below since the boundary: one alone needs no merging.
    pub(crate) files: u32,
    pub(crate) seen: Option<Seen>,
}

/// The periods of an earlier run, shortest first.
#[derive(Debug)]
pub(crate) struct Earlier {
    pub(crate) periods: [Period; 3],
    /// Whether they are on disk as they are here.
    pub(crate) saved: bool,
}

impl Period {
    pub(crate) fn new(start: Position) -> Self {
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

    /// Adds what changed in one file more.
    pub(crate) fn add(&mut self, pages: &RoaringBitmap, seen: Seen) {
        self.pages |= pages;
        self.seen = joined(self.seen, Some(seen));
    }

    /// Puts `earlier`, which ends where this one begins, in front.
    fn prepend(&mut self, earlier: &Self) {
        self.start = earlier.start;
        self.pages |= &earlier.pages;
        self.files = self.files.saturating_add(earlier.files);
        self.seen = joined(earlier.seen, self.seen);
    }
}

fn joined(earlier: Option<Seen>, later: Option<Seen>) -> Option<Seen> {
    let (first, last) = (earlier.or(later)?, later.or(earlier)?);
    Some(Seen {
        first: first.first,
        last: last.last,
    })
}

impl From<PageSet> for Period {
    fn from(set: PageSet) -> Self {
        Self {
            start: set.since,
            pages: set.pages,
            files: set.files,
            seen: set.seen.map(|(first, last)| Seen { first, last }),
        }
    }
}

impl From<Period> for PageSet {
    fn from(period: Period) -> Self {
        Self {
            since: period.start,
            pages: period.pages,
            files: period.files,
            seen: period.seen.map(|seen| (seen.first, seen.last)),
        }
    }
}

impl Levels {
    /// Periods that begin at `start`.
    pub(crate) fn new(start: Position) -> Self {
        Self {
            running: [Period::new(start), Period::new(start), Period::new(start)],
            under_way: Vec::new(),
            unsaved: Unsaved {
                files: 0,
                boundary: true,
            },
            awaits_past: false,
        }
    }

    /// Periods that earlier ones will be put in front of, by [`Levels::resume`].
    pub(crate) fn going_on(start: Position) -> Self {
        Self {
            awaits_past: true,
            ..Self::new(start)
        }
    }

    /// Goes on with `earlier` periods, which lead to where these began.
    pub(crate) fn resume(&mut self, earlier: &Earlier) {
        for (period, earlier) in self.running.iter_mut().zip(&earlier.periods) {
            period.prepend(earlier);
        }
        self.unsaved.boundary &= !earlier.saved;
        self.awaits_past = false;
    }

    /// A file was captured that changed `pages`.
    pub(crate) fn record(&mut self, pages: &RoaringBitmap, seen: Seen) {
        for period in &mut self.running {
            period.add(pages, seen);
        }
        self.running[0].files = self.running[0].files.saturating_add(1);
        self.unsaved.files = self.unsaved.files.saturating_add(1);
    }

    /// The merged files of all periods that are over at `now`, as of `position`, which is the newest
    /// captured state; their periods begin anew. None before those of the last boundary are settled.
    pub(crate) fn due(&mut self, now: Timestamp, position: Position) -> Vec<Due> {
        let mut due = Vec::new();
        if !self.under_way.is_empty() {
            return due;
        }
        for (at, length) in PERIODS.into_iter().enumerate() {
            let Some(period) = self
                .running
                .get_mut(at)
                .filter(|period| period.is_over(length, now))
            else {
                continue;
            };
            let ended = std::mem::replace(period, Period::new(position));
            self.unsaved.boundary = true;
            if let Some(above) = self.running.get_mut(at + 1) {
                above.files = above.files.saturating_add(1);
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
                    pages: ended.pages.clone(),
                    seen,
                });
                self.under_way.push(Cut {
                    at,
                    range,
                    period: ended,
                });
            }
        }
        due
    }

    /// Where the running minute begins: each period begins where a minute does.
    pub(crate) fn boundary(&self) -> Txid {
        let [minutes, ..] = &self.running;
        minutes.start.txid
    }

    /// The merged file of `level` over `range` is stored.
    pub(crate) fn stored(&mut self, level: Level, range: TxidRange) {
        if self.settle(level, range).is_some() {
            self.unsaved.boundary = true;
        }
    }

    /// The merged file of `level` over `range` will not be stored: its period goes on, together with what
    /// came since.
    pub(crate) fn put_back(&mut self, level: Level, range: TxidRange) {
        let Some(cut) = self.settle(level, range) else {
            return;
        };
        self.unsaved.boundary = true;
        if let Some(running) = self.running.get_mut(cut.at) {
            running.prepend(&cut.period);
        }
    }

    fn settle(&mut self, level: Level, range: TxidRange) -> Option<Cut> {
        let at = usize::from(level.get()).checked_sub(1)?;
        let mut cuts = self.under_way.iter();
        let found = cuts.position(|cut| cut.at == at && cut.range == range)?;
        Some(self.under_way.remove(found))
    }

    /// When the shortest running period ends, if anything is in it.
    pub(crate) fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let [minutes, ..] = &self.running;
        minutes.seen?;
        let length = PERIODS[0];
        Some(Timestamp::from_millis(
            (now.millis().div_euclid(length) + 1) * length,
        ))
    }

    /// Whether the periods should be saved now. Not while merged files are under way, which settles soon, unless
    /// much came since.
    pub(crate) fn wants_saving(&self) -> bool {
        let Unsaved { files, boundary } = self.unsaved;
        if self.awaits_past {
            return false;
        }
        files >= MOST_UNSAVED || (boundary && self.under_way.is_empty())
    }

    /// Whether anything is not saved.
    pub(crate) fn is_unsaved(&self) -> bool {
        !self.awaits_past && self.unsaved != Unsaved::default()
    }

    /// Everything is saved.
    pub(crate) fn saved(&mut self) {
        self.unsaved = Unsaved::default();
    }

    /// The periods as they are to be saved.
    pub(crate) fn sets(&self) -> [PageSet; 3] {
        let mut periods = self.running.clone();
        for cut in &self.under_way {
            if let Some(period) = periods.get_mut(cut.at) {
                period.prepend(&cut.period);
            }
        }
        periods.map(PageSet::from)
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
        levels.stored(minute.level, minute.range);
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
                for due in &due {
                    levels.stored(due.level, due.range);
                }
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

    /// Two files in minute 0, cut at minute 1.
    fn cut() -> (Levels, Due) {
        let mut levels = Levels::new(at(1));
        levels.record(&pages(&[1, 5]), Seen::at(time(0, 3)));
        levels.record(&pages(&[1, 9]), Seen::at(time(0, 59)));
        let due = levels.due(time(1, 0), at(7)).pop().unwrap();
        (levels, due)
    }

    #[test]
    fn a_merge_that_failed_goes_back_into_the_running_period() {
        let (mut levels, failed) = cut();
        levels.record(&pages(&[2]), Seen::at(time(1, 5)));
        assert!(
            levels.due(time(2, 0), at(8)).is_empty(),
            "not before the last merge is settled"
        );
        levels.put_back(failed.level, failed.range);
        let due = levels.due(time(2, 0), at(8));
        let [minute] = due.as_slice() else {
            panic!("{due:?}")
        };
        assert_eq!((minute.range.min().get(), minute.range.max().get()), (2, 8));
        assert_eq!(minute.pages, pages(&[1, 2, 5, 9]));
        assert_eq!(
            (minute.seen.first, minute.seen.last),
            (time(0, 3), time(1, 5))
        );
        // The first attempt is another one: its late end changes nothing.
        levels.put_back(failed.level, failed.range);
        levels.stored(failed.level, failed.range);
        assert!(levels.due(time(3, 0), at(8)).is_empty());
        levels.stored(minute.level, minute.range);
        assert!(levels.due(time(3, 0), at(8)).is_empty(), "nothing new");
    }

    #[test]
    fn a_merge_that_failed_is_due_again_without_new_commits() {
        let (mut levels, failed) = cut();
        levels.put_back(failed.level, failed.range);
        let again = levels.due(time(1, 1), at(7)).pop().unwrap();
        assert_eq!(again.range, failed.range);
        assert_eq!(again.pages, failed.pages);
    }

    #[test]
    fn what_is_saved_counts_a_merge_under_way_as_running() {
        let (mut levels, due) = cut();
        levels.record(&pages(&[2]), Seen::at(time(1, 5)));
        let [minute, hour, _] = levels.sets();
        assert_eq!(minute.since, at(1));
        assert_eq!(minute.pages, pages(&[1, 2, 5, 9]));
        assert_eq!(minute.seen, Some((time(0, 3), time(1, 5))));
        assert_eq!(hour.pages, minute.pages);
        levels.stored(due.level, due.range);
        let [minute, hour, _] = levels.sets();
        assert_eq!((minute.since, &minute.pages), (at(7), &pages(&[2])));
        assert_eq!((hour.since, &hour.pages), (at(1), &pages(&[1, 2, 5, 9])));
    }

    #[test]
    fn periods_go_on_after_a_restart() {
        let (levels, _) = cut();
        let earlier = Earlier {
            periods: levels.sets().map(Period::from),
            saved: true,
        };
        // What was committed meanwhile is captured before anybody knows what was.
        let mut levels = Levels::new(at(7));
        levels.record(&pages(&[3]), Seen::at(time(4, 0)));
        levels.resume(&earlier);
        assert!(levels.is_unsaved() && !levels.wants_saving());
        let due = levels.due(time(5, 0), at(9));
        let [minute] = due.as_slice() else {
            panic!("{due:?}")
        };
        assert_eq!((minute.range.min().get(), minute.range.max().get()), (2, 9));
        assert_eq!(minute.pages, pages(&[1, 3, 5, 9]));
        assert_eq!(minute.seen.first, time(0, 3));
    }

    #[test]
    fn saving_is_due_at_boundaries_and_after_many_files_not_at_each() {
        let mut levels = Levels::new(at(1));
        assert!(levels.wants_saving(), "nothing was ever saved");
        levels.saved();
        assert!(!levels.is_unsaved());
        for count in 1..MOST_UNSAVED {
            levels.record(&pages(&[1]), Seen::at(time(0, 1)));
            assert!(levels.is_unsaved() && !levels.wants_saving(), "{count}");
        }
        levels.record(&pages(&[1]), Seen::at(time(0, 1)));
        assert!(levels.wants_saving());
        levels.saved();

        levels.record(&pages(&[1]), Seen::at(time(0, 2)));
        let due = levels.due(time(1, 0), at(70)).pop().unwrap();
        assert!(!levels.wants_saving(), "the merge settles soon");
        levels.stored(due.level, due.range);
        assert!(levels.wants_saving());
        levels.saved();
        levels.record(&pages(&[1]), Seen::at(time(1, 2)));
        assert!(levels.due(time(2, 0), at(71)).is_empty());
        assert!(levels.wants_saving(), "a boundary without a merged file");
    }
}
