//! A pause that doubles with each use.

use std::time::Duration;

use tokio::time::Instant;

/// How long to leave alone what was tried.
#[derive(Debug)]
pub(super) struct Backoff {
    /// The shortest and the longest pause.
    bounds: (Duration, Duration),
    pause: Duration,
    until: Option<Instant>,
}

impl Backoff {
    /// Not used yet: there is no pause.
    pub(super) fn new(bounds: (Duration, Duration)) -> Self {
        Self {
            bounds,
            pause: bounds.0,
            until: None,
        }
    }

    /// How long to wait yet.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// Once more, now.
    pub(super) fn used(&mut self, now: Instant) {
        let (shortest, longest) = self.bounds;
        // After as long a rest as there is, all is forgotten.
        if self.until.is_some_and(|until| now > until + longest) {
            self.pause = shortest;
        }
        self.until = Some(now + self.pause);
        self.pause = (self.pause * 2).min(longest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_twice_the_last_up_to_the_longest_and_a_long_rest_begins_anew() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new((seconds(10), seconds(60)));
        let mut now = Instant::now();
        assert_eq!(backoff.left(now), Duration::ZERO);
        for pause in [10, 20, 40, 60, 60] {
            backoff.used(now);
            assert_eq!(backoff.left(now), seconds(pause));
            now += seconds(pause);
            assert_eq!(backoff.left(now), Duration::ZERO);
        }
        now += seconds(61);
        backoff.used(now);
        assert_eq!(backoff.left(now), seconds(10));
    }
}
