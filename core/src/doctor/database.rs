//! One database, looked at from outside.

use super::report::Check;
use crate::config::ResolvedDatabase;
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::{Facts, Header, SqliteVersion, inspect};
use crate::state::{Peek, StateDir};

/// Everything about one database.
pub(super) fn examine(database: &ResolvedDatabase) -> Vec<Check> {
    judge(
        database,
        inspect(&database.path),
        StateDir::peek(&database.path),
    )
}

/// What is to be said of what was found.
fn judge(
    database: &ResolvedDatabase,
    facts: Result<Facts>,
    state: Result<Option<Peek>>,
) -> Vec<Check> {
    let name = |what: &str| format!("{} {what}", database.name);
    let facts = match facts {
        Ok(facts) => facts,
        Err(error) => return vec![absent(database, &error)],
    };
    let mut checks = Vec::new();
    match facts.header {
        Err(error) => checks.push(
            Check::failed_because(name("file"), &error)
                .hint("see that the path names the app's database, and that we may read it"),
        ),
        Ok(header) => {
            checks.push(Check::ok(name("file"), database.path.display().to_string()));
            let set_wal_mode = database.sync.set_wal_mode;
            checks.push(journal(name("journal"), header, set_wal_mode));
            checks.extend(old_library(name("library"), header));
        }
    }
    checks.push(match (facts.local, database.sync.allow_network_fs) {
        (Ok(()), _) => Check::ok(name("volume"), "local"),
        (Err(error), true) => Check::note(name("volume"), format!("{}; allowed", error.message()))
            .hint("see that no other machine has the database open"),
        (Err(error), false) => Check::failed_because(name("volume"), &error),
    });
    checks.push(held(name("writable"), "file and directory", facts.writable));
    checks.push(held(name("owner"), "shared with the app", facts.ownership));
    checks.push(directory(name("state"), state));
    checks
}

fn held(name: String, good: &str, fact: Result<()>) -> Check {
    match fact {
        Ok(()) => Check::ok(name, good),
        Err(error) => Check::failed_because(name, &error),
    }
}

fn absent(database: &ResolvedDatabase, error: &Error) -> Check {
    let name = format!("{} file", database.name);
    let path = database.path.display();
    match error.kind() {
        ErrorKind::NotFound if database.optional => {
            Check::note(name, format!("{path} is not there yet; watch waits for it"))
        }
        ErrorKind::NotFound => Check::failed(
            name,
            ErrorKind::NotFound,
            format!("{path} is not there"),
            "correct the path, start the app first, restore it, or set optional = true",
        ),
        // We hold its locks ourselves, and looking would drop them (invariant 10).
        ErrorKind::Exists => Check::ok(name, "watched by this process"),
        _ => {
            let mut check = Check::failed_because(name, error);
            check.message = format!("{path}: {}", check.message);
            check.hint("see that the path names the app's database, and that we may read it")
        }
    }
}

fn journal(name: String, header: Header, set_wal_mode: bool) -> Check {
    match (header.wal_mode, set_wal_mode) {
        (true, _) => Check::ok(name, "WAL mode"),
        (false, true) => Check::note(name, "not in WAL mode; watch sets it"),
        (false, false) => Check::failed(
            name,
            ErrorKind::Unsupported,
            "not in WAL mode",
            "run PRAGMA journal_mode=WAL once, or set set_wal_mode = true",
        ),
    }
}

/// The application's own SQLite may corrupt what nobody can then restore.
fn old_library(name: String, header: Header) -> Option<Check> {
    let version = header.sqlite_version?;
    (version < SqliteVersion::WAL_RESET_MENDED).then(|| {
        let mended = SqliteVersion::WAL_RESET_MENDED;
        Check::note(
            name,
            format!("the app writes with SQLite {version}, in which a checkpoint can corrupt the database"),
        )
        .hint(format!("update the app's SQLite to {mended} or newer"))
    })
}

fn directory(name: String, state: Result<Option<Peek>>) -> Check {
    match state {
        Ok(None) => Check::ok(name, "none yet"),
        Ok(Some(peek)) if peek.locked => Check::ok(name, "held by a running watch"),
        Ok(Some(peek)) => match peek.damage.first() {
            Some(damage) => Check::note(name, format!("damaged: {damage}"))
                .hint("watch goes on by a rebase; nothing to do unless it comes again"),
            None if peek.spool.is_empty() => Check::ok(name, "free"),
            None => Check::note(
                name,
                format!("{} file(s) wait for the bucket", peek.spool.len()),
            )
            .hint("start watch: it stores them"),
        },
        Err(error) => {
            let mut check = Check::failed_because(name, &error);
            if let Some(object) = error.object() {
                check.message = format!("{object}: {}", check.message);
            }
            check.hint("give the state directory to the user that runs watch")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SyncSettings;

    fn header() -> Header {
        Header {
            wal_mode: true,
            bytes: 4096,
            sqlite_version: None,
        }
    }

    fn good() -> Facts {
        Facts {
            header: Ok(header()),
            local: Ok(()),
            writable: Ok(()),
            ownership: Ok(()),
        }
    }

    fn app(allow_network_fs: bool) -> ResolvedDatabase {
        ResolvedDatabase {
            retention: crate::config::RetentionPolicy::default(),
            path: "/data/app.db".into(),
            name: "app.db".parse().unwrap(),
            optional: false,
            paused: false,
            adopt_at: None,
            matched: false,
            sync: SyncSettings {
                allow_network_fs,
                ..SyncSettings::default()
            },
        }
    }

    fn refused() -> Result<()> {
        Err(Error::new(ErrorKind::Denied, "not so").hint("do so"))
    }

    /// What failed, of facts that the machine of a test cannot have: another owner, a network.
    fn failed(facts: Facts, allow_network_fs: bool) -> Vec<String> {
        let checks = judge(&app(allow_network_fs), Ok(facts), Ok(None));
        let failed = checks.into_iter().filter(|check| !check.ok);
        failed
            .map(|check| {
                assert_eq!(check.hint.as_deref(), Some("do so"));
                check.name
            })
            .collect()
    }

    #[test]
    fn each_refusal_of_attaching_fails_its_own_check() {
        assert_eq!(failed(good(), false), [""; 0]);
        let network = || Facts {
            local: refused(),
            ..good()
        };
        assert_eq!(failed(network(), false), ["app.db volume"]);
        assert_eq!(failed(network(), true), [""; 0]);
        let writable = Facts {
            writable: refused(),
            ..good()
        };
        assert_eq!(failed(writable, false), ["app.db writable"]);
        let ownership = Facts {
            ownership: refused(),
            ..good()
        };
        assert_eq!(failed(ownership, false), ["app.db owner"]);
    }

    #[test]
    fn an_application_with_an_old_sqlite_is_told() {
        let old = |version| {
            let sqlite_version = Some(SqliteVersion(version));
            let header = Header {
                sqlite_version,
                ..header()
            };
            old_library("library".to_owned(), header)
        };
        assert!(old(3_040_001).unwrap().message.contains("3.40.1"));
        assert_eq!(old(3_051_003), None);
    }
}
