//! From a plan to a smaller bucket.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::look::{Look, Spare, look};
use super::plan::{Fate, Plan, Standing, StoredFile, plan};
use super::report::{CompactReport, SnapshotLine};
use crate::clock::Clock;
use crate::config::RetentionPolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{conditional_writes_hold, writer_may_live};
use crate::manifest::{Compaction, FileKey, IndexPage, ManifestDelta, PageRef, Publisher};
use crate::restore::PointSummary;
use crate::store::{Layout, Put, Store};

/// Plans made before giving up: each compaction that goes by meanwhile costs one.
const ATTEMPTS: u32 = 5;

/// Keys in one page of what is deleted: some 1.5 MB, below what a page of the index may be.
const KEYS: usize = 20_000;

/// Objects that are deleted with one request, by S3's rules.
const BATCH: usize = 1000;

/// Whether anything is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DryRun {
    /// Only the plan is made.
    Yes,
    /// What is planned is done.
    No,
}

/// Who writes the index besides us.
#[derive(Clone, Debug)]
pub enum Writer {
    /// Perhaps a watcher somewhere. The store's conditional writes keep us apart; where it has none, no
    /// watcher may live.
    Elsewhere,
    /// The watcher that we are part of, with this publisher.
    Here(Arc<Mutex<Publisher>>),
}

/// What to compact, and how.
#[derive(Clone, Debug)]
pub struct CompactRequest {
    /// The database in the bucket.
    pub layout: Layout,
    /// What stays.
    pub policy: RetentionPolicy,
    /// Whether anything is done.
    pub dry_run: DryRun,
    /// Who else writes.
    pub writer: Writer,
}

/// Compacts one database.
///
/// # Errors
///
/// `NotFound` for an unknown name; `Corrupt`, `Unsupported` and those of the store where not everything can
/// be read, and then nothing was done; the kind of the first failure where objects could not be deleted:
/// the rest is done, and the next run deletes them.
///
/// # Cancel safety
///
/// Dropping the future leaves every restore point that was to stay; the next run deletes what is left.
pub async fn compact(
    store: &Arc<dyn Store>,
    request: &CompactRequest,
    clock: &Clock,
) -> Result<CompactReport> {
    let run = Run {
        store,
        request,
        clock,
    };
    for _ in 0..ATTEMPTS {
        let thought = run.think().await?;
        if request.dry_run == DryRun::Yes || thought.is_empty() {
            return Ok(thought.report);
        }
        run.require_order().await?;
        let published = match thought.is_written_down() {
            true => Ok(()),
            false => run.publish(&thought).await,
        };
        match published {
            Ok(()) => {
                run.delete(&thought).await?;
                return Ok(thought.report);
            }
            Err(error) if error.kind() == ErrorKind::Busy => {}
            Err(error) => return Err(error),
        }
    }
    let message = "other compactions kept going by";
    Err(Error::new(ErrorKind::Busy, message)
        .on(request.layout.folder())
        .hint("nothing was deleted; run it again"))
}

struct Run<'r> {
    store: &'r Arc<dyn Store>,
    request: &'r CompactRequest,
    clock: &'r Clock,
}

/// A plan and what it means.
struct Thought {
    look: Look,
    report: CompactReport,
    /// Files of writers whose turn had ended: they go before the files that show it.
    dead: Vec<FileKey>,
    /// The others, oldest first.
    files: Vec<FileKey>,
    delta: ManifestDelta,
}

impl Thought {
    fn is_empty(&self) -> bool {
        self.report.delete_objects == 0 && self.delta.remove.is_empty()
    }

    /// Whether all that goes was written down by an earlier compaction, which then failed to delete it.
    fn is_written_down(&self) -> bool {
        let written: HashSet<FileKey> = self.look.leftovers.iter().map(|left| left.key).collect();
        self.delta.remove.is_empty()
            && self.delta.add.is_empty()
            && self.dead.is_empty()
            && self.look.pages.is_empty()
            && self.files.iter().all(|key| written.contains(key))
    }
}

impl Run<'_> {
    async fn think(&self) -> Result<Thought> {
        let layout = &self.request.layout;
        let look = look(&**self.store, layout, self.clock).await?;
        let policy = self.request.policy;
        // A long history takes a while, and the runtime's thread has other things to do.
        let thinking = tokio::task::spawn_blocking(move || {
            let plan = plan(&look.files, &look.turns, look.head, &policy, look.now)?;
            Ok::<_, Error>((look, plan))
        });
        let (look, plan) = match thinking.await {
            Ok(thought) => thought.map_err(|error| error.on(layout.folder()))?,
            Err(error) if error.is_panic() => {
                return Err(Error::new(ErrorKind::Internal, "the plan panicked"));
            }
            Err(_) => return Err(Error::new(ErrorKind::Cancelled, "shutting down")),
        };
        Ok(self.thought(look, &plan))
    }

    fn thought(&self, look: Look, plan: &Plan) -> Thought {
        let fated = |fate: Fate| {
            let pairs = look.files.iter().zip(&plan.fates);
            pairs
                .filter(move |(_, found)| **found == fate)
                .map(|(file, _)| file)
        };
        let dead: Vec<FileKey> = fated(Fate::Dead).map(|file| file.key).collect();
        let mut files: Vec<FileKey> = fated(Fate::Drop).map(|file| file.key).collect();
        let left = look.leftovers.iter();
        files.extend(
            left.clone()
                .filter(|left| left.size.is_some())
                .map(|left| left.key),
        );
        files.sort_by_key(|key| (key.range().max(), *key));
        let named = fated(Fate::Dead)
            .chain(fated(Fate::Drop))
            .filter(|file| file.standing == Standing::Named)
            .map(|file| file.key);
        let remove = named.chain(left.filter(|left| left.named).map(|left| left.key));
        // What stays and lies behind the index's head is named, so that no restore must look for it.
        let stays = fated(Fate::Keep).filter(|file| file.key.range().max() <= look.head);
        let add = stays.filter_map(|file| look.unnamed.get(&file.key).cloned());
        let delta = ManifestDelta {
            add: add.collect(),
            remove: remove.collect(),
            compaction: Some(Compaction {
                after: look.compactions,
                removed: Vec::new(),
                oldest: plan.earliest.map(|point| point.txid),
            }),
            ..ManifestDelta::default()
        };
        let report = self.report(&look, plan);
        Thought {
            report,
            dead,
            files,
            delta,
            look,
        }
    }

    fn report(&self, look: &Look, plan: &Plan) -> CompactReport {
        let layout = &self.request.layout;
        let line = |file: &StoredFile| SnapshotLine {
            key: layout.key(file.key.entry()),
            txid: file.key.range().max().get(),
            time: Some(file.created),
            bytes: file.size,
            tiers: Vec::new(),
        };
        let (mut keep, mut delete) = (Vec::new(), Vec::new());
        let (mut delete_objects, mut free_bytes) = (0, 0);
        for (file, fate) in look.files.iter().zip(&plan.fates) {
            let goes = matches!(fate, Fate::Dead | Fate::Drop);
            if goes {
                delete_objects += 1;
                free_bytes += file.size;
            }
            if file.key.level() == 9 {
                let lines = if goes { &mut delete } else { &mut keep };
                lines.push(line(file));
            }
        }
        for line in &mut keep {
            let tiers = plan.tiers.iter().find(|(txid, _)| txid.get() == line.txid);
            line.tiers = tiers.map(|(_, tiers)| tiers.clone()).unwrap_or_default();
        }
        for left in &look.leftovers {
            let Some(size) = left.size else { continue };
            delete_objects += 1;
            free_bytes += size;
            if left.key.level() == 9 {
                delete.push(SnapshotLine {
                    key: layout.key(left.key.entry()),
                    txid: left.key.range().max().get(),
                    time: None,
                    bytes: size,
                    tiers: Vec::new(),
                });
            }
        }
        delete_objects += look.pages.len() as u64;
        free_bytes += look.pages.iter().map(|page| page.size).sum::<u64>();
        keep.sort_by_key(|line| std::cmp::Reverse(line.txid));
        delete.sort_by_key(|line| std::cmp::Reverse(line.txid));
        CompactReport {
            name: layout.name().to_string(),
            dry_run: self.request.dry_run == DryRun::Yes,
            keep,
            delete,
            delete_objects,
            free_bytes,
            earliest: plan.earliest.as_ref().map(PointSummary::from),
            latest: plan.latest.as_ref().map(PointSummary::from),
            points_after: plan.points,
            notes: look.notes.clone(),
        }
    }

    /// Without conditional writes a watcher elsewhere and we would overwrite each other's index.
    async fn require_order(&self) -> Result<()> {
        if matches!(self.request.writer, Writer::Here(_)) {
            return Ok(());
        }
        let layout = &self.request.layout;
        if conditional_writes_hold(&**self.store, layout.prefix()).await?
            || !writer_may_live(&**self.store, layout).await?
        {
            return Ok(());
        }
        let message = "the store has no conditional writes, and a watcher may be running";
        Err(Error::new(ErrorKind::Busy, message)
            .on(layout.lease())
            .hint("let the watcher compact (compact_interval), or stop it first"))
    }

    /// Writes down what is about to be deleted, and the index without it, in that order.
    async fn publish(&self, thought: &Thought) -> Result<()> {
        let mut delta = thought.delta.clone();
        let removed = self.store_removed(thought).await?;
        if let Some(compaction) = &mut delta.compaction {
            compaction.removed = removed;
        }
        let now = self.clock.now();
        match &self.request.writer {
            Writer::Here(publisher) => publisher.lock().await.publish(&delta, now).await?,
            Writer::Elsewhere => {
                let layout = self.request.layout.clone();
                let mut publisher = Publisher::new(self.store.clone(), layout);
                publisher.publish(&delta, now).await?
            }
        };
        Ok(())
    }

    async fn store_removed(&self, thought: &Thought) -> Result<Vec<PageRef>> {
        let keys: Vec<FileKey> = thought.dead.iter().chain(&thought.files).copied().collect();
        let mut references = Vec::new();
        for keys in keys.chunks(KEYS) {
            let page = IndexPage::of_removed(keys.to_vec());
            let Some((bytes, reference)) = page.encode()? else {
                continue;
            };
            let key = self
                .request
                .layout
                .index_page(reference.range, reference.hash);
            self.store
                .put(&key, Bytes::from(bytes), Put::new_object())
                .await?;
            references.push(reference);
        }
        Ok(references)
    }

    /// Deletes. A crash after any of it leaves objects that nothing names and the last page of removals does.
    async fn delete(&self, thought: &Thought) -> Result<()> {
        let object = |key: &FileKey| self.request.layout.key(key.entry());
        let dead: Vec<String> = thought.dead.iter().map(object).collect();
        let mut others: Vec<String> = thought.files.iter().map(object).collect();
        let pages = thought.look.pages.iter();
        others.extend(pages.map(|Spare { object, .. }| object.clone()));
        let all = dead.len() + others.len();
        // While some of the dead stand, the files that show them dead must stand too.
        let mut failed = self.delete_objects(&dead).await;
        failed.count += match failed.first {
            Some(_) => others.len(),
            None => 0,
        };
        if failed.first.is_none() {
            failed = self.delete_objects(&others).await;
        }
        let Some((key, first)) = failed.first else {
            return Ok(());
        };
        let count = failed.count;
        let message = format!(
            "{count} of {all} objects were not deleted: {}",
            first.message()
        );
        Err(Error::new(first.kind(), message)
            .on(key)
            .because(first)
            .hint("the index no longer names them; run it again"))
    }

    async fn delete_objects(&self, keys: &[String]) -> Failed {
        let mut failed = Failed::default();
        let mut left = keys.len();
        for batch in keys.chunks(BATCH) {
            match self.store.delete(batch).await {
                Ok(failures) => {
                    left -= batch.len();
                    failed.count += failures.len();
                    failed.first = failed.first.or(failures.into_iter().next());
                }
                // Nobody knows how much of it was done.
                Err(error) => {
                    failed.count += left;
                    let key = batch.first().cloned().unwrap_or_default();
                    failed.first = failed.first.or(Some((key, error)));
                    break;
                }
            }
        }
        failed
    }
}

/// Objects that could not be deleted.
#[derive(Default)]
struct Failed {
    count: usize,
    /// One of them, and why.
    first: Option<(String, Error)>,
}
