//! Continuous proof: now and then the newest stored state is restored to scratch, beside the session and
//! without touching it.
//!
//! One proof at a time for the whole process: each takes up to 40 MiB of memory while it runs, and its
//! database's size of the disk. Nothing of it outlives the proof; what a crash leaves is removed when the
//! state directory is opened again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::counters::Counters;
use super::event::{Happening, WatchEvent};
use super::status::{DatabaseState, DatabaseStatus};
use super::worker::{Context, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::state::{RESERVE, StateDir};
use crate::store::Layout;
use crate::types::{DatabaseName, Txid};
use crate::verify::{DrillReport, DrillRequest, DrillTarget, drill};

/// The first proof comes after this part of the interval: soon, but not with each restart in a row.
const FIRST: u32 = 10;

/// What proves a database again and again until its stop, if that is wanted.
pub(super) fn proving(context: &Context) -> Option<impl Future<Output = ()> + use<>> {
    let prover = Prover {
        shared: context.shared.clone(),
        layout: context.layout.clone(),
        path: context.options.path.clone(),
        name: context.options.name.clone(),
        status: context.status.clone(),
        counters: context.counters.clone(),
        interval: context.options.prove_interval?,
    };
    let stop = context.stop.clone();
    Some(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = prover.run() => {}
        }
    })
}

struct Prover {
    shared: Arc<Shared>,
    layout: Layout,
    path: PathBuf,
    name: DatabaseName,
    status: watch::Sender<DatabaseStatus>,
    counters: Arc<Counters>,
    interval: Duration,
}

impl Prover {
    async fn run(self) {
        let mut next = Instant::now() + self.interval / FIRST;
        loop {
            sleep_until(next).await;
            let durable = self.durable().await;
            let turn = self.shared.proofs.acquire().await;
            let report = self.prove().await;
            drop(turn);
            self.tell(report, durable).await;
            next = Instant::now() + self.interval;
        }
    }

    /// Waits until there is something to prove: the newest state that is stored.
    async fn durable(&self) -> Option<Txid> {
        let mut status = self.status.subscribe();
        let provable = |status: &DatabaseStatus| {
            status.durable_txid.is_some() && status.state != DatabaseState::Fenced
        };
        let status = status.wait_for(provable).await;
        status.ok().and_then(|status| status.durable_txid)
    }

    async fn prove(&self) -> DrillReport {
        let scratch = match self.scratch() {
            Ok(scratch) => scratch,
            Err(error) => return DrillReport::failed(&self.name, &error),
        };
        let request = DrillRequest {
            layout: self.layout.clone(),
            target: DrillTarget::Latest,
            scratch,
        };
        drill(&self.shared.store, &request, &self.shared.clock).await
    }

    /// The scratch directory beside the database, if it has room for a copy. Errors: Exhausted if the
    /// application might then miss it.
    fn scratch(&self) -> Result<PathBuf> {
        let scratch = StateDir::path_for(&self.path)?.join("scratch");
        let fail = |error: rustix::io::Errno| Error::io(scratch.display(), error.into());
        let space = rustix::fs::statvfs(&scratch).map_err(fail)?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let file = std::fs::metadata(&self.path);
        let size = file.map_err(|error| Error::io(self.path.display(), error))?;
        let wanted = size.len() + self.status.borrow().wal_bytes + RESERVE;
        if free < wanted {
            let message = format!("{free} bytes are free, a proof needs {wanted}");
            return Err(Error::new(ErrorKind::Exhausted, message).on(scratch.display()));
        }
        Ok(scratch)
    }

    async fn tell(&self, report: DrillReport, durable: Option<Txid>) {
        let now = self.shared.clock.now();
        let what = judge(report, durable);
        if let Happening::Proven { txid, .. } = what {
            self.status.send_modify(|status| {
                status.proven_txid = Some(txid);
                status.proven_at = Some(now);
            });
        }
        self.counters.told(&what);
        let event = WatchEvent {
            time: now,
            database: self.path.clone(),
            name: self.name.clone(),
            what,
        };
        // A listener that went away wants to know no more.
        let _ = self.shared.events.send(event).await;
    }
}

/// What a proof shows, where `durable` was stored before it began.
fn judge(report: DrillReport, durable: Option<Txid>) -> Happening {
    match (report.ok, report.txid) {
        (true, Some(txid)) if durable.is_none_or(|durable| durable <= txid) => Happening::Proven {
            txid,
            bytes: report.bytes.unwrap_or(0),
            duration_ms: report.duration_ms,
        },
        (true, txid) => Happening::Unproven {
            kind: ErrorKind::Corrupt,
            message: format!(
                "the bucket leads to TXID {} only, though TXID {} was stored",
                txid.map_or(0, Txid::get),
                durable.map_or(0, Txid::get)
            ),
        },
        (false, _) => Happening::Unproven {
            kind: report.failure.unwrap_or(ErrorKind::Corrupt),
            message: report.message.unwrap_or_default(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ok: bool, txid: u64) -> DrillReport {
        let name = "app.db".parse().unwrap();
        let error = Error::new(ErrorKind::Unavailable, "no route");
        DrillReport {
            ok,
            txid: Txid::new(txid),
            ..DrillReport::failed(&name, &error)
        }
    }

    #[test]
    fn an_older_state_than_was_stored_proves_nothing() {
        for (ok, txid, durable, proven) in [
            (true, 7, 7, true),
            (true, 9, 7, true),
            (true, 6, 7, false),
            (false, 7, 7, false),
        ] {
            let shown = judge(report(ok, txid), Txid::new(durable));
            assert_eq!(
                matches!(shown, Happening::Proven { .. }),
                proven,
                "{shown:?}"
            );
        }
        let lost = judge(report(true, 6), Txid::new(7));
        assert!(matches!(
            lost,
            Happening::Unproven { kind: ErrorKind::Corrupt, message } if message.contains("TXID 6 only")
        ));
    }
}
