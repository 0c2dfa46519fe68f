//! Each rule that a reader checks, one file per way to break it; every sum of these files is right
//! unless the sum is what is wrong.

use super::raw::*;
use super::*;

/// Three pages of a database of eight.
fn spec() -> Spec {
    let pages = [
        (2, content(512, 1)),
        (3, content(512, 2)),
        (7, content(512, 3)),
    ];
    Spec::incremental(512, 8, &pages)
}

fn raw() -> RawFile {
    RawFile::of(&spec())
}

fn snapshot() -> Spec {
    let pages = [
        (1, content(512, 1)),
        (2, content(512, 2)),
        (3, content(512, 3)),
    ];
    Spec::incremental(512, 3, &pages).snapshot().tracked()
}

fn error_of(file: &RawFile) -> DecodeError {
    decode(&file.build()).unwrap_err()
}

macro_rules! assert_error {
    ($file:expr, $pattern:pat) => {
        let error = error_of(&$file);
        assert!(matches!(error, $pattern), "{error:?}");
    };
}

#[test]
fn the_files_that_these_tests_break_are_right() {
    assert_eq!(raw().build(), spec().encode());
    assert_eq!(RawFile::of(&snapshot()).build(), snapshot().encode());
    decode(&raw().build()).unwrap();
    decode(&RawFile::of(&snapshot()).build()).unwrap();
}

#[test]
fn header_fields_are_checked() {
    let file = raw();
    let with = |offset, bytes: &[u8]| file.clone().with_header(offset, bytes);
    assert_error!(with(0, b"LTX2"), DecodeError::Magic { found: 0x4c54_5832 });
    assert_error!(with(4, &[0, 0, 0, 3]), DecodeError::Version { version: 1 });
    assert_error!(
        with(4, &[0, 0, 0, 6]),
        DecodeError::HeaderFlags { found: 6 }
    );
    assert_error!(with(4, &[0x80, 0, 0, 2]), DecodeError::HeaderFlags { .. });
    for size in [0, 1, 256, 513, 131_072, u32::MAX] {
        assert_error!(with(8, &size.to_be_bytes()), DecodeError::PageSize { .. });
    }
    assert_error!(with(16, &[0; 8]), DecodeError::Txids { min: 0, max: 5 });
    assert_error!(with(23, &[6]), DecodeError::Txids { min: 6, max: 5 });
    assert_error!(with(47, &[1]), DecodeError::PreApply { found: 1, .. });
    assert_error!(with(4, &[0; 4]), DecodeError::PreApply { found: 0, .. });
    let unflagged = with(4, &[0; 4]).with_header(47, &[1]);
    assert_error!(unflagged, DecodeError::PreApply { found: 1, .. });
    for wal in [48, 56] {
        assert_error!(with(wal, &[0x80]), DecodeError::WalSpan { .. });
    }
    for lonely in [63, 67, 71] {
        assert_error!(with(lonely, &[1]), DecodeError::WalSpan { offset: 0, .. });
    }
    decode(&with(55, &[32]).build()).expect("an offset alone is fine");
}

#[test]
fn a_snapshot_has_no_pre_apply_checksum() {
    for stored in [1_u64, 1 << 63] {
        let file = RawFile::of(&snapshot()).with_header(40, &stored.to_be_bytes());
        assert_error!(file, DecodeError::PreApply { .. });
    }
}

#[test]
fn reserved_bytes_mean_something_only_in_files_of_a_stream() {
    let file = raw().with_header(80, &[0xff; 20]);
    let (verified, _) = decode(&file.build()).unwrap();
    assert_eq!(
        (verified.header.digest, verified.header.mark),
        (None, Mark::None)
    );

    let unwritable = Header {
        node: 0,
        ..spec().tracked().header
    };
    assert_eq!(unwritable.encode()[72..], [0; 28]);

    let node = stream().to_node_id().to_be_bytes();
    let ours = file
        .with_header(72, &node)
        .with_header(96, &[0xc0, 0, 1, 0]);
    let header = Header::decode(&ours.build()).unwrap();
    assert_eq!(header.digest, Some(Digest::new(u128::MAX)));
    assert_eq!((header.mark, header.span_ms), (Mark::Base, 256));
    assert_eq!(header.stream(), Some(stream()));
    assert_error!(ours.with_header(96, &[0x40]), DecodeError::Mark { .. });
}

#[test]
fn older_versions_are_named() {
    let body = content(512, 1);
    let version_2 = RawFrame {
        number: 1,
        flags: 0x0422,
        stored: lz4_frame(&body, LITESTREAM)[2..].to_vec(),
        covered: body,
    };
    let file = RawFile::new(spec().header.encode(), vec![version_2]);
    assert_error!(file, DecodeError::Version { version: 2 });
    let database = [b"SQLite format 3\0".as_slice(), &[0; 496]].concat();
    let version_1 = RawFrame {
        number: 1,
        flags: u16::from_be_bytes(*b"SQ"),
        stored: database[2..].to_vec(),
        covered: database,
    };
    let file = RawFile::new(spec().header.encode(), vec![version_1]);
    assert_error!(file, DecodeError::Version { version: 1 });
    let error = crate::Error::from(error_of(&file));
    assert_eq!(error.kind(), crate::ErrorKind::Unsupported);
}

#[test]
fn page_headers_are_checked() {
    let with = |change: &dyn Fn(&mut Vec<RawFrame>)| {
        let mut file = raw();
        change(&mut file.frames);
        file
    };
    for flags in [2, 3, 0x0100, 0x8001] {
        let file = with(&|frames| frames[1].flags = flags);
        assert_error!(file, DecodeError::PageFlags { page: 3, .. });
    }
    let swapped = with(&|frames| frames.swap(0, 1));
    assert_error!(swapped, DecodeError::PageOrder { .. });
    let twice = with(&|frames| frames[1] = frames[0].clone());
    assert_error!(twice, DecodeError::PageOrder { .. });
    for beyond in [9, u32::MAX] {
        let file = with(&|frames| frames[2].number = beyond);
        assert_error!(file, DecodeError::PageBeyondEnd { .. });
    }
}

#[test]
fn the_lock_page_is_refused_and_its_neighbours_are_not() {
    let pages = |number| [(number, content(65536, 1))];
    for number in [16384, 16386] {
        decode(&Spec::incremental(65536, 16400, &pages(number)).encode()).unwrap();
    }
    let file = RawFile::of(&Spec::incremental(65536, 16400, &pages(16385)));
    assert_error!(file, DecodeError::LockPage { .. });
}

#[test]
fn a_block_must_decode_to_exactly_one_page() {
    let with = |content: &[u8]| {
        let mut file = raw();
        let compressed = lz4_flex::block::compress(content);
        file.frames[1] = RawFrame::of_block(3, &compressed, &content[..content.len().min(512)]);
        file
    };
    decode(&with(&[7; 512]).build()).unwrap();
    assert_error!(with(&[7; 513]), DecodeError::Block { .. });
    assert_error!(with(&[7; 511]), DecodeError::ShortPage { found: 511, .. });
    assert_error!(with(&[]), DecodeError::ShortPage { found: 0, .. });
    // A short block must not be filled up with the page before it.
    let mut empty = raw();
    empty.frames[1] = RawFrame::of_block(3, &[], &[]);
    assert_error!(empty, DecodeError::Block { .. });
}

#[test]
fn blocks_of_literals_only_are_read() {
    for size in [512, 4096, 65536_u32] {
        let data = content(size, 2);
        let extra = size as usize - 15;
        let mut block = vec![0xf0];
        block.extend(std::iter::repeat_n(255, extra / 255));
        block.push((extra % 255) as u8);
        block.extend(&data);
        let file = RawFile::new(
            Spec::incremental(size, 8, &[]).header.encode(),
            vec![RawFrame::of_block(2, &block, &data)],
        );
        assert_eq!(decode(&file.build()).unwrap().1, [(page(2), data)]);
    }
}

#[test]
fn a_file_that_must_hold_every_page_does() {
    let mut file = RawFile::of(&snapshot());
    file.frames.remove(1);
    assert_error!(
        file,
        DecodeError::Incomplete {
            found: 2,
            expected: 3
        }
    );
    let base = Spec {
        header: Header {
            mark: Mark::Base,
            ..spec().tracked().header
        },
        ..spec().tracked()
    };
    assert_error!(
        RawFile::of(&base),
        DecodeError::Incomplete {
            found: 3,
            expected: 8
        }
    );
    assert!(matches!(
        base.write(Spill::Memory),
        Err(EncodeError::Incomplete { .. })
    ));
}

#[test]
fn the_page_index_is_compared_with_the_frames_one_for_one() {
    let file = raw();
    let entries = file.entries();
    let with = |index: Vec<u8>| RawFile {
        index: Some(index),
        ..file.clone()
    };
    assert_error!(with(index_bytes(&entries[..2])), DecodeError::Index);
    assert_error!(
        with(index_bytes(&[&entries[..], &entries[2..]].concat())),
        DecodeError::Index
    );
    for entry in 0..3 {
        for field in 0..3 {
            let mut wrong = entries.clone();
            wrong[entry][field] ^= 1;
            assert_error!(with(index_bytes(&wrong)), DecodeError::Index);
        }
    }
    let mut long: Vec<u8> = index_bytes(&entries);
    // The first entry's page number in two bytes.
    long.splice(..1, [0x82, 0]);
    assert_error!(with(long), DecodeError::Index);
}

#[test]
fn the_size_of_the_index_is_checked() {
    for wrong in [0, 1, 1 << 40, u64::MAX] {
        let file = RawFile {
            index_size: Some(wrong),
            ..raw()
        };
        assert_error!(file, DecodeError::IndexSize { .. });
    }
}

#[test]
fn the_end_of_the_pages_is_six_zeros() {
    let file = RawFile {
        terminator: vec![0, 0, 0, 0, 0, 1],
        ..raw()
    };
    assert_error!(file, DecodeError::Terminator { found: 1 });
}

#[test]
fn nothing_follows_the_trailer() {
    let file = RawFile {
        trailing: vec![0],
        ..raw()
    };
    assert_error!(file, DecodeError::TrailingBytes { .. });
}

#[test]
fn the_file_checksum_and_its_flag_are_checked() {
    let bytes = raw().build();
    let stored = u64::from_be_bytes(*bytes.last_chunk().unwrap());
    for wrong in [stored ^ 1, stored ^ (1 << 63), 0] {
        let file = RawFile {
            checksum: Some(wrong),
            ..raw()
        };
        assert_error!(file, DecodeError::FileChecksum { .. });
    }
}

#[test]
fn the_post_apply_checksum_fits_the_header() {
    let post = |spec: &Spec, post_apply| RawFile {
        post_apply,
        ..RawFile::of(spec)
    };
    assert_error!(post(&spec(), 1 << 63), DecodeError::PostApply { .. });
    assert_error!(post(&spec().tracked(), 0), DecodeError::PostApply { .. });
    assert_error!(post(&spec().tracked(), 1), DecodeError::PostApply { .. });
    let file = post(&snapshot(), 1 << 63 | 5);
    assert_error!(file, DecodeError::DatabaseChecksum { .. });
    decode(&post(&spec().tracked(), 1 << 63 | 5).build()).expect("only a snapshot can be checked");

    let emptied = Spec::incremental(512, 0, &[]).tracked();
    decode(&post(&emptied, 1 << 63).build()).unwrap();
    assert_error!(post(&emptied, 1 << 63 | 5), DecodeError::PostApply { .. });
}

#[test]
fn a_name_must_agree_with_the_header() {
    let header = spec().header;
    LtxName(range(2, 5)).check(&header).unwrap();
    let error = LtxName(range(2, 6)).check(&header).unwrap_err();
    assert!(matches!(error, DecodeError::Name { .. }));
}
