use std::io::Write;
use std::path::Path;

use super::{Scratch, page, page_size, range, txid};
use crate::error::{Error, ErrorKind, Result};
use crate::state::{Spool, StateDir};

fn open(dir: &StateDir, limit: u64) -> Spool {
    let (spool, damage) = Spool::open_with_reserve(dir, limit, 0).unwrap();
    assert_eq!(damage, []);
    spool
}

fn ranges(spool: &Spool) -> Vec<(u64, u64)> {
    let pair = |file: &super::super::SpoolFile| (file.range.min().get(), file.range.max().get());
    spool.files().map(pair).collect()
}

#[test]
fn u3_what_failed_to_upload_is_there_after_a_restart_in_order() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let mut spool = open(&dir, 1 << 20);
    for (min, max) in [(5, 9), (10, 10), (11, 300)] {
        spool.add(range(min, max), &[b"head", b"body"]).unwrap();
    }
    drop((spool, dir));
    let dir = scratch.open();
    let spool = open(&dir, 1 << 20);
    assert_eq!(ranges(&spool), [(5, 9), (10, 10), (11, 300)]);
    assert_eq!(spool.used(), 24);
    assert_eq!(
        std::fs::read(spool.path(&spool.front().unwrap())).unwrap(),
        b"headbody"
    );
}

#[test]
fn u4_a_full_spool_refuses_and_evicts_nothing() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let mut spool = open(&dir, 10);
    spool.add(range(1, 1), &[b"12345678"]).unwrap();
    let error = spool.add(range(2, 2), &[b"12", b"3"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert_eq!((ranges(&spool), spool.used()), (vec![(1, 1)], 8));
    let folder = scratch.state().join("spool");
    assert_eq!(
        std::fs::read_dir(folder).unwrap().count(),
        1,
        "no half file stays"
    );
    // Only the oldest may go, and only because it is stored.
    spool.add(range(2, 2), &[b"12"]).unwrap();
    assert!(spool.stored(range(2, 2)).is_err());
    spool.stored(range(1, 1)).unwrap();
    assert_eq!((ranges(&spool), spool.used()), (vec![(2, 2)], 2));
}

#[test]
fn u19_a_nearly_full_disk_is_exhausted_before_the_app_feels_it() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let (mut spool, _) = Spool::open_with_reserve(&dir, u64::MAX, u64::MAX / 2).unwrap();
    let error = spool.add(range(1, 1), &[b"x"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert_eq!(
        spool.overlay(page_size()).unwrap_err().kind(),
        ErrorKind::Exhausted
    );
    assert_eq!((spool.files().len(), spool.used()), (0, 0));
}

#[test]
fn u19_no_room_inside_a_write_is_exhausted_and_leaves_nothing() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let spool = open(&dir, 1000);
    let mut staged = spool.stage(100).unwrap();
    staged.write_all(&[1; 800]).unwrap();
    let error = staged.write_all(&[1; 101]).unwrap_err();
    assert_eq!(Error::io("spool", error).kind(), ErrorKind::Exhausted);
    drop(staged);
    assert_eq!(spool.used(), 0);
    let folder = scratch.state().join("spool");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
}

#[test]
fn u5_u18_only_whole_synced_files_have_a_name() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let mut spool = open(&dir, 1 << 20);
    let mut staged = spool.stage(4).unwrap();
    staged.write_all(b"body").unwrap();
    staged.flush().unwrap();
    // As after kill -9: no destructor runs.
    std::mem::forget(staged);
    spool.add(range(3, 4), &[b"whole"]).unwrap();
    drop((spool, dir));
    let dir = scratch.open();
    let mut spool = open(&dir, 1 << 20);
    assert_eq!((ranges(&spool), spool.used()), (vec![(3, 4)], 5));
    let folder = scratch.state().join("spool");
    assert_eq!(
        std::fs::read_dir(folder).unwrap().count(),
        1,
        "the half file is gone"
    );
    let mut staged = spool.stage(4).unwrap();
    staged.write_all(b"body").unwrap();
    let file = spool.publish(staged, b"head", range(5, 5)).unwrap();
    assert_eq!((file.size, spool.last()), (8, Some(txid(5))));
    assert_eq!(std::fs::read(spool.path(&file)).unwrap(), b"headbody");
}

#[test]
fn a_gap_is_seen_and_what_follows_it_is_set_aside() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let mut spool = open(&dir, 1 << 20);
    assert!(spool.add(range(1, 2), &[b"a"]).is_ok());
    assert!(
        spool.add(range(4, 4), &[b"a"]).is_err(),
        "a gap is never made"
    );
    for n in 3..=6 {
        spool.add(range(n, n), &[b"a"]).unwrap();
    }
    std::fs::remove_file(spool.path(spool.files().nth(2).unwrap())).unwrap();
    std::fs::write(scratch.state().join("spool/notes.txt"), b"?").unwrap();
    let (mut spool, damage) = Spool::open_with_reserve(&dir, 1 << 20, 0).unwrap();
    assert_eq!(damage.len(), 2, "{damage:?}");
    assert_eq!(ranges(&spool), [(1, 2), (3, 3)]);
    assert_eq!((spool.strays().len(), spool.used()), (2, 4));
    // A rebase takes a stray's place in the chain; the next start does not mix them up.
    spool.add(range(4, 4), &[b"rebase"]).unwrap();
    spool.add(range(5, 5), &[b"next"]).unwrap();
    drop(spool);
    let (mut spool, damage) = Spool::open_with_reserve(&dir, 1 << 20, 0).unwrap();
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(ranges(&spool), [(1, 2), (3, 3), (4, 4), (5, 5)]);
    assert_eq!((spool.strays().len(), spool.used()), (2, 14));
    spool.drop_strays().unwrap();
    assert_eq!((spool.strays().len(), spool.used()), (0, 12));
    spool.break_off(None).unwrap();
    assert_eq!((spool.files().len(), spool.last()), (0, None));
}

#[test]
fn u6_a_flipped_bit_in_the_spool_is_refused_before_the_put() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    let mut spool = open(&dir, 1 << 20);
    for n in 1..=3 {
        spool.add(range(n, n), &[b"good"]).unwrap();
    }
    let good = |path: &Path| -> Result<()> {
        match std::fs::read(path).unwrap().as_slice() {
            b"good" => Ok(()),
            _ => Err(Error::new(ErrorKind::Corrupt, "checksum")),
        }
    };
    let second = *spool.files().nth(1).unwrap();
    std::fs::write(spool.path(&second), b"gooe").unwrap();
    assert!(spool.verify(&spool.front().unwrap(), &good).is_ok());
    let error = spool.verify(&second, &good).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error
            .object()
            .unwrap()
            .ends_with("0000000000000002-0000000000000002.ltx")
    );
    std::fs::write(spool.path(&second), b"goo").unwrap();
    assert!(
        spool.verify(&second, &|_| Ok(())).is_err(),
        "a cut file is seen by its size"
    );
    spool.break_off(Some(txid(1))).unwrap();
    assert_eq!((ranges(&spool), spool.strays().len()), (vec![(1, 1)], 2));
}

#[test]
fn an_overlay_keeps_the_oldest_version_and_counts_into_the_limit() {
    let scratch = Scratch::new();
    let dir = scratch.open();
    std::fs::write(scratch.state().join("x"), b"").unwrap();
    let spool = open(&dir, 3 * 4096);
    std::fs::write(scratch.state().join("overlay/left-over"), b"old").unwrap();
    let mut overlay = spool.overlay(page_size()).unwrap();
    overlay.keep(page(1_000_000), &[1; 4096]).unwrap();
    overlay.keep(page(1_000_000), &[2; 4096]).unwrap();
    overlay.keep(page(3), &[3; 4096]).unwrap();
    overlay.keep(page(4), &[4; 4096]).unwrap();
    assert_eq!(
        overlay.keep(page(5), &[5; 4096]).unwrap_err().kind(),
        ErrorKind::Exhausted
    );
    let mut data = Vec::new();
    assert!(overlay.read(page(1_000_000), &mut data).unwrap());
    assert_eq!(data, [1; 4096]);
    assert!(!overlay.read(page(5), &mut data).unwrap());
    assert_eq!(spool.used(), 3 * 4096);
    drop(overlay);
    assert_eq!(spool.used(), 0);
    drop(spool);
    open(&dir, 1);
    let folder = scratch.state().join("overlay");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0);
}
