//! What a running watch tells whoever listens: the lines of `walrust watch`, its `--json`, metrics.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::error::ErrorKind;
use crate::types::{DatabaseName, PageSize, Timestamp, Txid};

/// Something that happened to one watched database.
///
/// As JSON it is one flat object, the same fields for every event, `null` where one has no meaning:
/// `event`, `time`, `database`, `name`, `txid`, `frames`, `page_size`, `bytes`, `reason`, `kind`,
/// `message`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchEvent {
    /// When it happened.
    pub time: Timestamp,
    /// The database's file as it was named to walrust.
    pub database: PathBuf,
    /// Its name in the bucket.
    pub name: DatabaseName,
    /// What happened.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happening {
    /// The database is attached: from now on nothing committed is missed.
    Watching {
        /// The state that the stream continues from; none before the first base.
        txid: Option<Txid>,
    },
    /// Commits became durable.
    Sync {
        /// The newest of them.
        txid: Txid,
        /// WAL frames shipped.
        frames: u64,
        /// What one frame holds.
        page_size: PageSize,
        /// Bytes of the stored object.
        bytes: u64,
    },
    /// A snapshot became durable.
    Snapshot {
        /// The state that it holds.
        txid: Txid,
        /// Bytes of the stored object.
        bytes: u64,
        /// What called for it.
        reason: SnapshotReason,
    },
    /// Incrementals were merged.
    Merge {
        /// The end of the merged file.
        txid: Txid,
        /// Bytes of the stored object.
        bytes: u64,
    },
    /// What nobody needs any more went from the bucket.
    Compact {
        /// How many objects.
        objects: u64,
        /// Their size.
        bytes: u64,
    },
    /// Continuity could not be proven; the chain goes on with what differs (invariant 4).
    Rebase {
        /// The transaction that stands for the jump.
        txid: Txid,
        /// Bytes of the stored object.
        bytes: u64,
        /// Why, as the metric's label names it.
        reason: &'static str,
        /// The same for people.
        message: String,
    },
    /// The newest stored state was restored to scratch, and is sound.
    Proven {
        /// The state.
        txid: Txid,
        /// Size of the restored database.
        bytes: u64,
        /// How long it took, in milliseconds.
        duration_ms: u64,
    },
    /// The newest stored state could not be restored, or is not sound.
    Unproven {
        /// What the error means.
        kind: ErrorKind,
        /// The error in one line.
        message: String,
    },
    /// Another writer owns the stream; this database is no longer shipped.
    Fenced {
        /// Who, as far as the store says.
        message: String,
    },
    /// Something failed; it is tried again where `kind` says so.
    Error {
        /// What the error means.
        kind: ErrorKind,
        /// The error in one line.
        message: String,
    },
    /// What failed works again.
    Recovered {
        /// The newest durable transaction.
        txid: Option<Txid>,
        /// What had failed.
        message: String,
    },
    /// Shutdown: everything committed is durable.
    Drained {
        /// The newest durable transaction.
        txid: Option<Txid>,
    },
}

/// Why chains go on by a rebase, as the metric's label names it; the last one stands for any other.
pub(super) const REBASE_REASONS: [&str; 11] = [
    "wal_restarted",
    "wal_header",
    "wal_ends_early",
    "wal_checksum",
    "page_size",
    "table_lost",
    "state_lost",
    "spool_full",
    "adopted",
    "new_chain",
    "other",
];

/// What called for a snapshot (R42 to R46).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SnapshotReason {
    /// `snapshot_interval`.
    Scheduled,
    /// `on_startup`, or a stream without a base.
    Startup,
    /// `on_idle`.
    Idle,
    /// `max_changes`.
    MaxChanges,
    /// `max_interval`.
    MaxInterval,
    /// A base that was lost, or an audit that failed.
    Recovery,
    /// Somebody asked for it.
    Requested,
}

impl SnapshotReason {
    /// The reason in JSON and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Startup => "startup",
            Self::Idle => "idle",
            Self::MaxChanges => "max_changes",
            Self::MaxInterval => "max_interval",
            Self::Recovery => "recovery",
            Self::Requested => "requested",
        }
    }

    /// The word before `snapshot` in the line for people (R53).
    pub const fn title(self) -> &'static str {
        match self {
            Self::Scheduled => "Scheduled",
            Self::Startup => "Startup",
            Self::Idle => "Idle",
            Self::MaxChanges => "Max changes",
            Self::MaxInterval => "Max interval",
            Self::Recovery => "Recovery",
            Self::Requested => "Requested",
        }
    }
}

impl Happening {
    /// The event's name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Watching { .. } => "watching",
            Self::Sync { .. } => "sync",
            Self::Snapshot { .. } => "snapshot",
            Self::Merge { .. } => "merge",
            Self::Compact { .. } => "compact",
            Self::Rebase { .. } => "rebase",
            Self::Proven { .. } => "proven",
            Self::Unproven { .. } => "unproven",
            Self::Fenced { .. } => "fenced",
            Self::Error { .. } => "error",
            Self::Recovered { .. } => "recovered",
            Self::Drained { .. } => "drained",
        }
    }

    /// The transaction that the event ends at.
    pub const fn txid(&self) -> Option<Txid> {
        match self {
            Self::Sync { txid, .. }
            | Self::Snapshot { txid, .. }
            | Self::Merge { txid, .. }
            | Self::Rebase { txid, .. }
            | Self::Proven { txid, .. } => Some(*txid),
            Self::Watching { txid } | Self::Recovered { txid, .. } | Self::Drained { txid } => {
                *txid
            }
            Self::Compact { .. }
            | Self::Unproven { .. }
            | Self::Fenced { .. }
            | Self::Error { .. } => None,
        }
    }

    const fn bytes(&self) -> Option<u64> {
        match self {
            Self::Sync { bytes, .. }
            | Self::Snapshot { bytes, .. }
            | Self::Merge { bytes, .. }
            | Self::Compact { bytes, .. }
            | Self::Rebase { bytes, .. }
            | Self::Proven { bytes, .. } => Some(*bytes),
            _ => None,
        }
    }

    const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Snapshot { reason, .. } => Some(reason.name()),
            Self::Rebase { reason, .. } => Some(*reason),
            _ => None,
        }
    }

    fn message(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Rebase { message, .. }
            | Self::Unproven { message, .. }
            | Self::Fenced { message }
            | Self::Error { message, .. }
            | Self::Recovered { message, .. } => Some(message.into()),
            Self::Compact { objects: 1, .. } => Some("1 object deleted".into()),
            Self::Compact { objects, .. } => Some(format!("{objects} objects deleted").into()),
            _ => None,
        }
    }
}

impl Serialize for WatchEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (frames, page_size) = match self.what {
            Happening::Sync {
                frames, page_size, ..
            } => (Some(frames), Some(page_size.get())),
            _ => (None, None),
        };
        let kind = match self.what {
            Happening::Error { kind, .. } | Happening::Unproven { kind, .. } => Some(kind.name()),
            _ => None,
        };
        let mut fields = serializer.serialize_struct("WatchEvent", 11)?;
        fields.serialize_field("event", self.what.name())?;
        fields.serialize_field("time", &self.time)?;
        // A path need not be UTF-8; JSON must be.
        fields.serialize_field("database", &self.database.to_string_lossy())?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("txid", &self.what.txid())?;
        fields.serialize_field("frames", &frames)?;
        fields.serialize_field("page_size", &page_size)?;
        fields.serialize_field("bytes", &self.what.bytes())?;
        fields.serialize_field("reason", &self.what.reason())?;
        fields.serialize_field("kind", &kind)?;
        fields.serialize_field("message", &self.what.message())?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_every_field() {
        let event = WatchEvent {
            time: Timestamp::from_millis(0),
            database: "/var/lib/app.db".into(),
            name: "app.db".parse().unwrap(),
            what: Happening::Snapshot {
                txid: Txid::new(7).unwrap(),
                bytes: 512,
                reason: SnapshotReason::MaxChanges,
            },
        };
        assert_eq!(
            serde_json::to_string(&event).unwrap(),
            concat!(
                r#"{"event":"snapshot","time":"1970-01-01T00:00:00Z","database":"/var/lib/app.db","#,
                r#""name":"app.db","txid":7,"frames":null,"page_size":null,"bytes":512,"#,
                r#""reason":"max_changes","kind":null,"message":null}"#
            )
        );
    }
}
