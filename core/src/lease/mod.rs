//! One writer for each stream: `lease.json`, its epochs, and the claims of who would be next.
//!
//! # Overview
//!
//! The data objects are the heartbeat: an idle stream sends nothing. [`Lease::acquire`] takes the lease by
//! compare-and-swap of epoch + 1 when nobody holds it, when it was released, when it was ours, or when its
//! owner's newest object is older than the lease by the store's own clock. An owner that is to be respected
//! while idle is asked first, through [`Claims`]. What every new file carries is [`Lease::stream_id`].
//!
//! # Invariants
//!
//! 5. A write is durable only if the lease was ours after it: [`Lease::confirm`] looks again where the last
//!    look is [`RECHECK`] old. If the epoch is still ours *after* the write, any later owner's listing
//!    sees the object. A foreign epoch is `Fenced`, and final.
//! 14. Which content may be written is not decided here; only by whom.
//!
//! A new owner that takes an expired lease from one that wrote between being seen idle and being
//! replaced waits [`RECHECK`] before it lists: a write of the old owner that its last look still covers
//! has then ended, and is in the listing.
//!
//! # Stores without conditional writes
//!
//! Two writes that must be refused are tried after each take-over. Where one is not, the lease is
//! [`Protection::Unfenced`]: it is put, read again after two seconds and must carry our token; each data
//! object is looked for before it is put, and the lease is read after. That narrows the race and does
//! not close it, so it is told in `doctor` and `status`.
//!
//! # Crash table
//!
//! | after | then |
//! |---|---|
//! | taking the lease, before writing | the next process with the same lock has it at once, any other after one lease |
//! | a claim | the holder answers it, or has its silence taken for release |
//! | release | the next one has it at once |

mod acquire;
mod claim;
mod held;
mod judge;
mod outsider;
pub(crate) mod probe;
mod record;

#[cfg(test)]
mod judge_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unfenced_tests;

#[cfg(test)]
pub(crate) use unfenced_tests::careless;

pub use acquire::{Acquired, Owner};
pub use claim::{Answer, Claims};
pub use held::{Lease, Protection, Standing};
pub use judge::{
    Ground, IdleOwner, Known, LeasePolicy, Mode, Moment, NewLineage, RECHECK, must_recheck,
};
pub use outsider::{conditional_writes_hold, writer_may_live};
pub use record::{Claim, Holder, HolderId, LockIdentity, Record};
