//! One page as LZ4: blocks are written and read, frames (Litestream 0.5.0 to 0.5.15) only read.

use std::io::Read;

use lz4_flex::block::{self, CompressTable, DecompressError};
use xxhash_rust::xxh32::xxh32;

use crate::types::PageSize;

/// `04 22 4D 18` in the order of the bytes.
pub(super) const FRAME_MAGIC: u32 = 0x0422_4d18;

/// The most bytes that a block of one page can have.
pub(super) fn block_limit(size: PageSize) -> usize {
    size.bytes() + size.bytes() / 255 + 16
}

/// Compresses pages one after another with the same table.
pub(super) struct Compressor {
    table: CompressTable,
}

impl Compressor {
    pub(super) fn new(size: PageSize) -> Self {
        // The small table has 16-bit entries.
        let table = if size.bytes() < usize::from(u16::MAX) {
            CompressTable::small()
        } else {
            CompressTable::large()
        };
        Self { table }
    }

    /// Bytes that `compress` may need for its output.
    pub(super) fn room(size: PageSize) -> usize {
        block::get_maximum_output_size(size.bytes()).max(block_limit(size))
    }

    /// Compresses `page` into `output`, which has [`Compressor::room`], and returns the length.
    pub(super) fn compress(&mut self, page: &[u8], output: &mut [u8]) -> std::io::Result<usize> {
        block::compress_into_with_table(page, output, &mut self.table)
            .map_err(std::io::Error::other)
    }
}

/// Why an LZ4 frame is no page.
#[derive(Debug)]
pub(super) enum FrameError {
    Read(std::io::Error),
    Content(&'static str),
    Block(DecompressError),
}

impl From<std::io::Error> for FrameError {
    fn from(error: std::io::Error) -> Self {
        Self::Read(error)
    }
}

/// What the descriptor of a frame says about its blocks.
struct Descriptor {
    linked: bool,
    block_checksums: bool,
}

/// Reads one LZ4 frame up to its content checksum; `magic` was read before. It must fill `page` exactly.
/// `scratch` holds one block.
pub(super) fn read_frame(
    source: &mut impl Read,
    magic: u32,
    page: &mut [u8],
    scratch: &mut Vec<u8>,
) -> Result<(), FrameError> {
    if magic != FRAME_MAGIC {
        return Err(FrameError::Content("a wrong magic number"));
    }
    let descriptor = read_descriptor(source, page.len())?;
    let mut filled = 0;
    loop {
        let word = u32::from_le_bytes(read_array(source)?);
        if word == 0 {
            break;
        }
        let added = read_block(source, word, &descriptor, page, filled, scratch)?;
        if added == 0 {
            return Err(FrameError::Content("an empty block"));
        }
        filled += added;
    }
    if filled != page.len() {
        return Err(FrameError::Content("less than one page"));
    }
    if u32::from_le_bytes(read_array(source)?) != xxh32(page, 0) {
        return Err(FrameError::Content("a wrong content checksum"));
    }
    Ok(())
}

fn read_descriptor(source: &mut impl Read, page_bytes: usize) -> Result<Descriptor, FrameError> {
    const VERSION: u8 = 0b1100_0000;
    const VERSION_1: u8 = 0b0100_0000;
    const INDEPENDENT: u8 = 0b0010_0000;
    const BLOCK_CHECKSUMS: u8 = 0b0001_0000;
    const CONTENT_SIZE: u8 = 0b0000_1000;
    const CONTENT_CHECKSUM: u8 = 0b0000_0100;
    const RESERVED_OR_DICTIONARY: u8 = 0b0000_0011;

    let [flags, blocks] = read_array(source)?;
    if flags & VERSION != VERSION_1 || flags & RESERVED_OR_DICTIONARY != 0 {
        return Err(FrameError::Content("unknown flags"));
    }
    // Blocks of 64 KiB to 4 MiB; other bits are reserved. The page size bounds them here anyway.
    if blocks & !0x70 != 0 || blocks < 0x40 {
        return Err(FrameError::Content("an unknown block size"));
    }
    let mut covered = vec![flags, blocks];
    if flags & CONTENT_SIZE != 0 {
        let size: [u8; 8] = read_array(source)?;
        if u64::from_le_bytes(size) != page_bytes as u64 {
            return Err(FrameError::Content("another content size than a page"));
        }
        covered.extend(size);
    }
    let [check] = read_array(source)?;
    if check != (xxh32(&covered, 0) >> 8) as u8 {
        return Err(FrameError::Content("a wrong header checksum"));
    }
    // As Litestream 0.5.17: without it a damaged page could pass for another.
    if flags & CONTENT_CHECKSUM == 0 {
        return Err(FrameError::Content("no content checksum"));
    }
    Ok(Descriptor {
        linked: flags & INDEPENDENT == 0,
        block_checksums: flags & BLOCK_CHECKSUMS != 0,
    })
}

/// Reads the block that `word` announces to `page[filled..]` and returns the bytes that it adds.
fn read_block(
    source: &mut impl Read,
    word: u32,
    descriptor: &Descriptor,
    page: &mut [u8],
    filled: usize,
    scratch: &mut Vec<u8>,
) -> Result<usize, FrameError> {
    const STORED: u32 = 1 << 31;
    let length = (word & !STORED) as usize;
    if length > page.len() + page.len() / 255 + 16 {
        return Err(FrameError::Content("a block longer than a page can need"));
    }
    scratch.resize(length, 0);
    source.read_exact(scratch)?;
    if descriptor.block_checksums && u32::from_le_bytes(read_array(source)?) != xxh32(scratch, 0) {
        return Err(FrameError::Content("a wrong block checksum"));
    }
    let Some((before, rest)) = page.split_at_mut_checked(filled) else {
        return Err(FrameError::Content("more than one page"));
    };
    if word & STORED != 0 {
        let Some(target) = rest.get_mut(..length) else {
            return Err(FrameError::Content("more than one page"));
        };
        target.copy_from_slice(scratch);
        return Ok(length);
    }
    if descriptor.linked {
        block::decompress_into_with_dict(scratch, rest, before)
    } else {
        block::decompress_into(scratch, rest)
    }
    .map_err(FrameError::Block)
}

fn read_array<const N: usize>(source: &mut impl Read) -> Result<[u8; N], FrameError> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}
