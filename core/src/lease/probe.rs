//! Whether a store keeps its word about conditional writes.

use bytes::Bytes;
use tracing::debug;

use crate::error::{ErrorKind, Result};
use crate::store::{ETag, Put, PutOutcome, Store};

/// A version that no object has.
pub(crate) fn nowhere() -> ETag {
    ETag::new("00000000000000000000000000000000")
}

/// What a store made of a write that it must refuse.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trial {
    /// It refused.
    Refused,
    /// It ignored the condition; the version that stands there now.
    Stored(Option<ETag>),
    /// It does not know the condition.
    Unknown,
}

/// Writes `body` where the condition of `how` does not hold. `body` differs from what stands there, so that
/// a repeated request is not taken for our own.
pub(crate) async fn try_put(store: &dyn Store, key: &str, body: Bytes, how: Put) -> Result<Trial> {
    judge(store.put(key, body, how).await)
}

/// Whether the store refuses what it must where an object stands at `key`: another creation, and the
/// replacement of a version that is not there. `body` gives what each of them writes, which differs from what
/// stands there.
pub(crate) async fn conditions_hold(
    store: &dyn Store,
    key: &str,
    body: impl Fn(u8) -> Bytes,
) -> Result<bool> {
    for (number, how) in [(1, Put::new_object()), (2, Put::over(nowhere()))] {
        if try_put(store, key, body(number), how).await? != Trial::Refused {
            return Ok(false);
        }
    }
    Ok(true)
}

/// As [`try_put`], for the completion of a multipart upload that must not replace what stands there.
pub(crate) async fn try_upload(store: &dyn Store, key: &str, body: Bytes) -> Result<Trial> {
    let mut upload = store.begin_upload(key, Put::new_object()).await?;
    let sent = upload.part(body).await;
    let trial = match sent {
        Ok(()) => judge(upload.complete().await),
        Err(error) => Err(error),
    };
    if !matches!(trial, Ok(Trial::Stored(_))) {
        // What is left of an upload takes room until somebody removes it; the answer counts all the same
        // (R148: who may not delete may perhaps not abort either).
        if let Err(error) = upload.abort().await {
            debug!(key, %error, "an upload that was tried stays behind");
        }
    }
    trial
}

fn judge(outcome: Result<PutOutcome>) -> Result<Trial> {
    match outcome {
        Ok(PutOutcome::Refused { .. }) => Ok(Trial::Refused),
        Ok(PutOutcome::Stored { etag, .. }) => Ok(Trial::Stored(etag)),
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid) => {
            Ok(Trial::Unknown)
        }
        Err(error) => Err(error),
    }
}
