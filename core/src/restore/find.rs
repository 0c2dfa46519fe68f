//! From a target to a chain: looks further only where what is known does not suffice.

use super::plan::{LtxChain, chain_to, gap, latest, points};
use super::resolve::{no_such_point, point_at};
use super::target::RestoreTarget;
use crate::error::Result;
use crate::manifest::Catalog;
use crate::store::Store;
use crate::types::{Timestamp, Txid};

/// A restore point and the way to it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) chain: LtxChain,
    pub(super) note: Option<String>,
}

/// How far a catalog was read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Reach {
    /// The root of the index and the tail behind it.
    Root,
    /// The pages of the index too.
    Pages,
    /// Every object of the folder and every header.
    Everything,
}

async fn widen(catalog: &mut Catalog, store: &dyn Store, reach: Reach) -> Result<()> {
    match reach {
        Reach::Root => Ok(()),
        Reach::Pages => catalog.read_index_pages(store).await,
        Reach::Everything => {
            catalog.list_everything(store).await?;
            catalog.complete(store).await
        }
    }
}

/// Finds the restore point that `target` means and the files that lead to it. `fixed` is the point that an
/// earlier attempt of the same restore found; damage met since must not make it an older one.
///
/// Errors: `NotFound` where the target is no restore point, `Corrupt` where files on the way are missing,
/// and those of the store.
pub(super) async fn find(
    catalog: &mut Catalog,
    store: &dyn Store,
    target: RestoreTarget,
    fixed: Option<Txid>,
    now: Timestamp,
) -> Result<Found> {
    // Only complete knowledge tells which point a time means.
    let first = match (target, fixed) {
        (RestoreTarget::At(_), None) => {
            catalog.read_index_pages(store).await?;
            catalog.complete(store).await?;
            Reach::Pages
        }
        _ => Reach::Root,
    };
    let mut failure = None;
    for reach in [Reach::Root, Reach::Pages, Reach::Everything] {
        if reach < first {
            continue;
        }
        widen(catalog, store, reach).await?;
        match look(catalog, target, fixed, now) {
            Ok(found) => return Ok(found),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| no_such_point(&points(catalog), Txid::FIRST)))
}

fn look(
    catalog: &Catalog,
    target: RestoreTarget,
    fixed: Option<Txid>,
    now: Timestamp,
) -> Result<Found> {
    let (txid, note) = match (fixed, target) {
        (Some(txid), _) | (None, RestoreTarget::Txid(txid)) => (txid, None),
        (None, RestoreTarget::Latest) => latest(catalog)?,
        (None, RestoreTarget::At(time)) => point_at(&points(catalog), time, now)?,
    };
    match chain_to(catalog, txid) {
        Some(chain) => Ok(Found { chain, note }),
        None => Err(no_way(catalog, txid)),
    }
}

/// Why nothing leads to `txid`: it is no point, or files are missing on the way.
fn no_way(catalog: &Catalog, txid: Txid) -> crate::Error {
    let points = points(catalog);
    let ends_there = catalog.files().any(|file| file.range().max() == txid);
    let before = points.iter().rev().find(|point| point.txid < txid);
    match before {
        Some(before) if ends_there => gap(catalog, before.txid, txid),
        _ => no_such_point(&points, txid),
    }
}
