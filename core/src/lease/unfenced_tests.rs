//! A store without conditional writes.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::tests::{acquire, elsewhere, held, holder, object, write};
use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::store::suite::bucket;
use crate::store::*;

/// `store`, which takes conditional writes and ignores the condition.
pub(crate) fn careless(store: Arc<dyn Store>) -> Arc<dyn Store> {
    Arc::new(Careless(store))
}

#[derive(Debug)]
struct Careless(Arc<dyn Store>);

#[async_trait]
impl Store for Careless {
    async fn get(&self, key: &str, range: Option<std::ops::Range<u64>>) -> Result<Object> {
        self.0.get(key, range).await
    }
    async fn get_if_changed(&self, key: &str, etag: &ETag) -> Result<Changed> {
        self.0.get_if_changed(key, etag).await
    }
    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        self.0.head(key).await
    }
    async fn put(&self, key: &str, body: Bytes, how: Put) -> Result<PutOutcome> {
        self.0
            .put(
                key,
                body,
                Put {
                    condition: Condition::Always,
                    ..how
                },
            )
            .await
    }
    async fn begin_upload(&self, key: &str, how: Put) -> Result<Box<dyn Upload>> {
        self.0
            .begin_upload(
                key,
                Put {
                    condition: Condition::Always,
                    ..how
                },
            )
            .await
    }
    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage> {
        self.0.list(prefix, after).await
    }
    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        self.0.list_folders(prefix).await
    }
    async fn delete(&self, keys: &[String]) -> Result<Vec<(String, Error)>> {
        self.0.delete(keys).await
    }
    async fn stale_uploads(&self, prefix: &str) -> Result<Vec<StaleUpload>> {
        self.0.stale_uploads(prefix).await
    }
    async fn abort_upload(&self, upload: &StaleUpload) -> Result<()> {
        self.0.abort_upload(upload).await
    }
    fn location(&self) -> String {
        self.0.location()
    }
}

#[tokio::test(start_paused = true)]
async fn u8_without_conditional_writes_the_lease_is_unfenced_and_looks_each_time() {
    let bucket = bucket::directory();
    let store = careless(Arc::clone(&bucket.store));
    let policy = LeasePolicy::default();
    let first = held(acquire(&store, &holder(1), &policy, None).await);
    assert_eq!(first.protection(), Protection::Unfenced);
    assert!(!first.uploads_are_create_only().await.unwrap());
    assert_eq!(first.check().await.unwrap(), Standing::Ours);
    assert!(matches!(
        write(&first, 1).await.unwrap(),
        PutOutcome::Stored { .. }
    ));
    assert!(matches!(
        write(&first, 1).await.unwrap(),
        PutOutcome::Refused { .. }
    ));
    let mut upload = first
        .begin_upload(&object(1), Put::new_object())
        .await
        .unwrap();
    upload.part("other".into()).await.unwrap();
    let outcome = first
        .complete(&object(1), &Put::new_object(), &mut *upload)
        .await
        .unwrap();
    assert!(matches!(outcome, PutOutcome::Refused { .. }));
    elsewhere(acquire(&store, &holder(2), &policy, None).await);
    first.release().await.unwrap();
    // Two at once: at most one finds its own token after the pause.
    let (second, third) = (holder(2), holder(3));
    let (a, b) = tokio::join!(
        acquire(&store, &second, &policy, None),
        acquire(&store, &third, &policy, None)
    );
    let count = [&a, &b]
        .into_iter()
        .filter(|acquired| matches!(acquired, Acquired::Held(_)))
        .count();
    assert_eq!(count, 1, "{a:?} {b:?}");
    assert_eq!(
        write(&first, 2).await.unwrap_err().kind(),
        ErrorKind::Fenced
    );
}
