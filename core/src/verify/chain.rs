//! Which files lead where, and what is missing on the way. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::manifest::{FileKey, holes};
use crate::types::{Lineage, Txid};

/// A file as the chain sees it: neither dead nor of an unknown history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Link {
    pub(super) key: FileKey,
    /// Whether a restore may begin with it.
    pub(super) start: bool,
    pub(super) lineage: Option<Lineage>,
    /// Whether the manifest names it, or may not name it yet. What is left over otherwise may help, and is
    /// not missed.
    pub(super) counts: bool,
}

impl Link {
    fn min(&self) -> Txid {
        self.key.range().min()
    }

    fn max(&self) -> Txid {
        self.key.range().max()
    }
}

/// Whether files may lawfully be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum History {
    /// No: each file as captured must be there.
    Whole,
    /// A compaction thinned it, or nobody knows: what can be reached suffices.
    Thinned,
}

/// Transactions that no file leads over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gap {
    /// The first one missing.
    pub(super) expected: Txid,
    /// The file behind the gap; nothing where only the manifest says that there should be more.
    pub(super) found: Option<FileKey>,
}

/// What a set of files gives.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Road {
    /// The states that a restore reaches.
    pub(super) points: BTreeSet<Txid>,
    pub(super) gaps: Vec<Gap>,
    /// The last transaction of files that count and come before any start of their history.
    pub(super) early: Option<Txid>,
    /// Where each file is applied: the first state reached that it continues; for a snapshot, its own.
    anchors: HashMap<FileKey, Txid>,
}

impl Road {
    /// Over `links`, up to the newest state that the manifest names. What is missing or damaged counts as
    /// there as long as it is among them: it is told by itself, and not as a gap too.
    pub(super) fn over(links: &[Link], head: Option<Txid>, history: History) -> Self {
        let mut road = Self::default();
        let mut sorted: Vec<&Link> = links.iter().collect();
        sorted.sort_by_key(|link| (link.max(), !link.start, link.key.level()));
        let reached = road.reach(&sorted);
        let newest = reached.values().filter_map(|states| states.last()).max();
        if let (Some(head), Some(newest)) = (head, newest)
            && head > *newest
        {
            road.gaps.push(Gap {
                expected: newest.next(),
                found: None,
            });
        }
        if history == History::Whole {
            road.find_missing_incrementals(&sorted);
        }
        for link in links {
            let states = reached.get(&link.lineage);
            road.anchors.insert(link.key, anchor(link, states));
        }
        road
    }

    /// Goes from start to start and from file to file, by last TXID. Gives the states reached, those behind a
    /// gap included.
    fn reach(&mut self, sorted: &[&Link]) -> BTreeMap<Option<Lineage>, BTreeSet<Txid>> {
        let mut reached: BTreeMap<Option<Lineage>, BTreeSet<Txid>> = BTreeMap::new();
        for link in sorted {
            let states = reached.entry(link.lineage).or_default();
            let last = states.last().copied();
            let follows = last.is_some_and(|last| link.min() <= last.next());
            match last {
                _ if link.start || follows => {
                    self.points.insert(link.max());
                }
                Some(_) if !link.counts => continue,
                Some(last) => self.gaps.push(Gap {
                    expected: last.next(),
                    found: Some(link.key),
                }),
                None => {
                    if link.counts {
                        self.early = Some(link.max());
                    }
                    continue;
                }
            }
            states.insert(link.max());
        }
        reached
    }

    /// Where nothing was ever thinned, a snapshot behind a hole does not excuse it.
    fn find_missing_incrementals(&mut self, sorted: &[&Link]) {
        let first_start = sorted.iter().find(|link| link.start).map(|link| link.max());
        let incrementals = sorted.iter().filter(|link| link.key.level() == 0);
        let counts: HashMap<FileKey, bool> =
            incrementals.map(|link| (link.key, link.counts)).collect();
        let ranges = counts.keys().map(|key| key.range()).collect();
        for (expected, behind) in holes(first_start, ranges) {
            let key = FileKey::incremental(behind);
            let told = |gap: &Gap| gap.found == Some(key) || gap.expected == expected;
            if counts.get(&key) == Some(&true) && !self.gaps.iter().any(told) {
                self.gaps.push(Gap {
                    expected,
                    found: Some(key),
                });
            }
        }
    }

    /// The order in which files are read so that each comes when the state that it continues is known, the
    /// finest first.
    pub(super) fn order(&self, key: FileKey) -> (Txid, bool, Txid, u8) {
        let anchor = self.anchors.get(&key).copied();
        let range = key.range();
        let anchor = anchor.unwrap_or(range.min());
        (anchor, !range.is_snapshot(), range.max(), key.level())
    }

    /// The state at which `key` is applied.
    pub(super) fn anchor(&self, key: FileKey) -> Txid {
        self.order(key).0
    }
}

fn anchor(link: &Link, states: Option<&BTreeSet<Txid>>) -> Txid {
    if link.key.range().is_snapshot() {
        return link.max();
    }
    let before = link.min().previous().unwrap_or(Txid::FIRST);
    let reached = states.and_then(|states| states.range(before..link.max()).next());
    reached.copied().unwrap_or(before)
}

/// The stretches of `before` that are not in `after`, each as first and last.
pub(super) fn lost_stretches(before: &BTreeSet<Txid>, after: &BTreeSet<Txid>) -> Vec<(Txid, Txid)> {
    let mut lost: Vec<(Txid, Txid)> = Vec::new();
    let mut goes_on = false;
    for point in before {
        let is_lost = !after.contains(point);
        match lost.last_mut().filter(|_| goes_on && is_lost) {
            Some(stretch) => stretch.1 = *point,
            None if is_lost => lost.push((*point, *point)),
            None => {}
        }
        goes_on = is_lost;
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Level;
    use crate::types::TxidRange;

    fn txid(value: u64) -> Txid {
        Txid::new(value).unwrap()
    }

    fn link(level: u8, min: u64, max: u64) -> Link {
        let range = TxidRange::new(txid(min), txid(max)).unwrap();
        let key = match Level::new(level) {
            Some(level) => FileKey::merged(level, range),
            None if level == 0 => FileKey::incremental(range),
            None => FileKey::snapshot(txid(max)),
        };
        Link {
            key,
            start: level == 9,
            lineage: Lineage::new(1),
            counts: true,
        }
    }

    fn gaps(links: &[Link], head: u64) -> Vec<(u64, Option<u64>)> {
        Road::over(links, Some(txid(head)), History::Thinned)
            .gaps
            .iter()
            .map(|gap| {
                let found = gap.found.map(|key| key.range().min().get());
                (gap.expected.get(), found)
            })
            .collect()
    }

    #[test]
    fn a_chain_without_holes_has_no_gap() {
        let links = [
            link(9, 1, 1),
            link(0, 2, 2),
            link(0, 3, 5),
            link(1, 2, 5),
            link(0, 6, 6),
        ];
        assert_eq!(gaps(&links, 6), []);
        // Thinned: the minute holds what its files held.
        assert_eq!(gaps(&[links[0], links[3], links[4]], 6), []);
        // A snapshot leads on where what comes before it was thinned away.
        assert_eq!(gaps(&[links[0], link(9, 1, 5), links[4]], 6), []);
    }

    #[test]
    fn a_hole_is_one_gap_that_names_both_sides() {
        let links = [
            link(9, 1, 1),
            link(0, 2, 2),
            link(0, 4, 4),
            link(0, 5, 5),
            link(1, 4, 5),
        ];
        assert_eq!(gaps(&links, 5), [(3, Some(4))]);
        let bridged = [&links[..], &[link(2, 2, 5)]].concat();
        assert_eq!(
            gaps(&bridged, 5),
            [(3, Some(4))],
            "the states inside are still lost"
        );
        assert_eq!(gaps(&links[..2], 5), [(3, None)], "the manifest names more");
    }

    #[test]
    fn r27_before_anything_was_thinned_every_file_as_captured_must_be_there() {
        let links = [
            link(9, 1, 1),
            link(0, 2, 2),
            link(0, 3, 3),
            link(0, 4, 4),
            link(9, 1, 4),
            link(1, 2, 4),
            link(0, 5, 5),
        ];
        let holes = |without: &[usize]| -> Vec<(u64, u64)> {
            let kept = (0..).zip(links).filter(|(at, _)| !without.contains(at));
            let kept: Vec<Link> = kept.map(|(_, link)| link).collect();
            let road = Road::over(&kept, Some(txid(5)), History::Whole);
            let shown = |gap: &Gap| {
                let found = gap.found.map_or(0, |key| key.range().min().get());
                (gap.expected.get(), found)
            };
            road.gaps.iter().map(shown).collect()
        };
        assert_eq!(holes(&[]), []);
        assert_eq!(holes(&[0, 4, 5]), [], "no start, and no hole either");
        assert_eq!(holes(&[3]), [(4, 5)], "right before a snapshot");
        assert_eq!(holes(&[3, 5]), [(4, 5)]);
        assert_eq!(holes(&[2]), [(3, 4)]);
        assert_eq!(holes(&[1]), [(2, 3)]);
        assert_eq!(holes(&[1, 2, 3]), [(2, 5)]);
        assert_eq!(holes(&[0]), [], "files that wait for a base are early");
        assert_eq!(holes(&[6]), [(5, 0)]);
    }

    #[test]
    fn what_is_left_over_bridges_but_is_not_missed() {
        let leftover = |min, max| Link {
            counts: false,
            ..link(0, min, max)
        };
        let links = [link(9, 1, 1), leftover(2, 2), link(0, 3, 3)];
        assert_eq!(gaps(&links, 3), []);
        let links = [link(9, 1, 1), link(0, 2, 2), leftover(9, 9)];
        assert_eq!(gaps(&links, 2), []);
    }

    #[test]
    fn files_before_the_first_start_are_no_gap() {
        let links = [link(0, 2, 2), link(0, 3, 3), link(9, 1, 3), link(0, 4, 4)];
        let road = Road::over(&links, Some(txid(4)), History::Whole);
        assert_eq!((road.gaps.len(), road.early), (0, Some(txid(2))));
        assert_eq!(road.points.len(), 2);
    }

    #[test]
    fn files_are_read_when_their_state_is_there_the_finest_first() {
        let links = [
            link(2, 2, 6),
            link(0, 2, 2),
            link(9, 1, 1),
            link(9, 1, 3),
            link(0, 3, 3),
            link(0, 4, 6),
            // Begins before the oldest snapshot, and is applied at that.
            link(1, 2, 3),
        ];
        let road = Road::over(&links, None, History::Whole);
        let mut keys: Vec<FileKey> = links.iter().map(|link| link.key).collect();
        keys.sort_by_key(|key| road.order(*key));
        let shown: Vec<_> = keys
            .iter()
            .map(|key| {
                (
                    key.level(),
                    key.range().min().get(),
                    key.range().max().get(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (9, 1, 1),
                (0, 2, 2),
                (1, 2, 3),
                (2, 2, 6),
                (0, 3, 3),
                (9, 1, 3),
                (0, 4, 6)
            ]
        );
        let thinned = [link(9, 1, 3), link(1, 2, 5)];
        let road = Road::over(&thinned, None, History::Thinned);
        assert_eq!(road.anchor(thinned[1].key), txid(3));
    }

    #[test]
    fn lost_points_are_told_in_stretches() {
        let set = |values: &[u64]| values.iter().map(|value| txid(*value)).collect();
        let before = set(&[1, 2, 4, 5, 9]);
        let shown = |after: &[u64]| -> Vec<(u64, u64)> {
            lost_stretches(&before, &set(after))
                .into_iter()
                .map(|(first, last)| (first.get(), last.get()))
                .collect()
        };
        assert_eq!(shown(&[1, 2, 4, 5, 9]), []);
        assert_eq!(shown(&[1, 5]), [(2, 4), (9, 9)]);
        assert_eq!(shown(&[]), [(1, 9)]);
    }
}
