//! `[retention]`: what a compaction keeps.

use std::time::Duration;

use serde::{Serialize, Serializer};

use super::limits;
use super::section::Section;
use crate::error::{Error, ErrorKind, Result};

/// `[retention]`, or a database's own: what one source says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(
    missing_docs,
    reason = "the fields of `RetentionPolicy`, each as given"
)]
pub struct RetentionLayer {
    pub hourly: Option<u32>,
    pub daily: Option<u32>,
    pub weekly: Option<u32>,
    pub monthly: Option<u32>,
    pub points: Option<Duration>,
    pub minutes: Option<Duration>,
}

impl RetentionLayer {
    /// This layer on top of `lower`.
    #[must_use]
    pub fn over(self, lower: Self) -> Self {
        Self {
            hourly: self.hourly.or(lower.hourly),
            daily: self.daily.or(lower.daily),
            weekly: self.weekly.or(lower.weekly),
            monthly: self.monthly.or(lower.monthly),
            points: self.points.or(lower.points),
            minutes: self.minutes.or(lower.minutes),
        }
    }

    /// With the built-in defaults below. Errors: `Invalid` where no tier keeps anything.
    pub(super) fn finish(self) -> Result<RetentionPolicy> {
        let default = RetentionPolicy::default();
        let policy = RetentionPolicy {
            hourly: self.hourly.unwrap_or(default.hourly),
            daily: self.daily.unwrap_or(default.daily),
            weekly: self.weekly.unwrap_or(default.weekly),
            monthly: self.monthly.unwrap_or(default.monthly),
            points: self.points.unwrap_or(default.points),
            minutes: self.minutes.unwrap_or(default.minutes),
        };
        if policy.snapshots() == 0 {
            let message = "retention: hourly, daily, weekly and monthly are all 0";
            return Err(Error::new(ErrorKind::Invalid, message)
                .hint("keep at least one snapshot in one of them"));
        }
        Ok(policy)
    }

    /// Reads the keys of a table.
    pub(super) fn read(mut section: Section<'_, '_>) -> Self {
        let mut count = |key, most| {
            section.take(key, |value| {
                limits::retained(value.whole()?, most).map_err(|error| error.to_string())
            })
        };
        let layer = Self {
            hourly: count("hourly", limits::MOST_HOURLY),
            daily: count("daily", limits::MOST_DAILY),
            weekly: count("weekly", limits::MOST_WEEKLY),
            monthly: count("monthly", limits::MOST_MONTHLY),
            points: section.take("points", |value| value.duration()),
            minutes: section.take("minutes", |value| value.duration()),
        };
        section.finish();
        layer
    }
}

/// What a compaction keeps of one database's history.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct RetentionPolicy {
    /// Of so many of the newest UTC hours the newest snapshot each; 0 is off.
    pub hourly: u32,
    /// The same of UTC days.
    pub daily: u32,
    /// The same of ISO weeks.
    pub weekly: u32,
    /// The same of UTC months.
    pub monthly: u32,
    /// How long every restore point stays.
    #[serde(serialize_with = "seconds")]
    pub points: Duration,
    /// How long the last point of each minute stays; behind that it is the last of each hour, back to the
    /// oldest snapshot kept.
    #[serde(serialize_with = "seconds")]
    pub minutes: Duration,
}

pub(super) fn seconds<S: Serializer>(length: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(length.as_secs_f64())
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        Self {
            hourly: 24,
            daily: 7,
            weekly: 12,
            monthly: 12,
            points: Duration::from_secs(86_400),
            minutes: Duration::from_secs(7 * 86_400),
        }
    }
}

impl RetentionPolicy {
    /// The most snapshots that the tiers keep.
    pub fn snapshots(&self) -> u64 {
        [self.hourly, self.daily, self.weekly, self.monthly]
            .into_iter()
            .map(u64::from)
            .sum()
    }
}
