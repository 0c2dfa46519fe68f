//! What waits in the spool, and how it goes on from the remote head.
//!
//! A file in the spool was made under the epoch of the run that captured it, which may have ended, or may
//! not have held the lease yet. It is stored under the epoch of whoever stores it: a file of an earlier one
//! would be dead as soon as anything of an epoch in between turned up.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Seek as _;

use roaring::RoaringBitmap;

use super::anchor::{RemoteHead, Spooled};
use super::capture::{Batch, Body, Rebase};
use super::encode::Seen;
use super::remote::header_of;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Header, Mark, Outline, Tracking};
use crate::manifest::FileKey;
use crate::state::{Saved, Spool, SpoolFile};
use crate::types::{DatabaseSum, PageCount, StreamId, Txid, TxidRange};

/// A file of our own in the store, fetched, and its name there.
pub(super) type Fetched = (FileKey, File);

/// How the oldest file of the spool is stored where it overlaps the head: from there on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Splice {
    head: Txid,
    sum: Option<DatabaseSum>,
}

/// The state before what waits; nothing if nothing waits.
pub(super) fn before(spool: &Spool) -> Option<Txid> {
    spool.front()?.range.min().previous()
}

/// Finds out whether the spool leads from the head to the saved state. `files` are those that our own earlier
/// runs stored behind the state before the spool.
pub(super) fn bridge(
    spool: &Spool,
    saved: Option<&Saved>,
    head: Option<&RemoteHead>,
    files: &mut [Fetched],
) -> Result<(Spooled, Option<Splice>)> {
    let Some(front) = spool.front() else {
        return Ok((Spooled::Nothing, None));
    };
    let Some(saved) = saved.filter(|saved| spool.last() == Some(saved.place.txid)) else {
        return Ok((Spooled::Astray, None));
    };
    let place = &saved.place;
    let Some(head) = head else {
        return Ok((Spooled::Bridges, None));
    };
    let bridges = |joins| match joins {
        true => Ok((Spooled::Bridges, None)),
        false => Ok((Spooled::Astray, None)),
    };
    if head.txid == place.txid {
        return bridges(head.sum.is_none_or(|sum| sum == place.sum));
    }
    let (mut digest, mut joins) = (None, None);
    for file in spool.files() {
        let header = header_of(
            &mut spool.open_file(file)?,
            FileKey::incremental(file.range),
        )?;
        let stream = StreamId::from_node_id(header.node);
        if stream.is_none_or(|stream| stream.lineage != saved.lineage) {
            // Equal numbers say nothing of another history.
            return bridges(false);
        }
        if file.range.min() == head.txid.next() {
            let theirs = head.sum.map(|sum| sum.digest);
            let same = digest
                .zip(theirs)
                .is_none_or(|(ours, theirs)| ours == theirs);
            joins = Some(same && goes_on_from(&header, head));
        }
        digest = header.digest;
    }
    if let Some(joins) = joins {
        return bridges(joins);
    }
    let overlaps = front.range.min() <= head.txid && head.txid < front.range.max();
    let supersedes = match overlaps {
        true => supersedes(spool, &front, head, files),
        false => Ok(false),
    };
    let supersedes = supersedes.or_else(|error| {
        tracing::warn!(%error, "the spool cannot be joined to what is stored");
        match error.kind() {
            ErrorKind::Corrupt => Ok(false),
            _ => Err(error),
        }
    })?;
    if supersedes {
        let splice = Splice {
            head: head.txid,
            sum: head.sum,
        };
        return Ok((Spooled::Bridges, Some(splice)));
    }
    Ok((Spooled::Astray, None))
}

/// Whether the file's state before is the head's, as far as both say it.
fn goes_on_from(header: &Header, head: &RemoteHead) -> bool {
    let pre = match header.tracking {
        Tracking::Tracked { pre_apply } => pre_apply,
        Tracking::Untracked => None,
    };
    pre.zip(head.sum)
        .is_none_or(|(pre, sum)| pre == sum.checksum)
}

/// Whether `front`, which goes on from where the stored `files` began, may be applied over the head that they
/// lead to. It may if it holds every page that can differ between the two states: those of the files, and
/// those that the head does not have.
fn supersedes(
    spool: &Spool,
    front: &SpoolFile,
    head: &RemoteHead,
    files: &mut [Fetched],
) -> Result<bool> {
    let mut ours = RoaringBitmap::new();
    let outline = outline(&mut spool.open_file(front)?, &mut ours)?;
    let mut theirs = RoaringBitmap::new();
    let (mut at, mut count) = (front.range.min().previous(), PageCount(0));
    for (key, file) in files {
        let header = outline_of(key, file, &mut theirs)?.header;
        let follows = at.map(Txid::next) == Some(header.range.min());
        let begins =
            at != front.range.min().previous() || header.tracking == outline.header.tracking;
        if !follows || !begins || header.page_size != outline.header.page_size {
            return Ok(false);
        }
        at = Some(header.range.max());
        count = header.commit;
    }
    let commit = outline.header.commit;
    theirs.insert_range(count.0.saturating_add(1)..=commit.0);
    theirs.remove_range(commit.0.saturating_add(1)..);
    theirs.remove(outline.header.page_size.lock_page().get());
    Ok(at == Some(head.txid) && theirs.is_subset(&ours))
}

fn outline_of(key: &FileKey, file: &mut File, pages: &mut RoaringBitmap) -> Result<Outline> {
    let outline = outline(file, pages).map_err(|error| error.on(key))?;
    file.rewind().map_err(|error| Error::io(key, error))?;
    Ok(outline)
}

fn outline(file: &mut File, pages: &mut RoaringBitmap) -> Result<Outline> {
    let outline = Outline::read(file, |page| {
        pages.insert(page.get());
    });
    Ok(outline?)
}

/// The spool as batches that the writer of `node` stores; what the store has already is removed from it.
/// `known` are the batches of the run that captured some of it just now.
pub(super) fn queue_of(
    spool: &mut Spool,
    stored: Option<Txid>,
    node: u64,
    splice: Option<Splice>,
    known: VecDeque<Batch>,
) -> Result<VecDeque<Batch>> {
    drop_stored(spool, stored)?;
    let mut known = known.into_iter().peekable();
    let mut queue = VecDeque::new();
    for file in spool.files() {
        while known
            .next_if(|batch| batch.header.range.max() < file.range.max())
            .is_some()
        {}
        let same = known.next_if(|batch| batch.header.range == file.range);
        let mut batch = match same {
            Some(batch) => batch,
            None => batch_of(spool, file)?,
        };
        batch.header.node = node;
        if let Some(splice) = splice.filter(|_| queue.is_empty()) {
            batch.header = spliced(batch.header, splice);
        }
        queue.push_back(batch);
    }
    Ok(queue)
}

fn spliced(header: Header, splice: Splice) -> Header {
    let range = TxidRange::new(splice.head.next(), header.range.max());
    let pre = splice.sum.map(|sum| sum.checksum);
    Header {
        range: range.unwrap_or(header.range),
        tracking: match header.tracking {
            Tracking::Tracked { pre_apply } => Tracking::Tracked {
                pre_apply: pre.or(pre_apply),
            },
            Tracking::Untracked => Tracking::Untracked,
        },
        ..header
    }
}

fn batch_of(spool: &Spool, file: &SpoolFile) -> Result<Batch> {
    let header = header_of(
        &mut spool.open_file(file)?,
        FileKey::incremental(file.range),
    )?;
    let first = header.timestamp.plus_millis(-i64::from(header.span_ms));
    let seen = Seen {
        first,
        last: header.timestamp,
    };
    let rebase = (header.mark != Mark::None).then(|| Rebase {
        reason: "earlier_run",
        message: "an earlier run could not prove continuity".to_owned(),
    });
    Ok(Batch {
        header,
        post: None,
        frames: 0,
        pages: 0,
        seen,
        body: Body::Spooled(*file),
        rebase,
        // Whether an image ends here is not known any more.
        boundary: true,
        sending: false,
    })
}

/// Removes from the spool what the store has.
pub(super) fn drop_stored(spool: &mut Spool, stored: Option<Txid>) -> Result<()> {
    while let Some(file) = spool.front() {
        if stored.is_none_or(|stored| file.range.max() > stored) {
            break;
        }
        spool.stored(file.range)?;
    }
    Ok(())
}
