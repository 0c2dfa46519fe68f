//! Which frames still count when a database shrinks and grows again within one batch.
//!
//! A page that a shrink cut off and a later commit brought back has, in between, no content. SQLite
//! may bring it back without a frame (a page that goes straight to the freelist), so an older frame of
//! it in the same batch is stale. Tried with `incremental_vacuum`.

use crate::types::{PageCount, PageNumber};

/// The sizes that the database had after each commit of a batch, as far as they can still matter:
/// frame numbers and sizes both strictly ascending.
#[derive(Debug)]
pub(crate) struct SizeHistory(Vec<(u32, u32)>);

impl SizeHistory {
    /// A batch that starts from a database of `before` pages.
    pub(crate) fn new(before: PageCount) -> Self {
        Self(vec![(0, before.0)])
    }

    /// A commit whose last frame is number `frame` (counted within the batch, from 1) left `size` pages.
    pub(crate) fn commit(&mut self, frame: u32, size: PageCount) {
        while self.0.last().is_some_and(|(_, earlier)| *earlier >= size.0) {
            self.0.pop();
        }
        self.0.push((frame, size.0));
    }

    /// The smallest size at any commit, the one before the batch included.
    pub(crate) fn smallest(&self) -> PageCount {
        PageCount(self.0.first().map_or(0, |(_, size)| *size))
    }

    /// The last frame after which `page` did not exist, or 0: a frame of the page counts only if it is
    /// newer.
    pub(crate) fn last_absence(&self, page: PageNumber) -> u32 {
        let absent = self.0.partition_point(|(_, size)| *size < page.get());
        absent
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .map_or(0, |(frame, _)| *frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(before: u32, commits: &[(u32, u32)]) -> SizeHistory {
        let mut history = SizeHistory::new(PageCount(before));
        for (frame, size) in commits {
            history.commit(*frame, PageCount(*size));
        }
        history
    }

    #[test]
    fn last_absence_equals_a_plain_search() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let before = random.u32(0..12);
            let mut frame = 0;
            let commits: Vec<_> = (0..random.usize(0..9))
                .map(|_| {
                    frame += random.u32(1..5);
                    (frame, random.u32(1..12))
                })
                .collect();
            let history = history(before, &commits);
            let all = std::iter::once((0, before)).chain(commits.iter().copied());
            assert_eq!(
                history.smallest().0,
                all.clone().map(|(_, size)| size).min().unwrap()
            );
            for page in 1..14 {
                let plain = all
                    .clone()
                    .filter(|(_, size)| *size < page)
                    .map(|(frame, _)| frame)
                    .max();
                let page = PageNumber::new(page).unwrap();
                assert_eq!(
                    history.last_absence(page),
                    plain.unwrap_or(0),
                    "seed {seed} page {page}"
                );
            }
        }
    }
}
