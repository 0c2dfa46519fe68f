//! Whether a file is what the manifest says, and whether it fits where it stands. Pure; each gives what is
//! wrong, for people.

use std::fmt::Display;

use super::table::{Outcome, State};
use crate::ltx::{Tracking, Verified};
use crate::manifest::FileEntry;
use crate::types::{Checksum, Digest, PageCount};

/// What is said of the state after a file: by the file, or by the manifest where the file tracks none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Claim {
    pub(super) commit: PageCount,
    pub(super) checksum: Option<Checksum>,
    pub(super) digest: Option<Digest>,
}

impl Claim {
    pub(super) fn of(file: &Verified, entry: Option<&FileEntry>) -> Self {
        Self {
            commit: file.header.commit,
            checksum: file.post_apply.or(entry.and_then(|entry| entry.post)),
            digest: file.header.digest.or(entry.and_then(|entry| entry.digest)),
        }
    }

    /// What is true of `state`.
    pub(super) fn proved(state: &State) -> Self {
        Self {
            commit: state.commit,
            checksum: Some(state.sum.checksum),
            digest: Some(state.sum.digest),
        }
    }

    /// What of `state` is not as claimed.
    pub(super) fn contradiction(&self, state: &State) -> Option<String> {
        self.differs(&Self::proved(state))
    }

    /// Where two claims about one state contradict each other: `self` says the first, `other` the second.
    pub(super) fn differs(&self, other: &Self) -> Option<String> {
        if self.commit != other.commit {
            return Some(format!("{} pages, not {}", other.commit, self.commit));
        }
        let unlike = |name: &str, ours: &dyn Display, theirs: &dyn Display| {
            Some(format!("{name} {theirs}, not {ours}"))
        };
        if let (Some(ours), Some(theirs)) = (self.checksum, other.checksum)
            && ours != theirs
        {
            return unlike("checksum", &ours, &theirs);
        }
        match (self.digest, other.digest) {
            (Some(ours), Some(theirs)) if ours != theirs => unlike("digest", &ours, &theirs),
            _ => None,
        }
    }
}

/// What of the file is not as the manifest's entry says.
pub(super) fn against_entry(file: &Verified, entry: &FileEntry) -> Option<String> {
    let found = FileEntry::from_header(
        entry.key,
        file.size,
        &file.header,
        file.post_apply,
        Some(file.pages),
    );
    let differs = |what: &str, found: &dyn Display, listed: &dyn Display| {
        Some(format!("{what} {found}, the manifest says {listed}"))
    };
    if found.size != entry.size {
        return differs("size", &found.size, &entry.size);
    }
    if found.stream != entry.stream {
        return Some("written by another writer than the manifest says".to_owned());
    }
    if found.kind != entry.kind {
        return differs("a", &found.kind.shown(), &entry.kind.shown());
    }
    if found.page_size != entry.page_size {
        return differs("page size", &found.page_size, &entry.page_size);
    }
    if found.commit != entry.commit {
        return differs("size in pages", &found.commit, &entry.commit);
    }
    if entry.pages.is_some() && found.pages != entry.pages {
        let shown = |pages: Option<u64>| pages.unwrap_or(0);
        return differs("pages", &shown(found.pages), &shown(entry.pages));
    }
    let times = [
        (found.first_commit, entry.first_commit),
        (found.last_commit, entry.last_commit),
        (Some(found.created), Some(entry.created)),
    ];
    for (found, listed) in times {
        if let (Some(found), Some(listed)) = (found, listed)
            && found != listed
        {
            return differs("time", &found, &listed);
        }
    }
    for (what, found, listed) in [
        ("pre-apply checksum", found.pre, entry.pre),
        ("checksum", found.post, entry.post),
    ] {
        if let (Some(found), Some(listed)) = (found, listed)
            && found != listed
        {
            return differs(what, &found, &listed);
        }
    }
    match (found.digest, entry.digest) {
        (Some(found), Some(listed)) if found != listed => differs("digest", &found, &listed),
        _ => None,
    }
}

/// The checksum of the state that the file was made over, if it says one that counts.
pub(super) fn pre_apply(file: &Verified) -> Option<Checksum> {
    match file.header.tracking {
        // A base may begin a history of its own.
        _ if file.header.holds_every_page() => None,
        Tracking::Tracked { pre_apply } => pre_apply,
        Tracking::Untracked => None,
    }
}

/// Why the file cannot be applied to `before` at all.
pub(super) fn against_state(file: &Verified, before: &State) -> Option<String> {
    let header = &file.header;
    let lineage = |stream: Option<crate::types::StreamId>| stream.map(|stream| stream.lineage);
    if lineage(header.stream()) != lineage(before.stream) {
        return Some("it belongs to another history than the files before it".to_owned());
    }
    if header.page_size != before.page_size {
        return Some(format!(
            "page size {}, the files before it have {}",
            header.page_size, before.page_size
        ));
    }
    if let Some(pre) = pre_apply(file)
        && header.range.min() == before.txid.next()
        && pre != before.sum.checksum
    {
        return Some(format!(
            "it was made over a state with checksum {pre}, the files before it lead to {}",
            before.sum.checksum
        ));
    }
    None
}

/// What is wrong with the state that a file leads to.
pub(super) fn against_outcome(claim: &Claim, outcome: &Outcome) -> Option<String> {
    if outcome.missing > 0 {
        return Some(format!(
            "{} pages of the database after it are in no file",
            outcome.missing
        ));
    }
    claim
        .contradiction(&outcome.state)
        .map(|what| format!("applied to the state before, it gives {what}"))
}
