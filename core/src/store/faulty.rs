//! Faults on demand, for tests of everything that stands on a store.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};

use super::{
    Changed, ETag, ListPage, Object, ObjectMeta, Operation, Put, PutOutcome, StaleUpload, Store,
    Upload,
};

/// A request as the script sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Counted from 1 over all operations.
    pub number: u64,
    /// What it does.
    pub operation: Operation,
    /// The key or prefix; the first of many.
    pub key: String,
}

/// What goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing reaches the store.
    Before(ErrorKind),
    /// The store does it, and the answer is lost.
    After(ErrorKind),
    /// It takes this long, then goes well.
    Slow(Duration),
    /// A write stores only this many bytes and claims success; a read is cut likewise.
    Torn(usize),
    /// A listing does not know the last so many keys that were written through here.
    Stale(usize),
}

type Script = dyn FnMut(&Call) -> Option<Fault> + Send;

struct State {
    calls: u64,
    written: Vec<String>,
    script: Box<Script>,
}

/// A store with a script of faults.
pub struct Faulty<S> {
    store: S,
    state: Arc<Mutex<State>>,
}

impl<S: Store> Faulty<S> {
    /// Asks `script` before each request what goes wrong with it.
    pub fn new(store: S, script: impl FnMut(&Call) -> Option<Fault> + Send + 'static) -> Self {
        let state = State {
            calls: 0,
            written: Vec::new(),
            script: Box::new(script),
        };
        Self {
            store,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Fails request `number`, counted from 1, and no other.
    pub fn at(store: S, number: u64, fault: Fault) -> Self {
        Self::new(store, move |call| (call.number == number).then_some(fault))
    }

    /// How many requests there were.
    pub fn calls(&self) -> u64 {
        lock(&self.state).calls
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: Store> fmt::Debug for Faulty<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?})", self.store)
    }
}

/// The fault of this request, after those that come before the store have happened.
async fn begin(state: &Mutex<State>, operation: Operation, key: &str) -> Result<Option<Fault>> {
    let fault = {
        let mut state = lock(state);
        state.calls += 1;
        let call = Call {
            number: state.calls,
            operation,
            key: key.to_owned(),
        };
        (state.script)(&call)
    };
    match fault {
        Some(Fault::Before(kind)) => Err(injected(kind, operation, key)),
        Some(Fault::Slow(time)) => {
            tokio::time::sleep(time).await;
            Ok(None)
        }
        Some(Fault::After(_) | Fault::Torn(_) | Fault::Stale(_)) | None => Ok(fault),
    }
}

fn end<T>(fault: Option<Fault>, operation: Operation, key: &str, result: Result<T>) -> Result<T> {
    match fault {
        Some(Fault::After(kind)) => result.and(Err(injected(kind, operation, key))),
        _ => result,
    }
}

fn injected(kind: ErrorKind, operation: Operation, key: &str) -> Error {
    Error::new(kind, format!("injected fault in {operation}")).on(key)
}

fn torn(fault: Option<Fault>, bytes: Bytes) -> Bytes {
    match fault {
        Some(Fault::Torn(length)) => bytes.slice(..length.min(bytes.len())),
        _ => bytes,
    }
}

#[async_trait]
impl<S: Store> Store for Faulty<S> {
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Object> {
        let fault = begin(&self.state, Operation::Get, key).await?;
        let mut object = end(fault, Operation::Get, key, self.store.get(key, range).await)?;
        object.bytes = torn(fault, object.bytes);
        Ok(object)
    }

    async fn get_if_changed(&self, key: &str, etag: &ETag) -> Result<Changed> {
        let fault = begin(&self.state, Operation::Get, key).await?;
        end(
            fault,
            Operation::Get,
            key,
            self.store.get_if_changed(key, etag).await,
        )
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let fault = begin(&self.state, Operation::Head, key).await?;
        end(fault, Operation::Head, key, self.store.head(key).await)
    }

    async fn put(&self, key: &str, body: Bytes, how: Put) -> Result<PutOutcome> {
        let fault = begin(&self.state, Operation::Put, key).await?;
        let result = self.store.put(key, torn(fault, body), how).await;
        if let Ok(PutOutcome::Stored { .. }) = result {
            lock(&self.state).written.push(key.to_owned());
        }
        end(fault, Operation::Put, key, result)
    }

    async fn begin_upload(&self, key: &str, how: Put) -> Result<Box<dyn Upload>> {
        let fault = begin(&self.state, Operation::BeginUpload, key).await?;
        let result = self.store.begin_upload(key, how).await;
        let upload = end(fault, Operation::BeginUpload, key, result)?;
        Ok(Box::new(FaultyUpload {
            upload,
            key: key.to_owned(),
            state: Arc::clone(&self.state),
        }))
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage> {
        let fault = begin(&self.state, Operation::List, prefix).await?;
        let mut page = end(
            fault,
            Operation::List,
            prefix,
            self.store.list(prefix, after).await,
        )?;
        if let Some(Fault::Stale(count)) = fault {
            let state = lock(&self.state);
            let hidden = &state.written[state.written.len().saturating_sub(count)..];
            page.objects.retain(|object| !hidden.contains(&object.key));
        }
        Ok(page)
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        let fault = begin(&self.state, Operation::List, prefix).await?;
        end(
            fault,
            Operation::List,
            prefix,
            self.store.list_folders(prefix).await,
        )
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<(String, Error)>> {
        let key = keys.first().map_or("", String::as_str);
        let fault = begin(&self.state, Operation::Delete, key).await?;
        end(fault, Operation::Delete, key, self.store.delete(keys).await)
    }

    async fn stale_uploads(&self, prefix: &str) -> Result<Vec<StaleUpload>> {
        let fault = begin(&self.state, Operation::List, prefix).await?;
        end(
            fault,
            Operation::List,
            prefix,
            self.store.stale_uploads(prefix).await,
        )
    }

    async fn abort_upload(&self, upload: &StaleUpload) -> Result<()> {
        let fault = begin(&self.state, Operation::Abort, &upload.key).await?;
        end(
            fault,
            Operation::Abort,
            &upload.key,
            self.store.abort_upload(upload).await,
        )
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

struct FaultyUpload {
    upload: Box<dyn Upload>,
    key: String,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for FaultyUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyUpload({:?})", self.upload)
    }
}

#[async_trait]
impl Upload for FaultyUpload {
    async fn part(&mut self, bytes: Bytes) -> Result<()> {
        let fault = begin(&self.state, Operation::Part, &self.key).await?;
        end(
            fault,
            Operation::Part,
            &self.key,
            self.upload.part(torn(fault, bytes)).await,
        )
    }

    async fn complete(&mut self) -> Result<PutOutcome> {
        let fault = begin(&self.state, Operation::Complete, &self.key).await?;
        let result = self.upload.complete().await;
        if let Ok(PutOutcome::Stored { .. }) = result {
            lock(&self.state).written.push(self.key.clone());
        }
        end(fault, Operation::Complete, &self.key, result)
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        let fault = begin(&self.state, Operation::Abort, &self.key).await?;
        end(
            fault,
            Operation::Abort,
            &self.key,
            self.upload.abort().await,
        )
    }
}
