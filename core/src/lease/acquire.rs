//! Taking the lease.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{ETag, Layout, Put, PutOutcome, Store};
use crate::types::Timestamp;

use super::claim::{self, Silence};
use super::held::{Lease, Parts, Protection};
use super::judge::{
    self, Ground, Known, LeasePolicy, Mode, Moment, RECHECK, Seen, Verdict, judge, next_stream,
};
use super::probe;
use super::record::{Holder, Record};

/// How long a store without conditional writes is given before our lease must still stand there.
const UNFENCED_PAUSE: Duration = Duration::from_secs(2);

/// The answer to [`Lease::acquire`].
#[derive(Debug)]
pub enum Acquired {
    /// The lease is ours.
    Held(Box<Lease>),
    /// Somebody else writes.
    HeldElsewhere(Owner),
}

/// Who holds a lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// For people: a pod or a host; empty where objects appear and no lease tells whose.
    pub name: String,
    /// Since when, by the store's clock.
    pub since: Option<Timestamp>,
    /// Its turn.
    pub epoch: Option<u32>,
    /// When asking again may help.
    pub retry_after: Duration,
}

impl Owner {
    pub(super) fn new(record: Option<&Record>, retry_after: Duration) -> Self {
        Self {
            name: record.map_or_else(String::new, |record| record.holder.name.clone()),
            since: record.map(|record| record.since),
            epoch: record.map(|record| record.epoch.get()),
            retry_after,
        }
    }

    /// The error for who must not write now.
    pub fn into_error(self, layout: &Layout) -> Error {
        let name = if self.name.is_empty() {
            "somebody without a lease"
        } else {
            &self.name
        };
        let message = match self.since {
            Some(since) => format!("{name} writes this stream since {since}"),
            None => format!("{name} writes this stream"),
        };
        Error::new(ErrorKind::Fenced, message).on(layout.name())
    }
}

/// The lease as it stands in the store.
#[derive(Debug)]
struct Found {
    record: Record,
    etag: Option<ETag>,
    modified: Timestamp,
}

/// The last incremental: its key tells whether another one came.
type Newest = Option<(String, Timestamp)>;

/// One attempt to take the lease.
struct Bid<'a> {
    store: Arc<dyn Store>,
    layout: &'a Layout,
    holder: &'a Holder,
    policy: &'a LeasePolicy,
    known: Option<Known>,
    clock: &'a Clock,
}

impl Lease {
    /// Takes the lease of a stream if that is lawful. May wait one lease where an idle owner is asked
    /// first, and [`RECHECK`] where the old owner wrote to the last. Then list, adopt the head, write.
    ///
    /// `known` is what the state directory tells of the stream; the lock in `holder` is that directory's.
    /// Errors: `Corrupt` and `Unsupported` for a lease that cannot be read; those of the store.
    ///
    /// Dropping the future may leave the lease taken; the same holder then has it again at once.
    pub async fn acquire(
        store: Arc<dyn Store>,
        layout: &Layout,
        holder: &Holder,
        policy: &LeasePolicy,
        known: Option<Known>,
        clock: &Clock,
    ) -> Result<Acquired> {
        let bid = Bid {
            store,
            layout,
            holder,
            policy,
            known,
            clock,
        };
        match policy.mode {
            Mode::Off => bid
                .without_lease()
                .map(|lease| Acquired::Held(Box::new(lease))),
            Mode::Enforce | Mode::Observe => bid.run().await,
        }
    }
}

impl Bid<'_> {
    fn without_lease(&self) -> Result<Lease> {
        let record = self.record(None, self.clock.now())?;
        let looked = Moment::now(self.clock);
        Ok(self.lease(record, None, Ground::Observed, Protection::Off, looked))
    }

    async fn run(&self) -> Result<Acquired> {
        let (found, date) = self.read().await?;
        let (newest, later) = self.newest(found.as_ref()).await?;
        let now = later.or(date).unwrap_or_else(|| self.clock.now());
        let record = found.as_ref().map(|found| &found.record);
        let objects = newest.as_ref().map(|(_, modified)| *modified);
        let lease = found.as_ref().map(|found| found.modified);
        let seen = Seen {
            record,
            newest: objects.max(lease),
            now,
        };
        match judge(seen, self.holder, self.known, self.policy) {
            Verdict::Take(ground) => self.take(found, newest, ground, now).await,
            Verdict::Wait(_) if self.policy.mode == Mode::Observe => {
                self.observe(found, newest, now).await
            }
            Verdict::Wait(time) => Ok(Acquired::HeldElsewhere(Owner::new(record, time))),
            Verdict::Ask => self.ask(found, newest, now).await,
        }
    }

    async fn observe(
        &self,
        found: Option<Found>,
        newest: Newest,
        now: Timestamp,
    ) -> Result<Acquired> {
        let owner = Owner::new(found.as_ref().map(|found| &found.record), Duration::ZERO);
        warn!(db = %self.layout.name(), owner = owner.name, "another writer holds the lease; going on as configured");
        self.take(found, newest, Ground::Observed, now).await
    }

    /// Asks the owner, and takes the lease if it neither answers nor writes.
    async fn ask(&self, found: Option<Found>, newest: Newest, now: Timestamp) -> Result<Acquired> {
        let Some(found) = found else {
            return Ok(Acquired::HeldElsewhere(Owner::new(
                None,
                self.policy.duration,
            )));
        };
        let alive = Owner::new(Some(&found.record), self.policy.duration);
        let asked = claim::ask(
            &*self.store,
            self.layout.prefix(),
            &found.record.holder.id,
            self.holder,
            self.policy.duration,
        );
        let silent = asked.await? == Silence::Yes;
        // Who writes is alive, whether it answers or not.
        let writes = self.newest(Some(&found)).await?.0 != newest;
        match (silent && !writes, self.policy.mode) {
            (true, _) => self.take(Some(found), newest, Ground::Silent, now).await,
            (false, Mode::Observe) => self.observe(Some(found), newest, now).await,
            (false, Mode::Enforce | Mode::Off) => Ok(Acquired::HeldElsewhere(alive)),
        }
    }

    async fn read(&self) -> Result<(Option<Found>, Option<Timestamp>)> {
        let key = self.layout.lease();
        let object = match self.store.get(&key, None).await {
            Ok(object) => object,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((None, None)),
            Err(error) => return Err(error),
        };
        let record = Record::from_bytes(&object.bytes).map_err(|error| error.on(&key))?;
        let (etag, modified) = (object.meta.etag, object.meta.modified);
        Ok((
            Some(Found {
                record,
                etag,
                modified,
            }),
            object.date,
        ))
    }

    /// The last incremental, and the store's time. Not asked for where the lease itself tells enough.
    async fn newest(&self, found: Option<&Found>) -> Result<(Newest, Option<Timestamp>)> {
        if found.is_some_and(|found| judge::is_free(&found.record, self.holder, self.known)) {
            return Ok((None, None));
        }
        let folder = self.layout.incremental_folder();
        let (mut newest, mut after): (Newest, Option<String>) = (None, None);
        loop {
            let page = self.store.list(&folder, after.as_deref()).await?;
            if let Some(last) = page.objects.last() {
                newest = Some((last.key.clone(), last.modified));
                after = Some(last.key.clone());
            } else if page.more {
                let message = "the listing promises more keys and gives none";
                return Err(Error::new(ErrorKind::Unavailable, message).on(folder));
            }
            if !page.more {
                return Ok((newest, page.date));
            }
        }
    }

    fn record(&self, found: Option<&Record>, now: Timestamp) -> Result<Record> {
        let stream = next_stream(found, self.known, self.policy.lineage).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "the epochs of this lineage are used up")
                .on(self.layout.name())
                .hint("begin a new one with --new-chain")
        })?;
        Ok(Record::new(stream, self.holder.clone(), now))
    }

    /// Writes our lease over the one found, and over no other.
    async fn take(
        &self,
        found: Option<Found>,
        newest: Newest,
        ground: Ground,
        now: Timestamp,
    ) -> Result<Acquired> {
        let looked = Moment::now(self.clock);
        let record = self.record(found.as_ref().map(|found| &found.record), now)?;
        let bytes = record.to_bytes()?;
        let how = match found {
            None => Put::new_object(),
            Some(Found {
                etag: Some(etag), ..
            }) => Put::over(etag),
            Some(Found { etag: None, .. }) => Put::always(),
        };
        let key = self.layout.lease();
        let written = match self.store.put(&key, bytes.clone(), how).await {
            Ok(PutOutcome::Stored { etag, .. }) if self.conditions_hold(&key, &bytes).await? => {
                Some(self.lease(record, etag, ground, Protection::Fenced, looked))
            }
            Ok(PutOutcome::Refused { .. }) => None,
            Ok(PutOutcome::Stored { .. }) => self.take_unfenced(record, bytes, ground).await?,
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.take_unfenced(record, bytes, ground).await?
            }
            Err(error) => return Err(error),
        };
        let Some(lease) = written else {
            return self.lost().await;
        };
        self.let_old_owner_end(ground, &newest).await?;
        info!(db = %self.layout.name(), epoch = lease.stream_id().epoch.get(), ?ground, "the lease is ours");
        Ok(Acquired::Held(Box::new(lease)))
    }

    /// Invariant 5: where the old owner wrote after we saw it idle, what its last look at the lease still
    /// covers ends within this time, and is in the listing that follows.
    async fn let_old_owner_end(&self, ground: Ground, before: &Newest) -> Result<()> {
        let may_live = matches!(ground, Ground::Expired | Ground::Silent | Ground::Observed);
        if may_live && self.wrote_since(before).await? {
            tokio::time::sleep(RECHECK).await;
        }
        Ok(())
    }

    async fn wrote_since(&self, before: &Newest) -> Result<bool> {
        Ok(self.newest(None).await?.0 != *before)
    }

    /// Somebody was quicker.
    async fn lost(&self) -> Result<Acquired> {
        let (found, _) = self.read().await?;
        let record = found.as_ref().map(|found| &found.record);
        Ok(Acquired::HeldElsewhere(Owner::new(
            record,
            self.policy.duration,
        )))
    }

    /// Whether the store refuses what it must: a creation over our lease, and a replacement of a version
    /// that is not there. Both carry our lease with a line's end, so nothing is lost where they go through,
    /// and a repeated request is not taken for our own.
    async fn conditions_hold(&self, key: &str, bytes: &Bytes) -> Result<bool> {
        let body = Bytes::from([bytes, b"\n".as_slice()].concat());
        probe::conditions_hold(&*self.store, key, |_| body.clone()).await
    }

    /// Without conditions: put, wait, and see whose lease stands there. Nothing if it is not ours.
    async fn take_unfenced(
        &self,
        record: Record,
        bytes: Bytes,
        ground: Ground,
    ) -> Result<Option<Lease>> {
        warn!(db = %self.layout.name(), "the store has no conditional writes: this stream is unfenced");
        self.store
            .put(&self.layout.lease(), bytes, Put::always())
            .await?;
        tokio::time::sleep(UNFENCED_PAUSE).await;
        let looked = Moment::now(self.clock);
        let (found, _) = self.read().await?;
        let ours = found.filter(|found| found.record.token == record.token);
        Ok(ours.map(|found| self.lease(record, found.etag, ground, Protection::Unfenced, looked)))
    }

    fn lease(
        &self,
        record: Record,
        etag: Option<ETag>,
        ground: Ground,
        protection: Protection,
        looked: Moment,
    ) -> Lease {
        Lease::new(Parts {
            store: Arc::clone(&self.store),
            key: self.layout.lease(),
            record,
            etag,
            ground,
            protection,
            mode: self.policy.mode,
            clock: self.clock.clone(),
            looked,
        })
    }
}
