//! Replicas of a real database, whose page images after each commit are the oracle.

mod follow;
mod local;
mod renew;
mod shapes;
mod status;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::follow::{Batch, Follower};
use super::home::{Home, Replace};
use super::state_file::{Found, ReplicaState, read, state_path};
use crate::clock::Clock;
use crate::error::Result;
use crate::ltx::Mark;
use crate::manifest::FileKey;
use crate::restore::tests::world::{World, range, stream};
use crate::sqlite::testing::App;
use crate::store::{Fault, Faulty, Meter, Metered, Operation, Store};
use crate::types::{StreamId, Timestamp, Txid};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A source, its stream, and a replica of it.
pub(super) struct Pair {
    pub(super) world: World,
    pub(super) app: App,
    pub(super) source: PathBuf,
    pub(super) local: PathBuf,
    pub(super) meter: Meter,
    pub(super) stop: CancellationToken,
    pub(super) replace: Replace,
    pub(super) follower: Option<Follower>,
    /// The request that fails, and how.
    pub(super) fault: Option<(u64, Fault)>,
}

impl Pair {
    /// A source with one table, its first state stored as a snapshot.
    pub(super) async fn new(page_size: u32, auto_vacuum: u8) -> Self {
        let world = World::new(7, page_size);
        let source = world.directory.path().join("source.db");
        let mut app = App::start();
        app.open("s", &source);
        app.sql("s", &format!("PRAGMA page_size={page_size}"));
        app.sql("s", &format!("PRAGMA auto_vacuum={auto_vacuum}"));
        app.sql("s", "PRAGMA journal_mode=WAL");
        app.sql("s", "CREATE TABLE t(id INTEGER PRIMARY KEY, b)");
        let local = world.directory.path().join("replica.db");
        let mut pair = Self {
            world,
            app,
            source,
            local,
            meter: Meter::default(),
            stop: CancellationToken::new(),
            replace: Replace::No,
            follower: None,
            fault: None,
        };
        let image = pair.app.image("s");
        pair.world.commit_image(image);
        pair.world.snapshot(1).await;
        pair.world.publish().await;
        pair
    }

    /// Runs statements at the source: one transaction of the stream.
    pub(super) fn change(&mut self, sql: &str) -> u64 {
        match sql.contains("; ") {
            true => {
                self.app.sql("s", "BEGIN");
                for statement in sql.split("; ") {
                    self.app.sql("s", statement);
                }
                self.app.sql("s", "COMMIT");
            }
            false => drop(self.app.sql("s", sql)),
        }
        let image = self.app.image("s");
        self.world.commit_image(image)
    }

    /// The same, stored as an incremental.
    pub(super) async fn commit(&mut self, sql: &str) -> u64 {
        let at = self.change(sql);
        self.world.incremental(at, at).await;
        at
    }

    pub(super) async fn row(&mut self) -> u64 {
        self.commit("INSERT INTO t(b) VALUES(randomblob(300))")
            .await
    }

    pub(super) async fn rows(&mut self, count: u64) {
        for _ in 0..count {
            self.row().await;
        }
    }

    /// Stores a file of TXIDs `min` to `max` without making it part of the index.
    pub(super) async fn put_as(&self, min: u64, max: u64, mark: Mark, stream: StreamId) -> FileKey {
        let key = FileKey::incremental(range(min, max));
        let (bytes, _) = self.world.encode(key, mark, stream);
        self.world.put_bytes(key, bytes).await;
        key
    }

    pub(super) fn remove(&self, key: FileKey) {
        std::fs::remove_file(self.world.path_of(key)).unwrap();
    }

    pub(super) fn home(&self) -> Result<Home> {
        let clock = Clock::manual(NOW);
        let source = "file:///bucket/p/app.db".to_owned();
        Home::open(&self.local, source, self.replace, false, clock)
    }

    /// The follower, started if it does not run.
    pub(super) fn follower(&mut self) -> Result<&mut Follower> {
        if self.follower.is_none() {
            let store = Metered::new(self.world.store.clone(), self.meter.clone());
            let store: Arc<dyn Store> = match self.fault {
                Some((number, fault)) => Arc::new(Faulty::at(store, number, fault)),
                None => Arc::new(store),
            };
            let home = Arc::new(self.home()?);
            let layout = self.world.layout.clone();
            let follower = Follower::new(store, layout, home, self.stop.clone());
            let follower = follower.with_pause(Duration::ZERO);
            self.follower = Some(match self.fault {
                Some(_) => follower.impatient(),
                None => follower,
            });
        }
        Ok(self.follower.as_mut().unwrap())
    }

    pub(super) async fn try_poll(&mut self) -> Result<Batch> {
        let (batch, polled) = self.follower()?.poll().await;
        polled.map(|()| batch)
    }

    pub(super) async fn poll(&mut self) -> Batch {
        self.try_poll().await.unwrap()
    }

    /// Polls and checks that the replica is exactly at `at`.
    pub(super) async fn poll_to(&mut self, at: u64) -> Batch {
        let batch = self.poll().await;
        self.check(at);
        batch
    }

    /// Ends the follower as a stop does.
    pub(super) async fn end(&mut self) {
        if let Some(follower) = self.follower.take() {
            follower.close().await.unwrap();
        }
    }

    /// Ends the follower as a crash does, but for what the kernel does.
    pub(super) fn crash(&mut self) {
        self.follower = None;
    }

    pub(super) fn state_path(&self) -> PathBuf {
        state_path(&self.local)
    }

    #[track_caller]
    pub(super) fn state(&self) -> ReplicaState {
        match read(&self.state_path()).unwrap() {
            Found::State(state) => *state,
            other => panic!("{other:?}"),
        }
    }

    /// The replica is the source after transaction `at`, but for the bytes of page 1 that SQLite owns, and says so.
    #[track_caller]
    pub(super) fn check(&mut self, at: u64) {
        let state = self.state();
        assert_eq!(state.current_txid.get(), at);
        assert_eq!(state.sum, self.world.images[&at].sum);
        let mut shown = self.shown();
        let expected = &self.world.images[&at].bytes;
        assert_eq!(shown.len(), expected.len(), "size at {at}");
        let size = state.page_size.bytes();
        let masked = |byte: usize| matches!(byte, 18..20 | 24..32 | 40..44 | 92..100);
        let first = shown.iter().zip(expected).take(size).enumerate();
        for (byte, (shown, source)) in first {
            assert!(
                masked(byte) || shown == source,
                "byte {byte} of page 1 at {at}"
            );
        }
        state.true_header.restore(&mut shown);
        assert!(shown == *expected, "the replica at {at}");
    }

    /// Every page that another process sees.
    #[track_caller]
    pub(super) fn shown(&mut self) -> Vec<u8> {
        let local = self.local.clone();
        self.app.open("look", &local);
        let image = self.app.image("look");
        self.app.call(&["close", "look"]);
        image
    }

    /// Opens a connection for reading in another process.
    #[track_caller]
    pub(super) fn reader(&mut self, name: &str) {
        let local = self.local.clone();
        self.app.open(name, &local);
    }

    /// One value that the reader sees.
    #[track_caller]
    pub(super) fn see(&mut self, name: &str, sql: &str) -> String {
        self.app.sql(name, sql)[0][0].to_string()
    }

    pub(super) fn requests(&self) -> u64 {
        self.meter.snapshot().total()
    }

    pub(super) fn gets(&self) -> u64 {
        self.meter.snapshot().of(Operation::Get)
    }

    /// Starts the stream's next turn: another writer, or the same one after a restart.
    pub(super) fn next_turn(&mut self, lineage: u64, epoch: u32) {
        self.world.stream = stream(lineage, epoch);
    }
}

/// Names in a directory, sorted.
pub(super) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
