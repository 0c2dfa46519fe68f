//! `walrust restore` (R71 to R85).

use std::path::{Path, PathBuf};

use walrust_core::config::StoreSettings;
use walrust_core::process::Signals;
use walrust_core::report::{JobEntry, Task};
use walrust_core::restore::{RestoreTarget, is_there};
use walrust_core::types::DatabaseName;
use walrust_core::{Error, ErrorKind, Result};

use super::verify::leave_report;
use super::{runtime, streams};
use crate::args::{RestoreArgs, Verify, WhenNoBackup};
use crate::exit::{Failed, tell};
use crate::output::Out;
use crate::output::progress::Bar;
use crate::output::report::{Outcome, RestoreAllEntry, RestoreAllReport, RestoreReport};
use crate::settings::Settings;
use crate::wire::{self, RestoreJob};

/// Restores one database, or all of the configuration.
pub(crate) fn run(
    args: &RestoreArgs,
    settings: &Settings,
    wants_bar: bool,
    out: &mut Out,
) -> Result<(), Failed> {
    let work = Work {
        how: How::asked(args),
        store: settings.store()?,
        wants_bar,
    };
    let runtime = runtime()?;
    match (&args.name, &args.output) {
        (Some(name), Some(output)) => {
            let started = wire::now();
            let restored = runtime.block_on(async {
                Signals::listen()?
                    .interrupting(work.one(name, output, out))
                    .await
            });
            let entries = vec![job_entry(name, &restored)];
            let told = leave_report(args.report.as_deref(), Task::Restore, started, entries);
            // What went wrong first is what matters.
            let report = restored?;
            told?;
            report.print_lines(out);
            out.json(&report);
            Ok(())
        }
        _ => runtime.block_on(async {
            let all = work.all(settings, out);
            Signals::listen()?
                .interrupting(async { Ok(all.await) })
                .await?
        }),
    }
}

fn job_entry(name: &DatabaseName, restored: &Result<RestoreReport>) -> JobEntry {
    JobEntry {
        name: name.to_string(),
        ok: restored.is_ok(),
        txid: restored.as_ref().ok().and_then(|report| report.txid.txid),
        message: match restored {
            Ok(report) => match report.bytes_written {
                Some(bytes) => format!("{bytes} bytes restored"),
                None => "nothing to restore".to_owned(),
            },
            Err(error) => error.to_string(),
        },
    }
}

/// What a restore does, and under which circumstances.
#[derive(Clone, Copy)]
struct How {
    target: Option<RestoreTarget>,
    if_missing: bool,
    start_fresh: bool,
    overwrite: bool,
    leave_state: bool,
    check: Verify,
}

impl How {
    fn asked(args: &RestoreArgs) -> Self {
        Self {
            target: args.point_in_time,
            if_missing: args.if_missing,
            start_fresh: args.when_no_backup == WhenNoBackup::StartFresh,
            overwrite: args.force,
            leave_state: args.if_missing || args.resume,
            check: args.verify,
        }
    }

    /// For an application that is about to start: what is missing comes from the bucket, if that has it.
    const BEFORE_START: Self = Self {
        target: None,
        if_missing: true,
        start_fresh: true,
        overwrite: false,
        leave_state: true,
        check: Verify::Quick,
    };
}

/// Restores what is missing of the named databases or, where none is named, of the configuration, before an
/// application starts. Any error but the absence of a backup is one: a wrong key must not start an
/// application with an empty database.
pub(super) async fn before_start(
    settings: &Settings,
    named: &[PathBuf],
    out: &mut Out,
) -> Result<()> {
    let work = Work {
        how: How::BEFORE_START,
        store: settings.store()?,
        wants_bar: false,
    };
    let jobs = match named {
        [] => work.jobs(settings).await?,
        _ => settings
            .resolve()?
            .databases
            .into_iter()
            .map(|database| (database.name, database.path))
            .collect(),
    };
    for (name, path) in jobs {
        let report = work.one(&name, &path, out).await;
        report.map_err(|error| error.on(&name))?.print_lines(out);
    }
    Ok(())
}

struct Work {
    how: How,
    store: StoreSettings,
    wants_bar: bool,
}

impl Work {
    async fn one(
        &self,
        name: &DatabaseName,
        output: &Path,
        out: &mut Out,
    ) -> Result<RestoreReport> {
        if self.how.if_missing && is_there(output)? {
            return Ok(RestoreReport::nothing(
                name.clone(),
                output.into(),
                Outcome::Exists,
            ));
        }
        if self.how.start_fresh && !wire::has_backup(&self.store, name).await? {
            return Ok(RestoreReport::nothing(
                name.clone(),
                output.into(),
                Outcome::NoBackup,
            ));
        }
        out.line(format!("Restoring {name} from {}/...", self.store.location));
        let target = self.how.target.unwrap_or_default();
        let job = RestoreJob {
            name: name.clone(),
            output: output.into(),
            target,
            overwrite: self.how.overwrite,
            leave_state: self.how.leave_state,
            check: self.how.check,
        };
        let bar = Bar::new(self.wants_bar);
        let report = wire::restore(&self.store, &job, &bar).await?;
        Ok(RestoreReport {
            names_point: target != RestoreTarget::Latest,
            ..report
        })
    }

    /// Each database of the configuration to its path; one that fails does not stop the others.
    async fn all(&self, settings: &Settings, out: &mut Out) -> Result<(), Failed> {
        let jobs = self.jobs(settings).await?;
        let (mut entries, mut kinds) = (Vec::new(), Vec::new());
        for (name, output) in jobs {
            match self.one(&name, &output, out).await {
                Ok(report) => {
                    report.print_lines(out);
                    entries.push(RestoreAllEntry::Done(Box::new(report)));
                }
                Err(error) => {
                    let error = error.on(&name);
                    tell("restore", &error, settings.log_format());
                    kinds.push(error.kind());
                    let error = error.to_string();
                    entries.push(RestoreAllEntry::Failed {
                        name,
                        output,
                        error,
                    });
                }
            }
        }
        let ok = kinds.is_empty();
        out.json(&RestoreAllReport {
            ok,
            databases: entries,
        });
        Failed::told(kinds)
    }

    /// The streams of the configuration.
    async fn jobs(&self, settings: &Settings) -> Result<Vec<(DatabaseName, PathBuf)>> {
        if let Some(RestoreTarget::Txid(_)) = self.how.target {
            let message = "a TXID counts the transactions of one database: --all takes a time";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let streams = match self.how.if_missing {
            true => streams::missing(settings, &self.store).await?,
            false => streams::configured(settings, &self.store).await?,
        };
        let jobs: Vec<_> = streams
            .into_iter()
            .map(|stream| (stream.name, stream.path))
            .collect();
        // A pattern may mean nothing: the bucket has nothing of it, or its directory is in use.
        let names_one = settings
            .file()
            .is_some_and(|file| !file.databases.is_empty());
        if jobs.is_empty() && !(names_one && self.how.if_missing) {
            return Err(
                Error::new(ErrorKind::Invalid, "the configuration names no database")
                    .hint("add [[databases]] to walrust.toml, or name one to restore"),
            );
        }
        Ok(jobs)
    }
}
