//! What changed behind a saved place, where the log proves it and does not keep it: the pages alone, to be read from
//! the transaction that rests.
//!
//! Frames that a restart of the log may overwrite at any moment, or has begun to, can still tell which pages they
//! hold. A file with all of those pages, as they are now, leads to the present state, whatever came in between.

use std::fs::File;

use roaring::RoaringBitmap;

use super::frames::{Changes, broken};
use crate::error::Result;
use crate::ltx::WalSpan;
use crate::types::PageCount;
use crate::wal::{self, Continuation, Frame, WalCursor, WalEnd};

/// The pages that may have changed, and how often something was committed.
pub(crate) struct Gathered {
    changes: Changes,
    pub(crate) frames: u64,
    /// Where they lie, if in one generation.
    pub(crate) span: Option<WalSpan>,
}

impl Gathered {
    /// What `wal` holds between `from`, the end of a state of `before` pages, and `end`; nothing if it does not
    /// prove to hold all of it.
    pub(crate) fn between(
        wal: &File,
        from: &WalCursor,
        end: &WalEnd,
        before: PageCount,
    ) -> Result<Option<Self>> {
        let mut gathered = Self {
            changes: Changes::new(before),
            frames: 0,
            span: None,
        };
        let start = match from.continuation(end) {
            Continuation::Lost => return Ok(None),
            Continuation::Same => *from,
            Continuation::Restarted { .. } => {
                let sealed = wal::scan_sealed(wal, from, end, &mut |frame| gathered.take(&frame));
                let sealed = sealed.or_else(|error| broken(error).map(|_| None))?;
                let Some((_, start)) = sealed.zip(WalCursor::start(wal).ok()) else {
                    return Ok(None);
                };
                start
            }
        };
        let mut buffer = Vec::new();
        let scanned = wal::scan(wal, &start, end, &mut buffer, &mut |frame| {
            gathered.take(&frame)
        });
        let at = match scanned {
            Ok(at) => at,
            Err(error) => return broken(error).map(|_| None),
        };
        if start == *from {
            gathered.span = Some(WalSpan {
                offset: from.offset(),
                size: at.offset() - from.offset(),
                salt: at.salt(),
            });
        }
        Ok(Some(gathered))
    }

    /// Transactions that were committed.
    pub(crate) fn commits(&self) -> u64 {
        self.changes.commits
    }

    /// The pages of a database of `count` pages that may differ.
    pub(crate) fn candidates(&self, count: PageCount) -> RoaringBitmap {
        self.changes.candidates(count)
    }

    fn take(&mut self, frame: &Frame<'_>) -> Result<()> {
        self.frames += 1;
        let number = u32::try_from(self.frames).unwrap_or(u32::MAX);
        self.changes.take(frame, number);
        Ok(())
    }
}
