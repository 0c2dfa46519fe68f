//! What the manifest names, its pages included.

use std::collections::HashSet;

use futures_util::{StreamExt, stream};

use super::chain::History;
use super::report::{Issue, IssueKind};
use crate::error::{ErrorKind, Result};
use crate::manifest::{
    EpochStart, FileEntry, FileKey, Head, IN_FLIGHT, Manifest, PageRef, Root, is_damage,
    read_pages, read_root,
};
use crate::store::{Layout, Store};
use crate::types::{Lineage, PageSize};

/// Tries at reading the manifest while others replace its pages.
const PAGE_ATTEMPTS: u32 = 4;

/// The manifest.
#[derive(Clone, Debug)]
pub(super) enum Index {
    There {
        head: Head,
        lineage: Lineage,
        page_size: PageSize,
        /// Whether a part of it could not be read, so that it may name more.
        partial: bool,
        history: History,
    },
    Missing,
    Damaged(String),
}

/// What the manifest says, its pages included.
pub(super) struct Names {
    pub(super) index: Index,
    pub(super) entries: Vec<FileEntry>,
    pub(super) epochs: Vec<EpochStart>,
    pub(super) issues: Vec<Issue>,
}

/// The files that the manifest names now.
pub(super) async fn named_now(store: &dyn Store, layout: &Layout) -> Result<HashSet<FileKey>> {
    let names = read_names(store, layout).await?;
    Ok(names.entries.iter().map(|entry| entry.key).collect())
}

/// Reads the manifest and its pages. A damaged or missing page is an issue of its own.
///
/// Errors: those of the store, and `Unsupported` for the manifest of a newer program.
pub(super) async fn read_names(store: &dyn Store, layout: &Layout) -> Result<Names> {
    let mut attempt = 1;
    loop {
        let manifest = match read_root(store, layout).await? {
            Root::There { manifest, .. } => *manifest,
            Root::Missing => return Ok(Names::without(Index::Missing)),
            Root::Damaged { reason, .. } => return Ok(Names::without(Index::Damaged(reason))),
        };
        let pages = manifest.pages.clone();
        let read: Vec<(PageRef, Result<Vec<FileEntry>>)> = stream::iter(pages)
            .map(|page| async move { (page, read_pages(store, layout, &[page]).await) })
            .buffered(IN_FLIGHT)
            .collect()
            .await;
        let is_gone =
            |read: &Result<_>| matches!(read, Err(error) if error.kind() == ErrorKind::NotFound);
        // Another writer replaced the page, and the root with it.
        if attempt < PAGE_ATTEMPTS && read.iter().any(|(_, read)| is_gone(read)) {
            attempt += 1;
            continue;
        }
        return Names::of(manifest, read, layout);
    }
}

impl Names {
    fn without(index: Index) -> Self {
        Self {
            index,
            entries: Vec::new(),
            epochs: Vec::new(),
            issues: Vec::new(),
        }
    }

    fn of(
        manifest: Manifest,
        pages: Vec<(PageRef, Result<Vec<FileEntry>>)>,
        layout: &Layout,
    ) -> Result<Self> {
        let Manifest {
            head,
            lineage,
            page_size,
            epochs,
            files: mut entries,
            compactions,
            ..
        } = manifest;
        let mut issues = Vec::new();
        for (page, read) in pages {
            match read {
                Ok(files) => entries.extend(files),
                Err(error) if is_damage(&error) || error.kind() == ErrorKind::NotFound => {
                    let key = layout.index_page(page.range, page.hash);
                    let message = match error.kind() {
                        ErrorKind::NotFound => "Part of the manifest is missing from S3".to_owned(),
                        _ => format!("Part of the manifest is damaged: {}", error.message()),
                    };
                    let kind = IssueKind::Error;
                    issues.push(Issue::new(kind, key, Some(page.range), message));
                }
                Err(error) => return Err(error),
            }
        }
        let index = Index::There {
            head,
            lineage,
            page_size,
            partial: !issues.is_empty(),
            history: match (compactions, issues.is_empty()) {
                (0, true) => History::Whole,
                _ => History::Thinned,
            },
        };
        Ok(Self {
            index,
            entries,
            epochs,
            issues,
        })
    }
}
