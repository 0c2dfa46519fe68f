//! `walrust-operator`: what a cluster runs, and the same without a cluster.

mod args;

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use kube::Client;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use walrust_core::clock::Clock;
use walrust_core::process::Signals;
use walrust_operator::controller::Timing;
use walrust_operator::offline::{self, Source};
use walrust_operator::render::Settings;
use walrust_operator::run::{self, Options};
use walrust_operator::status::Patience;
use walrust_operator::webhook::rotation::Lifetimes;
use walrust_operator::webhook::{self, Certificates, Hook, Live, Metrics, Served, keeper};
use walrust_operator::{api, selftest, yaml};

use crate::args::{
    Cli, Command, LogFormat, OfflineArgs, RunArgs, Selftest, SelftestArgs, WebhookArgs,
};

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let result = match command {
        Command::Crds => crds(),
        Command::Render(args) => without_cluster(&args, offline::render),
        Command::Inject(args) => without_cluster(&args, offline::inject),
        Command::Run(args) => operate(args),
        Command::Webhook(args) => serve(&args),
        Command::Selftest(args) => try_out(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "walrust-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn crds() -> anyhow::Result<()> {
    let documents: Result<Vec<String>, yaml::Error> = api::all().iter().map(api::to_yaml).collect();
    print(&documents.context("write the definitions")?.join("---\n"))
}

fn without_cluster(
    args: &OfflineArgs,
    work: fn(&[Source], &str, &Settings) -> Result<String, offline::Error>,
) -> anyhow::Result<()> {
    let mut settings = settings(args.settings.as_deref())?;
    if let Some(image) = &args.image {
        settings.image.clone_from(image);
    }
    let sources = args.files.iter().map(|path| {
        Ok(Source {
            file: path.display().to_string(),
            text: read(path)?,
        })
    });
    let sources = sources.collect::<anyhow::Result<Vec<Source>>>()?;
    print(&work(&sources, &args.namespace, &settings)?)
}

fn settings(path: Option<&Path>) -> anyhow::Result<Settings> {
    match path {
        Some(path) => Settings::parse(&read(path)?).with_context(|| path.display().to_string()),
        None => Ok(Settings::default()),
    }
}

/// Serves the webhook until a signal, as the only one that keeps its certificates.
fn serve(args: &WebhookArgs) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .with_writer(io::stderr)
        .init();
    let settings = Arc::new(settings(args.settings.as_deref())?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.context("start the runtime")?.block_on(async {
        let client = Client::try_default().await.context("find the API server")?;
        let stop = CancellationToken::new();
        let metrics = Arc::new(Metrics::default());
        let served = Arc::new(Served::new(Arc::clone(&metrics)));
        let hook = Hook::new(Box::new(Live::new(client.clone(), None)), settings);
        let certificates = args.certificates();
        let keeping = async {
            if let Certificates::Kept(place) = certificates.clone() {
                let lifetimes = Lifetimes::default();
                keeper::keep(client.clone(), place, lifetimes, Clock::system(), stop.clone()).await;
            }
        };
        let serving =
            webhook::run(args.webhook_port, certificates.clone(), hook, served, metrics, client.clone(), stop.clone());
        let stopping = async {
            let mut signals = Signals::listen()?;
            signals.next().await;
            stop.cancel();
            anyhow::Ok(())
        };
        tokio::select! {
            (served, ()) = async { tokio::join!(serving, keeping) } => served.context("serve the webhook"),
            // What is under way is finished: the two above end by themselves once they are asked to.
            stopped = async { stopping.await?; std::future::pending().await } => stopped,
        }
    })
}

/// Two threads: passes are short, and wait for the network most of the time.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start")
}

fn operate(args: RunArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match args.log_format {
        LogFormat::Text => lines.with_ansi(false).init(),
        LogFormat::Json => lines.json().init(),
    }
    let timing = Timing {
        scrape: Duration::from_millis(args.scrape_millis),
        patience: Patience {
            unreachable: Duration::from_millis(args.unreachable_millis),
            config: Duration::from_millis(args.pending_millis),
        },
        ..Timing::default()
    };
    let namespace = args.namespace.clone();
    let certificates = args.certificates(namespace.as_deref().unwrap_or("default"));
    let webhook = args.webhook_port.zip(certificates);
    let options = Options {
        webhook,
        settings: args.settings,
        namespaces: args.watch_namespaces,
        namespace: args.namespace,
        lease: args.lease,
        identity: args.identity,
        metrics_port: args.metrics_port,
        timing,
    };
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let mut signals = Signals::listen()?;
        let signalled = stop.clone();
        tokio::spawn(async move {
            signals.next().await;
            signalled.cancel();
        });
        run::run(options, stop).await
    })
}

fn try_out(args: &SelftestArgs) -> anyhow::Result<()> {
    let said = runtime()?.block_on(async {
        let client = Client::try_default().await.context("find the cluster")?;
        match args.what {
            Selftest::Crds => selftest::crds(client, &args.namespace).await,
            Selftest::Webhook => selftest::webhook(client, &args.namespace).await,
        }
    })?;
    print(&format!("{said}\n"))
}

/// A file of text; `-` is stdin.
fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        let read = io::stdin().lock().read_to_string(&mut text);
        return read.map(|_| text).context("read stdin");
    }
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// Prints a result. A reader who has seen enough is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("write to stdout"),
    }
}
