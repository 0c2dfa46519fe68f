//! Files read in sections, and their indexes.

use proptest::prelude::*;

use super::raw::*;
use super::*;

fn entries(file: &[u8]) -> Vec<IndexEntry> {
    let at = location(file);
    let index = &file[at.offset as usize..];
    IndexReader::new(index, at)
        .collect::<Result<_, _>>()
        .unwrap()
}

fn location(file: &[u8]) -> IndexLocation {
    IndexLocation::find(*file.last_chunk().unwrap(), file.len() as u64).unwrap()
}

fn section(file: &[u8], range: std::ops::Range<u64>) -> Result<(SectionSum, Pages), DecodeError> {
    let header = Header::decode(file).unwrap();
    let mut pages = Vec::new();
    let source = &file[range.start as usize..];
    let sum = decode_section(&header, range, source, |page| {
        assert_eq!(page.sum(), PageSum::of(page.number, page.data));
        pages.push((page.number, page.data.to_vec()));
        Ok::<_, DecodeError>(())
    })?;
    Ok((sum, pages))
}

fn tail(file: &[u8]) -> &[u8] {
    &file[location(file).offset as usize - 6..]
}

fn sample() -> Vec<u8> {
    let pages: Vec<_> = (1..=9).map(|n| (n, content(512, n))).collect();
    Spec::incremental(512, 9, &pages)
        .snapshot()
        .tracked()
        .encode()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn sections_give_what_one_pass_gives(
        exponent in 9_u32..=14,
        count in 1_u32..30,
        tracked in any::<bool>(),
        cuts in proptest::collection::btree_set(1_usize..30, 0..6),
    ) {
        let size = 1 << exponent;
        let pages: Vec<_> = (1..=count).map(|n| (n, content(size, n))).collect();
        let mut spec = Spec::incremental(size, count, &pages).snapshot();
        if tracked {
            spec = spec.tracked();
        }
        let file = spec.encode();
        let entries = entries(&file);
        let end = entries.last().unwrap().end();
        let mut borders = vec![100];
        borders.extend(cuts.iter().filter_map(|cut| entries.get(*cut)).map(|entry| entry.offset));
        borders.push(end);

        // In any order: the last first.
        let mut read: Vec<_> = borders
            .windows(2)
            .rev()
            .map(|pair| section(&file, pair[0]..pair[1]).unwrap())
            .collect();
        read.reverse();
        let mut check = FileCheck::new(&file).unwrap();
        let mut pages = Vec::new();
        for (sum, some) in read {
            prop_assert_eq!(sum.pages, some.len() as u64);
            prop_assert_eq!(sum.first, some.first().map(|page| page.0));
            prop_assert_eq!(sum.last, some.last().map(|page| page.0));
            check.section(&sum).unwrap();
            pages.extend(some);
        }
        let verified = check.finish(tail(&file)).unwrap();
        prop_assert_eq!((verified, pages), decode(&file).unwrap());
    }
}

#[test]
fn sections_must_follow_each_other() {
    let file = sample();
    let entries = entries(&file);
    let (first, _) = section(&file, 100..entries[4].offset).unwrap();
    let (second, _) = section(&file, entries[4].offset..entries[8].end()).unwrap();
    let check = || FileCheck::new(&file).unwrap();

    let error = check().section(&second).unwrap_err();
    assert!(matches!(error, DecodeError::SectionOrder { .. }));
    let mut twice = check();
    twice.section(&first).unwrap();
    twice.section(&first).unwrap_err();
    let error = twice.finish(tail(&file)).unwrap_err();
    assert!(
        matches!(error, DecodeError::Incomplete { found: 4, .. }),
        "{error}"
    );
    let rest = &file[entries[4].offset as usize..];
    let mut early = check();
    early.section(&first).unwrap();
    let error = early.finish(rest).unwrap_err();
    assert!(matches!(error, DecodeError::SectionOrder { .. }), "{error}");
}

#[test]
fn pages_ascend_across_sections() {
    let pages = [(2, content(512, 1)), (3, content(512, 2))];
    let mut raw = RawFile::of(&Spec::incremental(512, 8, &pages));
    raw.frames.swap(0, 1);
    let file = raw.build();
    let border = raw.entries()[1][1];
    let end = file.len() as u64 - tail(&file).len() as u64;
    let mut check = FileCheck::new(&file).unwrap();
    check
        .section(&section(&file, 100..border).unwrap().0)
        .unwrap();
    let error = check
        .section(&section(&file, border..end).unwrap().0)
        .unwrap_err();
    assert!(matches!(error, DecodeError::PageOrder { .. }));
}

#[test]
fn a_section_ends_where_a_frame_ends() {
    let file = sample();
    let entries = entries(&file);
    let end = entries[8].end();
    let error = section(&file, 100..entries[3].end() - 1).unwrap_err();
    assert!(matches!(error, DecodeError::Truncated { .. }), "{error}");
    let error = section(&file, 100..end + 6).unwrap_err();
    assert!(matches!(error, DecodeError::EarlyEnd { .. }), "{error}");
    // The source ends before the section does.
    let header = Header::decode(&file).unwrap();
    let short = &file[100..entries[3].end() as usize];
    let result = decode_section(&header, 100..end, short, |_| Ok::<_, DecodeError>(()));
    assert!(matches!(result, Err(DecodeError::Truncated { .. })));
}

#[test]
fn damage_in_a_section_is_found_at_the_end() {
    let file = sample();
    let end = entries(&file)[8].end();
    let mut found = 0;
    for at in 100..end as usize {
        let mut damaged = file.clone();
        damaged[at] ^= 4;
        let result = section(&damaged, 100..end).and_then(|(sum, pages)| {
            let mut check = FileCheck::new(&damaged)?;
            check.section(&sum)?;
            Ok((check.finish(tail(&damaged))?, pages))
        });
        match result {
            Err(_) => found += 1,
            Ok(same) => assert_eq!(same, decode(&file).unwrap()),
        }
    }
    assert!(found > 1000);
}

#[test]
fn an_index_that_breaks_a_rule_is_refused() {
    let good = vec![[1, 100, 50], [3, 150, 60], [9, 210, 7]];
    let causes = |bytes: &[u8], frames_end: u64| {
        let at = IndexLocation {
            offset: frames_end + 6,
            length: bytes.len() as u64,
        };
        let result: Result<Vec<_>, _> = IndexReader::new(bytes, at).collect();
        result.map_err(|error| match error {
            DecodeError::IndexEntry { cause, .. } => cause,
            error => panic!("{error:?}"),
        })
    };
    let read = causes(&index_bytes(&good), 217).unwrap();
    assert_eq!(read.len(), 3);
    assert_eq!(read[1].end(), 210);
    assert_eq!(causes(&[0], 100), Ok(vec![]));

    let with = |entry: usize, field: usize, value| {
        let mut entries = good.clone();
        entries[entry][field] = value;
        causes(&index_bytes(&entries), 217).unwrap_err()
    };
    assert_eq!(with(1, 0, 1), "page numbers do not ascend");
    assert_eq!(with(1, 0, 1 << 32), "a page number above 32 bits");
    assert_eq!(with(0, 1, 101), "frames do not abut");
    assert_eq!(with(2, 1, u64::MAX), "frames do not abut");
    assert_eq!(with(2, 2, 8), "a frame of an impossible length");
    assert_eq!(with(2, 2, u64::MAX), "a frame of an impossible length");
    assert_eq!(with(0, 2, 6), "a frame of an impossible length");
    assert_eq!(with(0, 0, 0), "it ends before its size");
    let index = index_bytes(&good);
    assert_eq!(
        causes(&index, 218).unwrap_err(),
        "its frames do not fill the file"
    );
    assert_eq!(
        causes(&index[..4], 217).unwrap_err(),
        "it goes on beyond its size"
    );
    assert_eq!(
        causes(&[0x81, 0], 217).unwrap_err(),
        "a number not in its shortest form"
    );
    assert_eq!(
        causes(&[0xff; 12], 217).unwrap_err(),
        "a number above 64 bits"
    );
    let mut eleven = vec![0x81; 10];
    eleven.push(1);
    assert_eq!(causes(&eleven, 217).unwrap_err(), "a number above 64 bits");
    // Its tenth byte has room for one bit.
    let mut too_large = vec![0x81];
    too_large.extend([0x80; 8]);
    too_large.push(2);
    assert_eq!(
        causes(&too_large, 217).unwrap_err(),
        "a number above 64 bits"
    );
}

#[test]
fn an_index_ends_with_its_first_error() {
    let at = IndexLocation {
        offset: 217,
        length: 9,
    };
    let mut reader = IndexReader::new(&[1, 99, 7, 2, 106, 7, 0][..], at);
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none());
}
