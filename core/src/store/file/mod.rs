//! A directory as a store: paths below it look exactly as the keys.
//!
//! # Overview
//!
//! A write goes to a file in `.walrust-tmp`, is synced, and then linked (create-only) or renamed (over
//! something) to its place; then the directory is synced. A reader sees a whole object or none. Versions
//! are hashes of the content; replacing one version by another happens under a lock file. Everything
//! also holds between processes, and between hosts as far as the file system does.
//!
//! # Crash table
//!
//! | after | left behind |
//! |---|---|
//! | writing the temporary file | that file; the next [`FileStore::open`] removes it |
//! | linking, before the directory is synced | the whole object, or nothing after a power cut |

mod paths;
mod read;
mod staged;

use std::fs::DirBuilder;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::sync_directory;
use crate::types::Timestamp;

use super::{
    Changed, ETag, ListPage, Object, ObjectMeta, Put, PutOutcome, StaleUpload, Store, Upload,
};

use paths::{Paths, TEMPORARY};
use staged::Staged;

/// A directory as a store.
#[derive(Clone, Debug)]
pub struct FileStore {
    paths: Arc<Paths>,
    clock: Clock,
}

impl FileStore {
    /// The store in `root`, which is made if it is missing. Removes what crashed writers left behind.
    pub fn open(root: &Path) -> Result<Self> {
        let temporary = root.join(TEMPORARY);
        let made = DirBuilder::new().recursive(true).mode(0o750).create(root);
        made.map_err(|error| Error::io(root.display(), error))?;
        staged::remove_abandoned(&temporary);
        Ok(Self {
            paths: Arc::new(Paths::new(root.to_owned())),
            clock: Clock::system(),
        })
    }

    /// The store's clock is the machine's, unless a test sets it.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    fn date(&self) -> Option<Timestamp> {
        Some(self.clock.now())
    }

    /// Runs file work on a blocking thread.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Paths) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let paths = Arc::clone(&self.paths);
        run(move || work(&paths)).await
    }
}

/// Runs `work` on a blocking thread.
async fn run<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(ErrorKind::Internal, "file work ended early").because(error)),
    }
}

#[async_trait]
impl Store for FileStore {
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Object> {
        let key = key.to_owned();
        let found = self
            .blocking(move |paths| read::object(paths, &key, range))
            .await?;
        Ok(Object {
            date: self.date(),
            ..found
        })
    }

    async fn get_if_changed(&self, key: &str, etag: &ETag) -> Result<Changed> {
        let object = match self.get(key, None).await {
            Ok(object) => object,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Changed::Gone(self.date()));
            }
            Err(error) => return Err(error),
        };
        Ok(if object.meta.etag.as_ref() == Some(etag) {
            Changed::Same(object.date)
        } else {
            Changed::New(object)
        })
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let key = key.to_owned();
        self.blocking(move |paths| read::meta(paths, &key)).await
    }

    async fn put(&self, key: &str, body: Bytes, how: Put) -> Result<PutOutcome> {
        let (key, date) = (key.to_owned(), self.date());
        self.blocking(move |paths| {
            let target = paths.object(&key)?;
            let mut staged = Staged::create(paths)?;
            staged.append(&body)?;
            let etag = staged.publish(paths, &target, &how)?;
            Ok(outcome(etag, date))
        })
        .await
    }

    async fn begin_upload(&self, key: &str, how: Put) -> Result<Box<dyn Upload>> {
        let key = key.to_owned();
        let (target, staged) = self
            .blocking(move |paths| Ok((paths.object(&key)?, Staged::create(paths)?)))
            .await?;
        Ok(Box::new(FileUpload {
            store: self.clone(),
            target,
            how,
            staged: Some(staged),
        }))
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let (objects, more) = self
            .blocking(move |paths| read::list(paths, &prefix, after.as_deref()))
            .await?;
        Ok(ListPage {
            objects,
            more,
            date: self.date(),
        })
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        let prefix = prefix.to_owned();
        self.blocking(move |paths| read::folders(paths, &prefix))
            .await
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<(String, Error)>> {
        let keys = keys.to_vec();
        self.blocking(move |paths| {
            let delete = |key: String| remove(paths, &key).err().map(|error| (key, error));
            Ok(keys.into_iter().filter_map(delete).collect())
        })
        .await
    }

    /// None: an abandoned upload is a temporary file without a key, which [`FileStore::open`] removes.
    async fn stale_uploads(&self, _prefix: &str) -> Result<Vec<StaleUpload>> {
        Ok(Vec::new())
    }

    async fn abort_upload(&self, _upload: &StaleUpload) -> Result<()> {
        Ok(())
    }

    fn location(&self) -> String {
        format!("file://{}", self.paths.root().display())
    }
}

fn outcome(etag: Option<ETag>, date: Option<Timestamp>) -> PutOutcome {
    match etag {
        Some(etag) => PutOutcome::Stored {
            etag: Some(etag),
            date,
        },
        None => PutOutcome::Refused { date },
    }
}

fn remove(paths: &Paths, key: &str) -> Result<()> {
    let path = paths.object(key)?;
    match std::fs::remove_file(&path) {
        Ok(()) => sync_directory(crate::fs::parent(&path)).map_err(|error| Error::io(key, error)),
        Err(error) if paths::means_absent(&error) => Ok(()),
        Err(error) => Err(Error::io(key, error)),
    }
}

/// An upload is a temporary file that grows. Dropping it removes the file.
#[derive(Debug)]
struct FileUpload {
    store: FileStore,
    target: PathBuf,
    how: Put,
    staged: Option<Staged>,
}

impl FileUpload {
    /// Lends the file to a blocking thread; a cancelled call loses it, and with it the upload.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Paths, &mut Staged) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let ended = || {
            Error::new(ErrorKind::Unavailable, "the upload was cut off").on(self.target.display())
        };
        let mut staged = self.staged.take().ok_or_else(ended)?;
        let paths = Arc::clone(&self.store.paths);
        let (staged, result) = run(move || {
            let result = work(&paths, &mut staged);
            Ok((staged, result))
        })
        .await?;
        self.staged = Some(staged);
        result
    }
}

#[async_trait]
impl Upload for FileUpload {
    async fn part(&mut self, bytes: Bytes) -> Result<()> {
        self.with(move |_, staged| staged.append(&bytes)).await
    }

    async fn complete(&mut self) -> Result<PutOutcome> {
        let (target, how, date) = (self.target.clone(), self.how.clone(), self.store.date());
        self.with(move |paths, staged| Ok(outcome(staged.publish(paths, &target, &how)?, date)))
            .await
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
