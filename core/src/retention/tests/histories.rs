//! Random histories: what must stay, stays; what nobody needs, goes; and doing it twice is doing it once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::plan::{Fate, Plan, Standing, StoredFile, plan};
use super::super::tiers::Tier;
use super::{DAY, HOUR, MINUTE, Periods, SECOND};
use crate::config::RetentionPolicy;
use crate::manifest::{EpochStart, FileKey, FileKind, Turns, start_shown_by};
use crate::restore::tests::world::{range, txid};
use crate::restore::{Hop, Ways};
use crate::store::Level;
use crate::types::{Epoch, Lineage, StreamId, Timestamp, Txid};

/// 2026-01-05, a Monday.
const START: i64 = 1_767_571_200_000;

fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// What the writer's clock does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Steps {
    /// It goes right.
    None,
    /// It is set back or ahead now and then, and put right again.
    Any,
}

/// A writer and what it stored; all files are named in the index unless told otherwise.
#[derive(Clone)]
struct History {
    rng: fastrand::Rng,
    files: Vec<StoredFile>,
    epochs: Vec<EpochStart>,
    /// What the writer's clock says.
    clock: i64,
    /// How far it is ahead of the store's.
    ahead: i64,
    head: u64,
    stream: StreamId,
    periods: Periods,
    /// Whether periods are merged; a writer that is started too often merges little.
    merges: bool,
}

impl History {
    fn new(seed: u64) -> Self {
        let stream = StreamId {
            lineage: Lineage::new(1000 - seed % 7).unwrap(),
            epoch: Epoch::FIRST,
        };
        let mut history = Self {
            rng: fastrand::Rng::with_seed(seed),
            files: Vec::new(),
            epochs: Vec::new(),
            clock: START,
            ahead: 0,
            head: 1,
            stream,
            periods: Periods::new(1),
            merges: true,
        };
        history.restart();
        history.snapshot();
        history
    }

    fn restart(&mut self) {
        self.periods = Periods::new(self.head);
    }

    fn add(&mut self, key: FileKey, kind: FileKind, last: Option<i64>, size: u64) {
        let file = StoredFile {
            key,
            kind,
            size,
            last_commit: last.map(time),
            created: time(last.unwrap_or(self.clock)),
            stream: Some(self.stream),
            standing: Standing::Named,
        };
        if key.level() == 0 && self.epochs.iter().all(|e| e.stream != self.stream) {
            self.epochs.push(EpochStart {
                stream: self.stream,
                first: key.range().min(),
            });
        }
        self.files.push(file);
    }

    fn snapshot(&mut self) {
        let key = FileKey::snapshot(txid(self.head));
        if self.files.iter().all(|file| file.key != key) {
            self.add(key, FileKind::Snapshot, None, 10_000);
        }
    }

    /// Stores what `count` transactions changed, after the merges of the periods that are over.
    fn commit(&mut self, count: u64, kind: FileKind) {
        self.merge();
        let (min, max) = (self.head + 1, self.head + count);
        let size = if kind == FileKind::Base {
            9_000
        } else {
            500 + count
        };
        self.add(
            FileKey::incremental(range(min, max)),
            kind,
            Some(self.clock),
            size,
        );
        self.head = max;
        self.periods.record(self.clock);
    }

    fn merge(&mut self) {
        for merged in self.periods.due(self.clock, self.head) {
            if self.merges {
                let level = Level::new(merged.level).unwrap();
                let key = FileKey::merged(level, range(merged.min, merged.max));
                let size = 1000 + u64::from(merged.files);
                self.add(key, FileKind::Merged, Some(merged.last), size);
            }
        }
    }

    fn take_over(&mut self) {
        // The running periods go on: merged files of the new writer cover what the old one wrote.
        self.stream.epoch = self.stream.epoch.next().unwrap();
    }

    fn new_chain(&mut self) {
        self.stream = StreamId {
            lineage: Lineage::new(self.stream.lineage.to_string().len() as u64 * 100 + self.head)
                .unwrap(),
            epoch: Epoch::FIRST,
        };
        self.restart();
        self.commit(1, FileKind::Base);
        self.restart();
        self.snapshot();
    }

    /// What a writer stored that did not know yet that its turn was over.
    fn zombie(&mut self) {
        let Some(later) = self
            .epochs
            .iter()
            .rfind(|e| e.stream == self.stream)
            .copied()
        else {
            return;
        };
        let Some(epoch) = Epoch::new(later.stream.epoch.get() - 1) else {
            return;
        };
        let stream = StreamId {
            epoch,
            ..later.stream
        };
        let min = later.first.get() + self.rng.u64(0..3);
        let key = match self.rng.u8(0..3) {
            0 => FileKey::snapshot(txid(min)),
            1 => FileKey::merged(Level::new(1).unwrap(), range(min, min + 2)),
            _ => FileKey::incremental(range(min, min + 1)),
        };
        if self.files.iter().any(|file| file.key == key) {
            return;
        }
        let kind = FileKind::of(key, crate::ltx::Mark::None);
        self.files.push(StoredFile {
            key,
            kind,
            size: 777,
            last_commit: Some(time(self.clock)),
            created: time(self.clock),
            stream: Some(stream),
            standing: Standing::Loose,
        });
    }

    /// Some time passes, and something happens.
    fn step(&mut self, steps: Steps) {
        self.clock += match self.rng.u8(0..100) {
            0..50 => self.rng.i64(500..10 * SECOND),
            50..80 => self.rng.i64(10 * SECOND..3 * MINUTE),
            80..95 => self.rng.i64(MINUTE..2 * HOUR),
            95..99 => self.rng.i64(HOUR..30 * HOUR),
            _ => self.rng.i64(DAY..20 * DAY),
        };
        if steps != Steps::None && self.rng.u8(0..40) == 0 {
            let ahead = match self.rng.u8(0..5) {
                0 => self.rng.i64(0..3 * DAY),
                1 => -self.rng.i64(0..90 * SECOND),
                2 => -self.rng.i64(0..3 * HOUR),
                3 => -self.rng.i64(0..5 * DAY),
                _ => 0,
            };
            self.set_clock(ahead);
        }
        match self.rng.u8(0..200) {
            0 => self.take_over(),
            1 => self.new_chain(),
            2..5 => {
                self.commit(1, FileKind::Rebase);
                self.restart();
            }
            5 => {
                self.commit(1, FileKind::Base);
                self.restart();
            }
            6..9 => self.restart(),
            9 => self.merges = !self.merges,
            10..25 => self.snapshot(),
            25..28 => self.zombie(),
            _ => {
                let count = self.rng.u64(1..4);
                self.commit(count, FileKind::Incremental);
            }
        }
    }

    fn set_clock(&mut self, ahead: i64) {
        self.clock += ahead - self.ahead;
        self.ahead = ahead;
    }

    /// As a compaction takes it: the earlier one of two clocks.
    fn now(&self) -> i64 {
        self.clock.min(self.clock - self.ahead)
    }

    fn turns(&self) -> Turns {
        let mut turns = Turns::new(self.epochs.iter().copied());
        for file in &self.files {
            if let Some(start) = start_shown_by(file.key, file.stream.unwrap()) {
                turns.add(start);
            }
        }
        turns
    }

    fn plan(&self, policy: &RetentionPolicy) -> Plan {
        let mut files = self.files.clone();
        // The order must not matter.
        fastrand::Rng::with_seed(self.head).shuffle(&mut files);
        let shuffled = plan(
            &files,
            &self.turns(),
            txid(self.head),
            policy,
            time(self.now()),
        )
        .unwrap();
        let plan = plan(
            &self.files,
            &self.turns(),
            txid(self.head),
            policy,
            time(self.now()),
        )
        .unwrap();
        assert_eq!(
            (&shuffled.tiers, &shuffled.retained),
            (&plan.tiers, &plan.retained)
        );
        plan
    }

    fn carry_out(&mut self, plan: &Plan) {
        let mut fates = plan.fates.iter();
        self.files
            .retain(|_| matches!(fates.next().unwrap(), Fate::Keep | Fate::Wait));
    }

    fn ways(&self, files: impl Fn(&StoredFile) -> bool) -> Ways {
        let turns = self.turns();
        let live =
            |file: &&StoredFile| !turns.is_dead(file.stream.unwrap(), file.key.range().max());
        let hops = self.files.iter().filter(live).filter(|file| files(file));
        Ways::new(
            hops.map(|file| Hop {
                key: file.key,
                size: file.size,
                start: file.kind.is_start(),
                lineage: file.stream.map(|stream| stream.lineage),
            })
            .collect(),
        )
    }

    fn points(&self) -> BTreeSet<Txid> {
        self.ways(|_| true)
            .stops()
            .iter()
            .map(|stop| stop.txid)
            .collect()
    }
}

fn random_policy(rng: &mut fastrand::Rng) -> RetentionPolicy {
    let mut hours = |most: u64| Duration::from_secs(rng.u64(0..most * 3600));
    let (points, minutes) = (hours(48), hours(24 * 10));
    match rng.u8(0..3) {
        0 => RetentionPolicy::default(),
        _ => RetentionPolicy {
            hourly: rng.u32(0..30),
            daily: rng.u32(0..10),
            weekly: rng.u32(0..6),
            monthly: rng.u32(1..6),
            points,
            minutes,
        },
    }
}

/// The plain reading of R94 for a clock that never goes back: the points that must stay.
fn wanted(history: &History, policy: &RetentionPolicy, oldest: Txid) -> BTreeSet<Txid> {
    let points = history.points();
    let mut times: BTreeMap<Txid, i64> = BTreeMap::new();
    let turns = history.turns();
    for file in &history.files {
        let dead = turns.is_dead(file.stream.unwrap(), file.key.range().max());
        if let (Some(last), false) = (file.last_commit, dead || file.key.level() == 9) {
            times.insert(file.key.range().max(), last.millis());
        }
    }
    times.retain(|txid, _| points.contains(txid));
    let now = history.now();
    let millis = |length: Duration| i64::try_from(length.as_millis()).unwrap();
    let (mut minutes, mut hours) = (BTreeMap::new(), BTreeMap::new());
    for (txid, time) in &times {
        minutes.insert(time.div_euclid(MINUTE), (*txid, *time));
        hours.insert(time.div_euclid(HOUR), (*txid, *time));
    }
    let every = times
        .iter()
        .filter(|(_, time)| **time >= now - millis(policy.points));
    let minutes = minutes
        .values()
        .filter(|(_, time)| *time >= now - millis(policy.minutes));
    let hours = hours.values().filter(|(txid, _)| *txid >= oldest);
    let mut wanted: BTreeSet<Txid> = every.map(|(txid, _)| *txid).collect();
    wanted.extend(minutes.chain(hours).map(|(txid, _)| *txid));
    wanted.extend(points.last());
    wanted
}

fn oldest_snapshot(plan: &Plan) -> Txid {
    let by_tier = plan
        .tiers
        .iter()
        .filter(|(_, tiers)| tiers != &[Tier::Point]);
    by_tier.map(|(txid, _)| *txid).min().unwrap()
}

/// Everything that holds of any plan.
fn check(history: &History, plan: &Plan, seed: u64) {
    let turns = history.turns();
    let fate = |at: usize| plan.fates[at];
    for (at, file) in history.files.iter().enumerate() {
        let dead = turns.is_dead(file.stream.unwrap(), file.key.range().max());
        assert_eq!(dead, fate(at) == Fate::Dead, "seed {seed}: {file:?}");
    }
    // The same planner that restores use, on nothing but what is kept.
    let kept: BTreeSet<FileKey> = (0..)
        .zip(&history.files)
        .filter(|(at, _)| fate(*at) == Fate::Keep)
        .map(|(_, f)| f.key)
        .collect();
    let ways = history.ways(|file| kept.contains(&file.key));
    for txid in &plan.retained {
        assert!(ways.chain_to(*txid).is_some(), "seed {seed}: {txid:?}");
    }
    assert_eq!(plan.points, ways.stops().len() as u64);
    assert_eq!(plan.latest.unwrap().txid, *history.points().last().unwrap());
    // G2, G3: at least two snapshots, and the newest.
    let snapshots = history.ways(|file| file.key.level() == 9).stops();
    assert!(plan.tiers.len() >= snapshots.len().min(2), "seed {seed}");
    assert_eq!(plan.tiers.last().unwrap().0, snapshots.last().unwrap().txid);
    let level_0 =
        |keys: &mut dyn Iterator<Item = FileKey>| keys.filter(|key| key.level() == 0).max();
    let living = history
        .files
        .iter()
        .filter(|f| !turns.is_dead(f.stream.unwrap(), f.key.range().max()));
    let newest = level_0(&mut living.map(|file| file.key));
    assert_eq!(
        level_0(&mut kept.iter().copied()),
        newest,
        "0000/ is never left empty"
    );
    needed(history, plan, &kept, seed);
}

/// Nothing stays that nobody needs: a file that stays ends at a point that stays, or is one of several that
/// bridge the way between two of them, or is kept for a reason of its own.
fn needed(history: &History, plan: &Plan, kept: &BTreeSet<FileKey>, seed: u64) {
    let now = history.now();
    let newest = kept.iter().filter(|key| key.level() == 0).max().copied();
    let retained: BTreeSet<Txid> = plan.retained.iter().copied().collect();
    let stops = history.points();
    for file in history.files.iter().filter(|file| kept.contains(&file.key)) {
        let (min, max) = (file.key.range().min(), file.key.range().max());
        let own_reason = file.kind.is_start()
            || Some(file.key) == newest
            || matches!(file.kind, FileKind::Rebase | FileKind::Base)
            || (!stops.contains(&max) && file.created.millis() >= now - 30 * DAY);
        if own_reason {
            continue;
        }
        let before = retained.range(..max).next_back().copied();
        let whole = retained.contains(&max) && before.is_none_or(|before| min <= before.next());
        let is_witness = retained.contains(&max)
            && history.files.iter().any(|other| {
                kept.contains(&other.key) && other.kind.is_start() && other.key.range().max() == max
            });
        if whole || is_witness {
            continue;
        }
        // Part of a bridge: then no file that stays crosses it whole.
        let after = retained.range(max..).next().copied();
        let crosses = |other: &&FileKey| {
            other.level() != 9
                && Some(other.range().max()) == after
                && before.is_none_or(|before| other.range().min() <= before.next())
        };
        let starts_between = history.files.iter().any(|other| {
            let end = other.key.range().max();
            kept.contains(&other.key)
                && other.kind.is_start()
                && before < Some(end)
                && Some(end) <= after
        });
        assert!(after.is_some(), "seed {seed}: {file:?} leads nowhere");
        assert!(
            starts_between || !kept.iter().any(|key| crosses(&key)),
            "seed {seed}: {file:?} is not needed between {before:?} and {after:?}"
        );
    }
}

#[test]
fn g2_g3_every_point_that_must_stay_is_restorable_and_nothing_else_stays() {
    for seed in 0..80 {
        let mut history = History::new(seed);
        for _ in 0..400 {
            history.step(Steps::None);
        }
        let policy = random_policy(&mut history.rng);
        let plan = history.plan(&policy);
        check(&history, &plan, seed);
        let wanted = wanted(&history, &policy, oldest_snapshot(&plan));
        let retained: BTreeSet<Txid> = plan.retained.iter().copied().collect();
        let missing: Vec<_> = wanted.difference(&retained).collect();
        assert!(missing.is_empty(), "seed {seed}: {missing:?}");
        // Only points around a rebase stay beyond that.
        let extra = retained.difference(&wanted).count();
        let breaks = history
            .files
            .iter()
            .filter(|f| matches!(f.kind, FileKind::Rebase | FileKind::Base));
        assert!(extra <= 2 * breaks.count(), "seed {seed}: {extra}");
    }
}

#[test]
fn a_history_thinned_twice_is_thinned_once_whatever_the_clock_did() {
    for seed in 0..160 {
        let mut history = History::new(seed);
        for _ in 0..300 {
            history.step(if seed % 2 == 0 {
                Steps::Any
            } else {
                Steps::None
            });
        }
        let policy = random_policy(&mut history.rng);
        let first = history.plan(&policy);
        check(&history, &first, seed);
        history.carry_out(&first);
        let second = history.plan(&policy);
        let changed: Vec<_> = (history.files.iter().zip(&second.fates))
            .filter(|(_, fate)| matches!(fate, Fate::Dead | Fate::Drop))
            .collect();
        assert!(changed.is_empty(), "seed {seed}: {changed:?}");
        assert_eq!(first.retained, second.retained, "seed {seed}");
        assert_eq!(first.tiers, second.tiers, "seed {seed}");
    }
}

#[test]
fn thinning_along_the_way_loses_nothing_that_thinning_at_the_end_keeps() {
    for seed in 0..40 {
        let mut history = History::new(seed);
        let policy = random_policy(&mut history.rng);
        let mut whole = history.clone();
        for round in 0..500 {
            // Both live through the same; one is thinned now and then.
            history.rng = fastrand::Rng::with_seed(seed * 1000 + round);
            whole.rng = history.rng.clone();
            history.step(Steps::None);
            whole.step(Steps::None);
            if round % 23 == 0 {
                let plan = history.plan(&policy);
                history.carry_out(&plan);
            }
        }
        let last = history.plan(&policy);
        history.carry_out(&last);
        let at_once = whole.plan(&policy);
        let left = history.points();
        let lost: Vec<_> = at_once
            .retained
            .iter()
            .filter(|txid| !left.contains(txid))
            .collect();
        assert!(lost.is_empty(), "seed {seed}: {lost:?}");
        let snapshots = |plan: &Plan| -> Vec<Txid> {
            let by_tier = plan
                .tiers
                .iter()
                .filter(|(_, tiers)| tiers != &[Tier::Point]);
            by_tier.map(|(txid, _)| *txid).collect()
        };
        let kept = snapshots(&last);
        let lost: Vec<_> = snapshots(&at_once)
            .into_iter()
            .filter(|s| !kept.contains(s))
            .collect();
        assert!(lost.is_empty(), "seed {seed}: snapshots {lost:?}");
        assert!(history.files.len() <= whole.files.len());
    }
}

#[test]
fn r146_no_step_of_the_clock_makes_a_point_older_than_the_times_before_it_say() {
    for seed in 0..40 {
        let mut history = History::new(seed);
        let policy = random_policy(&mut history.rng);
        let millis = |length: Duration| i64::try_from(length.as_millis()).unwrap();
        // When the clock said that each point was committed, and those that may be gone by now.
        let mut said: Vec<(Txid, i64)> = Vec::new();
        let mut may_go: BTreeSet<Txid> = BTreeSet::new();
        for round in 0..400 {
            let before = history.head;
            history.step(Steps::Any);
            if history.head > before {
                said.push((txid(history.head), history.clock));
            }
            if round % 19 > 0 {
                continue;
            }
            let now = history.now();
            let plan = history.plan(&policy);
            check(&history, &plan, seed);
            history.carry_out(&plan);
            let (points, mut newest) = (history.points(), i64::MIN);
            for (at, (txid, clock)) in said.iter().enumerate() {
                if *clock <= now {
                    newest = newest.max(*clock);
                }
                let minute = |clock: i64| clock.div_euclid(MINUTE);
                let next = said.get(at + 1).map(|(_, clock)| minute(*clock));
                let of_minute =
                    next != Some(minute(*clock)) && newest >= now - millis(policy.minutes);
                let stays = *clock > now || newest >= now - millis(policy.points) || of_minute;
                if !stays {
                    may_go.insert(*txid);
                }
                let text = format!("seed {seed}, round {round}: {txid:?} of {}", time(*clock));
                assert!(points.contains(txid) || may_go.contains(txid), "{text}");
            }
        }
    }
}
