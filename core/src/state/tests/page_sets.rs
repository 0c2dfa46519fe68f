use super::{Scratch, sum, txid};
use crate::state::{PageSet, PageSets};
use crate::types::{DatabaseSum, Lineage, Position, Timestamp};

fn at(number: u64) -> Position {
    let mut database = DatabaseSum::EMPTY;
    database.add(sum(1, number));
    Position {
        txid: txid(number),
        sum: database,
    }
}

fn set(since: u64, pages: impl Iterator<Item = u32>, files: u32) -> PageSet {
    let time = |millis| Timestamp::from_millis(1_700_000_000_000 + millis);
    PageSet {
        since: at(since),
        pages: pages.collect(),
        files,
        seen: (files > 0).then(|| (time(1), time(i64::from(files)))),
    }
}

fn sets() -> PageSets {
    PageSets {
        lineage: Lineage::new(7).unwrap(),
        through: at(9),
        sets: [
            set(9, std::iter::empty(), 0),
            set(5, (1..5000).step_by(3), 4),
            set(2, [1, 7, u32::MAX].into_iter(), 61),
        ],
    }
}

#[test]
fn stored_sets_come_back_whole() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    assert_eq!(PageSets::load(&dir).unwrap(), (None, None));
    let sets = sets();
    sets.save(&dir).unwrap();
    assert_eq!(PageSets::load(&dir).unwrap(), (Some(sets), None));
}

#[test]
fn torn_sets_count_as_absent_at_every_length_and_every_byte() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let mut sets = sets();
    sets.sets[1] = set(5, 1..50, 4);
    sets.save(&dir).unwrap();
    let path = scratch.state().join("changed");
    let whole = std::fs::read(&path).unwrap();
    let lost = |bytes: &[u8], what: usize| {
        std::fs::write(&path, bytes).unwrap();
        let (loaded, damage) = PageSets::load(&dir).unwrap();
        assert!(loaded.is_none() && damage.is_some(), "{what}");
    };
    for length in 0..whole.len() {
        lost(&whole[..length], length);
        let mut flipped = whole.clone();
        flipped[length] ^= 0x10;
        lost(&flipped, length);
    }
}
