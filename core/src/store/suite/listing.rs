//! The order of keys, pages and folders.

use super::super::*;
use super::bucket::{self, Bucket};
use super::{put, stored};
use crate::error::ErrorKind;

pub(super) async fn keys_come_in_order_and_pages(bucket: Bucket) {
    let store = &bucket.store;
    let mut keys: Vec<String> = (0..1005)
        .map(|n| format!("app.db/0000/{n:016x}.ltx"))
        .collect();
    keys.extend(["app.db/lease.json", "b", "app.db/0001/x"].map(str::to_owned));
    for chunk in keys.chunks(64) {
        let puts = chunk
            .iter()
            .map(|key| store.put(key, "x".into(), Put::new_object()));
        for outcome in futures_util::future::join_all(puts).await {
            stored(outcome.unwrap());
        }
    }
    keys.sort_unstable();
    let listed = |objects: Vec<ObjectMeta>| {
        objects
            .into_iter()
            .map(|object| object.key)
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(list_all(store, "", None).await.unwrap()), keys);
    let below: Vec<String> = keys
        .iter()
        .filter(|key| key.starts_with("app.db/"))
        .cloned()
        .collect();
    assert_eq!(
        listed(list_all(store, "app.db/", None).await.unwrap()),
        below
    );
    let page = store.list("app.db/0000/", None).await.unwrap();
    assert!(page.more && page.objects.len() == PAGE && page.date.is_some());
    assert_eq!(page.objects[0].size, 1);
    let last = "app.db/0000/00000000000003ea.ltx";
    let page = store.list("app.db/0000/", Some(last)).await.unwrap();
    assert_eq!(
        listed(page.objects),
        keys_after(&keys, "app.db/0000/", last)
    );
    assert!(!page.more);
    // A beginning that is no folder, and a place that is no key.
    assert_eq!(
        listed(list_all(store, "app.db", None).await.unwrap()),
        keys_after(&keys, "app.db", "")
    );
    let after = "app.db/0000/00000000000003ea~";
    let page = store.list("app.db/0", Some(after)).await.unwrap();
    assert_eq!(listed(page.objects), keys_after(&keys, "app.db/0", after));
    assert!(store.list("none/", None).await.unwrap().objects.is_empty());
}

fn keys_after(keys: &[String], prefix: &str, after: &str) -> Vec<String> {
    keys.iter()
        .filter(|key| key.starts_with(prefix) && key.as_str() > after)
        .cloned()
        .collect()
}

pub(super) async fn folders_are_listed_once(bucket: Bucket) {
    let store = &bucket.store;
    for key in [
        "a.db/0000/1",
        "a.db/0000/2",
        "a.db/lease.json",
        "b c/d.db/0000/1",
        "top",
    ] {
        stored(put(store, key, "x").await);
    }
    assert_eq!(store.list_folders("").await.unwrap(), ["a.db/", "b c/"]);
    assert_eq!(store.list_folders("a.db/").await.unwrap(), ["a.db/0000/"]);
    assert_eq!(store.list_folders("b c/").await.unwrap(), ["b c/d.db/"]);
    assert!(store.list_folders("none/").await.unwrap().is_empty());
}

/// Within one folder all stores agree; among folders whose names continue each other SeaweedFS differs,
/// and is told so.
#[tokio::test]
async fn folders_and_files_come_in_the_order_of_their_keys() {
    for bucket in [bucket::directory(), bucket::in_process().await] {
        let mut keys = [
            "app/z",
            "app.db.x",
            "app.db/lease.json",
            "app.db-x/y",
            "app.db/0000/1",
            "b",
        ]
        .map(str::to_owned);
        for key in &keys {
            stored(
                bucket
                    .store
                    .put(key, "x".into(), Put::new_object())
                    .await
                    .unwrap(),
            );
        }
        keys.sort_unstable();
        for after in 0..keys.len() {
            let listed = bucket.store.list("", Some(&keys[after])).await.unwrap();
            let listed: Vec<String> = listed
                .objects
                .into_iter()
                .map(|object| object.key)
                .collect();
            assert_eq!(
                listed,
                keys[after + 1..],
                "{:?} after {}",
                bucket.store,
                keys[after]
            );
        }
    }
}

#[tokio::test]
async fn a_folder_is_no_object_and_neither_stands_in_for_the_other() {
    let bucket = bucket::directory();
    let store = &bucket.store;
    stored(put(store, "a/b/c", "x").await);
    for folder in ["a", "a/b"] {
        assert_eq!(store.head(folder).await.unwrap(), None, "{folder}");
        let error = store
            .put(folder, "x".into(), Put::new_object())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
    }
    assert_eq!(
        store.get("a/b/c/d", None).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(
        store
            .put("a/b/c/d", "x".into(), Put::new_object())
            .await
            .is_err()
    );
}
