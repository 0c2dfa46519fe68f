//! The Job of a `WalrustRestore`.

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaimVolumeSource, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::config::{self, Config};
use super::error::Error;
use super::job_pod::{JobPod, User, Work};
use super::names::{self, CONFIG_DIRECTORY, CONFIG_FILE, REPORT_FILE, TMP_DIRECTORY, volumes};
use super::pod::{empty_volume, mount};
use super::settings::Settings;
use super::{backup_config_map, jobs_file};
use crate::api::{
    Database, IfExists, Jobs, Moment, Sidecar, Storage, Verify, WalrustBackup, WalrustRestore,
    WalrustRestoreSpec, labels,
};

/// Where the claim is mounted.
const TARGET_DIRECTORY: &str = "/restore";

/// What a `WalrustRestore` becomes.
#[derive(Clone, PartialEq, Debug)]
pub struct RenderedRestore {
    /// Where the store is not that of a `WalrustBackup`: how to reach it.
    pub config_map: Option<ConfigMap>,
    /// The Job, which is made once.
    pub job: Job,
}

/// What `restore` becomes. `backup` is the one that it names, if it names one.
///
/// # Errors
/// Says which field is wrong.
pub fn restore(
    restore: &WalrustRestore,
    backup: Option<&WalrustBackup>,
    settings: &Settings,
) -> Result<RenderedRestore, Error> {
    let (name, namespace) = names::identity(restore)?;
    let work = work(&restore.spec)?;
    let (config_map, pod) = match (&restore.spec.backup_ref, &restore.spec.source, backup) {
        (Some(named), None, Some(backup)) => {
            let (backup_name, _) = names::identity(backup)?;
            if backup_name != named.name {
                return Err(Error::OtherBackup(named.name.clone()));
            }
            has_database(&backup.spec.databases, &restore.spec.database)?;
            let work = work.with_config(jobs_file(&backup.spec));
            (
                None,
                JobPod::of_backup(backup, &backup_name, work.finish(), settings)?,
            )
        }
        (None, Some(storage), _) => {
            let config = config::of_store(storage, settings)?;
            let config_map = own_config_map(restore, &name, &namespace, config);
            let pod = of_storage(
                storage,
                &name,
                work.with_config(CONFIG_FILE).finish(),
                settings,
            )?;
            (Some(config_map), pod)
        }
        (Some(named), None, None) => return Err(Error::OtherBackup(named.name.clone())),
        (None, None, _) | (Some(_), Some(_), _) => return Err(Error::Source),
    };
    let pod = pod.running_as(User::of_target(&restore.spec.target, settings));
    Ok(RenderedRestore {
        config_map,
        job: job(restore, &name, &namespace, pod),
    })
}

fn job(restore: &WalrustRestore, name: &str, namespace: &str, pod: JobPod) -> Job {
    let mut own = names::labels(name, "restore");
    own.insert(labels::TASK.to_owned(), "restore".to_owned());
    own.insert(labels::RESTORE.to_owned(), name.to_owned());
    if let Some(backup) = &restore.spec.backup_ref {
        own.insert(labels::BACKUP.to_owned(), backup.name.clone());
    }
    Job {
        metadata: names::metadata(restore, names::restore_job(name), namespace, own.clone()),
        spec: Some(JobSpec {
            // What it did cannot be known from outside: it is never run twice.
            backoff_limit: Some(0),
            active_deadline_seconds: Some(restore.spec.active_deadline_seconds),
            ttl_seconds_after_finished: restore.spec.ttl_seconds_after_finished,
            template: pod.template(own),
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}

fn own_config_map(
    restore: &WalrustRestore,
    name: &str,
    namespace: &str,
    config: Config,
) -> ConfigMap {
    let mut own = names::labels(name, "config");
    own.insert(labels::RESTORE.to_owned(), name.to_owned());
    let metadata = names::metadata(restore, names::restore_job(name), namespace, own);
    backup_config_map(metadata, config, None)
}

fn of_storage(
    storage: &Storage,
    name: &str,
    work: Work,
    settings: &Settings,
) -> Result<JobPod, Error> {
    JobPod::new(
        work,
        &names::restore_job(name),
        &storage.credentials,
        storage.ca_bundle.as_ref(),
        &Sidecar::default(),
        &Jobs::default(),
        settings,
    )
}

/// A database of a pattern is `<name>/<file name>`.
fn has_database(databases: &[Database], name: &str) -> Result<(), Error> {
    let is_of = |database: &Database| {
        let rest = name.strip_prefix(database.name.as_str());
        match super::is_pattern(&database.path) {
            true => rest.is_some_and(|rest| rest.len() > 1 && rest.starts_with('/')),
            false => rest == Some(""),
        }
    };
    if databases.iter().any(is_of) {
        return Ok(());
    }
    let known = databases
        .iter()
        .map(|database| match super::is_pattern(&database.path) {
            true => format!("{}/<file name>", database.name),
            false => database.name.clone(),
        });
    Err(Error::UnknownDatabase {
        name: name.to_owned(),
        known: known.collect::<Vec<_>>().join(", "),
    })
}

/// The arguments, until it is known which configuration they lead to.
struct Arguments {
    words: Vec<String>,
    claim: String,
}

fn work(spec: &WalrustRestoreSpec) -> Result<Arguments, Error> {
    let output = format!("{TARGET_DIRECTORY}/{}", spec.target.path);
    let verify = match spec.verify {
        Verify::None => "none",
        Verify::Quick => "quick",
        Verify::Full => "full",
    };
    let words = [
        "restore",
        &spec.database,
        "--output",
        &output,
        "--verify",
        verify,
        "--resume",
    ];
    let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    if let Some(to) = &spec.to {
        words.extend(["--point-in-time".to_owned(), moment(to)?]);
    }
    match spec.target.if_exists {
        IfExists::Fail => {}
        // To move a file aside and then fail would be worse than to refuse.
        IfExists::KeepAside => return Err(Error::NotYet("spec.target.ifExists: KeepAside")),
    }
    Ok(Arguments {
        words,
        claim: spec.target.claim_name.clone(),
    })
}

fn moment(to: &Moment) -> Result<String, Error> {
    match (to.txid, &to.time) {
        (Some(txid), None) => Ok(format!("txid:{txid}")),
        (None, Some(time)) => Ok(config::time(time)),
        (None, None) | (Some(_), Some(_)) => Err(Error::Moment),
    }
}

impl Arguments {
    fn with_config(mut self, file: &str) -> Self {
        let config = format!("{CONFIG_DIRECTORY}/{file}");
        let common = [
            "--config",
            &config,
            "--no-progress",
            "--report",
            REPORT_FILE,
        ];
        self.words.extend(common.map(str::to_owned));
        self
    }

    fn finish(self) -> Work {
        let mut work = Work::new("walrust", self.words);
        work.volumes.push(Volume {
            name: volumes::TARGET.to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: self.claim,
                ..PersistentVolumeClaimVolumeSource::default()
            }),
            ..Volume::default()
        });
        work.mounts.push(mount(volumes::TARGET, TARGET_DIRECTORY));
        work.volumes
            .push(empty_volume(volumes::TMP, Some(Quantity("1Gi".to_owned()))));
        work.mounts.push(mount(volumes::TMP, TMP_DIRECTORY));
        work
    }
}
