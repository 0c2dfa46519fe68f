//! Cuts an LTX file that arrives in pieces into sections that can be decoded side by side.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::ltx::{HEADER_BYTES, Header};

/// Page number, flags and length of a frame in block encoding.
const FRAME_HEADER: usize = 10;
/// The flag of a frame in block encoding, which names its length.
const BLOCK: u16 = 1;
/// What follows the last frame.
const TERMINATOR: [u8; 6] = [0; 6];
/// Bytes of one section: small enough for every core to have one, large enough for the task to be nothing.
const SECTION: usize = 1024 * 1024;

/// A part of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Piece {
    /// The first 100 bytes.
    Header(Bytes),
    /// Whole frames.
    Frames {
        /// Where they lie in the file.
        range: Range<u64>,
        /// Their bytes.
        bytes: Bytes,
    },
    /// Bytes from the terminator on: index and trailer.
    Tail(Bytes),
    /// Here is a frame that names no length, or a wrong one: only reading the file in order finds its end.
    Unknown,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Header,
    Frames,
    Tail,
    Unknown,
}

/// Finds the frames in a file's bytes, which come in order. Trusts no length: a frame longer than any can
/// be is [`Piece::Unknown`], for the decoder to refuse.
#[derive(Debug)]
pub(super) struct Splitter {
    state: State,
    /// Where `rest` begins in the file.
    offset: u64,
    /// Bytes of a frame that has not arrived whole.
    rest: BytesMut,
    longest: usize,
    pieces: VecDeque<Piece>,
}

impl Splitter {
    pub(super) fn new() -> Self {
        Self {
            state: State::Header,
            offset: 0,
            rest: BytesMut::new(),
            longest: 0,
            pieces: VecDeque::new(),
        }
    }

    /// The next piece of what has arrived.
    pub(super) fn next(&mut self) -> Option<Piece> {
        self.pieces.pop_front()
    }

    /// Takes in the bytes that follow.
    pub(super) fn push(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty() || self.is_stuck() {
            match self.state {
                State::Header => self.push_header(&mut bytes),
                State::Frames => self.push_frames(&mut bytes),
                State::Tail => self.push_tail(&mut bytes),
                State::Unknown => return,
            }
        }
    }

    /// Whether what is kept belongs to a state that keeps nothing.
    fn is_stuck(&self) -> bool {
        !self.rest.is_empty() && self.state == State::Tail
    }

    fn push_header(&mut self, bytes: &mut Bytes) {
        let missing = HEADER_BYTES - self.rest.len();
        self.rest
            .extend_from_slice(&bytes.split_to(missing.min(bytes.len())));
        if self.rest.len() == HEADER_BYTES {
            let header = self.rest.split().freeze();
            // What is no header is refused by whoever gets it.
            let page_size = Header::decode(&header).map_or(0, |header| header.page_size.bytes());
            self.longest = FRAME_HEADER + page_size + page_size / 255 + 16;
            self.pieces.push_back(Piece::Header(header));
            self.offset = HEADER_BYTES as u64;
            self.state = State::Frames;
        }
    }

    fn push_tail(&mut self, bytes: &mut Bytes) {
        let kept = self.rest.split().freeze();
        for part in [kept, std::mem::take(bytes)] {
            if !part.is_empty() {
                self.offset += part.len() as u64;
                self.pieces.push_back(Piece::Tail(part));
            }
        }
    }

    fn push_frames(&mut self, bytes: &mut Bytes) {
        if !self.rest.is_empty() {
            self.complete_frame(bytes);
            return;
        }
        let mut end = 0;
        while let Next::Frame(length) = next(&bytes[end..], self.longest) {
            let whole = end + length;
            if whole > bytes.len() {
                break;
            }
            end = whole;
            if end >= SECTION {
                self.cut(bytes.split_to(end));
                end = 0;
            }
        }
        if end > 0 {
            self.cut(bytes.split_to(end));
        }
        self.stop_or_keep(bytes);
    }

    /// `bytes` begin behind the last whole frame.
    fn stop_or_keep(&mut self, bytes: &mut Bytes) {
        match next(bytes, self.longest) {
            Next::End => self.state = State::Tail,
            Next::Unknown => self.give_up(),
            Next::Frame(_) | Next::Short => self.rest.extend_from_slice(&std::mem::take(bytes)),
        }
    }

    /// Moves bytes to the kept beginning of a frame until that is whole.
    fn complete_frame(&mut self, bytes: &mut Bytes) {
        let wanted = match next(&self.rest, self.longest) {
            Next::Frame(length) => length,
            Next::Short => self.rest.len() + 1,
            Next::End => {
                self.state = State::Tail;
                return;
            }
            Next::Unknown => {
                self.give_up();
                return;
            }
        };
        let missing = wanted.saturating_sub(self.rest.len()).min(bytes.len());
        self.rest.extend_from_slice(&bytes.split_to(missing));
        if let Next::Frame(length) = next(&self.rest, self.longest)
            && self.rest.len() == length
        {
            let frame = self.rest.split().freeze();
            self.cut(frame);
        }
    }

    fn give_up(&mut self) {
        self.state = State::Unknown;
        self.pieces.push_back(Piece::Unknown);
    }

    fn cut(&mut self, bytes: Bytes) {
        let start = self.offset;
        self.offset += bytes.len() as u64;
        self.pieces.push_back(Piece::Frames {
            range: start..self.offset,
            bytes,
        });
    }

    /// What is kept when no more bytes come: the beginning of a frame, which makes the file too short.
    pub(super) fn end(&mut self) -> Option<Piece> {
        let rest = self.rest.split().freeze();
        (!rest.is_empty()).then(|| match self.state {
            State::Header => Piece::Header(rest),
            State::Frames | State::Unknown => Piece::Unknown,
            State::Tail => Piece::Tail(rest),
        })
    }
}

enum Next {
    /// A frame of this length, which may not have arrived whole.
    Frame(usize),
    /// Too few bytes to know.
    Short,
    /// The terminator.
    End,
    /// Anything else.
    Unknown,
}

fn next(bytes: &[u8], longest: usize) -> Next {
    let Some(start) = bytes.first_chunk::<6>() else {
        return Next::Short;
    };
    if *start == TERMINATOR {
        return Next::End;
    }
    if u16::from_be_bytes([start[4], start[5]]) != BLOCK {
        return Next::Unknown;
    }
    let Some(header) = bytes.first_chunk::<FRAME_HEADER>() else {
        return Next::Short;
    };
    let [.., a, b, c, d] = *header;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    match length.checked_add(FRAME_HEADER) {
        Some(length) if length <= longest => Next::Frame(length),
        _ => Next::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ltx::{Encoder, Mark, Spill, Tracking};
    use crate::types::{PageCount, PageNumber, PageSize, Timestamp, Txid, TxidRange};

    fn file(pages: u32, noise: usize) -> Bytes {
        let page_size = PageSize::new(4096).unwrap();
        let mut rng = fastrand::Rng::with_seed(7);
        let mut encoder = Encoder::new(Vec::new(), page_size, PageCount(pages), Spill::Memory);
        for page in 1..=pages {
            let mut data = vec![page as u8; 4096];
            data[..noise].iter_mut().for_each(|byte| *byte = rng.u8(..));
            encoder.page(PageNumber::new(page).unwrap(), &data).unwrap();
        }
        let header = Header {
            page_size,
            commit: PageCount(pages),
            range: TxidRange::snapshot(Txid::FIRST),
            timestamp: Timestamp::default(),
            tracking: Tracking::Untracked,
            wal: None,
            node: 0,
            digest: None,
            mark: Mark::None,
            span_ms: 0,
        };
        let finished = encoder.finish(&header, None).unwrap();
        [finished.header.to_vec(), finished.out].concat().into()
    }

    /// The pieces of a file that arrives in parts of these lengths, in turn.
    fn split(file: &Bytes, lengths: &[usize]) -> Vec<Piece> {
        let mut splitter = Splitter::new();
        let mut rest = file.clone();
        for length in lengths.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            splitter.push(rest.split_to((*length).min(rest.len())));
        }
        let mut pieces: Vec<Piece> = std::iter::from_fn(|| splitter.next()).collect();
        pieces.extend(splitter.end());
        pieces
    }

    #[test]
    fn the_pieces_are_the_file_however_it_arrives() {
        for (pages, noise) in [(1, 4096), (40, 10), (600, 4096)] {
            let file = file(pages, noise);
            let lengths: [&[usize]; 6] = [
                &[usize::MAX],
                &[1],
                &[7, 1000],
                &[99, 1],
                &[106],
                &[4126, 1 << 20],
            ];
            for lengths in lengths {
                if lengths == [1] && pages > 100 {
                    continue;
                }
                let pieces = split(&file, lengths);
                assert!(matches!(&pieces[0], Piece::Header(header) if header.len() == 100));
                let mut at = 100;
                let mut joined = Vec::new();
                let mut tail = Vec::new();
                for piece in &pieces[1..] {
                    match piece {
                        Piece::Frames { range, bytes } => {
                            assert!(tail.is_empty() && range.start == at && !bytes.is_empty());
                            assert!(bytes.len() <= SECTION + 5000);
                            at = range.end;
                            joined.extend_from_slice(bytes);
                        }
                        Piece::Tail(bytes) => tail.extend_from_slice(bytes),
                        other => panic!("{other:?}"),
                    }
                }
                assert!(tail.starts_with(&TERMINATOR));
                assert_eq!([&file[..100], &joined, &tail].concat(), file, "{lengths:?}");
            }
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_never_taken_for_whole() {
        let file = file(3, 50);
        for length in 0..file.len() {
            let pieces = split(&file.slice(..length), &[17]);
            let tail: usize = pieces
                .iter()
                .map(|piece| {
                    if let Piece::Tail(bytes) = piece {
                        bytes.len()
                    } else {
                        0
                    }
                })
                .sum();
            assert!(tail < 6 + 8 + 16 + 3 * 4, "{length}");
        }
    }

    #[test]
    fn r4_a_frame_longer_than_any_can_be_is_left_to_the_decoder() {
        let mut bytes = file(3, 50).to_vec();
        bytes[106..110].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(split(&bytes.into(), &[50]).last(), Some(&Piece::Unknown));
        let mut frames = file(3, 50).to_vec();
        frames[105] = 0;
        let pieces = split(&frames.into(), &[usize::MAX]);
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[1], Piece::Unknown);
    }
}
