//! One directory of ours, reached through its descriptor: no name in it is ever followed as a symlink,
//! and nobody but its owner can read what we put there (X5).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatVfs};

use super::staged::UNFINISHED;
use crate::error::{Error, ErrorKind, Result};

const DIRECTORY_MODE: Mode = Mode::RWXU;
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);

/// Content that is not what we wrote: reported, and treated as absent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The file, relative to the state directory.
    pub file: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Damage {
    pub(super) fn new(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            problem: problem.into(),
        }
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.problem)
    }
}

/// An open directory, mode 0700, owned by us.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens the directory at `path`; it must exist. Only the last component may not be a symlink: the
    /// way there is the user's own.
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::open_at(CWD, path, path.to_owned())
    }

    /// Opens the directory at `path`, made first where nothing is.
    pub(super) fn create(path: &Path) -> Result<Self> {
        Self::create_at(CWD, path, path.to_owned())
    }

    /// Opens or makes the directory `name` in this one.
    pub(super) fn sub(&self, name: &str) -> Result<Self> {
        Self::create_at(self.fd.as_fd(), Path::new(name), self.path.join(name))
    }

    fn create_at(at: BorrowedFd<'_>, name: &Path, path: PathBuf) -> Result<Self> {
        match rustix::fs::mkdirat(at, name, DIRECTORY_MODE) {
            Ok(()) => {
                let parent = rustix::fs::openat(
                    at,
                    crate::fs::parent(name),
                    OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
                    Mode::empty(),
                );
                parent
                    .and_then(rustix::fs::fsync)
                    .map_err(|error| Error::io(path.display(), error.into()))?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(Error::io(path.display(), error.into())),
        }
        let folder = Self::open_at(at, name, path)?;
        folder.close_to_others()?;
        Ok(folder)
    }

    fn open_at(at: BorrowedFd<'_>, name: &Path, path: PathBuf) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        match rustix::fs::openat(at, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => Err(Error::new(
                ErrorKind::Denied,
                "is a symlink or a file where walrust keeps its state directory",
            )
            .on(path.display())
            .hint("remove it, or move it away")),
            Err(error) => Err(Error::io(path.display(), error.into())),
        }
    }

    /// Refuses another user's directory and takes group and others their rights on ours.
    fn close_to_others(&self) -> Result<()> {
        let object = || self.path.display();
        let stat = rustix::fs::fstat(&self.fd).map_err(|e| Error::io(object(), e.into()))?;
        let us = rustix::process::geteuid();
        if !us.is_root() && stat.st_uid != us.as_raw() {
            return Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "belongs to user {}, we are user {}",
                    stat.st_uid,
                    us.as_raw()
                ),
            )
            .on(object())
            .hint("run walrust as the user who owns the database"));
        }
        if stat.st_mode & 0o077 != 0 {
            rustix::fs::fchmod(&self.fd, DIRECTORY_MODE)
                .map_err(|error| Error::io(object(), error.into()))?;
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The regular file `name` opened with `flags`, or nothing where nothing is. A symlink, a pipe, or a
    /// file with a second name somewhere else is refused: kind Corrupt.
    pub(super) fn file(&self, name: &str, flags: OFlags) -> Result<Option<File>> {
        // NONBLOCK: opening a pipe that somebody planted must not hang.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let object = || self.path_of(name).display().to_string();
        let foreign = |what: &str| Error::new(ErrorKind::Corrupt, what).on(object());
        let fd = match rustix::fs::openat(&self.fd, name, flags, FILE_MODE) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => return Err(foreign("is a symlink")),
            Err(rustix::io::Errno::NXIO | rustix::io::Errno::ISDIR) => {
                return Err(foreign("is not a regular file"));
            }
            Err(error) => return Err(Error::io(object(), error.into())),
        };
        let stat = rustix::fs::fstat(&fd).map_err(|error| Error::io(object(), error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink > 1 {
            return Err(foreign("is not a regular file of one name"));
        }
        Ok(Some(File::from(fd)))
    }

    /// The file `name` opened for reading and writing, made where it is absent. What is not a file of
    /// ours there is taken away first.
    pub(super) fn writable(&self, name: &str) -> Result<File> {
        match self.file(name, OFlags::RDWR) {
            Ok(Some(file)) => Ok(file),
            Ok(None) => self.fresh(name),
            Err(error) if error.kind() == ErrorKind::Corrupt => self.fresh(name),
            Err(error) => Err(error),
        }
    }

    /// A new, empty file `name` for reading and writing, in the place of whatever was there.
    pub(super) fn fresh(&self, name: &str) -> Result<File> {
        let object = || self.path_of(name).display().to_string();
        self.remove(name)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, FILE_MODE)
            .map(File::from)
            .map_err(|error| Error::io(object(), error.into()))
    }

    /// Removes the name, if it is there. Not durable by itself.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::io(self.path_of(name).display(), error.into())),
        }
    }

    /// Removes everything in this directory, directories too. Follows no symlink.
    pub(super) fn clear(&self) -> Result<()> {
        for name in self.names()? {
            match rustix::fs::unlinkat(&self.fd, &name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(rustix::io::Errno::ISDIR) => {
                    Self::open_at(self.fd(), Path::new(&name), self.path_of(&name))?.clear()?;
                    rustix::fs::unlinkat(&self.fd, &name, AtFlags::REMOVEDIR)
                        .map_err(|error| self.error(&name, error.into()))?;
                }
                Err(error) => return Err(self.error(&name, error.into())),
            }
        }
        Ok(())
    }

    /// Gives a file another name in this directory, in the place of what had it. Not durable by itself.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<()> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
            .map_err(|error| Error::io(self.path_of(to).display(), error.into()))
    }

    /// Makes the names durable.
    pub(super) fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.fd).map_err(|error| Error::io(self.path.display(), error.into()))
    }

    /// Replaces `name` by `bytes`: after a crash either the old or the new content is there, whole.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let staged = format!("{name}{UNFINISHED}");
        let written = self.fresh(&staged).and_then(|mut file| {
            let written = file.write_all(bytes).and_then(|()| file.sync_all());
            written.map_err(|error| self.error(&staged, error))
        });
        if let Err(error) = written {
            // The old content stands; a half-written copy would only take room on a full disk.
            let _ = self.remove(&staged);
            return Err(error);
        }
        self.rename(&staged, name)?;
        self.sync()
    }

    /// The names in the directory, sorted; those that are no UTF-8 are not ours and left out.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let read = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in rustix::fs::Dir::read_from(&self.fd)? {
                match entry?.file_name().to_str() {
                    Ok("." | "..") | Err(_) => {}
                    Ok(name) => names.push(name.to_owned()),
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        read().map_err(|error| Error::io(self.path.display(), error))
    }

    /// Size and free room of the file system.
    pub(super) fn space(&self) -> Result<StatVfs> {
        rustix::fs::fstatvfs(&self.fd).map_err(|error| Error::io(self.path.display(), error.into()))
    }

    /// An operating system's error on the file `name`.
    pub(super) fn error(&self, name: &str, error: io::Error) -> Error {
        Error::io(self.path_of(name).display(), error)
    }
}
