//! The address that is told of health, which is a secret as a whole: whoever knows it can pretend to be healthy.

use std::fmt;

use hyper::Uri;
use serde::{Serialize, Serializer};

/// Where a GET goes after each minute in which everything was healthy. Shown without path and password.
#[derive(Clone, PartialEq, Eq)]
pub struct HeartbeatUrl(Uri);

/// Text that is no such address; never with the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a heartbeat's address is like https://monitor.example/ping/token")]
pub struct HeartbeatError;

impl HeartbeatUrl {
    /// The address `text`.
    pub fn new(text: &str) -> Result<Self, HeartbeatError> {
        let uri: Uri = text.parse().map_err(|_| HeartbeatError)?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        match known && has_host {
            true => Ok(Self(uri)),
            false => Err(HeartbeatError),
        }
    }

    /// The whole address.
    pub const fn uri(&self) -> &Uri {
        &self.0
    }
}

impl fmt::Display for HeartbeatUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        write!(f, "{scheme}://{}/...", self.0.host().unwrap_or_default())
    }
}

impl fmt::Debug for HeartbeatUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for HeartbeatUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_kept_and_never_shown() {
        let url = HeartbeatUrl::new("https://me:word@monitor.example:8443/ping/token?x=y").unwrap();
        assert_eq!(url.uri().path(), "/ping/token");
        for shown in [url.to_string(), format!("{url:?}")] {
            assert_eq!(shown, "https://monitor.example/...");
        }
        for wrong in [
            "",
            "monitor/ping",
            "ftp://monitor/ping",
            "http:///ping",
            "https://a b",
        ] {
            assert_eq!(HeartbeatUrl::new(wrong), Err(HeartbeatError), "{wrong}");
        }
    }
}
