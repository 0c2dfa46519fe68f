//! Whether a configuration would work: the bucket, what we may do there, and the databases.
//!
//! # Overview
//!
//! [`examine`] tries everything that `watch`, `restore` and `compact` need against the real store, and looks
//! at each database from outside. Each [`Check`] is one thing that holds or does not, with what to change. A
//! check that cannot be made because an earlier one failed is left out.
//!
//! # Invariants
//!
//! * 6: it deletes nothing but what it wrote itself, under keys that no listing takes for a database's.
//! * 10: it opens no connection to a database and takes no lock; where this process has one attached, its
//!   file is not opened at all.
//! * 12: it makes no file beside a database.
//!
//! # Crash
//!
//! Objects below `.walrust/doctor/` are left behind, of some bytes each, and are nobody's.

mod bucket;
mod database;
mod report;
mod trial;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::clock::Clock;
use crate::config::{Resolved, Unmatched};
use crate::store::{RetryPolicy, StoreLocation};

pub use report::{Check, Outcome, Report};

/// What passes is tried again for this long: whoever asks is waiting.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries everything that `resolved` names.
pub async fn examine(resolved: &Resolved, clock: &Clock) -> Report {
    let settings = &resolved.store;
    let mut config = settings.store_config();
    config.retry = RetryPolicy {
        limit: PATIENCE,
        ..config.retry
    };
    let prefix = settings.location.prefix();
    let mut checks = match &settings.location {
        StoreLocation::S3 { .. } => bucket::examine(&config, &prefix, settings.lease, clock).await,
        StoreLocation::File { root } => bucket::examine_directory(&config, root).await,
    };
    checks.extend(resolved.unmatched.iter().map(unmatched));
    for database in &resolved.databases {
        checks.extend(database::examine(database));
    }
    Report::new(checks)
}

fn unmatched(pattern: &Unmatched) -> Check {
    let name = pattern.pattern.display().to_string();
    match pattern.optional {
        true => Check::note(name, "no file matches yet; watch waits for one"),
        false => Check::failed_because(
            name,
            &crate::Error::new(crate::ErrorKind::NotFound, pattern.message.clone())
                .hint("correct the pattern, or set optional = true"),
        ),
    }
}
