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
use crate::types::{Lineage, Position, Timestamp};

const FILE: &str = "changed";
const MAGIC: &[u8; 8] = b"wlrssets";
const VERSION: u32 = 1;
/// Magic, version, length of the head, checksum of all that follows.
const FIXED: usize = 24;

/// The pages changed after `since`, and what the merged file that ends the period must know beside them.
#[derive(Clone, PartialEq, Debug)]
pub struct PageSet {
    /// The boundary: the state that the pages are counted from.
    pub since: Position,
    /// The pages.
    pub pages: RoaringBitmap,
    /// Files of the level below that the period holds.
    pub files: u32,
    /// When the first and the last of its commits were seen; nothing where it holds none.
    pub seen: Option<(Timestamp, Timestamp)>,
}

/// The sets of all levels, complete through one state.
#[derive(Clone, PartialEq, Debug)]
pub struct PageSets {
    /// The history that they belong to.
    pub lineage: Lineage,
    /// The state that they lead to.
    pub through: Position,
    /// A set for each level, shortest period first.
    pub sets: [PageSet; 3],
}

#[derive(Serialize, Deserialize)]
struct Head {
    lineage: Lineage,
    through: Position,
    sets: [SetHead; 3],
}

#[derive(Serialize, Deserialize)]
struct SetHead {
    since: Position,
    files: u32,
    seen: Option<(Timestamp, Timestamp)>,
    /// Length of the pages in bytes.
    length: u64,
}

impl PageSets {
    /// Stores the sets durably and at once. Those that lag behind the cursor at the next start are
    /// completed from the files in between, so it need not be done for each batch.
    pub fn save(&self, dir: &StateDir) -> Result<()> {
        let heads = self.sets.each_ref().map(|set| SetHead {
            since: set.since,
            files: set.files,
            seen: set.seen,
            length: set.pages.serialized_size() as u64,
        });
        let head = Head {
            lineage: self.lineage,
            through: self.through,
            sets: heads,
        };
        let size: usize = self
            .sets
            .iter()
            .map(|set| set.pages.serialized_size())
            .sum();
        let no_json = |error| Error::new(ErrorKind::Internal, "page sets: no JSON").because(error);
        let json = serde_json::to_vec(&head).map_err(no_json)?;
        let mut bytes = Vec::with_capacity(FIXED + json.len() + size);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&(json.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&json);
        for set in &self.sets {
            let written = set.pages.serialize_into(&mut bytes);
            written.map_err(|error| dir.folder().error(FILE, error))?;
        }
        let crc = crc_fast::checksum(CRC, bytes.get(FIXED..).unwrap_or_default());
        bytes[16..24].copy_from_slice(&crc.to_le_bytes());
        dir.folder().replace(FILE, &bytes)
    }

    /// The stored sets; nothing where there are none, or what is wrong with them: then the files' page
    /// indexes tell.
    pub fn load(dir: &StateDir) -> Result<(Option<Self>, Option<Damage>)> {
        match read(dir.folder()) {
            Ok(sets) => Ok((sets, None)),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                Ok((None, Some(Damage::new(FILE, error.message()))))
            }
            Err(error) => Err(error),
        }
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
    let mut set = |head: SetHead| -> Result<PageSet> {
        let mut part = reader.by_ref().take(head.length);
        let pages = RoaringBitmap::deserialize_from(&mut part).map_err(fail)?;
        Ok(PageSet {
            since: head.since,
            pages,
            files: head.files,
            seen: head.seen,
        })
    };
    let [minute, hour, day] = head.sets;
    Ok(Some(PageSets {
        lineage: head.lineage,
        through: head.through,
        sets: [set(minute)?, set(hour)?, set(day)?],
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
