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
mod client;
mod control;
mod health;
mod heartbeat;
mod http;
mod metrics;
mod status;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use std::time::Duration;

use axum::Router;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::engine::Asked;
use crate::error::Result;

pub use board::{Board, Facts, Mode, Seen, Subject, View};
pub use client::Contact;
pub use control::{Detached, LONGEST_LEAVE, LONGEST_WAIT, SYNC_TIME, Synced, Trouble};
pub use health::{Reason, started, unready};
pub use heartbeat::Heartbeat;
pub use http::{Listener, control, read_only};
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
        self.routes(http::read_only(board), address).await
    }

    /// Serves `router` at `address`, as [`Serving::read_only`] serves its own.
    ///
    /// # Errors
    /// Those of [`Listener::bind`]; then nothing new is served.
    pub async fn routes(&mut self, router: Router, address: SocketAddr) -> Result<SocketAddr> {
        let listener = Listener::bind(address).await?;
        let address = listener.address();
        self.tasks.spawn(listener.serve(router, ASK_TIME));
        Ok(address)
    }

    /// Takes requests at `address`: whoever reaches it may steer the watch. Says where, as
    /// [`Serving::read_only`] does.
    ///
    /// # Errors
    /// Those of [`Listener::bind`]; then nothing new is served.
    pub async fn control(&mut self, board: Arc<Board>, address: SocketAddr) -> Result<SocketAddr> {
        let listener = Listener::bind(address).await?;
        let address = listener.address();
        self.tasks
            .spawn(listener.serve(http::control(board), CONTROL_TIME));
        Ok(address)
    }

    /// Tells a monitor of the health of `board`.
    pub fn heartbeat(&mut self, board: Arc<Board>, heartbeat: Heartbeat) {
        self.tasks.spawn(heartbeat.beat(board));
    }

    /// Answers what is asked through the state directories.
    pub fn requests(&mut self, board: Arc<Board>, mut requests: mpsc::Receiver<Asked>) {
        self.tasks.spawn(async move {
            let mut answers = JoinSet::new();
            while let Some(asked) = requests.recv().await {
                while answers.try_join_next().is_some() {}
                // Each socket lets in no more than a few at once.
                answers.spawn(control::answer(board.clone(), asked));
            }
        });
    }
}

/// How long a connection may last whose one request asks something quick.
const ASK_TIME: Duration = Duration::from_secs(30);
/// The same where a request may wait for the store.
const CONTROL_TIME: Duration = Duration::from_secs(3630);
