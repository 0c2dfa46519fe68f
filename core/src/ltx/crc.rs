//! CRC sums that can be joined, so that a page is read once for all the sums it belongs to.
//!
//! For a CRC whose initial value and final XOR are all ones, the sum of `a` followed by `b` is the sum
//! of `a` moved on by the length of `b`, XOR the sum of `b`. Moving on by n bytes is a multiplication
//! by x^8n modulo the polynomial.

use std::sync::OnceLock;

use crate::types::{CRC, PageNumber, PageSize};

/// x^64 + x^4 + x^3 + x + 1, reflected: bit 63 is the coefficient of x^0.
const POLYNOMIAL: u64 = 0xd800_0000_0000_0000;
const ONE: u64 = 1 << 63;
/// x^8: one byte.
const BYTE: u64 = ONE >> 8;

/// The CRC-64 of a run of bytes and their number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Sum {
    /// The CRC, without the flag of stored checksums.
    pub(super) crc: u64,
    /// Bytes covered.
    pub(super) length: u64,
}

impl Sum {
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            crc: crc_fast::checksum(CRC, bytes),
            length: bytes.len() as u64,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        let mut digest = crc_fast::Digest::new_with_init_state(CRC, !self.crc);
        digest.update(bytes);
        self.crc = digest.finalize();
        self.length += bytes.len() as u64;
    }

    /// Appends the bytes that `next` covers.
    pub(super) fn join(&mut self, next: Self) {
        self.crc = multiply(self.crc, power(next.length)) ^ next.crc;
        self.length += next.length;
    }

    /// Appends a page whose sum alone is `page`.
    pub(super) fn join_page(&mut self, page: Self, shift: &Shift) {
        self.crc = shift.apply(self.crc) ^ page.crc;
        self.length += page.length;
    }
}

/// The checksum of page `number` (with the flag), from the CRC of its content alone.
pub(super) fn page_checksum(number: PageNumber, content: Sum, shift: &Shift) -> u64 {
    let mut sum = Sum::of(&number.get().to_be_bytes());
    sum.join_page(content, shift);
    sum.crc | 1 << 63
}

/// Moves a CRC on by the bytes of one page: a table of 2 KiB, one row for each 4 bits.
pub(super) struct Shift([[u64; 16]; 16]);

impl Shift {
    /// The shift by one page of `size`.
    pub(super) fn page(size: PageSize) -> &'static Self {
        static SHIFTS: [OnceLock<Box<Shift>>; 8] = [const { OnceLock::new() }; 8];
        let exponent = size.bytes().trailing_zeros().saturating_sub(9) as usize;
        #[allow(clippy::indexing_slicing, reason = "page sizes are 2^9 to 2^16")]
        SHIFTS[exponent & 7].get_or_init(|| Box::new(Self::by(size.bytes() as u64)))
    }

    fn by(length: u64) -> Self {
        let factor = power(length);
        let mut table = [[0; 16]; 16];
        for (row, bit) in table.iter_mut().zip((0..64).step_by(4)) {
            for (entry, nibble) in row.iter_mut().zip(0_u64..) {
                *entry = multiply(factor, nibble << bit);
            }
        }
        Self(table)
    }

    #[allow(clippy::indexing_slicing, reason = "4 bits index 16 entries")]
    fn apply(&self, crc: u64) -> u64 {
        let mut moved = 0;
        for (row, bit) in self.0.iter().zip((0..64).step_by(4)) {
            moved ^= row[(crc >> bit & 15) as usize];
        }
        moved
    }
}

/// What the difference of two sums becomes behind `length` more equal bytes.
pub(super) fn advanced(difference: u64, length: u64) -> u64 {
    multiply(difference, power(length))
}

/// The product modulo the polynomial.
fn multiply(mut a: u64, mut b: u64) -> u64 {
    let mut product = 0;
    while a != 0 {
        if a & ONE != 0 {
            product ^= b;
        }
        a <<= 1;
        b = b >> 1 ^ if b & 1 == 0 { 0 } else { POLYNOMIAL };
    }
    product
}

/// x^8 to the power of `bytes`.
fn power(mut bytes: u64) -> u64 {
    let (mut result, mut base) = (ONE, BYTE);
    while bytes != 0 {
        if bytes & 1 != 0 {
            result = multiply(result, base);
        }
        base = multiply(base, base);
        bytes >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PageCount, PageSum};

    fn noise(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 31 + i / 251) as u8).collect()
    }

    #[test]
    fn joined_sums_equal_the_sum_of_the_whole() {
        let data = noise(100_000);
        for cut in [0, 1, 10, 4096, 65_536, 99_999, 100_000] {
            let (head, tail) = data.split_at(cut);
            let mut sum = Sum::of(head);
            sum.join(Sum::of(tail));
            assert_eq!(sum, Sum::of(&data), "{cut}");
            let oracle = crc_fast::checksum_combine(
                CRC,
                Sum::of(head).crc,
                Sum::of(tail).crc,
                tail.len() as u64,
            );
            assert_eq!(sum.crc, oracle);
            let mut running = Sum::of(head);
            running.update(tail);
            assert_eq!(running, sum);
        }
    }

    #[test]
    fn a_page_checksum_needs_the_content_sum_only() {
        for exponent in 9..=16 {
            let size = PageSize::new(1 << exponent).unwrap();
            let data = noise(size.bytes());
            for number in [1, 2, 0x0102_0304, u32::MAX] {
                let number = PageNumber::new(number).unwrap();
                assert_eq!(
                    page_checksum(number, Sum::of(&data), Shift::page(size)),
                    PageSum::of(number, &data).crc
                );
            }
        }
    }

    #[test]
    fn a_database_checksum_leaves_out_the_lock_page() {
        let size = PageSize::new(4096).unwrap();
        let content = Sum::of(&[0x78; 4096]);
        let rolling = size
            .stored_pages(PageCount(262_155))
            .map(|page| page_checksum(page, content, Shift::page(size)))
            .fold(0, |sum, page| sum ^ page);
        assert_eq!(rolling | 1 << 63, 0xc19b_668c_3766_62c7);
    }
}
