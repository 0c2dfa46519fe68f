//! Files put together byte by byte, so that each part can be wrong while every sum is right.

use lz4_flex::block;
use xxhash_rust::xxh32::xxh32;

use super::*;

/// The frame of one page.
#[derive(Clone, Debug)]
pub(super) struct RawFrame {
    pub(super) number: u32,
    pub(super) flags: u16,
    /// Everything behind the flags, as stored.
    pub(super) stored: Vec<u8>,
    /// What the file checksum covers of that.
    pub(super) covered: Vec<u8>,
}

impl RawFrame {
    /// A page as LZ4 block.
    pub(super) fn block(number: u32, data: &[u8]) -> Self {
        Self::of_block(number, &block::compress(data), data)
    }

    /// A page whose compressed form is given.
    pub(super) fn of_block(number: u32, compressed: &[u8], data: &[u8]) -> Self {
        let length = (compressed.len() as u32).to_be_bytes();
        Self {
            number,
            flags: 1,
            stored: [&length, compressed].concat(),
            covered: [&length, data].concat(),
        }
    }

    /// A page as LZ4 frame, which is given.
    pub(super) fn frame(number: u32, frame: Vec<u8>, data: &[u8]) -> Self {
        Self {
            number,
            flags: 0,
            stored: frame,
            covered: data.to_vec(),
        }
    }
}

/// How an LZ4 frame is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameStyle {
    pub(super) flags: u8,
    pub(super) blocks: usize,
    pub(super) stored: bool,
}

/// As Litestream makes them.
pub(super) const LITESTREAM: FrameStyle = FrameStyle {
    flags: 0x64,
    blocks: 1,
    stored: false,
};

/// An LZ4 frame of `data`.
pub(super) fn lz4_frame(data: &[u8], style: FrameStyle) -> Vec<u8> {
    let has = |flag| style.flags & flag != 0;
    let mut descriptor = vec![style.flags, 0x40];
    if has(8) {
        descriptor.extend((data.len() as u64).to_le_bytes());
    }
    if has(1) {
        descriptor.extend([1, 2, 3, 4]);
    }
    let mut frame = vec![0x04, 0x22, 0x4d, 0x18];
    frame.extend(&descriptor);
    frame.push((xxh32(&descriptor, 0) >> 8) as u8);
    let length = data.len().div_ceil(style.blocks);
    let mut start = 0;
    for piece in data.chunks(length) {
        let bytes = match (style.stored, has(0x20)) {
            (true, _) => piece.to_vec(),
            (false, true) => block::compress(piece),
            (false, false) => block::compress_with_dict(piece, &data[..start]),
        };
        let word = bytes.len() as u32 | u32::from(style.stored) << 31;
        frame.extend(word.to_le_bytes());
        frame.extend(&bytes);
        if has(0x10) {
            frame.extend(xxh32(&bytes, 0).to_le_bytes());
        }
        start += piece.len();
    }
    frame.extend([0; 4]);
    if has(4) {
        frame.extend(xxh32(data, 0).to_le_bytes());
    }
    frame
}

/// A whole file. Parts that are not set are what they must be.
#[derive(Clone, Debug)]
pub(super) struct RawFile {
    pub(super) header: [u8; 100],
    pub(super) frames: Vec<RawFrame>,
    pub(super) terminator: Vec<u8>,
    pub(super) index: Option<Vec<u8>>,
    pub(super) index_size: Option<u64>,
    pub(super) post_apply: u64,
    pub(super) checksum: Option<u64>,
    pub(super) trailing: Vec<u8>,
}

impl RawFile {
    pub(super) fn new(header: [u8; 100], frames: Vec<RawFrame>) -> Self {
        Self {
            header,
            frames,
            terminator: vec![0; 6],
            index: None,
            index_size: None,
            post_apply: 0,
            checksum: None,
            trailing: Vec::new(),
        }
    }

    /// The file of `spec`, with blocks.
    pub(super) fn of(spec: &Spec) -> Self {
        let frames = spec
            .pages
            .iter()
            .map(|(number, data)| RawFrame::block(number.get(), data));
        let mut file = Self::new(spec.header.encode(), frames.collect());
        file.post_apply = spec.post_apply.map_or(0, Checksum::get);
        file
    }

    /// Overwrites header bytes.
    pub(super) fn with_header(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.header[offset..][..bytes.len()].copy_from_slice(bytes);
        self
    }

    /// The entries that the index must have.
    pub(super) fn entries(&self) -> Vec<[u64; 3]> {
        let mut offset = 100;
        let entry = |frame: &RawFrame| {
            let length = frame.stored.len() as u64 + 6;
            offset += length;
            [u64::from(frame.number), offset - length, length]
        };
        self.frames.iter().map(entry).collect()
    }

    pub(super) fn build(&self) -> Vec<u8> {
        let mut file = self.header.to_vec();
        let mut covered = file.clone();
        for frame in &self.frames {
            let head = [&frame.number.to_be_bytes()[..], &frame.flags.to_be_bytes()].concat();
            file.extend([&head[..], &frame.stored].concat());
            covered.extend([&head[..], &frame.covered].concat());
        }
        let index = self
            .index
            .clone()
            .unwrap_or_else(|| index_bytes(&self.entries()));
        let size = self.index_size.unwrap_or(index.len() as u64);
        let tail = [
            &self.terminator[..],
            &index,
            &size.to_be_bytes(),
            &self.post_apply.to_be_bytes(),
        ]
        .concat();
        file.extend(&tail);
        covered.extend(&tail);
        // Another implementation than the one under test.
        let crc = ::crc::Crc::<u64>::new(&::crc::CRC_64_GO_ISO).checksum(&covered);
        file.extend(self.checksum.unwrap_or(crc | 1 << 63).to_be_bytes());
        file.extend(&self.trailing);
        file
    }
}

/// The index with these numbers and its final zero.
pub(super) fn index_bytes(entries: &[[u64; 3]]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries
        .iter()
        .flatten()
        .flat_map(|value| varint(*value))
        .collect();
    bytes.push(0);
    bytes
}

pub(super) fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
