//! What a running replica says of itself, for `/status` and metrics.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::*;
use crate::error::ErrorKind;
use crate::replica::{Replica, ReplicaCondition, ReplicaOptions, ReplicaStatus, Until};

/// A replica that runs as `walrust replicate` does.
struct Running {
    status: watch::Receiver<ReplicaStatus>,
    stop: CancellationToken,
    outage: Arc<AtomicBool>,
    ended: JoinHandle<Result<()>>,
}

impl Running {
    fn start(pair: &Pair, until: Until) -> Self {
        let (events, _) = mpsc::channel(1);
        let outage = Arc::new(AtomicBool::new(false));
        let down = outage.clone();
        let store = Faulty::new(pair.world.store.clone(), move |_| {
            let down = down.load(Ordering::SeqCst);
            down.then_some(Fault::Before(ErrorKind::Unavailable))
        });
        let options = ReplicaOptions {
            store: Arc::new(store),
            layout: pair.world.layout.clone(),
            local: pair.local.clone(),
            interval: Duration::from_millis(10),
            replace: Replace::No,
            allow_network_fs: false,
            until,
            patient: false,
            clock: Clock::manual(NOW),
        };
        let replica = Replica::new(options, events).unwrap();
        let (status, stop) = (replica.status(), pair.stop.clone());
        let ended = tokio::spawn(replica.run(stop.clone()));
        Self {
            status,
            stop,
            outage,
            ended,
        }
    }

    /// The status as soon as `wanted` is true of it.
    async fn when(&mut self, wanted: impl Fn(&ReplicaStatus) -> bool) -> ReplicaStatus {
        let found = tokio::time::timeout(Duration::from_secs(60), self.status.wait_for(wanted));
        let found = found.await.map(|found| found.unwrap().clone());
        found.unwrap_or_else(|_| panic!("not in a minute: {:?}", self.status.borrow()))
    }
}

#[tokio::test]
async fn r112_the_status_tells_what_is_applied_how_far_that_is_behind_and_what_is_wrong() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    let mut running = Running::start(&pair, Until::Stopped);
    let first = running.status.borrow().clone();
    assert_eq!(first.state, ReplicaCondition::Snapshotting);
    assert_eq!((first.txid, first.lag_millis(NOW)), (None, 0));

    let good = running
        .when(|status| status.state == ReplicaCondition::Replica)
        .await;
    assert_eq!(good.txid, Txid::new(4));
    assert_eq!(good.head_txid, good.txid);
    assert_eq!((good.lag_millis(NOW), &good.error), (0, &None));
    assert_eq!(good.last_poll, Some(NOW));

    // Nothing answers; what was applied stays, and gets old.
    running.outage.store(true, Ordering::SeqCst);
    let blind = running.when(|status| status.error.is_some()).await;
    assert_eq!(blind.state, ReplicaCondition::Erroring);
    assert_eq!(blind.txid, Txid::new(4));
    let kind = blind.error.as_ref().unwrap().kind;
    assert_eq!(kind, ErrorKind::Unavailable.name());
    let later = Timestamp::from_millis(NOW.millis() + 7_000);
    assert_eq!(blind.lag_millis(later), 7_000);
    let json = serde_json::to_value(&blind).unwrap();
    assert_eq!(
        (&json["state"], &json["txid"]),
        (&"erroring".into(), &4.into())
    );

    // A file whose forerunner is not there yet.
    pair.change("INSERT INTO t(b) VALUES(1)");
    let six = pair.row().await;
    running.outage.store(false, Ordering::SeqCst);
    let behind = running.when(|status| status.error.is_none()).await;
    assert_eq!(
        (behind.txid, behind.head_txid),
        (Txid::new(4), Txid::new(six))
    );
    assert!(behind.lag_millis(NOW) > 0, "{behind:?}");

    pair.world.incremental(5, 5).await;
    let whole = running.when(|status| status.txid == Txid::new(six)).await;
    assert_eq!((whole.lag_millis(NOW), whole.renewals), (0, 0));
    running.stop.cancel();
    running.ended.await.unwrap().unwrap();
    pair.check(six);
}

#[tokio::test]
async fn r112_what_cannot_pass_ends_a_replica_that_has_never_seen_its_source() {
    let pair = Pair::new(1024, 0).await;
    std::fs::remove_dir_all(pair.world.bucket()).unwrap();
    std::fs::create_dir_all(pair.world.bucket()).unwrap();
    let running = Running::start(&pair, Until::Stopped);
    let error = running.ended.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(!pair.local.exists());
}
