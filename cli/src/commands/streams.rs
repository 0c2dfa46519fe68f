//! Which databases `--all` means.

use walrust_core::config::{File, StoreSettings, streams};
use walrust_core::types::DatabaseName;
use walrust_core::{Error, ErrorKind, Result};

use crate::settings::Settings;
use crate::wire;

/// The streams of the configuration; none where it names none. Which files a pattern means is asked of the
/// bucket: the local ones may be gone.
pub(super) async fn configured(
    settings: &Settings,
    store: &StoreSettings,
) -> Result<Vec<streams::Stream>> {
    match settings.file() {
        Some(file) => of(file, store).await,
        None => Ok(Vec::new()),
    }
}

/// The same for a restore of what is missing: patterns whose directories are in use mean nothing.
pub(super) async fn missing(
    settings: &Settings,
    store: &StoreSettings,
) -> Result<Vec<streams::Stream>> {
    match settings.file() {
        Some(file) => of(&streams::without_used_patterns(file)?, store).await,
        None => Ok(Vec::new()),
    }
}

async fn of(file: &File, store: &StoreSettings) -> Result<Vec<streams::Stream>> {
    let stored = match streams::has_pattern(file) {
        true => wire::names(store).await?,
        false => Vec::new(),
    };
    streams::of(file, &stored)
}

/// The databases of the configuration or, where it names none, of the bucket.
///
/// Errors: `NotFound` where there is none at all: a task over nothing has not gone well (V4).
pub(super) async fn all(settings: &Settings, store: &StoreSettings) -> Result<Vec<DatabaseName>> {
    let names_some = settings
        .file()
        .is_some_and(|file| !file.databases.is_empty());
    let names: Vec<DatabaseName> = match names_some {
        true => {
            let streams = configured(settings, store).await?;
            streams.into_iter().map(|stream| stream.name).collect()
        }
        false => wire::names(store).await?,
    };
    if names.is_empty() {
        let message = format!("no database in {}", store.location);
        return Err(Error::new(ErrorKind::NotFound, message).hint("see: walrust list"));
    }
    Ok(names)
}
