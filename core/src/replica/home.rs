//! Where a replica lives: its file and what lies beside it, and who may use them.

use std::path::{Path, PathBuf};

use super::state_file::{Found, ReplicaState, read, state_path};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{parent, with_suffix};
use crate::sqlite::{FileId, check_volume};
use crate::state::StateDir;

/// What the replica is about to hold, in the state directory: written before each commit, and not synced, since it
/// is for a process that dies.
const INTENDED: &str = "replica.next";

/// Whether a file that is no replica of this source may be replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Replace {
    /// No.
    #[default]
    No,
    /// Yes.
    Yes,
}

/// Where a replica lives, locked for as long as this is held.
#[derive(Debug)]
pub(super) struct Home {
    /// The database file, by its real path.
    pub(super) local: PathBuf,
    pub(super) state_path: PathBuf,
    pub(super) source: String,
    pub(super) replace: Replace,
    pub(super) dir: StateDir,
    pub(super) clock: Clock,
}

impl Home {
    /// Takes the lock of the replica at `local`.
    ///
    /// # Errors
    /// `Exists` for a file that is no replica of `source`; `Busy` where another process has the lock; `NotFound`
    /// for a missing directory; `Unsupported` for a network file system.
    pub(super) fn open(
        local: &Path,
        source: String,
        replace: Replace,
        allow_network_fs: bool,
        clock: Clock,
    ) -> Result<Self> {
        let local = real(local)?;
        check_volume(parent(&local), allow_network_fs)?;
        let state_path = state_path(&local);
        // Nothing of ours is made beside a database that is not ours.
        if file_id(&local)?.is_some() && replace == Replace::No {
            require_ours(&local, &source, &read(&state_path)?)?;
        }
        refuse_spool(&local)?;
        let dir = StateDir::create_or_open(&local).map_err(|error| match error.kind() {
            ErrorKind::Busy => {
                let message =
                    "another walrust process keeps this replica, or watches this database";
                Error::new(ErrorKind::Busy, message)
                    .on(local.display())
                    .hint("stop it first")
            }
            _ => error,
        })?;
        Ok(Self {
            local,
            state_path,
            source,
            replace,
            dir,
            clock,
        })
    }

    /// Notes what the replica holds after the commit that comes next: should we die behind it, that is known.
    pub(super) fn intend(&self, next: &ReplicaState) -> Result<()> {
        let text = serde_json::to_vec(next).map_err(|error| {
            Error::new(ErrorKind::Internal, "the state of a replica is no JSON").because(error)
        })?;
        let path = self.dir.path().join(INTENDED);
        let staged = with_suffix(&path, ".tmp");
        std::fs::write(&staged, text)
            .and_then(|()| std::fs::rename(&staged, &path))
            .map_err(|error| Error::io(path.display(), error))
    }

    /// What [`Home::intend`] noted last, if it is whole.
    pub(super) fn intended(&self) -> Result<Option<ReplicaState>> {
        Ok(match read(&self.dir.path().join(INTENDED))? {
            Found::State(state) if state.source == self.source => Some(*state),
            Found::State(_) | Found::Missing | Found::Damaged(_) => None,
        })
    }
}

/// The path with its directory resolved, and the link followed where the file itself is one.
fn real(local: &Path) -> Result<PathBuf> {
    let fail = |error: std::io::Error, path: &Path| Error::io(path.display(), error);
    match local.canonicalize() {
        Ok(real) => Ok(real),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = local.file_name().ok_or_else(|| {
                Error::new(ErrorKind::Invalid, "does not name a file").on(local.display())
            })?;
            if local.symlink_metadata().is_ok() {
                let message = "a symbolic link that leads nowhere";
                return Err(Error::new(ErrorKind::Invalid, message).on(local.display()));
            }
            let directory = parent(local);
            let directory = directory
                .canonicalize()
                .map_err(|error| fail(error, directory))?;
            Ok(directory.join(name))
        }
        Err(error) => Err(fail(error, local)),
    }
}

/// Which file is at `path`; nothing if none is.
pub(super) fn file_id(path: &Path) -> Result<Option<FileId>> {
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            Err(Error::new(ErrorKind::Invalid, "is no regular file").on(path.display()))
        }
        Ok(metadata) => Ok(Some(FileId::from(&metadata))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path.display(), error)),
    }
}

/// R109: a file without a matching state is not ours to replace.
pub(super) fn require_ours(local: &Path, source: &str, found: &Found) -> Result<()> {
    let message = match found {
        Found::Missing => "a file is there already, and it is no replica".to_owned(),
        Found::State(state) if state.source != source => {
            format!("is a replica of {}", state.source)
        }
        Found::State(_) | Found::Damaged(_) => return Ok(()),
    };
    Err(foreign(local, message))
}

pub(super) fn foreign(local: &Path, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Exists, message)
        .on(local.display())
        .hint("--replace makes a replica in its place")
}

/// Commits of a watched database that no bucket has yet are never thrown away.
fn refuse_spool(local: &Path) -> Result<()> {
    let waiting = StateDir::peek(local)?.map_or(0, |peek| peek.spool.len());
    if waiting == 0 {
        return Ok(());
    }
    let message = format!("{waiting} files of a watched database wait there to be stored");
    Err(Error::new(ErrorKind::Exists, message)
        .on(local.display())
        .hint("store them first: walrust watch --once"))
}
