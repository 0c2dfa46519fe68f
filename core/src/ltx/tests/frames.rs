//! Pages as LZ4 frames, which Litestream wrote before 0.5.16.

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

#[test]
fn lz4_frames_of_every_kind_are_read() {
    let data = content(4096, 3);
    let header = Spec::incremental(4096, 8, &[]).header.encode();
    // Independent or linked blocks, with and without block checksums and content size.
    for flags in [0x64, 0x44, 0x74, 0x54, 0x6c, 0x4c, 0x7c] {
        for blocks in [1, 2, 7] {
            for stored in [false, true] {
                let style = FrameStyle {
                    flags,
                    blocks,
                    stored,
                };
                let frame = RawFrame::frame(2, lz4_frame(&data, style), &data);
                let file = RawFile::new(header, vec![frame]);
                let (_, pages) = decode(&file.build()).unwrap();
                assert_eq!(pages, [(page(2), data.clone())], "{style:?}");
            }
        }
    }
}

#[test]
fn both_encodings_may_stand_in_one_file() {
    let mut file = raw();
    let data = content(512, 2);
    file.frames[1] = RawFrame::frame(3, lz4_frame(&data, LITESTREAM), &data);
    assert_eq!(decode(&file.build()).unwrap().1, spec().pages);
}

#[test]
fn lz4_frames_are_checked() {
    let data = content(512, 3);
    let good = lz4_frame(&data, LITESTREAM);
    let cause = |frame: Vec<u8>| {
        let mut file = raw();
        file.frames[1] = RawFrame::frame(3, frame, &data);
        match decode(&file.build()).unwrap_err() {
            DecodeError::Frame { cause, .. } => cause,
            error => panic!("{error:?}"),
        }
    };
    let flags = |flags| {
        let style = FrameStyle {
            flags,
            ..LITESTREAM
        };
        lz4_frame(&data, style)
    };
    let changed = |offset: usize| {
        let mut frame = good.clone();
        let offset = offset % frame.len();
        frame[offset] ^= 1;
        frame
    };
    assert_eq!(cause(changed(0)), "a wrong magic number");
    assert_eq!(cause(flags(0x60)), "no content checksum");
    assert_eq!(cause(flags(0x65)), "unknown flags");
    assert_eq!(cause(flags(0x66)), "unknown flags");
    assert_eq!(cause(flags(0xa4)), "unknown flags");
    assert_eq!(cause(changed(5)), "an unknown block size");
    assert_eq!(cause(changed(6)), "a wrong header checksum");
    assert_eq!(cause(changed(good.len() - 1)), "a wrong content checksum");

    let longer = [&data[..], &[0]].concat();
    let stored = FrameStyle {
        stored: true,
        ..LITESTREAM
    };
    assert_eq!(cause(lz4_frame(&longer, stored)), "more than one page");
    assert_eq!(
        cause(lz4_frame(&data[..511], LITESTREAM)),
        "less than one page"
    );
    let sized = FrameStyle {
        flags: 0x6c,
        ..LITESTREAM
    };
    assert_eq!(
        cause(lz4_frame(&longer, sized)),
        "another content size than a page"
    );
    let mut block_sum = flags(0x74);
    let last_of_block = block_sum.len() - 12;
    block_sum[last_of_block] ^= 1;
    assert_eq!(cause(block_sum), "a wrong block checksum");
    let mut empty = good;
    empty.splice(7..7, [0, 0, 0, 0x80]);
    assert_eq!(cause(empty), "an empty block");
}
