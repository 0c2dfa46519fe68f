//! Reading objects and listing them in the order of keys.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::error::{Error, ErrorKind, Result};
use crate::store::{ETag, Object, ObjectMeta, PAGE};
use crate::types::Timestamp;

use super::paths::{Paths, TEMPORARY, means_absent};

/// `head` reads objects up to this size to name their version: leases and manifests, whose versions
/// matter.
const HASHED: u64 = 1 << 20;

/// The version of a content.
pub(super) fn etag(hash: u128, length: u64) -> ETag {
    ETag::new(format!("{hash:032x}-{length:x}"))
}

/// The version of the file at `path`, or nothing where there is none.
pub(super) fn etag_of(path: &Path) -> Result<Option<ETag>> {
    let fail = |error| Error::io(path.display(), error);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if means_absent(&error) => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let (mut hash, mut length, mut buffer) = (Xxh3::new(), 0, vec![0; 64 << 10]);
    loop {
        let count = file.read(&mut buffer).map_err(fail)?;
        if count == 0 {
            return Ok(Some(etag(hash.digest128(), length)));
        }
        hash.update(&buffer[..count]);
        length += count as u64;
    }
}

/// When the file came to its place: linking changes the status, and nobody can set that time.
fn modified(meta: &Metadata) -> Timestamp {
    let seconds = meta.ctime().saturating_mul(1000);
    Timestamp::from_millis(seconds.saturating_add(meta.ctime_nsec() / 1_000_000))
}

pub(super) fn changed_at(file: &File) -> Option<SystemTime> {
    let millis = u64::try_from(modified(&file.metadata().ok()?).millis()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

fn created(meta: &Metadata) -> Timestamp {
    let seconds = meta.mtime().saturating_mul(1000);
    Timestamp::from_millis(seconds.saturating_add(meta.mtime_nsec() / 1_000_000))
}

fn describe(key: &str, meta: &Metadata, etag: Option<ETag>) -> ObjectMeta {
    ObjectMeta {
        key: key.to_owned(),
        size: meta.len(),
        etag,
        modified: modified(meta),
        created: Some(created(meta)),
    }
}

/// Opens an object; folders are none.
fn open(paths: &Paths, key: &str) -> Result<Option<(File, Metadata)>> {
    let path = paths.object(key)?;
    let absent = || {
        let error = Error::new(ErrorKind::NotFound, "no such object").on(key);
        match paths.missing(error) {
            error if error.kind() == ErrorKind::NotFound => Ok(None),
            error => Err(error),
        }
    };
    let opened = File::open(&path).and_then(|file| file.metadata().map(|meta| (file, meta)));
    match opened {
        Ok((file, meta)) if meta.is_file() => Ok(Some((file, meta))),
        Ok(_) => Ok(None),
        Err(error) if means_absent(&error) => absent(),
        Err(error) => Err(Error::io(key, error)),
    }
}

/// The object's bytes, or those of `range`; without a date.
pub(super) fn object(paths: &Paths, key: &str, range: Option<Range<u64>>) -> Result<Object> {
    let not_found = || Error::new(ErrorKind::NotFound, "no such object").on(key);
    let (file, meta) = open(paths, key)?.ok_or_else(not_found)?;
    let whole = range.is_none();
    let range = range.unwrap_or(0..meta.len());
    let end = range.end.min(meta.len());
    if !whole && range.start >= end {
        let message = format!(
            "bytes {}..{} of {}: nothing there",
            range.start,
            range.end,
            meta.len()
        );
        return Err(Error::new(ErrorKind::Invalid, message).on(key));
    }
    let length = usize::try_from(end - range.start).map_err(|error| {
        Error::new(ErrorKind::Invalid, "more bytes than memory")
            .on(key)
            .because(error)
    })?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, range.start)
        .map_err(|error| Error::io(key, error))?;
    let etag = whole.then(|| etag(xxh3_128(&bytes), meta.len()));
    Ok(Object {
        meta: describe(key, &meta, etag),
        bytes: Bytes::from(bytes),
        date: None,
    })
}

pub(super) fn meta(paths: &Paths, key: &str) -> Result<Option<ObjectMeta>> {
    let Some((_, meta)) = open(paths, key)? else {
        return Ok(None);
    };
    let etag = if meta.len() <= HASHED {
        etag_of(&paths.object(key)?)?
    } else {
        None
    };
    Ok(Some(describe(key, &meta, etag)))
}

/// At most [`PAGE`] objects, and whether there are more.
pub(super) fn list(
    paths: &Paths,
    prefix: &str,
    after: Option<&str>,
) -> Result<(Vec<ObjectMeta>, bool)> {
    let folder = prefix
        .rsplit_once('/')
        .map_or("", |(folder, _)| &prefix[..=folder.len()]);
    let query = Query {
        prefix,
        after,
        most: PAGE + 1,
    };
    let mut found = Vec::new();
    query
        .walk(&paths.folder(folder)?, folder, &mut found)
        .map_err(|error| paths.missing(error))?;
    if found.is_empty() && !paths.root().is_dir() {
        return Err(paths.missing(Error::new(ErrorKind::NotFound, "no such directory")));
    }
    let more = found.len() > PAGE;
    found.truncate(PAGE);
    Ok((found, more))
}

/// Folders directly below `prefix` that hold at least one object.
pub(super) fn folders(paths: &Paths, prefix: &str) -> Result<Vec<String>> {
    let folder = paths.folder(prefix)?;
    let mut folders = Vec::new();
    for name in names(&folder, prefix)? {
        if !name.ends_with('/') {
            continue;
        }
        let key = format!("{prefix}{name}");
        let query = Query {
            prefix: &key,
            after: None,
            most: 1,
        };
        let mut found = Vec::new();
        query.walk(&folder.join(&name), &key, &mut found)?;
        if !found.is_empty() {
            folders.push(key);
        }
    }
    if folders.is_empty() && !paths.root().is_dir() {
        return Err(paths.missing(Error::new(ErrorKind::NotFound, "no such directory")));
    }
    Ok(folders)
}

struct Query<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    most: usize,
}

impl Query<'_> {
    /// Adds the objects below `path`, whose key is `folder` (empty or ending in `/`), in order.
    fn walk(&self, path: &Path, folder: &str, found: &mut Vec<ObjectMeta>) -> Result<()> {
        for name in names(path, folder)? {
            if found.len() >= self.most {
                return Ok(());
            }
            let key = format!("{folder}{name}");
            if name.ends_with('/') {
                if self.may_hold(&key) {
                    self.walk(&path.join(&name), &key, found)?;
                }
            } else if key.starts_with(self.prefix)
                && self.after.is_none_or(|after| key.as_str() > after)
            {
                match std::fs::symlink_metadata(path.join(&name)) {
                    Ok(meta) => found.push(describe(&key, &meta, None)),
                    Err(error) if means_absent(&error) => {}
                    Err(error) => return Err(Error::io(key, error)),
                }
            }
        }
        Ok(())
    }

    /// Whether keys that begin with `folder` can be among those asked for.
    fn may_hold(&self, folder: &str) -> bool {
        let within = folder.starts_with(self.prefix) || self.prefix.starts_with(folder);
        within
            && self
                .after
                .is_none_or(|after| folder > after || after.starts_with(folder))
    }
}

/// The names in a directory in the order of their keys: a folder's ends in `/`, which sorts it among
/// files as its content sorts. What is neither file nor folder, or no UTF-8, is not ours.
fn names(path: &Path, folder: &str) -> Result<Vec<String>> {
    let fail = |error: io::Error| Error::io(path.display(), error);
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if means_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let kind = entry.file_type().map_err(fail)?;
        let Ok(mut name) = entry.file_name().into_string() else {
            continue;
        };
        if folder.is_empty() && name == TEMPORARY {
            continue;
        }
        if kind.is_dir() {
            name.push('/');
        } else if !kind.is_file() {
            continue;
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}
