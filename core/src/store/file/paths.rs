//! From keys to paths, and never out of the root.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};
use crate::fs::sync_directory;

/// The folder of temporary files and of the lock, in the root, so that links into place stay on one file
/// system.
pub(super) const TEMPORARY: &str = ".walrust-tmp";

/// Directories and files are for us and our group.
const DIRECTORY_MODE: u32 = 0o750;

/// File systems end names here.
const LONGEST_NAME: usize = 255;

/// A writer holds the lock for one comparison and one rename.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Paths {
    root: PathBuf,
}

/// Whether the error says that there is no such object.
pub(super) fn means_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

impl Paths {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.root.join(TEMPORARY)
    }

    /// The path of an object. Errors: `Invalid` for a key that is no path below the root.
    pub(super) fn object(&self, key: &str) -> Result<PathBuf> {
        check_key(key)
            .map_err(|message| Error::new(ErrorKind::Invalid, message).on(format!("{key:?}")))?;
        Ok(self.root.join(key))
    }

    /// The path of a folder; `folder` is empty or ends in `/`.
    pub(super) fn folder(&self, folder: &str) -> Result<PathBuf> {
        match folder.strip_suffix('/') {
            None => Ok(self.root.clone()),
            Some(key) => self.object(key),
        }
    }

    /// Makes the directories above `target`, durably, but not the root: a root that is gone is a file
    /// system that is not mounted.
    pub(super) fn make_folders(&self, target: &Path) -> Result<()> {
        let folder = crate::fs::parent(target);
        if folder.is_dir() {
            return Ok(());
        }
        let below = folder.strip_prefix(&self.root).unwrap_or(Path::new(""));
        let mut path = self.root.clone();
        for part in below {
            path.push(part);
            match DirBuilder::new().mode(DIRECTORY_MODE).create(&path) {
                Ok(()) => sync_directory(crate::fs::parent(&path))
                    .map_err(|error| Error::io(path.display(), error))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(self.missing(Error::io(path.display(), error))),
            }
        }
        Ok(())
    }

    /// A root that is gone is no absent object: the disk will be back.
    pub(super) fn missing(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::NotFound && !self.root.is_dir() {
            Error::new(
                ErrorKind::Unavailable,
                "the directory of the backups is gone",
            )
            .on(self.root.display())
            .hint("is its file system mounted?")
        } else {
            error
        }
    }

    /// The lock under which one version replaces another; unlocked by dropping the file.
    pub(super) fn lock(&self) -> Result<File> {
        let path = self.temporary().join("lock");
        let fail = |error| Error::io(path.display(), error);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o660)
            .open(&path);
        let file = file.map_err(fail)?;
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if started.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::new(ErrorKind::Busy, "another writer holds the lock")
                        .on(path.display()));
                }
                Err(TryLockError::Error(error)) => return Err(fail(error)),
            }
        }
    }
}

/// A key is a relative path of plain names.
fn check_key(key: &str) -> std::result::Result<(), &'static str> {
    if key.contains('\0') {
        return Err("a key has no NUL");
    }
    if key.split('/').next() == Some(TEMPORARY) {
        return Err("this folder is for temporary files");
    }
    for name in key.split('/') {
        match name {
            "" => return Err("a key has no empty component"),
            "." | ".." => return Err("a key has no component \".\" or \"..\""),
            name if name.len() > LONGEST_NAME => {
                return Err("a component of a key has at most 255 bytes");
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x4_no_key_leads_out_of_the_root() {
        let paths = Paths::new("/srv/backups".into());
        for key in ["app.db/0000/x.ltx", "a b/#1 ü/lease.json", ".hidden", "..."] {
            assert_eq!(
                paths.object(key).unwrap(),
                Path::new("/srv/backups").join(key)
            );
        }
        let long = "x".repeat(256);
        for key in [
            "",
            "/",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a/..",
            ".",
            "a//b",
            "a/",
            "a\0b",
            ".walrust-tmp/lock",
            ".walrust-tmp",
            long.as_str(),
        ] {
            assert_eq!(
                paths.object(key).unwrap_err().kind(),
                ErrorKind::Invalid,
                "{key}"
            );
        }
    }
}
