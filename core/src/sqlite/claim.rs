//! One attachment per file in a process.

use std::collections::HashSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// Which file: device and inode number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct FileId {
    /// The device.
    pub device: u64,
    /// The inode number on it.
    pub inode: u64,
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// A process-wide table is the right scope: the kernel keeps POSIX locks by process and inode, so that
/// the close of one attachment's descriptors would drop the locks of another (invariant 10).
static CLAIMED: LazyLock<Mutex<HashSet<FileId>>> = LazyLock::new(Mutex::default);

/// The right to hold descriptors of one database file by hand. Dropped last, after all of them.
#[derive(Debug)]
pub(super) struct Claim(FileId);

impl Claim {
    /// Claims the file `id`, which `path` names.
    pub(super) fn take(id: FileId, path: &Path) -> Result<Self> {
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        if claimed.insert(id) {
            return Ok(Self(id));
        }
        Err(Error::new(
            ErrorKind::Exists,
            "this process already has this file open, perhaps under another name",
        )
        .on(path.display())
        .hint("name each database once"))
    }

    pub(super) fn id(&self) -> FileId {
        self.0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.remove(&self.0);
    }
}
