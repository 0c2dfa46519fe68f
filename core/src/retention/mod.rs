//! What goes from a bucket, and what stays (R86 to R100).
//!
//! # Overview
//!
//! ```text
//! index + listing of everything -> look -> plan (pure) -> what goes is written down
//!   -> the index without it -> deletions: dead files first, then the oldest
//! ```
//!
//! Snapshots stay by the tiers of grandfather, father and son. Restore points stay all for `points`, then one a
//! minute for `minutes`, then one an hour back to the oldest snapshot that stays. A file stays if it ends at
//! a point that stays and reaches back to the one before it, so that the way between two points needs no
//! snapshot; merged files take the place of what they merge as points thin out.
//!
//! # Invariants
//!
//! 4. The last point before a rebase or a new history stays for 30 days.
//! 6. Nothing goes that a point that stays needs: the planner that restores use finds a way to each of them
//!    over what stays, or nothing is deleted. Nothing is planned from a part: an error ends the run, and an
//!    object that a listing left out is asked for. `0000/` is never left empty.
//!
//! # Side by side
//!
//! Everything that a plan relies on is either named by the index that it was made from, or not on the list of
//! what the last compaction deletes. Each compaction counts itself in the index by compare-and-swap, with
//! that list, before it deletes anything; one whose index has another count by then plans again. So no
//! plan relies on what another deletes. What a watcher adds meanwhile is not in the plan, and is not touched.
//! A restore that finds an object gone plans again.
//!
//! # Crash table
//!
//! | after | left behind | next time |
//! |---|---|---|
//! | writing down what goes | a page that nothing names | deleted when it is an hour old |
//! | the index | objects that the index lists as removed | deleted at once |
//! | some deletions | fewer of them | the same |
//!
//! # Cancellation
//!
//! As a crash.

mod carry_out;
mod keep;
mod look;
mod plan;
mod points;
mod report;
#[cfg(test)]
mod tests;
mod tiers;

pub use carry_out::{CompactRequest, DryRun, Writer, compact};
pub use plan::{Fate, Plan, Standing, StoredFile, plan};
pub use report::{CompactReport, SnapshotLine};
pub use tiers::Tier;
