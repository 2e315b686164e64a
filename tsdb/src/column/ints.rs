//! A row of whole numbers: what a simple rule says of each is taken away, and what remains is
//! coded by `bins`.
//!
//! Rules: nothing, the number before, the line through the two before, or one straight line
//! through all. A factor that all distances from the first share is taken out beforehand.

use super::bins;
use crate::fields::{Fields, Malformed, put_varint, put_zigzag};

const PLAIN: u8 = 0;
const DELTA: u8 = 1;
const DELTA_OF_DELTA: u8 = 2;
const LINE: u8 = 3;
const FACTOR: u8 = 4;

/// A line's slope counts in so many parts of one.
const SLOPE_BITS: u32 = 16;
/// Above it a product with a place in a column would leave 64 bits.
const SLOPE_MAX: i128 = 1 << 50;

/// Appends `numbers`.
pub fn encode(numbers: &[i64], out: &mut Vec<u8>) {
    let Some(&first) = numbers.first() else {
        return;
    };
    let factor = factor_of(numbers);
    if factor <= 1 {
        return encode_row(numbers, 0, out, |_| {});
    }
    let reduced: Vec<i64> = numbers
        .iter()
        .map(|n| n.wrapping_sub(first) / factor)
        .collect();
    encode_row(&reduced, FACTOR, out, |out| {
        put_zigzag(out, first);
        put_varint(out, factor as u64);
    });
}

/// Reads `count` numbers; nothing may follow them.
pub fn decode(bytes: &[u8], count: usize) -> Result<Vec<i64>, Malformed> {
    let mut fields = Fields::new(bytes);
    if count == 0 {
        fields.end()?;
        return Ok(Vec::new());
    }
    let flags = fields.u8()?;
    let factor = match flags & FACTOR {
        0 => None,
        _ => Some((fields.zigzag()?, fields.varint()? as i64)),
    };
    let mut numbers = decode_row(flags & !FACTOR, &mut fields, count)?;
    if let Some((first, factor)) = factor {
        for number in &mut numbers {
            *number = number.wrapping_mul(factor).wrapping_add(first);
        }
    }
    Ok(numbers)
}

/// The largest factor of all distances from the first; 0 when they are all zero, 1 when some
/// distance does not fit.
fn factor_of(numbers: &[i64]) -> i64 {
    let first = numbers[0];
    let mut factor = 0u64;
    for number in numbers {
        let Some(distance) = number.checked_sub(first) else {
            return 1;
        };
        factor = greatest_common(factor, distance.unsigned_abs());
        if factor == 1 {
            return 1;
        }
    }
    i64::try_from(factor).unwrap_or(1)
}

fn greatest_common(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn encode_row(numbers: &[i64], flags: u8, out: &mut Vec<u8>, head: impl FnOnce(&mut Vec<u8>)) {
    let deltas = differences(numbers);
    let changes = differences(&deltas);
    let mut best = (bins::estimate(numbers), PLAIN);
    let mut offer = |bits: u64, rule: u8| {
        if bits < best.0 {
            best = (bits, rule);
        }
    };
    offer(bins::estimate(&deltas) + 24, DELTA);
    offer(bins::estimate(&changes) + 40, DELTA_OF_DELTA);
    let line = slope_of(numbers).map(|slope| (slope, beside_line(numbers, slope)));
    if let Some((_, rests)) = &line {
        offer(bins::estimate(rests) + 24, LINE);
    }
    out.push(flags | best.1);
    head(out);
    match (best.1, &line) {
        (DELTA, _) => {
            put_zigzag(out, numbers[0]);
            bins::encode(&deltas, out);
        }
        (DELTA_OF_DELTA, _) => {
            put_zigzag(out, numbers[0]);
            put_zigzag(out, deltas.first().copied().unwrap_or(0));
            bins::encode(&changes, out);
        }
        (LINE, Some((slope, rests))) => {
            put_zigzag(out, *slope);
            bins::encode(rests, out);
        }
        _ => bins::encode(numbers, out),
    }
}

fn decode_row(rule: u8, fields: &mut Fields<'_>, count: usize) -> Result<Vec<i64>, Malformed> {
    let mut numbers = match rule {
        PLAIN => bins::decode_behind(&[], fields.take(fields.remaining())?, count)?,
        DELTA => {
            let first = fields.zigzag()?;
            bins::decode_behind(&[first], fields.take(fields.remaining())?, count - 1)?
        }
        DELTA_OF_DELTA => {
            let (first, delta) = (fields.zigzag()?, fields.zigzag()?);
            let front = &[first, delta][..count.min(2)];
            let bytes = fields.take(fields.remaining())?;
            let mut numbers = bins::decode_behind(front, bytes, count.saturating_sub(2))?;
            sum_up(&mut numbers[1..]);
            numbers
        }
        LINE => {
            let slope = fields.zigzag()?;
            let bytes = fields.take(fields.remaining())?;
            let mut numbers = bins::decode_behind(&[], bytes, count)?;
            for (place, number) in numbers.iter_mut().enumerate() {
                *number = number.wrapping_add(on_line(slope, place));
            }
            numbers
        }
        _ => return Err(Malformed("unknown rule of numbers")),
    };
    if rule == DELTA || rule == DELTA_OF_DELTA {
        sum_up(&mut numbers);
    }
    Ok(numbers)
}

fn sum_up(numbers: &mut [i64]) {
    let mut sum = 0i64;
    for number in numbers {
        sum = sum.wrapping_add(*number);
        *number = sum;
    }
}

fn differences(numbers: &[i64]) -> Vec<i64> {
    let pairs = numbers.windows(2);
    pairs.map(|pair| pair[1].wrapping_sub(pair[0])).collect()
}

fn on_line(slope: i64, place: usize) -> i64 {
    slope.wrapping_mul(place as i64) >> SLOPE_BITS
}

fn beside_line(numbers: &[i64], slope: i64) -> Vec<i64> {
    let places = numbers.iter().enumerate();
    places
        .map(|(place, number)| number.wrapping_sub(on_line(slope, place)))
        .collect()
}

/// The slope of the line that lies nearest by least squares, in `1 << SLOPE_BITS` parts; `None`
/// when it is too steep, or flat.
fn slope_of(numbers: &[i64]) -> Option<i64> {
    if numbers.len() < 8 {
        return None;
    }
    let (mut y, mut xy) = (0i128, 0i128);
    for (place, number) in numbers.iter().enumerate() {
        let above = i128::from(*number) - i128::from(numbers[0]);
        y += above;
        xy += above * place as i128;
    }
    let n = numbers.len() as i128;
    let x = n * (n - 1) / 2;
    let xx = (n - 1) * n * (2 * n - 1) / 6;
    let slope = (n * xy - x * y).checked_mul(1 << SLOPE_BITS)? / (n * xx - x * x);
    (slope != 0 && slope.abs() < SLOPE_MAX).then_some(slope as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(numbers: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(numbers, &mut out);
        out
    }

    proptest! {
        #[test]
        fn numbers_come_back(numbers in prop_oneof![
            prop::collection::vec(any::<i64>(), 0..50),
            prop::collection::vec(prop_oneof![Just(i64::MIN), Just(i64::MAX), -5i64..5], 0..50),
            prop::collection::vec(-3i64..3, 0..600),
            (any::<i64>(), prop::collection::vec(0i64..100, 0..300)).prop_map(|(from, steps)| {
                steps.iter().scan(from, |sum, step| { *sum = sum.wrapping_add(*step * 4096); Some(*sum) }).collect()
            }),
            (-(1i64 << 60)..1 << 60, -(1i64 << 40)..1 << 40, prop::collection::vec(0i64..3000, 0..300)).prop_map(|(from, slope, noise)| {
                noise.iter().enumerate().map(|(i, n)| from + slope * i as i64 + n).collect()
            }),
        ]) {
            let bytes = bytes_of(&numbers);
            prop_assert_eq!(decode(&bytes, numbers.len()), Ok(numbers));
        }

        #[test]
        fn arbitrary_bytes_never_panic(flags in 0u8..8, bytes in prop::collection::vec(any::<u8>(), 0..120), count in 0usize..500) {
            let _ = decode(&bytes, count);
            let _ = decode(&[&[flags][..], &bytes].concat(), count);
        }
    }

    #[test]
    fn a_regular_row_takes_a_few_bytes() {
        let times: Vec<i64> = (0..4000).map(|n| 1_700_000_000_000 + n * 15_000).collect();
        assert!(bytes_of(&times).len() < 20);
        assert!(bytes_of(&[7; 4000]).len() < 8);
        let noisy: Vec<i64> = (0..1000)
            .map(|n| 1_000_000 + n * 777 + n * n % 64)
            .collect();
        assert!(bytes_of(&noisy).len() < 800, "the line is found");
    }
}
