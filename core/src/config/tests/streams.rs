//! Which streams a configuration means.

use std::path::Path;

use super::parse;
use crate::config::streams::{Stream, has_pattern, of, replicas, without_used_patterns};
use crate::types::DatabaseName;

fn names(stored: &[&str]) -> Vec<DatabaseName> {
    stored.iter().map(|name| name.parse().unwrap()).collect()
}

fn shown(streams: Vec<Stream>) -> Vec<String> {
    let shown = |stream: Stream| format!("{} -> {}", stream.name, stream.path.display());
    streams.into_iter().map(shown).collect()
}

#[test]
fn a_replica_lives_where_local_says_and_keeps_the_name_of_its_source() {
    let file = parse(
        "[[databases]]\npath = \"/data/app.db\"\nlocal = \"/replica/copy.db\"\n\
         [[databases]]\npath = \"/data/t/*.db\"\nname = \"tenants\"\nlocal = \"/replica/t/*.db\"\n\
         [[databases]]\nlocal = \"/replica/alone.db\"\n",
    );
    let stored = names(&["app.db", "tenants/a.db", "tenants/a.txt", "b.db"]);
    assert_eq!(
        shown(replicas(&file, &stored).unwrap()),
        [
            "app.db -> /replica/copy.db",
            "tenants/a.db -> /replica/t/a.db",
            "alone.db -> /replica/alone.db"
        ]
    );
    assert_eq!(
        shown(of(&file, &stored).unwrap()),
        [
            "app.db -> /data/app.db",
            "tenants/a.db -> /data/t/a.db",
            "alone.db -> /replica/alone.db"
        ]
    );
}

#[test]
fn a_pattern_whose_directory_is_in_use_wants_nothing_back() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let text = |folder: &Path| {
        let folder = folder.display();
        format!(
            "[[databases]]\npath = \"{folder}/*.db\"\n[[databases]]\npath = \"{folder}/main.sqlite\""
        )
    };
    let left = |folder: &Path| {
        let file = without_used_patterns(&parse(&text(folder))).unwrap();
        (file.databases.len(), has_pattern(&file))
    };
    assert_eq!(left(&at("missing")), (2, true));
    std::fs::create_dir(at("empty")).unwrap();
    assert_eq!(left(&at("empty")), (2, true));
    std::fs::create_dir_all(at("other/.a.sqlite-walrust")).unwrap();
    std::fs::write(at("other/a.txt"), "").unwrap();
    assert_eq!(left(&at("other")), (2, true));
    std::fs::create_dir(at("one")).unwrap();
    std::fs::write(at("one/a.db"), "").unwrap();
    assert_eq!(left(&at("one")), (1, false));
    // A tenant that was deleted leaves our directory behind.
    std::fs::create_dir_all(at("state/.a.db-walrust")).unwrap();
    assert_eq!(left(&at("state")), (1, false));
    std::fs::write(at("file"), "").unwrap();
    assert!(without_used_patterns(&parse(&text(&at("file")))).is_err());
}
