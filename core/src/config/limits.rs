//! The bounds of single settings, the same for file and command line.

use std::num::NonZeroU32;
use std::time::Duration;

use super::metrics::Listen;
use super::value::{ValueError, at_least, within};

/// An endpoint that cannot be used; never with the text, which might hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No scheme, or another one.
    #[error("an endpoint begins with http:// or https://")]
    Scheme,
    /// Nothing behind the scheme, or something that no host has.
    #[error("an endpoint names a host, as in https://fly.storage.tigris.dev")]
    Host,
    /// A user or a password.
    #[error("an endpoint has no user or password in it; credentials come from the environment")]
    UserInfo,
    /// What only a request has.
    #[error("an endpoint has no query or fragment")]
    Query,
}

/// An address that cannot be listened on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// No address with a port.
    #[error("wants an address and a port, as in 127.0.0.1:16767 or [::]:16767, or \"\" for off")]
    Address,
    /// Others could reach it.
    #[error("whoever reaches it may detach databases: it must be a loopback address")]
    Open,
}

/// The time between two objects: S3 answers in tens of milliseconds, and every object costs money.
pub fn sync_interval(length: Duration) -> Result<Duration, ValueError> {
    at_least(length, Duration::from_millis(10))
}

/// Each proof downloads and writes the whole database. 0 is off.
pub fn prove_interval(length: Duration) -> Result<Duration, ValueError> {
    match length.is_zero() {
        true => Ok(length),
        false => at_least(length, Duration::from_secs(1)),
    }
}

/// The time from one look at a replica's source to the next: each is a request.
pub fn poll_interval(length: Duration) -> Result<Duration, ValueError> {
    at_least(length, Duration::from_millis(10))
}

/// An owner calls durable what it stored within ten seconds of its last look at the lease, so nobody may
/// take over sooner; five more cover the clock of the store.
pub fn lease_duration(length: Duration) -> Result<Duration, ValueError> {
    at_least(length, Duration::from_secs(15))
}

/// A compaction lists the whole folder: more often than once a second it would do nothing else. 0 is off.
pub fn compact_interval(length: Duration) -> Result<Duration, ValueError> {
    match length.is_zero() {
        true => Ok(length),
        false => at_least(length, Duration::from_secs(1)),
    }
}

/// A year of hours.
pub const MOST_HOURLY: u64 = 8_760;
/// Ten years of days.
pub const MOST_DAILY: u64 = 3_660;
/// Ten years of weeks.
pub const MOST_WEEKLY: u64 = 520;
/// Twenty years of months.
pub const MOST_MONTHLY: u64 = 240;

/// How many periods a tier of retention keeps a snapshot of.
pub fn retained(number: u64, most: u64) -> Result<u32, ValueError> {
    let number = within(number, 0..=most)?;
    u32::try_from(number).map_err(|_| ValueError::Number(number.to_string()))
}

/// Each request holds a connection and a buffer.
pub fn max_requests(number: u64) -> Result<NonZeroU32, ValueError> {
    nonzero(within(number, 1..=1_000)?)
}

/// A WAL that is never checkpointed grows for ever (R60).
pub fn checkpoint_pages(number: u64) -> Result<NonZeroU32, ValueError> {
    nonzero(within(number, 1..=u64::from(u32::MAX))?)
}

/// One page of the largest size, its encoded form and what stands around it must fit.
pub fn memory(bytes: u64) -> Result<u64, ValueError> {
    within(bytes, 1 << 20..=1 << 40)
}

/// Below this an overlay of a single batch would already exceed it.
pub fn spool(bytes: u64) -> Result<u64, ValueError> {
    within(bytes, 1 << 20..=1 << 50)
}

fn nonzero(number: u64) -> Result<NonZeroU32, ValueError> {
    u32::try_from(number)
        .ok()
        .and_then(NonZeroU32::new)
        .ok_or_else(|| ValueError::Number(number.to_string()))
}

/// An endpoint's address, without slashes at its end.
pub fn endpoint(text: &str) -> Result<String, EndpointError> {
    let text = text.trim_end_matches('/');
    has_host(text)?;
    Ok(text.to_owned())
}

/// That `text` is `http://` or `https://` with a host, and nothing more than a path behind it.
pub(super) fn has_host(text: &str) -> Result<(), EndpointError> {
    let host = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"))
        .ok_or(EndpointError::Scheme)?;
    let authority = host.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err(EndpointError::UserInfo);
    }
    if text.contains(['?', '#']) {
        return Err(EndpointError::Query);
    }
    let strange = |c: char| c.is_whitespace() || c.is_control();
    if authority.is_empty() || authority.starts_with(':') || text.contains(strange) {
        return Err(EndpointError::Host);
    }
    Ok(())
}

/// A storage class from which objects are read at once: a restore cannot wait for hours.
pub fn storage_class(text: &str) -> Result<String, StorageClassError> {
    let letter = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if text.is_empty() || text.len() > 64 || !text.chars().all(letter) {
        return Err(StorageClassError::Name(text.chars().take(40).collect()));
    }
    if matches!(text, "GLACIER" | "DEEP_ARCHIVE") {
        return Err(StorageClassError::Archive(text.to_owned()));
    }
    Ok(text.to_owned())
}

/// A storage class that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageClassError {
    /// Text that is no class.
    #[error("{0:?} is not a storage class, as in \"STANDARD_IA\"")]
    Name(String),
    /// A class whose objects must be thawed first.
    #[error("objects of the class {0} cannot be read at once: a restore would fail")]
    Archive(String),
}

/// The most tags that S3 keeps with an object.
pub const MOST_TAGS: usize = 10;

/// Whether S3 takes a tag of this key and value.
pub fn tag(key: &str, value: &str) -> Result<(), TagError> {
    let letter = |c: char| c.is_alphanumeric() || " _.:/=+-@".contains(c);
    let fits = |text: &str, most: usize| text.chars().count() <= most && text.chars().all(letter);
    if key.is_empty() || key.starts_with("aws:") || !fits(key, 128) {
        return Err(TagError::Key);
    }
    if !fits(value, 256) {
        return Err(TagError::Value);
    }
    Ok(())
}

/// A tag that S3 refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// Its key.
    #[error("a tag's key is 1 to 128 letters, digits or `_.:/=+-@`, and does not begin with aws:")]
    Key,
    /// Its value.
    #[error("a tag's value is at most 256 letters, digits or `_.:/=+-@`")]
    Value,
}

/// An address to listen on, as `127.0.0.1:16767` or `[::]:16767`; empty is off.
pub fn listen(text: &str) -> Result<Listen, ListenError> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| ListenError::Address),
    }
}

/// The same for requests that change something, which nobody may send from elsewhere.
pub fn control(text: &str) -> Result<Listen, ListenError> {
    match listen(text)? {
        Some(address) if !address.ip().is_loopback() => Err(ListenError::Open),
        listen => Ok(listen),
    }
}

/// A region that requests can be signed for.
pub fn region(text: &str) -> Result<String, ValueError> {
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.is_empty() || text.len() > 64 || !text.chars().all(letter) {
        return Err(ValueError::Region(text.chars().take(40).collect()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_name_a_host_and_hold_no_secret() {
        for good in [
            "https://fly.storage.tigris.dev",
            "http://localhost:9000",
            "http://[::1]:9000",
            "https://host/base/path",
        ] {
            assert_eq!(endpoint(good).as_deref(), Ok(good));
        }
        assert_eq!(endpoint("http://h/").as_deref(), Ok("http://h"));
        for (bad, error) in [
            ("localhost:9000", EndpointError::Scheme),
            ("ftp://host", EndpointError::Scheme),
            ("", EndpointError::Scheme),
            ("http://", EndpointError::Scheme),
            ("http://:9000", EndpointError::Host),
            ("http://a b", EndpointError::Host),
            ("https://key:secret@host", EndpointError::UserInfo),
            ("https://host?x=1", EndpointError::Query),
        ] {
            assert_eq!(endpoint(bad), Err(error), "{bad}");
        }
    }

    #[test]
    fn classes_that_need_thawing_are_refused() {
        assert!(storage_class("STANDARD_IA").is_ok() && storage_class("GLACIER_IR").is_ok());
        assert!(storage_class("standard").is_err() && storage_class("").is_err());
        assert!(storage_class("GLACIER").is_err() && storage_class("DEEP_ARCHIVE").is_err());
    }

    #[test]
    fn tags_are_what_s3_takes() {
        assert!(tag("team", "payments / eu").is_ok() && tag("t", "").is_ok());
        for bad in ["", "aws:x", "a&b", &"k".repeat(129)] {
            assert_eq!(tag(bad, "v"), Err(TagError::Key));
        }
        assert_eq!(tag("k", "a\nb"), Err(TagError::Value));
        assert_eq!(tag("k", &"v".repeat(257)), Err(TagError::Value));
    }

    #[test]
    fn control_is_for_this_machine_alone() {
        assert_eq!(listen(""), Ok(None));
        assert!(matches!(listen("[::]:16767"), Ok(Some(_))));
        assert_eq!(listen("localhost"), Err(ListenError::Address));
        assert!(matches!(control("127.0.0.1:16768"), Ok(Some(_))));
        assert_eq!(control("0.0.0.0:16768"), Err(ListenError::Open));
    }

    #[test]
    fn v11_bounds_refuse_zero_and_absurd_values() {
        assert!(sync_interval(Duration::ZERO).is_err());
        assert!(sync_interval(Duration::from_millis(10)).is_ok());
        assert!(prove_interval(Duration::ZERO).is_ok());
        assert!(prove_interval(Duration::from_millis(999)).is_err());
        assert!(lease_duration(Duration::ZERO).is_err());
        assert!(max_requests(0).is_err() && max_requests(1_001).is_err());
        assert!(compact_interval(Duration::from_millis(1)).is_err());
        assert!(compact_interval(Duration::ZERO).is_ok());
        assert!(
            retained(0, 5).is_ok()
                && retained(6, 5).is_err()
                && retained(1 << 40, 1 << 41).is_err()
        );
        assert!(checkpoint_pages(0).is_err() && checkpoint_pages(1 << 32).is_err());
        assert!(memory(0).is_err() && memory(16 << 20).is_ok());
        assert!(spool(0).is_err() && spool(8 << 20).is_ok());
    }
}
