//! What `doctor` asks beside what every store can do: the line to the bucket, without an object.

use std::time::Duration;

use aws_credential_types::provider::ProvideCredentials;
use aws_sdk_s3::error::SdkError;

use crate::error::{Error, ErrorKind, Result};
use crate::store::providers::Provider;
use crate::types::Timestamp;

use super::S3Store;
use super::error::{DateTap, of_credentials};

/// Longer than every provider of credentials that works takes; one that is not there never answers.
const CREDENTIALS: Duration = Duration::from_secs(15);

/// How the store answered a question about the bucket, whatever it thinks of us.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BucketAnswer {
    /// The status, where there was an answer.
    pub status: Option<u16>,
    /// The store's clock.
    pub date: Option<Timestamp>,
    /// The bucket's region, where the store names it.
    pub region: Option<String>,
}

impl S3Store {
    /// The provider behind the endpoint, if it is in the table.
    pub fn provider(&self) -> Option<&'static Provider> {
        self.0.line.provider
    }

    /// The endpoint; none on AWS.
    pub fn endpoint(&self) -> Option<&str> {
        self.0.line.endpoint.as_deref()
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        &self.0.line.region
    }

    /// Whether the bucket's name stands in the path of a request.
    pub fn is_path_style(&self) -> bool {
        self.0.line.path_style
    }

    /// The first letters of the id of the access key in use: enough to know it again, too few to use it.
    ///
    /// # Errors
    /// `Denied` where there are no credentials, `Invalid` for malformed ones, `Unavailable` where their
    /// provider does not answer.
    pub async fn access_key(&self) -> Result<String> {
        let provider = self.0.line.credentials.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Denied, "no credentials")
                .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile or role")
        })?;
        let asked = tokio::time::timeout(CREDENTIALS, provider.provide_credentials()).await;
        let late = |_| Error::new(ErrorKind::Unavailable, "credentials did not come in time");
        let found = asked
            .map_err(late)?
            .map_err(|error| of_credentials(&error))?;
        let id: String = found.access_key_id().chars().take(4).collect();
        Ok(format!("{id}…"))
    }

    /// Asks for the bucket itself, once.
    pub async fn ask_bucket(&self) -> BucketAnswer {
        let tap = DateTap::default();
        let operation = self.0.client.head_bucket().bucket(&self.0.name);
        let asked = operation.customize().interceptor(tap.clone()).send().await;
        let (status, region) = match asked {
            Ok(output) => (Some(200), output.bucket_region().map(str::to_owned)),
            Err(SdkError::ServiceError(context)) => {
                let raw = context.raw();
                let region = raw.headers().get("x-amz-bucket-region");
                (Some(raw.status().as_u16()), region.map(str::to_owned))
            }
            Err(_) => (None, None),
        };
        BucketAnswer {
            status,
            date: tap.date(),
            region,
        }
    }
}
