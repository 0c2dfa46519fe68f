//! Whether what is stored is what was captured, and would come back.
//!
//! # Overview
//!
//! ```text
//! inventory: manifest, full listing, lease, headers of what the manifest does not name
//!   -> chain: which file leads where, what is missing     (pure)
//!   -> walk: every file is read once, in the order of the chain
//!   -> judge: orphans (asked for once more), gaps, notes -> fix -> report
//! ```
//!
//! # What is proved
//!
//! Each file is decoded to its last byte: file checksum, page frames, page index. Its header must be what its
//! name and the manifest say. That a file is whole does not yet mean that it belongs where it stands. So the
//! state itself is followed: a table holds 24 bytes for each page (CRC-64 and XXH3-128), filled from a
//! snapshot or base. Each file changes it by what it holds, and checksum and digest of *all* pages after it must
//! be those that the file claims. A merged file and every later snapshot are held against the same states,
//! merged files at both of their ends. What comes out at the head must be what the manifest names. Nothing
//! but the digest's 128 bits stands between this and comparing every page of every state.
//!
//! Behind a file that is missing or damaged the state is not known until the next start, or until a merged file
//! leads around it. From there on files are compared by what they claim of the states at their ends. A
//! link that cannot be followed for that reason is no second finding.
//!
//! # Memory
//!
//! As a restore: 16 MiB of small files, 24 MiB of a large one; 6 MiB of sums, which move to unnamed files in
//! the scratch directory when they are more; and what the manifest says of each file. The database is never put
//! together, except by the deep check.
//!
//! # Invariants
//!
//! - Only a clear answer of the store makes an orphan, and only if the manifest still names the object after it.
//! - Nothing is written without `Fix::Yes`; then only the manifest, over the version that was read.
//! - Beside a running watch or compaction nothing is reported that they are about to explain: the manifest is
//!   read before the listing, and once more before anything is called missing or unnamed.

mod chain;
mod check;
mod contents;
mod drill;
mod fix;
mod follow;
mod inventory;
mod names;
mod report;
mod run;
mod table;
#[cfg(test)]
mod tests;
mod walk;

pub use drill::{DrillReport, DrillRequest, DrillTarget, drill};
pub use report::{Deep, Issue, IssueKind, VerifyReport};
pub use run::{Fix, VerifyRequest, verify};
