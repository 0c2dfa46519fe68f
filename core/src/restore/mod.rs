//! From the bucket back to a database file.

mod target;

pub use target::{RestoreTarget, TargetError};
