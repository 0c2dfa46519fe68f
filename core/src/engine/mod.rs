//! Watching databases: capture, uploads, snapshots, checkpoints.

mod adopt;
mod anchor;
mod budget;
mod capture;
mod checkpoint;
mod control;
mod encode;
mod event;
mod frames;
mod image;
mod join;
mod levels;
mod once;
mod open;
mod past;
mod plain;
mod prove;
mod remote;
mod session;
mod ship;
mod sizes;
mod staged;
mod status;
mod tenure;
mod trigger;
mod watch;
mod worker;

pub use crate::lease::Mode as LeaseMode;
pub use anchor::Permission;
pub use checkpoint::Barrier;
pub use event::{Happening, SnapshotReason, WatchEvent};
pub use once::snapshot;
pub use session::{Command, Taken};
pub use status::{DatabaseState, DatabaseStatus, LeaseStatus, StandingError};
pub use trigger::SnapshotPolicy;
pub use watch::{Unfinished, Until, Watch, WatchHandle, WatchOptions};
