//! What the replica's own files say, and what others do to them.

use super::*;
use crate::error::ErrorKind;
use crate::replica::judge::Reason;
use crate::replica::proof::{Opened, open};
use crate::state::StateDir;

#[tokio::test]
async fn r106_a_restart_goes_on_from_the_proved_state() {
    let mut pair = Pair::new(4096, 0).await;
    pair.rows(3).await;
    pair.poll_to(4).await;
    let at = pair.row().await;
    pair.poll_to(at).await;
    for clean in [true, false] {
        match clean {
            true => pair.end().await,
            false => pair.crash(),
        }
        let at = pair.row().await;
        let batch = pair.poll_to(at).await;
        assert_eq!((batch.files, batch.bootstrapped), (1, None));
    }
    // Somebody who may write was the last to have it open: its WAL is gone, its pages are the same.
    pair.end().await;
    pair.reader("r");
    pair.see("r", "SELECT count(*) FROM t");
    pair.app.call(&["close", "r"]);
    assert!(!pair.local.with_file_name("replica.db-wal").exists());
    let at = pair.row().await;
    let batch = pair.poll_to(at).await;
    assert_eq!((batch.files, batch.bootstrapped), (1, None));
}

/// What is in a replica's state directory.
fn kept(pair: &Pair) -> Vec<(Vec<u8>, PathBuf)> {
    let directory = pair.local.with_file_name(".replica.db-walrust");
    let paths =
        ["pages", "redo.0", "redo.1", "saved", "replica.next"].map(|name| directory.join(name));
    let read = |path: PathBuf| Some((std::fs::read(&path).ok()?, path));
    paths.into_iter().filter_map(read).collect()
}

#[tokio::test]
async fn l12_a_commit_whose_record_is_missing_is_proved_by_what_was_intended() {
    for lost in ["state", "state and table"] {
        let mut pair = Pair::new(1024, 0).await;
        pair.rows(3).await;
        pair.poll_to(4).await;
        let at = pair.row().await;
        pair.poll_to(at).await;
        let before = std::fs::read(pair.state_path()).unwrap();
        let directory = kept(&pair);
        // Also a change of the schema: page 1 and what is kept of it.
        let at = pair.commit("CREATE TABLE u(x)").await;
        pair.poll_to(at).await;
        pair.crash();
        std::fs::write(pair.state_path(), &before).unwrap();
        if lost == "state and table" {
            for (bytes, path) in directory {
                if !path.ends_with("replica.next") {
                    std::fs::write(path, bytes).unwrap();
                }
            }
        }
        // Also where its source cannot be asked.
        let home = pair.home().unwrap();
        match open(&home).unwrap() {
            Opened::Replica(local) => assert!(local.proved, "{lost}"),
            _ => panic!("{lost}: not a replica"),
        }
        drop(home);
        assert_eq!(pair.state().current_txid.get(), at);
        let batch = pair.poll_to(at).await;
        assert_eq!((batch.files, batch.bootstrapped), (0, None), "{lost}");
        let at = pair.row().await;
        pair.poll_to(at).await;
    }
}

/// A machine that lost its power kept the commit, and lost everything else.
#[tokio::test]
async fn l12_where_even_that_is_lost_the_next_file_proves_it_and_changes_nothing() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.poll_to(4).await;
    let at = pair.row().await;
    pair.poll_to(at).await;
    let (before, directory) = (std::fs::read(pair.state_path()).unwrap(), kept(&pair));
    let at = pair.commit("CREATE TABLE u(x)").await;
    pair.poll_to(at).await;
    pair.crash();
    std::fs::write(pair.state_path(), before).unwrap();
    for (bytes, path) in directory {
        std::fs::write(path, bytes).unwrap();
    }
    // A merged file that leads further does not hide the one that was applied.
    pair.rows(2).await;
    pair.world.merged(1, 2, at + 2).await;
    pair.world.publish().await;
    let batch = pair.poll_to(at + 2).await;
    assert_eq!((batch.files, batch.bootstrapped), (2, None));
    // Page 1 of the first, since only the file tells its true header; the rest is there.
    let changed: u64 = [at + 1, at + 2]
        .map(|at| pair.world.images[&at].touched.len() as u64)
        .iter()
        .sum();
    assert!(batch.pages <= changed + 2, "{batch:?}");
}

#[tokio::test]
async fn l10_a_damaged_state_file_means_a_loud_new_beginning_and_never_a_blind_one() {
    for damage in ["", "{", "{\"v\": 1, \"current_txid\": 0}"] {
        let mut pair = Pair::new(1024, 0).await;
        pair.rows(3).await;
        pair.poll_to(4).await;
        pair.reader("r");
        assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "3");
        pair.end().await;
        std::fs::write(pair.state_path(), damage).unwrap();
        let at = pair.row().await;
        let batch = pair.poll_to(at).await;
        let made = batch.bootstrapped.unwrap();
        assert_eq!(made.reason, Some(Reason::StateDamaged), "{damage:?}");
        // In place: the reader goes on.
        assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "4");
    }
}

#[tokio::test]
async fn l10_a_state_file_of_another_state_is_found_out() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.poll_to(4).await;
    let early = std::fs::read(pair.state_path()).unwrap();
    pair.rows(5).await;
    pair.poll_to(9).await;
    pair.end().await;
    // Somebody put an old one back: the next file would be 5, the pages are those of 9.
    std::fs::write(pair.state_path(), &early).unwrap();
    let batch = pair.poll_to(9).await;
    assert_eq!(
        (batch.files, batch.bootstrapped),
        (0, None),
        "a verified resume"
    );
    pair.end().await;
    std::fs::write(pair.state_path(), early).unwrap();
    let next = pair
        .local
        .with_file_name(".replica.db-walrust")
        .join("replica.next");
    std::fs::remove_file(next).unwrap();
    pair.reader("r");
    let batch = pair.poll_to(9).await;
    let made = batch.bootstrapped.unwrap();
    assert_eq!(made.reason, Some(Reason::LocalWrite));
    pair.rows(1).await;
    pair.poll_to(10).await;
}

#[tokio::test]
async fn l6_a_database_without_matching_state_is_never_overwritten() {
    let mut pair = Pair::new(1024, 0).await;
    let local = pair.local.clone();
    pair.app.open("x", &local);
    pair.app.sql("x", "CREATE TABLE precious(x)");
    pair.app.call(&["close", "x"]);
    let bytes = std::fs::read(&pair.local).unwrap();
    let error = pair.try_poll().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(error.to_string().contains("--replace"), "{error}");
    assert_eq!(std::fs::read(&pair.local).unwrap(), bytes);
    let all = names(pair.world.directory.path());
    assert!(!all.iter().any(|name| name.contains("walrust")), "{all:?}");
    // While somebody has it open it is not replaced even then.
    pair.app.open("x", &local);
    pair.app.sql("x", "PRAGMA journal_mode=WAL");
    pair.app.sql("x", "SELECT count(*) FROM precious");
    pair.replace = Replace::Yes;
    let error = pair.try_poll().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    pair.app.call(&["close", "x"]);
    pair.crash();
    pair.poll_to(1).await;
}

#[tokio::test]
async fn l6_a_replica_of_something_else_is_not_taken_for_ours() {
    let mut pair = Pair::new(1024, 0).await;
    pair.poll_to(1).await;
    pair.end().await;
    let state = std::fs::read_to_string(pair.state_path()).unwrap();
    let other = state.replace("/p/app.db", "/p/other.db");
    std::fs::write(pair.state_path(), other).unwrap();
    let error = pair.try_poll().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(error.message().contains("/p/other.db"), "{error}");
    // A copy under the state file of the original, which holds something else.
    std::fs::write(pair.state_path(), state).unwrap();
    let copy = pair.world.directory.path().join("copy.db");
    pair.app.open("c", &copy);
    pair.app.sql("c", "PRAGMA page_size=1024");
    pair.app.sql("c", "PRAGMA journal_mode=WAL");
    pair.app.sql("c", "CREATE TABLE precious(x)");
    pair.app.call(&["close", "c"]);
    std::fs::rename(&copy, &pair.local).unwrap();
    let bytes = std::fs::read(&pair.local).unwrap();
    let error = pair.try_poll().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
    assert_eq!(std::fs::read(&pair.local).unwrap(), bytes);
}

#[tokio::test]
async fn a_copy_of_a_replica_with_its_state_file_goes_on_as_one() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.poll_to(4).await;
    pair.end().await;
    let place = pair.world.directory.path().join("elsewhere");
    std::fs::create_dir(&place).unwrap();
    for name in ["replica.db", "replica.db-wal", "replica.db-replica-state"] {
        let from = pair.local.with_file_name(name);
        if from.exists() {
            std::fs::copy(from, place.join(name)).unwrap();
        }
    }
    pair.local = place.join("replica.db");
    let at = pair.row().await;
    let batch = pair.poll_to(at).await;
    assert_eq!((batch.files, batch.bootstrapped), (1, None));
}

#[tokio::test]
async fn l7_leftovers_of_another_database_are_never_replayed_over_the_replica() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    let wal = pair.local.with_file_name("replica.db-wal");
    std::fs::copy(pair.source.with_file_name("source.db-wal"), &wal).unwrap();
    let error = pair.try_poll().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(error.to_string().contains("--replace"), "{error}");
    assert!(wal.exists() && !pair.local.exists() && !pair.state_path().exists());
    pair.crash();
    pair.replace = Replace::Yes;
    pair.poll_to(4).await;
    // Of our own replica, whose file somebody deleted alone.
    pair.replace = Replace::No;
    pair.end().await;
    std::fs::remove_file(&pair.local).unwrap();
    assert!(wal.exists());
    let at = pair.row().await;
    pair.poll_to(at).await;
}

#[tokio::test]
async fn r114_a_local_write_is_found_out_and_undone_loudly() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.poll_to(4).await;
    pair.reader("w");
    pair.app.sql("w", "INSERT INTO t(b) VALUES('mine')");
    // No file is new: the poll sees it all the same.
    let batch = pair.poll_to(4).await;
    assert_eq!(batch.bootstrapped.unwrap().reason, Some(Reason::LocalWrite));
    assert_eq!(pair.see("w", "SELECT count(*) FROM t"), "3");
    // Together with a new file, and a schema change.
    pair.app.sql("w", "CREATE TABLE mine(x)");
    let at = pair.row().await;
    let batch = pair.poll_to(at).await;
    assert_eq!(batch.bootstrapped.unwrap().reason, Some(Reason::LocalWrite));
    assert!(
        pair.app
            .try_call(&["sql", "w", "SELECT * FROM mine"])
            .is_err()
    );
    // While nobody looks.
    for then in [
        "INSERT INTO t(b) VALUES('again')",
        "PRAGMA user_version=77",
        "PRAGMA schema_version=77",
    ] {
        pair.end().await;
        pair.app.sql("w", then);
        let batch = pair.poll_to(at).await;
        assert_eq!(
            batch.bootstrapped.unwrap().reason,
            Some(Reason::LocalWrite),
            "{then}"
        );
        assert_eq!(pair.see("w", "SELECT count(*) FROM t"), "4");
    }
    // While nobody looks, and then a file comes.
    pair.end().await;
    pair.app.sql("w", "DELETE FROM t WHERE id=1");
    let at = pair.row().await;
    let batch = pair.poll_to(at).await;
    assert_eq!(batch.bootstrapped.unwrap().reason, Some(Reason::LocalWrite));
}

#[tokio::test]
async fn a_checkpoint_by_a_reader_is_no_local_write() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.poll_to(4).await;
    pair.reader("w");
    for mode in ["PASSIVE", "FULL", "RESTART", "TRUNCATE"] {
        let at = pair.row().await;
        pair.poll_to(at).await;
        pair.app.sql("w", &format!("PRAGMA wal_checkpoint({mode})"));
        let batch = pair.poll_to(at).await;
        assert_eq!(batch.bootstrapped, None, "{mode}");
        // Nor one while the replica is not kept.
        pair.end().await;
        pair.app.sql("w", &format!("PRAGMA wal_checkpoint({mode})"));
        let batch = pair.poll_to(at).await;
        assert_eq!(batch.bootstrapped, None, "{mode}");
    }
}

#[tokio::test]
async fn l3_somebody_who_keeps_writing_does_not_make_the_source_be_fetched_for_ever() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.poll_to(4).await;
    let follower = pair.follower.take().unwrap();
    pair.follower = Some(follower.with_pause(Duration::from_secs(60)));
    pair.reader("w");
    pair.app.sql("w", "INSERT INTO t(b) VALUES(1)");
    pair.poll_to(4).await;
    pair.app.sql("w", "INSERT INTO t(b) VALUES(2)");
    for _ in 0..3 {
        let gets = pair.gets();
        let error = pair.try_poll().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.message().contains("somebody else wrote"), "{error}");
        assert!(pair.gets() <= gets + 1);
    }
}

#[tokio::test]
async fn the_file_taken_away_while_it_is_kept_is_made_again_and_a_foreign_one_is_left_alone() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.poll_to(4).await;
    std::fs::remove_file(&pair.local).unwrap();
    let batch = pair.poll_to(4).await;
    assert_eq!(batch.bootstrapped.unwrap().reason, None);
    let foreign = pair.world.directory.path().join("foreign.db");
    std::fs::write(&foreign, "no database").unwrap();
    std::fs::rename(&foreign, &pair.local).unwrap();
    let error = pair.try_poll().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
    assert_eq!(std::fs::read(&pair.local).unwrap(), b"no database");
}

#[tokio::test]
async fn r114_one_replicator_at_a_time_and_no_watcher() {
    let mut pair = Pair::new(1024, 0).await;
    pair.poll_to(1).await;
    let error = pair.home().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert_eq!(
        StateDir::create_or_open(&pair.local).unwrap_err().kind(),
        ErrorKind::Busy
    );
    pair.end().await;
    // A watcher's lock keeps a replica out.
    let watcher = StateDir::create_or_open(&pair.local).unwrap();
    assert_eq!(pair.try_poll().await.unwrap_err().kind(), ErrorKind::Busy);
    drop(watcher);
    pair.poll_to(1).await;
}

#[tokio::test]
async fn l5_a_relative_path_without_a_directory_works() {
    let mut pair = Pair::new(1024, 0).await;
    let name = format!("walrust-unit-{}.db", std::process::id());
    pair.local = name.clone().into();
    let home = pair.home().unwrap();
    assert!(home.local.is_absolute() && home.local.ends_with(&name));
    let directory = home.dir.path().to_owned();
    drop(home);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
async fn commits_that_wait_to_be_stored_are_never_thrown_away() {
    let mut pair = Pair::new(1024, 0).await;
    let spool = pair
        .local
        .with_file_name(".replica.db-walrust")
        .join("spool");
    std::fs::create_dir_all(&spool).unwrap();
    std::fs::write(
        spool.join("0000000000000002-0000000000000003.ltx"),
        [0; 200],
    )
    .unwrap();
    pair.replace = Replace::Yes;
    let error = pair.try_poll().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert!(error.to_string().contains("watch --once"), "{error}");
}
