//! Following a stream.

use super::*;
use crate::error::ErrorKind;
use crate::replica::judge::Reason;
use crate::store::Fault;

#[tokio::test]
async fn r103_r104_a_replica_begins_with_the_newest_state_and_follows_commit_by_commit() {
    let mut pair = Pair::new(4096, 0).await;
    pair.rows(5).await;
    let batch = pair.poll_to(6).await;
    let made = batch.bootstrapped.unwrap();
    assert_eq!((made.reason, made.files), (None, 6));
    for _ in 0..10 {
        let at = pair.row().await;
        let batch = pair.poll_to(at).await;
        assert_eq!((batch.files, batch.bootstrapped), (1, None));
    }
    let at = pair
        .commit("CREATE TABLE u(x); INSERT INTO u VALUES(7)")
        .await;
    pair.poll_to(at).await;
    // Nothing is left of the way there.
    let scratch = pair
        .local
        .with_file_name(".replica.db-walrust")
        .join("scratch");
    assert_eq!(names(&scratch), Vec::<String>::new());
}

#[tokio::test]
async fn l7_a_reader_that_stays_connected_sees_each_state_whole_and_without_opening_again() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.poll().await;
    pair.reader("r");
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "3");
    // A transaction that is open keeps its state.
    pair.app.sql("r", "BEGIN");
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "3");
    let at = pair
        .commit("INSERT INTO t(b) WITH RECURSIVE c(v) AS (SELECT 1 UNION ALL SELECT v+1 FROM c WHERE v<90) SELECT randomblob(900) FROM c")
        .await;
    pair.poll_to(at).await;
    let at = pair.commit("CREATE TABLE u(x)").await;
    pair.poll_to(at).await;
    let at = pair.commit("INSERT INTO u VALUES(7)").await;
    pair.poll_to(at).await;
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "3");
    assert!(pair.app.try_call(&["sql", "r", "SELECT x FROM u"]).is_err());
    pair.app.sql("r", "COMMIT");
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "93");
    assert_eq!(pair.see("r", "SELECT x FROM u"), "7");
    let at = pair.commit("DELETE FROM t WHERE id>3").await;
    pair.poll_to(at).await;
    let at = pair.commit("VACUUM").await;
    pair.poll_to(at).await;
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "3");
    assert_eq!(pair.see("r", "PRAGMA integrity_check"), "\"ok\"");
}

#[tokio::test]
async fn r104_an_apply_that_is_not_whole_yet_is_seen_by_nobody() {
    let mut pair = Pair::new(4096, 0).await;
    pair.rows(2).await;
    pair.poll().await;
    pair.reader("r");
    let at = pair.commit("DELETE FROM t; CREATE TABLE u(x)").await;
    // The file's last byte is another: all pages were written when that is found out.
    let path = pair.world.path_of(FileKey::incremental(range(at, at)));
    let whole = std::fs::read(&path).unwrap();
    let mut torn = whole.clone();
    *torn.last_mut().unwrap() ^= 1;
    std::fs::write(&path, torn).unwrap();
    let error = pair.try_poll().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "2");
    pair.check(3);
    // Nothing is fetched again while nothing changes.
    let (gets, requests) = (pair.gets(), pair.requests());
    let again = pair.try_poll().await.unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
    assert_eq!((pair.gets(), pair.requests()), (gets, requests + 1));
    // The next file appears, and the damaged one was put back.
    std::fs::write(&path, whole).unwrap();
    let at = pair.row().await;
    pair.poll_to(at).await;
}

#[tokio::test]
async fn l8_only_pages_that_changed_are_written() {
    let mut pair = Pair::new(4096, 0).await;
    pair.commit("INSERT INTO t(b) WITH RECURSIVE c(v) AS (SELECT 1 UNION ALL SELECT v+1 FROM c WHERE v<2000) SELECT randomblob(4000) FROM c").await;
    pair.poll_to(2).await;
    let at = pair
        .commit("UPDATE t SET b=randomblob(4000) WHERE id=1000")
        .await;
    let changed = pair.world.images[&at].touched.len() as u64;
    let batch = pair.poll_to(at).await;
    assert!(batch.pages <= changed && batch.pages < 5, "{batch:?}");
    // 2,000 pages in the database, a few in its WAL.
    assert!(batch.wal_bytes < 6 * (4096 + 24), "{batch:?}");
    // A file that holds every page writes only those that differ.
    let at = pair.change("UPDATE t SET b=randomblob(4000) WHERE id=7");
    let key = pair.put_as(at, at, Mark::Base, pair.world.stream).await;
    let changed = pair.world.images[&at].touched.len() as u64;
    assert!(std::fs::metadata(pair.world.path_of(key)).unwrap().len() > 4_000_000);
    let batch = pair.poll_to(at).await;
    // And page 1, for its schema's version.
    assert!(batch.pages <= changed + 1, "{batch:?}");
    assert_eq!(batch.bootstrapped, None);
}

#[tokio::test]
async fn l9_an_idle_poll_is_one_request_however_long_the_history() {
    let mut pair = Pair::new(512, 0).await;
    pair.rows(300).await;
    pair.world.snapshot(200).await;
    pair.world.publish().await;
    pair.rows(80).await;
    pair.poll_to(381).await;
    for _ in 0..5 {
        let before = pair.requests();
        assert_eq!(pair.poll().await.files, 0);
        assert_eq!(pair.requests(), before + 1);
    }
    // One file more: its own request.
    let at = pair.row().await;
    let before = pair.requests();
    pair.poll_to(at).await;
    assert_eq!(pair.requests(), before + 2);
    // Also after a restart, once it has looked around.
    pair.end().await;
    pair.poll().await;
    let before = pair.requests();
    pair.poll().await;
    assert_eq!(pair.requests(), before + 1);
}

#[tokio::test]
async fn l11_catching_up_takes_merged_files_and_no_more_requests_than_a_restore() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(4).await;
    pair.poll_to(5).await;
    pair.rows(95).await;
    // The merged file begins before the replica's state.
    pair.world.merged(1, 3, 60).await;
    pair.world.merged(2, 61, 90).await;
    for at in 2..80 {
        pair.remove(FileKey::incremental(range(at, at)));
    }
    pair.world.publish().await;
    let (gets, requests) = (pair.gets(), pair.requests());
    let batch = pair.poll_to(100).await;
    assert_eq!(batch.bootstrapped, None);
    assert_eq!(batch.files, 12);
    // The index, and each file.
    assert_eq!(pair.gets() - gets, 13);
    // The poll's listing and that of the tail.
    assert_eq!(pair.requests() - requests, 15);
    pair.reader("r");
    assert_eq!(pair.see("r", "PRAGMA integrity_check"), "\"ok\"");
}

#[tokio::test]
async fn l1_a_gap_waits_for_the_file_that_is_on_its_way() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.poll_to(4).await;
    pair.change("INSERT INTO t(b) VALUES(1)");
    let six = pair.change("INSERT INTO t(b) VALUES(2)");
    pair.put_as(6, 6, Mark::None, pair.world.stream).await;
    assert_eq!(pair.poll_to(4).await.files, 0);
    let before = pair.requests();
    pair.poll_to(4).await;
    assert_eq!(pair.requests(), before + 1, "it waits, and looks only once");
    pair.put_as(5, 5, Mark::None, pair.world.stream).await;
    assert_eq!(pair.poll_to(six).await.files, 2);
}

#[tokio::test]
async fn l1_a_gap_that_was_waited_for_and_is_part_of_the_index_now_is_an_error_though_nothing_new_appears()
 {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.world.publish().await;
    pair.poll_to(4).await;
    let follower = pair.follower.take().unwrap();
    pair.follower = Some(follower.impatient());
    pair.change("INSERT INTO t(b) VALUES(1)");
    pair.row().await;
    assert_eq!(pair.poll_to(4).await.files, 0);
    pair.world.publish().await;
    let error = pair.try_poll().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    pair.check(4);
}

#[tokio::test]
async fn l1_l3_a_gap_that_cannot_close_is_an_error_that_stays_and_costs_nothing() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.world.publish().await;
    pair.poll_to(4).await;
    pair.rows(4).await;
    pair.world.publish().await;
    pair.remove(FileKey::incremental(range(5, 5)));
    // Its newest snapshot is older than the gap.
    let error = pair.try_poll().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("0000000000000005"), "{error}");
    pair.check(4);
    for _ in 0..3 {
        let before = pair.requests();
        pair.try_poll().await.unwrap_err();
        assert_eq!(pair.requests(), before + 1);
        pair.check(4);
    }
    // A snapshot beyond it: made anew, once.
    pair.world.snapshot(8).await;
    pair.world.publish().await;
    pair.reader("r");
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "3");
    let at = pair.row().await;
    let batch = pair.poll_to(at).await;
    assert_eq!(batch.bootstrapped.unwrap().reason, Some(Reason::Gap));
    assert_eq!(pair.see("r", "SELECT count(*) FROM t"), "8");
    let before = pair.requests();
    pair.poll().await;
    assert_eq!(pair.requests(), before + 1);
}

#[tokio::test]
async fn l3_the_newest_state_of_the_stream_is_older_and_the_replica_stays() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(7).await;
    pair.world.publish().await;
    pair.poll_to(8).await;
    pair.end().await;
    // Somebody deleted the newest files and the index.
    for at in 5..=8 {
        pair.remove(FileKey::incremental(range(at, at)));
    }
    std::fs::remove_file(pair.world.bucket().join(pair.world.layout.manifest())).unwrap();
    let error = pair.try_poll().await.unwrap_err();
    assert!(error.message().contains("the replica is at 8"), "{error}");
    pair.check(8);
}

#[tokio::test]
async fn l4_a_foreign_file_at_the_next_range_is_never_applied() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.world.publish().await;
    pair.poll_to(4).await;
    pair.change("INSERT INTO t(b) VALUES('foreign')");
    let key = pair.put_as(5, 5, Mark::None, stream(0xdef, 1)).await;
    let error = pair.try_poll().await.unwrap_err();
    assert!(error.message().contains("another history"), "{error}");
    pair.check(4);
    let before = pair.requests();
    pair.try_poll().await.unwrap_err();
    assert_eq!(pair.requests(), before + 1);
    // Somebody takes it away; the true one is there.
    pair.remove(key);
    pair.put_as(5, 5, Mark::None, pair.world.stream).await;
    let at = pair.row().await;
    pair.poll_to(at).await;
}

#[tokio::test]
async fn l4_a_file_of_this_stream_over_another_state_is_never_applied() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.world.publish().await;
    pair.poll_to(4).await;
    // Its pages belong to a state that never was here: the checksum before it is another.
    let five = pair.change("INSERT INTO t(b) VALUES(5)");
    let old = pair.world.images[&4].clone();
    pair.world.images.get_mut(&4).unwrap().bytes[600] ^= 1;
    pair.world.recompute(4);
    pair.put_as(five, five, Mark::None, pair.world.stream).await;
    pair.world.images.insert(4, old);
    let error = pair.try_poll().await.unwrap_err();
    assert!(error.message().contains("made over the state"), "{error}");
    pair.check(4);
}

#[tokio::test]
async fn x3_a_file_that_holds_another_range_than_its_name_is_never_applied() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(2).await;
    pair.poll_to(3).await;
    let at = pair.change("INSERT INTO t(b) VALUES(4)");
    pair.change("INSERT INTO t(b) VALUES(5)");
    let key = FileKey::incremental(range(at, at));
    let long = FileKey::incremental(range(at, at + 1));
    let (bytes, _) = pair.world.encode(long, Mark::None, pair.world.stream);
    pair.world.put_bytes(key, bytes).await;
    let error = pair.try_poll().await.unwrap_err();
    assert!(error.message().contains("is named"), "{error}");
    pair.check(3);
}

#[tokio::test]
async fn a_writer_that_takes_over_is_followed_and_late_files_of_the_old_one_are_not() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.poll_to(4).await;
    pair.next_turn(0xabc, 2);
    pair.rows(2).await;
    pair.poll_to(6).await;
    // The old writer wakes up and stores what it had.
    pair.change("INSERT INTO t(b) VALUES('late')");
    pair.put_as(7, 7, Mark::None, stream(0xabc, 1)).await;
    let before = pair.requests();
    assert_eq!(pair.poll_to(6).await.files, 0);
    assert!(pair.requests() > before + 1);
    let before = pair.requests();
    pair.poll_to(6).await;
    assert_eq!(pair.requests(), before + 1);
    // The new one found the name taken and wrote on under a later end.
    pair.world.images.remove(&7);
    pair.change("INSERT INTO t(b) VALUES('true')");
    let at = pair.change("INSERT INTO t(b) VALUES('true too')");
    pair.world.incremental(7, at).await;
    pair.poll_to(at).await;
    pair.reader("r");
    assert_eq!(
        pair.see("r", "SELECT count(*) FROM t WHERE b='late'"),
        "1",
        "the source's own row"
    );
}

#[tokio::test]
async fn a_state_that_was_overtaken_is_replaced_by_the_true_one() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.world.publish().await;
    // Stored by a writer whose turn had ended, and applied before anybody could know.
    pair.app.open("x", &pair.source.clone());
    let alive = pair.world.images[&4].clone();
    pair.change("INSERT INTO t(b) VALUES('dead')");
    pair.change("INSERT INTO t(b) VALUES('dead too')");
    pair.put_as(5, 5, Mark::None, pair.world.stream).await;
    pair.put_as(6, 6, Mark::None, pair.world.stream).await;
    pair.poll_to(6).await;
    // The writer whose turn it is went on from 4, found name 5-5 taken, and is idle since.
    pair.world.images.retain(|at, _| *at <= 4);
    let _ = alive;
    pair.app.sql("s", "DELETE FROM t WHERE b LIKE 'dead%'");
    pair.change("INSERT INTO t(b) VALUES('alive')");
    pair.change("INSERT INTO t(b) VALUES('alive too')");
    pair.next_turn(0xabc, 2);
    pair.world.incremental(5, 6).await;
    let batch = pair.poll_to(6).await;
    assert_eq!(batch.bootstrapped.unwrap().reason, Some(Reason::Overtaken));
    let at = pair.row().await;
    pair.poll_to(at).await;
}

#[tokio::test]
async fn a_rebase_and_a_base_of_this_stream_lead_on() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.poll_to(4).await;
    pair.reader("r");
    pair.see("r", "SELECT count(*) FROM t");
    // The file was replaced by another with the very same schema version, and another schema.
    let version = pair.see("s", "PRAGMA schema_version");
    let other = pair.world.directory.path().join("other.db");
    pair.app.open("o", &other);
    pair.app.sql("o", "PRAGMA page_size=1024");
    pair.app.sql("o", "PRAGMA journal_mode=WAL");
    pair.app.sql("o", "CREATE TABLE a(p)");
    pair.app
        .sql("o", "CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
    pair.app.sql("o", "INSERT INTO a VALUES('wrong table')");
    pair.app.sql("o", "INSERT INTO t VALUES(1, 'right')");
    pair.app
        .sql("o", &format!("PRAGMA schema_version={version}"));
    for (at, mark) in [(5, Mark::Rebase), (6, Mark::Base)] {
        pair.app
            .sql("o", &format!("INSERT INTO t VALUES({at}, 'more')"));
        let image = pair.app.image("o");
        pair.world.commit_image(image);
        pair.put_as(at, at, mark, pair.world.stream).await;
        let batch = pair.poll_to(at).await;
        assert_eq!((batch.files, batch.bootstrapped), (1, None));
        assert_eq!(pair.see("r", "SELECT b FROM t WHERE id=1"), "\"right\"");
        assert_eq!(
            pair.see("r", "SELECT count(*) FROM t"),
            (at - 3).to_string()
        );
    }
}

#[tokio::test]
async fn a_stream_without_rolling_checksums_is_proved_by_its_digest() {
    let mut pair = Pair::new(1024, 0).await;
    pair.world.tracked = false;
    pair.rows(3).await;
    pair.poll_to(4).await;
    let at = pair.row().await;
    pair.poll_to(at).await;
    // Another page under the same name: only the digest tells.
    let at = pair.change("INSERT INTO t(b) VALUES(6)");
    let true_image = pair.world.images[&at].clone();
    let touched = *true_image.touched.iter().last().unwrap() as usize;
    let image = pair.world.images.get_mut(&at).unwrap();
    image.bytes[touched * 1024 - 1] ^= 1;
    pair.put_as(at, at, Mark::None, pair.world.stream).await;
    let error = pair.try_poll().await.unwrap_err();
    assert!(error.message().contains("digest"), "{error}");
    pair.check(5);
}

#[tokio::test]
async fn a_file_larger_than_memory_for_one_is_applied_from_disk() {
    let mut pair = Pair::new(65536, 0).await;
    pair.poll_to(1).await;
    pair.commit("INSERT INTO t(b) WITH RECURSIVE c(v) AS (SELECT 1 UNION ALL SELECT v+1 FROM c WHERE v<12) SELECT randomblob(1000000) FROM c").await;
    let size = std::fs::metadata(pair.world.path_of(FileKey::incremental(range(2, 2)))).unwrap();
    assert!(size.len() > 8 << 20);
    pair.poll_to(2).await;
}

#[tokio::test]
async fn r113_a_stop_in_the_middle_of_a_file_rolls_it_back() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(3).await;
    pair.poll_to(4).await;
    let at = pair.row().await;
    pair.stop.cancel();
    let error = pair.try_poll().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    pair.end().await;
    pair.check(4);
    pair.stop = CancellationToken::new();
    pair.poll_to(at).await;
    assert_eq!(pair.state().current_txid, Txid::new(at).unwrap());
}

#[tokio::test]
async fn a_gap_is_bridged_by_merged_files_after_a_long_rest() {
    let mut pair = Pair::new(1024, 0).await;
    pair.rows(2).await;
    pair.poll_to(3).await;
    pair.end().await;
    pair.rows(20).await;
    pair.world.merged(3, 2, 20).await;
    pair.world.publish().await;
    for at in 2..=20 {
        pair.remove(FileKey::incremental(range(at, at)));
    }
    let batch = pair.poll_to(23).await;
    assert_eq!((batch.files, batch.bootstrapped), (4, None));
}

#[tokio::test]
async fn l11_files_of_which_only_older_parts_of_the_index_tell_lead_on_as_well() {
    let mut pair = Pair::new(512, 0).await;
    pair.rows(2).await;
    pair.poll_to(3).await;
    pair.end().await;
    // More than the root of the index holds.
    for at in 4..=1003_u64 {
        let mut image = pair.world.images[&(at - 1)].bytes.clone();
        // Inside a row's blob, so that it stays a database.
        let last = image.len() - 1;
        image[last - (at % 200) as usize] ^= 1 + (at % 250) as u8;
        pair.world.images.remove(&(at.saturating_sub(3)));
        pair.world.commit_image(image);
        pair.world.incremental(at, at).await;
    }
    pair.world.publish().await;
    let manifest = pair.world.bucket().join(pair.world.layout.manifest());
    let root = std::fs::read_to_string(manifest).unwrap();
    assert!(
        root.contains("\"pages\":[{\"min\""),
        "the root holds it all"
    );
    let batch = pair.poll_to(1003).await;
    assert_eq!((batch.files, batch.bootstrapped), (1000, None));
}

#[tokio::test]
async fn r8_whatever_single_request_fails_the_replica_shows_only_states_of_its_source_and_gets_there()
 {
    let faults = [
        Fault::Before(ErrorKind::Unavailable),
        Fault::Before(ErrorKind::NotFound),
        Fault::Before(ErrorKind::Denied),
        Fault::Torn(40),
        Fault::Torn(0),
    ];
    for fault in faults {
        for number in 1.. {
            if fails_at(number, fault).await < number {
                break;
            }
        }
    }
}

/// A history in which everything happens, with one request that fails. Gives the number of requests.
async fn fails_at(number: u64, fault: Fault) -> u64 {
    let what = format!("request {number}: {fault:?}");
    let mut pair = Pair::new(512, 0).await;
    pair.fault = Some((number, fault));
    pair.rows(2).await;
    let at = pair.row().await;
    arrives(&mut pair, at, &what).await;
    let at = pair.row().await;
    arrives(&mut pair, at, &what).await;
    pair.rows(8).await;
    let at = pair.row().await;
    pair.world.merged(1, 4, at - 1).await;
    pair.world.publish().await;
    for gone in 6..at {
        pair.remove(FileKey::incremental(range(gone, gone)));
    }
    arrives(&mut pair, at, &what).await;
    pair.rows(2).await;
    pair.world.snapshot(at + 2).await;
    pair.world.publish().await;
    pair.remove(FileKey::incremental(range(at + 1, at + 1)));
    let at = pair.row().await;
    arrives(&mut pair, at, &what).await;
    pair.requests()
}

async fn arrives(pair: &mut Pair, at: u64, what: &str) {
    let mut last = 0;
    for _ in 0..6 {
        let polled = pair.try_poll().await;
        if !pair.local.exists() {
            continue;
        }
        let txid = pair.state().current_txid.get();
        assert!(txid >= last, "{what}: {txid} after {last}");
        last = txid;
        pair.check(txid);
        if txid == at {
            return;
        }
        drop(polled);
    }
    panic!("{what}: at {last} and not at {at}");
}
