//! Reading the index: its root and, where they are wanted, its pages.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::entry::FileEntry;
use super::facts::IN_FLIGHT;
use super::root::{DEEPEST, IndexPage, Manifest, OBJECT_LIMIT, PageRef};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{ETag, Layout, Object, Store};

/// Gets an object of the index, refusing one that is too long to be one before reading all of it.
async fn fetch(store: &dyn Store, key: &str) -> Result<Object> {
    match store.get(key, Some(0..OBJECT_LIMIT + 1)).await {
        // No range begins within an empty object.
        Err(error) if error.kind() == ErrorKind::Invalid => {
            Err(Error::new(ErrorKind::Corrupt, "the object is empty").on(key))
        }
        other => other,
    }
}

/// What stands where the root should be.
#[derive(Clone, PartialEq, Debug)]
pub enum Root {
    /// The index.
    There {
        /// Its content.
        manifest: Box<Manifest>,
        /// Its version.
        etag: Option<ETag>,
    },
    /// Bytes that are no index.
    Damaged {
        /// Why not.
        reason: String,
        /// Their version.
        etag: Option<ETag>,
    },
    /// No object. New only if nothing else is there either.
    Missing,
}

/// Gets the root. Errors: `Unsupported` for the index of a newer program, and those of the store:
/// trouble on the way never counts as missing (R26).
pub async fn read_root(store: &dyn Store, layout: &Layout) -> Result<Root> {
    let key = layout.manifest();
    parse_root(store, &key, fetch(store, &key).await).await
}

/// As [`read_root`], with the version also of stores that name it only with whole objects.
pub(super) async fn read_root_to_replace(store: &dyn Store, layout: &Layout) -> Result<Root> {
    let key = layout.manifest();
    let object = match fetch(store, &key).await {
        Ok(object) if object.meta.etag.is_none() && object.meta.size <= OBJECT_LIMIT => {
            store.get(&key, None).await
        }
        other => other,
    };
    parse_root(store, &key, object).await
}

async fn parse_root(store: &dyn Store, key: &str, object: Result<Object>) -> Result<Root> {
    let object = match object {
        Ok(object) => object,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Root::Missing),
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            let etag = store.head(key).await?.and_then(|meta| meta.etag);
            let reason = error.message().to_owned();
            return Ok(Root::Damaged { reason, etag });
        }
        Err(error) => return Err(error),
    };
    let etag = object.meta.etag;
    match Manifest::parse(&object.bytes) {
        Ok(manifest) => Ok(Root::There {
            manifest: Box::new(manifest),
            etag,
        }),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Root::Damaged {
            reason: error.message().to_owned(),
            etag,
        }),
        Err(error) => Err(error.on(key)),
    }
}

/// Gets the entries of `pages` and of the pages below them.
///
/// Errors: `NotFound` if a page is gone (another writer replaced it: read the root again), `Corrupt`, and
/// those of the store. All name the object.
pub async fn read_pages(
    store: &dyn Store,
    layout: &Layout,
    pages: &[PageRef],
) -> Result<Vec<FileEntry>> {
    let mut files = Vec::new();
    visit_pages(store, layout, pages, |_, page| files.extend(page.files)).await?;
    Ok(files)
}

/// Hands `pages` and the pages below them to `visit`, one after the other: a long history need not be held
/// whole. Errors as [`read_pages`].
pub(crate) async fn visit_pages(
    store: &dyn Store,
    layout: &Layout,
    pages: &[PageRef],
    mut visit: impl FnMut(PageRef, IndexPage),
) -> Result<()> {
    let mut wanted = pages.to_vec();
    for _ in 0..DEEPEST {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut reading = stream::iter(std::mem::take(&mut wanted))
            .map(|reference| async move {
                let key = layout.index_page(reference.range, reference.hash);
                let object = fetch(store, &key).await?;
                let page = IndexPage::parse(&object.bytes, &reference);
                page.map(|page| (reference, page))
                    .map_err(|error| error.on(key))
            })
            .buffered(IN_FLIGHT);
        while let Some((reference, page)) = reading.try_next().await? {
            wanted.extend_from_slice(&page.pages);
            visit(reference, page);
        }
    }
    let message = format!("the pages of the index lie more than {DEEPEST} deep");
    Err(Error::new(ErrorKind::Corrupt, message).on(layout.manifest()))
}
