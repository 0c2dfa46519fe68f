//! Becoming the one writer of a stream: waiting for the lease as long as its owner may be gone.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{
    Acquired, Holder, HolderId, Known, Lease, LeasePolicy, LockIdentity, NewLineage,
};
use crate::state::StateDir;
use crate::store::{Layout, Store};
use crate::types::StreamId;

/// How much longer than a lease its owner is waited for.
const LEASE_SLACK: Duration = Duration::from_secs(5);
/// Bounds of the pause between two looks at a foreign lease.
const LEASE_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Who wants the lease, and how.
pub(super) struct Bid<'a> {
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) layout: &'a Layout,
    pub(super) clock: &'a Clock,
    /// This process among the holders of leases, and its name for people.
    pub(super) holder: (HolderId, String),
    /// The lock that proves a later process to be this one's successor; none without a state directory.
    pub(super) dir: Option<&'a StateDir>,
    pub(super) policy: LeasePolicy,
    pub(super) new_chain: bool,
    /// What is known of the stream already.
    pub(super) known: Option<StreamId>,
    pub(super) stop: &'a CancellationToken,
    /// Whether an owner that lives is waited for however long.
    pub(super) patient: bool,
}

/// Takes the lease, waiting for an owner that may be gone; `waits` is told what for. Errors: Fenced once the wait
/// is over and somebody else still writes.
pub(super) async fn acquire(bid: Bid<'_>, waits: &mut (dyn FnMut(&Error) + Send)) -> Result<Lease> {
    let lock = bid.dir.map(|dir| {
        let lock = dir.holder();
        LockIdentity {
            device: lock.device,
            inode: lock.inode,
            boot: lock.boot.clone(),
        }
    });
    let (id, name) = bid.holder;
    let holder = Holder { id, name, lock };
    let lineage = if bid.new_chain {
        NewLineage::Yes
    } else {
        NewLineage::No
    };
    let policy = LeasePolicy {
        lineage,
        ..bid.policy
    };
    let known = bid.known.map(|stream| Known {
        lineage: stream.lineage,
        epoch: stream.epoch,
    });
    let until = Instant::now() + policy.duration + LEASE_SLACK;
    loop {
        let store = bid.store.clone();
        let owner =
            match Lease::acquire(store, bid.layout, &holder, &policy, known, bid.clock).await? {
                Acquired::Held(lease) => return Ok(*lease),
                Acquired::HeldElsewhere(owner) => owner,
            };
        let again = Instant::now() + owner.retry_after.clamp(LEASE_PAUSE.0, LEASE_PAUSE.1);
        let hint = "wait until it ends, or stop it; to take over from this database: --adopt";
        let held = owner.into_error(bid.layout).hint(hint);
        if again > until && !bid.patient {
            return Err(held);
        }
        waits(&held);
        if timeout_at(again, bid.stop.cancelled()).await.is_ok() {
            return Err(Error::new(
                ErrorKind::Cancelled,
                "stopped while waiting for the lease",
            ));
        }
    }
}
