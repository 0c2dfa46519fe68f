//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
