//! Listing and deleting many.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use crate::error::{Error, ErrorKind, Result};
use crate::store::{ListPage, ObjectMeta, PAGE};

use super::client::Bucket;
use super::error::{DateTap, Reply, kind_of_code};
use super::{etag, send, timestamp};

/// The most keys of one deletion, by S3's rules.
const BATCH: usize = 1000;

pub(super) async fn page(bucket: &Bucket, prefix: &str, after: Option<&str>) -> Result<ListPage> {
    let operation = bucket
        .client
        .list_objects_v2()
        .bucket(&bucket.name)
        .prefix(prefix)
        .max_keys(PAGE as i32)
        .set_start_after(after.map(str::to_owned));
    let (result, date) = send!(operation.customize());
    let output = result.map_err(|error| Reply::of(error).into_error(bucket, prefix))?;
    let mut objects: Vec<_> = output.contents().iter().filter_map(describe).collect();
    let more = output.is_truncated().unwrap_or(false);
    let ascending = objects.is_sorted_by(|a, b| a.key < b.key);
    let begins_behind =
        after.is_none_or(|after| objects.iter().all(|object| object.key.as_str() > after));
    let alone = after.is_none() && !more;
    if !(ascending && begins_behind || alone) {
        // Going on from the last key would leave some out: an incomplete list, which nobody may act on.
        let message = "the store does not list keys in their order across folders";
        return Err(Error::new(ErrorKind::Unsupported, message)
            .on(prefix)
            .hint("list one folder at a time"));
    }
    objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(ListPage {
        objects,
        more,
        date,
    })
}

fn describe(object: &aws_sdk_s3::types::Object) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        key: object.key()?.to_owned(),
        size: object
            .size()
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or(0),
        etag: etag(object.e_tag()),
        modified: timestamp(object.last_modified()).unwrap_or_default(),
        created: None,
    })
}

pub(super) async fn folders(bucket: &Bucket, prefix: &str) -> Result<Vec<String>> {
    let mut folders = Vec::new();
    let mut token = None;
    loop {
        let operation = bucket
            .client
            .list_objects_v2()
            .bucket(&bucket.name)
            .prefix(prefix)
            .delimiter("/")
            .set_continuation_token(token.take());
        let (result, _) = send!(operation.customize());
        let output = result.map_err(|error| Reply::of(error).into_error(bucket, prefix))?;
        folders.extend(
            output
                .common_prefixes()
                .iter()
                .filter_map(|folder| folder.prefix().map(str::to_owned)),
        );
        match (
            output.is_truncated().unwrap_or(false),
            output.next_continuation_token(),
        ) {
            (false, _) => break,
            (true, Some(next)) => token = Some(next.to_owned()),
            (true, None) => {
                let message = "the listing promises more and does not say where";
                return Err(Error::new(ErrorKind::Unavailable, message).on(prefix));
            }
        }
    }
    folders.sort_unstable();
    folders.dedup();
    Ok(folders)
}

pub(super) async fn delete(bucket: &Bucket, keys: &[String]) -> Result<Vec<(String, Error)>> {
    let mut failures = Vec::new();
    for batch in keys.chunks(BATCH) {
        match delete_batch(bucket, batch).await {
            Ok(failed) => failures.extend(failed),
            // Unknown there, or the checksum is not the one that they want.
            Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::Invalid) => {
                for key in batch {
                    if let Err(error) = delete_one(bucket, key).await {
                        failures.push((key.clone(), error));
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(failures)
}

async fn delete_batch(bucket: &Bucket, keys: &[String]) -> Result<Vec<(String, Error)>> {
    let internal =
        |error| Error::new(ErrorKind::Internal, "a deletion without keys").because(error);
    let mut delete = Delete::builder().quiet(true);
    for key in keys {
        delete = delete.objects(
            ObjectIdentifier::builder()
                .key(key)
                .build()
                .map_err(internal)?,
        );
    }
    let delete = delete.build().map_err(internal)?;
    let operation = bucket
        .client
        .delete_objects()
        .bucket(&bucket.name)
        .delete(delete);
    let (result, _) = send!(operation.customize());
    let output = result.map_err(|error| Reply::of(error).into_error(bucket, ""))?;
    let failure = |error: &aws_sdk_s3::types::Error| {
        let (key, code) = (
            error.key().unwrap_or_default(),
            error.code().unwrap_or_default(),
        );
        let kind = kind_of_code(code).unwrap_or(ErrorKind::Unavailable);
        let message = format!(
            "the store answers {code}: {}",
            error.message().unwrap_or_default()
        );
        let absent = code == "NoSuchKey";
        (!absent).then(|| {
            (
                key.to_owned(),
                Error::new(kind, message).on(format_args!("s3://{}/{key}", bucket.name)),
            )
        })
    };
    Ok(output.errors().iter().filter_map(failure).collect())
}

async fn delete_one(bucket: &Bucket, key: &str) -> Result<()> {
    let (result, _) = send!(
        bucket
            .client
            .delete_object()
            .bucket(&bucket.name)
            .key(key)
            .customize()
    );
    match result.map_err(Reply::of) {
        Ok(_) | Err(Reply::Absent) => Ok(()),
        Err(reply) => Err(reply.into_error(bucket, key)),
    }
}
