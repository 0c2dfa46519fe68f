//! The configuration file and what it means.
//!
//! [`File::load`] reads `walrust.toml` and reports every fault with its place. [`resolve`] lays command
//! line, environment, file and built-in defaults over each other; all programs use it, so that one file
//! means the same to each of them.

mod choices;
mod databases;
mod encryption;
mod environment;
mod expand;
mod fault;
mod file;
mod heartbeat;
pub mod limits;
mod metrics;
mod proxy;
mod rescan;
mod resolve;
mod retention;
mod section;
mod settings;
pub mod streams;
#[cfg(test)]
mod tests;
pub mod value;

pub use choices::{Barrier, ChoiceError, GateStartup, LeaseMode, LogFormat, PathStyle};
pub use encryption::Encryption;
pub use environment::Environment;
pub use fault::{Fault, Faults, Place};
pub use file::{DEFAULT_FILE, Entry, File};
pub use heartbeat::{HeartbeatError, HeartbeatUrl};
pub use metrics::{Listen, MetricsLayer, MetricsSettings};
pub use proxy::{ProxyAddress, ProxyError};
pub use rescan::Rescan;
pub use resolve::{
    Overrides, log_format, resolve, resolve_replicate, resolve_retention, resolve_store,
};
pub use retention::{RetentionLayer, RetentionPolicy};
pub use settings::{
    ReplicateSettings, Resolved, ResolvedDatabase, StoreLayer, StoreSettings, SyncLayer,
    SyncSettings, Unmatched,
};
