//! Opening a database for watching: from what is on disk, in the store and in the WAL to a running
//! capture. `anchor` decides, this acts.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::adopt;
use super::anchor::{Anchor, Permission, RemoteHead, anchor, permitted};
use super::budget::Room;
use super::capture::{Batch, Body, Capture, Captured, Rebase, Turn};
use super::encode::{FileMeta, Seen};
use super::image::ImageJob;
use super::levels::Levels;
use super::past::Past;
use super::remote::{Remote, header_of};
use super::ship::blocking;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{Mark, Tracking, WalSpan};
use crate::manifest::{FileEntry, FileKey};
use crate::sqlite::{AttachOptions, Side, Source, View};
use crate::state::{Head, PageTable, Place, Proof, Saved, Spool, StateDir};
use crate::store::Store;
use crate::types::{
    DatabaseName, DatabaseSum, Lineage, Position, StreamId, Timestamp, Txid, TxidRange,
};
use crate::wal::WalCursor;

/// Page sums that wait in memory, in bytes: they are worth a few seconds of commits.
const PENDING_LIMIT: usize = 8 * 1024 * 1024;

/// What opening must know.
#[derive(Debug, Clone)]
pub(super) struct OpenOptions {
    pub(super) path: PathBuf,
    pub(super) name: DatabaseName,
    pub(super) attach: AttachOptions,
    pub(super) permission: Permission,
    /// Store every page anew instead of what differs: the spool could not take that.
    pub(super) prefer_base: bool,
    pub(super) tracked: bool,
    /// Batches within it become one object.
    pub(super) interval: Duration,
}

/// A database that is attached and whose place in the chain is known.
pub(super) struct Opened {
    pub(super) capture: Capture,
    /// What waits to be stored, oldest first.
    pub(super) queue: VecDeque<Batch>,
    /// Whether nothing can be restored yet.
    pub(super) needs_base: bool,
    /// The newest transaction that the store has.
    pub(super) durable: Option<Txid>,
    /// The newest snapshot that the store has, and when it was made.
    pub(super) snapshot: Option<(Txid, Timestamp)>,
    /// What the store has and its index does not name.
    pub(super) unnamed: Vec<FileEntry>,
    /// The state that this run goes on from; nothing where the chain begins, or begins anew.
    resumed: Option<Position>,
}

/// The saved state, the page table and the spool, before anything is attached.
pub(super) struct Disk {
    pub(super) dir: Arc<StateDir>,
    pub(super) table: PageTable,
    pub(super) spool: Spool,
}

impl Disk {
    /// Opens the state directory; what is torn or foreign is reported and counts as absent.
    pub(super) fn open(dir: Arc<StateDir>, spool_limit: u64) -> Result<Self> {
        let (table, damage) = PageTable::open(&dir, PENDING_LIMIT)?;
        let (spool, broken) = Spool::open(&dir, spool_limit)?;
        for damage in dir.damage().iter().chain(&damage).chain(&broken) {
            tracing::warn!(directory = %dir.path().display(), %damage, "state is damaged; it counts as absent");
        }
        Ok(Self { dir, table, spool })
    }

    /// What waits to be stored.
    pub(super) fn spool(&self) -> &Spool {
        &self.spool
    }

    /// The store has the oldest file.
    pub(super) fn stored(mut self, range: TxidRange) -> Result<()> {
        self.spool.stored(range)
    }

    /// The store has everything up to `head`.
    pub(super) fn drop_stored(mut self, head: Option<Txid>) -> Result<()> {
        drop_stored(&mut self.spool, head)
    }

    /// The last state stored or spooled.
    pub(super) fn saved(&self) -> Option<&Saved> {
        self.table.saved()
    }
}

/// Attaches and finds the place in the chain. `stream` is who we are; `remote` what the store has.
pub(super) async fn open(
    options: OpenOptions,
    disk: Disk,
    store: Arc<dyn Store>,
    remote: Option<Remote>,
    stream: StreamId,
    clock: Clock,
) -> Result<Opened> {
    let (dir, scratch) = (disk.dir.clone(), disk.dir.scratch().to_owned());
    let remote = remote.map(Arc::new);
    let mut files = Vec::new();
    if let Some(remote) = &remote {
        for entry in ours_behind(&disk, remote) {
            files.push((entry.key, remote.fetch(&*store, &entry, &scratch).await?));
        }
    }
    let (history, directory) = (remote.clone(), scratch.clone());
    let mut opened = blocking(move || {
        let source = Source::attach(&options.path, &options.attach)?;
        let opening = Opening {
            options,
            disk,
            remote,
            stream,
            scratch,
            now: clock.now(),
            source,
            clock,
            rewind: None,
        };
        opening.run(files)
    })
    .await?;
    if let Some(at) = opened.resumed {
        let past = Past {
            store: &*store,
            remote: history.as_deref(),
            dir,
            scratch: &directory,
            lineage: opened.capture.stream.lineage,
            page_size: opened.capture.place.page_size,
        };
        let periods = past.periods(at, &opened.capture.spool).await?;
        opened.capture.levels.resume(&periods);
        if !periods.saved {
            return blocking(move || {
                opened.capture.save_levels_if_due();
                Ok(opened)
            })
            .await;
        }
    }
    Ok(opened)
}

/// Files behind the saved state that our own last run stored: it died before it noted them.
fn ours_behind(disk: &Disk, remote: &Remote) -> Vec<FileEntry> {
    let Some(saved) = disk.saved() else {
        return Vec::new();
    };
    let mut at = saved.place.txid;
    let mut files = Vec::new();
    for entry in &remote.behind {
        let ours = entry
            .stream
            .zip(saved.stream())
            .is_some_and(|(theirs, ours)| {
                theirs.lineage == ours.lineage && theirs.epoch <= ours.epoch
            });
        if !ours || entry.range().min() != at.next() {
            break;
        }
        at = entry.max();
        files.push(entry.clone());
    }
    files
}

/// Whether files lead to the state that is captured first, as far as merged files care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chain {
    /// They do.
    GoesOn,
    /// It is the first state, or a base: merged files begin there.
    Begins,
}

struct Opening {
    options: OpenOptions,
    disk: Disk,
    remote: Option<Arc<Remote>>,
    stream: StreamId,
    now: Timestamp,
    scratch: PathBuf,
    source: Source,
    clock: Clock,
    /// The head that a base goes on from, until it is stored.
    rewind: Option<Head>,
}

impl Opening {
    fn run(mut self, files: Vec<(FileKey, File)>) -> Result<Opened> {
        let proof = self.disk.table.prove()?;
        if proof == Proof::Proven {
            self.follow(files)?;
        }
        let head = self.head();
        let bridged = self.spool_bridges(head.as_ref())?;
        let saved = self.disk.saved().cloned();
        let anchor = anchor(saved.as_ref(), bridged, head.as_ref());
        tracing::debug!(name = %self.options.name, ?anchor, ?proof, "found the place in the chain");
        if self.options.permission.new_chain && head.is_some() {
            return self.new_chain(head);
        }
        match (anchor, saved) {
            (Anchor::Resume, Some(saved)) => self.resume(saved, proof),
            (Anchor::Base, Some(saved)) => self.base_over(&saved, "state_lost"),
            (Anchor::Fresh, _) => self.fresh(),
            (Anchor::Compare | Anchor::Resume | Anchor::Base, _) => self.compare(head),
        }
    }

    fn head(&self) -> Option<RemoteHead> {
        self.remote.as_deref().map(Remote::head)
    }

    fn view(&self) -> View {
        *self.source.view()
    }

    /// Whether what the spool holds behind the head leads from exactly the head's state to the saved one.
    /// What the store has already is removed from it.
    fn spool_bridges(&mut self, head: Option<&RemoteHead>) -> Result<bool> {
        let spool = &mut self.disk.spool;
        drop_stored(spool, head.map(|head| head.txid))?;
        let (Some(front), Some(saved)) = (spool.front(), self.disk.table.saved()) else {
            return Ok(false);
        };
        let header = header_of(
            &mut spool.open_file(&front)?,
            FileKey::incremental(front.range),
        )?;
        let joins = head.is_none_or(|head| {
            let pre = match header.tracking {
                Tracking::Tracked { pre_apply } => pre_apply,
                Tracking::Untracked => None,
            };
            let same_state = pre
                .zip(head.sum)
                .is_none_or(|(pre, sum)| pre == sum.checksum);
            front.range.min() == head.txid.next() && same_state
        });
        Ok(joins && spool.last() == Some(saved.place.txid))
    }

    /// Every page, behind both the head and what is saved.
    fn base_over(self, saved: &Saved, reason: &'static str) -> Result<Opened> {
        let head = self.head();
        let after = head.map_or(saved.place.txid, |head| head.txid);
        let before = head.map_or(Some(saved.place.sum), |head| head.sum);
        self.base(after, after.max(saved.place.txid), before, reason)
    }

    /// Moves the page table over files that are in the chain already: stored, or spooled by a run that
    /// died before it noted them.
    fn follow(&mut self, stored: Vec<(FileKey, File)>) -> Result<()> {
        let Some(saved) = self.disk.saved().cloned() else {
            return Ok(());
        };
        let mut place = saved.place;
        let spooled: Vec<_> = self.disk.spool.files().copied().collect();
        for file in &spooled {
            if file.range.max() <= place.txid {
                continue;
            }
            let followed = self.disk.spool.open_file(file).and_then(|reader| {
                adopt::follow(
                    &mut self.disk.table,
                    &place,
                    reader,
                    self.source.wal()?,
                    &self.scratch,
                )
            });
            match followed {
                Ok(reached) => place = reached,
                Err(error) => {
                    tracing::warn!(range = %file.range, %error, "the spool breaks off");
                    self.disk.spool.break_off(Some(place.txid))?;
                    break;
                }
            }
        }
        for (key, file) in stored {
            match adopt::follow(
                &mut self.disk.table,
                &place,
                file,
                self.source.wal()?,
                &self.scratch,
            ) {
                Ok(reached) => place = reached,
                Err(error) => {
                    tracing::warn!(%key, %error, "a file of our own does not continue our state");
                    break;
                }
            }
        }
        Ok(())
    }

    /// The saved state is the chain's. The WAL proves that the database continues it, or else a
    /// comparison of every page.
    fn resume(mut self, saved: Saved, proof: Proof) -> Result<Opened> {
        let view = self.view();
        let place = saved.place;
        if view.page_size != place.page_size {
            return self.base_over(&saved, "page_size");
        }
        if proof != Proof::Proven {
            let (fill, sum) = fill(&mut self.source, &self.disk.table)?;
            let ahead = self.disk.spool.last().is_some_and(|last| last > place.txid);
            if sum != place.sum || view.page_count != place.page_count || ahead {
                return self.base_over(&saved, "table_lost");
            }
            let place = Place {
                wal: captured_place(&view),
                ..place
            };
            self.disk.table.install(fill, Saved { place, ..saved })?;
            return self.finish(Captured::of(&view), None, Chain::GoesOn);
        }
        if self.options.prefer_base {
            return self.base_over(&saved, "spool_full");
        }
        match self.proven_by_wal(&place, &view)? {
            Some(captured) => self.finish(captured, None, Chain::GoesOn),
            None => {
                let why = Rebase {
                    reason: "wal_restarted",
                    message: "the WAL was restarted while nobody watched".to_owned(),
                };
                self.finish(Captured::of(&view), Some(why), Chain::GoesOn)
            }
        }
    }

    /// The place in the WAL from which the database provably continues the saved state.
    fn proven_by_wal(&self, place: &Place, view: &View) -> Result<Option<Captured>> {
        let (Some(saved), Some(end)) = (place.wal, &view.wal) else {
            return Ok(None);
        };
        let cursor = WalCursor::from_saved(saved, place.page_size);
        let wal = self.source.wal()?;
        let io = |error| Error::io("write-ahead log", error);
        let at_end = cursor.frame() == end.frames && cursor.checksum() == end.checksum;
        if view.restartable && !at_end {
            // Our transaction may stand on read mark 0, which does not keep the frames in between.
            return Ok(None);
        }
        let same = cursor.continuation(end) == crate::wal::Continuation::Same;
        if same && cursor.is_proven_by(wal).map_err(io)? {
            return Ok(Some(Captured::Wal(cursor)));
        }
        if cursor.ended_its_generation(wal, end).map_err(io)? {
            return Ok(WalCursor::start(wal).ok().map(Captured::Wal));
        }
        Ok(None)
    }

    /// Nothing is known: the content alone decides.
    fn compare(mut self, head: Option<RemoteHead>) -> Result<Opened> {
        let Some(head) = head else {
            return self.fresh();
        };
        let view = self.view();
        let (fill, sum) = fill(&mut self.source, &self.disk.table)?;
        let lineage = head
            .stream
            .map_or(self.stream.lineage, |stream| stream.lineage);
        if head.sum == Some(sum) {
            let place = place_at(&view, head.txid, sum);
            self.disk
                .table
                .install(fill, self.saved_as(lineage, place))?;
            self.disk.spool.break_off(None)?;
            return self.finish(Captured::of(&view), None, Chain::GoesOn);
        }
        drop(fill);
        permitted(self.options.permission, &head, &self.options.name)?;
        self.base(head.txid, head.txid, head.sum, "adopted")
    }

    fn new_chain(self, head: Option<RemoteHead>) -> Result<Opened> {
        let Some(head) = head else {
            return self.fresh();
        };
        self.base(head.txid, head.txid, head.sum, "new_chain")
    }

    /// TXID 1 is the database as it is.
    fn fresh(mut self) -> Result<Opened> {
        let view = self.view();
        let (fill, sum) = fill(&mut self.source, &self.disk.table)?;
        self.disk.spool.break_off(None)?;
        let saved = self.saved_as(self.stream.lineage, place_at(&view, Txid::FIRST, sum));
        self.disk.table.install(fill, saved)?;
        self.finish(Captured::of(&view), None, Chain::Begins)
    }

    /// Every page goes into one file behind `after`, up to and with the TXID behind `last`.
    fn base(
        mut self,
        after: Txid,
        last: Txid,
        before: Option<DatabaseSum>,
        reason: &'static str,
    ) -> Result<Opened> {
        let view = self.view();
        let (fill, sum) = fill(&mut self.source, &self.disk.table)?;
        let range = TxidRange::new(after.next(), last.next())
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a base before the head"))?;
        let place = place_at(&view, range.max(), sum);
        let lineage = self.stream.lineage;
        self.rewind =
            self.head()
                .map(|RemoteHead { txid, stream, sum }| Head { txid, stream, sum });
        // Files of the old chain lead nowhere any more: the base holds everything.
        self.disk.spool.break_off(None)?;
        self.disk
            .table
            .install(fill, self.saved_as(lineage, place))?;
        let meta = FileMeta {
            range,
            page_size: view.page_size,
            count: view.page_count,
            stream: self.stream,
            wal: Some(WalSpan {
                offset: 32,
                size: 0,
                salt: [0; 2],
            }),
            mark: Mark::Base,
            seen: Seen::at(self.now),
            tracked: self.options.tracked,
        };
        let position = Position {
            txid: place.txid,
            sum,
        };
        let job = ImageJob::base(meta, before.unwrap_or_default(), position, &self.scratch)?;
        let batch = Batch {
            header: job.header().clone(),
            post: Some(sum.checksum),
            frames: 0,
            pages: 0,
            seen: Seen::at(self.now),
            body: Body::Streamed,
            rebase: Some(Rebase {
                reason,
                message: explain(reason).to_owned(),
            }),
            boundary: true,
            sending: false,
        };
        let mut opened = self.finish(Captured::of(&view), None, Chain::Begins)?;
        opened.capture.jobs.insert(0, job);
        opened.queue.push_back(batch);
        Ok(opened)
    }

    fn saved_as(&self, lineage: Lineage, place: Place) -> Saved {
        Saved {
            lineage,
            epoch: Some(self.stream.epoch),
            place,
            restored_head: None,
            rewind_from: None,
            last_snapshot: None,
        }
    }

    /// The running capture, at the saved state; `rebase` compares and re-anchors first.
    fn finish(
        mut self,
        captured: Captured,
        rebase: Option<Rebase>,
        chain: Chain,
    ) -> Result<Opened> {
        let (stream, rewind) = (self.stream, self.rewind);
        self.disk.table.update(|saved| {
            saved.epoch = Some(stream.epoch);
            saved.restored_head = None;
            saved.rewind_from = rewind;
        })?;
        let Some(saved) = self.disk.saved().cloned() else {
            return Err(Error::new(ErrorKind::Internal, "no state after opening"));
        };
        let stored = self.remote.as_deref().map(Remote::txid);
        let queue = queue_of(&mut self.disk.spool, stored)?;
        let at = Position {
            txid: saved.place.txid,
            sum: saved.place.sum,
        };
        let mut capture = Capture {
            levels: Levels::new(at),
            dir: self.disk.dir,
            source: self.source,
            table: self.disk.table,
            spool: self.disk.spool,
            jobs: Vec::new(),
            place: saved.place,
            captured,
            stream: StreamId {
                lineage: saved.lineage,
                epoch: stream.epoch,
            },
            tracked: self.options.tracked,
            interval: self.options.interval,
            scratch: self.scratch,
            clock: self.clock,
            abandoned: None,
        };
        let mut queue = queue;
        let ends = Captured::of(capture.source.view()).place();
        if rebase.is_none() && captured.place() != ends {
            // From here on the resting transaction is the captured state, which nothing can take away.
            match capture.turn(Seen::at(self.now), Room::none(), true)? {
                Turn::Nothing | Turn::Held => {}
                Turn::Batch(batch) => queue.push_back(*batch),
                Turn::Broken(why) => queue.extend(capture.rebase(why, self.now)?),
            }
        }
        if let Some(why) = rebase {
            let view = *capture.source.view();
            queue.extend(capture.rebase_here(&view, why, self.now)?);
        }
        capture.spool.drop_strays()?;
        let needs_base = self.remote.as_ref().is_none_or(|remote| !remote.has_start);
        let snapshot = self.remote.as_deref().and_then(Remote::snapshot);
        Ok(Opened {
            capture,
            queue,
            needs_base,
            durable: stored,
            snapshot,
            unnamed: self
                .remote
                .as_deref()
                .map(Remote::unnamed)
                .unwrap_or_default(),
            resumed: (chain == Chain::GoesOn).then_some(at),
        })
    }
}

fn explain(reason: &str) -> &'static str {
    match reason {
        "page_size" => "the page size changed; every page is stored again",
        "table_lost" => "the page table was lost; every page is stored again",
        "adopted" => "this database was put onto the chain as asked",
        "new_chain" => "a new history begins as asked",
        _ => "the local state does not fit the bucket; every page is stored again",
    }
}

/// The spool as batches; what the store has already is removed from it.
fn queue_of(spool: &mut Spool, stored: Option<Txid>) -> Result<VecDeque<Batch>> {
    drop_stored(spool, stored)?;
    let files: Vec<_> = spool.files().copied().collect();
    files
        .into_iter()
        .map(|file| {
            let header = header_of(
                &mut spool.open_file(&file)?,
                FileKey::incremental(file.range),
            )?;
            let first = header.timestamp.plus_millis(-i64::from(header.span_ms));
            let seen = Seen {
                first,
                last: header.timestamp,
            };
            let body = Body::Spooled(file);
            Ok(Batch {
                header,
                post: None,
                frames: 0,
                pages: 0,
                seen,
                body,
                rebase: None,
                // Whether an image ends here is not known any more.
                boundary: true,
                sending: false,
            })
        })
        .collect()
}

fn drop_stored(spool: &mut Spool, stored: Option<Txid>) -> Result<()> {
    while let Some(file) = spool.front() {
        if stored.is_none_or(|stored| file.range.max() > stored) {
            break;
        }
        spool.stored(file.range)?;
    }
    Ok(())
}

fn captured_place(view: &View) -> Option<crate::state::WalPlace> {
    Captured::of(view).place()
}

fn place_at(view: &View, txid: Txid, sum: DatabaseSum) -> Place {
    Place {
        txid,
        sum,
        page_size: view.page_size,
        page_count: view.page_count,
        wal: captured_place(view),
    }
}

/// One pass over the resting transaction: a new page table, and the database's sums.
fn fill(source: &mut Source, table: &PageTable) -> Result<(crate::state::Fill, DatabaseSum)> {
    let view = *source.view();
    let mut fill = table.fill(view.page_size)?;
    let mut data = Vec::new();
    for page in view.page_size.stored_pages(view.page_count) {
        source.read_page(Side::Old, page, &mut data)?;
        fill.page(page, &data)?;
    }
    let sum = fill.sum();
    Ok((fill, sum))
}

/// The sums of the database as it is now; nothing is written.
pub(super) fn sum_of(options: &OpenOptions) -> Result<DatabaseSum> {
    let mut source = Source::attach(&options.path, &options.attach)?;
    let view = *source.view();
    let (mut sum, mut data) = (DatabaseSum::EMPTY, Vec::new());
    for page in view.page_size.stored_pages(view.page_count) {
        source.read_page(Side::Old, page, &mut data)?;
        sum.add(crate::types::PageSum::of(page, &data));
    }
    source.detach()?;
    Ok(sum)
}
