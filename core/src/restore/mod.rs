//! From the bucket back to a database file.
//!
//! # Overview
//!
//! ```text
//! Catalog (index + tail) -> find: target -> LtxChain -> apply: newest file first, each page once
//!   -> proof of bytes -> SQLite's check -> rename into place -> state directory
//! ```
//!
//! # Invariants
//!
//! 7. A restore is exact or fails. Every file's checksum, its place in the chain, and checksum and digest
//!    over the pages written are right before the output appears; nothing else of it ever appears.
//! 9. Memory: at most 16 MiB of small files, 24 MiB of a large one, and one bit a page.
//! 14. A state directory names the head that the restore saw.
//!
//! # Crash table
//!
//! | after | left behind |
//! |---|---|
//! | writing pages | `.walrust-restore-*` beside the output |
//! | moving stale companions aside | they end in `.walrust-replaced`; the old database is whole without a WAL that held commits |
//! | the rename | the restored database; without state directory a watcher proves that it is the head |
//!
//! # Cancellation
//!
//! Dropping the future removes the staged file; the output is as it was.

mod apply;
mod arrive;
mod canvas;
mod discover;
mod feed;
mod fill;
mod find;
mod frames;
mod image;
mod large;
mod leave;
mod links;
mod list;
mod plan;
mod progress;
mod report;
mod resolve;
mod run;
mod stage;
mod target;
#[cfg(test)]
pub(crate) mod tests;
mod ways;

pub(crate) use arrive::{Arrived, fetch_all, read};
pub use canvas::PageSink;
pub use discover::{discover, has_backup};
pub use fill::{Filled, NoBackup, fill, is_there};
pub(crate) use image::Image;
pub(crate) use large::{Section, Source, Surface, Target, joined};
pub use list::{
    DatabaseDescription, DatabaseList, DatabaseSummary, Failure, FileSummary, PointSummary,
    SnapshotSummary, StepSummary, describe, list_databases,
};
pub(crate) use plan::latest;
pub use plan::{LtxChain, Point, chain_to, points};
pub use progress::{Progress, Silent};
pub use report::{RestoreReport, Verify};
pub use resolve::{ClockStep, clock_steps};
pub use run::{LeaveState, RestoreRequest, restore};
pub use stage::Overwrite;
pub(crate) use stage::check_output;
pub use target::{RestoreTarget, TargetError};
pub(crate) use ways::{Hop, Ways};
