//! A batch encoded to where it fits, laid over the page table, and the captured state moved behind it.

use std::fs::File;
use std::io::Write;

use roaring::RoaringBitmap;

use super::{Batch, Body, Capture, Captured, LAYER_PAGES, Rebase, out_of_txids};
use crate::engine::budget::Room;
use crate::engine::encode::{Before, FileMeta, Pages, Seen, encode_changes};
use crate::engine::frames::{NewestFrames, Stretch};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Mark, Spill};
use crate::sqlite::{Side, Source, View};
use crate::state::{Entries, Huge, PageTable, Place, Staged};
use crate::types::{PageNumber, PageSum, TxidRange};

/// Reads a page as a batch has it.
pub(super) type ReadPage<'a> =
    Box<dyn FnMut(&mut Source, PageNumber, &mut Vec<u8>) -> Result<()> + 'a>;

impl Capture {
    /// Encodes what `stretch` of the log holds.
    pub(super) fn encode(
        &mut self,
        wal: &File,
        stretch: &Stretch,
        mut newest: NewestFrames,
        view: &View,
        seen: Seen,
        room: Room,
    ) -> Result<Batch> {
        let min = self.place.txid.next();
        let max = self.place.txid.after(stretch.changes.commits);
        let range = max
            .and_then(|max| TxidRange::new(min, max))
            .ok_or_else(out_of_txids)?;
        let meta = FileMeta {
            range,
            page_size: view.page_size,
            count: view.page_count,
            stream: self.stream,
            wal: Some(stretch.span()),
            mark: Mark::None,
            seen,
            tracked: self.tracked,
        };
        let captured = Captured::Wal(stretch.end);
        let candidates = stretch.candidates(view.page_count);
        let frames = u64::from(stretch.frames());
        let read: ReadPage<'_> =
            Box::new(
                move |source, page, into| match stretch.frame_of(&mut newest, page)? {
                    Some(frame) => stretch.read(wal, frame, into),
                    None => source.read_page(Side::New, page, into),
                },
            );
        self.write_batch(
            Draft {
                meta,
                candidates,
                captured,
                frames,
                rebase: None,
            },
            read,
            room,
        )
    }

    /// Encodes a batch to where it fits, puts it over the page table and moves the captured state.
    pub(super) fn write_batch(
        &mut self,
        draft: Draft,
        read: ReadPage<'_>,
        mut room: Room,
    ) -> Result<Batch> {
        let Draft {
            meta,
            candidates,
            captured,
            frames,
            rebase,
        } = draft;
        let raw = candidates.len() * u64::from(meta.page_size.get());
        let before = Before {
            count: self.place.page_count,
            sum: self.place.sum,
        };
        let small = self.fits(&candidates, &room);
        let sink = if small {
            let mut bytes = Vec::with_capacity(1024 + (raw / 2).min(1 << 20) as usize);
            bytes.extend_from_slice(&[0; 100]);
            Sink::Memory(bytes)
        } else {
            Sink::Spool(self.spool.stage(100)?)
        };
        let spill = Spill::Directory(self.scratch.clone());
        let changed = if candidates.len() <= LAYER_PAGES {
            Changed::Few(Entries::new())
        } else {
            if self.table.pending_layers() > 0 {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "a huge batch over unspooled ones",
                ));
            }
            Changed::Many(Box::new(self.table.huge()?))
        };
        let (done, changed, set) = {
            let mut pages = BatchPages {
                source: &mut self.source,
                table: &self.table,
                read,
                changed,
                set: RoaringBitmap::new(),
            };
            let mut numbers = candidates.iter().filter_map(PageNumber::new).map(Ok);
            let done = encode_changes(sink, spill, &meta, before, &mut numbers, &mut pages)?;
            (done, pages.changed, pages.set)
        };
        let place = Place {
            txid: meta.range.max(),
            sum: done.sum,
            page_size: meta.page_size,
            page_count: meta.count,
            wal: captured.place(),
        };
        let body = match done.out {
            Sink::Memory(mut bytes) => {
                if let Some(head) = bytes.get_mut(..100) {
                    head.copy_from_slice(&done.head);
                }
                room.keep(bytes.len() as u64);
                Body::Memory(bytes.into(), room)
            }
            Sink::Spool(staged) => {
                Body::Spooled(self.spool.publish(staged, &done.head, meta.range)?)
            }
        };
        self.settle_table(changed, place, &body)?;
        self.place = place;
        self.captured = captured;
        self.levels.record(&set, meta.seen);
        Ok(Batch {
            header: done.header,
            post: Some(done.sum.checksum),
            frames,
            pages: done.pages,
            seen: meta.seen,
            body,
            rebase,
            boundary: false,
            sending: false,
        })
    }

    fn settle_table(&mut self, changed: Changed, place: Place, body: &Body) -> Result<()> {
        match changed {
            Changed::Few(entries) => {
                self.table.layer(entries, place)?;
                if matches!(body, Body::Spooled(_)) {
                    self.table.commit()?;
                }
                Ok(())
            }
            Changed::Many(huge) => self.table.commit_huge(*huge, place),
        }
    }
}

/// A batch before it is encoded.
pub(super) struct Draft {
    pub(super) meta: FileMeta,
    pub(super) candidates: RoaringBitmap,
    pub(super) captured: Captured,
    pub(super) frames: u64,
    pub(super) rebase: Option<Rebase>,
}

enum Changed {
    Few(Entries),
    Many(Box<Huge>),
}

struct BatchPages<'a> {
    source: &'a mut Source,
    table: &'a PageTable,
    read: ReadPage<'a>,
    changed: Changed,
    set: RoaringBitmap,
}

impl Pages for BatchPages<'_> {
    fn read(&mut self, page: PageNumber, into: &mut Vec<u8>) -> Result<()> {
        (self.read)(self.source, page, into)
    }

    fn table(&self) -> &PageTable {
        self.table
    }

    fn changed(&mut self, page: PageNumber, sum: PageSum) -> Result<()> {
        self.set.insert(page.get());
        match &mut self.changed {
            Changed::Few(entries) => entries.push(page, sum),
            Changed::Many(huge) => huge.push(page, sum),
        }
    }
}

enum Sink {
    Memory(Vec<u8>),
    Spool(Staged),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Memory(buffer) => buffer.write(bytes),
            Self::Spool(staged) => staged.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Spool(staged) => staged.flush(),
        }
    }
}
