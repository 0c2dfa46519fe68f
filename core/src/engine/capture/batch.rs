//! What a turn makes: a file that waits to be stored.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::engine::budget::Room;
use crate::engine::encode::Seen;
use crate::engine::join::{Joined, Part};
use crate::ltx::Header;
use crate::state::{Spool, SpoolFile};
use crate::types::Checksum;

/// One file that waits to be stored.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) header: Header,
    /// The checksum of the database after it.
    pub(crate) post: Option<Checksum>,
    pub(crate) frames: u64,
    pub(crate) pages: u64,
    pub(crate) seen: Seen,
    pub(crate) body: Body,
    /// Why it is a rebase, if it is one.
    pub(crate) rebase: Option<Rebase>,
    /// A snapshot or merged file holds the state behind it, or may: it is not joined with what follows, so that
    /// the chain goes on from there.
    pub(crate) boundary: bool,
    /// It is on its way, alone or as a part of one object.
    pub(crate) sending: bool,
}

impl Batch {
    /// The one batch that stands for all of `batches`; none for none.
    pub(crate) fn joined(batches: VecDeque<Self>, joined: Joined, body: Body) -> Option<Self> {
        let (first, last) = (batches.front()?.seen.first, batches.back()?.seen.last);
        let (boundary, sending) = (batches.back()?.boundary, batches.front()?.sending);
        Some(Self {
            header: joined.header,
            post: joined.post,
            frames: batches.iter().map(|batch| batch.frames).sum(),
            pages: joined.pages,
            seen: Seen { first, last },
            body,
            rebase: None,
            boundary,
            sending,
        })
    }

    /// Whether its bytes outlive the process.
    pub(crate) fn outlives_us(&self) -> bool {
        !matches!(self.body, Body::Memory(..))
    }
}

/// Why continuity was not proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rebase {
    /// As the metric's label names it.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
}

/// Where a batch's bytes are.
#[derive(Debug)]
pub(crate) enum Body {
    /// In memory; the page table holds its layer.
    Memory(
        Bytes,
        #[expect(dead_code, reason = "held as long as the bytes")] Room,
    ),
    /// In the spool, durable; the page table has moved on.
    Spooled(SpoolFile),
    /// Every page, streamed from the database by the first image job.
    Streamed,
}

impl Body {
    /// Its size in bytes; 0 where it is not known yet.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes, _) => bytes.len() as u64,
            Self::Spooled(file) => file.size,
            Self::Streamed => 0,
        }
    }

    /// Where its bytes are to be read.
    pub(crate) fn part(&self, spool: &Spool) -> Option<Part> {
        match self {
            Self::Memory(bytes, _) => Some(Part::Memory(bytes.clone())),
            Self::Spooled(file) => Some(Part::File {
                path: spool.path(file),
                size: file.size,
            }),
            Self::Streamed => None,
        }
    }
}
