//! The index of a database's files, and what can be made of it.
//!
//! # Overview
//!
//! The index is no truth of its own: it can be rebuilt from the objects. Its root, `manifest.json`, names
//! the head, the writers' turns, the snapshots, the merged files and the newest incrementals, and the
//! immutable pages that hold the older entries. A watcher writes it through [`Publisher`]; a reader asks
//! [`Catalog`], which knows the tail behind the root too.
//!
//! # Invariants
//!
//! - The root is replaced by compare-and-swap, each writer applying its own [`ManifestDelta`] to what is
//!   there (invariant 5 for objects that cannot be immutable).
//! - Missing means a clear answer of the store; trouble on the way is an error.
//! - Which files count is one rule, in [`Turns`].

mod catalog;
mod delta;
mod due;
mod entry;
mod facts;
mod holes;
mod listing;
mod live;
mod pages;
mod publisher;
mod rebuild;
mod root;
mod spill;
#[cfg(test)]
mod tests;

pub use catalog::{Catalog, CatalogFile, Format};
pub use delta::{Compaction, ManifestDelta, NewHead};
pub use due::{Due, Unpublished, due};
pub use entry::{FileEntry, FileKey, FileKind};
pub use facts::{IN_FLIGHT, Place, is_damage, read_all_facts, read_facts};
pub(crate) use holes::holes;
pub use listing::{Keys, Listed, Listing, list_files, list_tail};
pub use live::Turns;
pub(crate) use pages::visit_pages;
pub use pages::{Root, read_pages, read_root};
pub use publisher::{Found, Published, Publisher};
pub use rebuild::rebuild;
pub(crate) use rebuild::{start_shown_by, starts_of};
pub use root::{EpochStart, Head, IndexPage, Manifest, OBJECT_LIMIT, PageRef, ROOT_LIMIT, VERSION};
pub use spill::{NewPage, spill};
