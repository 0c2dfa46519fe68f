//! Faults between us and a store, and what is made of them.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::*;
use super::bucket::{self, Bucket};
use crate::error::ErrorKind;

fn retrying<S: Store>(store: S) -> Retrying<S> {
    Retrying::new(store, RetryPolicy::default())
}

fn body() -> Bytes {
    Bytes::from_static(b"the bytes")
}

#[tokio::test(start_paused = true)]
async fn u9_a_creation_whose_answer_was_lost_is_settled_by_reading_back() {
    let bucket = bucket::directory();
    let store = retrying(Faulty::at(
        Arc::clone(&bucket.store),
        1,
        Fault::After(ErrorKind::Unavailable),
    ));
    let outcome = store.put("a/x", body(), Put::new_object()).await.unwrap();
    assert!(matches!(outcome, PutOutcome::Stored { etag: Some(_), .. }));
    // Other bytes under the key are another writer's.
    let store = retrying(Faulty::at(
        Arc::clone(&bucket.store),
        1,
        Fault::Before(ErrorKind::Unavailable),
    ));
    let outcome = store
        .put("a/x", "others".into(), Put::new_object())
        .await
        .unwrap();
    assert!(matches!(outcome, PutOutcome::Refused { .. }));
    // And without a fault, equal bytes are somebody else's decision.
    let outcome = retrying(Arc::clone(&bucket.store))
        .put("a/x", body(), Put::new_object())
        .await
        .unwrap();
    assert!(matches!(outcome, PutOutcome::Refused { .. }));
}

#[tokio::test(start_paused = true)]
async fn u9_a_replacement_whose_answer_was_lost_is_settled_by_reading_back() {
    let bucket = bucket::directory();
    let PutOutcome::Stored {
        etag: Some(first), ..
    } = bucket
        .store
        .put("m", "1".into(), Put::always())
        .await
        .unwrap()
    else {
        panic!("stored")
    };
    let store = retrying(Faulty::at(
        Arc::clone(&bucket.store),
        1,
        Fault::After(ErrorKind::Unavailable),
    ));
    let outcome = store.put("m", "2".into(), Put::over(first)).await.unwrap();
    let PutOutcome::Stored {
        etag: Some(second), ..
    } = outcome
    else {
        panic!("{outcome:?}")
    };
    let outcome = bucket
        .store
        .put("m", "3".into(), Put::over(second))
        .await
        .unwrap();
    assert!(
        matches!(outcome, PutOutcome::Stored { .. }),
        "the version is the one that stands there"
    );
}

#[tokio::test(start_paused = true)]
async fn u11_what_passes_is_tried_again_and_what_needs_hands_is_not() {
    for (kind, calls) in [
        (ErrorKind::Unavailable, 3),
        (ErrorKind::Busy, 3),
        (ErrorKind::Denied, 1),
        (ErrorKind::Exhausted, 1),
        (ErrorKind::Invalid, 1),
        (ErrorKind::Unsupported, 1),
        (ErrorKind::Corrupt, 1),
    ] {
        let meter = Meter::default();
        let bucket = bucket::directory();
        let count = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&count);
        let faulty = Faulty::new(Arc::clone(&bucket.store), move |_| {
            (seen.fetch_add(1, Ordering::Relaxed) < 2).then_some(Fault::Before(kind))
        });
        let result = retrying(faulty)
            .counting(meter.clone())
            .put("a/x", body(), Put::new_object())
            .await;
        assert_eq!(count.load(Ordering::Relaxed), calls, "{kind}");
        assert_eq!(
            result.map_err(|error| error.kind()).err(),
            (calls == 1).then_some(kind)
        );
        assert_eq!(meter.snapshot().retries(Operation::Put), calls as u64 - 1);
    }
}

#[tokio::test(start_paused = true)]
async fn u11_trying_again_ends() {
    let bucket = bucket::directory();
    let faulty = Faulty::new(Arc::clone(&bucket.store), |_| {
        Some(Fault::Before(ErrorKind::Unavailable))
    });
    let started = tokio::time::Instant::now();
    let error = retrying(faulty).head("a/x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let limit = RetryPolicy::default().limit;
    assert!(
        started.elapsed() <= limit && started.elapsed() > limit / 2,
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn u19_a_full_disk_is_told_as_such_and_nothing_is_left() {
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    assert_eq!(
        crate::error::Error::io("x", full).kind(),
        ErrorKind::Exhausted
    );
}

#[tokio::test]
#[ignore = "needs a small file system: SMALL_DIR names one of at most 64 KiB"]
async fn u19_a_full_file_system_refuses_whole_objects() {
    let root = std::path::PathBuf::from(std::env::var("SMALL_DIR").expect("SMALL_DIR is set"));
    let store = FileStore::open(&root).unwrap();
    let big = Bytes::from(vec![7; 1 << 20]);
    assert_eq!(
        store
            .put("a/x", big.clone(), Put::new_object())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Exhausted
    );
    let mut upload = store.begin_upload("a/x", Put::new_object()).await.unwrap();
    assert_eq!(
        upload.part(big).await.unwrap_err().kind(),
        ErrorKind::Exhausted
    );
    drop(upload);
    assert_eq!(store.head("a/x").await.unwrap(), None);
    let small = store
        .put("a/x", "x".into(), Put::new_object())
        .await
        .unwrap();
    assert!(
        matches!(small, PutOutcome::Stored { .. }),
        "what failed takes no room"
    );
}

#[tokio::test]
async fn u21_a_listing_may_lag_and_an_object_may_be_torn() {
    let bucket = bucket::directory();
    let faulty = Faulty::new(Arc::clone(&bucket.store), |call| {
        match (call.operation, call.number) {
            (Operation::List, 3) => Some(Fault::Stale(1)),
            (Operation::Put, 2) => Some(Fault::Torn(3)),
            _ => None,
        }
    });
    for key in ["a/1", "a/2"] {
        faulty.put(key, body(), Put::new_object()).await.unwrap();
    }
    let listed = |page: ListPage| {
        page.objects
            .into_iter()
            .map(|object| object.size)
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(faulty.list("a/", None).await.unwrap()), [9]);
    assert_eq!(listed(faulty.list("a/", None).await.unwrap()), [9, 3]);
    assert_eq!(faulty.calls(), 4);
}

#[tokio::test]
async fn r69_credentials_that_are_wrong_or_missing_are_told_from_a_network_that_is_away() {
    let bucket = bucket::in_process().await;
    let wrong = bucket.with_credentials("key", "wrong").await;
    assert_eq!(
        wrong.list("", None).await.unwrap_err().kind(),
        ErrorKind::Denied
    );
    let unknown = bucket.with_credentials("nobody", "secret").await;
    assert_eq!(
        unknown.list("", None).await.unwrap_err().kind(),
        ErrorKind::Denied
    );
    let malformed = bucket.with_credentials("key", "two words").await;
    assert_eq!(
        malformed.list("", None).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    let mut config = bucket.config.clone().unwrap();
    config.credentials = Credentials::Directory("/nowhere".into());
    let missing = S3Store::connect(&config).await.unwrap();
    let error = missing.list("", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("AWS_ACCESS_KEY_ID"), "{error}");
    bucket.with_credentials("key", "secret").await;
    config = bucket.config.clone().unwrap();
    config.endpoint = Some("http://127.0.0.1:1".to_owned());
    let away = S3Store::connect(&config).await.unwrap();
    let error = away.list("", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    config.endpoint = Some("http://no-such-host.invalid".to_owned());
    let unnamed = S3Store::connect(&config).await.unwrap();
    let error = unnamed.list("", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn an_absent_bucket_is_no_empty_one() {
    let bucket = bucket::in_process().await;
    let mut config = bucket.config.clone().unwrap();
    config.location = "s3://another/prod".parse().unwrap();
    let store = S3Store::connect(&config).await.unwrap();
    // This server tells an absent bucket only here; real ones also where an object is asked for.
    let error = store.list("", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let directory = bucket::directory();
    std::fs::remove_dir_all(directory.folder.path().join("root")).unwrap();
    for error in [
        directory.store.list("", None).await.unwrap_err(),
        directory.store.get("x", None).await.unwrap_err(),
        directory
            .store
            .put("x", body(), Put::new_object())
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

/// A server that answers each request with these bytes.
async fn scripted(answer: &'static str) -> Bucket {
    answering(move |_| answer.to_owned()).await
}

/// A server that answers the head of each request so.
async fn answering(answer: impl Fn(&str) -> String + Send + 'static) -> Bucket {
    let mut bucket = bucket::in_process().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = bucket.config.clone().unwrap();
    config.endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&request[..length]);
            let _ = stream.write_all(answer(&head).as_bytes()).await;
        }
    });
    bucket.store = Arc::new(S3Store::connect(&config).await.unwrap());
    bucket.config = Some(config);
    bucket
}

#[tokio::test]
async fn u11_u12_answers_are_read_by_status_and_code_from_a_real_connection() {
    const XML: &str = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>403 NoSuchKey</Message></Error>";
    let slow: &'static str = Box::leak(
        format!(
            "HTTP/1.1 503 x\r\nContent-Length: {}\r\n\r\n{XML}",
            XML.len()
        )
        .into_boxed_str(),
    );
    for (answer, kind) in [
        (slow, ErrorKind::Unavailable),
        (
            "HTTP/1.1 404 x\r\nContent-Length: 13\r\n\r\n<html></html>",
            ErrorKind::Unavailable,
        ),
        (
            "HTTP/1.1 200 x\r\nContent-Length: 100\r\n\r\ncut off",
            ErrorKind::Unavailable,
        ),
        ("not http at all\r\n\r\n", ErrorKind::Unavailable),
        ("", ErrorKind::Unavailable),
        (
            "HTTP/1.1 403 x\r\nContent-Length: 0\r\n\r\n",
            ErrorKind::Denied,
        ),
        (
            "HTTP/1.1 507 x\r\nContent-Length: 0\r\n\r\n",
            ErrorKind::Exhausted,
        ),
    ] {
        let bucket = scripted(answer).await;
        let error = bucket
            .store
            .get("500/403 NoSuchKey", None)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{answer:?}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn a_bucket_that_insists_on_a_digest_gets_one() {
    // "hello": MD5 in base64.
    const DIGEST: &str = "content-md5: XUFAKrxLKna5cZ2REBfFkg==";
    const XML: &str = "<Error><Code>InvalidRequest</Code><Message>Content-MD5</Message></Error>";
    let without = Arc::new(AtomicUsize::new(0));
    let counted = without.clone();
    let bucket = answering(move |head| {
        if head.to_lowercase().contains(&DIGEST.to_lowercase()) {
            return "HTTP/1.1 200 x\r\nETag: \"a\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned();
        }
        counted.fetch_add(1, Ordering::Relaxed);
        format!("HTTP/1.1 400 x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{XML}", XML.len())
    })
    .await;
    let put = || {
        let how = Put::new_object();
        bucket.store.put("key", Bytes::from_static(b"hello"), how)
    };
    let refused = put().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "worth another try");
    for _ in 0..2 {
        assert!(matches!(put().await, Ok(PutOutcome::Stored { .. })));
    }
    assert_eq!(without.load(Ordering::Relaxed), 1, "asked once");
}

#[tokio::test]
async fn crashed_writers_leave_nothing_that_is_listed_and_nothing_for_long() {
    let bucket = bucket::directory();
    let root = bucket.folder.path().join("root");
    let temporary = root.join(".walrust-tmp");
    let mut upload = bucket
        .store
        .begin_upload("a/x", Put::new_object())
        .await
        .unwrap();
    upload.part("half".into()).await.unwrap();
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 1);
    assert!(list_all(&bucket.store, "", None).await.unwrap().is_empty());
    // A living writer's file stays, however often others start.
    FileStore::open(&root).unwrap();
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 1);
    drop(upload);
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    assert!(
        list_all(&bucket.store, ".walrust", None)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn requests_and_bytes_are_bounded() {
    let bucket = bucket::directory();
    let flying = Arc::new(AtomicUsize::new(0));
    let slow = Faulty::new(Arc::clone(&bucket.store), |_| {
        Some(Fault::Slow(Duration::from_secs(1)))
    });
    let store = Arc::new(Limited::new(slow, NonZeroUsize::new(2).unwrap(), None));
    let started = tokio::time::Instant::now();
    let heads = (0..6).map(|_| {
        let (store, flying) = (Arc::clone(&store), Arc::clone(&flying));
        async move {
            store.head("a/x").await.unwrap();
            flying.fetch_add(1, Ordering::Relaxed);
        }
    });
    futures_util::future::join_all(heads).await;
    assert_eq!(
        started.elapsed().as_secs(),
        3,
        "six of one second each, two at a time"
    );

    let bandwidth = NonZeroU64::new(1000);
    let store = Limited::new(
        Arc::clone(&bucket.store),
        NonZeroUsize::new(16).unwrap(),
        bandwidth,
    );
    let started = tokio::time::Instant::now();
    for number in 0..5 {
        let body = Bytes::from(vec![0; 1000]);
        store
            .put(&format!("a/{number}"), body, Put::new_object())
            .await
            .unwrap();
    }
    let elapsed = started.elapsed().as_secs();
    assert!((3..=5).contains(&elapsed), "{elapsed}");
}

#[tokio::test]
async fn open_gives_the_store_of_a_configuration_and_counts() {
    let bucket = bucket::in_process().await;
    let meter = Meter::default();
    let store = open_metered(bucket.config.as_ref().unwrap(), &meter)
        .await
        .unwrap();
    assert_eq!(store.location(), "s3://bucket");
    store.put("a/x", body(), Put::new_object()).await.unwrap();
    store.put("a/x", body(), Put::new_object()).await.unwrap();
    store.get("a/x", Some(0..4)).await.unwrap();
    assert!(store.get("a/none", None).await.is_err());
    let counts = meter.snapshot();
    assert_eq!(counts.requests(Operation::Put, Outcome::Done), 1);
    assert_eq!(counts.requests(Operation::Put, Outcome::Refused), 1);
    assert_eq!(counts.requests(Operation::Get, Outcome::Refused), 1);
    assert_eq!(
        (counts.bytes_sent, counts.bytes_received, counts.total()),
        (18, 4, 4)
    );
    let location = format!("file://{}/backups", bucket.folder.path().display());
    let directory = open(&StoreConfig::new(location.parse().unwrap()))
        .await
        .unwrap();
    assert_eq!(directory.location(), location);
}

#[tokio::test]
#[ignore = "needs a SeaweedFS: WEED_BIN names the program"]
async fn an_upload_that_was_never_ended_is_found_and_freed() {
    let bucket = bucket::weed().await;
    let store = &bucket.store;
    for key in ["a/0009/x", "b/0009/y"] {
        let mut upload = store.begin_upload(key, Put::new_object()).await.unwrap();
        upload.part(body()).await.unwrap();
    }
    let found = store.stale_uploads("a/").await.unwrap();
    assert_eq!(
        found
            .iter()
            .map(|upload| upload.key.as_str())
            .collect::<Vec<_>>(),
        ["a/0009/x"]
    );
    for _ in 0..2 {
        store.abort_upload(&found[0]).await.unwrap();
    }
    assert!(store.stale_uploads("a/").await.unwrap().is_empty());
    assert_eq!(store.stale_uploads("").await.unwrap().len(), 1);
}

#[tokio::test]
async fn u9_an_upload_whose_answer_was_lost_never_claims_what_it_cannot_prove() {
    let bucket = bucket::in_process().await;
    let lost = |call: &Call| {
        (call.operation == Operation::Complete).then_some(Fault::After(ErrorKind::Unavailable))
    };
    let mut first = true;
    let faulty = Faulty::new(Arc::clone(&bucket.store), move |call| {
        let fault = lost(call).filter(|_| first);
        first = fault.is_none() && first;
        fault
    });
    let store = retrying(faulty);
    let mut upload = store.begin_upload("a/x", Put::new_object()).await.unwrap();
    upload
        .part(Bytes::from(vec![1; SMALLEST_PART]))
        .await
        .unwrap();
    upload.part(body()).await.unwrap();
    let outcome = upload.complete().await;
    let size = bucket.store.head("a/x").await.unwrap().unwrap().size;
    assert_eq!(size, SMALLEST_PART as u64 + 9);
    // Stored only where the parts' digest names the object. Else refused, and the caller compares; or an
    // error, as this server denies access to an upload that is gone.
    if let Ok(PutOutcome::Stored { etag, .. }) = outcome {
        assert_eq!(etag, bucket.store.head("a/x").await.unwrap().unwrap().etag);
    }
}
