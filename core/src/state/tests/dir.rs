use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::{Scratch, place, saved};
use crate::error::ErrorKind;
use crate::state::{PageTable, Spool, StateDir};
use crate::types::DatabaseSum;

/// What lies in the state directory.
pub(super) fn names(scratch: &Scratch) -> Vec<String> {
    let entries = std::fs::read_dir(scratch.state()).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn r67_a_second_local_watcher_is_refused_by_name() {
    let scratch = Scratch::new();
    let first = scratch.open();
    let error = StateDir::create_or_open(&scratch.database()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("app.db"), "{error}");
    // The lock outlives the directory's handle for as long as a part of the state is in use.
    let (table, _) = PageTable::open(&first, 1).unwrap();
    drop(first);
    assert!(StateDir::create_or_open(&scratch.database()).is_err());
    drop(table);
    std::fs::write(scratch.state().join("scratch/left-over"), b"").unwrap();
    std::fs::write(scratch.state().join("0123.tmp"), b"half").unwrap();
    let second = scratch.open();
    assert_eq!(std::fs::read_dir(second.scratch()).unwrap().count(), 0);
    assert!(!scratch.state().join("0123.tmp").exists());
}

#[test]
fn what_a_killed_process_left_in_the_scratch_directory_keeps_no_watcher_from_starting() {
    let scratch = Scratch::new();
    drop(scratch.open());
    let outside = scratch.root.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), b"").unwrap();
    // A restore for proof works in a directory of its own.
    let proof = scratch.state().join("scratch/walrust-drill-x");
    std::fs::create_dir_all(proof.join("deeper")).unwrap();
    std::fs::write(proof.join("deeper/database"), b"half").unwrap();
    symlink(&outside, proof.join("link")).unwrap();
    let dir = scratch.open();
    assert_eq!(std::fs::read_dir(dir.scratch()).unwrap().count(), 0);
    assert!(outside.join("kept").exists());
}

#[test]
fn r67_a_symlink_to_the_database_leads_to_the_same_lock() {
    let scratch = Scratch::new();
    std::fs::write(scratch.database(), b"").unwrap();
    let alias = scratch.root.path().join("alias.db");
    symlink("app.db", &alias).unwrap();
    let _first = scratch.open();
    let error = StateDir::create_or_open(&alias).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
}

#[test]
fn the_holder_is_the_same_at_each_start_but_not_in_a_copy() {
    let scratch = Scratch::new();
    let first = scratch.open().holder().clone();
    assert_eq!(scratch.open().holder(), &first);
    // A cloned volume: same bytes, another inode.
    let lock = scratch.state().join("lock");
    let bytes = std::fs::read(&lock).unwrap();
    std::fs::rename(&lock, scratch.root.path().join("old")).unwrap();
    std::fs::write(&lock, bytes).unwrap();
    assert_ne!(scratch.open().holder().token, first.token);
    std::fs::write(&lock, b"\xffgarbage").unwrap();
    let dir = scratch.open();
    assert_eq!(dir.damage().len(), 1);
}

#[test]
fn x5_nobody_else_reads_the_state() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.state()).unwrap();
    std::fs::set_permissions(scratch.state(), PermissionsExt::from_mode(0o777)).unwrap();
    let dir = scratch.open();
    let (mut table, _) = PageTable::open(&dir, 1 << 20).unwrap();
    table
        .install(
            table.fill(super::page_size()).unwrap(),
            saved(place(1, 0, DatabaseSum::EMPTY)),
        )
        .unwrap();
    let (mut spool, _) = Spool::open(&dir, 1 << 20).unwrap();
    spool.add(super::range(1, 1), &[b"x"]).unwrap();
    let mut checked = 0;
    let mut folders = vec![scratch.state()];
    while let Some(folder) = folders.pop() {
        assert_eq!(
            folder.metadata().unwrap().mode() & 0o777,
            0o700,
            "{folder:?}"
        );
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600, "{path:?}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 5, "{checked}");
}

#[test]
fn x5_symlinks_are_never_followed() {
    let scratch = Scratch::new();
    let victim = scratch.root.path().join("victim");
    std::fs::write(&victim, b"precious").unwrap();
    symlink(scratch.root.path(), scratch.state()).unwrap();
    let error = StateDir::create_or_open(&scratch.database()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    std::fs::remove_file(scratch.state()).unwrap();

    drop(scratch.open());
    std::fs::create_dir_all(scratch.state().join("spool")).unwrap();
    for name in ["lock", "redo.0", "redo.1", "saved", "pages", "saved.tmp"] {
        let _ = std::fs::remove_file(scratch.state().join(name));
        symlink(&victim, scratch.state().join(name)).unwrap();
    }
    for name in ["0.tmp", "0000000000000001-0000000000000001.ltx"] {
        symlink(&victim, scratch.state().join("spool").join(name)).unwrap();
    }
    let dir = scratch.open();
    let (mut table, damage) = PageTable::open(&dir, 1 << 20).unwrap();
    assert_eq!(damage.len(), 3, "{damage:?}");
    let fill = table.fill(super::page_size()).unwrap();
    table
        .install(fill, saved(place(1, 0, DatabaseSum::EMPTY)))
        .unwrap();
    let (mut spool, damage) = Spool::open(&dir, 1 << 20).unwrap();
    assert_eq!(damage.len(), 1, "{damage:?}");
    spool.add(super::range(1, 1), &[b"mine"]).unwrap();
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    let file = scratch
        .state()
        .join("spool/0000000000000001-0000000000000001.ltx");
    assert!(file.symlink_metadata().unwrap().is_file());

    // A folder of ours that is a symlink is refused, not emptied.
    drop((dir, spool, table));
    std::fs::remove_dir_all(scratch.state().join("overlay")).unwrap();
    symlink(scratch.root.path(), scratch.state().join("overlay")).unwrap();
    let error = Spool::open(&scratch.open(), 1 << 20).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

#[test]
fn x5_a_planted_pipe_does_not_hang() {
    let scratch = Scratch::new();
    drop(scratch.open());
    for name in ["redo.0", "pages"] {
        let _ = std::fs::remove_file(scratch.state().join(name));
        let path = scratch.state().join(name);
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path, fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    }
    let (table, damage) = PageTable::open(&scratch.open(), 1 << 20).unwrap();
    assert!(table.saved().is_none());
    assert_eq!(damage.len(), 1, "{damage:?}");
}

#[test]
fn x4_long_and_odd_names_have_a_state_directory() {
    let scratch = Scratch::new();
    let long = "ä".repeat(127);
    let other = format!("{}b", "ä".repeat(126));
    let paths: Vec<_> = [long.as_str(), &other, "a b\n.db", "-", ".hidden"]
        .iter()
        .map(|name| {
            let dir = StateDir::create_or_open(&scratch.root.path().join(name)).unwrap();
            dir.path().to_owned()
        })
        .collect();
    let mut unique = paths.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(unique.len(), paths.len());
}

#[test]
fn peek_sees_lock_and_state_and_changes_nothing() {
    let scratch = Scratch::new();
    assert!(StateDir::peek(&scratch.database()).unwrap().is_none());
    assert!(!scratch.state().exists());
    let dir = scratch.open();
    let (mut table, _) = PageTable::open(&dir, 1 << 20).unwrap();
    let fill = table.fill(super::page_size()).unwrap();
    let state = saved(place(1, 0, DatabaseSum::EMPTY));
    table.install(fill, state.clone()).unwrap();
    let (mut spool, _) = Spool::open(&dir, 1 << 20).unwrap();
    let file = spool.add(super::range(2, 5), &[b"x"]).unwrap();
    let staged = spool.stage(0).unwrap();
    let peek = StateDir::peek(&scratch.database()).unwrap().unwrap();
    assert_eq!((peek.spool, peek.damage), (vec![file], vec![]));
    drop((spool, staged));
    assert_eq!((peek.locked, peek.saved), (true, Some(state)));
    drop((dir, table));
    assert!(!StateDir::peek(&scratch.database()).unwrap().unwrap().locked);
}
