use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;

use super::{Scratch, page, page_size, place, saved, sum};
use crate::error::ErrorKind;
use crate::state::{Entries, PageTable, Place, Proof, StateDir};
use crate::types::{DatabaseSum, Epoch, PageNumber, PageSum};

/// What the table must say: page to sum, of one state.
pub(super) type Model = BTreeMap<u32, PageSum>;

pub(super) fn total(model: &Model) -> DatabaseSum {
    let mut sum = DatabaseSum::EMPTY;
    model.values().for_each(|page| sum.add(*page));
    sum
}

fn open(dir: &StateDir) -> PageTable {
    PageTable::open(dir, 1 << 20).unwrap().0
}

/// A table of `count` pages at TXID 1, with its model.
pub(super) fn filled(dir: &StateDir, count: u32) -> (PageTable, Model) {
    let mut table = open(dir);
    let model: Model = (1..=count).map(|n| (n, sum(n, 1))).collect();
    let mut fill = table.fill(page_size()).unwrap();
    for (number, sum) in &model {
        fill.push(page(*number), *sum).unwrap();
    }
    let state = saved(place(1, count, total(&model)));
    table.install(fill, state).unwrap();
    (table, model)
}

/// Changes pages and size of the model; the batch that says so.
pub(super) fn change(model: &mut Model, at: u64, count: u32, pages: &[u32]) -> (Entries, Place) {
    let grown = model.len() as u32 + 1..=count;
    model.retain(|number, _| *number <= count);
    let mut all: Vec<u32> = pages
        .iter()
        .copied()
        .filter(|n| *n <= count)
        .chain(grown)
        .collect();
    all.sort_unstable();
    all.dedup();
    let mut entries = Entries::new();
    for number in all {
        let sum = sum(number, at);
        model.insert(number, sum);
        entries.push(page(number), sum).unwrap();
    }
    (entries, place(at, count, total(model)))
}

pub(super) fn assert_holds(table: &PageTable, model: &Model) {
    let pages: Vec<PageNumber> = (1..=model.len() as u32 + 40).map(page).collect();
    let mut seen = 0;
    table
        .lookup_all(&pages, &mut |page, sum| {
            assert_eq!(sum, model.get(&page.get()).copied(), "{page:?}");
            seen += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, pages.len());
}

#[test]
fn layers_are_seen_at_once_and_committed_in_order() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let (mut table, mut model) = filled(&dir, 10);
    let mut states = Vec::new();
    for (at, count, pages) in [(2, 12, vec![1, 5]), (7, 4, vec![1]), (8, 11, vec![2])] {
        let (entries, place) = change(&mut model, at, count, &pages);
        table.layer(entries, place).unwrap();
        assert_holds(&table, &model);
        states.push((place, model.clone()));
    }
    for (place, model) in states {
        assert_eq!(table.commit().unwrap(), Some(place));
        assert_eq!(table.saved().map(|saved| saved.place), Some(place));
        let length = scratch.state().join("pages").metadata().unwrap().len();
        assert_eq!(length, 64 + 24 * u64::from(place.page_count.0));
        // A start now finds exactly this state.
        let mut again = open(&dir);
        assert_eq!(again.prove().unwrap(), Proof::Proven);
        assert_holds(&again, &model);
    }
    assert_eq!(table.commit().unwrap(), None);
    assert_holds(&table, &model);
}

#[test]
fn dropped_layers_leave_the_committed_state() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let (mut table, model) = filled(&dir, 10);
    let (entries, place) = change(&mut model.clone(), 2, 20, &[1, 2, 3]);
    table.layer(entries, place).unwrap();
    table.drop_pending();
    assert_holds(&table, &model);
    assert_eq!(table.newest().map(|place| place.txid.get()), Some(1));
}

#[test]
fn pending_layers_are_bounded() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    filled(&dir, 10);
    let (mut table, _) = PageTable::open(&dir, 28 * 3).unwrap();
    assert_eq!(table.prove().unwrap(), Proof::Proven);
    let mut model: Model = (1..=10).map(|n| (n, sum(n, 1))).collect();
    let (entries, place) = change(&mut model, 2, 10, &[1, 2]);
    table.layer(entries, place).unwrap();
    let (entries, place) = change(&mut model, 3, 10, &[1, 2]);
    let error = table.layer(entries.clone(), place).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    table.commit().unwrap();
    table.layer(entries, place).unwrap();
}

#[test]
fn a_table_answers_nothing_before_it_is_proven() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    assert!(open(&dir).lookup(page(1)).is_err());
    let (table, _) = filled(&dir, 10);
    drop(table);
    let table = open(&dir);
    assert!(table.lookup(page(1)).is_err());
}

#[test]
fn a_flipped_bit_in_the_table_is_seen_by_its_sum_and_rebuilt() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    drop(filled(&dir, 10));
    let path = scratch.state().join("pages");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[64 + 3 * 24 + 9] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut table = open(&dir);
    assert!(matches!(table.prove().unwrap(), Proof::Wrong { .. }));
    assert!(table.lookup(page(1)).is_err());
    drop(table);
    let (table, model) = filled(&dir, 10);
    assert_holds(&table, &model);
}

#[test]
fn what_is_known_beside_the_place_outlives_lost_redo_files() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let (mut table, mut model) = filled(&dir, 10);
    table.update(|saved| saved.epoch = Epoch::new(9)).unwrap();
    for at in 2..5 {
        let (entries, place) = change(&mut model, at, 10, &[1]);
        table.layer(entries, place).unwrap();
        table.commit().unwrap();
    }
    assert_eq!(table.saved().unwrap().epoch, Epoch::new(9));
    drop(table);
    // As a power loss may leave them.
    for name in ["redo.0", "redo.1"] {
        std::fs::write(scratch.state().join(name), [0; 5000]).unwrap();
    }
    let (mut table, damage) = PageTable::open(&dir, 1 << 20).unwrap();
    assert_eq!(damage.len(), 2, "{damage:?}");
    assert_eq!(table.saved().unwrap().epoch, Epoch::new(9));
    assert!(matches!(table.prove().unwrap(), Proof::Wrong { .. }));
}

/// The batch as a huge one, committed.
pub(super) fn commit_huge(
    table: &mut PageTable,
    model: &mut Model,
    at: u64,
    count: u32,
    pages: &[u32],
) {
    let (entries, place) = change(model, at, count, pages);
    let mut huge = table.huge().unwrap();
    for (page, sum) in entries.iter() {
        huge.push(page, sum).unwrap();
    }
    assert_eq!(huge.pages(), entries.len() as u64);
    table.commit_huge(huge, place).unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Layer(u32, Vec<u32>),
    Commit,
    Joined(usize),
    Drop,
    Huge(u32, Vec<u32>),
    Update(u32),
    Fill(u32),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let batch = || (1..120_u32, prop::collection::vec(1..120_u32, 0..30));
    prop_oneof![
        6 => batch().prop_map(|(count, pages)| Step::Layer(count, pages)),
        4 => Just(Step::Commit),
        4 => (1..5_usize).prop_map(Step::Joined),
        1 => Just(Step::Drop),
        2 => batch().prop_map(|(count, pages)| Step::Huge(count, pages)),
        1 => (1..1000_u32).prop_map(Step::Update),
        1 => (0..120_u32).prop_map(Step::Fill),
        2 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn the_table_is_what_a_map_would_be(steps in prop::collection::vec(step(), 1..60)) {
        let scratch = Scratch::new();
        let dir = scratch.open();
        let (mut table, committed) = filled(&dir, 10);
        // The committed state first, then one of each layer.
        let mut states = VecDeque::from([committed]);
        let mut at = 1;
        for step in steps {
            at += 1;
            let mut newest = states.back().unwrap().clone();
            match step {
                Step::Layer(count, pages) => {
                    let (entries, place) = change(&mut newest, at, count, &pages);
                    table.layer(entries, place).unwrap();
                    states.push_back(newest);
                }
                Step::Commit => {
                    prop_assert_eq!(table.commit().unwrap().is_some(), states.len() > 1);
                    if states.len() > 1 {
                        states.pop_front();
                    }
                }
                Step::Joined(layers) if states.len() > layers => {
                    let committed = table.commit_joined(layers).unwrap();
                    prop_assert!(committed.is_some());
                    states.drain(..layers);
                }
                Step::Joined(layers) => prop_assert!(table.commit_joined(layers).is_err()),
                Step::Drop => {
                    table.drop_pending();
                    states.truncate(1);
                }
                Step::Huge(count, pages) if states.len() == 1 => {
                    commit_huge(&mut table, &mut newest, at, count, &pages);
                    states = VecDeque::from([newest]);
                }
                Step::Huge(..) => {
                    let huge = table.huge().unwrap();
                    let at = place(at, 0, DatabaseSum::EMPTY);
                    prop_assert!(table.commit_huge(huge, at).is_err());
                }
                Step::Update(epoch) => {
                    table.update(|saved| saved.epoch = Epoch::new(epoch)).unwrap();
                }
                Step::Fill(count) => {
                    table.drop_pending();
                    let model: Model = (1..=count).map(|n| (n, sum(n, at))).collect();
                    let mut fill = table.fill(page_size()).unwrap();
                    for (number, sum) in &model {
                        fill.push(page(*number), *sum).unwrap();
                    }
                    table.install(fill, saved(place(at, count, total(&model)))).unwrap();
                    states = VecDeque::from([model]);
                }
                Step::Reopen => {
                    table = open(&dir);
                    states.truncate(1);
                    prop_assert_eq!(table.prove().unwrap(), Proof::Proven);
                }
            }
            assert_holds(&table, states.back().unwrap());
            prop_assert_eq!(table.pending_layers(), states.len() - 1);
        }
    }
}

#[test]
fn a_sparse_table_of_ten_million_pages_takes_little_disk_and_is_read_where_it_is_asked() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let (mut table, mut model) = filled(&dir, 10);
    let mut entries = Entries::new();
    for number in [7, 5_000_000, 5_000_001, 10_000_000] {
        entries.push(page(number), sum(number, 2)).unwrap();
        model.insert(number, sum(number, 2));
    }
    table
        .layer(entries, place(2, 10_000_000, total(&model)))
        .unwrap();
    table.commit().unwrap();
    let stat = scratch.state().join("pages").metadata().unwrap();
    assert_eq!(stat.len(), 64 + 24 * 10_000_000);
    assert!(stat.blocks() * 512 < 1 << 20, "{} blocks", stat.blocks());
    let asked = [
        1, 7, 11, 4_999_999, 5_000_000, 5_000_001, 9_999_999, 10_000_000, 10_000_001,
    ];
    let asked: Vec<PageNumber> = asked.into_iter().map(page).collect();
    let mut found = Vec::new();
    table
        .lookup_all(&asked, &mut |page, sum| {
            assert_eq!(sum, model.get(&page.get()).copied());
            found.push(page);
            Ok(())
        })
        .unwrap();
    assert_eq!(found, asked);
    assert_eq!(open(&dir).prove().unwrap(), Proof::Proven);
}

#[test]
fn what_cannot_follow_is_refused_and_changes_nothing() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let (mut table, model) = filled(&dir, 10);
    let sums = total(&model);
    let mut beyond = Entries::new();
    beyond.push(page(11), sum(11, 2)).unwrap();
    assert!(beyond.push(page(11), sum(11, 2)).is_err(), "twice");
    assert!(
        table.layer(beyond, place(2, 10, sums)).is_err(),
        "beyond the end"
    );
    assert!(
        table.layer(Entries::new(), place(1, 10, sums)).is_err(),
        "the same TXID"
    );
    let other = Place {
        page_size: crate::types::PageSize::new(512).unwrap(),
        ..place(2, 10, sums)
    };
    assert!(
        table.layer(Entries::new(), other).is_err(),
        "another page size"
    );
    let fill = table.fill(page_size()).unwrap();
    assert!(
        table.install(fill, saved(place(2, 10, sums))).is_err(),
        "another sum"
    );
    drop(table.huge().unwrap());
    let names = super::dir::names(&scratch);
    assert!(
        !names.iter().any(|name| name.ends_with(".tmp")),
        "{names:?}"
    );
    assert_holds(&table, &model);
    assert!(
        table
            .lookup_all(&[page(2), page(1)], &mut |_, _| Ok(()))
            .is_err()
    );
}

#[test]
fn a_failed_commit_hides_what_is_half_written_and_may_be_tried_again() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let (mut table, mut model) = filled(&dir, 10);
    let before = model.clone();
    let (entries, place) = change(&mut model, 2, 12, &[1, 5]);
    table.layer(entries, place).unwrap();
    table.fail_table_writes(true);
    assert!(table.commit().is_err());
    assert_holds(&table, &model);
    assert_eq!(table.saved().map(|saved| saved.place.txid.get()), Some(1));
    table.fail_table_writes(false);
    assert_eq!(table.commit().unwrap(), Some(place));
    assert_holds(&table, &model);
    assert_eq!(open(&dir).prove().unwrap(), Proof::Proven);

    let (entries, place) = change(&mut model.clone(), 3, 12, &[2]);
    table.layer(entries, place).unwrap();
    table.fail_table_writes(true);
    assert!(table.commit().is_err());
    table.drop_pending();
    assert!(table.lookup(page(1)).is_err(), "the mixture is not shown");
    assert!(before.len() < model.len());
}
