//! What every store must do, run against each kind of store.

pub(crate) mod bucket;
mod faults;
mod listing;

use std::collections::BTreeSet;

use bytes::Bytes;

use super::*;
use crate::error::ErrorKind;
use bucket::Bucket;
use listing::{folders_are_listed_once, keys_come_in_order_and_pages};

const PART: usize = SMALLEST_PART;

/// One test for each store: the same claims.
macro_rules! suite {
    ($($claim:ident),* $(,)?) => {
        mod directory {
            $(#[tokio::test]
            async fn $claim() {
                super::$claim(super::bucket::directory()).await;
            })*
        }
        mod in_process {
            $(#[tokio::test]
            async fn $claim() {
                super::$claim(super::bucket::in_process().await).await;
            })*
        }
        mod seaweed {
            $(#[tokio::test]
            #[ignore = "needs a SeaweedFS: WEED_BIN names the program"]
            async fn $claim() {
                super::$claim(super::bucket::weed().await).await;
            })*
        }
    };
}

suite!(
    an_object_reads_back_whole_and_in_ranges,
    u8_nothing_is_ever_overwritten_by_a_creation,
    a_version_replaces_only_the_version_that_it_names,
    one_of_many_concurrent_creations_wins,
    one_of_many_concurrent_replacements_wins,
    a_changed_object_is_told_from_an_unchanged_one,
    keys_come_in_order_and_pages,
    folders_are_listed_once,
    u12_odd_keys_work_and_do_not_decide_what_an_error_is,
    an_upload_appears_whole_or_not_at_all,
    u8_an_upload_never_overwrites,
    deleting_is_idempotent,
    an_absent_object_is_absent_everywhere,
    an_empty_object_is_an_object,
    the_time_of_the_content_is_kept,
);

fn stored(outcome: PutOutcome) -> Option<ETag> {
    match outcome {
        PutOutcome::Stored { etag, .. } => etag,
        PutOutcome::Refused { .. } => panic!("refused"),
    }
}

fn is_refused(outcome: &PutOutcome) -> bool {
    matches!(outcome, PutOutcome::Refused { .. })
}

async fn put(store: &dyn Store, key: &str, body: &'static str) -> PutOutcome {
    store
        .put(key, Bytes::from_static(body.as_bytes()), Put::new_object())
        .await
        .unwrap()
}

async fn text(store: &dyn Store, key: &str) -> String {
    let object = store.get(key, None).await.unwrap();
    String::from_utf8(object.bytes.to_vec()).unwrap()
}

async fn an_object_reads_back_whole_and_in_ranges(bucket: Bucket) {
    let store = &bucket.store;
    let etag = stored(put(store, "a/b.ltx", "0123456789").await);
    let object = store.get("a/b.ltx", None).await.unwrap();
    assert_eq!(object.bytes, "0123456789");
    assert_eq!(
        (object.meta.size, object.meta.key.as_str()),
        (10, "a/b.ltx")
    );
    assert_eq!(object.meta.etag, etag);
    let date = object.date.expect("the store tells its time");
    assert!(date.millis_since(object.meta.modified).abs() < 60_000);
    for (range, bytes) in [
        (0..10, "0123456789"),
        (3..5, "34"),
        (8..100, "89"),
        (0..1, "0"),
    ] {
        let part = store.get("a/b.ltx", Some(range.clone())).await.unwrap();
        assert_eq!(part.bytes, bytes, "{range:?}");
        assert_eq!(part.meta.size, 10, "{range:?}");
    }
    for range in [10..11, 50..60, 4..4] {
        let error = store.get("a/b.ltx", Some(range.clone())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{range:?}: {error}");
    }
    let meta = store.head("a/b.ltx").await.unwrap().unwrap();
    assert_eq!((meta.size, meta.etag), (10, etag));
}

async fn u8_nothing_is_ever_overwritten_by_a_creation(bucket: Bucket) {
    let store = &bucket.store;
    stored(put(store, "a/0000/x.ltx", "first").await);
    for body in ["second", "first"] {
        assert!(is_refused(&put(store, "a/0000/x.ltx", body).await));
        assert_eq!(text(store, "a/0000/x.ltx").await, "first");
    }
}

async fn a_version_replaces_only_the_version_that_it_names(bucket: Bucket) {
    let store = &bucket.store;
    let first = stored(put(store, "m.json", "1").await).unwrap();
    let body = Bytes::from_static(b"22");
    let second = stored(
        store
            .put("m.json", body.clone(), Put::over(first.clone()))
            .await
            .unwrap(),
    )
    .unwrap();
    assert_ne!(first, second);
    assert!(is_refused(
        &store
            .put("m.json", "333".into(), Put::over(first.clone()))
            .await
            .unwrap()
    ));
    assert_eq!(text(store, "m.json").await, "22");
    let absent = store
        .put("none.json", "1".into(), Put::over(first))
        .await
        .unwrap();
    assert!(is_refused(&absent));
    stored(
        store
            .put("m.json", "4".into(), Put::always())
            .await
            .unwrap(),
    );
    assert_eq!(text(store, "m.json").await, "4");
    stored(
        store
            .put("new.json", "5".into(), Put::always())
            .await
            .unwrap(),
    );
}

async fn race(bucket: &Bucket, how: Put) -> (usize, BTreeSet<String>) {
    let writers = (0..8).map(|writer| {
        let (store, how) = (std::sync::Arc::clone(&bucket.store), how.clone());
        tokio::spawn(async move {
            let body = format!("writer {writer}");
            match store.put("a/x", body.clone().into(), how).await {
                Ok(PutOutcome::Stored { .. }) => Some(body),
                Ok(PutOutcome::Refused { .. }) => None,
                // Some stores ask one of two writers at once to come again.
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    None
                }
            }
        })
    });
    let mut winners = BTreeSet::new();
    let mut count = 0;
    for writer in writers.collect::<Vec<_>>() {
        count += 1;
        winners.extend(writer.await.unwrap());
    }
    (count, winners)
}

async fn one_of_many_concurrent_creations_wins(bucket: Bucket) {
    let (_, winners) = race(&bucket, Put::new_object()).await;
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert!(winners.contains(&text(&bucket.store, "a/x").await));
}

async fn one_of_many_concurrent_replacements_wins(bucket: Bucket) {
    let etag = stored(put(&bucket.store, "a/x", "before").await).unwrap();
    let (_, winners) = race(&bucket, Put::over(etag)).await;
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert!(winners.contains(&text(&bucket.store, "a/x").await));
}

async fn a_changed_object_is_told_from_an_unchanged_one(bucket: Bucket) {
    let store = &bucket.store;
    let first = stored(put(store, "lease.json", "1").await).unwrap();
    assert!(matches!(
        store.get_if_changed("lease.json", &first).await.unwrap(),
        Changed::Same(Some(_))
    ));
    stored(
        store
            .put("lease.json", "2".into(), Put::over(first.clone()))
            .await
            .unwrap(),
    );
    match store.get_if_changed("lease.json", &first).await.unwrap() {
        Changed::New(object) => assert_eq!(object.bytes, "2"),
        other => panic!("{other:?}"),
    }
    store.delete(&["lease.json".to_owned()]).await.unwrap();
    assert!(matches!(
        store.get_if_changed("lease.json", &first).await.unwrap(),
        Changed::Gone(_)
    ));
}

async fn u12_odd_keys_work_and_do_not_decide_what_an_error_is(bucket: Bucket) {
    let store = &bucket.store;
    let keys = [
        "a b/0000/500 403.ltx",
        "#1 + %20?&=/x",
        "über/データ.ltx",
        ".hidden/x",
        "503 SlowDown/404",
    ];
    for key in keys {
        stored(put(store, key, "x").await);
        assert_eq!(text(store, key).await, "x", "{key}");
        assert!(is_refused(&put(store, key, "y").await), "{key}");
        let error = store.get(&format!("{key}-none"), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{key}: {error}");
    }
    let mut sorted = keys.map(str::to_owned);
    sorted.sort_unstable();
    let listed = list_all(store, "", None).await.unwrap();
    assert_eq!(
        listed
            .into_iter()
            .map(|object| object.key)
            .collect::<Vec<_>>(),
        sorted
    );
}

async fn an_upload_appears_whole_or_not_at_all(bucket: Bucket) {
    let store = &bucket.store;
    let (first, last) = (Bytes::from(vec![1; PART]), Bytes::from_static(b"the end"));
    let mut upload = store
        .begin_upload("a/0009/x.ltx", Put::new_object().tier(Tier::Cold))
        .await
        .unwrap();
    upload.part(first.clone()).await.unwrap();
    assert_eq!(store.head("a/0009/x.ltx").await.unwrap(), None);
    assert!(store.list("a/", None).await.unwrap().objects.is_empty());
    upload.part(last.clone()).await.unwrap();
    stored(upload.finish().await.unwrap());
    let object = store.get("a/0009/x.ltx", None).await.unwrap();
    assert_eq!(object.bytes.len(), PART + 7);
    assert_eq!(&object.bytes[..PART], &first);
    assert_eq!(&object.bytes[PART..], &last);

    let mut upload = store
        .begin_upload("a/y.ltx", Put::new_object())
        .await
        .unwrap();
    upload.part(first).await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(store.head("a/y.ltx").await.unwrap(), None);

    let upload = store
        .begin_upload("a/empty.ltx", Put::new_object())
        .await
        .unwrap();
    stored(upload.finish().await.unwrap());
    assert_eq!(store.head("a/empty.ltx").await.unwrap().unwrap().size, 0);
}

async fn u8_an_upload_never_overwrites(bucket: Bucket) {
    let store = &bucket.store;
    let mut uploads = Vec::new();
    for body in ["one", "two"] {
        let mut upload = store
            .begin_upload("a/0009/x.ltx", Put::new_object())
            .await
            .unwrap();
        upload.part(body.into()).await.unwrap();
        uploads.push(upload);
    }
    let outcomes = [
        uploads.remove(0).finish().await.unwrap(),
        uploads.remove(0).finish().await.unwrap(),
    ];
    assert!(
        !is_refused(&outcomes[0]) && is_refused(&outcomes[1]),
        "{outcomes:?}"
    );
    assert_eq!(text(store, "a/0009/x.ltx").await, "one");
}

async fn deleting_is_idempotent(bucket: Bucket) {
    let store = &bucket.store;
    let keys = ["a/1", "a/2", "b/3"].map(str::to_owned);
    for key in &keys {
        stored(put(store, key, "x").await);
    }
    for _ in 0..2 {
        assert!(store.delete(&keys[..2]).await.unwrap().is_empty());
        let left = list_all(store, "", None).await.unwrap();
        assert_eq!(
            left.into_iter()
                .map(|object| object.key)
                .collect::<Vec<_>>(),
            ["b/3"]
        );
    }
    assert!(store.delete(&[]).await.unwrap().is_empty());
    stored(put(store, "a/1", "again").await);
}

async fn an_absent_object_is_absent_everywhere(bucket: Bucket) {
    let store = &bucket.store;
    let etag = ETag::new("0123");
    assert_eq!(
        store.get("a/none", None).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        store.get("a/none", Some(0..1)).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(store.head("a/none").await.unwrap(), None);
    assert!(matches!(
        store.get_if_changed("a/none", &etag).await.unwrap(),
        Changed::Gone(_)
    ));
}

async fn an_empty_object_is_an_object(bucket: Bucket) {
    let store = &bucket.store;
    stored(put(store, "a/empty", "").await);
    assert!(store.get("a/empty", None).await.unwrap().bytes.is_empty());
    assert_eq!(store.head("a/empty").await.unwrap().unwrap().size, 0);
    assert!(is_refused(&put(store, "a/empty", "x").await));
}

async fn the_time_of_the_content_is_kept(bucket: Bucket) {
    let store = &bucket.store;
    let created = Timestamp::from_millis(1_700_000_000_123);
    store
        .put("a/x", "x".into(), Put::new_object().created(created))
        .await
        .unwrap();
    let mut upload = store
        .begin_upload("a/y", Put::new_object().created(created))
        .await
        .unwrap();
    upload.part("y".into()).await.unwrap();
    stored(upload.finish().await.unwrap());
    for key in ["a/x", "a/y"] {
        let meta = store.head(key).await.unwrap().unwrap();
        assert_eq!(meta.created, Some(created), "{key}");
        assert!(
            meta.modified > created,
            "{key}: the store's own time is another"
        );
    }
}
