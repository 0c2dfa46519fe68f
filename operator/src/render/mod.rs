//! What a resource becomes: objects, as pure functions of its spec and the operator's [`Settings`].
//!
//! | object | name | |
//! |---|---|---|
//! | ConfigMap | `<name>-walrust` | `walrust.toml`; `jobs.toml` where Jobs have credentials of another kind |
//! | CronJob | `<name>-compact`, `<name>-verify`, `<name>-restore-drill` | those that have a schedule |
//! | Job | `<restore>-restore` | of a `WalrustRestore`, made once |
//!
//! All carry an owner reference where the resource has a UID, so that they go with it.

mod config;
mod cron;
mod cron_jobs;
mod error;
mod image;
mod job_pod;
pub mod names;
mod pod;
mod restore;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use config::{Config, effective_prefix};
pub use cron_jobs::cron_job_name;
pub use error::Error;
pub use restore::{RenderedRestore, restore};
pub use settings::{JobDefaults, Settings, StoreDefaults};

pub(crate) use image::Image;
pub(crate) use job_pod::variables;
pub(crate) use pod::{Mounted, SecretMode, empty_volume, mount, read_only, restricted};

use crate::api::{Credentials, WalrustBackup, WalrustBackupSpec, labels};
use names::{CONFIG_FILE, JOBS_FILE};

/// The longest name that leaves room for those of CronJobs: 52 without `-restore-drill`.
const LONGEST_NAME: usize = 38;

/// What a `WalrustBackup` becomes.
#[derive(Clone, PartialEq, Debug)]
pub struct RenderedBackup {
    /// The prefix that is used in the bucket.
    pub effective_prefix: String,
    /// The configuration of sidecars.
    pub config: Config,
    /// The ConfigMap that holds it.
    pub config_map: ConfigMap,
    /// The CronJobs of the tasks that have a schedule.
    pub cron_jobs: Vec<CronJob>,
}

/// What `backup` becomes.
///
/// # Errors
/// Says which field is wrong. The API server's own checks find most of it first.
pub fn backup(backup: &WalrustBackup, settings: &Settings) -> Result<RenderedBackup, Error> {
    let (name, namespace) = names::identity(backup)?;
    if name.len() > LONGEST_NAME {
        return Err(Error::LongName(name));
    }
    let spec = &backup.spec;
    let prefix = effective_prefix(&spec.storage.prefix, &namespace, &name, settings);
    let config = backup_config(backup, settings)?;
    let jobs_file = jobs_file(spec);
    let jobs = match jobs_file {
        CONFIG_FILE => None,
        _ => {
            let credentials = job_pod::credentials(&spec.jobs, &spec.storage.credentials);
            exactly_one(credentials, "spec.jobs.credentials")?;
            Some(config::of_backup(spec, &prefix, credentials, settings)?)
        }
    };
    let mut own = names::labels(&name, "config");
    own.insert(labels::BACKUP.to_owned(), name.clone());
    let metadata = names::metadata(backup, names::config_map(&name), &namespace, own);
    Ok(RenderedBackup {
        effective_prefix: prefix,
        cron_jobs: cron_jobs::of_backup(backup, jobs_file, settings)?,
        config_map: backup_config_map(metadata, config.clone(), jobs),
        config,
    })
}

/// The configuration of the sidecars of `backup`, for whoever needs nothing else.
///
/// # Errors
/// As [`backup`].
pub fn backup_config(backup: &WalrustBackup, settings: &Settings) -> Result<Config, Error> {
    let (name, namespace) = names::identity(backup)?;
    let storage = &backup.spec.storage;
    exactly_one(&storage.credentials, "spec.storage.credentials")?;
    let prefix = effective_prefix(&storage.prefix, &namespace, &name, settings);
    config::of_backup(&backup.spec, &prefix, &storage.credentials, settings)
}

fn exactly_one(credentials: &Credentials, field: &'static str) -> Result<(), Error> {
    match (&credentials.secret_ref, &credentials.workload_identity) {
        (Some(_), None) | (None, Some(_)) => Ok(()),
        (None, None) | (Some(_), Some(_)) => Err(Error::Credentials(field)),
    }
}

/// The file that Jobs read: another one where their credentials lie elsewhere than those of the sidecars.
fn jobs_file(spec: &WalrustBackupSpec) -> &'static str {
    let of_jobs = job_pod::credentials(&spec.jobs, &spec.storage.credentials);
    match of_jobs.secret_ref.is_some() == spec.storage.credentials.secret_ref.is_some() {
        true => CONFIG_FILE,
        false => JOBS_FILE,
    }
}

fn backup_config_map(metadata: ObjectMeta, config: Config, jobs: Option<Config>) -> ConfigMap {
    let hash = (labels::CONFIG_HASH.to_owned(), config.hash);
    let jobs = jobs.map(|jobs| (JOBS_FILE.to_owned(), jobs.toml));
    let files: BTreeMap<String, String> = std::iter::once((CONFIG_FILE.to_owned(), config.toml))
        .chain(jobs)
        .collect();
    ConfigMap {
        metadata: ObjectMeta {
            annotations: Some([hash].into()),
            ..metadata
        },
        data: Some(files),
        ..ConfigMap::default()
    }
}

/// Whether the last part of `path` is a pattern.
pub(crate) fn is_pattern(path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    last.contains(['*', '?', '['])
}
