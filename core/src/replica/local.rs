//! An open replica: its database, its page table, and the state that both hold.

use std::time::Duration;

use super::home::Home;
use super::judge::Position;
use super::proof::Pass;
use super::state_file::{ReplicaState, Standing};
use crate::error::Result;
use crate::sqlite::{Checkpointed, Committed, Identity, PageWriter};
use crate::state::{Boot, Head, PageTable, Place, Saved, WalPlace};
use crate::types::DatabaseSum;
use crate::wal::WalEnd;

/// A WAL of this length, in bytes of pages, is made to begin anew before the next file.
const LONG_WAL: u64 = 8 << 20;

/// How long the next file then waits for readers. While the WAL is long each file does.
const WAL_PATIENCE: Duration = Duration::from_millis(250);

/// Whether a replica is still what we left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Intact {
    /// It is.
    Yes,
    /// Somebody else committed.
    Written,
    /// The name leads to no file or to another one.
    Moved,
}

/// What is left of a replica that is to be made anew.
#[derive(Default)]
pub(super) struct Former {
    /// The database, if it can be written.
    pub(super) db: Option<PageWriter>,
    /// Its state, if it is known.
    pub(super) state: Option<ReplicaState>,
}

/// An open replica.
pub(super) struct Local {
    pub(super) db: PageWriter,
    pub(super) table: PageTable,
    pub(super) state: ReplicaState,
    pub(super) committed: Committed,
    /// Whether the file is proved to hold the state. If not, the table holds the sums of what it does hold.
    pub(super) proved: bool,
}

/// The place in the WAL as the state file keeps it.
pub(super) fn wal_place(end: WalEnd) -> WalPlace {
    WalPlace {
        salt: end.salt,
        frame: end.frames,
        checksum: end.checksum,
        big_endian: end.big_endian,
        boot: Boot::current(),
    }
}

/// The state as the page table keeps it: as a restore of this state would leave it, so that a watcher of what
/// was a replica finds a history that it may only go on with where it ends (invariant 14).
pub(super) fn saved(state: &ReplicaState, sum: DatabaseSum) -> Saved {
    Saved {
        lineage: state.stream.lineage,
        epoch: None,
        place: place(state, sum),
        restored_head: Some(Head {
            txid: state.current_txid,
            stream: Some(state.stream),
            sum: Some(sum),
        }),
        rewind_from: None,
        last_snapshot: None,
    }
}

fn place(state: &ReplicaState, sum: DatabaseSum) -> Place {
    Place {
        txid: state.current_txid,
        sum,
        page_size: state.page_size,
        page_count: state.page_count,
        // The replica's own page 1 is another than the table's, so that a place in its WAL proves nothing.
        wal: None,
    }
}

impl Local {
    /// Where the replica stands.
    pub(super) fn position(&self) -> Position {
        Position {
            txid: self.state.current_txid,
            stream: self.state.stream,
            checksum: self.state.sum.checksum,
            page_size: self.state.page_size,
            proved: self.proved,
        }
    }

    /// Whether nobody else has written, and the file bears its name still.
    pub(super) fn check(&mut self) -> Result<Intact> {
        Ok(match self.db.identity()? {
            Identity::Same if self.db.look()?.is(&self.committed) => Intact::Yes,
            Identity::Same => Intact::Written,
            Identity::Gone | Identity::Replaced => Intact::Moved,
        })
    }

    /// Reads every page and says whether they are those of the state.
    pub(super) fn holds_state(&mut self) -> Result<bool> {
        let pass = Pass::run(&mut self.db, &self.table, &self.state.true_header)?;
        Ok(pass.is_some_and(|pass| pass.is_of(&self.state)))
    }

    /// Lets the WAL begin anew where it has become long, though readers come and go all the time. One that stays for
    /// longer than we wait keeps it growing.
    pub(super) fn keep_wal_short(&mut self) -> Result<()> {
        let frames = self.committed.end.map_or(0, |end| end.frames);
        let length = u64::from(frames) * u64::from(self.state.page_size.get());
        match length > LONG_WAL {
            true => self.db.restart_wal(WAL_PATIENCE),
            false => Ok(()),
        }
    }

    /// Copies frames back, as far as no reader is in the way. Gives the length of the WAL in bytes and whether
    /// some of it waits for readers.
    pub(super) fn checkpoint(&mut self) -> Result<(u64, bool)> {
        const FRAME_HEADER: u64 = 24;
        let Checkpointed { log, done } = self.db.checkpoint()?;
        let frame = u64::from(self.state.page_size.get()) + FRAME_HEADER;
        Ok((u64::from(log) * frame, done < log))
    }

    /// Ends cleanly: the page table says where it ends, for a watcher of what is no replica any more.
    pub(super) fn close(mut self) -> Result<()> {
        if self.proved {
            let head = saved(&self.state, self.state.sum).restored_head;
            self.table.update(|saved| saved.restored_head = head)?;
        }
        self.db.close()
    }

    /// Moves to `standing`, which the database holds from now on, and writes that down. Without `committed`
    /// somebody else has committed since: then no place in the WAL is that state's.
    pub(super) fn arrive(
        &mut self,
        home: &Home,
        standing: &Standing,
        committed: Option<Committed>,
    ) -> Result<()> {
        self.state.advance(standing);
        self.state.wal = committed.and_then(|committed| committed.end).map(wal_place);
        self.proved = committed.is_some();
        if let Some(committed) = committed {
            self.committed = committed;
        }
        self.state.write(&home.state_path, home.clock.now())
    }

    /// What a renewal needs of it.
    pub(super) fn into_former(self) -> Former {
        Former {
            db: Some(self.db),
            state: Some(self.state),
        }
    }
}
