//! Workload identity: what another webhook gave the application's container for talking to the cloud, ours need too.

use k8s_openapi::api::core::v1::{Container, EnvVar, VolumeMount};

/// What our containers lack of the identity that the application's container has.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Identity {
    pub(super) variables: Vec<EnvVar>,
    pub(super) mounts: Vec<VolumeMount>,
}

/// Variables whose value is the path of a token.
const TOKEN_FILES: [&str; 2] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// What says who the pod is; never keys.
fn is_identity(name: &str) -> bool {
    matches!(
        name,
        "AWS_ROLE_ARN"
            | "AWS_ROLE_SESSION_NAME"
            | "AWS_WEB_IDENTITY_TOKEN_FILE"
            | "AWS_STS_REGIONAL_ENDPOINTS"
            | "AWS_REGION"
            | "AWS_DEFAULT_REGION"
    ) || name.starts_with("AWS_CONTAINER_")
}

impl Identity {
    /// What `container` has.
    pub(super) fn of(container: &Container) -> Self {
        let variables = container.env.iter().flatten();
        let variables: Vec<EnvVar> = variables
            .filter(|it| is_identity(&it.name))
            .cloned()
            .collect();
        let tokens = variables
            .iter()
            .filter(|it| TOKEN_FILES.contains(&it.name.as_str()));
        let tokens: Vec<&str> = tokens.filter_map(|it| it.value.as_deref()).collect();
        let mounts = container.volume_mounts.iter().flatten();
        let mounts = mounts.filter(|mount| tokens.iter().any(|token| holds(mount, token)));
        Self {
            mounts: mounts.cloned().collect(),
            variables,
        }
    }

    /// What is left when `ours` has a part of it already.
    pub(super) fn lacking(self, ours: &Container) -> Self {
        let has_variable = |it: &EnvVar| ours.env.iter().flatten().any(|own| own.name == it.name);
        let has_mount = |it: &VolumeMount| {
            let mut own = ours.volume_mounts.iter().flatten();
            own.any(|own| own.mount_path == it.mount_path)
        };
        Self {
            variables: self
                .variables
                .into_iter()
                .filter(|it| !has_variable(it))
                .collect(),
            mounts: self
                .mounts
                .into_iter()
                .filter(|it| !has_mount(it))
                .collect(),
        }
    }
}

fn holds(mount: &VolumeMount, file: &str) -> bool {
    let rest = file.strip_prefix(mount.mount_path.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
