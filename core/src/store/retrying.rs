//! Trying again what may pass, and settling writes whose answer was lost.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use tracing::debug;

use crate::error::{Error, ErrorKind, Result};

use super::{
    Changed, Condition, ETag, ListPage, Meter, Object, ObjectMeta, Operation, Put, PutOutcome,
    RetryPolicy, StaleUpload, Store, Upload,
};

/// A store that tries again, with growing pauses, what is `Unavailable` or `Busy`. What is `Denied` or
/// `Exhausted` needs somebody's hands and minutes, so it goes up at once.
#[derive(Debug)]
pub struct Retrying<S> {
    store: S,
    policy: RetryPolicy,
    meter: Meter,
}

impl<S: Store> Retrying<S> {
    /// Tries again by `policy`.
    pub fn new(store: S, policy: RetryPolicy) -> Self {
        Self {
            store,
            policy,
            meter: Meter::default(),
        }
    }

    /// Counts repetitions into `meter`.
    #[must_use]
    pub fn counting(mut self, meter: Meter) -> Self {
        self.meter = meter;
        self
    }

    fn attempts(&self, operation: Operation) -> Attempts {
        Attempts::new(self.policy, self.meter.clone(), operation)
    }

    /// After a lost answer, a refused write may be our own: then the object holds our bytes.
    async fn settle(&self, key: &str, body: &Bytes, refused: PutOutcome) -> Result<PutOutcome> {
        let mut attempts = self.attempts(Operation::Get);
        let found = loop {
            match self.store.get(key, None).await {
                Ok(object) => break object,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(refused),
                Err(error) => attempts.pause_or_fail(error).await?,
            }
        };
        if found.bytes == *body {
            Ok(PutOutcome::Stored {
                etag: found.meta.etag,
                date: found.date,
            })
        } else {
            Ok(refused)
        }
    }
}

/// The pause before repetition `number` (from 1): doubling, then cut at the longest; `spread` in
/// `0.0..1.0` draws from its upper half, so that many clients do not come back together.
fn pause(policy: RetryPolicy, number: u32, spread: f64) -> Duration {
    let doubled = policy.shortest.saturating_mul(
        1_u32
            .checked_shl(number.saturating_sub(1))
            .unwrap_or(u32::MAX),
    );
    doubled.min(policy.longest).mul_f64(0.5 + spread / 2.0)
}

/// The attempts of one request.
struct Attempts {
    policy: RetryPolicy,
    meter: Meter,
    operation: Operation,
    started: Instant,
    repeated: u32,
}

impl Attempts {
    fn new(policy: RetryPolicy, meter: Meter, operation: Operation) -> Self {
        Self {
            policy,
            meter,
            operation,
            started: Instant::now(),
            repeated: 0,
        }
    }

    /// Waits for the next attempt, or gives the error back where there is none.
    async fn pause_or_fail(&mut self, error: Error) -> Result<()> {
        let passes = match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Busy => true,
            ErrorKind::Denied
            | ErrorKind::NotFound
            | ErrorKind::Exists
            | ErrorKind::Fenced
            | ErrorKind::Corrupt
            | ErrorKind::Invalid
            | ErrorKind::Unsupported
            | ErrorKind::Exhausted
            | ErrorKind::NotDurable
            | ErrorKind::Cancelled
            | ErrorKind::Internal => false,
        };
        let pause = pause(self.policy, self.repeated + 1, fastrand::f64());
        if !passes || self.started.elapsed() + pause > self.policy.limit {
            return Err(error);
        }
        self.repeated += 1;
        self.meter.retry(self.operation);
        debug!(op = self.operation.name(), attempt = self.repeated, %error, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

macro_rules! retry {
    ($attempts:expr, $call:expr) => {{
        let mut attempts = $attempts;
        loop {
            match $call.await {
                Ok(answer) => break Ok::<_, Error>(answer),
                Err(error) => attempts.pause_or_fail(error).await?,
            }
        }
    }};
}

#[async_trait]
impl<S: Store> Store for Retrying<S> {
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Object> {
        retry!(
            self.attempts(Operation::Get),
            self.store.get(key, range.clone())
        )
    }

    async fn get_if_changed(&self, key: &str, etag: &ETag) -> Result<Changed> {
        retry!(
            self.attempts(Operation::Get),
            self.store.get_if_changed(key, etag)
        )
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        retry!(self.attempts(Operation::Head), self.store.head(key))
    }

    async fn put(&self, key: &str, body: Bytes, how: Put) -> Result<PutOutcome> {
        let mut attempts = self.attempts(Operation::Put);
        loop {
            match self.store.put(key, body.clone(), how.clone()).await {
                Ok(PutOutcome::Refused { date })
                    if attempts.repeated > 0 && how.condition != Condition::Always =>
                {
                    return self.settle(key, &body, PutOutcome::Refused { date }).await;
                }
                Ok(outcome) => return Ok(outcome),
                Err(error) => attempts.pause_or_fail(error).await?,
            }
        }
    }

    async fn begin_upload(&self, key: &str, how: Put) -> Result<Box<dyn Upload>> {
        let upload = retry!(
            self.attempts(Operation::BeginUpload),
            self.store.begin_upload(key, how.clone())
        )?;
        Ok(Box::new(RetryingUpload {
            upload,
            policy: self.policy,
            meter: self.meter.clone(),
        }))
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage> {
        retry!(
            self.attempts(Operation::List),
            self.store.list(prefix, after)
        )
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        retry!(
            self.attempts(Operation::List),
            self.store.list_folders(prefix)
        )
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<(String, Error)>> {
        retry!(self.attempts(Operation::Delete), self.store.delete(keys))
    }

    async fn stale_uploads(&self, prefix: &str) -> Result<Vec<StaleUpload>> {
        retry!(
            self.attempts(Operation::List),
            self.store.stale_uploads(prefix)
        )
    }

    async fn abort_upload(&self, upload: &StaleUpload) -> Result<()> {
        retry!(
            self.attempts(Operation::Abort),
            self.store.abort_upload(upload)
        )
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

#[derive(Debug)]
struct RetryingUpload {
    upload: Box<dyn Upload>,
    policy: RetryPolicy,
    meter: Meter,
}

impl RetryingUpload {
    fn attempts(&self, operation: Operation) -> Attempts {
        Attempts::new(self.policy, self.meter.clone(), operation)
    }
}

#[async_trait]
impl Upload for RetryingUpload {
    async fn part(&mut self, bytes: Bytes) -> Result<()> {
        retry!(
            self.attempts(Operation::Part),
            self.upload.part(bytes.clone())
        )
    }

    async fn complete(&mut self) -> Result<PutOutcome> {
        // Whether a refusal is the echo of our own lost answer, the upload itself finds out.
        retry!(self.attempts(Operation::Complete), self.upload.complete())
    }

    /// Once: who aborts will not wait, and the parts are found as stale later.
    async fn abort(self: Box<Self>) -> Result<()> {
        self.upload.abort().await
    }
}
