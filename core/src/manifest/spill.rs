//! Keeps the root small: moves its oldest entries into immutable pages.

use super::entry::FileEntry;
use super::root::{DEEPEST, IndexPage, Manifest, PageRef, ROOT_LIMIT, VERSION};
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
    while manifest.encode()?.len() >= ROOT_LIMIT {
        let Some(page) = take_page(manifest) else {
            break;
        };
        if let Some((bytes, reference)) = page.encode()? {
            manifest.pages.push(reference);
            manifest
                .pages
                .sort_by_key(|page| (page.range.max(), page.range.min()));
            pages.push(NewPage { reference, bytes });
        }
    }
    Ok(pages)
}

/// What goes next: incrementals first, for they are many and age fastest.
fn take_page(manifest: &mut Manifest) -> Option<IndexPage> {
    let files = take_oldest(&mut manifest.files, NEWEST_INCREMENTALS, |file| {
        file.key.level() == 0
    });
    if let Some(files) = files {
        return Some(page(files, Vec::new()));
    }
    if let Some(folded) = take_references(&mut manifest.pages) {
        return Some(page(Vec::new(), folded));
    }
    let others: [fn(&FileEntry) -> bool; 2] = [
        |file| (1..=8).contains(&file.key.level()),
        |file| file.key.level() == 9,
    ];
    others
        .into_iter()
        .find_map(|kind| take_oldest(&mut manifest.files, NEWEST_OTHERS, kind))
        .map(|files| page(files, Vec::new()))
}

fn page(files: Vec<FileEntry>, pages: Vec<PageRef>) -> IndexPage {
    IndexPage {
        version: VERSION,
        files,
        pages,
    }
}

/// Takes out the oldest references of one depth, so that the tree stays as flat as it can be; nothing
/// where there are few of each.
fn take_references(pages: &mut Vec<PageRef>) -> Option<Vec<PageRef>> {
    let count = |depth| pages.iter().filter(|page| page.depth == depth).count();
    let depth = (1..DEEPEST).find(|depth| count(*depth) >= 2 * FOLDED_PAGES)?;
    let mut taken = Vec::new();
    pages.retain(|page| {
        let take = page.depth == depth && taken.len() < FOLDED_PAGES;
        if take {
            taken.push(*page);
        }
        !take
    });
    Some(taken)
}

/// Takes out the oldest entries of a kind but leaves the newest `keep`; nothing where that is hardly any.
fn take_oldest(
    files: &mut Vec<FileEntry>,
    keep: usize,
    kind: impl Fn(&FileEntry) -> bool,
) -> Option<Vec<FileEntry>> {
    let mut maxima: Vec<_> = files
        .iter()
        .filter(|f| kind(f))
        .map(FileEntry::max)
        .collect();
    let count = maxima.len().saturating_sub(keep).min(PAGE_ENTRIES);
    if count < FEWEST_ENTRIES {
        return None;
    }
    maxima.sort_unstable();
    let last = maxima[count - 1];
    let (old, rest) = std::mem::take(files)
        .into_iter()
        .partition(|file| kind(file) && file.max() <= last);
    *files = rest;
    Some(old)
}
