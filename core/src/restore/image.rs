//! A restore whose result somebody else puts into its place: a replica's beginning.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tempfile::TempPath;

use super::apply::Applied;
use super::leave::SumFile;
use super::progress::{Progress, Silent};
use super::report::Verify;
use super::run::{LeaveState, RestoreRequest, Run};
use super::stage::{Overwrite, Staged};
use super::target::RestoreTarget;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::ltx::Header;
use crate::manifest::Catalog;
use crate::store::{Layout, Store};
use crate::types::{DatabaseSum, PageNumber, PageSum};

/// A proved database that has no name of its own yet. Dropping it removes it.
pub(crate) struct Image {
    staged: Staged,
    applied: Applied,
    sums: SumFile,
    catalog: Catalog,
}

impl Image {
    /// Restores the newest state to a temporary file in `staging`, which lies in one file system with `output`.
    ///
    /// # Errors
    ///
    /// Those of [`restore`], but for the ones that concern an output.
    pub(crate) async fn of_newest(
        store: &Arc<dyn Store>,
        layout: &Layout,
        staging: &Path,
        output: &Path,
        clock: &Clock,
    ) -> Result<Self> {
        let request = RestoreRequest {
            layout: layout.clone(),
            output: output.to_owned(),
            target: RestoreTarget::Latest,
            overwrite: Overwrite::Yes,
            verify: Verify::None,
            state: LeaveState::Yes,
        };
        let progress: Arc<dyn Progress> = Arc::new(Silent);
        let run = Run {
            store: store.clone(),
            request: &request,
            staging: staging.to_owned(),
            output: output.to_owned(),
            progress: &progress,
            started: Instant::now(),
            now: clock.now(),
        };
        let ready = run.build(false).await?;
        let sums = ready.sums.ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "a restore without the sums of its pages",
            )
        })?;
        Ok(Self {
            staged: ready.staged,
            applied: ready.applied,
            sums,
            catalog: ready.catalog,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.staged.path()
    }

    /// The header of the file that it ends with.
    pub(crate) fn header(&self) -> &Header {
        &self.applied.last.header
    }

    /// The sums over its pages, proved to be those of the files.
    pub(crate) fn sum(&self) -> DatabaseSum {
        self.applied.sum
    }

    /// Files over the first one.
    pub(crate) fn segments(&self) -> u64 {
        self.applied.segments
    }

    /// What was known of the stream when it was made.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Gives the sums of all its pages, ascending.
    pub(crate) fn sums(&self, each: impl FnMut(PageNumber, PageSum) -> Result<()>) -> Result<()> {
        self.sums.read(each)
    }

    /// Puts it, which is synced, at the output.
    ///
    /// # Errors
    ///
    /// `Exists` and `Busy` for an output that may not be replaced.
    pub(crate) fn publish(self, overwrite: Overwrite) -> Result<()> {
        self.staged.publish(overwrite)
    }

    /// The file alone, for whoever puts it into place otherwise.
    pub(crate) fn into_path(self) -> TempPath {
        self.staged.into_path()
    }
}
