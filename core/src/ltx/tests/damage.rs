//! Files that were damaged: cut, flipped, made up.

use std::io::{self, Read};

use proptest::prelude::*;

use super::raw::*;
use super::*;

/// Small files of each kind.
fn samples() -> Vec<Vec<u8>> {
    let pages = [
        (1, content(512, 1)),
        (2, content(512, 3)),
        (3, content(512, 4)),
    ];
    let untracked = Spec::incremental(512, 8, &pages);
    let snapshot = Spec::incremental(512, 3, &pages).snapshot().tracked();
    let mut frames = RawFile::of(&untracked);
    for (frame, (number, data)) in frames.frames.iter_mut().zip(&untracked.pages) {
        *frame = RawFrame::frame(number.get(), lz4_frame(data, LITESTREAM), data);
    }
    let empty = Spec::incremental(512, 8, &[]).tracked();
    vec![
        untracked.encode(),
        untracked.tracked().encode(),
        snapshot.encode(),
        frames.build(),
        empty.encode(),
    ]
}

#[test]
fn a_cut_at_every_length_is_found() {
    for file in samples() {
        decode(&file).unwrap();
        for length in 0..file.len() {
            let error = decode(&file[..length]).unwrap_err();
            assert!(
                matches!(error, DecodeError::Truncated { .. }),
                "{length}: {error:?}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_is_found_or_changes_nothing() {
    let (mut found, mut harmless) = (0, 0);
    for file in samples() {
        let good = decode(&file).unwrap();
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            match decode(&damaged) {
                Err(_) => found += 1,
                // Another match offset of LZ4 may copy the same bytes.
                Ok(same) => {
                    assert_eq!(same, good, "bit {bit}");
                    harmless += 1;
                }
            }
        }
    }
    assert!(harmless * 50 < found, "{harmless} of {found}");
}

/// Records the largest buffer that anybody wanted filled.
struct Watched<'a> {
    source: &'a [u8],
    largest: &'a mut usize,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        *self.largest = buffer.len().max(*self.largest);
        self.source.read(buffer)
    }
}

fn largest_read(file: &[u8]) -> (usize, usize, Result<Verified, DecodeError>) {
    let (mut largest, mut data) = (0, Vec::new());
    let watched = Watched {
        source: file,
        largest: &mut largest,
    };
    let result = Decoder::new(watched).and_then(|mut decoder| {
        while decoder.next_page(&mut data)?.is_some() {}
        decoder.finish()
    });
    (largest, data.capacity(), result)
}

#[test]
fn r4_absurd_sizes_are_refused_before_anything_is_allocated() {
    let spec = Spec::incremental(65536, u32::MAX, &[(2, content(65536, 1))]);
    let block = |length: u32| {
        let mut file = RawFile::of(&spec);
        file.frames[0].stored[..4].copy_from_slice(&length.to_be_bytes());
        file
    };
    let frame = |word: u32| {
        let mut file = RawFile::of(&spec);
        let mut bytes = lz4_frame(&content(65536, 1), LITESTREAM);
        bytes[7..11].copy_from_slice(&word.to_le_bytes());
        file.frames[0] = RawFrame::frame(2, bytes, &[]);
        file
    };
    let limit = 65536 + 65536 / 255 + 16;
    for length in [limit + 1, 1 << 20, 1 << 31, u32::MAX] {
        let (largest, capacity, result) = largest_read(&block(length).build());
        assert!(
            matches!(result, Err(DecodeError::BlockLength { .. })),
            "{result:?}"
        );
        assert!(
            largest <= 65536 && capacity <= 65536,
            "{largest} {capacity}"
        );
        for word in [length & !(1 << 31), length | 1 << 31] {
            if word & !(1 << 31) <= limit {
                continue;
            }
            let (largest, capacity, result) = largest_read(&frame(word).build());
            assert!(
                matches!(result, Err(DecodeError::Frame { .. })),
                "{result:?}"
            );
            assert!(
                largest <= 65536 && capacity <= 65536,
                "{largest} {capacity}"
            );
        }
    }
    // A database of 2^32 - 1 pages and an index of 2^64 bytes, both only claimed.
    let file = RawFile {
        index_size: Some(u64::MAX),
        ..RawFile::of(&spec.snapshot())
    };
    let (largest, capacity, result) = largest_read(&file.build());
    assert!(
        matches!(result, Err(DecodeError::Incomplete { .. })),
        "{result:?}"
    );
    assert!(
        largest <= 65536 && capacity <= 65536,
        "{largest} {capacity}"
    );
}

#[test]
fn x1_an_index_is_never_larger_than_its_file() {
    let file = samples().remove(0);
    let mut tail: [u8; TAIL_BYTES] = *file.last_chunk().unwrap();
    IndexLocation::find(tail, file.len() as u64).unwrap();
    for size in [0, file.len() as u64 - 129, 1 << 40, u64::MAX] {
        tail[..8].copy_from_slice(&size.to_be_bytes());
        let error = IndexLocation::find(tail, file.len() as u64).unwrap_err();
        assert!(matches!(error, DecodeError::IndexSize { .. }));
    }
    IndexLocation::find(tail, 0).unwrap_err();
}

fn mutations() -> impl Strategy<Value = Vec<(usize, Vec<u8>)>> {
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..9),
        Just(vec![0; 4]),
        Just(vec![0xff; 4]),
        Just(vec![0x7f, 0xff, 0xff, 0xff]),
    ];
    proptest::collection::vec((any::<usize>(), bytes), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn x1_made_up_files_are_refused_without_a_panic(
        sample in 0_usize..5,
        changes in mutations(),
        cut in any::<Option<u16>>(),
    ) {
        let good = samples().remove(sample);
        let mut file = good.clone();
        for (at, bytes) in changes {
            let at = at % file.len();
            let end = file.len().min(at + bytes.len());
            file[at..end].copy_from_slice(&bytes[..end - at]);
        }
        if let Some(cut) = cut {
            file.truncate(usize::from(cut));
        }
        let (largest, capacity, result) = largest_read(&file);
        prop_assert!(largest <= 2 * 65536 && capacity <= 65536);
        if let Ok(verified) = result {
            prop_assert_eq!(verified, decode(&good).unwrap().0);
        }
    }

    #[test]
    fn x1_noise_behind_a_header_is_refused_without_a_panic(
        noise in proptest::collection::vec(any::<u8>(), 0..2000),
        flags in 0_u8..2,
    ) {
        let header = Spec::incremental(512, 8, &[]).header.encode();
        let file = [&header[..], &[0, 0, 0, 1, 0, flags], &noise].concat();
        prop_assert!(largest_read(&file).2.is_err());
        prop_assert!(Header::decode(&noise).is_err());
    }

    #[test]
    fn x1_noise_as_lz4_is_refused_or_fills_a_page(
        noise in proptest::collection::vec(any::<u8>(), 0..530),
    ) {
        let header = Spec::incremental(512, 8, &[]).header.encode();
        let frame = RawFrame::of_block(1, &noise, &[]);
        let file = RawFile::new(header, vec![frame]).build();
        let mut decoder = Decoder::new(&file[..]).unwrap();
        let mut data = Vec::new();
        if decoder.next_page(&mut data).is_ok() {
            prop_assert_eq!(data.len(), 512);
        }
    }
}
