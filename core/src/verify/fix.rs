//! What `--fix` may do (R131, R26): take entries of missing objects out of the manifest, and write a manifest
//! that is missing or damaged anew. Never an object is deleted, and never anything is written blindly.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::chain::lost_stretches;
use super::report::{Issue, IssueKind};
use super::run::Run;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{
    Acquired, Holder, HolderId, IdleOwner, Known, Lease, LeasePolicy, NewLineage, Record,
};
use crate::manifest::{FileKey, ManifestDelta, Publisher};
use crate::store::{Layout, Store};
use crate::types::{StreamId, Txid, TxidRange};

/// How much longer than a lease a writer without one is waited for, and the shortest pause between looks.
const SLACK: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

impl Run<'_> {
    /// Mends what can be mended. What fails is told, and stays an issue.
    pub(super) async fn fix(&mut self, policy: LeasePolicy) {
        self.fix_orphans().await;
        let manifest = self.inventory.layout.manifest();
        let broken = |issue: &Issue| issue.fixable && issue.key == manifest;
        if !self.issues.iter().any(broken) {
            return;
        }
        let rebuilt = rebuild_manifest(
            self.store,
            &self.request.layout,
            policy,
            self.inventory.lease.as_ref(),
            self.newest_writer(),
            self.clock,
        );
        let rebuilt = rebuilt.await;
        self.settle(broken, rebuilt);
    }

    async fn fix_orphans(&mut self) {
        let is_orphan = |issue: &Issue| issue.kind == IssueKind::Orphan;
        let objects: HashSet<&str> = self
            .issues
            .iter()
            .filter(|issue| is_orphan(issue))
            .map(|issue| issue.key.as_str())
            .collect();
        let orphans: Vec<FileKey> = (self.inventory.items.values())
            .filter(|item| objects.contains(item.object.as_str()))
            .map(|item| item.key)
            .collect();
        if orphans.is_empty() {
            return;
        }
        let removed = remove_entries(
            self.store,
            &self.request.layout,
            orphans.clone(),
            self.clock,
        )
        .await;
        let done = removed.is_ok();
        self.settle(is_orphan, removed);
        if done {
            self.tell_exposed(&orphans.into_iter().collect());
        }
    }

    fn settle(&mut self, which: impl Fn(&Issue) -> bool, result: Result<()>) {
        let found = self.issues.iter_mut().filter(|issue| which(issue));
        match result {
            Ok(()) => found.for_each(|issue| issue.fixed = true),
            Err(error) => {
                found.for_each(|issue| issue.message = format!("{} (not fixed)", issue.message));
                let object = self.inventory.layout.manifest();
                let message = format!("Not fixed: {error}");
                self.issues
                    .push(Issue::new(IssueKind::Error, object, None, message));
            }
        }
    }

    /// What was lost with the orphans, now that nothing names them any more (R131).
    fn tell_exposed(&mut self, orphans: &HashSet<FileKey>) {
        let after = self.inventory.road(orphans);
        let known = &self.road.gaps;
        let new: Vec<Issue> = self
            .gap_issues(&after)
            .into_iter()
            .zip(&after.gaps)
            .filter(|(_, gap)| !known.contains(gap))
            .map(|(issue, _)| issue)
            .collect();
        let told = |first: Txid, last: Txid| {
            let from = |issue: &Issue| issue.min_txid.is_some_and(|min| min <= last.get());
            let to = |issue: &Issue| issue.max_txid.is_some_and(|max| max >= first.get());
            new.iter().any(|issue| from(issue) && to(issue))
        };
        let folder = self.inventory.layout.folder();
        let lost = lost_stretches(&self.road.points, &after.points)
            .into_iter()
            .filter(|(first, last)| !told(*first, *last))
            .map(|(first, last)| {
                let message = match first == last {
                    true => format!("The restore point TXID {} is lost", first.get()),
                    false => {
                        let (first, last) = (first.get(), last.get());
                        format!("The restore points from TXID {first} to {last} are lost")
                    }
                };
                let range = TxidRange::new(first, last);
                Issue::new(IssueKind::Gap, folder.clone(), range, message)
            });
        let lost: Vec<Issue> = lost.collect();
        self.issues.extend(new);
        self.issues.extend(lost);
    }
}

/// Takes `orphans` out of the manifest: by compare-and-swap, so that a watcher that writes it at the same time
/// loses nothing, and needs no lease.
///
/// Errors: those of publishing.
async fn remove_entries(
    store: &Arc<dyn Store>,
    layout: &Layout,
    orphans: Vec<FileKey>,
    clock: &Clock,
) -> Result<()> {
    let delta = ManifestDelta {
        remove: orphans,
        ..ManifestDelta::default()
    };
    let mut publisher = Publisher::new(store.clone(), layout.clone());
    publisher.publish(&delta, clock.now()).await.map(drop)
}

/// Writes the manifest anew from the files, under the lease. `lease` is the one that was found, `newest` who
/// wrote the newest file.
///
/// Errors: `Fenced` where a writer holds the lease, or may: it writes the manifest itself.
async fn rebuild_manifest(
    store: &Arc<dyn Store>,
    layout: &Layout,
    policy: LeasePolicy,
    lease: Option<&Record>,
    newest: Option<StreamId>,
    clock: &Clock,
) -> Result<()> {
    // An idle writer looks like one that is gone, and would be ended by a take-over.
    if let Some(record) = lease.filter(|record| !record.released) {
        return Err(held(layout, &record.holder.name));
    }
    let policy = LeasePolicy {
        idle: IdleOwner::Ask,
        lineage: NewLineage::No,
        ..policy
    };
    let holder = Holder {
        id: HolderId::random(),
        name: "walrust verify".to_owned(),
        lock: None,
    };
    let known = newest.map(|StreamId { lineage, epoch }| Known { lineage, epoch });
    let until = Instant::now() + policy.duration + SLACK;
    let lease = loop {
        let store = store.clone();
        match Lease::acquire(store, layout, &holder, &policy, known, clock).await? {
            Acquired::Held(lease) => break lease,
            // Files came a moment ago, and no lease says whose.
            Acquired::HeldElsewhere(owner) => {
                let again = Instant::now() + owner.retry_after.max(PAUSE);
                if again > until {
                    return Err(held(layout, &owner.name));
                }
                tokio::time::sleep_until(again).await;
            }
        }
    };
    let mut publisher = Publisher::new(store.clone(), layout.clone());
    let published = publisher
        .publish(&ManifestDelta::default(), clock.now())
        .await;
    let confirmed = lease.confirm().await;
    let released = lease.release().await;
    published?;
    confirmed?;
    released
}

fn held(layout: &Layout, owner: &str) -> Error {
    let name = if owner.is_empty() { "somebody" } else { owner };
    let message = format!("{name} holds the lease of this stream");
    Error::new(ErrorKind::Fenced, message)
        .on(layout.lease())
        .hint("a watcher writes the manifest anew by itself: start it, or leave it running")
}
