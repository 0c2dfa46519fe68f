//! The WAL's own two-word running sum.

use super::RunningSum;

/// `sum` after `bytes`, whose length is a multiple of 8 (a rest is ignored; no caller has one).
///
/// `big_endian` is the low bit of the WAL's magic number: the order in which the checksum reads words,
/// whatever machine this is. Frame headers store the sum itself big-endian in both cases.
pub(super) fn running_sum(big_endian: bool, bytes: &[u8], sum: RunningSum) -> RunningSum {
    if big_endian {
        fold(bytes, sum, u32::from_be_bytes)
    } else {
        fold(bytes, sum, u32::from_le_bytes)
    }
}

#[inline(always)]
fn fold(bytes: &[u8], [mut a, mut b]: RunningSum, read: impl Fn([u8; 4]) -> u32) -> RunningSum {
    // Each word waits for the sum of the other, so that only the order of the additions helps:
    // what comes from memory is added first, off the chain.
    let (pairs, _) = bytes.as_chunks::<8>();
    for &[b0, b1, b2, b3, b4, b5, b6, b7] in pairs {
        a = a.wrapping_add(read([b0, b1, b2, b3])).wrapping_add(b);
        b = b.wrapping_add(read([b4, b5, b6, b7])).wrapping_add(a);
    }
    [a, b]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_byte_orders_differ_and_split_anywhere() {
        let bytes: Vec<u8> = (0..4096u32).map(|i| (i * 7 + i / 13) as u8).collect();
        for big_endian in [false, true] {
            let whole = running_sum(big_endian, &bytes, [1, 2]);
            let (head, tail) = bytes.split_at(24);
            let parts = running_sum(big_endian, tail, running_sum(big_endian, head, [1, 2]));
            assert_eq!(whole, parts);
        }
        assert_ne!(
            running_sum(false, &bytes, [0, 0]),
            running_sum(true, &bytes, [0, 0])
        );
        assert_eq!(running_sum(true, &[0, 0, 0, 1, 0, 0, 0, 2], [0, 0]), [1, 3]);
        assert_eq!(
            running_sum(false, &[1, 0, 0, 0, 2, 0, 0, 0], [0, 0]),
            [1, 3]
        );
    }
}
