//! Keeps the root small: moves its oldest entries into immutable pages.

use super::entry::FileEntry;
use super::root::{DEEPEST, IndexPage, Manifest, PageRef, ROOT_LIMIT};
use crate::error::Result;

/// Entries in one page: some 150 KB, a second's work to fetch and parse even from far away.
const PAGE_ENTRIES: usize = 500;
/// The newest incrementals stay in the root, so that most restores need no page.
const NEWEST_INCREMENTALS: usize = 150;
/// The newest merged files and the newest snapshots stay in the root.
const NEWEST_OTHERS: usize = 50;
/// A page smaller than this would make many pages of few entries.
const FEWEST_ENTRIES: usize = 100;
/// References that one page takes when the root has this many of them twice.
const FOLDED_PAGES: usize = 64;
/// About the length of a reference.
const REFERENCE: usize = 130;

/// A page to store before the root that names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewPage {
    /// How the root names it.
    pub reference: PageRef,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Moves the oldest entries of `manifest` into pages until its root is below [`ROOT_LIMIT`], or until only
/// the newest of each kind are left there. The pages must be stored before the root.
pub fn spill(manifest: &mut Manifest) -> Result<Vec<NewPage>> {
    let mut pages = Vec::new();
    loop {
        let size = manifest.encode()?.len();
        let before = pages.len();
        if size >= ROOT_LIMIT {
            let mut root = Root {
                manifest,
                size,
                pages: &mut pages,
            };
            root.shrink()?;
        }
        // What one round takes is estimated; the next one counts again.
        if pages.len() == before {
            return Ok(pages);
        }
    }
}

/// A root that is too long.
struct Root<'m> {
    manifest: &'m mut Manifest,
    /// About its length in bytes.
    size: usize,
    pages: &'m mut Vec<NewPage>,
}

impl Root<'_> {
    /// Incrementals go first, for they are many and age fastest.
    fn shrink(&mut self) -> Result<()> {
        self.take_oldest(NEWEST_INCREMENTALS, |level| level == 0)?;
        self.fold_pages()?;
        self.take_oldest(NEWEST_OTHERS, |level| (1..=8).contains(&level))?;
        self.take_oldest(NEWEST_OTHERS, |level| level == 9)?;
        let order = |page: &PageRef| (page.range.max(), page.range.min());
        self.manifest.pages.sort_by_key(order);
        Ok(())
    }

    fn is_too_long(&self) -> bool {
        self.size >= ROOT_LIMIT
    }

    fn store(&mut self, page: &IndexPage) -> Result<()> {
        if let Some((bytes, reference)) = page.encode()? {
            self.size = self.size.saturating_sub(bytes.len()) + REFERENCE;
            self.manifest.pages.push(reference);
            self.pages.push(NewPage { reference, bytes });
        }
        Ok(())
    }

    /// Moves the oldest entries of some levels but leaves the newest `keep`, and never makes a page of
    /// hardly any.
    fn take_oldest(&mut self, keep: usize, level: impl Fn(u8) -> bool) -> Result<()> {
        if !self.is_too_long() {
            return Ok(());
        }
        let files = std::mem::take(&mut self.manifest.files);
        let (mut chosen, mut rest): (Vec<FileEntry>, Vec<_>) =
            files.into_iter().partition(|file| level(file.key.level()));
        chosen.sort_by_key(|file| (file.max(), file.range().min()));
        let mut spare = chosen.len().saturating_sub(keep);
        let mut chosen = chosen.into_iter();
        while self.is_too_long() && spare >= FEWEST_ENTRIES {
            let count = spare.min(PAGE_ENTRIES);
            spare -= count;
            let files = chosen.by_ref().take(count).collect();
            self.store(&IndexPage::new(files, Vec::new()))?;
        }
        rest.extend(chosen);
        rest.sort_by_key(|file| file.key);
        self.manifest.files = rest;
        Ok(())
    }

    /// Puts the oldest references of one depth into a page, as long as there are many, so that the tree
    /// stays as flat as it can be.
    fn fold_pages(&mut self) -> Result<()> {
        while self.is_too_long() {
            let pages = &mut self.manifest.pages;
            let count = |depth| pages.iter().filter(|page| page.depth == depth).count();
            let Some(depth) = (1..DEEPEST).find(|depth| count(*depth) >= 2 * FOLDED_PAGES) else {
                break;
            };
            pages.sort_by_key(|page| (page.range.max(), page.range.min()));
            let mut taken = Vec::new();
            pages.retain(|page| {
                let take = page.depth == depth && taken.len() < FOLDED_PAGES;
                if take {
                    taken.push(*page);
                }
                !take
            });
            self.store(&IndexPage::new(Vec::new(), taken))?;
        }
        Ok(())
    }
}
