//! Jobs as the operator looks back at them: their reports, and how often they should run.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use walrust_core::report::{JobEntry, JobReport};

use crate::api::TaskName;
use crate::controller::facts::{JobFact, JobPodFact, JobState};

/// The exit status of a verification that found the backup damaged.
const DAMAGED: i32 = 4;

/// How a run of a task ended, as far as it says something about the backup.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// All is well.
    Passed,
    /// The backup is not what it should be.
    Failed(String),
    /// It could not tell: the store did not answer, or it was killed.
    Unclear(String),
}

/// The last run of a task that ended.
#[derive(Clone, PartialEq, Debug)]
pub struct Run {
    /// When.
    pub finished: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// What it says of each database, by name.
    pub databases: BTreeMap<String, JobEntry>,
}

/// What there is to say of one task.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct History {
    /// The newest Job.
    pub last_job: Option<String>,
    /// When one last went well.
    pub last_success: Option<Timestamp>,
    /// How many failed since then.
    pub failures: u32,
    /// The last that ended.
    pub last_run: Option<Run>,
}

/// What `jobs` and their `pods` say of `task`.
pub fn history(task: TaskName, jobs: &[&JobFact], pods: &[&JobPodFact]) -> History {
    let mut jobs: Vec<&JobFact> = jobs
        .iter()
        .copied()
        .filter(|job| job.task == task)
        .collect();
    jobs.sort_by(|left, right| (right.created, &right.name).cmp(&(left.created, &left.name)));
    let ended = || jobs.iter().filter(|job| job.state != JobState::Active);
    let well = |job: &&&JobFact| job.state == JobState::Complete;
    let failures = ended().take_while(|job| !well(job)).count();
    History {
        last_job: jobs.first().map(|job| job.name.clone()),
        last_success: ended().filter(well).filter_map(|job| job.completed).max(),
        failures: u32::try_from(failures).unwrap_or(u32::MAX),
        last_run: ended().find_map(|job| run(job, pods)),
    }
}

/// None where nothing is left of a Job's pods and it does not say itself when it ended.
fn run(job: &JobFact, pods: &[&JobPodFact]) -> Option<Run> {
    let of_job = pods.iter().filter(|pod| pod.job == job.name);
    let last = of_job.max_by_key(|pod| pod.finished);
    let report = last.and_then(|pod| serde_json::from_str::<JobReport>(&pod.message).ok());
    let finished = job.completed.or_else(|| last.map(|pod| pod.finished))?;
    let damaged = last.is_some_and(|pod| pod.exit_code == DAMAGED);
    let outcome = match (&job.state, &report) {
        (_, Some(report)) if !report.ok && damaged => Outcome::Failed(worst(report)),
        (JobState::Complete, _) => Outcome::Passed,
        (JobState::Failed(_), Some(report)) if report.databases.iter().any(|one| !one.ok) => {
            Outcome::Failed(worst(report))
        }
        (JobState::Failed(reason), _) if damaged => Outcome::Failed(reason.clone()),
        (JobState::Failed(reason), _) => Outcome::Unclear(reason.clone()),
        (JobState::Active, _) => return None,
    };
    let databases = report.map(|report| report.databases).unwrap_or_default();
    let databases = databases.into_iter().map(|one| (one.name.clone(), one));
    Some(Run {
        finished,
        outcome,
        databases: databases.collect(),
    })
}

fn worst(report: &JobReport) -> String {
    let bad = report.databases.iter().find(|database| !database.ok);
    bad.map_or_else(
        || "the Job says that something is wrong".to_owned(),
        |bad| format!("{}: {}", bad.name, bad.message),
    )
}

/// How far apart two runs of `schedule` are, at most; none where it cannot be told.
pub fn period(schedule: &str, now: Timestamp) -> Option<Duration> {
    let fields = match schedule {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        fields => fields,
    };
    // How far runs are apart hardly depends on the time zone.
    let crontab = cronexpr::parse_crontab(&format!("{} UTC", fields.replace('?', "*"))).ok()?;
    let mut last: Option<Timestamp> = None;
    let mut longest = SignedDuration::ZERO;
    // Enough to see every gap of a week.
    for _ in 0..16 {
        let from = last.unwrap_or(now);
        let next = crontab.find_next(from).ok()?.timestamp();
        if let Some(last) = last {
            longest = longest.max(next.duration_since(last));
        }
        last = Some(next);
    }
    Duration::try_from(longest).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn job(name: &str, created: i64, state: JobState) -> JobFact {
        JobFact {
            name: name.to_owned(),
            task: TaskName::Verify,
            created: at(created),
            completed: (state == JobState::Complete).then(|| at(created + 10)),
            state,
        }
    }

    fn pod(job: &str, exit_code: i32, message: &str) -> JobPodFact {
        JobPodFact {
            job: job.to_owned(),
            finished: at(100),
            exit_code,
            message: message.into(),
        }
    }

    fn failed() -> JobState {
        JobState::Failed("PodFailurePolicy: exit 4".to_owned())
    }

    fn report(ok: bool) -> String {
        format!(
            r#"{{"v":1,"task":"verify","ok":{ok},"started":"2026-11-24T03:17:00Z","finished":"2026-11-24T03:18:00Z",
            "databases":[{{"name":"main","ok":{ok},"txid":7,"message":"page 3"}}],"truncated":false}}"#
        )
    }

    #[test]
    fn the_last_run_that_ended_counts() {
        let jobs = [
            job("a", 1, JobState::Complete),
            job("b", 2, failed()),
            job("c", 3, failed()),
            job("d", 4, JobState::Active),
        ];
        let pods = [pod("b", 4, ""), pod("c", 1, "")];
        let jobs: Vec<&JobFact> = jobs.iter().collect();
        let pods: Vec<&JobPodFact> = pods.iter().collect();
        let history = history(TaskName::Verify, &jobs, &pods);
        assert_eq!(history.last_job.as_deref(), Some("d"));
        assert_eq!(history.last_success, Some(at(11)));
        assert_eq!(history.failures, 2);
        let run = history.last_run.unwrap();
        // Neither a report nor the exit status that says "damaged": it could not tell.
        assert!(matches!(run.outcome, Outcome::Unclear(_)), "{run:?}");
        assert_eq!(
            super::history(TaskName::Compact, &jobs, &pods),
            History::default()
        );
    }

    #[test]
    fn only_a_report_or_its_exit_status_calls_a_backup_damaged() {
        for (state, exit_code, message, wanted) in [
            (JobState::Complete, 0, report(true), "passed"),
            (failed(), 4, report(false), "failed"),
            (failed(), 1, report(false), "failed"),
            (failed(), 4, String::new(), "failed"),
            (failed(), 137, String::new(), "unclear"),
            (failed(), 1, "panicked at somewhere".to_owned(), "unclear"),
        ] {
            let job = job("a", 1, state);
            let pod = pod("a", exit_code, &message);
            let outcome = history(TaskName::Verify, &[&job], &[&pod])
                .last_run
                .unwrap()
                .outcome;
            let found = match outcome {
                Outcome::Passed => "passed",
                Outcome::Failed(_) => "failed",
                Outcome::Unclear(_) => "unclear",
            };
            assert_eq!(found, wanted, "{message:?}");
        }
    }

    #[test]
    fn the_longest_gap_is_the_period() {
        let hours = |count: u64| Some(Duration::from_secs(count * 3_600));
        for (schedule, wanted) in [
            ("17 3 * * *", hours(24)),
            ("@daily", hours(24)),
            ("23 * * * *", hours(1)),
            ("41 4 * * 0", hours(24 * 7)),
            ("0 9 * * 1-5", hours(24 * 3)),
            ("no schedule", None),
        ] {
            assert_eq!(period(schedule, at(1_800_000_000)), wanted, "{schedule}");
        }
    }
}
