//! The operator: what a `WalrustBackup` becomes in a cluster.
//!
//! ```text
//! WalrustBackup + Settings -> render (pure) -> ConfigMap, CronJobs
//! WalrustRestore           -> render (pure) -> Job
//! pod + WalrustBackup      -> inject (pure) -> JSON patch
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`api`] | the two kinds, with their rules, and the labels that users write |
//! | [`render`] | resource and settings -> objects |
//! | [`inject`] | pod and resource -> a patch, or the reason why not |
//! | [`offline`] | both of these for files |
//! | [`webhook`] | the server that answers the API server with such patches, and its certificates |
//! | [`yaml`] | YAML in and out |

pub mod api;
pub mod inject;
pub mod offline;
pub mod render;
pub mod webhook;
pub mod yaml;
