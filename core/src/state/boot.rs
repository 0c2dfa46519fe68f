//! Which start of the machine this is.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// What the kernel calls this start of the machine; empty where it does not say.
pub(super) fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

/// One start of the machine, as a short form of its name. Within one, what a process wrote to a file is what the
/// next one reads; over a power cut, any part of what was not synced may be gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Boot(u64);

impl Boot {
    /// This one; nothing where the kernel does not say.
    pub fn current() -> Option<Self> {
        static CURRENT: OnceLock<Option<Boot>> = OnceLock::new();
        *CURRENT.get_or_init(|| Self::named(&boot_id()))
    }

    fn named(id: &str) -> Option<Self> {
        (!id.is_empty()).then(|| Self(xxh3_64(id.as_bytes())))
    }

    /// Whether `earlier` is this one, for certain.
    pub fn is_still(earlier: Option<Self>) -> bool {
        earlier.is_some() && earlier == Self::current()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u18_only_this_boot_is_still_this_boot() {
        assert!(Boot::is_still(Boot::current()), "Linux names its boots");
        assert!(!Boot::is_still(Boot::named("another")));
        assert!(!Boot::is_still(None));
        assert_eq!(Boot::named(""), None);
    }
}
