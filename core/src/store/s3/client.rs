//! From configuration to a client: one a process and bucket.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    IdentityCache, Region, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider as TlsProvider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::base64;
use bytes::Bytes;
use md5::{Digest as _, Md5};

use crate::error::{Error, ErrorKind, Result};
use crate::store::providers::{Place, Provider};
use crate::store::{
    Credentials, DEFAULT_REGION, Encryption, PathStyle, StoreConfig, StoreLocation, Tier,
};

use super::credentials::Directory;
use super::error::{Reply, is_refused_request, of_credentials};
use super::{ANSWER, SMALL_BODY};

/// A name that does not resolve or a host that is down shows within seconds.
const CONNECT: Duration = Duration::from_secs(5);

/// A key of ours for the store to encrypt with, as its headers want it.
pub(super) struct CustomerKey {
    pub(super) key: String,
    pub(super) digest: String,
}

/// How requests reach the bucket, and who signs them.
pub(super) struct Line {
    /// None on AWS.
    pub(super) endpoint: Option<String>,
    pub(super) region: String,
    pub(super) provider: Option<&'static Provider>,
    pub(super) credentials: Option<SharedCredentialsProvider>,
    /// Whether the bucket's name stands in the path.
    pub(super) path_style: bool,
}

impl Line {
    fn is_encrypted(&self) -> bool {
        let endpoint = self.endpoint.as_ref();
        endpoint.is_none_or(|endpoint| endpoint.starts_with("https://"))
    }
}

/// A client, and what each request to its bucket carries.
pub(super) struct Bucket {
    pub(super) client: Client,
    pub(super) name: String,
    /// Over TLS the body need not be hashed for the signature.
    pub(super) encrypted_line: bool,
    /// The store insists on Content-MD5, as buckets with object lock do.
    insists_on_digest: AtomicBool,
    pub(super) encryption: Option<ServerSideEncryption>,
    pub(super) kms_key: Option<String>,
    pub(super) customer_key: Option<CustomerKey>,
    pub(super) tagging: Option<String>,
    /// `If-Match` takes versions without their quotes.
    pub(super) bare_etags: bool,
    pub(super) line: Line,
    storage_class: Option<StorageClass>,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bucket({})", self.name)
    }
}

impl Bucket {
    pub(super) async fn connect(config: &StoreConfig) -> Result<Self> {
        let StoreLocation::S3 { bucket, .. } = &config.location else {
            return Err(
                Error::new(ErrorKind::Internal, "a directory is no bucket").on(&config.location)
            );
        };
        let directory = match &config.credentials {
            Credentials::Directory(path) => Some(Directory::new(path.clone())),
            Credentials::Chain => None,
        };
        let endpoint = endpoint(config, directory.as_ref())?;
        let (client, line) = client(config, directory, endpoint).await?;
        let encrypted_line = line.is_encrypted();
        let (encryption, kms_key, customer_key) =
            encryption(config.encryption.as_ref(), encrypted_line)?;
        Ok(Self {
            client,
            name: bucket.clone(),
            encrypted_line,
            insists_on_digest: AtomicBool::new(false),
            encryption,
            kms_key,
            customer_key,
            tagging: tagging(&config.tags),
            bare_etags: line.provider.is_some_and(|provider| provider.bare_etags),
            line,
            storage_class: config.storage_class.as_deref().map(StorageClass::from),
        })
    }

    /// The storage class of an object; none is the bucket's default.
    pub(super) fn class_of(&self, tier: Tier) -> Option<StorageClass> {
        match tier {
            Tier::Hot => None,
            Tier::Cold => self.storage_class.clone(),
        }
    }
}

/// Builds the client, and tells how it reaches the bucket.
async fn client(
    config: &StoreConfig,
    directory: Option<Directory>,
    endpoint: Option<String>,
) -> Result<(Client, Line)> {
    let region = region(config, directory.as_ref())?;
    let http = http_client(config)?;
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http);
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    } else if let Some(endpoint) = &endpoint {
        // Where this machine stands says nothing about somebody else's store, so it is not asked (R149). The search for
        // credentials would ask, too, if it were left without a region.
        let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new());
        let chain = chain.or_else(ProfileFileRegionProvider::new());
        loader = loader.region(chain.or_else(Region::new(region_at(endpoint))));
    }
    if let Some(directory) = directory.clone() {
        loader = loader.credentials_provider(directory);
    }
    let shared = loader.load().await;
    // A profile may name an endpoint too.
    let endpoint = match (endpoint, shared.endpoint_url()) {
        (None, Some(named)) => Some(check_endpoint(named)?),
        (endpoint, _) => endpoint,
    };
    let line = line(config, &shared, endpoint);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .read_timeout(ANSWER)
        .operation_attempt_timeout(ANSWER)
        .build();
    let mut builder = aws_sdk_s3::config::Builder::from(&shared)
        .force_path_style(line.path_style)
        .region(Region::new(line.region.clone()))
        // Retrying repeats; twice would multiply.
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &line.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    if directory.is_some() {
        builder = builder.identity_cache(IdentityCache::no_cache());
    }
    Ok((Client::from_conf(builder.build()), line))
}

/// The region that `endpoint` wants to be told where nobody names one.
fn region_at(endpoint: &str) -> String {
    Provider::of_endpoint(endpoint)
        .and_then(|provider| provider.region_at(endpoint))
        .unwrap_or_else(|| DEFAULT_REGION.to_owned())
}

/// What nobody configured is as the endpoint's provider wants it.
fn line(config: &StoreConfig, shared: &SdkConfig, endpoint: Option<String>) -> Line {
    let provider = endpoint.as_deref().and_then(Provider::of_endpoint);
    let named = shared.region().map(|region| region.as_ref().to_owned());
    let known = || endpoint.as_deref().map(region_at);
    Line {
        region: named
            .or_else(known)
            .unwrap_or_else(|| DEFAULT_REGION.to_owned()),
        path_style: match (config.path_style, provider) {
            (PathStyle::Auto, Some(provider)) => provider.place == Place::Path,
            (PathStyle::Auto, None) => endpoint.is_some(),
            (PathStyle::Always, _) => true,
            (PathStyle::Never, _) => false,
        },
        credentials: shared.credentials_provider(),
        provider,
        endpoint,
    }
}

/// The HTTP client: TLS with the system's and the configured certificates, and the proxy.
fn http_client(config: &StoreConfig) -> Result<SharedHttpClient> {
    let mut trust = TrustStore::default();
    if let Some(path) = &config.ca_file {
        let pem = read_file(path)?;
        // A file without a certificate would make the client panic at its first request.
        if !pem
            .windows(PEM_CERTIFICATE.len())
            .any(|window| window == PEM_CERTIFICATE)
        {
            return Err(Error::new(ErrorKind::Invalid, "no certificate in PEM").on(path.display()));
        }
        trust = trust.with_pem_certificate(pem);
    }
    let invalid = |what: &str, error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Invalid, format!("{what}: {error}"))
    };
    let tls = TlsContext::builder()
        .with_trust_store(trust)
        .build()
        .map_err(|error| invalid("TLS", &error))?;
    let proxy = match &config.proxy {
        // The error might repeat a password.
        Some(url) => ProxyConfig::all(url.as_str())
            .map_err(|_| invalid("proxy", &"not a proxy's address"))?,
        None => ProxyConfig::from_env(),
    };
    Ok(
        Builder::new().build_with_connector_fn(move |settings, components| {
            let mut connector = Connector::builder()
                .tls_provider(TlsProvider::Rustls(CryptoMode::AwsLc))
                .tls_context(tls.clone())
                .proxy_config(proxy.clone());
            connector.set_connector_settings(settings.cloned());
            connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
            connector.build()
        }),
    )
}

const PEM_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::io(path.display(), error))
}

/// The endpoint: configured, from the credentials' directory, or from the environment.
fn endpoint(config: &StoreConfig, directory: Option<&Directory>) -> Result<Option<String>> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let found = match &config.endpoint {
        Some(endpoint) => Some(endpoint.clone()),
        None => match directory {
            Some(directory) => directory
                .value("AWS_ENDPOINT_URL_S3")
                .map_err(|error| of_credentials(&error))?,
            None => None,
        }
        .or_else(|| environment("AWS_ENDPOINT_URL_S3"))
        .or_else(|| environment("AWS_ENDPOINT_URL")),
    };
    found.map(|endpoint| check_endpoint(&endpoint)).transpose()
}

/// Refuses an endpoint that is no `http` or `https` address, or that carries a password.
fn check_endpoint(endpoint: &str) -> Result<String> {
    let invalid = |message: &str| Error::new(ErrorKind::Invalid, message.to_owned());
    let rest = endpoint
        .strip_prefix("https://")
        .or_else(|| endpoint.strip_prefix("http://"));
    let rest = rest.ok_or_else(|| {
        invalid("not an address")
            .on(format_args!("endpoint {endpoint:?}"))
            .hint("write https://HOST or http://HOST:PORT")
    })?;
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        return Err(invalid("an endpoint carries no user or password").on("endpoint"));
    }
    if host.is_empty() || !endpoint.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(invalid("not an address").on(format_args!("endpoint {endpoint:?}")));
    }
    Ok(endpoint.trim_end_matches('/').to_owned())
}

/// The region where it is named; the environment beside the directory of credentials is the SDK's.
fn region(config: &StoreConfig, directory: Option<&Directory>) -> Result<Option<String>> {
    let mut region = config.region.clone();
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        if let (None, Some(directory)) = (&region, directory) {
            region = directory
                .value(name)
                .map_err(|error| of_credentials(&error))?;
        }
    }
    match &region {
        Some(region)
            if !region
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                || region.is_empty() =>
        {
            Err(Error::new(ErrorKind::Invalid, "not a region's name")
                .on(format_args!("region {region:?}")))
        }
        _ => Ok(region),
    }
}

type Encrypted = (
    Option<ServerSideEncryption>,
    Option<String>,
    Option<CustomerKey>,
);

fn encryption(encryption: Option<&Encryption>, encrypted_line: bool) -> Result<Encrypted> {
    Ok(match encryption {
        None => (None, None, None),
        Some(Encryption::Aes256) => (Some(ServerSideEncryption::Aes256), None, None),
        Some(Encryption::Kms { key }) => (Some(ServerSideEncryption::AwsKms), key.clone(), None),
        Some(Encryption::Customer { .. }) if !encrypted_line => {
            return Err(
                Error::new(ErrorKind::Invalid, "a key of ours goes only over https").on("sse"),
            );
        }
        Some(Encryption::Customer { key_file }) => (None, None, Some(customer_key(key_file)?)),
    })
}

/// Reads 32 bytes, plain or in base64.
fn customer_key(path: &Path) -> Result<CustomerKey> {
    let content = read_file(path)?;
    let decoded = std::str::from_utf8(&content)
        .ok()
        .and_then(|text| base64::decode(text.trim()).ok());
    let key = [content, decoded.unwrap_or_default()]
        .into_iter()
        .find(|key| key.len() == 32);
    let key = key.ok_or_else(|| {
        Error::new(
            ErrorKind::Invalid,
            "not a key of 32 bytes, plain or in base64",
        )
        .on(path.display())
    })?;
    Ok(CustomerKey {
        key: base64::encode(&key),
        digest: base64::encode(Md5::digest(&key)),
    })
}

impl Bucket {
    /// The Content-MD5 of a body, which the store checks before it takes it (R144). None where the
    /// signature covers the body already, with SHA-256.
    pub(super) async fn body_digest(&self, body: &Bytes) -> Result<Option<String>> {
        if !self.sends_digest() {
            return Ok(None);
        }
        if body.len() <= SMALL_BODY {
            return Ok(Some(base64::encode(Md5::digest(body))));
        }
        let body = body.clone();
        let ended = |error| Error::new(ErrorKind::Internal, "summing ended early").because(error);
        tokio::task::spawn_blocking(move || Some(base64::encode(Md5::digest(&body))))
            .await
            .map_err(ended)
    }

    fn sends_digest(&self) -> bool {
        self.encrypted_line || self.insists_on_digest.load(Ordering::Relaxed)
    }

    /// Reads a failed write. Where it may be for want of a digest, bodies carry theirs from now on, and it
    /// is worth another try.
    pub(super) fn refusal<E>(&self, error: SdkError<E, HttpResponse>) -> Reply
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        if !self.sends_digest() && is_refused_request(&error) {
            self.insists_on_digest.store(true, Ordering::Relaxed);
            return Reply::once_more();
        }
        Reply::of(error)
    }
}

/// Tags as the header wants them.
fn tagging(tags: &BTreeMap<String, String>) -> Option<String> {
    let pair = |(name, value): (&String, &String)| format!("{}={}", percent(name), percent(value));
    let text = tags.iter().map(pair).collect::<Vec<_>>().join("&");
    (!text.is_empty()).then_some(text)
}

fn percent(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(byte.into());
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_without_a_password() {
        assert_eq!(
            check_endpoint("http://localhost:9000/").unwrap(),
            "http://localhost:9000"
        );
        assert_eq!(
            check_endpoint("https://fly.storage.tigris.dev").unwrap(),
            "https://fly.storage.tigris.dev"
        );
        for bad in [
            "localhost:9000",
            "ftp://x",
            "http://",
            "https://a b",
            "http:///x",
        ] {
            assert_eq!(
                check_endpoint(bad).unwrap_err().kind(),
                ErrorKind::Invalid,
                "{bad}"
            );
        }
        let error = check_endpoint("https://user:secret@host")
            .unwrap_err()
            .to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn tags_are_encoded() {
        let tags = BTreeMap::from([
            ("team".to_owned(), "a b&c=d".to_owned()),
            ("ü".to_owned(), String::new()),
        ]);
        assert_eq!(tagging(&tags).unwrap(), "team=a%20b%26c%3Dd&%C3%BC=");
        assert_eq!(tagging(&BTreeMap::new()), None);
    }

    #[test]
    fn a_customer_key_is_32_bytes_and_never_goes_over_plain_http() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, [7; 32]).unwrap();
        let plain = customer_key(&path).unwrap();
        std::fs::write(&path, format!("{}\n", plain.key)).unwrap();
        assert_eq!(customer_key(&path).unwrap().digest, plain.digest);
        std::fs::write(&path, "short").unwrap();
        assert!(customer_key(&path).is_err());
        assert!(encryption(Some(&Encryption::Customer { key_file: path }), false).is_err());
    }
}
