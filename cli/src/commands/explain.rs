//! `walrust explain` (R121 to R126): what the configuration will do, from the resolver that `watch` uses.

use walrust_core::Result;
use walrust_core::config::DEFAULT_FILE;

use crate::exit::Failed;
use crate::output::Out;
use crate::output::explanation::{Explanation, NoFile};
use crate::settings::Settings;

/// Explains the configuration file. Needs no network, no credentials, and writes nothing.
pub(crate) fn run(settings: &Settings, out: &mut Out) -> Result<(), Failed> {
    let Some(file) = settings.file() else {
        out.line(format!(
            "No configuration file: {DEFAULT_FILE} is not there."
        ));
        out.line("Name one with --config, or give everything on the command line: see walrust watch --help.");
        out.json(&NoFile::looked_at(DEFAULT_FILE));
        return Ok(());
    };
    let resolved = settings.resolve_any()?;
    let explanation = Explanation::of(&file.path, &resolved);
    explanation.print(out);
    out.json(&explanation);
    Ok(())
}
