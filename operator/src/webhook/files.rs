//! Certificates that somebody else keeps: cert-manager, or whoever fills the Secret that is mounted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::Served;

/// The kubelet takes a minute to bring a changed Secret.
const LOOK: Duration = Duration::from_secs(10);

/// Serves `tls.crt` and `tls.key` of `directory`, and what they change to, until `stop`. What cannot be read is told, and
/// the certificate before stays.
pub async fn follow(directory: &Path, served: Arc<Served>, stop: CancellationToken) {
    follow_every(LOOK, directory, &served, &stop).await;
}

/// The same with another time from one look to the next.
pub(super) async fn follow_every(
    time: Duration,
    directory: &Path,
    served: &Served,
    stop: &CancellationToken,
) {
    let mut last: Option<(String, String)> = None;
    let mut told = String::new();
    loop {
        match look(directory, last.as_ref(), served) {
            Ok(None) => {}
            Ok(Some(found)) => {
                info!(directory = %directory.display(), "a certificate is served");
                served.set_covered(true);
                last = Some(found);
                told.clear();
            }
            Err(error) if error != told => {
                warn!(directory = %directory.display(), error, "a certificate cannot be read");
                told = error;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// What was put in place, if it is not what was there.
fn look(
    directory: &Path,
    last: Option<&(String, String)>,
    served: &Served,
) -> Result<Option<(String, String)>, String> {
    let read = |name: &str| {
        std::fs::read_to_string(directory.join(name)).map_err(|error| format!("{name}: {error}"))
    };
    let found = (read("tls.crt")?, read("tls.key")?);
    if last == Some(&found) {
        return Ok(None);
    }
    served
        .put(&found.0, &found.1)
        .map_err(|error| error.to_string())?;
    Ok(Some(found))
}
