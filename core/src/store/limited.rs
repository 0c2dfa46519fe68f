//! A bound on requests in flight and on bytes a second, all databases together.

use std::num::{NonZeroU64, NonZeroUsize};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};

use super::{
    Changed, ETag, ListPage, Object, ObjectMeta, Put, PutOutcome, StaleUpload, Store, Upload,
};

/// A store that makes callers wait their turn.
#[derive(Debug)]
pub struct Limited<S> {
    store: S,
    turn: Arc<Turn>,
}

#[derive(Debug)]
struct Turn {
    requests: Semaphore,
    bandwidth: Option<Bandwidth>,
}

impl Turn {
    async fn request(&self) -> Result<SemaphorePermit<'_>> {
        let closed = |_| Error::new(ErrorKind::Internal, "the request limit was closed");
        self.requests.acquire().await.map_err(closed)
    }

    async fn bytes(&self, count: usize) {
        if let Some(bandwidth) = &self.bandwidth {
            bandwidth.spend(count as u64).await;
        }
    }
}

/// A bucket of one second's bytes that goes into debt: a body larger than that is sent whole, and the
/// next one waits.
#[derive(Debug)]
struct Bandwidth {
    bytes_per_second: NonZeroU64,
    /// When everything spent so far is paid for.
    paid: Mutex<Instant>,
}

impl Bandwidth {
    async fn spend(&self, bytes: u64) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.get() as f64);
        let wait_until = {
            let mut paid = self.paid.lock().await;
            let now = Instant::now();
            let start = (*paid).max(now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
            *paid = start + cost;
            start
        };
        tokio::time::sleep_until(wait_until).await;
    }
}

impl<S: Store> Limited<S> {
    /// Lets at most `max_requests` through at once, and `bandwidth` bytes a second.
    pub fn new(store: S, max_requests: NonZeroUsize, bandwidth: Option<NonZeroU64>) -> Self {
        let bandwidth = bandwidth.map(|bytes_per_second| Bandwidth {
            bytes_per_second,
            paid: Mutex::new(Instant::now()),
        });
        let permits = max_requests.get().min(Semaphore::MAX_PERMITS);
        Self {
            store,
            turn: Arc::new(Turn {
                requests: Semaphore::new(permits),
                bandwidth,
            }),
        }
    }
}

#[async_trait]
impl<S: Store> Store for Limited<S> {
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Object> {
        let _turn = self.turn.request().await?;
        let object = self.store.get(key, range).await?;
        // Its size is known only now; the next one waits.
        self.turn.bytes(object.bytes.len()).await;
        Ok(object)
    }

    async fn get_if_changed(&self, key: &str, etag: &ETag) -> Result<Changed> {
        let _turn = self.turn.request().await?;
        self.store.get_if_changed(key, etag).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let _turn = self.turn.request().await?;
        self.store.head(key).await
    }

    async fn put(&self, key: &str, body: Bytes, how: Put) -> Result<PutOutcome> {
        self.turn.bytes(body.len()).await;
        let _turn = self.turn.request().await?;
        self.store.put(key, body, how).await
    }

    async fn begin_upload(&self, key: &str, how: Put) -> Result<Box<dyn Upload>> {
        let _turn = self.turn.request().await?;
        let upload = self.store.begin_upload(key, how).await?;
        Ok(Box::new(LimitedUpload {
            upload,
            turn: Arc::clone(&self.turn),
        }))
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage> {
        let _turn = self.turn.request().await?;
        self.store.list(prefix, after).await
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        let _turn = self.turn.request().await?;
        self.store.list_folders(prefix).await
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<(String, Error)>> {
        let _turn = self.turn.request().await?;
        self.store.delete(keys).await
    }

    async fn stale_uploads(&self, prefix: &str) -> Result<Vec<StaleUpload>> {
        let _turn = self.turn.request().await?;
        self.store.stale_uploads(prefix).await
    }

    async fn abort_upload(&self, upload: &StaleUpload) -> Result<()> {
        let _turn = self.turn.request().await?;
        self.store.abort_upload(upload).await
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

#[derive(Debug)]
struct LimitedUpload {
    upload: Box<dyn Upload>,
    turn: Arc<Turn>,
}

#[async_trait]
impl Upload for LimitedUpload {
    async fn part(&mut self, bytes: Bytes) -> Result<()> {
        self.turn.bytes(bytes.len()).await;
        let _turn = self.turn.request().await?;
        self.upload.part(bytes).await
    }

    async fn complete(&mut self) -> Result<PutOutcome> {
        let _turn = self.turn.request().await?;
        self.upload.complete().await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let _turn = self.turn.request().await?;
        self.upload.abort().await
    }
}
