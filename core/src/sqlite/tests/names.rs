//! Databases named anything.

use super::super::testing::{App, Capture, scratch};

#[test]
fn w10_the_wal_belongs_to_the_whole_name() {
    let names = [
        "a.sqlite",
        "a.db3",
        "a",
        "a.b.c",
        "a b.db",
        "a?mode=ro",
        "a%41.db",
        "file:a.db",
        "a#b",
        "ä",
    ];
    for name in names {
        let place = scratch(name);
        let mut app = App::with_database(&place.path, 4096);
        app.sql("a", "CREATE TABLE t(v)");
        let mut capture = Capture::attach(&place.path);
        app.sql("a", "INSERT INTO t VALUES (1)");
        assert_eq!(capture.turn().commits, 1, "{name}");
        assert!(capture.image == app.image("a"), "{name}");
    }
}

#[test]
fn a_symbolic_link_leads_to_the_wal_of_the_real_file() {
    let place = scratch("real.db");
    let link = place.directory.path().join("link.db");
    std::os::unix::fs::symlink("real.db", &link).unwrap();
    let mut app = App::with_database(&place.path, 4096);
    app.sql("a", "CREATE TABLE t(v)");
    let mut capture = Capture::attach(&link);
    app.sql("a", "INSERT INTO t VALUES (1)");
    assert_eq!(capture.turn().commits, 1);
}
