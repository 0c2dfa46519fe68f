//! Keys and bytes: where objects are kept. Knows neither pages nor SQLite.
//!
//! # Overview
//!
//! [`Store`] is a bucket, in S3 ([`open`]) or in a directory. [`Layout`] alone builds and reads keys.
//! Wrappers add what each store needs: [`Limited`] bounds requests and bytes in flight, [`Metered`]
//! counts, [`Retrying`] tries again what may pass, [`Faulty`] injects faults in tests.
//!
//! # Invariants
//!
//! 5. Data objects are created, never replaced: [`Condition::IfAbsent`] holds also against a concurrent
//!    writer and also on multipart completion, as far as the store keeps its word (the lease probes it).
//! 8. Errors are classified from typed errors, status and error code, never from text.
//! 9. Nothing here holds more than the bodies that the caller handed in or asked for.
//!
//! # Cancellation
//!
//! Dropping the future of a write leaves open whether the object was stored. Dropping an [`Upload`]
//! leaves parts behind that [`Store::stale_uploads`] finds.

mod config;
mod faulty;
mod file;
mod layout;
mod limited;
mod location;
#[cfg(test)]
pub(crate) mod memory;
mod metered;
mod open;
pub mod providers;
mod retrying;
mod s3;

use std::fmt::{self, Debug};
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::types::Timestamp;

pub use config::{Credentials, DEFAULT_REGION, Encryption, PathStyle, RetryPolicy, StoreConfig};
pub use faulty::{Call, Fault, Faulty};
pub use file::FileStore;
pub use layout::{Entry, Layout, Level, claim_key, trial_key};
pub use limited::Limited;
pub use location::StoreLocation;
pub use metered::{Counts, Meter, Metered, Operation, Outcome};
pub use open::{open, open_metered};
pub use retrying::Retrying;
pub use s3::{BucketAnswer, S3Store};

/// The most objects that one [`ListPage`] holds.
pub const PAGE: usize = 1000;

/// The smallest part of an upload but the last, by S3's rules.
pub const SMALLEST_PART: usize = 5 << 20;

/// The most parts of one upload, by S3's rules.
pub const MOST_PARTS: usize = 10_000;

/// A version of an object's content, as the store names it. Opaque, compared byte for byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ETag(String);

impl ETag {
    /// The tag as the store spelled it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The tag as the store spelled it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ETag({})", self.0)
    }
}

/// What is known of an object without its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectMeta {
    /// The object's key.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
    /// The version of its content. Listings of a directory have none.
    pub etag: Option<ETag>,
    /// When the store took it, by the store's clock. Seconds in S3.
    pub modified: Timestamp,
    /// What [`Put::created`] said; listings of S3 have none.
    pub created: Option<Timestamp>,
}

/// An object's bytes, or the range of them that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Object {
    /// Size and version of the whole object.
    pub meta: ObjectMeta,
    /// The bytes asked for.
    pub bytes: Bytes,
    /// The store's clock when it answered.
    pub date: Option<Timestamp>,
}

/// The answer of [`Store::get_if_changed`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Changed {
    /// Still the version asked about; the store's clock.
    Same(Option<Timestamp>),
    /// Another version.
    New(Object),
    /// No object; the store's clock.
    Gone(Option<Timestamp>),
}

/// When a write may happen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Condition {
    /// Whatever is there.
    Always,
    /// Only where nothing is: what data objects are written with.
    #[default]
    IfAbsent,
    /// Only over this version.
    IfMatch(ETag),
}

/// How soon an object is wanted again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tier {
    /// Soon, or not for long: the store's default class.
    #[default]
    Hot,
    /// Snapshots and merged files: the configured class.
    Cold,
}

/// How an object is written.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Put {
    /// When the write may happen.
    pub condition: Condition,
    /// The time that the content stands for, kept as `litestream-timestamp` metadata or modification time.
    pub created: Option<Timestamp>,
    /// How soon it is wanted again.
    pub tier: Tier,
}

impl Put {
    /// Creates, never replaces.
    pub fn new_object() -> Self {
        Self::default()
    }

    /// Replaces exactly `etag`.
    pub fn over(etag: ETag) -> Self {
        Self {
            condition: Condition::IfMatch(etag),
            ..Self::default()
        }
    }

    /// Replaces whatever is there.
    pub fn always() -> Self {
        Self {
            condition: Condition::Always,
            ..Self::default()
        }
    }

    /// With the time that the content stands for.
    #[must_use]
    pub fn created(mut self, created: Timestamp) -> Self {
        self.created = Some(created);
        self
    }

    /// With a tier.
    #[must_use]
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tier = tier;
        self
    }
}

/// The answer to a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PutOutcome {
    /// The object is stored, durably.
    Stored {
        /// Its version; a few stores name none.
        etag: Option<ETag>,
        /// The store's clock.
        date: Option<Timestamp>,
    },
    /// The condition does not hold; nothing was written.
    Refused {
        /// The store's clock.
        date: Option<Timestamp>,
    },
}

impl PutOutcome {
    /// The store's clock when it answered.
    pub fn date(&self) -> Option<Timestamp> {
        match self {
            Self::Stored { date, .. } | Self::Refused { date } => *date,
        }
    }
}

/// A stretch of a listing, in the order of keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListPage {
    /// At most [`PAGE`] objects; keys ascend byte by byte.
    pub objects: Vec<ObjectMeta>,
    /// Whether more keys follow the last.
    pub more: bool,
    /// The store's clock.
    pub date: Option<Timestamp>,
}

/// An upload that was begun and neither finished nor aborted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StaleUpload {
    /// The key it was meant for.
    pub key: String,
    /// The store's name for it.
    pub id: String,
    /// When it began.
    pub started: Option<Timestamp>,
}

/// A bucket. Errors of every method: `Unavailable` where the store does not answer or asks to come again,
/// `Denied` where it refuses us (also: no such bucket), `Exhausted` where it is full, `Invalid` for a
/// key or a request that can never succeed, `Unsupported` for what it does not know.
#[async_trait]
pub trait Store: Send + Sync + Debug {
    /// The object's bytes, or those of `range`, cut at the object's end. Errors: `NotFound`, and
    /// `Invalid` for a range that begins at or behind the end.
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Object>;

    /// The object if it is another version than `etag`.
    async fn get_if_changed(&self, key: &str, etag: &ETag) -> Result<Changed>;

    /// Whether there is an object. An absent bucket looks like an absent object: only a listing tells
    /// them apart.
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>>;

    /// Writes an object whole. When it says `Stored`, the object survives a crash.
    async fn put(&self, key: &str, body: Bytes, how: Put) -> Result<PutOutcome>;

    /// Begins an object that is written part by part and appears whole, or not at all.
    async fn begin_upload(&self, key: &str, how: Put) -> Result<Box<dyn Upload>>;

    /// The first objects whose keys begin with `prefix` and follow `after`.
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage>;

    /// The distinct beginnings of keys from `prefix` (empty or ending in `/`) up to and with the next
    /// `/`, in order.
    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>>;

    /// Deletes objects; absent ones count as deleted. Gives those that could not be deleted.
    async fn delete(&self, keys: &[String]) -> Result<Vec<(String, Error)>>;

    /// Uploads below `prefix` that somebody began and never ended. Living ones are among them.
    async fn stale_uploads(&self, prefix: &str) -> Result<Vec<StaleUpload>>;

    /// Frees the parts of such an upload; one that is gone counts as freed.
    async fn abort_upload(&self, upload: &StaleUpload) -> Result<()>;

    /// The store for people: `s3://bucket` or `file:///dir`; no secrets.
    fn location(&self) -> String;
}

/// An object on its way, part by part.
#[async_trait]
pub trait Upload: Send + Debug {
    /// Sends the next part. All but the last are of one size, at least [`SMALLEST_PART`], and at most
    /// [`MOST_PARTS`]. After an error the same part may be sent again.
    async fn part(&mut self, bytes: Bytes) -> Result<()>;

    /// Makes the object appear. May be called again after an error that may pass.
    async fn complete(&mut self) -> Result<PutOutcome>;

    /// Frees the parts.
    async fn abort(self: Box<Self>) -> Result<()>;

    /// Makes the object appear and ends the upload.
    async fn finish(mut self: Box<Self>) -> Result<PutOutcome> {
        self.complete().await
    }
}

/// Everything below a prefix, listed whole. Errors: those of the listing; never a partial list.
pub async fn list_all(
    store: &dyn Store,
    prefix: &str,
    after: Option<&str>,
) -> Result<Vec<ObjectMeta>> {
    let mut objects = Vec::new();
    let mut after = after.map(str::to_owned);
    loop {
        let page = store.list(prefix, after.as_deref()).await?;
        after = page.objects.last().map(|last| last.key.clone());
        let empty = page.objects.is_empty();
        objects.extend(page.objects);
        if !page.more {
            return Ok(objects);
        }
        if empty {
            let message = "the listing promises more keys and gives none";
            return Err(Error::new(ErrorKind::Unavailable, message).on(prefix));
        }
    }
}

macro_rules! forward_store {
    ($($pointer:ty),*) => {$(
        #[async_trait]
        impl<S: Store + ?Sized> Store for $pointer {
            async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Object> {
                (**self).get(key, range).await
            }
            async fn get_if_changed(&self, key: &str, etag: &ETag) -> Result<Changed> {
                (**self).get_if_changed(key, etag).await
            }
            async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
                (**self).head(key).await
            }
            async fn put(&self, key: &str, body: Bytes, how: Put) -> Result<PutOutcome> {
                (**self).put(key, body, how).await
            }
            async fn begin_upload(&self, key: &str, how: Put) -> Result<Box<dyn Upload>> {
                (**self).begin_upload(key, how).await
            }
            async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage> {
                (**self).list(prefix, after).await
            }
            async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
                (**self).list_folders(prefix).await
            }
            async fn delete(&self, keys: &[String]) -> Result<Vec<(String, Error)>> {
                (**self).delete(keys).await
            }
            async fn stale_uploads(&self, prefix: &str) -> Result<Vec<StaleUpload>> {
                (**self).stale_uploads(prefix).await
            }
            async fn abort_upload(&self, upload: &StaleUpload) -> Result<()> {
                (**self).abort_upload(upload).await
            }
            fn location(&self) -> String {
                (**self).location()
            }
        }
    )*};
}

forward_store!(std::sync::Arc<S>, Box<S>);

#[cfg(test)]
pub(crate) mod suite;
