//! The directory itself: where it is, who may use it, and the lock that keeps a second watcher out.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::boot::boot_id;
use super::folder::{Damage, Folder};
use super::redo;
use super::saved::Saved;
use super::spool::{self, SpoolFile};
use super::staged::UNFINISHED;
use crate::error::{Error, ErrorKind, Result};

const LOCK: &str = "lock";

/// The longest file name that Linux file systems take, in bytes.
const NAME_MAX: usize = 255;

/// A look ([`StateDir::peek`]) holds the lock for an instant; that is not a watcher.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The state directory of one database, locked for as long as this, or anything opened from it, lives.
#[derive(Debug)]
pub struct StateDir {
    folder: Arc<Locked>,
    scratch: PathBuf,
    holder: Holder,
    damage: Vec<Damage>,
}

/// The directory with its lock. Each part of the state shares it, so that the lock is held until the last
/// of them is dropped.
#[derive(Debug)]
pub(super) struct Locked {
    folder: Folder,
    /// Held, never read: closing it gives the lock up.
    _lock: File,
}

impl std::ops::Deref for Locked {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

/// Who holds a state directory, for the lease: the same on every start until the directory is copied,
/// moved to another volume, or the machine boots. So a clone never passes for the original.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// 32 random hex digits.
    pub token: String,
    /// Device of the lock file.
    pub device: u64,
    /// Inode of the lock file.
    pub inode: u64,
    /// What the kernel calls this boot; empty where it does not say.
    pub boot: String,
}

/// What a look without the lock shows.
#[derive(Clone, Debug)]
pub struct Peek {
    /// The state directory.
    pub path: PathBuf,
    /// Whether a process holds the lock now.
    pub locked: bool,
    /// The last saved state, if one can be read.
    pub saved: Option<Saved>,
    /// The files that wait for the store, oldest first.
    pub spool: Vec<SpoolFile>,
    /// What could not be read.
    pub damage: Vec<Damage>,
}

impl StateDir {
    /// Where the state of the database at `database` lies: `.<file name>-walrust` beside the file itself,
    /// also when `database` is a symlink, so that two ways to one file meet in one lock.
    pub fn path_for(database: &Path) -> Result<PathBuf> {
        let real = match database.canonicalize() {
            Ok(real) => real,
            // Not restored yet, perhaps: then the directory decides.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let name = database.file_name().ok_or_else(|| no_name(database))?;
                let parent = crate::fs::parent(database);
                let parent = parent.canonicalize();
                parent
                    .map_err(|error| Error::io(database.display(), error))?
                    .join(name)
            }
            Err(error) => return Err(Error::io(database.display(), error)),
        };
        let name = real.file_name().ok_or_else(|| no_name(database))?;
        Ok(real.with_file_name(state_name(name)))
    }

    /// Opens the state directory of the database at `database`, made where it is absent, and takes its
    /// lock. Errors: Busy when another watcher has it, Denied for a symlink or another user's directory.
    pub fn create_or_open(database: &Path) -> Result<Self> {
        let folder = Folder::create(&Self::path_for(database)?)?;
        let mut lock = take_lock(&folder, database)?;
        let (holder, damage) = identify(&folder, &mut lock)?;
        for name in folder.names()? {
            if name.ends_with(UNFINISHED) {
                folder.remove(&name)?;
            }
        }
        let scratch = folder.sub("scratch")?;
        scratch.clear()?;
        let scratch = scratch.path().to_owned();
        let folder = Arc::new(Locked {
            folder,
            _lock: lock,
        });
        Ok(Self {
            folder,
            scratch,
            holder,
            damage: damage.into_iter().collect(),
        })
    }

    /// A look at the state directory of the database at `database` without the lock and without a change;
    /// nothing where there is none.
    pub fn peek(database: &Path) -> Result<Option<Peek>> {
        let path = Self::path_for(database)?;
        let folder = match Folder::open(&path) {
            Ok(folder) => folder,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let (saved, mut damage) = redo::read_saved(&folder)?;
        let locked = match folder.file(LOCK, OFlags::RDONLY) {
            Ok(None) => false,
            Ok(Some(file)) => match file.try_lock_shared() {
                Ok(()) => false,
                Err(TryLockError::WouldBlock) => true,
                Err(TryLockError::Error(error)) => return Err(folder.error(LOCK, error)),
            },
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                damage.push(Damage::new(LOCK, error.message()));
                false
            }
            Err(error) => return Err(error),
        };
        Ok(Some(Peek {
            locked,
            saved,
            spool: spool::peek(&folder, &mut damage)?,
            path,
            damage,
        }))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Who we are to the lease.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// What was not ours when the directory was opened.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// A directory for temporary files, emptied at each start.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    pub(super) fn folder(&self) -> &Arc<Locked> {
        &self.folder
    }
}

fn no_name(database: &Path) -> Error {
    Error::new(ErrorKind::Invalid, "does not name a file").on(database.display())
}

/// `.<name>-walrust`; a name too long for that is cut and told apart by a hash.
fn state_name(name: &OsStr) -> OsString {
    let around = |middle: &[u8]| [b".", middle, b"-walrust"].concat();
    let mut whole = around(name.as_bytes());
    if whole.len() > NAME_MAX {
        let hash = format!("-{:016x}", xxh3_64(name.as_bytes()));
        let room = NAME_MAX - around(hash.as_bytes()).len();
        let kept = name.as_bytes().get(..room).unwrap_or_default();
        whole = around(&[kept, hash.as_bytes()].concat());
    }
    OsStr::from_bytes(&whole).to_owned()
}

/// The database whose state directory is called `name`, if one may be; a name that was too long is not told whole.
pub(crate) fn database_of_state(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.strip_suffix("-walrust")
}

fn take_lock(folder: &Folder, database: &Path) -> Result<File> {
    for attempt in 1.. {
        let lock = folder.writable(LOCK)?;
        match lock.try_lock() {
            Ok(()) if is_still_named(folder, &lock)? => return Ok(lock),
            // Somebody removed the directory's content between our open and our lock.
            Ok(()) => {}
            Err(TryLockError::WouldBlock) if attempt < LOCK_TRIES => {}
            Err(TryLockError::WouldBlock) => break,
            Err(TryLockError::Error(error)) => return Err(folder.error(LOCK, error)),
        }
        if attempt >= LOCK_TRIES {
            break;
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    Err(Error::new(
        ErrorKind::Busy,
        "another walrust process is watching this database",
    )
    .on(database.display())
    .hint("stop it first, or ask it: walrust status"))
}

fn is_still_named(folder: &Folder, lock: &File) -> Result<bool> {
    let ours = lock.metadata().map_err(|error| folder.error(LOCK, error))?;
    let Some(named) = folder.file(LOCK, OFlags::RDONLY)? else {
        return Ok(false);
    };
    let named = named
        .metadata()
        .map_err(|error| folder.error(LOCK, error))?;
    Ok((ours.dev(), ours.ino()) == (named.dev(), named.ino()))
}

/// The holder that the lock file names, if it still fits this file and this boot; else a new one.
fn identify(folder: &Folder, lock: &mut File) -> Result<(Holder, Option<Damage>)> {
    let fail = |error| folder.error(LOCK, error);
    let mut text = Vec::new();
    // Ours is below 200 bytes; the bound keeps a foreign file out of memory.
    let read = std::io::Read::by_ref(lock)
        .take(4096)
        .read_to_end(&mut text);
    read.map_err(fail)?;
    let meta = lock.metadata().map_err(fail)?;
    let here = Holder {
        token: format!("{:032x}", fastrand::u128(..)),
        device: meta.dev(),
        inode: meta.ino(),
        boot: boot_id(),
    };
    let stored = serde_json::from_slice::<Holder>(&text);
    let damage = (stored.is_err() && !text.is_empty())
        .then(|| Damage::new(LOCK, "does not name a holder; taking a new identity"));
    if let Ok(stored) = stored {
        let same = Holder {
            token: stored.token.clone(),
            ..here.clone()
        };
        // The token becomes a part of keys. Without a boot id nothing tells this machine from another one.
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let usable = stored.token.len() == 32 && stored.token.bytes().all(hex);
        if same == stored && usable && !here.boot.is_empty() {
            return Ok((stored, None));
        }
    }
    let text = serde_json::to_vec(&here)
        .map_err(|error| Error::new(ErrorKind::Internal, "the holder is no JSON").because(error))?;
    let written = (|| {
        lock.set_len(0)?;
        lock.rewind()?;
        lock.write_all(&text)?;
        lock.sync_all()
    })();
    written.map_err(fail)?;
    Ok((here, damage))
}
