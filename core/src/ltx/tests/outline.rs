//! A file under another header is the file that would have been written with it.

use super::*;

fn spec() -> Spec {
    let pages: Vec<_> = (1..30).map(|n| (n, content(512, n))).collect();
    Spec::incremental(512, 40, &pages).tracked()
}

fn reheaded(file: &[u8], header: &Header) -> Result<Reheaded, EncodeError> {
    let mut pages = Vec::new();
    let outline = Outline::read(std::io::Cursor::new(file), |page| pages.push(page)).unwrap();
    assert_eq!(outline.pages, pages.len() as u64);
    outline.under(header)
}

#[test]
fn an_outline_is_what_the_whole_file_says() {
    let spec = spec();
    let file = spec.encode();
    let mut pages = Vec::new();
    let outline = Outline::read(std::io::Cursor::new(&file), |page| pages.push(page)).unwrap();
    let (verified, decoded) = decode(&file).unwrap();
    assert_eq!(outline.header, verified.header);
    assert_eq!(outline.post_apply, verified.post_apply);
    assert_eq!(
        pages,
        decoded.iter().map(|(page, _)| *page).collect::<Vec<_>>()
    );
    for length in 0..file.len() {
        assert!(Outline::read(std::io::Cursor::new(&file[..length]), |_| {}).is_err());
    }
}

#[test]
fn another_header_gives_the_bytes_that_an_encoder_gives() {
    let old = spec();
    let file = old.encode();
    for epoch in [4, 5, 0x00ff_ffff] {
        let mut other = old.clone();
        other.header.range = range(4, 5);
        other.header.node = StreamId {
            epoch: Epoch::new(epoch).unwrap(),
            ..stream()
        }
        .to_node_id();
        other.header.mark = Mark::Rebase;
        other.header.tracking = Tracking::Tracked {
            pre_apply: Some(Checksum::from_crc(u64::from(epoch) << 40)),
        };
        let expected = other.encode();
        let parts = reheaded(&file, &other.header).unwrap();
        // However it is cut into reads.
        for step in [1, 7, 99, 100, 101, 4096, file.len()] {
            let mut found = Vec::new();
            for (at, piece) in file.chunks(step).enumerate() {
                let mut piece = piece.to_vec();
                parts.lay_over((at * step) as u64, &mut piece);
                found.extend(piece);
            }
            let differ: Vec<_> = (0..found.len())
                .filter(|at| found[*at] != expected[*at])
                .collect();
            assert!(
                differ.is_empty(),
                "epoch {epoch}, reads of {step}: bytes {differ:?} of {}",
                found.len()
            );
        }
        assert_eq!(decode(&expected).unwrap().0.header, other.header);
    }
}

#[test]
fn what_is_said_of_the_pages_stays() {
    let old = spec();
    let file = old.encode();
    let refused = |change: &dyn Fn(&mut Header)| {
        let mut header = old.header.clone();
        change(&mut header);
        assert!(reheaded(&file, &header).is_err(), "{header:?}");
    };
    refused(&|header| header.commit = PageCount(41));
    refused(&|header| header.range = range(2, 6));
    refused(&|header| header.range = range(1, 5));
    refused(&|header| header.digest = Some(Digest::new(5)));
    refused(&|header| header.tracking = Tracking::Untracked);
    refused(&|header| header.mark = Mark::Base);
    refused(&|header| header.timestamp = Timestamp::from_millis(1));
    assert!(reheaded(&file, &old.header).is_ok());
}

#[test]
fn a_damaged_file_stays_damaged_under_another_header() {
    let old = spec();
    let file = old.encode();
    let mut other = old.header.clone();
    other.range = range(3, 5);
    for at in [100, 150, file.len() / 2, file.len() - 10, file.len() - 1] {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        reheaded(&damaged, &other)
            .unwrap()
            .lay_over(0, &mut damaged);
        assert!(decode(&damaged).is_err(), "byte {at}");
    }
}
