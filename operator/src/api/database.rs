//! `spec.databases`: the files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MOST_TXID, Period, Retention};

/// One database file, or a pattern for several in one directory.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// The name in the bucket, in status and on the command line; for a pattern the folder of its files. Another name
    /// is another history.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": r"!self.matches('^(index|ltx|000[0-9a-f])$')",
         "message": "walrust uses this name itself (index, ltx, 0000 to 000f): choose another"},
    ]))]
    pub name: String,

    /// The file as the application's container sees it: /data/app.db. The last part may be a pattern: /data/tenants/*.db.
    #[schemars(length(min = 2, max = 1024))]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "self.startsWith('/') && !self.endsWith('/') && !self.contains('//')",
         "message": "the path is that of a file from the root of the container on: /data/app.db"},
        {"rule": r"!self.matches('/\\.\\.?(/|$)')",
         "message": "the path has a part '.' or '..': write it without"},
        {"rule": r"!self.matches('[*?\\[].*/')",
         "message": "a pattern may stand in the last part of the path only: /data/tenants/*.db"},
        {"rule": r"!self.contains('${') && !self.matches('[\\x00-\\x1f]')",
         "message": "the path contains ${ or a control character, which walrust.toml cannot hold: rename the file"},
    ]))]
    pub path: String,

    /// Whether it is no fault that the file, or any match of the pattern, is not there.
    #[serde(default)]
    pub optional: bool,

    /// A TXID: adopt the stream in the bucket for a file that walrust does not know, only while the stream's head is
    /// exactly this. See the error of a database that is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MOST_TXID))]
    pub adopt_at: Option<i64>,

    /// Instead of sync.interval, for this database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "duration(self) >= duration('10ms')",
         "message": "syncInterval is at least 10ms: every interval is one upload"},
    ]))]
    pub sync_interval: Option<Period>,

    /// Instead of parts of spec.snapshots, for this database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<SnapshotOverrides>,

    /// Instead of spec.retention, for this database. What is left out has the defaults of spec.retention, not its values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
}

/// When snapshots are taken of one database. What is left out is as in spec.snapshots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotOverrides {
    /// The time from one snapshot to the next; 0s is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Period>,

    /// A snapshot after so many changed pages; 0 is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MOST_TXID))]
    pub max_changes: Option<i64>,

    /// The longest time between snapshots while there are changes; 0s is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_interval: Option<Period>,

    /// A snapshot after so long without changes; 0s is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_idle: Option<Period>,
}
