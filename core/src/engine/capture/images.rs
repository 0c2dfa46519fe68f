//! Snapshots and merged files, streamed from the transaction that rests.

use super::Capture;
use crate::engine::encode::{FileMeta, Seen};
use crate::engine::image::{ImageJob, Piece};
use crate::error::Result;
use crate::ltx::Mark;
use crate::sqlite::Side;
use crate::types::{Timestamp, TxidRange};

/// Bytes of an image that are sent at once; S3 takes parts from 5 MiB.
pub(crate) const PART_BYTES: usize = 5 * 1024 * 1024 + 64 * 1024;

impl Capture {
    /// The next bytes of the job in front.
    pub(crate) fn step(&mut self) -> Result<Option<Piece>> {
        let Some(job) = self.jobs.first_mut() else {
            return Ok(None);
        };
        let source = &mut self.source;
        job.step(PART_BYTES, &mut |page, into| {
            source.read_page(Side::Old, page, into)
        })
        .map(Some)
    }

    /// Begins a snapshot of the captured state.
    pub(crate) fn begin_snapshot(&mut self, now: Timestamp) -> Result<()> {
        let meta = FileMeta {
            range: TxidRange::snapshot(self.place.txid),
            page_size: self.place.page_size,
            count: self.place.page_count,
            stream: self.stream,
            wal: None,
            mark: Mark::None,
            seen: Seen::at(now),
            tracked: self.tracked,
        };
        self.jobs
            .push(ImageJob::snapshot(meta, self.position(), &self.scratch)?);
        Ok(())
    }

    /// Begins the merged files whose period ended before `now`; whether a period ended, even if it
    /// needs no file.
    pub(crate) fn begin_merges(&mut self, now: Timestamp) -> Result<bool> {
        let before = self.levels.boundary();
        for due in self.levels.due(now, self.position()) {
            let meta = FileMeta {
                range: due.range,
                page_size: self.place.page_size,
                count: self.place.page_count,
                stream: self.stream,
                wal: None,
                mark: Mark::None,
                seen: due.seen,
                tracked: self.tracked,
            };
            let job = ImageJob::merge(
                meta,
                due.level,
                due.before,
                self.position(),
                due.pages,
                &self.scratch,
            )?;
            self.jobs.push(job);
        }
        Ok(self.levels.boundary() != before)
    }
}
