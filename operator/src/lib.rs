//! The operator: what a `WalrustBackup` becomes in a cluster.
//!
//! ```text
//! WalrustBackup + Settings -> render (pure) -> ConfigMap, CronJobs
//! WalrustRestore           -> render (pure) -> Job
//! pod + WalrustBackup      -> inject (pure) -> JSON patch
//! what is there            -> status (pure) -> WalrustBackup.status
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`api`] | the two kinds, with their rules, and the labels that users write |
//! | [`render`] | resource and settings -> objects |
//! | [`inject`] | pod and resource -> a patch, or the reason why not |
//! | [`offline`] | both of these for files |
//! | [`webhook`] | the server that answers the API server with such patches, and its certificates |
//! | [`run`] | one operator of a cluster: [`http`], the webhook, [`leader`], and where it leads [`controller`] |
//! | [`controller`] | passes over resources: apply, look, say how it stands |
//! | [`status`] | what a `WalrustBackup` says of itself; [`jobs`]: what its Jobs said |
//! | [`metrics`] | what the operator counts |
//! | [`selftest`] | what `helm test` asks |
//! | [`yaml`] | YAML in and out |

pub mod api;
pub mod controller;
pub mod http;
pub mod inject;
pub mod jobs;
pub mod leader;
pub mod metrics;
pub mod offline;
pub mod render;
pub mod run;
pub mod selftest;
pub mod status;
pub mod webhook;
pub mod yaml;

/// The time of day, as the API writes it.
pub(crate) fn now() -> k8s_openapi::jiff::Timestamp {
    let millis = walrust_core::clock::Clock::system().now().millis();
    // Out of range is a clock that nobody could have set.
    k8s_openapi::jiff::Timestamp::from_millisecond(millis).unwrap_or_default()
}
