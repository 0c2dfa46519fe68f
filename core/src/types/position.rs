//! A place in a stream together with the state there.

use serde::{Deserialize, Serialize};

use super::{DatabaseSum, Txid};

/// A TXID and the state of the database after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// The last transaction applied.
    pub txid: Txid,
    /// Checksum and digest of the whole database after it.
    pub sum: DatabaseSum,
}
