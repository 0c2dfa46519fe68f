//! Why a pod is refused. Whoever applies it reads the message, so it says what to change.

use crate::render;

/// Why a pod that asks for a sidecar cannot have one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A value of the label that means nothing.
    #[error("label walrust.dev/inject is {0:?}: write watch or replicate")]
    Mode(String),
    /// One label without the other.
    #[error("label walrust.dev/backup is missing: name the WalrustBackup of this namespace")]
    NoBackup,
    /// Not an object that a pod can be made of.
    #[error("the pod cannot be read: {0}")]
    Unreadable(String),
    /// The resource cannot be rendered.
    #[error("WalrustBackup {backup:?} cannot be used: {cause}")]
    Render {
        /// Its name.
        backup: String,
        /// What is wrong with it.
        cause: render::Error,
    },
    /// The control port would be the node's.
    #[error(
        "a pod with hostNetwork cannot have the sidecar: its control port would be open on the node"
    )]
    HostNetwork,
    /// A container has a name of ours.
    #[error("container {0:?} has a name that walrust needs: rename it")]
    ContainerName(String),
    /// A volume has a name of ours.
    #[error("volume {0:?} has a name that walrust needs: rename it")]
    VolumeName(String),
    /// A container listens where we do.
    #[error(
        "container {container:?} uses port {port}, which is the sidecar's: set sidecar.metricsPort in WalrustBackup {backup:?}"
    )]
    Port {
        /// The container.
        container: String,
        /// The port.
        port: i32,
        /// The resource.
        backup: String,
    },
    /// The container that the resource names is not there.
    #[error(
        "sidecar.container of WalrustBackup {backup:?} is {container:?}, which the pod does not have (it has {present})"
    )]
    NoContainer {
        /// The resource.
        backup: String,
        /// What it names.
        container: String,
        /// What there is.
        present: String,
    },
    /// The path lies in the container's own file system.
    #[error(
        "no container mounts a volume for every database: {path:?} is on no volume of container {container:?} ({mounts}): mount one there, or correct the path in WalrustBackup {backup:?}"
    )]
    NoMount {
        /// The first path that is missing.
        path: String,
        /// The container that was looked at last.
        container: String,
        /// What it mounts.
        mounts: String,
        /// The resource.
        backup: String,
    },
    /// A mount or volume that cannot be written.
    #[error("{path:?}: {what} is read-only, and SQLite's WAL needs to write beside the database")]
    ReadOnly {
        /// The path.
        path: String,
        /// The mount or volume.
        what: String,
    },
    /// A single file is mounted.
    #[error(
        "{path:?}: the mount is of the file itself, and its -wal would not lie on the volume: mount the directory"
    )]
    FileMount {
        /// The path.
        path: String,
    },
    /// A volume is mounted where our files must be.
    #[error(
        "{path:?}: the volume is mounted at {mount:?}, where walrust's own files lie ({own}): mount it elsewhere"
    )]
    Overlap {
        /// The path.
        path: String,
        /// Where the volume is mounted.
        mount: String,
        /// What it would cover.
        own: &'static str,
    },
    /// A part of a mount that only the container knows.
    #[error(
        "subPathExpr {expression:?} uses {variable:?}, which container {container:?} does not define under env"
    )]
    Variable {
        /// The expression.
        expression: String,
        /// The variable.
        variable: String,
        /// The container.
        container: String,
    },
    /// Nobody says as whom the application runs.
    #[error(
        "container {container:?} has no runAsUser, and its image's is not known here: set it there, or sidecar.securityContext.runAsUser in WalrustBackup {backup:?}"
    )]
    NoUser {
        /// The container.
        container: String,
        /// The resource.
        backup: String,
    },
    /// It runs as root, and the sidecar would have to.
    #[error(
        "container {container:?} runs as root, and this operator allows no root sidecars (allowRoot): run the application as another user"
    )]
    Root {
        /// The container.
        container: String,
    },
    /// The resource asks for less safety than `restricted`.
    #[error(
        "sidecar.securityContext of WalrustBackup {backup:?}: {what} is less than a restricted namespace demands"
    )]
    Weaker {
        /// The resource.
        backup: String,
        /// The field.
        what: &'static str,
    },
    /// The init container that ours shall follow is not there.
    #[error("annotation walrust.dev/after names {0:?}, which is no init container of the pod")]
    After(String),
}
