//! The page index: where each page lies in the file. It stands between the pages and the trailer and
//! can be fetched alone.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use super::crc::Sum;
use super::{DecodeError, HEADER_BYTES, Spill, TAIL_BYTES};
use crate::types::PageNumber;

/// Zeros in the place of a page header.
pub(super) const TERMINATOR_BYTES: u64 = 6;
/// Page number and flags.
const SMALLEST_FRAME: u64 = 6;

/// Where the frame of one page lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexEntry {
    /// The page.
    pub page: PageNumber,
    /// First byte of its frame, from the start of the file.
    pub offset: u64,
    /// Bytes of the frame: header, size field and compressed page.
    pub length: u64,
}

impl IndexEntry {
    /// The byte behind the frame.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Writes the entry as three varints of the shortest form and returns their length.
    pub(super) fn encode(&self, bytes: &mut [u8; 30]) -> usize {
        let mut length = 0;
        let mut slots = bytes.iter_mut();
        for mut value in [self.page.get().into(), self.offset, self.length] {
            loop {
                let more = value > 0x7f;
                // A 64-bit value takes at most 10 bytes, so there is always a slot.
                if let Some(slot) = slots.next() {
                    *slot = (value & 0x7f) as u8 | (u8::from(more) << 7);
                    length += 1;
                }
                value >>= 7;
                if !more {
                    break;
                }
            }
        }
        length
    }
}

/// The sum of the index that the frames read so far demand: as every varint has its shortest form, no
/// other bytes are right, and nothing has to be remembered.
pub(super) fn expect(sum: &mut Sum, entry: &IndexEntry) {
    let mut bytes = [0; 30];
    let length = entry.encode(&mut bytes);
    sum.update(bytes.get(..length).unwrap_or_default());
}

/// Where the index lies, found from the end of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexLocation {
    /// First byte of the index, from the start of the file.
    pub offset: u64,
    /// Bytes of the index with its final zero, without the size field.
    pub length: u64,
}

impl IndexLocation {
    /// Finds the index of a file of `file_size` bytes that ends with `tail`.
    ///
    /// # Errors
    ///
    /// A size for which the file has no room.
    pub fn find(tail: [u8; TAIL_BYTES], file_size: u64) -> Result<Self, DecodeError> {
        let (size, _) = tail.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
        let length = u64::from_be_bytes(*size);
        let smallest = HEADER_BYTES as u64 + TERMINATOR_BYTES;
        let room = file_size.saturating_sub(smallest + TAIL_BYTES as u64);
        if length == 0 || length > room {
            return Err(DecodeError::IndexSize {
                found: length,
                expected: room,
            });
        }
        Ok(Self {
            offset: file_size - TAIL_BYTES as u64 - length,
            length,
        })
    }
}

/// Reads the entries of an index one by one, with bounded memory.
///
/// Each entry is checked: pages ascend, frames abut from byte 100 to the terminator, varints have the
/// shortest form, the zero stands exactly at the end.
#[derive(Debug)]
pub struct IndexReader<R> {
    source: R,
    at: IndexLocation,
    read: u64,
    last: Option<PageNumber>,
    end_of_frames: u64,
    done: bool,
}

impl<R: Read> IndexReader<R> {
    /// Reads the index at `at` from `source`, which begins there. Give a buffered source.
    pub fn new(source: R, at: IndexLocation) -> Self {
        Self {
            source,
            at,
            read: 0,
            last: None,
            end_of_frames: HEADER_BYTES as u64,
            done: false,
        }
    }

    /// The next entry, or nothing at the end.
    ///
    /// # Errors
    ///
    /// [`DecodeError::IndexEntry`] where the index is wrong, or what reading gave.
    pub fn next_entry(&mut self) -> Result<Option<IndexEntry>, DecodeError> {
        if self.done {
            return Ok(None);
        }
        let number = self.varint()?;
        let number =
            u32::try_from(number).map_err(|_| self.fault("a page number above 32 bits"))?;
        let Some(page) = PageNumber::new(number) else {
            return self.end();
        };
        if self.last.is_some_and(|last| last >= page) {
            return Err(self.fault("page numbers do not ascend"));
        }
        let (offset, length) = (self.varint()?, self.varint()?);
        let entry = IndexEntry {
            page,
            offset,
            length,
        };
        let frames_end = self.at.offset.saturating_sub(TERMINATOR_BYTES);
        if offset != self.end_of_frames {
            return Err(self.fault("frames do not abut"));
        }
        if length <= SMALLEST_FRAME || length > frames_end.saturating_sub(offset) {
            return Err(self.fault("a frame of an impossible length"));
        }
        self.last = Some(page);
        self.end_of_frames = entry.end();
        Ok(Some(entry))
    }

    fn end(&mut self) -> Result<Option<IndexEntry>, DecodeError> {
        if self.read != self.at.length {
            return Err(self.fault("it ends before its size"));
        }
        if self.end_of_frames + TERMINATOR_BYTES != self.at.offset {
            return Err(self.fault("its frames do not fill the file"));
        }
        self.done = true;
        Ok(None)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            if self.read == self.at.length {
                return Err(self.fault("it goes on beyond its size"));
            }
            let mut byte = [0];
            self.source
                .read_exact(&mut byte)
                .map_err(|error| DecodeError::read(error, self.at.offset + self.read))?;
            self.read += 1;
            let [byte] = byte;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return match byte {
                    0 if shift != 0 => Err(self.fault("a number not in its shortest form")),
                    _ => Ok(value),
                };
            }
        }
        Err(self.fault("a number above 64 bits"))
    }

    fn fault(&self, cause: &'static str) -> DecodeError {
        DecodeError::IndexEntry {
            offset: self.read,
            cause,
        }
    }
}

impl<R: Read> Iterator for IndexReader<R> {
    type Item = Result<IndexEntry, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.next_entry().transpose();
        self.done |= matches!(entry, Some(Err(_)));
        entry
    }
}

/// Collects the index while a file is written.
#[derive(Debug)]
pub(super) struct IndexWriter {
    buffer: Vec<u8>,
    directory: Option<PathBuf>,
    file: Option<std::fs::File>,
}

impl IndexWriter {
    /// The index of some 100,000 pages: most files never touch the directory.
    const IN_MEMORY: usize = 1 << 20;

    pub(super) fn new(spill: Spill) -> Self {
        Self {
            buffer: Vec::new(),
            directory: match spill {
                Spill::Memory => None,
                Spill::Directory(path) => Some(path),
            },
            file: None,
        }
    }

    pub(super) fn push(&mut self, entry: &IndexEntry) -> io::Result<()> {
        let mut bytes = [0; 30];
        let length = entry.encode(&mut bytes);
        self.buffer
            .extend_from_slice(bytes.get(..length).unwrap_or_default());
        match &self.directory {
            Some(directory) if self.buffer.len() >= Self::IN_MEMORY => {
                let mut file = match self.file.take() {
                    Some(file) => file,
                    None => tempfile::tempfile_in(directory)?,
                };
                file.write_all(&self.buffer)?;
                self.buffer.clear();
                self.file = Some(file);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives the index piece by piece, with its final zero.
    pub(super) fn drain(mut self, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if let Some(mut file) = self.file {
            file.seek(SeekFrom::Start(0))?;
            let mut piece = vec![0; 64 << 10];
            loop {
                let length = match file.read(&mut piece) {
                    Ok(0) => break,
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(error),
                };
                to(piece.get(..length).unwrap_or_default())?;
            }
        }
        self.buffer.push(0);
        to(&self.buffer)
    }
}
