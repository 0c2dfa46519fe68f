//! `walrust verify` (R127 to R132).

use std::path::Path;

use walrust_core::config::StoreSettings;
use walrust_core::process::Signals;
use walrust_core::report::{JobEntry, JobReport, Task};
use walrust_core::types::{DatabaseName, Timestamp, Txid};
use walrust_core::verify::VerifyReport;
use walrust_core::{Error, Result};

use super::{runtime, streams};
use crate::args::VerifyArgs;
use crate::exit::{Failed, tell};
use crate::output::Out;
use crate::output::progress::Bar;
use crate::output::verification::{VerifyAllEntry, VerifyAllReport, announce, print};
use crate::settings::Settings;
use crate::wire;

/// Verifies one database, or all.
pub(crate) fn run(
    args: &VerifyArgs,
    settings: &Settings,
    wants_bar: bool,
    out: &mut Out,
) -> Result<(), Failed> {
    let work = Work {
        args,
        settings,
        store: settings.store()?,
        wants_bar,
    };
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let signals = Signals::listen()?;
        let work = async {
            Ok(match &args.name {
                Some(name) => work.one(name, out).await,
                None => work.all(out).await,
            })
        };
        signals.interrupting(work).await
    });
    // What SQLite began to check need not be checked to its end.
    runtime.shutdown_background();
    done?
}

struct Work<'a> {
    args: &'a VerifyArgs,
    settings: &'a Settings,
    store: StoreSettings,
    wants_bar: bool,
}

impl Work<'_> {
    async fn one(&self, name: &DatabaseName, out: &mut Out) -> Result<(), Failed> {
        let started = wire::now();
        let result = self.verify(name, out).await;
        self.leave_report(started, vec![job_entry(name, &result)])?;
        let report = result?;
        out.json(&report);
        Failed::told(report.failure())
    }

    /// One that cannot be verified does not stop the others.
    async fn all(&self, out: &mut Out) -> Result<(), Failed> {
        let started = wire::now();
        let names = match streams::all(self.settings, &self.store).await {
            Ok(names) => names,
            Err(error) => {
                self.leave_report(started, vec![nothing_ran(&self.store, &error)])?;
                return Err(error.into());
            }
        };
        let (mut entries, mut kinds, mut jobs) = (Vec::new(), Vec::new(), Vec::new());
        for (at, name) in names.into_iter().enumerate() {
            if at > 0 {
                out.line("");
            }
            let result = self.verify(&name, out).await;
            jobs.push(job_entry(&name, &result));
            entries.push(match result {
                Ok(report) => {
                    kinds.extend(report.failure());
                    VerifyAllEntry::Done(Box::new(report))
                }
                Err(error) => {
                    let error = error.on(&name);
                    tell("verify", &error, self.settings.log_format());
                    kinds.push(error.kind());
                    let error = error.to_string();
                    VerifyAllEntry::Failed {
                        name,
                        ok: false,
                        error,
                    }
                }
            });
        }
        let all = VerifyAllReport {
            ok: kinds.is_empty(),
            databases: entries,
        };
        all.print(out);
        self.leave_report(started, jobs)?;
        Failed::told(kinds)
    }

    async fn verify(&self, name: &DatabaseName, out: &mut Out) -> Result<VerifyReport> {
        announce(name, &self.store.location.to_string(), out);
        let bar = Bar::new(self.wants_bar);
        let verified = wire::verify(&self.store, name, self.args.fix, self.args.deep, &bar).await;
        bar.clear();
        let report = verified?;
        print(&report, out);
        Ok(report)
    }

    fn leave_report(&self, started: Timestamp, entries: Vec<JobEntry>) -> Result<()> {
        leave_report(self.args.report.as_deref(), Task::Verify, started, entries)
    }
}

fn job_entry(name: &DatabaseName, result: &Result<VerifyReport>) -> JobEntry {
    JobEntry {
        name: name.to_string(),
        ok: result.as_ref().is_ok_and(|report| report.ok),
        txid: result.as_ref().ok().and_then(|report| report.txid),
        message: match result {
            Ok(report) => report.summary(),
            Err(error) => error.to_string(),
        },
    }
}

/// The entry of a task that found nothing to do.
pub(super) fn nothing_ran(store: &StoreSettings, error: &Error) -> JobEntry {
    JobEntry {
        name: store.location.to_string(),
        ok: false,
        txid: None::<Txid>,
        message: error.to_string(),
    }
}

/// Writes the report of a Job, if one is wanted. In place: Kubernetes reads the file that it has made.
pub(super) fn leave_report(
    path: Option<&Path>,
    task: Task,
    started: Timestamp,
    entries: Vec<JobEntry>,
) -> Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let report = JobReport::new(task, started, wire::now(), entries);
    std::fs::write(path, report.to_bytes()?).map_err(|error| Error::io(path.display(), error))
}
