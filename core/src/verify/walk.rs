//! Reads every file once, in the order of the chain.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::chain::Road;
use super::follow::Walk;
use super::inventory::{Inventory, Item};
use super::report::Issue;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{FileKey, IN_FLIGHT};
use crate::restore::{Progress, Source, fetch_all};
use crate::store::Store;

/// What reading everything gave.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Files that are right, and their size.
    pub(super) good: BTreeMap<FileKey, u64>,
    pub(super) issues: Vec<Issue>,
    /// Files whose objects have gone since they were listed.
    pub(super) gone: HashSet<FileKey>,
}

/// What reading needs.
pub(super) struct Reading<'a> {
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) progress: &'a Arc<dyn Progress>,
    pub(super) scratch: PathBuf,
}

impl Reading<'_> {
    /// Reads all readable files of `inventory`.
    ///
    /// Errors: those of the store, once several objects cannot be fetched, and those of the scratch files.
    pub(super) async fn walk(&self, inventory: &Inventory, road: &Road) -> Result<Walked> {
        let mut items: Vec<&Item> = (inventory.items.values())
            .filter(|item| item.is_readable())
            .collect();
        items.sort_by_key(|item| road.order(item.key));
        let sources: Vec<Source> = items.iter().map(|item| self.source(item)).collect();
        let bytes = sources.iter().map(|source| source.size).sum();
        self.progress.planned(0, sources.len() as u64, bytes);
        let (sender, mut arrived) = mpsc::channel(IN_FLIGHT);
        let fetch = fetch_all(sources.clone(), sender);
        let read = async {
            let mut walk = Walk::new(&self.scratch, inventory, road);
            for (item, source) in items.into_iter().zip(&sources) {
                let Some(arrived) = arrived.recv().await else {
                    let message = "the files stopped coming";
                    return Err(Error::new(ErrorKind::Internal, message));
                };
                walk.next(item, source, arrived).await?;
            }
            walk.end().await
        };
        futures_util::pin_mut!(fetch, read);
        match futures_util::future::select(read, fetch).await {
            futures_util::future::Either::Left((walked, _)) => walked,
            futures_util::future::Either::Right(((), read)) => read.await,
        }
    }

    fn source(&self, item: &Item) -> Source {
        Source {
            store: self.store.clone(),
            object: item.object.clone(),
            size: item.listed.unwrap_or(0),
            progress: self.progress.clone(),
        }
    }
}
