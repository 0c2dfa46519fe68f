//! Why a resource cannot be rendered.

use crate::api::TaskName;

/// Why a resource cannot be rendered. The message names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has no name or no namespace.
    #[error("metadata.{0} is missing")]
    Nameless(&'static str),
    /// The name leaves no room for those of CronJobs.
    #[error(
        "metadata.name {0:?} has more than 38 characters, which leaves no room in the names of CronJobs"
    )]
    LongName(String),
    /// Both or neither of the two ways to authorize.
    #[error("{0}: give exactly one of secretRef and workloadIdentity")]
    Credentials(&'static str),
    /// An image that the operator does not allow.
    #[error(
        "spec.sidecar.image: {0:?} is none of the images that the operator allows (allowedImages)"
    )]
    Image(String),
    /// A database that cannot be configured.
    #[error("spec.databases: {name:?}: {message}")]
    Database {
        /// Its name.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// A schedule that has no run.
    #[error("spec.schedules: {}: {message}", task.word())]
    Schedule {
        /// Whose schedule.
        task: TaskName,
        /// What is wrong with it.
        message: String,
    },
    /// What the sidecar would refuse.
    #[error("walrust.toml: {0}")]
    Config(String),
    /// Neither or both of the places that a restore can come from.
    #[error("spec: give exactly one of backupRef and source")]
    Source,
    /// The backup that a restore names is not the one that was given.
    #[error("spec.backupRef: {0:?} is another WalrustBackup")]
    OtherBackup(String),
    /// A database that the backup does not have.
    #[error("spec.database: {name:?} is none of the databases of the backup ({known})")]
    UnknownDatabase {
        /// What was named.
        name: String,
        /// What there is.
        known: String,
    },
    /// Neither or both of the ways to name a state.
    #[error("spec.to: give one of txid and time, or leave it out for the latest state")]
    Moment,
    /// A choice that this version does not have.
    #[error("{0} is not available in this version: leave it out")]
    NotYet(&'static str),
}
