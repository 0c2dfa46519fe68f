//! `walrust drill`: a restore to scratch, for proof.

use walrust_core::ErrorKind;
use walrust_core::process::Signals;
use walrust_core::report::{JobEntry, Task};
use walrust_core::verify::{DrillReport, DrillRequest, DrillTarget};

use super::verify::{leave_report, nothing_ran};
use super::{runtime, streams};
use crate::args::DrillArgs;
use crate::exit::Failed;
use crate::output::Out;
use crate::output::verification::DrillsReport;
use crate::settings::Settings;
use crate::wire;

/// Drills the databases named, or all.
pub(crate) fn run(args: &DrillArgs, settings: &Settings, out: &mut Out) -> Result<(), Failed> {
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let signals = Signals::listen()?;
        let work = async { Ok(drill(args, settings, out).await) };
        signals.interrupting(work).await
    });
    // What SQLite began to check need not be checked to its end.
    runtime.shutdown_background();
    done?
}

async fn drill(args: &DrillArgs, settings: &Settings, out: &mut Out) -> Result<(), Failed> {
    let (store, started) = (settings.store()?, wire::now());
    let names = match args.all {
        false => Ok(args.names.clone()),
        true => streams::all(settings, &store).await,
    };
    let leave = |entries| leave_report(args.report.as_deref(), Task::Drill, started, entries);
    let names = match names {
        Ok(names) => names,
        Err(error) => {
            leave(vec![nothing_ran(&store, &error)])?;
            return Err(error.into());
        }
    };
    let target = match args.random {
        true => DrillTarget::Random,
        false => DrillTarget::Latest,
    };
    let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let mut drills = DrillsReport::default();
    for name in names {
        let report = wire::drill(&store, &name, |layout| DrillRequest {
            layout,
            target,
            scratch: scratch.clone(),
        });
        drills.add(report.await, out);
    }
    drills.print(out);
    leave(drills.databases.iter().map(job_entry).collect())?;
    let failed = drills.databases.iter().filter(|report| !report.ok);
    Failed::told(failed.map(|report| report.failure.unwrap_or(ErrorKind::Corrupt)))
}

fn job_entry(report: &DrillReport) -> JobEntry {
    let restored = || format!("restored and checked in {} ms", report.duration_ms);
    JobEntry {
        name: report.name.clone(),
        ok: report.ok,
        txid: report.txid,
        message: report.message.clone().unwrap_or_else(restored),
    }
}
