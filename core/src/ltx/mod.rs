//! The LTX file format, version 3: pages of a database that changed in a range of transactions.
//!
//! Streaming over [`std::io::Read`] and [`std::io::Write`]; nothing here knows paths or stores.
//! `docs/ltx-format.md` gives every byte.
//!
//! ```text
//! header        100 bytes                       Header
//! page frames   number, flags, size, LZ4        Encoder::page, Decoder::next_page, Section
//! terminator    6 zero bytes
//! page index    varints, ended by a zero byte   index
//! index size    8 bytes
//! trailer       database and file checksum      Finished, Verified
//! ```
//!
//! # Invariants
//!
//! - A length that a file names is compared with a bound before anything is allocated for it.
//! - Memory does not grow with the number of pages: the writer spills its page index to a file, and
//!   the reader compares the index with the frames by a running sum of the bytes that it must have.
//! - Nothing is [`Verified`] before the last byte was read and the file checksum was right.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod crc;
mod decoder;
mod encoder;
mod error;
mod header;
pub mod index;
mod lz4;
mod name;
mod outline;
mod page;
mod section;
mod trailer;

#[cfg(test)]
mod tests;

pub use decoder::Decoder;
pub use encoder::{Encoder, Finished, Spill};
pub use error::{DecodeError, EncodeError};
pub use header::{HEADER_BYTES, Header, Mark, Tracking, WalSpan};
pub use index::{IndexEntry, IndexLocation, IndexReader};
pub use name::{LtxName, ParseNameError};
pub use outline::{Outline, Reheaded};
pub use page::Page;
pub use section::{FileCheck, SectionSum, decode_section};
pub use trailer::{TAIL_BYTES, Verified};
