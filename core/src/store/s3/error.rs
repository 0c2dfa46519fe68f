//! What the store's answers mean: by type, status and code, never by text (U11, U12).

use std::sync::{Arc, OnceLock};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::error::{Error, ErrorKind};
use crate::types::Timestamp;

use super::client::Bucket;

/// Keeps the `Date` of an answer, good or bad: the store's clock.
#[derive(Clone, Debug, Default)]
pub(super) struct DateTap(Arc<OnceLock<Timestamp>>);

impl DateTap {
    pub(super) fn date(&self) -> Option<Timestamp> {
        self.0.get().copied()
    }
}

impl Intercept for DateTap {
    fn name(&self) -> &'static str {
        "DateTap"
    }

    fn read_after_transmit(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let text = context.response().headers().get("date");
        let date = text.and_then(|text| DateTime::from_str(text, DateTimeFormat::HttpDate).ok());
        if let Some(millis) = date.and_then(|date| date.to_millis().ok()) {
            // Already set only if the SDK repeated the request, which it is told not to.
            let _ = self.0.set(Timestamp::from_millis(millis));
        }
        Ok(())
    }
}

/// An answer that is not the one hoped for.
#[derive(Debug)]
pub(super) enum Reply {
    /// No object of that key.
    Absent,
    /// The version asked about.
    NotModified,
    /// The condition does not hold.
    Refused,
    /// No such upload: finished, aborted, or never begun.
    NoUpload,
    /// No such bucket.
    NoBucket,
    /// Anything else.
    Failed(Error),
}

/// What a status and a code mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Absent,
    NotModified,
    Refused,
    NoUpload,
    NoBucket,
    Failed(ErrorKind),
}

/// The one table. The code is finer than the status, so it comes first.
fn verdict(status: u16, code: Option<&str>) -> Verdict {
    use ErrorKind::{Denied, Exhausted, Invalid, Unavailable, Unsupported};
    let by_code = match code.unwrap_or_default() {
        "NoSuchKey" | "NotFound" => Some(Verdict::Absent),
        "NoSuchUpload" => Some(Verdict::NoUpload),
        "NoSuchBucket" => Some(Verdict::NoBucket),
        "PreconditionFailed" => Some(Verdict::Refused),
        "NotModified" => Some(Verdict::NotModified),
        _ => code.and_then(kind_of_code).map(Verdict::Failed),
    };
    by_code.unwrap_or(match status {
        304 => Verdict::NotModified,
        412 => Verdict::Refused,
        401 | 403 => Verdict::Failed(Denied),
        408 | 409 | 425 | 429 | 307 => Verdict::Failed(Unavailable),
        405 | 501 => Verdict::Failed(Unsupported),
        507 => Verdict::Failed(Exhausted),
        // Without a code it is not S3 that answers (HEAD apart): no proof of absence.
        404 => Verdict::Failed(Unavailable),
        300..=499 => Verdict::Failed(Invalid),
        _ => Verdict::Failed(Unavailable),
    })
}

/// Codes whose meaning their status does not tell.
pub(super) fn kind_of_code(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "ServiceUnavailable"
        | "InternalError"
        | "RequestTimeout"
        | "RequestTimeTooSkewed"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "OperationAborted"
        | "ConditionalRequestConflict"
        | "BadDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "IncompleteBody" => ErrorKind::Unavailable,
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "NotSignedUp" => ErrorKind::Denied,
        "QuotaExceeded"
        | "InsufficientStorage"
        | "StorageFull"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded" => ErrorKind::Exhausted,
        "NotImplemented" | "MethodNotAllowed" => ErrorKind::Unsupported,
        _ => return None,
    })
}

/// A next step for codes that people meet.
fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "IllegalLocationConstraintException" => "is the region that of the bucket?",
        "SignatureDoesNotMatch" => "is AWS_SECRET_ACCESS_KEY right?",
        "InvalidAccessKeyId" => "is AWS_ACCESS_KEY_ID right, and for this endpoint?",
        "ExpiredToken" | "TokenRefreshRequired" => "get new credentials: the session has ended",
        "RequestTimeTooSkewed" => "is this machine's clock right?",
        _ => return None,
    })
}

/// Whether the store calls the request as such wrong: it may want a digest of the body.
pub(super) fn is_refused_request<E: ProvideErrorMetadata>(
    error: &SdkError<E, HttpResponse>,
) -> bool {
    let code = error.as_service_error().and_then(E::code);
    matches!(code, Some("InvalidRequest" | "MissingContentMD5"))
}

impl Reply {
    /// What a store that wants the body's digest is answered: another try, with it.
    pub(super) fn once_more() -> Self {
        Self::Failed(Error::new(
            ErrorKind::Unavailable,
            "the store asks for Content-MD5",
        ))
    }

    /// Reads a failed operation.
    pub(super) fn of<E>(error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let SdkError::ServiceError(context) = &error else {
            return Self::Failed(without_answer(error));
        };
        let (status, code) = (context.raw().status().as_u16(), context.err().code());
        match verdict(status, code) {
            Verdict::Absent => Self::Absent,
            Verdict::NotModified => Self::NotModified,
            Verdict::Refused => Self::Refused,
            Verdict::NoUpload => Self::NoUpload,
            Verdict::NoBucket => Self::NoBucket,
            Verdict::Failed(kind) => {
                let text = describe(status, code, context.err().message());
                let failed = Error::new(kind, text);
                let failed = match code.and_then(hint) {
                    Some(hint) => failed.hint(hint),
                    None => failed,
                };
                Self::Failed(failed.because(error))
            }
        }
    }

    /// Reads a failed HEAD, whose answers have no body and so no code.
    pub(super) fn of_head<E>(error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        match &error {
            SdkError::ServiceError(context) if context.raw().status().as_u16() == 404 => {
                Self::Absent
            }
            _ => Self::of(error),
        }
    }

    /// The error where nothing better can be made of the answer.
    pub(super) fn into_error(self, bucket: &Bucket, key: &str) -> Error {
        let error = match self {
            Self::Absent => Error::new(ErrorKind::NotFound, "no such object"),
            Self::NoUpload => Error::new(ErrorKind::NotFound, "the upload is gone"),
            Self::NotModified => {
                Error::new(ErrorKind::Unavailable, "\"not modified\" was not asked for")
            }
            Self::Refused => Error::new(
                ErrorKind::Unavailable,
                "the store refuses a condition that was not set",
            ),
            Self::NoBucket => return no_bucket(bucket),
            Self::Failed(error) => error,
        };
        error.on(format_args!("s3://{}/{key}", bucket.name))
    }
}

fn no_bucket(bucket: &Bucket) -> Error {
    Error::new(ErrorKind::Denied, "no such bucket")
        .on(format_args!("s3://{}", bucket.name))
        .hint("create it, or check the endpoint")
}

/// `403 AccessDenied: Access Denied.`, with the store's words cut and on one line.
fn describe(status: u16, code: Option<&str>, message: Option<&str>) -> String {
    let mut text = format!("the store answers {status}");
    if let Some(code) = code {
        text.push(' ');
        text.push_str(code);
    }
    if let Some(message) = message.filter(|message| !message.is_empty()) {
        text.push_str(": ");
        text.extend(
            message
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(200),
        );
    }
    text
}

/// What it means that no answer came.
fn without_answer<E>(error: SdkError<E, HttpResponse>) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    if let Some(credentials) = find::<CredentialsError>(&error) {
        return of_credentials(credentials);
    }
    let (kind, text) = match &error {
        SdkError::ConstructionFailure(_) => (ErrorKind::Invalid, "the request cannot be made"),
        SdkError::TimeoutError(_) => (ErrorKind::Unavailable, "no answer in time"),
        SdkError::DispatchFailure(failure) if failure.is_user() => {
            (ErrorKind::Invalid, "the request cannot be sent")
        }
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            (ErrorKind::Unavailable, "no answer in time")
        }
        SdkError::ResponseError(_) => (ErrorKind::Unavailable, "the answer is no S3"),
        _ => (ErrorKind::Unavailable, "no connection"),
    };
    let cause = std::error::Error::source(&error).map(chain);
    let text = cause.map_or_else(|| text.to_owned(), |cause| format!("{text}: {cause}"));
    Error::new(kind, text).because(error)
}

/// Credentials that are missing or malformed need hands (R69); a provider that does not answer will.
pub(super) fn of_credentials(error: &CredentialsError) -> Error {
    let (kind, text) = match error {
        CredentialsError::CredentialsNotLoaded(_) => (ErrorKind::Denied, "no credentials"),
        CredentialsError::InvalidConfiguration(_) => (ErrorKind::Invalid, "malformed credentials"),
        CredentialsError::ProviderTimedOut(_) => {
            (ErrorKind::Unavailable, "credentials did not come in time")
        }
        _ => (ErrorKind::Unavailable, "credentials cannot be had now"),
    };
    let text = match std::error::Error::source(error).map(chain) {
        Some(cause) => format!("{text}: {cause}"),
        None => text.to_owned(),
    };
    Error::new(kind, text)
        .hint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile or role")
}

/// The first error of this type among an error and its causes.
fn find<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref())
}

/// An error and its causes on one line; causes that only repeat are left out.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    for cause in std::iter::successors(Some(error), |error| error.source()).take(12) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn u11_each_answer_has_its_meaning() {
        use ErrorKind::{Denied, Exhausted, Invalid, Unavailable, Unsupported};
        use Verdict::Failed;
        for (status, code, meaning) in [
            (404, Some("NoSuchKey"), Verdict::Absent),
            (404, Some("NoSuchBucket"), Verdict::NoBucket),
            (404, Some("NoSuchUpload"), Verdict::NoUpload),
            // A proxy's page is no proof that an object is absent.
            (404, None, Failed(Unavailable)),
            (412, Some("PreconditionFailed"), Verdict::Refused),
            (412, None, Verdict::Refused),
            (304, None, Verdict::NotModified),
            (409, Some("ConditionalRequestConflict"), Failed(Unavailable)),
            (409, Some("OperationAborted"), Failed(Unavailable)),
            (429, None, Failed(Unavailable)),
            (503, Some("SlowDown"), Failed(Unavailable)),
            (500, Some("InternalError"), Failed(Unavailable)),
            (200, Some("InternalError"), Failed(Unavailable)),
            (502, None, Failed(Unavailable)),
            (504, Some("SomethingNew"), Failed(Unavailable)),
            (400, Some("RequestTimeout"), Failed(Unavailable)),
            (400, Some("BadDigest"), Failed(Unavailable)),
            (403, Some("RequestTimeTooSkewed"), Failed(Unavailable)),
            (403, Some("AccessDenied"), Failed(Denied)),
            (403, None, Failed(Denied)),
            (401, Some("SomethingNew"), Failed(Denied)),
            (400, Some("ExpiredToken"), Failed(Denied)),
            (403, Some("QuotaExceeded"), Failed(Exhausted)),
            (507, None, Failed(Exhausted)),
            (400, Some("AuthorizationHeaderMalformed"), Failed(Invalid)),
            (301, Some("PermanentRedirect"), Failed(Invalid)),
            (400, Some("InvalidArgument"), Failed(Invalid)),
            (416, Some("InvalidRange"), Failed(Invalid)),
            (501, Some("NotImplemented"), Failed(Unsupported)),
        ] {
            assert_eq!(verdict(status, code), meaning, "{status} {code:?}");
        }
    }

    #[test]
    fn u12_text_never_decides() {
        // A code that merely contains another, or digits of a status.
        assert_eq!(
            verdict(400, Some("NotSlowDown")),
            Verdict::Failed(ErrorKind::Invalid)
        );
        assert_eq!(
            verdict(400, Some("500")),
            Verdict::Failed(ErrorKind::Invalid)
        );
        assert_eq!(
            verdict(403, Some("404 NoSuchKey")),
            Verdict::Failed(ErrorKind::Denied)
        );
    }

    #[test]
    fn answers_are_told_on_one_line() {
        assert_eq!(
            describe(403, Some("AccessDenied"), Some("a\nb")),
            "the store answers 403 AccessDenied: a b"
        );
        assert_eq!(describe(500, None, None), "the store answers 500");
    }
}
