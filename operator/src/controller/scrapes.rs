//! What the sidecars said last.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use walrust_core::serve::StatusReport;

use super::facts::PodFact;
use super::shelf::Shelf;
use super::wake::Wake;
use crate::metrics::Metrics;
use crate::status::{Pod, scrape};

/// Sidecars that are asked at once.
const AT_ONCE: usize = 16;

/// Answers by UID of the pod. As many as there are pods, at most.
#[derive(Debug, Default)]
pub(crate) struct Scrapes {
    seen: Mutex<HashMap<String, Scrape>>,
}

#[derive(Debug, Default)]
struct Scrape {
    report: Option<Arc<StatusReport>>,
    silent: Option<(String, Timestamp)>,
    /// The configuration that it does not run yet, and since when it should.
    outdated: Option<(String, Timestamp)>,
}

impl Scrapes {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Scrape>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks every sidecar once, and wakes the resources that they belong to.
    pub(crate) async fn sweep(&self, pods: &Shelf<PodFact>, wake: &Wake, metrics: &Metrics) {
        let pods = pods.all();
        let uids: HashSet<&str> = pods.iter().map(|(_, pod)| pod.uid.as_str()).collect();
        self.lock().retain(|uid, _| uids.contains(uid.as_str()));
        let sidecars = pods
            .into_iter()
            .filter(|(_, pod)| pod.running && !pod.terminating);
        futures_util::stream::iter(sidecars)
            .for_each_concurrent(AT_ONCE, |(group, pod)| async move {
                if self.ask(&pod, metrics).await {
                    wake.add(group);
                }
            })
            .await;
    }

    /// Whether there was somebody to ask.
    async fn ask(&self, pod: &PodFact, metrics: &Metrics) -> bool {
        let (Some(ip), Some(port)) = (pod.ip, pod.port) else {
            return false;
        };
        let answer = scrape::status(ip, port).await;
        metrics.scraped(&answer);
        let now = crate::now();
        let mut seen = self.lock();
        let scrape = seen.entry(pod.uid.clone()).or_default();
        match answer {
            Ok(report) => {
                scrape.report = Some(Arc::new(report));
                scrape.silent = None;
            }
            Err(error) => {
                let since = scrape.silent.take().map_or(now, |(_, since)| since);
                scrape.silent = Some((error.to_string(), since));
            }
        }
        true
    }

    /// What is known of the pods of `group`. `wanted` is the configuration that they should run.
    pub(crate) fn pods(
        &self,
        pods: Vec<Arc<PodFact>>,
        wanted: Option<&str>,
        now: Timestamp,
    ) -> Vec<Pod> {
        let mut seen = self.lock();
        let pods = pods.into_iter();
        pods.map(|fact| {
            let scrape = seen.entry(fact.uid.clone()).or_default();
            let runs = scrape
                .report
                .as_ref()
                .and_then(|report| report.config_hash.as_deref());
            scrape.outdated = match (runs, wanted) {
                (Some(runs), Some(wanted)) if runs != wanted => match scrape.outdated.take() {
                    Some((hash, since)) if hash == wanted => Some((hash, since)),
                    _ => Some((wanted.to_owned(), now)),
                },
                _ => None,
            };
            Pod {
                report: scrape.report.clone(),
                silent: scrape.silent.clone(),
                outdated: scrape.outdated.as_ref().map(|(_, since)| *since),
                fact,
            }
        })
        .collect()
    }
}
