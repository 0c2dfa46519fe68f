//! Work that waits for a disk, away from the thread that answers.

use crate::error::{Error, ErrorKind, Result};

/// Runs what blocks away from the runtime's thread.
///
/// # Errors
/// Those of `work`; `Internal` if it panicked, `Cancelled` if the runtime ended first.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(Error::new(
            ErrorKind::Internal,
            "a worker panicked; please report this",
        )),
        Err(_) => Err(Error::new(ErrorKind::Cancelled, "shutting down")),
    }
}
