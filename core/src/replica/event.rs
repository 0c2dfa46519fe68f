//! What a running replica tells whoever listens: the lines of `walrust replicate`, its `--json`, metrics.

use std::path::PathBuf;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::judge::Reason;
use crate::error::ErrorKind;
use crate::types::{DatabaseName, Timestamp, Txid};

/// Something that happened to a replica.
///
/// As JSON it is one flat object, the same fields for every event, `null` where one has no meaning: `event`,
/// `time`, `database`, `name`, `txid`, `files`, `pages`, `lag_seconds`, `reason`, `kind`, `message`.
#[derive(Clone, PartialEq, Debug)]
pub struct ReplicaEvent {
    /// When it happened.
    pub time: Timestamp,
    /// The replica's file as it was named to walrust.
    pub database: PathBuf,
    /// Its source's name in the bucket.
    pub name: DatabaseName,
    /// What happened.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Happening {
    /// The replica was made, or made anew.
    Bootstrapped {
        /// The state that it holds.
        txid: Txid,
        /// Files that it was made of.
        files: u64,
        /// Pages of the database.
        pages: u64,
        /// How far it is behind.
        lag_millis: i64,
        /// Why it was made anew; nothing at first.
        reason: Option<Reason>,
    },
    /// New files were applied.
    Applied {
        /// The state after the last of them.
        txid: Txid,
        /// How many.
        files: u64,
        /// Pages written.
        pages: u64,
        /// How far the replica is behind.
        lag_millis: i64,
    },
    /// Something failed; it is tried again.
    Error {
        /// What the error means.
        kind: ErrorKind,
        /// The error in one line.
        message: String,
        /// The state that the replica holds, if there is one.
        txid: Option<Txid>,
    },
    /// The replica is at the newest state of its source: for the first time, or after an error, or after it was
    /// behind for longer than one poll.
    CaughtUp {
        /// That state.
        txid: Txid,
    },
}

impl Happening {
    /// The event's name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Bootstrapped { .. } => "bootstrapped",
            Self::Applied { .. } => "applied",
            Self::Error { .. } => "error",
            Self::CaughtUp { .. } => "caught_up",
        }
    }

    /// The state that the replica holds then.
    pub const fn txid(&self) -> Option<Txid> {
        match self {
            Self::Bootstrapped { txid, .. }
            | Self::Applied { txid, .. }
            | Self::CaughtUp { txid } => Some(*txid),
            Self::Error { txid, .. } => *txid,
        }
    }

    const fn work(&self) -> (Option<u64>, Option<u64>) {
        match self {
            Self::Bootstrapped { files, pages, .. } | Self::Applied { files, pages, .. } => {
                (Some(*files), Some(*pages))
            }
            Self::Error { .. } | Self::CaughtUp { .. } => (None, None),
        }
    }

    fn lag_seconds(&self) -> Option<f64> {
        match self {
            Self::Bootstrapped { lag_millis, .. } | Self::Applied { lag_millis, .. } => {
                Some(*lag_millis as f64 / 1000.0)
            }
            Self::CaughtUp { .. } => Some(0.0),
            Self::Error { .. } => None,
        }
    }
}

impl Serialize for ReplicaEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (files, pages) = self.what.work();
        let reason = match &self.what {
            Happening::Bootstrapped { reason, .. } => reason.map(Reason::name),
            _ => None,
        };
        let (kind, message) = match &self.what {
            Happening::Error { kind, message, .. } => (Some(kind.name()), Some(message)),
            _ => (None, None),
        };
        let mut fields = serializer.serialize_struct("ReplicaEvent", 11)?;
        fields.serialize_field("event", self.what.name())?;
        fields.serialize_field("time", &self.time)?;
        // A path need not be UTF-8; JSON must be.
        fields.serialize_field("database", &self.database.to_string_lossy())?;
        fields.serialize_field("name", &self.name)?;
        fields.serialize_field("txid", &self.what.txid())?;
        fields.serialize_field("files", &files)?;
        fields.serialize_field("pages", &pages)?;
        fields.serialize_field("lag_seconds", &self.what.lag_seconds())?;
        fields.serialize_field("reason", &reason)?;
        fields.serialize_field("kind", &kind)?;
        fields.serialize_field("message", &message)?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_every_field() {
        let event = |what| ReplicaEvent {
            time: Timestamp::from_millis(0),
            database: "replica.db".into(),
            name: "mydb".parse().unwrap(),
            what,
        };
        let applied = event(Happening::Applied {
            txid: Txid::new(101).unwrap(),
            files: 1,
            pages: 3,
            lag_millis: 1500,
        });
        assert_eq!(
            serde_json::to_string(&applied).unwrap(),
            concat!(
                r#"{"event":"applied","time":"1970-01-01T00:00:00Z","database":"replica.db","name":"mydb","#,
                r#""txid":101,"files":1,"pages":3,"lag_seconds":1.5,"reason":null,"kind":null,"message":null}"#
            )
        );
        let error = event(Happening::Error {
            kind: ErrorKind::Denied,
            message: "no".to_owned(),
            txid: None,
        });
        let json: serde_json::Value = serde_json::to_value(&error).unwrap();
        assert_eq!(json.as_object().unwrap().len(), 11);
        assert_eq!(json["kind"], "denied");
    }
}
