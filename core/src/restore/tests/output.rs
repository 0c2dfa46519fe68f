//! What happens to the output, and beside it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::world::{World, run};
use crate::error::ErrorKind;
use crate::manifest::FileKey;
use crate::restore::{LeaveState, Overwrite, RestoreTarget, Verify};
use crate::state::{PageTable, Proof, StateDir};

use super::world::{range, txid};

#[tokio::test]
async fn r10_an_existing_output_is_refused_before_any_request() {
    let world = World::simple(3, 512, 3).await;
    std::fs::write(world.output(), "mine").unwrap();
    let error = world.try_restore(RestoreTarget::Latest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(error.to_string().contains("--force"), "{error}");
    assert_eq!(std::fs::read(world.output()).unwrap(), b"mine");
    std::fs::remove_file(world.output()).unwrap();
    world.nothing_left();
}

#[tokio::test]
async fn r9_a_stale_wal_beside_the_output_is_refused_or_removed_never_left() {
    let world = World::simple(4, 512, 3).await;
    for suffix in ["-wal", "-shm", "-journal"] {
        let stale = PathBuf::from(format!("{}{suffix}", world.output().display()));
        std::fs::write(&stale, "stale").unwrap();
        let error = world.try_restore(RestoreTarget::Latest).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists);
        assert!(error.to_string().contains(suffix), "{error}");
        let mut request = world.request(RestoreTarget::Latest);
        request.overwrite = Overwrite::Yes;
        std::fs::write(world.output(), "old").unwrap();
        run(&world.store, &request).await.unwrap();
        assert!(!stale.exists());
        assert_eq!(
            std::fs::read(world.output()).unwrap(),
            world.images[&3].bytes
        );
        std::fs::remove_file(world.output()).unwrap();
        world.nothing_left();
    }
}

#[tokio::test]
async fn r3_a_failed_restore_leaves_the_old_database_and_its_wal_byte_for_byte() {
    let mut world = World::simple(5, 512, 4).await;
    let key = FileKey::incremental(range(4, 4));
    let mut bytes = std::fs::read(world.path_of(key)).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(world.path_of(key), bytes).unwrap();
    std::fs::write(world.output(), "old").unwrap();
    let wal = PathBuf::from(format!("{}-wal", world.output().display()));
    std::fs::write(&wal, "old wal").unwrap();
    let mut request = world.request(RestoreTarget::Latest);
    request.overwrite = Overwrite::Yes;
    let error = run(&world.store, &request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error
            .to_string()
            .contains("0000/0000000000000004-0000000000000004.ltx"),
        "{error}"
    );
    assert_eq!(std::fs::read(world.output()).unwrap(), b"old");
    assert_eq!(std::fs::read(&wal).unwrap(), b"old wal");
    std::fs::remove_file(world.output()).unwrap();
    std::fs::remove_file(wal).unwrap();
    world.nothing_left();
    // What SQLite finds wrong fails the restore as well: these pages are no database.
    world.commit();
    let mut request = world.request(RestoreTarget::Txid(txid(3)));
    request.verify = Verify::Quick;
    let error = run(&world.store, &request).await.unwrap_err();
    assert!(error.to_string().contains("out.db"), "{error}");
    world.nothing_left();
}

#[tokio::test]
async fn x5_the_output_is_for_its_owner_alone_and_a_link_is_followed() {
    let world = World::simple(6, 512, 3).await;
    let target = world.directory.path().join("real.db");
    std::fs::write(&target, "old").unwrap();
    std::os::unix::fs::symlink(&target, world.output()).unwrap();
    let mut request = world.request(RestoreTarget::Latest);
    assert_eq!(
        run(&world.store, &request).await.unwrap_err().kind(),
        ErrorKind::Exists
    );
    request.overwrite = Overwrite::Yes;
    run(&world.store, &request).await.unwrap();
    assert!(world.output().is_symlink());
    assert_eq!(std::fs::read(&target).unwrap(), world.images[&3].bytes);
    assert_eq!(
        target.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[tokio::test]
async fn an_output_that_cannot_be_is_refused() {
    let world = World::simple(7, 512, 2).await;
    let mut request = world.request(RestoreTarget::Latest);
    request.output = world.directory.path().join("no/such/out.db");
    assert_eq!(
        run(&world.store, &request).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    request.output = world.directory.path().to_owned();
    assert_eq!(
        run(&world.store, &request).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    world.nothing_left();
}

fn saved(output: &Path) -> (PageTable, StateDir) {
    let dir = StateDir::create_or_open(output).unwrap();
    let (table, damage) = PageTable::open(&dir, 1 << 20).unwrap();
    assert!(damage.is_empty(), "{damage:?}");
    (table, dir)
}

#[tokio::test]
async fn a_state_directory_names_the_head_and_holds_the_sums_of_all_pages() {
    let world = World::simple(8, 512, 6).await;
    let mut request = world.request(RestoreTarget::Latest);
    request.state = LeaveState::Yes;
    run(&world.store, &request).await.unwrap();
    let (mut table, dir) = saved(&world.output());
    let state = table.saved().unwrap().clone();
    assert_eq!(state.lineage, world.stream.lineage);
    assert_eq!(
        (state.place.txid, state.place.sum),
        (txid(6), world.images[&6].sum)
    );
    assert_eq!(state.restored_head.unwrap().txid, txid(6));
    assert_eq!(state.restored_head.unwrap().stream, Some(world.stream));
    assert_eq!((state.rewind_from, state.epoch), (None, None));
    assert_eq!(table.prove().unwrap(), Proof::Proven);
    // While somebody holds it, nothing is replaced.
    request.overwrite = Overwrite::Yes;
    assert_eq!(
        run(&world.store, &request).await.unwrap_err().kind(),
        ErrorKind::Busy
    );
    drop((table, dir));
    // Going back is recorded in the directory that is there.
    request.target = RestoreTarget::Txid(txid(4));
    request.state = LeaveState::No;
    run(&world.store, &request).await.unwrap();
    let (table, _dir) = saved(&world.output());
    let state = table.saved().unwrap();
    assert_eq!(
        state.place.txid,
        txid(6),
        "the table and its place are kept"
    );
    assert_eq!(state.rewind_from.unwrap().txid, txid(6));
    assert_eq!(state.restored_head, None);
}

#[tokio::test]
async fn a_restore_that_fails_leaves_no_state_directory() {
    let world = World::simple(9, 512, 3).await;
    let mut request = world.request(RestoreTarget::Txid(txid(9)));
    request.state = LeaveState::Yes;
    assert_eq!(
        run(&world.store, &request).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    world.nothing_left();
}
