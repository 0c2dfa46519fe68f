//! One pass over a `WalrustRestore`: one Job, made once.
//!
//! `status.jobName` is written before the Job is made. So whoever finds it there makes none: the Job is there, was there, or the
//! operator died in between; then the restore has failed, and nothing was run twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::{Resource as _, ResourceExt as _};
use serde_json::json;
use walrust_core::report::JobReport;

use super::apply::is_controlled_by;
use super::backup::STATUS_MANAGER;
use super::context::Context;
use super::error::{Error, Kind, jittered};
use super::facts::{JobPodFact, JobState};
use super::shelf::Group;
use crate::api::{Phase, WalrustBackup, WalrustRestore, WalrustRestoreStatus};
use crate::render;
use crate::status::conditions::{Holds, Verdict};

/// How soon a claim is looked at again that somebody uses.
const BLOCKED: Duration = Duration::from_secs(10);
/// How soon a Job is looked at again; its end wakes us before.
const RUNNING: Duration = Duration::from_secs(60);

/// A pass, counted.
pub(super) async fn reconcile(
    restore: Arc<WalrustRestore>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let start = Instant::now();
    let result = pass(&restore, &context).await;
    let error = result.as_ref().err().map(Error::kind);
    context
        .common
        .metrics
        .passed("WalrustRestore", start.elapsed(), error);
    result
}

/// When to try again.
pub(super) fn on_error(restore: &WalrustRestore, error: &Error, context: &Context) -> Action {
    let group = group(restore);
    Action::requeue(context.common.backoff.failed(group, error.kind()))
}

/// Apart from a backup of the same name.
fn group(restore: &WalrustRestore) -> Group {
    Group {
        namespace: restore.namespace().unwrap_or_default(),
        name: format!("restore/{}", restore.name_any()),
    }
}

/// What a pass found: what the status is to say.
#[derive(Clone, PartialEq, Debug)]
enum Finding {
    Blocked(&'static str, String),
    Running,
    Succeeded(Option<JobReport>),
    Failed(&'static str, String),
}

/// One restore, and what reaches it.
struct Subject<'a> {
    restore: &'a WalrustRestore,
    namespace: String,
    name: String,
    uid: String,
    context: &'a Context,
}

async fn pass(restore: &WalrustRestore, context: &Context) -> Result<Action, Error> {
    let subject = Subject {
        restore,
        namespace: restore.namespace().ok_or(Error::Incomplete("namespace"))?,
        name: restore.name_any(),
        uid: restore.uid().ok_or(Error::Incomplete("UID"))?,
        context,
    };
    let former = restore.status.clone().unwrap_or_default();
    let over = matches!(former.phase, Some(Phase::Succeeded | Phase::Failed));
    if over || restore.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let finding = match &former.job_name {
        Some(job) => subject.look(job).await?,
        None => subject.begin(&former).await?,
    };
    let next = match finding {
        Finding::Blocked(..) => Action::requeue(jittered(BLOCKED)),
        Finding::Running => Action::requeue(jittered(RUNNING)),
        Finding::Succeeded(_) | Finding::Failed(..) => Action::await_change(),
    };
    let begun = former.job_name.clone().or_else(|| match finding {
        Finding::Running => Some(render::names::restore_job(&subject.name)),
        Finding::Blocked(..) | Finding::Succeeded(_) | Finding::Failed(..) => None,
    });
    subject.tell(&former, begun, finding).await?;
    context.common.backoff.went_well(&group(restore));
    Ok(next)
}

impl Subject<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.context.common.client.clone(), &self.namespace)
    }

    /// Makes the Job, if nothing is in the way.
    async fn begin(&self, former: &WalrustRestoreStatus) -> Result<Finding, Error> {
        let spec = &self.restore.spec;
        let backup = match &spec.backup_ref {
            None => None,
            Some(named) => {
                let found = self.api::<WalrustBackup>().get_opt(&named.name).await;
                match found.map_err(Error::api("get", format!("WalrustBackup {}", named.name)))? {
                    Some(backup) => Some(backup),
                    None => {
                        let message = format!("there is no WalrustBackup {}", named.name);
                        return Ok(Finding::Blocked("BackupNotFound", message));
                    }
                }
            }
        };
        let rendered =
            match render::restore(self.restore, backup.as_ref(), &self.context.common.settings) {
                Ok(rendered) => rendered,
                Err(error) => return Ok(Finding::Failed("InvalidSpec", error.to_string())),
            };
        if let Some((reason, message)) = self.obstacle().await? {
            return Ok(Finding::Blocked(reason, message));
        }
        if let Some(object) = &rendered.config_map {
            self.create_config(object).await?;
        }
        let name = rendered.job.name_any();
        // First the name, then the Job: see above.
        self.write(&self.status(former, Some(name.clone()), &Finding::Running))
            .await?;
        match self
            .api::<Job>()
            .create(&PostParams::default(), &rendered.job)
            .await
        {
            Ok(_) => Ok(Finding::Running),
            Err(kube::Error::Api(status)) if status.is_already_exists() => self.look(&name).await,
            Err(error) => {
                let error = Error::api("create", format!("Job {name}"))(error);
                match error.kind() {
                    // It was not made, and will not be: to be told at once.
                    Kind::Invalid | Kind::Refused => {
                        Ok(Finding::Failed("JobRefused", error.line()))
                    }
                    // Whether it was made is not known: the next pass finds it, or it is lost.
                    Kind::Conflict | Kind::Api | Kind::NameTaken => Err(error),
                }
            }
        }
    }

    /// What is in the way of the claim.
    async fn obstacle(&self) -> Result<Option<(&'static str, String)>, Error> {
        let claim = &self.restore.spec.target.claim_name;
        let there = self.api::<PersistentVolumeClaim>().get_opt(claim).await;
        let there = there.map_err(Error::api("get", format!("PersistentVolumeClaim {claim}")))?;
        if there.is_none() {
            let message = format!("there is no PersistentVolumeClaim {claim}");
            return Ok(Some(("ClaimNotFound", message)));
        }
        // Every pod that has not ended counts, whatever its labels.
        let params = ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed");
        let pods = self.api::<Pod>().list(&params).await;
        let pods = pods.map_err(Error::api("list", "Pods"))?;
        let users: Vec<String> = pods
            .iter()
            .filter(|pod| uses(pod, claim))
            .map(Pod::name_any)
            .collect();
        Ok((!users.is_empty()).then(|| {
            let names = users.join(", ");
            (
                "ClaimInUse",
                format!("{claim} is used by {names}: scale it down, and the restore goes on"),
            )
        }))
    }

    async fn create_config(&self, object: &ConfigMap) -> Result<(), Error> {
        let name = object.name_any();
        let what = format!("ConfigMap {name}");
        match self.api().create(&PostParams::default(), object).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let there = self.api::<ConfigMap>().get(&name).await;
                let there = there.map_err(Error::api("get", what.clone()))?;
                match is_controlled_by(&there, &self.uid) {
                    true => Ok(()),
                    false => Err(Error::NameTaken { object: what }),
                }
            }
            Err(error) => Err(Error::api("create", what)(error)),
        }
    }

    /// How the Job stands.
    async fn look(&self, name: &str) -> Result<Finding, Error> {
        let job = self.api::<Job>().get_opt(name).await;
        let job = job.map_err(Error::api("get", format!("Job {name}")))?;
        let Some(job) = job else {
            let message =
                format!("Job {name} is gone before it was seen to end: it is not run again");
            return Ok(Finding::Failed("JobLost", message));
        };
        if !is_controlled_by(&job, &self.uid) {
            let message = format!("Job {name} is there already and belongs to somebody else");
            return Ok(Finding::Failed("NameTaken", message));
        }
        Ok(match JobState::of(&job) {
            JobState::Active => Finding::Running,
            JobState::Complete => Finding::Succeeded(self.report(name).await?),
            JobState::Failed(reason) => {
                let report = self.report(name).await?;
                let said =
                    report.and_then(|report| Some(report.databases.first()?.message.clone()));
                Finding::Failed("JobFailed", said.unwrap_or(reason))
            }
        })
    }

    async fn report(&self, job: &str) -> Result<Option<JobReport>, Error> {
        let params = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
        let pods = self.api::<Pod>().list(&params).await;
        let pods = pods.map_err(Error::api("list", "Pods"))?;
        let last = pods
            .iter()
            .filter_map(JobPodFact::read)
            .max_by_key(|pod| pod.finished);
        Ok(last.and_then(|pod| serde_json::from_str(&pod.message).ok()))
    }

    fn status(
        &self,
        former: &WalrustRestoreStatus,
        job_name: Option<String>,
        finding: &Finding,
    ) -> WalrustRestoreStatus {
        let now = crate::now();
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let (phase, complete, failed, blocked) = match finding {
            Finding::Blocked(reason, message) => (
                Phase::Blocked,
                Verdict::new(Holds::False, "Blocked", ""),
                Verdict::new(Holds::False, "Blocked", ""),
                Verdict::new(Holds::True, reason, message.clone()),
            ),
            Finding::Running => (
                Phase::Running,
                Verdict::new(Holds::False, "Running", ""),
                Verdict::new(Holds::False, "Running", ""),
                Verdict::new(Holds::False, "Running", ""),
            ),
            Finding::Succeeded(_) => (
                Phase::Succeeded,
                Verdict::new(Holds::True, "Restored", "the database is there and checked"),
                Verdict::new(Holds::False, "Restored", ""),
                Verdict::new(Holds::False, "Restored", ""),
            ),
            Finding::Failed(reason, message) => (
                Phase::Failed,
                Verdict::new(Holds::False, reason, ""),
                Verdict::new(Holds::True, reason, message.clone()),
                Verdict::new(Holds::False, reason, ""),
            ),
        };
        let generation = self.restore.metadata.generation;
        let condition = |type_: &str, verdict: Verdict| {
            verdict.condition(type_, &former.conditions, generation, now)
        };
        let report = match finding {
            Finding::Succeeded(report) => report.as_ref(),
            Finding::Blocked(..) | Finding::Running | Finding::Failed(..) => None,
        };
        let entry = report.and_then(|report| report.databases.first());
        let over = matches!(finding, Finding::Succeeded(_) | Finding::Failed(..));
        WalrustRestoreStatus {
            observed_generation: generation,
            phase: Some(phase),
            conditions: vec![
                condition("Complete", complete),
                condition("Failed", failed),
                condition("Blocked", blocked),
            ],
            job_name,
            restored_txid: entry.and_then(|entry| i64::try_from(entry.txid?.get()).ok()),
            restored_bytes: None,
            completion_time: over.then_some(Time(now)),
        }
    }

    /// Writes the status where it differs, and an event where the phase turned.
    async fn tell(
        &self,
        former: &WalrustRestoreStatus,
        job: Option<String>,
        finding: Finding,
    ) -> Result<(), Error> {
        let status = self.status(former, job, &finding);
        if status == *former {
            return Ok(());
        }
        self.write(&status).await?;
        if status.phase == former.phase {
            return Ok(());
        }
        let (type_, reason, note) = match finding {
            Finding::Blocked(reason, message) => (EventType::Warning, reason, message),
            Finding::Running => (
                EventType::Normal,
                "RestoreStarted",
                "the Job is made".to_owned(),
            ),
            Finding::Succeeded(_) => (
                EventType::Normal,
                "RestoreSucceeded",
                "the database is there and checked".to_owned(),
            ),
            Finding::Failed(_, message) => (EventType::Warning, "RestoreFailed", message),
        };
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note.chars().take(900).collect()),
            action: "Restore".to_owned(),
            secondary: None,
        };
        let about = self.restore.object_ref(&());
        if let Err(error) = self.context.common.recorder.publish(&event, &about).await {
            tracing::warn!(restore = %self.name, %error, "event");
        }
        Ok(())
    }

    async fn write(&self, status: &WalrustRestoreStatus) -> Result<(), Error> {
        let patch = json!({
            "apiVersion": WalrustRestore::api_version(&()),
            "kind": WalrustRestore::kind(&()),
            "metadata": {"name": self.name, "uid": self.uid},
            "status": status,
        });
        let params = PatchParams::apply(STATUS_MANAGER).force();
        let api = self.api::<WalrustRestore>();
        let written = api
            .patch_status(&self.name, &params, &Patch::Apply(&patch))
            .await;
        let what = format!("WalrustRestore {}", self.name);
        written
            .map(drop)
            .map_err(Error::api("write the status of", what))
    }
}

/// Whether `pod` mounts `claim`.
fn uses(pod: &Pod, claim: &str) -> bool {
    let volumes = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten());
    let mut claims = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    claims.any(|source| source.claim_name == claim)
}
