//! Which files a plan keeps, and for what.

use std::collections::{HashMap, HashSet};

use super::plan::{Standing, StoredFile, time_of, ways};
use super::points::{self, Break, Snapshot, Stop};
use super::tiers::{Tier, select};
use crate::config::RetentionPolicy;
use crate::manifest::FileKind;
use crate::restore::Ways;
use crate::types::{Lineage, Timestamp, Txid};

/// Files that nothing leads to any more, behind a hole, may be wanted again by somebody who brings the
/// missing object back, from a store that keeps versions, say. So long they stay.
const STRANDED_MS: i64 = 30 * 86_400_000;

/// A stop and the files that lead right to it.
struct Reached {
    stop: Stop,
    ends: Vec<usize>,
    /// The smallest file but a snapshot that ends here, even if nothing leads to its beginning: it tells that
    /// the state was captured, and not only copied.
    witness: Option<usize>,
}

/// A plan in the making.
pub(super) struct Planner<'p> {
    files: &'p [StoredFile],
    /// Places in `files` of those that count; an id of `ways` is a place in here.
    live: Vec<usize>,
    ways: Ways,
    now: Timestamp,
    reached: Vec<Reached>,
    /// By TXID.
    pub(super) snapshots: Vec<usize>,
    pub(super) tiers: Vec<(Txid, Vec<Tier>)>,
    breaks: Vec<Break>,
    stays: Vec<bool>,
    /// By place in `files`.
    pub(super) kept: Vec<bool>,
    /// The last retained point of each lineage.
    anchors: HashMap<Option<Lineage>, Txid>,
}

impl<'p> Planner<'p> {
    pub(super) fn new(
        files: &'p [StoredFile],
        live: Vec<usize>,
        policy: &RetentionPolicy,
        now: Timestamp,
    ) -> Self {
        let ways = ways(files, &live);
        let file = |at: &usize| files.get(*at);
        let mut reached = Vec::new();
        ways.climb(|stop, ids| {
            let ends: Vec<usize> = ids.iter().filter_map(|id| live.get(*id).copied()).collect();
            let all = || {
                ways.ending(&stop)
                    .iter()
                    .filter_map(|id| live.get(*id).copied())
            };
            let captured = all().filter(|at| file(at).is_some_and(|file| !file.is_snapshot()));
            let witness = captured.min_by_key(|at| file(at).map(|file| (file.size, file.key)));
            let stop = Stop {
                txid: stop.txid,
                time: time_of(all().filter_map(|at| files.get(at))).unwrap_or_default(),
                only_snapshot: witness.is_none(),
            };
            reached.push(Reached {
                stop,
                ends,
                witness,
            });
        });
        let mut snapshots: Vec<usize> = live.clone();
        snapshots.retain(|at| file(at).is_some_and(StoredFile::is_snapshot));
        snapshots.sort_by_key(|at| file(at).map(StoredFile::max));
        let created: Vec<Timestamp> = snapshots
            .iter()
            .filter_map(file)
            .map(|f| f.created)
            .collect();
        let reasons = select(&created, policy, now);
        let chosen = snapshots.iter().filter_map(file).zip(reasons);
        let chosen: Vec<(&StoredFile, Vec<Tier>)> =
            chosen.filter(|(_, reasons)| !reasons.is_empty()).collect();
        let stops: Vec<Stop> = reached.iter().map(|reached| reached.stop).collect();
        let dated: Vec<Snapshot> = chosen
            .iter()
            .map(|(file, _)| Snapshot {
                txid: file.max(),
                created: file.created,
            })
            .collect();
        let breaks = points::recent(&breaks(files, &live), &dated, now);
        let stays = points::retained(&stops, &dated, &breaks, policy, now);
        let mut planner = Self {
            files,
            ways,
            now,
            reached,
            snapshots,
            tiers: Vec::new(),
            breaks,
            stays,
            kept: vec![false; files.len()],
            anchors: HashMap::new(),
            live,
        };
        let tiers = chosen
            .into_iter()
            .map(|(file, reasons)| (file.max(), reasons));
        planner.tiers = tiers.collect();
        planner.keep_snapshots();
        planner
    }

    fn file(&self, at: usize) -> Option<&'p StoredFile> {
        self.files.get(at)
    }

    fn keep(&mut self, at: usize) {
        if let Some(kept) = self.kept.get_mut(at) {
            *kept = true;
        }
    }

    fn is_kept(&self, at: usize) -> bool {
        self.kept.get(at).copied().unwrap_or_default()
    }

    /// Ids of ways as places of files.
    fn keep_way(&mut self, ids: &[usize]) {
        for id in ids {
            if let Some(at) = self.live.get(*id).copied() {
                self.keep(at);
            }
        }
    }

    fn keep_snapshots(&mut self) {
        for at in self.snapshots.clone() {
            let txid = self.file(at).map(StoredFile::max);
            if self.tiers.iter().any(|(kept, _)| Some(*kept) == txid) {
                self.keep(at);
            }
        }
    }

    pub(super) fn retained(&self) -> Vec<Txid> {
        let stays = self.reached.iter().zip(&self.stays);
        stays
            .filter_map(|(reached, stays)| stays.then_some(reached.stop.txid))
            .collect()
    }

    /// Keeps what leads to each point that stays: from the point before it that stays, so that no snapshot
    /// in between is needed for it, today or once that one is gone.
    pub(super) fn keep_points(&mut self) {
        let reached = std::mem::take(&mut self.reached);
        let stays = std::mem::take(&mut self.stays);
        let staying = reached.iter().zip(&stays).filter(|(_, stays)| **stays);
        for (
            Reached {
                stop,
                ends,
                witness,
            },
            _,
        ) in staying
        {
            let lineage = |at: &usize| self.file(*at).map(StoredFile::lineage);
            let mut lineages: Vec<_> = ends.iter().filter_map(lineage).collect();
            lineages.dedup();
            let linked = lineages
                .into_iter()
                .filter(|lineage| self.link(*lineage, stop.txid, ends));
            if linked.count() > 0 {
                continue;
            }
            let Some((lineage, from)) = self.begin(stop.txid, ends) else {
                continue;
            };
            match *witness {
                Some(witness) if from == stop.txid => self.keep(witness),
                _ => drop(self.link(lineage, stop.txid, ends)),
            }
        }
        self.stays = stays;
        self.reached = reached;
        self.keep_breaks();
    }

    /// What shows that there was a rebase stays as long as the point before it does.
    fn keep_breaks(&mut self) {
        let ranges: HashSet<(Txid, Txid)> = self
            .breaks
            .iter()
            .map(|found| (found.min, found.max))
            .collect();
        for at in 0..self.live.len() {
            let Some(at) = self.live.get(at).copied() else {
                continue;
            };
            let is_break = |file: &&StoredFile| {
                !file.is_snapshot() && ranges.contains(&(file.min(), file.max()))
            };
            if self.file(at).filter(is_break).is_some() {
                self.keep(at);
            }
        }
    }

    /// Leads from the last retained point of `lineage` to `target`, where files `ends` end. Keeps the files
    /// that end there and reach back to it, small and large ones: the large ones make restores short. Where
    /// none does, the fewest that bridge the way.
    fn link(&mut self, lineage: Option<Lineage>, target: Txid, ends: &[usize]) -> bool {
        let Some(from) = self.anchors.get(&lineage).copied() else {
            return false;
        };
        let reaches_back = |at: &usize| {
            self.file(*at).is_some_and(|file| {
                !file.kind.is_start() && file.lineage() == lineage && file.min() <= from.next()
            })
        };
        let whole: Vec<usize> = ends.iter().copied().filter(reaches_back).collect();
        if whole.is_empty() && from < target {
            let Some(bridge) = self.ways.bridge(lineage, from, target) else {
                return false;
            };
            self.keep_way(&bridge);
        }
        whole.iter().for_each(|at| self.keep(*at));
        self.anchors.insert(lineage, target);
        true
    }

    /// Finds where a way to `target` begins that no earlier point leads to: the oldest snapshot that stays
    /// anyway, or else the newest start there is, which then stays too. Gives its lineage and end.
    fn begin(&mut self, target: Txid, ends: &[usize]) -> Option<(Option<Lineage>, Txid)> {
        let lineages: Vec<_> = ends
            .iter()
            .filter_map(|at| Some(self.file(*at)?.lineage()))
            .collect();
        let fits = |file: &&StoredFile| {
            let anchor = self.anchors.get(&file.lineage()).copied();
            file.max() <= target && lineages.contains(&file.lineage()) && anchor < Some(file.max())
        };
        let kept = self
            .snapshots
            .iter()
            .copied()
            .filter(|at| self.is_kept(*at));
        let kept = kept.filter(|at| self.file(*at).filter(fits).is_some());
        let leads = |at: &usize| {
            let id = self.live.binary_search(at).ok();
            id.is_some_and(|id| self.ways.chain_from(id, target).is_some())
        };
        let found = kept.into_iter().find(leads).or_else(|| {
            let chain = self.ways.chain_to(target)?;
            chain.first().and_then(|id| self.live.get(*id).copied())
        })?;
        let file = self.file(found)?;
        if file.is_snapshot() && !self.is_kept(found) {
            self.tiers.push((file.max(), vec![Tier::Point]));
            self.tiers.sort_unstable();
        }
        self.keep(found);
        self.anchors.insert(file.lineage(), file.max());
        Some((file.lineage(), file.max()))
    }

    /// `0000/` is never left empty: its last object tells whether a writer lives.
    pub(super) fn keep_newest_incremental(&mut self) {
        let incremental = |at: &&usize| self.file(**at).is_some_and(|file| file.key.level() == 0);
        let newest = self.live.iter().filter(incremental);
        let newest = newest.max_by_key(|at| self.file(**at).map(StoredFile::max));
        if let Some(at) = newest.copied() {
            self.keep(at);
        }
    }

    /// Files that the index names and no way leads to.
    pub(super) fn keep_stranded(&mut self) {
        let mut stranded = vec![false; self.files.len()];
        for at in &self.live {
            if let Some(stranded) = stranded.get_mut(*at) {
                *stranded = true;
            }
        }
        for at in self.reached.iter().flat_map(|reached| &reached.ends) {
            if let Some(stranded) = stranded.get_mut(*at) {
                *stranded = false;
            }
        }
        let since = self.now.plus_millis(-STRANDED_MS);
        for (at, file) in self.files.iter().enumerate() {
            let is_young = file.standing == Standing::Named && file.time() >= since;
            if stranded.get(at) == Some(&true) && is_young {
                self.keep(at);
            }
        }
    }
}

/// Rebases. A further lineage begins with one too.
fn breaks(files: &[StoredFile], live: &[usize]) -> Vec<Break> {
    let files = live.iter().filter_map(|at| files.get(*at));
    let mut breaks: Vec<Break> = files
        .filter(|file| matches!(file.kind, FileKind::Rebase | FileKind::Base))
        .map(|file| Break {
            min: file.min(),
            max: file.max(),
            time: file.time(),
        })
        .collect();
    breaks.sort_by_key(|found| (found.min, found.max));
    breaks
}
