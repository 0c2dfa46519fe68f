//! What a running process says of itself and takes from others: metrics, probes, status, and requests.
//!
//! ```text
//! engine -> DatabaseStatus, Counters -> Board -> View -> metrics | status | health   (pure)
//!                                                  ^
//! HTTP, state directory's socket ------------------+
//! ```
//!
//! The engine keeps what is known of each database beside its work; nothing here wakes it, and nobody who asks can
//! slow it down: connections, requests and their time are bounded. The program that watches makes a [`Board`] and
//! serves it; a database's file is never opened (invariant 10).

mod board;
mod health;
mod http;
mod metrics;
mod status;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::error::Result;

pub use board::{Board, Facts, Mode, Seen, View};
pub use health::{Reason, unready};
pub use http::{Listener, read_only};
pub use metrics::{Format, render};
pub use status::{DatabaseReport, ErrorReport, LeaseReport, StatusReport};

/// What is being served. Dropping it closes all of it.
#[derive(Debug, Default)]
pub struct Serving {
    tasks: JoinSet<()>,
}

impl Serving {
    /// Serves metrics, probes and status of `board` at `address`, and says where.
    ///
    /// # Errors
    /// Those of [`Listener::bind`]; then nothing new is served.
    pub async fn read_only(
        &mut self,
        board: Arc<Board>,
        address: SocketAddr,
    ) -> Result<SocketAddr> {
        let listener = Listener::bind(address).await?;
        let address = listener.address();
        self.tasks.spawn(listener.serve(http::read_only(board)));
        Ok(address)
    }
}
