//! Which container's volumes the databases lie on, and how to mount them just so.

use k8s_openapi::api::core::v1::{Container, EnvVar, PodSpec, Volume, VolumeMount};

use super::Refusal;
use crate::api::{Database, WalrustBackupSpec};
use crate::render::names::{
    CA_DIRECTORY, CONFIG_DIRECTORY, CREDENTIALS_DIRECTORY, TMP_DIRECTORY, TOKEN_DIRECTORY,
};

/// Where our own files lie in our containers.
const OWN: [&str; 5] = [
    CONFIG_DIRECTORY,
    CREDENTIALS_DIRECTORY,
    CA_DIRECTORY,
    TMP_DIRECTORY,
    TOKEN_DIRECTORY,
];

/// The container whose files we follow, and how to reach them.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Chosen<'p> {
    pub(super) container: &'p Container,
    /// Its mounts that databases lie on, each once.
    pub(super) mounts: Vec<VolumeMount>,
    /// The variables that `subPathExpr` of these mounts needs.
    pub(super) variables: Vec<EnvVar>,
}

/// Chooses the named container, or the first that mounts every path.
pub(super) fn choose<'p>(
    pod: &'p PodSpec,
    spec: &WalrustBackupSpec,
    backup: &str,
) -> Result<Chosen<'p>, Refusal> {
    let candidates = candidates(pod, spec.sidecar.container.as_deref(), backup)?;
    let covers = |container: &&Container| {
        let mut databases = spec.databases.iter();
        databases.all(|database| covering(container, database).is_some())
    };
    let found = candidates.iter().copied().find(covers);
    match (found, candidates.first()) {
        (Some(container), _) => of_container(pod, container, &spec.databases),
        (None, Some(container)) => Err(uncovered(container, &spec.databases, backup)),
        (None, None) => Err(Refusal::Unreadable("it has no containers".to_owned())),
    }
}

/// The named container, which may also be a native sidecar, or all that are no init containers.
fn candidates<'p>(
    pod: &'p PodSpec,
    named: Option<&str>,
    backup: &str,
) -> Result<Vec<&'p Container>, Refusal> {
    let Some(named) = named else {
        return Ok(pod.containers.iter().collect());
    };
    let native = pod.init_containers.iter().flatten();
    let native = native.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let all = || pod.containers.iter().chain(native.clone());
    match all().find(|container| container.name == named) {
        Some(container) => Ok(vec![container]),
        None => Err(Refusal::NoContainer {
            backup: backup.to_owned(),
            container: named.to_owned(),
            present: list(all().map(|container| container.name.as_str())),
        }),
    }
}

fn uncovered(container: &Container, databases: &[Database], backup: &str) -> Refusal {
    let missing = databases
        .iter()
        .find(|database| covering(container, database).is_none());
    let mounts = container.volume_mounts.iter().flatten();
    Refusal::NoMount {
        path: missing
            .map(|database| database.path.clone())
            .unwrap_or_default(),
        container: container.name.clone(),
        mounts: match list(mounts.map(|mount| mount.mount_path.as_str())) {
            none if none.is_empty() => "it mounts nothing".to_owned(),
            paths => format!("it mounts {paths}"),
        },
        backup: backup.to_owned(),
    }
}

fn list<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The mount that `database` lies on: of all that contain it the deepest, as the kernel sees it.
fn covering<'c>(container: &'c Container, database: &Database) -> Option<&'c VolumeMount> {
    let mounts = container.volume_mounts.iter().flatten();
    let covering = mounts.filter(|mount| is_within(&database.path, &mount.mount_path));
    covering.max_by_key(|mount| trimmed(&mount.mount_path).len())
}

/// Whether `path` is `directory` or lies in it.
fn is_within(path: &str, directory: &str) -> bool {
    let rest = path.strip_prefix(trimmed(directory));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn trimmed(directory: &str) -> &str {
    directory.trim_end_matches('/')
}

fn of_container<'p>(
    pod: &'p PodSpec,
    container: &'p Container,
    databases: &[Database],
) -> Result<Chosen<'p>, Refusal> {
    let mut chosen = Chosen {
        container,
        mounts: Vec::new(),
        variables: Vec::new(),
    };
    for database in databases {
        let Some(mount) = covering(container, database) else {
            continue;
        };
        check(pod, mount, &database.path)?;
        let mount = ours(mount);
        if chosen.mounts.contains(&mount) {
            continue;
        }
        if let Some(expression) = &mount.sub_path_expr {
            needed(expression, container, expression, &mut chosen.variables)?;
        }
        chosen.mounts.push(mount);
    }
    Ok(chosen)
}

/// That a database can live on this mount, and our containers with it.
fn check(pod: &PodSpec, mount: &VolumeMount, path: &str) -> Result<(), Refusal> {
    let path = || path.to_owned();
    if trimmed(&mount.mount_path) == path() {
        return Err(Refusal::FileMount { path: path() });
    }
    // A template need not have it: a StatefulSet's claims are added to its pods, and the API server knows what is missing.
    let mut volumes = pod.volumes.iter().flatten();
    let volume = volumes.find(|volume| volume.name == mount.name);
    let what = match mount.read_only {
        Some(true) => Some(format!("the mount at {}", mount.mount_path)),
        _ => volume
            .filter(|volume| is_read_only(volume))
            .map(|volume| format!("volume {:?}", volume.name)),
    };
    if let Some(what) = what {
        return Err(Refusal::ReadOnly { path: path(), what });
    }
    let overlap = OWN.into_iter().find(|own| {
        is_within(own, &mount.mount_path) || is_within(trimmed(&mount.mount_path), own)
    });
    match overlap {
        Some(own) => Err(Refusal::Overlap {
            path: path(),
            mount: mount.mount_path.clone(),
            own,
        }),
        None => Ok(()),
    }
}

/// Volumes that nobody can write, however they are mounted.
fn is_read_only(volume: &Volume) -> bool {
    let claim = volume.persistent_volume_claim.as_ref();
    let csi = volume.csi.as_ref();
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
        || volume.image.is_some()
        || claim.is_some_and(|claim| claim.read_only == Some(true))
        || csi.is_some_and(|csi| csi.read_only == Some(true))
}

/// The same mount for our containers, which may not propagate mounts of their own.
fn ours(mount: &VolumeMount) -> VolumeMount {
    let propagation = mount.mount_propagation.as_deref();
    VolumeMount {
        read_only: None,
        recursive_read_only: None,
        mount_propagation: propagation.map(|word| match word {
            "Bidirectional" => "HostToContainer".to_owned(),
            other => other.to_owned(),
        }),
        ..mount.clone()
    }
}

/// Adds the variables that `text` refers to as `$(NAME)`, those that they refer to before them.
fn needed(
    text: &str,
    container: &Container,
    expression: &str,
    found: &mut Vec<EnvVar>,
) -> Result<(), Refusal> {
    for name in references(text) {
        if found.iter().any(|variable| variable.name == name) {
            continue;
        }
        let mut defined = container.env.iter().flatten();
        let Some(variable) = defined.find(|variable| variable.name == name) else {
            return Err(Refusal::Variable {
                expression: expression.to_owned(),
                variable: name.to_owned(),
                container: container.name.clone(),
            });
        };
        // Kubernetes resolves only what stands further up; a variable that names itself is plain text.
        if let Some(value) = variable
            .value
            .as_deref()
            .filter(|value| !refers_to(value, name))
        {
            needed(value, container, expression, found)?;
        }
        found.push(variable.clone());
    }
    Ok(())
}

fn refers_to(value: &str, name: &str) -> bool {
    references(value).any(|other| other == name)
}

/// The names in `$(NAME)`; `$$` is a plain dollar.
fn references(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let at = rest.find('$')?;
            let behind = rest.get(at + 1..)?;
            if let Some(plain) = behind.strip_prefix('$') {
                rest = plain;
            } else if let Some((name, after)) =
                behind.strip_prefix('(').and_then(|it| it.split_once(')'))
            {
                rest = after;
                return Some(name);
            } else {
                rest = behind;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_as_kubernetes_finds_them() {
        let found = |text| references(text).collect::<Vec<_>>();
        assert_eq!(found("$(A)/x/$(B_C)"), ["A", "B_C"]);
        assert_eq!(found("$$(A) $A $(B"), Vec::<&str>::new());
        assert_eq!(found("$$$(A)$"), ["A"]);
    }

    #[test]
    fn a_path_lies_within_whole_directories_only() {
        assert!(is_within("/data/a.db", "/data") && is_within("/data/a.db", "/data/"));
        assert!(is_within("/data/a.db", "/") && is_within("/data", "/data"));
        assert!(!is_within("/database/a.db", "/data") && !is_within("/dat", "/data"));
    }
}
