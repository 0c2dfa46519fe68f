//! The same results without a cluster: files in, YAML out.
//!
//! A `WalrustBackup` in the files need not exist in any cluster; it is what the rest is rendered from.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::{GROUP, VERSION, WalrustBackup, WalrustRestore};
use crate::inject::{self, Refusal, Request};
use crate::render::{self, Settings};
use crate::yaml;

/// What is wrong with a file, or with what stands in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No YAML.
    #[error("{file}: {cause}")]
    Yaml {
        /// The file.
        file: String,
        /// What is wrong with it.
        cause: yaml::Error,
    },
    /// Another form than the kind has.
    #[error("{file}: {object}: {message}")]
    Shape {
        /// The file.
        file: String,
        /// Which object.
        object: String,
        /// What is wrong with it.
        message: String,
    },
    /// Something that cannot be rendered.
    #[error("{object}: {cause}")]
    Render {
        /// Which object.
        object: String,
        /// What is wrong with it.
        cause: render::Error,
    },
    /// A pod that cannot have the sidecar.
    #[error("{object}: {cause}")]
    Refused {
        /// Which object.
        object: String,
        /// Why not.
        cause: Refusal,
    },
    /// A label that names a resource that is in none of the files.
    #[error(
        "{object}: no WalrustBackup {namespace}/{backup} in the files: give its file with -f too"
    )]
    NoBackup {
        /// Which object.
        object: String,
        /// Its namespace.
        namespace: String,
        /// What it names.
        backup: String,
    },
    /// No object of the wanted kind.
    #[error("no {0} in the files")]
    Nothing(&'static str),
    /// A patch of ours that does not fit the object it was made for.
    #[error("{object}: {message}")]
    Patch {
        /// Which object.
        object: String,
        /// What does not fit.
        message: String,
    },
    /// An object that cannot be written.
    #[error("{0}")]
    Write(#[from] yaml::Error),
}

/// A file that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Its name, for errors.
    pub file: String,
    /// Its text: YAML documents, or JSON.
    pub text: String,
}

/// One document and where it stands.
struct Document<'s> {
    file: &'s str,
    value: Value,
}

/// What each `WalrustBackup` and `WalrustRestore` of `sources` becomes. Objects without a namespace are in `namespace`.
///
/// # Errors
/// Names the file or the object.
pub fn render(sources: &[Source], namespace: &str, settings: &Settings) -> Result<String, Error> {
    let documents = documents(sources)?;
    let backups: Vec<WalrustBackup> = typed(&documents, "WalrustBackup", namespace)?;
    let restores: Vec<WalrustRestore> = typed(&documents, "WalrustRestore", namespace)?;
    if backups.is_empty() && restores.is_empty() {
        return Err(Error::Nothing("WalrustBackup or WalrustRestore"));
    }
    let mut pages = Vec::new();
    for backup in &backups {
        let rendered = render::backup(backup, settings).map_err(|cause| Error::Render {
            object: shown("WalrustBackup", &backup.metadata),
            cause,
        })?;
        pages.push(page(&rendered.config_map)?);
        for cron_job in &rendered.cron_jobs {
            pages.push(page(cron_job)?);
        }
    }
    for restore in &restores {
        let named = restore.spec.backup_ref.as_ref();
        let backup = named.and_then(|named| {
            find(
                &backups,
                restore.metadata.namespace.as_deref().unwrap_or(namespace),
                &named.name,
            )
        });
        let rendered =
            render::restore(restore, backup, settings).map_err(|cause| Error::Render {
                object: shown("WalrustRestore", &restore.metadata),
                cause,
            })?;
        if let Some(config_map) = &rendered.config_map {
            pages.push(page(config_map)?);
        }
        pages.push(page(&rendered.job)?);
    }
    Ok(pages.join("---\n"))
}

/// The objects of `sources` but for ours, with the sidecar in each pod or template whose labels ask for it.
///
/// # Errors
/// Names the file or the object.
pub fn inject(sources: &[Source], namespace: &str, settings: &Settings) -> Result<String, Error> {
    let documents = documents(sources)?;
    let backups: Vec<WalrustBackup> = typed(&documents, "WalrustBackup", namespace)?;
    let own_version = format!("{GROUP}/{VERSION}");
    let others = documents
        .iter()
        .filter(|document| text(&document.value, "/apiVersion") != own_version);
    let mut pages = Vec::new();
    for Document { value, .. } in others {
        let mut value = value.clone();
        // What `kubectl get -o yaml` prints of several objects.
        match value.get_mut("items").and_then(Value::as_array_mut) {
            Some(items) => {
                for item in items {
                    inject_one(item, &backups, namespace, settings)?;
                }
            }
            None => inject_one(&mut value, &backups, namespace, settings)?,
        }
        pages.push(page(&value)?);
    }
    if pages.is_empty() {
        return Err(Error::Nothing("pod or workload"));
    }
    Ok(pages.join("---\n"))
}

fn inject_one(
    object: &mut Value,
    backups: &[WalrustBackup],
    namespace: &str,
    settings: &Settings,
) -> Result<(), Error> {
    let kind = text(object, "/kind").to_owned();
    let Some(pod) = object
        .pointer(template_of(&kind))
        .filter(|pod| pod.is_object())
    else {
        return Ok(());
    };
    let own = object.pointer("/metadata").cloned().unwrap_or_default();
    let own: ObjectMeta = serde_json::from_value(own).unwrap_or_default();
    let name = shown(&kind, &own);
    let labels = pod.pointer("/metadata/labels").cloned().unwrap_or_default();
    let labels = serde_json::from_value(labels).unwrap_or_default();
    let refused = |cause| Error::Refused {
        object: name.clone(),
        cause,
    };
    let Some(request) = Request::of(&labels).map_err(refused)? else {
        return Ok(());
    };
    let namespace = own.namespace.as_deref().unwrap_or(namespace);
    let backup = find(backups, namespace, &request.backup).ok_or_else(|| Error::NoBackup {
        object: name.clone(),
        namespace: namespace.to_owned(),
        backup: request.backup.clone(),
    })?;
    let patch = inject::inject(pod, &request, backup, settings).map_err(refused)?;
    let Some(pod) = object.pointer_mut(template_of(&kind)) else {
        return Ok(());
    };
    json_patch::patch(pod, &patch).map_err(|error| Error::Patch {
        object: name.clone(),
        message: error.to_string(),
    })
}

/// Where an object of this kind has its pod.
fn template_of(kind: &str) -> &'static str {
    match kind {
        "Pod" => "",
        "CronJob" => "/spec/jobTemplate/spec/template",
        // Workloads of others have theirs here too: Argo's Rollout, OpenKruise's CloneSet.
        _ => "/spec/template",
    }
}

fn documents(sources: &[Source]) -> Result<Vec<Document<'_>>, Error> {
    let mut documents = Vec::new();
    for source in sources {
        let values = yaml::documents(&source.text).map_err(|cause| Error::Yaml {
            file: source.file.clone(),
            cause,
        })?;
        documents.extend(values.into_iter().map(|value| Document {
            file: &source.file,
            value,
        }));
    }
    Ok(documents)
}

/// The objects of one of our kinds. What the kind does not know is an error: the API server would drop it, with a warning
/// that is easily overlooked.
fn typed<K>(documents: &[Document<'_>], kind: &str, namespace: &str) -> Result<Vec<K>, Error>
where
    K: DeserializeOwned + Serialize + kube::ResourceExt,
{
    let ours = documents.iter().filter(|document| {
        text(&document.value, "/apiVersion") == format!("{GROUP}/{VERSION}")
            && text(&document.value, "/kind") == kind
    });
    let read = ours.map(|document| {
        let wrong = |message: String| Error::Shape {
            file: document.file.to_owned(),
            object: format!("{kind} {}", text(&document.value, "/metadata/name")),
            message,
        };
        let mut object: K = serde_json::from_value(document.value.clone())
            .map_err(|error| wrong(error.to_string()))?;
        let kept = serde_json::to_value(&object).map_err(|error| wrong(error.to_string()))?;
        if let Some(path) = unknown(&document.value, &kept) {
            return Err(wrong(format!("unknown field {path}")));
        }
        object
            .meta_mut()
            .namespace
            .get_or_insert_with(|| namespace.to_owned());
        Ok(object)
    });
    read.collect()
}

/// The path of the first field of `given` that reading it did not keep.
fn unknown(given: &Value, kept: &Value) -> Option<String> {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => given.iter().find_map(|(key, value)| {
            let below = match kept.get(key) {
                Some(kept) => unknown(value, kept)?,
                // What says nothing need not be kept.
                None if is_empty(value) => return None,
                None => String::new(),
            };
            Some(joined(key, &below))
        }),
        (Value::Array(given), Value::Array(kept)) => {
            let mut pairs = given.iter().zip(kept).enumerate();
            pairs.find_map(|(at, (given, kept))| {
                Some(joined(&at.to_string(), &unknown(given, kept)?))
            })
        }
        _ => None,
    }
}

fn joined(part: &str, below: &str) -> String {
    match below {
        "" => part.to_owned(),
        below => format!("{part}.{below}"),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn find<'b>(
    backups: &'b [WalrustBackup],
    namespace: &str,
    name: &str,
) -> Option<&'b WalrustBackup> {
    let is_it = |backup: &&WalrustBackup| {
        backup.metadata.name.as_deref() == Some(name)
            && backup.metadata.namespace.as_deref() == Some(namespace)
    };
    backups.iter().find(is_it)
}

fn shown(kind: &str, metadata: &ObjectMeta) -> String {
    let name = metadata
        .name
        .as_deref()
        .or(metadata.generate_name.as_deref());
    format!("{kind} {}", name.unwrap_or("without a name"))
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn page(object: &impl Serialize) -> Result<String, yaml::Error> {
    yaml::to_string(object)
}
