//! Which files lead to a restore point: pure over a [`Catalog`].

use super::ways::{Hop, Stop, Ways};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Catalog, CatalogFile, Format};
use crate::types::{Timestamp, Txid};

/// A state that a restore gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    /// Its last transaction.
    pub txid: Txid,
    /// When that was seen; unknown where only the file's name is known.
    pub time: Option<Timestamp>,
}

/// Files that, applied in order, give the state after the last of them. The first holds every page; each
/// other one begins no later than behind its predecessor, and leads further.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LtxChain {
    files: Vec<CatalogFile>,
}

impl LtxChain {
    /// The files, oldest first; never empty.
    pub fn files(&self) -> &[CatalogFile] {
        &self.files
    }

    /// The state that the chain leads to.
    pub fn txid(&self) -> Txid {
        self.last().map_or(Txid::FIRST, |file| file.range().max())
    }

    /// The file that the chain begins with.
    pub fn base(&self) -> Option<&CatalogFile> {
        self.files.first()
    }

    /// The file that the chain ends with.
    pub fn last(&self) -> Option<&CatalogFile> {
        self.files.last()
    }

    /// Bytes to fetch.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

/// Every state that a restore gives, by TXID: the ends of files that a chain reaches. Files alone decide,
/// so a point is offered here exactly if [`chain_to`] finds a way to it.
pub fn points(catalog: &Catalog) -> Vec<Point> {
    let files = catalog.live();
    let ways = ways(catalog, &files);
    let time = |stop: &Stop| {
        // Of two files that end at one TXID both may tell the time.
        let ending = ways.ending(stop).iter().filter_map(|id| files.get(*id));
        let best = ending
            .map(|file| time_of(file))
            .min_by_key(|(rank, _)| *rank);
        best.and_then(|(_, time)| time)
    };
    ways.stops()
        .iter()
        .map(|stop| Point {
            txid: stop.txid,
            time: time(stop),
        })
        .collect()
}

fn ways(catalog: &Catalog, files: &[&CatalogFile]) -> Ways {
    let hop = |file: &&CatalogFile| Hop {
        key: file.key,
        size: file.size,
        start: file.is_start(),
        lineage: catalog.lineage_of(file),
    };
    Ways::new(files.iter().map(hop).collect())
}

/// A file's time and how far to trust it: the commit's time where some file has it, else a creation.
fn time_of(file: &CatalogFile) -> (u8, Option<Timestamp>) {
    match &file.entry {
        Some(entry) => match entry.last_commit {
            Some(last) => (file.key.level() % 9, Some(last)),
            None => (9, Some(entry.created)),
        },
        None => (10, None),
    }
}

/// The newest state, and what people should know of it.
///
/// Errors: `Corrupt` where files are missing on the way to it, `NotFound` where no restore can begin.
pub(crate) fn latest(catalog: &Catalog) -> Result<(Txid, Option<String>)> {
    let points = points(catalog);
    let Some(newest) = points.last().map(|point| point.txid) else {
        return Err(no_start(catalog));
    };
    let wanted = catalog.last_named().unwrap_or(newest);
    if newest == wanted {
        return Ok((newest, None));
    }
    // Uploads run side by side: behind the index, a file may stand before its predecessor does, and stay
    // alone if the writer died then. What the index names was whole.
    let named = |file: &&CatalogFile| file.indexed || catalog.format() == Format::Litestream;
    let live = catalog.live();
    let stranded = live.iter().filter(|file| file.range().max() > newest);
    let lost = catalog.losses().any(|(key, _)| key.range().max() > newest);
    // It follows without a gap and still leads nowhere: it belongs to another history.
    let misfit = live.iter().find(|file| file.range().extends(newest));
    if let Some(misfit) = misfit {
        let message = "the file belongs to another history than those before it";
        return Err(Error::new(ErrorKind::Corrupt, message).on(catalog.object(misfit.key)));
    }
    let behind_index = catalog.head().is_some_and(|head| newest >= head.txid);
    if behind_index && !lost && stranded.clone().all(|file| !named(file)) {
        let note = format!(
            "{} files behind a gap after TXID {} are not used",
            stranded.count(),
            newest.get()
        );
        return Ok((newest, Some(note)));
    }
    Err(gap(catalog, newest, wanted))
}

fn no_start(catalog: &Catalog) -> Error {
    let lost = catalog.losses().find(|(key, _)| key.range().is_snapshot());
    match lost {
        Some((key, reason)) => {
            let message = format!("no other snapshot is there: {reason}");
            Error::new(ErrorKind::Corrupt, message).on(catalog.object(key))
        }
        None => Error::new(
            ErrorKind::NotFound,
            "no snapshot is stored, so nothing can be restored yet",
        )
        .on(catalog.layout().folder()),
    }
}

/// Says which transactions are missing on the way from `reached` to `wanted`, and the object where a file
/// is known to be missing or damaged.
pub(super) fn gap(catalog: &Catalog, reached: Txid, wanted: Txid) -> Error {
    let mut losses = catalog
        .losses()
        .filter(|(key, _)| key.range().max() > reached && key.range().min() <= wanted);
    let hint = format!(
        "the newest state before that: --point-in-time txid:{}",
        reached.get()
    );
    if let Some((key, reason)) = losses.next() {
        return Error::new(ErrorKind::Corrupt, reason)
            .on(catalog.object(key))
            .hint(hint);
    }
    let next = catalog
        .live()
        .iter()
        .map(|file| file.range().min())
        .filter(|min| *min > reached)
        .min();
    let last = next.and_then(Txid::previous).unwrap_or(wanted);
    let message = format!(
        "transactions {} to {} are missing",
        reached.next().get(),
        last.get().max(reached.next().get())
    );
    Error::new(ErrorKind::Corrupt, message)
        .on(catalog.layout().folder())
        .hint(hint)
}

/// The chain to `target`: from the newest start that leads there, by as few files as possible. Nothing
/// where no chain ends exactly there.
pub fn chain_to(catalog: &Catalog, target: Txid) -> Option<LtxChain> {
    let files = catalog.live();
    let chain = ways(catalog, &files).chain_to(target)?;
    let files = chain.into_iter().filter_map(|id| files.get(id));
    Some(LtxChain {
        files: files.map(|file| (*file).clone()).collect(),
    })
}
