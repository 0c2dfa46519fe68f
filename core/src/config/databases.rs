//! Which files are meant, and what each is called in the bucket (R17 to R22).

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::retention::RetentionPolicy;
use super::settings::{ResolvedDatabase, SyncSettings, Unmatched};
use super::{Entry, File};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::parent;
use crate::types::DatabaseName;

/// The databases meant, and the patterns that mean none.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) databases: Vec<ResolvedDatabase>,
    pub(super) unmatched: Vec<Unmatched>,
}

/// A file that an entry or an argument means.
struct Candidate<'f> {
    path: PathBuf,
    name: DatabaseName,
    entry: Option<&'f Entry>,
    /// Whether a pattern matched it.
    matched: bool,
}

/// The databases of `named` or, where nothing is named, of the file. A named file that the
/// configuration also has is stored under the name that it has there: the same file always goes to the
/// same place.
pub(super) fn find(
    file: Option<&File>,
    named: &[PathBuf],
    settings: impl Fn(Option<&Entry>) -> Result<(SyncSettings, RetentionPolicy)>,
) -> Result<Found> {
    let mut found = Found::default();
    let candidates = match named {
        [] => configured(file, &mut found.unmatched)?,
        named => arguments(file, named, &mut found.unmatched)?,
    };
    refuse_doubles(&candidates)?;
    let resolved = candidates.into_iter().map(|candidate| {
        let (sync, retention) =
            settings(candidate.entry).map_err(|error| error.on(candidate.path.display()))?;
        Ok(ResolvedDatabase {
            sync,
            retention,
            optional: candidate.entry.is_some_and(|entry| entry.optional),
            // Who names a database on the command line wants it now.
            paused: named.is_empty() && candidate.entry.is_some_and(|entry| entry.paused),
            adopt_at: candidate.entry.and_then(|entry| entry.adopt_at),
            matched: candidate.matched,
            path: candidate.path,
            name: candidate.name,
        })
    });
    found.databases = resolved.collect::<Result<_>>()?;
    Ok(found)
}

fn configured<'f>(
    file: Option<&'f File>,
    unmatched: &mut Vec<Unmatched>,
) -> Result<Vec<Candidate<'f>>> {
    let mut candidates = Vec::new();
    let Some(file) = file else {
        return Ok(candidates);
    };
    for entry in &file.databases {
        let at_entry = |error: Error| at_place(&error, file, entry);
        match expand(&entry.path).map_err(at_entry)? {
            Expansion::File => candidates.push(Candidate {
                path: entry.path.clone(),
                name: match &entry.prefix {
                    Some(prefix) => prefix.clone(),
                    None => own_name(&entry.path, None).map_err(at_entry)?,
                },
                entry: Some(entry),
                matched: false,
            }),
            Expansion::Matches(paths) => {
                for path in paths {
                    let name = own_name(&path, entry.prefix.as_ref()).map_err(at_entry)?;
                    candidates.push(Candidate {
                        path,
                        name,
                        entry: Some(entry),
                        matched: true,
                    });
                }
            }
            Expansion::Nothing(message) => unmatched.push(Unmatched {
                pattern: entry.path.clone(),
                optional: entry.optional,
                message,
            }),
        }
    }
    Ok(candidates)
}

/// `error` with the place in the file that led to it.
fn at_place(error: &Error, file: &File, entry: &Entry) -> Error {
    let message = match error.object() {
        Some(object) => format!("{object}: {}", error.message()),
        None => error.message().to_owned(),
    };
    let place = format!("{}:{}", file.path.display(), entry.place);
    let placed = Error::new(error.kind(), message).on(place);
    match error.next_step() {
        Some(hint) => placed.hint(hint),
        None => placed,
    }
}

fn arguments<'f>(
    file: Option<&'f File>,
    named: &[PathBuf],
    unmatched: &mut Vec<Unmatched>,
) -> Result<Vec<Candidate<'f>>> {
    // Faults of entries that nobody asked for must not keep this database from being backed up.
    let known = configured(file, &mut Vec::new()).unwrap_or_default();
    let known: HashMap<Identity, Candidate<'f>> = known
        .into_iter()
        .map(|candidate| (Identity::of(&candidate.path), candidate))
        .collect();
    let mut candidates = Vec::new();
    for argument in named {
        let (paths, matched) = match expand(argument)? {
            Expansion::File => (vec![argument.clone()], false),
            Expansion::Matches(paths) => (paths, true),
            Expansion::Nothing(message) => {
                unmatched.push(Unmatched {
                    pattern: argument.clone(),
                    optional: false,
                    message,
                });
                continue;
            }
        };
        for path in paths {
            let candidate = match known.get(&Identity::of(&path)) {
                Some(known) => Candidate {
                    path,
                    name: known.name.clone(),
                    entry: known.entry,
                    matched,
                },
                None => Candidate {
                    name: own_name(&path, None)?,
                    path,
                    entry: None,
                    matched,
                },
            };
            candidates.push(candidate);
        }
    }
    Ok(candidates)
}

/// The file's name, extension included, behind `prefix` where there is one.
pub(super) fn own_name(path: &Path, prefix: Option<&DatabaseName>) -> Result<DatabaseName> {
    let invalid = |message: String| {
        Error::new(ErrorKind::Invalid, message)
            .on(path.display())
            .hint("`prefix` in [[databases]] gives it another name")
    };
    let Some(file_name) = path.file_name() else {
        return Err(Error::new(ErrorKind::Invalid, "does not name a file").on(path.display()));
    };
    let Some(file_name) = file_name.to_str() else {
        return Err(invalid("the file's name is not UTF-8".to_owned()));
    };
    let name = match prefix {
        Some(prefix) => format!("{prefix}/{file_name}"),
        None => file_name.to_owned(),
    };
    name.parse().map_err(|error| invalid(format!("{error}")))
}

enum Expansion {
    /// The path itself, whether it exists or not.
    File,
    /// The files that a pattern matches, sorted; at least one.
    Matches(Vec<PathBuf>),
    /// Why a pattern matches no file.
    Nothing(String),
}

fn expand(path: &Path) -> Result<Expansion> {
    let Some(file_name) = path.file_name() else {
        return Err(Error::new(ErrorKind::Invalid, "does not name a file").on(path.display()));
    };
    // A file may be called like a pattern: then it is meant.
    let is_pattern = file_name.to_str().is_some_and(looks_like_pattern);
    if std::fs::symlink_metadata(path).is_ok() {
        return Ok(Expansion::File);
    }
    let directory = parent(path);
    if directory.to_string_lossy().contains(['*', '?']) && !directory.exists() {
        let message = "a pattern may stand in the last part only";
        return Err(Error::new(ErrorKind::Invalid, message).on(path.display()));
    }
    if !is_pattern {
        return Ok(Expansion::File);
    }
    let pattern = glob_pattern(&file_name.to_string_lossy(), path)?;
    Ok(match matching(directory, path, &pattern) {
        Ok(paths) if paths.is_empty() => Expansion::Nothing("no file matches".to_owned()),
        Ok(paths) => Expansion::Matches(paths),
        Err(error) => Expansion::Nothing(error.to_string()),
    })
}

/// Whether a file name may be a pattern.
pub(super) fn looks_like_pattern(file_name: &str) -> bool {
    file_name.contains(['*', '?', '['])
}

/// `text`, the last part of `path`, as a pattern.
pub(super) fn glob_pattern(text: &str, path: &Path) -> Result<glob::Pattern> {
    glob::Pattern::new(text).map_err(|error| {
        let message = format!("not a pattern: {}", error.msg);
        Error::new(ErrorKind::Invalid, message).on(path.display())
    })
}

/// Whether `pattern` means a database of this file name. A pattern that ends in `*` also matches what
/// SQLite and walrust keep beside a database; that is never meant, nor are hidden files.
pub(super) fn is_match(pattern: &glob::Pattern, file_name: &str) -> bool {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let is_companion = ["-wal", "-shm", "-journal", "-replica-state"]
        .iter()
        .any(|suffix| file_name.ends_with(suffix));
    !is_companion && pattern.matches_with(file_name, options)
}

fn matching(
    directory: &Path,
    path: &Path,
    pattern: &glob::Pattern,
) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let matched = path.with_file_name(&name);
        if is_match(pattern, &name.to_string_lossy()) && matched.is_file() {
            paths.push(matched);
        }
    }
    paths.sort();
    Ok(paths)
}

/// What makes two paths the same file.
#[derive(PartialEq, Eq, Hash)]
enum Identity {
    /// Links to one file lead here, symbolic or hard.
    Inode { device: u64, inode: u64 },
    /// A file that is not there yet, by the place where it would be.
    Place(PathBuf),
}

impl Identity {
    fn of(path: &Path) -> Self {
        if let Ok(metadata) = std::fs::metadata(path) {
            return Self::Inode {
                device: metadata.dev(),
                inode: metadata.ino(),
            };
        }
        let directory = parent(path);
        let directory = std::fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned());
        Self::Place(directory.join(path.file_name().unwrap_or_default()))
    }
}

/// Two databases in one place of the bucket would overwrite each other; one file in two places would
/// have two histories (R19).
fn refuse_doubles(candidates: &[Candidate<'_>]) -> Result<()> {
    let mut files: HashMap<Identity, &Path> = HashMap::new();
    let mut names: HashMap<&DatabaseName, &Path> = HashMap::new();
    for Candidate { path, name, .. } in candidates {
        if let Some(other) = files.insert(Identity::of(path), path) {
            let (path, other) = (path.display(), other.display());
            let message = format!("{other} and {path} are the same file");
            return Err(Error::new(ErrorKind::Invalid, message).hint("name it once"));
        }
        if let Some(other) = names.insert(name, path) {
            let (path, other) = (path.display(), other.display());
            let message = format!("{other} and {path} would both be stored as `{name}`");
            return Err(
                Error::new(ErrorKind::Invalid, message).hint("give one of them another `prefix`")
            );
        }
    }
    Ok(())
}
