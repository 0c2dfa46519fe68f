//! A store in memory with a clock that tests set: long histories need neither a disk nor their time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Changed, Condition, ETag, ListPage, Object, ObjectMeta, PAGE, Put, PutOutcome, StaleUpload,
    Store, Upload,
};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::types::Timestamp;

#[derive(Clone, Debug)]
struct Held {
    bytes: Bytes,
    version: u64,
    modified: Timestamp,
}

#[derive(Clone, Debug, Default)]
struct State {
    objects: BTreeMap<String, Held>,
    version: u64,
}

/// Everything that a store held at some time.
pub(crate) struct Saved(State);

/// Objects in memory.
#[derive(Clone, Debug)]
pub(crate) struct MemoryStore {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

impl MemoryStore {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            state: Arc::default(),
            clock,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn date(&self) -> Option<Timestamp> {
        Some(self.clock.now())
    }

    /// A copy as another bucket would be made: everything has just been written.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new(self.clock.clone());
        for (key, held) in &self.state().objects {
            copy.write(key, held.bytes.clone());
        }
        copy
    }

    pub(crate) fn save(&self) -> Saved {
        Saved(self.state().clone())
    }

    /// Holds what it held then.
    pub(crate) fn load(&self, saved: &Saved) {
        *self.state() = saved.0.clone();
    }

    pub(crate) fn write(&self, key: &str, bytes: Bytes) -> ETag {
        let mut state = self.state();
        state.version += 1;
        let held = Held {
            bytes,
            version: state.version,
            modified: self.clock.now(),
        };
        let etag = ETag::new(held.version.to_string());
        state.objects.insert(key.to_owned(), held);
        etag
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    pub(crate) fn bytes(&self) -> u64 {
        let state = self.state();
        state
            .objects
            .values()
            .map(|held| held.bytes.len() as u64)
            .sum()
    }

    pub(crate) fn size_of(&self, key: &str) -> Option<usize> {
        self.state().objects.get(key).map(|held| held.bytes.len())
    }

    pub(crate) fn remove(&self, key: &str) {
        self.state().objects.remove(key).unwrap();
    }
}

fn meta(key: &str, held: &Held) -> ObjectMeta {
    ObjectMeta {
        key: key.to_owned(),
        size: held.bytes.len() as u64,
        etag: Some(ETag::new(held.version.to_string())),
        modified: held.modified,
        created: None,
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Object> {
        let state = self.state();
        let held = state.objects.get(key);
        let held = held.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such object").on(key))?;
        let bytes = match range {
            None => held.bytes.clone(),
            Some(range) => {
                let end = (range.end as usize).min(held.bytes.len());
                if range.start as usize >= end {
                    return Err(Error::new(ErrorKind::Invalid, "nothing there").on(key));
                }
                held.bytes.slice(range.start as usize..end)
            }
        };
        Ok(Object {
            meta: meta(key, held),
            bytes,
            date: self.date(),
        })
    }

    async fn get_if_changed(&self, key: &str, etag: &ETag) -> Result<Changed> {
        match self.get(key, None).await {
            Ok(object) if object.meta.etag.as_ref() == Some(etag) => Ok(Changed::Same(self.date())),
            Ok(object) => Ok(Changed::New(object)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Changed::Gone(self.date())),
            Err(error) => Err(error),
        }
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        Ok(self.state().objects.get(key).map(|held| meta(key, held)))
    }

    async fn put(&self, key: &str, body: Bytes, how: Put) -> Result<PutOutcome> {
        let there = self.head(key).await?.and_then(|meta| meta.etag);
        let holds = match how.condition {
            Condition::Always => true,
            Condition::IfAbsent => there.is_none(),
            Condition::IfMatch(wanted) => there == Some(wanted),
        };
        let date = self.date();
        Ok(match holds {
            true => PutOutcome::Stored {
                etag: Some(self.write(key, body)),
                date,
            },
            false => PutOutcome::Refused { date },
        })
    }

    async fn begin_upload(&self, key: &str, _: Put) -> Result<Box<dyn Upload>> {
        Err(Error::new(ErrorKind::Unsupported, "no uploads in memory").on(key))
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage> {
        let state = self.state();
        let from = after.map_or_else(|| prefix.to_owned(), |after| format!("{after}\0"));
        let found = state.objects.range(from.max(prefix.to_owned())..);
        let mut objects: Vec<ObjectMeta> = found
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(PAGE + 1)
            .map(|(key, held)| meta(key, held))
            .collect();
        let more = objects.len() > PAGE;
        objects.truncate(PAGE);
        Ok(ListPage {
            objects,
            more,
            date: self.date(),
        })
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        let state = self.state();
        let below = state.objects.range(prefix.to_owned()..);
        let below = below.take_while(|(key, _)| key.starts_with(prefix));
        let mut folders: Vec<String> = below
            .filter_map(|(key, _)| {
                let (folder, _) = key.strip_prefix(prefix)?.split_once('/')?;
                Some(format!("{prefix}{folder}/"))
            })
            .collect();
        folders.dedup();
        Ok(folders)
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<(String, Error)>> {
        let mut state = self.state();
        for key in keys {
            state.objects.remove(key);
        }
        Ok(Vec::new())
    }

    async fn stale_uploads(&self, _: &str) -> Result<Vec<StaleUpload>> {
        Ok(Vec::new())
    }

    async fn abort_upload(&self, _: &StaleUpload) -> Result<()> {
        Ok(())
    }

    fn location(&self) -> String {
        "memory:".to_owned()
    }
}
