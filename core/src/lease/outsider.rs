//! Questions about a stream by somebody who does not want its lease.

use bytes::Bytes;

use super::probe::conditions_hold;
use super::record::{HolderId, Record};
use crate::error::{ErrorKind, Result};
use crate::store::{Layout, Put, Store, claim_key};
use crate::types::KeyPrefix;

/// Whether the store refuses what it must: a creation over an object, and a replacement of a version that is
/// not there. Tried on a key of our own, which is gone afterwards.
///
/// Errors: those of the store.
pub async fn conditional_writes_hold(store: &dyn Store, prefix: &KeyPrefix) -> Result<bool> {
    let key = claim_key(prefix, HolderId::random().as_str());
    let body = |number: u8| Bytes::from(format!("{{\"v\":1,\"probe\":{number}}}\n"));
    match store.put(&key, body(0), Put::new_object()).await {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    let hold = conditions_hold(store, &key, body).await;
    // Left behind it does no harm: nobody asks this holder anything.
    if let Err(error) = store.delete(&[key]).await {
        tracing::debug!(%error, "a probe stays");
    }
    hold
}

/// Whether somebody may be writing: the lease is there and was not given back. Silence proves nothing, for an
/// idle writer sends nothing.
///
/// Errors: `Corrupt` for a lease that cannot be read, and those of the store.
pub async fn writer_may_live(store: &dyn Store, layout: &Layout) -> Result<bool> {
    let key = layout.lease();
    match store.get(&key, None).await {
        Ok(object) => {
            let record = Record::from_bytes(&object.bytes).map_err(|error| error.on(&key))?;
            Ok(!record.released)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
