//! When the configuration may have changed: its directory is watched, not the file. A ConfigMap's files are links
//! through `..data`, which the kubelet exchanges; a watch on the file tells of the first exchange and of no later one.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

/// Events that belong together come within this time; an exchange is five of them.
const QUIET: Duration = Duration::from_millis(200);

/// One event with the longest name.
const BUFFER_BYTES: usize = 4096;

/// A directory that is watched, or one that can only be looked at again and again.
#[derive(Debug)]
pub(crate) struct Mount(Option<AsyncFd<OwnedFd>>);

impl Mount {
    /// Watches the directory of `file`. Must be called on a runtime.
    pub(crate) fn of(file: &Path) -> Self {
        let directory = walrust_core::fs::parent(file);
        match watched(directory) {
            Ok(inotify) => Self(Some(inotify)),
            Err(error) => {
                tracing::warn!(directory = %directory.display(), %error, "no events of the configuration: it is looked at now and then");
                Self(None)
            }
        }
    }

    /// Returns after something changed in the directory, or after `longest`.
    ///
    /// # Cancel safety
    /// An event may be lost: look at the file after each call.
    pub(crate) async fn changed(&mut self, longest: Duration) {
        let end = Instant::now() + longest;
        if timeout_at(end, self.event()).await.is_err() {
            return;
        }
        while timeout_at(Instant::now() + QUIET, self.event())
            .await
            .is_ok()
            && Instant::now() < end
        {}
    }

    async fn event(&mut self) {
        loop {
            let Some(inotify) = &self.0 else {
                return std::future::pending().await;
            };
            match drained(inotify).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "no more events of the configuration: it is looked at now and then");
                    self.0 = None;
                    sleep(QUIET).await;
                }
            }
        }
    }
}

#[allow(
    deprecated,
    reason = "its successor is an unsafe function, for handles that may close under it; an OwnedFd stays \
              open as long as the AsyncFd that owns it"
)]
fn watched(directory: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let flags = WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVE
        | WatchFlags::CLOSE_WRITE
        | WatchFlags::ONLYDIR;
    inotify::add_watch(&inotify, directory, flags)?;
    AsyncFd::with_interest(inotify, Interest::READABLE)
}

/// Reads all events that wait; whether there was one.
async fn drained(inotify: &AsyncFd<OwnedFd>) -> std::io::Result<bool> {
    let mut ready = inotify.readable().await?;
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut reader = inotify::Reader::new(inotify.get_ref(), &mut buffer);
    let mut any = false;
    loop {
        match reader.next() {
            Ok(_) => any = true,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    ready.clear_ready();
    Ok(any)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// As the kubelet does it.
    fn exchange(mount: &Path, version: &str) {
        let folder = mount.join(format!("..{version}"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("walrust.toml"), version).unwrap();
        symlink(format!("..{version}"), mount.join("..data_tmp")).unwrap();
        std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    }

    #[tokio::test]
    async fn each_exchange_of_a_mounted_configuration_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        exchange(dir.path(), "one");
        let file = dir.path().join("walrust.toml");
        symlink("..data/walrust.toml", &file).unwrap();
        let mut mount = Mount::of(&file);
        for version in ["two", "three", "four"] {
            exchange(dir.path(), version);
            let began = Instant::now();
            mount.changed(LONG).await;
            assert!(began.elapsed() < LONG / 2, "{version}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), version);
        }
        let began = Instant::now();
        mount.changed(Duration::from_millis(300)).await;
        assert!(
            began.elapsed() >= Duration::from_millis(300),
            "nothing more"
        );
        let mut none = Mount::of(Path::new("/no/such/directory/file"));
        none.changed(Duration::from_millis(10)).await;
    }
}
