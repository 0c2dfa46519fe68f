//! What an idle poll looks at: one listing of the newest files. Pure.
//!
//! The listing begins a few files before the replica's state and not behind it: a new writer begins at the head
//! that it saw, and a file that the old one stored at the last moment, and that the replica has applied, may lie
//! behind that. Such a beginning is then among the keys listed, and seen as new.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::{Catalog, FileKey, Listed};
use crate::store::Layout;
use crate::types::{Txid, TxidRange};

/// Files before the replica's state that are listed again and again. A writer has at most 16 uploads under way
/// when it learns that its turn is over; twice as many are 8 KB of listing.
const BEHIND: usize = 32;

/// New files that are fetched as they are. More of them may be merged already, which costs two requests to know.
const AT_ONCE: usize = 4;

/// The incrementals that are known, from a little before the replica's state on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Window {
    /// Their sizes: objects never change, so another size is another stream's.
    known: BTreeMap<TxidRange, u64>,
    /// Whether some of them lie behind a gap that may yet close.
    waiting: bool,
    /// Where the listing begins if nothing is known.
    from: Txid,
}

/// What a listing shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// Nothing new.
    Nothing,
    /// These, and nothing else; each leads on from the one before.
    Next(Vec<Listed>),
    /// Something that only the whole of what is stored explains.
    Unclear,
}

impl Window {
    /// Everything in `catalog` is known, and the replica is at `at`.
    pub(super) fn of(catalog: &Catalog, at: Txid) -> Self {
        let live: BTreeSet<FileKey> = catalog.live().iter().map(|file| file.key).collect();
        let captured: BTreeMap<TxidRange, u64> = catalog
            .files()
            .filter(|file| file.key.level() == 0)
            .map(|file| (file.range(), file.size))
            .collect();
        let behind = captured
            .keys()
            .filter(|range| TxidRange::max(**range) <= at)
            .count();
        let known: BTreeMap<TxidRange, u64> = captured
            .into_iter()
            .skip(behind.saturating_sub(BEHIND))
            .collect();
        let waiting = known.keys().any(|range| {
            TxidRange::max(*range) > at && live.contains(&FileKey::incremental(*range))
        });
        Self {
            known,
            waiting,
            from: at.next(),
        }
    }

    /// The key behind which the listing begins. Not that of a file: the first known one is to be listed too, as
    /// a sign that the stream is still the same.
    pub(super) fn after(&self, layout: &Layout) -> String {
        match self.known.keys().next() {
            Some(first) => {
                let key = layout.incremental(*first);
                key.strip_suffix(".ltx").unwrap_or(&key).to_owned()
            }
            None => format!("{}{}", layout.incremental_folder(), self.from),
        }
    }

    /// Looks at a listing, which may go on (`more`); the replica is at `at`.
    pub(super) fn look(&self, listed: Vec<Listed>, more: bool, at: Txid) -> Seen {
        let is_known = |listed: &Listed| self.known.get(&listed.file.range()) == Some(&listed.size);
        let gone = !self.known.is_empty() && !listed.iter().any(is_known);
        let mut fresh: Vec<Listed> = listed
            .into_iter()
            .filter(|listed| !is_known(listed))
            .collect();
        if gone || more {
            return Seen::Unclear;
        }
        if fresh.is_empty() {
            return Seen::Nothing;
        }
        fresh.sort_by_key(|listed| listed.file.range());
        let mut reached = at;
        let leads_on = fresh.iter().all(|listed| {
            let range = listed.file.range();
            let follows = range.min() == reached.next();
            reached = range.max();
            follows
        });
        match leads_on && !self.waiting && fresh.len() <= AT_ONCE {
            true => Seen::Next(fresh),
            false => Seen::Unclear,
        }
    }

    /// Whether a file waits behind a gap.
    pub(super) fn waits(&self) -> bool {
        self.waiting
    }

    /// A file was applied: its end is the replica's state.
    pub(super) fn applied(&mut self, listed: &Listed) {
        self.known.insert(listed.file.range(), listed.size);
        self.from = listed.file.range().max().next();
        while self.known.len() > BEHIND && !self.waiting {
            self.known.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txid(value: u64) -> Txid {
        Txid::new(value).unwrap()
    }

    fn range(min: u64, max: u64) -> TxidRange {
        TxidRange::new(txid(min), txid(max)).unwrap()
    }

    fn listed(ranges: &[(u64, u64)]) -> Vec<Listed> {
        ranges
            .iter()
            .map(|(min, max)| Listed {
                file: FileKey::incremental(range(*min, *max)),
                size: 500,
            })
            .collect()
    }

    fn window(known: &[(u64, u64)], waiting: bool, from: u64) -> Window {
        Window {
            known: known
                .iter()
                .map(|(min, max)| (range(*min, *max), 500))
                .collect(),
            waiting,
            from: txid(from),
        }
    }

    #[test]
    fn only_what_follows_directly_is_taken_as_it_is() {
        let known = [(8, 8), (9, 10)];
        let here = window(&known, false, 11);
        let look = |ranges: &[(u64, u64)]| here.look(listed(ranges), false, txid(10));
        assert_eq!(look(&known), Seen::Nothing);
        let next = [(8, 8), (9, 10), (11, 11), (12, 15)];
        assert_eq!(look(&next), Seen::Next(listed(&next[2..])));
        // A file of the window was thinned away.
        assert_eq!(look(&[(9, 10)]), Seen::Nothing);
        for unclear in [
            // Everything that was there is gone.
            &[][..],
            &[(11, 11)],
            // A gap, an overlap, the beginning of another writer.
            &[(9, 10), (12, 12)],
            &[(9, 10), (10, 12)],
            &[(8, 8), (8, 9), (9, 10)],
            &[(9, 10), (11, 12), (12, 13)],
            // Many: they may be merged.
            &[(9, 10), (11, 11), (12, 12), (13, 13), (14, 14), (15, 15)],
        ] {
            assert_eq!(look(unclear), Seen::Unclear, "{unclear:?}");
        }
        let more = here.look(listed(&known), true, txid(10));
        assert_eq!(more, Seen::Unclear);
        let mut other = listed(&known);
        other[1].size += 1;
        assert_eq!(here.look(other, false, txid(10)), Seen::Unclear);
        let waiting = window(&[(9, 10), (12, 12)], true, 11);
        let closed = waiting.look(listed(&[(9, 10), (11, 11), (12, 12)]), false, txid(10));
        assert_eq!(closed, Seen::Unclear);
    }

    #[test]
    fn the_listing_begins_at_the_first_known_file_and_stays_short() {
        let layout = Layout::new("p".parse().unwrap(), "a.db".parse().unwrap());
        let mut here = window(&[(2, 2)], false, 3);
        let key = layout.incremental(range(2, 2));
        let after = here.after(&layout);
        assert!(
            after < key && after > layout.incremental(range(1, 9)),
            "{after}"
        );
        for at in 3..1000 {
            here.applied(&listed(&[(at, at)])[0]);
        }
        assert_eq!(here.known.len(), BEHIND);
        let first = 1000 - BEHIND as u64;
        assert_eq!(here.known.keys().next(), Some(&range(first, first)));
        let empty = window(&[], false, 11);
        let after = empty.after(&layout);
        assert!(after < layout.incremental(range(11, 11)));
        assert!(after > layout.incremental(range(10, 99)));
    }
}
