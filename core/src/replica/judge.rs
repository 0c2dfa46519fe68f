//! Whether a file leads on from what the replica holds, and what to do next. Pure.

use std::cmp::Reverse;
use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Header, Mark, Tracking};
use crate::manifest::{Catalog, CatalogFile, FileKey};
use crate::restore::latest;
use crate::types::{Lineage, PageSize, StreamId, Txid};

/// Where a replica stands, as far as decisions need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position {
    pub(super) txid: Txid,
    pub(super) stream: StreamId,
    pub(super) checksum: crate::types::Checksum,
    pub(super) page_size: PageSize,
    /// Whether the file is proved to hold this state. If not, it may hold the one after the next file: the
    /// program may have died between commit and state file.
    pub(super) proved: bool,
}

/// Why the replica must be made anew.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// The state file is damaged.
    StateDamaged,
    /// The file is no database any more, or not readable as one.
    FileDamaged,
    /// Somebody else wrote to the replica.
    LocalWrite,
    /// A bootstrap was interrupted.
    Interrupted,
    /// The files that lead on from its state are gone.
    Gap,
    /// The stream began a new history.
    NewLineage,
    /// The state was written by somebody whose turn had ended: it is no part of the history.
    Overtaken,
    /// Another page size, text encoding or reserved space.
    NewShape,
}

impl Reason {
    /// The reason in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StateDamaged => "state_damaged",
            Self::FileDamaged => "file_damaged",
            Self::LocalWrite => "local_write",
            Self::Interrupted => "interrupted",
            Self::Gap => "gap",
            Self::NewLineage => "new_lineage",
            Self::Overtaken => "overtaken",
            Self::NewShape => "new_shape",
        }
    }

    /// Whether a state with a lower TXID may take the place of the present one: the present one is no part of
    /// the history that the stream has now.
    pub(super) const fn may_go_back(self) -> bool {
        match self {
            Self::NewLineage | Self::Overtaken => true,
            Self::StateDamaged
            | Self::FileDamaged
            | Self::LocalWrite
            | Self::Interrupted
            | Self::Gap
            | Self::NewShape => false,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StateDamaged => "its state file is damaged",
            Self::FileDamaged => "its file is damaged",
            Self::LocalWrite => "somebody else wrote to it",
            Self::Interrupted => "a bootstrap was interrupted",
            Self::Gap => "the files that lead on from its state are no longer stored",
            Self::NewLineage => "the stream began a new history",
            Self::Overtaken => "its state was written by somebody whose turn had ended",
            Self::NewShape => "the source changed its page size or text encoding",
        })
    }
}

/// How a file that fits is applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// Commits that follow each other.
    Following,
    /// A jump: what lies between was not seen, or may hold a jump.
    Jump,
}

/// Why a file is not applied.
#[derive(Debug)]
pub(super) enum Misfit {
    /// Its header, which is here, tells something that the plan did not know: make it again.
    Learned(Box<Header>, Error),
    /// It has another shape: only a new file can hold it.
    Shape,
    /// It is damaged, or does not lead on from here.
    Damaged(Error),
}

/// Judges a file by its header, before any of its pages is used.
pub(super) fn judge(key: FileKey, header: &Header, at: &Position) -> Result<Fit, Misfit> {
    let damaged = |message: String| Misfit::Damaged(Error::new(ErrorKind::Corrupt, message));
    let learned = |message: String| {
        let error = Error::new(ErrorKind::Corrupt, message);
        Misfit::Learned(Box::new(header.clone()), error)
    };
    if header.range != key.range() {
        return Err(damaged(format!(
            "the file is named {} but holds {}",
            key.range(),
            header.range
        )));
    }
    let Some(stream) = header.stream() else {
        return Err(damaged("written by another program".to_owned()));
    };
    if stream.lineage != at.stream.lineage {
        return Err(learned(format!(
            "it is of history {}, the replica of {}",
            stream.lineage, at.stream.lineage
        )));
    }
    let overlaps = header.range.min() <= at.txid;
    let captured = key.level() == 0;
    if stream.epoch < at.stream.epoch && captured {
        return Err(learned(format!(
            "written in turn {}, the replica's state in turn {}",
            stream.epoch.get(),
            at.stream.epoch.get()
        )));
    }
    if stream.epoch > at.stream.epoch && captured && overlaps {
        return Err(learned(format!(
            "turn {} began before TXID {}, the replica's state is of turn {}",
            stream.epoch.get(),
            at.txid.get(),
            at.stream.epoch.get()
        )));
    }
    if !header.range.extends(at.txid) {
        return Err(damaged(format!(
            "it does not lead on from TXID {}",
            at.txid.get()
        )));
    }
    if header.page_size != at.page_size {
        return Err(Misfit::Shape);
    }
    if let Tracking::Tracked {
        pre_apply: Some(pre),
    } = header.tracking
        && at.proved
        && !overlaps
        && header.mark != Mark::Base
        && pre != at.checksum
    {
        return Err(damaged(format!(
            "made over the state {pre}, the replica has {} at TXID {}",
            at.checksum,
            at.txid.get()
        )));
    }
    Ok(match (captured, header.mark, at.proved) {
        (true, Mark::None, true) => Fit::Following,
        _ => Fit::Jump,
    })
}

/// What to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Nothing: the replica is at the stream's newest state.
    Nothing,
    /// Apply these, in this order.
    Apply(Vec<CatalogFile>),
    /// Make the replica anew.
    Renew(Reason),
}

/// Decides from everything that is known of the stream.
///
/// # Errors
/// `Corrupt` where files are missing or damaged on the way to the newest state and no other way leads there;
/// `NotFound` where no restore can begin.
pub(super) fn next(catalog: &Catalog, at: &Position) -> Result<Next> {
    if catalog.turns().is_dead(at.stream, at.txid) {
        return Ok(match newest_lineage(catalog) == Some(at.stream.lineage) {
            true => Next::Renew(Reason::Overtaken),
            false => Next::Renew(Reason::NewLineage),
        });
    }
    let mut files = onward(catalog, at.txid, at.stream.lineage);
    if !at.proved {
        files = shortest(catalog, at).into_iter().collect();
    }
    if !files.is_empty() {
        return Ok(Next::Apply(files));
    }
    // Nothing leads on; is there anything to be led to?
    let beyond = catalog
        .live()
        .iter()
        .any(|file| file.range().max() > at.txid);
    let newest = match latest(catalog) {
        Ok((newest, _)) => newest,
        // The replica needs no snapshot to be where it is.
        Err(error) if error.kind() == ErrorKind::NotFound && !beyond => at.txid,
        Err(error) => return Err(error),
    };
    if newest_lineage(catalog).is_some_and(|lineage| lineage != at.stream.lineage) {
        return Ok(Next::Renew(Reason::NewLineage));
    }
    if newest > at.txid {
        return Ok(Next::Renew(Reason::Gap));
    }
    if newest < at.txid {
        let message = format!(
            "the newest state stored is TXID {}, the replica is at {}: files are gone",
            newest.get(),
            at.txid.get()
        );
        return Err(Error::new(ErrorKind::Corrupt, message)
            .on(catalog.layout().folder())
            .hint("see: walrust verify"));
    }
    Ok(match at.proved {
        true => Next::Nothing,
        // No file could have led to what it holds.
        false => Next::Renew(Reason::LocalWrite),
    })
}

/// The history that the newest file belongs to.
fn newest_lineage(catalog: &Catalog) -> Option<Lineage> {
    let live = catalog.live();
    let newest = live.iter().max_by_key(|file| file.range().max())?;
    catalog.lineage_of(newest)
}

/// The file that leads on least far: the one that a replica of which only the record is missing has applied.
fn shortest(catalog: &Catalog, at: &Position) -> Option<CatalogFile> {
    let live = catalog.live();
    let leads_on = live.into_iter().filter(|file| {
        file.range().extends(at.txid)
            && !file.range().is_snapshot()
            && catalog.lineage_of(file) == Some(at.stream.lineage)
    });
    leads_on.min_by_key(|file| file.range().max()).cloned()
}

/// The files that lead on from the state of `lineage` at `at`, as far as any do: at each step the one that leads
/// furthest; of several the smallest. A base is one of them, as it holds every page; a snapshot is no step.
fn onward(catalog: &Catalog, mut at: Txid, lineage: Lineage) -> Vec<CatalogFile> {
    let mut files = catalog.live();
    files.retain(|file| !file.range().is_snapshot() && catalog.lineage_of(file) == Some(lineage));
    files.sort_by_key(|file| file.range().min());
    let mut rest = files.into_iter().peekable();
    let mut best: Option<&CatalogFile> = None;
    let mut steps = Vec::new();
    loop {
        while let Some(file) = rest.next_if(|file| file.range().min() <= at.next()) {
            let rank = |file: &CatalogFile| (file.range().max(), Reverse(file.size));
            if best.is_none_or(|best| rank(file) > rank(best)) {
                best = Some(file);
            }
        }
        match best.take().filter(|file| file.range().max() > at) {
            Some(next) => {
                at = next.range().max();
                steps.push(next.clone());
            }
            None => return steps,
        }
    }
}
