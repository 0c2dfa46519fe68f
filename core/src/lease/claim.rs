//! Asking an idle owner whether it lives, and answering.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use crate::error::{Error, ErrorKind, Result};
use crate::store::{Changed, ETag, Object, Put, PutOutcome, Store, claim_key};
use crate::types::KeyPrefix;

use super::record::{Claim, Holder, HolderId};

/// Challengers of one owner may overtake each other this often.
const ATTEMPTS: usize = 8;

/// A claim is read again so many times within the lease.
const READS: u32 = 6;

/// Whether the owner let the lease pass without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Silence {
    Yes,
    No,
}

/// Asks `owner`, and waits for `lease` at most. An answer to anybody, given since we asked, is an answer.
/// An error is no silence.
pub(super) async fn ask(
    store: &dyn Store,
    prefix: &KeyPrefix,
    owner: &HolderId,
    us: &Holder,
    lease: Duration,
) -> Result<Silence> {
    let key = claim_key(prefix, owner.as_str());
    let asked = put_question(store, &key, us).await?;
    let deadline = Instant::now() + lease;
    loop {
        let last = Instant::now() >= deadline;
        match read(store, &key).await? {
            Some((claim, _)) if claim.answers > asked => return Ok(Silence::No),
            Some(_) | None if last => return Ok(Silence::Yes),
            Some(_) | None => {}
        }
        let next = Instant::now() + (lease / READS).max(Duration::from_millis(10));
        tokio::time::sleep_until(next.min(deadline)).await;
    }
}

/// Puts our question in the place of what is there; gives the count of answers before it.
async fn put_question(store: &dyn Store, key: &str, us: &Holder) -> Result<u64> {
    for _ in 0..ATTEMPTS {
        let before = read(store, key).await?;
        let claim = Claim::ask(us, before.as_ref().map(|(claim, _)| claim));
        let how = match &before {
            None => Put::new_object(),
            Some((_, Some(etag))) => Put::over(etag.clone()),
            Some((_, None)) => Put::always(),
        };
        match store.put(key, claim.to_bytes()?, how).await? {
            PutOutcome::Stored { .. } => return Ok(claim.answers),
            PutOutcome::Refused { .. } => {}
        }
    }
    Err(Error::new(ErrorKind::Busy, "too many challengers at once").on(key))
}

async fn read(store: &dyn Store, key: &str) -> Result<Option<(Claim, Option<ETag>)>> {
    match store.get(key, None).await {
        Ok(object) => parse(key, object).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(key: &str, object: Object) -> Result<(Claim, Option<ETag>)> {
    let claim = Claim::from_bytes(&object.bytes).map_err(|error| error.on(key))?;
    Ok((claim, object.meta.etag))
}

/// What a poll found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nobody asks.
    Quiet,
    /// This challenger asked, and was told that we live.
    Given(String),
}

/// The owner's side: one a process and prefix, whatever the number of databases. To be polled every third
/// of a lease while any lease is held.
#[derive(Debug)]
pub struct Claims {
    store: Arc<dyn Store>,
    key: String,
    seen: Option<ETag>,
}

impl Claims {
    /// The claims upon `holder`.
    pub fn new(store: Arc<dyn Store>, prefix: &KeyPrefix, holder: &HolderId) -> Self {
        Self {
            store,
            key: claim_key(prefix, holder.as_str()),
            seen: None,
        }
    }

    /// Looks for a claim with one conditional GET, and answers it. Errors: those of the store; a claim
    /// that cannot be read is `Corrupt`, and stays unanswered.
    pub async fn poll(&mut self) -> Result<Answer> {
        for _ in 0..ATTEMPTS {
            let Some((claim, etag)) = self.changed().await? else {
                return Ok(Answer::Quiet);
            };
            if !claim.is_open() {
                self.seen = etag;
                return Ok(Answer::Quiet);
            }
            let name = claim.name.clone();
            let how = etag.map_or_else(Put::always, Put::over);
            if let PutOutcome::Stored { etag, .. } = self
                .store
                .put(&self.key, claim.answer().to_bytes()?, how)
                .await?
            {
                info!(challenger = name, "told a challenger that we live");
                self.seen = etag;
                return Ok(Answer::Given(name));
            }
            // Another challenger asked meanwhile: answer that one.
            self.seen = None;
        }
        Err(Error::new(ErrorKind::Busy, "too many challengers at once").on(&self.key))
    }

    async fn changed(&self) -> Result<Option<(Claim, Option<ETag>)>> {
        let Some(seen) = &self.seen else {
            return read(&*self.store, &self.key).await;
        };
        match self.store.get_if_changed(&self.key, seen).await? {
            Changed::Same(_) | Changed::Gone(_) => Ok(None),
            Changed::New(object) => parse(&self.key, object).map(Some),
        }
    }
}
