//! Condition `Replicating`: whether what is committed reaches the bucket.

use super::Scene;
use super::conditions::{Holds, Verdict};
use super::databases::Writing;
use crate::api::DatabaseState;

/// The condition, from the databases that are `writing`.
pub(super) fn verdict(scene: &Scene<'_>, writing: &[Writing]) -> Verdict {
    if scene.backup.spec.suspend {
        return Verdict::bad("Suspended", "spec.suspend is set: nothing is uploaded");
    }
    let pods: Vec<_> = scene
        .writers()
        .filter(|pod| pod.fact.port.is_some())
        .collect();
    if pods.is_empty() {
        return Verdict::bad("NoPods", "no pod with a sidecar runs");
    }
    for pod in &pods {
        let limit = scene.patience.unreachable;
        if let Some((message, since)) = &pod.silent
            && scene.over(*since, limit)
        {
            let name = &pod.fact.name;
            return Verdict::bad(
                "Unreachable",
                format!("the sidecar of {name} does not answer: {message}"),
            );
        }
    }
    if pods.iter().all(|pod| pod.report.is_none()) {
        return Verdict::new(Holds::Unknown, "Starting", "no sidecar has answered yet");
    }
    let troubles = writing.iter().filter_map(|one| Some((trouble(one)?, one)));
    // The first in the order below explains the others.
    match troubles.min_by_key(|((rank, _), _)| *rank) {
        None => Verdict::good("InSync", "every database is in sync"),
        Some(((_, reason), one)) => {
            let name = &one.status.name;
            let detail = one.status.message.as_deref().unwrap_or(explanation(reason));
            Verdict::bad(reason, format!("{name}: {detail}"))
        }
    }
}

/// What is wrong with a database: how much it explains, and its word.
fn trouble(one: &Writing) -> Option<(u8, &'static str)> {
    if one.is_well() {
        return None;
    }
    let by_error = match one.error.as_deref() {
        Some("denied") => Some((1, "AccessDenied")),
        Some("unavailable") => Some((2, "StorageUnreachable")),
        _ => None,
    };
    Some(match one.status.state {
        DatabaseState::Fenced | DatabaseState::AcquiringLease => {
            by_error.unwrap_or((0, "LeaseHeldElsewhere"))
        }
        DatabaseState::Erroring => by_error.unwrap_or((3, "Erroring")),
        DatabaseState::Lagging => by_error.unwrap_or((6, "Lagging")),
        DatabaseState::Snapshotting => by_error.unwrap_or((7, "Snapshotting")),
        DatabaseState::Detached => by_error.unwrap_or((4, "Detached")),
        DatabaseState::WaitingForFile => (5, "DatabaseMissing"),
        DatabaseState::Unreachable
        | DatabaseState::InSync
        | DatabaseState::Paused
        | DatabaseState::Replica => (8, "Unreachable"),
    })
}

fn explanation(reason: &str) -> &'static str {
    match reason {
        "LeaseHeldElsewhere" => "another writer owns the stream",
        "AccessDenied" => "the store refuses us",
        "StorageUnreachable" => "the store does not answer",
        "Lagging" => "commits wait for longer than they should",
        "Snapshotting" => "the first snapshot is under way",
        "Detached" => "it is let alone for now",
        "DatabaseMissing" => "the file is not there",
        _ => "it does not go on",
    }
}
