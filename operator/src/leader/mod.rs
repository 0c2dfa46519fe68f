//! Which operator works: a `Lease` in the operator's namespace, held by one at a time.
//!
//! # Invariants
//! * A lease is expired when its record has not changed for its duration *as seen by us*: clocks of nodes are never compared.
//! * Whoever leads renews well before the end, and stops by its own monotonic clock: [`Tenure::valid`] turns false before anybody
//!   else may begin, also if this process was stopped meanwhile. [`fence::Fence`] asks it before each write.
//! * A lost lease ends the process; it never stands again.

pub mod fence;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long a silent leader keeps the lease. Takeover after a crash is at most this and [`RETRY`] away.
pub const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for so long gives up, 5 s before anybody else may begin.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often the leader renews, and the others look.
pub const RETRY: Duration = Duration::from_secs(2);

/// Until when this process leads; shared with whatever may only be done by a leader.
#[derive(Clone, Debug)]
pub struct Tenure {
    start: Instant,
    /// Milliseconds after `start`; 0 is never.
    until: Arc<AtomicU64>,
}

impl Default for Tenure {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            until: Arc::default(),
        }
    }
}

impl Tenure {
    /// Whether this process leads at this moment.
    pub fn valid(&self) -> bool {
        self.start.elapsed() < Duration::from_millis(self.until.load(Ordering::SeqCst))
    }

    /// Leads for `RENEW_DEADLINE` from `asked`, the moment before the renewal was sent.
    fn extend(&self, asked: Instant) {
        let end = asked.saturating_duration_since(self.start) + RENEW_DEADLINE;
        let millis = u64::try_from(end.as_millis()).unwrap_or(u64::MAX);
        self.until.store(millis, Ordering::SeqCst);
    }

    fn end(&self) {
        self.until.store(0, Ordering::SeqCst);
    }
}

/// What to do about the lease as it is.
#[derive(Debug, PartialEq)]
enum Move {
    /// There is none.
    Create(LeaseSpec),
    /// It is ours, or nobody's any more.
    Replace(LeaseSpec),
    /// Somebody else holds it.
    Wait,
}

/// Decides. `unchanged` is for how long we have seen this very record.
fn decide(lease: Option<&LeaseSpec>, identity: &str, unchanged: Duration, now: Timestamp) -> Move {
    let seconds = i32::try_from(DURATION.as_secs()).unwrap_or(i32::MAX);
    let ours = |transitions: i32, acquired: Option<MicroTime>| LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        lease_duration_seconds: Some(seconds),
        acquire_time: acquired.or(Some(MicroTime(now))),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions),
        ..LeaseSpec::default()
    };
    let Some(lease) = lease else {
        return Move::Create(ours(0, None));
    };
    let transitions = lease.lease_transitions.unwrap_or_default();
    let holder = lease.holder_identity.as_deref().unwrap_or_default();
    if holder == identity {
        return Move::Replace(ours(transitions, lease.acquire_time.clone()));
    }
    let length = lease.lease_duration_seconds.unwrap_or_default();
    let length = Duration::from_secs(u64::try_from(length).unwrap_or_default());
    match holder.is_empty() || unchanged > length {
        true => Move::Replace(ours(transitions.saturating_add(1), None)),
        false => Move::Wait,
    }
}

/// Why an operator does not lead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refuses us, which waiting does not change.
    #[error("lease {name}")]
    Refused {
        /// Of the lease.
        name: String,
        /// What it said.
        source: kube::Error,
    },
    /// Somebody else leads, or we could not renew in time.
    #[error("lost lease {name}")]
    Lost {
        /// Of the lease.
        name: String,
    },
}

/// One process' part in the election.
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
    tenure: Tenure,
    /// The record as last seen, and since when it is this one.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Election {
    /// For the lease `name`; `identity` differs from process to process, also between two runs in one pod.
    pub fn new(api: Api<Lease>, name: String, identity: String) -> Self {
        Self {
            api,
            name,
            identity,
            tenure: Tenure::default(),
            seen: None,
        }
    }

    /// Until when this process leads.
    pub fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }

    /// Waits until this process leads, or `stop`; tells which.
    ///
    /// # Errors
    /// [`Error::Refused`] where waiting would not help.
    pub async fn acquire(&mut self, stop: &CancellationToken) -> Result<bool, Error> {
        loop {
            match self.step().await {
                Ok(true) => {
                    info!(lease = %self.name, identity = %self.identity, "leading");
                    return Ok(true);
                }
                Ok(false) => {}
                Err(source) if is_final(&source) => {
                    let name = self.name.clone();
                    return Err(Error::Refused { name, source });
                }
                Err(error) => warn!(lease = %self.name, %error, "lease"),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(false),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Renews until `stop`, then gives the lease back.
    ///
    /// # Errors
    /// [`Error::Lost`]: what only a leader may do must have ended by now; the process is to end.
    pub async fn hold(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(RETRY) => {}
            }
            // Looked at first: a process that was stopped for long must not renew what it may have lost.
            let renewed = self.tenure.valid()
                && match self.step().await {
                    Ok(ours) => ours,
                    Err(error) => {
                        warn!(lease = %self.name, %error, "not renewed");
                        self.tenure.valid()
                    }
                };
            if !renewed {
                self.tenure.end();
                return Err(Error::Lost {
                    name: self.name.clone(),
                });
            }
        }
        self.release().await;
        Ok(())
    }

    /// Looks at the lease, and takes or renews it where it may be ours. Tells whether it is.
    async fn step(&mut self) -> Result<bool, kube::Error> {
        let asked = Instant::now();
        let lease = tokio::time::timeout(RETRY * 2, self.api.get_opt(&self.name));
        let lease = lease.await.map_err(|_| timed_out())??;
        let spec = lease
            .as_ref()
            .map(|lease| lease.spec.clone().unwrap_or_default());
        let unchanged = self.unchanged(spec.as_ref());
        let next = decide(spec.as_ref(), &self.identity, unchanged, crate::now());
        let (spec, create) = match next {
            Move::Wait => return Ok(false),
            Move::Create(spec) => (spec, true),
            Move::Replace(spec) => (spec, false),
        };
        // The version that we looked at: whoever writes in between wins.
        let version = lease.and_then(|lease| lease.metadata.resource_version);
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: version,
                ..ObjectMeta::default()
            },
            spec: Some(spec),
        };
        let params = PostParams::default();
        let write = async {
            match create {
                true => self.api.create(&params, &lease).await,
                false => self.api.replace(&self.name, &params, &lease).await,
            }
        };
        let written = tokio::time::timeout(RETRY * 2, write).await;
        match written.map_err(|_| timed_out())? {
            Ok(_) => {
                self.tenure.extend(asked);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// For how long we have seen this record.
    fn unchanged(&mut self, spec: Option<&LeaseSpec>) -> Duration {
        let now = Instant::now();
        match (&self.seen, spec) {
            (Some((seen, since)), Some(spec)) if seen == spec => now.duration_since(*since),
            (_, spec) => {
                self.seen = spec.map(|spec| (spec.clone(), now));
                Duration::ZERO
            }
        }
    }

    /// Lets the next one begin at once. What fails here ends by itself.
    async fn release(&mut self) {
        self.tenure.end();
        let released = async {
            let mut lease = self.api.get(&self.name).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            let params = PostParams::default();
            self.api
                .replace(&self.name, &params, &lease)
                .await
                .map(drop)
        };
        match tokio::time::timeout(RETRY, released).await {
            Ok(Ok(())) => info!(lease = %self.name, "released"),
            Ok(Err(error)) => warn!(lease = %self.name, %error, "not released"),
            Err(_) => warn!(lease = %self.name, "not released: no answer"),
        }
    }
}

/// A right that is missing does not come by waiting.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_forbidden())
}

fn timed_out() -> kube::Error {
    kube::Error::Service("no answer in time".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            lease_transitions: Some(3),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_is_free_or_stood_still_for_its_length() {
        let now = crate::now();
        let holder = |next: Move| match next {
            Move::Create(spec) | Move::Replace(spec) => {
                (spec.holder_identity, spec.lease_transitions)
            }
            Move::Wait => (None, None),
        };
        let me = || Some("me".to_owned());
        let seconds = Duration::from_secs;
        let free = LeaseSpec {
            holder_identity: Some(String::new()),
            ..held_by("")
        };
        for (lease, unchanged, wanted) in [
            (None, seconds(0), (me(), Some(0))),
            (Some(held_by("me")), seconds(0), (me(), Some(3))),
            (Some(held_by("other")), seconds(0), (None, None)),
            (Some(held_by("other")), seconds(15), (None, None)),
            (Some(held_by("other")), seconds(16), (me(), Some(4))),
            (Some(free), seconds(0), (me(), Some(4))),
        ] {
            assert_eq!(holder(decide(lease.as_ref(), "me", unchanged, now)), wanted);
        }
    }

    #[test]
    fn a_tenure_ends_by_the_own_clock() {
        let tenure = Tenure::default();
        assert!(!tenure.valid());
        tenure.extend(Instant::now());
        assert!(tenure.valid());
        let long_ago = Instant::now().checked_sub(RENEW_DEADLINE);
        if let Some(asked) = long_ago {
            let old = Tenure {
                start: asked,
                until: Arc::default(),
            };
            old.extend(asked);
            assert!(!old.valid());
        }
        tenure.end();
        assert!(!tenure.valid());
    }
}
