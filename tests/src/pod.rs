//! A pod of one machine: the sidecar, a mounted configuration, mounted credentials.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bucket::{ACCESS_KEY, Bucket, SECRET_KEY};
use crate::process::{Output, Process, Signal};
use crate::served::Served;
use crate::support::{PATIENCE, built};

/// A volume of files as the kubelet mounts ConfigMaps and Secrets: links through `..data`, exchanged as one.
pub struct Volume {
    mount: PathBuf,
    version: u32,
}

impl Volume {
    /// A volume at `mount` with these files.
    pub fn new(mount: PathBuf, files: &[(&str, &str)]) -> Self {
        fs::create_dir_all(&mount).unwrap();
        let mut volume = Self { mount, version: 0 };
        volume.exchange(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), volume.path(name)).unwrap();
        }
        volume
    }

    /// One of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// Other content of all files, at one instant.
    pub fn exchange(&mut self, files: &[(&str, &str)]) {
        let before = format!("..version{}", self.version);
        self.version += 1;
        let folder = format!("..version{}", self.version);
        fs::create_dir(self.mount.join(&folder)).unwrap();
        for (name, content) in files {
            fs::write(self.mount.join(&folder).join(name), content).unwrap();
        }
        symlink(&folder, self.mount.join("..data_tmp")).unwrap();
        fs::rename(self.mount.join("..data_tmp"), self.mount.join("..data")).unwrap();
        let _ = fs::remove_dir_all(self.mount.join(before));
    }
}

/// The configuration of a pod: store and listeners, then `more`.
pub fn configuration(bucket: &Bucket, credentials: Option<&Path>, more: &str) -> String {
    let credentials = credentials.map_or_else(String::new, |folder| {
        format!("credentials_dir = \"{}\"\n", folder.display())
    });
    format!(
        "[s3]\nbucket = \"{}\"\nlease_duration = \"15s\"\n{credentials}[sync]\nsync_interval = \"100ms\"\n\
         [metrics]\nlisten = \"127.0.0.1:0\"\ncontrol = \"127.0.0.1:0\"\nready_lag = \"2s\"\n{more}",
        bucket.url()
    )
}

/// Credentials that our servers accept, or that they do not.
pub fn credentials(good: bool) -> [(&'static str, &'static str); 2] {
    let secret = if good { SECRET_KEY } else { "wrong" };
    [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", secret),
    ]
}

/// `walrust-sidecar COMMAND --config CONFIGURATION`, with the bucket's environment.
pub fn sidecar(bucket: &Bucket, command: &str, configuration: &Path) -> Command {
    let mut program = Command::new(built("WALRUST_SIDECAR_BIN", "walrust-sidecar"));
    program.arg(command).arg("--config").arg(configuration);
    bucket.environment(&mut program);
    program
}

/// A running sidecar.
pub struct Sidecar {
    /// The process.
    pub process: Process,
    /// What it serves to everybody.
    pub served: Served,
    /// What it serves to its pod.
    pub control: Served,
}

impl Sidecar {
    /// Starts `command`, which serves on ports that the system picks.
    pub fn start(command: &mut Command) -> Self {
        let mut process = Process::spawn(command);
        let served = Served::by(&mut process, "metrics");
        let control = Served::by(&mut process, "control");
        Self {
            process,
            served,
            control,
        }
    }

    /// SIGTERM, then the end.
    #[track_caller]
    pub fn stop(mut self) -> Output {
        self.process.signal(Signal::TERM);
        self.process.output(PATIENCE)
    }
}
