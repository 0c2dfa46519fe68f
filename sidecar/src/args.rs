//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use walrust_core::config::{Environment, MetricsLayer, Overrides, value};
use walrust_core::restore;

use crate::configuration::Source;

/// Continuous backup of the SQLite databases of a pod, or read replicas for it.
#[derive(Debug, Parser)]
#[command(
    name = "walrust-sidecar",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = "Environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL_S3, AWS_REGION, RUST_LOG, \
                  WALRUST_POD_NAME, WALRUST_POD_UID."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What it does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Follow the databases of the configuration until SIGTERM, then ship what is left
    Watch(RunArgs),
    /// Keep read replicas of the databases of the configuration
    Replicate(RunArgs),
    /// Restore the databases of the configuration and end: for init containers
    Restore(RestoreArgs),
}

/// `watch` and `replicate`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// Port of metrics, probes and status, instead of that of `listen` in `[metrics]` (default: 16767)
    #[arg(long, value_name = "PORT")]
    pub(crate) metrics_port: Option<u16>,

    /// Port of the loopback listener that takes requests, instead of `control` in `[metrics]` (default: 16768)
    #[arg(long, value_name = "PORT")]
    pub(crate) control_port: Option<u16>,

    /// How long shipping what is left may take after SIGTERM
    #[arg(long, value_name = "DURATION", default_value = "25s", value_parser = value::seconds_or_duration)]
    pub(crate) grace: Duration,
}

/// `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// Leave a database alone that is there; needs no store if all are
    #[arg(long)]
    pub(crate) if_missing: bool,

    /// What to do where the bucket has no such database; any other answer than "there is none" fails
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    pub(crate) when_no_backup: WhenNoBackup,

    /// What SQLite checks beyond the proof of bytes: quick_check, or the full integrity_check
    #[arg(long, value_name = "HOW", default_value = "quick")]
    pub(crate) verify: Verify,
}

/// The configuration.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file
    #[arg(long, value_name = "PATH", default_value = "/etc/walrust/walrust.toml")]
    pub(crate) config: PathBuf,
}

/// What a restore does without a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhenNoBackup {
    /// Let the application make its database.
    StartFresh,
    /// Exit 1.
    Fail,
}

impl From<WhenNoBackup> for restore::NoBackup {
    fn from(what: WhenNoBackup) -> Self {
        match what {
            WhenNoBackup::StartFresh => Self::StartFresh,
            WhenNoBackup::Fail => Self::Fail,
        }
    }
}

/// What SQLite checks after a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verify {
    /// Nothing; checksum and digest prove the bytes.
    None,
    /// `PRAGMA quick_check`.
    Quick,
    /// `PRAGMA integrity_check`.
    Full,
}

impl From<Verify> for restore::Verify {
    fn from(how: Verify) -> Self {
        match how {
            Verify::None => Self::None,
            Verify::Quick => Self::Quick,
            Verify::Full => Self::Full,
        }
    }
}

impl Command {
    /// Where the configuration comes from.
    pub(crate) fn source(&self, environment: Environment) -> Source {
        let (config, metrics) = match self {
            Self::Watch(args) | Self::Replicate(args) => (&args.config, args.metrics()),
            Self::Restore(args) => (&args.config, MetricsLayer::default()),
        };
        let overrides = Overrides {
            metrics,
            ..Overrides::default()
        };
        Source::new(config.config.clone(), environment, overrides)
    }
}

impl RunArgs {
    fn metrics(&self) -> MetricsLayer {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        MetricsLayer {
            port: self.metrics_port,
            control: self.control_port.map(|port| Some(loopback(port))),
            ..MetricsLayer::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_whole_and_its_ports_reach_the_settings() {
        Cli::command().debug_assert();
        let line = "walrust-sidecar watch --metrics-port 1 --control-port 2 --grace 500ms";
        let Command::Watch(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("watch");
        };
        assert_eq!(args.grace, Duration::from_millis(500));
        let everywhere = "[::]:16767".parse().ok();
        let settings = args.metrics().finish(everywhere, None);
        assert_eq!(settings.listen, "[::]:1".parse().ok());
        assert_eq!(settings.control, "127.0.0.1:2".parse().ok());
    }
}
