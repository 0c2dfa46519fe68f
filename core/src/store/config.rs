//! What a store must be told: plain data, resolved elsewhere from arguments, environment and file.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::StoreLocation;

/// The region where nothing names one (R16).
pub const DEFAULT_REGION: &str = "us-east-1";

/// How to reach a store. Holds no secrets but what a proxy's address may carry; `Debug` leaves that out.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// The bucket or directory.
    pub location: StoreLocation,
    /// An S3-compatible endpoint; none means AWS (or what `AWS_ENDPOINT_URL_S3` says).
    pub endpoint: Option<String>,
    /// The region; none means that of the environment or profile, else that of the endpoint's
    /// [provider](super::providers), else [`DEFAULT_REGION`].
    pub region: Option<String>,
    /// Whether the bucket stands in the path or in the host name.
    pub path_style: PathStyle,
    /// Where credentials come from.
    pub credentials: Credentials,
    /// Certificates to trust beside the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// A proxy for all requests; none means that of the environment.
    pub proxy: Option<String>,
    /// The storage class of [`Tier::Cold`](super::Tier::Cold) objects.
    pub storage_class: Option<String>,
    /// Encryption on the server's side.
    pub encryption: Option<Encryption>,
    /// Tags on each object.
    pub tags: BTreeMap<String, String>,
    /// Requests in flight at once.
    pub max_requests: NonZeroUsize,
    /// Bytes a second, both directions together; none is no limit.
    pub bandwidth: Option<NonZeroU64>,
    /// How long to try again what may pass.
    pub retry: RetryPolicy,
}

impl StoreConfig {
    /// The defaults for a location.
    pub fn new(location: StoreLocation) -> Self {
        Self {
            location,
            endpoint: None,
            region: None,
            path_style: PathStyle::Auto,
            credentials: Credentials::Chain,
            ca_file: None,
            proxy: None,
            storage_class: None,
            encryption: None,
            tags: BTreeMap::new(),
            max_requests: NonZeroUsize::MIN.saturating_add(15),
            bandwidth: None,
            retry: RetryPolicy::default(),
        }
    }
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("location", &self.location)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("path_style", &self.path_style)
            .field("credentials", &self.credentials)
            .field("ca_file", &self.ca_file)
            .field("proxy", &self.proxy.as_ref().map(|_| "set"))
            .field("storage_class", &self.storage_class)
            .field("encryption", &self.encryption)
            .field("tags", &self.tags)
            .field("max_requests", &self.max_requests)
            .field("bandwidth", &self.bandwidth)
            .field("retry", &self.retry)
            .finish()
    }
}

/// Where the bucket's name stands in a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PathStyle {
    /// As the endpoint's [provider](super::providers) wants it; else in the path where an endpoint is set,
    /// in the host name on AWS.
    #[default]
    Auto,
    /// Always in the path.
    Always,
    /// Always in the host name.
    Never,
}

/// Where credentials come from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Credentials {
    /// Environment, profile, web identity, container, instance: the first that has some.
    #[default]
    Chain,
    /// A directory of files named like the `AWS_*` variables, read again for each request, so that a
    /// rotated secret counts at once.
    Directory(PathBuf),
}

/// Encryption on the server's side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Encryption {
    /// Keys of the store.
    Aes256,
    /// A key of the key management service; none is the bucket's default key.
    Kms {
        /// Id, ARN or alias.
        key: Option<String>,
    },
    /// A key of ours, sent with each request. Only over TLS.
    Customer {
        /// A file with the 32 bytes of the key, plain or in base64.
        key_file: PathBuf,
    },
}

/// How long to try again what may pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetryPolicy {
    /// The first pause.
    pub shortest: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// No attempt begins later than this after the first.
    pub limit: Duration,
}

impl Default for RetryPolicy {
    /// Long enough for a restarting store or a throttled minute; who must survive longer outages asks
    /// again.
    fn default() -> Self {
        Self {
            shortest: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            limit: Duration::from_secs(45),
        }
    }
}
