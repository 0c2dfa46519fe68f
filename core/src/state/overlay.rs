//! Old versions of pages, kept while a snapshot streams: a sparse file with each page at its offset in
//! the database, and the set of pages in it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::folder::Folder;
use super::room::Room;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{PageNumber, PageSize};

/// What a file system allocates at least.
const BLOCK: u64 = 4096;

/// One overlay; its room is given back when it is dropped.
#[derive(Debug)]
pub struct Overlay {
    /// Without a name: the kernel removes it with the last descriptor, also after kill -9.
    file: File,
    room: Arc<Room>,
    page_size: PageSize,
    pages: RoaringBitmap,
    taken: u64,
}

fn io(error: std::io::Error) -> Error {
    Error::io("overlay", error)
}

impl Overlay {
    pub(super) fn new(folder: &Folder, room: Arc<Room>, page_size: PageSize) -> Result<Self> {
        room.check_free(0)?;
        let name = format!("{:016x}", fastrand::u64(..));
        let file = folder.fresh(&name)?;
        folder.remove(&name)?;
        Ok(Self {
            file,
            room,
            page_size,
            pages: RoaringBitmap::new(),
            taken: 0,
        })
    }

    /// Keeps `data` as the old version of `page`, unless an older one is kept already. Errors: Exhausted
    /// at the spool's limit.
    pub fn keep(&mut self, page: PageNumber, data: &[u8]) -> Result<()> {
        if data.len() != self.page_size.bytes() {
            let message = format!("page {page} is {} bytes long", data.len());
            return Err(Error::new(ErrorKind::Internal, message));
        }
        if self.pages.contains(page.get()) {
            return Ok(());
        }
        let cost = u64::from(self.page_size.get()).max(BLOCK);
        self.room.take(cost)?;
        self.taken += cost;
        let offset = self.page_size.offset(page);
        self.file.write_all_at(data, offset).map_err(io)?;
        self.pages.insert(page.get());
        Ok(())
    }

    /// Whether an old version of `page` is kept.
    pub fn holds(&self, page: PageNumber) -> bool {
        self.pages.contains(page.get())
    }

    /// The old version of `page`, read into `data`; false if none is kept.
    pub fn read(&self, page: PageNumber, data: &mut Vec<u8>) -> Result<bool> {
        if !self.holds(page) {
            return Ok(false);
        }
        data.resize(self.page_size.bytes(), 0);
        let offset = self.page_size.offset(page);
        self.file.read_exact_at(data, offset).map_err(io)?;
        Ok(true)
    }

    /// How many pages are kept.
    pub fn pages(&self) -> u64 {
        self.pages.len()
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        self.room.give_back(self.taken);
    }
}
