//! Names that users, the operator and the chart agree on.

/// On a pod: `watch` or `replicate`.
pub const INJECT: &str = "walrust.dev/inject";
/// On a pod and on whatever the operator makes: the name of the `WalrustBackup`.
pub const BACKUP: &str = "walrust.dev/backup";
/// On Jobs and their pods: `compact`, `verify`, `restore-drill` or `restore`.
pub const TASK: &str = "walrust.dev/task";
/// On the Job of a `WalrustRestore` and its pod: the name of the restore.
pub const RESTORE: &str = "walrust.dev/restore";

/// On a pod: the init container that our containers come after.
pub const AFTER: &str = "walrust.dev/after";
/// On a pod: `true` lets a database that was backed up before start empty.
pub const ALLOW_FRESH: &str = "walrust.dev/allow-fresh";
/// On an injected pod: the version of the operator that did it.
pub const INJECTED: &str = "walrust.dev/injected";
/// On an injected pod: the configuration at that moment.
pub const INJECTED_CONFIG_HASH: &str = "walrust.dev/injected-config-hash";
/// On the ConfigMap: the first 12 hex digits of the SHA-256 of `walrust.toml`.
pub const CONFIG_HASH: &str = "walrust.dev/config-hash";
/// On a `WalrustBackup`: `verify=<nonce>`, `drill=…`, `compact=…` or `snapshot=…` asks for one run now.
pub const RUN: &str = "walrust.dev/run";

/// Who applies objects with server-side apply.
pub const FIELD_MANAGER: &str = "walrust-operator";

/// The init container that restores what is missing.
pub const RESTORE_CONTAINER: &str = "walrust-restore";
/// The sidecar; also the container of Jobs.
pub const CONTAINER: &str = "walrust";
