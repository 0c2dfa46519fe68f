//! What the writer refuses, and the form of what it writes.

use super::index::IndexWriter;
use super::*;

fn encoder(size: u32, commit: u32) -> Encoder<Vec<u8>> {
    Encoder::new(
        Vec::new(),
        page_size(size),
        PageCount(commit),
        Spill::Memory,
    )
}

#[test]
fn pages_that_no_file_may_have_are_refused() {
    let data = content(512, 1);
    let mut encoder = encoder(512, 8);
    encoder.page(page(3), &data).unwrap();
    let error = encoder.page(page(3), &data).unwrap_err();
    assert!(matches!(error, EncodeError::PageOrder { .. }));
    let error = encoder.page(page(9), &data).unwrap_err();
    assert!(matches!(error, EncodeError::PageBeyondEnd { .. }));
    let error = encoder.page(page(4), &data[1..]).unwrap_err();
    assert!(matches!(error, EncodeError::PageLength { found: 511, .. }));
    let error = self::encoder(65536, 20000)
        .page(page(16385), &content(65536, 1))
        .unwrap_err();
    assert!(matches!(error, EncodeError::LockPage { .. }));
}

#[test]
fn headers_that_no_file_may_have_are_refused() {
    let pages = [(1, content(512, 1)), (2, content(512, 2))];
    let plain = Spec::incremental(512, 2, &pages);
    let tracked = plain.clone().tracked();
    let snapshot = plain.clone().snapshot().tracked();
    let refused = |spec: &Spec, change: &dyn Fn(&mut Spec)| {
        let mut spec = spec.clone();
        change(&mut spec);
        match spec.write(Spill::Memory) {
            Err(EncodeError::Header { rule }) => rule,
            other => panic!("{other:?}"),
        }
    };
    let pre = Some(Checksum::from_crc(1));
    refused(&snapshot, &|s| {
        s.header.tracking = Tracking::Tracked { pre_apply: pre }
    });
    refused(&tracked, &|s| {
        s.header.tracking = Tracking::Tracked { pre_apply: None }
    });
    refused(&tracked, &|s| s.post_apply = None);
    refused(&plain, &|s| s.post_apply = pre);
    refused(&plain, &|s| s.header.digest = Some(Digest::new(1)));
    refused(&plain, &|s| s.header.mark = Mark::Rebase);
    refused(&plain, &|s| s.header.span_ms = 1);
    let wal = WalSpan {
        offset: 0,
        size: 0,
        salt: [1, 1],
    };
    refused(&plain, &|s| s.header.wal = Some(wal));
    let empty = Spec::incremental(512, 0, &[]);
    refused(&empty, &|_| {});
    refused(&empty.tracked(), &|s| s.post_apply = pre);

    let mut other = encoder(512, 3);
    other.page(page(1), &content(512, 1)).unwrap();
    other.finish(&plain.header, None).unwrap_err();
}

#[test]
fn a_snapshot_holds_every_page_and_has_their_checksum() {
    let pages = [(1, content(512, 1)), (2, content(512, 2))];
    let gap = Spec::incremental(512, 3, &pages).snapshot();
    let error = gap.write(Spill::Memory).unwrap_err();
    assert!(matches!(
        error,
        EncodeError::Incomplete {
            found: 2,
            expected: 3
        }
    ));
    let mut wrong = Spec::incremental(512, 2, &pages).snapshot().tracked();
    wrong.post_apply = Some(Checksum::from_crc(1));
    let error = wrong.write(Spill::Memory).unwrap_err();
    assert!(matches!(error, EncodeError::DatabaseChecksum { .. }));
}

#[test]
fn a_snapshot_leaves_out_the_lock_page() {
    let size = page_size(65536);
    let commit = PageCount(16386);
    let zeros = vec![0; 65536];
    let mut encoder = Encoder::new(Vec::new(), size, commit, Spill::Memory);
    for number in size.stored_pages(commit) {
        encoder.page(number, &zeros).unwrap();
    }
    let mut header = Spec::incremental(65536, 16386, &[]).snapshot().header;
    header.commit = commit;
    let finished = encoder.finish(&header, None).unwrap();
    assert_eq!(finished.pages, 16385);
    let file = [&finished.header[..], &finished.out].concat();
    let verified = Decoder::new(&file[..]).unwrap().finish().unwrap();
    assert_eq!(verified.pages, 16385);
    assert_eq!(verified.file_checksum, finished.file_checksum);
}

#[test]
fn marks_and_spans_are_written_and_read() {
    let pages = [(1, content(512, 1)), (2, content(512, 2))];
    for (mark, bits) in [(Mark::None, 0), (Mark::Rebase, 0x80), (Mark::Base, 0xc0)] {
        let mut spec = Spec::incremental(512, 2, &pages).tracked();
        spec.header.mark = mark;
        spec.header.span_ms = u32::MAX;
        let file = spec.encode();
        assert_eq!(file[96..100], [bits | 0x3f, 0xff, 0xff, 0xff]);
        let (verified, _) = decode(&file).unwrap();
        assert_eq!(
            (verified.header.mark, verified.header.span_ms),
            (mark, (1 << 30) - 1)
        );
        assert_eq!(verified.header.holds_every_page(), mark == Mark::Base);
        let digest = verified.header.digest.unwrap().get().to_be_bytes();
        assert_eq!(file[80..96], digest);
    }
}

/// The strict rules of the LZ4 block format, which the reference decoder insists on: the last sequence
/// has no match and at least 5 literals, the last match begins at least 12 bytes before the end, the
/// last token's match length is 0.
fn check_block(block: &[u8], page: usize) {
    let (mut at, mut filled) = (0, 0);
    let mut last_match = None;
    loop {
        let token = block[at];
        at += 1;
        // A nibble of 15 goes on with bytes, the last of which is not 255.
        let extended = |nibble: u8, at: &mut usize| {
            let mut length = usize::from(nibble);
            let mut last = if nibble == 15 { 255 } else { 0 };
            while last == 255 {
                last = block[*at];
                length += usize::from(last);
                *at += 1;
            }
            length
        };
        let literals = extended(token >> 4, &mut at);
        at += literals;
        filled += literals;
        if at == block.len() {
            assert_eq!(token & 15, 0);
            assert!(
                last_match.is_none() || literals >= 5,
                "{literals} last literals"
            );
            break;
        }
        assert!(u16::from_le_bytes([block[at], block[at + 1]]) > 0);
        at += 2;
        last_match = Some(filled);
        filled += extended(token & 15, &mut at) + 4;
    }
    assert_eq!(filled, page);
    assert!(last_match.is_none_or(|start| start + 12 <= page));
}

#[test]
fn every_block_ends_as_lz4_demands_and_is_no_longer_than_literals() {
    let mut random = fastrand::Rng::with_seed(7);
    for case in 0..200 {
        let size = 512 << (case % 8);
        let mut data = content(size, case);
        // Matches that reach, or nearly reach, the end.
        let end = data.len() - random.usize(0..24);
        let start = random.usize(0..64);
        data.copy_within(start..start + 32, end - 32);
        let spec = Spec::incremental(size, 1, &[(1, data)]);
        let file = spec.encode();
        let length = u32::from_be_bytes(file[106..110].try_into().unwrap()) as usize;
        check_block(&file[110..110 + length], size as usize);
        let literals = 1 + (size as usize - 15) / 255 + 1 + size as usize;
        assert!(length <= literals, "{length} {literals}");
    }
}

#[test]
fn a_large_index_is_spilled_and_comes_back_whole() {
    let directory = tempfile::tempdir().unwrap();
    let drained = |spill: Spill| {
        let mut writer = IndexWriter::new(spill);
        for n in 1..=300_000_u32 {
            let entry = IndexEntry {
                page: page(n),
                offset: u64::from(n) << 12,
                length: 4096 + u64::from(n % 7),
            };
            writer.push(&entry).unwrap();
        }
        let in_memory = writer.memory();
        let mut bytes = Vec::new();
        writer
            .drain(|piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        (bytes, in_memory)
    };
    let (spilled, small) = drained(Spill::Directory(directory.path().to_owned()));
    let (whole, large) = drained(Spill::Memory);
    assert!(spilled == whole);
    assert!(spilled.len() > 2 << 20 && large > 2 << 20 && small <= 2 << 20);
    assert_eq!(
        std::fs::read_dir(directory.path()).unwrap().count(),
        0,
        "the file has no name"
    );

    let gone = Spill::Directory(directory.path().join("gone"));
    let mut writer = IndexWriter::new(gone);
    let entry = IndexEntry {
        page: page(1),
        offset: u64::MAX,
        length: u64::MAX,
    };
    let result = (0..100_000).try_for_each(|_| writer.push(&entry));
    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn an_output_that_fails_is_an_error() {
    #[derive(Debug)]
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0 < bytes.len() {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let pages = [(1, content(512, 2)), (2, content(512, 2))];
    let spec = Spec::incremental(512, 2, &pages);
    let write = |room| {
        let mut encoder = Encoder::new(Full(room), page_size(512), PageCount(2), Spill::Memory);
        for (number, data) in &spec.pages {
            encoder.page(*number, data)?;
        }
        encoder.finish(&spec.header, None)
    };
    let whole = spec.encode().len() - 100;
    write(whole).unwrap();
    for room in 0..whole {
        let error = crate::Error::from(write(room).unwrap_err());
        assert_eq!(error.kind(), crate::ErrorKind::Exhausted);
    }
}
