//! The pod of a Job: what it runs, as whom, and what it may reach.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EnvVar, PodSecurityContext, PodSpec, PodTemplateSpec, ResourceRequirements,
    SeccompProfile, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::error::Error;
use super::image::Image;
use super::names::{self, REPORT_FILE};
use super::pod::{Mounted, SecretMode, restricted, tmp_variables, variable};
use super::settings::Settings;
use crate::api::{
    CaBundle, Credentials, Jobs, PodOverrides, Sidecar, Target, WalrustBackup, labels,
};

/// What a Job does.
pub(super) struct Work {
    program: &'static str,
    args: Vec<String>,
    pub(super) volumes: Vec<Volume>,
    pub(super) mounts: Vec<VolumeMount>,
}

impl Work {
    pub(super) const fn new(program: &'static str, args: Vec<String>) -> Self {
        Self {
            program,
            args,
            volumes: Vec::new(),
            mounts: Vec::new(),
        }
    }
}

/// As whom a Job runs; nothing is left to the platform.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct User {
    pub(super) user: Option<i64>,
    pub(super) group: Option<i64>,
    pub(super) fs_group: Option<i64>,
}

impl User {
    /// The operator's user for Jobs: the same number thrice, or what the platform chooses.
    pub(super) fn of_settings(settings: &Settings) -> Self {
        let id = (settings.jobs.run_as_user > 0).then_some(settings.jobs.run_as_user);
        Self {
            user: id,
            group: id,
            fs_group: id,
        }
    }

    /// What a restore's target says, over the operator's user.
    pub(super) fn of_target(target: &Target, settings: &Settings) -> Self {
        let default = Self::of_settings(settings);
        Self {
            user: target.run_as_user.or(default.user),
            group: target.run_as_group.or(target.run_as_user).or(default.group),
            fs_group: target
                .fs_group
                .or(target.run_as_group)
                .or(target.run_as_user)
                .or(default.fs_group),
        }
    }
}

/// The pod of a Job.
pub(super) struct JobPod {
    work: Work,
    image: Image,
    files: Mounted,
    user: User,
    service_account: Option<String>,
    log_level: Option<String>,
    resources: ResourceRequirements,
    node_selector: BTreeMap<String, String>,
    tolerations: Vec<Toleration>,
    overrides: PodOverrides,
}

impl JobPod {
    /// A pod that reaches the store of `backup`, called `name`.
    pub(super) fn of_backup(
        backup: &WalrustBackup,
        name: &str,
        work: Work,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let spec = &backup.spec;
        Self::new(
            work,
            &names::config_map(name),
            credentials(&spec.jobs, &spec.storage.credentials),
            spec.storage.ca_bundle.as_ref(),
            &spec.sidecar,
            &spec.jobs,
            settings,
        )
    }

    /// A pod that reaches the store that `config_map` and `credentials` lead to.
    pub(super) fn new(
        work: Work,
        config_map: &str,
        credentials: &Credentials,
        ca: Option<&CaBundle>,
        sidecar: &Sidecar,
        jobs: &Jobs,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let defaults = &settings.jobs;
        let identity = credentials.workload_identity.as_ref();
        let user = User::of_settings(settings);
        let mode = secret_mode(user);
        Ok(Self {
            image: Image::of(sidecar, settings)?,
            files: Mounted::files(config_map, credentials, ca, mode),
            user,
            work,
            service_account: identity.and_then(|it| it.job_service_account_name.clone()),
            log_level: sidecar.log_level.clone(),
            resources: jobs
                .resources
                .clone()
                .unwrap_or_else(|| defaults.resources.clone()),
            node_selector: either(&jobs.node_selector, &defaults.node_selector),
            tolerations: match jobs.tolerations.is_empty() {
                true => defaults.tolerations.clone(),
                false => jobs.tolerations.clone(),
            },
            overrides: jobs
                .pod_template
                .clone()
                .unwrap_or_else(|| defaults.pod_template.clone()),
        })
    }

    /// The same as another user.
    pub(super) fn running_as(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    /// As Jobs want it; `own` labels win over those that were asked for.
    pub(super) fn template(self, own: BTreeMap<String, String>) -> PodTemplateSpec {
        let container = self.container();
        let annotations = self.overrides.annotations;
        let mut labels = self.overrides.labels;
        labels.extend(own);
        let volumes = self.files.volumes.into_iter().chain(self.work.volumes);
        PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(labels),
                annotations: (!annotations.is_empty()).then_some(annotations),
                ..ObjectMeta::default()
            }),
            spec: Some(PodSpec {
                restart_policy: Some("Never".to_owned()),
                // Workload identity brings its own token; nothing here talks to the API server.
                automount_service_account_token: Some(false),
                service_account_name: self.service_account,
                security_context: Some(PodSecurityContext {
                    run_as_non_root: Some(true),
                    run_as_user: self.user.user,
                    run_as_group: self.user.group,
                    fs_group: self.user.fs_group,
                    fs_group_change_policy: self.user.fs_group.map(|_| "OnRootMismatch".to_owned()),
                    seccomp_profile: Some(SeccompProfile {
                        type_: "RuntimeDefault".to_owned(),
                        ..SeccompProfile::default()
                    }),
                    ..PodSecurityContext::default()
                }),
                containers: vec![container],
                volumes: Some(volumes.collect()),
                node_selector: (!self.node_selector.is_empty()).then_some(self.node_selector),
                tolerations: (!self.tolerations.is_empty()).then_some(self.tolerations),
                priority_class_name: self.overrides.priority_class_name,
                affinity: self.overrides.affinity,
                image_pull_secrets: Some(self.overrides.image_pull_secrets)
                    .filter(|it| !it.is_empty()),
                ..PodSpec::default()
            }),
        }
    }

    fn container(&self) -> Container {
        let mounts = self.files.mounts.iter().chain(&self.work.mounts);
        Container {
            name: labels::CONTAINER.to_owned(),
            image: Some(self.image.name.clone()),
            image_pull_policy: self.image.policy(),
            command: Some(vec![self.work.program.to_owned()]),
            args: Some(self.work.args.clone()),
            env: Some(variables(self.log_level.as_deref())),
            resources: Some(self.resources.clone()),
            security_context: Some(restricted()),
            termination_message_path: Some(REPORT_FILE.to_owned()),
            termination_message_policy: Some("File".to_owned()),
            volume_mounts: Some(mounts.cloned().collect()),
            ..Container::default()
        }
    }
}

/// Where temporary files go, and what is logged.
pub(crate) fn variables(log_level: Option<&str>) -> Vec<EnvVar> {
    let level = log_level.map(|level| variable("RUST_LOG", level));
    tmp_variables().into_iter().chain(level).collect()
}

/// The credentials of Jobs: their own, or those of the sidecars.
pub(super) fn credentials<'c>(jobs: &'c Jobs, storage: &'c Credentials) -> &'c Credentials {
    jobs.credentials.as_ref().unwrap_or(storage)
}

const fn secret_mode(user: User) -> SecretMode {
    match user.fs_group {
        Some(_) => SecretMode::Group,
        None => SecretMode::All,
    }
}

fn either(
    own: &BTreeMap<String, String>,
    default: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    match own.is_empty() {
        true => default.clone(),
        false => own.clone(),
    }
}
