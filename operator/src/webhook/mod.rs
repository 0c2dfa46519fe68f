//! The admission webhook: an HTTPS server that answers `POST /mutate` with the patch of [`inject`](crate::inject).
//!
//! ```text
//! connection -> TLS (Served) -> router -> review (pure but for the lookup) -> inject (pure)
//! Secret or files -> Served                 leader: keeper -> Secret, caBundle
//! ```
//!
//! Invariants:
//! - What asks for a sidecar and cannot have it is denied with the reason; nothing that asks passes unprotected.
//! - A request changes nothing anywhere, so a dry run is like any other.
//! - A certificate is served only after the authority that signed it is known to the API server; the one before stays known.
//!   So a rotation fails no request.
//! - Connections, bodies and time are bounded.

pub mod certificates;
pub mod files;
pub mod keeper;
pub mod lookup;
pub mod metrics;
pub mod review;
pub mod rotation;
pub mod served;
pub mod server;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use keeper::Place;
pub use lookup::{Live, Lookup, LookupError};
pub use metrics::{Metrics, Outcome};
pub use review::Hook;
pub use served::Served;
pub use server::serve;

/// Where the certificate comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Certificates {
    /// From `tls.crt` and `tls.key` in a directory.
    Files(PathBuf),
    /// From a Secret that the leader keeps with [`keeper::keep`].
    Kept(Place),
}

/// Why the webhook does not serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port cannot be had.
    #[error("{address}: {cause}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        cause: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Serves `hook` at `port` of all addresses until `stop`, with a certificate from `certificates` that is in `served`, whatever this
/// replica's part is. The certificate may come later: until then no connection is accepted by the other side.
///
/// # Errors
/// Where it cannot begin.
pub async fn run(
    port: u16,
    certificates: Certificates,
    hook: Hook,
    served: Arc<Served>,
    metrics: Arc<Metrics>,
    client: Client,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let listener = bind(port).await?;
    info!(port, "the webhook listens");
    let router = server::router(hook, metrics);
    let following = async {
        match certificates {
            Certificates::Files(directory) => {
                files::follow(&directory, Arc::clone(&served), stop.clone()).await;
            }
            Certificates::Kept(place) => {
                keeper::follow(client, place, Arc::clone(&served), stop.clone()).await;
            }
        }
    };
    let (served, ()) = tokio::join!(
        serve(listener, router, Arc::clone(&served), stop.clone()),
        following
    );
    Ok(served?)
}

/// Both families where the system has them.
async fn bind(port: u16) -> Result<TcpListener, StartError> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    if let Ok(listener) = TcpListener::bind(both).await {
        return Ok(listener);
    }
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    TcpListener::bind(address)
        .await
        .map_err(|cause| StartError::Bind { address, cause })
}
