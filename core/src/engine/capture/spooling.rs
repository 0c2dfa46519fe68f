//! Batches out of memory: into the spool, or away once they are stored.

use std::collections::VecDeque;

use super::{Batch, Body, Capture};
use crate::engine::join;
use crate::error::Result;
use crate::ltx::HEADER_BYTES;
use crate::state::PageSets;

impl Capture {
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
}
