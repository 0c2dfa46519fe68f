//! A file that is written under a name of its own and takes its place when it is whole.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use super::dir::Locked;
use crate::error::Result;

/// What unfinished files are called; the next owner of the directory removes them.
pub(super) const UNFINISHED: &str = ".tmp";

/// The unfinished file; removed again if it is dropped.
#[derive(Debug)]
pub(super) struct Unfinished {
    folder: Arc<Locked>,
    name: String,
    writer: BufWriter<File>,
    placed: bool,
}

impl Unfinished {
    /// A new file in `folder`, with a buffer of `capacity` bytes.
    pub(super) fn new(folder: &Arc<Locked>, capacity: usize) -> Result<Self> {
        let name = format!("{:016x}{UNFINISHED}", fastrand::u64(..));
        Ok(Self {
            folder: Arc::clone(folder),
            writer: BufWriter::with_capacity(capacity, folder.fresh(&name)?),
            name,
            placed: false,
        })
    }

    pub(super) fn writer(&mut self) -> &mut BufWriter<File> {
        &mut self.writer
    }

    /// Everything written so far.
    pub(super) fn whole(&mut self) -> Result<&File> {
        let flushed = self.writer.flush();
        flushed.map_err(|error| self.folder.error(&self.name, error))?;
        Ok(self.writer.get_ref())
    }

    /// Gives the file its name, in the place of what had it. Not durable by itself.
    pub(super) fn place(mut self, name: &str) -> Result<File> {
        let file = self.whole()?.try_clone();
        let file = file.map_err(|error| self.folder.error(name, error))?;
        self.folder.rename(&self.name, name)?;
        self.placed = true;
        Ok(file)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.placed {
            let _ = self.folder.remove(&self.name);
        }
    }
}
