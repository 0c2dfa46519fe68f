//! Which files lead to a restore point: pure over a [`Catalog`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Catalog, CatalogFile, Format};
use crate::types::{Lineage, Timestamp, Txid};

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
    let mut files = catalog.live();
    files.sort_by_key(|file| (file.range().max(), Reverse(file.is_start())));
    // The newest point of each lineage on the way up.
    let mut reached: HashMap<Option<Lineage>, Txid> = HashMap::new();
    let mut points: BTreeMap<Txid, (u8, Option<Timestamp>)> = BTreeMap::new();
    // Of two files that end at one TXID only one needs to be reached, but both may tell the time.
    for group in files.chunk_by(|a, b| a.range().max() == b.range().max()) {
        let lineages = group.iter().filter(|file| {
            let before = reached.get(&catalog.lineage_of(file));
            file.is_start() || before.is_some_and(|at| file.range().min() <= at.next())
        });
        let lineages: Vec<_> = lineages.map(|file| catalog.lineage_of(file)).collect();
        let Some(first) = group.first().filter(|_| !lineages.is_empty()) else {
            continue;
        };
        let txid = first.range().max();
        for lineage in lineages {
            reached.insert(lineage, txid);
        }
        let time = group
            .iter()
            .map(|file| time_of(file))
            .min_by_key(|(rank, _)| *rank);
        points.extend(time.map(|time| (txid, time)));
    }
    points
        .into_iter()
        .map(|(txid, (_, time))| Point { txid, time })
        .collect()
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
    let mut files = catalog.live();
    files.retain(|file| file.range().max() <= target);
    files.sort_by_key(|file| file.range().min());
    let mut starts: Vec<&CatalogFile> = files
        .iter()
        .copied()
        .filter(|file| file.is_start())
        .collect();
    starts.sort_by_key(|file| (Reverse(file.range().max()), file.size));
    // Two starts at one TXID hold the same state; a third attempt would find the same gap.
    starts
        .into_iter()
        .find_map(|start| extend(catalog, start, &files, target))
}

/// Goes from `start` to `target`, at each step by the file that leads furthest; of several the smallest.
/// `files` are sorted by their first TXID.
fn extend(
    catalog: &Catalog,
    start: &CatalogFile,
    files: &[&CatalogFile],
    target: Txid,
) -> Option<LtxChain> {
    let lineage = catalog.lineage_of(start);
    let mut chain = vec![start.clone()];
    let mut at = start.range().max();
    let mut rest = files
        .iter()
        .filter(|file| !file.is_start() && catalog.lineage_of(file) == lineage)
        .peekable();
    let mut best: Option<&CatalogFile> = None;
    while at < target {
        while let Some(file) = rest.next_if(|file| file.range().min() <= at.next()) {
            let rank = |file: &CatalogFile| (file.range().max(), Reverse(file.size));
            if best.is_none_or(|best| rank(file) > rank(best)) {
                best = Some(file);
            }
        }
        let next = best.take().filter(|file| file.range().max() > at)?;
        at = next.range().max();
        chain.push(next.clone());
    }
    (at == target).then_some(LtxChain { files: chain })
}
