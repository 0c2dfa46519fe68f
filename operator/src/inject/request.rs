//! What the labels of a pod ask for.

use std::collections::BTreeMap;

use super::Refusal;
use crate::api::labels;

/// What the sidecar does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Follows the databases and stores what is committed.
    Watch,
    /// Keeps read replicas.
    Replicate,
}

impl Mode {
    /// The word in labels and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Replicate => "replicate",
        }
    }
}

/// What a pod asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// What the sidecar does.
    pub mode: Mode,
    /// The name of the `WalrustBackup`, in the pod's namespace.
    pub backup: String,
}

impl Request {
    /// What `labels` ask for; none where nothing is asked.
    ///
    /// # Errors
    /// A value that means nothing, or one label without the other: such a pod would run unprotected and look as if it
    /// did not.
    pub fn of(labels: &BTreeMap<String, String>) -> Result<Option<Self>, Refusal> {
        let Some(mode) = labels.get(labels::INJECT) else {
            return Ok(None);
        };
        let mode = match mode.as_str() {
            "watch" => Mode::Watch,
            "replicate" => Mode::Replicate,
            other => return Err(Refusal::Mode(other.to_owned())),
        };
        match labels.get(labels::BACKUP).map(String::as_str) {
            None | Some("") => Err(Refusal::NoBackup),
            Some(backup) => Ok(Some(Self {
                mode,
                backup: backup.to_owned(),
            })),
        }
    }
}
