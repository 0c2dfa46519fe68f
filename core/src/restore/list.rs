//! What is stored: all databases of a prefix, or all files and restore points of one (R116 to R120).

use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::discover::discover;
use super::plan::{Point, chain_to, latest, points};
use super::resolve::{ClockStep, clock_steps};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Catalog, CatalogFile, Place, read_facts};
use crate::store::{Layout, Store};
use crate::types::{Checksum, Digest, KeyPrefix, Lineage, PageSize, Timestamp};

/// Databases that are looked at side by side; each takes two requests or three.
const AT_ONCE: usize = 8;

/// An error as JSON shows it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Failure {
    /// The name of its kind.
    pub kind: &'static str,
    /// The cause.
    pub message: String,
    /// What it is about.
    pub object: Option<String>,
    /// The next step.
    pub hint: Option<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind().name(),
            message: error.message().to_owned(),
            object: error.object().map(str::to_owned),
            hint: error.next_step().map(str::to_owned),
        }
    }
}

/// A stored snapshot.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SnapshotSummary {
    /// Its object.
    pub key: String,
    /// The state that it holds.
    pub txid: u64,
    /// When it was made.
    pub time: Option<Timestamp>,
    /// Its size.
    pub bytes: u64,
}

/// One database in a list.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DatabaseSummary {
    /// Its name.
    pub name: String,
    /// `walrust` or `litestream`; nothing where that cannot be told.
    pub format: Option<&'static str>,
    /// The newest snapshot.
    pub latest_snapshot: Option<SnapshotSummary>,
    /// Files that a restore of the newest state applies over its snapshot.
    pub segments: Option<u64>,
    /// The newest state.
    pub txid: Option<u64>,
    /// When its last transaction was seen.
    pub time: Option<Timestamp>,
    /// Checksum of the database there.
    pub checksum: Option<Checksum>,
    /// Size of a page.
    pub page_size: Option<PageSize>,
    /// LTX files stored.
    pub objects: Option<u64>,
    /// Their size.
    pub bytes: Option<u64>,
    /// What is wrong.
    pub error: Option<Failure>,
}

/// All databases of a prefix.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DatabaseList {
    /// The store and the prefix.
    pub bucket: String,
    /// Its databases, by name.
    pub databases: Vec<DatabaseSummary>,
}

impl DatabaseList {
    /// Whether every entry is sound.
    pub fn is_sound(&self) -> bool {
        self.databases
            .iter()
            .all(|database| database.error.is_none())
    }
}

/// A restore point.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct PointSummary {
    /// The state.
    pub txid: u64,
    /// When its last transaction was seen.
    pub time: Option<Timestamp>,
}

impl From<&Point> for PointSummary {
    fn from(point: &Point) -> Self {
        Self {
            txid: point.txid.get(),
            time: point.time,
        }
    }
}

/// A stored file.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FileSummary {
    /// Its object.
    pub key: String,
    /// `snapshot`, `incremental`, `merged` or `rebase`.
    pub kind: &'static str,
    /// The first transaction covered.
    pub min_txid: u64,
    /// The last one.
    pub max_txid: u64,
    /// When the first was seen.
    pub first_commit: Option<Timestamp>,
    /// When the last was seen.
    pub last_commit: Option<Timestamp>,
    /// When the file was made.
    pub created: Option<Timestamp>,
    /// Its size.
    pub bytes: u64,
    /// Pages in it.
    pub pages: Option<u64>,
    /// Checksum of the database after it.
    pub checksum: Option<Checksum>,
    /// Digest of the database after it.
    pub digest: Option<Digest>,
}

/// A place where the clock was set back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct StepSummary {
    /// The first point after it.
    pub txid: u64,
    /// The time of the point before.
    pub from: Timestamp,
    /// The time of the point after.
    pub to: Timestamp,
}

impl From<ClockStep> for StepSummary {
    fn from(step: ClockStep) -> Self {
        Self {
            txid: step.txid.get(),
            from: step.from,
            to: step.to,
        }
    }
}

/// Files and restore points of one database.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DatabaseDescription {
    /// Its name.
    pub name: String,
    /// The store and the prefix.
    pub bucket: String,
    /// `walrust` or `litestream`.
    pub format: &'static str,
    /// Size of a page.
    pub page_size: Option<PageSize>,
    /// The history that the head belongs to.
    pub lineage: Option<Lineage>,
    /// The first point.
    pub earliest: Option<PointSummary>,
    /// The last point.
    pub latest: Option<PointSummary>,
    /// Files that restores may use, by level and range.
    pub files: Vec<FileSummary>,
    /// Exactly the TXIDs that a restore takes.
    pub points: Vec<PointSummary>,
    /// Where the clock was set back.
    pub clock_steps: Vec<StepSummary>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// The store and the prefix, for people.
fn bucket(store: &dyn Store, prefix: &KeyPrefix) -> String {
    match prefix.is_empty() {
        true => store.location(),
        false => format!("{}/{}", store.location(), prefix.as_str()),
    }
}

/// Lists the databases below `prefix`. One that is damaged has an error and does not hide the others.
///
/// Errors: those of the store while it looks for databases.
pub async fn list_databases(store: &dyn Store, prefix: &KeyPrefix) -> Result<DatabaseList> {
    let names = discover(store, prefix).await?;
    let layouts = names
        .into_iter()
        .map(|name| Layout::new(prefix.clone(), name));
    let databases = stream::iter(layouts)
        .map(|layout| async move { summarize(store, &layout).await })
        .buffered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await;
    Ok(DatabaseList {
        bucket: bucket(store, prefix),
        databases,
    })
}

/// Nothing for a folder that only looks like a database's.
async fn summarize(store: &dyn Store, layout: &Layout) -> Option<DatabaseSummary> {
    let mut summary = DatabaseSummary {
        name: layout.name().to_string(),
        format: None,
        latest_snapshot: None,
        segments: None,
        txid: None,
        time: None,
        checksum: None,
        page_size: None,
        objects: None,
        bytes: None,
        error: None,
    };
    match fill(store, layout, &mut summary).await {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound && summary.format.is_none() => {
            return None;
        }
        Err(error) => {
            summary.error.get_or_insert((&error).into());
        }
    }
    Some(summary)
}

async fn fill(store: &dyn Store, layout: &Layout, summary: &mut DatabaseSummary) -> Result<()> {
    let mut catalog = Catalog::load(store, layout).await?;
    catalog.read_index_pages(store).await?;
    summary.format = Some(catalog.format().name());
    summary.page_size = catalog.page_size();
    summary.objects = Some(catalog.files().count() as u64);
    summary.bytes = Some(catalog.files().map(|file| file.size).sum());
    if let Some(warning) = catalog.warnings.first() {
        let error = Error::new(ErrorKind::Corrupt, warning.clone()).on(layout.manifest());
        summary.error = Some((&error).into());
    }
    if let Some((key, reason)) = catalog.losses().next() {
        let error = Error::new(ErrorKind::Corrupt, reason).on(catalog.object(key));
        summary.error.get_or_insert((&error).into());
    }
    let newest = catalog
        .live()
        .into_iter()
        .filter(|file| file.range().is_snapshot())
        .max_by_key(|file| file.range().max())
        .map(|file| file.key);
    if let Some(key) = newest {
        know(&mut catalog, store, key).await?;
        summary.latest_snapshot = catalog.file(key).map(|file| SnapshotSummary {
            key: catalog.object(key),
            txid: key.range().max().get(),
            time: file.entry.as_ref().map(|entry| entry.created),
            bytes: file.size,
        });
    }
    let (txid, _) = latest(&catalog)?;
    let Some(chain) = chain_to(&catalog, txid) else {
        return Ok(());
    };
    summary.txid = Some(txid.get());
    summary.segments = Some(chain.files().len() as u64 - 1);
    if let Some(key) = chain.last().map(|file| file.key) {
        know(&mut catalog, store, key).await?;
        let entry = catalog.file(key).and_then(|file| file.entry.as_deref());
        summary.time = entry.map(|entry| entry.time());
        summary.page_size = entry.map(|entry| entry.page_size);
        summary.checksum = entry.and_then(|entry| entry.post);
    }
    if let Some(head) = catalog.head().filter(|head| head.txid == txid) {
        summary.checksum = summary.checksum.or(head.checksum);
    }
    Ok(())
}

/// Reads the header of one file if nothing is known of it.
async fn know(
    catalog: &mut Catalog,
    store: &dyn Store,
    key: crate::manifest::FileKey,
) -> Result<()> {
    let Some(file) = catalog.file(key).filter(|file| file.entry.is_none()) else {
        return Ok(());
    };
    let place = Place {
        object: catalog.object(key),
        file: key,
        size: file.size,
    };
    let entry = read_facts(store, &place).await?;
    catalog.learn(entry);
    Ok(())
}

/// Describes one database: its files, and exactly the points that a restore takes.
///
/// Errors: `NotFound` for an unknown name, and those of the store.
pub async fn describe(store: &dyn Store, layout: &Layout) -> Result<DatabaseDescription> {
    let mut catalog = Catalog::load(store, layout).await?;
    catalog.complete(store).await?;
    let points = points(&catalog);
    let mut notes = catalog.warnings.clone();
    let lost = catalog.losses();
    notes.extend(lost.map(|(key, reason)| format!("{}: {reason}", catalog.object(key))));
    let dead = catalog.dead();
    notes.extend(dead.iter().map(|file| {
        format!(
            "{}: written after its writer's turn had ended; not used",
            catalog.object(file.key)
        )
    }));
    let newest = catalog
        .live()
        .into_iter()
        .max_by_key(|file| file.range().max());
    let newest_page_size = newest.and_then(|file| Some(file.entry.as_ref()?.page_size));
    Ok(DatabaseDescription {
        name: layout.name().to_string(),
        bucket: bucket(store, layout.prefix()),
        format: catalog.format().name(),
        page_size: newest_page_size.or(catalog.page_size()),
        lineage: catalog.lineage(),
        earliest: points.first().map(PointSummary::from),
        latest: points.last().map(PointSummary::from),
        files: catalog
            .live()
            .into_iter()
            .map(|file| summary(&catalog, file))
            .collect(),
        points: points.iter().map(PointSummary::from).collect(),
        clock_steps: clock_steps(&points)
            .into_iter()
            .map(StepSummary::from)
            .collect(),
        notes,
    })
}

fn summary(catalog: &Catalog, file: &CatalogFile) -> FileSummary {
    let entry = file.entry.as_deref();
    FileSummary {
        key: catalog.object(file.key),
        kind: file.kind().shown(),
        min_txid: file.range().min().get(),
        max_txid: file.range().max().get(),
        first_commit: entry.and_then(|entry| entry.first_commit),
        last_commit: entry.and_then(|entry| entry.last_commit),
        created: entry.map(|entry| entry.created),
        bytes: file.size,
        pages: entry.and_then(|entry| entry.pages),
        checksum: entry.and_then(|entry| entry.post),
        digest: entry.and_then(|entry| entry.digest),
    }
}
