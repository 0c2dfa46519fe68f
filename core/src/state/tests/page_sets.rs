use super::{Scratch, page, txid};
use crate::state::{PageSet, PageSets, Period};
use crate::types::{Lineage, PageCount};

fn lineage() -> Lineage {
    Lineage::new(7).unwrap()
}

fn pages(set: &PageSet) -> Vec<u32> {
    set.pages.iter().collect()
}

#[test]
fn each_level_counts_from_its_own_boundary() {
    let mut sets = PageSets::starting(lineage(), None);
    sets.add(txid(3), [page(1), page(5)]);
    let minute = sets.cut(Period::Minute);
    assert_eq!((minute.since, pages(&minute)), (None, vec![1, 5]));
    sets.add(txid(4), [page(2), page(9)]);
    assert_eq!(sets.set(Period::Minute).since, Some(txid(3)));
    assert_eq!(pages(sets.set(Period::Minute)), [2, 9]);
    assert_eq!(pages(sets.set(Period::Hour)), [1, 2, 5, 9]);
    sets.truncate(PageCount(4));
    assert_eq!(pages(sets.set(Period::Day)), [1, 2]);
    // The merged file could not be stored.
    sets.put_back(Period::Minute, minute);
    assert_eq!(sets.set(Period::Minute).since, None);
    assert_eq!(pages(sets.set(Period::Minute)), [1, 2, 5]);
}

#[test]
fn stored_sets_come_back_and_lag_or_another_stream_is_seen() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    assert_eq!(
        PageSets::load(&dir, lineage(), txid(1)).unwrap(),
        (None, None)
    );
    let mut sets = PageSets::starting(lineage(), Some(txid(1)));
    sets.add(txid(2), (1..5000).step_by(3).map(page));
    sets.cut(Period::Hour);
    sets.add(txid(3), [page(u32::MAX)]);
    sets.save(&dir).unwrap();
    let (loaded, damage) = PageSets::load(&dir, lineage(), txid(3)).unwrap();
    assert_eq!((loaded, damage), (Some(sets), None));
    let other = Lineage::new(8).unwrap();
    for (lineage, cursor) in [(lineage(), txid(4)), (lineage(), txid(2)), (other, txid(3))] {
        let (loaded, damage) = PageSets::load(&dir, lineage, cursor).unwrap();
        assert!(loaded.is_none() && damage.is_some());
    }
}

#[test]
fn torn_sets_count_as_absent_at_every_length_and_every_byte() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let mut sets = PageSets::starting(lineage(), Some(txid(1)));
    sets.add(txid(2), (1..50).map(page));
    sets.save(&dir).unwrap();
    let path = scratch.state().join("changed");
    let whole = std::fs::read(&path).unwrap();
    let lost = |bytes: &[u8], what: usize| {
        std::fs::write(&path, bytes).unwrap();
        let (loaded, damage) = PageSets::load(&dir, lineage(), txid(2)).unwrap();
        assert!(loaded.is_none() && damage.is_some(), "{what}");
    };
    for length in 0..whole.len() {
        lost(&whole[..length], length);
        let mut flipped = whole.clone();
        flipped[length] ^= 0x10;
        lost(&flipped, length);
    }
}
