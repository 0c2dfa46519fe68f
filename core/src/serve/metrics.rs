//! `/metrics`: the state and the counts of all databases, in the text formats that Prometheus reads.
//!
//! Every series exists from the start. docs/metrics.md says what each one means.

use std::collections::HashMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use super::board::{Seen, View};
use super::status::seconds;
use crate::engine::Timings;
use crate::error::{Error, ErrorKind, Result};
use crate::replica::ReplicaStatus;
use crate::sqlite::library_version;
use crate::store::{Operation, Outcome};
use crate::types::{Timestamp, Txid};

/// How metrics are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Prometheus' own, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that a client takes, by its `Accept` header.
    pub fn accepted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    /// What the format is called over HTTP.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All metrics of `view`. Errors: Internal, never with a correct program.
pub fn render(view: View, format: Format) -> Result<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape(view)));
    let mut page = String::new();
    let written = match format {
        Format::Prometheus => prometheus_text::encode(&mut page, &registry),
        Format::OpenMetrics => text::encode(&mut page, &registry),
    };
    written.map_err(|error| Error::new(ErrorKind::Internal, "metrics").because(error))?;
    Ok(page)
}

#[derive(Debug)]
struct Scrape(View);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page {
            encoder,
            databases: &self.0.databases,
            replicas: &self.0.replicas,
        };
        page.process(&self.0)?;
        page.store(&self.0)?;
        page.state(&self.0)?;
        page.lease()?;
        page.events()?;
        page.replicas(self.0.now)
    }
}

const COUNTER: MetricType = MetricType::Counter;
const GAUGE: MetricType = MetricType::Gauge;

struct Page<'e, 'd> {
    encoder: DescriptorEncoder<'e>,
    databases: &'d [Seen],
    replicas: &'d [ReplicaStatus],
}

impl<'d> Page<'_, 'd> {
    fn process(&mut self, view: &View) -> fmt::Result {
        let facts = &view.facts;
        let info = [("version", facts.version), ("sqlite", library_version())];
        self.one("build_info", "Which build runs: always 1", &info, 1_u64)?;
        let hash = [("hash", facts.config_hash.as_deref().unwrap_or_default())];
        let help = "Which configuration file is in use: always 1";
        self.one("config_info", help, &hash, 1_u64)?;
        let uptime = seconds(view.now.millis_since(facts.started).max(0));
        self.one(
            "uptime_seconds",
            "How long the process has run",
            &[],
            uptime,
        )?;
        let count = (view.databases.len() + view.replicas.len()) as u64;
        self.one(
            "databases_total",
            "How many databases are handled",
            &[],
            count,
        )?;
        let mut metric = self.encoder.encode_descriptor(
            "walrust_config_reload",
            "How often another configuration was read, by whether it is in use",
            None,
            COUNTER,
        )?;
        for (outcome, count) in ["ok", "refused"].into_iter().zip(view.reloads) {
            let labels = [("outcome", outcome)];
            metric
                .encode_family(&labels)?
                .encode_counter(&count, NO_EXEMPLAR)?;
        }
        Ok(())
    }

    fn store(&mut self, view: &View) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(
            "walrust_storage_requests",
            "Requests to the store, by operation and outcome; each try counts",
            None,
            COUNTER,
        )?;
        for operation in Operation::ALL {
            for outcome in Outcome::ALL {
                let labels = [("operation", operation.name()), ("outcome", outcome.name())];
                let count = view.counts.requests(operation, outcome);
                metric
                    .encode_family(&labels)?
                    .encode_counter(&count, NO_EXEMPLAR)?;
            }
        }
        let mut metric = self.encoder.encode_descriptor(
            "walrust_retry",
            "Requests to the store that were tried again, by operation",
            None,
            COUNTER,
        )?;
        for operation in Operation::ALL {
            let labels = [("operation", operation.name())];
            let count = view.counts.retries(operation);
            metric
                .encode_family(&labels)?
                .encode_counter(&count, NO_EXEMPLAR)?;
        }
        let mut metric = self.encoder.encode_descriptor(
            "walrust_storage_bytes",
            "Bytes of bodies sent to and received from the store",
            None,
            COUNTER,
        )?;
        let counts = &view.counts;
        for (direction, count) in [
            ("sent", counts.bytes_sent),
            ("received", counts.bytes_received),
        ] {
            let labels = [("direction", direction)];
            metric
                .encode_family(&labels)?
                .encode_counter(&count, NO_EXEMPLAR)?;
        }
        Ok(())
    }

    fn state(&mut self, view: &View) -> fmt::Result {
        let now = view.now;
        let help = "Age of the oldest commit that is not durable; 0 when idle";
        self.gauge("lag_seconds", help, |seen| {
            seconds(seen.status.lag_millis(now))
        })?;
        let help = "The newest captured transaction; 0 before the first";
        self.gauge("current_txid", help, |seen| number(seen.status.txid))?;
        let help = "The newest transaction that can be restored from the store; 0 before the first";
        self.gauge("durable_txid", help, |seen| {
            number(seen.status.durable_txid)
        })?;
        let help = "The newest transaction that was restored for proof; 0 before the first";
        self.gauge("proven_txid", help, |seen| number(seen.status.proven_txid))?;
        let help = "When a file was last stored, in Unix time; 0 before the first";
        self.gauge("last_sync_timestamp", help, |seen| {
            instant(seen.status.last_sync)
        })?;
        let help = "When the next snapshot is due, in Unix time; 0 if none is";
        self.gauge("next_snapshot_timestamp", help, |seen| {
            instant(seen.status.next_snapshot)
        })?;
        let help = "When a state was last restored for proof, in Unix time; 0 before the first";
        self.gauge("last_validation_timestamp", help, |seen| {
            instant(seen.status.proven_at)
        })?;
        let help = "Length of the database's WAL file";
        self.gauge("wal_size_bytes", help, |seen| seen.status.wal_bytes)?;
        let help = "What waits on the local disk for the store";
        self.gauge("spool_bytes", help, |seen| seen.status.spool_bytes)
    }

    fn lease(&mut self) -> fmt::Result {
        let help = "Whether this process owns the stream";
        self.gauge("lease_held", help, |seen| u64::from(seen.status.lease.held))?;
        let help = "The epoch in which it owns or owned it; 0 before the first";
        self.gauge("lease_epoch", help, |seen| {
            u64::from(seen.status.lease.epoch.unwrap_or(0))
        })
    }

    fn events(&mut self) -> fmt::Result {
        let help =
            "Failures of any kind: uploads, snapshots, compactions, the index, whole sessions";
        let name = "walrust_error_count";
        let mut metric = self.encoder.encode_descriptor(name, help, None, COUNTER)?;
        let watched = self.databases.iter();
        let watched = watched.map(|seen| (&seen.status.name, seen.counters.errors()));
        let replicas = self.replicas.iter().map(|one| (&one.name, one.errors));
        for (database, count) in watched.chain(replicas) {
            let labels = [("database", database.as_str())];
            let mut metric = metric.encode_family(&labels)?;
            metric.encode_counter(&count, NO_EXEMPLAR)?;
        }
        let help = "Snapshots stored";
        self.counter("snapshot_count", help, |seen| seen.counters.snapshots())?;
        let help = "How often continuity could not be proven, by reason";
        self.counters("rebase", help, "reason", |seen| seen.counters.rebases())?;
        let help = "Proofs by restore that succeeded";
        self.counter("validation_success", help, |seen| seen.counters.proofs())?;
        let help = "Proofs by restore that failed";
        self.counter("validation_failure", help, |seen| {
            seen.counters.failed_proofs()
        })?;
        let help = "Checkpoints made because the WAL was long";
        self.counter("checkpoint", help, |seen| seen.counters.checkpoints())?;
        let help = "How long those took";
        self.timings("checkpoint_duration_seconds", help, |seen| {
            &seen.counters.checkpoint
        })?;
        let help = "How often the write lock was asked for so that the WAL could restart, by what it led to";
        self.counters("barrier", help, "outcome", |seen| seen.counters.barriers())?;
        let help = "For how long the application's writers had to wait for that";
        self.timings("barrier_seconds", help, |seen| &seen.counters.barrier)?;
        let help = "From the oldest commit of a file to the moment at which the file was stored";
        self.timings("sync_latency_seconds", help, |seen| {
            &seen.counters.sync_latency
        })
    }

    /// Only replicas have these.
    fn replicas(&mut self, now: Timestamp) -> fmt::Result {
        let help = "The last transaction applied to the replica; 0 before the first";
        self.of_replicas("replica_applied_txid", help, |one| number(one.txid))?;
        let help =
            "The newest transaction of its source that the replica has seen; 0 before the first";
        self.of_replicas("replica_source_txid", help, |one| number(one.head_txid))?;
        let help = "How old what the replica shows may be";
        self.of_replicas("replica_lag_seconds", help, |one| {
            seconds(one.lag_millis(now))
        })
    }

    fn of_replicas<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        value: impl Fn(&ReplicaStatus) -> V,
    ) -> fmt::Result {
        let name = format!("walrust_{name}");
        let mut metric = self.encoder.encode_descriptor(&name, help, None, GAUGE)?;
        for replica in self.replicas {
            let labels = [("database", replica.name.as_str())];
            metric
                .encode_family(&labels)?
                .encode_gauge(&value(replica))?;
        }
        Ok(())
    }

    fn one(
        &mut self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        let name = format!("walrust_{name}");
        let mut metric = self.encoder.encode_descriptor(&name, help, None, GAUGE)?;
        metric.encode_family(&labels)?.encode_gauge(&value)
    }

    fn gauge<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        value: impl Fn(&Seen) -> V,
    ) -> fmt::Result {
        let name = format!("walrust_{name}");
        let mut metric = self.encoder.encode_descriptor(&name, help, None, GAUGE)?;
        for seen in self.databases {
            let labels = [("database", seen.status.name.as_str())];
            metric.encode_family(&labels)?.encode_gauge(&value(seen))?;
        }
        Ok(())
    }

    /// The encoder appends `_total`.
    fn counter(&mut self, name: &str, help: &str, value: impl Fn(&Seen) -> u64) -> fmt::Result {
        let name = format!("walrust_{name}");
        let mut metric = self.encoder.encode_descriptor(&name, help, None, COUNTER)?;
        for seen in self.databases {
            let labels = [("database", seen.status.name.as_str())];
            let mut metric = metric.encode_family(&labels)?;
            metric.encode_counter(&value(seen), NO_EXEMPLAR)?;
        }
        Ok(())
    }

    fn counters<I: Iterator<Item = (&'static str, u64)>>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Fn(&'d Seen) -> I,
    ) -> fmt::Result {
        let name = format!("walrust_{name}");
        let mut metric = self.encoder.encode_descriptor(&name, help, None, COUNTER)?;
        for seen in self.databases {
            for (word, count) in values(seen) {
                let labels = [("database", seen.status.name.as_str()), (label, word)];
                let mut metric = metric.encode_family(&labels)?;
                metric.encode_counter(&count, NO_EXEMPLAR)?;
            }
        }
        Ok(())
    }

    fn timings(
        &mut self,
        name: &str,
        help: &str,
        value: impl Fn(&'d Seen) -> &'d Timings,
    ) -> fmt::Result {
        let name = format!("walrust_{name}");
        let kind = MetricType::Histogram;
        let mut metric = self.encoder.encode_descriptor(&name, help, None, kind)?;
        for seen in self.databases {
            let labels = [("database", seen.status.name.as_str())];
            let mut metric = metric.encode_family(&labels)?;
            let timings = value(seen);
            let buckets = timings.buckets();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let none: Option<&HashMap<usize, NoExemplar>> = None;
            metric.encode_histogram(timings.sum_seconds(), count, &buckets, none)?;
        }
        Ok(())
    }
}

type NoExemplar = Exemplar<[(&'static str, &'static str); 0], f64>;
const NO_EXEMPLAR: Option<&NoExemplar> = None;

fn number(txid: Option<Txid>) -> u64 {
    txid.map_or(0, Txid::get)
}

fn instant(time: Option<Timestamp>) -> f64 {
    time.map_or(0.0, |time| seconds(time.millis()))
}
