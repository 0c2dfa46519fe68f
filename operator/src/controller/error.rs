//! What can go wrong with a pass over a resource, and when to try again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::shelf::Group;

/// Why a pass did not reach its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server did not do what was asked.
    #[error("{verb} {object}")]
    Api {
        /// What was asked.
        verb: &'static str,
        /// Of what: kind and name.
        object: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// An object of that name belongs to somebody else.
    #[error("{object} is there already and belongs to somebody else: delete or rename it")]
    NameTaken {
        /// Kind and name.
        object: String,
    },
    /// The resource is none that was read from a cluster.
    #[error("the resource has no {0}")]
    Incomplete(&'static str),
}

/// What an error means.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Kind {
    /// Somebody wrote in between: look again at once.
    Conflict,
    /// The API server refuses the object.
    Invalid,
    /// The API server does not let us.
    Refused,
    /// It does not answer.
    Api,
    /// The name belongs to somebody else.
    NameTaken,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 5] = [
        Self::Conflict,
        Self::Invalid,
        Self::Refused,
        Self::Api,
        Self::NameTaken,
    ];

    /// The word in metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::Api => "api",
            Self::NameTaken => "name_taken",
        }
    }
}

impl Error {
    pub(super) fn api(
        verb: &'static str,
        object: impl Into<String>,
    ) -> impl FnOnce(kube::Error) -> Self {
        let object = object.into();
        move |source| Self::Api {
            verb,
            object,
            source: Box::new(source),
        }
    }

    /// What it means.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::NameTaken { .. } | Self::Incomplete(_) => Kind::NameTaken,
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.is_conflict() => Kind::Conflict,
                kube::Error::Api(status) if status.is_invalid() || status.code == 400 => {
                    Kind::Invalid
                }
                kube::Error::Api(status) if status.is_forbidden() => Kind::Refused,
                _ => Kind::Api,
            },
        }
    }

    /// The error and what is behind it, in one line for a status.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => format!("{self}: {}", status.message),
                other => format!("{self}: {other}"),
            },
            Self::NameTaken { .. } | Self::Incomplete(_) => self.to_string(),
        }
    }
}

/// The first wait after an error; each further one doubles it.
const FIRST: Duration = Duration::from_secs(2);
/// The longest wait: what was mended is picked up within this.
const LONGEST: Duration = Duration::from_secs(300);

/// How often each resource failed in a row. As many as there are resources, at most.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: Mutex<HashMap<Group, u32>>,
}

impl Backoff {
    /// When to look at `group` again after an error of `kind`.
    pub(super) fn failed(&self, group: Group, kind: Kind) -> Duration {
        if kind == Kind::Conflict {
            return Duration::from_secs(1);
        }
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(group).or_default();
        *count = count.saturating_add(1);
        jittered(wait(*count))
    }

    /// Forgets the failures of `group`.
    pub(super) fn went_well(&self, group: &Group) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(group);
    }
}

fn wait(count: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(count.saturating_sub(1));
    FIRST.saturating_mul(doubled).min(LONGEST)
}

/// Between three quarters and all of `wait`, so that many do not come back at once.
pub(super) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 - fastrand::f64() / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_begin_anew_after_success() {
        let seconds: Vec<u64> = [1, 2, 3, 8, 9, 100]
            .into_iter()
            .map(|count| wait(count).as_secs())
            .collect();
        assert_eq!(seconds, [2, 4, 8, 256, 300, 300]);
        let backoff = Backoff::default();
        let group = || Group {
            namespace: "apps".to_owned(),
            name: "notes".to_owned(),
        };
        for _ in 0..20 {
            backoff.failed(group(), Kind::Api);
        }
        assert!(backoff.failed(group(), Kind::Api) > Duration::from_secs(200));
        backoff.went_well(&group());
        assert!(backoff.failed(group(), Kind::Api) <= FIRST);
    }
}
