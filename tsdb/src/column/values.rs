//! Values of a run, exact by bits: whatever NaN, infinity, zero or denormal goes in comes out.
//!
//! A column is one value again and again, or decimal numbers (`digits / 10^places`, checked to give
//! the very bits), or the bits themselves in an order that follows the numbers. The few values that
//! are no such decimals (staleness markers, infinities, minus zero) stand beside.

use super::bins::Coded;
use super::ints;
use crate::fields::{Fields, Malformed, put_u64, put_varint};

const CONSTANT: u8 = 0;
const DECIMAL: u8 = 1;
const BITS: u8 = 2;

/// Powers of ten are exact to `10^22`; digits beyond 53 bits are not exact anyway.
const PLACES_MAX: u8 = 15;
const DIGITS_MAX: f64 = (1u64 << 53) as f64;
/// Of so many values one may stand beside.
const ODD_SHARE: usize = 16;

const POWERS: [f64; PLACES_MAX as usize + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// Appends values by their bits.
pub fn encode(values: &[u64], out: &mut Vec<u8>) {
    let Some(&first) = values.first() else {
        return;
    };
    if values.iter().all(|&bits| bits == first) {
        out.push(CONSTANT);
        return put_u64(out, first);
    }
    match Decimals::of(values) {
        Some(decimals) => decimals.encode(out),
        None => BitsColumn::of(values).encode(out),
    }
}

/// Reads the bits of `count` values; nothing may follow them.
pub fn decode(bytes: &[u8], count: usize) -> Result<Vec<u64>, Malformed> {
    let mut open = open(bytes, count)?;
    let mut symbols = Vec::new();
    if let Some(coded) = open.coded() {
        coded.fill(&mut symbols);
    }
    open.finish(&symbols)
}

/// The same of several columns, which takes less than one by one; of each its own error.
pub fn decode_together<const N: usize>(
    columns: [(&[u8], usize); N],
) -> [Result<Vec<u64>, Malformed>; N] {
    let mut open = columns.map(|(bytes, count)| open(bytes, count));
    let mut symbols: [Vec<u8>; N] = std::array::from_fn(|_| Vec::new());
    let coded = open.each_mut().map(|open| match open {
        Ok(open) => open.coded(),
        Err(_) => None,
    });
    let into = coded.into_iter().zip(symbols.each_mut());
    let some: Vec<_> = into
        .filter_map(|(coded, into)| Some((coded?, into)))
        .collect();
    fill_all(some);
    let mut symbols = symbols.iter();
    open.map(|open| {
        let symbols = symbols.next().map_or(&[][..], Vec::as_slice);
        open?.finish(symbols)
    })
}

/// Reads the symbols of columns that have any, four at a time and what is left together.
fn fill_all(columns: Vec<(&mut Coded<'_>, &mut Vec<u8>)>) {
    let mut columns = columns.into_iter();
    loop {
        let (a, b, c, d) = (
            columns.next(),
            columns.next(),
            columns.next(),
            columns.next(),
        );
        match (a, b, c, d) {
            (Some(a), Some(b), Some(c), Some(d)) => {
                Coded::fill_together([a.0, b.0, c.0, d.0], [a.1, b.1, c.1, d.1]);
            }
            (Some(a), Some(b), Some(c), None) => {
                Coded::fill_together([a.0, b.0, c.0], [a.1, b.1, c.1]);
            }
            (Some(a), Some(b), ..) => Coded::fill_together([a.0, b.0], [a.1, b.1]),
            (Some(a), ..) => a.0.fill(a.1),
            (None, ..) => return,
        }
    }
}

/// A column whose coding is known, and whose symbols, if it has any, are still to be read.
enum Open<'a> {
    Constant(u64, usize),
    Decimal {
        power: f64,
        /// Place and bits of those that are no decimals.
        odd: Vec<(usize, u64)>,
        digits: ints::Open<'a>,
    },
    Bits {
        shift: u32,
        words: ints::Open<'a>,
    },
}

fn open(bytes: &[u8], count: usize) -> Result<Open<'_>, Malformed> {
    let mut fields = Fields::new(bytes);
    if count == 0 {
        fields.end()?;
        return Ok(Open::Constant(0, 0));
    }
    match fields.u8()? {
        CONSTANT => {
            let bits = fields.u64()?;
            fields.end()?;
            Ok(Open::Constant(bits, count))
        }
        DECIMAL => open_decimals(&mut fields, count),
        BITS => {
            let shift = u32::from(fields.u8()?);
            if shift > 63 {
                return Err(Malformed("shift above 63"));
            }
            let words = ints::open(fields.take(fields.remaining())?, count)?;
            Ok(Open::Bits { shift, words })
        }
        _ => Err(Malformed("unknown coding of values")),
    }
}

impl<'a> Open<'a> {
    fn coded(&mut self) -> Option<&mut Coded<'a>> {
        match self {
            Self::Constant(..) => None,
            Self::Decimal { digits, .. } => digits.coded(),
            Self::Bits { words, .. } => words.coded(),
        }
    }

    fn finish(self, symbols: &[u8]) -> Result<Vec<u64>, Malformed> {
        match self {
            Self::Constant(bits, count) => Ok(vec![bits; count]),
            Self::Decimal { power, odd, digits } => {
                finish_decimals(power, odd, digits.finish(symbols)?)
            }
            Self::Bits { shift, words } => {
                let bits = |word: i64| match word < 0 {
                    true => ((word ^ (i64::MAX >> shift)) as u64) << shift,
                    false => (word as u64) << shift,
                };
                Ok(words.finish(symbols)?.into_iter().map(bits).collect())
            }
        }
    }
}

/// Numbers with few digits behind the point.
struct Decimals {
    places: u8,
    digits: Vec<i64>,
    /// Place and bits of those that are none; their digits repeat the ones before.
    odd: Vec<(usize, u64)>,
}

impl Decimals {
    fn of(values: &[u64]) -> Option<Self> {
        let odd_max = values.len() / ODD_SHARE + 1;
        let mut places = 0;
        let mut odd = 0;
        for &bits in values {
            match places_of(f64::from_bits(bits), places) {
                Some(more) => places = more,
                None => odd += 1,
            }
            if odd > odd_max {
                return None;
            }
        }
        let mut digits = Vec::with_capacity(values.len());
        let mut odd = Vec::new();
        let mut last = None;
        for (place, &bits) in values.iter().enumerate() {
            match digits_of(f64::from_bits(bits), places) {
                Some(found) => {
                    digits.push(found);
                    last = Some(found);
                }
                None => {
                    odd.push((place, bits));
                    digits.push(last.unwrap_or(0));
                }
            }
        }
        // Those in front of the first one repeat it.
        let first = digits.get(leading(&odd)).copied()?;
        digits[..leading(&odd)].fill(first);
        (odd.len() <= odd_max).then_some(Self {
            places,
            digits,
            odd,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend([DECIMAL, self.places]);
        put_varint(out, self.odd.len() as u64);
        let mut last = 0;
        for &(place, bits) in &self.odd {
            put_varint(out, (place - last) as u64);
            put_u64(out, bits);
            last = place;
        }
        ints::encode(&self.digits, out);
    }
}

/// How many stand beside from the first on.
fn leading(odd: &[(usize, u64)]) -> usize {
    let places = odd.iter().enumerate();
    places.take_while(|(at, (place, _))| at == place).count()
}

fn open_decimals<'a>(fields: &mut Fields<'a>, count: usize) -> Result<Open<'a>, Malformed> {
    let places = usize::from(fields.u8()?);
    let power = *POWERS.get(places).ok_or(Malformed("too many places"))?;
    let mut odd = Vec::new();
    let mut place = 0usize;
    for _ in 0..fields.count(9)? {
        let further = usize::try_from(fields.varint()?).unwrap_or(usize::MAX);
        place = place.saturating_add(further);
        odd.push((place, fields.u64()?));
    }
    let digits = ints::open(fields.take(fields.remaining())?, count)?;
    Ok(Open::Decimal { power, odd, digits })
}

fn finish_decimals(
    power: f64,
    odd: Vec<(usize, u64)>,
    digits: Vec<i64>,
) -> Result<Vec<u64>, Malformed> {
    let digits = digits.into_iter();
    let mut values: Vec<u64> = match power == 1.0 {
        true => digits.map(|d| (d as f64).to_bits()).collect(),
        false => digits.map(|d| (d as f64 / power).to_bits()).collect(),
    };
    for (place, bits) in odd {
        let value = values.get_mut(place);
        *value.ok_or(Malformed("a value beside lies outside"))? = bits;
    }
    Ok(values)
}

/// The digits of `value` with so many places, if they give its very bits.
#[inline]
fn digits_of(value: f64, places: u8) -> Option<i64> {
    let power = POWERS[usize::from(places)];
    let digits = (value * power).round();
    let fits = digits.abs() < DIGITS_MAX;
    let whole = if fits { digits as i64 } else { return None };
    ((whole as f64 / power).to_bits() == value.to_bits()).then_some(whole)
}

/// The fewest places, at least `places`, with which `value` has digits.
#[inline]
fn places_of(value: f64, places: u8) -> Option<u8> {
    (places..=PLACES_MAX).find(|&places| digits_of(value, places).is_some())
}

/// Bits in the order of the numbers they stand for, without the zeros that all end with.
struct BitsColumn {
    shift: u32,
    words: Vec<i64>,
}

impl BitsColumn {
    fn of(values: &[u64]) -> Self {
        let all = values.iter().fold(0, |all, bits| all | bits);
        let shift = all.trailing_zeros().min(63);
        let words = values.iter().map(|&bits| ordered(bits, shift)).collect();
        Self { shift, words }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend([BITS, self.shift as u8]);
        ints::encode(&self.words, out);
    }
}

/// A word that grows with the number: below zero the other bits are turned round.
fn ordered(bits: u64, shift: u32) -> i64 {
    let word = (bits as i64) >> shift;
    match word < 0 {
        true => word ^ (i64::MAX >> shift),
        false => word,
    }
}

#[cfg(test)]
mod tests {
    use model::sample::STALE_NAN;
    use proptest::prelude::*;

    use super::*;

    fn odd() -> impl Strategy<Value = u64> {
        prop_oneof![
            any::<u64>(),
            Just(STALE_NAN.to_bits()),
            Just(0xfff8_0000_dead_beef),
            Just(f64::INFINITY.to_bits()),
            Just(f64::NEG_INFINITY.to_bits()),
            Just((-0.0f64).to_bits()),
            Just(1u64),
            Just(f64::MAX.to_bits()),
            Just(9_007_199_254_740_993f64.to_bits()),
        ]
    }

    fn columns() -> impl Strategy<Value = Vec<u64>> {
        let some = |value| prop::collection::vec(value, 0..400);
        prop_oneof![
            some(odd().boxed()),
            some(any::<u64>().boxed()),
            some(any::<f32>().prop_map(|v| f64::from(v).to_bits()).boxed()),
            some((-1000i32..1000).prop_map(|v| f64::from(v).to_bits()).boxed()),
            some((0u32..100_000, 0u8..4).prop_map(|(v, p)| (f64::from(v) / POWERS[usize::from(p)]).to_bits()).boxed()),
            some(prop_oneof![30 => (0u32..500).prop_map(|v| (f64::from(v) / 10.0).to_bits()), 1 => odd()].boxed()),
            (odd(), 0usize..300).prop_map(|(bits, count)| vec![bits; count]),
        ]
    }

    proptest! {
        #[test]
        fn values_come_back_to_the_bit(values in columns()) {
            let mut bytes = Vec::new();
            encode(&values, &mut bytes);
            prop_assert_eq!(decode(&bytes, values.len()), Ok(values));
        }

        #[test]
        fn four_columns_come_back_as_one_by_one(
            columns in prop::collection::vec(columns(), 4),
            broken in prop::option::of((0usize..4, any::<prop::sample::Index>(), 1u8..)),
        ) {
            let mut all: Vec<Vec<u8>> = columns.iter().map(|values| {
                let mut bytes = Vec::new();
                encode(values, &mut bytes);
                bytes
            }).collect();
            if let Some((which, at, flip)) = broken && !all[which].is_empty() {
                let at = at.index(all[which].len());
                all[which][at] ^= flip;
            }
            let of = |at: usize| (all[at].as_slice(), columns[at].len());
            let four = decode_together([of(0), of(1), of(2), of(3)]);
            for (at, found) in four.into_iter().enumerate() {
                prop_assert_eq!(found, decode(of(at).0, of(at).1));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u8..4, bytes in prop::collection::vec(any::<u8>(), 0..120), count in 0usize..500) {
            let _ = decode(&[&[kind][..], &bytes].concat(), count);
        }
    }

    #[test]
    fn decimals_are_seen_through_what_stands_between() {
        let mut values: Vec<u64> = (0..400)
            .map(|n| (f64::from(n % 50) / 100.0).to_bits())
            .collect();
        values[0] = STALE_NAN.to_bits();
        values[17] = STALE_NAN.to_bits();
        let mut bytes = Vec::new();
        encode(&values, &mut bytes);
        assert_eq!(bytes[0], DECIMAL);
        assert!(bytes.len() < 400);
    }
}
