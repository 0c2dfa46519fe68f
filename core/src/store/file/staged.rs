//! A file on its way to its place.

use std::fs::{File, FileTimes, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tracing::debug;
use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, ErrorKind, Result};
use crate::fs::sync_directory;
use crate::store::{Condition, ETag, Put};
use crate::types::Timestamp;

use super::paths::Paths;
use super::read;

/// A temporary file, locked for as long as its writer lives and removed when dropped.
pub(super) struct Staged {
    file: File,
    path: PathBuf,
    length: u64,
    hash: Xxh3,
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Staged({}, {} bytes)", self.path.display(), self.length)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already where it was renamed; what stays, the next start removes.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Staged {
    /// An empty temporary file. Errors: `Unavailable` where the root is gone.
    pub(super) fn create(paths: &Paths) -> Result<Self> {
        let folder = paths.temporary();
        let fail = |error| paths.missing(Error::io(folder.display(), error));
        match std::fs::DirBuilder::new().mode(0o750).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(error)),
            Ok(()) | Err(_) => {}
        }
        let path = folder.join(format!(
            "{:x}-{:016x}",
            std::process::id(),
            fastrand::u64(..)
        ));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&path)
            .map_err(fail)?;
        let staged = Self {
            file,
            path,
            length: 0,
            hash: Xxh3::new(),
        };
        // Marks the writer as alive. A file system without locks cleans up by age alone.
        let _ = staged.file.try_lock();
        Ok(staged)
    }

    /// Writes behind what was written; after an error the same bytes may come again.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, self.length)
            .map_err(|error| self.error(error))?;
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Brings the file to `target`, durably, and gives its version, or nothing where the condition does
    /// not hold.
    pub(super) fn publish(
        &mut self,
        paths: &Paths,
        target: &Path,
        how: &Put,
    ) -> Result<Option<ETag>> {
        if let Some(created) = how.created {
            let times = FileTimes::new().set_modified(system_time(created));
            self.file
                .set_times(times)
                .map_err(|error| self.error(error))?;
        }
        self.file.sync_all().map_err(|error| self.error(error))?;
        paths.make_folders(target)?;
        if !self.place(paths, target, &how.condition)? {
            return Ok(None);
        }
        sync_directory(crate::fs::parent(target))
            .map_err(|error| Error::io(target.display(), error))?;
        Ok(Some(read::etag(self.hash.digest128(), self.length)))
    }

    /// Whether the condition held and the file is in its place.
    fn place(&self, paths: &Paths, target: &Path, condition: &Condition) -> Result<bool> {
        match condition {
            Condition::IfAbsent => self.link(paths, target),
            Condition::Always => {
                let _lock = paths.lock()?;
                self.rename(target).map(|()| true)
            }
            Condition::IfMatch(expected) => {
                let _lock = paths.lock()?;
                if read::etag_of(target)?.as_ref() != Some(expected) {
                    return Ok(false);
                }
                self.rename(target).map(|()| true)
            }
        }
    }

    fn rename(&self, target: &Path) -> Result<()> {
        std::fs::rename(&self.path, target).map_err(|error| Error::io(target.display(), error))
    }

    /// Creates `target`, never replaces it: a hard link, else a rename that refuses, else (FUSE, old
    /// kernels) a look under the lock.
    fn link(&self, paths: &Paths, target: &Path) -> Result<bool> {
        let taken = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
        match std::fs::hard_link(&self.path, target) {
            Ok(()) => return Ok(true),
            Err(error) if taken(&error) => return refuse_folder(target),
            Err(error) if !lacks_feature(&error) => return Err(Error::io(target.display(), error)),
            Err(_) => {}
        }
        let renamed = renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE);
        match renamed.map_err(io::Error::from) {
            Ok(()) => return Ok(true),
            Err(error) if taken(&error) => return refuse_folder(target),
            Err(error) if !lacks_feature(&error) => return Err(Error::io(target.display(), error)),
            Err(_) => {}
        }
        let _lock = paths.lock()?;
        match target.try_exists() {
            Ok(true) => refuse_folder(target),
            Ok(false) => self.rename(target).map(|()| true),
            Err(error) => Err(Error::io(target.display(), error)),
        }
    }

    fn error(&self, error: io::Error) -> Error {
        Error::io(self.path.display(), error)
    }
}

/// An object in the way is a refusal, a folder in the way an error: a directory cannot hold both `a` and
/// `a/b`.
fn refuse_folder(target: &Path) -> Result<bool> {
    if target.is_dir() {
        return Err(Error::new(
            ErrorKind::Exists,
            "a folder stands where the object would be",
        )
        .on(target.display()));
    }
    Ok(false)
}

/// Whether the file system cannot do this at all.
fn lacks_feature(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    [
        Errno::PERM,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
        Errno::INVAL,
        Errno::MLINK,
    ]
    .into_iter()
    .any(is)
}

fn system_time(time: Timestamp) -> SystemTime {
    let distance = Duration::from_millis(time.millis().unsigned_abs());
    let moved = if time.millis() < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moved.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Removes temporary files whose writers are gone: nobody holds their lock. What cannot be removed stays:
/// it costs space, nothing else.
pub(super) fn remove_abandoned(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let ours = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.contains('-'));
        if ours && is_abandoned(&path) && std::fs::remove_file(&path).is_ok() {
            debug!(path = %path.display(), "removed an abandoned temporary file");
        }
    }
}

/// A writer locks its file right after making it; the age covers that instant, and file systems without
/// locks.
fn is_abandoned(path: &Path) -> bool {
    const YOUNG: Duration = Duration::from_secs(60);
    let Ok(file) = File::open(path) else {
        return false;
    };
    // The file's own clock, from when its status last changed: its modification time may have been set.
    let age = read::changed_at(&file).and_then(|then| then.elapsed().ok());
    age.is_some_and(|age| age > YOUNG) && file.try_lock().is_ok()
}
