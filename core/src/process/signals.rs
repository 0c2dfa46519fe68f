//! SIGINT and SIGTERM.

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

use crate::error::{Error, ErrorKind, Result};

/// Both signals that ask a process to end.
#[derive(Debug)]
pub struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Signals {
    /// From now on they no longer kill the process. Must be called on a runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).map_err(|error| Error::io("signals", error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one, and says which it is.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
        }
    }

    /// `work`, unless a signal comes first: then it is dropped, which removes what it staged.
    pub async fn interrupting<T>(mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            result = work => result,
            _ = self.next() => Err(Error::new(ErrorKind::Cancelled, "stopped by a signal")),
        }
    }
}
