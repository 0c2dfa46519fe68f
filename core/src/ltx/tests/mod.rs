//! Tests of the format as a whole.

mod damage;
mod frames;
mod golden;
mod outline;
mod raw;
mod round_trip;
mod rules;
mod sections;
mod writing;

use super::*;
use crate::types::{
    Checksum, DatabaseSum, Digest, Epoch, Lineage, PageCount, PageNumber, PageSize, PageSum,
    StreamId, Timestamp, Txid, TxidRange,
};

fn page(number: u32) -> PageNumber {
    PageNumber::new(number).unwrap()
}

fn page_size(bytes: u32) -> PageSize {
    PageSize::new(bytes).unwrap()
}

fn range(min: u64, max: u64) -> TxidRange {
    TxidRange::new(Txid::new(min).unwrap(), Txid::new(max).unwrap()).unwrap()
}

fn stream() -> StreamId {
    StreamId {
        lineage: Lineage::new(0x12_3456_789a).unwrap(),
        epoch: Epoch::new(3).unwrap(),
    }
}

/// A file that walrust might write, its post-apply checksum and its pages.
#[derive(Clone, Debug)]
struct Spec {
    header: Header,
    post_apply: Option<Checksum>,
    pages: Vec<(PageNumber, Vec<u8>)>,
}

impl Spec {
    /// An untracked file of transactions 2 to 5.
    fn incremental(size: u32, commit: u32, pages: &[(u32, Vec<u8>)]) -> Self {
        Self {
            header: Header {
                page_size: page_size(size),
                commit: PageCount(commit),
                range: range(2, 5),
                timestamp: Timestamp::from_millis(1_700_000_000_123),
                tracking: Tracking::Untracked,
                wal: None,
                node: 0,
                digest: None,
                mark: Mark::None,
                span_ms: 0,
            },
            post_apply: None,
            pages: pages
                .iter()
                .map(|(n, data)| (page(*n), data.clone()))
                .collect(),
        }
    }

    /// The same with checksums, digest and stream.
    fn tracked(mut self) -> Self {
        let mut sum = DatabaseSum::EMPTY;
        for (number, data) in &self.pages {
            sum.add(PageSum::of(*number, data));
        }
        let pre_apply = (!self.header.range.is_snapshot()).then(|| Checksum::from_crc(77));
        self.header.tracking = Tracking::Tracked { pre_apply };
        self.header.node = stream().to_node_id();
        self.header.digest = Some(Digest::new(sum.digest.get() | 1));
        self.header.span_ms = 1500;
        self.post_apply = Some(sum.checksum);
        self
    }

    fn snapshot(mut self) -> Self {
        self.header.range = range(1, 5);
        self
    }

    fn write(&self, spill: Spill) -> Result<(Vec<u8>, Finished<Vec<u8>>), EncodeError> {
        let (size, commit) = (self.header.page_size, self.header.commit);
        let mut encoder = Encoder::new(Vec::new(), size, commit, spill);
        for (number, data) in &self.pages {
            if data.len() == size.bytes() {
                let page = Page::new(*number, data, size);
                assert_eq!(page.sum(), PageSum::of(*number, data));
            }
            encoder.page(*number, data)?;
        }
        let finished = encoder.finish(&self.header, self.post_apply)?;
        let mut file = finished.header.to_vec();
        file.extend(&finished.out);
        assert_eq!(finished.size, file.len() as u64);
        Ok((file, finished))
    }

    fn encode(&self) -> Vec<u8> {
        self.write(Spill::Memory).unwrap().0
    }
}

type Pages = Vec<(PageNumber, Vec<u8>)>;

/// Reads a file to its end.
fn decode(file: &[u8]) -> Result<(Verified, Pages), DecodeError> {
    let mut decoder = Decoder::new(file)?;
    let (mut pages, mut data) = (Vec::new(), Vec::new());
    while let Some(page) = decoder.next_summed(&mut data)? {
        assert_eq!(page.sum(), PageSum::of(page.number, page.data));
        pages.push((page.number, page.data.to_vec()));
    }
    Ok((decoder.finish()?, pages))
}

/// Pages of all kinds: zeros, text, noise, mixtures.
fn content(size: u32, seed: u32) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed.into());
    let mut data = vec![0; size as usize];
    match seed % 4 {
        0 => {}
        1 => data
            .iter_mut()
            .zip(b"the quick brown fox ".iter().cycle())
            .for_each(|(to, from)| *to = *from),
        2 => random.fill(&mut data),
        _ => {
            let half = data.len() / 2;
            random.fill(&mut data[..half]);
        }
    }
    data
}
