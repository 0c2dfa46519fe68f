//! The memory that captured commits may take until they are spooled or stored, all databases together
//! (invariant 9).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is left of the process's memory for captured commits.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU64);

/// A part of it in bytes, given back when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Room {
    budget: Option<Arc<Budget>>,
    bytes: u64,
}

impl Budget {
    /// A budget of `limit` bytes.
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(limit)))
    }

    /// Up to `most` bytes; fewer, or none, where others hold them. Never waits: what finds no room goes
    /// through the spool.
    pub(crate) fn take(self: &Arc<Self>, most: u64) -> Room {
        let mut bytes = 0;
        // The closure always gives a number, so this cannot fail.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                bytes = left.min(most);
                Some(left - bytes)
            });
        Room {
            budget: Some(self.clone()),
            bytes,
        }
    }
}

impl Room {
    /// No room at all.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// How many bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Gives back what is more than `used` bytes.
    pub(crate) fn keep(&mut self, used: u64) {
        self.give_back(self.bytes.saturating_sub(used));
    }

    fn give_back(&mut self, bytes: u64) {
        if let Some(budget) = &self.budget {
            budget.0.fetch_add(bytes, Ordering::Relaxed);
        }
        self.bytes -= bytes;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_held_than_the_limit_and_all_comes_back() {
        let budget = Budget::new(100);
        let mut first = budget.take(80);
        assert_eq!(first.bytes(), 80);
        assert_eq!(budget.take(80).bytes(), 20, "given back at once");
        let second = budget.take(80);
        assert_eq!((second.bytes(), budget.take(1).bytes()), (20, 0));
        first.keep(30);
        assert_eq!((first.bytes(), budget.take(60).bytes()), (30, 50));
        first.keep(40);
        assert_eq!(first.bytes(), 30, "never more than before");
        drop((first, second));
        assert_eq!(budget.take(1000).bytes(), 100);
        assert_eq!(Room::none().bytes(), 0);
    }
}
