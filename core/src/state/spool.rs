//! The spool: LTX files that wait on the local disk for the store, in the order of their transactions.
//!
//! A file gets its name only when it is whole and synced, so every file with a name is durable (U5, U18).
//! It loses it only when the store has it: nothing here evicts (U4). It is checked again before it leaves,
//! because it may have lain for days (U6).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::OFlags;

use super::dir::{Locked, StateDir};
use super::folder::{Damage, Folder};
use super::overlay::Overlay;
use super::room::{RESERVE, Room, to_io};
use super::staged::UNFINISHED;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{PageSize, Txid, TxidRange};

const SPOOL: &str = "spool";
const OVERLAY: &str = "overlay";
const SUFFIX: &str = ".ltx";
/// Behind the name of a stray: it never passes for a part of the chain again.
const ASIDE: &str = ".aside";

/// A file in the spool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpoolFile {
    /// The transactions in it.
    pub range: TxidRange,
    /// Its size in bytes.
    pub size: u64,
}

/// The spool of one database.
#[derive(Debug)]
pub struct Spool {
    _state: Arc<Locked>,
    folder: Arc<Folder>,
    overlay: Folder,
    room: Arc<Room>,
    files: VecDeque<SpoolFile>,
    strays: Vec<SpoolFile>,
    staged: AtomicU64,
}

/// The file name of `range` in the spool, as in the bucket.
fn name_of(range: TxidRange) -> String {
    format!("{range}{SUFFIX}")
}

fn parse(name: &str) -> Option<TxidRange> {
    let (min, max) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    TxidRange::new(min.parse().ok()?, max.parse().ok()?)
}

impl Spool {
    /// Opens the spool in `dir`, for at most `limit` bytes of files and overlays. Files that a crash left
    /// unfinished, and all overlays, are removed. What does not belong is reported.
    pub fn open(dir: &StateDir, limit: u64) -> Result<(Self, Vec<Damage>)> {
        Self::open_with_reserve(dir, limit, RESERVE)
    }

    pub(super) fn open_with_reserve(
        dir: &StateDir,
        limit: u64,
        reserve: u64,
    ) -> Result<(Self, Vec<Damage>)> {
        let folder = Arc::new(dir.folder().sub(SPOOL)?);
        let overlay = dir.folder().sub(OVERLAY)?;
        for name in overlay.names()? {
            overlay.remove(&name)?;
        }
        let mut damage = Vec::new();
        let (found, strays) = find(&folder, &mut damage)?;
        let room = Room::new(Arc::clone(&folder), limit, reserve);
        room.count(found.iter().chain(&strays).map(|file| file.size).sum());
        let run = leading_run(&found);
        let mut spool = Self {
            _state: Arc::clone(dir.folder()),
            folder,
            overlay,
            room: Arc::new(room),
            files: found.into(),
            strays,
            staged: AtomicU64::new(0),
        };
        if let Some(stray) = spool.files.get(run) {
            let name = format!("{SPOOL}/{}", name_of(stray.range));
            damage.push(Damage::new(name, "does not follow the file before it"));
        }
        spool.set_aside_from(run)?;
        Ok((spool, damage))
    }

    /// The files, oldest first, without a gap.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &SpoolFile> {
        self.files.iter()
    }

    /// The oldest file: the next to be stored.
    pub fn front(&self) -> Option<SpoolFile> {
        self.files.front().copied()
    }

    /// The last transaction in the spool.
    pub fn last(&self) -> Option<Txid> {
        self.files.back().map(|file| file.range.max())
    }

    /// Files behind a gap or a broken file: they continue nothing. Kept until [`Spool::drop_strays`].
    pub fn strays(&self) -> &[SpoolFile] {
        &self.strays
    }

    /// Bytes taken by files, unfinished files, strays and overlays.
    pub fn used(&self) -> u64 {
        self.room.used()
    }

    /// The most bytes that may be taken.
    pub fn limit(&self) -> u64 {
        self.room.limit()
    }

    /// Where `file` lies.
    pub fn path(&self, file: &SpoolFile) -> PathBuf {
        self.folder.path_of(&name_of(file.range))
    }

    /// Starts a file whose first `head` bytes come last (an LTX header is known only at the end). Errors:
    /// Exhausted.
    pub fn stage(&self, head: usize) -> Result<Staged> {
        self.room.check_free(head as u64)?;
        self.room.take(head as u64)?;
        let name = format!(
            "{}{UNFINISHED}",
            self.staged.fetch_add(1, Ordering::Relaxed)
        );
        let opened = self.folder.fresh(&name).and_then(|mut file| {
            let seek = file.seek(SeekFrom::Start(head as u64));
            seek.map(|_| file)
                .map_err(|error| self.folder.error(&name, error))
        });
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                self.room.give_back(head as u64);
                return Err(error);
            }
        };
        Ok(Staged {
            writer: BufWriter::with_capacity(65_536, file),
            folder: Arc::clone(&self.folder),
            name: Some(name),
            room: Arc::clone(&self.room),
            head,
            size: head as u64,
        })
    }

    /// Ends a staged file: it is durable under its name when this returns. Errors: Internal if `range` does
    /// not follow the spool's last file; Exhausted. After an error nothing has changed.
    pub fn publish(&mut self, staged: Staged, head: &[u8], range: TxidRange) -> Result<SpoolFile> {
        self.check_follows(range)?;
        let file = SpoolFile {
            range,
            size: staged.size,
        };
        staged.publish(head, &name_of(range))?;
        self.files.push_back(file);
        Ok(file)
    }

    /// Adds a file whose bytes are `parts` in a row. As [`Spool::publish`].
    pub fn add(&mut self, range: TxidRange, parts: &[&[u8]]) -> Result<SpoolFile> {
        self.check_follows(range)?;
        let mut staged = self.stage(0)?;
        for part in parts {
            let written = staged.write_all(part);
            written.map_err(|error| Error::io(self.folder.path().display(), error))?;
        }
        self.publish(staged, &[], range)
    }

    /// Checks `file` with `verify` before it goes to the store (U6). Errors: what `verify` says, naming the
    /// file; Corrupt if it is gone or has another size.
    pub fn verify(&self, file: &SpoolFile, verify: &dyn Fn(&Path) -> Result<()>) -> Result<()> {
        let path = self.path(file);
        let size = self.open_file(file)?.metadata();
        let size = size
            .map_err(|error| Error::io(path.display(), error))?
            .len();
        if size != file.size {
            let message = format!("{size} bytes long, was {}", file.size);
            return Err(Error::new(ErrorKind::Corrupt, message).on(path.display()));
        }
        verify(&path).map_err(|error| error.on(path.display()))
    }

    /// Opens `file` for reading.
    pub fn open_file(&self, file: &SpoolFile) -> Result<File> {
        let opened = self.folder.file(&name_of(file.range), OFlags::RDONLY)?;
        opened.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "gone from the spool").on(self.path(file).display())
        })
    }

    /// Removes the oldest file, which the store has. Errors: Internal if `range` is not the oldest.
    pub fn stored(&mut self, range: TxidRange) -> Result<()> {
        let front = self.front().filter(|front| front.range == range);
        let Some(front) = front else {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("{range} is not the oldest file of the spool"),
            ));
        };
        self.folder.remove(&name_of(range))?;
        self.files.pop_front();
        self.room.give_back(front.size);
        Ok(())
    }

    /// Sets every file that leads beyond `txid` aside, all of them for nothing: the first is broken, or
    /// the chain goes on without them.
    pub fn break_off(&mut self, txid: Option<Txid>) -> Result<()> {
        let stays = |file: &&SpoolFile| txid.is_some_and(|txid| file.range.max() <= txid);
        let keep = self.files.iter().take_while(stays).count();
        self.set_aside_from(keep)
    }

    /// The last one first, so that an error leaves no gap.
    fn set_aside_from(&mut self, keep: usize) -> Result<()> {
        while self.files.len() > keep {
            let Some(file) = self.files.back().copied() else {
                break;
            };
            let name = name_of(file.range);
            self.folder.rename(&name, &format!("{name}{ASIDE}"))?;
            self.files.pop_back();
            self.strays.push(file);
        }
        self.folder.sync()
    }

    /// Removes the strays. Only once what they held is in the chain otherwise, by a rebase.
    pub fn drop_strays(&mut self) -> Result<()> {
        while let Some(stray) = self.strays.last() {
            let name = name_of(stray.range);
            self.folder.remove(&format!("{name}{ASIDE}"))?;
            self.room.give_back(stray.size);
            self.strays.pop();
        }
        Ok(())
    }

    /// A file for the old versions of pages while a snapshot streams. It counts into the limit.
    pub fn overlay(&self, page_size: PageSize) -> Result<Overlay> {
        Overlay::new(&self.overlay, Arc::clone(&self.room), page_size)
    }

    fn check_follows(&self, range: TxidRange) -> Result<()> {
        if let Some(last) = self
            .last()
            .filter(|last| last.after(1) != Some(range.min()))
        {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("{range} does not follow transaction {last} in the spool"),
            ));
        }
        Ok(())
    }
}

/// Every finished file and every stray, by range; removes the unfinished ones.
fn find(folder: &Folder, damage: &mut Vec<Damage>) -> Result<(Vec<SpoolFile>, Vec<SpoolFile>)> {
    let (mut files, mut strays) = (Vec::new(), Vec::new());
    for name in folder.names()? {
        if name.ends_with(UNFINISHED) {
            folder.remove(&name)?;
            continue;
        }
        let (plain, list) = match name.strip_suffix(ASIDE) {
            Some(plain) => (plain, &mut strays),
            None => (name.as_str(), &mut files),
        };
        match look(folder, &name, plain) {
            Ok(file) => list.extend(file),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                damage.push(Damage::new(format!("{SPOOL}/{name}"), error.message()));
            }
            Err(error) => return Err(error),
        }
    }
    files.sort_unstable_by_key(|file| file.range);
    Ok((files, strays))
}

fn look(folder: &Folder, name: &str, plain: &str) -> Result<Option<SpoolFile>> {
    let range =
        parse(plain).ok_or_else(|| Error::new(ErrorKind::Corrupt, "not a file of the spool"))?;
    let Some(file) = folder.file(name, OFlags::RDONLY)? else {
        return Ok(None);
    };
    let meta = file.metadata().map_err(|error| folder.error(name, error))?;
    let size = meta.len();
    Ok(Some(SpoolFile { range, size }))
}

/// The files of the spool in `state`, as a look without the lock sees them.
pub(super) fn peek(state: &Folder, damage: &mut Vec<Damage>) -> Result<Vec<SpoolFile>> {
    let folder = match Folder::open(&state.path_of(SPOOL)) {
        Ok(folder) => folder,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = folder.names()?;
    let mut files = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(SUFFIX)) {
        match look(&folder, name, name) {
            Ok(file) => files.extend(file),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                damage.push(Damage::new(format!("{SPOOL}/{name}"), error.message()));
            }
            Err(error) => return Err(error),
        }
    }
    files.sort_unstable_by_key(|file| file.range);
    Ok(files)
}

/// How many files from the first on follow each other without a gap.
fn leading_run(files: &[SpoolFile]) -> usize {
    let follows = |pair: &[SpoolFile]| match pair {
        [before, next] => before.range.max().after(1) == Some(next.range.min()),
        _ => false,
    };
    let pairs = files.windows(2).take_while(|pair| follows(pair)).count();
    files.len().min(pairs + 1)
}

/// An unfinished file of the spool: written through `Write`, removed again if it is dropped.
#[derive(Debug)]
pub struct Staged {
    writer: BufWriter<File>,
    folder: Arc<Folder>,
    /// Nothing once it has its final name.
    name: Option<String>,
    room: Arc<Room>,
    head: usize,
    size: u64,
}

impl Staged {
    /// Bytes so far, the head included.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn publish(mut self, head: &[u8], name: &str) -> Result<()> {
        let fail = |error| Error::io(self.folder.path_of(name).display(), error);
        if head.len() != self.head {
            let message = format!(
                "a head of {} bytes, {} were kept free",
                head.len(),
                self.head
            );
            return Err(Error::new(ErrorKind::Internal, message));
        }
        self.writer.flush().map_err(fail)?;
        let file = self.writer.get_ref();
        file.write_all_at(head, 0).map_err(fail)?;
        file.sync_all().map_err(fail)?;
        if let Some(staged) = &self.name {
            self.folder.rename(staged, name)?;
        }
        // From here on a failure takes the final name away again.
        self.name = Some(name.to_owned());
        self.folder.sync()?;
        self.name = None;
        Ok(())
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room.take(bytes.len() as u64).map_err(to_io)?;
        if let Err(error) = self.writer.write_all(bytes) {
            self.room.give_back(bytes.len() as u64);
            return Err(error);
        }
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // The next start removes what cannot be removed now.
            let _ = self.folder.remove(name);
            self.room.give_back(self.size);
        }
    }
}
