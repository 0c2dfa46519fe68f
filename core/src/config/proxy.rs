//! The address of a proxy, which may hold a password.

use std::fmt;

use serde::{Serialize, Serializer};

use super::limits::{EndpointError, has_host};

/// Where requests go through. Shown without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyAddress(String);

impl ProxyAddress {
    /// The address `text`, as in `http://proxy:3128` or `http://user:password@proxy:3128`.
    pub fn new(text: &str) -> Result<Self, ProxyError> {
        let address = Self(text.to_owned());
        match has_host(&address.bare()) {
            Ok(()) => Ok(address),
            Err(EndpointError::Scheme) => Err(ProxyError::Scheme),
            Err(_) => Err(ProxyError::Host),
        }
    }

    /// The whole address, password included.
    pub fn url(&self) -> &str {
        &self.0
    }

    /// The address without user and password.
    fn bare(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return self.0.clone();
        };
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        format!("{scheme}://{host}{path}")
    }
}

/// An address that cannot be a proxy's; never with the text, which might hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// No scheme, or another one.
    #[error("a proxy's address begins with http:// or https://")]
    Scheme,
    /// No host.
    #[error("a proxy's address names a host, as in http://proxy:3128")]
    Host,
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bare())
    }
}

impl fmt::Debug for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ProxyAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_kept_and_never_shown() {
        let address = ProxyAddress::new("http://me:pass@word@proxy:3128").unwrap();
        assert_eq!(address.url(), "http://me:pass@word@proxy:3128");
        for shown in [
            address.to_string(),
            format!("{address:?}"),
            serde_json::to_string(&address).unwrap(),
        ] {
            assert!(shown.contains("proxy:3128"), "{shown}");
            assert!(!shown.contains("pass") && !shown.contains("me:"), "{shown}");
        }
        assert_eq!(ProxyAddress::new("socks5://p:1"), Err(ProxyError::Scheme));
        assert_eq!(ProxyAddress::new("proxy:3128"), Err(ProxyError::Scheme));
        assert_eq!(ProxyAddress::new("http://me:pw@"), Err(ProxyError::Host));
    }
}
