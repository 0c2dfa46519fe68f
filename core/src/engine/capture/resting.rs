//! Batches that are read from the transaction that rests: where continuity is not proven, and where the changed
//! pages were gathered otherwise.

use roaring::RoaringBitmap;

use super::write::{Draft, ReadPage};
use super::{Batch, Capture, Captured, NOWHERE, Rebase, out_of_txids};
use crate::engine::budget::Room;
use crate::engine::encode::{FileMeta, Seen};
use crate::engine::gather::Gathered;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Mark, WalSpan};
use crate::sqlite::{Side, View};
use crate::types::{PageSum, Timestamp, TxidRange};

impl Capture {
    /// Re-anchors the chain: moves to the newest state, compares every page with the page table, and
    /// encodes what differs as one transaction (invariant 4).
    pub(crate) fn rebase(&mut self, why: Rebase, now: Timestamp) -> Result<Option<Batch>> {
        // Old versions of pages that changed unseen cannot be saved: what streams must begin again.
        if !self.jobs.is_empty() {
            self.give_up_jobs(Error::new(ErrorKind::Unavailable, why.message.clone()));
        }
        let view = self.source.begin_turn()?;
        self.source.end_turn()?;
        let now = self.clock.now().max(now);
        self.rebase_here(&view, why, now)
    }

    /// As [`Capture::rebase`], from the transaction that rests already. Nothing if no page differs.
    pub(crate) fn rebase_here(
        &mut self,
        view: &View,
        why: Rebase,
        now: Timestamp,
    ) -> Result<Option<Batch>> {
        let candidates = self.differing(view)?;
        let same_size = view.page_count == self.place.page_count;
        if candidates.is_empty() && same_size {
            let captured = Captured::of(view);
            self.captured = captured;
            self.place.wal = captured.place();
            return Ok(None);
        }
        let range = TxidRange::single(self.place.txid.next());
        let resting = Resting {
            range,
            candidates,
            wal: NOWHERE,
            frames: 0,
            rebase: Some(why),
        };
        self.write_resting(view, resting, now).map(Some)
    }

    /// Captures the state that rests, where `gathered` holds every page that changed since the captured one.
    pub(crate) fn take_up(&mut self, gathered: &Gathered, now: Timestamp) -> Result<Batch> {
        let view = *self.source.view();
        let min = self.place.txid.next();
        let max = self.place.txid.after(gathered.commits().max(1));
        let range = max.and_then(|max| TxidRange::new(min, max));
        let resting = Resting {
            range: range.ok_or_else(out_of_txids)?,
            candidates: gathered.candidates(view.page_count),
            wal: gathered.span.unwrap_or(NOWHERE),
            frames: gathered.frames,
            rebase: None,
        };
        self.write_resting(&view, resting, now)
    }

    fn write_resting(&mut self, view: &View, resting: Resting, now: Timestamp) -> Result<Batch> {
        let meta = FileMeta {
            range: resting.range,
            page_size: view.page_size,
            count: view.page_count,
            stream: self.stream,
            wal: Some(resting.wal),
            mark: match resting.rebase {
                Some(_) => Mark::Rebase,
                None => Mark::None,
            },
            seen: Seen::at(now),
            tracked: self.tracked,
        };
        let read: ReadPage<'_> =
            Box::new(|source, page, into| source.read_page(Side::Old, page, into));
        let draft = Draft {
            meta,
            candidates: resting.candidates,
            captured: Captured::of(view),
            frames: resting.frames,
            rebase: resting.rebase,
        };
        self.write_batch(draft, read, Room::none())
    }

    /// The pages of the resting transaction that differ from the page table.
    fn differing(&mut self, view: &View) -> Result<RoaringBitmap> {
        let mut differing = RoaringBitmap::new();
        let mut data = Vec::new();
        let mut chunk = Vec::with_capacity(4096);
        let mut pages = view.page_size.stored_pages(view.page_count).peekable();
        while pages.peek().is_some() {
            chunk.clear();
            chunk.extend(pages.by_ref().take(4096));
            let (source, held) = (&mut self.source, self.place.page_count);
            self.table.lookup_all(&chunk, &mut |page, known| {
                source.read_page(Side::Old, page, &mut data)?;
                if known.filter(|_| held.holds(page)) != Some(PageSum::of(page, &data)) {
                    differing.insert(page.get());
                }
                Ok(())
            })?;
        }
        Ok(differing)
    }
}

/// A batch that is read from the transaction that rests.
struct Resting {
    range: TxidRange,
    candidates: RoaringBitmap,
    wal: WalSpan,
    frames: u64,
    rebase: Option<Rebase>,
}
