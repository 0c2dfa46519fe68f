//! One verification from beginning to end.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::chain::{Gap, Road};
use super::drill::{DrillRequest, DrillTarget, drill};
use super::inventory::{Inventory, Item, Standing};
use super::names::{Index, named_now};
use super::report::{Deep, Issue, IssueKind, VerifyReport};
use super::walk::{Reading, Walked};
use crate::clock::Clock;
use crate::error::{ErrorKind, Result};
use crate::lease::LeasePolicy;
use crate::manifest::{FileKey, Format, IN_FLIGHT};
use crate::restore::Progress;
use crate::store::{Layout, ObjectMeta, Store};
use crate::types::{StreamId, Txid, TxidRange};

/// What is not as it should be is looked at again after this time: a writer may be about to.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// How often at most, where each look shows trouble in other places.
const MORE_LOOKS: u32 = 5;

/// An object that the manifest of a running watch does not name yet is younger. It is written within a minute
/// of each change, and this leaves room for trouble with the store.
const UNNAMED_MS: i64 = 10 * 60 * 1000;

/// Whether anything may be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fix {
    /// Nothing.
    #[default]
    No,
    /// The manifest. The policy says how leases are dealt with.
    Yes(LeasePolicy),
}

/// What to verify, and how.
#[derive(Clone, Debug)]
pub struct VerifyRequest {
    /// The database in the bucket.
    pub layout: Layout,
    /// Whether to mend the manifest.
    pub fix: Fix,
    /// Whether to restore the newest state too, and let SQLite look at it.
    pub deep: bool,
    /// A directory for temporary files: 24 bytes for each page of the database, and the database itself for
    /// the deep check.
    pub scratch: PathBuf,
}

/// Verifies everything that is stored of one database.
///
/// What is wrong with it is told in the report. Without `fix` nothing is written, and reading suffices.
///
/// # Errors
///
/// `NotFound` for an unknown name, `Unsupported` for the manifest of a newer program, and those of the store:
/// what cannot be asked is never taken for missing (R142).
///
/// # Cancel safety
///
/// Dropping the future ends all requests and removes temporary files. While it mends the manifest, that may
/// have been written or not.
pub async fn verify(
    store: &Arc<dyn Store>,
    request: &VerifyRequest,
    clock: &Clock,
    progress: &Arc<dyn Progress>,
) -> Result<VerifyReport> {
    let started = Instant::now();
    let inventory = look(&**store, &request.layout).await?;
    let road = inventory.road(&HashSet::new());
    let reading = Reading {
        store,
        progress,
        scratch: request.scratch.clone(),
    };
    let walked = reading.walk(&inventory, &road).await?;
    let mut run = Run {
        store,
        request,
        clock,
        inventory,
        road,
        issues: Vec::new(),
    };
    run.judge(&walked).await?;
    if let Fix::Yes(policy) = request.fix {
        run.fix(policy).await;
    }
    progress.checking();
    let deep = run.deep().await;
    Ok(run.report(walked, deep, started.elapsed()))
}

/// Takes the inventory; again where that may have been unlucky. Beside a busy writer a listing may show a file and not
/// the one before it; what is really missing is missing in the same places a moment later.
async fn look(store: &dyn Store, layout: &Layout) -> Result<Inventory> {
    let mut inventory = Inventory::take(store, layout).await?;
    for _ in 0..MORE_LOOKS {
        if !inventory.is_suspicious() {
            break;
        }
        let gaps = inventory.gaps();
        tokio::time::sleep(SECOND_LOOK).await;
        inventory = Inventory::take(store, layout).await?;
        if inventory.gaps() == gaps {
            break;
        }
    }
    Ok(inventory)
}

/// A verification whose files are read.
pub(super) struct Run<'a> {
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) request: &'a VerifyRequest,
    pub(super) clock: &'a Clock,
    pub(super) inventory: Inventory,
    /// With everything that is named, missing or not.
    pub(super) road: Road,
    pub(super) issues: Vec<Issue>,
}

impl Run<'_> {
    /// Puts together what is wrong.
    async fn judge(&mut self, walked: &Walked) -> Result<()> {
        self.issues.extend(self.inventory.issues.iter().cloned());
        self.issues.extend(walked.issues.iter().cloned());
        self.judge_manifest();
        self.judge_orphans(walked).await?;
        let gaps = self.gap_issues(&self.road);
        self.issues.extend(gaps);
        self.judge_starts();
        self.note_dead();
        self.note_unnamed(walked).await
    }

    fn judge_manifest(&mut self) {
        let message = match &self.inventory.index {
            Index::There { .. } => return,
            Index::Missing if self.inventory.format == Format::Litestream => return,
            // Written once there is a base; that there is none is told.
            Index::Missing if self.road.points.is_empty() => return,
            Index::Missing => "File missing from S3".to_owned(),
            Index::Damaged(reason) => format!("The manifest is damaged: {reason}"),
        };
        let key = self.inventory.layout.manifest();
        let issue = Issue::new(IssueKind::Error, key, None, message);
        // A stranger among the files could be taken for the newest writer.
        let strange = |item: &Item| item.spoilt && item.entry.is_some();
        let strange = self.inventory.items.values().any(strange);
        self.issues
            .push(match strange || self.newest_writer().is_none() {
                true => issue,
                false => issue.fixable(),
            });
    }

    /// Orphans are what the manifest names, the store clearly does not have, and the manifest still names after
    /// that answer: a compaction shrinks it first and deletes then.
    async fn judge_orphans(&mut self, walked: &Walked) -> Result<()> {
        let unlisted = self.inventory.unlisted().map(|item| item.key);
        let gone = walked.gone.iter().copied();
        let suspects: BTreeSet<FileKey> = unlisted.chain(gone).collect();
        if suspects.is_empty() {
            return Ok(());
        }
        let items: Vec<&Item> = suspects
            .iter()
            .filter_map(|key| self.inventory.items.get(key))
            .collect();
        let heads = self.heads(&items).await?;
        let named = named_now(&**self.store, &self.request.layout).await?;
        for (item, head) in items.into_iter().zip(heads) {
            if !named.contains(&item.key) {
                continue;
            }
            let object = item.object.clone();
            let issue = match head {
                None => {
                    let message = "File missing from S3";
                    Issue::of_file(IssueKind::Orphan, item.key, object, message).fixable()
                }
                Some(_) => {
                    let message = "Not checked: the listing did not show it, and it is there";
                    let issue = Issue::of_file(IssueKind::Error, item.key, object, message);
                    issue.unread(ErrorKind::Unavailable)
                }
            };
            self.issues.push(issue);
        }
        Ok(())
    }

    /// The objects of `items`, nothing for a clear answer that there is none.
    async fn heads(&self, items: &[&Item]) -> Result<Vec<Option<ObjectMeta>>> {
        let objects = items.iter().map(|item| item.object.clone());
        stream::iter(objects.collect::<Vec<_>>())
            .map(|object| async move { self.store.head(&object).await })
            .buffered(IN_FLIGHT)
            .try_collect()
            .await
    }

    /// What is missing on `road`.
    pub(super) fn gap_issues(&self, road: &Road) -> Vec<Issue> {
        let manifest = self.inventory.layout.manifest();
        let issue = |gap: &Gap| {
            let expected = gap.expected.get();
            match gap.found.and_then(|key| self.inventory.items.get(&key)) {
                Some(item) => {
                    let min = item.key.range().min();
                    let last = min.previous().unwrap_or(min);
                    let message = format!("TXID gap: expected {expected}, found {}", min.get());
                    let range = TxidRange::new(gap.expected, last);
                    Issue::new(IssueKind::Gap, item.object.clone(), range, message)
                }
                None => {
                    let newest = self.inventory.newest().unwrap_or(gap.expected);
                    let message = format!(
                        "TXID gap: expected {expected}, found nothing, and the manifest names {} as the newest",
                        newest.get()
                    );
                    let range = TxidRange::new(gap.expected, newest);
                    Issue::new(IssueKind::Gap, manifest.clone(), range, message)
                }
            }
        };
        road.gaps.iter().map(issue).collect()
    }

    fn judge_starts(&mut self) {
        let folder = self.inventory.layout.folder();
        if self.road.points.is_empty() {
            let message = "No snapshot is stored: nothing can be restored";
            self.issues
                .push(Issue::new(IssueKind::Error, folder, None, message));
        } else if let Some(last) = self.road.early {
            let message = format!(
                "The files up to TXID {} come before the first snapshot: no restore uses them",
                last.get()
            );
            self.issues
                .push(Issue::new(IssueKind::Note, folder, None, message));
        }
    }

    fn note_dead(&mut self) {
        let dead = self.inventory.items.values();
        let dead = dead.filter(|item| item.dead && item.listed.is_some());
        let message = "Written after its writer's turn had ended: no restore uses it";
        let notes = dead
            .map(|item| Issue::of_file(IssueKind::Note, item.key, item.object.clone(), message));
        self.issues.extend(notes);
    }

    /// What the manifest could name and does not. While a watch runs that is normal for a while.
    async fn note_unnamed(&mut self, walked: &Walked) -> Result<()> {
        let unnamed = |item: &&Item| {
            item.standing == Standing::Unnamed
                && item.is_readable()
                && !walked.gone.contains(&item.key)
        };
        let items: Vec<&Item> = self.inventory.items.values().filter(unnamed).collect();
        if items.is_empty() {
            return Ok(());
        }
        let named = named_now(&**self.store, &self.request.layout).await?;
        let items: Vec<&Item> = items
            .into_iter()
            .filter(|item| !named.contains(&item.key))
            .collect();
        let heads = self.heads(&items).await?;
        let released = self
            .inventory
            .lease
            .as_ref()
            .is_some_and(|lease| lease.released);
        let now = self.inventory.date.unwrap_or_else(|| self.clock.now());
        let is_old = |meta: &ObjectMeta| now.millis_since(meta.modified) > UNNAMED_MS;
        let message = "Not in the manifest: restores find it by listing, if they need it";
        let notes = items.into_iter().zip(heads).filter_map(|(item, head)| {
            let meta = head?;
            (released || is_old(&meta))
                .then(|| Issue::of_file(IssueKind::Note, item.key, item.object.clone(), message))
        });
        let notes: Vec<Issue> = notes.collect();
        self.issues.extend(notes);
        Ok(())
    }

    /// Who wrote the newest file.
    pub(super) fn newest_writer(&self) -> Option<StreamId> {
        let alive = self.inventory.items.values();
        let alive = alive.filter(|item| !item.dead && !item.spoilt);
        let newest = alive.max_by_key(|item| {
            let epoch = item.entry.as_ref().and_then(|entry| entry.stream);
            (item.key.range().max(), epoch.map(|stream| stream.epoch))
        })?;
        newest.entry.as_ref()?.stream
    }

    async fn deep(&self) -> Deep {
        if !self.request.deep {
            return Deep::default();
        }
        let request = DrillRequest {
            layout: self.request.layout.clone(),
            target: DrillTarget::Latest,
            scratch: self.request.scratch.clone(),
        };
        let report = drill(self.store, &request, self.clock).await;
        Deep {
            ran: true,
            ok: Some(report.ok),
            failure: report.failure,
            message: report.message.or_else(|| {
                let txid = report.txid.map_or(0, Txid::get);
                Some(format!(
                    "TXID {txid} restored, integrity_check: {}",
                    report.integrity.as_deref().unwrap_or("not run")
                ))
            }),
        }
    }

    fn report(mut self, walked: Walked, deep: Deep, took: Duration) -> VerifyReport {
        let place = |issue: &Issue| {
            let is_note = issue.kind == IssueKind::Note;
            (is_note, issue.min_txid, issue.kind, issue.key.clone())
        };
        self.issues.sort_by_key(place);
        let standing = |standing: Standing| {
            let items = self.inventory.items.values();
            let counted = items.filter(|item| item.standing == standing && !item.dead);
            counted.count() as u64
        };
        let mut report = VerifyReport {
            name: self.request.layout.name().to_string(),
            ok: false,
            files: standing(Standing::Named),
            behind: standing(Standing::Behind),
            bytes: walked.good.values().sum(),
            txid: self.inventory.newest(),
            page_size: self.inventory.page_size(),
            verified: walked.good.len() as u64,
            issues: self.issues,
            deep,
            format: self.inventory.format.name(),
            manifest: matches!(self.inventory.index, Index::There { .. }),
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        };
        report.ok = report.failure().is_none();
        report
    }
}
