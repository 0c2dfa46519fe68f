//! Writing the objects that belong to a resource: server-side apply, and only what needs it.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::facts::OwnFact;
use crate::api::labels::FIELD_MANAGER;

/// Kind, namespace and name.
type Key = (&'static str, String, String);

/// What was applied last, so that nothing is sent while it still stands. As many as there are objects, at most.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    last: Mutex<HashMap<Key, (Vec<u8>, String)>>,
}

/// What tells two wanted states of an object apart.
fn digest<K: Serialize>(object: &K) -> Vec<u8> {
    let bytes = serde_json::to_vec(object).unwrap_or_default();
    Sha256::digest(&bytes).to_vec()
}

impl Applied {
    fn stands(&self, key: &Key, digest: &[u8], seen: Option<&OwnFact>) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((applied, version)) = last.get(key) else {
            return false;
        };
        seen.is_some_and(|seen| seen.version == *version) && applied == digest
    }

    fn remember(&self, key: Key, digest: Vec<u8>, version: String) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.insert(key, (digest, version));
    }

    fn forget(&self, key: &Key) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.remove(key);
    }

    /// Makes `object` what it should be. `seen` is what the watch last showed of it; `owner` the UID of the resource.
    /// Gives the version that it has then.
    pub(crate) async fn apply<K>(
        &self,
        client: &Client,
        object: &K,
        seen: Option<&OwnFact>,
        owner: &str,
    ) -> Result<(), Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Serialize
            + DeserializeOwned
            + Debug,
    {
        let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
        let kind: &'static str = kind::<K>();
        let what = format!("{kind} {name}");
        if seen.is_some_and(|seen| seen.owner.as_deref() != Some(owner)) {
            return Err(Error::NameTaken { object: what });
        }
        let key: Key = (kind, namespace.clone(), name.clone());
        let digest = digest(object);
        if self.stands(&key, &digest, seen) {
            return Ok(());
        }
        let api = Api::<K>::namespaced(client.clone(), &namespace);
        if seen.is_none() {
            // The watch may lag: an object that is not ours is not taken.
            let there = api
                .get_opt(&name)
                .await
                .map_err(Error::api("get", what.clone()))?;
            if there.is_some_and(|there| !is_controlled_by(&there, owner)) {
                return Err(Error::NameTaken { object: what });
            }
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = api.patch(&name, &params, &Patch::Apply(object)).await;
        let applied = applied.map_err(Error::api("apply", what))?;
        self.remember(key, digest, applied.resource_version().unwrap_or_default());
        Ok(())
    }

    /// Deletes an object of ours that is not wanted any more.
    pub(crate) async fn delete<K>(
        &self,
        client: &Client,
        namespace: &str,
        seen: &OwnFact,
    ) -> Result<(), Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let what = format!("{} {}", kind::<K>(), seen.name);
        let params = DeleteParams {
            // The one that was seen, and no other of that name.
            preconditions: Some(Preconditions {
                resource_version: Some(seen.version.clone()),
                uid: None,
            }),
            ..DeleteParams::background()
        };
        let api = Api::<K>::namespaced(client.clone(), namespace);
        match api.delete(&seen.name, &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => return Err(Error::api("delete", what)(error)),
        }
        self.forget(&(kind::<K>(), namespace.to_owned(), seen.name.clone()));
        Ok(())
    }
}

/// Whether `object` is controlled by the resource with the UID `owner`.
pub(super) fn is_controlled_by<K: Resource>(object: &K, owner: &str) -> bool {
    let mut owners = object.owner_references().iter();
    owners.any(|one| one.controller == Some(true) && one.uid == owner)
}

fn kind<K: Resource<DynamicType = ()>>() -> &'static str {
    match K::kind(&()) {
        std::borrow::Cow::Borrowed(kind) => kind,
        // Types of k8s-openapi and of the derive have theirs as a constant.
        std::borrow::Cow::Owned(_) => "object",
    }
}
