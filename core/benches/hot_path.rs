//! What every captured page passes through: its sums, encoding, decoding.
//!
//! `cargo bench -p walrust-core`. Throughput is in bytes of database pages.

#![allow(missing_docs, clippy::unwrap_used)]

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use walrust_core::ltx::{Decoder, Encoder, Header, Mark, Page, Spill, Tracking};
use walrust_core::types::{PageCount, PageNumber, PageSize, PageSum, Timestamp, Txid, TxidRange};

fn main() {
    divan::main();
}

const PAGES: u32 = 256;

/// What the pages hold.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// Rows of words and numbers: shrinks to about a half.
    Rows,
    /// What no compressor shrinks: images, encrypted values.
    Noise,
    /// Pages not yet used.
    Zeros,
}

const CONTENTS: [Content; 3] = [Content::Rows, Content::Noise, Content::Zeros];

fn pages(size: PageSize, content: Content) -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..PAGES)
        .map(|_| page(size.bytes(), content, &mut random))
        .collect()
}

fn page(size: usize, content: Content, random: &mut fastrand::Rng) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "alpha",
        "order",
        "paid",
        "customer",
        "2024-11-05T10:",
        "shipped",
        "note",
        "invoice",
        "street",
        "@example.org",
        "pending",
        "EUR",
    ];
    let mut data = Vec::with_capacity(size + 64);
    match content {
        Content::Zeros => {}
        Content::Noise => data.extend(std::iter::repeat_with(|| random.u8(..)).take(size)),
        Content::Rows => {
            while data.len() < size {
                data.extend(random.u32(..).to_be_bytes());
                data.extend(random.u16(..).to_be_bytes());
                for _ in 0..random.usize(2..6) {
                    data.extend(random.choice(WORDS).unwrap_or_default().bytes());
                    data.push(random.u8(..));
                }
            }
        }
    }
    data.resize(size, 0);
    data
}

fn number(index: usize) -> PageNumber {
    PageNumber::new(index as u32 + 1).unwrap()
}

fn page_size(bytes: u32) -> PageSize {
    PageSize::new(bytes).unwrap()
}

fn total(size: PageSize) -> BytesCount {
    BytesCount::new(size.bytes() as u64 * u64::from(PAGES))
}

#[divan::bench(args = [512, 4096, 65536])]
fn page_sum(bencher: Bencher<'_, '_>, bytes: u32) {
    let size = page_size(bytes);
    let pages = pages(size, Content::Rows);
    bencher.counter(total(size)).bench(|| {
        for (index, data) in pages.iter().enumerate() {
            black_box(PageSum::of(number(index), data));
        }
    });
}

fn encode(size: PageSize, pages: &[Vec<u8>]) -> Vec<u8> {
    let commit = PageCount(PAGES);
    let mut encoder = Encoder::new(Vec::new(), size, commit, Spill::Memory);
    for (index, data) in pages.iter().enumerate() {
        let page = Page::new(number(index), data, size);
        encoder.write(&page).unwrap();
        black_box(page.sum());
    }
    let header = Header {
        page_size: size,
        commit,
        range: TxidRange::single(Txid::new(2).unwrap()),
        timestamp: Timestamp::from_millis(0),
        tracking: Tracking::Untracked,
        wal: None,
        node: 0,
        digest: None,
        mark: Mark::None,
        span_ms: 0,
    };
    let finished = encoder.finish(&header, None).unwrap();
    let mut file = finished.header.to_vec();
    file.extend(finished.out);
    file
}

#[divan::bench(args = CONTENTS)]
fn ltx_encode_with_sums(bencher: Bencher<'_, '_>, content: Content) {
    let size = page_size(4096);
    let pages = pages(size, content);
    bencher.counter(total(size)).bench(|| encode(size, &pages));
}

/// A file of one page: what an idle application's commit costs.
#[divan::bench]
fn ltx_encode_one_page(bencher: Bencher<'_, '_>) {
    let size = page_size(4096);
    let pages = pages(size, Content::Rows);
    bencher.bench(|| encode(size, &pages[..1]));
}

#[divan::bench(args = CONTENTS)]
fn ltx_decode(bencher: Bencher<'_, '_>, content: Content) {
    let size = page_size(4096);
    let file = encode(size, &pages(size, content));
    bencher
        .counter(total(size))
        .bench(|| Decoder::new(&file[..]).unwrap().finish().unwrap());
}

#[divan::bench(args = CONTENTS)]
fn ltx_decode_with_sums(bencher: Bencher<'_, '_>, content: Content) {
    let size = page_size(4096);
    let file = encode(size, &pages(size, content));
    bencher.counter(total(size)).bench(|| {
        let mut decoder = Decoder::new(&file[..]).unwrap();
        let mut data = Vec::new();
        while let Some(page) = decoder.next_summed(&mut data).unwrap() {
            black_box(page.sum());
        }
        decoder.finish().unwrap()
    });
}
