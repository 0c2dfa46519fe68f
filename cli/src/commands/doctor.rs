//! `walrust doctor`: whether the configuration would work.

use super::runtime;
use crate::exit::Failed;
use crate::output::Out;
use crate::output::doctor::print_report;
use crate::settings::Settings;
use crate::wire;

/// Checks bucket and databases; fails if a check does.
pub(crate) fn run(settings: &Settings, out: &mut Out) -> Result<(), Failed> {
    let resolved = settings.resolve_any()?;
    out.line(format!(
        "Checking {} and {} database(s)...",
        resolved.store.location,
        resolved.databases.len()
    ));
    out.line("");
    let report = runtime()?.block_on(wire::examine(&resolved));
    print_report(&report, out);
    Failed::told(report.failed().filter_map(|check| check.kind))
}
