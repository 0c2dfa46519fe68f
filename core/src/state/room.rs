//! How much of the disk the spool and the overlays of one database may take.

use std::io;
use std::sync::{Arc, Mutex};

use super::folder::Folder;
use crate::error::{Error, ErrorKind, Result};

/// What stays free for the app, whatever `spool_limit` says: a full disk stops its writes.
pub(crate) const RESERVE: u64 = 256 << 20;

/// How far a growing file may go before the free space is asked for again, in bytes.
const STEP: u64 = 1 << 20;

/// The shared account.
#[derive(Debug)]
pub(super) struct Room {
    folder: Arc<Folder>,
    limit: u64,
    reserve: u64,
    account: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    used: u64,
    since_asked: u64,
}

impl Room {
    pub(super) fn new(folder: Arc<Folder>, limit: u64, reserve: u64) -> Self {
        Self {
            folder,
            limit,
            reserve,
            account: Mutex::default(),
        }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn used(&self) -> u64 {
        self.account().used
    }

    /// Counts what is there already, also beyond the limit.
    pub(super) fn count(&self, bytes: u64) {
        self.account().used += bytes;
    }

    /// Takes `bytes`. Errors: Exhausted, then nothing is taken.
    pub(super) fn take(&self, bytes: u64) -> Result<()> {
        let mut account = self.account();
        let used = account.used.saturating_add(bytes);
        if used > self.limit {
            return Err(self.full(format!(
                "{used} bytes would pass spool_limit {}",
                self.limit
            )));
        }
        account.since_asked = account.since_asked.saturating_add(bytes);
        if account.since_asked >= STEP {
            self.check_free(bytes)?;
            account.since_asked = 0;
        }
        account.used = used;
        Ok(())
    }

    pub(super) fn give_back(&self, bytes: u64) {
        let mut account = self.account();
        account.used = account.used.saturating_sub(bytes);
    }

    /// Errors: Exhausted if `bytes` more would not leave the reserve free.
    pub(super) fn check_free(&self, bytes: u64) -> Result<()> {
        let space = self.folder.space()?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < self.reserve.saturating_add(bytes) {
            let reserve = self.reserve;
            return Err(self.full(format!(
                "{free} bytes free, {reserve} stay free for the app"
            )));
        }
        Ok(())
    }

    fn full(&self, message: String) -> Error {
        Error::new(ErrorKind::Exhausted, message)
            .on(self.folder.path().display())
            .hint("free space, or raise spool_limit")
    }

    fn account(&self) -> std::sync::MutexGuard<'_, Account> {
        // Two sums cannot be left half changed by a panic elsewhere.
        self.account
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Our errors through `std::io::Write`, the kind kept.
pub(super) fn to_io(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::Exhausted => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
