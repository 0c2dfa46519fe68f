//! What sidecars and Jobs have in common: volumes, mounts and security contexts.

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, EmptyDirVolumeSource, EnvVar, KeyToPath, SeccompProfile,
    SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::names::{CA_DIRECTORY, CONFIG_DIRECTORY, CREDENTIALS_DIRECTORY, TMP_DIRECTORY, volumes};
use crate::api::{CaBundle, Credentials, SecretRef};

/// Who may read keys that are mounted as files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SecretMode {
    /// The pod's fsGroup.
    Group,
    /// Whoever mounts them, which only our containers do: without an fsGroup they belong to root.
    All,
}

impl SecretMode {
    const fn bits(self) -> i32 {
        match self {
            Self::Group => 0o440,
            Self::All => 0o444,
        }
    }
}

/// Volumes and where a container mounts them.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Mounted {
    pub(crate) volumes: Vec<Volume>,
    pub(crate) mounts: Vec<VolumeMount>,
}

impl Mounted {
    /// Configuration, keys and certificates, read-only.
    pub(crate) fn files(
        config_map: &str,
        credentials: &Credentials,
        ca: Option<&CaBundle>,
        mode: SecretMode,
    ) -> Self {
        let mut mounted = Self::default();
        mounted.add(
            config_volume(config_map),
            read_only(volumes::CONFIG, CONFIG_DIRECTORY),
        );
        if let Some(secret) = &credentials.secret_ref {
            let mount = read_only(volumes::CREDENTIALS, CREDENTIALS_DIRECTORY);
            mounted.add(credentials_volume(secret, mode), mount);
        }
        if let Some(ca) = ca {
            mounted.add(ca_volume(ca), read_only(volumes::CA, CA_DIRECTORY));
        }
        mounted
    }

    /// One more volume and its mount.
    pub(crate) fn add(&mut self, volume: Volume, mount: VolumeMount) {
        self.volumes.push(volume);
        self.mounts.push(mount);
    }
}

fn config_volume(config_map: &str) -> Volume {
    Volume {
        name: volumes::CONFIG.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_map.to_owned(),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Files named like the variables, as `credentials_dir` wants them.
fn credentials_volume(secret: &SecretRef, mode: SecretMode) -> Volume {
    let item = |key: &str, path: &str| KeyToPath {
        key: key.to_owned(),
        path: path.to_owned(),
        ..KeyToPath::default()
    };
    let mut items = vec![
        item(&secret.access_key_id_key, "AWS_ACCESS_KEY_ID"),
        item(&secret.secret_access_key_key, "AWS_SECRET_ACCESS_KEY"),
    ];
    items.extend(
        secret
            .session_token_key
            .iter()
            .map(|key| item(key, "AWS_SESSION_TOKEN")),
    );
    Volume {
        name: volumes::CREDENTIALS.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.name.clone()),
            default_mode: Some(mode.bits()),
            items: Some(items),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn ca_volume(ca: &CaBundle) -> Volume {
    let item = KeyToPath {
        key: ca.key.clone(),
        path: ca.key.clone(),
        ..KeyToPath::default()
    };
    Volume {
        name: volumes::CA.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: ca.config_map_name.clone(),
            items: Some(vec![item]),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A directory that lives as long as the pod.
pub(crate) fn empty_volume(name: &str, limit: Option<Quantity>) -> Volume {
    Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: limit,
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A mount that is written to.
pub(crate) fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

/// A mount that is not.
pub(crate) fn read_only(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        read_only: Some(true),
        ..mount(volume, path)
    }
}

/// A variable with a value.
pub(crate) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    }
}

/// Where SQLite and we put what does not last: the root file system is read-only.
pub(crate) fn tmp_variables() -> [EnvVar; 2] {
    ["TMPDIR", "SQLITE_TMPDIR"].map(|name| variable(name, TMP_DIRECTORY))
}

/// What a namespace that enforces `restricted` demands of a container, and a read-only root file system.
pub(crate) fn restricted() -> SecurityContext {
    SecurityContext {
        run_as_non_root: Some(true),
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            ..Capabilities::default()
        }),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..SecurityContext::default()
    }
}
