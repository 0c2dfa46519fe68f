//! Thinning the bucket now and then (R48, R49): beside everything else, and never in its way.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::event::Happening;
use super::super::worker::Context;
use super::Session;
use crate::config::RetentionPolicy;
use crate::error::Result;
use crate::retention::{CompactReport, CompactRequest, DryRun, Writer, compact};

/// When to compact one database, and what stays of it.
#[derive(Debug, Clone)]
pub(crate) struct CompactionPolicy {
    /// After each snapshot.
    pub(crate) after_snapshot: bool,
    /// The time from one compaction to the next.
    pub(crate) interval: Option<Duration>,
    /// What stays.
    pub(crate) retention: RetentionPolicy,
}

/// The compaction under way, and the next one.
pub(super) struct Compactions {
    pub(super) task: Option<JoinHandle<Result<CompactReport>>>,
    /// Whether one waits to begin.
    wanted: bool,
    /// When one is due in any case.
    next: Option<Instant>,
}

impl Compactions {
    pub(super) fn new(policy: &CompactionPolicy, context: &mut Context, now: Instant) -> Self {
        // Sessions come and go; the time from one compaction to the next goes on.
        let due = policy
            .interval
            .and_then(|interval| now.checked_add(interval));
        let next = context.next_compaction.or(due);
        context.next_compaction = next;
        Self {
            task: None,
            wanted: false,
            next,
        }
    }

    /// What it has written down is deleted by the next one.
    pub(super) fn abort(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Session<'_> {
    /// A snapshot was stored.
    pub(super) fn compact_after_snapshot(&mut self) {
        self.compactions.wanted |= self.policy.compaction.after_snapshot;
    }

    /// When the next compaction is due. One that waits for the index begins when that is written.
    pub(super) fn compaction_deadline(&self) -> Option<Instant> {
        self.compactions
            .next
            .filter(|_| self.compactions.task.is_none() && !self.compactions.wanted)
    }

    /// Begins a compaction that is due, once the index names the snapshot that called for it.
    pub(super) fn compact_if_due(&mut self, now: Instant) {
        if self.compactions.next.is_some_and(|next| next <= now) {
            self.compactions.wanted = true;
        }
        let busy = self.compactions.task.is_some() || self.stop_by.is_some();
        if !self.compactions.wanted || busy || !self.has_base || !self.index.is_settled() {
            return;
        }
        self.compactions.wanted = false;
        let interval = self.policy.compaction.interval;
        self.compactions.next = interval.and_then(|interval| now.checked_add(interval));
        self.context.next_compaction = self.compactions.next;
        let shared = self.context.shared.clone();
        let request = CompactRequest {
            layout: self.context.layout.clone(),
            policy: self.policy.compaction.retention,
            dry_run: DryRun::No,
            writer: Writer::Here(self.index.publisher.clone()),
        };
        self.compactions.task = Some(tokio::spawn(async move {
            // A long history takes memory while it is thought over: one at a time.
            let _turn = shared.compactions.acquire().await;
            compact(&shared.store, &request, &shared.clock).await
        }));
    }

    /// A compaction ended. What failed is told, and tried again when the next one is due.
    pub(super) async fn compacted(&mut self, done: Result<Result<CompactReport>>) {
        match done.and_then(|done| done) {
            Ok(report) => {
                for note in &report.notes {
                    tracing::warn!(name = %self.context.options.name, note, "compaction");
                }
                self.context
                    .tell(Happening::Compact {
                        objects: report.delete_objects,
                        bytes: report.free_bytes,
                    })
                    .await;
            }
            Err(error) => {
                self.context.counters.failed();
                let message = format!("the compaction failed: {error}");
                let kind = error.kind();
                self.context.tell(Happening::Error { kind, message }).await;
            }
        }
    }
}
