//! One snapshot of a database that cannot be watched: in rollback-journal mode, or where nothing can be
//! written beside it (R37, R40, K10).
//!
//! # Overview
//!
//! state directory -> look at the store -> one pass for the sums -> (nothing to do, or refused) -> a local
//! copy -> lease -> look again, decide -> base if the state is new, snapshot, index -> lease given back.
//!
//! # Invariants
//!
//! 1 and 14; and what the store gets is one state, that of the copy, whose sums every image is checked
//! against.
//!
//! # Crash table
//!
//! | died | left behind | next time |
//! |---|---|---|
//! | before the state is saved | a lease that names our state directory | it is taken again at once |
//! | before the base is stored | a saved state ahead of the head | a base over both TXIDs |
//! | before the snapshot is stored | a chain that ends in the state | unchanged: the snapshot alone |
//! | before the index is written | files that the index lacks | they are found by listing |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::anchor::{Permission, RemoteHead, continues, permitted};
use super::capture::PART_BYTES;
use super::encode::{FileMeta, Seen};
use super::image::{ImageJob, ImageKind};
use super::open::Disk;
use super::remote::Remote;
use super::session::Taken;
use super::ship::{Bytestream, PieceSource, Target, ship};
use super::staged::{Facts, Staged, stage, sums};
use super::tenure::{Bid, acquire};
use super::watch::{WatchOptions, host_name};
use crate::config::ResolvedDatabase;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::{HolderId, Lease, LeasePolicy};
use crate::ltx::{Mark, WalSpan};
use crate::manifest::{EpochStart, FileEntry, FileKey, Head, ManifestDelta, NewHead, Publisher};
use crate::process::blocking;
use crate::sqlite::OneShot;
use crate::state::{self, Fill, Place, Saved, StateDir};
use crate::store::{Layout, Put, Tier};
use crate::types::{DatabaseName, DatabaseSum, Lineage, Position, StreamId, Txid, TxidRange};

/// What the store must get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing: it has a snapshot of this state.
    Held,
    /// A snapshot at this TXID.
    Snapshot(Txid),
    /// Every page as the next file of the chain, behind a state with these sums; then a snapshot.
    Base(TxidRange, Option<DatabaseSum>),
}

/// Takes a snapshot of `database`, which `source` has open.
pub(super) async fn snapshot(
    options: &WatchOptions,
    database: &ResolvedDatabase,
    source: OneShot,
) -> Result<Taken> {
    let disk = open_state(&database.path, database.sync.spool_limit).await?;
    let job = Job {
        options,
        layout: Layout::new(options.prefix.clone(), database.name.clone()),
        permission: Permission {
            adopt_at: database.adopt_at,
            ..options.permission
        },
        saved: disk.as_ref().and_then(Disk::saved).cloned(),
    };
    job.run(source, disk).await
}

/// The state directory, or nothing where it cannot be written.
async fn open_state(path: &Path, spool_limit: u64) -> Result<Option<Disk>> {
    let real = path.to_owned();
    let opened = blocking(move || {
        let dir = Arc::new(StateDir::create_or_open(&real)?);
        Disk::open(dir, spool_limit)
    })
    .await;
    match opened {
        Ok(disk) => Ok(Some(disk)),
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Exhausted) => {
            tracing::warn!(
                %error,
                "the state directory cannot be written: once the database has changed, the next snapshot needs --adopt"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

struct Job<'a> {
    options: &'a WatchOptions,
    layout: Layout,
    permission: Permission,
    /// What the state directory knew at the start.
    saved: Option<Saved>,
}

impl Job<'_> {
    async fn run(&self, mut source: OneShot, mut disk: Option<Disk>) -> Result<Taken> {
        let remote = self.look().await?;
        if let Some(remote) = &remote {
            let (facts, back) = blocking(move || Ok((sums(&mut source)?, source))).await?;
            source = back;
            // Refused, or done, before anybody's lease is touched.
            if self.decide(Some(remote), facts.sum)? == Step::Held {
                self.note_held(disk, remote.head(), facts).await?;
                return Ok(self.held(remote.txid(), facts));
            }
        }
        let scratch = disk
            .as_ref()
            .map_or_else(std::env::temp_dir, |disk| disk.dir.scratch().to_owned());
        let directory = scratch.clone();
        let (staged, fill, disk) = blocking(move || {
            let table = disk.as_ref().map(|disk| &disk.table);
            let (staged, fill) = stage(&mut source, &directory, table)?;
            Ok((staged, fill, disk.take()))
        })
        .await?;
        let lease = Arc::new(self.take_lease(disk.as_ref(), remote.as_ref()).await?);
        let done = self.write(&lease, staged, disk.zip(fill), &scratch).await;
        if let Err(error) = lease.release().await {
            tracing::warn!(name = %self.layout.name(), %error, "the lease was not given back");
        }
        done
    }

    async fn look(&self) -> Result<Option<Remote>> {
        let at = self.saved.as_ref().map(|saved| saved.place.txid);
        Remote::look(&*self.options.store, &self.layout, at).await
    }

    fn decide(&self, remote: Option<&Remote>, sum: DatabaseSum) -> Result<Step> {
        let head = remote.map(Remote::head);
        let snapshot = remote.and_then(Remote::snapshot).map(|(txid, _)| txid);
        decide(
            self.layout.name(),
            self.permission,
            self.saved.as_ref(),
            head.map(|head| (head, snapshot)),
            sum,
        )
    }

    async fn take_lease(&self, disk: Option<&Disk>, remote: Option<&Remote>) -> Result<Lease> {
        let known = self.saved.as_ref().and_then(Saved::stream);
        let stop = CancellationToken::new();
        let bid = Bid {
            store: &self.options.store,
            layout: &self.layout,
            clock: &self.options.clock,
            holder: (HolderId::random(), host_name()),
            dir: disk.map(|disk| &*disk.dir),
            policy: LeasePolicy {
                mode: self.options.lease,
                duration: self.options.lease_duration,
                ..LeasePolicy::default()
            },
            new_chain: self.permission.new_chain,
            known: known.or(remote.and_then(Remote::stream)),
            stop: &stop,
            patient: false,
        };
        let name = self.layout.name();
        acquire(bid, &mut |_| {
            tracing::info!(%name, "waiting for the lease");
        })
        .await
    }

    /// Stores what is missing, under the lease.
    async fn write(
        &self,
        lease: &Arc<Lease>,
        staged: Staged,
        state: Option<(Disk, Fill)>,
        scratch: &Path,
    ) -> Result<Taken> {
        // Only what is listed under the lease is all that there is.
        let remote = self.look().await?;
        let facts = staged.facts();
        let step = self.decide(remote.as_ref(), facts.sum)?;
        let (txid, base) = match step {
            Step::Held => {
                let txid = remote.as_ref().map_or(Txid::FIRST, Remote::txid);
                return Ok(self.held(txid, facts));
            }
            Step::Snapshot(txid) => (txid, None),
            Step::Base(range, before) => (range.max(), Some((range, before))),
        };
        let stream = StreamId {
            lineage: self.lineage(remote.as_ref(), lease.stream_id().lineage),
            epoch: lease.stream_id().epoch,
        };
        let disk = save(state, stream, txid, facts).await?;
        let upload = Upload {
            target: Target {
                store: self.options.store.clone(),
                lease: lease.clone(),
            },
            layout: &self.layout,
            staged: Arc::new(staged),
            position: Position {
                txid,
                sum: facts.sum,
            },
            stream,
            seen: Seen::at(self.options.clock.now()),
            tracked: self.options.checksums,
            scratch: scratch.to_owned(),
        };
        let mut delta = ManifestDelta {
            add: remote.as_ref().map(Remote::unnamed).unwrap_or_default(),
            ..ManifestDelta::default()
        };
        if let Some((range, before)) = base {
            delta.epoch = Some(EpochStart {
                stream,
                first: range.min(),
            });
            let entry = upload.base(range, before.unwrap_or_default()).await?;
            delta.add.push(entry);
        }
        let entry = upload.snapshot().await?;
        let taken = Taken {
            key: self.layout.snapshot(txid),
            txid,
            sum: facts.sum,
            bytes: entry.size,
            pages: entry.pages.unwrap_or_default(),
            page_size: facts.page_size,
            skipped: false,
        };
        delta.add.push(entry);
        delta.head = Some(NewHead {
            head: Head::from(upload.position),
            lineage: stream.lineage,
            page_size: facts.page_size,
        });
        self.publish(&delta).await?;
        if let Some(disk) = disk {
            blocking(move || disk.table.anchor()).await?;
        }
        Ok(taken)
    }

    /// Writes the index. Restores find what it lacks by listing, so trouble here is no failure.
    async fn publish(&self, delta: &ManifestDelta) -> Result<()> {
        let mut publisher = Publisher::new(self.options.store.clone(), self.layout.clone());
        match publisher.publish(delta, self.options.clock.now()).await {
            Err(error) if error.kind() == ErrorKind::Fenced => Err(error),
            Err(error) => {
                tracing::warn!(name = %self.layout.name(), %error, "the index was not written");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// The history that goes on; `lease` names a new one.
    fn lineage(&self, remote: Option<&Remote>, lease: Lineage) -> Lineage {
        let head = remote.map(Remote::head);
        let saved = self.saved.as_ref();
        let ours = saved.filter(|saved| head.is_none_or(|head| continues(saved, &head)));
        if self.permission.new_chain {
            return lease;
        }
        let theirs = head.and_then(|head| head.stream);
        let known = ours.map(|saved| saved.lineage);
        known
            .or(theirs.map(|stream| stream.lineage))
            .unwrap_or(lease)
    }

    fn held(&self, txid: Txid, facts: Facts) -> Taken {
        Taken {
            key: self.layout.snapshot(txid),
            txid,
            sum: facts.sum,
            bytes: 0,
            pages: 0,
            page_size: facts.page_size,
            skipped: true,
        }
    }

    /// Remembers that an unknown database is the head, as a restore of it would: so it may change.
    async fn note_held(&self, disk: Option<Disk>, head: RemoteHead, facts: Facts) -> Result<()> {
        let known = self.saved.as_ref();
        let known = known.is_some_and(|saved| continues(saved, &head));
        let (Some(mut disk), Some(stream), false) = (disk, head.stream, known) else {
            return Ok(());
        };
        // Files of another history must not follow this one.
        if disk.spool().front().is_some() {
            return Ok(());
        }
        let saved = Saved {
            lineage: stream.lineage,
            epoch: None,
            place: place_at(head.txid, facts),
            restored_head: Some(state::Head {
                txid: head.txid,
                stream: head.stream,
                sum: head.sum,
            }),
            rewind_from: None,
            last_snapshot: None,
        };
        blocking(move || disk.table.install_without_table(saved)).await
    }
}

/// Decides from what is saved here, the head with its newest snapshot, and the database as it is.
fn decide(
    name: &DatabaseName,
    permission: Permission,
    saved: Option<&Saved>,
    head: Option<(RemoteHead, Option<Txid>)>,
    sum: DatabaseSum,
) -> Result<Step> {
    let Some((head, snapshot)) = head else {
        // A bucket that is new or was emptied: TXIDs never restart.
        let txid = saved.map_or(Txid::FIRST, |saved| {
            let at = saved.place.txid;
            if saved.place.sum == sum {
                at
            } else {
                at.next()
            }
        });
        return Ok(Step::Snapshot(txid));
    };
    let ours = saved.filter(|saved| continues(saved, &head));
    let ahead = ours
        .map(|saved| saved.place.txid)
        .filter(|txid| *txid > head.txid);
    if head.sum == Some(sum) && ahead.is_none() && !permission.new_chain {
        return Ok(if snapshot == Some(head.txid) {
            Step::Held
        } else {
            Step::Snapshot(head.txid)
        });
    }
    if ours.is_none() {
        permitted(permission, &head, name)?;
    }
    let last = ahead.unwrap_or(head.txid);
    TxidRange::new(head.txid.next(), last.next())
        .map(|range| Step::Base(range, head.sum))
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a base before the head"))
}

fn place_at(txid: Txid, facts: Facts) -> Place {
    Place {
        txid,
        sum: facts.sum,
        page_size: facts.page_size,
        page_count: facts.count,
        wal: None,
    }
}

/// Saves where the chain will be, so that a crash on the way is not taken for another writer. The lock
/// lasts as long as what is returned.
async fn save(
    state: Option<(Disk, Fill)>,
    stream: StreamId,
    txid: Txid,
    facts: Facts,
) -> Result<Option<Disk>> {
    let Some((mut disk, fill)) = state else {
        return Ok(None);
    };
    let saved = Saved {
        lineage: stream.lineage,
        epoch: Some(stream.epoch),
        place: place_at(txid, facts),
        restored_head: None,
        rewind_from: None,
        last_snapshot: None,
    };
    blocking(move || {
        // The base or the snapshot holds what these lead to.
        while let Some(file) = disk.spool.front() {
            disk.spool.stored(file.range)?;
        }
        disk.spool.drop_strays()?;
        disk.table.install(fill, saved)?;
        Ok(Some(disk))
    })
    .await
}

/// The copy on its way to the store.
struct Upload<'a> {
    target: Target,
    layout: &'a Layout,
    staged: Arc<Staged>,
    position: Position,
    stream: StreamId,
    seen: Seen,
    tracked: bool,
    scratch: PathBuf,
}

impl Upload<'_> {
    fn meta(&self, range: TxidRange, mark: Mark, wal: Option<WalSpan>) -> FileMeta {
        let facts = self.staged.facts();
        FileMeta {
            range,
            page_size: facts.page_size,
            count: facts.count,
            stream: self.stream,
            wal,
            mark,
            seen: self.seen,
            tracked: self.tracked,
        }
    }

    async fn base(&self, range: TxidRange, before: DatabaseSum) -> Result<FileEntry> {
        let wal = WalSpan {
            offset: 32,
            size: 0,
            salt: [0; 2],
        };
        let meta = self.meta(range, Mark::Base, Some(wal));
        let job = ImageJob::base(meta, before, self.position, &self.scratch)?;
        self.send(job).await
    }

    async fn snapshot(&self) -> Result<FileEntry> {
        let meta = self.meta(TxidRange::snapshot(self.position.txid), Mark::None, None);
        let job = ImageJob::snapshot(meta, self.position, &self.scratch)?;
        self.send(job).await
    }

    async fn send(&self, job: ImageJob) -> Result<FileEntry> {
        let header = job.header().clone();
        let (key, tier) = match job.kind() {
            ImageKind::Snapshot => (FileKey::snapshot(header.range.max()), Tier::Cold),
            _ => (FileKey::incremental(header.range), Tier::Hot),
        };
        let object = match job.kind() {
            ImageKind::Snapshot => self.layout.snapshot(header.range.max()),
            _ => self.layout.incremental(header.range),
        };
        let put = Put::new_object().created(header.timestamp).tier(tier);
        let (pieces, requests) = PieceSource::new();
        let staged = self.staged.clone();
        let encoding = blocking(move || staged.send(job, requests));
        let body = Bytestream::Pieces(pieces);
        let shipping = ship(
            self.target.clone(),
            object,
            header.clone(),
            body,
            PART_BYTES,
            put,
        );
        let (encoded, shipped) = tokio::join!(encoding, shipping);
        let (shipped, pages) = match (shipped, encoded) {
            (Ok(shipped), encoded) => (shipped, encoded.ok()),
            // The pieces ended early: why they did is the cause.
            (Err(error), Err(cause)) if error.kind() == ErrorKind::Cancelled => return Err(cause),
            (Err(error), _) => return Err(error),
        };
        let post = Some(self.position.sum.checksum);
        Ok(FileEntry::from_header(
            key,
            shipped.bytes,
            &header,
            post,
            pages,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Checksum, Digest, Epoch, PageCount, PageSize};

    fn txid(value: u64) -> Txid {
        Txid::new(value).unwrap()
    }

    fn sum(value: u128) -> DatabaseSum {
        DatabaseSum {
            checksum: Checksum::EMPTY,
            digest: Digest::new(value),
        }
    }

    fn lineage() -> Lineage {
        Lineage::new(7).unwrap()
    }

    /// A directory that wrote up to `at`, in epoch 3.
    fn saved(at: u64) -> Saved {
        Saved {
            lineage: lineage(),
            epoch: Epoch::new(3),
            place: Place {
                txid: txid(at),
                sum: sum(at.into()),
                page_size: PageSize::new(4096).unwrap(),
                page_count: PageCount(2),
                wal: None,
            },
            restored_head: None,
            rewind_from: None,
            last_snapshot: None,
        }
    }

    /// The head `at`, with a snapshot at `snapshot`.
    fn head(at: u64, epoch: u32, snapshot: u64) -> (RemoteHead, Option<Txid>) {
        let stream = StreamId {
            lineage: lineage(),
            epoch: Epoch::new(epoch).unwrap(),
        };
        let head = RemoteHead {
            txid: txid(at),
            stream: Some(stream),
            sum: Some(sum(at.into())),
        };
        (head, Some(txid(snapshot)))
    }

    fn base(from: u64, to: u64, before: u128) -> Option<Step> {
        let range = TxidRange::new(txid(from), txid(to)).unwrap();
        Some(Step::Base(range, Some(sum(before))))
    }

    #[test]
    fn r40_what_the_store_gets_follows_from_head_and_content() {
        let snapshot = |at| Some(Step::Snapshot(txid(at)));
        let (none, adopt) = (
            Permission::default(),
            Permission {
                adopt: true,
                ..Permission::default()
            },
        );
        let new_chain = Permission {
            new_chain: true,
            ..none
        };
        let cases = [
            ("nothing anywhere", none, None, None, 5, snapshot(1)),
            ("an emptied bucket", none, Some(4), None, 4, snapshot(4)),
            ("the same, changed", none, Some(4), None, 9, snapshot(5)),
            (
                "unchanged",
                none,
                Some(4),
                Some(head(4, 3, 4)),
                4,
                Some(Step::Held),
            ),
            (
                "no snapshot of it",
                none,
                Some(4),
                Some(head(4, 3, 2)),
                4,
                snapshot(4),
            ),
            (
                "unknown but equal",
                none,
                None,
                Some(head(4, 3, 4)),
                4,
                Some(Step::Held),
            ),
            (
                "unknown and other",
                none,
                None,
                Some(head(4, 3, 4)),
                9,
                None,
            ),
            (
                "adopted",
                adopt,
                None,
                Some(head(4, 3, 4)),
                9,
                base(5, 5, 4),
            ),
            (
                "changed",
                none,
                Some(4),
                Some(head(4, 3, 4)),
                9,
                base(5, 5, 4),
            ),
            (
                "died before the base was stored",
                none,
                Some(5),
                Some(head(4, 2, 4)),
                5,
                base(5, 6, 4),
            ),
            (
                "died before it was noted",
                none,
                Some(4),
                Some(head(5, 3, 4)),
                9,
                base(6, 6, 5),
            ),
            (
                "another one went on",
                none,
                Some(4),
                Some(head(5, 4, 5)),
                9,
                None,
            ),
            (
                "a new chain",
                new_chain,
                Some(4),
                Some(head(4, 3, 4)),
                4,
                base(5, 5, 4),
            ),
        ];
        for (what, permission, at, head, content, expected) in cases {
            let saved = at.map(saved);
            let name = "a.db".parse().unwrap();
            let found = decide(&name, permission, saved.as_ref(), head, sum(content));
            match (found, expected) {
                (Ok(found), Some(expected)) => assert_eq!(found, expected, "{what}"),
                (Err(error), None) => assert_eq!(error.kind(), ErrorKind::Fenced, "{what}"),
                (found, _) => panic!("{what}: {found:?}"),
            }
        }
    }
}
