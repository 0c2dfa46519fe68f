//! Answering whoever asks whether we live: one conditional request every third of a lease for all streams together.

use std::time::Duration;

use tokio::time::sleep;

use super::watch::WatchHandle;
use crate::lease::Claims;

/// Answers for ever, while a stream of `handle` is ours.
pub(super) async fn answer(mut claims: Claims, lease: Duration, handle: WatchHandle) {
    loop {
        sleep(lease / 3).await;
        let watched = handle.watched();
        if !watched.iter().any(|(status, _)| status.lease.held) {
            continue;
        }
        // A store that does not answer us answers no challenger either; a stream that is taken is told elsewhere.
        if let Err(error) = claims.poll().await {
            tracing::debug!(%error, "no look at who asks for our leases");
        }
    }
}
