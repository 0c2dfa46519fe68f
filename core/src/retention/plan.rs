//! What a compaction keeps and what goes. Pure: the files, the policy, now.

use super::keep::Planner;
use super::tiers::Tier;
use crate::config::RetentionPolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{FileEntry, FileKey, FileKind, Turns};
use crate::restore::{Hop, Point, Ways};
use crate::types::{Lineage, StreamId, Timestamp, Txid};

/// The level of snapshots.
const SNAPSHOTS: u8 = 9;

/// One file of the folder, as a plan must know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredFile {
    /// Level and transactions.
    pub key: FileKey,
    /// What it is.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// When its last transaction was seen.
    pub last_commit: Option<Timestamp>,
    /// When it was made.
    pub created: Timestamp,
    /// Who wrote it.
    pub stream: Option<StreamId>,
    /// Whether the index names it.
    pub standing: Standing,
}

/// What the index knows of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is named.
    Named,
    /// It is not, and its writer may be about to name it.
    Fresh,
    /// It is not, and nobody is about to: it was stored too long ago.
    Loose,
}

impl StoredFile {
    /// What `entry` says.
    pub fn new(entry: &FileEntry, standing: Standing) -> Self {
        Self {
            key: entry.key,
            kind: entry.kind,
            size: entry.size,
            last_commit: entry.last_commit,
            created: entry.created,
            stream: entry.stream,
            standing,
        }
    }

    pub(super) fn min(&self) -> Txid {
        self.key.range().min()
    }

    pub(super) fn max(&self) -> Txid {
        self.key.range().max()
    }

    pub(super) fn lineage(&self) -> Option<Lineage> {
        self.stream.map(|stream| stream.lineage)
    }

    pub(super) fn is_snapshot(&self) -> bool {
        self.key.level() == SNAPSHOTS
    }

    /// When its last transaction was seen, as well as it is known.
    pub(super) fn time(&self) -> Timestamp {
        self.last_commit.unwrap_or(self.created)
    }
}

/// What becomes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It stays.
    Keep,
    /// Nobody needs it, but it is too new to be sure of that: it stays for now.
    Wait,
    /// It is of a writer whose turn had ended.
    Dead,
    /// No point that stays needs it.
    Drop,
}

/// A compaction, thought out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What becomes of each file, in the order given.
    pub fates: Vec<Fate>,
    /// Why the snapshots stay that do, by TXID.
    pub tiers: Vec<(Txid, Vec<Tier>)>,
    /// The points that were found worth keeping, by TXID.
    pub retained: Vec<Txid>,
    /// All points that can be restored afterwards.
    pub points: u64,
    /// The first of them.
    pub earliest: Option<Point>,
    /// The last of them.
    pub latest: Option<Point>,
}

/// Plans a compaction. `files` are all that there are; `head` is the last TXID that the index names.
///
/// # Errors
///
/// `Internal` if what stays would not lead to every point that is to stay; nothing may be deleted then.
pub fn plan(
    files: &[StoredFile],
    turns: &Turns,
    head: Txid,
    policy: &RetentionPolicy,
    now: Timestamp,
) -> Result<Plan> {
    let is_dead = |file: &StoredFile| {
        file.stream
            .is_some_and(|stream| turns.is_dead(stream, file.max()))
    };
    let live = (0..files.len()).filter(|at| files.get(*at).is_some_and(|file| !is_dead(file)));
    let live: Vec<usize> = live.collect();
    let mut planner = Planner::new(files, live, policy, now);
    // Without any snapshot nothing can be thinned: there is no oldest one to go back to.
    if !planner.snapshots.is_empty() {
        planner.keep_points();
    } else {
        planner.kept.fill(true);
    }
    planner.keep_newest_incremental();
    planner.keep_stranded();
    let kept = std::mem::take(&mut planner.kept);
    let retained = planner.retained();
    let tiers = planner.tiers;
    let fates = files.iter().zip(&kept).map(|(file, kept)| {
        let named = file.standing == Standing::Named;
        match (is_dead(file), kept) {
            (true, _) => Fate::Dead,
            (false, true) => Fate::Keep,
            (false, false) if named => Fate::Drop,
            // What lies ahead of the index is its writer's business.
            (false, false) if file.standing == Standing::Loose && file.max() <= head => Fate::Drop,
            (false, false) => Fate::Wait,
        }
    });
    let fates: Vec<Fate> = fates.collect();
    prove(files, fates, tiers, retained)
}

/// Makes sure of the plan by what restores use: everything that is to stay can be reached over what stays.
fn prove(
    files: &[StoredFile],
    fates: Vec<Fate>,
    tiers: Vec<(Txid, Vec<Tier>)>,
    retained: Vec<Txid>,
) -> Result<Plan> {
    let stays = |at: &usize| fates.get(*at) == Some(&Fate::Keep);
    let kept: Vec<usize> = (0..files.len()).filter(stays).collect();
    let ways = ways(files, &kept);
    let mut wanted = retained.clone();
    wanted.extend(tiers.iter().map(|(txid, _)| *txid));
    wanted.sort_unstable();
    if let Some(missing) = ways.missing(wanted) {
        let message = format!(
            "the plan would lose TXID {}; nothing is done",
            missing.get()
        );
        return Err(Error::new(ErrorKind::Internal, message));
    }
    let mut points = 0;
    let (mut earliest, mut latest) = (None, None);
    ways.climb(|stop, reached| {
        points += 1;
        let ends = reached.iter().filter_map(|id| files.get(*kept.get(*id)?));
        let point = Point {
            txid: stop.txid,
            time: time_of(ends),
        };
        earliest = earliest.or(Some(point));
        latest = Some(point);
    });
    Ok(Plan {
        fates,
        tiers,
        retained,
        points,
        earliest,
        latest,
    })
}

/// When the state that `files` end at was seen: by a commit's time where some file has it.
pub(super) fn time_of<'f>(files: impl Iterator<Item = &'f StoredFile>) -> Option<Timestamp> {
    let best = files.min_by_key(|file| (file.last_commit.is_none(), file.key.level() % SNAPSHOTS));
    best.map(StoredFile::time)
}

/// The ways over some of `files`; an id is a place in `chosen`.
pub(super) fn ways(files: &[StoredFile], chosen: &[usize]) -> Ways {
    let hops = chosen
        .iter()
        .filter_map(|at| files.get(*at))
        .map(|file| Hop {
            key: file.key,
            size: file.size,
            start: file.kind.is_start(),
            lineage: file.lineage(),
        });
    Ways::new(hops.collect())
}
