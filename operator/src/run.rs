//! `walrust-operator run`: what a pod of the operator does. All answer probes; one of them leads and works.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Api, ListParams};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use walrust_core::clock::Clock;

use crate::api::WalrustBackup;
use crate::controller::{self, Setup, Timing};
use crate::http::{self, Board};
use crate::leader::fence::Fence;
use crate::leader::{Election, RENEW_DEADLINE};
use crate::metrics::Metrics;
use crate::render::Settings;
use crate::webhook::rotation::Lifetimes;
use crate::webhook::{self, Certificates, Hook, Live, Served, keeper};

/// How an operator is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the chart wrote from its values; none: the defaults.
    pub settings: Option<PathBuf>,
    /// The namespaces to look after; empty is all.
    pub namespaces: Vec<String>,
    /// The namespace of the lease; none: that of the pod or of the kubeconfig.
    pub namespace: Option<String>,
    /// The lease that decides who leads.
    pub lease: String,
    /// Who this is: the pod's name.
    pub identity: Option<String>,
    /// The port of the webhook, and where its certificate comes from; none: no webhook.
    pub webhook: Option<(u16, Certificates)>,
    /// The port of metrics and probes; 0 is any.
    pub metrics_port: u16,
    /// How often, and for how long.
    pub timing: Timing,
}

/// Runs until `stop`.
///
/// # Errors
/// Where it cannot begin, or lost the lead: then somebody else works already, and this process must end.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let settings = settings(&options)?;
    let mut config = Config::infer().await.context("find the cluster")?;
    // A request that waited must not be sent by a leader that is none any more.
    config.default_retry = false;
    let client = Client::try_from(config.clone()).context("reach the API server")?;
    let namespace = options
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());

    let metrics = Arc::new(Metrics::default());
    let of_webhook = Arc::new(webhook::Metrics::default());
    let served = options
        .webhook
        .as_ref()
        .map(|_| Arc::new(Served::new(Arc::clone(&of_webhook))));
    let mut board = Board {
        admission: served.clone(),
        ..Board::default()
    };
    metrics.register(&mut board.registry);
    of_webhook.register(&mut board.registry);
    let board = Arc::new(board);
    let listener = http::listen(options.metrics_port).await;
    let listener = listener.with_context(|| format!("listen on port {}", options.metrics_port))?;
    info!(address = %listener.address(), "serving metrics");
    tokio::spawn(http::serve(listener, Arc::clone(&board)));

    probe(&client, options.namespaces.first()).await?;
    board.began.store(true, Ordering::SeqCst);
    let settings = Arc::new(settings);
    let mut tasks = JoinSet::new();
    if let (Some((port, certificates)), Some(served)) = (options.webhook.clone(), served) {
        // Every replica answers: the API server asks whichever it likes.
        let hook = Hook::new(
            Box::new(Live::new(client.clone(), None)),
            Arc::clone(&settings),
        );
        let (client, stop) = (client.clone(), stop.clone());
        tasks.spawn(async move {
            let ended = webhook::run(
                port,
                certificates,
                hook,
                served,
                of_webhook,
                client,
                stop.clone(),
            )
            .await;
            if let Err(error) = ended {
                error!(%error, "the webhook ended");
                stop.cancel();
            }
        });
    }

    let name = options
        .identity
        .clone()
        .unwrap_or_else(|| "walrust-operator".to_owned());
    let identity = format!("{name}_{:016x}", fastrand::u64(..));
    let leases = Api::<Lease>::namespaced(client, &namespace);
    let mut election = Election::new(leases, options.lease.clone(), identity);
    if !election.acquire(&stop).await? {
        return Ok(());
    }
    metrics.leads(true);
    let fenced = ClientBuilder::try_from(config).context("reach the API server")?;
    let client = fenced.with_layer(&Fence(election.tenure())).build();
    if let Some((_, Certificates::Kept(place))) = options.webhook {
        let keep = keeper::keep(
            client.clone(),
            place,
            Lifetimes::default(),
            Clock::system(),
            stop.clone(),
        );
        tasks.spawn(keep);
    }
    let setup = Setup {
        client,
        namespaces: options.namespaces,
        settings: (*settings).clone(),
        timing: options.timing,
        metrics: Arc::clone(&metrics),
        identity: name,
    };
    lead(setup, election, stop).await
}

/// Works and renews until `stop`; gives the lease back once the work has ended.
async fn lead(setup: Setup, mut election: Election, stop: CancellationToken) -> anyhow::Result<()> {
    let metrics = Arc::clone(&setup.metrics);
    let done = CancellationToken::new();
    let work = {
        let (stop, done) = (stop.clone(), done.clone());
        tokio::spawn(async move {
            controller::run(setup, stop.clone()).await;
            done.cancel();
        })
    };
    let limit = async {
        stop.cancelled().await;
        // A pass that hangs does not keep the next leader waiting.
        tokio::time::sleep(RENEW_DEADLINE.min(Duration::from_secs(10))).await;
        done.cancel();
    };
    let held = tokio::select! {
        held = election.hold(&done) => held,
        () = limit => election.hold(&done).await,
    };
    metrics.leads(false);
    work.abort();
    held.context("somebody else leads now; this process ends")?;
    if !stop.is_cancelled() {
        bail!("the controllers ended by themselves");
    }
    Ok(())
}

fn settings(options: &Options) -> anyhow::Result<Settings> {
    let Some(path) = &options.settings else {
        return Ok(Settings::default());
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Settings::parse(&text).with_context(|| path.display().to_string())
}

/// Without the definitions nothing works, and every watch would fail for ever.
async fn probe(client: &Client, namespace: Option<&String>) -> anyhow::Result<()> {
    let api: Api<WalrustBackup> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    match api.list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => bail!(
            "the cluster does not know WalrustBackup: walrust-operator crds | kubectl apply --server-side -f -, \
             or the chart with crds.install"
        ),
        Err(error) => Err(error).context("list WalrustBackups"),
    }
}
