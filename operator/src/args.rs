//! The command line.

use clap::{Parser, Subcommand};

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
}
