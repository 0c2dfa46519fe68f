//! Additions to a pod, as a JSON patch of the object as it came.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use k8s_openapi::api::core::v1::{Container, Volume};
use serde::Serialize;
use serde_json::{Value, json};

use super::identity::Identity;

/// What a pod gets. Nothing that it has is changed, but for a grace period that is too short.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Additions {
    /// Where the first of our init containers will stand.
    pub(super) at: usize,
    pub(super) init_containers: Vec<Container>,
    pub(super) volumes: Vec<Volume>,
    pub(super) grace: Option<i64>,
    pub(super) annotations: Vec<(&'static str, String)>,
    /// What is added to init containers that are there.
    pub(super) identity: Vec<(usize, Identity)>,
}

/// The operations that add `additions` to `pod`.
pub(super) fn to_patch(pod: &Value, additions: &Additions) -> Patch {
    let mut operations = Operations {
        pod,
        made: Vec::new(),
        done: Vec::new(),
    };
    for (offset, container) in additions.init_containers.iter().enumerate() {
        let at = (additions.at + offset).to_string();
        operations.insert(&["spec", "initContainers"], &at, container);
    }
    for volume in &additions.volumes {
        operations.insert(&["spec", "volumes"], "-", volume);
    }
    if let Some(grace) = additions.grace {
        operations.add(&["spec", "terminationGracePeriodSeconds"], json!(grace));
    }
    for (key, value) in &additions.annotations {
        operations.member(&["metadata"], json!({}));
        operations.member(&["metadata", "annotations"], json!({}));
        operations.add(&["metadata", "annotations", key], json!(value));
    }
    for (at, identity) in &additions.identity {
        let at = at.to_string();
        for variable in &identity.variables {
            operations.insert(&["spec", "initContainers", &at, "env"], "-", variable);
        }
        for mount in &identity.mounts {
            operations.insert(&["spec", "initContainers", &at, "volumeMounts"], "-", mount);
        }
    }
    Patch(operations.done)
}

struct Operations<'p> {
    pod: &'p Value,
    /// Lists and objects that were not there and have been made.
    made: Vec<String>,
    done: Vec<PatchOperation>,
}

impl Operations<'_> {
    /// Adds `value` to the list at `path`, which is made where it is missing.
    fn insert(&mut self, path: &[&str], at: &str, value: &impl Serialize) {
        self.member(path, json!([]));
        let path: Vec<&str> = path.iter().copied().chain([at]).collect();
        // Types of Kubernetes have a JSON form, all of them.
        self.add(&path, serde_json::to_value(value).unwrap_or_default());
    }

    /// Makes the list or object at `path` where it is missing or null.
    fn member(&mut self, path: &[&str], empty: Value) {
        let pointer = pointer(path);
        let is_there = self
            .pod
            .pointer(&pointer)
            .is_some_and(|found| !found.is_null());
        if !is_there && !self.made.contains(&pointer) {
            self.add(path, empty);
            self.made.push(pointer);
        }
    }

    fn add(&mut self, path: &[&str], value: Value) {
        let operation = AddOperation {
            path: PointerBuf::from_tokens(path.iter().copied()),
            value,
        };
        self.done.push(PatchOperation::Add(operation));
    }
}

fn pointer(path: &[&str]) -> String {
    let escaped = path
        .iter()
        .map(|part| part.replace('~', "~0").replace('/', "~1"));
    escaped.fold(String::new(), |pointer, part| pointer + "/" + &part)
}
