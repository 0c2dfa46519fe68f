//! The output: made beside its place under another name, and put there only when it is proved (R76, R77).

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::process::{Flock, FlockType, fcntl_getlk};
use tempfile::TempPath;

use crate::error::{Error, ErrorKind, Result};
use crate::fs::{parent, sync_directory, with_suffix};

/// What to do where a database stands at the output already.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Overwrite {
    /// Refuse.
    #[default]
    No,
    /// Replace it, unless somebody has it open.
    Yes,
}

/// SQLite's companions of a database: replayed over the file if they are left beside another.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// SQLite's locks: a page's worth at the first byte that no page uses. Source: SQLite, `os.h`.
const LOCK_START: u64 = 0x4000_0000;
const LOCK_LENGTH: u64 = 512;
/// The locks of the WAL index lie at bytes 120 to 128 of `-shm`. Source: SQLite, `wal.c`.
const SHM_LOCK_START: u64 = 120;
const SHM_LOCK_LENGTH: u64 = 9;

/// Where `output` leads: the file itself where it is a symbolic link to one, as SQLite sees it.
///
/// Errors: `Invalid` for a link to nothing.
pub(super) fn follow(output: &Path) -> Result<PathBuf> {
    match output.symlink_metadata() {
        Ok(metadata) if metadata.is_symlink() => output.canonicalize().map_err(|error| {
            let message = format!("a symbolic link that leads nowhere: {error}");
            Error::new(ErrorKind::Invalid, message).on(output.display())
        }),
        _ => Ok(output.to_owned()),
    }
}

pub(super) fn exists(path: &Path) -> Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(path.display(), error)),
    }
}

/// Refuses an output that cannot be written, before anything is fetched.
///
/// Errors: `Exists` for a database or a companion of one that may not be replaced, `Busy` for one that
/// somebody has open, `NotFound` for a missing directory, `Invalid` for a path that is no file.
pub(crate) fn check_output(output: &Path, overwrite: Overwrite) -> Result<()> {
    if output.file_name().is_none() || output.is_dir() {
        return Err(Error::new(ErrorKind::Invalid, "the output is not a file").on(output.display()));
    }
    let directory = parent(output);
    if !directory.is_dir() {
        let message = "the directory of the output is not there";
        return Err(Error::new(ErrorKind::NotFound, message).on(directory.display()));
    }
    if overwrite == Overwrite::Yes {
        return refuse_in_use(output);
    }
    if exists(output)? {
        let message = "a file is there already";
        return Err(Error::new(ErrorKind::Exists, message)
            .on(output.display())
            .hint("--force replaces it"));
    }
    for suffix in COMPANIONS {
        let companion = with_suffix(output, suffix);
        if exists(&companion)? {
            let message =
                "left over from another database, SQLite would apply it to the restored one";
            return Err(Error::new(ErrorKind::Exists, message)
                .on(companion.display())
                .hint("--force removes it"));
        }
    }
    Ok(())
}

/// Errors: `Busy` where another process holds a lock of SQLite on the database.
fn refuse_in_use(output: &Path) -> Result<()> {
    let database = held(output, LOCK_START, LOCK_LENGTH)?;
    let shm = with_suffix(output, "-shm");
    let index = held(&shm, SHM_LOCK_START, SHM_LOCK_LENGTH)?;
    if database || index {
        let message = "a process has the database open";
        return Err(Error::new(ErrorKind::Busy, message)
            .on(output.display())
            .hint("stop it first"));
    }
    Ok(())
}

fn held(path: &Path, start: u64, length: u64) -> Result<bool> {
    // A restore has no connection of its own to this file, so closing it gives up no lock of ours
    // (invariant 10).
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::io(path.display(), error)),
    };
    let lock = Flock {
        start,
        length,
        ..Flock::from(FlockType::WriteLock)
    };
    match fcntl_getlk(&file, &lock) {
        Ok(holder) => Ok(holder.is_some()),
        Err(error) => Err(Error::io(path.display(), error.into())),
    }
}

/// A database file that is not yet at its place. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Staged {
    path: TempPath,
    output: PathBuf,
}

impl Staged {
    /// A new empty file in `directory`, mode 0600, that is to be put at `output` in the same file system.
    pub(super) fn create(directory: &Path, output: &Path) -> Result<(Self, File)> {
        let staged = tempfile::Builder::new()
            .prefix(".walrust-restore-")
            .tempfile_in(directory)
            .map_err(|error| Error::io(directory.display(), error))?;
        let (file, path) = staged.into_parts();
        let output = output.to_owned();
        Ok((Self { path, output }, file))
    }

    /// Where the file is now.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file for whoever puts it into its place otherwise; dropping it removes it.
    pub(super) fn into_path(self) -> TempPath {
        self.path
    }

    /// Puts the file, which is synced, at its place, and removes what SQLite would apply to it. After an
    /// error the output is as it was. `file` must be the staged one.
    pub(super) fn publish(self, overwrite: Overwrite) -> Result<()> {
        // Somebody may have come since the first look.
        check_output(&self.output, overwrite)?;
        let parked = Parked::park(&self.output)?;
        let Self { path, output } = self;
        let moved = match overwrite {
            Overwrite::Yes => path.persist(&output),
            Overwrite::No => path.persist_noclobber(&output),
        };
        if let Err(error) = moved {
            parked.put_back();
            return Err(Error::io(output.display(), error.error));
        }
        parked.remove();
        let directory = parent(&output);
        sync_directory(directory).map_err(|error| Error::io(directory.display(), error))
    }
}

/// Companions of the old database, moved out of SQLite's sight: neither lost if the replacement fails,
/// nor found beside the new file.
struct Parked(Vec<(PathBuf, PathBuf)>);

impl Parked {
    fn park(output: &Path) -> Result<Self> {
        let mut parked = Self(Vec::new());
        for suffix in COMPANIONS {
            let from = with_suffix(output, suffix);
            if !exists(&from)? {
                continue;
            }
            let to = with_suffix(output, &format!("{suffix}.walrust-replaced"));
            if let Err(error) = std::fs::rename(&from, &to) {
                parked.put_back();
                return Err(Error::io(from.display(), error));
            }
            parked.0.push((from, to));
        }
        Ok(parked)
    }

    fn put_back(self) {
        for (from, to) in self.0 {
            if let Err(error) = std::fs::rename(&to, &from) {
                tracing::error!(path = %from.display(), %error, "a file was not put back; it lies beside with the ending .walrust-replaced");
            }
        }
    }

    fn remove(self) {
        for (_, to) in self.0 {
            if let Err(error) = std::fs::remove_file(&to) {
                tracing::warn!(path = %to.display(), %error, "a file of the replaced database was not removed");
            }
        }
    }
}
