//! A year of one database, in minutes: real files, the real planner and executor, a clock that is told.
//!
//! The content of each page follows from the transaction that wrote it last, so every state can be computed
//! and compared byte by byte.

use std::sync::Arc;

use bytes::Bytes;

use super::super::{CompactReport, CompactRequest, DryRun, Writer, compact};
use super::{DAY, HOUR, MINUTE, Periods, SECOND};
use crate::clock::Clock;
use crate::config::RetentionPolicy;
use crate::error::ErrorKind;
use crate::ltx::{Encoder, Header, Mark, Spill, Tracking};
use crate::manifest::{
    EpochStart, FileEntry, FileKey, Head, ManifestDelta, NewHead, Publisher, ROOT_LIMIT,
};
use crate::restore::tests::world::{range, run, stream, txid};
use crate::restore::{LeaveState, Overwrite, RestoreRequest, RestoreTarget, Verify, describe};
use crate::store::memory::MemoryStore;
use crate::store::{Fault, Faulty, Layout, Level, Store};
use crate::types::{DatabaseSum, PageCount, PageNumber, PageSize, PageSum, StreamId, Timestamp};

/// Pages of the database; transaction `t` changes page `t % PAGES + 1`.
const PAGES: u64 = 4;

/// 2025-01-01, a Wednesday.
const START: i64 = 1_735_689_600_000;

/// The bound of the design, with retention's defaults and one commit a second for ever.
const MOST_OBJECTS: usize = 110_000;

/// The last transaction up to `at` that changed `page`; 0 where the database began with it.
fn writer_of(page: u64, at: u64) -> u64 {
    let behind = (at + PAGES - (page - 1)) % PAGES;
    at.saturating_sub(behind)
}

fn page(number: u64, at: u64) -> Vec<u8> {
    let mut content = vec![number as u8; 512];
    let writer = writer_of(number, at);
    content[100..108].copy_from_slice(&writer.to_be_bytes());
    content[400..408].copy_from_slice(&(writer.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
    content
}

fn image(at: u64) -> Vec<u8> {
    (1..=PAGES).flat_map(|number| page(number, at)).collect()
}

fn sum(at: u64) -> DatabaseSum {
    let mut sum = DatabaseSum::EMPTY;
    for number in 1..=PAGES {
        let page_number = PageNumber::new(number as u32).unwrap();
        sum.add(PageSum::of(page_number, &page(number, at)));
    }
    sum
}

struct Year {
    store: MemoryStore,
    shared: Arc<dyn Store>,
    layout: Layout,
    clock: Clock,
    now: i64,
    head: u64,
    stream: StreamId,
    periods: Periods,
    publisher: Publisher,
    delta: ManifestDelta,
    last_snapshot: (u64, i64),
    folder: tempfile::TempDir,
    most: usize,
    restored: u32,
}

impl Year {
    fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_millis(START));
        let store = MemoryStore::new(clock.clone());
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let layout = Layout::new("p".parse().unwrap(), "app.db".parse().unwrap());
        Self {
            publisher: Publisher::new(shared.clone(), layout.clone()),
            store,
            shared,
            layout,
            clock,
            now: START,
            head: 1,
            stream: stream(0xabc, 1),
            periods: Periods::new(1),
            delta: ManifestDelta::default(),
            last_snapshot: (0, START),
            folder: tempfile::tempdir().unwrap(),
            most: 0,
            restored: 0,
        }
    }

    fn store(&mut self, key: FileKey, time: i64) {
        let (min, max) = (key.range().min().get(), key.range().max().get());
        let snapshot = key.range().is_snapshot();
        let page_size = PageSize::new(512).unwrap();
        let commit = PageCount(PAGES as u32);
        let state = sum(max);
        let pre = (!snapshot).then(|| sum(min - 1).checksum);
        let header = Header {
            page_size,
            commit,
            range: key.range(),
            timestamp: Timestamp::from_millis(time),
            tracking: Tracking::Tracked { pre_apply: pre },
            wal: None,
            node: self.stream.to_node_id(),
            digest: Some(state.digest),
            mark: Mark::None,
            span_ms: 0,
        };
        let mut encoder = Encoder::new(Vec::new(), page_size, commit, Spill::Memory);
        for number in 1..=PAGES {
            if snapshot || writer_of(number, max) >= min {
                let page_number = PageNumber::new(number as u32).unwrap();
                encoder.page(page_number, &page(number, max)).unwrap();
            }
        }
        let finished = encoder.finish(&header, Some(state.checksum)).unwrap();
        let bytes = [finished.header.as_slice(), &finished.out].concat();
        let (size, pages) = (finished.size, Some(finished.pages));
        let entry = FileEntry::from_header(key, size, &header, Some(state.checksum), pages);
        self.store
            .write(&self.layout.key(key.entry()), Bytes::from(bytes));
        self.delta.add.push(entry);
    }

    fn pass(&mut self, millis: i64) {
        self.now += millis;
        self.clock.set(Timestamp::from_millis(self.now));
    }

    fn snapshot(&mut self) {
        self.store(FileKey::snapshot(txid(self.head)), self.now);
        self.last_snapshot = (self.head, self.now);
    }

    /// One transaction, as a watcher stores it, with merged files and hourly snapshots.
    fn commit(&mut self) {
        for merged in self.periods.due(self.now, self.head) {
            let level = Level::new(merged.level).unwrap();
            self.store(
                FileKey::merged(level, range(merged.min, merged.max)),
                merged.last,
            );
        }
        let (held, at) = self.last_snapshot;
        if self.now - at >= HOUR && held < self.head {
            self.snapshot();
        }
        self.head += 1;
        self.store(FileKey::incremental(range(self.head, self.head)), self.now);
        self.periods.record(self.now);
    }

    async fn publish(&mut self) {
        let state = sum(self.head);
        self.delta.head = Some(NewHead {
            head: Head {
                txid: txid(self.head),
                checksum: Some(state.checksum),
                digest: Some(state.digest),
            },
            lineage: self.stream.lineage,
            page_size: PageSize::new(512).unwrap(),
        });
        let own = self.delta.add.iter().find(|entry| entry.key.level() == 0);
        self.delta.epoch = own.map(|entry| EpochStart {
            stream: self.stream,
            first: entry.range().min(),
        });
        let delta = std::mem::take(&mut self.delta);
        let now = Timestamp::from_millis(self.now);
        self.publisher.publish(&delta, now).await.unwrap();
    }

    /// A new process: another epoch, and the running periods go on.
    async fn restart(&mut self) {
        self.publish().await;
        self.stream.epoch = self.stream.epoch.next().unwrap();
    }

    fn measure(&mut self) {
        let objects = self.store.keys().len();
        self.most = self.most.max(objects);
        assert!(objects <= MOST_OBJECTS, "{objects} objects");
        let root = self.store.size_of(&self.layout.manifest()).unwrap();
        assert!(root < ROOT_LIMIT, "the root has {root} bytes");
    }

    async fn compact(&mut self) -> CompactReport {
        self.publish().await;
        self.measure();
        let request = self.request();
        let report = compact(&self.shared, &request, &self.clock).await.unwrap();
        self.measure();
        assert!(report.keep.len() <= 24 + 7 + 12 + 12, "{report:?}");
        assert_eq!(self.advertised().await.len() as u64, report.points_after);
        report
    }

    fn request(&self) -> CompactRequest {
        CompactRequest {
            layout: self.layout.clone(),
            policy: RetentionPolicy::default(),
            dry_run: DryRun::No,
            writer: Writer::Elsewhere,
        }
    }

    /// The points that `list` names. The files that it planned them from are all there.
    async fn advertised(&self) -> Vec<u64> {
        let described = describe(&self.store, &self.layout).await.unwrap();
        assert_eq!(described.notes, Vec::<String>::new());
        for file in &described.files {
            let size = self.store.size_of(&file.key);
            assert_eq!(size, Some(file.bytes as usize), "{}", file.key);
        }
        described.points.iter().map(|point| point.txid).collect()
    }

    /// A compaction whose process dies before its first request, before its second, and so on.
    async fn die_at_each_step(&mut self) {
        self.publish().await;
        let saved = self.store.save();
        let before = self.advertised().await;
        compact(&self.shared, &self.request(), &self.clock)
            .await
            .unwrap();
        let (keys, after) = (self.store.keys(), self.advertised().await);
        assert!(after.len() < before.len());
        for step in 1.. {
            self.store.load(&saved);
            let died = Fault::Before(ErrorKind::Unavailable);
            let dying = Arc::new(Faulty::new(self.store.clone(), move |call| {
                (call.number >= step).then_some(died)
            }));
            let store: Arc<dyn Store> = dying.clone();
            // The last requests only tidy up.
            let done = compact(&store, &self.request(), &self.clock).await;
            let points = self.advertised().await;
            assert!(points == before || points == after, "step {step}");
            for at in points.iter().step_by(points.len() / 3).chain(points.last()) {
                self.restore(*at).await;
            }
            compact(&self.shared, &self.request(), &self.clock)
                .await
                .unwrap();
            assert_eq!(self.advertised().await, after, "step {step}");
            let ltx = |keys: &[String]| -> Vec<String> {
                let keys = keys.iter().filter(|key| key.ends_with(".ltx"));
                keys.cloned().collect()
            };
            assert_eq!(ltx(&self.store.keys()), ltx(&keys), "step {step}");
            if dying.calls() < step {
                done.unwrap();
                assert!(step > 8, "{step} requests");
                break;
            }
        }
    }

    async fn restore(&mut self, at: u64) {
        let output = self.folder.path().join("out.db");
        let request = RestoreRequest {
            layout: self.layout.clone(),
            output: output.clone(),
            target: RestoreTarget::Txid(txid(at)),
            overwrite: Overwrite::No,
            verify: Verify::None,
            state: LeaveState::No,
        };
        let report = run(&self.shared, &request).await.unwrap();
        assert_eq!(report.txid, at);
        assert!(std::fs::read(&output).unwrap() == image(at), "TXID {at}");
        // Few objects, however long the history.
        assert!(report.segments < 200, "{report:?}");
        std::fs::remove_file(output).unwrap();
        self.restored += 1;
    }

    /// Restores the first, the last and some of the points in between.
    async fn sample(&mut self, count: usize) {
        self.publish().await;
        let points = self.advertised().await;
        let step = (points.len() / count).max(1);
        for at in points.iter().rev().step_by(step).chain(points.first()) {
            self.restore(*at).await;
        }
    }
}

#[tokio::test]
async fn g4_a_year_stays_bounded_and_every_sampled_point_is_exact() {
    let mut year = Year::new();
    year.snapshot();
    let began = std::time::Instant::now();
    for day in 0..365_i64 {
        // Mostly quiet, a few hours of one commit a second, and a restart now and then.
        let busy = matches!(day, 100 | 200 | 300);
        let end = START + (day + 1) * DAY;
        while year.now < end {
            let hour = (year.now - START) % DAY / HOUR;
            let pause = match busy && hour == 9 {
                true => SECOND,
                false => 17 * MINUTE + 13 * SECOND,
            };
            year.pass(pause);
            year.commit();
            if year.delta.add.len() >= 500 {
                year.publish().await;
            }
        }
        if day % 7 == 4 {
            year.restart().await;
        }
        if matches!(day, 30 | 101) {
            year.die_at_each_step().await;
        }
        if day % 6 == 0 || busy {
            year.compact().await;
        }
        if day % 60 == 59 || busy {
            year.sample(3).await;
        }
    }
    let quiet = year.compact().await;
    eprintln!(
        "quiet: {} objects, {} points, {:?}",
        year.store.keys().len(),
        quiet.points_after,
        began.elapsed()
    );
    assert!(year.store.keys().len() < 12_000);
    let months = quiet
        .keep
        .iter()
        .filter(|line| line.tiers.contains(&super::super::Tier::Monthly));
    // The year ends with the first moment of a month that has no snapshot yet.
    assert_eq!(months.count(), 11);
    // A day and more of one commit a second.
    for hour in 0..26 {
        for _ in 0..3600 {
            year.pass(SECOND);
            year.commit();
            if year.delta.add.len() >= 500 {
                year.publish().await;
            }
        }
        if hour % 3 == 2 {
            year.compact().await;
        }
    }
    year.sample(10).await;
    eprintln!(
        "busy: {} objects, {:?}",
        year.store.keys().len(),
        began.elapsed()
    );
    assert!(year.most > 95_000, "the bound was not tried: {}", year.most);
    assert!(
        year.store.bytes() < 100 << 20,
        "{} bytes",
        year.store.bytes()
    );
    // A day later the seconds are minutes, and a week later hours.
    year.pass(DAY + HOUR);
    year.commit();
    year.compact().await;
    let objects = year.store.keys().len();
    assert!(objects < 14_000, "{objects}");
    year.sample(10).await;
    year.pass(8 * DAY);
    year.commit();
    year.compact().await;
    let objects = year.store.keys().len();
    assert!(objects < 11_000, "{objects}");
    year.sample(10).await;
    eprintln!(
        "{} restores, most {} objects, {:?}",
        year.restored,
        year.most,
        began.elapsed()
    );
    assert!(year.restored > 40);
}
