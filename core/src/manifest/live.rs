//! Which files count: the one rule about files of writers whose turn had ended.

use std::collections::HashMap;

use super::root::EpochStart;
use crate::types::{Epoch, Lineage, StreamId, Txid};

/// The first TXID of each writer's turn.
///
/// A file of an earlier writer that reaches the first TXID of a later one is dead: it was stored by
/// somebody who did not yet know that the turn had passed. Within a lineage the epochs give the order
/// of the turns; a lineage comes after those whose first TXID is smaller. Restore, replica, merge, list,
/// compact and verify all ask here.
#[derive(Clone, Debug, Default)]
pub struct Turns(HashMap<Lineage, HashMap<Epoch, Txid>>);

impl Turns {
    /// The turns that begin as `starts` say; of several starts of one writer the smallest counts.
    pub fn new(starts: impl IntoIterator<Item = EpochStart>) -> Self {
        let mut turns = Self::default();
        for start in starts {
            turns.add(start);
        }
        turns
    }

    /// Takes in what an incremental shows: `stream` wrote from `first` on, or from before.
    pub fn add(&mut self, EpochStart { stream, first }: EpochStart) {
        let epochs = self.0.entry(stream.lineage).or_default();
        let known = epochs.entry(stream.epoch).or_insert(first);
        *known = first.min(*known);
    }

    /// Whether a file of `stream` that ends with `max` is dead.
    pub fn is_dead(&self, stream: StreamId, max: Txid) -> bool {
        let own = self.0.get(&stream.lineage);
        let later_epoch = own
            .into_iter()
            .flatten()
            .any(|(epoch, first)| *epoch > stream.epoch && *first <= max);
        later_epoch || self.later_lineage(stream.lineage, max)
    }

    fn later_lineage(&self, lineage: Lineage, max: Txid) -> bool {
        // A lineage of which no incremental is known has only snapshots left: the oldest.
        let own = self.first_of(lineage);
        self.0
            .keys()
            .filter(|other| **other != lineage)
            .any(|other| {
                let first = self.first_of(*other);
                first > own && first.is_some_and(|first| first <= max)
            })
    }

    fn first_of(&self, lineage: Lineage) -> Option<Txid> {
        self.0.get(&lineage)?.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(lineage: u64, epoch: u32) -> StreamId {
        StreamId {
            lineage: Lineage::new(lineage).unwrap(),
            epoch: Epoch::new(epoch).unwrap(),
        }
    }

    fn start(lineage: u64, epoch: u32, first: u64) -> EpochStart {
        EpochStart {
            stream: stream(lineage, epoch),
            first: Txid::new(first).unwrap(),
        }
    }

    #[test]
    fn a_file_that_reaches_a_later_writers_first_txid_is_dead() {
        let turns = Turns::new([start(1, 1, 2), start(1, 3, 10), start(1, 2, 6)]);
        for (epoch, max, dead) in [
            (1, 5, false),
            (1, 6, true),
            (1, 9, true),
            (2, 9, false),
            (2, 10, true),
            (3, 10, false),
            (4, 99, false),
        ] {
            let max = Txid::new(max).unwrap();
            assert_eq!(
                turns.is_dead(stream(1, epoch), max),
                dead,
                "{epoch} {max:?}"
            );
        }
    }

    #[test]
    fn a_new_lineage_ends_the_older_one_whatever_its_epochs() {
        let turns = Turns::new([start(7, 5, 2), start(3, 1, 20)]);
        assert!(!turns.is_dead(stream(7, 5), Txid::new(19).unwrap()));
        assert!(turns.is_dead(stream(7, 5), Txid::new(20).unwrap()));
        assert!(!turns.is_dead(stream(3, 1), Txid::new(40).unwrap()));
        // Only snapshots are left of lineage 9.
        assert!(turns.is_dead(stream(9, 1), Txid::new(2).unwrap()));
        assert!(!turns.is_dead(stream(9, 1), Txid::new(1).unwrap()));
    }

    #[test]
    fn what_incrementals_show_only_ever_lowers_a_start() {
        let mut turns = Turns::new([start(1, 2, 6)]);
        turns.add(start(1, 2, 9));
        assert!(turns.is_dead(stream(1, 1), Txid::new(6).unwrap()));
        turns.add(start(1, 2, 4));
        assert!(turns.is_dead(stream(1, 1), Txid::new(4).unwrap()));
    }
}
