//! From arguments, environment and file to what holds.

use walrust_core::config::{
    self, Environment, File, LogFormat, MetricsLayer, Overrides, ReplicateSettings, Resolved,
    RetentionLayer, RetentionPolicy, StoreLayer, StoreSettings, SyncLayer, limits,
};
use walrust_core::{Error, ErrorKind, Result};

use crate::args::{BucketArgs, Command, Global, WatchArgs};

/// What a command is given besides its own arguments.
#[derive(Clone)]
pub(crate) struct Settings {
    environment: Environment,
    file: Option<File>,
    overrides: Overrides,
}

impl Settings {
    /// Reads the configuration file that the command line names, or `./walrust.toml` if it is there (R4).
    /// Commands without a bucket read none.
    pub(crate) fn load(
        global: &Global,
        command: &Command,
        environment: Environment,
    ) -> Result<Self> {
        let file = match (&global.config, command) {
            (_, Command::Completions { .. } | Command::Man { .. } | Command::Help { .. }) => None,
            // They ask a process that has its own.
            (None, Command::Status(_) | Command::Sync(_) | Command::Detach(_)) => None,
            (Some(path), _) => Some(File::load(path, &environment).map_err(named)?),
            (None, _) => File::load_default(&environment)?,
        };
        Ok(Self {
            environment,
            file,
            overrides: Overrides {
                log_format: global.log_format,
                ..overrides(command)?
            },
        })
    }

    /// How to log.
    pub(crate) fn log_format(&self) -> LogFormat {
        config::log_format(self.file.as_ref(), &self.overrides)
    }

    /// The environment.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// The store.
    pub(crate) fn store(&self) -> Result<StoreSettings> {
        config::resolve_store(self.file.as_ref(), &self.environment, &self.overrides)
    }

    /// What a compaction keeps of a database whose own entry says `of_entry`.
    pub(crate) fn retention(&self, of_entry: RetentionLayer) -> Result<RetentionPolicy> {
        config::resolve_retention(self.file.as_ref(), &self.overrides, of_entry)
    }

    /// What is served, as far as anybody said.
    pub(crate) fn metrics(&self) -> MetricsLayer {
        let of_file = self.file.as_ref().map(|file| file.metrics);
        self.overrides.metrics.over(of_file.unwrap_or_default())
    }

    /// How a replica is kept.
    pub(crate) fn replicate(&self) -> ReplicateSettings {
        config::resolve_replicate(self.file.as_ref(), &self.overrides)
    }

    /// The store and the databases.
    pub(crate) fn resolve(&self) -> Result<Resolved> {
        let resolved = self.resolve_any()?;
        resolved.require_databases()?;
        Ok(resolved)
    }

    /// The store and the databases, of which there may be none.
    pub(crate) fn resolve_any(&self) -> Result<Resolved> {
        config::resolve(self.file.as_ref(), &self.environment, &self.overrides)
    }
}

/// A missing file says itself that it was to be the configuration.
fn named(error: Error) -> Error {
    match error.object() {
        Some(_) => error.hint("named by --config"),
        None => error,
    }
}

/// What the arguments of `command` say over environment and file.
fn overrides(command: &Command) -> Result<Overrides> {
    Ok(match command {
        Command::Snapshot(args) => Overrides {
            store: store(&args.bucket)?,
            databases: vec![args.database.clone()],
            ..Overrides::default()
        },
        Command::Watch(args) => Overrides {
            store: store(&args.bucket)?,
            sync: sync(args),
            retention: RetentionLayer {
                hourly: args.retain_hourly,
                daily: args.retain_daily,
                weekly: args.retain_weekly,
                monthly: args.retain_monthly,
                ..RetentionLayer::default()
            },
            metrics: MetricsLayer {
                listen: args.no_metrics.then_some(None),
                port: args.metrics_port,
                ..MetricsLayer::default()
            },
            databases: args.databases.clone(),
            ..Overrides::default()
        },
        Command::Restore(args) => Overrides {
            store: store(&args.bucket)?,
            ..Overrides::default()
        },
        Command::List(args) => Overrides {
            store: store(&args.bucket)?,
            ..Overrides::default()
        },
        Command::Verify(args) => Overrides {
            store: store(&args.bucket)?,
            ..Overrides::default()
        },
        Command::Drill(args) => Overrides {
            store: store(&args.bucket)?,
            ..Overrides::default()
        },
        Command::Compact(args) => Overrides {
            store: store(&args.bucket)?,
            retention: RetentionLayer {
                hourly: args.hourly,
                daily: args.daily,
                weekly: args.weekly,
                monthly: args.monthly,
                points: args.points,
                minutes: None,
            },
            ..Overrides::default()
        },
        Command::Replicate(args) => Overrides {
            store: StoreLayer {
                location: Some(args.source.location.clone()),
                ..endpoint(args.endpoint.as_deref(), args.region.as_deref())?
            },
            replicate_interval: args.interval,
            metrics: MetricsLayer {
                listen: args.no_metrics.then_some(None),
                port: args.metrics_port,
                ..MetricsLayer::default()
            },
            ..Overrides::default()
        },
        Command::Doctor(args) => Overrides {
            store: store(&args.bucket)?,
            databases: args.databases.clone(),
            ..Overrides::default()
        },
        Command::Explain
        | Command::Status(_)
        | Command::Sync(_)
        | Command::Detach(_)
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Help { .. } => Overrides::default(),
    })
}

fn store(args: &BucketArgs) -> Result<StoreLayer> {
    Ok(StoreLayer {
        location: args.bucket.as_deref().map(str::parse).transpose()?,
        ..endpoint(args.endpoint.as_deref(), args.region.as_deref())?
    })
}

fn endpoint(endpoint: Option<&str>, region: Option<&str>) -> Result<StoreLayer> {
    let endpoint = endpoint.map(limits::endpoint).transpose();
    Ok(StoreLayer {
        endpoint: endpoint
            .map_err(|error| Error::new(ErrorKind::Invalid, error.to_string()).on("--endpoint"))?,
        region: region.map(str::to_owned),
        ..StoreLayer::default()
    })
}

/// Only what was given: a built-in default never overrides the file (R5).
fn sync(args: &WatchArgs) -> SyncLayer {
    SyncLayer {
        sync_interval: args.sync_interval,
        snapshot_interval: args.snapshot_interval,
        max_changes: args.max_changes,
        max_interval: args.max_interval,
        on_idle: args.on_idle,
        on_startup: args.on_startup,
        prove_interval: args.prove_interval,
        compact_after_snapshot: args.compact_after_snapshot.then_some(true),
        compact_interval: args.compact_interval,
        spool_limit: args.spool_limit,
        set_wal_mode: args.set_wal_mode.then_some(true),
        ..SyncLayer::default()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    fn layer(arguments: &[&str]) -> Overrides {
        let all = ["walrust", "watch", "app.db"].iter().chain(arguments);
        overrides(&Cli::try_parse_from(all).unwrap().command).unwrap()
    }

    #[test]
    fn v6_what_is_not_given_overrides_nothing() {
        let given = layer(&[]);
        assert_eq!(given.sync, SyncLayer::default());
        assert_eq!(given.store, StoreLayer::default());
        assert_eq!(given.retention, RetentionLayer::default());
    }

    #[test]
    fn g11_every_flag_of_retention_reaches_its_setting() {
        let nothing = RetentionLayer::default;
        let names = ["hourly", "daily", "weekly", "monthly"];
        for (name, expected) in names.into_iter().zip([
            RetentionLayer {
                hourly: Some(3),
                ..nothing()
            },
            RetentionLayer {
                daily: Some(3),
                ..nothing()
            },
            RetentionLayer {
                weekly: Some(3),
                ..nothing()
            },
            RetentionLayer {
                monthly: Some(3),
                ..nothing()
            },
        ]) {
            let watch = layer(&[&format!("--retain-{name}"), "3"]);
            assert_eq!(watch.retention, expected, "{name}");
            let line = format!("walrust compact app.db --{name} 3");
            let compact = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(
                overrides(&compact.command).unwrap().retention,
                expected,
                "{name}"
            );
        }
        let line = "walrust compact app.db --points 90m";
        let compact = overrides(&Cli::try_parse_from(line.split(' ')).unwrap().command).unwrap();
        let points = Some(std::time::Duration::from_secs(5400));
        assert_eq!(
            compact.retention,
            RetentionLayer {
                points,
                ..nothing()
            }
        );
    }

    #[test]
    fn r50_r136_metrics_are_on_loopback_unless_told() {
        let at = |arguments: &[&str]| layer(arguments).metrics.finish(DEFAULT, None).listen;
        const DEFAULT: config::Listen = None;
        assert_eq!(
            at(&["--metrics-port", "1"]),
            None,
            "a port turns nothing on"
        );
        let default = "127.0.0.1:16767".parse().ok();
        let at = |arguments: &[&str]| layer(arguments).metrics.finish(default, None).listen;
        assert_eq!(at(&[]), default);
        assert_eq!(at(&["--metrics-port", "1"]), "127.0.0.1:1".parse().ok());
        assert_eq!(at(&["--no-metrics"]), None);
    }

    #[test]
    fn v6_every_flag_of_watch_reaches_its_setting() {
        let from = |arguments: &[&str]| layer(arguments).sync;
        let nothing = SyncLayer::default;
        let seconds = |n| Some(std::time::Duration::from_secs(n));
        for (arguments, expected) in [
            (
                ["--sync-interval", "2s"],
                SyncLayer {
                    sync_interval: seconds(2),
                    ..nothing()
                },
            ),
            (
                ["--snapshot-interval", "1800"],
                SyncLayer {
                    snapshot_interval: seconds(1800),
                    ..nothing()
                },
            ),
            (
                ["--snapshot-interval", "0"],
                SyncLayer {
                    snapshot_interval: seconds(0),
                    ..nothing()
                },
            ),
            (
                ["--max-changes", "7"],
                SyncLayer {
                    max_changes: Some(7),
                    ..nothing()
                },
            ),
            (
                ["--max-interval", "60"],
                SyncLayer {
                    max_interval: seconds(60),
                    ..nothing()
                },
            ),
            (
                ["--on-idle", "5m"],
                SyncLayer {
                    on_idle: seconds(300),
                    ..nothing()
                },
            ),
            (
                ["--on-startup", "true"],
                SyncLayer {
                    on_startup: Some(true),
                    ..nothing()
                },
            ),
            (
                ["--on-startup", "false"],
                SyncLayer {
                    on_startup: Some(false),
                    ..nothing()
                },
            ),
            (
                ["--prove-interval", "1h"],
                SyncLayer {
                    prove_interval: seconds(3600),
                    ..nothing()
                },
            ),
            (
                ["--compact-after-snapshot", "--once"],
                SyncLayer {
                    compact_after_snapshot: Some(true),
                    ..nothing()
                },
            ),
            (
                ["--compact-interval", "3600"],
                SyncLayer {
                    compact_interval: seconds(3600),
                    ..nothing()
                },
            ),
            (
                ["--spool-limit", "8MiB"],
                SyncLayer {
                    spool_limit: Some(8 << 20),
                    ..nothing()
                },
            ),
            (
                ["--set-wal-mode", "--once"],
                SyncLayer {
                    set_wal_mode: Some(true),
                    ..nothing()
                },
            ),
        ] {
            assert_eq!(from(&arguments), expected, "{arguments:?}");
        }
    }
}
