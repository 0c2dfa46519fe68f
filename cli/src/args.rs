//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use walrust_core::config::{LogFormat, limits, value};
use walrust_core::replica::Source;
use walrust_core::restore::RestoreTarget;
use walrust_core::serve::LONGEST_WAIT;
use walrust_core::types::DatabaseName;

use crate::commands::app::CommandLine;

/// Continuous backup and restore of SQLite databases to S3-compatible storage.
#[derive(Debug, Parser)]
#[command(
    name = "walrust",
    bin_name = "walrust",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL_S3, AWS_REGION \
                  (us-east-1 where unset), RUST_LOG, NO_COLOR."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command, before or after its name.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of all commands")]
pub(crate) struct Global {
    /// Path to config file [default: ./walrust.toml if it exists]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,

    /// Print results as JSON on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// How log lines on stderr look [default: text]
    #[arg(long, global = true, value_name = "FORMAT", value_parser = log_format_parser())]
    pub(crate) log_format: Option<LogFormat>,

    /// Log more; twice for each commit, three times for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Log errors only, show no progress
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Exit status of errors: simple is always 1; fine is 2 for usage, 3 not found, 4 damaged, 5 fenced,
    /// 6 not durable
    #[arg(
        long,
        global = true,
        value_name = "HOW",
        default_value = "simple",
        hide_default_value = true
    )]
    pub(crate) exit_codes: ExitCodes,
}

/// How much the exit status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExitCodes {
    /// 0 or 1.
    Simple,
    /// By kind of error.
    Fine,
}

fn log_format_parser() -> impl clap::builder::TypedValueParser<Value = LogFormat> {
    use clap::builder::TypedValueParser as _;
    clap::builder::PossibleValuesParser::new(LogFormat::WORDS)
        .try_map(|word| word.parse::<LogFormat>())
}

/// The commands, in the order in which help lists them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take an immediate snapshot
    #[command(override_usage = "walrust snapshot [OPTIONS] --bucket <BUCKET> <DATABASE>")]
    Snapshot(SnapshotArgs),
    /// Watch SQLite databases and sync WAL changes to S3
    #[command(override_usage = "walrust watch [OPTIONS] --bucket <BUCKET> <DATABASES>...")]
    Watch(WatchArgs),
    /// Restore a database from S3
    #[command(
        override_usage = "walrust restore [OPTIONS] --output <OUTPUT> --bucket <BUCKET> <NAME>"
    )]
    Restore(RestoreArgs),
    /// List databases in S3 bucket
    #[command(override_usage = "walrust list [OPTIONS] --bucket <BUCKET> [NAME]")]
    List(ListArgs),
    /// Clean up old snapshots using retention policy
    #[command(
        visible_alias = "prune",
        override_usage = "walrust compact [OPTIONS] --bucket <BUCKET> <NAME>"
    )]
    Compact(CompactArgs),
    /// Run as a read replica, polling S3 for changes
    #[command(override_usage = "walrust replicate [OPTIONS] --local <LOCAL> <SOURCE>")]
    Replicate(ReplicateArgs),
    /// Show what the current configuration will do
    #[command(override_usage = "walrust explain [--config <CONFIG>]")]
    Explain,
    /// Verify integrity of LTX files in S3
    #[command(override_usage = "walrust verify [OPTIONS] --bucket <BUCKET> <NAME>")]
    Verify(VerifyArgs),
    /// Restore to scratch, check, time and throw away
    #[command(override_usage = "walrust drill [OPTIONS] --bucket <BUCKET> <NAME>...")]
    Drill(DrillArgs),
    /// Check bucket and databases of the configuration, and say what to change
    #[command(override_usage = "walrust doctor [OPTIONS] [--bucket <BUCKET>] [DATABASES]...")]
    Doctor(DoctorArgs),
    /// Show how a running watch is doing
    #[command(
        override_usage = "walrust status [OPTIONS] <--state <DATABASE>|--control <ADDR>> [NAME]..."
    )]
    Status(StatusArgs),
    /// Wait until everything committed is stored
    #[command(
        override_usage = "walrust sync [OPTIONS] <--state <DATABASE>|--control <ADDR>> [NAME]..."
    )]
    Sync(SyncArgs),
    /// Have a running watch let databases alone for a while
    #[command(
        override_usage = "walrust detach [OPTIONS] --for <DURATION> <--state <DATABASE>|--control <ADDR>> [NAME]..."
    )]
    Detach(DetachArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write man pages into a directory
    Man {
        /// The directory, which is made where it is missing
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Print help for a command
    Help {
        /// The command
        #[arg(value_name = "COMMAND")]
        command: Option<String>,
    },
}

impl Command {
    /// The command's name, for messages.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Snapshot(_) => "snapshot",
            Self::Watch(_) => "watch",
            Self::Restore(_) => "restore",
            Self::List(_) => "list",
            Self::Explain => "explain",
            Self::Verify(_) => "verify",
            Self::Drill(_) => "drill",
            Self::Compact(_) => "compact",
            Self::Replicate(_) => "replicate",
            Self::Doctor(_) => "doctor",
            Self::Status(_) => "status",
            Self::Sync(_) => "sync",
            Self::Detach(_) => "detach",
            Self::Completions { .. } => "completions",
            Self::Man { .. } => "man",
            Self::Help { .. } => "help",
        }
    }
}

/// Where the backups are.
#[derive(Debug, Args)]
pub(crate) struct BucketArgs {
    /// S3 bucket, as BUCKET, s3://BUCKET/PREFIX or file:///DIR (required, unless the config file names it)
    #[arg(short, long)]
    pub(crate) bucket: Option<String>,

    /// S3 endpoint URL for Tigris/MinIO/etc. Also reads from AWS_ENDPOINT_URL_S3
    // Checked later: the parser would repeat what it refuses, and a password might be in it.
    #[arg(long)]
    pub(crate) endpoint: Option<String>,

    /// Region to sign requests for. Also reads from AWS_REGION [default: us-east-1]
    #[arg(long, value_parser = limits::region)]
    pub(crate) region: Option<String>,
}

/// `walrust snapshot`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// Path to the SQLite database file
    #[arg(value_name = "DATABASE")]
    pub(crate) database: PathBuf,

    #[command(flatten)]
    pub(crate) bucket: BucketArgs,

    /// Show no progress bar
    #[arg(long)]
    pub(crate) no_progress: bool,
}

/// `walrust watch`.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// One or more database files to watch (required, unless the config file names them)
    #[arg(value_name = "DATABASES")]
    pub(crate) databases: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) bucket: BucketArgs,

    /// Time within which a commit is durable, as 250ms, 1s; under sustained writing an upload begins after
    /// three quarters of it [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = sync_interval)]
    pub(crate) sync_interval: Option<Duration>,

    /// Full snapshot interval in seconds, 0 = disabled [default: 3600]
    #[arg(long, value_name = "SECONDS", value_parser = value::seconds_or_duration)]
    pub(crate) snapshot_interval: Option<Duration>,

    /// Take snapshot after N WAL frames, 0 = disabled [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) max_changes: Option<u64>,

    /// Maximum seconds between snapshots when changes detected, 0 = disabled [default: 0]
    #[arg(long, value_name = "SECONDS", value_parser = value::seconds_or_duration)]
    pub(crate) max_interval: Option<Duration>,

    /// Take snapshot after N seconds of no WAL activity, 0 = disabled [default: 0]
    #[arg(long, value_name = "SECONDS", value_parser = value::seconds_or_duration)]
    pub(crate) on_idle: Option<Duration>,

    /// Take snapshot immediately on watch start [default: false]
    #[arg(long, value_name = "true|false", action = ArgAction::Set, hide_possible_values = true)]
    pub(crate) on_startup: Option<bool>,

    /// Run compaction after each snapshot
    #[arg(long)]
    pub(crate) compact_after_snapshot: bool,

    /// Compaction interval in seconds, 0 = disabled [default: 0]
    #[arg(long, value_name = "SECONDS", value_parser = compact_interval)]
    pub(crate) compact_interval: Option<Duration>,

    /// Hourly snapshots to retain [default: 24]
    #[arg(long, value_name = "N", value_parser = hours)]
    pub(crate) retain_hourly: Option<u32>,

    /// Daily snapshots to retain [default: 7]
    #[arg(long, value_name = "N", value_parser = days)]
    pub(crate) retain_daily: Option<u32>,

    /// Weekly snapshots to retain [default: 12]
    #[arg(long, value_name = "N", value_parser = weeks)]
    pub(crate) retain_weekly: Option<u32>,

    /// Monthly snapshots to retain [default: 12]
    #[arg(long, value_name = "N", value_parser = months)]
    pub(crate) retain_monthly: Option<u32>,

    /// Ship everything committed so far, then exit
    #[arg(long)]
    pub(crate) once: bool,

    /// Restore what is missing, run this command, and exit as it does once its last commit is stored
    #[arg(long, value_name = "COMMAND", conflicts_with = "once")]
    pub(crate) exec: Option<CommandLine>,

    /// Continue the stream in the bucket with a database that walrust does not know, by what differs
    #[arg(long, conflicts_with = "new_chain")]
    pub(crate) adopt: bool,

    /// Begin a new history over the stream in the bucket, which stays restorable
    #[arg(long)]
    pub(crate) new_chain: bool,

    /// Set journal_mode=WAL on databases that are not in it
    #[arg(long)]
    pub(crate) set_wal_mode: bool,

    /// Local disk that each database may use for what the bucket has not taken yet [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = spool_limit)]
    pub(crate) spool_limit: Option<u64>,

    /// Restore the newest stored state to scratch this often, and check it; 0 = disabled [default: 0]
    #[arg(long, value_name = "DURATION", value_parser = prove_interval)]
    pub(crate) prove_interval: Option<Duration>,

    /// Prometheus metrics port [default: 16767]
    #[arg(long, value_name = "PORT")]
    pub(crate) metrics_port: Option<u16>,

    /// Disable metrics server
    #[arg(long, conflicts_with = "metrics_port")]
    pub(crate) no_metrics: bool,
}

/// `walrust restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Database name as stored in S3 (usually the original filename)
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub(crate) name: Option<DatabaseName>,

    /// Output path for restored database (required)
    #[arg(short, long, required_unless_present = "all")]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) bucket: BucketArgs,

    /// Restore to specific point in time (ISO 8601 format), or to a TXID
    #[arg(long, value_name = "TIMESTAMP|TXID")]
    pub(crate) point_in_time: Option<RestoreTarget>,

    /// Restore every database of the config file, each to its path
    #[arg(long, conflicts_with_all = ["name", "output"])]
    pub(crate) all: bool,

    /// Do nothing where the output exists already; else leave what a watcher needs to continue the stream
    #[arg(long, conflicts_with = "force")]
    pub(crate) if_missing: bool,

    /// What to do where the bucket has no such database: start-fresh exits 0 without a file
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    pub(crate) when_no_backup: WhenNoBackup,

    /// Replace an existing output
    #[arg(long)]
    pub(crate) force: bool,

    /// Leave what a watcher needs to continue the stream
    #[arg(long)]
    pub(crate) resume: bool,

    /// What SQLite checks beyond the proof of bytes: quick_check, or the full integrity_check
    #[arg(long, value_name = "HOW", default_value = "quick")]
    pub(crate) verify: Verify,

    /// Also write a short report as JSON to this file, as a Kubernetes Job's termination message
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    pub(crate) report: Option<PathBuf>,

    /// Show no progress bar
    #[arg(long)]
    pub(crate) no_progress: bool,
}

/// What a restore does without a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhenNoBackup {
    /// Exit 0 and let the application make its database.
    StartFresh,
    /// Exit 1.
    Fail,
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

/// `walrust list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Show the files and restore points of this database
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<DatabaseName>,

    #[command(flatten)]
    pub(crate) bucket: BucketArgs,
}

/// `walrust compact`.
#[derive(Debug, Args)]
pub(crate) struct CompactArgs {
    /// Database name as stored in S3
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub(crate) name: Option<DatabaseName>,

    #[command(flatten)]
    pub(crate) bucket: BucketArgs,

    /// Hourly snapshots to keep: the newest of each of the last N hours [default: 24]
    #[arg(long, value_name = "N", value_parser = hours)]
    pub(crate) hourly: Option<u32>,

    /// Daily snapshots to keep [default: 7]
    #[arg(long, value_name = "N", value_parser = days)]
    pub(crate) daily: Option<u32>,

    /// Weekly snapshots to keep [default: 12]
    #[arg(long, value_name = "N", value_parser = weeks)]
    pub(crate) weekly: Option<u32>,

    /// Monthly snapshots to keep [default: 12]
    #[arg(long, value_name = "N", value_parser = months)]
    pub(crate) monthly: Option<u32>,

    /// How long every restore point stays, as 24h, 7d; then one a minute, then one an hour [default: 24h]
    #[arg(long, value_name = "DURATION", value_parser = value::seconds_or_duration)]
    pub(crate) points: Option<Duration>,

    /// Actually delete files (default: dry-run only)
    #[arg(long)]
    pub(crate) force: bool,

    /// Compact every database of the config file
    #[arg(long, conflicts_with = "name")]
    pub(crate) all: bool,

    /// Also write a short report as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

/// `walrust verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Database name as stored in S3
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub(crate) name: Option<DatabaseName>,

    #[command(flatten)]
    pub(crate) bucket: BucketArgs,

    /// Remove orphaned entries from manifest, and write a missing or damaged one anew
    #[arg(long)]
    pub(crate) fix: bool,

    /// Restore the newest state to scratch too, and run integrity_check on it
    #[arg(long)]
    pub(crate) deep: bool,

    /// Verify every database of the config file, or of the bucket where it names none
    #[arg(long, conflicts_with = "name")]
    pub(crate) all: bool,

    /// Write a report of at most 4 KiB to this file, as a Kubernetes Job's termination message
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Show no progress bar
    #[arg(long)]
    pub(crate) no_progress: bool,
}

/// `walrust drill`.
#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// Database names as stored in S3
    #[arg(value_name = "NAME", required_unless_present = "all")]
    pub(crate) names: Vec<DatabaseName>,

    #[command(flatten)]
    pub(crate) bucket: BucketArgs,

    /// Drill every database of the config file, or of the bucket where it names none
    #[arg(long, conflicts_with = "names")]
    pub(crate) all: bool,

    /// Restore any advertised restore point, drawn by chance, instead of the newest state
    #[arg(long)]
    pub(crate) random: bool,

    /// Directory with room for one database at a time; nothing stays in it [default: TMPDIR, else /tmp]
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,

    /// Write a report of at most 4 KiB to this file, as a Kubernetes Job's termination message
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

/// `walrust replicate`.
#[derive(Debug, Args)]
pub(crate) struct ReplicateArgs {
    /// S3 location of the database, as s3://bucket/mydb, s3://bucket/prefix/mydb or file:///DIR/mydb
    #[arg(value_name = "SOURCE")]
    pub(crate) source: Source,

    /// Local database path for the replica (required)
    #[arg(long)]
    pub(crate) local: PathBuf,

    /// Poll interval. Supports ms, s, m, h suffixes [default: 5s]
    #[arg(long, value_parser = poll_interval)]
    pub(crate) interval: Option<Duration>,

    /// S3 endpoint URL for Tigris/MinIO/etc. Also reads from AWS_ENDPOINT_URL_S3
    // Checked later, as that of the other commands.
    #[arg(long)]
    pub(crate) endpoint: Option<String>,

    /// Region to sign requests for. Also reads from AWS_REGION [default: us-east-1]
    #[arg(long, value_parser = limits::region)]
    pub(crate) region: Option<String>,

    /// Catch up with the source, then exit
    #[arg(long)]
    pub(crate) once: bool,

    /// Replace a file at LOCAL that is no replica of SOURCE
    #[arg(long)]
    pub(crate) replace: bool,

    /// Prometheus metrics port [default: 16767]
    #[arg(long, value_name = "PORT")]
    pub(crate) metrics_port: Option<u16>,

    /// Disable metrics server
    #[arg(long, conflicts_with = "metrics_port")]
    pub(crate) no_metrics: bool,
}

fn poll_interval(text: &str) -> Result<Duration, value::ValueError> {
    limits::poll_interval(value::duration(text)?)
}

/// `walrust doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Database files to check instead of the configured ones
    #[arg(value_name = "DATABASES")]
    pub(crate) databases: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) bucket: BucketArgs,
}

/// Which running watch is meant.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ContactArgs {
    /// The watch of this database file, on this machine
    #[arg(long, value_name = "DATABASE")]
    pub(crate) state: Option<PathBuf>,

    /// The watch with this control listener, as 127.0.0.1:16768
    #[arg(long, value_name = "ADDR")]
    pub(crate) control: Option<String>,
}

/// `walrust status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Databases, by their names in the bucket [default: all of the watch]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<DatabaseName>,

    #[command(flatten)]
    pub(crate) contact: ContactArgs,
}

/// `walrust sync`.
#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// Databases, by their names in the bucket [default: all of the watch]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<DatabaseName>,

    #[command(flatten)]
    pub(crate) contact: ContactArgs,

    /// How long to wait, at most 1h
    #[arg(long, value_name = "DURATION", value_parser = sync_timeout, default_value = "30s")]
    pub(crate) timeout: Duration,
}

/// `walrust detach`.
#[derive(Debug, Args)]
pub(crate) struct DetachArgs {
    /// Databases, by their names in the bucket [default: the one that --state names]
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<DatabaseName>,

    #[command(flatten)]
    pub(crate) contact: ContactArgs,

    /// For how long, at most 1d; 0 ends it
    #[arg(long = "for", value_name = "DURATION", value_parser = value::seconds_or_duration)]
    pub(crate) length: Duration,
}

fn sync_timeout(text: &str) -> Result<Duration, value::ValueError> {
    value::at_most(value::seconds_or_duration(text)?, LONGEST_WAIT)
}

fn sync_interval(text: &str) -> Result<Duration, value::ValueError> {
    limits::sync_interval(value::seconds_or_duration(text)?)
}

fn prove_interval(text: &str) -> Result<Duration, value::ValueError> {
    limits::prove_interval(value::seconds_or_duration(text)?)
}

fn compact_interval(text: &str) -> Result<Duration, value::ValueError> {
    limits::compact_interval(value::seconds_or_duration(text)?)
}

fn retained(text: &str, most: u64) -> Result<u32, value::ValueError> {
    let number = text
        .parse()
        .map_err(|_| value::ValueError::Number(text.chars().take(40).collect()))?;
    limits::retained(number, most)
}

fn hours(text: &str) -> Result<u32, value::ValueError> {
    retained(text, limits::MOST_HOURLY)
}

fn days(text: &str) -> Result<u32, value::ValueError> {
    retained(text, limits::MOST_DAILY)
}

fn weeks(text: &str) -> Result<u32, value::ValueError> {
    retained(text, limits::MOST_WEEKLY)
}

fn months(text: &str) -> Result<u32, value::ValueError> {
    retained(text, limits::MOST_MONTHLY)
}

fn spool_limit(text: &str) -> Result<u64, value::ValueError> {
    limits::spool(value::bytes_or_size(text)?)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_parser_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn v14_the_examples_of_the_reference_parse() {
        for example in [
            "snapshot myapp.db --bucket my-backups",
            "snapshot myapp.db --bucket my-backups --endpoint https://fly.storage.tigris.dev",
            "watch myapp.db --bucket my-backups",
            "watch app.db users.db analytics.db --bucket my-backups",
            "watch myapp.db --bucket my-backups --snapshot-interval 1800",
            "watch myapp.db --bucket my-backups --endpoint https://fly.storage.tigris.dev",
            "restore myapp.db --bucket my-backups --output restored.db",
            "restore myapp.db -b my-backups -o restored.db --point-in-time 2024-01-15T10:30:00Z",
            "restore myapp.db -b my-backups -o restored.db --endpoint https://fly.storage.tigris.dev",
            "list --bucket my-backups",
            "list --bucket my-backups --endpoint https://fly.storage.tigris.dev",
            "--config w.toml watch",
            "watch app.db -b b --exec true",
            "watch --config w.toml",
            "watch app.db -b b --on-startup true --no-metrics --once",
            "watch app.db -b b --prove-interval 1h",
            "watch app.db -b b --metrics-port 9090",
            "restore --all --config w.toml --if-missing --when-no-backup start-fresh",
            "restore app.db -o o.db -b b --point-in-time txid:42 --verify full --force",
            "restore app.db -o o.db --config w.toml --resume --report /dev/termination-log",
            "list app.db -b b",
            "verify myapp.db --bucket my-backups",
            "verify myapp.db --bucket my-backups --endpoint https://fly.storage.tigris.dev",
            "verify myapp.db --bucket my-backups --fix",
            "verify --all --config w.toml --deep --report /dev/termination-log",
            "drill app.db users.db -b b --random --scratch /mnt --report r.json",
            "drill --all -b b",
            "watch myapp.db --bucket my-backups --compact-after-snapshot",
            "watch myapp.db --bucket my-backups --compact-interval 3600 --retain-hourly 48",
            "watch app.db -b b --retain-daily 1 --retain-weekly 2 --retain-monthly 0",
            "compact myapp.db --bucket my-backups",
            "compact myapp.db --bucket my-backups --force",
            "compact myapp.db --bucket my-backups --hourly 48",
            "compact myapp.db --bucket my-backups --hourly 6 --daily 3 --weekly 4 --monthly 3",
            "compact myapp.db -b b --endpoint https://fly.storage.tigris.dev --points 7d",
            "compact --all --config w.toml --force --report /dev/termination-log",
            "prune myapp.db --bucket my-backups",
            "replicate s3://my-bucket/mydb --local replica.db --interval 5s",
            "replicate s3://my-bucket/mydb --local /var/lib/app/replica.db --endpoint https://fly.storage.tigris.dev",
            "replicate s3://my-bucket/prefix/mydb --local replica.db",
            "replicate s3://my-bucket/mydb --local replica.db --interval 1s",
            "replicate file:///mnt/nas/mydb --local replica.db --interval 250ms --once --replace",
            "explain",
            "explain --config /etc/walrust/production.toml",
            "doctor",
            "doctor --config w.toml",
            "doctor app.db -b b",
            "status --state app.db",
            "status --control 127.0.0.1:16768 a.db b.db --json",
            "sync a.db --state app.db --timeout 5s",
            "detach a.db --control 127.0.0.1:16768 --for 5m",
        ] {
            let arguments = ["walrust"].into_iter().chain(example.split(' '));
            if let Err(error) = Cli::try_parse_from(arguments) {
                panic!("{example}: {error}");
            }
        }
    }

    #[test]
    fn what_contradicts_itself_or_comes_later_is_refused() {
        for bad in [
            "watch app.db -b b --adopt --new-chain",
            "watch app.db -b b --sync-interval 0",
            "watch app.db -b b --snapshot-interval -1",
            "watch app.db -b b --max-changes 1.5",
            "watch app.db -b b --on-startup",
            "watch app.db -b b --on-startup yes",
            "watch app.db -b b --spool-limit 1",
            "watch app.db -b b --compact-after-snapshot=true",
            "watch app.db -b b --compact-interval 0.5",
            "watch app.db -b b --retain-hourly 8761",
            "watch app.db -b b --hourly 3",
            "watch app.db -b b --prove-interval 10ms",
            "watch app.db -b b --exec true --once",
            "watch app.db -b b --exec",
            "watch app.db -b b --metrics-port 1 --no-metrics",
            "watch app.db -b b --metrics-port 65536",
            "restore app.db -b b",
            "restore -o o.db -b b",
            "restore app.db -o o.db --all",
            "restore --all --config w.toml --report r.json",
            "restore app.db -o o.db --if-missing --force",
            "restore app.db -o o.db --point-in-time yesterday",
            "restore .. -o o.db",
            "restore a/0000 -o o.db",
            "list -v -q",
            "compact -b b",
            "compact app.db --all -b b",
            "compact app.db -b b --hourly -1",
            "compact app.db -b b --hourly many",
            "compact app.db -b b --retain-hourly 3",
            "compact app.db -b b --points yesterday",
            "replicate s3://my-bucket/a",
            "replicate --local a.db",
            "replicate s3://my-bucket --local a.db",
            "replicate s3://my-bucket/a --local a.db --interval 5",
            "replicate s3://my-bucket/a --local a.db --interval 0s",
            "replicate s3://my-bucket/a --local a.db --interval s",
            "replicate s3://my-bucket/a --local a.db --metrics-port 1 --no-metrics",
            "status",
            "status --state a.db --control 127.0.0.1:1",
            "sync --state a.db --timeout 2h",
            "detach --state a.db",
            "explain app.db",
            "verify -b b",
            "verify app.db --all -b b",
            "verify app.db other.db -b b",
            "drill -b b",
            "drill app.db --all -b b",
            "snapshot",
            "snapshot a.db b.db",
            "man",
            "completions",
            "completions tcsh",
        ] {
            let arguments = ["walrust"].into_iter().chain(bad.split(' '));
            assert!(Cli::try_parse_from(arguments).is_err(), "{bad}");
        }
    }
}
