//! One file into the replica, in one transaction: readers see the state before it or the state after it.
//!
//! Pages come in the order of the file and are written as they come; page 1 is held back to the end, since it
//! holds the schema's version. Before the commit the sums over all pages, kept up page by page from the page
//! table, must be those that the file names; else all is rolled back.

use std::io::Read;

use tokio_util::sync::CancellationToken;

use super::header::{TrueHeader, dress};
use super::home::Home;
use super::judge::{Fit, Misfit, judge};
use super::local::Local;
use super::state_file::Standing;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{DecodeError, Decoder, Header, Verified};
use crate::manifest::{FileEntry, FileKey, is_damage};
use crate::sqlite::{Committed, PageTransaction};
use crate::state::{Entries, Huge, PageTable, Place};
use crate::types::{DatabaseSum, PageCount, PageNumber, PageSum};

/// Pages whose former sums are looked up together.
const CHUNK_PAGES: usize = 256;
/// Bytes of pages that are held for that.
const CHUNK_BYTES: usize = 1 << 20;
/// Entries of the page table kept in memory: 7 MiB. More go through a file.
const ENTRIES_IN_MEMORY: usize = 1 << 18;

/// A file that was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Applied {
    /// Pages written.
    pub(super) pages: u64,
}

/// Why a file was not applied. The replica is as it was.
#[derive(Debug)]
pub(super) enum Refused {
    /// It does not fit.
    Misfit(Misfit),
    /// Somebody else wrote to the replica.
    LocalWrite,
    /// The pages after it are not those that it names, though it is whole: either it or the replica is not what
    /// it should be.
    OtherPages(Error),
    /// We are to stop.
    Stopped,
    /// Anything else.
    Failed(Error),
}

impl From<Misfit> for Refused {
    fn from(misfit: Misfit) -> Self {
        Self::Misfit(misfit)
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// An error of the file's own bytes.
fn file_error(error: DecodeError) -> Refused {
    let error = Error::from(error);
    match is_damage(&error) {
        true => Misfit::Damaged(error).into(),
        false => error.into(),
    }
}

/// A file to apply.
pub(super) struct Given<'g> {
    pub(super) key: FileKey,
    /// What the index says of it.
    pub(super) entry: Option<&'g FileEntry>,
}

impl Local {
    /// Applies the file that `source` begins with. Blocking.
    pub(super) fn apply(
        &mut self,
        home: &Home,
        given: &Given<'_>,
        source: impl Read,
        stop: &CancellationToken,
    ) -> Result<Applied, Refused> {
        let done = self.transact(home, given, source, stop)?;
        let alone = done.committed.is_some();
        self.settle(home, &done.standing, done.committed, done.changed)?;
        match alone {
            true => Ok(Applied { pages: done.pages }),
            false => Err(Refused::LocalWrite),
        }
    }

    /// Writes, proves and commits.
    fn transact(
        &mut self,
        home: &Home,
        given: &Given<'_>,
        source: impl Read,
        stop: &CancellationToken,
    ) -> Result<Done, Refused> {
        let decoder = Decoder::new(source).map_err(file_error)?;
        let fit = judge(given.key, decoder.header(), &self.position())?;
        self.keep_wal_short()?;
        let tx = self.db.begin()?;
        if !tx.before().is(&self.committed) {
            return Err(Refused::LocalWrite);
        }
        let mut work = Work {
            tx,
            table: &self.table,
            sum: self.state.sum,
            changed: Changed::Few(Entries::new()),
            first: None,
            written: 0,
            stop,
        };
        let verified = work.read(decoder)?;
        work.forget(&verified.header, self.state.page_count)?;
        // Unproved, the replica may hold the state after this very file, and nothing else.
        if !self.proved && (work.written > 0 || verified.header.commit != self.state.page_count) {
            return Err(Refused::LocalWrite);
        }
        let standing = work.finish(&verified, &self.state, fit)?;
        check(&verified, given.entry, work.sum).map_err(|error| match self.proved {
            false => Refused::LocalWrite,
            true => Refused::OtherPages(error),
        })?;
        let mut next = self.state.clone();
        next.advance(&standing);
        home.intend(&next)?;
        let Work {
            tx,
            changed,
            written: pages,
            ..
        } = work;
        Ok(Done {
            committed: commit(tx, &standing)?,
            standing,
            changed,
            pages,
        })
    }

    /// After the commit: page table and state file follow. An error here leaves them behind; the replica is
    /// proved anew then.
    fn settle(
        &mut self,
        home: &Home,
        standing: &Standing,
        committed: Option<Committed>,
        changed: Changed,
    ) -> Result<()> {
        let place = Place {
            txid: standing.txid,
            sum: standing.sum,
            page_size: standing.page_size,
            page_count: standing.page_count,
            wal: None,
        };
        match changed {
            Changed::Few(entries) => {
                self.table.layer(entries, place)?;
                self.table.commit()?;
            }
            Changed::Many(huge) => self.table.commit_huge(*huge, place)?,
        }
        self.arrive(home, standing, committed)
    }
}

/// Commits what leads to `standing`. Nothing where somebody else has committed since.
pub(super) fn commit(tx: PageTransaction<'_>, standing: &Standing) -> Result<Option<Committed>> {
    let committed = tx.commit()?;
    let wrong = committed.filter(|committed| committed.page_count != standing.page_count);
    match wrong {
        None => Ok(committed),
        Some(wrong) => Err(Error::new(
            ErrorKind::Internal,
            format!(
                "SQLite committed {} pages, not {}",
                wrong.page_count, standing.page_count
            ),
        )),
    }
}

/// A transaction that was committed.
struct Done {
    standing: Standing,
    changed: Changed,
    pages: u64,
    /// Nothing where somebody else has committed since.
    committed: Option<Committed>,
}

/// New sums of the changed pages, ascending.
enum Changed {
    Few(Entries),
    Many(Box<Huge>),
}

impl Changed {
    fn push(&mut self, table: &PageTable, page: PageNumber, sum: PageSum) -> Result<()> {
        if let Self::Few(entries) = self
            && entries.len() >= ENTRIES_IN_MEMORY
        {
            let mut huge = Box::new(table.huge()?);
            entries
                .iter()
                .try_for_each(|(page, sum)| huge.push(page, sum))?;
            *self = Self::Many(huge);
        }
        match self {
            Self::Few(entries) => entries.push(page, sum),
            Self::Many(huge) => huge.push(page, sum),
        }
    }
}

/// Pages of a file that wait for their former sums.
#[derive(Default)]
struct Chunk {
    pages: Vec<(PageNumber, PageSum)>,
    data: Vec<u8>,
}

/// A transaction under way.
struct Work<'w> {
    tx: PageTransaction<'w>,
    table: &'w PageTable,
    /// Over all pages, as they are after what was done so far.
    sum: DatabaseSum,
    changed: Changed,
    /// Page 1 of the file, if it holds one that is new.
    first: Option<Vec<u8>>,
    written: u64,
    stop: &'w CancellationToken,
}

impl Work<'_> {
    /// Writes the pages of the file and checks it as a whole.
    fn read(&mut self, mut decoder: Decoder<impl Read>) -> Result<Verified, Refused> {
        let mut chunk = Chunk::default();
        let mut data = Vec::new();
        while let Some(page) = decoder.next_summed(&mut data).map_err(file_error)? {
            chunk.pages.push((page.number, page.sum()));
            chunk.data.extend_from_slice(page.data);
            if chunk.pages.len() >= CHUNK_PAGES || chunk.data.len() >= CHUNK_BYTES {
                self.write(&mut chunk)?;
            }
        }
        self.write(&mut chunk)?;
        decoder.finish().map_err(file_error)
    }

    /// Writes the pages of a chunk that differ from what the replica holds.
    fn write(&mut self, chunk: &mut Chunk) -> Result<(), Refused> {
        self.check_stop()?;
        let numbers: Vec<PageNumber> = chunk.pages.iter().map(|(page, _)| *page).collect();
        let mut former = Vec::with_capacity(numbers.len());
        self.table.lookup_all(&numbers, &mut |_, sum| {
            former.push(sum);
            Ok(())
        })?;
        let size = chunk.data.len().checked_div(numbers.len()).unwrap_or(0);
        let pages = chunk.pages.iter().zip(former);
        for ((&(page, sum), former), data) in pages.zip(chunk.data.chunks_exact(size.max(1))) {
            if former == Some(sum) {
                continue;
            }
            if let Some(former) = former {
                self.sum.remove(former);
            }
            self.sum.add(sum);
            self.changed.push(self.table, page, sum)?;
            match page == PageNumber::FIRST {
                true => self.first = Some(data.to_vec()),
                false => {
                    self.tx.write(page, data)?;
                    self.written += 1;
                }
            }
        }
        chunk.pages.clear();
        chunk.data.clear();
        Ok(())
    }

    /// Takes the pages that the file cuts off out of the sum.
    fn forget(&mut self, header: &Header, old: PageCount) -> Result<(), Refused> {
        let mut gone = (header.commit.0.saturating_add(1)..=old.0)
            .filter_map(PageNumber::new)
            .peekable();
        let mut numbers = Vec::with_capacity(CHUNK_PAGES);
        while gone.peek().is_some() {
            self.check_stop()?;
            numbers.clear();
            numbers.extend(gone.by_ref().take(CHUNK_PAGES));
            let sum = &mut self.sum;
            self.table.lookup_all(&numbers, &mut |_, former| {
                if let Some(former) = former {
                    sum.remove(former);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Writes page 1 where it changes, and the end of the database. Gives the state after it.
    fn finish(
        &mut self,
        verified: &Verified,
        state: &super::state_file::ReplicaState,
        fit: Fit,
    ) -> Result<Standing, Refused> {
        let header = &verified.header;
        let resized = header.commit != state.page_count;
        let mut page = Vec::new();
        let wanted = self.first.is_some() || resized || fit == Fit::Jump;
        let mut standing_schema = state.shown_schema();
        if wanted {
            self.tx.read(PageNumber::FIRST, &mut page)?;
            standing_schema = super::header::shown_schema(&page);
        }
        match self.first.take() {
            Some(first) => page = first,
            None => state.true_header.restore(&mut page),
        }
        let true_header = match wanted {
            true => TrueHeader::of(&page)
                .ok_or_else(|| Error::new(ErrorKind::Internal, "a page without a header"))?,
            false => state.true_header,
        };
        if !true_header.fits(&state.true_header) {
            return Err(Misfit::Shape.into());
        }
        let schema = match fit {
            Fit::Following => state.schema.followed(true_header.schema()),
            Fit::Jump => state.schema.jumped(true_header.schema(), standing_schema),
        };
        if wanted {
            dress(&mut page, header.commit, schema.shown(true_header.schema()));
            self.tx.finish(&page, header.commit)?;
            self.written += 1;
        }
        let stream = header
            .stream()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a file of another program"))?;
        Ok(Standing {
            txid: header.range.max(),
            stream,
            sum: self.sum,
            page_size: header.page_size,
            page_count: header.commit,
            time: header.timestamp,
            header: true_header,
            schema,
        })
    }

    fn check_stop(&self) -> Result<(), Refused> {
        match self.stop.is_cancelled() {
            true => Err(Refused::Stopped),
            false => Ok(()),
        }
    }
}

/// The sums that the file and the index name must be those of the pages now. A file that names neither proves
/// nothing, and is not applied.
fn check(verified: &Verified, entry: Option<&FileEntry>, found: DatabaseSum) -> Result<()> {
    let checksums = [verified.post_apply, entry.and_then(|entry| entry.post)];
    let digests = [verified.header.digest, entry.and_then(|entry| entry.digest)];
    let corrupt = |message: String| Err(Error::new(ErrorKind::Corrupt, message));
    if digests.iter().all(Option::is_none) {
        let message = "the file names no digest, so nothing proves the state after it";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    if let Some(wanted) = checksums
        .iter()
        .flatten()
        .find(|sum| **sum != found.checksum)
    {
        return corrupt(format!(
            "the state after it has checksum {}, not {wanted}",
            found.checksum
        ));
    }
    if let Some(wanted) = digests.iter().flatten().find(|sum| **sum != found.digest) {
        return corrupt(format!(
            "the state after it has digest {}, not {wanted}",
            found.digest
        ));
    }
    Ok(())
}
