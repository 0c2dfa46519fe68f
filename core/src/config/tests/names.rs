//! Which files are meant, and what they are called in the bucket.

use std::path::{Path, PathBuf};

use super::parse;
use crate::config::{Environment, Overrides, Resolved, resolve};
use crate::error::{ErrorKind, Result};

struct Home(tempfile::TempDir);

impl Home {
    fn with(files: &[&str]) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for file in files {
            let path = home.at(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        home
    }

    fn at(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    /// Resolves `entries`, where `~` stands for the directory.
    fn resolve(&self, entries: &str, named: &[&str]) -> Result<Resolved> {
        let home = self.0.path().to_str().unwrap();
        let text = format!("[s3]\nbucket = \"bkt\"\n{}", entries.replace('~', home));
        let overrides = Overrides {
            databases: named
                .iter()
                .map(|path| path.replace('~', home).into())
                .collect(),
            ..Overrides::default()
        };
        resolve(Some(&parse(&text)), &Environment::default(), &overrides)
    }

    /// Resolves to `file name -> name` pairs.
    fn names(&self, entries: &str, named: &[&str]) -> Vec<String> {
        let resolved = self.resolve(entries, named).unwrap();
        let shown = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let databases = resolved.databases.iter();
        databases
            .map(|database| format!("{} -> {}", shown(&database.path), database.name))
            .collect()
    }
}

const GLOB: &str = "[[databases]]\npath = \"~/*.db\"\n";

#[test]
fn the_default_name_is_the_file_name_with_its_extension() {
    let home = Home::with(&["app.db", "a b#ü.sqlite", ".hidden", "x/noext"]);
    for (file, name) in [
        ("app.db", "app.db"),
        ("a b#ü.sqlite", "a b#ü.sqlite"),
        (".hidden", ".hidden"),
        ("x/noext", "noext"),
        ("missing.db", "missing.db"),
    ] {
        let entry = format!("[[databases]]\npath = \"~/{file}\"");
        let resolved = home.resolve(&entry, &[]).unwrap();
        assert_eq!(resolved.databases[0].name.as_str(), name);
        assert_eq!(resolved.databases[0].path, home.at(file));
    }
}

#[test]
fn v7_a_pattern_names_its_matches_and_nothing_is_not_ignored() {
    let home = Home::with(&["b.db", "a.db", "a.db-wal", ".c.db", "d.sqlite", "sub/e.db"]);
    std::fs::create_dir(home.at("dir.db")).unwrap();
    assert_eq!(home.names(GLOB, &[]), ["a.db -> a.db", "b.db -> b.db"]);
    assert_eq!(
        home.names("[[databases]]\npath = \"~/*.db\"\nprefix = \"main/\"", &[]),
        ["a.db -> main/a.db", "b.db -> main/b.db"]
    );
    assert_eq!(
        home.names("[[databases]]\npath = \"~/?.db*\"", &[]),
        ["a.db -> a.db", "b.db -> b.db"]
    );
    assert_eq!(home.names("", &["~/[b-z].db"]), ["b.db -> b.db"]);

    let nothing = "[[databases]]\npath = \"~/*.nothing\"\n";
    let resolved = home.resolve(nothing, &[]).unwrap();
    assert_eq!(resolved.unmatched[0].message, "no file matches");
    let error = resolved.require_databases().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("*.nothing"), "{error}");
    // The others go on, and the empty one is not forgotten.
    let resolved = home.resolve(&format!("{nothing}{GLOB}"), &[]).unwrap();
    assert_eq!((resolved.databases.len(), resolved.unmatched.len()), (2, 1));
    assert!(resolved.require_databases().is_ok());
    // One that may come later is waited for.
    let resolved = home
        .resolve(&format!("{nothing}optional = true"), &[])
        .unwrap();
    assert!(resolved.unmatched[0].optional);
    assert!(resolved.require_databases().is_ok());
    let resolved = home
        .resolve("[[databases]]\npath = \"~/no/*.db\"", &[])
        .unwrap();
    assert!(resolved.unmatched[0].message.contains("No such file"));
    let error = home
        .resolve("", &[])
        .unwrap()
        .require_databases()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_pattern_stands_in_the_last_part_only() {
    let home = Home::with(&["x/a.db", "we[i]rd/a.db", "we[i]rd/[x].db"]);
    let error = home
        .resolve("[[databases]]\npath = \"~/*/a.db\"", &[])
        .unwrap_err();
    assert!(
        error.to_string().contains("in the last part only"),
        "{error}"
    );
    assert!(error.to_string().starts_with("walrust.toml:3:1"), "{error}");
    // Brackets are letters where a file or directory is called so.
    assert_eq!(
        home.names("[[databases]]\npath = \"~/we[i]rd/a.db\"", &[]),
        ["a.db -> a.db"]
    );
    assert_eq!(
        home.names("[[databases]]\npath = \"~/we[i]rd/[x].db\"", &[]),
        ["[x].db -> [x].db"]
    );
}

#[test]
fn v8_two_databases_in_one_place_are_refused_naming_both() {
    let home = Home::with(&["a/app.db", "b/app.db", "a/app.sqlite"]);
    let entry = |path: &str, prefix: &str| {
        let prefix = match prefix {
            "" => String::new(),
            prefix => format!("prefix = \"{prefix}\"\n"),
        };
        format!("[[databases]]\npath = \"~/{path}\"\n{prefix}")
    };
    let collide = [
        (entry("a/app.db", "") + &entry("b/app.db", ""), "app.db"),
        (
            entry("a/app.db", "main") + &entry("b/app.db", "main"),
            "main",
        ),
        (
            entry("a/app.db", "app.sqlite") + &entry("a/app.sqlite", ""),
            "app.sqlite",
        ),
        (entry("a/*.db", "m") + &entry("b/*.db", "m"), "m/app.db"),
        (
            entry("a/*.db", "m") + &entry("b/app.db", "m/app.db"),
            "m/app.db",
        ),
    ];
    for (entries, name) in collide {
        let error = home.resolve(&entries, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        assert!(
            text.contains(&format!("both be stored as `{name}`")),
            "{text}"
        );
        assert!(text.contains("a/app.") && text.contains(" and "), "{text}");
    }
    // Same stem, same name elsewhere: these differ.
    assert_eq!(
        home.names("", &["~/a/app.db", "~/a/app.sqlite"]),
        ["app.db -> app.db", "app.sqlite -> app.sqlite"]
    );
    let apart = entry("a/app.db", "one") + &entry("b/app.db", "two");
    assert_eq!(home.names(&apart, &[]), ["app.db -> one", "app.db -> two"]);
}

#[test]
fn v8_one_file_under_two_paths_is_refused() {
    let home = Home::with(&["a.db"]);
    std::os::unix::fs::symlink(home.at("a.db"), home.at("soft.db")).unwrap();
    std::fs::hard_link(home.at("a.db"), home.at("hard.db")).unwrap();
    std::fs::create_dir(home.at("sub")).unwrap();
    for other in ["a.db", "soft.db", "hard.db", "sub/../a.db", "./a.db"] {
        let error = home
            .resolve("", &["~/a.db", &format!("~/{other}")])
            .unwrap_err();
        assert!(
            error.to_string().contains("are the same file"),
            "{other}: {error}"
        );
    }
    // Also where it is not there yet.
    let error = home
        .resolve("", &["~/new.db", "~/sub/../new.db"])
        .unwrap_err();
    assert!(error.to_string().contains("are the same file"), "{error}");
}

#[test]
fn named_databases_replace_the_list_and_keep_their_configured_name() {
    let home = Home::with(&["a.db", "b.db", "g/c.db"]);
    let entries = "[sync]\nmax_changes = 3\n\
        [[databases]]\npath = \"~/a.db\"\nprefix = \"main\"\nmax_changes = 9\npaused = true\n\
        [[databases]]\npath = \"~/g/*.db\"\nprefix = \"g\"\n";
    assert_eq!(home.names(entries, &["~/b.db"]), ["b.db -> b.db"]);
    assert_eq!(
        home.names(entries, &["~/./a.db", "~/g/c.db"]),
        ["a.db -> main", "c.db -> g/c.db"]
    );
    let resolved = home.resolve(entries, &["~/b.db", "~/a.db"]).unwrap();
    let changes = |index: usize| resolved.databases[index].sync.max_changes.map(u64::from);
    assert_eq!((changes(0), changes(1)), (Some(3), Some(9)));
    assert!(!resolved.databases[1].paused);
}

#[test]
fn x4_names_that_cannot_stand_in_a_bucket_are_refused_with_a_way_out() {
    let home = Home::with(&["0000", "manifest.json"]);
    for file in ["0000", "manifest.json"] {
        let error = home.resolve("", &[&format!("~/{file}")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("prefix"), "{error}");
    }
    let error = home.resolve("", &["~/.."]).unwrap_err();
    assert!(
        error.to_string().contains("does not name a file"),
        "{error}"
    );
}
