//! How far behind each database was over the last hour: the highest lag of each minute.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use walrust_core::serve::StatusReport;
use walrust_core::types::{DatabaseName, Timestamp};

/// How often it is looked: a lag that lasts shorter is nobody's worry.
pub(crate) const LOOK: Duration = Duration::from_secs(15);

/// Minutes that are kept.
pub(crate) const MINUTES: usize = 60;

/// The lags of all databases: 240 bytes each.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Minutes>);

#[derive(Debug, Default)]
struct Minutes {
    /// The running minute since 1970.
    now: i64,
    lags: HashMap<DatabaseName, VecDeque<f32>>,
}

impl History {
    /// Takes down the lags of `report` at `now`; forgets the databases that it no longer names.
    pub(crate) fn note(&self, report: &StatusReport, now: Timestamp) {
        let mut minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = now.millis().div_euclid(60_000);
        // A clock that was set back goes on in the minute that was.
        let passed = usize::try_from(minute - minutes.now)
            .unwrap_or(0)
            .min(MINUTES);
        minutes.now = minutes.now.max(minute);
        let named = |name: &DatabaseName| report.databases.iter().any(|one| one.name == *name);
        minutes.lags.retain(|name, _| named(name));
        for database in &report.databases {
            let lags = minutes.lags.entry(database.name.clone()).or_default();
            let lag = database.lag_seconds as f32;
            let last = lags.back().copied();
            match last.filter(|_| passed == 0) {
                Some(highest) => {
                    lags.pop_back();
                    lags.push_back(highest.max(lag));
                }
                None => {
                    // Nobody looked in between: as it is now.
                    let new = if last.is_some() { passed } else { 1 };
                    lags.extend(std::iter::repeat_n(lag, new));
                }
            }
            let surplus = lags.len().saturating_sub(MINUTES);
            lags.drain(..surplus);
        }
    }

    /// The highest lag of each minute in seconds, the oldest first; at most [`MINUTES`].
    pub(crate) fn of(&self, name: &DatabaseName) -> Vec<f32> {
        let minutes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lags = minutes.lags.get(name);
        lags.map(|lags| lags.iter().copied().collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::report;

    #[test]
    fn each_minute_keeps_its_highest_lag_for_an_hour() {
        let history = History::default();
        let name = "a.db".parse().unwrap();
        let note = |lag: f64, seconds: i64| {
            let mut report = report(&["a.db"]);
            report.databases[0].lag_seconds = lag;
            history.note(&report, Timestamp::from_millis(6_000_000 + seconds * 1000));
            history.of(&name)
        };
        assert_eq!(note(1.0, 0), [1.0]);
        assert_eq!(note(3.0, 15), [3.0]);
        assert_eq!(note(2.0, 30), [3.0]);
        assert_eq!(note(0.0, 60), [3.0, 0.0]);
        assert_eq!(note(5.0, 30), [3.0, 5.0], "the clock was set back");
        assert_eq!(note(0.5, 180), [3.0, 5.0, 0.5, 0.5]);
        assert_eq!(note(7.0, 86_400), vec![7.0; 60]);
        history.note(&report(&["b.db"]), Timestamp::from_millis(99_000_000));
        assert_eq!(history.of(&name), [0.0_f32; 0]);
    }
}
