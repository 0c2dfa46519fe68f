//! S3 and what speaks its language, through the AWS SDK. Nothing else names the SDK.
//!
//! One request is one attempt: [`Retrying`](super::Retrying) repeats. Providers differ in small things;
//! what we do about it stands here:
//!
//! | difference | what we do |
//! |---|---|
//! | newer checksum headers and trailers are refused by some | the signature covers the body; over TLS, where it need not, `Content-MD5`, which all know |
//! | buckets with object lock want a digest beside the signature | `Content-MD5` from the first refusal on |
//! | `If-None-Match` on GET is ignored | the answer's version is compared |
//! | 404 for `If-Match` on nothing | refused, like 412 |
//! | 409 while another conditional write runs | `Unavailable`: try again |
//! | a bucket in the host name needs DNS and certificates, and some want it there | as the table of [providers](super::providers) says, else in the path where an endpoint is set |
//! | `If-Match` wants the version without its quotes (DigitalOcean) | so by the same table |
//! | several folders come in the order of a file system (SeaweedFS) | one page is sorted, more are refused; inside a database all agree |
//! | many deletions at once are unknown, or wanted with another checksum | one by one |
//! | listing of uploads is missing | `Unsupported`, and nothing depends on it |

mod ask;
mod client;
mod credentials;
mod error;
mod list;
mod upload;

#[cfg(test)]
mod line_tests;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use bytes::Bytes;

use crate::error::{Error, ErrorKind, Result};
use crate::types::Timestamp;

use super::{
    Changed, Condition, ETag, ListPage, Object, ObjectMeta, Put, PutOutcome, StaleUpload, Store,
    StoreConfig, Upload,
};

pub use ask::BucketAnswer;
use client::Bucket;
use error::{DateTap, Reply};

/// The metadata that Litestream keeps a file's time in.
const CREATED: &str = "litestream-timestamp";

/// Bodies up to this size share the client's timeouts; larger ones get time by their size.
const SMALL_BODY: usize = 256 << 10;

/// The slowest line we wait for, in bytes a second: a part of 8 MiB then takes two minutes.
const SLOWEST: u64 = 64 << 10;

/// How long a request may take beside its body.
const ANSWER: Duration = Duration::from_secs(30);

/// Sends an operation and also gives the answer's date.
macro_rules! send {
    ($operation:expr) => {{
        let tap = DateTap::default();
        let result = $operation.interceptor(tap.clone()).send().await;
        (result, tap.date())
    }};
}

/// Adds the key of ours that the store encrypts with.
macro_rules! with_customer_key {
    ($bucket:expr, $operation:expr) => {
        match &$bucket.customer_key {
            Some(key) => $operation
                .sse_customer_algorithm("AES256")
                .sse_customer_key(&key.key)
                .sse_customer_key_md5(&key.digest),
            None => $operation,
        }
    };
}

/// Adds what a new object carries besides its bytes.
macro_rules! with_attributes {
    ($bucket:expr, $how:expr, $operation:expr) => {{
        let operation = with_customer_key!($bucket, $operation)
            .set_server_side_encryption($bucket.encryption.clone())
            .set_ssekms_key_id($bucket.kms_key.clone())
            .set_storage_class($bucket.class_of($how.tier))
            .set_tagging($bucket.tagging.clone());
        match $how.created {
            Some(created) => operation.metadata(CREATED, format!("{:.3}", created.to_jiff())),
            None => operation,
        }
    }};
}
pub(super) use {send, with_attributes, with_customer_key};

/// A bucket of an S3-compatible store.
#[derive(Clone, Debug)]
pub struct S3Store(Arc<Bucket>);

impl S3Store {
    /// A client for the bucket of `config`. Makes no request to the bucket. Errors: `Invalid` for what
    /// cannot be used, `NotFound` and `Denied` for files that are named and cannot be read.
    pub async fn connect(config: &StoreConfig) -> Result<Self> {
        Ok(Self(Arc::new(Bucket::connect(config).await?)))
    }

    /// Makes the bucket, for tests against a real server. Whether that went well.
    #[cfg(test)]
    pub(crate) async fn create_bucket(&self) -> bool {
        self.0
            .client
            .create_bucket()
            .bucket(&self.0.name)
            .send()
            .await
            .is_ok()
    }

    async fn read(
        &self,
        key: &str,
        range: Option<&Range<u64>>,
        unless: Option<&ETag>,
    ) -> (Result<Object, Reply>, Option<Timestamp>) {
        let bucket = &*self.0;
        let operation = with_customer_key!(
            bucket,
            bucket.client.get_object().bucket(&bucket.name).key(key)
        )
        .set_range(
            range.map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1))),
        )
        .set_if_none_match(unless.map(quoted));
        let (result, date) = send!(operation.customize());
        let object = match result {
            Ok(output) => body(key, range, output, date).await.map_err(Reply::Failed),
            Err(error) => Err(Reply::of(error)),
        };
        (object, date)
    }
}

/// How long `bytes` may take.
fn time_for(bytes: u64) -> Duration {
    ANSWER + Duration::from_secs(bytes / SLOWEST)
}

/// Timeouts for an operation that sends `bytes`, where the client's would cut it off.
fn patience(bytes: usize) -> Option<aws_sdk_s3::config::Builder> {
    let time = time_for(bytes as u64);
    let timeouts = TimeoutConfig::builder()
        .read_timeout(time)
        .operation_attempt_timeout(time)
        .build();
    (bytes > SMALL_BODY).then(|| aws_sdk_s3::Config::builder().timeout_config(timeouts))
}

fn timestamp(time: Option<&DateTime>) -> Option<Timestamp> {
    let millis = time?.to_millis().ok()?;
    Some(Timestamp::from_millis(millis))
}

/// The version without its quotes: some stores leave them out here and there.
fn etag(text: Option<&str>) -> Option<ETag> {
    let text = text?;
    let bare = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    Some(ETag::new(bare.unwrap_or(text)))
}

/// The version as a header wants it. A weak one has its quotes inside.
fn quoted(etag: &ETag) -> String {
    match etag.as_str() {
        weak if weak.ends_with('"') => weak.to_owned(),
        bare => format!("\"{bare}\""),
    }
}

fn created(metadata: Option<&std::collections::HashMap<String, String>>) -> Option<Timestamp> {
    let time: jiff::Timestamp = metadata?.get(CREATED)?.parse().ok()?;
    Some(time.into())
}

/// The total behind the slash of `bytes 0-9/100`.
fn total(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.parse().ok()
}

/// Receives the body of a GET, checks its length, and gives up on a line that is too slow.
async fn body(
    key: &str,
    range: Option<&Range<u64>>,
    output: GetObjectOutput,
    date: Option<Timestamp>,
) -> Result<Object> {
    let unavailable = |message: String| Error::new(ErrorKind::Unavailable, message).on(key);
    let length = output
        .content_length()
        .and_then(|length| u64::try_from(length).ok());
    let size = output.content_range().and_then(total).or(length);
    if let (Some(range), None) = (range, output.content_range()) {
        // The whole object came. Take it only if that is what was asked for.
        if range.start != 0 || length.is_none_or(|length| length > range.end) {
            return Err(Error::new(ErrorKind::Unsupported, "the store ignores ranges").on(key));
        }
    }
    let mut meta = ObjectMeta {
        key: key.to_owned(),
        size: 0,
        etag: etag(output.e_tag()),
        modified: timestamp(output.last_modified())
            .or(date)
            .unwrap_or_default(),
        created: created(output.metadata()),
    };
    let received = tokio::time::timeout(time_for(length.unwrap_or(0)), output.body.collect()).await;
    let bytes = received
        .map_err(|_| unavailable("the body did not come in time".to_owned()))?
        .map_err(|error| unavailable(format!("the body broke off: {}", error::chain(&error))))?
        .into_bytes();
    if let Some(length) = length
        && length != bytes.len() as u64
    {
        return Err(unavailable(format!(
            "{} bytes came of {length}",
            bytes.len()
        )));
    }
    meta.size = size.unwrap_or(bytes.len() as u64);
    Ok(Object { meta, bytes, date })
}

#[async_trait]
impl Store for S3Store {
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Object> {
        if range.as_ref().is_some_and(Range::is_empty) {
            return Err(Error::new(ErrorKind::Invalid, "an empty range").on(key));
        }
        let (result, _) = self.read(key, range.as_ref(), None).await;
        result.map_err(|reply| reply.into_error(&self.0, key))
    }

    async fn get_if_changed(&self, key: &str, etag: &ETag) -> Result<Changed> {
        match self.read(key, None, Some(etag)).await {
            (Ok(object), date) if object.meta.etag.as_ref() == Some(etag) => {
                Ok(Changed::Same(date))
            }
            (Ok(object), _) => Ok(Changed::New(object)),
            (Err(Reply::NotModified), date) => Ok(Changed::Same(date)),
            (Err(Reply::Absent), date) => Ok(Changed::Gone(date)),
            (Err(reply), _) => Err(reply.into_error(&self.0, key)),
        }
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let bucket = &*self.0;
        let operation = with_customer_key!(
            bucket,
            bucket.client.head_object().bucket(&bucket.name).key(key)
        );
        let (result, date) = send!(operation.customize());
        let output = match result.map_err(Reply::of_head) {
            Ok(output) => output,
            Err(Reply::Absent) => return Ok(None),
            Err(reply) => return Err(reply.into_error(bucket, key)),
        };
        Ok(Some(ObjectMeta {
            key: key.to_owned(),
            size: output
                .content_length()
                .and_then(|length| u64::try_from(length).ok())
                .unwrap_or(0),
            etag: etag(output.e_tag()),
            modified: timestamp(output.last_modified())
                .or(date)
                .unwrap_or_default(),
            created: created(output.metadata()),
        }))
    }

    async fn put(&self, key: &str, body: Bytes, how: Put) -> Result<PutOutcome> {
        let bucket = &*self.0;
        let (if_none_match, if_match) = bucket.conditions(&how.condition);
        let patience = patience(body.len());
        let operation = with_attributes!(
            bucket,
            how,
            bucket.client.put_object().bucket(&bucket.name).key(key)
        )
        .set_if_none_match(if_none_match)
        .set_if_match(if_match)
        .set_content_md5(bucket.body_digest(&body).await?)
        .body(ByteStream::from(body));
        let mut operation = operation.customize();
        if bucket.encrypted_line {
            operation = operation.disable_payload_signing();
        }
        if let Some(patience) = patience {
            operation = operation.config_override(patience);
        }
        let (result, date) = send!(operation);
        match result.map_err(|error| bucket.refusal(error)) {
            Ok(output) => Ok(PutOutcome::Stored {
                etag: etag(output.e_tag()),
                date,
            }),
            Err(reply) => {
                refused(reply, &how.condition, date).map_err(|reply| reply.into_error(bucket, key))
            }
        }
    }

    async fn begin_upload(&self, key: &str, how: Put) -> Result<Box<dyn Upload>> {
        Ok(Box::new(
            upload::S3Upload::begin(Arc::clone(&self.0), key, how).await?,
        ))
    }

    async fn list(&self, prefix: &str, after: Option<&str>) -> Result<ListPage> {
        list::page(&self.0, prefix, after).await
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>> {
        list::folders(&self.0, prefix).await
    }

    async fn delete(&self, keys: &[String]) -> Result<Vec<(String, Error)>> {
        list::delete(&self.0, keys).await
    }

    async fn stale_uploads(&self, prefix: &str) -> Result<Vec<StaleUpload>> {
        upload::stale(&self.0, prefix).await
    }

    async fn abort_upload(&self, upload: &StaleUpload) -> Result<()> {
        upload::abort(&self.0, &upload.key, &upload.id).await
    }

    fn location(&self) -> String {
        format!("s3://{}", self.0.name)
    }
}

impl Bucket {
    /// `If-None-Match` and `If-Match` of a write.
    fn conditions(&self, condition: &Condition) -> (Option<String>, Option<String>) {
        match condition {
            Condition::Always => (None, None),
            Condition::IfAbsent => (Some("*".to_owned()), None),
            Condition::IfMatch(etag) if self.bare_etags => (None, Some(etag.as_str().to_owned())),
            Condition::IfMatch(etag) => (None, Some(quoted(etag))),
        }
    }
}

/// Whether an answer to a write means that its condition does not hold. AWS says 404 where the version
/// to replace is gone.
fn refused(
    reply: Reply,
    condition: &Condition,
    date: Option<Timestamp>,
) -> Result<PutOutcome, Reply> {
    match (reply, condition) {
        (Reply::Refused, Condition::IfAbsent | Condition::IfMatch(_))
        | (Reply::Absent, Condition::IfMatch(_)) => Ok(PutOutcome::Refused { date }),
        (reply, _) => Err(reply),
    }
}
