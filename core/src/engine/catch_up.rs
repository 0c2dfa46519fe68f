//! Behind a pod's gate: a database that was restored before its stream went on is brought to the head (invariant 14).
//!
//! Nobody has it open, and nobody has written it since the restore, which its content proves; so what is newer in the
//! store may take its place. The lease is ours before the head is looked at: from then on nobody moves it.

use std::path::PathBuf;
use std::sync::Arc;

use super::open::sum_of;
use super::remote::Remote;
use super::tenure::{Bid, acquire};
use super::worker::Context;
use crate::error::Result;
use crate::process::blocking;
use crate::restore::{
    LeaveState, Overwrite, Progress, RestoreRequest, RestoreTarget, Silent, Verify, restore,
};
use crate::state::{Peek, Saved, StateDir};

/// Brings the database of `context` to the head of its stream, if it was restored, is as it was restored, and the head
/// moved since. Nothing of it may be held.
pub(super) async fn catch_up(context: &Context) -> Result<()> {
    let path = context.options.path.clone();
    let Some(saved) = blocking(move || restored(path)).await? else {
        return Ok(());
    };
    let shared = &context.shared;
    let bid = Bid {
        store: &shared.store,
        layout: &context.layout,
        clock: &shared.clock,
        holder: shared.holder.clone(),
        dir: None,
        policy: shared.lease,
        new_chain: false,
        known: saved.stream(),
        stop: &context.stop,
        patient: shared.patient,
    };
    // Kept, not given back: the session that follows takes it over as the same process.
    let _lease = acquire(bid, &mut |held| context.waits_for_lease(held)).await?;
    let remote = Remote::look(&*shared.store, &context.layout, None).await?;
    let head = remote.as_ref().map(Remote::head);
    let moved = match (head, &saved.restored_head) {
        (Some(head), Some(seen)) => !head.is(seen),
        (None, _) | (_, None) => false,
    };
    if !moved {
        return Ok(());
    }
    let options = context.open_options();
    if blocking(move || sum_of(&options)).await? != saved.place.sum {
        // Somebody wrote it: what attaches it says what may be done.
        return Ok(());
    }
    tracing::warn!(db = %context.options.name, "restored before the stream went on: restored again");
    let request = RestoreRequest {
        layout: context.layout.clone(),
        output: context.options.path.clone(),
        target: RestoreTarget::Latest,
        overwrite: Overwrite::Yes,
        verify: Verify::Quick,
        state: LeaveState::Yes,
    };
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    restore(&shared.store, &request, &shared.clock, &progress).await?;
    Ok(())
}

/// The saved state of a database that nobody has followed since it was restored.
fn restored(path: PathBuf) -> Result<Option<Saved>> {
    let Some(Peek { saved, spool, .. }) = StateDir::peek(&path)? else {
        return Ok(None);
    };
    let untouched = |saved: &Saved| saved.restored_head.is_some() && saved.epoch.is_none();
    Ok(saved.filter(untouched).filter(|_| spool.is_empty()))
}
