//! What the webhook counts.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// From a pure function to what the API server no longer waits for, in seconds.
const BUCKETS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 2.0, 5.0,
];

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The pod gets a sidecar.
    Injected,
    /// Nothing was to be done.
    Unchanged,
    /// The pod must not start like this.
    Denied,
    /// It could not be decided.
    Error,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Injected, Self::Unchanged, Self::Denied, Self::Error];

    const fn word(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Unchanged => "unchanged",
            Self::Denied => "denied",
            Self::Error => "error",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct OfOutcome {
    outcome: &'static str,
}

/// What the webhook counts. All series exist from the start.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<OfOutcome, Counter>,
    duration: Histogram,
    expiry: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests = Family::<OfOutcome, Counter>::default();
        for outcome in Outcome::ALL {
            drop(requests.get_or_create(&OfOutcome {
                outcome: outcome.word(),
            }));
        }
        Self {
            requests,
            duration: Histogram::new(BUCKETS),
            expiry: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let ours = registry.sub_registry_with_prefix("walrust_operator_webhook");
        ours.register(
            "requests",
            "Pods that were asked about, by the answer",
            self.requests.clone(),
        );
        ours.register(
            "duration_seconds",
            "How long an answer took, lookup included",
            self.duration.clone(),
        );
        ours.register(
            "cert_expiry_timestamp_seconds",
            "When the certificate that is served ends; 0 while none is",
            self.expiry.clone(),
        );
    }

    /// Notes an answer.
    pub fn answered(&self, outcome: Outcome, took: Duration) {
        self.requests
            .get_or_create(&OfOutcome {
                outcome: outcome.word(),
            })
            .inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Notes the end of the certificate that is served, in seconds since 1970.
    pub fn serves_until(&self, end: i64) {
        self.expiry.set(end);
    }
}
