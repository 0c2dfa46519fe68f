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
    /// Serve the admission webhook alone, without the controllers
    Webhook(WebhookArgs),
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
