//! What is at a replica's place, and what proves that it holds what the state file says.
//!
//! | proof | when |
//! |---|---|
//! | the WAL ends exactly where we left it | it was not copied back by somebody else meanwhile |
//! | one pass: the pages sum up to the state's checksum and digest | else |
//! | the same with the state that was to come | we died between commit and state file |

use super::header::{TrueHeader, is_dressed};
use super::home::{Home, Replace, file_id, foreign, require_ours};
use super::judge::Reason;
use super::local::{Former, Local, saved, wal_place};
use super::state_file::{Found, ReplicaState, read};
use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::{Committed, PageWriter};
use crate::state::{Fill, PageTable, Proof};
use crate::types::{DatabaseSum, PageNumber, PageSum};

/// What is at a replica's place.
pub(super) enum Opened {
    /// No file. Whether there is a state file says whether there was one.
    Absent {
        /// Whether a replica was here.
        known: bool,
    },
    /// A file that is not ours, and may be replaced.
    Foreign,
    /// A replica, proved or not.
    Replica(Box<Local>),
    /// Something that must be made anew.
    Broken(Reason, Box<Former>),
}

/// Opens what is at the place. Blocking.
pub(super) fn open(home: &Home) -> Result<Opened> {
    let found = read(&home.state_path)?;
    let Some(id) = file_id(&home.local)? else {
        return Ok(Opened::Absent {
            known: found != Found::Missing,
        });
    };
    if let Err(error) = require_ours(&home.local, &home.source, &found) {
        return match home.replace {
            Replace::Yes => Ok(Opened::Foreign),
            Replace::No => Err(error),
        };
    }
    let Found::State(state) = found else {
        let db = open_db(home)?;
        let former = Former { db, state: None };
        return Ok(Opened::Broken(Reason::StateDamaged, Box::new(former)));
    };
    let state = *state;
    let ours = id == state.file || Some(id) == state.replaces;
    let Some(mut db) = open_db(home)? else {
        return not_proved(home, ours, Reason::FileDamaged, None, state);
    };
    let committed = match db.look() {
        Ok(committed) => committed,
        Err(error) if is_damage(&error) => {
            tracing::warn!(%error, "the replica's file cannot be read as a database");
            return not_proved(home, ours, Reason::FileDamaged, None, state);
        }
        Err(error) => return Err(error),
    };
    if committed.page_size != state.page_size {
        let reason = match Some(id) == state.replaces {
            true => Reason::Interrupted,
            false => Reason::LocalWrite,
        };
        return not_proved(home, ours, reason, Some(db), state);
    }
    let (mut table, damage) = PageTable::open(&home.dir, 0)?;
    for damage in damage {
        tracing::warn!(path = %home.dir.path().display(), %damage, "state is damaged; it counts as absent");
    }
    if id == state.file && is_at(&committed, &state) && table_is_at(&mut table, &state)? {
        return Ok(Opened::Replica(Box::new(Local {
            db,
            table,
            state,
            committed,
            proved: true,
        })));
    }
    prove(home, db, table, state)
}

/// Nothing where the file is no database that we can write.
fn open_db(home: &Home) -> Result<Option<PageWriter>> {
    match PageWriter::open(&home.local) {
        Ok(db) => Ok(Some(db)),
        Err(error) if is_damage(&error) => {
            tracing::warn!(%error, "the replica's file cannot be opened as a database");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported)
}

fn not_proved(
    home: &Home,
    ours: bool,
    reason: Reason,
    db: Option<PageWriter>,
    state: ReplicaState,
) -> Result<Opened> {
    let former = Former {
        db,
        state: Some(state),
    };
    match (ours, home.replace) {
        (true, _) => Ok(Opened::Broken(reason, Box::new(former))),
        (false, Replace::Yes) => Ok(Opened::Foreign),
        (false, Replace::No) => Err(foreign(
            &home.local,
            "another file than the replica that its state file speaks of",
        )),
    }
}

/// The WAL ends where we left it, so nothing was committed since: its salts are new with each restart, and the
/// running checksum covers every frame.
fn is_at(committed: &Committed, state: &ReplicaState) -> bool {
    let end = committed.end.map(wal_place);
    end.is_some() && end == state.wal && committed.page_count == state.page_count
}

fn table_is_at(table: &mut PageTable, state: &ReplicaState) -> Result<bool> {
    let at = table.saved().is_some_and(|saved| {
        saved.place.txid == state.current_txid && saved.place.sum == state.sum
    });
    Ok(at && table.prove()? == Proof::Proven)
}

/// Reads every page, makes the page table anew, and compares with the state, and with what was to come after it.
fn prove(
    home: &Home,
    mut db: PageWriter,
    mut table: PageTable,
    state: ReplicaState,
) -> Result<Opened> {
    let id = db.file_id();
    let ours = id == state.file || Some(id) == state.replaces;
    let Some(pass) = Pass::run(&mut db, &table, &state.true_header)? else {
        return not_proved(home, ours, Reason::FileDamaged, None, state);
    };
    let intended = home.intended()?;
    let intended = intended.filter(|next| next.file == id && pass.is_of(next));
    let (mut state, pass, proved) = match (pass.is_of(&state), intended) {
        (true, _) => (state, pass, true),
        (false, Some(next)) => {
            // The table wants the sum of the true page 1.
            let again = Pass::run(&mut db, &table, &next.true_header)?;
            match again.filter(|pass| pass.is_of(&next)) {
                Some(pass) => (next, pass, true),
                None => return not_proved(home, ours, Reason::FileDamaged, None, state),
            }
        }
        (false, None) => (state, pass, false),
    };
    if !proved && id != state.file {
        let interrupted = Some(id) == state.replaces;
        return not_proved(home, interrupted, Reason::Interrupted, Some(db), state);
    }
    state.sum = pass.fill.sum();
    state.page_count = pass.committed.page_count;
    table.install(pass.fill, saved(&state, state.sum))?;
    if proved {
        state.file = id;
        state.replaces = None;
        state.wal = pass.committed.end.map(wal_place);
        state.write(&home.state_path, home.clock.now())?;
    }
    Ok(Opened::Replica(Box::new(Local {
        db,
        table,
        state,
        committed: pass.committed,
        proved,
    })))
}

/// What one pass over all pages shows.
pub(super) struct Pass {
    /// Page 1 as it is shown.
    first: Vec<u8>,
    /// Over all other pages.
    rest: DatabaseSum,
    /// Over all pages, page 1 with the header that was given.
    fill: Fill,
    committed: Committed,
}

impl Pass {
    /// Nothing where the file is damaged.
    pub(super) fn run(
        db: &mut PageWriter,
        table: &PageTable,
        header: &TrueHeader,
    ) -> Result<Option<Self>> {
        let page_size = db.look()?.page_size;
        let (mut fill, mut first) = (table.fill(page_size)?, Vec::new());
        let mut rest = DatabaseSum::EMPTY;
        let read = db.read_all(&mut |page, data| {
            if page != PageNumber::FIRST {
                let sum = PageSum::of(page, data);
                rest.add(sum);
                return fill.push(page, sum);
            }
            first = data.to_vec();
            fill.push(page, true_first(data, header))
        });
        match read {
            Ok(committed) => Ok(Some(Self {
                first,
                rest,
                fill,
                committed,
            })),
            Err(error) if is_damage(&error) => {
                tracing::warn!(%error, "the replica's pages cannot all be read");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the replica holds exactly this state.
    pub(super) fn is_of(&self, state: &ReplicaState) -> bool {
        let mut sum = self.rest;
        sum.add(true_first(&self.first, &state.true_header));
        let count = self.committed.page_count;
        sum == state.sum
            && count == state.page_count
            && is_dressed(&self.first, count, state.shown_schema())
    }
}

/// The sum of page 1 as the source has it.
fn true_first(shown: &[u8], header: &TrueHeader) -> PageSum {
    let mut page = shown.to_vec();
    header.restore(&mut page);
    PageSum::of(PageNumber::FIRST, &page)
}
