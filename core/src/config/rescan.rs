//! Looking again which files the patterns of a configuration mean, while it is in use.

use std::collections::HashMap;

use super::settings::{Resolved, ResolvedDatabase};
use crate::types::DatabaseName;

/// Scans in a row in which a file must be missing before it is gone: one that is being replaced may be missing
/// from one of them.
const MISSES: u32 = 2;

/// Which databases are wanted, from one scan to the next.
#[derive(Clone, Debug)]
pub struct Rescan {
    wanted: Vec<ResolvedDatabase>,
    missed: HashMap<DatabaseName, u32>,
}

impl Rescan {
    /// Begins with what `resolved` means.
    pub fn new(resolved: &Resolved) -> Self {
        Self {
            wanted: resolved.databases.iter().map(awaited).collect(),
            missed: HashMap::new(),
        }
    }

    /// Whether a later scan may find others: only where a pattern stands.
    pub fn is_worthwhile(resolved: &Resolved) -> bool {
        !resolved.unmatched.is_empty() || resolved.databases.iter().any(|database| database.matched)
    }

    /// What is wanted.
    pub fn wanted(&self) -> &[ResolvedDatabase] {
        &self.wanted
    }

    /// Takes what a scan found; true where something else is wanted than before.
    pub fn scanned(&mut self, found: &Resolved) -> bool {
        let mut wanted: Vec<_> = found.databases.iter().map(awaited).collect();
        let is_found = |name: &DatabaseName| wanted.iter().any(|database| database.name == *name);
        let mut missed = HashMap::new();
        let mut kept = Vec::new();
        for database in self.wanted.iter().filter(|old| !is_found(&old.name)) {
            let times = self.missed.get(&database.name).map_or(1, |times| times + 1);
            if times < MISSES {
                missed.insert(database.name.clone(), times);
                kept.push(database.clone());
            }
        }
        wanted.extend(kept);
        self.missed = missed;
        let changed = wanted != self.wanted;
        self.wanted = wanted;
        changed
    }
}

/// What a pattern found may still be empty, or go before it is opened: that is waited for.
fn awaited(database: &ResolvedDatabase) -> ResolvedDatabase {
    ResolvedDatabase {
        optional: database.optional || database.matched,
        ..database.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::config::{Environment, Overrides, StoreLayer, resolve};

    fn scan(pattern: &Path) -> Resolved {
        let overrides = Overrides {
            store: StoreLayer {
                location: Some("file:///tmp/bucket".parse().unwrap()),
                ..StoreLayer::default()
            },
            databases: vec![pattern.to_owned()],
            ..Overrides::default()
        };
        resolve(None, &Environment::default(), &overrides).unwrap()
    }

    fn names(rescan: &Rescan) -> Vec<&str> {
        rescan
            .wanted()
            .iter()
            .map(|database| database.name.as_str())
            .collect()
    }

    #[test]
    fn a_file_comes_at_once_and_goes_after_two_scans_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| -> PathBuf { folder.path().join(name) };
        std::fs::write(file("a.db"), "").unwrap();
        let pattern = file("*.db");
        let first = scan(&pattern);
        assert!(Rescan::is_worthwhile(&first));
        let mut rescan = Rescan::new(&first);
        assert!(rescan.wanted()[0].optional, "an empty file is waited for");
        assert!(!rescan.scanned(&scan(&pattern)));
        std::fs::write(file("b.db"), "").unwrap();
        assert!(rescan.scanned(&scan(&pattern)));
        assert_eq!(names(&rescan), ["a.db", "b.db"]);
        // Missing from one scan only.
        std::fs::remove_file(file("b.db")).unwrap();
        assert!(!rescan.scanned(&scan(&pattern)));
        std::fs::write(file("b.db"), "").unwrap();
        assert!(!rescan.scanned(&scan(&pattern)));
        std::fs::remove_file(file("b.db")).unwrap();
        assert!(
            !rescan.scanned(&scan(&pattern)),
            "once more counts from the start"
        );
        assert!(rescan.scanned(&scan(&pattern)));
        assert_eq!(names(&rescan), ["a.db"]);
    }

    #[test]
    fn a_file_that_is_named_is_not_looked_for() {
        let named = scan(Path::new("/nowhere/app.db"));
        assert!(!Rescan::is_worthwhile(&named));
        assert!(!Rescan::new(&named).wanted()[0].optional);
    }
}
