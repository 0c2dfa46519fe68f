//! How long to wait before something is tried again.

use std::time::Duration;

use tokio::time::Instant;

/// A pause that doubles while something fails.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    pub(super) until: Instant,
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(30);

    pub(super) fn after(earlier: Option<Self>, now: Instant) -> Self {
        let pause = earlier.map_or(Self::FIRST, |earlier| earlier.next);
        let until = now + pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        Self {
            until,
            next: (pause * 2).min(Self::LONGEST),
        }
    }
}
