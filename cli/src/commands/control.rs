//! `walrust status`, `walrust sync`, `walrust detach`: a word with a running watch.

use walrust_core::serve::Contact;
use walrust_core::{ErrorKind, Result};

use super::runtime;
use crate::args::{ContactArgs, DetachArgs, StatusArgs, SyncArgs};
use crate::exit::Failed;
use crate::output::{Out, control};

/// Shows how things are.
pub(crate) fn status(args: &StatusArgs, out: &mut Out) -> Result<(), Failed> {
    let contact = contact(&args.contact);
    let report = runtime()?.block_on(contact.status(&args.names))?;
    out.json(&report);
    for line in control::status(&report) {
        out.line(line);
    }
    Ok(())
}

/// Waits until everything committed is durable.
pub(crate) fn sync(args: &SyncArgs, out: &mut Out) -> Result<(), Failed> {
    let contact = contact(&args.contact);
    let synced = runtime()?.block_on(contact.sync(&args.names, args.timeout))?;
    out.json(&control::SyncReport::new(&synced));
    let mut kinds = Vec::new();
    for one in &synced {
        match &one.error {
            None => {
                let mark = out.check_mark();
                out.line(control::synced(mark, one));
            }
            Some(trouble) => {
                tracing::error!(db = %one.name, kind = trouble.kind, "{}", trouble.message);
                kinds.push(ErrorKind::named(&trouble.kind).unwrap_or(ErrorKind::NotDurable));
            }
        }
    }
    Failed::told(kinds)
}

/// Has databases let alone for a while.
pub(crate) fn detach(args: &DetachArgs, out: &mut Out) -> Result<(), Failed> {
    let contact = contact(&args.contact);
    let detached = runtime()?.block_on(contact.detach(&args.names, args.length))?;
    out.json(&control::DetachReport {
        databases: &detached,
    });
    for one in &detached {
        out.line(control::detached(one, args.length.is_zero()));
    }
    Ok(())
}

fn contact(args: &ContactArgs) -> Contact {
    match (&args.state, &args.control) {
        (Some(database), _) => Contact::State(database.clone()),
        (None, address) => Contact::Control(address.clone().unwrap_or_default()),
    }
}
