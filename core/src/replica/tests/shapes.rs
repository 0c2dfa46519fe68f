//! Page sizes, auto-vacuum modes, growth and shrinking: after every transaction the replica is the source.

use super::*;

const FILL: &str = "INSERT INTO t(b) WITH RECURSIVE c(v) AS (SELECT 1 UNION ALL SELECT v+1 FROM c WHERE v<60) SELECT randomblob(900) FROM c";

async fn walk(page_size: u32, auto_vacuum: u8) {
    let mut pair = Pair::new(page_size, auto_vacuum).await;
    pair.poll_to(1).await;
    pair.reader("r");
    for sql in [
        FILL,
        "CREATE INDEX i ON t(b)",
        FILL,
        "DELETE FROM t WHERE id%2",
        "PRAGMA incremental_vacuum",
        "VACUUM",
        FILL,
        "DELETE FROM t WHERE id>3",
        "VACUUM",
        "DROP INDEX i",
        "PRAGMA user_version=9",
        FILL,
    ] {
        let at = pair.change(sql);
        if pair.world.images[&at].touched.is_empty() {
            pair.world.images.remove(&at);
            continue;
        }
        pair.world.incremental(at, at).await;
        let batch = pair.poll_to(at).await;
        assert_eq!(batch.bootstrapped, None, "{page_size} {auto_vacuum} {sql}");
        let rows = pair.see("s", "SELECT count(*) FROM t");
        assert_eq!(pair.see("r", "SELECT count(*) FROM t"), rows, "{sql}");
        assert_eq!(pair.see("r", "PRAGMA integrity_check"), "\"ok\"", "{sql}");
    }
    let lasts = pair.world.head();
    assert_eq!(pair.state().current_txid.get(), lasts);
}

#[tokio::test]
async fn every_page_size_grows_shrinks_and_is_vacuumed() {
    for page_size in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        walk(page_size, 0).await;
    }
}

#[tokio::test]
async fn auto_vacuum_full_and_incremental() {
    for page_size in [512, 4096, 65536] {
        walk(page_size, 1).await;
        walk(page_size, 2).await;
    }
}

/// SQLite vacuums at a commit by the mode that it cached when the transaction began, and by the free list that
/// was just written: pages would move without a trace.
#[tokio::test]
async fn the_auto_vacuum_mode_changes_under_a_replica_and_its_readers() {
    for from in 0..3_u8 {
        for to in 0..3_u8 {
            let mut pair = Pair::new(1024, from).await;
            let at = pair.commit(FILL).await;
            pair.poll_to(at).await;
            pair.reader("r");
            pair.see("r", "SELECT count(*) FROM t");
            // All of it in one file, as a batch or a merged file has it; a free list is left at its end.
            pair.app.sql("s", &format!("PRAGMA auto_vacuum={to}"));
            pair.app.sql("s", "VACUUM");
            pair.app.sql("s", FILL);
            let at = pair.commit("DELETE FROM t WHERE id%3").await;
            let batch = pair.poll_to(at).await;
            assert_eq!(batch.bootstrapped, None, "{from} to {to}");
            assert_eq!(
                pair.see("r", "PRAGMA integrity_check"),
                "\"ok\"",
                "{from} to {to}"
            );
            assert_eq!(pair.see("r", "PRAGMA auto_vacuum"), to.to_string());
            let rows = pair.see("s", "SELECT count(*) FROM t");
            assert_eq!(pair.see("r", "SELECT count(*) FROM t"), rows);
            let at = pair.commit(FILL).await;
            pair.poll_to(at).await;
            let at = pair.commit("PRAGMA incremental_vacuum").await;
            pair.poll_to(at).await;
            assert_eq!(
                pair.see("r", "PRAGMA integrity_check"),
                "\"ok\"",
                "{from} to {to}"
            );
        }
    }
}
