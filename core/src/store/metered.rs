//! Requests and bytes, counted by operation and outcome.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};

use super::{
    Changed, ETag, ListPage, Object, ObjectMeta, Put, PutOutcome, StaleUpload, Store, Upload,
};

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, reason = "the names of the trait's methods")]
pub enum Operation {
    Get,
    Head,
    Put,
    BeginUpload,
    Part,
    Complete,
    Abort,
    List,
    Delete,
}

impl Operation {
    /// All operations.
    pub const ALL: [Self; 9] = [
        Self::Get,
        Self::Head,
        Self::Put,
        Self::BeginUpload,
        Self::Part,
        Self::Complete,
        Self::Abort,
        Self::List,
        Self::Delete,
    ];

    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Put => "put",
            Self::BeginUpload => "begin_upload",
            Self::Part => "part",
            Self::Complete => "complete",
            Self::Abort => "abort",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Outcome {
    /// As asked.
    Done,
    /// An answer that is no fault: the condition does not hold, or nothing is there.
    Refused,
    /// No answer, or "come again".
    Unavailable,
    /// The store refuses us or the request.
    Failed,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 4] = [Self::Done, Self::Refused, Self::Unavailable, Self::Failed];

    /// The name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
        }
    }

    fn of_error(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound => Self::Refused,
            ErrorKind::Unavailable | ErrorKind::Busy => Self::Unavailable,
            _ => Self::Failed,
        }
    }

    fn of_put(result: &Result<PutOutcome>) -> Self {
        match result {
            Ok(PutOutcome::Stored { .. }) => Self::Done,
            Ok(PutOutcome::Refused { .. }) => Self::Refused,
            Err(error) => Self::of_error(error),
        }
    }
}

const OPERATIONS: usize = Operation::ALL.len();
const OUTCOMES: usize = Outcome::ALL.len();

#[derive(Default)]
struct Cells {
    requests: [[AtomicU64; OUTCOMES]; OPERATIONS],
    retries: [AtomicU64; OPERATIONS],
    sent: AtomicU64,
    received: AtomicU64,
}

/// Counters that clones share.
#[derive(Clone, Default)]
pub struct Meter(Arc<Cells>);

impl Meter {
    fn request(&self, operation: Operation, outcome: Outcome) {
        self.0.requests[operation as usize][outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn sent(&self, bytes: usize) {
        self.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn received(&self, bytes: usize) {
        self.0.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn retry(&self, operation: Operation) {
        self.0.retries[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far.
    pub fn snapshot(&self) -> Counts {
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        Counts {
            requests: self
                .0
                .requests
                .each_ref()
                .map(|row| row.each_ref().map(load)),
            retries: self.0.retries.each_ref().map(load),
            bytes_sent: load(&self.0.sent),
            bytes_received: load(&self.0.received),
        }
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Meter({} requests)", self.snapshot().total())
    }
}

/// Counts at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counts {
    requests: [[u64; OUTCOMES]; OPERATIONS],
    retries: [u64; OPERATIONS],
    /// Bytes of bodies sent.
    pub bytes_sent: u64,
    /// Bytes of bodies received.
    pub bytes_received: u64,
}

impl Counts {
    /// Requests of one operation that ended so.
    pub fn requests(&self, operation: Operation, outcome: Outcome) -> u64 {
        self.requests[operation as usize][outcome as usize]
    }

    /// Requests of one operation, however they ended.
    pub fn of(&self, operation: Operation) -> u64 {
        self.requests[operation as usize].iter().sum()
    }

    /// Requests that were made again.
    pub fn retries(&self, operation: Operation) -> u64 {
        self.retries[operation as usize]
    }

    /// All requests.
    pub fn total(&self) -> u64 {
        self.requests.iter().flatten().sum()
    }
}

/// A store that counts.
#[derive(Debug)]
pub struct Metered<S> {
    store: S,
    meter: Meter,
}

impl<S: Store> Metered<S> {
    /// Counts what `store` does into `meter`.
    pub fn new(store: S, meter: Meter) -> Self {
        Self { store, meter }
    }

    fn count<T>(&self, operation: Operation, result: Result<T>) -> Result<T> {
        let outcome = result
            .as_ref()
            .map_or_else(Outcome::of_error, |_| Outcome::Done);
        self.meter.request(operation, outcome);
        result
    }
}

#[async_trait]
impl<S: Store> Store for Metered<S> {
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Object> {
        let result = self.count(Operation::Get, self.store.get(key, range).await);
        if let Ok(object) = &result {
            self.meter.received(object.bytes.len());
        }
        result
    }

    async fn get_if_changed(&self, key: &str, etag: &ETag) -> Result<Changed> {
        let result = self.count(Operation::Get, self.store.get_if_changed(key, etag).await);
        if let Ok(Changed::New(object)) = &result {
            self.meter.received(object.bytes.len());
        }
        result
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        self.count(Operation::Head, self.store.head(key).await)
    }

    async fn put(&self, key: &str, body: Bytes, how: Put) -> Result<PutOutcome> {
        self.meter.sent(body.len());
        let result = self.store.put(key, body, how).await;
        self.meter.request(Operation::Put, Outcome::of_put(&result));
        result
    }

    async fn begin_upload(&self, key: &str, how: Put) -> Result<Box<dyn Upload>> {
        let result = self.store.begin_upload(key, how).await;
        let upload = self.count(Operation::BeginUpload, result)?;
        Ok(Box::new(MeteredUpload {
            upload,
            meter: self.meter.clone(),
        }))
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage> {
        self.count(Operation::List, self.store.list(prefix, after).await)
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.count(Operation::List, self.store.list_folders(prefix).await)
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<(String, Error)>> {
        self.count(Operation::Delete, self.store.delete(keys).await)
    }

    async fn stale_uploads(&self, prefix: &str) -> Result<Vec<StaleUpload>> {
        self.count(Operation::List, self.store.stale_uploads(prefix).await)
    }

    async fn abort_upload(&self, upload: &StaleUpload) -> Result<()> {
        self.count(Operation::Abort, self.store.abort_upload(upload).await)
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

#[derive(Debug)]
struct MeteredUpload {
    upload: Box<dyn Upload>,
    meter: Meter,
}

#[async_trait]
impl Upload for MeteredUpload {
    async fn part(&mut self, bytes: Bytes) -> Result<()> {
        self.meter.sent(bytes.len());
        let result = self.upload.part(bytes).await;
        let outcome = result
            .as_ref()
            .map_or_else(Outcome::of_error, |()| Outcome::Done);
        self.meter.request(Operation::Part, outcome);
        result
    }

    async fn complete(&mut self) -> Result<PutOutcome> {
        let result = self.upload.complete().await;
        self.meter
            .request(Operation::Complete, Outcome::of_put(&result));
        result
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let result = self.upload.abort().await;
        let outcome = result
            .as_ref()
            .map_or_else(Outcome::of_error, |()| Outcome::Done);
        self.meter.request(Operation::Abort, outcome);
        result
    }
}
