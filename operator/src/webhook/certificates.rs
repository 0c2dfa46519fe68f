//! Certificates of our own: an authority, and what it signs. Pure but for the random numbers.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use walrust_core::types::Timestamp;
use x509_parser::extensions::GeneralName;

/// Clocks of nodes differ: a certificate is valid a little before it was made.
const BACKDATE: Duration = Duration::from_secs(300);

/// A certificate that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be made.
    #[error("make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// It cannot be read.
    #[error("read a certificate: {0}")]
    Read(String),
}

/// A certificate and its key, both in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl fmt::Debug for Pair {
    /// Never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// What a certificate says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Whom it is of.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The hosts and addresses that it is for.
    pub names: Vec<String>,
    /// When it begins, in seconds since 1970.
    pub begins: i64,
    /// When it ends, in seconds since 1970.
    pub ends: i64,
}

impl Facts {
    /// Reads the first certificate of `pem`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn of(pem: &str) -> Result<Self, CertificateError> {
        let wrong = |error: &dyn fmt::Display| CertificateError::Read(error.to_string());
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| wrong(&error))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|error| wrong(&error))?;
        let alternative = parsed
            .subject_alternative_name()
            .map_err(|error| wrong(&error))?;
        let names = alternative
            .iter()
            .flat_map(|names| &names.value.general_names);
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        });
        Ok(Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            names: names.collect(),
            begins: parsed.validity().not_before.timestamp(),
            ends: parsed.validity().not_after.timestamp(),
        })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// A new authority. Its name says which key it has, so that two of them are told apart.
///
/// # Errors
/// `Make`.
pub fn authority(now: Timestamp, lifetime: Duration) -> Result<Pair, CertificateError> {
    let key = KeyPair::generate()?;
    let digest = Sha256::digest(key.public_key_raw());
    let tag: String = digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let mut params = params(
        Vec::new(),
        &format!("walrust webhook authority {tag}"),
        now,
        lifetime,
    )?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(Pair {
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

/// A certificate for a server called `names`, signed by `authority`.
///
/// # Errors
/// `Make`, also where the authority cannot be read.
pub fn leaf(
    authority: &Pair,
    names: &[String],
    now: Timestamp,
    lifetime: Duration,
) -> Result<Pair, CertificateError> {
    let issuer =
        Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
    let mut params = params(names.to_vec(), "walrust webhook", now, lifetime)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    Ok(Pair {
        certificate: params.signed_by(&key, &issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

fn params(
    names: Vec<String>,
    common_name: &str,
    now: Timestamp,
    lifetime: Duration,
) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = moment(now)? - BACKDATE;
    params.not_after = moment(now)? + lifetime;
    Ok(params)
}

fn moment(now: Timestamp) -> Result<OffsetDateTime, CertificateError> {
    OffsetDateTime::from_unix_timestamp(now.millis().div_euclid(1_000))
        .map_err(|error| CertificateError::Read(error.to_string()))
}
