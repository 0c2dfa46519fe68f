//! Whether the files of a chain belong together. They are read newest first, so each file is held against
//! the next younger one.

use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Header, Tracking, Verified};
use crate::manifest::FileEntry;
use crate::types::{Checksum, Digest, PageCount, PageSize, StreamId, TxidRange};

/// Why a file does not continue the chain.
#[derive(Debug)]
pub(super) enum Broken {
    /// It is of another writer than the younger files. Perhaps those are dead, stored by a writer whose turn
    /// had ended: the plan must be made again, with what the headers say.
    Writer(Error),
    /// It is not what it should be.
    File(Error),
}

/// What the files read so far demand of the next older one.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    younger: Option<Younger>,
}

#[derive(Clone, Debug)]
struct Younger {
    range: TxidRange,
    pre: Option<Checksum>,
    page_size: PageSize,
    stream: Option<StreamId>,
    /// Pages behind this were cut off by a younger file.
    limit: PageCount,
}

impl Links {
    /// Holds a header against the name of its file and the younger files, before its pages are used. Gives
    /// the page behind which its pages were cut off later.
    pub(super) fn check_header(
        &self,
        range: TxidRange,
        header: &Header,
    ) -> Result<PageCount, Broken> {
        let wrong = |message: String| Broken::File(Error::new(ErrorKind::Corrupt, message));
        if header.range != range {
            return Err(wrong(format!(
                "the file is named {range} but holds {}",
                header.range
            )));
        }
        let Some(younger) = &self.younger else {
            return Ok(header.commit);
        };
        if header.page_size != younger.page_size {
            return Err(wrong(format!(
                "page size {}, but the files behind it have {}",
                header.page_size, younger.page_size
            )));
        }
        if !follows(header.stream(), younger.stream) {
            let message = format!(
                "written by {}, the files behind it by {}",
                shown(header.stream()),
                shown(younger.stream)
            );
            return Err(Broken::Writer(Error::new(ErrorKind::Corrupt, message)));
        }
        Ok(younger.limit.min(header.commit))
    }

    /// Takes in a file that was read and is whole. `entry` is what the index says of it.
    pub(super) fn add(&mut self, file: &Verified, entry: Option<&FileEntry>) -> Result<()> {
        if let Some(entry) = entry {
            check_entry(file, entry)?;
        }
        let header = &file.header;
        if let (Some(younger), Some(post)) = (&self.younger, file.post_apply)
            && younger.range.min() == header.range.max().next()
            && let Some(pre) = younger.pre
            && pre != post
        {
            let message = format!(
                "the state after it is {post}, but {} was made over {pre}",
                younger.range
            );
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let limit = self
            .younger
            .as_ref()
            .map_or(header.commit, |younger| younger.limit);
        self.younger = Some(Younger {
            range: header.range,
            pre: match header.tracking {
                Tracking::Tracked { pre_apply } => pre_apply,
                Tracking::Untracked => None,
            },
            page_size: header.page_size,
            stream: header.stream(),
            limit: limit.min(header.commit),
        });
        Ok(())
    }
}

/// Whether a file of `younger` may stand on one of `older`: one history, and turns in their order.
fn follows(older: Option<StreamId>, younger: Option<StreamId>) -> bool {
    match (older, younger) {
        (Some(older), Some(younger)) => {
            older.lineage == younger.lineage && older.epoch <= younger.epoch
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn shown(stream: Option<StreamId>) -> String {
    match stream {
        Some(StreamId { lineage, epoch }) => format!("lineage {lineage}, epoch {}", epoch.get()),
        None => "another program".to_owned(),
    }
}

/// The object at a key must be the one that the index describes: objects are immutable.
fn check_entry(file: &Verified, entry: &FileEntry) -> Result<()> {
    let wrong = |what: &str, listed: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
        let message = format!("{what} {found}, the index says {listed}");
        Err(Error::new(ErrorKind::Corrupt, message))
    };
    let header = &file.header;
    if header.page_size != entry.page_size {
        return wrong("page size", &entry.page_size, &header.page_size);
    }
    if header.commit != entry.commit {
        return wrong("size in pages", &entry.commit, &header.commit);
    }
    if let (Some(listed), Some(found)) = (entry.post, file.post_apply)
        && listed != found
    {
        return wrong("checksum", &listed, &found);
    }
    if let (Some(listed), Some(found)) = (entry.digest, header.digest)
        && listed != found
    {
        return wrong("digest", &listed, &found);
    }
    if entry.stream != header.stream() {
        let message = "the file is of another writer than the index says";
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(())
}

/// What the last file of a chain says of the state after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Expected {
    pub(super) checksum: Option<Checksum>,
    pub(super) digest: Option<Digest>,
}

impl Expected {
    /// From the file itself and from the index.
    pub(super) fn of(file: &Verified, entry: Option<&FileEntry>) -> Self {
        Self {
            checksum: file.post_apply.or(entry.and_then(|entry| entry.post)),
            digest: file.header.digest.or(entry.and_then(|entry| entry.digest)),
        }
    }

    /// Compares with the sums over the pages written. Errors: `Corrupt`.
    pub(super) fn check(self, found: crate::types::DatabaseSum) -> Result<()> {
        if let Some(checksum) = self.checksum.filter(|checksum| *checksum != found.checksum) {
            let message = format!(
                "the restored pages have checksum {}, not {checksum}",
                found.checksum
            );
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        if let Some(digest) = self.digest.filter(|digest| *digest != found.digest) {
            let message = format!(
                "the restored pages have digest {}, not {digest}",
                found.digest
            );
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        Ok(())
    }
}
