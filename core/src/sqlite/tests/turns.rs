//! Turns against an app in another process.

use std::time::Duration;

use super::super::testing::{App, again, attach, handed_on, image_of, scratch};
use super::super::{Identity, Side};
use crate::error::ErrorKind;
use crate::types::PageNumber;
use crate::wal::scan;

#[test]
fn a_turn_sees_what_was_committed_and_the_wal_leads_to_it() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let mut source = attach(&place.path);
    assert_eq!(image_of(&mut source, Side::Old), app.image("a"));
    let before = app.image("a");
    app.sql("a", "INSERT INTO t(v) VALUES (randomblob(9000))");
    let view = source.begin_turn().unwrap();
    assert_eq!(image_of(&mut source, Side::Old), before);
    let mut image = before;
    image.resize(view.page_size.total(view.page_count) as usize, 0);
    let mut buffer = Vec::new();
    let mut last = None;
    let from = source.view().cursor().unwrap();
    let end = view.wal.unwrap();
    let cursor = scan(
        source.wal().unwrap(),
        &from,
        &end,
        &mut buffer,
        &mut |frame| {
            let at = view.page_size.offset(frame.page) as usize;
            image[at..at + frame.data.len()].copy_from_slice(frame.data);
            last = frame.commit;
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(Some(cursor), view.cursor());
    assert_eq!(last, Some(view.page_count));
    assert_eq!(image, app.image("a"));
    assert_eq!(image_of(&mut source, Side::New), image);
    source.end_turn().unwrap();
    assert_eq!(source.view(), &view);
    assert_eq!(source.identity().unwrap(), Identity::Same);
    source.detach().unwrap();
}

#[test]
fn a_barrier_holds_writers_off_and_lets_the_wal_restart() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    let mut source = attach(&place.path);
    app.sql("a", "INSERT INTO t VALUES (1)");
    assert!(!source.peek().unwrap().writing);
    app.sql("a", "PRAGMA busy_timeout=0");
    let barrier = source
        .barrier(Duration::from_secs(20), |source| {
            let refused = app.try_call(&["sql", "a", "INSERT INTO t VALUES (2)"]);
            assert!(refused.unwrap_err().contains("locked"));
            let view = source.begin_turn()?;
            assert!(!view.restartable);
            source.end_turn()?;
            let done = source.checkpoint_passive()?;
            assert_eq!(done.log, done.done);
            let view = source.begin_turn()?;
            assert!(view.restartable);
            source.end_turn()
        })
        .unwrap();
    assert!(!barrier.expired);
    app.sql("a", "INSERT INTO t VALUES (3)");
    let view = source.begin_turn().unwrap();
    assert!(view.wal.unwrap().frames <= 2, "the WAL was restarted");
    source.end_turn().unwrap();
}

#[test]
fn a_barrier_gives_the_lock_up_when_its_time_is_over() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    let mut source = attach(&place.path);
    let barrier = source
        .barrier(Duration::from_millis(20), |_| {
            app.sql("a", "INSERT INTO t VALUES (2)");
            Ok(())
        })
        .unwrap();
    assert!(barrier.expired);
    app.sql("a", "BEGIN IMMEDIATE");
    assert!(source.peek().unwrap().writing);
    let busy = source.barrier(Duration::from_millis(20), |_| Ok(()));
    assert_eq!(busy.unwrap_err().kind(), ErrorKind::Busy);
}

#[test]
fn turns_come_in_order_and_may_be_cancelled() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    let mut source = attach(&place.path);
    let first = *source.view();
    let page = PageNumber::FIRST;
    let mut out = Vec::new();
    for refused in [
        source.end_turn(),
        source.cancel_turn(),
        source.read_page(Side::New, page, &mut out),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Internal);
    }
    app.sql("a", "INSERT INTO t VALUES (1)");
    let second = source.begin_turn().unwrap();
    assert_ne!(second, first);
    assert!(source.begin_turn().is_err());
    assert!(source.checkpoint_passive().is_err());
    let beyond = PageNumber::new(second.page_count.0 + 1).unwrap();
    let refused = source.read_page(Side::New, beyond, &mut out);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    source.cancel_turn().unwrap();
    assert_eq!(*source.view(), first);
    assert_eq!(source.begin_turn().unwrap(), second);
    source.end_turn().unwrap();
    assert_eq!(*source.view(), second);
}

#[test]
fn a_peek_tells_a_commit_and_how_far_it_is_copied_back() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    let mut source = attach(&place.path);
    let before = source.peek().unwrap();
    assert_eq!(source.peek().unwrap(), before);
    assert_eq!(before.header.end(), source.view().wal);
    app.sql("a", "BEGIN");
    app.sql("a", "INSERT INTO t VALUES (1)");
    let during = source.peek().unwrap();
    assert_eq!((during.header, during.writing), (before.header, true));
    app.sql("a", "COMMIT");
    let after = source.peek().unwrap();
    assert_ne!(after.header, before.header);
    assert!(after.backfilled < after.header.frames && !after.writing);
    source.begin_turn().unwrap();
    source.end_turn().unwrap();
    let done = source.checkpoint_passive().unwrap();
    assert_eq!(
        (done.log, done.done),
        (after.header.frames, after.header.frames)
    );
    assert_eq!(source.peek().unwrap().backfilled, after.header.frames);
}

#[test]
fn a_source_may_change_its_thread() {
    fn is_send<T: Send>() {}
    is_send::<super::super::Source>();
    is_send::<super::super::OneShot>();
}

#[test]
fn a_resting_database_costs_seven_descriptors_and_little_memory() {
    const TEST: &str =
        "sqlite::tests::turns::a_resting_database_costs_seven_descriptors_and_little_memory";
    const COUNT: usize = 60;
    // 80 KB are measured; 720 without our settings (mem.c).
    const MOST_BYTES: u64 = 160_000;
    let Some(directory) = handed_on() else {
        let directory = tempfile::tempdir().unwrap();
        return again(&["env"], TEST, directory.path());
    };
    let mut app = App::start();
    let paths: Vec<_> = (0..COUNT)
        .map(|i| directory.join(format!("{i}.db")))
        .collect();
    for path in &paths {
        let path = path.to_str().unwrap();
        app.call(&["once", path, "PRAGMA journal_mode=WAL"]);
        app.call(&[
            "once",
            path,
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c)",
        ]);
    }
    let resident = || -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // The code that runs is in memory once, however many databases there are.
    let first = paths[0].with_file_name("first.db");
    for sql in ["PRAGMA journal_mode=WAL", "CREATE TABLE t(a)"] {
        app.call(&["once", first.to_str().unwrap(), sql]);
    }
    let mut first = attach(&first);
    first.begin_turn().unwrap();
    first.end_turn().unwrap();
    let (memory, open) = (resident(), descriptors());
    let mut sources: Vec<_> = paths.iter().map(|path| attach(path)).collect();
    for source in &mut sources {
        source.begin_turn().unwrap();
        source.end_turn().unwrap();
    }
    assert_eq!(descriptors() - open, 7 * COUNT);
    let each = (resident() - memory) / COUNT as u64;
    assert!(each < MOST_BYTES, "{each} bytes a database");
    // Reading pages needs the schema; it goes with the transaction.
    let mut page = Vec::new();
    for source in &mut sources {
        for _ in 0..3 {
            source
                .read_page(Side::Old, PageNumber::FIRST, &mut page)
                .unwrap();
            source.begin_turn().unwrap();
            source.end_turn().unwrap();
        }
    }
    assert!(descriptors() - open <= 7 * COUNT);
}
