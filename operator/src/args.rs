//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use walrust_operator::webhook::{Certificates, Place};

/// The operator of walrust: continuous backup of SQLite databases in Kubernetes.
#[derive(Debug, Parser)]
#[command(
    name = "walrust-operator",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands, in the order in which help lists them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the definitions of both kinds, for kubectl apply
    Crds,
    /// Print what WalrustBackups and WalrustRestores become: ConfigMaps, CronJobs, Jobs
    Render(OfflineArgs),
    /// Print workloads with the sidecar that their labels ask for
    Inject(OfflineArgs),
    /// Look after the backups of a cluster
    Run(RunArgs),
    /// Serve the admission webhook alone, without the controllers
    Webhook(WebhookArgs),
    /// Try whether the cluster is set up, without making anything
    Selftest(SelftestArgs),
}

/// One operator of a cluster. The chart sets all of it.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The settings, as the chart writes them [default: what is built in]
    #[arg(long, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,

    /// A namespace to look after; may be given several times [default: all]
    #[arg(long = "watch-namespace", value_name = "NAMESPACE")]
    pub(crate) watch_namespaces: Vec<String>,

    /// The namespace of the lease [default: the pod's, or the kubeconfig's]
    #[arg(long, env = "POD_NAMESPACE")]
    pub(crate) namespace: Option<String>,

    /// The lease that decides which operator leads
    #[arg(long, default_value = "walrust-operator")]
    pub(crate) lease: String,

    /// Who this is, in the lease and in events
    #[arg(long, env = "POD_NAME")]
    pub(crate) identity: Option<String>,

    /// The port of metrics and probes
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    pub(crate) metrics_port: u16,

    /// The port of the webhook, on all addresses [default: no webhook]
    #[arg(long, value_name = "PORT")]
    pub(crate) webhook_port: Option<u16>,

    /// A directory with tls.crt and tls.key that somebody else keeps
    #[arg(long, value_name = "DIR", conflicts_with_all = ["webhook_secret", "webhook_configuration", "webhook_service"])]
    pub(crate) webhook_cert_dir: Option<PathBuf>,

    /// The Secret for certificates of our own
    #[arg(long, value_name = "NAME", requires_all = ["webhook_configuration", "webhook_service"])]
    pub(crate) webhook_secret: Option<String>,

    /// The MutatingWebhookConfiguration that is told who signed them
    #[arg(long, value_name = "NAME")]
    pub(crate) webhook_configuration: Option<String>,

    /// The Service that leads here
    #[arg(long, value_name = "NAME")]
    pub(crate) webhook_service: Option<String>,

    /// Another name or address that the API server may call us by; may be given several times
    #[arg(long, value_name = "HOST")]
    pub(crate) webhook_host: Vec<String>,

    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,

    /// How often sidecars are asked for their status, in milliseconds
    #[arg(long, hide = true, default_value_t = 15_000)]
    pub(crate) scrape_millis: u64,

    /// How long a sidecar may not answer, in milliseconds
    #[arg(long, hide = true, default_value_t = 60_000)]
    pub(crate) unreachable_millis: u64,

    /// How long a pod may run an older configuration, in milliseconds
    #[arg(long, hide = true, default_value_t = 180_000)]
    pub(crate) pending_millis: u64,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// What to try.
#[derive(Debug, Args)]
pub(crate) struct SelftestArgs {
    /// What to try
    #[arg(value_enum)]
    pub(crate) what: Selftest,

    /// Where
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
}

/// What can be tried.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Selftest {
    /// The definitions take what is right and refuse what is wrong
    Crds,
    /// The webhook sees pods that ask for a sidecar
    Webhook,
}

impl RunArgs {
    /// Where the webhook's certificate comes from; none where there is no webhook.
    pub(crate) fn certificates(&self, namespace: &str) -> Option<Certificates> {
        let (secret, configuration, service) = (
            &self.webhook_secret,
            &self.webhook_configuration,
            &self.webhook_service,
        );
        match (secret, configuration, service, &self.webhook_cert_dir) {
            (Some(secret), Some(configuration), Some(service), _) => {
                Some(Certificates::Kept(Place {
                    namespace: namespace.to_owned(),
                    secret: secret.clone(),
                    configuration: configuration.clone(),
                    service: service.clone(),
                    also: self.webhook_host.clone(),
                }))
            }
            (_, _, _, Some(directory)) => Some(Certificates::Files(directory.clone())),
            _ => None,
        }
    }
}

/// The admission webhook.
#[derive(Debug, Args)]
pub(crate) struct WebhookArgs {
    /// The operator's settings, as the chart writes them [default: what is built in]
    #[arg(long, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,

    /// The port, on all addresses
    #[arg(long, value_name = "PORT", default_value_t = 9443)]
    pub(crate) webhook_port: u16,

    /// A directory with tls.crt and tls.key that somebody else keeps
    #[arg(long, value_name = "DIR", conflicts_with_all = ["webhook_secret", "webhook_configuration", "webhook_service"])]
    pub(crate) webhook_cert_dir: Option<PathBuf>,

    /// The Secret for certificates of our own, in our namespace
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "webhook_cert_dir"
    )]
    pub(crate) webhook_secret: Option<String>,

    /// The MutatingWebhookConfiguration that is told who signed them
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "webhook_cert_dir"
    )]
    pub(crate) webhook_configuration: Option<String>,

    /// The Service that leads here
    #[arg(
        long,
        value_name = "NAME",
        required_unless_present = "webhook_cert_dir"
    )]
    pub(crate) webhook_service: Option<String>,

    /// Another name or address that the API server may call us by; may be given several times
    #[arg(long, value_name = "HOST")]
    pub(crate) webhook_host: Vec<String>,

    /// The operator's namespace
    #[arg(long, env = "POD_NAMESPACE", default_value = "walrust-system")]
    pub(crate) pod_namespace: String,
}

impl WebhookArgs {
    /// Where the certificate comes from.
    pub(crate) fn certificates(&self) -> Certificates {
        match (
            &self.webhook_secret,
            &self.webhook_configuration,
            &self.webhook_service,
        ) {
            (Some(secret), Some(configuration), Some(service)) => Certificates::Kept(Place {
                namespace: self.pod_namespace.clone(),
                secret: secret.clone(),
                configuration: configuration.clone(),
                service: service.clone(),
                also: self.webhook_host.clone(),
            }),
            _ => Certificates::Files(self.webhook_cert_dir.clone().unwrap_or_default()),
        }
    }
}

/// Files in, YAML out: no cluster is asked.
#[derive(Debug, Args)]
pub(crate) struct OfflineArgs {
    /// A file with YAML documents; - is stdin. May be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,

    /// The namespace of objects that name none
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,

    /// The operator's settings, as the chart writes them [default: what is built in]
    #[arg(long, value_name = "FILE")]
    pub(crate) settings: Option<PathBuf>,

    /// The image with walrust and walrust-sidecar in it
    #[arg(long)]
    pub(crate) image: Option<String>,
}
