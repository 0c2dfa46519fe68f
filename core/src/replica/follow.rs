//! From one poll to the next: what is new, and what to do about it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::apply::{Given, Refused};
use super::backoff::Backoff;
use super::fetch::{Fetched, fetch};
use super::home::Home;
use super::judge::{Misfit, Next, Position, Reason, next};
use super::local::Local;
use super::make::PAUSE;
use super::window::{Seen, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Catalog, CatalogFile, FileEntry, FileKey, Format, Listed, is_damage};
use crate::process::blocking;
use crate::store::{Layout, Store};
use crate::types::{Timestamp, Txid};

/// Plans made before giving up until the next look: each damaged file costs one.
const ATTEMPTS: usize = 16;

/// Files fetched ahead: four of at most 4 MiB in memory, or on disk.
const AHEAD: usize = 4;

/// How often a stream that cannot be followed is looked at as a whole, though its newest files have not changed.
const RECHECK: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// What one poll did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Batch {
    /// The replica was made, or made anew.
    pub(super) bootstrapped: Option<Bootstrapped>,
    /// Files applied.
    pub(super) files: u64,
    /// Pages written for them.
    pub(super) pages: u64,
    /// The newest transaction seen, and its time where that is known.
    pub(super) head: Option<(Txid, Option<Timestamp>)>,
    /// Length of the replica's WAL.
    pub(super) wal_bytes: u64,
}

/// A replica that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bootstrapped {
    pub(super) reason: Option<Reason>,
    pub(super) files: u64,
    pub(super) pages: u64,
}

/// What keeps the replica from the newest state, until something new appears.
#[derive(Debug)]
pub(super) struct Stuck {
    /// Nothing while it is a gap that may yet close.
    error: Option<Error>,
    recheck: Backoff,
}

/// Follows one source.
pub(super) struct Follower {
    pub(super) store: Arc<dyn Store>,
    pub(super) layout: Layout,
    pub(super) home: Arc<Home>,
    pub(super) stop: CancellationToken,
    pub(super) local: Option<Box<Local>>,
    pub(super) window: Option<Window>,
    /// From one bootstrap to the next.
    pub(super) makings: Backoff,
    pub(super) stuck: Option<Stuck>,
    recheck: (Duration, Duration),
    /// Whether the WAL holds what is not yet in the database file.
    pub(super) uncopied: bool,
}

/// How much of what is stored is known.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Reach {
    Root,
    Pages,
    Everything,
}

/// How far applying came.
enum Step {
    /// All files are applied.
    All,
    /// This one is not.
    At(FileKey, Trouble),
}

enum Trouble {
    Refused(Refused),
    Fetch(Error),
}

impl Follower {
    /// A follower that has looked at nothing yet.
    pub(super) fn new(
        store: Arc<dyn Store>,
        layout: Layout,
        home: Arc<Home>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            store,
            layout,
            home,
            stop,
            local: None,
            window: None,
            makings: Backoff::new(PAUSE),
            stuck: None,
            recheck: RECHECK,
            uncopied: false,
        }
    }

    /// Waits this long, and twice as long each time, from one bootstrap to the next.
    #[cfg(test)]
    pub(super) fn with_pause(mut self, shortest: Duration) -> Self {
        self.makings = Backoff::new((shortest, PAUSE.1));
        self
    }

    /// Looks at a stream that cannot be followed at each poll.
    #[cfg(test)]
    pub(super) fn impatient(mut self) -> Self {
        self.recheck.0 = Duration::ZERO;
        self
    }

    /// The open replica.
    pub(super) fn local(&self) -> Option<&Local> {
        self.local.as_deref()
    }

    /// Looks once and applies what is new. Idle, it is one request. Gives what was done, and what was in the way:
    /// the replica is whole then, and holds a state that it held before or that came after.
    ///
    /// # Cancel safety
    /// None: it ends by itself soon after a stop.
    pub(super) async fn poll(&mut self) -> (Batch, Result<()>) {
        let mut batch = Batch::default();
        let polled = self.look(&mut batch).await;
        if self.local.is_none() {
            self.window = None;
        }
        let worked = batch.files > 0 || batch.bootstrapped.is_some();
        if self.local.is_none() || !(self.uncopied || worked) {
            return (batch, polled);
        }
        let copied = self.with_local(|_, local| local.checkpoint()).await;
        let copied = copied.map(|(bytes, waits)| {
            (batch.wal_bytes, self.uncopied) = (bytes, waits);
        });
        (batch, polled.and(copied))
    }

    async fn look(&mut self, batch: &mut Batch) -> Result<()> {
        match self.local.is_none() {
            true => self.open(batch).await?,
            false => self.check_local(batch).await?,
        }
        if batch.bootstrapped.is_some() {
            return Ok(());
        }
        match self.glance(batch).await? {
            None | Some(Seen::Unclear) => self.look_around(batch).await,
            Some(Seen::Next(files)) => self.take_directly(files, batch).await,
            Some(Seen::Nothing) => self.rest(batch).await,
        }
    }

    /// Nothing new appeared: what stands in the way of the newest state is looked at again now and then.
    async fn rest(&mut self, batch: &mut Batch) -> Result<()> {
        if self.stuck.is_none() && self.is_waiting() {
            self.hold_up(None);
        }
        match &self.stuck {
            None => Ok(()),
            Some(stuck) if stuck.recheck.left(Instant::now()).is_zero() => {
                self.look_around(batch).await
            }
            Some(stuck) => stuck
                .error
                .as_ref()
                .map_or(Ok(()), |error| Err(copy(error))),
        }
    }

    fn is_waiting(&self) -> bool {
        self.window.as_ref().is_some_and(Window::waits)
    }

    /// Takes down what is in the way, and when to look at it again.
    fn hold_up(&mut self, error: Option<Error>) {
        let mut recheck = match self.stuck.take() {
            Some(stuck) => stuck.recheck,
            None => Backoff::new(self.recheck),
        };
        recheck.used(Instant::now());
        self.stuck = Some(Stuck { error, recheck });
    }

    /// The one request of an idle poll; none before anything is known.
    async fn glance(&mut self, batch: &mut Batch) -> Result<Option<Seen>> {
        let Some(window) = &self.window else {
            return Ok(None);
        };
        let at = self.position()?.txid;
        let (prefix, after) = (self.layout.incremental_folder(), window.after(&self.layout));
        let listing = self.store.list(&prefix, Some(&after));
        let page = unless_stopped(&self.stop, listing).await?;
        let time = page.objects.last().map(|object| object.modified);
        let listed = page.objects.iter().filter_map(|object| {
            Some(Listed {
                file: FileKey::from_entry(self.layout.parse(&object.key)?)?,
                size: object.size,
            })
        });
        let listed: Vec<Listed> = listed.collect();
        let newest = listed.iter().map(|listed| listed.file.range().max()).max();
        let seen = window.look(listed, page.more, at);
        // What is known and does not wait for a gap to close is dead.
        let counts = seen != Seen::Nothing || window.waits();
        let newest = newest.filter(|newest| counts && *newest > at);
        batch.head = Some(newest.map_or((at, None), |newest| (newest, time)));
        Ok(Some(seen))
    }

    /// Applies files that follow each other and the replica. What does not go smoothly is left to
    /// [`Follower::look_around`].
    async fn take_directly(&mut self, files: Vec<Listed>, batch: &mut Batch) -> Result<()> {
        for listed in files {
            let key = self.layout.key(listed.file.entry());
            let fetched = self.fetch(&key, listed.size).await;
            let done = match fetched {
                Ok(fetched) => self.apply(listed.file, None, fetched, batch).await,
                Err(error) if error.kind() == ErrorKind::NotFound || is_damage(&error) => {
                    return self.look_around(batch).await;
                }
                Err(error) => return Err(error),
            };
            match done {
                Ok(()) => {
                    if let Some(window) = &mut self.window {
                        window.applied(&listed);
                    }
                }
                Err(Refused::Stopped) => return Err(stopped()),
                Err(Refused::Failed(error)) => return Err(self.failed(error)),
                Err(_) => return self.look_around(batch).await,
            }
        }
        Ok(())
    }

    /// Looks at everything that is stored, and does what it takes to get to the newest state.
    async fn look_around(&mut self, batch: &mut Batch) -> Result<()> {
        let mut catalog = self.load().await?;
        let done = self.follow(&mut catalog, batch).await;
        if let Some(local) = &self.local {
            let at = local.position().txid;
            self.window = Some(Window::of(&catalog, at));
        }
        match &done {
            // Until something new appears, looking again shows the same.
            Err(error) if !error.kind().is_transient() && error.kind() != ErrorKind::Cancelled => {
                self.hold_up(Some(copy(error)));
            }
            Err(_) => self.window = None,
            Ok(()) if self.is_waiting() => self.hold_up(None),
            Ok(()) => self.stuck = None,
        }
        done
    }

    pub(super) async fn load(&mut self) -> Result<Catalog> {
        let load = Catalog::load(&*self.store, &self.layout);
        let catalog = unless_stopped(&self.stop, load).await?;
        refuse_other_formats(&catalog)?;
        Ok(catalog)
    }

    async fn follow(&mut self, catalog: &mut Catalog, batch: &mut Batch) -> Result<()> {
        let (mut gone, mut reach) = (HashSet::new(), Reach::Root);
        for _ in 0..ATTEMPTS {
            note_head(catalog, batch);
            let files = match next(catalog, &self.position()?) {
                Ok(Next::Nothing) => return Ok(()),
                Ok(Next::Apply(files)) => files,
                // What leads on may stand in older parts of the index.
                Ok(Next::Renew(Reason::Gap)) if reach == Reach::Root => {
                    reach = self.widen(catalog, reach).await?;
                    continue;
                }
                Ok(Next::Renew(reason)) => return self.renew_local(reason, batch).await,
                Err(_) if reach < Reach::Everything => {
                    reach = self.widen(catalog, reach).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match self.apply_all(catalog, files, batch).await {
                Step::All => {}
                Step::At(key, Trouble::Fetch(error)) => match error.kind() {
                    // A compaction ran, perhaps.
                    ErrorKind::NotFound if gone.insert(key) => {
                        (*catalog, reach) = (self.load().await?, Reach::Root);
                    }
                    ErrorKind::NotFound => catalog.lose(key, "the object is missing"),
                    _ if is_damage(&error) => catalog.lose(key, error.message()),
                    _ => return Err(error),
                },
                Step::At(key, Trouble::Refused(refused)) => {
                    if let Some(reason) = self.answer(key, refused, catalog).await? {
                        return self.renew_local(reason, batch).await;
                    }
                }
            }
        }
        let message = format!("no way to the newest state after {ATTEMPTS} plans");
        Err(Error::new(ErrorKind::Unavailable, message).on(self.layout.folder()))
    }

    /// Reads more of what is stored, as a restore does where the root of the index does not suffice.
    async fn widen(&mut self, catalog: &mut Catalog, reach: Reach) -> Result<Reach> {
        let store = &*self.store;
        unless_stopped(&self.stop, async {
            if reach == Reach::Root {
                return catalog.read_index_pages(store).await.map(|()| Reach::Pages);
            }
            catalog.list_everything(store).await?;
            catalog.complete(store).await.map(|()| Reach::Everything)
        })
        .await
    }

    /// What a refused file means: a renewal, or another plan with what is known now.
    async fn answer(
        &mut self,
        key: FileKey,
        refused: Refused,
        catalog: &mut Catalog,
    ) -> Result<Option<Reason>> {
        match refused {
            Refused::Misfit(Misfit::Learned(header, error)) => {
                tracing::info!(key = %key, %error, "a file is not what it seemed; looking again");
                let size = catalog.file(key).map_or(0, |file| file.size);
                catalog.learn(FileEntry::from_header(key, size, &header, None, None));
                // Which of two writers counts, only all headers behind the index tell.
                let read = catalog.read_headers(&*self.store, |file| !file.indexed);
                unless_stopped(&self.stop, read).await?;
                Ok(None)
            }
            Refused::Misfit(Misfit::Shape) => Ok(Some(Reason::NewShape)),
            Refused::Misfit(Misfit::Damaged(error)) => {
                tracing::warn!(key = %key, %error, "a file cannot be used; looking for another way");
                catalog.lose(key, error.message());
                Ok(None)
            }
            Refused::OtherPages(error) => {
                if !self.with_local(|_, local| local.holds_state()).await? {
                    return Ok(Some(Reason::LocalWrite));
                }
                tracing::warn!(key = %key, %error, "a file does not lead on from the replica; looking for another way");
                catalog.lose(key, error.message());
                Ok(None)
            }
            Refused::LocalWrite => Ok(Some(Reason::LocalWrite)),
            Refused::Stopped => Err(stopped()),
            Refused::Failed(error) => Err(self.failed(error)),
        }
    }

    /// Applies `files`, fetching ahead.
    async fn apply_all(
        &mut self,
        catalog: &Catalog,
        files: Vec<CatalogFile>,
        batch: &mut Batch,
    ) -> Step {
        let (store, home, stop) = (self.store.clone(), self.home.clone(), self.stop.clone());
        let mut arriving = stream::iter(files)
            .map(|file| {
                let (store, home, stop) = (store.clone(), home.clone(), stop.clone());
                let key = catalog.object(file.key);
                async move {
                    let fetching = fetch(&store, &key, file.size, home.dir.scratch());
                    let fetched = unless_stopped(&stop, fetching).await;
                    (file, fetched)
                }
            })
            .buffered(AHEAD);
        while let Some((file, fetched)) = arriving.next().await {
            let fetched = match fetched {
                Ok(fetched) => fetched,
                Err(error) => return Step::At(file.key, Trouble::Fetch(error)),
            };
            if let Err(refused) = self.apply(file.key, file.entry, fetched, batch).await {
                return Step::At(file.key, Trouble::Refused(refused));
            }
        }
        Step::All
    }

    async fn apply(
        &mut self,
        key: FileKey,
        entry: Option<Box<FileEntry>>,
        fetched: Fetched,
        batch: &mut Batch,
    ) -> Result<(), Refused> {
        let stop = self.stop.clone();
        let applied = self
            .with_local(move |home, local| {
                let given = Given {
                    key,
                    entry: entry.as_deref(),
                };
                Ok(local.apply(home, &given, fetched.reader(), &stop))
            })
            .await;
        let applied = applied.map_err(Refused::Failed)??;
        batch.files += 1;
        batch.pages += applied.pages;
        Ok(())
    }

    fn position(&self) -> Result<Position> {
        let local = self.local.as_ref();
        local.map(|local| local.position()).ok_or_else(no_replica)
    }

    /// An error that leaves open what the replica holds: it is opened and proved anew.
    fn failed(&mut self, error: Error) -> Error {
        self.local = None;
        error
    }

    async fn fetch(&mut self, key: &str, size: u64) -> Result<Fetched> {
        let fetch = fetch(&self.store, key, size, self.home.dir.scratch());
        unless_stopped(&self.stop, fetch).await
    }

    /// Runs `work` on a blocking thread with the replica.
    pub(super) async fn with_local<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Home, &mut Local) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut local = self.local.take().ok_or_else(no_replica)?;
        let home = self.home.clone();
        let (local, outcome) = blocking(move || {
            let outcome = work(&home, &mut local);
            Ok((local, outcome))
        })
        .await?;
        match outcome {
            Ok(value) => {
                self.local = Some(local);
                Ok(value)
            }
            Err(error) => Err(error),
        }
    }

    /// Ends cleanly.
    pub(super) async fn close(mut self) -> Result<()> {
        match self.local.take() {
            Some(local) => blocking(move || local.close()).await,
            None => Ok(()),
        }
    }
}

pub(super) async fn unless_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        done = work => done,
        () = stop.cancelled() => Err(stopped()),
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Cancelled, "asked to stop")
}

fn no_replica() -> Error {
    Error::new(ErrorKind::Internal, "there is no replica to work on")
}

/// The same error once more.
fn copy(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message());
    if let Some(object) = error.object() {
        copy = copy.on(object);
    }
    match error.next_step() {
        Some(hint) => copy.hint(hint),
        None => copy,
    }
}

/// Litestream's files name neither checksum nor digest of the state after them.
pub(super) fn refuse_other_formats(catalog: &Catalog) -> Result<()> {
    match catalog.format() {
        Format::Walrust => Ok(()),
        Format::Litestream => {
            let message =
                "was written by Litestream, whose files hold no sums that would prove a replica";
            Err(Error::new(ErrorKind::Unsupported, message)
                .on(catalog.layout().folder())
                .hint("walrust restore brings such a backup back"))
        }
    }
}

/// The newest file that counts.
pub(super) fn note_head(catalog: &Catalog, batch: &mut Batch) {
    let live = catalog.live();
    if let Some(newest) = live.iter().max_by_key(|file| file.range().max()) {
        let seen = batch.head.map(|(txid, _)| txid);
        let time = newest.time().or(batch.head.and_then(|(_, time)| time));
        batch.head = Some((
            seen.max(Some(newest.range().max())).unwrap_or(Txid::FIRST),
            time,
        ));
    }
}
