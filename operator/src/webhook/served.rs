//! The certificate that is served now.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Metrics;
use super::certificates::{CertificateError, Facts};

/// The certificate that is served now. New connections take what was put last; none is dropped.
pub struct Served {
    current: RwLock<Option<Arc<CertifiedKey>>>,
    covered: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Served {
    /// Nothing yet.
    pub const fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            current: RwLock::new(None),
            covered: AtomicBool::new(false),
            metrics,
        }
    }

    /// Serves `certificate` (a chain, its own first) with `key`, both in PEM, from now on.
    ///
    /// # Errors
    /// Where one cannot be read, or they do not belong together; then the one before stays.
    pub fn put(&self, certificate: &str, key: &str) -> Result<(), CertificateError> {
        let wrong = |error: &dyn fmt::Display| CertificateError::Read(error.to_string());
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
        let chain = chain
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(&error))?;
        // The key itself never gets into a message.
        let key =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| wrong(&"no private key"))?;
        let key =
            any_supported_type(&key).map_err(|_| wrong(&"a private key of an unknown kind"))?;
        let ends = Facts::of(certificate)?.ends;
        let certified = CertifiedKey::new(chain, key);
        certified
            .keys_match()
            .map_err(|_| wrong(&"certificate and key do not belong together"))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        self.metrics.serves_until(ends);
        Ok(())
    }

    /// Whether the API server knows who signed it.
    pub fn set_covered(&self, covered: bool) {
        self.covered.store(covered, Ordering::SeqCst);
    }

    /// Whether the API server can talk to us.
    pub fn is_ready(&self) -> bool {
        self.current().is_some() && self.covered.load(Ordering::SeqCst)
    }

    fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served")
            .field("ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}
