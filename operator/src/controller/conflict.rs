//! Two resources that would write to the same place of a bucket. The older one keeps it.

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::api::WalrustBackup;
use crate::render::{Settings, effective_prefix};

/// Where a resource writes.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    endpoint: String,
    bucket: String,
    streams: Vec<String>,
}

fn place(backup: &WalrustBackup, settings: &Settings) -> Place {
    let storage = &backup.spec.storage;
    let namespace = backup.namespace().unwrap_or_default();
    let prefix = effective_prefix(&storage.prefix, &namespace, &backup.name_any(), settings);
    let endpoint = storage.endpoint.as_ref().or(settings.s3.endpoint.as_ref());
    let endpoint = endpoint.map_or("", String::as_str).trim_end_matches('/');
    let streams = backup
        .spec
        .databases
        .iter()
        .map(|database| format!("{prefix}/{}", database.name));
    Place {
        endpoint: endpoint.to_ascii_lowercase(),
        bucket: storage.bucket.clone(),
        streams: streams.collect(),
    }
}

/// Whether one lies in the other, or they are the same.
fn overlap(left: &str, right: &str) -> bool {
    let within = |outer: &str, inner: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    within(left, right) || within(right, left)
}

/// Oldest first; the name decides between those of one second.
fn age(backup: &WalrustBackup) -> (Timestamp, String, String) {
    let created = backup
        .creation_timestamp()
        .map_or(Timestamp::MAX, |time| time.0);
    (
        created,
        backup.namespace().unwrap_or_default(),
        backup.name_any(),
    )
}

/// The older resource that has a place of `backup` already, in words.
pub(super) fn find<'a>(
    backup: &WalrustBackup,
    others: impl Iterator<Item = &'a WalrustBackup>,
    settings: &Settings,
) -> Option<String> {
    let own = place(backup, settings);
    let mut older: Vec<&WalrustBackup> = others
        .filter(|other| other.uid() != backup.uid() && age(other) < age(backup))
        .filter(|other| other.spec.storage.bucket == own.bucket)
        .collect();
    older.sort_by_key(|other| age(other));
    older.into_iter().find_map(|other| {
        let there = place(other, settings);
        if there.endpoint != own.endpoint {
            return None;
        }
        let taken = own
            .streams
            .iter()
            .find(|stream| there.streams.iter().any(|one| overlap(one, stream)))?;
        let (namespace, name) = (other.namespace().unwrap_or_default(), other.name_any());
        Some(format!(
            "{namespace}/{name} writes to {}/{taken} already: choose another prefix",
            own.bucket
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(
        namespace: &str,
        name: &str,
        second: i64,
        storage: serde_json::Value,
    ) -> WalrustBackup {
        let created = Timestamp::from_second(second).unwrap().to_string();
        serde_json::from_value(serde_json::json!({
            "apiVersion": "walrust.dev/v1alpha1",
            "kind": "WalrustBackup",
            "metadata": {"namespace": namespace, "name": name, "uid": format!("{namespace}/{name}"), "creationTimestamp": created},
            "spec": {"storage": storage, "databases": [{"name": "main", "path": "/data/app.db"}]},
        }))
        .unwrap()
    }

    fn storage(bucket: &str, prefix: &str, endpoint: Option<&str>) -> serde_json::Value {
        let mut storage = serde_json::json!({
            "bucket": bucket, "prefix": prefix, "credentials": {"secretRef": {"name": "s3"}},
        });
        if let Some(endpoint) = endpoint {
            storage["endpoint"] = endpoint.into();
        }
        storage
    }

    #[test]
    fn the_younger_of_two_that_overlap_is_told_which_is_older() {
        let settings = Settings::default();
        let find = |one: &WalrustBackup, other: &WalrustBackup| {
            super::find(one, [one, other].into_iter(), &settings).is_some()
        };
        let old = backup("a", "x", 1, storage("b", "prod", None));
        for (bucket, prefix, endpoint, clash) in [
            ("b", "prod", None, true),
            ("b", "prod/main", None, true),
            ("b", "prod/other", None, false),
            ("b", "prod2", None, false),
            ("b", "", None, false),
            ("c", "prod", None, false),
            ("b", "prod", Some("https://elsewhere.test"), false),
        ] {
            let young = backup("a", "y", 2, storage(bucket, prefix, endpoint));
            assert_eq!(find(&young, &old), clash, "{bucket} {prefix} {endpoint:?}");
            assert!(!find(&old, &young), "the older one goes on");
        }
        // Of one second: the name decides, the same way for both.
        let (one, two) = (
            backup("a", "x", 1, storage("b", "p", None)),
            backup("b", "x", 1, storage("b", "p", None)),
        );
        assert!(!find(&one, &two));
        assert!(find(&two, &one));
    }
}
