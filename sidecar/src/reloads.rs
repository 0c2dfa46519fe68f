//! What became of changed configurations: told once each, in the log and on the board.

use std::sync::Arc;

use walrust_core::Error;
use walrust_core::serve::Board;

/// Tells of configurations that are in use and of those that are refused.
#[derive(Debug)]
pub(crate) struct Reloads {
    board: Arc<Board>,
    /// What was last refused, so that it is told once.
    refused: Option<String>,
}

impl Reloads {
    pub(crate) const fn of(board: Arc<Board>) -> Self {
        Self {
            board,
            refused: None,
        }
    }

    /// The file of this hash is in use: from now on if it `changed`, or again after another was refused.
    pub(crate) fn taken(&mut self, hash: &str, changed: bool) {
        let again = self.refused.take().is_some();
        if changed || again {
            tracing::info!(%hash, "the configuration is in use");
            self.board.reloaded(Ok(hash.to_owned()));
        }
    }

    /// A file is refused, and `instead` holds.
    pub(crate) fn refused(&mut self, error: &Error, instead: &str) {
        let message = error.to_string();
        if self.refused.as_ref() != Some(&message) {
            tracing::error!(
                kind = error.kind().name(),
                "the changed configuration is refused, {instead}: {message}"
            );
            self.board.reloaded(Err(message.clone()));
            self.refused = Some(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use walrust_core::ErrorKind;
    use walrust_core::clock::Clock;
    use walrust_core::serve::{Facts, Mode, Subject};
    use walrust_core::store::Meter;

    use super::*;

    #[test]
    fn a_refused_file_is_told_once_and_forgotten_when_the_old_one_is_back() {
        let clock = Clock::system();
        let facts = Facts::new(Mode::Replicate, Some("old".to_owned()), clock.now());
        let subject = Subject::Replicas(Vec::new());
        let board = Arc::new(Board::new(facts, subject, Meter::default(), clock));
        let mut reloads = Reloads::of(board.clone());
        reloads.taken("old", false);
        assert_eq!(board.look().reloads, [0, 0]);
        let error = Error::new(ErrorKind::Invalid, "no database is named");
        for _ in 0..2 {
            reloads.refused(&error, "nothing changes");
        }
        let view = board.look();
        assert_eq!(view.reloads, [0, 1]);
        assert_eq!(view.facts.config_error, Some(error.to_string()));
        reloads.taken("old", false);
        let view = board.look();
        assert_eq!(view.reloads, [1, 1]);
        assert_eq!(view.facts.config_error, None);
        assert_eq!(view.facts.config_hash.as_deref(), Some("old"));
    }
}
