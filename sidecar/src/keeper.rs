//! Following the configuration while the databases are followed: a changed file, and files that patterns come to mean.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use walrust_core::config::{Rescan, Resolved};
use walrust_core::engine::Wanted;
use walrust_core::process::blocking;
use walrust_core::serve::Board;

use crate::configuration::{Configuration, Source};
use crate::mount::Mount;
use crate::reloads::Reloads;

/// How often it is looked without an event: where patterns stand, and where only a changed file may come.
const LOOKS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// Keeps what is wanted up to date.
pub(crate) struct Keeper {
    source: Source,
    board: Arc<Board>,
    mount: Mount,
    /// In force.
    current: Configuration,
    rescan: Rescan,
    reloads: Reloads,
    sender: watch::Sender<Wanted>,
}

impl Keeper {
    /// Keeps the databases of `current`.
    pub(crate) fn new(source: Source, board: Arc<Board>, current: Configuration) -> Self {
        let rescan = Rescan::new(&current.resolved);
        Self {
            mount: Mount::of(source.path()),
            sender: watch::Sender::new(Arc::new(rescan.wanted().to_vec())),
            reloads: Reloads::of(board.clone()),
            source,
            board,
            current,
            rescan,
        }
    }

    /// What is wanted, now and later.
    pub(crate) fn wanted(&self) -> watch::Receiver<Wanted> {
        self.sender.subscribe()
    }

    /// Follows the file and the patterns until something changes that holds for the process as a whole; gives the
    /// configuration that it is to go on with.
    pub(crate) async fn run(mut self) -> Configuration {
        loop {
            let pause = match Rescan::is_worthwhile(&self.current.resolved) {
                true => LOOKS.0,
                false => LOOKS.1,
            };
            self.mount.changed(pause).await;
            let source = self.source.clone();
            match blocking(move || source.resolve(source.read()?)).await {
                Ok(found) if !found.same_process(&self.current) => {
                    self.taken(&found);
                    tracing::info!("the store's settings changed: all databases are opened anew");
                    return found;
                }
                Ok(found) => self.apply(found),
                Err(error) => self
                    .reloads
                    .refused(&error, "the one before stays in force"),
            }
        }
    }

    fn apply(&mut self, found: Configuration) {
        self.taken(&found);
        if found.wants_restart(&self.current) && found.file.hash != self.current.file.hash {
            tracing::warn!("listeners and the log's format change at the next start");
        }
        let reread = found.file.hash != self.current.file.hash;
        let changed = match reread {
            // What another file does not name is not wanted, from now on.
            true => {
                let before = std::mem::replace(&mut self.rescan, Rescan::new(&found.resolved));
                before.wanted() != self.rescan.wanted()
            }
            false => self.rescan.scanned(&found.resolved),
        };
        if changed {
            self.sender
                .send_replace(Arc::new(self.rescan.wanted().to_vec()));
        }
        show(&self.board, &found.resolved);
        self.current = found;
    }

    fn taken(&mut self, found: &Configuration) {
        let changed = found.file.hash != self.current.file.hash;
        self.reloads.taken(&found.file.hash, changed);
    }
}

/// Shows what is left alone and what is not there.
pub(crate) fn show(board: &Board, resolved: &Resolved) {
    board.scanned(resolved.paused(), resolved.missing());
}
