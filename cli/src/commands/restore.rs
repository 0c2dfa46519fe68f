//! `walrust restore` (R71 to R85).

use std::path::{Path, PathBuf};

use walrust_core::config::StoreSettings;
use walrust_core::restore::RestoreTarget;
use walrust_core::types::DatabaseName;
use walrust_core::{Error, ErrorKind, Result};

use super::{runtime, streams};
use crate::args::{RestoreArgs, WhenNoBackup};
use crate::exit::{Failed, tell};
use crate::output::Out;
use crate::output::progress::Bar;
use crate::output::report::{Outcome, RestoreAllEntry, RestoreAllReport, RestoreReport};
use crate::settings::Settings;
use crate::signals::Signals;
use crate::wire::{self, RestoreJob};

/// Restores one database, or all of the configuration.
pub(crate) fn run(
    args: &RestoreArgs,
    settings: &Settings,
    wants_bar: bool,
    out: &mut Out,
) -> Result<(), Failed> {
    let store = settings.store()?;
    let work = Work {
        args,
        store,
        wants_bar,
    };
    let runtime = runtime()?;
    match (&args.name, &args.output) {
        (Some(name), Some(output)) => {
            let report = runtime.block_on(async {
                Signals::listen()?
                    .interrupting(work.one(name, output, out))
                    .await
            })?;
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

struct Work<'a> {
    args: &'a RestoreArgs,
    store: StoreSettings,
    wants_bar: bool,
}

impl Work<'_> {
    async fn one(
        &self,
        name: &DatabaseName,
        output: &Path,
        out: &mut Out,
    ) -> Result<RestoreReport> {
        if self.args.if_missing && is_there(output)? {
            return Ok(RestoreReport::nothing(
                name.clone(),
                output.into(),
                Outcome::Exists,
            ));
        }
        if self.args.when_no_backup == WhenNoBackup::StartFresh
            && !wire::has_backup(&self.store, name).await?
        {
            return Ok(RestoreReport::nothing(
                name.clone(),
                output.into(),
                Outcome::NoBackup,
            ));
        }
        out.line(format!("Restoring {name} from {}/...", self.store.location));
        let target = self.args.point_in_time.unwrap_or_default();
        let job = RestoreJob {
            name: name.clone(),
            output: output.into(),
            target,
            overwrite: self.args.force,
            leave_state: self.args.if_missing || self.args.resume,
            check: self.args.verify,
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
        if let Some(RestoreTarget::Txid(_)) = self.args.point_in_time {
            let message = "a TXID counts the transactions of one database: --all takes a time";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let streams = streams::configured(settings, &self.store).await?;
        let jobs: Vec<_> = streams
            .into_iter()
            .map(|stream| (stream.name, stream.path))
            .collect();
        if jobs.is_empty() {
            return Err(
                Error::new(ErrorKind::Invalid, "the configuration names no database")
                    .hint("add [[databases]] to walrust.toml, or name one to restore"),
            );
        }
        Ok(jobs)
    }
}

/// Whether something stands at `output`, a dangling link included.
fn is_there(output: &Path) -> Result<bool> {
    match std::fs::symlink_metadata(output) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(output.display(), error)),
    }
}
