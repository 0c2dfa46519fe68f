//! Which files lead where, for one target or for all: what restores, lists and retention share, so that
//! they never disagree about what can be restored. Pure, and quick enough for every point of a long history.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::ops::Range;

use crate::manifest::FileKey;
use crate::types::{Lineage, Txid};

/// What a plan must know of a file that it may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hop {
    /// Level and transactions.
    pub(crate) key: FileKey,
    /// Bytes to fetch.
    pub(crate) size: u64,
    /// Whether a restore may begin with it.
    pub(crate) start: bool,
    /// The history that it belongs to.
    pub(crate) lineage: Option<Lineage>,
}

impl Hop {
    fn min(&self) -> Txid {
        self.key.range().min()
    }

    fn max(&self) -> Txid {
        self.key.range().max()
    }
}

/// Files by where they lead. An id is a file's place in the list that [`Ways::new`] was given.
#[derive(Debug)]
pub(crate) struct Ways {
    hops: Vec<Hop>,
    /// Ids by last TXID, starts first.
    order: Vec<usize>,
    /// Starts; the last one that ends before a target is the best to begin with.
    starts: Vec<usize>,
    roads: HashMap<Option<Lineage>, Road>,
}

/// A TXID at which files end, one of which at least is reached: a restore point.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stop {
    pub(crate) txid: Txid,
    /// Where [`Ways::ending`] finds the files that end here, the unreached ones included.
    ends: Range<usize>,
}

impl Ways {
    /// The ways over `hops`, none of which is dead or lost.
    pub(crate) fn new(hops: Vec<Hop>) -> Self {
        let mut order: Vec<usize> = (0..hops.len()).collect();
        let by_end = |id: &usize| hops.get(*id).map(|hop| (hop.max(), Reverse(hop.start)));
        order.sort_by_key(by_end);
        let mut starts = Vec::new();
        let mut roads: HashMap<Option<Lineage>, Road> = HashMap::new();
        for id in &order {
            let Some(hop) = hops.get(*id) else { continue };
            match hop.start {
                true => starts.push(*id),
                false => roads.entry(hop.lineage).or_default().ids.push(*id),
            }
        }
        // Of two at one TXID the smaller one is better: it comes last.
        let rank = |id: &usize| hops.get(*id).map(|hop| (hop.max(), Reverse(hop.size)));
        starts.sort_by_key(rank);
        roads.values_mut().for_each(|road| road.finish(&hops));
        Self {
            hops,
            order,
            starts,
            roads,
        }
    }

    /// The file `id`.
    pub(crate) fn hop(&self, id: usize) -> Option<&Hop> {
        self.hops.get(id)
    }

    /// The files that end at `stop`.
    pub(crate) fn ending(&self, stop: &Stop) -> &[usize] {
        self.order.get(stop.ends.clone()).unwrap_or_default()
    }

    /// Every restore point, by TXID: exactly those to which [`Ways::chain_to`] finds a way.
    pub(crate) fn stops(&self) -> Vec<Stop> {
        let mut stops = Vec::new();
        self.climb(|stop, _| stops.push(stop));
        stops
    }

    /// Hands each restore point to `visit`, by TXID, with those of the files that end there which are
    /// reached.
    pub(crate) fn climb(&self, mut visit: impl FnMut(Stop, &[usize])) {
        // The newest point of each lineage on the way up.
        let mut tops: HashMap<Option<Lineage>, Txid> = HashMap::new();
        let end = |id: &usize| self.hops.get(*id).map(Hop::max);
        let (mut first, mut reached) = (0, Vec::new());
        // Of the files that end at one TXID only one needs to be reached.
        for group in self.order.chunk_by(|a, b| end(a) == end(b)) {
            let ends = first..first + group.len();
            first = ends.end;
            reached.clear();
            reached.extend(group.iter().copied().filter(|id| {
                self.hops.get(*id).is_some_and(|hop| {
                    let before = tops.get(&hop.lineage);
                    hop.start || before.is_some_and(|at| hop.min() <= at.next())
                })
            }));
            for hop in reached.iter().filter_map(|id| self.hops.get(*id)) {
                tops.insert(hop.lineage, hop.max());
            }
            if let Some(txid) = reached.first().and_then(end) {
                visit(Stop { txid, ends }, &reached);
            }
        }
    }

    /// The files that lead to `target`: from the newest start that does, by as few as possible. Nothing
    /// where none ends exactly there.
    pub(crate) fn chain_to(&self, target: Txid) -> Option<Vec<usize>> {
        self.starts_before(target)
            .find_map(|start| self.chain_from(start, target))
    }

    /// The files that lead from the start `start` to `target`, itself included.
    pub(crate) fn chain_from(&self, start: usize, target: Txid) -> Option<Vec<usize>> {
        let mut walk = Walk::begin(self, start)?;
        walk.to(target).then(|| {
            let mut chain = vec![start];
            chain.extend(walk.path);
            chain
        })
    }

    /// The files of `lineage` that lead from the state at `at` to `target`, by as few as possible.
    pub(crate) fn bridge(
        &self,
        lineage: Option<Lineage>,
        at: Txid,
        target: Txid,
    ) -> Option<Vec<usize>> {
        let mut walk = Walk::on(self, self.roads.get(&lineage), at);
        walk.to(target).then_some(walk.path)
    }

    /// The first of `targets`, which ascend, that no chain leads to.
    pub(crate) fn missing(&self, targets: impl IntoIterator<Item = Txid>) -> Option<Txid> {
        // The walk that led to one target is continued to the next.
        let mut walk: Option<(usize, Walk<'_>)> = None;
        targets.into_iter().find(|target| {
            let newest = self.starts_before(*target).next();
            let Some(newest) = newest else { return true };
            if walk.as_ref().is_none_or(|(start, _)| *start != newest) {
                walk = Walk::begin(self, newest).map(|walk| (newest, walk));
            }
            let leads = walk.as_mut().is_some_and(|(_, walk)| walk.to(*target));
            !leads && self.chain_to(*target).is_none()
        })
    }

    /// Starts that end at or before `target`, the best first.
    fn starts_before(&self, target: Txid) -> impl Iterator<Item = usize> {
        let ends_before = |id: &usize| self.hops.get(*id).is_some_and(|hop| hop.max() <= target);
        let count = self.starts.partition_point(ends_before);
        let before = self.starts.get(..count).unwrap_or_default();
        before.iter().rev().copied()
    }
}

/// The files of one lineage that a restore goes on with, by last TXID; of two that end at one TXID the
/// smaller comes last.
#[derive(Debug, Default)]
struct Road {
    ids: Vec<usize>,
    /// The last TXID of each file.
    ends: Vec<Txid>,
    /// A tree over the files: at each node the least first TXID below it. The leaves begin at `width`.
    least: Vec<u64>,
    width: usize,
}

impl Road {
    fn finish(&mut self, hops: &[Hop]) {
        let rank = |id: &usize| hops.get(*id).map(|hop| (hop.max(), Reverse(hop.size)));
        self.ids.sort_by_key(rank);
        let sorted = || self.ids.iter().filter_map(|id| hops.get(*id));
        self.ends = sorted().map(Hop::max).collect();
        self.width = self.ids.len().next_power_of_two();
        let mut least = vec![u64::MAX; 2 * self.width];
        for (leaf, hop) in least.iter_mut().skip(self.width).zip(sorted()) {
            *leaf = hop.min().get();
        }
        for node in (1..self.width).rev() {
            let below = least.get(2 * node..2 * node + 2).unwrap_or_default();
            let value = below.iter().copied().min().unwrap_or(u64::MAX);
            if let Some(at) = least.get_mut(node) {
                *at = value;
            }
        }
        self.least = least;
    }

    /// How many files end at or before `target`.
    fn count(&self, target: Txid) -> usize {
        self.ends.partition_point(|end| *end <= target)
    }

    /// The file that leads furthest from the state at `at` without passing `target`; of several the
    /// smallest.
    fn furthest(&self, at: Txid, target: Txid) -> Option<usize> {
        let found = self.last_at_most(self.count(target), at.next().get())?;
        let leads_on = self.ends.get(found).is_some_and(|end| *end > at);
        leads_on.then(|| self.ids.get(found).copied()).flatten()
    }

    /// The last of the first `count` files that begins at or before `bound`.
    fn last_at_most(&self, count: usize, bound: u64) -> Option<usize> {
        let fits = |node: usize| self.least.get(node).is_some_and(|least| *least <= bound);
        if count == 0 {
            return None;
        }
        let mut node = count + self.width;
        loop {
            // The subtree that ends right before where we stand.
            node -= 1;
            while node > 1 && node % 2 == 1 {
                node /= 2;
            }
            if fits(node) {
                while node < self.width {
                    node = if fits(2 * node + 1) {
                        2 * node + 1
                    } else {
                        2 * node
                    };
                }
                return Some(node - self.width);
            }
            if node.is_power_of_two() {
                return None;
            }
        }
    }

    /// The least first TXID of the files from number `from` up to `to`.
    fn least_of(&self, range: Range<usize>) -> Option<u64> {
        let leaves = range.start + self.width..range.end + self.width;
        self.least.get(leaves)?.iter().copied().min()
    }
}

/// The way from one state to ever later targets. Each target's way is the one that a fresh walk would
/// take: at each step the file that leads furthest without passing the target.
#[derive(Debug)]
struct Walk<'w> {
    ways: &'w Ways,
    road: Option<&'w Road>,
    from: Txid,
    path: Vec<usize>,
    /// Files of the road that end at or before the last target.
    seen: usize,
}

impl<'w> Walk<'w> {
    fn begin(ways: &'w Ways, start: usize) -> Option<Self> {
        let hop = ways.hops.get(start)?;
        Some(Self::on(ways, ways.roads.get(&hop.lineage), hop.max()))
    }

    fn on(ways: &'w Ways, road: Option<&'w Road>, from: Txid) -> Self {
        Self {
            ways,
            road,
            from,
            path: Vec::new(),
            seen: 0,
        }
    }

    /// Goes to `target`, which is not before the last one, and says whether it was reached exactly.
    fn to(&mut self, target: Txid) -> bool {
        if let Some(road) = self.road {
            self.turn_back(road, target);
            while self.at() < target {
                let Some(next) = road.furthest(self.at(), target) else {
                    break;
                };
                self.path.push(next);
            }
        }
        self.at() == target
    }

    fn at(&self) -> Txid {
        let last = self.path.last().and_then(|id| self.ways.hop(*id));
        last.map_or(self.from, Hop::max)
    }

    /// Goes back to the first place from which a file leads on that was too long for the last target.
    fn turn_back(&mut self, road: &Road, target: Txid) {
        let count = road.count(target);
        let new = self.seen..count.max(self.seen);
        let least = road.least_of(new.clone());
        self.seen = new.end;
        let Some(least) = least else { return };
        while let Some(last) = self.path.pop() {
            if self.at().next().get() < least {
                self.path.push(last);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::TxidRange;

    fn txid(value: u64) -> Txid {
        Txid::new(value).unwrap()
    }

    fn random_hops(rng: &mut fastrand::Rng) -> Vec<Hop> {
        let lineage = |rng: &mut fastrand::Rng| Lineage::new(rng.u64(1..3));
        let mut hops = vec![Hop {
            key: FileKey::snapshot(txid(1)),
            size: 900,
            start: true,
            lineage: lineage(rng),
        }];
        for _ in 0..rng.usize(1..40) {
            let (min, length) = (rng.u64(1..60), rng.u64(0..12));
            let start = rng.u8(0..6) == 0;
            let range = TxidRange::new(txid(min), txid(min + length)).unwrap();
            hops.push(Hop {
                key: match start && rng.bool() {
                    true => FileKey::snapshot(range.max()),
                    false => FileKey::new(rng.u8(0..3), range).unwrap(),
                },
                size: rng.u64(1..5),
                start,
                lineage: lineage(rng),
            });
        }
        hops
    }

    /// Every state that some sequence of files leads to, tried blindly.
    fn reachable(hops: &[Hop], target: Txid) -> bool {
        let mut states: Vec<(Option<Lineage>, Txid)> = hops
            .iter()
            .filter(|hop| hop.start)
            .map(|hop| (hop.lineage, hop.max()))
            .collect();
        let mut at = 0;
        while let Some((lineage, state)) = states.get(at).copied() {
            at += 1;
            for hop in hops.iter().filter(|hop| !hop.start) {
                let next = (lineage, hop.max());
                let fits = hop.lineage == lineage && hop.key.range().extends(state);
                if fits && hop.max() <= target && !states.contains(&next) {
                    states.push(next);
                }
            }
        }
        states.iter().any(|(_, state)| *state == target)
    }

    #[test]
    fn points_chains_and_walks_agree_with_trying_everything() {
        for seed in 0..400 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let hops = random_hops(&mut rng);
            let ways = Ways::new(hops.clone());
            let points: Vec<Txid> = ways.stops().iter().map(|stop| stop.txid).collect();
            assert_eq!(ways.missing(points.iter().copied()), None, "seed {seed}");
            for target in (1..75).map(txid) {
                let expected = reachable(&hops, target);
                assert_eq!(
                    points.contains(&target),
                    expected,
                    "seed {seed}: {target:?}"
                );
                let chain = ways.chain_to(target);
                assert_eq!(chain.is_some(), expected, "seed {seed}: {target:?}");
                assert_eq!(ways.missing([target]).is_none(), expected);
                let Some(chain) = chain else { continue };
                let chain: Vec<Hop> = chain.iter().map(|id| hops[*id]).collect();
                assert!(chain[0].start);
                for pair in chain.windows(2) {
                    assert!(pair[1].key.range().extends(pair[0].max()), "{chain:?}");
                    assert!(!pair[1].start && pair[1].lineage == chain[0].lineage);
                }
                assert_eq!(chain.last().unwrap().max(), target);
            }
        }
    }

    #[test]
    fn a_walk_that_goes_on_takes_the_way_of_a_fresh_one() {
        for seed in 0..400 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let hops = random_hops(&mut rng);
            let ways = Ways::new(hops);
            for start in ways.starts.clone() {
                let mut going = Walk::begin(&ways, start).unwrap();
                for target in (ways.hops[start].max().get()..75).map(txid) {
                    if rng.bool() {
                        continue;
                    }
                    let mut fresh = Walk::begin(&ways, start).unwrap();
                    assert_eq!(fresh.to(target), going.to(target), "seed {seed}");
                    assert_eq!(fresh.path, going.path, "seed {seed}: {target:?}");
                }
            }
        }
    }

    #[test]
    fn few_files_are_better_than_many_and_small_ones_than_large() {
        let hop = |level, min, max, size| Hop {
            key: FileKey::new(level, TxidRange::new(txid(min), txid(max)).unwrap()).unwrap(),
            size,
            start: false,
            lineage: None,
        };
        let start = Hop {
            start: true,
            ..hop(9, 1, 1, 100)
        };
        let ways = Ways::new(vec![
            start,
            hop(0, 2, 2, 5),
            hop(0, 3, 3, 5),
            hop(1, 2, 3, 9),
            hop(2, 2, 3, 8),
            hop(0, 4, 4, 5),
        ]);
        assert_eq!(ways.chain_to(txid(4)), Some(vec![0, 4, 5]));
        assert_eq!(ways.chain_to(txid(2)), Some(vec![0, 1]));
        assert_eq!(ways.bridge(None, txid(2), txid(3)), Some(vec![2]));
        assert_eq!(ways.chain_to(txid(5)), None);
    }
}
