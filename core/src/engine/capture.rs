//! The blocking half of one watched database: it owns the read transactions and turns what SQLite
//! commits into files (DESIGN section 4).
//!
//! Between two calls exactly one read transaction is open, at the *captured* state, which is also the
//! newest state of the page table. So nothing that was committed since can vanish (invariant 2).

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roaring::RoaringBitmap;

use super::budget::Room;
use super::checkpoint::{BARRIER_LIMIT, Hold, Outcome};
use super::encode::{Before, FileMeta, Pages, Seen, encode_changes};
use super::frames::{self, NewestFrames, Stretch};
use super::gather::Gathered;
use super::image::{ImageJob, ImageKind, Piece};
use super::join::{self, Joined, Part};
use super::levels::Levels;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::{HEADER_BYTES, Header, Mark, Spill, WalSpan};
use crate::sqlite::{Side, Source, View};
use crate::state::{
    Boot, Entries, Huge, PageSets, PageTable, Place, Spool, SpoolFile, Staged, StateDir, WalPlace,
};
use crate::types::{Checksum, PageNumber, PageSum, Position, StreamId, Timestamp, TxidRange};
use crate::wal::WalCursor;

/// Changed pages whose sums are kept in memory until the batch is stored; a larger batch goes through
/// the disk. 28 bytes each.
const LAYER_PAGES: u64 = 64 * 1024;

/// Batches that wait in memory, each a layer over the page table.
const MOST_LAYERS: usize = 64;

/// Passive checkpoints in a row before the barrier, and the frames that it may leave for behind it: they
/// are copied and synced while writers wait.
const PASSES: u32 = 2;
const SHORT_REST: u32 = 1000;

/// How often and how long somebody else's checkpoint is waited for behind the barrier: it does our work, and as
/// long as it runs its writer waits anyway.
const BUSY_TRIES: u32 = 15;
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Bytes of an image that are sent at once; S3 takes parts from 5 MiB.
pub(crate) const PART_BYTES: usize = 5 * 1024 * 1024 + 64 * 1024;

/// The place of what comes from no one stretch of the log, an offset alone: there a Litestream daemon that takes
/// over begins.
pub(crate) const NOWHERE: WalSpan = WalSpan {
    offset: 32,
    size: 0,
    salt: [0; 2],
};

/// Where the captured state ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Captured {
    /// The database file alone is the state; the next WAL generation starts at frame 1.
    File,
    /// Up to here in the WAL.
    Wal(WalCursor),
}

impl Captured {
    /// The end of what `view` sees.
    pub(crate) fn of(view: &View) -> Self {
        match &view.wal {
            None => Self::File,
            Some(end) => Self::Wal(end.cursor(view.page_size)),
        }
    }

    pub(crate) fn place(self) -> Option<WalPlace> {
        match self {
            Self::File => None,
            Self::Wal(cursor) => Some(WalPlace {
                salt: cursor.salt(),
                frame: cursor.frame(),
                checksum: cursor.checksum(),
                big_endian: cursor.big_endian(),
                boot: Boot::current(),
            }),
        }
    }
}

/// One file that waits to be stored.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) header: Header,
    /// The checksum of the database after it.
    pub(crate) post: Option<Checksum>,
    pub(crate) frames: u64,
    pub(crate) pages: u64,
    pub(crate) seen: Seen,
    pub(crate) body: Body,
    /// Why it is a rebase, if it is one.
    pub(crate) rebase: Option<Rebase>,
    /// A snapshot or merged file holds the state behind it, or may: it is not joined with what follows, so that
    /// the chain goes on from there.
    pub(crate) boundary: bool,
    /// It is on its way, alone or as a part of one object.
    pub(crate) sending: bool,
}

impl Batch {
    /// The one batch that stands for all of `batches`; none for none.
    pub(crate) fn joined(batches: VecDeque<Self>, joined: Joined, body: Body) -> Option<Self> {
        let (first, last) = (batches.front()?.seen.first, batches.back()?.seen.last);
        let (boundary, sending) = (batches.back()?.boundary, batches.front()?.sending);
        Some(Self {
            header: joined.header,
            post: joined.post,
            frames: batches.iter().map(|batch| batch.frames).sum(),
            pages: joined.pages,
            seen: Seen { first, last },
            body,
            rebase: None,
            boundary,
            sending,
        })
    }

    /// Whether its bytes outlive the process.
    pub(crate) fn outlives_us(&self) -> bool {
        !matches!(self.body, Body::Memory(..))
    }
}

/// Why continuity was not proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rebase {
    /// As the metric's label names it.
    pub(crate) reason: &'static str,
    /// For people.
    pub(crate) message: String,
}

/// Where a batch's bytes are.
#[derive(Debug)]
pub(crate) enum Body {
    /// In memory; the page table holds its layer.
    Memory(
        Bytes,
        #[expect(dead_code, reason = "held as long as the bytes")] Room,
    ),
    /// In the spool, durable; the page table has moved on.
    Spooled(SpoolFile),
    /// Every page, streamed from the database by the first image job.
    Streamed,
}

impl Body {
    /// Its size in bytes; 0 where it is not known yet.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Memory(bytes, _) => bytes.len() as u64,
            Self::Spooled(file) => file.size,
            Self::Streamed => 0,
        }
    }

    /// Where its bytes are to be read.
    pub(crate) fn part(&self, spool: &Spool) -> Option<Part> {
        match self {
            Self::Memory(bytes, _) => Some(Part::Memory(bytes.clone())),
            Self::Spooled(file) => Some(Part::File {
                path: spool.path(file),
                size: file.size,
            }),
            Self::Streamed => None,
        }
    }
}

/// What a turn found.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Nothing new was committed.
    Nothing,
    /// Not before everything captured is spooled or stored: the log could restart from the newer state, or what
    /// is new does not fit beside what waits in memory.
    Held,
    /// New commits.
    Batch(Box<Batch>),
    /// The frames cannot be followed.
    Broken(Rebase),
}

/// The blocking half of one database.
pub(crate) struct Capture {
    pub(crate) source: Source,
    pub(crate) table: PageTable,
    pub(crate) spool: Spool,
    pub(crate) levels: Levels,
    pub(crate) dir: Arc<StateDir>,
    /// Snapshots and merged files under way, oldest first; the first one streams.
    pub(crate) jobs: Vec<ImageJob>,
    pub(crate) place: Place,
    pub(crate) captured: Captured,
    pub(crate) stream: StreamId,
    pub(crate) tracked: bool,
    /// Batches within it become one object.
    pub(crate) interval: Duration,
    pub(crate) scratch: PathBuf,
    pub(crate) clock: Clock,
    /// Why the jobs under way were given up, until somebody asks.
    pub(crate) abandoned: Option<Error>,
    /// The barrier of the last checkpoint, if it came to one.
    pub(crate) barrier: Option<Hold>,
}

impl Capture {
    /// The captured state.
    pub(crate) fn position(&self) -> Position {
        Position {
            txid: self.place.txid,
            sum: self.place.sum,
        }
    }

    /// Captures what was committed since. what fits into `room` may stay in memory;
    /// `may_restart` says that everything captured is spooled or stored, so that a turn that finds
    /// nothing may land on read mark 0, which lets the WAL restart.
    pub(crate) fn turn(&mut self, seen: Seen, room: Room, may_restart: bool) -> Result<Turn> {
        let view = self.source.begin_turn()?;
        tracing::trace!(
            frames = view.wal.map(|wal| wal.frames),
            room = room.bytes(),
            "turn"
        );
        // Only now: what is captured must not be newer than its time says (R78).
        let seen = Seen {
            last: self.clock.now(),
            ..seen
        };
        if view.restartable && !may_restart {
            self.source.cancel_turn()?;
            return Ok(Turn::Held);
        }
        // What a transaction on mark 0 found must be on disk before the older one ends.
        let room = if view.restartable { Room::none() } else { room };
        match self.follow(&view, seen, room) {
            Ok(turn @ (Turn::Nothing | Turn::Batch(_))) => {
                self.source.end_turn()?;
                Ok(turn)
            }
            Ok(turn @ (Turn::Held | Turn::Broken(_))) => {
                self.source.cancel_turn()?;
                Ok(turn)
            }
            Err(error) => {
                self.source.cancel_turn()?;
                Err(error)
            }
        }
    }

    fn follow(&mut self, view: &View, seen: Seen, room: Room) -> Result<Turn> {
        if view.page_size != self.place.page_size {
            return Ok(Turn::Broken(Rebase {
                reason: "page_size",
                message: format!("the page size changed to {}", view.page_size),
            }));
        }
        let Some(end) = &view.wal else {
            // A checkpoint emptied the WAL. It could not while frames behind our state existed.
            self.captured = Captured::File;
            return Ok(Turn::Nothing);
        };
        let wal = self
            .source
            .wal()?
            .try_clone()
            .map_err(|e| Error::io("write-ahead log", e))?;
        let from = match self.captured {
            Captured::Wal(cursor) if cursor.salt() == end.salt => cursor,
            // The old generation was captured to its end: the resting transaction stands exactly there, and
            // while it does nothing behind it can be copied back and overwritten (the rules in DESIGN
            // section 4).
            captured if captured.place() == Captured::of(self.source.view()).place() => {
                match WalCursor::start(&wal) {
                    Ok(start) if start.salt() == end.salt => start,
                    Ok(_) => {
                        let message = "the WAL's header is of another generation";
                        return Ok(broken("wal_header", message));
                    }
                    Err(error) => return Ok(broken("wal_header", error)),
                }
            }
            Captured::Wal(_) | Captured::File => {
                return Ok(broken(
                    "wal_restarted",
                    "the WAL was restarted before it was captured",
                ));
            }
        };
        if from.frame() == end.frames && from.checksum() == end.checksum {
            self.captured = Captured::Wal(from);
            return Ok(Turn::Nothing);
        }
        let scanned = Stretch::scan(&wal, &from, end, self.place.page_count, &self.scratch);
        let (stretch, newest) = match scanned {
            Ok(scanned) => scanned,
            Err(error) => {
                let (reason, message) = frames::broken(error)?;
                return Ok(broken(reason, message));
            }
        };
        if stretch.changes.commits == 0 {
            return Ok(broken(
                "wal_ends_early",
                "committed frames without a commit",
            ));
        }
        let candidates = stretch.candidates(view.page_count);
        if self.table.pending_layers() > 0 && !self.fits(&candidates, &room) {
            return Ok(Turn::Held);
        }
        self.save_overlays(&stretch)?;
        self.encode(&wal, &stretch, newest, view, seen, room)
            .map(|batch| Turn::Batch(Box::new(batch)))
    }

    /// Whether a batch of `candidates` may wait in memory.
    fn fits(&self, candidates: &RoaringBitmap, room: &Room) -> bool {
        let raw = candidates.len() * u64::from(self.place.page_size.get());
        room.bytes() > 0
            && raw <= room.bytes()
            && candidates.len() <= LAYER_PAGES
            && self.table.pending_layers() < MOST_LAYERS
    }

    /// Gives the jobs under way the old version of every page that the stretch changes.
    fn save_overlays(&mut self, stretch: &Stretch) -> Result<()> {
        if self.jobs.is_empty() {
            return Ok(());
        }
        let (mut data, mut failed) = (Vec::new(), None);
        for page in stretch
            .disturbed(self.place.page_count)
            .iter()
            .filter_map(PageNumber::new)
        {
            let wanted = self.jobs.iter().any(|job| job.needs(page));
            if !wanted {
                continue;
            }
            self.source.read_page(Side::Old, page, &mut data)?;
            for job in &mut self.jobs {
                if job.needs(page) && failed.is_none() {
                    failed = job.save(page, &data, &self.spool).err();
                }
            }
            if failed.is_some() {
                break;
            }
        }
        match failed {
            // No room for old versions: what streams is given up, capture goes on.
            Some(error) if error.kind() == ErrorKind::Exhausted => {
                self.give_up_jobs(error);
                Ok(())
            }
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Ends what streams; the periods of merged files go on.
    fn give_up_jobs(&mut self, why: Error) {
        for job in std::mem::take(&mut self.jobs) {
            if let ImageKind::Merged(level) = job.kind() {
                self.levels.put_back(level, job.header().range);
            }
        }
        self.abandoned = Some(why);
    }

    fn encode(
        &mut self,
        wal: &File,
        stretch: &Stretch,
        mut newest: NewestFrames,
        view: &View,
        seen: Seen,
        room: Room,
    ) -> Result<Batch> {
        let min = self.place.txid.next();
        let max = self.place.txid.after(stretch.changes.commits);
        let range = max
            .and_then(|max| TxidRange::new(min, max))
            .ok_or_else(out_of_txids)?;
        let meta = FileMeta {
            range,
            page_size: view.page_size,
            count: view.page_count,
            stream: self.stream,
            wal: Some(stretch.span()),
            mark: Mark::None,
            seen,
            tracked: self.tracked,
        };
        let captured = Captured::Wal(stretch.end);
        let candidates = stretch.candidates(view.page_count);
        let frames = u64::from(stretch.frames());
        let read: ReadPage<'_> =
            Box::new(
                move |source, page, into| match stretch.frame_of(&mut newest, page)? {
                    Some(frame) => stretch.read(wal, frame, into),
                    None => source.read_page(Side::New, page, into),
                },
            );
        self.write_batch(
            Draft {
                meta,
                candidates,
                captured,
                frames,
                rebase: None,
            },
            read,
            room,
        )
    }

    /// Encodes a batch to where it fits, puts it over the page table and moves the captured state.
    fn write_batch(&mut self, draft: Draft, read: ReadPage<'_>, mut room: Room) -> Result<Batch> {
        let Draft {
            meta,
            candidates,
            captured,
            frames,
            rebase,
        } = draft;
        let raw = candidates.len() * u64::from(meta.page_size.get());
        let before = Before {
            count: self.place.page_count,
            sum: self.place.sum,
        };
        let small = self.fits(&candidates, &room);
        let sink = if small {
            let mut bytes = Vec::with_capacity(1024 + (raw / 2).min(1 << 20) as usize);
            bytes.extend_from_slice(&[0; 100]);
            Sink::Memory(bytes)
        } else {
            Sink::Spool(self.spool.stage(100)?)
        };
        let spill = Spill::Directory(self.scratch.clone());
        let changed = if candidates.len() <= LAYER_PAGES {
            Changed::Few(Entries::new())
        } else {
            if self.table.pending_layers() > 0 {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "a huge batch over unspooled ones",
                ));
            }
            Changed::Many(Box::new(self.table.huge()?))
        };
        let (done, changed, set) = {
            let mut pages = BatchPages {
                source: &mut self.source,
                table: &self.table,
                read,
                changed,
                set: RoaringBitmap::new(),
            };
            let mut numbers = candidates.iter().filter_map(PageNumber::new).map(Ok);
            let done = encode_changes(sink, spill, &meta, before, &mut numbers, &mut pages)?;
            (done, pages.changed, pages.set)
        };
        let place = Place {
            txid: meta.range.max(),
            sum: done.sum,
            page_size: meta.page_size,
            page_count: meta.count,
            wal: captured.place(),
        };
        let body = match done.out {
            Sink::Memory(mut bytes) => {
                if let Some(head) = bytes.get_mut(..100) {
                    head.copy_from_slice(&done.head);
                }
                room.keep(bytes.len() as u64);
                Body::Memory(bytes.into(), room)
            }
            Sink::Spool(staged) => {
                Body::Spooled(self.spool.publish(staged, &done.head, meta.range)?)
            }
        };
        self.settle_table(changed, place, &body)?;
        self.place = place;
        self.captured = captured;
        self.levels.record(&set, meta.seen);
        Ok(Batch {
            header: done.header,
            post: Some(done.sum.checksum),
            frames,
            pages: done.pages,
            seen: meta.seen,
            body,
            rebase,
            boundary: false,
            sending: false,
        })
    }

    fn settle_table(&mut self, changed: Changed, place: Place, body: &Body) -> Result<()> {
        match changed {
            Changed::Few(entries) => {
                self.table.layer(entries, place)?;
                if matches!(body, Body::Spooled(_)) {
                    self.table.commit()?;
                }
                Ok(())
            }
            Changed::Many(huge) => self.table.commit_huge(*huge, place),
        }
    }

    /// Puts all batches into the spool, so that the state on disk may move past them. What is on its way as one
    /// object becomes one file, so that the state never stands in the middle of an object; others become one
    /// where they are of one interval.
    pub(crate) fn spool(&mut self, queue: &mut VecDeque<Batch>) -> Result<()> {
        let mut at = 0;
        while let Some(batch) = queue.get(at) {
            let run = match &batch.body {
                Body::Memory(..) if batch.sending => {
                    queue.range(at..).take_while(|batch| batch.sending).count()
                }
                Body::Memory(..) => join::run_length(queue.range(at..), self.interval),
                Body::Spooled(_) | Body::Streamed => 0,
            };
            match run {
                0 => {}
                1 => self.spool_one(queue, at)?,
                run => self.spool_run(queue, at, run)?,
            }
            at += 1;
        }
        Ok(())
    }

    fn spool_one(&mut self, queue: &mut VecDeque<Batch>, at: usize) -> Result<()> {
        if let Some(batch) = queue.get_mut(at)
            && let Body::Memory(bytes, _) = &batch.body
        {
            let file = self.spool.add(batch.header.range, &[bytes])?;
            self.table.commit()?;
            batch.body = Body::Spooled(file);
        }
        Ok(())
    }

    /// Puts `run` batches in memory, from the one at `at` on, into one file of the spool.
    fn spool_run(&mut self, queue: &mut VecDeque<Batch>, at: usize, run: usize) -> Result<()> {
        let parts: Vec<_> = queue
            .range(at..at + run)
            .filter_map(|batch| batch.body.part(&self.spool))
            .collect();
        let staged = self.spool.stage(HEADER_BYTES)?;
        let (joined, done) = join::join_to(staged, &parts, &self.scratch, None)?;
        let file = self
            .spool
            .publish(done.out, &done.header, joined.header.range)?;
        self.table.commit_joined(run)?;
        let rest = queue.split_off(at + run);
        let joined = Batch::joined(queue.split_off(at), joined, Body::Spooled(file));
        queue.extend(joined);
        queue.extend(rest);
        Ok(())
    }

    /// The store has `batches`, the oldest ones, as one object.
    pub(crate) fn stored(&mut self, batches: &VecDeque<Batch>) -> Result<()> {
        let mut layers = 0;
        for batch in batches {
            match &batch.body {
                Body::Memory(..) => layers += 1,
                // What is spooled comes before what is in memory.
                Body::Spooled(file) => self.spool.stored(file.range)?,
                Body::Streamed => {}
            }
        }
        if layers > 0 {
            self.table.commit_joined(layers)?;
        }
        self.save_levels_if_due();
        Ok(())
    }

    /// [`Capture::save_levels`] where it is due: not for each batch, it costs two syncs.
    pub(crate) fn save_levels_if_due(&mut self) {
        if self.levels.wants_saving() {
            self.save_levels();
        }
    }

    /// Saves the periods of merged files, unless something captured could still be lost: then what is saved
    /// would lead to a state that never was.
    pub(crate) fn save_levels(&mut self) {
        if !self.levels.is_unsaved() || self.table.pending_layers() > 0 {
            return;
        }
        let sets = PageSets {
            lineage: self.stream.lineage,
            through: self.position(),
            sets: self.levels.sets(),
        };
        if let Err(error) = sets.save(&self.dir) {
            // Capture goes on: a start that lacks them asks the files.
            tracing::warn!(%error, "the page sets of merged files were not saved");
        }
        self.levels.saved();
    }

    /// Re-anchors the chain: moves to the newest state, compares every page with the page table, and
    /// encodes what differs as one transaction (invariant 4).
    pub(crate) fn rebase(&mut self, why: Rebase, now: Timestamp) -> Result<Option<Batch>> {
        // Old versions of pages that changed unseen cannot be saved: what streams must begin again.
        if !self.jobs.is_empty() {
            self.give_up_jobs(Error::new(ErrorKind::Unavailable, why.message.clone()));
        }
        let view = self.source.begin_turn()?;
        self.source.end_turn()?;
        let now = self.clock.now().max(now);
        self.rebase_here(&view, why, now)
    }

    /// As [`Capture::rebase`], from the transaction that rests already. Nothing if no page differs.
    pub(crate) fn rebase_here(
        &mut self,
        view: &View,
        why: Rebase,
        now: Timestamp,
    ) -> Result<Option<Batch>> {
        let candidates = self.differing(view)?;
        let same_size = view.page_count == self.place.page_count;
        if candidates.is_empty() && same_size {
            let captured = Captured::of(view);
            self.captured = captured;
            self.place.wal = captured.place();
            return Ok(None);
        }
        let range = TxidRange::single(self.place.txid.next());
        let resting = Resting {
            range,
            candidates,
            wal: NOWHERE,
            frames: 0,
            rebase: Some(why),
        };
        self.write_resting(view, resting, now).map(Some)
    }

    /// Captures the state that rests, where `gathered` holds every page that changed since the captured one.
    pub(crate) fn take_up(&mut self, gathered: &Gathered, now: Timestamp) -> Result<Batch> {
        let view = *self.source.view();
        let min = self.place.txid.next();
        let max = self.place.txid.after(gathered.commits().max(1));
        let range = max.and_then(|max| TxidRange::new(min, max));
        let resting = Resting {
            range: range.ok_or_else(out_of_txids)?,
            candidates: gathered.candidates(view.page_count),
            wal: gathered.span.unwrap_or(NOWHERE),
            frames: gathered.frames,
            rebase: None,
        };
        self.write_resting(&view, resting, now)
    }

    fn write_resting(&mut self, view: &View, resting: Resting, now: Timestamp) -> Result<Batch> {
        let meta = FileMeta {
            range: resting.range,
            page_size: view.page_size,
            count: view.page_count,
            stream: self.stream,
            wal: Some(resting.wal),
            mark: match resting.rebase {
                Some(_) => Mark::Rebase,
                None => Mark::None,
            },
            seen: Seen::at(now),
            tracked: self.tracked,
        };
        let read: ReadPage<'_> =
            Box::new(|source, page, into| source.read_page(Side::Old, page, into));
        let draft = Draft {
            meta,
            candidates: resting.candidates,
            captured: Captured::of(view),
            frames: resting.frames,
            rebase: resting.rebase,
        };
        self.write_batch(draft, read, Room::none())
    }

    /// The pages of the resting transaction that differ from the page table.
    fn differing(&mut self, view: &View) -> Result<RoaringBitmap> {
        let mut differing = RoaringBitmap::new();
        let mut data = Vec::new();
        let mut chunk = Vec::with_capacity(4096);
        let mut pages = view.page_size.stored_pages(view.page_count).peekable();
        while pages.peek().is_some() {
            chunk.clear();
            chunk.extend(pages.by_ref().take(4096));
            let (source, held) = (&mut self.source, self.place.page_count);
            self.table.lookup_all(&chunk, &mut |page, known| {
                source.read_page(Side::Old, page, &mut data)?;
                if known.filter(|_| held.holds(page)) != Some(PageSum::of(page, &data)) {
                    differing.insert(page.get());
                }
                Ok(())
            })?;
        }
        Ok(differing)
    }

    /// Copies the WAL back and tries to let it restart, so that it stays short (DESIGN section 4, step 6).
    /// Everything captured before must be spooled or stored. New batches go to the spool and into
    /// `batches`, also where an error follows.
    pub(crate) fn checkpoint(
        &mut self,
        barrier: bool,
        seen: Seen,
        batches: &mut Vec<Batch>,
    ) -> Result<Outcome> {
        // Each pass finds less: what writers added during the one before.
        let passes = if barrier { PASSES } else { 1 };
        for _ in 0..passes {
            if self.turn_into(seen, batches)? {
                return Ok(Outcome::Restartable);
            }
            let left = self.copy_back()?;
            tracing::trace!(?left, "copied back");
            if left.is_some_and(|left| left <= SHORT_REST) {
                break;
            }
        }
        if !barrier {
            let restartable = self.turn_into(seen, batches)?;
            return Ok(if restartable {
                Outcome::Restartable
            } else {
                Outcome::Late
            });
        }
        let hold = match self.source.hold_writes(BARRIER_LIMIT) {
            Ok(hold) => hold,
            Err(error) if error.kind() == ErrorKind::Busy => {
                self.barrier = Some(Hold::Refused);
                return Ok(Outcome::Late);
            }
            Err(error) => return Err(error),
        };
        let outcome = self.behind_barrier(seen, batches);
        let (held, expired) = hold.release()?;
        tracing::trace!(?held, expired, "barrier");
        self.barrier = Some(Hold::For(held));
        match outcome? {
            Outcome::Blocked if expired => Ok(Outcome::Late),
            outcome => Ok(outcome),
        }
    }

    /// The last steps, while nobody writes.
    fn behind_barrier(&mut self, seen: Seen, batches: &mut Vec<Batch>) -> Result<Outcome> {
        if self.turn_into(seen, batches)? {
            return Ok(Outcome::Restartable);
        }
        let mut left = self.copy_back()?;
        // The app may be at a checkpoint of its own, which takes no write lock.
        for _ in 0..BUSY_TRIES {
            if left.is_some() {
                break;
            }
            std::thread::sleep(BUSY_PAUSE);
            left = self.copy_back()?;
        }
        match left {
            Some(0) if self.turn_into(seen, batches)? => Ok(Outcome::Restartable),
            Some(0) | None => Ok(Outcome::Late),
            Some(_) => Ok(Outcome::Blocked),
        }
    }

    /// Copies back what is captured, without waiting for anybody, so that less is left to do once the log is
    /// long.
    pub(crate) fn ease(&mut self) -> Result<()> {
        self.copy_back().map(drop)
    }

    /// A passive checkpoint; how many frames it left, unless somebody else is at it.
    fn copy_back(&mut self) -> Result<Option<u32>> {
        match self.source.checkpoint_passive() {
            Ok(done) => Ok(Some(done.log.saturating_sub(done.done))),
            Err(error) if error.kind() == ErrorKind::Busy => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One turn of a checkpoint; says whether the WAL may restart from here.
    fn turn_into(&mut self, seen: Seen, batches: &mut Vec<Batch>) -> Result<bool> {
        match self.turn(seen, Room::none(), true)? {
            Turn::Nothing => Ok(self.source.view().restartable),
            Turn::Held => Ok(false),
            Turn::Batch(batch) => {
                batches.push(*batch);
                Ok(self.source.view().restartable)
            }
            Turn::Broken(why) => Err(Error::new(ErrorKind::Corrupt, why.message)),
        }
    }

    /// The next bytes of the job in front.
    pub(crate) fn step(&mut self) -> Result<Option<Piece>> {
        let Some(job) = self.jobs.first_mut() else {
            return Ok(None);
        };
        let source = &mut self.source;
        job.step(PART_BYTES, &mut |page, into| {
            source.read_page(Side::Old, page, into)
        })
        .map(Some)
    }

    /// Begins a snapshot of the captured state.
    pub(crate) fn begin_snapshot(&mut self, now: Timestamp) -> Result<()> {
        let meta = FileMeta {
            range: TxidRange::snapshot(self.place.txid),
            page_size: self.place.page_size,
            count: self.place.page_count,
            stream: self.stream,
            wal: None,
            mark: Mark::None,
            seen: Seen::at(now),
            tracked: self.tracked,
        };
        self.jobs
            .push(ImageJob::snapshot(meta, self.position(), &self.scratch)?);
        Ok(())
    }

    /// Begins the merged files whose period ended before `now`; whether a period ended, even if it
    /// needs no file.
    pub(crate) fn begin_merges(&mut self, now: Timestamp) -> Result<bool> {
        let before = self.levels.boundary();
        for due in self.levels.due(now, self.position()) {
            let meta = FileMeta {
                range: due.range,
                page_size: self.place.page_size,
                count: self.place.page_count,
                stream: self.stream,
                wal: None,
                mark: Mark::None,
                seen: due.seen,
                tracked: self.tracked,
            };
            let job = ImageJob::merge(
                meta,
                due.level,
                due.before,
                self.position(),
                due.pages,
                &self.scratch,
            )?;
            self.jobs.push(job);
        }
        Ok(self.levels.boundary() != before)
    }
}

/// Reads a page as a batch has it.
type ReadPage<'a> = Box<dyn FnMut(&mut Source, PageNumber, &mut Vec<u8>) -> Result<()> + 'a>;

/// A batch that is read from the transaction that rests.
struct Resting {
    range: TxidRange,
    candidates: RoaringBitmap,
    wal: WalSpan,
    frames: u64,
    rebase: Option<Rebase>,
}

/// A batch before it is encoded.
struct Draft {
    meta: FileMeta,
    candidates: RoaringBitmap,
    captured: Captured,
    frames: u64,
    rebase: Option<Rebase>,
}

enum Changed {
    Few(Entries),
    Many(Box<Huge>),
}

struct BatchPages<'a> {
    source: &'a mut Source,
    table: &'a PageTable,
    read: ReadPage<'a>,
    changed: Changed,
    set: RoaringBitmap,
}

impl Pages for BatchPages<'_> {
    fn read(&mut self, page: PageNumber, into: &mut Vec<u8>) -> Result<()> {
        (self.read)(self.source, page, into)
    }

    fn table(&self) -> &PageTable {
        self.table
    }

    fn changed(&mut self, page: PageNumber, sum: PageSum) -> Result<()> {
        self.set.insert(page.get());
        match &mut self.changed {
            Changed::Few(entries) => entries.push(page, sum),
            Changed::Many(huge) => huge.push(page, sum),
        }
    }
}

enum Sink {
    Memory(Vec<u8>),
    Spool(Staged),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Memory(buffer) => buffer.write(bytes),
            Self::Spool(staged) => staged.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Spool(staged) => staged.flush(),
        }
    }
}

fn broken(reason: &'static str, message: impl ToString) -> Turn {
    Turn::Broken(Rebase {
        reason,
        message: message.to_string(),
    })
}

fn out_of_txids() -> Error {
    Error::new(
        ErrorKind::Exhausted,
        "the stream has used up its transaction ids",
    )
}
