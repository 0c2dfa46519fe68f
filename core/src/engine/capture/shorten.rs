//! Checkpoints: the log is copied back and let restart, so that it stays short.

use std::time::Duration;

use super::{Batch, Capture, Turn};
use crate::engine::budget::Room;
use crate::engine::checkpoint::{BARRIER_LIMIT, Hold, Outcome};
use crate::engine::encode::Seen;
use crate::error::{Error, ErrorKind, Result};

/// Passive checkpoints in a row before the barrier, and the frames that it may leave for behind it: they
/// are copied and synced while writers wait.
const PASSES: u32 = 2;
const SHORT_REST: u32 = 1000;

/// How often and how long somebody else's checkpoint is waited for behind the barrier: it does our work, and as
/// long as it runs its writer waits anyway.
const BUSY_TRIES: u32 = 15;
const BUSY_PAUSE: Duration = Duration::from_millis(1);

impl Capture {
    /// Copies the WAL back and tries to let it restart, so that it stays short.
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
}
