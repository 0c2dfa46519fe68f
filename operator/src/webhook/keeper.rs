//! Certificates of our own in a cluster: the leader keeps them in a Secret and tells the API server who signs; every
//! replica serves what the Secret holds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use walrust_core::clock::Clock;

use super::Served;
use super::certificates::CertificateError;
use super::rotation::{self, Lifetimes, State, Step};

/// After a step: what it did not achieve shall not be tried in a tight loop.
const AFTER_STEP: Duration = Duration::from_secs(2);
/// Three authorities have less than two kilobytes.
const MOST_KNOWN: usize = 8 << 10;
/// Who writes Secret and bundle.
const MANAGER: &str = "walrust-operator-webhook";
/// After an error, and until the bundle covers what is served.
const AGAIN: Duration = Duration::from_secs(5);

/// Where everything lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The operator's namespace.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// The MutatingWebhookConfiguration.
    pub configuration: String,
    /// The Service that the API server calls.
    pub service: String,
    /// Other names and addresses that it may call us by.
    pub also: Vec<String>,
}

impl Place {
    /// The names that the certificate is for.
    pub fn names(&self) -> Vec<String> {
        let Self {
            namespace, service, ..
        } = self;
        let own = [
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ];
        // Addresses in the form in which they are read back.
        let also = self.also.iter().map(|host| match host.parse::<IpAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => host.clone(),
        });
        own.into_iter().chain(also).collect()
    }
}

/// Why a round did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The API server refused, or could not be reached.
    #[error("{0}")]
    Api(#[from] Box<kube::Error>),
    /// A certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl From<kube::Error> for KeepError {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// Makes and renews certificates until `stop`. Only the leader may: two would take each other's back.
pub async fn keep(
    client: Client,
    place: Place,
    lifetimes: Lifetimes,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut keeper = Keeper {
        secrets: Api::namespaced(client.clone(), &place.namespace),
        configurations: Api::all(client),
        names: place.names(),
        place,
        lifetimes,
        clock,
        known_since: None,
    };
    loop {
        let wait = match keeper.round().await {
            Ok(wait) => wait,
            Err(error) => {
                warn!(%error, "webhook certificates are not kept up");
                AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

struct Keeper {
    secrets: Api<Secret>,
    configurations: Api<MutatingWebhookConfiguration>,
    place: Place,
    names: Vec<String>,
    lifetimes: Lifetimes,
    clock: Clock,
    /// Since when we saw the API server know this bundle.
    known_since: Option<(String, Instant)>,
}

impl Keeper {
    /// One step, and how long to wait for the next.
    async fn round(&mut self) -> Result<Duration, KeepError> {
        let secret = self.secrets.get_opt(&self.place.secret).await?;
        let data = secret.as_ref().and_then(|secret| secret.data.as_ref());
        let state = data.and_then(State::of);
        if let Some(state) = &state {
            self.tell(&state.bundle()).await?;
        }
        let now = self.clock.now();
        let known_for = self.known_for(state.as_ref());
        let step = rotation::next_step(state.as_ref(), &self.names, self.lifetimes, now, known_for);
        if let Step::Wait(wait) = step {
            return Ok(wait);
        }
        let mut state = rotation::after(step, state, &self.names, self.lifetimes, now)?;
        if step == Step::Create {
            // Of a Secret that was deleted: replicas still serve what these signed.
            state.previous = self.told().await?;
        }
        self.write(secret, &state).await?;
        info!(
            ?step,
            secret = self.place.secret,
            "webhook certificates were renewed"
        );
        self.tell(&state.bundle()).await?;
        Ok(AFTER_STEP)
    }

    /// The authorities that the API server knows already, if they are not too many to be ours.
    async fn told(&self) -> Result<Option<String>, KeepError> {
        let found = self.configurations.get(&self.place.configuration).await?;
        let mut known = found
            .webhooks
            .iter()
            .flatten()
            .filter_map(|webhook| webhook.client_config.ca_bundle.as_ref());
        let known = known
            .next()
            .and_then(|known| String::from_utf8(known.0.clone()).ok());
        Ok(known.filter(|known| !known.trim().is_empty() && known.len() <= MOST_KNOWN))
    }

    fn known_for(&self, state: Option<&State>) -> Duration {
        let bundle = state.map(State::bundle);
        match &self.known_since {
            Some((known, since)) if Some(known) == bundle.as_ref() => since.elapsed(),
            _ => Duration::ZERO,
        }
    }

    /// Nobody else may have written since: of two leaders for a moment, one is refused.
    async fn write(&self, found: Option<Secret>, state: &State) -> Result<(), KeepError> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.place.secret.clone()),
                resource_version: found.and_then(|found| found.metadata.resource_version),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(state.data()),
            ..Secret::default()
        };
        let how = PatchParams::apply(MANAGER).force();
        self.secrets
            .patch(&self.place.secret, &how, &Patch::Apply(&secret))
            .await?;
        Ok(())
    }

    /// Has the API server know `bundle`.
    async fn tell(&mut self, bundle: &str) -> Result<(), KeepError> {
        let name = self.place.configuration.as_str();
        let found = self.configurations.get(name).await?;
        if !covers(&found, bundle) {
            let webhooks = found.webhooks.iter().flatten().map(|webhook| {
                json!({"name": webhook.name, "clientConfig": {"caBundle": ByteString(bundle.as_bytes().to_vec())}})
            });
            let patch = json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "webhooks": webhooks.collect::<Vec<_>>(),
            });
            let how = PatchParams::apply(MANAGER).force();
            self.configurations
                .patch(name, &how, &Patch::Apply(&patch))
                .await?;
        }
        if self
            .known_since
            .as_ref()
            .is_none_or(|(known, _)| known != bundle)
        {
            self.known_since = Some((bundle.to_owned(), Instant::now()));
        }
        Ok(())
    }
}

/// Whether every webhook of `configuration` knows exactly `bundle`.
fn covers(configuration: &MutatingWebhookConfiguration, bundle: &str) -> bool {
    let mut webhooks = configuration.webhooks.iter().flatten();
    webhooks.all(|webhook| {
        let known = webhook.client_config.ca_bundle.as_ref();
        known.is_some_and(|known| known.0 == bundle.as_bytes())
    })
}

/// Whether the authority `certificate` is among those that every webhook of `configuration` knows.
fn knows(configuration: &MutatingWebhookConfiguration, certificate: &str) -> bool {
    let mut webhooks = configuration.webhooks.iter().flatten();
    webhooks.all(|webhook| {
        let known = webhook.client_config.ca_bundle.as_ref();
        let known = known.map(|known| String::from_utf8_lossy(&known.0));
        known.is_some_and(|known| known.contains(certificate.trim_end()))
    })
}

/// Serves what the Secret holds, and what it changes to, until `stop`. Every replica does.
pub async fn follow(client: Client, place: Place, served: Arc<Served>, stop: CancellationToken) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &place.namespace);
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(client);
    let named = watcher::Config::default().fields(&format!("metadata.name={}", place.secret));
    let changes = watcher(secrets, named).default_backoff().applied_objects();
    let mut changes = std::pin::pin!(changes);
    let mut authority: Option<String> = None;
    loop {
        let changed = async {
            match served.is_ready() || authority.is_none() {
                true => changes.next().await,
                // The leader has not told the API server yet.
                false => tokio::time::timeout(AGAIN, changes.next())
                    .await
                    .unwrap_or(None),
            }
        };
        let changed = tokio::select! {
            changed = changed => changed,
            () = stop.cancelled() => return,
        };
        match changed {
            Some(Ok(secret)) => {
                if let Some(state) = secret.data.as_ref().and_then(State::of) {
                    match served.put(&state.leaf.certificate, &state.leaf.key) {
                        Ok(()) => info!(secret = place.secret, "a certificate is served"),
                        Err(error) => {
                            warn!(secret = place.secret, %error, "a certificate cannot be served")
                        }
                    }
                    authority = Some(state.authority.certificate);
                }
            }
            Some(Err(error)) => {
                warn!(secret = place.secret, %error, "the certificates cannot be watched")
            }
            None => {}
        }
        if let Some(authority) = &authority {
            match configurations.get(&place.configuration).await {
                Ok(found) => served.set_covered(knows(&found, authority)),
                Err(error) => {
                    warn!(configuration = place.configuration, %error, "the webhook cannot be read")
                }
            }
        }
    }
}
