//! The tables of what is lawful.

use super::judge::*;
use super::record::{Holder, LockIdentity, Record};
use crate::types::{Epoch, Lineage, StreamId, Timestamp};
use std::time::Duration;

const LEASE: i64 = 30_000;

fn holder(id: u64, inode: Option<u64>) -> Holder {
    Holder {
        id: format!("{id:016x}").parse().unwrap(),
        name: format!("host-{id}"),
        lock: inode.map(|inode| LockIdentity {
            device: 1,
            inode,
            boot: "boot".to_owned(),
        }),
    }
}

fn known(lineage: u64, epoch: u32) -> Known {
    Known {
        lineage: Lineage::new(lineage).unwrap(),
        epoch: Epoch::new(epoch).unwrap(),
    }
}

fn record(holder: Holder) -> Record {
    let stream = StreamId {
        lineage: Lineage::new(5).unwrap(),
        epoch: Epoch::new(3).unwrap(),
    };
    Record::new(stream, holder, Timestamp::default())
}

#[test]
fn u8_u10_u20_when_a_lease_may_be_taken() {
    use Ground::{Expired, Fresh, Released, SameHolder};
    use IdleOwner::{Ask, Replace};
    let (us, other) = (holder(1, Some(10)), holder(2, Some(20)));
    let foreign = record(other.clone());
    let released = foreign.clone().release();
    let same_process = record(holder(1, None));
    let same_lock = record(holder(9, Some(10)));
    let mut rebooted = holder(9, Some(10));
    rebooted.lock.as_mut().unwrap().boot = "another".to_owned();
    let (rebooted, no_locks) = (record(rebooted), record(holder(9, None)));
    let wait = |millis| Verdict::Wait(Duration::from_millis(millis));
    for (case, record, age, us, known, idle, verdict) in [
        (
            "no lease, no objects",
            None,
            None,
            &us,
            None,
            Replace,
            Verdict::Take(Fresh),
        ),
        (
            "no lease, old objects",
            None,
            Some(LEASE),
            &us,
            None,
            Ask,
            Verdict::Take(Fresh),
        ),
        (
            "no lease, but somebody writes",
            None,
            Some(10_000),
            &us,
            None,
            Replace,
            wait(20_000),
        ),
        (
            "released a moment ago",
            Some(&released),
            Some(0),
            &us,
            None,
            Ask,
            Verdict::Take(Released),
        ),
        (
            "somebody writes",
            Some(&foreign),
            Some(1_000),
            &us,
            None,
            Replace,
            wait(29_000),
        ),
        (
            "one millisecond left",
            Some(&foreign),
            Some(LEASE - 1),
            &us,
            None,
            Replace,
            wait(1),
        ),
        (
            "expired",
            Some(&foreign),
            Some(LEASE),
            &us,
            None,
            Replace,
            Verdict::Take(Expired),
        ),
        (
            "idle, to be asked",
            Some(&foreign),
            Some(LEASE),
            &us,
            None,
            Ask,
            Verdict::Ask,
        ),
        (
            "our own process",
            Some(&same_process),
            Some(0),
            &us,
            None,
            Ask,
            Verdict::Take(SameHolder),
        ),
        (
            "our lock",
            Some(&same_lock),
            Some(0),
            &us,
            Some(known(5, 3)),
            Ask,
            Verdict::Take(SameHolder),
        ),
        (
            "our lock, another lineage",
            Some(&same_lock),
            Some(0),
            &us,
            Some(known(6, 3)),
            Replace,
            wait(30_000),
        ),
        (
            "a cloned volume",
            Some(&foreign),
            Some(0),
            &us,
            Some(known(5, 3)),
            Replace,
            wait(30_000),
        ),
        (
            "another boot",
            Some(&rebooted),
            Some(0),
            &us,
            Some(known(5, 3)),
            Replace,
            wait(30_000),
        ),
        (
            "no locks at all",
            Some(&no_locks),
            Some(0),
            &holder(1, None),
            Some(known(5, 3)),
            Replace,
            wait(30_000),
        ),
        (
            "rounding of the store's seconds",
            Some(&foreign),
            Some(-900),
            &us,
            None,
            Replace,
            wait(30_900),
        ),
        (
            "the store's clock was set back",
            Some(&foreign),
            Some(-3_600_000),
            &us,
            None,
            Replace,
            Verdict::Ask,
        ),
        (
            "set back, no lease",
            None,
            Some(-3_600_000),
            &us,
            None,
            Replace,
            wait(60_000),
        ),
    ] {
        let now = Timestamp::from_millis(1_000_000_000);
        let newest = age.map(|age: i64| now.plus_millis(-age));
        let policy = LeasePolicy {
            idle,
            ..LeasePolicy::default()
        };
        assert_eq!(
            judge(
                Seen {
                    record,
                    newest,
                    now
                },
                us,
                known,
                &policy
            ),
            verdict,
            "{case}"
        );
    }
}

#[test]
fn an_epoch_is_never_used_twice() {
    let lease = record(holder(2, None));
    let next = |record, known, lineage| next_stream(record, known, lineage).unwrap();
    let id = |lineage, epoch| StreamId {
        lineage: Lineage::new(lineage).unwrap(),
        epoch: Epoch::new(epoch).unwrap(),
    };
    assert_eq!(next(None, None, NewLineage::No).epoch, Epoch::FIRST);
    assert_eq!(next(None, Some(known(7, 4)), NewLineage::No), id(7, 5));
    assert_eq!(next(Some(&lease), None, NewLineage::No), id(5, 4));
    assert_eq!(
        next(Some(&lease), Some(known(5, 9)), NewLineage::No),
        id(5, 10)
    );
    assert_eq!(
        next(Some(&lease), Some(known(6, 9)), NewLineage::No),
        id(5, 4)
    );
    let new = next(Some(&lease), Some(known(5, 3)), NewLineage::Yes);
    assert!(new.lineage != lease.lineage && new.epoch == Epoch::new(4).unwrap());
    let mut last = lease;
    last.epoch = Epoch::new((1 << 24) - 1).unwrap();
    assert_eq!(next_stream(Some(&last), None, NewLineage::No), None);
}

#[test]
fn u20_when_a_write_needs_another_look() {
    let moment =
        |steady, wall| Moment::at(Duration::from_millis(steady), Timestamp::from_millis(wall));
    let looked = moment(100_000, 5_000_000);
    for (case, ended, again) in [
        ("at once", moment(100_050, 5_000_050), false),
        ("steady writing", moment(109_999, 5_009_999), false),
        (
            "ten seconds later: slow, paused, or just writing",
            moment(110_000, 5_010_000),
            true,
        ),
        (
            "the machine slept and its wall clock was set back",
            moment(110_000, 5_000_001),
            true,
        ),
        (
            "a virtual machine stood still",
            moment(100_001, 5_060_000),
            true,
        ),
        (
            "the wall clock went backwards",
            moment(100_001, 4_999_999),
            true,
        ),
        (
            "the steady clock went backwards: another boot",
            moment(5, 5_000_001),
            true,
        ),
    ] {
        assert_eq!(must_recheck(looked, ended), again, "{case}");
    }
}
