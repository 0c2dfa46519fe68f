//! Restoring what is missing, before an application starts: what cannot be told from an error is never taken for
//! "there is no backup" (R142).

use std::path::Path;
use std::sync::Arc;

use super::RestoreReport;
use super::discover::has_backup;
use super::progress::Progress;
use super::run::{RestoreRequest, restore};
use super::stage::exists;
use crate::clock::Clock;
use crate::error::Result;
use crate::store::Store;

/// What to do where the store has nothing of a database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoBackup {
    /// Let the application make its database.
    StartFresh,
    /// Fail.
    Fail,
}

/// How a database stands that was looked for.
#[derive(Clone, Debug)]
pub enum Filled {
    /// It was there, and was left alone.
    Exists,
    /// The store has nothing of it.
    NoBackup,
    /// It was restored.
    Restored(Box<RestoreReport>),
}

/// Restores the database of `request` unless something stands at its place.
///
/// # Errors
/// Those of [`restore`], and those of the store where it is asked whether it has the database.
pub async fn fill(
    store: &Arc<dyn Store>,
    request: &RestoreRequest,
    no_backup: NoBackup,
    clock: &Clock,
    progress: &Arc<dyn Progress>,
) -> Result<Filled> {
    if is_there(&request.output)? {
        return Ok(Filled::Exists);
    }
    let layout = &request.layout;
    if no_backup == NoBackup::StartFresh
        && !has_backup(&**store, layout.prefix(), layout.name()).await?
    {
        return Ok(Filled::NoBackup);
    }
    let report = restore(store, request, clock, progress).await?;
    Ok(Filled::Restored(Box::new(report)))
}

/// Whether something stands at `output`, a dangling link included.
pub fn is_there(output: &Path) -> Result<bool> {
    exists(output)
}
