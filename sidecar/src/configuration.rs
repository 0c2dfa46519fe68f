//! The configuration file and what it means for this process.

use std::path::{Path, PathBuf};

use walrust_core::config::{
    self, Environment, File, LogFormat, Overrides, ReplicateSettings, Resolved, StoreSettings,
};
use walrust_core::{Error, ErrorKind, Result};

/// Where the configuration is read from, now and again.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    path: PathBuf,
    environment: Environment,
    overrides: Overrides,
}

/// A file that means something.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Configuration {
    /// The file.
    pub(crate) file: File,
    /// What it means, with the databases that patterns match at this moment.
    pub(crate) resolved: Resolved,
}

impl Source {
    pub(crate) const fn new(path: PathBuf, environment: Environment, overrides: Overrides) -> Self {
        Self {
            path,
            environment,
            overrides,
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The variables of the process.
    pub(crate) const fn environment(&self) -> &Environment {
        &self.environment
    }

    /// Reads the file. Errors: what is wrong with it, line by line; Invalid if it names no database, for an emptied
    /// file must never end a backup.
    pub(crate) fn read(&self) -> Result<File> {
        let file = File::load(&self.path, &self.environment)?;
        if file.databases.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "no database is named")
                .on(self.path.display())
                .hint("add [[databases]]"));
        }
        Ok(file)
    }

    /// What `file` means now.
    pub(crate) fn resolve(&self, file: File) -> Result<Configuration> {
        let resolved = config::resolve(Some(&file), &self.environment, &self.overrides)?;
        Ok(Configuration { file, resolved })
    }

    /// The store of `file`.
    pub(crate) fn store(&self, file: &File) -> Result<StoreSettings> {
        config::resolve_store(Some(file), &self.environment, &self.overrides)
    }

    /// How replicas are kept.
    pub(crate) fn replicate(&self, file: &File) -> ReplicateSettings {
        config::resolve_replicate(Some(file), &self.overrides)
    }

    /// How to log.
    pub(crate) fn log_format(&self, file: Option<&File>) -> LogFormat {
        config::log_format(file, &self.overrides)
    }
}

impl Configuration {
    /// Whether everything that holds for the process as a whole is as in `other`.
    pub(crate) fn same_process(&self, other: &Self) -> bool {
        self.resolved.store == other.resolved.store
            && self.resolved.memory_limit == other.resolved.memory_limit
    }

    /// Whether `other` wants something that only the next start gives: other listeners, another log.
    pub(crate) fn wants_restart(&self, other: &Self) -> bool {
        self.resolved.metrics != other.resolved.metrics
            || self.resolved.heartbeat != other.resolved.heartbeat
            || self.resolved.log_format != other.resolved.log_format
    }
}
