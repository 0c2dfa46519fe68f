//! What is known of one replica: its entry of `/status`, and what metrics are made of.

use std::path::PathBuf;

use serde::Serialize;

use crate::engine::StandingError;
use crate::types::{DatabaseName, Timestamp, Txid};

/// The state of a replica in a word, as `/status` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaCondition {
    /// Its first image is on its way: there is nothing to read yet.
    Snapshotting,
    /// It follows its source.
    Replica,
    /// Something fails; it is tried again. What was applied stays readable.
    Erroring,
}

impl ReplicaCondition {
    /// The word itself.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Snapshotting => "snapshotting",
            Self::Replica => "replica",
            Self::Erroring => "erroring",
        }
    }
}

/// Everything that is known of one replica.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ReplicaStatus {
    /// Its source's name in the bucket.
    pub name: DatabaseName,
    /// Its source.
    pub source: String,
    /// Its file.
    pub path: PathBuf,
    /// The state in a word.
    pub state: ReplicaCondition,
    /// The last transaction applied.
    pub txid: Option<Txid>,
    /// The newest transaction of the source that was seen.
    pub head_txid: Option<Txid>,
    /// When the last transaction applied was committed, by the source's clock.
    pub commit_time: Option<Timestamp>,
    /// When the newest one seen was committed or stored.
    pub head_time: Option<Timestamp>,
    /// When the source was last looked at with success.
    pub last_poll: Option<Timestamp>,
    /// When files were last applied.
    pub last_applied: Option<Timestamp>,
    /// How often the replica was made anew since the start.
    pub renewals: u64,
    /// Looks at the source that failed since the start.
    pub errors: u64,
    /// Length of its WAL in bytes, as far as SQLite uses it.
    pub wal_bytes: u64,
    /// The error that stands, if any.
    pub error: Option<StandingError>,
}

impl ReplicaStatus {
    /// A replica that was just named.
    pub fn new(name: DatabaseName, source: String, path: PathBuf) -> Self {
        Self {
            name,
            source,
            path,
            state: ReplicaCondition::Snapshotting,
            txid: None,
            head_txid: None,
            commit_time: None,
            head_time: None,
            last_poll: None,
            last_applied: None,
            renewals: 0,
            errors: 0,
            wal_bytes: 0,
            error: None,
        }
    }

    /// How far the replica was behind the newest state of its source when that was last seen, in milliseconds
    /// between the two commits; 0 at the newest.
    pub fn behind_millis(&self) -> i64 {
        if self.txid >= self.head_txid {
            return 0;
        }
        match (self.head_time, self.commit_time) {
            (Some(head), Some(applied)) => head.millis_since(applied).max(0),
            _ => 0,
        }
    }

    /// How old what it shows may be, in milliseconds: how far it is behind, and, while its source cannot be
    /// looked at, the time since it last could.
    pub fn lag_millis(&self, now: Timestamp) -> i64 {
        let blind = match (&self.error, self.last_poll) {
            (Some(_), Some(last)) => now.millis_since(last).max(0),
            _ => 0,
        };
        self.behind_millis().saturating_add(blind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    #[test]
    fn lag_is_zero_at_the_head_and_grows_while_the_source_cannot_be_seen() {
        let at = Timestamp::from_millis;
        let mut status = ReplicaStatus::new("a.db".parse().unwrap(), String::new(), "r.db".into());
        assert_eq!(status.lag_millis(at(9)), 0);
        status.txid = Txid::new(5);
        status.head_txid = Txid::new(5);
        status.commit_time = Some(at(1_000));
        status.head_time = Some(at(1_900));
        status.last_poll = Some(at(5_000));
        assert_eq!(status.lag_millis(at(99_000)), 0);
        status.head_txid = Txid::new(6);
        assert_eq!(status.lag_millis(at(99_000)), 900);
        let error = Error::new(ErrorKind::Unavailable, "no route");
        status.error = Some(StandingError::new(&error, at(6_000)));
        assert_eq!(status.lag_millis(at(7_000)), 2_900);
    }
}
