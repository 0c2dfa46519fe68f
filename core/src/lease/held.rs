//! A lease that is ours: looking at it, writing under it, giving it back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tracing::warn;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Changed, Condition, ETag, Object, Put, PutOutcome, Store, Upload};
use crate::types::StreamId;

use super::acquire::Owner;
use super::judge::{Ground, Mode, Moment, must_recheck};
use super::probe::{self, Trial};
use super::record::Record;

/// What keeps two writers apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// The store's conditional writes.
    Fenced,
    /// Looking before and after: the store has no conditional writes. `status` and `doctor` say so.
    Unfenced,
    /// Nothing: leases are off.
    Off,
}

/// What a look at the lease shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is ours.
    Ours,
    /// It is not, and we were told not to mind.
    Lost(Owner),
}

/// A lease that was ours when it was last looked at.
#[derive(Debug)]
pub struct Lease {
    store: Arc<dyn Store>,
    key: String,
    record: Record,
    ground: Ground,
    protection: Protection,
    mode: Mode,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    etag: Option<ETag>,
    /// When the last look that showed it ours began.
    looked: Moment,
    /// Who took it; final.
    lost: Option<Owner>,
}

/// What a lease is made of.
pub(super) struct Parts {
    pub(super) store: Arc<dyn Store>,
    pub(super) key: String,
    pub(super) record: Record,
    pub(super) etag: Option<ETag>,
    pub(super) ground: Ground,
    pub(super) protection: Protection,
    pub(super) mode: Mode,
    pub(super) clock: Clock,
    pub(super) looked: Moment,
}

impl Lease {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            store,
            key,
            record,
            etag,
            ground,
            protection,
            mode,
            clock,
            looked,
        } = parts;
        let state = Mutex::new(State {
            etag,
            looked,
            lost: None,
        });
        Self {
            store,
            key,
            record,
            ground,
            protection,
            mode,
            clock,
            state,
        }
    }

    /// Lineage and epoch: what each file we write carries.
    pub fn stream_id(&self) -> StreamId {
        self.record.stream()
    }

    /// Why it became ours.
    pub fn ground(&self) -> Ground {
        self.ground
    }

    /// What keeps other writers away.
    pub fn protection(&self) -> Protection {
        self.protection
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost_to(&self) -> Option<Owner> {
        self.state().lost.clone()
    }

    fn etag(&self) -> Option<ETag> {
        self.state().etag.clone()
    }

    /// Looks at the lease now: one conditional GET. Errors: `Fenced` once another writer has it.
    pub async fn check(&self) -> Result<Standing> {
        if self.protection == Protection::Off {
            return Ok(Standing::Ours);
        }
        if let Some(owner) = self.lost_to() {
            return self.lost(owner);
        }
        let began = Moment::now(&self.clock);
        let etag = self.etag();
        let found = match etag {
            Some(etag) => self.store.get_if_changed(&self.key, &etag).await?,
            None => match self.store.get(&self.key, None).await {
                Ok(object) => Changed::New(object),
                Err(error) if error.kind() == ErrorKind::NotFound => Changed::Gone(None),
                Err(error) => return Err(error),
            },
        };
        match found {
            Changed::Same(_) => self.ours(began, None),
            Changed::New(object) => self.judge(began, object),
            Changed::Gone(_) => self.restore(began).await,
        }
    }

    fn judge(&self, began: Moment, object: Object) -> Result<Standing> {
        let found = Record::from_bytes(&object.bytes).map_err(|error| error.on(&self.key))?;
        if found.token == self.record.token && !found.released {
            return self.ours(began, object.meta.etag);
        }
        self.lost(Owner::new(Some(&found), std::time::Duration::ZERO))
    }

    fn ours(&self, began: Moment, etag: Option<ETag>) -> Result<Standing> {
        let mut state = self.state();
        state.looked = began;
        if etag.is_some() {
            state.etag = etag;
        }
        Ok(Standing::Ours)
    }

    fn lost(&self, owner: Owner) -> Result<Standing> {
        let first = self.state().lost.replace(owner.clone()).is_none();
        if first {
            warn!(
                key = self.key,
                owner = owner.name,
                "another writer has taken the lease"
            );
        }
        match self.mode {
            Mode::Observe | Mode::Off => Ok(Standing::Lost(owner)),
            Mode::Enforce => {
                let epoch = owner.epoch.unwrap_or(0);
                let message = format!("{} has taken over with epoch {epoch}", owner.name);
                Err(Error::new(ErrorKind::Fenced, message).on(&self.key))
            }
        }
    }

    /// Somebody deleted the lease by hand: put ours back if nobody else's is there by now.
    async fn restore(&self, began: Moment) -> Result<Standing> {
        warn!(key = self.key, "the lease was deleted; putting it back");
        match self
            .store
            .put(&self.key, self.record.to_bytes()?, Put::new_object())
            .await?
        {
            PutOutcome::Stored { etag, .. } => self.ours(began, etag),
            PutOutcome::Refused { .. } => self.judge(began, self.store.get(&self.key, None).await?),
        }
    }

    /// Call after each write, before it is called durable: looks at the lease where the last look is too
    /// old to cover it. Errors: `Fenced`; those of the store, and then the write is not yet durable.
    pub async fn confirm(&self) -> Result<Standing> {
        let looked = self.state().looked;
        let due = must_recheck(looked, Moment::now(&self.clock));
        match self.protection {
            Protection::Off => Ok(Standing::Ours),
            Protection::Unfenced => self.check().await,
            Protection::Fenced if due || self.lost_to().is_some() => self.check().await,
            Protection::Fenced => Ok(Standing::Ours),
        }
    }

    /// Writes an object under the lease: `Stored` means durable and ours.
    pub async fn put(&self, key: &str, body: Bytes, how: Put) -> Result<PutOutcome> {
        self.still_ours()?;
        if let Some(refused) = self.look_before(key, &how).await? {
            return Ok(refused);
        }
        let how = self.possible(how);
        let outcome = self.store.put(key, body, how).await?;
        self.confirm().await?;
        Ok(outcome)
    }

    /// Begins an upload that can be completed under the lease.
    pub async fn begin_upload(&self, key: &str, how: Put) -> Result<Box<dyn Upload>> {
        self.still_ours()?;
        self.store.begin_upload(key, self.possible(how)).await
    }

    /// Completes an upload to `key` under the lease: `Stored` means durable and ours.
    pub async fn complete(
        &self,
        key: &str,
        how: &Put,
        upload: &mut dyn Upload,
    ) -> Result<PutOutcome> {
        self.still_ours()?;
        if let Some(refused) = self.look_before(key, how).await? {
            return Ok(refused);
        }
        let outcome = upload.complete().await?;
        self.confirm().await?;
        Ok(outcome)
    }

    fn still_ours(&self) -> Result<()> {
        match self.lost_to() {
            Some(owner) => self.lost(owner).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Without conditional writes: whether something stands there already, or another version.
    async fn look_before(&self, key: &str, how: &Put) -> Result<Option<PutOutcome>> {
        if self.protection != Protection::Unfenced || how.condition == Condition::Always {
            return Ok(None);
        }
        let found = self.store.head(key).await?;
        let holds = match (&how.condition, found) {
            (Condition::Always, _) | (Condition::IfAbsent, None) => true,
            (Condition::IfMatch(etag), Some(meta)) => meta.etag.as_ref() == Some(etag),
            (Condition::IfAbsent, Some(_)) | (Condition::IfMatch(_), None) => false,
        };
        Ok((!holds).then_some(PutOutcome::Refused { date: None }))
    }

    /// A store without conditional writes may refuse the very header.
    fn possible(&self, how: Put) -> Put {
        match self.protection {
            Protection::Fenced | Protection::Off => how,
            Protection::Unfenced => Put {
                condition: Condition::Always,
                ..how
            },
        }
    }

    /// Whether the store also refuses an upload's completion where something stands already; tried on the
    /// lease itself. Where not, uploads need a look before, as [`Protection::Unfenced`] does.
    pub async fn uploads_are_create_only(&self) -> Result<bool> {
        let body = Bytes::from([self.record.to_bytes()?.as_ref(), b"\n"].concat());
        match probe::try_upload(&*self.store, &self.key, body).await? {
            Trial::Refused => Ok(true),
            Trial::Stored(etag) => {
                self.state().etag = etag;
                Ok(false)
            }
            Trial::Unknown => Ok(false),
        }
    }

    /// Gives the lease back, so that the next writer need not wait. Nothing is deleted. That another
    /// writer has it already is fine.
    pub async fn release(&self) -> Result<()> {
        if self.protection == Protection::Off || self.lost_to().is_some() {
            return Ok(());
        }
        // Brings the version up to date, and finds out whether there is anything to give back.
        match self.check().await {
            Ok(Standing::Ours) => {}
            Ok(Standing::Lost(_)) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Fenced => return Ok(()),
            Err(error) => return Err(error),
        }
        let released = self.record.clone().release();
        let how = match (self.etag(), self.protection) {
            (Some(etag), Protection::Fenced) => Put::over(etag),
            _ => Put::always(),
        };
        self.store
            .put(&self.key, released.to_bytes()?, how)
            .await
            .map(|_| ())
    }
}
