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
    let mut open = open(bytes, count)?;
    let mut symbols = Vec::new();
    if let Some(coded) = open.coded() {
        coded.fill(&mut symbols);
    }
    open.finish(&symbols)
}

/// A row whose rule is known, and whose symbols, if it has any, are still to be read.
pub struct Open<'a> {
    rule: Rule,
    /// First number and factor.
    factor: Option<(i64, i64)>,
    count: usize,
    /// None of a row without numbers.
    bins: Option<bins::Open<'a>>,
}

/// What is to be added to what remains of numbers.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Plain,
    Delta(i64),
    DeltaOfDelta(i64, i64),
    Line(i64),
}

/// Looks at `count` numbers.
pub fn open(bytes: &[u8], count: usize) -> Result<Open<'_>, Malformed> {
    let mut fields = Fields::new(bytes);
    if count == 0 {
        fields.end()?;
        return Ok(Open {
            rule: Rule::Plain,
            factor: None,
            count,
            bins: None,
        });
    }
    let flags = fields.u8()?;
    let factor = match flags & FACTOR {
        0 => None,
        _ => Some((fields.zigzag()?, fields.varint()? as i64)),
    };
    let (rule, coded) = match flags & !FACTOR {
        PLAIN => (Rule::Plain, count),
        DELTA => (Rule::Delta(fields.zigzag()?), count - 1),
        DELTA_OF_DELTA => {
            let (first, delta) = (fields.zigzag()?, fields.zigzag()?);
            (Rule::DeltaOfDelta(first, delta), count.saturating_sub(2))
        }
        LINE => (Rule::Line(fields.zigzag()?), count),
        _ => return Err(Malformed("unknown rule of numbers")),
    };
    let bins = bins::open(fields.take(fields.remaining())?, coded)?;
    Ok(Open {
        rule,
        factor,
        count,
        bins: Some(bins),
    })
}

impl<'a> Open<'a> {
    /// What has symbols to be read.
    pub fn coded(&mut self) -> Option<&mut bins::Coded<'a>> {
        self.bins.as_mut().and_then(bins::Open::coded)
    }

    /// The numbers, whose `symbols` were read; nothing may be left.
    pub fn finish(self, symbols: &[u8]) -> Result<Vec<i64>, Malformed> {
        let mut numbers = Vec::with_capacity(self.count);
        match self.rule {
            Rule::Plain | Rule::Line(_) => {}
            Rule::Delta(first) => numbers.push(first),
            Rule::DeltaOfDelta(first, delta) => {
                numbers.extend_from_slice(&[first, delta][..self.count.min(2)]);
            }
        }
        if let Some(bins) = self.bins {
            bins.finish(symbols, &mut numbers)?;
        }
        match self.rule {
            Rule::Plain => {}
            Rule::Delta(_) => sum_up(&mut numbers),
            Rule::DeltaOfDelta(..) => {
                sum_up(&mut numbers[1..]);
                sum_up(&mut numbers);
            }
            Rule::Line(slope) => {
                for (place, number) in numbers.iter_mut().enumerate() {
                    *number = number.wrapping_add(on_line(slope, place));
                }
            }
        }
        if let Some((first, factor)) = self.factor {
            for number in &mut numbers {
                *number = number.wrapping_mul(factor).wrapping_add(first);
            }
        }
        Ok(numbers)
    }
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
