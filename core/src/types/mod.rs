//! Small values that the whole program speaks in: transaction ids, pages, checksums, names, times.
//!
//! Nothing here does I/O. A value that exists is valid: wrong numbers are refused where they enter.

mod checksum;
mod name;
mod page;
mod position;
mod stream;
mod time;
mod txid;

pub(crate) use checksum::CRC;
pub use checksum::{Checksum, DatabaseSum, Digest, FileChecksum, PageSum};
pub use name::{DatabaseName, KeyPrefix, NameError};
pub use page::{InvalidPageSize, PageCount, PageNumber, PageSize};
pub use position::Position;
pub use stream::{Epoch, Lineage, StreamId};
pub use time::Timestamp;
pub use txid::{ParseTxidError, Txid, TxidRange};
