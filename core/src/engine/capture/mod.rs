//! The blocking half of one watched database: it owns the read transactions and turns what SQLite
//! commits into files.
//!
//! Between two calls exactly one read transaction is open, at the *captured* state, which is also the
//! newest state of the page table. So nothing that was committed since can vanish (invariant 2).
//!
//! | module | what is there |
//! |---|---|
//! | `batch` | what a turn makes: a file that waits to be stored |
//! | `write` | a batch encoded, and the state moved behind it |
//! | `spooling` | batches out of memory: into the spool, or stored |
//! | `resting` | batches read from the transaction that rests: rebases, and what was gathered |
//! | `shorten` | checkpoints and the barrier |
//! | `images` | snapshots and merged files |

mod batch;
mod images;
mod resting;
mod shorten;
mod spooling;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use roaring::RoaringBitmap;

use super::budget::Room;
use super::checkpoint::Hold;
use super::encode::Seen;
use super::frames::{self, Stretch};
use super::image::{ImageJob, ImageKind};
use super::levels::Levels;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::WalSpan;
use crate::sqlite::{Side, Source, View};
use crate::state::{Boot, PageTable, Place, Spool, StateDir, WalPlace};
use crate::types::{PageNumber, Position, StreamId};
use crate::wal::WalCursor;

pub(crate) use self::batch::{Batch, Body, Rebase};
pub(crate) use self::images::PART_BYTES;

/// Changed pages whose sums are kept in memory until the batch is stored; a larger batch goes through
/// the disk. 28 bytes each.
const LAYER_PAGES: u64 = 64 * 1024;

/// Batches that wait in memory, each a layer over the page table.
const MOST_LAYERS: usize = 64;

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
            // while it does nothing behind it can be copied back and overwritten.
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
