//! When certificates are made, and in which order they are used: a pure function of what there is and the time.
//!
//! | what there is | step |
//! |---|---|
//! | nothing, or nothing readable | a new authority and what it signs |
//! | an authority in the last third of its life | the next one is made, and becomes known beside it |
//! | the next one has been known for long enough | it signs from now on; the one before stays known |
//! | a certificate in its last third, of another authority, or for other names | a new one |

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use walrust_core::types::Timestamp;

use super::certificates::{self, CertificateError, Facts, Pair};

/// How long certificates live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lifetimes {
    /// An authority.
    pub authority: Duration,
    /// A certificate.
    pub leaf: Duration,
    /// How long an authority is known before it signs: until every API server has heard of it.
    pub settle: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            authority: Duration::from_secs(365 * DAY),
            leaf: Duration::from_secs(30 * DAY),
            settle: Duration::from_secs(60),
        }
    }
}

/// All that the Secret holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// Who signs.
    pub authority: Pair,
    /// Who will sign next.
    pub next: Option<Pair>,
    /// Who signed before: only the certificate.
    pub previous: Option<String>,
    /// What is served.
    pub leaf: Pair,
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Begin.
    Create,
    /// Make the next authority.
    Prepare,
    /// Let the next authority sign.
    Promote,
    /// Make a new certificate.
    Renew,
    /// Nothing for so long.
    Wait(Duration),
}

/// The longest time from one look to the next: so long a Secret may be gone that somebody deleted.
const LOOK: Duration = Duration::from_secs(60);

impl State {
    /// The authorities that the API server shall know, in PEM.
    pub fn bundle(&self) -> String {
        let next = self.next.as_ref().map(|next| next.certificate.as_str());
        let all = [
            Some(self.authority.certificate.as_str()),
            next,
            self.previous.as_deref(),
        ];
        let lines = all
            .into_iter()
            .flatten()
            .map(|pem| pem.trim_end().to_owned() + "\n");
        lines.collect()
    }

    /// What the data of a Secret says; none where a part is missing.
    pub fn of(data: &BTreeMap<String, ByteString>) -> Option<Self> {
        let text = |key: &str| {
            String::from_utf8(data.get(key)?.0.clone())
                .ok()
                .filter(|text| !text.is_empty())
        };
        let pair = |certificate: &str, key: &str| {
            Some(Pair {
                certificate: text(certificate)?,
                key: text(key)?,
            })
        };
        Some(Self {
            authority: pair("ca.crt", "ca.key")?,
            next: pair("ca-next.crt", "ca-next.key"),
            previous: text("ca-previous.crt"),
            leaf: pair("tls.crt", "tls.key")?,
        })
    }

    /// The data of a Secret. What is not there is empty: an applied field that is left out would stay with others.
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let next = self.next.as_ref();
        let entries = [
            ("ca.crt", Some(&self.authority.certificate)),
            ("ca.key", Some(&self.authority.key)),
            ("ca-next.crt", next.map(|next| &next.certificate)),
            ("ca-next.key", next.map(|next| &next.key)),
            ("ca-previous.crt", self.previous.as_ref()),
            ("tls.crt", Some(&self.leaf.certificate)),
            ("tls.key", Some(&self.leaf.key)),
        ];
        let entries = entries.into_iter().map(|(key, text)| {
            let bytes = text
                .map(|text| text.clone().into_bytes())
                .unwrap_or_default();
            (key.to_owned(), ByteString(bytes))
        });
        entries.collect()
    }
}

/// What to do next. `known_for` is how long the API server has known the whole bundle.
pub fn next_step(
    state: Option<&State>,
    names: &[String],
    lifetimes: Lifetimes,
    now: Timestamp,
    known_for: Duration,
) -> Step {
    let Some(state) = state else {
        return Step::Create;
    };
    let facts = (
        Facts::of(&state.authority.certificate),
        Facts::of(&state.leaf.certificate),
    );
    let (Ok(authority), Ok(leaf)) = facts else {
        return Step::Create;
    };
    let now = now.millis().div_euclid(1_000);
    if authority.ends <= now {
        // Nothing that it signed is taken any more.
        return Step::Create;
    }
    match &state.next {
        None if is_old(&authority, now) => return Step::Prepare,
        Some(next) if Facts::of(&next.certificate).is_err() => return Step::Prepare,
        Some(_) if known_for >= lifetimes.settle => return Step::Promote,
        None | Some(_) => {}
    }
    let fits =
        leaf.issuer == authority.subject && names.iter().all(|name| leaf.names.contains(name));
    if !fits || is_old(&leaf, now) {
        return Step::Renew;
    }
    match state.next {
        Some(_) => Step::Wait(lifetimes.settle.saturating_sub(known_for).min(LOOK)),
        None => Step::Wait(until(&authority, now).min(until(&leaf, now)).min(LOOK)),
    }
}

/// The time from which on it is in its last third.
fn last_third(facts: &Facts) -> i64 {
    facts.ends - (facts.ends - facts.begins) / 3
}

fn is_old(facts: &Facts, now: i64) -> bool {
    now >= last_third(facts)
}

fn until(facts: &Facts, now: i64) -> Duration {
    let seconds = u64::try_from(last_third(facts) - now).unwrap_or_default();
    Duration::from_secs(seconds.max(1))
}

/// The state after `step`.
///
/// # Errors
/// Where a certificate cannot be made.
pub fn after(
    step: Step,
    state: Option<State>,
    names: &[String],
    lifetimes: Lifetimes,
    now: Timestamp,
) -> Result<State, CertificateError> {
    let signed = |authority: &Pair| certificates::leaf(authority, names, now, lifetimes.leaf);
    match (step, state) {
        (Step::Wait(_), Some(state)) => Ok(state),
        (Step::Prepare, Some(state)) => Ok(State {
            next: Some(certificates::authority(now, lifetimes.authority)?),
            ..state
        }),
        (
            Step::Promote,
            Some(State {
                authority,
                next: Some(next),
                ..
            }),
        ) => Ok(State {
            leaf: signed(&next)?,
            authority: next,
            next: None,
            previous: Some(authority.certificate),
        }),
        (Step::Renew, Some(state)) => Ok(State {
            leaf: signed(&state.authority)?,
            ..state
        }),
        (Step::Create | Step::Promote, _) | (_, None) => {
            let authority = certificates::authority(now, lifetimes.authority)?;
            Ok(State {
                leaf: signed(&authority)?,
                authority,
                next: None,
                previous: None,
            })
        }
    }
}
