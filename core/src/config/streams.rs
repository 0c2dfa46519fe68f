//! Which streams of the bucket a configuration means, without looking at local files: for commands that
//! run where the databases are not.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{Entry, File, RetentionLayer};
use crate::error::{Error, ErrorKind, Result};
use crate::state::database_of_state;
use crate::types::DatabaseName;

/// A database in the bucket and the file that it is of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stream {
    /// Its name in the bucket.
    pub name: DatabaseName,
    /// Its file.
    pub path: PathBuf,
    /// What its entry overrides of `[retention]`.
    pub retention: RetentionLayer,
}

/// Whether some entry is a pattern, so that [`of`] needs the names that the bucket holds.
pub fn has_pattern(file: &File) -> bool {
    file.databases.iter().any(|entry| pattern(entry).is_some())
}

/// `file` without the patterns whose directories hold a match, or what we keep beside one: an application that
/// deleted one of many databases does not want it back. For restores of what is missing.
///
/// # Errors
/// A directory that cannot be read, which is no empty one; Invalid for what is no pattern.
pub fn without_used_patterns(file: &File) -> Result<File> {
    let mut file = file.clone();
    let mut unused = Vec::with_capacity(file.databases.len());
    for entry in std::mem::take(&mut file.databases) {
        let used = match pattern(&entry) {
            Some(text) => is_used(&entry.path, &text)?,
            None => false,
        };
        if !used {
            unused.push(entry);
        }
    }
    file.databases = unused;
    Ok(file)
}

fn is_used(path: &Path, text: &str) -> Result<bool> {
    let pattern = super::databases::glob_pattern(text, path)?;
    let directory = crate::fs::parent(path);
    let failed = |error| Error::io(directory.display(), error);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy();
        let database = database_of_state(&name).unwrap_or(&name);
        if super::databases::is_match(&pattern, database) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// As [`of`], each with the place of its replica.
///
/// # Errors
/// As [`of`].
pub fn replicas(file: &File, stored: &[DatabaseName]) -> Result<Vec<Stream>> {
    of_placed(file, stored, |entry| {
        entry.local.as_ref().unwrap_or(&entry.path)
    })
}

/// The streams of `file`: of each entry that names one file, and of each name in `stored` that a pattern
/// means.
///
/// # Errors
/// Invalid where two entries mean one stream or one file.
pub fn of(file: &File, stored: &[DatabaseName]) -> Result<Vec<Stream>> {
    of_placed(file, stored, |entry| &entry.path)
}

fn of_placed(
    file: &File,
    stored: &[DatabaseName],
    place: impl Fn(&Entry) -> &PathBuf,
) -> Result<Vec<Stream>> {
    let mut streams = Vec::new();
    for entry in &file.databases {
        match pattern(entry) {
            None => streams.push(Stream {
                name: match &entry.prefix {
                    Some(prefix) => prefix.clone(),
                    None => super::databases::own_name(&entry.path, None)?,
                },
                path: place(entry).clone(),
                retention: entry.retention,
            }),
            Some(text) => {
                let pattern = super::databases::glob_pattern(&text, &entry.path)?;
                streams.extend(stored.iter().filter_map(|name| {
                    let file_name = within(name, entry.prefix.as_ref())?;
                    super::databases::is_match(&pattern, file_name).then(|| Stream {
                        name: name.clone(),
                        path: place(entry).with_file_name(file_name),
                        retention: entry.retention,
                    })
                }));
            }
        }
    }
    refuse_doubles(&streams)?;
    Ok(streams)
}

/// The last part of an entry's path if it is a pattern: if it looks like one and no file is called so.
fn pattern(entry: &Entry) -> Option<String> {
    let text = entry.path.file_name()?.to_str()?;
    let is_pattern = super::databases::looks_like_pattern(text) && !entry.path.exists();
    is_pattern.then(|| text.to_owned())
}

/// The file name that a pattern's entry stored as `name`.
fn within<'n>(name: &'n DatabaseName, prefix: Option<&DatabaseName>) -> Option<&'n str> {
    let file_name = match prefix {
        Some(prefix) => name
            .as_str()
            .strip_prefix(prefix.as_str())?
            .strip_prefix('/')?,
        None => name.as_str(),
    };
    (!file_name.contains('/')).then_some(file_name)
}

fn refuse_doubles(streams: &[Stream]) -> Result<()> {
    let mut names: HashMap<&DatabaseName, &Path> = HashMap::new();
    let mut paths: HashMap<&Path, &DatabaseName> = HashMap::new();
    for Stream { name, path, .. } in streams {
        let shown = path.display();
        if let Some(other) = names.insert(name, path) {
            let message = format!(
                "{} and {shown} are both stored as `{name}`",
                other.display()
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        if let Some(other) = paths.insert(path, name) {
            let message = format!("{shown} is stored both as `{other}` and as `{name}`");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
    }
    Ok(())
}
