//! Whether the application is held until the streams of the pod are ours.
//!
//! A gate that was open once stays open for the pod: a later container of it finds the marker on the pod's temporary
//! volume, for an application that runs must not be held again.

use std::path::{Path, PathBuf};

use walrust_core::config::{Environment, GateStartup, ResolvedDatabase};
use walrust_core::state::StateDir;

/// The gate of this pod.
#[derive(Debug)]
pub(crate) struct Gate {
    marker: Option<PathBuf>,
}

impl Gate {
    /// The gate of the pod that the environment names; without one nothing is remembered.
    pub(crate) fn of(environment: &Environment) -> Self {
        let pod = environment.filled("WALRUST_POD_UID");
        let plain = |pod: &&str| pod.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let marker = |pod| std::env::temp_dir().join(format!("walrust-gate-{pod}"));
        Self {
            marker: pod.filter(plain).map(marker),
        }
    }

    /// Whether it is shut at a start with these databases.
    pub(crate) fn is_shut(&self, when: GateStartup, databases: &[ResolvedDatabase]) -> bool {
        let opened = self.marker.as_deref().is_some_and(Path::exists);
        let followed = databases.iter().filter(|database| !database.paused);
        !opened
            && match when {
                GateStartup::Never => false,
                GateStartup::Always => true,
                GateStartup::Restored => followed.into_iter().any(is_restored),
            }
    }

    /// Remembers that it was open.
    pub(crate) fn opened(&self) {
        let Some(marker) = &self.marker else { return };
        if let Err(error) = std::fs::write(marker, "") {
            tracing::warn!(path = %marker.display(), %error, "that the gate was open is not remembered");
        }
    }
}

/// Whether a restore made the database and nobody has followed it since.
fn is_restored(database: &ResolvedDatabase) -> bool {
    match StateDir::peek(&database.path) {
        Ok(Some(peek)) => peek
            .saved
            .is_some_and(|saved| saved.restored_head.is_some()),
        Ok(None) => false,
        Err(error) => {
            // What cannot be looked at is told where it is opened; until then nobody may write it.
            tracing::debug!(db = %database.name, %error, "no look at the state directory");
            database.path.exists()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_was_open_stays_open_for_its_pod() {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate {
            marker: Some(dir.path().join("marker")),
        };
        assert!(gate.is_shut(GateStartup::Always, &[]));
        assert!(!gate.is_shut(GateStartup::Never, &[]));
        assert!(!gate.is_shut(GateStartup::Restored, &[]));
        gate.opened();
        assert!(!gate.is_shut(GateStartup::Always, &[]));
        let forgetful = Gate { marker: None };
        forgetful.opened();
        assert!(forgetful.is_shut(GateStartup::Always, &[]));
        let named = |uid: &str| Gate::of(&[("WALRUST_POD_UID", uid)].into_iter().collect());
        assert!(named("1f-2e").marker.is_some());
        assert!(named("../../etc").marker.is_none());
    }
}
