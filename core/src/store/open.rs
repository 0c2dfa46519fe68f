//! From configuration to a store that bounds, counts and retries.

use std::sync::Arc;

use crate::error::Result;

use super::{
    FileStore, Limited, Meter, Metered, Retrying, S3Store, Store, StoreConfig, StoreLocation,
};

/// The store of a configuration. Makes no request. Errors: `Invalid` and `NotFound` for what the
/// configuration names and cannot be used, `Denied` for a directory that may not be written.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>> {
    open_metered(config, &Meter::default()).await
}

/// The same, counting into a meter of the caller's.
pub async fn open_metered(config: &StoreConfig, meter: &Meter) -> Result<Arc<dyn Store>> {
    Ok(match &config.location {
        StoreLocation::S3 { .. } => {
            // A retry waits outside the limit, so that a pause holds no place in it.
            let store = Metered::new(S3Store::connect(config).await?, meter.clone());
            let store = Limited::new(store, config.max_requests, config.bandwidth);
            Arc::new(Retrying::new(store, config.retry).counting(meter.clone()))
        }
        StoreLocation::File { root } => {
            let store = Metered::new(FileStore::open(root)?, meter.clone());
            let store = Limited::new(store, config.max_requests, config.bandwidth);
            Arc::new(Retrying::new(store, config.retry).counting(meter.clone()))
        }
    })
}
