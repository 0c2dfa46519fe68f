//! When to look next: once in each interval, and soon after the source's files appear.
//!
//! A source under sustained writing stores a file in each of its own intervals. Looked at without regard to that, a
//! file is found half an interval late on average. So while each look finds news, each comes a little sooner than
//! an interval after the one before, until one finds nothing: the next file is about to appear. That one is looked
//! for again shortly after, and the steps become smaller. No clock is compared, and a source that stores nothing,
//! or now and then, is looked at once in each interval.

use std::time::Duration;

/// The first step, as a part of the interval; each look that came too early halves it.
const FIRST_STEP: f64 = 0.2;
/// The last step.
const LAST_STEP: f64 = 0.01;
/// The next look after one that came too early: this part of the interval later, and no less than the step.
const AGAIN: f64 = 0.06;
/// How often one file is looked for again before the source counts as quiet.
const TRIES: u32 = 3;
/// Looks in a row that must find news before the source counts as steady: at first, and at most after it turned
/// out not to be.
const STEADY: (u32, u32) = (2, 32);
/// How much of the difference between the source's pace and ours is taken over at a time: single files are late
/// by chance.
const LEARN: f64 = 0.1;
/// The slowest pace that is followed, in intervals.
const SLOWEST: f64 = 1.1;

/// The state between two looks. Times are parts of the interval.
#[derive(Clone, Debug)]
pub(super) struct Rhythm {
    interval: Duration,
    /// From one look that finds news to the next, but for the step.
    pace: f64,
    step: f64,
    /// How far the looks have come forward since one found nothing.
    forward: f64,
    /// Looks in a row that found news, those that came too early left out.
    found: u32,
    /// How many of those make the source steady.
    steady: u32,
    /// How often the present file was looked for in vain.
    tries: u32,
    /// Since a file was met as it appeared: the time, and the looks that found news.
    edge: Option<(f64, u32)>,
}

impl Rhythm {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            pace: 1.0,
            step: FIRST_STEP,
            forward: 0.0,
            found: 0,
            steady: STEADY.0,
            tries: 0,
            edge: None,
        }
    }

    /// The time from the start of a look to the next, where the look found news or not.
    pub(super) fn next(&mut self, news: bool) -> Duration {
        let part = match (news, self.tries) {
            (true, 0) => self.sooner(),
            (true, _) => self.met(),
            (false, tries) if self.found >= self.steady && tries < TRIES => self.again(),
            (false, _) => self.quiet(),
        };
        if let Some((since, _)) = &mut self.edge {
            *since += part;
        }
        self.interval.mul_f64(part)
    }

    fn sooner(&mut self) -> f64 {
        self.found = self.found.saturating_add(1);
        if let Some((_, files)) = &mut self.edge {
            *files += 1;
        }
        // A whole interval forward and always news: files come more often than looks.
        if self.found < self.steady || self.forward >= 1.0 {
            return self.pace;
        }
        self.forward += self.step;
        self.pace - self.step
    }

    /// The look comes just after the file: to come sooner at once would only miss again.
    fn met(&mut self) -> f64 {
        self.found = self.found.saturating_add(1);
        if let Some((since, files)) = self.edge {
            let seen = since / f64::from(files + 1);
            self.pace = (self.pace + LEARN * (seen - self.pace)).clamp(1.0, SLOWEST);
        }
        self.edge = Some((0.0, 0));
        self.steady = STEADY.0;
        self.tries = 0;
        self.pace
    }

    fn again(&mut self) -> f64 {
        if self.tries == 0 {
            self.step = (self.step / 2.0).max(LAST_STEP);
            self.forward = 0.0;
        }
        self.tries += 1;
        AGAIN.max(self.step)
    }

    fn quiet(&mut self) -> f64 {
        let steady = match self.tries {
            0 => self.steady,
            _ => (self.steady * 2).min(STEADY.1),
        };
        *self = Self {
            steady,
            ..Self::new(self.interval)
        };
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that stores a file every `period`, give or take `jitter` of it; gives how late files are found on
    /// average, and how often is looked in each interval, both as parts of the interval.
    fn follow(period: f64, jitter: f64, seed: u64, looks: usize) -> (f64, f64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut rhythm = Rhythm::new(Duration::from_secs(1));
        let (mut now, mut next_file, mut late, mut files, mut settled) = (0.0, 0.3, 0.0, 0, 0.0);
        for look in 0..looks {
            let mut news = false;
            while next_file <= now {
                news = true;
                if look >= 40 {
                    late += now - next_file;
                    files += 1;
                }
                next_file += period * (1.0 + jitter * (random.f64() - 0.5));
            }
            if look == 40 {
                settled = now;
            }
            now += rhythm.next(news).as_secs_f64();
        }
        (
            late / f64::from(files.max(1)),
            (looks - 40) as f64 / (now - settled),
        )
    }

    #[test]
    fn a_steady_source_is_looked_at_just_after_its_files() {
        for seed in 0..20 {
            for (period, jitter) in [(1.0, 0.0), (1.0, 0.02), (1.005, 0.01), (1.05, 0.01)] {
                let (late, looks) = follow(period, jitter, seed, 400);
                assert!(late < 0.08, "{period} {jitter}: {late}");
                assert!(looks < 1.2, "{period} {jitter}: {looks}");
            }
        }
    }

    #[test]
    fn a_source_of_another_pace_costs_few_more_looks() {
        for seed in 0..20 {
            for period in [0.2, 0.5, 0.93, 1.02, 1.3, 2.0, 3.7, 10.0] {
                let (late, looks) = follow(period, 0.1, seed, 400);
                assert!(late < 0.75, "{period}: {late}");
                assert!(looks < 1.1, "{period}: {looks}");
            }
        }
    }

    #[test]
    fn a_quiet_source_is_looked_at_once_in_each_interval() {
        let second = Duration::from_secs(1);
        let mut rhythm = Rhythm::new(second);
        for _ in 0..10 {
            assert_eq!(rhythm.next(false), second);
        }
        // One commit now and then changes nothing.
        assert_eq!(rhythm.next(true), second);
        assert_eq!(rhythm.next(false), second);
        // After the last file of many it is looked for a few times, then no longer.
        for _ in 0..5 {
            rhythm.next(true);
        }
        let soon = (0..10).filter(|_| rhythm.next(false) < second).count();
        assert_eq!(soon, TRIES as usize);
    }
}
