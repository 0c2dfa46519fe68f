//! Objects that are sent in parts.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use md5::{Digest as _, Md5};

use crate::error::{Error, ErrorKind, Result};
use crate::store::{Condition, ETag, MOST_PARTS, Put, PutOutcome, StaleUpload, Upload};
use crate::types::Timestamp;

use super::client::Bucket;
use super::error::{DateTap, Reply};
use super::{
    CREATED, etag, patience, refused, send, timestamp, with_attributes, with_customer_key,
};

/// A multipart upload.
#[derive(Debug)]
pub(super) struct S3Upload {
    bucket: Arc<Bucket>,
    key: String,
    id: String,
    how: Put,
    parts: Vec<CompletedPart>,
    /// MD5 over the parts' MD5s: what most stores name the finished object by. None where parts have other
    /// names.
    digest: Option<Md5>,
    size: u64,
    /// Whether completion was asked for before, and its answer may have been lost.
    asked: bool,
}

impl S3Upload {
    pub(super) async fn begin(bucket: Arc<Bucket>, key: &str, how: Put) -> Result<Self> {
        let operation = bucket
            .client
            .create_multipart_upload()
            .bucket(&bucket.name)
            .key(key);
        let operation = with_attributes!(bucket, how, operation);
        let (result, _) = send!(operation.customize());
        let output = result.map_err(|error| Reply::of(error).into_error(&bucket, key))?;
        let id = output.upload_id().map(str::to_owned);
        let id = id.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "an upload without a name").on(key)
        })?;
        let (parts, digest) = (Vec::new(), Some(Md5::new()));
        Ok(Self {
            bucket,
            key: key.to_owned(),
            id,
            how,
            parts,
            digest,
            size: 0,
            asked: false,
        })
    }

    fn error(&self, reply: Reply) -> Error {
        reply.into_error(&self.bucket, &self.key)
    }

    async fn try_complete(&self) -> (Result<Option<String>, Reply>, Option<Timestamp>) {
        let (if_none_match, if_match) = self.bucket.conditions(&self.how.condition);
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(self.parts.clone()))
            .build();
        let operation = self
            .bucket
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket.name)
            .key(&self.key)
            .upload_id(&self.id)
            .set_if_none_match(if_none_match)
            .set_if_match(if_match)
            .multipart_upload(parts);
        let operation = with_customer_key!(self.bucket, operation);
        // Stores assemble the parts before they answer.
        let operation = operation.customize();
        let operation = match patience(usize::try_from(self.size / 16).unwrap_or(usize::MAX)) {
            Some(patience) => operation.config_override(patience),
            None => operation,
        };
        let (result, date) = send!(operation);
        (
            result
                .map(|output| output.e_tag().map(str::to_owned))
                .map_err(Reply::of),
            date,
        )
    }

    /// What stands at the key after a lost answer. It is ours if its size and the digest of its parts are.
    async fn settle(&self) -> Result<Settled> {
        let bucket = &*self.bucket;
        let operation = bucket
            .client
            .head_object()
            .bucket(&bucket.name)
            .key(&self.key);
        let (result, _) = send!(with_customer_key!(bucket, operation).customize());
        let output = match result.map_err(Reply::of_head) {
            Ok(output) => output,
            Err(Reply::Absent) => return Ok(Settled::Absent),
            Err(reply) => return Err(self.error(reply)),
        };
        let expected = self.digest.clone().map(|digest| {
            let digest = u128::from_be_bytes(digest.finalize().into());
            ETag::new(format!("{digest:032x}-{}", self.parts.len()))
        });
        let size = output
            .content_length()
            .and_then(|size| u64::try_from(size).ok());
        let found = etag(output.e_tag());
        let ours = size == Some(self.size) && expected.is_some() && found == expected;
        Ok(if ours {
            Settled::Ours(found)
        } else {
            Settled::Other
        })
    }

    /// The answer to a repeated completion that found no upload or something in its place.
    async fn echo(&self, reply: Reply, date: Option<Timestamp>) -> Result<PutOutcome> {
        match (self.settle().await?, &self.how.condition) {
            (Settled::Ours(etag), _) => Ok(PutOutcome::Stored { etag, date }),
            // Ours or not, the caller finds out by its content.
            (Settled::Other, Condition::IfAbsent) => Ok(PutOutcome::Refused { date }),
            (Settled::Other | Settled::Absent, condition) => {
                refused(reply, condition, date).map_err(|reply| self.error(reply))
            }
        }
    }
}

/// The MD5 that a part is named by, if that is its name.
fn md5_in(tag: Option<&str>) -> Option<[u8; 16]> {
    let tag = etag(tag)?;
    let sum = (tag.as_str().len() == 32).then(|| u128::from_str_radix(tag.as_str(), 16));
    sum?.ok().map(u128::to_be_bytes)
}

/// What stands at the key of an upload.
enum Settled {
    Ours(Option<ETag>),
    Other,
    Absent,
}

#[async_trait]
impl Upload for S3Upload {
    async fn part(&mut self, bytes: Bytes) -> Result<()> {
        let number = self.parts.len() + 1;
        if number > MOST_PARTS {
            let message = format!("an upload has at most {MOST_PARTS} parts");
            return Err(Error::new(ErrorKind::Invalid, message).on(&self.key));
        }
        let number = i32::try_from(number).unwrap_or(i32::MAX);
        let (length, digest) = (bytes.len(), self.bucket.body_digest(&bytes).await?);
        let operation = self
            .bucket
            .client
            .upload_part()
            .bucket(&self.bucket.name)
            .key(&self.key)
            .upload_id(&self.id)
            .part_number(number)
            .set_content_md5(digest)
            .body(ByteStream::from(bytes));
        let mut operation = with_customer_key!(self.bucket, operation).customize();
        if self.bucket.encrypted_line {
            operation = operation.disable_payload_signing();
        }
        if let Some(patience) = patience(length) {
            operation = operation.config_override(patience);
        }
        let (result, _) = send!(operation);
        let output = result.map_err(|error| self.error(self.bucket.refusal(error)))?;
        let sum = md5_in(output.e_tag());
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(output.e_tag().map(str::to_owned));
        self.parts.push(part.build());
        self.digest = self.digest.take().zip(sum).map(|(mut digest, sum)| {
            digest.update(sum);
            digest
        });
        self.size += length as u64;
        Ok(())
    }

    async fn complete(&mut self) -> Result<PutOutcome> {
        if self.parts.is_empty() {
            // An upload has a part, if only an empty one.
            self.part(Bytes::new()).await?;
        }
        let asked_before = std::mem::replace(&mut self.asked, true);
        let (result, date) = self.try_complete().await;
        match result {
            Ok(tag) => Ok(PutOutcome::Stored {
                etag: etag(tag.as_deref()),
                date,
            }),
            Err(reply @ (Reply::Refused | Reply::NoUpload | Reply::Absent)) if asked_before => {
                self.echo(reply, date).await
            }
            Err(reply) => {
                refused(reply, &self.how.condition, date).map_err(|reply| self.error(reply))
            }
        }
    }

    async fn abort(self: Box<Self>) -> Result<()> {
        abort(&self.bucket, &self.key, &self.id).await
    }
}

pub(super) async fn abort(bucket: &Bucket, key: &str, id: &str) -> Result<()> {
    let operation = bucket
        .client
        .abort_multipart_upload()
        .bucket(&bucket.name)
        .key(key)
        .upload_id(id);
    let (result, _) = send!(operation.customize());
    match result.map_err(Reply::of) {
        Ok(_) | Err(Reply::NoUpload | Reply::Absent) => Ok(()),
        Err(reply) => Err(reply.into_error(bucket, key)),
    }
}

/// All uploads below `prefix` that were begun and not ended.
pub(super) async fn stale(bucket: &Bucket, prefix: &str) -> Result<Vec<StaleUpload>> {
    let mut found = Vec::new();
    let (mut key_marker, mut id_marker) = (None, None);
    loop {
        let operation = bucket
            .client
            .list_multipart_uploads()
            .bucket(&bucket.name)
            .prefix(prefix)
            .set_key_marker(key_marker.take())
            .set_upload_id_marker(id_marker.take());
        let (result, _) = send!(operation.customize());
        let output = result.map_err(|error| Reply::of(error).into_error(bucket, prefix))?;
        for upload in output.uploads() {
            if let (Some(key), Some(id)) = (upload.key(), upload.upload_id())
                && key.starts_with(prefix)
            {
                let started = timestamp(upload.initiated());
                found.push(StaleUpload {
                    key: key.to_owned(),
                    id: id.to_owned(),
                    started,
                });
            }
        }
        key_marker = output
            .next_key_marker()
            .map(str::to_owned)
            .filter(|marker| !marker.is_empty());
        id_marker = output
            .next_upload_id_marker()
            .map(str::to_owned)
            .filter(|marker| !marker.is_empty());
        if !output.is_truncated().unwrap_or(false) || key_marker.is_none() {
            return Ok(found);
        }
    }
}
