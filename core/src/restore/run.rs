//! One restore from beginning to end.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::apply::{Applied, Applier, OpenSink, Trouble};
use super::find::{Found, find};
use super::large::joined;
use super::leave::{Leaving, SumFile, leave};
use super::plan::{LtxChain, latest};
use super::progress::Progress;
use super::report::{RestoreReport, Verify};
use super::stage::{Overwrite, Staged, check_output, follow};
use super::target::RestoreTarget;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::parent;
use crate::manifest::{Catalog, Format, Place as FilePlace, read_facts};
use crate::sqlite::{Checked, integrity_check, quick_check};
use crate::state::{Head, Place, Saved, StateDir};
use crate::store::{Layout, Meter, Metered, Store};
use crate::types::{Timestamp, Txid};

/// Plans made before giving up: each damaged object costs one, and each compaction that comes between.
const ATTEMPTS: usize = 16;

/// Whether a state directory is left beside the output, so that a watcher continues the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LeaveState {
    /// Only where one is already.
    #[default]
    No,
    /// Yes.
    Yes,
}

/// What to restore, and where to.
#[derive(Clone, Debug)]
pub struct RestoreRequest {
    /// The database in the bucket.
    pub layout: Layout,
    /// The database file to make.
    pub output: PathBuf,
    /// Which state.
    pub target: RestoreTarget,
    /// What to do where a database stands there.
    pub overwrite: Overwrite,
    /// How SQLite looks at it.
    pub verify: Verify,
    /// Whether to leave a state directory.
    pub state: LeaveState,
}

/// Restores a database.
///
/// # Errors
///
/// `NotFound` for an unknown name or a target that is no restore point (the hint names the earliest and the
/// latest), `Corrupt` naming the object that is missing or damaged where no other way leads to the target,
/// `Exists` and `Busy` for an output that may not be replaced, and those of store and disk. The output is
/// untouched then, and nothing is left beside it.
///
/// # Cancel safety
///
/// Dropping the future before it is ready leaves the output as it was.
pub async fn restore(
    store: &Arc<dyn Store>,
    request: &RestoreRequest,
    clock: &Clock,
    progress: &Arc<dyn Progress>,
) -> Result<RestoreReport> {
    let meter = Meter::default();
    let metered: Arc<dyn Store> = Arc::new(Metered::new(store.clone(), meter.clone()));
    let output = follow(&request.output)?;
    let run = Run {
        store: metered,
        request,
        staging: parent(&output).to_owned(),
        output,
        progress,
        started: Instant::now(),
        now: clock.now(),
    };
    let mut report = run.run().await?;
    let counts = meter.snapshot();
    report.requests = counts.total();
    report.bytes_downloaded = counts.bytes_received;
    Ok(report)
}

/// Whether a newer state than `found` can be restored.
fn is_passed(catalog: &Catalog, found: Option<Txid>) -> bool {
    latest(catalog).is_ok_and(|(newest, _)| Some(newest) > found)
}

pub(super) struct Run<'a> {
    pub(super) store: Arc<dyn Store>,
    pub(super) request: &'a RestoreRequest,
    /// Where the output is made.
    pub(super) staging: PathBuf,
    pub(super) output: PathBuf,
    pub(super) progress: &'a Arc<dyn Progress>,
    pub(super) started: Instant,
    pub(super) now: Timestamp,
}

/// A proved database under another name.
pub(super) struct Ready {
    pub(super) staged: Staged,
    pub(super) applied: Applied,
    pub(super) sums: Option<SumFile>,
    pub(super) catalog: Catalog,
    notes: Vec<String>,
}

impl Run<'_> {
    async fn run(&self) -> Result<RestoreReport> {
        check_output(&self.output, self.request.overwrite)?;
        let held = self.hold_state()?;
        let keeps = held.is_some() && self.is_used()?;
        let ready = self.build(keeps).await?;
        self.progress.checking();
        let checked = self.ask_sqlite(ready.staged.path()).await?;
        let head = self.head(&ready).await?;
        let mut report = self.report(&ready, checked);
        let Ready {
            staged,
            applied,
            sums,
            ..
        } = ready;
        staged.publish(self.request.overwrite)?;
        let leaving = head.and_then(|head| self.leaving(&applied, head));
        if let Err(error) = self.leave(held, sums, leaving).await {
            // The database is there and right; a watcher proves that it is the head, or asks.
            report
                .notes
                .push(format!("no state directory was left: {error}"));
        }
        Ok(report)
    }

    async fn leave(
        &self,
        held: Option<StateDir>,
        sums: Option<SumFile>,
        leaving: Option<Leaving>,
    ) -> Result<()> {
        let Some(leaving) = leaving else {
            return Ok(());
        };
        let dir = match held {
            Some(dir) => dir,
            None => StateDir::create_or_open(&self.output)?,
        };
        let leave = tokio::task::spawn_blocking(move || leave(&dir, sums.as_ref(), &leaving));
        joined(leave.await)?
    }

    /// A state directory that is there is locked for as long as the restore runs: no watcher may use it.
    fn hold_state(&self) -> Result<Option<StateDir>> {
        match StateDir::peek(&self.output)? {
            None => Ok(None),
            Some(_) => StateDir::create_or_open(&self.output).map(Some),
        }
    }

    /// Whether the state directory tells more than that an earlier restore was here.
    fn is_used(&self) -> Result<bool> {
        let peek = StateDir::peek(&self.output)?;
        let left = |saved: &Saved| saved.epoch.is_none() && saved.restored_head.is_some();
        Ok(peek.is_some_and(|peek| {
            let unused = peek.saved.as_ref().is_none_or(left);
            !unused || !peek.spool.is_empty() || !peek.damage.is_empty()
        }))
    }

    /// Plans and applies until a chain holds.
    pub(super) async fn build(&self, held: bool) -> Result<Ready> {
        let layout = &self.request.layout;
        let mut catalog = self.load().await?;
        let mut notes = Vec::new();
        let mut fixed = None;
        let mut gone = HashSet::new();
        let mut first_error: Option<Error> = None;
        for _ in 0..ATTEMPTS {
            let target = self.request.target;
            let found = find(&mut catalog, &*self.store, target, fixed, self.now).await;
            let Found { chain, note } = match (found, first_error.take()) {
                (Ok(found), error) => {
                    first_error = error;
                    found
                }
                // What was met first says more than what is missing without it.
                (Err(error), Some(first)) if error.kind() != ErrorKind::Unavailable => {
                    return Err(first);
                }
                (Err(error), _) => return Err(error),
            };
            let attempt = self.attempt(&catalog, &chain, held).await;
            fixed = Some(chain.txid());
            let (key, error) = match attempt {
                Ok((staged, applied, sums)) => {
                    notes.extend(note);
                    notes.splice(0..0, catalog.warnings.iter().cloned());
                    return Ok(Ready {
                        staged,
                        applied,
                        sums,
                        catalog,
                        notes,
                    });
                }
                Err(Trouble::Failed(error)) => return Err(error),
                Err(Trouble::Learned(key, entries, error)) => {
                    let before = catalog.clone();
                    entries.into_iter().for_each(|entry| catalog.learn(entry));
                    if before.live() != catalog.live() {
                        // The point itself may have been a dead file.
                        fixed = None;
                        continue;
                    }
                    (key, error)
                }
                Err(Trouble::Gone(key, error)) => {
                    if gone.insert(key) {
                        let lost: Vec<_> = catalog
                            .losses()
                            .map(|(key, reason)| (key, reason.to_owned()))
                            .collect();
                        catalog = self.load().await?;
                        lost.iter()
                            .for_each(|(key, reason)| catalog.lose(*key, reason));
                        fixed = match target {
                            // A compaction may have thinned the point away.
                            RestoreTarget::At(_) => None,
                            // Then there is a newer one, which is the newest now.
                            RestoreTarget::Latest if is_passed(&catalog, fixed) => None,
                            RestoreTarget::Latest | RestoreTarget::Txid(_) => fixed,
                        };
                        continue;
                    }
                    let message = "the object is missing";
                    (
                        key,
                        Error::new(ErrorKind::Corrupt, message)
                            .on(catalog.object(key))
                            .because(error),
                    )
                }
                Err(Trouble::Damaged(key, error)) => (key, error),
            };
            catalog.lose(key, error.message());
            notes.push(format!("{error}; another way was found"));
            first_error.get_or_insert(error);
        }
        let message = format!("no way to the target after {ATTEMPTS} plans");
        Err(first_error
            .unwrap_or_else(|| Error::new(ErrorKind::Unavailable, message).on(layout.folder())))
    }

    /// Loads the catalog; once more where an index page was replaced meanwhile.
    async fn load(&self) -> Result<Catalog> {
        Catalog::load(&*self.store, &self.request.layout).await
    }

    async fn attempt(
        &self,
        catalog: &Catalog,
        chain: &LtxChain,
        held: bool,
    ) -> Result<(Staged, Applied, Option<SumFile>), Trouble> {
        let base = chain.base().map_or(0, |base| base.size);
        let segments = chain.files().len() as u64 - 1;
        self.progress.planned(base, segments, chain.bytes() - base);
        let (staged, file) =
            Staged::create(&self.staging, &self.output).map_err(Trouble::Failed)?;
        let wanted = self.request.state == LeaveState::Yes && !held;
        let sums = wanted
            .then(|| SumFile::create(&self.staging))
            .transpose()
            .map_err(Trouble::Failed)?;
        let sink = sums
            .clone()
            .map(|sums| -> OpenSink { Box::new(move |_| Ok(Box::new(sums.clone()))) });
        let applier = Applier {
            store: &self.store,
            catalog,
            progress: self.progress,
        };
        let path = staged.path().to_owned();
        let applied = applier.apply(chain, file, path, sink).await?;
        Ok((staged, applied, sums))
    }

    /// Lets SQLite look; gives what it could not look at.
    async fn ask_sqlite(&self, path: &Path) -> Result<Option<String>> {
        let check = match self.request.verify {
            Verify::None => return Ok(None),
            Verify::Quick => quick_check,
            Verify::Full => integrity_check,
        };
        let path = path.to_owned();
        let checked = joined(tokio::task::spawn_blocking(move || check(&path)).await)?;
        match checked.map_err(|error| self.name_output(error))? {
            Checked::Sound => Ok(None),
            Checked::Partly(reason) => {
                Ok(Some(format!("SQLite could not check everything: {reason}")))
            }
        }
    }

    /// The staged file's name says nothing to people.
    fn name_output(&self, error: Error) -> Error {
        let message = error.message().to_owned();
        Error::new(error.kind(), message)
            .on(self.output.display())
            .because(error)
    }

    /// The newest state of the stream, for the state directory; nothing where none is left.
    async fn head(&self, ready: &Ready) -> Result<Option<Head>> {
        let wanted =
            self.request.state == LeaveState::Yes || StateDir::peek(&self.output)?.is_some();
        if !wanted || ready.catalog.format() == Format::Litestream {
            return Ok(None);
        }
        let (catalog, applied) = (&ready.catalog, &ready.applied);
        let restored = applied.last.header.range.max();
        let live = catalog.live();
        let newest = live.iter().max_by_key(|file| file.range().max());
        let Some(newest) = newest.filter(|file| file.range().max() > restored) else {
            return Ok(Some(Head {
                txid: restored,
                stream: applied.last.header.stream(),
                sum: Some(applied.sum),
            }));
        };
        let entry = match &newest.entry {
            Some(entry) => entry.as_ref().clone(),
            None => {
                let place = FilePlace {
                    object: catalog.object(newest.key),
                    file: newest.key,
                    size: newest.size,
                };
                read_facts(&*self.store, &place).await?
            }
        };
        let sum = entry.post.zip(entry.digest);
        Ok(Some(Head {
            txid: entry.max(),
            stream: entry.stream,
            sum: sum.map(|(checksum, digest)| crate::types::DatabaseSum { checksum, digest }),
        }))
    }

    fn leaving(&self, applied: &Applied, head: Head) -> Option<Leaving> {
        let txid = applied.last.header.range.max();
        Some(Leaving {
            lineage: applied.last.header.stream()?.lineage,
            place: Place {
                txid,
                sum: applied.sum,
                page_size: applied.page_size,
                page_count: applied.commit,
                wal: None,
            },
            page_size: applied.page_size,
            head,
            rewound: self.request.target != RestoreTarget::Latest && txid != head.txid,
        })
    }

    fn report(&self, ready: &Ready, checked: Option<String>) -> RestoreReport {
        let (applied, catalog) = (&ready.applied, &ready.catalog);
        let txid: Txid = applied.last.header.range.max();
        let point = super::plan::points(catalog)
            .into_iter()
            .find(|point| point.txid == txid);
        let mut notes = ready.notes.clone();
        notes.extend(checked);
        RestoreReport {
            name: self.request.layout.name().to_string(),
            output: self.request.output.display().to_string(),
            txid: txid.get(),
            txid_hex: txid.to_string(),
            time: point
                .and_then(|point| point.time)
                .or(Some(applied.last.header.timestamp)),
            checksum: applied.sum.checksum,
            digest: applied.sum.digest,
            snapshot: catalog.object(applied.base),
            snapshot_bytes: catalog.file(applied.base).map_or(0, |file| file.size),
            segments: applied.segments,
            bytes_downloaded: 0,
            bytes_written: applied.bytes_written,
            requests: 0,
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            verified: self.request.verify,
            format: catalog.format().name(),
            notes,
        }
    }
}
