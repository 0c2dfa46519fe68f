//! Writing pages beside readers in another process.

use std::time::Duration;

use crate::error::ErrorKind;
use crate::sqlite::testing::{App, scratch};
use crate::sqlite::{ClosedToOthers, Identity, PageWriter};
use crate::types::{PageCount, PageNumber};

fn page(number: u32) -> PageNumber {
    PageNumber::new(number).unwrap()
}

/// A database with `tables` tables of one page each, everything in the database file.
fn database(app: &mut App, path: &std::path::Path, tables: u32) {
    app.open("a", path);
    app.sql("a", "PRAGMA page_size=1024");
    app.sql("a", "PRAGMA journal_mode=WAL");
    for table in 0..tables {
        app.sql(
            "a",
            &format!("CREATE TABLE table_{table}(x, y, z, PRIMARY KEY(x, y))"),
        );
    }
    app.sql("a", "PRAGMA wal_checkpoint(TRUNCATE)");
}

#[test]
fn a_transaction_that_is_dropped_leaves_everything_as_it_was() {
    let scratch = scratch("a.db");
    let mut app = App::start();
    database(&mut app, &scratch.path, 3);
    let before = app.image("a");
    let mut writer = PageWriter::open(&scratch.path).unwrap();
    let committed = writer.look().unwrap();
    let mut transaction = writer.begin().unwrap();
    transaction.write(page(2), &[7; 1024]).unwrap();
    transaction.write(page(90), &[7; 1024]).unwrap();
    drop(transaction);
    assert!(app.image("a") == before);
    assert!(writer.look().unwrap().is(&committed));
}

/// SQLite would read the new schema through what it remembers of the old one's pages, in the middle or later.
#[test]
fn another_schema_in_fewer_pages_is_written_in_one_transaction_and_the_next_goes_on() {
    let scratch = scratch("a.db");
    let mut app = App::start();
    database(&mut app, &scratch.path, 60);
    let mut large = app.image("a");
    let other = scratch.path.with_file_name("b.db");
    let mut second = App::start();
    database(&mut second, &other, 2);
    let mut small = second.image("a");
    assert!(small.len() < large.len());
    let mut writer = PageWriter::open(&scratch.path).unwrap();
    for round in 0..4_u32 {
        let target = match round % 2 {
            0 => &mut small,
            _ => &mut large,
        };
        target[40..44].copy_from_slice(&(1000 + round).to_be_bytes());
        let count = PageCount((target.len() / 1024) as u32);
        let mut transaction = writer.begin().unwrap();
        for (number, data) in (1..).zip(target.chunks(1024)).skip(1) {
            transaction.write(page(number), data).unwrap();
        }
        transaction.finish(&target[..1024], count).unwrap();
        let committed = transaction.commit().unwrap().expect("nobody else wrote");
        assert_eq!(committed.page_count, count);
        let shown = app.image("a");
        assert!(shown[100..] == target[100..] && shown[28..92] == target[28..92]);
        let tables = app.sql("a", "SELECT count(*) FROM sqlite_schema WHERE type='table'");
        assert_eq!(tables[0][0], if round % 2 == 0 { 2 } else { 60 });
        assert_eq!(app.sql("a", "PRAGMA integrity_check")[0][0], "ok");
    }
}

#[test]
fn who_else_commits_is_noticed_before_and_after() {
    let scratch = scratch("a.db");
    let mut app = App::start();
    database(&mut app, &scratch.path, 1);
    let mut writer = PageWriter::open(&scratch.path).unwrap();
    let before = writer.look().unwrap();
    app.sql("a", "PRAGMA wal_checkpoint(TRUNCATE)");
    assert!(
        writer.look().unwrap().is(&before),
        "a checkpoint is no commit"
    );
    app.sql("a", "INSERT INTO table_0 VALUES(1, 2, 3)");
    assert!(!writer.look().unwrap().is(&before));
    // Between the transaction's beginning and its first write.
    let mut transaction = writer.begin().unwrap();
    app.sql("a", "INSERT INTO table_0 VALUES(4, 5, 6)");
    let error = transaction.write(page(2), &[0; 1024]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    drop(transaction);
    let rows = app.sql("a", "SELECT count(*) FROM table_0");
    assert_eq!(rows[0][0], 2);
}

#[test]
fn a_long_wal_begins_anew_as_soon_as_no_reader_needs_it() {
    let scratch = scratch("a.db");
    let mut app = App::start();
    database(&mut app, &scratch.path, 3);
    let mut writer = PageWriter::open(&scratch.path).unwrap();
    let mut first = app.image("a");
    first.truncate(1024);
    let rewrite = |writer: &mut PageWriter| {
        let mut transaction = writer.begin().unwrap();
        transaction.finish(&first, PageCount(7)).unwrap();
        transaction.commit().unwrap().unwrap().end.unwrap().frames
    };
    let count = app.image("a").len() / 1024;
    assert_eq!(count, 7);
    assert_eq!(rewrite(&mut writer), 1);
    app.sql("a", "BEGIN");
    app.sql("a", "SELECT count(*) FROM table_0");
    assert_eq!(rewrite(&mut writer), 2);
    let patience = Duration::from_millis(30);
    writer.restart_wal(patience).unwrap();
    assert_eq!(rewrite(&mut writer), 3, "a reader needs it");
    app.sql("a", "COMMIT");
    writer.restart_wal(patience).unwrap();
    assert_eq!(rewrite(&mut writer), 1);
}

#[test]
fn a_file_is_closed_to_who_comes_and_open_to_who_is_there() {
    let scratch = scratch("a.db");
    let mut app = App::start();
    database(&mut app, &scratch.path, 1);
    let writer = PageWriter::open(&scratch.path).unwrap();
    app.sql("a", "SELECT count(*) FROM table_0");
    let closed = writer.keep_others_out().unwrap();
    app.sql("a", "SELECT count(*) FROM table_0");
    let mut others = App::start();
    let path = scratch.path.to_str().unwrap();
    others.call(&["open", "late", path, "0.05"]);
    let late = others.try_call(&["sql", "late", "SELECT count(*) FROM table_0"]);
    assert!(late.unwrap_err().contains("locked"));
    drop(closed);
    others.sql("late", "SELECT count(*) FROM table_0");
    // A file that has no reader yet stays closed under another name.
    let staged = scratch.path.with_file_name("staged.db");
    std::fs::copy(&scratch.path, &staged).unwrap();
    let closed = ClosedToOthers::close(&staged).unwrap();
    let named = scratch.path.with_file_name("named.db");
    std::fs::rename(&staged, &named).unwrap();
    app.call(&["open", "named", named.to_str().unwrap(), "0.05"]);
    let early = app.try_call(&["sql", "named", "SELECT count(*) FROM table_0"]);
    assert!(early.unwrap_err().contains("locked"));
    drop(closed);
    app.sql("named", "SELECT count(*) FROM table_0");
    assert_eq!(writer.identity().unwrap(), Identity::Same);
}

#[test]
fn what_is_no_database_in_wal_mode_is_refused() {
    let scratch = scratch("a.db");
    std::fs::write(
        &scratch.path,
        "no database, however long this text may be; it is none",
    )
    .unwrap();
    let error = PageWriter::open(&scratch.path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    std::fs::remove_file(&scratch.path).unwrap();
    let mut app = App::start();
    app.open("a", &scratch.path);
    app.sql("a", "CREATE TABLE t(x)");
    let error = PageWriter::open(&scratch.path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(!scratch.path.with_file_name("a.db-wal").exists());
}
