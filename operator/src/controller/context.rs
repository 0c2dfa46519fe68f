//! What passes over resources share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kube::Client;
use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;

use super::apply::Applied;
use super::error::Backoff;
use super::facts::{JobFact, JobPodFact, OwnFact, PodFact};
use super::scrapes::Scrapes;
use super::shelf::{Group, Shelf};
use crate::api::{WalrustBackup, WalrustBackupStatus};
use crate::metrics::Metrics;
use crate::render::Settings;
use crate::status::Patience;
use crate::status::changes::NUMBERS_EVERY;

/// How often things are done, and how long they may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How often sidecars are asked for their status.
    pub scrape: Duration,
    /// How often numbers that only move are written.
    pub numbers: Duration,
    /// How long things may last before they are called wrong.
    pub patience: Patience,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            scrape: Duration::from_secs(15),
            numbers: NUMBERS_EVERY,
            patience: Patience::default(),
        }
    }
}

/// Shared by all namespaces.
pub(crate) struct Common {
    /// Writes only while this process leads.
    pub(crate) client: Client,
    pub(crate) settings: Settings,
    pub(crate) timing: Timing,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) backoff: Backoff,
    pub(crate) applied: Applied,
    pub(crate) written: Written,
    /// The backups of all scopes, set before the first pass.
    pub(crate) stores: OnceLock<Vec<Store<WalrustBackup>>>,
}

impl Common {
    /// Every backup that this operator looks after.
    pub(crate) fn backups(&self) -> Vec<Arc<WalrustBackup>> {
        let stores = self.stores.get().into_iter().flatten();
        stores.flat_map(Store::state).collect()
    }
}

/// One namespace, or all.
pub(crate) struct Context {
    pub(crate) common: Arc<Common>,
    pub(crate) pods: Arc<Shelf<PodFact>>,
    pub(crate) job_pods: Arc<Shelf<JobPodFact>>,
    pub(crate) jobs: Arc<Shelf<JobFact>>,
    pub(crate) config_maps: Arc<Shelf<OwnFact>>,
    pub(crate) cron_jobs: Arc<Shelf<OwnFact>>,
    pub(crate) scrapes: Arc<Scrapes>,
}

/// Statuses as last written: a watch shows them a little later. As many as there are resources, at most.
#[derive(Debug, Default)]
pub(crate) struct Written {
    last: Mutex<HashMap<Group, Record>>,
}

#[derive(Debug)]
struct Record {
    at: Instant,
    /// The version of the resource that it was decided from.
    base: String,
    status: WalrustBackupStatus,
}

impl Written {
    /// The status that stands, and its age; `spread` is the age of one that an earlier process wrote.
    pub(crate) fn former(
        &self,
        group: &Group,
        backup: &WalrustBackup,
        spread: Duration,
    ) -> (Option<WalrustBackupStatus>, Duration) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let version = backup
            .metadata
            .resource_version
            .as_deref()
            .unwrap_or_default();
        match last.get(group) {
            Some(record) if record.base == version => {
                (Some(record.status.clone()), record.at.elapsed())
            }
            Some(record) => (backup.status.clone(), record.at.elapsed()),
            None => {
                // Not all at once after a start.
                let at = Instant::now().checked_sub(spread.mul_f64(fastrand::f64()));
                let record = Record {
                    at: at.unwrap_or_else(Instant::now),
                    base: String::new(),
                    status: WalrustBackupStatus::default(),
                };
                let age = record.at.elapsed();
                last.insert(group.clone(), record);
                (backup.status.clone(), age)
            }
        }
    }

    pub(crate) fn remember(
        &self,
        group: Group,
        backup: &WalrustBackup,
        status: WalrustBackupStatus,
    ) {
        let base = backup.metadata.resource_version.clone().unwrap_or_default();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        last.insert(group, Record { at, base, status });
    }

    /// Forgets the backups that `there` does not know.
    pub(crate) fn keep(&self, there: impl Fn(&Group) -> bool) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|group, _| there(group));
    }
}
