//! The controller: what the leading operator does, in each namespace that it looks after.
//!
//! Level-triggered: a pass over a resource looks at what is there and brings it to what is wanted, whatever it was that woke it.
//!
//! | module | what |
//! |---|---|
//! | `backup`, `restore` | a pass over one resource |
//! | `apply` | server-side apply of objects that are ours, and only where it is needed |
//! | `conflict` | two backups that would write to one place |
//! | `facts`, `shelf` | what is kept of pods, Jobs, CronJobs and ConfigMaps |
//! | `scrapes` | what sidecars say of themselves |

mod apply;
mod backup;
mod conflict;
mod context;
pub(crate) mod error;
pub mod facts;
mod restore;
mod scrapes;
pub(crate) mod shelf;
mod wake;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{self, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub use context::Timing;

use self::apply::Applied;
use self::context::{Common, Context, Written};
use self::error::Backoff;
use self::facts::{JobFact, JobPodFact, OwnFact, PodFact};
use self::shelf::{Group, Shelf, follow};
use self::wake::Wake;
use crate::api::{WalrustBackup, WalrustRestore, labels};
use crate::metrics::Metrics;
use crate::render::Settings;

/// Passes at once, in each namespace.
const PASSES: u16 = 8;
/// What comes in so quick a succession is one pass.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// What a controller needs.
pub struct Setup {
    /// Writes only while this process leads.
    pub client: Client,
    /// The namespaces to look after; empty is all.
    pub namespaces: Vec<String>,
    /// What the operator was installed with.
    pub settings: Settings,
    /// How often, and for how long.
    pub timing: Timing,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Who writes events: the pod's name.
    pub identity: String,
}

/// Works until `stop`; passes that are under way end first.
pub async fn run(setup: Setup, stop: CancellationToken) {
    let reporter = Reporter {
        controller: labels::FIELD_MANAGER.to_owned(),
        instance: Some(setup.identity),
    };
    let common = Arc::new(Common {
        recorder: Recorder::new(setup.client.clone(), reporter),
        client: setup.client,
        settings: setup.settings,
        timing: setup.timing,
        metrics: setup.metrics,
        backoff: Backoff::default(),
        applied: Applied::default(),
        written: Written::default(),
        stores: OnceLock::new(),
    });
    let scopes: Vec<Option<String>> = match setup.namespaces.is_empty() {
        true => vec![None],
        false => setup.namespaces.into_iter().map(Some).collect(),
    };
    let scopes: Vec<Scope> = scopes
        .into_iter()
        .map(|namespace| Scope::new(&common, namespace))
        .collect();
    let stores = scopes.iter().map(|scope| scope.backups.store()).collect();
    // Set once, here.
    let _ = common.stores.set(stores);
    let mut running = JoinSet::new();
    for scope in scopes {
        running.spawn(scope.run(stop.clone()));
    }
    while running.join_next().await.is_some() {}
}

/// One namespace, or all.
struct Scope {
    namespace: Option<String>,
    context: Arc<Context>,
    backups: Controller<WalrustBackup>,
    restores: Controller<WalrustRestore>,
}

impl Scope {
    fn new(common: &Arc<Common>, namespace: Option<String>) -> Self {
        let client = &common.client;
        let config = || watcher::Config::default().any_semantic();
        let backups = Controller::new(api::<WalrustBackup>(client, namespace.as_deref()), config());
        let restores = Controller::new(
            api::<WalrustRestore>(client, namespace.as_deref()),
            config(),
        );
        let settings = || {
            controller::Config::default()
                .concurrency(PASSES)
                .debounce(DEBOUNCE)
        };
        Self {
            backups: backups.with_config(settings()),
            restores: restores.with_config(settings()),
            context: Arc::new(Context {
                common: Arc::clone(common),
                pods: Arc::default(),
                job_pods: Arc::default(),
                jobs: Arc::default(),
                config_maps: Arc::default(),
                cron_jobs: Arc::default(),
                scrapes: Arc::default(),
            }),
            namespace,
        }
    }

    async fn run(self, stop: CancellationToken) {
        let wake = Wake::default();
        let restores = Wake::default();
        let mut watches = self.watches(&wake, &restores);
        let context = self.context;
        wait_for_facts(&context, &stop).await;
        watches.spawn(sweep_for_ever(Arc::clone(&context), wake.clone()));
        let stopped = || {
            let stop = stop.clone();
            async move { stop.cancelled().await }
        };
        let of_backups = self
            .backups
            .reconcile_on(
                wake.stream()
                    .map(|group| reference::<WalrustBackup>(&group)),
            )
            .graceful_shutdown_on(stopped())
            .run(
                backup::reconcile,
                |object, error, context| backup::on_error(&object, error, &context),
                Arc::clone(&context),
            );
        let of_restores = self
            .restores
            .reconcile_on(
                restores
                    .stream()
                    .map(|group| reference::<WalrustRestore>(&group)),
            )
            .graceful_shutdown_on(stopped())
            .run(
                restore::reconcile,
                |object, error, context| restore::on_error(&object, error, &context),
                context,
            );
        let of_backups = of_backups.map(|result| result.err().and_then(telling));
        let of_restores = of_restores.map(|result| result.err().and_then(telling));
        let mut results = std::pin::pin!(stream::select(of_backups, of_restores));
        while let Some(error) = results.next().await {
            if let Some(error) = error {
                warn!(%error, "pass");
            }
        }
    }

    /// Keeps the shelves up to date.
    fn watches(&self, wake: &Wake, restores: &Wake) -> JoinSet<()> {
        let mut watches = JoinSet::new();
        let client = &self.context.common.client;
        let namespace = self.namespace.as_deref();
        let context = &self.context;
        let waker = || {
            let wake = wake.clone();
            move |group: Group| wake.add(group)
        };
        let ours = format!(
            "app.kubernetes.io/managed-by={},{}",
            labels::FIELD_MANAGER,
            labels::BACKUP
        );
        watches.spawn(watch(
            api::<Pod>(client, namespace),
            format!("{},{}", labels::INJECT, labels::BACKUP),
            Arc::clone(&context.pods),
            PodFact::of,
            waker(),
        ));
        watches.spawn(watch(
            api::<Pod>(client, namespace),
            format!("{},{}", labels::TASK, labels::BACKUP),
            Arc::clone(&context.job_pods),
            JobPodFact::of,
            waker(),
        ));
        watches.spawn(watch(
            api::<Job>(client, namespace),
            format!("{},{}", labels::TASK, labels::BACKUP),
            Arc::clone(&context.jobs),
            JobFact::of,
            waker(),
        ));
        watches.spawn(watch(
            api::<CronJob>(client, namespace),
            ours.clone(),
            Arc::clone(&context.cron_jobs),
            OwnFact::of_cron_job,
            waker(),
        ));
        watches.spawn(watch(
            api::<PartialObjectMeta<ConfigMap>>(client, namespace),
            ours,
            Arc::clone(&context.config_maps),
            OwnFact::of_config_map,
            waker(),
        ));
        // Restores look at their Job themselves: that it changed is all they need.
        let restores = restores.clone();
        watches.spawn(watch(
            api::<PartialObjectMeta<Job>>(client, namespace),
            labels::RESTORE.to_owned(),
            Arc::new(Shelf::<()>::default()),
            |job| Some((Group::of(job, labels::RESTORE)?, ())),
            move |group| restores.add(group),
        ));
        watches
    }
}

/// An error in one line; none where a resource is gone, or only named by a label.
fn telling(error: controller::Error<error::Error, watcher::Error>) -> Option<String> {
    match error {
        controller::Error::ObjectNotFound(_) => None,
        controller::Error::ReconcilerFailed(error, object) => {
            Some(format!("{}: {}", object.name, error.line()))
        }
        other => Some(other.to_string()),
    }
}

async fn watch<K, F>(
    api: Api<K>,
    selector: String,
    shelf: Arc<Shelf<F>>,
    digest: fn(&K) -> Option<(Group, F)>,
    wake: impl Fn(Group),
) where
    K: Resource<DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug
        + Send
        + 'static,
{
    follow(api, &selector, shelf, digest, wake).await;
}

/// Until everything that was there at the start is known: else it would be made again.
async fn wait_for_facts(context: &Context, stop: &CancellationToken) {
    let complete = || {
        context.pods.is_complete()
            && context.jobs.is_complete()
            && context.job_pods.is_complete()
            && context.cron_jobs.is_complete()
            && context.config_maps.is_complete()
    };
    while !complete() && !stop.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn sweep_for_ever(context: Arc<Context>, wake: Wake) {
    let common = &context.common;
    let mut ticks = tokio::time::interval(common.timing.scrape);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        context
            .scrapes
            .sweep(&context.pods, &wake, &common.metrics)
            .await;
        let there: std::collections::HashSet<Group> = common
            .backups()
            .iter()
            .map(|backup| Group {
                namespace: backup.namespace().unwrap_or_default(),
                name: backup.name_any(),
            })
            .collect();
        common.metrics.keep(|group| there.contains(group));
        common.written.keep(|group| there.contains(group));
    }
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn reference<K: Resource<DynamicType = ()>>(group: &Group) -> ObjectRef<K> {
    ObjectRef::new(&group.name).within(&group.namespace)
}
