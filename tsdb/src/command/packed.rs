//! Lists of numbers of which neighbours are mostly alike in size: groups, each a base and what its numbers are
//! above it, all in as many bits as the largest needs. A group in which one number is far from the rest is
//! written number by number, if that takes less.
//!
//! docs/format/command.md draws it. The length of a list is known to whoever reads it.

use crate::fields::{Fields, Malformed, put_zigzag, varint_len, zigzag};

/// Numbers of a group; the last one of a list has the rest.
const GROUP: usize = 64;
/// In the place of a width: numbers stand one by one.
const SINGLY: u8 = 255;
/// Bytes of a group at most, and a word that is read beyond its end.
const GROUP_BYTES: usize = GROUP * 8 + 16;

pub fn put(out: &mut Vec<u8>, numbers: &[i64]) {
    for group in numbers.chunks(GROUP) {
        put_group(out, group);
    }
}

fn put_group(out: &mut Vec<u8>, group: &[i64]) {
    let base = group.iter().copied().min().expect("a chunk holds some");
    let above = |number: &i64| number.wrapping_sub(base) as u64;
    let all = group.iter().fold(0, |all, number| all | above(number));
    let width = 64 - all.leading_zeros();
    let packed = varint_len(zigzag(base)) + (group.len() * width as usize).div_ceil(8);
    let singly: usize = group.iter().map(|n| varint_len(zigzag(*n))).sum();
    if singly < packed {
        out.push(SINGLY);
        return group.iter().for_each(|number| put_zigzag(out, *number));
    }
    out.push(width as u8);
    put_zigzag(out, base);
    let (mut word, mut have) = (0u128, 0);
    for number in group {
        word |= u128::from(above(number)) << have;
        have += width;
        while have >= 64 {
            out.extend_from_slice(&(word as u64).to_le_bytes());
            word >>= 64;
            have -= 64;
        }
    }
    out.extend_from_slice(&(word as u64).to_le_bytes()[..have.div_ceil(8) as usize]);
}

/// Adds `count` numbers, which the caller has held against the bytes there are: alike ones take hardly any.
pub fn take(
    fields: &mut Fields<'_>,
    count: usize,
    numbers: &mut Vec<i64>,
) -> Result<(), Malformed> {
    numbers.reserve(count);
    let mut left = count;
    while left > 0 {
        let len = GROUP.min(left);
        take_group(fields, len, numbers)?;
        left -= len;
    }
    Ok(())
}

fn take_group(
    fields: &mut Fields<'_>,
    len: usize,
    numbers: &mut Vec<i64>,
) -> Result<(), Malformed> {
    let width = match fields.u8()? {
        SINGLY => {
            for _ in 0..len {
                numbers.push(fields.zigzag()?);
            }
            return Ok(());
        }
        width @ 0..=64 => usize::from(width),
        _ => return Err(Malformed("numbers of more than 64 bits")),
    };
    let base = fields.zigzag()?;
    let bytes = fields.take((len * width).div_ceil(8))?;
    let mut group = [0u8; GROUP_BYTES];
    group[..bytes.len()].copy_from_slice(bytes);
    let mask = u64::MAX.checked_shr(64 - width as u32).unwrap_or(0);
    let number = |above: u64| base.wrapping_add((above & mask) as i64);
    match width <= WITHIN_WORD {
        true => numbers.extend((0..len).map(|n| number(word_at(&group, n * width)))),
        false => numbers.extend((0..len).map(|n| number(bits_at(&group, n * width)))),
    }
    let spare = bytes.len() * 8 - len * width;
    match bytes.last() {
        Some(last) if u32::from(*last) >> (8 - spare) != 0 => {
            Err(Malformed("bits behind packed numbers"))
        }
        _ => Ok(()),
    }
}

/// Bits that a word has wherever in its first byte they begin.
const WITHIN_WORD: usize = 57;

/// As many bits from one on as the word has in whose first byte it is, the lowest first.
#[inline]
fn word_at(bytes: &[u8; GROUP_BYTES], at: usize) -> u64 {
    let word: [u8; 8] = bytes[at / 8..][..8].try_into().expect("eight bytes");
    u64::from_le_bytes(word) >> (at % 8)
}

/// The 64 bits from one on, the lowest first.
#[inline]
fn bits_at(bytes: &[u8; GROUP_BYTES], at: usize) -> u64 {
    let (byte, shift) = (at / 8, at % 8);
    let low = word_at(bytes, at);
    match shift {
        0 => low,
        _ => low | u64::from(bytes[byte + 8]) << (64 - shift),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(numbers: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, numbers);
        out
    }

    proptest! {
        #[test]
        fn numbers_come_back(
            numbers in prop::collection::vec(prop_oneof![any::<i64>(), -3i64..3, 0i64..1 << 40], 0..200),
        ) {
            let bytes = bytes_of(&numbers);
            let mut fields = Fields::new(&bytes);
            let mut read = Vec::new();
            prop_assert_eq!(take(&mut fields, numbers.len(), &mut read), Ok(()));
            prop_assert_eq!(read, numbers);
            prop_assert_eq!(fields.end(), Ok(()));
        }

        #[test]
        fn bytes_of_any_kind_are_numbers_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            count in 0usize..200,
        ) {
            // Read or not: nothing but a list says more than it was given.
            let mut numbers = Vec::new();
            if take(&mut Fields::new(&bytes), count, &mut numbers).is_ok() {
                prop_assert_eq!(numbers.len(), count);
            }
        }
    }

    #[test]
    fn a_number_takes_the_bits_it_needs() {
        let wide: Vec<i64> = (0..64).map(|n| 1_000_000 + n * 1_000).collect();
        assert_eq!(bytes_of(&wide).len(), 1 + 3 + 64 * 16 / 8);
        assert_eq!(bytes_of(&[7; 64]).len(), 2);
        let mut odd = [1; 64];
        odd[9] = i64::MAX;
        assert_eq!(bytes_of(&odd).len(), 1 + 63 + 10);
    }

    #[test]
    fn spare_bits_are_zero() {
        let bytes = bytes_of(&[0, 1, 2]);
        assert_eq!(bytes, [2, 0, 0b10_01_00]);
        let take = |bytes: &[u8]| take(&mut Fields::new(bytes), 3, &mut Vec::new());
        assert!(take(&bytes).is_ok());
        assert!(take(&[2, 0, 0b1010_0100]).is_err());
        assert!(take(&[65, 0, 0]).is_err());
    }
}
