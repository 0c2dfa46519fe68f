//! How fast a WAL is read and verified from the page cache. Wanted: 1.5 GB/s and more.
//!
//! Run with `cargo bench -p walrust-core --bench wal_scan`.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::fs::File;
use std::io::{BufWriter, Write as _};

use divan::counter::BytesCount;
use walrust_core::wal::{FRAME_HEADER_BYTES, WalCursor, WalEnd, scan};

/// Larger than the processor's caches, smaller than what would make the benchmark long.
const WAL_BYTES: usize = 64 << 20;

fn main() {
    divan::main();
}

/// The WAL's checksum as the file format describes it, word by word.
fn checksum(bytes: &[u8], mut sum: [u32; 2]) -> [u32; 2] {
    for pair in bytes.chunks_exact(8) {
        let word = |at: usize| u32::from_le_bytes(pair[at..at + 4].try_into().unwrap());
        sum[0] = sum[0].wrapping_add(word(0)).wrapping_add(sum[1]);
        sum[1] = sum[1].wrapping_add(word(4)).wrapping_add(sum[0]);
    }
    sum
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// A WAL with a commit every ten frames.
fn wal(page_size: usize) -> (File, WalEnd) {
    let file = tempfile::tempfile().unwrap();
    let mut out = BufWriter::new(&file);
    let salt = [7, 9];
    let head = words(&[
        0x377f_0682,
        3_007_000,
        page_size as u32,
        0,
        salt[0],
        salt[1],
    ]);
    let mut sum = checksum(&head, [0, 0]);
    out.write_all(&head).unwrap();
    out.write_all(&words(&sum)).unwrap();
    let mut page = vec![0; page_size];
    let frames = (WAL_BYTES / (page_size + FRAME_HEADER_BYTES)) as u32;
    for number in 1..=frames {
        page[..4].copy_from_slice(&number.to_le_bytes());
        let commit = if number % 10 == 0 || number == frames {
            1000
        } else {
            0
        };
        let head = words(&[number % 1000 + 1, commit]);
        sum = checksum(&page, checksum(&head, sum));
        out.write_all(&head).unwrap();
        out.write_all(&words(&[salt[0], salt[1], sum[0], sum[1]]))
            .unwrap();
        out.write_all(&page).unwrap();
    }
    out.flush().unwrap();
    drop(out);
    let end = WalEnd {
        salt,
        frames,
        checksum: sum,
        big_endian: false,
    };
    (file, end)
}

#[divan::bench(args = [512, 4096, 65536])]
fn verified(bencher: divan::Bencher<'_, '_>, page_size: usize) {
    let (file, end) = wal(page_size);
    let start = WalCursor::start(&file).unwrap();
    let mut buffer = Vec::new();
    bencher.counter(BytesCount::new(WAL_BYTES)).bench_local(|| {
        let mut commits = 0_u32;
        scan(&file, &start, &end, &mut buffer, &mut |frame| {
            commits += u32::from(frame.commit.is_some());
            Ok(())
        })
        .unwrap();
        commits
    });
}
