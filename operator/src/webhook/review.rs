//! One admission review: what comes in, what goes out.

use std::sync::Arc;

use json_patch::Patch;
use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::{info, warn};

use super::{Lookup, Outcome};
use crate::inject::{self, Refusal, Request};
use crate::render::Settings;

/// What decides.
pub struct Hook {
    lookup: Box<dyn Lookup>,
    settings: Arc<Settings>,
}

/// A review that cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// No review.
    #[error("not an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    /// A review without a question.
    #[error("an AdmissionReview without a request")]
    Empty,
}

#[derive(Deserialize)]
struct Review {
    request: Option<Incoming>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Incoming {
    uid: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    object: Value,
}

/// The answer as the API server reads it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
}

#[derive(Debug, Serialize)]
struct Reason {
    message: String,
    code: u16,
}

/// What was decided about a pod.
enum Decision {
    Patch(Patch),
    Deny(Refusal),
    /// The resource is not there, or nobody knows.
    Unknown {
        message: String,
        code: u16,
    },
}

impl Hook {
    /// Decides by the resources of `lookup` and by `settings`.
    pub fn new(lookup: Box<dyn Lookup>, settings: Arc<Settings>) -> Self {
        Self { lookup, settings }
    }

    /// The answer to the review `body`, and how it ended.
    ///
    /// # Errors
    /// Where the body is no review: there is nobody to answer.
    pub async fn review(&self, body: &[u8]) -> Result<(Answer, Outcome), Unreadable> {
        let review: Review = serde_json::from_slice(body)?;
        let request = review.request.ok_or(Unreadable::Empty)?;
        let decision = self.decide(&request).await;
        // A pod of a workload has no name yet.
        let pod = match request.name.as_str() {
            "" => request
                .object
                .pointer("/metadata/generateName")
                .and_then(Value::as_str)
                .unwrap_or_default(),
            name => name,
        };
        let outcome = decision.outcome();
        let (namespace, outcome_word) = (request.namespace.as_str(), format!("{outcome:?}"));
        match &decision {
            Decision::Patch(_) => {
                info!(namespace, pod, outcome = outcome_word, "a pod was admitted")
            }
            Decision::Deny(refusal) => warn!(namespace, pod, error = %refusal, "a pod was refused"),
            Decision::Unknown { message, .. } => {
                warn!(namespace, pod, error = message, "a pod was refused")
            }
        }
        Ok((answer(request.uid, decision)?, outcome))
    }

    async fn decide(&self, incoming: &Incoming) -> Decision {
        // A pod's containers cannot be changed later.
        if incoming.operation != "CREATE" {
            return Decision::Patch(Patch(Vec::new()));
        }
        let labels = incoming.object.pointer("/metadata/labels").cloned();
        let labels = match serde_json::from_value(labels.unwrap_or_default()) {
            Ok(labels) => Option::unwrap_or_default(labels),
            Err(error) => return Decision::Deny(Refusal::Unreadable(error.to_string())),
        };
        let request = match Request::of(&labels) {
            Ok(Some(request)) => request,
            Ok(None) => return Decision::Patch(Patch(Vec::new())),
            Err(refusal) => return Decision::Deny(refusal),
        };
        let namespace = incoming.namespace.as_str();
        match self.lookup.backup(namespace, &request.backup).await {
            Ok(Some(backup)) => {
                match inject::inject(&incoming.object, &request, &backup, &self.settings) {
                    Ok(patch) => Decision::Patch(patch),
                    Err(refusal) => Decision::Deny(refusal),
                }
            }
            Ok(None) => Decision::Unknown {
                message: format!(
                    "there is no WalrustBackup {:?} in namespace {namespace:?}: apply it before the pod, or correct the \
                     label walrust.dev/backup",
                    request.backup
                ),
                code: 403,
            },
            Err(error) => Decision::Unknown {
                message: format!("{error}; the pod is refused rather than started unprotected"),
                code: 503,
            },
        }
    }
}

impl Decision {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Patch(patch) if patch.0.is_empty() => Outcome::Unchanged,
            Self::Patch(_) => Outcome::Injected,
            Self::Deny(_) => Outcome::Denied,
            Self::Unknown { code: 503, .. } => Outcome::Error,
            Self::Unknown { .. } => Outcome::Denied,
        }
    }
}

fn answer(uid: String, decision: Decision) -> Result<Answer, serde_json::Error> {
    let mut response = Response {
        uid,
        allowed: true,
        status: None,
        patch_type: None,
        patch: None,
    };
    let denied = match decision {
        Decision::Patch(patch) if patch.0.is_empty() => None,
        Decision::Patch(patch) => {
            response.patch = Some(ByteString(serde_json::to_vec(&patch)?));
            response.patch_type = Some("JSONPatch");
            None
        }
        Decision::Deny(refusal) => Some((refusal.to_string(), 403)),
        Decision::Unknown { message, code } => Some((message, code)),
    };
    if let Some((message, code)) = denied {
        response.allowed = false;
        response.status = Some(Reason {
            message: format!("walrust: {message}"),
            code,
        });
    }
    Ok(Answer {
        api_version: "admission.k8s.io/v1",
        kind: "AdmissionReview",
        response,
    })
}
