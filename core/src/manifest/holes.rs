//! Transactions that no file as captured holds. Pure.

use crate::types::{Txid, TxidRange};

/// Where incrementals are missing among `incrementals`: the first TXID that is, and the file behind it.
/// `first_start` is the oldest state that a restore may begin with: what comes before it, and before any
/// incremental, is not missed. Before the first compaction there is no hole.
pub(crate) fn holes(
    first_start: Option<Txid>,
    mut incrementals: Vec<TxidRange>,
) -> Vec<(Txid, TxidRange)> {
    incrementals.sort_by_key(|&range| range.min());
    let Some(first) = incrementals.iter().map(|&range| range.min()).min() else {
        return Vec::new();
    };
    // A base that was lost to a crash comes later than the files that wait for it.
    let before = first.previous().unwrap_or(Txid::FIRST);
    let mut covered = first_start.map_or(before, |start| start.min(before));
    let mut holes = Vec::new();
    for range in incrementals {
        if range.min() > covered.next() {
            holes.push((covered.next(), range));
        }
        covered = covered.max(range.max());
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_named_by_what_is_expected_and_what_follows() {
        let txid = |value| Txid::new(value).unwrap();
        let found = |start: u64, ranges: &[(u64, u64)]| -> Vec<(u64, u64)> {
            let ranges = ranges.iter();
            let ranges = ranges.map(|(min, max)| TxidRange::new(txid(*min), txid(*max)).unwrap());
            holes(Txid::new(start), ranges.collect())
                .into_iter()
                .map(|(expected, range)| (expected.get(), range.min().get()))
                .collect()
        };
        assert_eq!(found(1, &[]), []);
        assert_eq!(found(1, &[(2, 2), (3, 5), (6, 6)]), []);
        assert_eq!(found(1, &[(6, 6), (2, 2), (3, 5)]), [], "in any order");
        assert_eq!(found(1, &[(2, 2), (6, 6), (8, 9)]), [(3, 6), (7, 8)]);
        assert_eq!(found(1, &[(3, 5)]), [(2, 3)]);
        assert_eq!(found(5, &[(2, 2), (3, 9)]), [], "a late base");
        assert_eq!(found(5, &[(7, 9)]), [(6, 7)]);
        assert_eq!(found(0, &[(7, 9), (11, 11)]), [(10, 11)], "no start");
        assert_eq!(found(1, &[(2, 9), (3, 3), (10, 10)]), [], "overlaps");
    }
}
