//! The state directory `.<file name>-walrust` beside a database: what must outlive the process.
//!
//! | name | what |
//! |---|---|
//! | `lock` | held by the one local watcher; names the holder for the lease |
//! | `redo.0`, `redo.1` | saved state and page table entries, in turn |
//! | `saved` | the saved state, durable |
//! | `pages` | the page table |
//! | `changed` | which pages changed since each merge boundary |
//! | `spool/` | LTX files that wait for the store |
//! | `overlay/` | old pages while a snapshot streams; emptied at start |
//! | `scratch/` | temporary files; emptied at start |
//! | `control.sock` | requests to the running watcher |
//!
//! All code here blocks, but for the service of the control socket. Losing the directory costs a rebase
//! or a question, never data; therefore what is torn or foreign counts as absent, and is reported as
//! [`Damage`].
//!
//! # The way of one batch
//!
//! 1. [`PageTable::lookup_all`] gives the former sums of the touched pages, [`PageTable::layer`] takes the
//!    new ones together with the [`Place`] that they lead to.
//! 2. The file is stored; or [`Spool::stage`] and [`Spool::publish`] make it durable here.
//! 3. Only then [`PageTable::commit`] moves table and cursor on disk (invariant 4).
//! 4. A spooled file goes to the store after [`Spool::verify`], and [`Spool::stored`] removes it.
//!
//! # At start
//!
//! [`PageTable::open`] finishes an interrupted commit; [`PageTable::prove`] says whether the table may be
//! believed. If not, [`PageTable::fill`] and [`PageTable::install`] make a new one. Files in the spool
//! beyond the saved state were synced before it moved: they are applied to the table like a batch.

mod boot;
mod control;
mod dir;
mod entries;
mod folder;
mod huge;
mod overlay;
mod page_sets;
mod page_table;
mod record;
mod redo;
mod room;
mod saved;
mod sort;
mod spool;
mod staged;
mod table_file;
#[cfg(test)]
mod tests;

pub use boot::Boot;
pub use control::{ControlSocket, Incoming, Op, Request, ask_watcher};
pub(crate) use dir::database_of_state;
pub use dir::{Holder, Peek, StateDir};
pub use entries::Entries;
pub use folder::Damage;
pub use huge::Huge;
pub use overlay::Overlay;
pub use page_sets::{PageSet, PageSets};
pub use page_table::{PageTable, Proof};
pub(crate) use room::RESERVE;
pub use saved::{Head, LastSnapshot, Place, Saved, WalPlace};
pub use sort::{FrameSorter, SortedFrames};
pub use spool::{Spool, SpoolFile, Staged};
pub use table_file::Fill;
