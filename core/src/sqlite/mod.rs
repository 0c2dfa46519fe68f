//! The only module that names SQLite's library: attached databases, the turns that capture stands on,
//! and one-shot reads.
//!
//! # Overview
//!
//! [`Source`] is one attached database. Two connections take turns: begin the newer read transaction,
//! capture up to what it sees, end the older one. No instant is uncovered, and once the WAL is copied
//! back the turn lands on read mark 0, so that the WAL restarts by itself.
//!
//! # Invariants
//!
//! * 1: the database is never modified. Connections are `query_only`; the one that takes the write lock
//!   for a barrier writes nothing.
//! * 2: from attach to detach a read transaction is open.
//! * 10: POSIX locks belong to the process, and closing *any* descriptor of a file drops them all. So the
//!   database is only ever read through SQLite's own descriptor, and the one descriptor of `-shm` is
//!   closed after the last connection. A process attaches to a file once.
//! * 11: our close neither checkpoints nor deletes the WAL.
//! * 12, 13: refusals at attach, and [`Source::identity`].
//!
//! # Crash
//!
//! Nothing here has state on disk. The kernel drops the locks of a dead process, SQLite's next user
//! recovers the WAL-index; what we had not captured is in the WAL or, once checkpointed, in the
//! database.

mod attach;
mod barrier;
mod check;
mod claim;
mod connection;
mod ffi;
mod inspect;
mod oneshot;
mod probe;
mod source;
mod view;
mod volume;
mod writer;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use attach::{AttachOptions, check_access, set_wal_mode};
pub use barrier::{Barrier, WriteHold};
pub use check::{Checked, integrity_check, quick_check};
pub use claim::FileId;
pub use connection::require_compile_options;
pub use inspect::{Facts, Header, inspect, page_size_of};
pub use oneshot::{CopyEvent, OneShot, PageSink};
pub use probe::Peek;
pub use source::{Checkpointed, Identity, Side, Source};
pub use view::{DATABASE_HEADER_BYTES, SqliteVersion, View};
pub use writer::{ClosedToOthers, Committed, PageTransaction, PageWriter, check_volume};

/// The version of the SQLite in this program.
pub fn library_version() -> &'static str {
    rusqlite::version()
}
