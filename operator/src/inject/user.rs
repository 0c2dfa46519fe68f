//! As whom our containers run: as the container whose files they share, with no right more than `restricted` allows.

use k8s_openapi::api::core::v1::{Container, PodSpec, SecurityContext};

use super::Refusal;
use crate::api::Sidecar;
use crate::render::{Settings, restricted};

/// The security context of our containers.
pub(super) fn security_context(
    pod: &PodSpec,
    container: &Container,
    sidecar: &Sidecar,
    backup: &str,
    settings: &Settings,
) -> Result<SecurityContext, Refusal> {
    let own = sidecar.security_context.clone().unwrap_or_default();
    if let Some(what) = weaker(&own).filter(|_| !settings.allow_root) {
        return Err(Refusal::Weaker {
            backup: backup.to_owned(),
            what,
        });
    }
    let of_container = container.security_context.clone().unwrap_or_default();
    let of_pod = pod.security_context.clone().unwrap_or_default();
    let user = own
        .run_as_user
        .or(of_container.run_as_user)
        .or(of_pod.run_as_user);
    let user = user.ok_or_else(|| Refusal::NoUser {
        container: container.name.clone(),
        backup: backup.to_owned(),
    })?;
    if user == 0 && !settings.allow_root {
        return Err(Refusal::Root {
            container: container.name.clone(),
        });
    }
    let base = restricted();
    Ok(SecurityContext {
        run_as_user: Some(user),
        run_as_group: own
            .run_as_group
            .or(of_container.run_as_group)
            .or(of_pod.run_as_group),
        run_as_non_root: Some(user != 0),
        read_only_root_filesystem: own
            .read_only_root_filesystem
            .or(base.read_only_root_filesystem),
        seccomp_profile: own.seccomp_profile.or(base.seccomp_profile),
        app_armor_profile: own.app_armor_profile,
        // With other labels than the application's, its files would be out of reach.
        se_linux_options: own.se_linux_options.or(of_container.se_linux_options),
        ..base
    })
}

/// The first field that `restricted` would refuse.
fn weaker(own: &SecurityContext) -> Option<&'static str> {
    let capabilities = own.capabilities.as_ref();
    let added = capabilities.and_then(|it| it.add.as_ref());
    let seccomp = own.seccomp_profile.as_ref().map(|it| it.type_.as_str());
    [
        (own.privileged == Some(true), "privileged"),
        (
            own.allow_privilege_escalation == Some(true),
            "allowPrivilegeEscalation",
        ),
        (
            added.is_some_and(|added| !added.is_empty()),
            "capabilities.add",
        ),
        (own.run_as_non_root == Some(false), "runAsNonRoot: false"),
        (own.run_as_user == Some(0), "runAsUser: 0"),
        (seccomp == Some("Unconfined"), "seccompProfile: Unconfined"),
        (
            own.proc_mount.as_deref().is_some_and(|it| it != "Default"),
            "procMount",
        ),
    ]
    .into_iter()
    .find_map(|(is_weaker, what)| is_weaker.then_some(what))
}
