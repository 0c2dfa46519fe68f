//! How a pod gets its sidecar: a pure function from pod, resource and settings to a JSON patch, or to the reason why not.
//!
//! The same serves the webhook, with a pod, and `walrust-operator inject`, with the template of a workload. What is read is
//! typed, what is changed is the object as it came: fields that this version does not know stay.
//!
//! A pod that has our init container already is not injected again; only the workload identity that another webhook added
//! meanwhile is copied. So injecting twice changes nothing.

mod containers;
mod identity;
mod mounts;
mod patch;
mod refusal;
mod request;
#[cfg(test)]
mod tests;
mod user;

use json_patch::Patch;
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

pub use refusal::Refusal;
pub use request::{Mode, Request};

use crate::api::{GateStartup, WalrustBackup, WhenNoBackup, labels};
use crate::render::names::{self, TMP_DIRECTORY, TOKEN_DIRECTORY, volumes};
use crate::render::{self, Image, Mounted, SecretMode, Settings, empty_volume, mount, read_only};
use containers::{Common, Start};
use identity::Identity;
use patch::Additions;

/// The port of the sidecar's control listener, on the pod's loopback address.
const CONTROL_PORT: i32 = 16_768;
/// What Kubernetes takes where a pod does not say.
const USUAL_GRACE: i64 = 30;
/// Sidecars of meshes, without which our first request would go nowhere.
const MESH: [&str; 2] = ["istio-proxy", "linkerd-proxy"];

/// The patch that gives `pod` what `request` asks for. `pod` is a pod, or a template: an object with `metadata` and `spec`.
/// The patch is empty where nothing is to be done.
///
/// # Errors
/// Why the pod must not start like this.
pub fn inject(
    pod: &Value,
    request: &Request,
    backup: &WalrustBackup,
    settings: &Settings,
) -> Result<Patch, Refusal> {
    let template: PodTemplateSpec = serde_json::from_value(pod.clone())
        .map_err(|error| Refusal::Unreadable(error.to_string()))?;
    let spec = template.spec.clone().unwrap_or_default();
    let additions = match own_containers(&spec) {
        ours if ours.is_empty() => everything(&template, &spec, request, backup, settings)?,
        _ => identity_of_second_call(&spec, backup),
    };
    Ok(patch::to_patch(pod, &additions))
}

/// Where our init containers stand in a pod that was injected before.
fn own_containers(spec: &PodSpec) -> Vec<(usize, &Container)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let is_ours = |name: &str| name == labels::CONTAINER || name == labels::RESTORE_CONTAINER;
    let ours: Vec<_> = init
        .filter(|(_, container)| is_ours(&container.name))
        .collect();
    let has_sidecar = ours
        .iter()
        .any(|(_, container)| container.name == labels::CONTAINER);
    if has_sidecar { ours } else { Vec::new() }
}

/// Workload identity that another webhook added after us.
fn identity_of_second_call(spec: &PodSpec, backup: &WalrustBackup) -> Additions {
    let mut additions = Additions::default();
    let storage = &backup.spec.storage;
    if storage.credentials.workload_identity.is_none() {
        return additions;
    }
    // What was chosen then may no longer be choosable: then nothing is copied, and nothing breaks that worked.
    let name = names::identity(backup)
        .map(|(name, _)| name)
        .unwrap_or_default();
    if let Ok(chosen) = mounts::choose(spec, &backup.spec, &name) {
        for (at, ours) in own_containers(spec) {
            let lacking = Identity::of(chosen.container).lacking(ours);
            additions.identity.push((at, lacking));
        }
    }
    additions
}

/// All that a pod gets at the first call.
fn everything(
    template: &PodTemplateSpec,
    spec: &PodSpec,
    request: &Request,
    backup: &WalrustBackup,
    settings: &Settings,
) -> Result<Additions, Refusal> {
    let unusable = |cause| Refusal::Render {
        backup: request.backup.clone(),
        cause,
    };
    let (name, _) = names::identity(backup).map_err(unusable)?;
    let config = render::backup_config(backup, settings).map_err(unusable)?;
    let image = Image::of(&backup.spec.sidecar, settings).map_err(unusable)?;
    let port = port(backup, settings);
    refuse_collisions(spec, port, &name)?;

    let sidecar = &backup.spec.sidecar;
    let chosen = mounts::choose(spec, &backup.spec, &name)?;
    let security = user::security_context(spec, chosen.container, sidecar, &name, settings)?;
    let mut files = files(spec, backup, &name);
    let mut variables = chosen.variables;
    if backup.spec.storage.credentials.workload_identity.is_some() {
        let identity = Identity::of(chosen.container);
        files.mounts.extend(identity.mounts);
        variables.extend(identity.variables);
    }
    let common = Common {
        mode: request.mode,
        image,
        resources: sidecar
            .resources
            .clone()
            .unwrap_or_else(|| settings.resources.clone()),
        security,
        mounts: chosen.mounts.into_iter().chain(files.mounts).collect(),
        variables,
        log_level: sidecar.log_level.clone(),
    };
    let grace = grace(spec, backup, settings);
    Ok(Additions {
        at: place(template, spec)?,
        init_containers: containers(&common, template, backup, port, grace, settings),
        volumes: files.volumes,
        grace: (grace != spec.termination_grace_period_seconds.unwrap_or(USUAL_GRACE))
            .then_some(grace),
        annotations: vec![
            (labels::INJECTED, env!("CARGO_PKG_VERSION").to_owned()),
            (labels::INJECTED_CONFIG_HASH, config.hash),
        ],
        identity: Vec::new(),
    })
}

fn port(backup: &WalrustBackup, settings: &Settings) -> u16 {
    let own = backup.spec.sidecar.metrics_port;
    own.and_then(|port| u16::try_from(port).ok())
        .unwrap_or(settings.metrics_port)
}

/// Names and ports of ours that the pod uses for something else.
fn refuse_collisions(spec: &PodSpec, port: u16, backup: &str) -> Result<(), Refusal> {
    if spec.host_network == Some(true) {
        return Err(Refusal::HostNetwork);
    }
    let init = spec.init_containers.iter().flatten();
    for container in spec.containers.iter().chain(init) {
        if [labels::CONTAINER, labels::RESTORE_CONTAINER].contains(&container.name.as_str()) {
            return Err(Refusal::ContainerName(container.name.clone()));
        }
        let mut ports = container
            .ports
            .iter()
            .flatten()
            .map(|port| port.container_port);
        if let Some(port) = ports.find(|used| [i32::from(port), CONTROL_PORT].contains(used)) {
            return Err(Refusal::Port {
                container: container.name.clone(),
                port,
                backup: backup.to_owned(),
            });
        }
    }
    let ours = [
        volumes::CONFIG,
        volumes::CREDENTIALS,
        volumes::CA,
        volumes::TMP,
        volumes::NO_TOKEN,
    ];
    let mut names = spec.volumes.iter().flatten().map(|volume| &volume.name);
    match names.find(|name| ours.contains(&name.as_str())) {
        Some(name) => Err(Refusal::VolumeName(name.clone())),
        None => Ok(()),
    }
}

/// Configuration, keys, certificates, a place for temporary files, and none for the application's API token.
fn files(spec: &PodSpec, backup: &WalrustBackup, name: &str) -> Mounted {
    let security = spec.security_context.as_ref();
    let mode = match security.and_then(|security| security.fs_group) {
        Some(_) => SecretMode::Group,
        None => SecretMode::All,
    };
    let storage = &backup.spec.storage;
    let config_map = names::config_map(name);
    let mut files = Mounted::files(
        &config_map,
        &storage.credentials,
        storage.ca_bundle.as_ref(),
        mode,
    );
    let limited =
        |name: &str, size: &str| -> Volume { empty_volume(name, Some(Quantity(size.to_owned()))) };
    files.add(
        limited(volumes::TMP, "256Mi"),
        mount(volumes::TMP, TMP_DIRECTORY),
    );
    files.add(
        limited(volumes::NO_TOKEN, "1Mi"),
        read_only(volumes::NO_TOKEN, TOKEN_DIRECTORY),
    );
    files
}

/// The pod's grace period, or the least that the resource or the operator wants.
fn grace(spec: &PodSpec, backup: &WalrustBackup, settings: &Settings) -> i64 {
    let own = spec.termination_grace_period_seconds.unwrap_or(USUAL_GRACE);
    let least = backup.spec.sidecar.min_termination_grace_period;
    let least = least.or(settings.min_termination_grace_period);
    let least = least.map(|least| least.duration().as_millis().div_ceil(1_000));
    least
        .and_then(|least| i64::try_from(least).ok())
        .map_or(own, |least| own.max(least))
}

/// Behind the sidecars of a mesh and the init container that the annotation names, before all others: an init container
/// that migrates the database finds it restored, and is followed already.
fn place(template: &PodTemplateSpec, spec: &PodSpec) -> Result<usize, Refusal> {
    let init: Vec<&Container> = spec.init_containers.iter().flatten().collect();
    let mesh = init
        .iter()
        .rposition(|container| MESH.contains(&container.name.as_str()));
    let behind_mesh = mesh.map_or(0, |at| at + 1);
    match annotation(template, labels::AFTER) {
        None => Ok(behind_mesh),
        Some(after) => match init.iter().position(|container| container.name == after) {
            Some(at) => Ok(behind_mesh.max(at + 1)),
            None => Err(Refusal::After(after.to_owned())),
        },
    }
}

fn annotation<'t>(template: &'t PodTemplateSpec, key: &str) -> Option<&'t str> {
    let metadata = template.metadata.as_ref()?;
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn containers(
    common: &Common,
    template: &PodTemplateSpec,
    backup: &WalrustBackup,
    port: u16,
    grace: i64,
    settings: &Settings,
) -> Vec<Container> {
    let restore = backup
        .spec
        .restore_on_empty
        .unwrap_or(settings.restore_on_empty);
    let gate = backup
        .spec
        .storage
        .lease
        .unwrap_or(settings.lease)
        .gate_startup;
    let start = match (common.mode, gate) {
        // A replica makes its first state itself; the application waits for it.
        (Mode::Replicate, _) if restore.enabled => Start::Readable,
        (Mode::Replicate, _) | (Mode::Watch, GateStartup::Never) => Start::AtOnce,
        (Mode::Watch, GateStartup::Always | GateStartup::Restored) => Start::Leased,
    };
    let is_known = ever_synced(backup) && annotation(template, labels::ALLOW_FRESH) != Some("true");
    let when = match is_known {
        // It has a backup: if the bucket says otherwise, somebody must look before anything is written anew.
        true => WhenNoBackup::Fail,
        false => restore.when_no_backup,
    };
    let restores = restore.enabled && common.mode == Mode::Watch;
    let restore = restores.then(|| common.restore(when, restore.verify));
    restore
        .into_iter()
        .chain([common.sidecar(port, grace, start)])
        .collect()
}

fn ever_synced(backup: &WalrustBackup) -> bool {
    backup
        .status
        .as_ref()
        .is_some_and(|status| status.ever_synced)
}
