//! Watching databases: capture, uploads, snapshots, checkpoints.

mod event;

pub use event::{Happening, SnapshotReason, WatchEvent};
