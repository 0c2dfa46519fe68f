//! The way to the bucket: credentials, endpoint, clock, and then what we may do there.

use std::path::Path;

use super::report::Check;
use super::trial;
use crate::clock::Clock;
use crate::config::LeaseMode;
use crate::error::{Error, ErrorKind};
use crate::store::providers::{Place, Provider, Support};
use crate::store::{BucketAnswer, S3Store, StoreConfig, open, trial_key};
use crate::types::{KeyPrefix, Timestamp};

/// A difference of clocks beyond this is told: the times of restore points are this machine's, those of
/// the lease are the store's.
const SKEW_TOLD: i64 = 5_000;
/// Signatures of another time than this are refused. Source: AWS, "RequestTimeTooSkewed", 15 minutes.
const SKEW_REFUSED: i64 = 15 * 60 * 1000;

/// Everything about a bucket of an S3 store.
pub(super) async fn examine(
    config: &StoreConfig,
    prefix: &KeyPrefix,
    lease: LeaseMode,
    clock: &Clock,
) -> Vec<Check> {
    let s3 = match S3Store::connect(config).await {
        Ok(s3) => s3,
        Err(error) => return vec![about("configuration", &error)],
    };
    let mut checks = vec![match s3.access_key().await {
        Ok(key) => Check::ok("credentials", format!("found, access key {key}")),
        Err(error) => return vec![Check::failed_because("credentials", &error)],
    }];
    let asked = clock.now();
    let answer = s3.ask_bucket().await;
    let here = middle(asked, clock.now());
    checks.push(provider(&s3, &answer));
    let store = match open(config).await {
        Ok(store) => store,
        Err(error) => {
            checks.push(about("configuration", &error));
            return checks;
        }
    };
    let listed = store.list(&trial_key(prefix, ""), None).await;
    checks.push(reach(listed.as_ref().err(), &answer));
    checks.extend(skew(here, answer.date, listed.is_err()));
    if checks.iter().any(|check| !check.ok) {
        return checks;
    }
    checks.push(match listed {
        Ok(_) => Check::ok("list", "allowed"),
        Err(error) => Check::failed_because("list", &error).hint(
            "allow s3:ListBucket on the bucket: without it an absent object looks like a refusal",
        ),
    });
    checks.extend(trial::run(&*store, prefix, lease).await);
    checks
}

/// Everything about a directory that serves as a bucket.
pub(super) async fn examine_directory(config: &StoreConfig, root: &Path) -> Vec<Check> {
    // Opening would make it, and one that is not mounted is no empty store.
    let there = std::fs::metadata(root).map_err(|error| Error::io(root.display(), error));
    let opened = match there {
        Ok(there) if there.is_dir() => open(config).await,
        Ok(_) => Err(Error::new(ErrorKind::Invalid, "not a directory")),
        Err(error) => Err(error),
    };
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            let failed = Check::failed_because("directory", &error);
            return vec![
                failed.hint("make it, or mount it: an absent directory is no empty store"),
            ];
        }
    };
    let mut checks = vec![Check::ok("directory", root.display().to_string())];
    let prefix = KeyPrefix::default();
    match store.list(&trial_key(&prefix, ""), None).await {
        Ok(_) => checks.push(Check::ok("list", "allowed")),
        Err(error) => checks.push(Check::failed_because("list", &error)),
    }
    checks.extend(trial::run(&*store, &prefix, LeaseMode::Enforce).await);
    checks
}

/// A failed check that also names the error's object: a file of the configuration, say.
fn about(name: &str, error: &Error) -> Check {
    let mut check = Check::failed_because(name, error);
    if let Some(object) = error.object() {
        check.message = format!("{object}: {}", check.message);
    }
    check
}

/// Who is behind the endpoint, and what we do about it.
fn provider(s3: &S3Store, answer: &BucketAnswer) -> Check {
    let place = match s3.is_path_style() {
        true => "in the path",
        false => "in the host name",
    };
    let region = s3.region();
    let name = match (s3.provider(), s3.endpoint()) {
        (Some(provider), _) => provider.name,
        (None, Some(_)) => "not in the table of providers",
        (None, None) => "AWS S3",
    };
    let at = s3.endpoint().unwrap_or("no endpoint set");
    let message = format!("{name} ({at}), region {region}, bucket {place}");
    let here = answer.region.as_deref().filter(|here| *here != region);
    if let Some(here) = here {
        return Check::note("provider", message)
            .hint(format!("the bucket is in {here}: set region = \"{here}\""));
    }
    match (s3.provider(), s3.endpoint()) {
        (Some(provider), Some(endpoint)) => misfit(provider, endpoint, region, s3.is_path_style())
            .map_or_else(
                || Check::ok("provider", message.clone()),
                |hint| Check::note("provider", message.clone()).hint(hint),
            ),
        _ => Check::ok("provider", message),
    }
}

/// What does not fit the table's row.
fn misfit(provider: &Provider, endpoint: &str, region: &str, path_style: bool) -> Option<String> {
    let known = provider.region_at(endpoint);
    if let Some(known) = known.filter(|known| known != region) {
        let name = provider.name;
        return Some(format!(
            "{name} takes region = \"{known}\" here; signatures for another may be refused"
        ));
    }
    if provider.place == Place::Host && path_style {
        return Some(format!(
            "{} wants the bucket in the host name: leave path_style at \"auto\"",
            provider.name
        ));
    }
    (provider.fences() == Support::No).then(|| {
        "it is known to have no conditional writes: watch each database from one place only"
            .to_owned()
    })
}

/// Whether the bucket is there. A refusal (403) leaves it open; then what follows tells more.
fn reach(failed: Option<&Error>, answer: &BucketAnswer) -> Check {
    match (failed, answer.status) {
        (None, _) => Check::ok("bucket", "there"),
        (Some(_), Some(404)) => Check::failed(
            "bucket",
            ErrorKind::NotFound,
            "no such bucket",
            "create it, or correct its name or the endpoint",
        ),
        (Some(error), Some(301)) => Check::failed(
            "bucket",
            error.kind(),
            "it is elsewhere",
            match &answer.region {
                Some(region) => format!("set region = \"{region}\""),
                None => "set region to the bucket's".to_owned(),
            },
        ),
        (Some(error), None) => Check::failed_because("bucket", error)
            .hint("check the endpoint, the network, and a proxy's settings"),
        (Some(error), Some(_)) if error.kind() == ErrorKind::Denied => {
            Check::ok("bucket", "the endpoint answers")
        }
        (Some(error), Some(_)) => {
            Check::failed_because("bucket", error).hint("check endpoint, region and path_style")
        }
    }
}

fn middle(before: Timestamp, after: Timestamp) -> Timestamp {
    let half = after.millis().saturating_sub(before.millis()) / 2;
    Timestamp::from_millis(before.millis().saturating_add(half))
}

/// How far this machine's clock is from the store's, whose answers are cut to whole seconds.
fn skew(here: Timestamp, there: Option<Timestamp>, refused: bool) -> Option<Check> {
    let there = there?.millis().saturating_add(500);
    let ahead = here.millis().saturating_sub(there);
    let seconds = ahead.unsigned_abs() / 1000;
    let way = if ahead > 0 { "ahead of" } else { "behind" };
    let message = format!("{seconds} s {way} the store's");
    let hint = "set this machine's clock, and keep it right with NTP";
    Some(match ahead.saturating_abs() {
        beyond if beyond > SKEW_REFUSED || (refused && beyond > SKEW_TOLD) => {
            Check::failed("clock", ErrorKind::Denied, message, hint)
        }
        beyond if beyond > SKEW_TOLD => Check::note("clock", message).hint(hint),
        _ => Check::ok("clock", "that of the store"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::report::Outcome;
    use super::*;

    #[test]
    fn a_clock_is_told_beyond_5_s_and_fails_where_signatures_do() {
        let at = Timestamp::from_millis(1_700_000_000_000);
        let check = |ahead: i64, refused| {
            let here = Timestamp::from_millis(at.millis() + 500 + ahead);
            skew(here, Some(at), refused).unwrap().outcome
        };
        assert_eq!(check(5_000, false), Outcome::Ok);
        assert_eq!(check(-5_000, true), Outcome::Ok);
        assert_eq!(check(5_001, false), Outcome::Note);
        assert_eq!(check(-6_000, false), Outcome::Note);
        assert_eq!(check(6_000, true), Outcome::Failed);
        assert_eq!(check(-15 * 60_000 - 1, false), Outcome::Failed);
        assert_eq!(skew(at, None, true), None);
    }

    #[test]
    fn what_does_not_fit_the_providers_row_is_told() {
        let hint = |endpoint: &str, region: &str, path_style| {
            let provider = Provider::of_endpoint(endpoint).unwrap();
            misfit(provider, endpoint, region, path_style)
        };
        let tigris = "https://fly.storage.tigris.dev";
        assert_eq!(hint(tigris, "auto", false), None);
        assert!(hint(tigris, "auto", true).unwrap().contains("path_style"));
        assert!(
            hint(tigris, "us-east-1", false)
                .unwrap()
                .contains("\"auto\"")
        );
        let b2 = "https://s3.us-west-004.backblazeb2.com";
        assert!(
            hint(b2, "us-west-004", true)
                .unwrap()
                .contains("conditional")
        );
    }

    #[test]
    fn a_bucket_that_is_elsewhere_names_its_region() {
        let moved = Error::new(ErrorKind::Invalid, "the store answers 301");
        let answer = BucketAnswer {
            status: Some(301),
            region: Some("eu-west-1".to_owned()),
            ..BucketAnswer::default()
        };
        let check = reach(Some(&moved), &answer);
        assert_eq!(check.hint.as_deref(), Some("set region = \"eu-west-1\""));
        assert_eq!(check.outcome, Outcome::Failed);
    }
}
