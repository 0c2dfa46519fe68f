//! One-shot copies and checks.

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::oneshot::open_immutable;
use super::super::testing::{App, scratch};
use super::super::{
    AttachOptions, Checked, CopyEvent, OneShot, PageSink, Source, integrity_check, quick_check,
    require_compile_options, set_wal_mode,
};
use crate::error::{ErrorKind, Result};
use crate::types::{PageCount, PageNumber, PageSize};

/// Collects an image, and runs something at the first page of each pass.
struct Image<'a> {
    bytes: Vec<u8>,
    size: usize,
    passes: u32,
    at_first_page: &'a mut dyn FnMut(u32),
}

impl PageSink for Image<'_> {
    fn begin(&mut self, page_size: PageSize, page_count: PageCount) -> Result<()> {
        self.size = page_size.bytes();
        self.bytes = vec![0; page_size.total(page_count) as usize];
        self.passes += 1;
        Ok(())
    }

    fn page(&mut self, page: PageNumber, data: &[u8]) -> Result<()> {
        if page == PageNumber::FIRST {
            (self.at_first_page)(self.passes);
        }
        let at = (page.get() as usize - 1) * self.size;
        self.bytes[at..at + self.size].copy_from_slice(data);
        Ok(())
    }
}

fn copy(path: &Path, at_first_page: &mut dyn FnMut(u32)) -> Result<(Vec<u8>, Vec<CopyEvent>)> {
    let mut image = Image {
        bytes: Vec::new(),
        size: 0,
        passes: 0,
        at_first_page,
    };
    let mut events = Vec::new();
    OneShot::open(path, false)?.copy(&mut image, &mut |event| events.push(event))?;
    Ok((image.bytes, events))
}

fn rollback_app(path: &Path) -> App {
    let mut app = App::start();
    app.open("a", path);
    app.sql("a", "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    app.sql("a", "INSERT INTO t(v) VALUES (randomblob(200000))");
    app
}

#[test]
fn a_database_in_any_journal_mode_is_copied_and_left_alone() {
    for mode in ["DELETE", "TRUNCATE", "PERSIST", "WAL"] {
        let place = scratch("app.db");
        let mut app = rollback_app(&place.path);
        app.sql("a", &format!("PRAGMA journal_mode={mode}"));
        app.sql("a", "INSERT INTO t(v) VALUES (1)");
        let before = std::fs::read(&place.path).unwrap();
        let (image, events) = copy(&place.path, &mut |_| {}).unwrap();
        assert!(image == app.image("a"), "{mode}");
        assert_eq!(events, []);
        assert!(std::fs::read(&place.path).unwrap() == before, "{mode}");
    }
}

/// SQLite's PENDING lock: a writer that waits for readers to leave holds it.
const PENDING: u64 = 0x4000_0000;

/// Lets another process commit as soon as our lock allows it, and returns once it waits for that.
fn commit_behind_our_window(writer: &mut App, observer: &mut App, path: &Path) {
    let insert = "import threading
def write():
    c = sqlite3.connect(PATH, isolation_level=None, timeout=10)
    c.execute('INSERT INTO t(v) VALUES (1)')
    c.close()
globals()['thread'] = threading.Thread(target=write)
thread.start()";
    let path_text = format!("{:?}", path.to_str().unwrap());
    writer.call(&["python", &insert.replace("PATH", &path_text)]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while observer.lock_holder(path, PENDING, 1) == 0 {
        assert!(Instant::now() < deadline, "the writer does not come");
    }
    // The window is over by now, but for a very fast machine.
    std::thread::sleep(Duration::from_millis(6));
}

#[test]
fn s2_a_commit_between_two_windows_begins_the_pass_anew() {
    let restarted = |times| CopyEvent::Restarted { times };
    let three = [restarted(1), restarted(2), restarted(3)];
    let held = [&three[..], &[CopyEvent::Held]].concat();
    let cases: [(u32, &[CopyEvent]); 4] = [(0, &[]), (1, &three[..1]), (3, &three), (4, &held)];
    for (commits, expected) in cases {
        let place = scratch("app.db");
        let mut app = rollback_app(&place.path);
        let (mut writer, mut observer) = (App::start(), App::start());
        let (image, events) = copy(&place.path, &mut |pass| {
            if pass <= commits {
                commit_behind_our_window(&mut writer, &mut observer, &place.path);
            }
        })
        .unwrap();
        assert_eq!(events, expected);
        assert!(image == app.image("a"));
    }
}

#[test]
fn a_hot_journal_is_not_rolled_back_by_a_copy() {
    let place = scratch("app.db");
    let mut app = rollback_app(&place.path);
    app.sql("a", "PRAGMA cache_size=2");
    app.sql("a", "BEGIN");
    for _ in 0..40 {
        app.sql("a", "INSERT INTO t(v) VALUES (randomblob(4000))");
    }
    drop(app);
    let journal = crate::fs::with_suffix(&place.path, "-journal");
    let before = (
        std::fs::read(&place.path).unwrap(),
        std::fs::read(&journal).unwrap(),
    );
    let error = copy(&place.path, &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("journal"), "{error}");
    let after = (
        std::fs::read(&place.path).unwrap(),
        std::fs::read(&journal).unwrap(),
    );
    assert!(before == after);
}

#[test]
fn a_copy_of_a_file_that_we_watch_is_refused() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    let source = Source::attach(&place.path, &AttachOptions::default()).unwrap();
    let error = copy(&place.path, &mut |_| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    source.detach().unwrap();
    copy(&place.path, &mut |_| {}).unwrap();
}

#[test]
fn damage_is_found_and_a_missing_collation_is_no_damage() {
    require_compile_options().unwrap();
    let place = scratch("app.db");
    let mut app = rollback_app(&place.path);
    app.sql("a", "CREATE INDEX i ON t(v)");
    for check in [quick_check, integrity_check] {
        assert_eq!(check(&place.path).unwrap(), Checked::Sound);
    }
    let collation = "conns['a'].create_collation('mine', lambda a, b: 0)
conns['a'].execute('CREATE TABLE c(v TEXT COLLATE mine PRIMARY KEY)')";
    app.call(&["python", collation]);
    for check in [quick_check, integrity_check] {
        assert!(matches!(check(&place.path).unwrap(), Checked::Partly(_)));
    }
    app.sql("a", "DROP TABLE c");
    app.call(&["close", "a"]);
    let mut bytes = std::fs::read(&place.path).unwrap();
    bytes[4096..4196].fill(0xff);
    std::fs::write(&place.path, &bytes).unwrap();
    for check in [quick_check, integrity_check] {
        assert_eq!(check(&place.path).unwrap_err().kind(), ErrorKind::Corrupt);
    }
    std::fs::write(&place.path, [1; 5000]).unwrap();
    assert_eq!(
        quick_check(&place.path).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    // Nothing is made beside a checked file.
    assert_eq!(
        std::fs::read_dir(place.directory.path()).unwrap().count(),
        1
    );
}

#[test]
fn a_checked_file_in_wal_mode_gets_no_companions() {
    let place = scratch("app.db");
    let mut app = rollback_app(&place.path);
    app.call(&["close", "a"]);
    set_wal_mode(&place.path).unwrap();
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(crate::fs::with_suffix(&place.path, suffix));
    }
    assert_eq!(quick_check(&place.path).unwrap(), Checked::Sound);
    assert_eq!(
        std::fs::read_dir(place.directory.path()).unwrap().count(),
        1
    );
}

#[test]
fn k10_a_read_only_volume_is_copied_where_no_wal_says_more() {
    let place = scratch("app ?#%.db");
    let mut app = rollback_app(&place.path);
    app.call(&["close", "a"]);
    set_wal_mode(&place.path).unwrap();
    let bytes = std::fs::read(&place.path).unwrap();
    let mut events = Vec::new();
    let mut copy = |at_first_page: &mut dyn FnMut(u32)| {
        let mut image = Image {
            bytes: Vec::new(),
            size: 0,
            passes: 0,
            at_first_page,
        };
        events.clear();
        let outcome = open_immutable(place.path.clone())
            .and_then(|mut shot| shot.copy(&mut image, &mut |event| events.push(event)));
        outcome.map(|()| (image.bytes, events.len()))
    };
    assert!(copy(&mut |_| {}).unwrap() == (bytes.clone(), 0));
    // Somebody else can write the volume after all.
    let write = || {
        let mut other = bytes.clone();
        other[5000] ^= 1;
        std::fs::write(&place.path, other).unwrap();
    };
    let (image, restarts) = copy(&mut |pass| {
        if pass == 1 {
            write()
        }
    })
    .unwrap();
    assert!(image != bytes && restarts == 1);
    let error = copy(&mut |_| write()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    for suffix in ["-wal", "-journal"] {
        let beside = crate::fs::with_suffix(&place.path, suffix);
        std::fs::write(&beside, b"more").unwrap();
        assert_eq!(copy(&mut |_| {}).unwrap_err().kind(), ErrorKind::Denied);
        std::fs::write(&beside, b"").unwrap();
        copy(&mut |_| {}).unwrap();
    }
}
