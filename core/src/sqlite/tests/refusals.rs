//! What attach refuses, and how it says so.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::super::testing::{App, again, attach, handed_on, scratch};
use super::super::{AttachOptions, Identity, Source};
use crate::error::{Error, ErrorKind};

fn refusal(path: &Path) -> Error {
    Source::attach(path, &AttachOptions::default()).unwrap_err()
}

#[test]
fn what_is_no_database_is_refused() {
    let place = scratch("app.db");
    assert_eq!(refusal(&place.path).kind(), ErrorKind::NotFound);
    let cases: [(&[u8], &str); 3] = [
        (b"", "is empty"),
        (b"hello", "no SQLite database"),
        (&[7; 4096], "encrypted"),
    ];
    for (bytes, says) in cases {
        std::fs::write(&place.path, bytes).unwrap();
        let error = refusal(&place.path);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(says), "{error}");
    }
    assert_eq!(
        refusal(place.directory.path()).kind(),
        ErrorKind::Unsupported
    );
}

#[test]
fn k9_another_journal_mode_is_refused_and_left_alone() {
    let place = scratch("app.db");
    let mut app = App::start();
    app.open("a", &place.path);
    app.sql("a", "CREATE TABLE t(v)");
    let bytes = std::fs::read(&place.path).unwrap();
    let error = refusal(&place.path);
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("--set-wal-mode"), "{error}");
    assert!(std::fs::read(&place.path).unwrap() == bytes);
    assert!(!place.directory.path().join("app.db-wal").exists());

    let told = AttachOptions {
        set_wal_mode: true,
        ..AttachOptions::default()
    };
    let source = Source::attach(&place.path, &told).unwrap();
    app.sql("a", "SELECT * FROM t");
    assert_eq!(app.sql("a", "PRAGMA journal_mode")[0][0], "wal");
    // While we are attached SQLite refuses to leave WAL mode.
    app.sql("a", "PRAGMA busy_timeout=0");
    let refused = app.try_call(&["sql", "a", "PRAGMA journal_mode=DELETE"]);
    assert!(refused.unwrap_err().contains("locked"));
    source.detach().unwrap();
    app.sql("a", "PRAGMA journal_mode=DELETE");
    assert_eq!(refusal(&place.path).kind(), ErrorKind::Unsupported);
}

#[test]
fn a_database_held_exclusively_is_busy_and_names_the_cause() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "PRAGMA locking_mode=EXCLUSIVE");
    app.sql("a", "CREATE TABLE t(v)");
    let error = refusal(&place.path);
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("EXCLUSIVE"), "{error}");
}

#[test]
fn replaced_and_missing_files_are_seen() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    let source = attach(&place.path);
    let beside = |suffix: &str| place.directory.path().join(format!("app.db{suffix}"));
    assert_eq!(source.identity().unwrap(), Identity::Same);
    for suffix in ["-wal", "-shm"] {
        std::fs::rename(beside(suffix), beside("-away")).unwrap();
        assert_eq!(source.identity().unwrap(), Identity::Replaced, "{suffix}");
        std::fs::copy(beside("-away"), beside(suffix)).unwrap();
        assert_eq!(source.identity().unwrap(), Identity::Replaced, "{suffix}");
        std::fs::rename(beside("-away"), beside(suffix)).unwrap();
        assert_eq!(source.identity().unwrap(), Identity::Same, "{suffix}");
    }
    std::fs::rename(&place.path, beside("-away")).unwrap();
    assert_eq!(source.identity().unwrap(), Identity::Gone);
    std::fs::write(&place.path, b"another").unwrap();
    assert_eq!(source.identity().unwrap(), Identity::Replaced);
}

#[test]
fn one_file_under_two_names_is_attached_once() {
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    let other = place.directory.path().join("other.db");
    std::fs::hard_link(&place.path, &other).unwrap();
    let source = attach(&place.path);
    assert_eq!(refusal(&other).kind(), ErrorKind::Exists);
    source.detach().unwrap();
    attach(&other);
}

#[test]
fn k10_a_directory_that_we_cannot_write_is_refused() {
    if rustix::process::geteuid().is_root() && handed_on().is_none() {
        return again(
            &[
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
            ],
            "sqlite::tests::refusals::k10_a_directory_that_we_cannot_write_is_refused",
            Path::new("unused"),
        );
    }
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    app.call(&["close", "a"]);
    let directory = place.directory.path();
    let mode = |mode| std::fs::set_permissions(directory, Permissions::from_mode(mode)).unwrap();
    mode(0o555);
    let error = refusal(&place.path);
    mode(0o755);
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(
        error.message().contains("may not write its directory"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 1);
}

#[test]
#[ignore = "needs unshare(1) and the right to mount"]
fn k10_a_read_only_mount_is_refused_and_copied() {
    const TEST: &str = "sqlite::tests::refusals::k10_a_read_only_mount_is_refused_and_copied";
    if handed_on().is_none() {
        return again(
            &["unshare", "--map-root-user", "--mount"],
            TEST,
            Path::new("unused"),
        );
    }
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    app.call(&["close", "a"]);
    let directory = place.directory.path();
    for options in ["bind", "remount,bind,ro"] {
        let mount = std::process::Command::new("mount")
            .args(["-o", options])
            .args([directory, directory])
            .status();
        assert!(mount.unwrap().success());
    }
    let error = refusal(&place.path);
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("walrust snapshot"), "{error}");
    let mut image = Pages(Vec::new());
    let mut shot = super::super::OneShot::open(&place.path, false).unwrap();
    shot.copy(&mut image, &mut |_| {}).unwrap();
    assert!(image.0 == std::fs::read(&place.path).unwrap());
    drop(shot);
    let unmount = std::process::Command::new("umount").arg(directory).status();
    assert!(unmount.unwrap().success());
}

/// A plain image of a small database.
struct Pages(Vec<u8>);

impl super::super::PageSink for Pages {
    fn begin(
        &mut self,
        _: crate::types::PageSize,
        _: crate::types::PageCount,
    ) -> crate::Result<()> {
        self.0.clear();
        Ok(())
    }

    fn page(&mut self, _: crate::types::PageNumber, data: &[u8]) -> crate::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }
}

#[test]
#[ignore = "needs root, to give files away"]
fn files_that_we_make_have_the_group_and_mode_of_the_database() {
    const TEST: &str =
        "sqlite::tests::refusals::files_that_we_make_have_the_group_and_mode_of_the_database";
    const OWNER: u32 = 4100;
    const GROUP: u32 = 4200;
    if let Some(path) = handed_on() {
        if std::fs::metadata(&path).unwrap().mode() & 0o060 != 0o060 {
            let error = refusal(&path);
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(error.message().contains("UID 4100 and GID 4200"), "{error}");
            return;
        }
        let source = attach(&path);
        for suffix in ["-wal", "-shm"] {
            let made = std::fs::metadata(crate::fs::with_suffix(&path, suffix)).unwrap();
            assert_eq!(made.uid(), rustix::process::geteuid().as_raw(), "{suffix}");
            assert_eq!(
                (made.gid(), made.mode() & 0o777),
                (GROUP, 0o660),
                "{suffix}"
            );
        }
        return source.detach().unwrap();
    }
    let place = scratch("app.db");
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    app.call(&["close", "a"]);
    for (path, mode) in [
        (place.path.as_path(), 0o660),
        (place.directory.path(), 0o770),
    ] {
        std::os::unix::fs::chown(path, Some(OWNER), Some(GROUP)).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let launcher = ["setpriv", "--reuid=4300", "--regid=4300", "--groups=4200"];
    again(&launcher, TEST, &place.path);
    std::fs::set_permissions(place.directory.path(), Permissions::from_mode(0o777)).unwrap();
    std::fs::set_permissions(&place.path, Permissions::from_mode(0o644)).unwrap();
    again(&launcher, TEST, &place.path);
}
