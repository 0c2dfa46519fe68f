//! When a writer is active: one inotify instance for all databases of the process.
//!
//! # Overview
//!
//! Each `-wal` has a one-shot watch. It fires once, however many writes follow, and costs nothing until
//! [`Waker::arm`] sets it again after the turn; whoever arms it compares the WAL-index header once
//! more, as a write may have come in between. An event means that a writer is active, not that a
//! commit is visible: with a slow disk the last event comes before the commit (e2.py).
//!
//! Each directory is watched for names that come, go or move, which is the time to compare
//! identities (invariant 13). Where the kernel grants no watch, that is said once, and polling is all
//! there is.
//!
//! # Cancellation
//!
//! [`Waker::next`] loses no event when its future is dropped.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::error::{Error, ErrorKind, Result};
use crate::fs::{parent, with_suffix};

/// Room for what one read returns, in bytes: some hundred events. More come with the next read.
const BUFFER_BYTES: usize = 16 * 1024;

/// A database, as the caller numbers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WatchId(pub u64);

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WakeKind {
    /// `-wal` was written. The watch is spent: arm it again.
    Written,
    /// The database, its `-wal` or `-shm`, or their directory was created, deleted or moved.
    Names,
    /// The kernel lost events: both of the above may have happened.
    Missed,
    /// No watch is to be had for this database (said once): poll it.
    Unwatched,
}

/// Something happened to one database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WakeEvent {
    /// Which database.
    pub id: WatchId,
    /// What happened.
    pub kind: WakeKind,
}

/// Whether events will come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Armed {
    /// The next write to `-wal` is an event.
    Watching,
    /// There is no `-wal`; its appearance is a [`WakeKind::Names`].
    NoWal,
    /// The kernel grants no watch: poll.
    Polling,
}

/// One inotify instance.
#[derive(Debug)]
pub struct Waker {
    inotify: Option<AsyncFd<OwnedFd>>,
    table: Mutex<Table>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Table {
    databases: HashMap<WatchId, Database>,
    /// By watch descriptor, which the kernel does not use twice.
    wals: HashMap<i32, WatchId>,
    directories: HashMap<i32, Directory>,
    /// What was read and not yet handed out; as a set no larger than a few events a database.
    pending: BTreeSet<WakeEvent>,
}

#[derive(Debug)]
struct Database {
    path: PathBuf,
    wal: PathBuf,
    wal_watch: Option<i32>,
    directory_watch: Option<i32>,
    told_unwatched: bool,
}

#[derive(Debug, Default)]
struct Directory {
    names: HashMap<OsString, WatchId>,
}

impl Waker {
    /// An inotify instance on the current runtime; without one (the user has too many) a waker that
    /// calls every database unwatched.
    pub fn new() -> Result<Self> {
        let inotify = match inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC) {
            Ok(fd) => Some(register(fd).map_err(|error| Error::io("inotify", error))?),
            Err(error) => {
                tracing::warn!(%error, "no inotify instance: databases are polled");
                None
            }
        };
        Ok(Self {
            inotify,
            ..Self::polling()
        })
    }

    /// A waker without inotify.
    pub fn polling() -> Self {
        Self {
            inotify: None,
            table: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// Watches the directory of the database at `path` (real and absolute) and its `-wal`.
    pub fn add(&self, id: WatchId, path: &Path) -> Result<Armed> {
        let database = Database {
            path: path.to_owned(),
            wal: with_suffix(path, "-wal"),
            wal_watch: None,
            directory_watch: None,
            told_unwatched: false,
        };
        self.remove(id);
        self.table().databases.insert(id, database);
        self.arm(id)
    }

    /// Sets the one-shot watch on `-wal` again, and the directory's if it was lost. Compare the
    /// WAL-index header after this.
    pub fn arm(&self, id: WatchId) -> Result<Armed> {
        let mut table = self.table();
        let armed = match &self.inotify {
            Some(inotify) => table.arm(inotify.get_ref(), id),
            None => Ok(Armed::Polling),
        };
        if matches!(armed, Ok(Armed::Polling)) {
            table.tell_unwatched(id);
            drop(table);
            self.news.notify_one();
        }
        armed
    }

    /// Forgets a database.
    pub fn remove(&self, id: WatchId) {
        let mut table = self.table();
        let Some(database) = table.databases.remove(&id) else {
            return;
        };
        table.pending.retain(|event| event.id != id);
        let mut spent = Vec::new();
        if let Some(watch) = database.wal_watch
            && table.wals.remove(&watch).is_some()
        {
            spent.push(watch);
        }
        if let Some(watch) = database.directory_watch
            && let Some(directory) = table.directories.get_mut(&watch)
        {
            directory.names.retain(|_, user| *user != id);
            if directory.names.is_empty() {
                table.directories.remove(&watch);
                spent.push(watch);
            }
        }
        if let Some(inotify) = &self.inotify {
            for watch in spent {
                // The kernel may have removed it already.
                let _ = inotify::remove_watch(inotify.get_ref(), watch);
            }
        }
    }

    /// The next event, in no particular order; equal ones are one. For one caller at a time.
    ///
    /// # Cancel safety
    /// Safe: what was read stays for the next call.
    pub async fn next(&self) -> Result<WakeEvent> {
        loop {
            if let Some(event) = self.table().pending.pop_first() {
                return Ok(event);
            }
            let Some(inotify) = &self.inotify else {
                self.news.notified().await;
                continue;
            };
            tokio::select! {
                ready = inotify.readable() => {
                    let mut ready = ready.map_err(|error| Error::io("inotify", error))?;
                    if self.read(inotify.get_ref())? {
                        ready.clear_ready();
                    }
                }
                () = self.news.notified() => {}
            }
        }
    }

    /// Takes in what one read returns; true once there was nothing more.
    fn read(&self, inotify: &OwnedFd) -> Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = inotify::Reader::new(inotify, &mut buffer);
        let mut table = self.table();
        loop {
            match reader.next() {
                Ok(event) => table.take(event.wd(), event.events(), event.file_name()),
                Err(Errno::AGAIN) => return Ok(true),
                Err(Errno::INTR) => return Ok(false),
                Err(error) => return Err(Error::io("inotify", error.into())),
            }
            if reader.is_buffer_empty() {
                return Ok(false);
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn arm(&mut self, inotify: &OwnedFd, id: WatchId) -> Result<Armed> {
        let Some(database) = self.databases.get_mut(&id) else {
            return Err(Error::new(
                ErrorKind::Internal,
                "an unknown database is armed",
            ));
        };
        let known = |watch: &i32| self.directories.contains_key(watch);
        if !database.directory_watch.as_ref().is_some_and(known) {
            let flags = WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVE
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            let directory = parent(&database.path);
            let Some(watch) = add_watch(inotify, directory, flags)? else {
                return Ok(Armed::Polling);
            };
            let Added::Watch(watch) = watch else {
                return Err(
                    Error::new(ErrorKind::NotFound, "no such directory").on(directory.display())
                );
            };
            database.directory_watch = Some(watch);
            let names = &mut self.directories.entry(watch).or_default().names;
            for suffix in ["", "-wal", "-shm"] {
                let path = with_suffix(&database.path, suffix);
                if let Some(name) = path.file_name() {
                    names.insert(name.to_owned(), id);
                }
            }
        }
        let flags = WatchFlags::MODIFY | WatchFlags::ONESHOT;
        match add_watch(inotify, &database.wal, flags)? {
            None => Ok(Armed::Polling),
            Some(Added::Missing) => Ok(Armed::NoWal),
            Some(Added::Watch(watch)) => {
                if let Some(former) = database.wal_watch.replace(watch)
                    && former != watch
                {
                    self.wals.remove(&former);
                }
                self.wals.insert(watch, id);
                Ok(Armed::Watching)
            }
        }
    }

    fn tell_unwatched(&mut self, id: WatchId) {
        if let Some(database) = self.databases.get_mut(&id)
            && !std::mem::replace(&mut database.told_unwatched, true)
        {
            let kind = WakeKind::Unwatched;
            self.pending.insert(WakeEvent { id, kind });
        }
    }

    /// Turns one of the kernel's events into ours.
    fn take(&mut self, watch: i32, events: ReadFlags, name: Option<&std::ffi::CStr>) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            let kind = WakeKind::Missed;
            let all = self.databases.keys().map(|id| WakeEvent { id: *id, kind });
            self.pending.extend(all);
        } else if let Some(id) = self.wals.get(&watch).copied() {
            // One-shot: the kernel has removed the watch. Without a write before, the file is gone.
            let kind = match events.contains(ReadFlags::MODIFY) {
                true => WakeKind::Written,
                false => WakeKind::Names,
            };
            self.wals.remove(&watch);
            self.pending.insert(WakeEvent { id, kind });
        } else if let Some(directory) = self.directories.get(&watch) {
            let kind = WakeKind::Names;
            let gone = ReadFlags::DELETE_SELF
                | ReadFlags::MOVE_SELF
                | ReadFlags::UNMOUNT
                | ReadFlags::IGNORED;
            if events.intersects(gone) {
                let users = directory.names.values();
                self.pending
                    .extend(users.map(|id| WakeEvent { id: *id, kind }));
                if events.contains(ReadFlags::IGNORED) {
                    self.directories.remove(&watch);
                }
            } else if let Some(name) = name
                && let Some(id) = directory.names.get(OsStr::from_bytes(name.to_bytes()))
            {
                self.pending.insert(WakeEvent { id: *id, kind });
            }
        }
    }
}

#[allow(
    deprecated,
    reason = "its successor is an unsafe function, for handles that may close under it; an OwnedFd stays \
              open as long as the AsyncFd that owns it"
)]
fn register(inotify: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(inotify, Interest::READABLE)
}

enum Added {
    Watch(i32),
    Missing,
}

/// Adds a watch; none where the user may have no more of them.
fn add_watch(inotify: &OwnedFd, path: &Path, flags: WatchFlags) -> Result<Option<Added>> {
    match inotify::add_watch(inotify, path, flags) {
        Ok(watch) => Ok(Some(Added::Watch(watch))),
        Err(Errno::NOENT) => Ok(Some(Added::Missing)),
        Err(Errno::NOSPC | Errno::NOMEM) => Ok(None),
        Err(error) => Err(Error::io(path.display(), error.into())),
    }
}
