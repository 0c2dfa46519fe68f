//! Two writers, one stream: against a directory and an S3 server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::clock::Clock;
use crate::error::{ErrorKind, Result};
use crate::store::suite::bucket::{self, Bucket};
use crate::store::*;
use crate::types::{Timestamp, Txid, TxidRange};

pub(super) fn layout() -> Layout {
    Layout::new("prod".parse().unwrap(), "app.db".parse().unwrap())
}

pub(super) fn object(txid: u64) -> String {
    layout().incremental(TxidRange::single(Txid::new(txid).unwrap()))
}

pub(super) fn holder(number: u64) -> Holder {
    let lock = LockIdentity {
        device: 1,
        inode: number,
        boot: "boot".to_owned(),
    };
    Holder {
        id: HolderId::random(),
        name: format!("host-{number}"),
        lock: Some(lock),
    }
}

fn asking() -> LeasePolicy {
    LeasePolicy {
        idle: IdleOwner::Ask,
        ..LeasePolicy::default()
    }
}

pub(super) async fn acquire(
    store: &Arc<dyn Store>,
    holder: &Holder,
    policy: &LeasePolicy,
    known: Option<Known>,
) -> Acquired {
    let clock = Clock::system();
    Lease::acquire(Arc::clone(store), &layout(), holder, policy, known, &clock)
        .await
        .unwrap()
}

pub(super) fn held(acquired: Acquired) -> Box<Lease> {
    match acquired {
        Acquired::Held(lease) => lease,
        Acquired::HeldElsewhere(owner) => panic!("held by {owner:?}"),
    }
}

pub(super) fn elsewhere(acquired: Acquired) -> Owner {
    match acquired {
        Acquired::HeldElsewhere(owner) => owner,
        Acquired::Held(lease) => panic!("ours: {lease:?}"),
    }
}

pub(super) async fn write(lease: &Lease, txid: u64) -> Result<PutOutcome> {
    lease
        .put(
            &object(txid),
            Bytes::from(format!("{txid} by {}", lease.stream_id().epoch.get())),
            Put::new_object(),
        )
        .await
}

/// A directory whose clock shows another time than its objects' times.
struct Shifted {
    bucket: Bucket,
    clock: Clock,
}

impl Shifted {
    fn new() -> Self {
        let bucket = bucket::directory();
        Self {
            bucket,
            clock: Clock::manual(Clock::system().now()),
        }
    }

    /// The store as it is `millis` from now.
    fn after(&self, millis: i64) -> Arc<dyn Store> {
        self.clock.set(Clock::system().now().plus_millis(millis));
        let store = FileStore::open(&self.bucket.folder.path().join("root")).unwrap();
        Arc::new(store.with_clock(self.clock.clone()))
    }
}

#[tokio::test]
async fn u8_of_two_writers_one_is_refused_and_the_history_stays() {
    for bucket in [bucket::directory(), bucket::in_process().await] {
        two_writers(&bucket).await;
    }
}

#[tokio::test]
#[ignore = "needs a SeaweedFS: WEED_BIN names the program"]
async fn u8_of_two_writers_one_is_refused_by_a_real_store() {
    two_writers(&bucket::weed().await).await;
}

async fn two_writers(bucket: &Bucket) {
    let (store, policy) = (&bucket.store, LeasePolicy::default());
    let (a, b) = (holder(1), holder(2));
    let first = held(acquire(store, &a, &policy, None).await);
    assert_eq!(
        (first.ground(), first.protection()),
        (Ground::Fresh, Protection::Fenced)
    );
    assert!(matches!(
        write(&first, 1).await.unwrap(),
        PutOutcome::Stored { .. }
    ));
    let owner = elsewhere(acquire(store, &b, &policy, None).await);
    assert_eq!((owner.name.as_str(), owner.epoch), ("host-1", Some(1)));
    assert!(owner.since.is_some() && owner.retry_after <= Duration::from_secs(31));
    assert!(matches!(
        write(&first, 2).await.unwrap(),
        PutOutcome::Stored { .. }
    ));
    assert_eq!(first.check().await.unwrap(), Standing::Ours);

    first.release().await.unwrap();
    let second = held(acquire(store, &b, &policy, None).await);
    assert_eq!(second.ground(), Ground::Released);
    assert_eq!(second.stream_id().lineage, first.stream_id().lineage);
    assert_eq!(second.stream_id().epoch.get(), 2);
    // The first comes back late: it can neither replace an object nor go on.
    assert!(matches!(
        write(&second, 3).await.unwrap(),
        PutOutcome::Stored { .. }
    ));
    assert!(matches!(
        write(&first, 3).await.unwrap(),
        PutOutcome::Refused { .. }
    ));
    assert_eq!(first.check().await.unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(
        write(&first, 4).await.unwrap_err().kind(),
        ErrorKind::Fenced
    );
    first.release().await.unwrap();
    assert_eq!(second.check().await.unwrap(), Standing::Ours);
    for (txid, body) in [(1, "1 by 1"), (2, "2 by 1"), (3, "3 by 2")] {
        assert_eq!(store.get(&object(txid), None).await.unwrap().bytes, body);
    }
    assert_eq!(store.head(&object(4)).await.unwrap(), None);
}

#[tokio::test]
async fn u8_of_many_at_once_one_gets_the_lease() {
    for bucket in [bucket::directory(), bucket::in_process().await] {
        let tasks: Vec<_> = (0..6)
            .map(|number| {
                let store = Arc::clone(&bucket.store);
                tokio::spawn(async move {
                    acquire(&store, &holder(number), &LeasePolicy::default(), None).await
                })
            })
            .collect();
        let mut held = 0;
        for task in tasks {
            held += u32::from(matches!(task.await.unwrap(), Acquired::Held(_)));
        }
        assert_eq!(held, 1);
    }
}

#[tokio::test]
async fn u20_an_overlapping_writer_takes_over_after_one_lease_and_the_old_one_is_stopped() {
    let shifted = Shifted::new();
    let wall = Clock::manual(Timestamp::from_millis(1_000_000));
    let (a, b, policy) = (holder(1), holder(2), LeasePolicy::default());
    let store = shifted.after(0);
    let first = Lease::acquire(Arc::clone(&store), &layout(), &a, &policy, None, &wall)
        .await
        .unwrap();
    let first = held(first);
    write(&first, 1).await.unwrap();
    elsewhere(acquire(&shifted.after(25_000), &b, &policy, None).await);
    let second = held(acquire(&shifted.after(31_000), &b, &policy, None).await);
    assert_eq!(
        (second.ground(), second.stream_id().epoch.get()),
        (Ground::Expired, 2)
    );
    // The old writer was stopped for a while: its write lands, and is not called durable.
    wall.set(Timestamp::from_millis(1_010_000));
    assert_eq!(
        write(&first, 2).await.unwrap_err().kind(),
        ErrorKind::Fenced
    );
    // Final, whatever the clocks say.
    wall.set(Timestamp::from_millis(1_000_000));
    assert_eq!(
        write(&first, 3).await.unwrap_err().kind(),
        ErrorKind::Fenced
    );
    assert_eq!(store.head(&object(3)).await.unwrap(), None);
    assert_eq!(second.check().await.unwrap(), Standing::Ours);
}

#[tokio::test]
async fn u10_only_the_lock_itself_proves_the_same_holder() {
    for bucket in [bucket::directory(), bucket::in_process().await] {
        let (store, policy) = (&bucket.store, LeasePolicy::default());
        let first = held(acquire(store, &holder(1), &policy, None).await);
        let known = Known {
            lineage: first.stream_id().lineage,
            epoch: first.stream_id().epoch,
        };
        // A clone of the volume knows all that the original knew, but has another lock file.
        elsewhere(acquire(store, &holder(2), &policy, Some(known)).await);
        let mut elsewhere_booted = holder(1);
        elsewhere_booted.lock.as_mut().unwrap().boot = "another".to_owned();
        elsewhere(acquire(store, &elsewhere_booted, &policy, Some(known)).await);
        // Another process with the very lock: the first is gone.
        let second = held(acquire(store, &holder(1), &asking(), Some(known)).await);
        assert_eq!(
            (second.ground(), second.stream_id().epoch.get()),
            (Ground::SameHolder, 2)
        );
        assert_eq!(first.check().await.unwrap_err().kind(), ErrorKind::Fenced);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_owner_that_answers_keeps_its_lease() {
    let shifted = Shifted::new();
    let (a, b) = (holder(1), holder(2));
    let store = shifted.after(3_600_000);
    let first = held(acquire(&store, &a, &asking(), None).await);
    let mut claims = Claims::new(Arc::clone(&store), layout().prefix(), &a.id);
    assert_eq!(claims.poll().await.unwrap(), Answer::Quiet);
    let owner = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            if let Answer::Given(name) = claims.poll().await.unwrap() {
                return (name, claims.poll().await.unwrap());
            }
        }
    });
    let found = elsewhere(acquire(&store, &b, &asking(), None).await);
    assert_eq!(found.name, "host-1");
    assert_eq!(owner.await.unwrap(), ("host-2".to_owned(), Answer::Quiet));
    assert_eq!(first.check().await.unwrap(), Standing::Ours);
}

#[tokio::test(start_paused = true)]
async fn silence_for_one_lease_is_release() {
    let shifted = Shifted::new();
    let store = shifted.after(3_600_000);
    let first = held(acquire(&store, &holder(1), &asking(), None).await);
    let started = tokio::time::Instant::now();
    let second = held(acquire(&store, &holder(2), &asking(), None).await);
    assert_eq!(second.ground(), Ground::Silent);
    assert!(started.elapsed() >= Duration::from_secs(30));
    assert_eq!(first.check().await.unwrap_err().kind(), ErrorKind::Fenced);
}

/// Lets the old owner write at a chosen moment of the challenger's attempt.
fn interrupted(shifted: &Shifted, at: impl Fn(&Call) -> bool + Send + 'static) -> Arc<dyn Store> {
    let path = shifted.bucket.folder.path().join("root").join(object(7));
    Arc::new(Faulty::new(shifted.after(3_600_000), move |call| {
        if at(call) {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "written meanwhile").unwrap();
        }
        None
    }))
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_writes_while_it_is_asked_lives() {
    let shifted = Shifted::new();
    held(acquire(&shifted.after(0), &holder(1), &asking(), None).await);
    let store = interrupted(&shifted, |call| {
        call.operation == Operation::Put && call.key.ends_with("claim.json")
    });
    elsewhere(acquire(&store, &holder(2), &asking(), None).await);
}

#[tokio::test(start_paused = true)]
async fn u20_a_write_between_the_look_and_the_take_over_is_waited_for() {
    for (writes, waits) in [(true, true), (false, false)] {
        let shifted = Shifted::new();
        held(acquire(&shifted.after(0), &holder(1), &LeasePolicy::default(), None).await);
        let store = interrupted(&shifted, move |call| {
            writes && call.operation == Operation::Put
        });
        let started = tokio::time::Instant::now();
        let second = held(acquire(&store, &holder(2), &LeasePolicy::default(), None).await);
        assert_eq!(second.ground(), Ground::Expired);
        assert_eq!(started.elapsed() >= RECHECK, waits);
    }
}

#[tokio::test(start_paused = true)]
async fn u20_a_store_whose_clock_was_set_back_is_asked_about_its_owner() {
    let shifted = Shifted::new();
    let first = held(acquire(&shifted.after(0), &holder(1), &LeasePolicy::default(), None).await);
    let store = shifted.after(-3_600_000);
    let second = held(acquire(&store, &holder(2), &LeasePolicy::default(), None).await);
    assert_eq!(second.ground(), Ground::Silent);
    assert_eq!(first.check().await.unwrap_err().kind(), ErrorKind::Fenced);
}

#[tokio::test]
async fn an_idle_stream_sends_nothing_and_a_busy_one_one_request_an_object() {
    let bucket = bucket::directory();
    let meter = Meter::default();
    let store: Arc<dyn Store> = Arc::new(Metered::new(Arc::clone(&bucket.store), meter.clone()));
    let wall = Clock::manual(Timestamp::from_millis(0));
    let lease = Lease::acquire(store, &layout(), &holder(1), &asking(), None, &wall)
        .await
        .unwrap();
    let lease = held(lease);
    let before = meter.snapshot().total();
    for txid in 1..=5 {
        write(&lease, txid).await.unwrap();
    }
    assert_eq!(meter.snapshot().total(), before + 5);
    wall.set(Timestamp::from_millis(10_000));
    for txid in 6..=8 {
        write(&lease, txid).await.unwrap();
    }
    assert_eq!(
        meter.snapshot().total(),
        before + 5 + 3 + 1,
        "one look at the lease after the pause"
    );
}

#[tokio::test(start_paused = true)]
async fn u9_a_lost_answer_is_no_second_owner() {
    let bucket = bucket::directory();
    for number in 1..=4 {
        let faulty = Faulty::new(Arc::clone(&bucket.store), {
            let mut puts = 0;
            move |call| {
                puts += u64::from(call.operation == Operation::Put);
                (call.operation == Operation::Put && puts == number)
                    .then_some(Fault::After(ErrorKind::Unavailable))
            }
        });
        let store: Arc<dyn Store> = Arc::new(Retrying::new(faulty, RetryPolicy::default()));
        let lease = held(acquire(&store, &holder(1), &LeasePolicy::default(), None).await);
        assert_eq!(lease.protection(), Protection::Fenced, "{number}");
        assert_eq!(lease.check().await.unwrap(), Standing::Ours, "{number}");
        assert_eq!(u64::from(lease.stream_id().epoch.get()), number);
    }
}

#[tokio::test]
async fn u17_an_unreadable_lease_is_never_a_fresh_one() {
    let bucket = bucket::directory();
    let store = &bucket.store;
    let clock = Clock::system();
    for body in ["", "{", "{\"v\":1}"] {
        store
            .put(&layout().lease(), body.into(), Put::always())
            .await
            .unwrap();
        let policy = LeasePolicy::default();
        let result = Lease::acquire(
            Arc::clone(store),
            &layout(),
            &holder(1),
            &policy,
            None,
            &clock,
        )
        .await;
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(
            store.get(&layout().lease(), None).await.unwrap().bytes,
            body
        );
    }
    store.delete(&[layout().lease()]).await.unwrap();
    let away: Arc<dyn Store> = Arc::new(Faulty::at(
        Arc::clone(store),
        1,
        Fault::Before(ErrorKind::Unavailable),
    ));
    let result = Lease::acquire(
        away,
        &layout(),
        &holder(1),
        &LeasePolicy::default(),
        None,
        &clock,
    )
    .await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(store.head(&layout().lease()).await.unwrap(), None);
}

#[tokio::test]
async fn a_deleted_lease_is_put_back_unless_another_stands_there() {
    let bucket = bucket::directory();
    let store = &bucket.store;
    let first = held(acquire(store, &holder(1), &LeasePolicy::default(), None).await);
    store.delete(&[layout().lease()]).await.unwrap();
    assert_eq!(first.check().await.unwrap(), Standing::Ours);
    elsewhere(acquire(store, &holder(2), &LeasePolicy::default(), None).await);
    assert!(first.uploads_are_create_only().await.unwrap());
    assert_eq!(first.check().await.unwrap(), Standing::Ours);
}

#[tokio::test]
async fn observing_tells_and_goes_on_and_off_asks_nothing() {
    let bucket = bucket::directory();
    let store = &bucket.store;
    let observe = LeasePolicy {
        mode: Mode::Observe,
        ..LeasePolicy::default()
    };
    let first = held(acquire(store, &holder(1), &observe, None).await);
    let second = held(acquire(store, &holder(2), &observe, None).await);
    assert_eq!(
        (second.ground(), second.stream_id().epoch.get()),
        (Ground::Observed, 2)
    );
    assert!(matches!(first.check().await.unwrap(), Standing::Lost(_)));
    assert!(write(&first, 1).await.is_ok());

    let meter = Meter::default();
    let counted: Arc<dyn Store> = Arc::new(Metered::new(Arc::clone(store), meter.clone()));
    let off = LeasePolicy {
        mode: Mode::Off,
        ..LeasePolicy::default()
    };
    let lease = held(acquire(&counted, &holder(3), &off, None).await);
    assert_eq!(lease.protection(), Protection::Off);
    lease.check().await.unwrap();
    lease.release().await.unwrap();
    assert_eq!(meter.snapshot().total(), 0);
}
