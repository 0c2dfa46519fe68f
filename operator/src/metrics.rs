//! What the operator counts, and what it knows of each backup. docs/kubernetes/metrics.md says what each series means.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use walrust_core::serve::StatusReport;

use crate::api::{CheckResult, TaskName, WalrustBackupStatus};
use crate::controller::error::Kind as ErrorKind;
use crate::controller::shelf::Group;
use crate::status::scrape;

/// From a pass that changes nothing to one that waits for a slow API server, in seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OfOutcome {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OfReason {
    kind: &'static str,
    reason: &'static str,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct ScrapeOutcome {
    outcome: &'static str,
}

/// All of them. Every series of a closed set exists from the start.
#[derive(Debug)]
pub struct Metrics {
    leader: Gauge,
    reconciles: Family<OfOutcome, Counter>,
    errors: Family<OfReason, Counter>,
    durations: Family<OfKind, Histogram, fn() -> Histogram>,
    scrapes: Family<ScrapeOutcome, Counter>,
    backups: Arc<Backups>,
}

/// The kinds that are reconciled.
pub const KINDS: [&str; 2] = ["WalrustBackup", "WalrustRestore"];

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            leader: Gauge::default(),
            reconciles: Family::default(),
            errors: Family::default(),
            durations: Family::new_with_constructor(histogram as fn() -> Histogram),
            scrapes: Family::default(),
            backups: Arc::default(),
        };
        for kind in KINDS {
            for outcome in ["ok", "error"] {
                drop(
                    metrics
                        .reconciles
                        .get_or_create(&OfOutcome { kind, outcome }),
                );
            }
            for reason in ErrorKind::ALL.map(ErrorKind::word) {
                drop(metrics.errors.get_or_create(&OfReason { kind, reason }));
            }
            drop(metrics.durations.get_or_create(&OfKind { kind }));
        }
        for outcome in ["ok", "unreachable", "invalid"] {
            drop(metrics.scrapes.get_or_create(&ScrapeOutcome { outcome }));
        }
        metrics
    }
}

impl Metrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let operator = registry.sub_registry_with_prefix("walrust_operator");
        operator.register("leader", "Whether this operator leads", self.leader.clone());
        operator.register(
            "reconcile",
            "Passes over a resource, by how they ended",
            self.reconciles.clone(),
        );
        operator.register(
            "reconcile_errors",
            "Errors of passes, by what they mean",
            self.errors.clone(),
        );
        operator.register(
            "reconcile_duration_seconds",
            "How long a pass took",
            self.durations.clone(),
        );
        operator.register(
            "scrape",
            "Questions for the status of a sidecar, by the answer",
            self.scrapes.clone(),
        );
        registry.register_collector(Box::new(Shared(Arc::clone(&self.backups))));
    }

    /// Whether this operator leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    pub(crate) fn passed(&self, kind: &'static str, took: Duration, error: Option<ErrorKind>) {
        let outcome = if error.is_some() { "error" } else { "ok" };
        self.reconciles
            .get_or_create(&OfOutcome { kind, outcome })
            .inc();
        self.durations
            .get_or_create(&OfKind { kind })
            .observe(took.as_secs_f64());
        if let Some(error) = error {
            let reason = error.word();
            self.errors.get_or_create(&OfReason { kind, reason }).inc();
        }
    }

    pub(crate) fn scraped(&self, answer: &Result<StatusReport, scrape::Error>) {
        let outcome = match answer {
            Ok(_) => "ok",
            Err(scrape::Error::Unreachable(_)) => "unreachable",
            Err(scrape::Error::Invalid(_)) => "invalid",
        };
        self.scrapes.get_or_create(&ScrapeOutcome { outcome }).inc();
    }

    /// Shows `status` as that of the backup `group`.
    pub(crate) fn show(
        &self,
        group: &Group,
        status: &WalrustBackupStatus,
        failures: Vec<(TaskName, u32)>,
    ) {
        let mut backups = self
            .backups
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        backups.insert(group.clone(), Backup::of(status, failures));
    }

    /// Forgets the backups that `there` does not know.
    pub(crate) fn keep(&self, there: impl Fn(&Group) -> bool) {
        let mut backups = self
            .backups
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        backups.retain(|group, _| there(group));
    }
}

/// What is known of backups. As many as there are resources.
#[derive(Debug, Default)]
struct Backups(Mutex<BTreeMap<Group, Backup>>);

#[derive(Debug)]
struct Backup {
    /// Type, status and reason.
    conditions: Vec<(String, String, String)>,
    lag: i64,
    last_verify: i64,
    last_drill: i64,
    failures: Vec<(TaskName, u32)>,
}

impl Backup {
    fn of(status: &WalrustBackupStatus, failures: Vec<(TaskName, u32)>) -> Self {
        let conditions = status.conditions.iter().map(|condition| {
            (
                condition.type_.clone(),
                condition.status.clone(),
                condition.reason.clone(),
            )
        });
        let oldest = |check: fn(&crate::api::DatabaseStatus) -> Option<&crate::api::Check>| {
            let passed = status
                .databases
                .iter()
                .map(|database| match check(database) {
                    Some(check) if check.result == CheckResult::Passed => check.time.0.as_second(),
                    _ => 0,
                });
            passed.min().unwrap_or_default()
        };
        Self {
            conditions: conditions.collect(),
            lag: status
                .databases
                .iter()
                .filter_map(|one| one.lag_seconds)
                .max()
                .unwrap_or_default(),
            last_verify: oldest(|one| one.last_verify.as_ref()),
            last_drill: oldest(|one| one.last_drill.as_ref()),
            failures,
        }
    }
}

#[derive(Debug)]
struct Shared(Arc<Backups>);

impl Collector for Shared {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let backups = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gauge = prometheus_client::metrics::MetricType::Gauge;
        let help = "1 for the status and reason that each condition has";
        let mut metric =
            encoder.encode_descriptor("walrust_backup_condition", help, None, gauge)?;
        for (group, backup) in backups.iter() {
            for (kind, status, reason) in &backup.conditions {
                let labels = [
                    ("namespace", group.namespace.as_str()),
                    ("name", group.name.as_str()),
                    ("type", kind.as_str()),
                    ("status", status.as_str()),
                    ("reason", reason.as_str()),
                ];
                ConstGauge::new(1_i64).encode(metric.encode_family(&labels)?)?;
            }
        }
        for (name, help, value) in [
            (
                "lag_seconds",
                "Worst lag of the backup's databases",
                (|one: &Backup| one.lag) as fn(&Backup) -> i64,
            ),
            (
                "last_verify_timestamp_seconds",
                "Oldest last verification of its databases that passed",
                |one| one.last_verify,
            ),
            (
                "last_drill_timestamp_seconds",
                "Oldest last test restore of its databases that passed",
                |one| one.last_drill,
            ),
        ] {
            let name = format!("walrust_backup_{name}");
            let mut metric = encoder.encode_descriptor(&name, help, None, gauge)?;
            for (group, backup) in backups.iter() {
                let labels = [
                    ("namespace", group.namespace.as_str()),
                    ("name", group.name.as_str()),
                ];
                ConstGauge::new(value(backup)).encode(metric.encode_family(&labels)?)?;
            }
        }
        let help = "Jobs of a task that failed since one went well";
        let mut metric =
            encoder.encode_descriptor("walrust_backup_task_failures", help, None, gauge)?;
        for (group, backup) in backups.iter() {
            for (task, count) in &backup.failures {
                let labels = [
                    ("namespace", group.namespace.as_str()),
                    ("name", group.name.as_str()),
                    ("task", task.word()),
                ];
                ConstGauge::new(i64::from(*count)).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
