//! `walrust compact`, also called `prune` (R86 to R100).

use walrust_core::config::{RetentionLayer, StoreSettings, streams};
use walrust_core::process::Signals;
use walrust_core::report::{JobEntry, Task};
use walrust_core::retention::{CompactReport, DryRun};
use walrust_core::types::{DatabaseName, Timestamp, Txid};
use walrust_core::{Error, ErrorKind, Result};

use super::runtime;
use super::streams::configured;
use super::verify::{leave_report, nothing_ran};
use crate::args::CompactArgs;
use crate::exit::{Failed, tell};
use crate::output::Out;
use crate::output::compaction::{CompactAllEntry, CompactAllReport, print_compaction};
use crate::settings::Settings;
use crate::wire;

/// Compacts one database, or all of the configuration.
pub(crate) fn run(args: &CompactArgs, settings: &Settings, out: &mut Out) -> Result<(), Failed> {
    let work = Work {
        args,
        settings,
        store: settings.store()?,
        dry_run: if args.force { DryRun::No } else { DryRun::Yes },
    };
    let runtime = runtime()?;
    runtime.block_on(async {
        let signals = Signals::listen()?;
        let work = async {
            Ok(match &args.name {
                Some(name) => work.one(name, out).await,
                None => work.all(out).await,
            })
        };
        signals.interrupting(work).await?
    })
}

struct Work<'a> {
    args: &'a CompactArgs,
    settings: &'a Settings,
    store: StoreSettings,
    dry_run: DryRun,
}

impl Work<'_> {
    async fn one(&self, name: &DatabaseName, out: &mut Out) -> Result<(), Failed> {
        let started = wire::now();
        let result = match self.of_entry(name) {
            Ok(of_entry) => self.compact(name, of_entry, out).await,
            Err(error) => Err(error),
        };
        let left = self.leave_report(started, vec![job_entry(name, &result)]);
        let report = self.unless(result, &left)?;
        left?;
        out.json(&report);
        Ok(())
    }

    /// Every database of the configuration; one that fails does not stop the others.
    async fn all(&self, out: &mut Out) -> Result<(), Failed> {
        let started = wire::now();
        let streams = match self.streams().await {
            Ok(streams) => streams,
            Err(error) => {
                let left = self.leave_report(started, vec![nothing_ran(&self.store, &error)]);
                return Ok(self.unless(Err(error), &left)?);
            }
        };
        let (mut entries, mut kinds, mut jobs) = (Vec::new(), Vec::new(), Vec::new());
        for stream in streams {
            let name = stream.name;
            if !entries.is_empty() {
                out.line("");
            }
            let result = self.compact(&name, stream.retention, out).await;
            jobs.push(job_entry(&name, &result));
            entries.push(match result {
                Ok(report) => CompactAllEntry::Done(Box::new(report)),
                Err(error) => {
                    let error = error.on(&name);
                    tell("compact", &error, self.settings.log_format());
                    kinds.push(error.kind());
                    let error = error.to_string();
                    CompactAllEntry::Failed { name, error }
                }
            });
        }
        out.json(&CompactAllReport {
            ok: kinds.is_empty(),
            databases: entries,
        });
        self.leave_report(started, jobs)?;
        Failed::told(kinds)
    }

    async fn compact(
        &self,
        name: &DatabaseName,
        of_entry: RetentionLayer,
        out: &mut Out,
    ) -> Result<CompactReport> {
        let policy = self.settings.retention(of_entry)?;
        let report = wire::compact(&self.store, name, policy, self.dry_run).await?;
        print_compaction(&report, wire::now(), out);
        Ok(report)
    }

    /// What the configuration says of this database alone, if it has it.
    fn of_entry(&self, name: &DatabaseName) -> Result<RetentionLayer> {
        let Some(file) = self.settings.file() else {
            return Ok(RetentionLayer::default());
        };
        let streams = streams::of(file, std::slice::from_ref(name))?;
        let stream = streams.into_iter().find(|stream| stream.name == *name);
        Ok(stream.map(|stream| stream.retention).unwrap_or_default())
    }

    async fn streams(&self) -> Result<Vec<streams::Stream>> {
        let streams = configured(self.settings, &self.store).await?;
        if streams.is_empty() {
            let error = Error::new(ErrorKind::Invalid, "the configuration names no database");
            return Err(error.hint("add [[databases]] to walrust.toml, or name one to compact"));
        }
        Ok(streams)
    }

    fn leave_report(&self, started: Timestamp, entries: Vec<JobEntry>) -> Result<()> {
        leave_report(self.args.report.as_deref(), Task::Compact, started, entries)
    }

    /// `result`; where that is an error, a report that could not be written is only told of.
    fn unless<T>(&self, result: Result<T>, left: &Result<()>) -> Result<T> {
        if let (Err(_), Err(error)) = (&result, left) {
            tell("compact", error, self.settings.log_format());
        }
        result
    }
}

fn job_entry(name: &DatabaseName, result: &Result<CompactReport>) -> JobEntry {
    let (txid, message) = match result {
        Ok(report) => {
            let verb = if report.dry_run {
                "would delete"
            } else {
                "deleted"
            };
            let (objects, bytes) = (report.delete_objects, report.free_bytes);
            let message = format!(
                "{verb} {objects} objects ({bytes} bytes), keeps {} snapshots and {} restore points",
                report.keep.len(),
                report.points_after
            );
            (
                report.latest.and_then(|point| Txid::new(point.txid)),
                message,
            )
        }
        Err(error) => (None, error.to_string()),
    };
    JobEntry {
        name: name.to_string(),
        ok: result.is_ok(),
        txid,
        message,
    }
}
