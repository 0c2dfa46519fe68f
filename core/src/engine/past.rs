//! What changed since each boundary before this run: from the sets that were saved, and from the page indexes of
//! the files behind them.
//!
//! Sets that stand exactly where capture resumes cost nothing. Those that lag are completed by the files in
//! between. Without any, the newest merged file of each level shows its boundary, and the files behind it,
//! merged ones of lower levels where there are some, what changed since.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use roaring::RoaringBitmap;

use super::encode::Seen;
use super::levels::{Earlier, Period};
use super::remote::{Remote, fetch, header_of};
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{IndexLocation, IndexReader, TAIL_BYTES};
use crate::manifest::{FileEntry, FileKey, FileKind, IN_FLIGHT, is_damage};
use crate::process::blocking;
use crate::state::{PageSets, Spool, SpoolFile, StateDir};
use crate::store::Store;
use crate::types::{DatabaseSum, Lineage, PageSize, Position, Txid};

/// The end of a file that is asked for at once: with it come the index of a file of some thousand pages.
const END_BYTES: u64 = 32 * 1024;

/// Files whose page indexes are read for one level at most. What lies further back stays as it is.
const MOST_FILES: usize = 1024;

/// Where capture resumed, and what it can ask.
pub(super) struct Past<'p> {
    pub(super) store: &'p dyn Store,
    pub(super) remote: Option<&'p Remote>,
    pub(super) dir: Arc<StateDir>,
    pub(super) scratch: &'p Path,
    pub(super) lineage: Lineage,
    pub(super) page_size: PageSize,
}

/// A file of the chain.
#[derive(Debug, Clone)]
struct Link {
    entry: FileEntry,
    /// Where it lies if the store has it not yet.
    spooled: Option<SpoolFile>,
}

impl Past<'_> {
    /// The periods that lead to `at`, shortest first. `spool` holds what the store has not.
    ///
    /// Errors: those of the store. What is damaged or gone makes a period begin behind it.
    pub(super) async fn periods(&self, at: Position, spool: &Spool) -> Result<Earlier> {
        let dir = self.dir.clone();
        let (saved, damage) = blocking(move || PageSets::load(&dir)).await?;
        if let Some(damage) = damage {
            tracing::warn!(directory = %self.dir.path().display(), %damage, "state is damaged; it counts as absent");
        }
        let saved = saved.filter(|saved| saved.lineage == self.lineage);
        let saved = match saved {
            Some(saved) if saved.through == at => {
                return Ok(Earlier {
                    periods: saved.sets.map(Period::from),
                    saved: true,
                });
            }
            saved => saved,
        };
        let links = Links::new(self.remote, spool, self.page_size)?;
        if let Some(saved) = saved
            && let Some(way) = links.way(saved.through, at)
            && let Some(pages) = self.all_pages(&way, spool).await?
        {
            let mut periods = saved.sets.map(Period::from);
            // Oldest first: the times of the last one count.
            for link in way.iter().rev() {
                let Some(pages) = pages.get(&link.entry.key) else {
                    continue;
                };
                for period in &mut periods {
                    period.add(pages, seen(&link.entry));
                }
                periods[0].files = periods[0].files.saturating_add(1);
            }
            return Ok(Earlier {
                periods,
                saved: false,
            });
        }
        Ok(Earlier {
            periods: self.rebuilt(&links, at, spool).await?,
            saved: false,
        })
    }

    /// The periods as the files alone show them.
    async fn rebuilt(&self, links: &Links, at: Position, spool: &Spool) -> Result<[Period; 3]> {
        let ways = [1, 2, 3].map(|level| links.since_boundary(level, at));
        let mut all: Vec<Link> = Vec::new();
        let mut known = HashSet::new();
        for link in ways.iter().flatten() {
            if known.insert(link.entry.key) {
                all.push(link.clone());
            }
        }
        let pages = self.pages(&all, spool).await?;
        Ok(ways.map(|way| {
            // Newest first, up to what cannot be read.
            let readable: Vec<_> = way
                .iter()
                .map_while(|link| Some((link, pages.get(&link.entry.key)?)))
                .collect();
            let start = readable
                .last()
                .and_then(|(link, _)| links.start_of(&link.entry));
            let mut period = Period::new(start.unwrap_or(at));
            for (link, pages) in readable.into_iter().rev() {
                period.add(pages, seen(&link.entry));
                period.files = period.files.saturating_add(1);
            }
            period
        }))
    }

    /// The pages of all `links`; nothing if one cannot be read.
    async fn all_pages(
        &self,
        links: &[Link],
        spool: &Spool,
    ) -> Result<Option<HashMap<FileKey, RoaringBitmap>>> {
        let pages = self.pages(links, spool).await?;
        Ok((pages.len() == links.len()).then_some(pages))
    }

    /// The pages of those of `links` that can be read.
    async fn pages(
        &self,
        links: &[Link],
        spool: &Spool,
    ) -> Result<HashMap<FileKey, RoaringBitmap>> {
        let mut pages = HashMap::new();
        let mut stored = Vec::new();
        for link in links {
            let key = link.entry.key;
            match (&link.spooled, self.remote) {
                (Some(file), _) => {
                    let read = spool
                        .open_file(file)
                        .and_then(|file| pages_of_file(file, key));
                    pages.extend(readable(key, read)?);
                }
                (None, Some(remote)) => stored.push((key, remote.object(key), link.entry.size)),
                (None, None) => {}
            }
        }
        let read = stream::iter(stored)
            .map(|(key, object, size)| async move {
                let read = stored_pages(self.store, &object, size, self.scratch).await;
                readable(key, read)
            })
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<Vec<_>>()
            .await?;
        pages.extend(read.into_iter().flatten());
        Ok(pages)
    }
}

/// What was read of a file, if it is whole and there.
fn readable(key: FileKey, read: Result<RoaringBitmap>) -> Result<Option<(FileKey, RoaringBitmap)>> {
    match read {
        Ok(pages) => Ok(Some((key, pages))),
        Err(error) if is_damage(&error) || error.kind() == ErrorKind::NotFound => {
            tracing::warn!(%key, %error, "a page index cannot be read: merged files begin behind it");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn seen(entry: &FileEntry) -> Seen {
    Seen {
        first: entry.first_commit.unwrap_or_else(|| entry.time()),
        last: entry.time(),
    }
}

/// The files of the chain that lead from one state to another.
#[derive(Debug)]
struct Links(Vec<Link>);

impl Links {
    fn new(remote: Option<&Remote>, spool: &Spool, page_size: PageSize) -> Result<Self> {
        let entries = remote.into_iter().flat_map(Remote::entries);
        let mut links: Vec<_> = entries
            .filter(|entry| entry.page_size == page_size)
            .map(|entry| Link {
                entry,
                spooled: None,
            })
            .collect();
        for file in spool.files() {
            let key = FileKey::incremental(file.range);
            let header = header_of(&mut spool.open_file(file)?, key)?;
            links.push(Link {
                entry: FileEntry::from_header(key, file.size, &header, None, None),
                spooled: Some(*file),
            });
        }
        Ok(Self(links))
    }

    /// The file of one of the `levels` that ends with `txid`, as long as possible but not beginning before
    /// `from`. A base is none: what led to it is no part of it.
    fn ending(&self, txid: Txid, from: Option<Txid>, below: u8) -> Option<&Link> {
        let fits = |link: &&Link| {
            let entry = &link.entry;
            entry.max() == txid
                && entry.key.level() < below
                && !matches!(entry.kind, FileKind::Base | FileKind::Snapshot)
                && from.is_none_or(|from| entry.range().min() > from)
        };
        let links = self.0.iter().filter(fits);
        links.min_by_key(|link| link.entry.range().min())
    }

    /// The files below level `below` that lead to `at`, newest first, back to `from` or as far as they go.
    fn back(&self, at: Position, from: Option<Txid>, below: u8) -> Vec<Link> {
        let mut way: Vec<Link> = Vec::new();
        let mut txid = Some(at.txid);
        let mut leads_to = Some(at.sum.checksum);
        while let Some(reached) = txid.filter(|txid| Some(*txid) != from)
            && way.len() < MOST_FILES
            && let Some(link) = self.ending(reached, from, below)
        {
            let same = link.entry.post.zip(leads_to).is_none_or(|(a, b)| a == b);
            if !same {
                break;
            }
            leads_to = link.entry.pre;
            txid = link.entry.range().min().previous();
            way.push(link.clone());
        }
        way
    }

    /// The files that lead from the state `from` to `at`, newest first, if it is proven that they do.
    fn way(&self, from: Position, at: Position) -> Option<Vec<Link>> {
        if from.txid >= at.txid {
            return None;
        }
        let way = self.back(at, Some(from.txid), u8::MAX);
        let first = &way.last()?.entry;
        let joins = first.range().min() == from.txid.next();
        let by_checksum = first.pre.map(|pre| pre == from.sum.checksum);
        let by_digest = || {
            let mut links = self.0.iter().map(|link| &link.entry);
            links.any(|entry| entry.max() == from.txid && entry.digest == Some(from.sum.digest))
        };
        (joins && by_checksum.unwrap_or_else(by_digest)).then_some(way)
    }

    /// The files since the boundary of `level`, newest first.
    fn since_boundary(&self, level: u8, at: Position) -> Vec<Link> {
        let merged = self
            .0
            .iter()
            .map(|link| &link.entry)
            .filter(|entry| entry.key.level() == level && entry.max() <= at.txid);
        let boundary = merged.map(FileEntry::max).max();
        self.back(at, boundary, level)
    }

    /// The state before a file, if it can be told.
    fn start_of(&self, entry: &FileEntry) -> Option<Position> {
        let txid = entry.range().min().previous()?;
        let before = self.0.iter().map(|link| &link.entry);
        let before = before.filter(|before| before.max() == txid);
        let digest = before.clone().find_map(|before| before.digest);
        let post = before.filter_map(|before| before.post).next();
        let known = entry.pre.or(post);
        let empty = DatabaseSum::EMPTY;
        Some(Position {
            txid,
            sum: DatabaseSum {
                checksum: known.unwrap_or(empty.checksum),
                digest: digest.unwrap_or(empty.digest),
            },
        })
    }
}

/// The pages of a stored file: one request, or two where the index is long.
async fn stored_pages(
    store: &dyn Store,
    object: &str,
    size: u64,
    scratch: &Path,
) -> Result<RoaringBitmap> {
    let start = size.saturating_sub(END_BYTES);
    let end = store.get(object, Some(start..size)).await?.bytes;
    let at = locate(&end, size).map_err(|error| error.on(object))?;
    let pages = match at.offset.checked_sub(start) {
        Some(skip) => {
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            collect(end.get(skip..).unwrap_or_default(), at)
        }
        None => {
            let index = fetch(store, object, at.offset..at.offset + at.length, scratch).await?;
            blocking(move || collect(BufReader::with_capacity(64 * 1024, index), at)).await
        }
    };
    pages.map_err(|error| error.on(object))
}

/// The pages of a file on disk.
fn pages_of_file(mut file: File, key: FileKey) -> Result<RoaringBitmap> {
    let io = |error| Error::io(key, error);
    let size = file.seek(SeekFrom::End(0)).map_err(io)?;
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES as u64)))
        .map_err(io)?;
    let mut tail = Vec::with_capacity(TAIL_BYTES);
    file.read_to_end(&mut tail).map_err(io)?;
    let at = locate(&tail, size).map_err(|error| error.on(key))?;
    file.seek(SeekFrom::Start(at.offset)).map_err(io)?;
    collect(BufReader::with_capacity(64 * 1024, file), at).map_err(|error| error.on(key))
}

/// Where the index of a file of `size` bytes lies, of which `end` is the end.
fn locate(end: &[u8], size: u64) -> Result<IndexLocation> {
    let tail = end
        .last_chunk::<TAIL_BYTES>()
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the file is shorter than it was listed"))?;
    Ok(IndexLocation::find(*tail, size)?)
}

fn collect(index: impl Read, at: IndexLocation) -> Result<RoaringBitmap> {
    let mut pages = RoaringBitmap::new();
    let mut reader = IndexReader::new(index, at);
    while let Some(entry) = reader.next_entry()? {
        pages.insert(entry.page.get());
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ltx::Mark;
    use crate::store::Level;
    use crate::types::{Checksum, Digest, PageCount, Timestamp, TxidRange};

    fn txid(value: u64) -> Txid {
        Txid::new(value).unwrap()
    }

    /// The state after a transaction; no two have the same sums.
    fn at(value: u64) -> Position {
        Position {
            txid: txid(value),
            sum: DatabaseSum {
                checksum: Checksum::new(1 << 63 | value).unwrap(),
                digest: Digest::new(value.into()),
            },
        }
    }

    fn link(level: u8, min: u64, max: u64) -> Link {
        let range = TxidRange::new(txid(min), txid(max)).unwrap();
        let key = match Level::new(level) {
            Some(level) => FileKey::merged(level, range),
            None => FileKey::incremental(range),
        };
        let entry = FileEntry {
            key,
            kind: FileKind::of(key, Mark::None),
            size: 1000,
            page_size: PageSize::new(4096).unwrap(),
            commit: PageCount(1),
            pages: None,
            first_commit: None,
            last_commit: None,
            created: Timestamp::from_millis(0),
            pre: Some(at(min - 1).sum.checksum),
            post: Some(at(max).sum.checksum),
            digest: Some(at(max).sum.digest),
            stream: None,
        };
        Link {
            entry,
            spooled: None,
        }
    }

    fn links(files: &[(u8, u64, u64)]) -> Links {
        let files = files
            .iter()
            .map(|(level, min, max)| link(*level, *min, *max));
        Links(files.collect())
    }

    fn shown(way: &[Link]) -> Vec<(u8, u64, u64)> {
        way.iter()
            .map(|link| {
                let (key, range) = (link.entry.key, link.entry.range());
                (key.level(), range.min().get(), range.max().get())
            })
            .collect()
    }

    #[test]
    fn sets_that_lag_are_completed_only_by_files_that_provably_follow() {
        let all = links(&[(0, 2, 4), (0, 5, 5), (0, 6, 9), (1, 2, 5)]);
        let way = all.way(at(4), at(9)).unwrap();
        assert_eq!(shown(&way), [(0, 6, 9), (0, 5, 5)]);
        assert!(all.way(at(3), at(9)).is_none(), "inside a file");
        assert!(all.way(at(9), at(9)).is_none(), "nothing in between");
        assert!(all.way(at(9), at(5)).is_none(), "ahead");
        let mut other = at(4);
        other.sum = at(77).sum;
        assert!(all.way(other, at(9)).is_none(), "another state");
        other.txid = txid(9);
        assert!(all.way(at(4), other).is_none(), "to another state");
        let hole = links(&[(0, 2, 4), (0, 6, 9)]);
        assert!(hole.way(at(4), at(9)).is_none(), "a hole");

        let mut base = links(&[(0, 2, 4), (0, 5, 5), (0, 6, 9)]);
        base.0[1].entry.kind = FileKind::Base;
        assert!(base.way(at(4), at(9)).is_none(), "over a base");

        // Without checksums the digest of the file before tells.
        let mut untracked = links(&[(0, 2, 4), (0, 5, 9)]);
        for link in &mut untracked.0 {
            (link.entry.pre, link.entry.post) = (None, None);
        }
        assert!(untracked.way(at(4), at(9)).is_some());
        untracked.0[0].entry.digest = None;
        assert!(untracked.way(at(4), at(9)).is_none(), "no proof");
    }

    #[test]
    fn lost_sets_begin_at_the_newest_merged_file_of_their_level() {
        let all = links(&[
            (0, 2, 4),
            (0, 5, 5),
            (0, 6, 9),
            (0, 10, 11),
            (0, 12, 14),
            (1, 2, 5),
            (1, 6, 11),
            (2, 2, 11),
            (0, 15, 15),
        ]);
        assert_eq!(shown(&all.since_boundary(1, at(14))), [(0, 12, 14)]);
        let hour = all.since_boundary(2, at(9));
        assert_eq!(shown(&hour), [(0, 6, 9), (1, 2, 5)]);
        let day = all.since_boundary(3, at(14));
        assert_eq!(shown(&day), [(0, 12, 14), (2, 2, 11)]);
        assert_eq!(all.start_of(&hour[0].entry), Some(at(5)));
        assert_eq!(all.since_boundary(1, at(11)).len(), 0);
        // The first file begins behind a snapshot that no list here holds.
        let start = all.start_of(&day[1].entry).unwrap();
        assert_eq!(
            (start.txid, start.sum.checksum),
            (txid(1), at(1).sum.checksum)
        );
    }
}
