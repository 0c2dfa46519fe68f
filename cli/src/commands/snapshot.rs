//! `walrust snapshot` (R33 to R40).

use walrust_core::process::Signals;
use walrust_core::{Error, ErrorKind};

use super::runtime;
use crate::exit::Failed;
use crate::output::Out;
use crate::output::progress::Bar;
use crate::settings::Settings;
use crate::wire;

/// Takes one snapshot.
pub(crate) fn run(settings: &Settings, wants_bar: bool, out: &mut Out) -> Result<(), Failed> {
    let resolved = settings.resolve()?;
    let [database] = &resolved.databases[..] else {
        let message = "a snapshot is of one database; the pattern matches several";
        return Err(Error::new(ErrorKind::Invalid, message).into());
    };
    let file_name = database
        .path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let (bucket, name) = (&resolved.store.location, &database.name);
    out.line(format!("Snapshotting {file_name} to {bucket}/{name}/..."));
    let runtime = runtime()?;
    let report = runtime.block_on(async {
        let bar = Bar::new(wants_bar);
        Signals::listen()?
            .interrupting(wire::snapshot(&resolved, &bar))
            .await
    })?;
    report.print(out);
    Ok(())
}
