//! A replica from its start to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::event::{Happening, ReplicaEvent};
use super::follow::{Batch, Follower};
use super::home::{Home, Replace};
use super::rhythm::Rhythm;
use super::status::{ReplicaCondition, ReplicaStatus};
use crate::clock::Clock;
use crate::engine::StandingError;
use crate::error::{Error, ErrorKind, Result};
use crate::process::blocking;
use crate::sqlite::require_compile_options;
use crate::store::{Layout, Store};
use crate::types::Timestamp;

/// The longest pause after errors, where the interval is shorter.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// When a replica ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Until {
    /// When told to; what fails is tried again.
    #[default]
    Stopped,
    /// When it is at the newest state of its source, or at the first error.
    CaughtUp,
}

/// A replica to keep.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// Where its source is stored. Read only.
    pub store: Arc<dyn Store>,
    /// The source's keys there.
    pub layout: Layout,
    /// The replica's file.
    pub local: PathBuf,
    /// The time from one look at the source to the next.
    pub interval: Duration,
    /// Whether another file may be replaced.
    pub replace: Replace,
    /// Whether the file may lie on a network file system.
    pub allow_network_fs: bool,
    /// When to end.
    pub until: Until,
    /// Whether also what cannot pass by itself is tried again: it may be mended from outside.
    pub patient: bool,
    /// The time of day.
    pub clock: Clock,
}

impl ReplicaOptions {
    /// The source as people name it: `s3://bucket/prefix/name`.
    pub fn source(&self) -> String {
        let folder = self.layout.folder();
        format!("{}/{}", self.store.location(), folder.trim_end_matches('/'))
    }
}

/// A replica that is about to be kept.
pub struct Replica {
    options: ReplicaOptions,
    events: mpsc::Sender<ReplicaEvent>,
    status: watch::Sender<ReplicaStatus>,
}

impl Replica {
    /// Prepares everything; nothing is opened before [`Replica::run`].
    ///
    /// # Errors
    /// `Internal` if this program's SQLite lacks what walrust needs.
    pub fn new(options: ReplicaOptions, events: mpsc::Sender<ReplicaEvent>) -> Result<Self> {
        require_compile_options()?;
        let name = options.layout.name().clone();
        let first = ReplicaStatus::new(name, options.source(), options.local.clone());
        Ok(Self {
            options,
            events,
            status: watch::Sender::new(first),
        })
    }

    /// What is known of it, now and later.
    pub fn status(&self) -> watch::Receiver<ReplicaStatus> {
        self.status.subscribe()
    }

    /// Keeps the replica until `stop`, or as long as [`ReplicaOptions::until`] says.
    ///
    /// # Errors
    /// What cannot pass by itself, met before the source was looked at once: no such database, access denied, a
    /// file that may not be replaced, a lock that somebody holds. Later errors stand in the status, and only a
    /// foreign file at the replica's place ends it.
    ///
    /// # Cancel safety
    /// Dropping the future is as good as killing the process: the replica stays valid. A stop is cleaner.
    pub async fn run(self, stop: CancellationToken) -> Result<()> {
        let options = &self.options;
        let (local, source) = (options.local.clone(), options.source());
        let (replace, clock) = (options.replace, options.clock.clone());
        let network = options.allow_network_fs;
        let mut pause = options.interval;
        let home = loop {
            let (local, source, clock) = (local.clone(), source.clone(), clock.clone());
            let opened =
                blocking(move || Home::open(&local, source, replace, network, clock)).await;
            let error = match opened {
                Ok(home) => break home,
                Err(error) if !options.patient => return Err(error),
                Err(error) => error,
            };
            tracing::error!(db = %options.layout.name(), kind = error.kind().name(), "{error}");
            let standing = StandingError::new(&error, options.clock.now());
            self.status.send_modify(|status| {
                status.errors += 1;
                status.error = Some(standing);
            });
            if timeout(pause, stop.cancelled()).await.is_ok() {
                return Ok(());
            }
            pause = pause
                .saturating_mul(2)
                .min(LONGEST_PAUSE.max(options.interval));
        };
        let (store, layout) = (options.store.clone(), options.layout.clone());
        let follower = Follower::new(store, layout, Arc::new(home), stop);
        let interval = options.interval;
        Keeper {
            options: self.options,
            events: self.events,
            status: self.status,
            at_head: false,
            seen: false,
            failures: 0,
            rhythm: Rhythm::new(interval),
        }
        .run(follower)
        .await
    }
}

/// Whether an error stays until somebody does something.
const fn is_permanent(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Unavailable | ErrorKind::Busy | ErrorKind::Exhausted => false,
        ErrorKind::Denied
        | ErrorKind::NotFound
        | ErrorKind::Exists
        | ErrorKind::Fenced
        | ErrorKind::Corrupt
        | ErrorKind::Invalid
        | ErrorKind::Unsupported
        | ErrorKind::NotDurable
        | ErrorKind::Cancelled
        | ErrorKind::Internal => true,
    }
}

/// The loop around the polls.
struct Keeper {
    options: ReplicaOptions,
    events: mpsc::Sender<ReplicaEvent>,
    status: watch::Sender<ReplicaStatus>,
    /// Whether listeners know that the replica is at the newest state.
    at_head: bool,
    /// Whether the source was looked at with success.
    seen: bool,
    failures: u32,
    rhythm: Rhythm,
}

impl Keeper {
    async fn run(mut self, mut follower: Follower) -> Result<()> {
        let stop = follower.stop.clone();
        let ended = loop {
            let began = Instant::now();
            let (batch, polled) = follower.poll().await;
            let now = self.options.clock.now();
            self.note(&follower, &batch, now);
            self.tell_work(&batch, now).await;
            match polled {
                Ok(()) => {
                    self.went_well(now).await;
                    if self.options.until == Until::CaughtUp {
                        break Ok(());
                    }
                }
                Err(_) if stop.is_cancelled() => break Ok(()),
                Err(error) if self.ends_at(&error) => break Err(error),
                Err(error) => self.failed(&error, now).await,
            }
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                () = self.pause(began, batch.files > 0) => {}
            }
        };
        let closed = follower.close().await;
        ended.and(closed)
    }

    fn ends_at(&self, error: &Error) -> bool {
        let once = self.options.until == Until::CaughtUp;
        // Somebody put another file where the replica was.
        let foreign = error.kind() == ErrorKind::Exists;
        let lasts = foreign || (!self.seen && is_permanent(error.kind()));
        once || (lasts && !self.options.patient)
    }

    /// Waits for the next look: about an interval after the last one `began`, and longer after failures.
    fn pause(&mut self, began: Instant, news: bool) -> Sleep {
        let interval = self.options.interval;
        if self.failures == 0 {
            return sleep_until(began + self.rhythm.next(news));
        }
        self.rhythm = Rhythm::new(interval);
        let longest = LONGEST_PAUSE.max(interval);
        let doubled = interval.saturating_mul(1 << self.failures.min(16));
        // Replicas of one source do not come back together.
        sleep(doubled.min(longest).mul_f64(0.75 + fastrand::f64() / 4.0))
    }

    /// Takes down what the replica holds now and what was seen of its source.
    fn note(&self, follower: &Follower, batch: &Batch, now: Timestamp) {
        let local = follower.local().map(|local| &local.state);
        let held = local.map(|state| (state.current_txid, state.commit_time));
        self.status.send_modify(|status| {
            if let Some((txid, time)) = held {
                (status.txid, status.commit_time) = (Some(txid), Some(time));
            }
            if let Some((txid, time)) = batch.head {
                status.head_txid = Some(txid);
                // Of a file that is applied the exact time is known.
                status.head_time = match status.txid >= Some(txid) {
                    true => status.commit_time,
                    false => time.or(status.head_time),
                };
            }
            if batch.files > 0 || batch.bootstrapped.is_some() {
                status.last_applied = Some(now);
                status.wal_bytes = batch.wal_bytes;
            }
            if batch.bootstrapped.is_some_and(|made| made.reason.is_some()) {
                status.renewals += 1;
            }
        });
    }

    /// Tells what a poll did, whatever came in its way then.
    async fn tell_work(&mut self, batch: &Batch, now: Timestamp) {
        let (txid, lag_millis) = {
            let status = self.status.borrow();
            (status.txid, status.behind_millis())
        };
        let Some(txid) = txid else { return };
        if let Some(made) = batch.bootstrapped {
            self.at_head = false;
            let what = Happening::Bootstrapped {
                txid,
                files: made.files,
                pages: made.pages,
                lag_millis,
                reason: made.reason,
            };
            self.tell(now, what).await;
        }
        if batch.files > 0 {
            let what = Happening::Applied {
                txid,
                files: batch.files,
                pages: batch.pages,
                lag_millis,
            };
            self.tell(now, what).await;
        }
    }

    async fn went_well(&mut self, now: Timestamp) {
        (self.seen, self.failures) = (true, 0);
        self.status.send_modify(|status| {
            status.state = ReplicaCondition::Replica;
            status.last_poll = Some(now);
            status.error = None;
        });
        let (txid, head) = {
            let status = self.status.borrow();
            (status.txid, status.head_txid)
        };
        // Behind a gap that may yet close there is more.
        if let Some(txid) = txid.filter(|txid| Some(*txid) >= head)
            && !std::mem::replace(&mut self.at_head, true)
        {
            self.tell(now, Happening::CaughtUp { txid }).await;
        }
    }

    async fn failed(&mut self, error: &Error, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        self.at_head = false;
        let standing = self.status.borrow().error.clone();
        let kind = error.kind();
        // What passes has many texts: no route, refused, timed out.
        let same = standing.as_ref().is_some_and(|standing| {
            standing.kind == kind.name()
                && (kind.is_transient() || standing.message == error.to_string())
        });
        self.status.send_modify(|status| {
            status.errors += 1;
            if status.txid.is_some() {
                status.state = ReplicaCondition::Erroring;
            }
            let since = standing
                .filter(|_| same)
                .map_or(now, |standing| standing.since);
            status.error = Some(StandingError::new(error, since));
        });
        let txid = self.status.borrow().txid;
        // One error is told once, however often it is met.
        if !same {
            self.tell(
                now,
                Happening::Error {
                    kind: error.kind(),
                    message: error.to_string(),
                    txid,
                },
            )
            .await;
        }
    }

    async fn tell(&self, time: Timestamp, what: Happening) {
        let event = ReplicaEvent {
            time,
            database: self.options.local.clone(),
            name: self.options.layout.name().clone(),
            what,
        };
        // Whoever does not listen misses it.
        let _ = self.events.send(event).await;
    }
}
