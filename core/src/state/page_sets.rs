//! Which pages changed since the last boundary of each merge level, so that a merged file is written
//! without reading the ones that it merges.

use std::io::{BufReader, Read, Seek, SeekFrom};

use roaring::RoaringBitmap;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::dir::StateDir;
use super::folder::{Damage, Folder};
use super::record::CRC;
use crate::error::{Error, ErrorKind, Result};
use crate::types::{Lineage, PageCount, PageNumber, Txid};

const FILE: &str = "changed";
const MAGIC: &[u8; 8] = b"wlrssets";
const VERSION: u32 = 1;
/// Magic, version, length of the head, checksum of all that follows.
const FIXED: usize = 24;

/// A merge level, as an index into the sets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Period {
    /// Files end at the last point of each UTC minute.
    Minute,
    /// Of each hour.
    Hour,
    /// Of each day.
    Day,
}

impl Period {
    /// All, shortest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];
}

/// The pages changed after `since`.
#[derive(Clone, PartialEq, Debug)]
pub struct PageSet {
    /// The boundary: the state that the pages are counted from. Nothing: from before the first transaction.
    pub since: Option<Txid>,
    /// The pages.
    pub pages: RoaringBitmap,
}

impl PageSet {
    fn new(since: Option<Txid>) -> Self {
        Self {
            since,
            pages: RoaringBitmap::new(),
        }
    }
}

/// The sets of all levels, complete through one transaction.
#[derive(Clone, PartialEq, Debug)]
pub struct PageSets {
    lineage: Lineage,
    through: Option<Txid>,
    minute: PageSet,
    hour: PageSet,
    day: PageSet,
}

#[derive(Serialize, Deserialize)]
struct Head {
    lineage: Lineage,
    through: Option<Txid>,
    /// Boundary and length in bytes of each set, shortest period first.
    sets: [(Option<Txid>, u64); 3],
}

impl PageSets {
    /// Empty sets of a stream whose last transaction is `at`: every boundary lies there.
    pub fn starting(lineage: Lineage, at: Option<Txid>) -> Self {
        Self {
            lineage,
            through: at,
            minute: PageSet::new(at),
            hour: PageSet::new(at),
            day: PageSet::new(at),
        }
    }

    /// Sets that somebody gathered from the page indexes of files, complete through `through`.
    pub fn rebuilt(lineage: Lineage, through: Txid, sets: [PageSet; 3]) -> Self {
        let [minute, hour, day] = sets;
        Self {
            lineage,
            through: Some(through),
            minute,
            hour,
            day,
        }
    }

    /// The last transaction whose pages are in the sets.
    pub fn through(&self) -> Option<Txid> {
        self.through
    }

    /// The set of a level.
    pub fn set(&self, period: Period) -> &PageSet {
        match period {
            Period::Minute => &self.minute,
            Period::Hour => &self.hour,
            Period::Day => &self.day,
        }
    }

    fn set_mut(&mut self, period: Period) -> &mut PageSet {
        match period {
            Period::Minute => &mut self.minute,
            Period::Hour => &mut self.hour,
            Period::Day => &mut self.day,
        }
    }

    /// Adds the pages of a batch that ends with `through`.
    pub fn add(&mut self, through: Txid, pages: impl IntoIterator<Item = PageNumber>) {
        let pages: RoaringBitmap = pages.into_iter().map(PageNumber::get).collect();
        self.add_set(through, &pages);
    }

    /// As [`PageSets::add`], the pages already gathered.
    pub fn add_set(&mut self, through: Txid, pages: &RoaringBitmap) {
        for period in Period::ALL {
            self.set_mut(period).pages |= pages;
        }
        self.through = Some(through);
    }

    /// Forgets the pages beyond `count`: the database shrank, and no merged file may hold them.
    pub fn truncate(&mut self, count: PageCount) {
        let Some(first) = count.0.checked_add(1) else {
            return;
        };
        for period in Period::ALL {
            self.set_mut(period).pages.remove_range(first..);
        }
    }

    /// Ends the set of a level at the newest transaction, which is a boundary, and starts the next one
    /// there. What comes back is for the merged file; if that fails, [`PageSets::put_back`].
    pub fn cut(&mut self, period: Period) -> PageSet {
        let through = self.through;
        std::mem::replace(self.set_mut(period), PageSet::new(through))
    }

    /// Undoes a cut: its pages join those that changed since.
    pub fn put_back(&mut self, period: Period, taken: PageSet) {
        let set = self.set_mut(period);
        set.pages |= taken.pages;
        set.since = taken.since;
    }

    /// Bytes of memory and disk, roughly.
    pub fn size(&self) -> usize {
        let size = |period| self.set(period).pages.serialized_size();
        Period::ALL.into_iter().map(size).sum()
    }

    /// Stores the sets durably and at once. Those that lag behind the cursor at the next start are
    /// rebuilt, so it need not be done for each batch.
    pub fn save(&self, dir: &StateDir) -> Result<()> {
        let lengths = Period::ALL.map(|period| {
            let set = self.set(period);
            (set.since, set.pages.serialized_size() as u64)
        });
        let head = Head {
            lineage: self.lineage,
            through: self.through,
            sets: lengths,
        };
        let no_json = |error| Error::new(ErrorKind::Internal, "page sets: no JSON").because(error);
        let json = serde_json::to_vec(&head).map_err(no_json)?;
        let mut bytes = Vec::with_capacity(FIXED + json.len() + self.size());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&json);
        for period in Period::ALL {
            let written = self.set(period).pages.serialize_into(&mut bytes);
            written.map_err(|error| dir.folder().error(FILE, error))?;
        }
        let crc = crc_fast::checksum(CRC, bytes.get(FIXED..).unwrap_or_default());
        bytes[16..24].copy_from_slice(&crc.to_le_bytes());
        dir.folder().replace(FILE, &bytes)
    }

    /// The stored sets, if they are of `lineage` and complete through `cursor`; otherwise nothing, and
    /// why: then the files' page indexes tell.
    pub fn load(
        dir: &StateDir,
        lineage: Lineage,
        cursor: Txid,
    ) -> Result<(Option<Self>, Option<Damage>)> {
        let sets = match read(dir.folder()) {
            Ok(sets) => sets,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                return Ok((None, Some(Damage::new(FILE, error.message()))));
            }
            Err(error) => return Err(error),
        };
        let Some(sets) = sets else {
            return Ok((None, None));
        };
        if sets.lineage != lineage || sets.through != Some(cursor) {
            let problem = format!(
                "of lineage {} through {:?}, wanted {lineage} through {cursor:?}",
                sets.lineage, sets.through
            );
            return Ok((None, Some(Damage::new(FILE, problem))));
        }
        Ok((Some(sets), None))
    }
}

fn read(folder: &Folder) -> Result<Option<PageSets>> {
    let Some(file) = folder.file(FILE, OFlags::RDONLY)? else {
        return Ok(None);
    };
    let torn = |problem: &str| Error::new(ErrorKind::Corrupt, problem);
    let fail = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData => {
            torn("shorter than it says, or no set of pages")
        }
        _ => folder.error(FILE, error),
    };
    let mut reader = BufReader::with_capacity(65_536, file);
    let mut fixed = [0; FIXED];
    reader.read_exact(&mut fixed).map_err(fail)?;
    let number =
        |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    if &fixed[..8] != MAGIC || number(8) != VERSION {
        return Err(torn("not the page sets of this version"));
    }
    let expected = u64::from(number(16)) | u64::from(number(20)) << 32;
    if checksum_to_end(&mut reader).map_err(fail)? != expected {
        return Err(torn("its checksum is wrong"));
    }
    reader.seek(SeekFrom::Start(FIXED as u64)).map_err(fail)?;
    let mut json = Vec::new();
    let length = u64::from(number(12));
    reader
        .by_ref()
        .take(length)
        .read_to_end(&mut json)
        .map_err(fail)?;
    let head: Head = serde_json::from_slice(&json).map_err(|_| torn("its head does not parse"))?;
    let mut set = |(since, length): (Option<Txid>, u64)| -> Result<PageSet> {
        let mut part = reader.by_ref().take(length);
        let pages = RoaringBitmap::deserialize_from(&mut part).map_err(fail)?;
        Ok(PageSet { since, pages })
    };
    let [minute, hour, day] = head.sets;
    Ok(Some(PageSets {
        lineage: head.lineage,
        through: head.through,
        minute: set(minute)?,
        hour: set(hour)?,
        day: set(day)?,
    }))
}

fn checksum_to_end(reader: &mut impl Read) -> std::io::Result<u64> {
    let mut crc = crc_fast::Digest::new(CRC);
    let mut buffer = vec![0; 65_536];
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(crc.finalize());
        }
        crc.update(buffer.get(..count).unwrap_or_default());
    }
}
