//! One attached database: when to look, capture, checkpoint, ship and snapshot. The blocking half does
//! it; the uploads run beside.
//!
//! # Overview
//!
//! ```text
//! wake or timer -> look (peek) -> capture -> queue -> upload -> stored -> page table moves
//!                               \-> checkpoint when the WAL is long
//!                               \-> image (snapshot, merged file) -> parts -> upload
//! ```
//!
//! # Crash table
//!
//! | died | next start |
//! |---|---|
//! | after capture, before anything was stored or spooled | the WAL stands: captured again; it was restarted: a rebase |
//! | after the spool, before the page table moved | the spooled file is followed |
//! | after the PUT, before the page table moved | the stored file is found behind the state and followed |
//! | before the lease was ours | what was captured waits in the spool, or stands in the WAL |
//! | while an image was sent | its parts are aborted at the next start; a base is made again |
//!
//! # Cancellation
//!
//! The session ends when it is told to; then it captures the tail and ships it within the grace.

mod compaction;
mod images;
mod look;
mod publish;
mod standing;
mod uploads;

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until, timeout_at};

pub(super) use self::compaction::CompactionPolicy;
use self::compaction::Compactions;
use self::images::{Image, ImageNews};
use self::look::Gaze;
use self::publish::Index;
pub(super) use self::standing::Standing;
use super::backoff::Backoff;
use super::budget::Room;
use super::capture::{Batch, Body, Capture, Turn};
use super::checkpoint::{Barrier, CheckpointPolicy};
use super::encode::Seen;
use super::event::SnapshotReason;
use super::leave;
use super::open::Opened;
use super::ship::Shipped;
use super::status::DatabaseState;
use super::trigger::{Activity, SnapshotPolicy};
use super::watch::Until;
use super::worker::{Context, not_durable};
use crate::error::{Error, ErrorKind, Result};
use crate::types::{DatabaseSum, PageSize, Position, Timestamp, Txid};

/// How soon a place among the streaming images is asked for again.
const SLOT_PAUSE: Duration = Duration::from_millis(100);

/// How far off a deadline may lie where there is none.
const FAR: Duration = Duration::from_secs(3600);

/// How long a database is held for uploads before it is let alone; then the rest goes to the spool.
const LET_GO: Duration = Duration::from_secs(10);

/// How long the end of a session waits for what is on its way.
const SETTLE: Duration = Duration::from_secs(10);

/// What a running database is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Answer when everything committed before is durable, with the TXID.
    Sync(oneshot::Sender<Result<Txid>>),
    /// Take a snapshot now.
    Snapshot(oneshot::Sender<Result<Taken>>),
}

/// A snapshot that is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Taken {
    /// Its object.
    pub key: String,
    /// The state that it holds.
    pub txid: Txid,
    /// Checksum and digest of that state.
    pub sum: DatabaseSum,
    /// Size of the object in bytes; 0 if it was there already.
    pub bytes: u64,
    /// Pages in it; 0 if it was there already.
    pub pages: u64,
    /// Size of a page.
    pub page_size: PageSize,
    /// Whether the newest snapshot held the state already.
    pub skipped: bool,
}

/// When to do what for one database.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    pub(super) sync_interval: Duration,
    pub(super) snapshots: SnapshotPolicy,
    pub(super) compaction: CompactionPolicy,
    pub(super) checkpoint_pages: u32,
    pub(super) barrier: Barrier,
}

impl Policy {
    fn spacing(&self) -> Duration {
        spacing(self.sync_interval)
    }
}

/// How long after the last object the next one is made, under sustained writing. The rest of the interval
/// is for the upload, so that a commit is durable within it.
pub(crate) fn spacing(sync_interval: Duration) -> Duration {
    sync_interval * 39 / 50
}

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// Told to stop, and everything is durable.
    Drained,
    /// Told to let the database alone; what is not stored is spooled.
    LetGo,
    /// The file changed under us, or capture cannot go on: open it again.
    Reopen(Error),
    /// The spool is full: let go until the store answers.
    Full(Error),
}

/// One attached database.
pub(super) struct Session<'w> {
    context: &'w mut Context,
    standing: Standing,
    /// Where capture began, if the periods of merged files before it are not known yet.
    resumed: Option<Position>,
    /// Why the store did not answer last.
    unanswered: Option<Error>,
    policy: Policy,
    /// Nothing only while a blocking call has it, or after that died.
    capture: Option<Box<Capture>>,
    /// Files that are not stored, oldest first.
    queue: VecDeque<Batch>,
    upload: Option<JoinHandle<Result<Shipped>>>,
    upload_retry: Option<Backoff>,
    last_ship: Option<Instant>,
    /// More was captured by then than that object could hold: the rest was due too, and would be late in each
    /// interval to come.
    left_behind: bool,
    image: Option<Image>,
    image_retry: Option<Backoff>,
    index: Index,
    compactions: Compactions,
    checkpoints: CheckpointPolicy,
    activity: Activity,
    gaze: Gaze,
    durable: Option<Txid>,
    has_base: bool,
    /// The snapshot that is wanted or under way.
    wanted: Option<SnapshotReason>,
    snapshot_waiters: Vec<oneshot::Sender<Result<Taken>>>,
    /// Who waits for durability, and up to where once that is known.
    sync_waiters: Vec<(Option<Txid>, oneshot::Sender<Result<Txid>>)>,
    stop_by: Option<Instant>,
    /// Whether somebody asked for the stop.
    stopping: bool,
    /// Whether the database is to be let alone.
    letting_go: bool,
}

impl<'w> Session<'w> {
    pub(super) fn new(
        context: &'w mut Context,
        policy: Policy,
        standing: Standing,
        opened: Opened,
    ) -> Self {
        let now = Instant::now();
        let until = context.options.until;
        let compactions = Compactions::new(&policy.compaction, context, now);
        let mut session = Self {
            checkpoints: CheckpointPolicy::new(policy.checkpoint_pages, policy.barrier),
            policy,
            capture: None,
            queue: VecDeque::new(),
            upload: None,
            upload_retry: None,
            last_ship: None,
            left_behind: false,
            image: None,
            image_retry: None,
            index: Index::new(context, now),
            compactions,
            activity: Activity {
                last_snapshot: now,
                frames: 0,
                last_change: now,
            },
            gaze: Gaze::new(now),
            durable: None,
            has_base: false,
            wanted: (until == Until::Snapshot).then_some(SnapshotReason::Requested),
            snapshot_waiters: Vec::new(),
            sync_waiters: Vec::new(),
            stop_by: (until == Until::Shipped).then(|| now + FAR),
            stopping: false,
            letting_go: false,
            standing,
            resumed: None,
            unanswered: None,
            context,
        };
        session.start_from(opened);
        session
    }

    /// Goes on with what was opened.
    fn start_from(&mut self, opened: Opened) {
        let Opened {
            capture,
            queue,
            needs_base,
            durable,
            snapshot,
            unnamed,
            resumed,
        } = opened;
        self.durable = durable;
        self.resumed = resumed;
        if self.lease().is_some() {
            let (time, now) = (self.now(), Instant::now());
            let age = snapshot.map(|(_, made)| time.millis_since(made));
            let age = age.and_then(|age| u64::try_from(age).ok()).unwrap_or(0);
            let before = now.checked_sub(Duration::from_millis(age));
            self.activity.last_snapshot = before.unwrap_or(now);
            let holds_all = snapshot.is_some_and(|(txid, _)| txid == capture.place.txid);
            self.activity.frames = match holds_all {
                true => 0,
                false => self.activity.frames.max(1),
            };
            let base_comes = queue
                .iter()
                .any(|batch| matches!(batch.body, Body::Streamed));
            let wanted = (needs_base && !base_comes) || opened_anew(&queue);
            if wanted || self.policy.snapshots.on_startup {
                self.wanted = Some(SnapshotReason::Startup);
            }
            self.has_base = !needs_base;
            self.index.lacks(unnamed);
        }
        self.capture = Some(Box::new(capture));
        self.queue = queue;
    }

    /// Follows the database until it must end.
    pub(super) async fn run(mut self) -> Result<End> {
        let end = self.follow().await;
        let fenced = matches!(&end, Err(error) if error.kind() == ErrorKind::Fenced);
        // First of all let go of the database: the application's log must be able to restart.
        self.capture = None;
        // Nothing follows a stop or a lost lease that a late file could meet.
        let last = fenced || self.stopping;
        self.settle(if last { Duration::ZERO } else { SETTLE })
            .await;
        end
    }

    async fn follow(&mut self) -> Result<End> {
        loop {
            if let Some(end) = self.advance().await? {
                return Ok(end);
            }
            self.report();
            if let Some(end) = self.wait().await? {
                return Ok(end);
            }
        }
    }

    /// Waits for what is on its way, a while. What cannot be waited for might arrive later, so the lease is
    /// given up: a new epoch tells late files from what the next session writes. (The index is written by
    /// compare-and-swap and can be cut off.)
    async fn settle(&mut self, patience: Duration) {
        if let Some(task) = self.index.task.take() {
            task.abort();
        }
        self.compactions.abort();
        let image = self.image.take().map(|mut image| {
            image.pieces = None;
            image.task
        });
        let until = Instant::now() + patience;
        let mut unsettled = false;
        for mut task in self.upload.take().into_iter().chain(image) {
            if timeout_at(until, &mut task).await.is_err() {
                task.abort();
                unsettled = true;
            }
        }
        if unsettled {
            self.context.lease = None;
        }
    }

    /// Does everything that is due now.
    async fn advance(&mut self) -> Result<Option<End>> {
        let now = Instant::now();
        if now >= self.gaze.next
            && self.capture.is_some()
            && let Some(end) = self.look(now).await?
        {
            return Ok(Some(end));
        }
        self.start_upload(now);
        if let Some(end) = self.start_image(now) {
            return Ok(Some(end));
        }
        self.answer_syncs();
        if let Some(end) = self.finish_stop(now).await? {
            return Ok(Some(end));
        }
        self.publish_if_due(now);
        self.compact_if_due(now);
        Ok(None)
    }

    /// Waits until something may have to be done.
    async fn wait(&mut self) -> Result<Option<End>> {
        let deadline = self.deadline();
        let stopping = self.stopping;
        let letting_go = self.letting_go;
        let granted = self.context.status.borrow().leave;
        let seeking = self.lease().is_none();
        tokio::select! {
            biased;
            () = self.context.stop.cancelled(), if !stopping => self.begin_stop(),
            done = join(&mut self.upload), if self.upload.is_some() => self.uploaded(done).await?,
            done = join(&mut self.index.task), if self.index.task.is_some() => {
                self.published(done).await?;
            }
            done = join(&mut self.compactions.task), if self.compactions.task.is_some() => {
                self.compacted(done).await;
            }
            answer = self.standing.answer(), if seeking => return self.answered(answer).await,
            Some(command) = self.context.commands.recv() => self.command(command),
            () = leave::wanted(&mut self.context.leave, granted), if !letting_go => self.let_go(),
            Some(woken) = self.context.wakes.recv() => self.woken(woken),
            // Last: a store that is quicker than we encode must not keep us from everything else.
            news = images::news(&mut self.image), if self.image.is_some() => match news {
                ImageNews::Ended(done) => self.imaged(done).await?,
                ImageNews::Wants(part) => self.step(part).await?,
            },
            () = sleep_until(deadline) => {}
        }
        Ok(None)
    }

    fn begin_stop(&mut self) {
        let by = Instant::now() + self.context.shared.grace;
        self.stop_by = Some(*self.context.stop_by.get_or_insert(by));
        self.stopping = true;
        // Deleting can wait; the last word in the index cannot.
        self.compactions.abort();
        self.upload_retry = None;
        if self.is_refused() {
            // No grace helps.
            self.stop_by = Some(Instant::now());
        }
        self.look_again();
    }

    /// Ends soon, with everything shipped or at least spooled.
    fn let_go(&mut self) {
        self.letting_go = true;
        let by = Instant::now() + LET_GO;
        self.stop_by = Some(self.stop_by.map_or(by, |sooner| sooner.min(by)));
        self.upload_retry = None;
        self.look_again();
    }

    /// Looks at once; until then nobody may say that everything is captured.
    fn look_again(&mut self) {
        self.gaze.next = Instant::now();
        let now = self.now();
        self.gaze.uncaptured_since.get_or_insert(now);
    }

    /// When something is due if nothing else happens.
    fn deadline(&self) -> Instant {
        let now = Instant::now();
        let retry = |backoff: Option<Backoff>, idle: bool| {
            backoff
                .map(|backoff| backoff.until)
                .filter(|until| idle && *until > now)
        };
        let idle = self.image.is_none() && self.may_begin_images();
        let image_may_start = idle && !self.stopping_without_need();
        let trigger = (image_may_start && self.wanted.is_none())
            .then(|| self.policy.snapshots.next(&self.activity))
            .flatten();
        let slot = (image_may_start && self.image_is_wanted()).then_some(now + SLOT_PAUSE);
        let waits = [
            trigger,
            self.stop_by,
            self.index_deadline(now),
            self.merge_deadline(now),
            self.ship_deadline(now),
            self.compaction_deadline(),
            retry(self.image_retry, image_may_start),
            slot,
        ];
        waits
            .into_iter()
            .flatten()
            .fold(self.gaze.next, Instant::min)
            .max(now)
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Sync(answer) => self.sync_waiters.push((None, answer)),
            Command::Snapshot(answer) => {
                self.snapshot_waiters.push(answer);
                self.wanted.get_or_insert(SnapshotReason::Requested);
                self.image_retry = None;
            }
        }
        self.look_again();
    }

    /// The state that everything captured leads to.
    fn captured_txid(&self) -> Option<Txid> {
        self.capture.as_ref().map(|capture| capture.place.txid)
    }

    /// Whether everything captured is durable.
    fn is_shipped(&self) -> bool {
        self.queue.is_empty() && self.upload.is_none()
    }

    fn answer_syncs(&mut self) {
        let captured = self.captured_txid();
        let (clean, shipped) = (
            self.gaze.uncaptured_since.is_none(),
            self.is_shipped() && self.has_base,
        );
        let durable = self.durable;
        let mut waiting = Vec::new();
        for (until, answer) in self.sync_waiters.drain(..) {
            let until = until.or(captured.filter(|_| clean));
            match until {
                Some(until) if shipped || (self.has_base && durable >= Some(until)) => {
                    // Who asked may have given up.
                    let _ = answer.send(Ok(until));
                }
                until => waiting.push((until, answer)),
            }
        }
        self.sync_waiters = waiting;
    }

    /// Ends a stop once everything is durable, or its time is up.
    async fn finish_stop(&mut self, now: Instant) -> Result<Option<End>> {
        let Some(stop_by) = self.stop_by else {
            return Ok(None);
        };
        let waits_for_image = !self.has_base || self.snapshot_is_promised();
        if self.gaze.uncaptured_since.is_none() && self.is_shipped() && !waits_for_image {
            self.publish_last().await?;
            if self.capture.is_some() {
                self.with(|capture, _| {
                    capture.save_levels();
                    capture.table.anchor()
                })
                .await?;
            }
            // What is told next is what was stored last.
            self.report();
            return Ok(Some(match self.letting_go && !self.stopping {
                true => End::LetGo,
                false => End::Drained,
            }));
        }
        if now < stop_by {
            return Ok(None);
        }
        let refused = self.is_refused();
        self.spool_all().await?;
        if self.letting_go && !self.stopping {
            self.report();
            return Ok(Some(End::LetGo));
        }
        if let Some(refused) = self.unanswered.take_if(|_| refused) {
            return Err(refused);
        }
        let cause = self
            .context
            .status
            .borrow()
            .error
            .as_ref()
            .map(|error| error.message.clone());
        let cause = cause.unwrap_or_else(|| "the time to stop was up".to_owned());
        let last = self.captured_txid().or(self.durable).unwrap_or(Txid::FIRST);
        Err(
            not_durable(last, &Error::new(ErrorKind::Unavailable, cause))
                .on(&self.context.options.name),
        )
    }

    /// A snapshot that was asked for at start is taken before a stop.
    fn snapshot_is_promised(&self) -> bool {
        self.wanted == Some(SnapshotReason::Startup)
    }

    /// Runs `work` on the blocking half, away from the runtime's thread.
    async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Capture, &mut VecDeque<Batch>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(mut capture) = self.capture.take() else {
            return Err(Error::new(ErrorKind::Internal, "the capture is gone"));
        };
        let mut queue = std::mem::take(&mut self.queue);
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut capture, &mut queue);
            (capture, queue, result)
        })
        .await;
        match done {
            Ok((capture, queue, result)) => {
                self.capture = Some(capture);
                self.queue = queue;
                if let Some(error) = self
                    .capture
                    .as_mut()
                    .and_then(|capture| capture.abandoned.take())
                {
                    self.abandon_images(&error).await;
                }
                result
            }
            Err(error) => Err(died(&error)),
        }
    }

    /// Puts into the spool what is only in memory, or in the WAL alone.
    async fn spool_all(&mut self) -> Result<()> {
        let seen = Seen::at(self.now());
        self.with(move |capture, queue| {
            capture.spool(queue)?;
            if let Turn::Batch(batch) = capture.turn(seen, Room::none(), true)? {
                queue.push_back(*batch);
            }
            capture.save_levels();
            Ok(())
        })
        .await
    }

    /// Shows the state to whoever looks.
    fn report(&self) {
        let Some(capture) = &self.capture else { return };
        let waiting = self.queue.front().map(|batch| batch.seen.first);
        let pending = waiting.into_iter().chain(self.gaze.uncaptured_since).min();
        let next_snapshot = self.next_snapshot();
        let now = self.now();
        let txid = capture.place.txid;
        let spool = capture.spool.used();
        let seeking = self.lease().is_none();
        let state = if seeking {
            DatabaseState::AcquiringLease
        } else if !self.has_base {
            DatabaseState::Snapshotting
        } else if pending.is_none() {
            DatabaseState::InSync
        } else {
            DatabaseState::Lagging
        };
        let wal_bytes = self.gaze.wal_bytes;
        let durable = self.durable.filter(|_| self.has_base || seeking);
        self.context.status.send_if_modified(|status| {
            // Nobody is woken for a length alone.
            status.spool_bytes = spool;
            status.wal_bytes = wal_bytes;
            status.next_snapshot = next_snapshot;
            let state = match status.error {
                Some(_) => status.state,
                None => state,
            };
            // Without a base nothing can be restored, however much is stored.
            let never = durable
                .is_none()
                .then(|| status.pending_since.unwrap_or(now));
            let pending = pending.into_iter().chain(never).min();
            let news = (Some(txid), durable, pending, state);
            let known = (
                status.txid,
                status.durable_txid,
                status.pending_since,
                status.state,
            );
            (
                status.txid,
                status.durable_txid,
                status.pending_since,
                status.state,
            ) = news;
            news != known
        });
    }

    /// When the next snapshot is due, as things stand.
    fn next_snapshot(&self) -> Option<Timestamp> {
        let at = self.policy.snapshots.next(&self.activity)?;
        let wait = at.saturating_duration_since(Instant::now()).as_millis();
        Some(self.now().plus_millis(i64::try_from(wait).ok()?))
    }

    fn now(&self) -> Timestamp {
        self.context.shared.clock.now()
    }
}

/// Whether the first file begins a chain that people want a snapshot of as well.
fn opened_anew(queue: &VecDeque<Batch>) -> bool {
    let reasons = queue.iter().filter_map(|batch| batch.rebase.as_ref());
    reasons
        .into_iter()
        .any(|why| matches!(why.reason, "new_chain" | "page_size"))
}

fn died(error: &JoinError) -> Error {
    if error.is_panic() {
        Error::new(ErrorKind::Internal, "a worker panicked").hint("please report this")
    } else {
        Error::new(ErrorKind::Cancelled, "shutting down")
    }
}

/// The end of a task that runs beside, which is then forgotten.
async fn join<T>(task: &mut Option<JoinHandle<T>>) -> Result<T> {
    match task {
        Some(running) => {
            let done = running.await.map_err(|error| died(&error));
            *task = None;
            done
        }
        None => std::future::pending().await,
    }
}
