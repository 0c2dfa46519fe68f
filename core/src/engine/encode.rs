//! From changed pages to one LTX file, with the sums of the database kept up to date on the way.

use std::io::Write;

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Encoder, Header, Mark, Page, Spill, Tracking, WalSpan};
use crate::state::PageTable;
use crate::types::{
    DatabaseSum, PageCount, PageNumber, PageSize, PageSum, StreamId, Timestamp, TxidRange,
};

/// How many former sums are asked for at once.
const CHUNK: usize = 512;

/// Longest span of commits that a header holds, in milliseconds (30 bits).
const MAX_SPAN_MS: i64 = (1 << 30) - 1;

/// What a file says about itself beside its pages.
#[derive(Debug, Clone)]
pub(crate) struct FileMeta {
    pub(crate) range: TxidRange,
    pub(crate) page_size: PageSize,
    /// Pages of the database after the file.
    pub(crate) count: PageCount,
    pub(crate) stream: StreamId,
    pub(crate) wal: Option<WalSpan>,
    pub(crate) mark: Mark,
    /// When the first and the last commit of the file were seen.
    pub(crate) seen: Seen,
    /// False where the files must be readable by Litestream releases that refuse checksums.
    pub(crate) tracked: bool,
}

/// When the commits of a batch were seen: the WAL itself carries no times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

impl Seen {
    /// All at once.
    pub(crate) fn at(time: Timestamp) -> Self {
        Self {
            first: time,
            last: time,
        }
    }
}

impl FileMeta {
    /// The header of the file that leads from `before` to `after`.
    pub(crate) fn header(&self, before: DatabaseSum, after: DatabaseSum) -> Header {
        let pre_apply = (!self.range.is_snapshot()).then_some(before.checksum);
        let span = self
            .seen
            .last
            .millis_since(self.seen.first)
            .clamp(0, MAX_SPAN_MS);
        Header {
            page_size: self.page_size,
            commit: self.count,
            range: self.range,
            timestamp: self.seen.last,
            tracking: if self.tracked {
                Tracking::Tracked { pre_apply }
            } else {
                Tracking::Untracked
            },
            wal: self.wal,
            node: self.stream.to_node_id(),
            digest: Some(after.digest),
            mark: self.mark,
            span_ms: u32::try_from(span).unwrap_or_default(),
        }
    }

    /// The checksum that the trailer holds.
    pub(crate) fn post_apply(&self, after: DatabaseSum) -> Option<crate::types::Checksum> {
        self.tracked.then_some(after.checksum)
    }
}

/// The state that a file starts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    pub(crate) count: PageCount,
    pub(crate) sum: DatabaseSum,
}

/// Where the encoder finds the pages and their former sums.
pub(crate) trait Pages {
    /// Reads `page` as it is after the file.
    fn read(&mut self, page: PageNumber, into: &mut Vec<u8>) -> Result<()>;
    /// The sums of the pages before the file.
    fn table(&self) -> &PageTable;
    /// Takes note that `page` changed.
    fn changed(&mut self, page: PageNumber, sum: PageSum) -> Result<()>;
}

/// A file that was encoded, all but for its header in front.
#[derive(Debug)]
pub(crate) struct EncodedFile<W> {
    /// What was written behind the header.
    pub(crate) out: W,
    /// The first 100 bytes of the file.
    pub(crate) head: [u8; 100],
    /// The same as values.
    pub(crate) header: Header,
    /// Pages in the file.
    pub(crate) pages: u64,
    /// The database after the file.
    pub(crate) sum: DatabaseSum,
}

/// Encodes those of the `candidates` (ascending, each within the new size) that really differ from the
/// state before, and settles the sums, also for the pages that the new size cuts off.
pub(crate) fn encode_changes<W: Write>(
    out: W,
    spill: Spill,
    meta: &FileMeta,
    before: Before,
    candidates: &mut dyn Iterator<Item = Result<PageNumber>>,
    pages: &mut dyn Pages,
) -> Result<EncodedFile<W>> {
    let mut encoder = Encoder::new(out, meta.page_size, meta.count, spill);
    let sum = settle(meta, before, candidates, pages, &mut |page| {
        encoder.write(page).map_err(Error::from)
    })?;
    let header = meta.header(before.sum, sum);
    let done = encoder.finish(&header, meta.post_apply(sum))?;
    Ok(EncodedFile {
        out: done.out,
        head: done.header,
        header,
        pages: done.pages,
        sum,
    })
}

/// The sums after the candidates' changes; each page that really changed goes to `write`.
pub(crate) fn settle(
    meta: &FileMeta,
    before: Before,
    candidates: &mut dyn Iterator<Item = Result<PageNumber>>,
    pages: &mut dyn Pages,
    write: &mut dyn FnMut(&Page<'_>) -> Result<()>,
) -> Result<DatabaseSum> {
    let mut sum = before.sum;
    let mut data = Vec::with_capacity(meta.page_size.bytes());
    let lock = meta.page_size.lock_page();
    let mut former = Vec::with_capacity(CHUNK);
    let mut candidates = candidates.filter(|page| !matches!(page, Ok(page) if *page == lock));
    loop {
        let chunk = candidates
            .by_ref()
            .take(CHUNK)
            .collect::<Result<Vec<_>>>()?;
        if chunk.is_empty() {
            break;
        }
        let known = chunk.partition_point(|page| before.count.holds(*page));
        former.clear();
        pages
            .table()
            .lookup_all(chunk.get(..known).unwrap_or_default(), &mut |_, sum| {
                former.push(sum);
                Ok(())
            })?;
        for (at, page) in chunk.iter().enumerate() {
            pages.read(*page, &mut data)?;
            let content = Page::new(*page, &data, meta.page_size);
            let now = content.sum();
            if at < known {
                let former = former
                    .get(at)
                    .copied()
                    .flatten()
                    .ok_or_else(|| missing(*page))?;
                if former == now {
                    continue;
                }
                sum.remove(former);
            }
            sum.add(now);
            write(&content)?;
            pages.changed(*page, now)?;
        }
    }
    former_sums(
        meta.count,
        before.count,
        meta.page_size,
        pages.table(),
        &mut |former| {
            sum.remove(former);
        },
    )?;
    Ok(sum)
}

/// The sums of the pages that a database of `before` pages has and one of `count` has not.
pub(crate) fn former_sums(
    count: PageCount,
    before: PageCount,
    page_size: PageSize,
    table: &PageTable,
    each: &mut dyn FnMut(PageSum),
) -> Result<()> {
    let lock = page_size.lock_page();
    let mut gone = (count.0.saturating_add(1)..=before.0)
        .filter_map(PageNumber::new)
        .filter(|page| *page != lock);
    loop {
        let chunk: Vec<_> = gone.by_ref().take(CHUNK).collect();
        if chunk.is_empty() {
            return Ok(());
        }
        table.lookup_all(&chunk, &mut |page, sum| {
            each(sum.ok_or_else(|| missing(page))?);
            Ok(())
        })?;
    }
}

/// The error for a page of the former state that the page table does not know.
pub(crate) fn missing(page: PageNumber) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("the page table has no entry for page {page}"),
    )
}
