//! What the store lets us do, tried with objects of our own.

use bytes::Bytes;

use super::report::Check;
use crate::config::LeaseMode;
use crate::error::{Error, ErrorKind, Result};
use crate::lease::probe::{self, Trial as Outcome};
use crate::store::{ETag, Put, PutOutcome, Store, trial_key};
use crate::types::KeyPrefix;

const UNFENCED: &str =
    "watch each database from one place only, or choose a store with conditional writes";

/// The objects of one run.
struct Trial<'s> {
    store: &'s dyn Store,
    /// Written whole.
    object: String,
    /// Written in parts.
    upload: String,
    /// Whether there may be one of them.
    written: bool,
    checks: Vec<Check>,
}

/// Puts, gets, replaces, uploads and deletes; leaves nothing behind that it may delete.
pub(super) async fn run(store: &dyn Store, prefix: &KeyPrefix, lease: LeaseMode) -> Vec<Check> {
    let id = format!("{:016x}", fastrand::u64(..));
    let mut trial = Trial {
        store,
        object: trial_key(prefix, &format!("{id}/object")),
        upload: trial_key(prefix, &format!("{id}/upload")),
        written: false,
        checks: Vec::new(),
    };
    if let Some(version) = trial.put().await {
        trial.get().await;
        trial.conditions(version, lease).await;
    }
    if trial.multipart(lease).await {
        trial.abort().await;
    }
    trial.delete().await;
    trial.checks
}

fn body(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

impl Trial<'_> {
    /// The version of the object that stands now; nothing where there is none.
    async fn put(&mut self) -> Option<Option<ETag>> {
        // Unconditional: a store that does not know conditions is told of them below.
        let put = self.store.put(&self.object, body("1"), Put::always()).await;
        match put {
            Ok(PutOutcome::Stored { etag, .. }) => {
                self.written = true;
                self.checks.push(Check::ok("put", "allowed"));
                Some(etag)
            }
            Ok(PutOutcome::Refused { .. }) => {
                let message = "the store refuses a condition that was not set";
                let failed = Error::new(ErrorKind::Unavailable, message);
                self.checks.push(Check::failed_because("put", &failed));
                None
            }
            Err(error) => {
                let failed = Check::failed_because("put", &error);
                let hint = format!("allow s3:PutObject on {}", self.place());
                self.checks.push(failed.hint(hint));
                None
            }
        }
    }

    async fn get(&mut self) {
        let got = self.store.get(&self.object, None).await;
        self.checks.push(match got {
            Ok(object) if object.bytes == "1" => Check::ok("get", "allowed"),
            Ok(_) => Check::failed(
                "get",
                ErrorKind::Corrupt,
                "other bytes came back than were put",
                "something between here and the store changes objects: a proxy, or a cache?",
            ),
            Err(error) => Check::failed_because("get", &error)
                .hint(format!("allow s3:GetObject on {}", self.place())),
        });
    }

    /// The conditions that keep two writers apart, tried as the lease tries them, and one that must hold.
    async fn conditions(&mut self, version: Option<ETag>, lease: LeaseMode) {
        let key = &self.object;
        let create = probe::try_put(self.store, key, body("2"), Put::new_object()).await;
        let version = match &create {
            Ok(Outcome::Stored(etag)) => etag.clone(),
            _ => version,
        };
        self.checks.push(refusal("if-none-match", create, lease));
        let stale = probe::try_put(self.store, key, body("3"), Put::over(probe::nowhere())).await;
        let version = match &stale {
            Ok(Outcome::Stored(etag)) => etag.clone(),
            _ => version,
        };
        let refused = matches!(stale, Ok(Outcome::Refused));
        let check = refusal("if-match", stale, lease);
        self.checks.push(match version {
            Some(version) if refused => self.replacement(check, version).await,
            Some(_) => check,
            None if refused => Check::failed(
                "if-match",
                ErrorKind::Unsupported,
                "the store names no versions of objects",
                UNFENCED,
            ),
            None => check,
        });
    }

    /// `check`, unless the version that stands there is refused too.
    async fn replacement(&self, check: Check, version: ETag) -> Check {
        let put = self.store.put(&self.object, body("4"), Put::over(version));
        match put.await {
            Ok(PutOutcome::Stored { .. }) => check,
            Ok(PutOutcome::Refused { .. }) => Check::failed(
                "if-match",
                ErrorKind::Unsupported,
                "the store refuses to replace the very version that it names",
                "no lease could ever be taken over here: choose another store",
            ),
            Err(error) => Check::failed_because("if-match", &error),
        }
    }

    /// Whether an object can be written in parts.
    async fn multipart(&mut self, lease: LeaseMode) -> bool {
        if let Err(error) = self.upload_new().await {
            let hint = format!(
                "allow s3:PutObject on {}: large snapshots go in parts",
                self.place()
            );
            self.checks
                .push(Check::failed_because("multipart", &error).hint(hint));
            return false;
        }
        self.written = true;
        self.checks.push(Check::ok("multipart", "allowed"));
        let again = probe::try_upload(self.store, &self.upload, body("2")).await;
        self.checks
            .push(refusal("multipart if-none-match", again, lease));
        true
    }

    /// Uploads that a crash leaves behind are aborted at a start; where that is refused they only cost.
    async fn abort(&mut self) {
        let begun = self.store.begin_upload(&self.upload, Put::new_object());
        let aborted = match begun.await {
            Ok(upload) => upload.abort().await,
            Err(error) => Err(error),
        };
        self.checks.push(match aborted {
            Ok(()) => Check::ok("abort", "allowed"),
            Err(error) => {
                let message = format!("{}; abandoned uploads stay", error.message());
                Check::note("abort", message).hint(format!(
                    "allow s3:AbortMultipartUpload on {}, or set a lifecycle rule for them",
                    self.place()
                ))
            }
        });
    }

    async fn upload_new(&self) -> Result<()> {
        let how = Put::always();
        let mut upload = self.store.begin_upload(&self.upload, how).await?;
        let sent = match upload.part(body("1")).await {
            Ok(()) => upload.complete().await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(_) => Ok(()),
            Err(error) => {
                // The first error tells more than that of the clearing up.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }

    /// Only compaction deletes, so that a refusal is no fault (R148).
    async fn delete(&mut self) {
        let keys = [self.object.clone(), self.upload.clone()];
        let kept = match self.store.delete(&keys).await {
            Ok(kept) => kept,
            Err(error) => keys
                .into_iter()
                .map(|key| (key, error_again(&error)))
                .collect(),
        };
        let Some((key, error)) = kept.first() else {
            return self.checks.push(Check::ok("delete", "allowed"));
        };
        let mut message = format!("{}; only compact needs it", error.message());
        if self.written {
            let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
            message.push_str(&format!(". Some bytes stay below {folder}/"));
        }
        self.checks
            .push(Check::note("delete", message).hint(format!(
                "to compact from here, allow s3:DeleteObject on {}",
                self.place()
            )));
    }

    /// Where rights are needed, for people.
    fn place(&self) -> String {
        let below = self.object.split(".walrust/").next().unwrap_or_default();
        format!("{}/{below}*", self.store.location())
    }
}

fn error_again(error: &Error) -> Error {
    Error::new(error.kind(), error.message())
}

/// What it means how the store took a write that it must refuse. Without leases nobody relies on it.
fn refusal(name: &str, trial: Result<Outcome>, lease: LeaseMode) -> Check {
    let message = match trial {
        Ok(Outcome::Refused) => return Check::ok(name, "refuses what it must"),
        Ok(Outcome::Stored(_)) => "ignored: streams are unfenced",
        Ok(Outcome::Unknown) => "not known to the store: streams are unfenced",
        Err(error) => return Check::failed_because(name, &error),
    };
    match lease {
        LeaseMode::Off => Check::note(name, message).hint(UNFENCED),
        LeaseMode::Enforce | LeaseMode::Observe => {
            Check::failed(name, ErrorKind::Unsupported, message, UNFENCED)
        }
    }
}
