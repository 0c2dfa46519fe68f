//! Read replicas: a database that follows a stream in the bucket, while others read it.
//!
//! # Overview
//!
//! ```text
//! no file -> restore of the newest state -> the replica
//! poll: one listing from a little before the replica's state on
//!   -> nothing new
//!   -> files that follow: each in one write transaction of SQLite, proved before its commit
//!   -> anything else: the whole index, then the fewest files that lead on, or the replica made anew
//! ```
//!
//! # Invariants
//!
//! - Readers see a state of the source, whole, and after it only later ones of the same history. The one step back
//!   is from a state that was no part of the history ([`Reason::Overtaken`]) or to another history.
//! - 7: nothing is committed whose checksum and digest, over all pages, are not those that the file names.
//! - 9: memory for four files of 4 MiB, page sums of the pages changed up to 7 MiB, SQLite's 2 MiB.
//! - A file at the replica's place that is not proved to be ours is never touched.
//! - What cannot be followed is looked at again when something new appears, or after growing pauses; the replica is
//!   not made anew again and again.
//!
//! # Crash table
//!
//! | died | found at the next start |
//! |---|---|
//! | before a commit | the state before; SQLite ignores what was not committed |
//! | between commit and state file | pages that are not those of the state file: the next file is applied over them, which changes nothing if they are its own, and is proved as any other |
//! | while the page table was written | it is proved by its sum, or made anew by one pass |
//! | during a bootstrap | nothing, or the file before (`renew`) |
//!
//! # Cancellation
//!
//! A stop ends what waits for the store, and rolls back a transaction under way.

mod apply;
mod backoff;
mod event;
mod fetch;
mod follow;
mod header;
mod home;
mod judge;
mod local;
mod make;
mod proof;
mod renew;
mod rhythm;
mod run;
mod source;
mod state_file;
mod status;
#[cfg(test)]
mod tests;
mod window;

pub use event::{Happening, ReplicaEvent};
pub use header::{SchemaVersion, TrueHeader};
pub use home::Replace;
pub use judge::Reason;
pub use run::{Replica, ReplicaOptions, Until};
pub use source::Source;
pub use state_file::{ReplicaState, refuse_replica, state_path};
pub use status::{ReplicaCondition, ReplicaStatus};
