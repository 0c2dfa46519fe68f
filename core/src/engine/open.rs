//! Opening a database for watching: from what is on disk, in the store and in the WAL to a running
//! capture. `anchor` decides, this acts.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::adopt;
use super::anchor::{Anchor, Permission, RemoteHead, anchor, permitted};
use super::bridge::{Fetched, Splice, before, bridge, drop_stored, queue_of};
use super::budget::Room;
use super::capture::{Batch, Body, Capture, Captured, NOWHERE, Rebase, Turn};
use super::encode::{FileMeta, Seen};
use super::gather::Gathered;
use super::image::ImageJob;
use super::levels::{Earlier, Levels};
use super::past::Past;
use super::remote::Remote;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Mark;
use crate::manifest::FileEntry;
use crate::process::blocking;
use crate::sqlite::{AttachOptions, Side, Source, View};
use crate::state::{Boot, Head, PageTable, Place, Proof, Saved, Spool, StateDir};
use crate::store::Store;
use crate::types::{
    DatabaseName, DatabaseSum, Epoch, Position, StreamId, Timestamp, Txid, TxidRange,
};
use crate::wal::{Continuation, WalCursor};

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
    /// Files in the store that its index does not name.
    pub(super) unnamed: Vec<FileEntry>,
    /// The state that this run goes on from, whose periods of merged files are not known yet; nothing where the
    /// chain begins, or begins anew.
    pub(super) resumed: Option<Position>,
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

/// What the owner of a stream found in the store.
#[derive(Debug)]
pub(super) struct Found {
    /// Who we are.
    pub(super) stream: StreamId,
    /// The history; nothing where there is none.
    pub(super) remote: Option<Arc<Remote>>,
    /// What our own earlier runs stored and did not note, oldest first.
    pub(super) files: Vec<Fetched>,
}

/// Attaches, unless `source` is attached already, and finds the place in the chain. Blocks.
pub(super) fn open(
    options: OpenOptions,
    disk: Disk,
    source: Option<Source>,
    found: Found,
    clock: Clock,
) -> Result<Opened> {
    let source = match source {
        Some(source) => source,
        None => Source::attach(&options.path, &options.attach)?,
    };
    let opening = Opening {
        remote: found.remote,
        ..Opening::new(options, disk, source, clock)
    };
    opening.run(found.stream, found.files)
}

/// Goes on from the saved state before the store has answered: what is captured waits in the spool. Nothing,
/// and `source` is let go, where the saved state alone does not suffice. Blocks.
pub(super) fn open_here(
    options: OpenOptions,
    disk: Disk,
    source: Source,
    clock: Clock,
) -> Result<Option<Opened>> {
    Opening::new(options, disk, source, clock).run_here()
}

/// Finds the place in the chain of what `capture` has followed until now. `queue` is what it captured, all of it
/// in the spool; `earlier` the periods before it began. Blocks.
pub(super) fn reopen(
    options: OpenOptions,
    mut capture: Capture,
    queue: VecDeque<Batch>,
    found: Found,
    earlier: Option<Earlier>,
) -> Result<Opened> {
    if let Some(earlier) = earlier {
        capture.levels.resume(&earlier);
    }
    let held = Held {
        captured: capture.captured,
        at: capture.place.txid,
        levels: capture.levels,
        queue,
    };
    let disk = Disk {
        dir: capture.dir,
        table: capture.table,
        spool: capture.spool,
    };
    let opening = Opening {
        remote: found.remote,
        held: Some(held),
        ..Opening::new(options, disk, capture.source, capture.clock)
    };
    opening.run(found.stream, found.files)
}

/// Finds out what changed since the boundaries of merged files before `opened` went on. Errors: those of the
/// store.
pub(super) async fn with_past(
    mut opened: Opened,
    store: &dyn Store,
    remote: Option<&Remote>,
) -> Result<Opened> {
    let Some(at) = opened.resumed.take() else {
        return Ok(opened);
    };
    let past = Past {
        store,
        remote,
        dir: opened.capture.dir.clone(),
        scratch: &opened.capture.scratch.clone(),
        lineage: opened.capture.stream.lineage,
        page_size: opened.capture.place.page_size,
    };
    let periods = past.periods(at, &opened.capture.spool).await?;
    opened.capture.levels.resume(&periods);
    if periods.saved {
        return Ok(opened);
    }
    blocking(move || {
        opened.capture.save_levels_if_due();
        Ok(opened)
    })
    .await
}

/// What was captured before the store answered.
struct Held {
    /// Up to here, without a gap.
    captured: Captured,
    /// Its last transaction.
    at: Txid,
    levels: Levels,
    queue: VecDeque<Batch>,
}

/// Where a saved state leads.
enum Way {
    /// The database goes on from it.
    On(Onward),
    /// Every page must be stored again.
    Base(&'static str),
}

/// What lies between a saved state and the database.
enum Onward {
    /// Nothing up to here; what is behind can be followed.
    Captured(Captured),
    /// These pages, up to the transaction that rests.
    Gathered(Box<Gathered>),
    /// Nobody knows what: the pages that differ.
    Rebase(Rebase),
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
    dir: Arc<StateDir>,
    table: PageTable,
    spool: Spool,
    remote: Option<Arc<Remote>>,
    now: Timestamp,
    scratch: PathBuf,
    source: Source,
    clock: Clock,
    /// The head that a base goes on from, until it is stored.
    rewind: Option<Head>,
    held: Option<Held>,
    splice: Option<Splice>,
}

impl Opening {
    /// Of what lies on the disk alone.
    fn new(options: OpenOptions, disk: Disk, source: Source, clock: Clock) -> Self {
        Self {
            options,
            scratch: disk.dir.scratch().to_owned(),
            dir: disk.dir,
            table: disk.table,
            spool: disk.spool,
            remote: None,
            now: clock.now(),
            source,
            clock,
            rewind: None,
            held: None,
            splice: None,
        }
    }

    fn run(mut self, stream: StreamId, mut files: Vec<Fetched>) -> Result<Opened> {
        // Whoever captured with it has proven it.
        let proof = match self.held {
            Some(_) => Proof::Proven,
            None => self.table.prove()?,
        };
        if proof == Proof::Proven {
            self.follow_spool()?;
            if self.spool.front().is_none() {
                self.follow_stored(&mut files)?;
            }
        }
        let head = self.head();
        let saved = self.table.saved().cloned();
        let (spooled, splice) = bridge(&self.spool, saved.as_ref(), head.as_ref(), &mut files)?;
        self.splice = splice;
        let anchor = anchor(saved.as_ref(), spooled, head.as_ref());
        tracing::debug!(name = %self.options.name, ?anchor, ?spooled, ?proof, "found the place in the chain");
        if self.options.permission.new_chain && head.is_some() {
            return self.new_chain(stream, head);
        }
        match (anchor, saved) {
            (Anchor::Resume, Some(saved)) => match self.resume(&saved, proof)? {
                Way::On(onward) => self.finish(Some(stream), onward, Chain::GoesOn),
                Way::Base(reason) => self.base_over(stream, &saved, reason),
            },
            (Anchor::Base, Some(saved)) => self.base_over(stream, &saved, "state_lost"),
            (Anchor::Fresh, _) => self.fresh(stream),
            (Anchor::Compare | Anchor::Resume | Anchor::Base, _) => self.compare(stream, head),
        }
    }

    fn run_here(mut self) -> Result<Option<Opened>> {
        let proof = self.table.prove()?;
        if proof == Proof::Proven {
            self.follow_spool()?;
        }
        let Some(saved) = self.table.saved().cloned() else {
            return Ok(None);
        };
        if self
            .spool
            .last()
            .is_some_and(|last| last != saved.place.txid)
        {
            return Ok(None);
        }
        match self.resume(&saved, proof)? {
            Way::On(onward) => self.finish(None, onward, Chain::GoesOn).map(Some),
            Way::Base(_) => Ok(None),
        }
    }

    fn head(&self) -> Option<RemoteHead> {
        self.remote.as_deref().map(Remote::head)
    }

    fn view(&self) -> View {
        *self.source.view()
    }

    /// Every page, behind both the head and what is saved.
    fn base_over(self, stream: StreamId, saved: &Saved, reason: &'static str) -> Result<Opened> {
        let head = self.head();
        let after = head.map_or(saved.place.txid, |head| head.txid);
        let before = head.map_or(Some(saved.place.sum), |head| head.sum);
        self.base(stream, after, after.max(saved.place.txid), before, reason)
    }

    /// Moves the page table over files that a run spooled and died before it noted them.
    fn follow_spool(&mut self) -> Result<()> {
        let spooled: Vec<_> = self.spool.files().copied().collect();
        for file in &spooled {
            let Some(place) = self.table.saved().map(|saved| saved.place) else {
                return Ok(());
            };
            if file.range.max() <= place.txid {
                continue;
            }
            let followed = self
                .spool
                .open_file(file)
                .and_then(|reader| self.follow(&place, reader));
            if let Err(error) = followed {
                tracing::warn!(range = %file.range, %error, "the spool breaks off");
                return self.spool.break_off(Some(place.txid));
            }
        }
        Ok(())
    }

    /// The same for files that it stored.
    fn follow_stored(&mut self, files: &mut [Fetched]) -> Result<()> {
        for (key, file) in files {
            let Some(place) = self.table.saved().map(|saved| saved.place) else {
                return Ok(());
            };
            let reader = file.try_clone().map_err(|error| Error::io(*key, error))?;
            if let Err(error) = self.follow(&place, reader) {
                tracing::warn!(%key, %error, "a file of our own does not continue our state");
                break;
            }
        }
        Ok(())
    }

    fn follow(&mut self, place: &Place, file: File) -> Result<()> {
        let wal = self.source.wal()?;
        adopt::follow(&mut self.table, place, file, wal, &self.scratch).map(drop)
    }

    /// The saved state is the chain's. What was captured until now, or the WAL, proves that the database
    /// continues it, or else a comparison of every page.
    fn resume(&mut self, saved: &Saved, proof: Proof) -> Result<Way> {
        let view = self.view();
        let place = saved.place;
        if view.page_size != place.page_size {
            return Ok(Way::Base("page_size"));
        }
        if proof != Proof::Proven {
            let (fill, sum) = fill(&mut self.source, &self.table)?;
            let ahead = self.spool.last().is_some_and(|last| last > place.txid);
            if sum != place.sum || view.page_count != place.page_count || ahead {
                return Ok(Way::Base("table_lost"));
            }
            let place = Place {
                wal: captured_place(&view),
                ..place
            };
            self.table.install(
                fill,
                Saved {
                    place,
                    ..saved.clone()
                },
            )?;
            return Ok(Way::On(Onward::Captured(Captured::of(&view))));
        }
        if self.options.prefer_base {
            return Ok(Way::Base("spool_full"));
        }
        // Invariant 2: nothing was missed since.
        if let Some(held) = self.held.as_ref().filter(|held| held.at == place.txid) {
            return Ok(Way::On(Onward::Captured(held.captured)));
        }
        let proven = self.proven_by_wal(&place, &view)?;
        Ok(Way::On(proven.unwrap_or_else(|| {
            Onward::Rebase(Rebase {
                reason: "wal_restarted",
                message: "the WAL was restarted while nobody watched".to_owned(),
            })
        })))
    }

    /// How the WAL proves that the database continues the saved state.
    fn proven_by_wal(&self, place: &Place, view: &View) -> Result<Option<Onward>> {
        let (Some(saved), Some(end)) = (place.wal, &view.wal) else {
            return Ok(None);
        };
        let cursor = WalCursor::from_saved(saved, place.page_size);
        let wal = self.source.wal()?;
        let same = cursor.continuation(end) == Continuation::Same;
        let at_end = cursor.frame() == end.frames && cursor.checksum() == end.checksum;
        let captured = Onward::Captured(Captured::Wal(cursor));
        if same && at_end {
            return Ok(Some(captured));
        }
        if same && !view.restartable {
            let proven = cursor.is_proven_by(wal);
            let proven = proven.map_err(|error| Error::io("write-ahead log", error))?;
            return Ok(proven.then_some(captured));
        }
        if !same && !Boot::is_still(saved.boot) {
            // A power cut may have taken what the old generation seems to show.
            return Ok(None);
        }
        // Our transaction may stand on read mark 0, which does not keep the frames in between; or they are those
        // of a generation that is being overwritten.
        let gathered = Gathered::between(wal, &cursor, end, place.page_count)?;
        Ok(gathered.map(|gathered| Onward::Gathered(Box::new(gathered))))
    }

    /// Nothing is known: the content alone decides.
    fn compare(mut self, stream: StreamId, head: Option<RemoteHead>) -> Result<Opened> {
        let Some(head) = head else {
            return self.fresh(stream);
        };
        let view = self.view();
        let (fill, sum) = fill(&mut self.source, &self.table)?;
        let lineage = head.stream.map_or(stream.lineage, |theirs| theirs.lineage);
        if head.sum == Some(sum) {
            let place = place_at(&view, head.txid, sum);
            let stream = StreamId { lineage, ..stream };
            // First, as wherever a state begins anew: what waits belongs to another one.
            self.spool.break_off(None)?;
            self.table.install(fill, saved_as(stream, place))?;
            let onward = Onward::Captured(Captured::of(&view));
            return self.finish(Some(stream), onward, Chain::GoesOn);
        }
        drop(fill);
        permitted(self.options.permission, &head, &self.options.name)?;
        self.base(stream, head.txid, head.txid, head.sum, "adopted")
    }

    fn new_chain(self, stream: StreamId, head: Option<RemoteHead>) -> Result<Opened> {
        let Some(head) = head else {
            return self.fresh(stream);
        };
        self.base(stream, head.txid, head.txid, head.sum, "new_chain")
    }

    /// TXID 1 is the database as it is.
    fn fresh(mut self, stream: StreamId) -> Result<Opened> {
        let view = self.view();
        let (fill, sum) = fill(&mut self.source, &self.table)?;
        self.spool.break_off(None)?;
        let saved = saved_as(stream, place_at(&view, Txid::FIRST, sum));
        self.table.install(fill, saved)?;
        let onward = Onward::Captured(Captured::of(&view));
        self.finish(Some(stream), onward, Chain::Begins)
    }

    /// Every page goes into one file behind `after`, up to and with the TXID behind `last`.
    fn base(
        mut self,
        stream: StreamId,
        after: Txid,
        last: Txid,
        before: Option<DatabaseSum>,
        reason: &'static str,
    ) -> Result<Opened> {
        let view = self.view();
        let (fill, sum) = fill(&mut self.source, &self.table)?;
        let range = TxidRange::new(after.next(), last.next())
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a base before the head"))?;
        let place = place_at(&view, range.max(), sum);
        self.rewind =
            self.head()
                .map(|RemoteHead { txid, stream, sum }| Head { txid, stream, sum });
        // Files of the old chain lead nowhere any more: the base holds everything.
        self.spool.break_off(None)?;
        self.table.install(fill, saved_as(stream, place))?;
        let meta = FileMeta {
            range,
            page_size: view.page_size,
            count: view.page_count,
            stream,
            wal: Some(NOWHERE),
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
        let onward = Onward::Captured(Captured::of(&view));
        let mut opened = self.finish(Some(stream), onward, Chain::Begins)?;
        opened.capture.jobs.insert(0, job);
        opened.queue.push_back(batch);
        Ok(opened)
    }

    /// The running capture, from the saved state on. Without a lease nothing that later decisions need changes in the
    /// saved state (invariant 14).
    fn finish(mut self, stream: Option<StreamId>, onward: Onward, chain: Chain) -> Result<Opened> {
        if let Some(stream) = stream {
            let rewind = self.rewind;
            self.table.update(|saved| {
                saved.epoch = Some(stream.epoch);
                saved.restored_head = None;
                saved.rewind_from = rewind;
            })?;
        }
        let Some(saved) = self.table.saved().cloned() else {
            return Err(Error::new(ErrorKind::Internal, "no state after opening"));
        };
        let writer = StreamId {
            lineage: saved.lineage,
            // What waits for the lease is stored under its epoch.
            epoch: stream
                .map_or(saved.epoch, |stream| Some(stream.epoch))
                .unwrap_or(Epoch::FIRST),
        };
        let stored = match stream {
            Some(_) => self.remote.as_deref().map(Remote::txid),
            None => None,
        };
        let durable = match stream {
            Some(_) => stored,
            None => before(&self.spool).or(Some(saved.place.txid)),
        };
        let at = Position {
            txid: saved.place.txid,
            sum: saved.place.sum,
        };
        let held = self
            .held
            .filter(|held| held.at == at.txid && chain == Chain::GoesOn);
        let (known, levels) = held.map(|held| (held.queue, held.levels)).unzip();
        let known = known.unwrap_or_default();
        let resumed = (chain == Chain::GoesOn && levels.is_none()).then_some(at);
        let levels = levels.unwrap_or_else(|| match chain {
            Chain::GoesOn => Levels::going_on(at),
            Chain::Begins => Levels::new(at),
        });
        let node = writer.to_node_id();
        let mut queue = queue_of(&mut self.spool, stored, node, self.splice, known)?;
        let mut capture = Capture {
            levels,
            dir: self.dir,
            table: self.table,
            spool: self.spool,
            jobs: Vec::new(),
            place: saved.place,
            captured: Captured::of(self.source.view()),
            source: self.source,
            stream: writer,
            tracked: self.options.tracked,
            interval: self.options.interval,
            scratch: self.scratch,
            clock: self.clock,
            abandoned: None,
            barrier: None,
        };
        queue.extend(match onward {
            Onward::Captured(captured) => catch_up(&mut capture, captured, self.now)?,
            Onward::Gathered(gathered) => Some(capture.take_up(&gathered, self.now)?),
            Onward::Rebase(why) => {
                let view = *capture.source.view();
                capture.rebase_here(&view, why, self.now)?
            }
        });
        if stream.is_some() {
            capture.spool.drop_strays()?;
        }
        let needs_base = self.remote.as_ref().is_none_or(|remote| !remote.has_start);
        let snapshot = self.remote.as_deref().and_then(Remote::snapshot);
        let unnamed = self.remote.as_deref().map(Remote::unnamed);
        Ok(Opened {
            capture,
            queue,
            needs_base,
            durable,
            snapshot,
            unnamed: unnamed.unwrap_or_default(),
            resumed,
        })
    }
}

/// Captures what lies behind `captured`: from here on the resting transaction is the captured state, which
/// nothing can take away.
fn catch_up(capture: &mut Capture, captured: Captured, now: Timestamp) -> Result<Option<Batch>> {
    let rests = capture.captured.place();
    capture.captured = captured;
    if captured.place() == rests {
        return Ok(None);
    }
    match capture.turn(Seen::at(now), Room::none(), true)? {
        Turn::Nothing | Turn::Held => Ok(None),
        Turn::Batch(batch) => Ok(Some(*batch)),
        Turn::Broken(why) => capture.rebase(why, now),
    }
}

fn saved_as(stream: StreamId, place: Place) -> Saved {
    Saved {
        lineage: stream.lineage,
        epoch: Some(stream.epoch),
        place,
        restored_head: None,
        rewind_from: None,
        last_snapshot: None,
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
