//! A restore that nobody needs: to scratch, checked as thoroughly as can be, timed, and thrown away.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tempfile::TempDir;

use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Catalog;
use crate::restore::{
    LeaveState, Overwrite, Progress, RestoreReport, RestoreRequest, RestoreTarget, Silent, Verify,
    joined, points, restore,
};
use crate::sqlite::{Checked, integrity_check, page_size_of};
use crate::store::{Layout, Store};
use crate::types::{DatabaseName, DatabaseSum, PageNumber, PageSum, Timestamp, Txid};

/// Which state to restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DrillTarget {
    /// The newest.
    #[default]
    Latest,
    /// Any that is advertised, drawn by chance.
    Random,
}

/// What to try.
#[derive(Clone, Debug)]
pub struct DrillRequest {
    /// The database in the bucket.
    pub layout: Layout,
    /// Which state.
    pub target: DrillTarget,
    /// A directory with room for the database. What is made in it is removed again.
    pub scratch: PathBuf,
}

/// One drill, done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DrillReport {
    /// The database's name in the bucket.
    pub name: String,
    /// Whether the state came back, and is sound.
    pub ok: bool,
    /// The state restored.
    pub txid: Option<Txid>,
    /// When its last transaction was seen.
    pub time: Option<Timestamp>,
    /// Size of the restored database.
    pub bytes: Option<u64>,
    /// From start to end.
    pub duration_ms: u64,
    /// What SQLite's `integrity_check` says: `ok`, what it could not look at, or what is wrong; nothing where
    /// it was not asked.
    pub integrity: Option<String>,
    /// What went wrong.
    pub message: Option<String>,
    /// The kind of error that it ended in.
    #[serde(skip)]
    pub failure: Option<ErrorKind>,
}

impl DrillReport {
    /// A drill that could not begin.
    pub fn failed(name: &DatabaseName, error: &Error) -> Self {
        Self {
            failure: Some(error.kind()),
            message: Some(error.to_string()),
            ..Self::new(name.to_string())
        }
    }

    fn new(name: String) -> Self {
        Self {
            name,
            ok: false,
            txid: None,
            time: None,
            bytes: None,
            duration_ms: 0,
            integrity: None,
            message: None,
            failure: None,
        }
    }
}

/// Restores one state to scratch, reads it back and compares it with its checksum and digest, and lets SQLite
/// check it. Whatever fails is told in the report.
///
/// # Cancel safety
///
/// Dropping the future removes what it made.
pub async fn drill(store: &Arc<dyn Store>, request: &DrillRequest, clock: &Clock) -> DrillReport {
    let started = Instant::now();
    let mut report = DrillReport::new(request.layout.name().to_string());
    match run(store, request, clock, &mut report).await {
        Ok(()) => report.ok = true,
        Err(error) => {
            report.failure = Some(error.kind());
            report.message = Some(error.to_string());
        }
    }
    report.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    report
}

async fn run(
    store: &Arc<dyn Store>,
    request: &DrillRequest,
    clock: &Clock,
    report: &mut DrillReport,
) -> Result<()> {
    let target = match request.target {
        DrillTarget::Latest => RestoreTarget::Latest,
        DrillTarget::Random => RestoreTarget::Txid(any_point(&**store, &request.layout).await?),
    };
    let scratch = scratch_in(&request.scratch)?;
    let output = scratch.path().join("database");
    let restored = RestoreRequest {
        layout: request.layout.clone(),
        output: output.clone(),
        target,
        overwrite: Overwrite::No,
        // Below, where it can be told from the proof of bytes.
        verify: Verify::None,
        state: LeaveState::No,
    };
    let progress: Arc<dyn Progress> = Arc::new(Silent);
    let restored = restore(store, &restored, clock, &progress).await?;
    report.txid = Txid::new(restored.txid);
    report.time = restored.time;
    let named = |error: Error| name_state(error, &request.layout, restored.txid);
    report.bytes = Some(reread(&output, &restored).await.map_err(named)?);
    let checked = tokio::task::spawn_blocking(move || integrity_check(&output)).await;
    match joined(checked)? {
        Ok(Checked::Sound) => report.integrity = Some("ok".to_owned()),
        Ok(Checked::Partly(reason)) => report.integrity = Some(format!("partly: {reason}")),
        Err(error) => {
            report.integrity = Some(error.message().to_owned());
            return Err(named(error));
        }
    }
    scratch
        .close()
        .map_err(|error| Error::io(request.scratch.display(), error))
}

/// The scratch file's name says nothing to people.
fn name_state(error: Error, layout: &Layout, txid: u64) -> Error {
    let message = format!(
        "TXID {txid} was restored and is not sound: {}",
        error.message()
    );
    Error::new(error.kind(), message)
        .on(layout.name())
        .because(error)
}

fn scratch_in(directory: &Path) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("walrust-drill-")
        .tempdir_in(directory)
        .map_err(|error| Error::io(directory.display(), error))
}

/// Any restore point.
async fn any_point(store: &dyn Store, layout: &Layout) -> Result<Txid> {
    let mut catalog = Catalog::load(store, layout).await?;
    catalog.complete(store).await?;
    let points = points(&catalog);
    let any = fastrand::usize(..points.len().max(1));
    points.get(any).map(|point| point.txid).ok_or_else(|| {
        let message = "no snapshot is stored, so nothing can be restored yet";
        Error::new(ErrorKind::NotFound, message).on(layout.folder())
    })
}

/// Reads the database back from the disk and compares it with what the restore says of it. Gives its size.
async fn reread(output: &Path, restored: &RestoreReport) -> Result<u64> {
    let path = output.to_owned();
    let expected = DatabaseSum {
        checksum: restored.checksum,
        digest: restored.digest,
    };
    let read = tokio::task::spawn_blocking(move || sums_of(&path)).await;
    let (found, bytes) = joined(read)?.map_err(|error| error.on(output.display()))?;
    if found != expected {
        let message = format!(
            "read back it has checksum {} and digest {}, not {} and {}",
            found.checksum, found.digest, expected.checksum, expected.digest
        );
        return Err(Error::new(ErrorKind::Corrupt, message));
    }
    Ok(bytes)
}

/// The sums of a database file, and its size.
fn sums_of(path: &Path) -> Result<(DatabaseSum, u64)> {
    let fail = |error| Error::io(path.display(), error);
    let file = File::open(path).map_err(fail)?;
    let bytes = file.metadata().map_err(fail)?.len();
    let mut source = BufReader::with_capacity(256 << 10, file);
    let mut sum = DatabaseSum::EMPTY;
    if bytes == 0 {
        return Ok((sum, bytes));
    }
    let page_size = page_size_of(path)?;
    let mut data = vec![0; page_size.bytes()];
    let mut page = Some(PageNumber::FIRST);
    let mut left = bytes;
    while let (Some(number), 1..) = (page, left) {
        source.read_exact(&mut data).map_err(fail)?;
        if number != page_size.lock_page() {
            sum.add(PageSum::of(number, &data));
        }
        left = left.saturating_sub(data.len() as u64);
        page = number.next();
    }
    Ok((sum, bytes))
}
