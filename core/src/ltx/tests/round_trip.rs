//! What is written is read.

use proptest::prelude::*;

use super::*;

fn pages_of(size: u32, commit: u32, chosen: &[bool]) -> Vec<(u32, Vec<u8>)> {
    (1..=commit)
        .zip(chosen)
        .filter(|(_, chosen)| **chosen)
        .map(|(number, _)| (number, content(size, number)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_written_is_read(
        exponent in 9_u32..=16,
        chosen in proptest::collection::vec(any::<bool>(), 1..40),
        tracked in any::<bool>(),
        every in any::<bool>(),
    ) {
        let (size, commit) = (1 << exponent, chosen.len() as u32);
        let chosen = if every { vec![true; chosen.len()] } else { chosen };
        let mut spec = Spec::incremental(size, commit, &pages_of(size, commit, &chosen));
        if every {
            spec = spec.snapshot();
        }
        if tracked {
            spec = spec.tracked();
        }
        let file = spec.encode();
        let (verified, pages) = decode(&file).unwrap();
        prop_assert_eq!(&verified.header, &spec.header);
        prop_assert_eq!(verified.post_apply, spec.post_apply);
        prop_assert_eq!(verified.size, file.len() as u64);
        prop_assert_eq!(verified.pages, spec.pages.len() as u64);
        prop_assert_eq!(pages, spec.pages);
    }
}
