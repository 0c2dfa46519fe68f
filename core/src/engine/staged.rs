//! A local copy of one state of a database that cannot be watched.
//!
//! The pages pass through [`OneShot`]'s lock windows at the speed of the disk; from the copy they go to the
//! store at the speed of the network, and no writer waits for that. The copy is a file without a name in
//! the state directory (or the system's directory for temporary files), compressed.

use std::fs::File;
use std::io::{BufReader, BufWriter, Seek as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use tokio::sync::mpsc;

use super::capture::PART_BYTES;
use super::image::{ImageJob, Piece};
use super::ship::Wanted;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Decoder, Encoder, HEADER_BYTES, Header, Mark, Page, Spill, Tracking};
use crate::sqlite::{CopyEvent, OneShot, PageSink};
use crate::state::{Fill, PageTable};
use crate::types::{
    DatabaseSum, PageCount, PageNumber, PageSize, PageSum, Timestamp, Txid, TxidRange,
};

/// Bytes that are written or read at once.
const BUFFER: usize = 256 * 1024;

/// One state of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) page_size: PageSize,
    pub(super) count: PageCount,
    pub(super) sum: DatabaseSum,
}

/// The sums of the database as it is now; nothing is written.
pub(super) fn sums(source: &mut OneShot) -> Result<Facts> {
    let mut sums = Sums(None);
    source.copy(&mut sums, &mut tell)?;
    sums.0.ok_or_else(|| defect("a copy that never began"))
}

struct Sums(Option<Facts>);

impl PageSink for Sums {
    fn begin(&mut self, page_size: PageSize, count: PageCount) -> Result<()> {
        let sum = DatabaseSum::EMPTY;
        self.0 = Some(Facts {
            page_size,
            count,
            sum,
        });
        Ok(())
    }

    fn page(&mut self, page: PageNumber, data: &[u8]) -> Result<()> {
        if let Some(facts) = &mut self.0 {
            facts.sum.add(PageSum::of(page, data));
        }
        Ok(())
    }
}

/// The copy.
#[derive(Debug)]
pub(super) struct Staged {
    file: File,
    facts: Facts,
}

/// Copies the database as it is now into `scratch`; with the page table of that state where `table` is
/// given, which is not touched.
pub(super) fn stage(
    source: &mut OneShot,
    scratch: &Path,
    table: Option<&PageTable>,
) -> Result<(Staged, Option<Fill>)> {
    let mut stage = Stage {
        scratch,
        table,
        pass: None,
    };
    source.copy(&mut stage, &mut tell)?;
    let pass = stage
        .pass
        .ok_or_else(|| defect("a copy that never began"))?;
    pass.finish().map_err(|error| error.on(scratch.display()))
}

struct Stage<'a> {
    scratch: &'a Path,
    table: Option<&'a PageTable>,
    pass: Option<Pass>,
}

struct Pass {
    encoder: Encoder<BufWriter<File>>,
    fill: Option<Fill>,
    facts: Facts,
}

impl PageSink for Stage<'_> {
    fn begin(&mut self, page_size: PageSize, count: PageCount) -> Result<()> {
        // The room of an earlier pass is free before the next one needs it.
        self.pass = None;
        let failed = |error| Error::io(self.scratch.display(), error);
        let file = tempfile::tempfile_in(self.scratch).map_err(failed)?;
        let mut out = BufWriter::with_capacity(BUFFER, file);
        out.write_all(&[0; HEADER_BYTES]).map_err(failed)?;
        let spill = Spill::Directory(self.scratch.to_owned());
        let fill = self.table.map(|table| table.fill(page_size)).transpose()?;
        self.pass = Some(Pass {
            encoder: Encoder::new(out, page_size, count, spill),
            fill,
            facts: Facts {
                page_size,
                count,
                sum: DatabaseSum::EMPTY,
            },
        });
        Ok(())
    }

    fn page(&mut self, page: PageNumber, data: &[u8]) -> Result<()> {
        let Some(pass) = &mut self.pass else {
            return Err(defect("a page before its pass"));
        };
        let content = Page::new(page, data, pass.facts.page_size);
        pass.encoder.write(&content)?;
        let sum = content.sum();
        pass.facts.sum.add(sum);
        if let Some(fill) = &mut pass.fill {
            fill.push(page, sum)?;
        }
        Ok(())
    }
}

impl Pass {
    fn finish(self) -> Result<(Staged, Option<Fill>)> {
        let Self {
            encoder,
            fill,
            facts,
        } = self;
        // Nobody but us reads it: where it belongs in the chain is decided later.
        let header = Header {
            page_size: facts.page_size,
            commit: facts.count,
            range: TxidRange::snapshot(Txid::FIRST),
            timestamp: Timestamp::from_millis(0),
            tracking: Tracking::Tracked { pre_apply: None },
            wal: None,
            node: 0,
            digest: None,
            mark: Mark::None,
            span_ms: 0,
        };
        let done = encoder.finish(&header, Some(facts.sum.checksum))?;
        let failed = |error| Error::io("copy", error);
        let file = done
            .out
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.write_all_at(&done.header, 0).map_err(failed)?;
        Ok((Staged { file, facts }, fill))
    }
}

impl Staged {
    /// The state that it holds.
    pub(super) fn facts(&self) -> Facts {
        self.facts
    }

    /// Gives the pieces of `job`, which holds every page, to whoever `requests` them; returns the number of
    /// pages.
    pub(super) fn send(
        &self,
        mut job: ImageJob,
        mut requests: mpsc::Receiver<Wanted>,
    ) -> Result<u64> {
        let failed = |error| Error::io("copy", error);
        let mut file = self.file.try_clone().map_err(failed)?;
        file.rewind().map_err(failed)?;
        let mut decoder = Decoder::new(BufReader::with_capacity(BUFFER, file))?;
        let nobody = || Error::new(ErrorKind::Cancelled, "nobody takes the pieces");
        loop {
            let wanted = requests.blocking_recv().ok_or_else(nobody)?;
            let piece = job.step(
                PART_BYTES,
                &mut |page, data| match decoder.next_page(data)? {
                    Some(found) if found == page => Ok(()),
                    _ => Err(Error::new(
                        ErrorKind::Corrupt,
                        format!("the local copy has no page {page}"),
                    )),
                },
            )?;
            let last = matches!(piece, Piece::Last(_));
            wanted.send(piece).map_err(|_| nobody())?;
            if last {
                return Ok(job.measures().1);
            }
        }
    }
}

fn tell(event: CopyEvent) {
    match event {
        CopyEvent::Restarted { times } => {
            tracing::info!(times, "a commit came in between: the copy begins anew");
        }
        CopyEvent::Held => {
            tracing::warn!("commits keep coming: writers wait until the copy is made");
        }
    }
}

fn defect(message: &str) -> Error {
    Error::new(ErrorKind::Internal, message)
}
