//! Which databases lie below a prefix, however deep their names are nested.

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::error::{ErrorKind, Result};
use crate::manifest::{IN_FLIGHT, Root, read_root};
use crate::store::{Layout, Store};
use crate::types::{DatabaseName, KeyPrefix};

/// A folder below the prefix: what it is, and where to look further.
struct Looked {
    database: Option<DatabaseName>,
    below: Vec<String>,
}

/// The names of all databases below `prefix`, sorted. A folder counts if it holds an index, or folders
/// named as the levels of walrust or of Litestream are; anything else is somebody else's.
///
/// Errors: those of the store; never a partial list.
pub async fn discover(store: &dyn Store, prefix: &KeyPrefix) -> Result<Vec<DatabaseName>> {
    let top = prefix.join("");
    let mut wanted: Vec<String> = store.list_folders(&top).await?;
    let mut names = Vec::new();
    while !wanted.is_empty() {
        let looked: Vec<Looked> = stream::iter(std::mem::take(&mut wanted))
            .map(|folder| look(store, prefix, folder))
            .buffered(IN_FLIGHT)
            .try_collect()
            .await?;
        for folder in looked {
            names.extend(folder.database);
            wanted.extend(folder.below);
        }
    }
    names.sort();
    Ok(names)
}

/// Whether the store has anything of this database: known from a complete listing, never from an error (R142).
///
/// Errors: those of the store.
pub async fn has_backup(
    store: &dyn Store,
    prefix: &KeyPrefix,
    name: &DatabaseName,
) -> Result<bool> {
    let folder = Layout::new(prefix.clone(), name.clone()).folder();
    let page = store.list(&folder, None).await?;
    if page.objects.is_empty() && !page.more {
        return Ok(false);
    }
    // What lies there may belong to a longer name.
    Ok(discover(store, prefix).await?.contains(name))
}

async fn look(store: &dyn Store, prefix: &KeyPrefix, folder: String) -> Result<Looked> {
    let name = folder.strip_prefix(&prefix.join("")).unwrap_or_default();
    // A name that walrust never gives is nobody's database, and neither is anything below it.
    let Ok(name) = name.trim_end_matches('/').parse::<DatabaseName>() else {
        return Ok(Looked {
            database: None,
            below: Vec::new(),
        });
    };
    let mut below = store.list_folders(&folder).await?;
    let holds = |child: &String| {
        let child = child.strip_prefix(&folder).unwrap_or_default();
        child == "ltx/" || (child.len() == 5 && child.starts_with("000"))
    };
    let layout = Layout::new(prefix.clone(), name.clone());
    let database = match below.iter().any(holds) {
        true => true,
        false => match read_root(store, &layout).await {
            Ok(Root::Missing) => false,
            Ok(Root::There { .. } | Root::Damaged { .. }) => true,
            Err(error) if error.kind() == ErrorKind::Unsupported => true,
            Err(error) => return Err(error),
        },
    };
    // Levels and index pages end here, as no name contains them.
    below.retain(|child| {
        let child = child.strip_prefix(&folder).unwrap_or_default();
        child.trim_end_matches('/').parse::<DatabaseName>().is_ok()
    });
    Ok(Looked {
        database: database.then_some(name),
        below,
    })
}
