//! A replica made anew under its readers.

use super::*;
use crate::error::ErrorKind;
use crate::replica::judge::Reason;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// Ends the stream and begins another history at the next TXID, with the database at `path`, which `setup` makes.
async fn new_history(pair: &mut Pair, page_size: u32, setup: &[&str]) -> u64 {
    let path = pair
        .world
        .directory
        .path()
        .join(format!("next-{}.db", pair.world.head()));
    pair.app.call(&["close", "s"]);
    pair.app.open("s", &path);
    pair.app.sql("s", &format!("PRAGMA page_size={page_size}"));
    for sql in setup {
        pair.app.sql("s", sql);
    }
    pair.world.page_size = crate::types::PageSize::new(page_size).unwrap();
    let image = pair.app.image("s");
    let lineage = 0xddd + pair.world.head();
    pair.next_turn(lineage, 1);
    let at = pair.world.commit_image(image);
    pair.world
        .put(FileKey::incremental(range(at, at)), Mark::Base)
        .await;
    pair.world.snapshot(at).await;
    pair.world.publish().await;
    at
}

#[tokio::test]
async fn l13_a_new_history_takes_the_place_of_the_old_one_under_an_open_reader() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.world.publish().await;
    pair.poll_to(4).await;
    pair.reader("r");
    pair.reader("held");
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "3");
    pair.app.sql("held", "BEGIN");
    assert_eq!(pair.see("held", "SELECT count(*) FROM t"), "3");
    let version = pair.see("s", "PRAGMA schema_version");
    let version = format!("PRAGMA schema_version={version}");
    let at = new_history(
        &mut pair,
        1024,
        &[
            "PRAGMA journal_mode=WAL",
            "CREATE TABLE a(p)",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, b)",
            "INSERT INTO a VALUES('wrong table')",
            "INSERT INTO t VALUES(1, 'right')",
            // The very same version as the old schema has.
            &version,
        ],
    )
    .await;
    let inode = std::fs::metadata(&pair.local).unwrap().ino();
    let batch = pair.poll_to(at).await;
    assert_eq!(batch.bootstrapped.unwrap().reason, Some(Reason::NewLineage));
    assert_eq!(
        std::fs::metadata(&pair.local).unwrap().ino(),
        inode,
        "in place"
    );
    assert_eq!(pair.see("r", "SELECT b FROM t"), "\"right\"");
    assert_eq!(pair.see("held", "SELECT count(*) FROM t"), "3");
    pair.app.sql("held", "COMMIT");
    assert_eq!(pair.see("held", "SELECT b FROM t"), "\"right\"");
    assert_eq!(pair.see("r", "PRAGMA integrity_check"), "\"ok\"");
    // It goes on from there, and survives a restart.
    let at = pair.commit("CREATE TABLE z(x)").await;
    pair.poll_to(at).await;
    assert_eq!(pair.see("r", "SELECT count(*) FROM z"), "0");
    pair.end().await;
    let at = pair.row().await;
    let batch = pair.poll_to(at).await;
    assert_eq!(batch.bootstrapped, None);
}

#[tokio::test]
async fn l13_a_stream_made_anew_under_the_same_name_is_followed_though_its_numbers_are_small() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(8).await;
    pair.world.publish().await;
    pair.poll_to(9).await;
    pair.world.begin_anew();
    pair.next_turn(0x999, 1);
    pair.change("DELETE FROM t");
    pair.world.snapshot(1).await;
    pair.world.publish().await;
    let batch = pair.poll_to(1).await;
    assert_eq!(batch.bootstrapped.unwrap().reason, Some(Reason::NewLineage));
    pair.rows(2).await;
    pair.poll_to(3).await;
}

#[tokio::test]
async fn another_page_size_is_a_new_file_and_nobody_sees_a_mixture() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.world.publish().await;
    pair.poll_to(4).await;
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(&pair.local, mode).unwrap();
    pair.reader("r");
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "3");
    // A reader on an older state is in the way: the file alone is not the newest state.
    pair.app.sql("r", "BEGIN");
    pair.see("r", "SELECT count(*) FROM t");
    let at = pair.row().await;
    pair.poll_to(at).await;
    let setup = [
        "PRAGMA journal_mode=WAL",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b)",
        "INSERT INTO t(b) VALUES('large pages')",
    ];
    let at = new_history(&mut pair, 8192, &setup).await;
    let error = pair.try_poll().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "3");
    pair.app.sql("r", "COMMIT");
    let inode = std::fs::metadata(&pair.local).unwrap().ino();
    let batch = pair.poll_to(at).await;
    assert_eq!(batch.bootstrapped.unwrap().reason, Some(Reason::NewLineage));
    let metadata = std::fs::metadata(&pair.local).unwrap();
    assert_ne!(metadata.ino(), inode);
    assert_eq!(metadata.mode() & 0o777, 0o640, "its readers may read on");
    // Who had it open keeps the old state, whole; who opens it gets the new one.
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "4");
    assert_eq!(pair.see("r", "PRAGMA integrity_check"), "\"ok\"");
    pair.reader("new");
    assert_eq!(pair.see("new", "SELECT b FROM t"), "\"large pages\"");
    let at = pair.row().await;
    pair.poll_to(at).await;
    assert_eq!(pair.see("new", "SELECT count(*) FROM t"), "2");
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "4");
    pair.end().await;
    let at = pair.row().await;
    assert_eq!(pair.poll_to(at).await.bootstrapped, None);
}

#[tokio::test]
async fn a_swap_that_was_interrupted_is_finished() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.world.publish().await;
    pair.poll_to(4).await;
    let setup = [
        "PRAGMA journal_mode=WAL",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b)",
    ];
    let at = new_history(&mut pair, 512, &setup).await;
    let inode = std::fs::metadata(&pair.local).unwrap().ino();
    let old = std::fs::read(&pair.local).unwrap();
    pair.poll_to(at).await;
    pair.end().await;
    // As if it had died when the state was written and the old file still there.
    let mut state = pair.state();
    std::fs::remove_file(&pair.local).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(crate::fs::with_suffix(&pair.local, suffix));
    }
    std::fs::write(&pair.local, old).unwrap();
    let _ = inode;
    let here = std::fs::metadata(&pair.local).unwrap();
    state.replaces = Some(crate::sqlite::FileId::from(&here));
    state.file.inode += 1_000_000;
    state.write(&pair.state_path(), NOW).unwrap();
    let batch = pair.poll_to(at).await;
    assert_eq!(
        batch.bootstrapped.unwrap().reason,
        Some(Reason::Interrupted)
    );
    assert_eq!(pair.state().replaces, None);
}

#[tokio::test]
async fn another_text_encoding_is_a_new_file() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.world.publish().await;
    pair.poll_to(4).await;
    let setup = [
        "PRAGMA encoding='UTF-16le'",
        "PRAGMA journal_mode=WAL",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b)",
        "INSERT INTO t(b) VALUES('größer')",
    ];
    let at = new_history(&mut pair, 1024, &setup).await;
    let inode = std::fs::metadata(&pair.local).unwrap().ino();
    pair.poll_to(at).await;
    assert_ne!(std::fs::metadata(&pair.local).unwrap().ino(), inode);
    pair.reader("r");
    assert_eq!(pair.see("r", "SELECT b FROM t"), "\"größer\"");
}

#[tokio::test]
async fn a_file_that_is_no_database_any_more_is_made_anew() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.poll_to(4).await;
    pair.end().await;
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(crate::fs::with_suffix(&pair.local, suffix));
    }
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&pair.local)
        .unwrap();
    file.write_all_at(&[0; 1024], 0).unwrap();
    let batch = pair.poll_to(4).await;
    assert_eq!(
        batch.bootstrapped.unwrap().reason,
        Some(Reason::FileDamaged)
    );
    // A page that rotted.
    pair.end().await;
    pair.reader("r");
    pair.see("r", "SELECT count(*) FROM t");
    pair.app.call(&["close", "r"]);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&pair.local)
        .unwrap();
    file.write_all_at(&[7; 100], 1024 + 300).unwrap();
    let batch = pair.poll_to(4).await;
    assert_eq!(batch.bootstrapped.unwrap().reason, Some(Reason::LocalWrite));
}

#[tokio::test]
async fn a_source_in_rollback_mode_gives_a_replica_in_wal_mode() {
    let mut pair = Pair::new(1024, 0).await;
    // A one-shot snapshot of a database that never was in WAL mode.
    let setup = [
        "PRAGMA journal_mode=DELETE",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b)",
        "INSERT INTO t(b) VALUES(1)",
    ];
    let at = new_history(&mut pair, 1024, &setup).await;
    pair.poll_to(at).await;
    pair.reader("r");
    assert_eq!(pair.see("r", "PRAGMA journal_mode"), "\"wal\"");
    for sql in ["INSERT INTO t(b) VALUES(2)", "CREATE TABLE u(x)"] {
        let at = pair.commit(sql).await;
        pair.poll_to(at).await;
    }
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "2");
    pair.end().await;
    let at = pair.row().await;
    assert_eq!(pair.poll_to(at).await.bootstrapped, None);
}
