//! Where the webhook finds a `WalrustBackup`.

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client};

use crate::api::WalrustBackup;

/// The webhook has five seconds in all; the API server is one hop away.
const LONGEST: Duration = Duration::from_secs(2);

/// Why it is not known whether there is such a resource.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The API server refused, or could not be reached.
    #[error("ask the API server for the WalrustBackup: {0}")]
    Api(#[from] Box<kube::Error>),
    /// It did not answer in time.
    #[error("the API server did not answer within {LONGEST:?}")]
    Late,
}

/// Where the webhook finds a `WalrustBackup`.
#[async_trait::async_trait]
pub trait Lookup: Send + Sync {
    /// The resource, or none if there is none.
    async fn backup(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<WalrustBackup>>, LookupError>;
}

/// The API server, asked only for what the controller's store does not know: a resource that was applied a moment ago.
pub struct Live {
    client: Client,
    store: Option<Store<WalrustBackup>>,
}

impl Live {
    /// Asks `client` for what `store`, if there is one, does not know.
    pub const fn new(client: Client, store: Option<Store<WalrustBackup>>) -> Self {
        Self { client, store }
    }
}

#[async_trait::async_trait]
impl Lookup for Live {
    async fn backup(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<WalrustBackup>>, LookupError> {
        let known = self.store.as_ref();
        if let Some(known) =
            known.and_then(|store| store.get(&ObjectRef::new(name).within(namespace)))
        {
            return Ok(Some(known));
        }
        let api: Api<WalrustBackup> = Api::namespaced(self.client.clone(), namespace);
        match tokio::time::timeout(LONGEST, api.get_opt(name)).await {
            Ok(found) => Ok(found.map_err(Box::new)?.map(Arc::new)),
            Err(_) => Err(LookupError::Late),
        }
    }
}
