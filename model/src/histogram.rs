//! Native histograms: exponential buckets of every schema, and buckets with custom bounds.
//!
//! Counts are floats, also those of histograms that came with integers: [`Histogram::is_integer`]
//! remembers that. Integers that floats do not tell are kept beside them ([`Integers`]).
//!
//! What stays true for a histogram that passed [`Histogram::validate`]: spans describe exactly the
//! buckets that are there, and a decoder that meets other bytes says so. What one computes with
//! histograms is PromQL's; what a checkpoint or a wire keeps is [`Histogram::encode`]
//! (docs/format/histogram.md).

mod integers;

pub use integers::Integers;

use crate::sample::is_stale;

/// The schema of histograms whose buckets end at [`Histogram::custom_values`].
pub const CUSTOM_SCHEMA: i32 = -53;
/// Exponential schemas: bucket bounds grow by `2^(2^-schema)`.
pub const SCHEMA_MIN: i32 = -4;
pub const SCHEMA_MAX: i32 = 8;

/// Whether the observations counted here may be fewer than in the histogram before.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetHint {
    #[default]
    Unknown,
    CounterReset,
    NotCounterReset,
    Gauge,
}

impl ResetHint {
    const ALL: [Self; 4] = [
        Self::Unknown,
        Self::CounterReset,
        Self::NotCounterReset,
        Self::Gauge,
    ];

    /// 0 to 3, as Prometheus' protobuf numbers them.
    pub fn number(self) -> u8 {
        self as u8
    }

    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// A run of `length` buckets after a gap of `offset` (for the first span: its start index).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    pub offset: i32,
    pub length: u32,
}

/// One native histogram. Bucket counts are absolute, not deltas, one for each bucket of the spans.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Histogram {
    /// Whether every count came as an integer.
    pub is_integer: bool,
    pub reset_hint: ResetHint,
    pub schema: i32,
    pub zero_threshold: f64,
    pub zero_count: f64,
    pub count: f64,
    pub sum: f64,
    pub positive_spans: Vec<Span>,
    pub positive_buckets: Vec<f64>,
    pub negative_spans: Vec<Span>,
    pub negative_buckets: Vec<f64>,
    /// Upper bounds of the buckets of [`CUSTOM_SCHEMA`], ascending, without +Inf; else empty.
    pub custom_values: Vec<f64>,
    /// The counts, where some are no floats.
    pub integers: Option<Box<Integers>>,
}

/// Bits of the first canonical byte; between them stands the reset hint.
const INTEGER_FLAG: u8 = 1;
const HINT_BITS: u8 = 0b110;
const INEXACT_FLAG: u8 = 1 << 3;

/// Why fields or bytes are not a histogram.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid histogram: {0}")]
pub struct InvalidHistogram(pub &'static str);

impl Histogram {
    /// Whether it stands for "this series has ended".
    pub fn is_stale(&self) -> bool {
        is_stale(self.sum)
    }

    pub fn uses_custom_buckets(&self) -> bool {
        self.schema == CUSTOM_SCHEMA
    }

    /// Equal to the last bit, also where NaN stands: what "the same sample again" means.
    pub fn same_bits(&self, other: &Self) -> bool {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        self.encode(&mut a);
        other.encode(&mut b);
        a == b
    }

    /// Checks that spans and buckets agree and every number may stand where it does.
    pub fn validate(&self) -> Result<(), InvalidHistogram> {
        let custom = self.uses_custom_buckets();
        if !custom && !(SCHEMA_MIN..=SCHEMA_MAX).contains(&self.schema) {
            return Err(InvalidHistogram("unknown schema"));
        }
        check_side(&self.positive_spans, &self.positive_buckets)?;
        check_side(&self.negative_spans, &self.negative_buckets)?;
        self.validate_integers()?;
        match custom {
            true => self.validate_custom(),
            false if !self.custom_values.is_empty() => Err(InvalidHistogram(
                "custom bounds in an exponential histogram",
            )),
            false => Ok(()),
        }
    }

    fn validate_custom(&self) -> Result<(), InvalidHistogram> {
        if !self.negative_spans.is_empty() || self.zero_count != 0.0 || self.zero_threshold != 0.0 {
            return Err(InvalidHistogram(
                "negative or zero buckets beside custom bounds",
            ));
        }
        let ascending = self.custom_values.windows(2).all(|w| w[0] < w[1]);
        if !ascending || self.custom_values.iter().any(|v| !v.is_finite()) {
            return Err(InvalidHistogram("custom bounds must ascend and be finite"));
        }
        let last = end_of(&self.positive_spans);
        if last > self.custom_values.len() as i64 + 1 {
            return Err(InvalidHistogram("more buckets than custom bounds"));
        }
        if self.positive_spans.first().is_some_and(|s| s.offset < 0) {
            return Err(InvalidHistogram("a bucket before the first custom bound"));
        }
        Ok(())
    }

    /// Appends the canonical bytes (docs/format/histogram.md).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let inexact = match self.integers {
            Some(_) => INEXACT_FLAG,
            None => 0,
        };
        out.push(inexact | self.reset_hint.number() << 1 | u8::from(self.is_integer));
        put_varint(out, zigzag(self.schema.into()));
        put_float(out, self.zero_threshold);
        match &self.integers {
            Some(integers) => {
                put_varint(out, integers.zero_count);
                put_varint(out, integers.count);
            }
            None => {
                put_float(out, self.zero_count);
                put_float(out, self.count);
            }
        }
        put_float(out, self.sum);
        put_spans(out, &self.positive_spans);
        match &self.integers {
            Some(integers) => put_integers(out, &integers.positive_buckets),
            None => put_floats(out, &self.positive_buckets),
        }
        put_spans(out, &self.negative_spans);
        match &self.integers {
            Some(integers) => put_integers(out, &integers.negative_buckets),
            None => put_floats(out, &self.negative_buckets),
        }
        put_floats(out, &self.custom_values);
    }

    /// Reads what [`Histogram::encode`] wrote, all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidHistogram> {
        let mut reader = Reader(bytes);
        let flags = reader.byte()?;
        let is_inexact = flags & INEXACT_FLAG != 0;
        let is_integer = flags & INTEGER_FLAG != 0;
        if flags & !(INTEGER_FLAG | HINT_BITS | INEXACT_FLAG) != 0 {
            return Err(InvalidHistogram("unknown flags"));
        }
        if is_inexact && !is_integer {
            return Err(InvalidHistogram("integers of a float histogram"));
        }
        let hint = (flags & HINT_BITS) >> 1;
        let mut histogram = Self {
            is_integer,
            reset_hint: ResetHint::of_number(hint).ok_or(InvalidHistogram("unknown reset hint"))?,
            schema: i32::try_from(reader.zigzag()?)
                .map_err(|_| InvalidHistogram("schema out of range"))?,
            zero_threshold: reader.float()?,
            ..Self::default()
        };
        match is_inexact {
            true => reader.integers(&mut histogram)?,
            false => reader.counts(&mut histogram)?,
        }
        histogram.custom_values = reader.floats()?;
        if !reader.0.is_empty() {
            return Err(InvalidHistogram("bytes behind the end"));
        }
        if is_inexact && histogram.integers.is_none() {
            return Err(InvalidHistogram("integers that floats tell"));
        }
        histogram.validate()?;
        Ok(histogram)
    }

    /// What it holds in memory, in bytes, about.
    pub fn size(&self) -> usize {
        let floats =
            self.positive_buckets.len() + self.negative_buckets.len() + self.custom_values.len();
        let spans = self.positive_spans.len() + self.negative_spans.len();
        size_of::<Self>() + 8 * (floats + spans) + self.integers_size()
    }
}

/// Index behind the last bucket, counted from where offsets begin.
fn end_of(spans: &[Span]) -> i64 {
    spans
        .iter()
        .map(|s| i64::from(s.offset) + i64::from(s.length))
        .sum()
}

/// What stands in the buckets of one side, with their indexes.
pub fn indexed<C>(
    spans: &[Span],
    buckets: impl Iterator<Item = C>,
) -> impl Iterator<Item = (i64, C)> {
    let mut next = 0i64;
    let indexes = spans.iter().flat_map(move |span| {
        let first = next + i64::from(span.offset);
        next = first + i64::from(span.length);
        first..next
    });
    indexes.zip(buckets)
}

fn check_side(spans: &[Span], buckets: &[f64]) -> Result<(), InvalidHistogram> {
    let described: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
    if described != buckets.len() as u64 {
        return Err(InvalidHistogram("spans and buckets differ in number"));
    }
    if spans.iter().skip(1).any(|s| s.offset < 0) {
        return Err(InvalidHistogram("a span before the one before it"));
    }
    let end = end_of(spans);
    if i32::try_from(end).is_err() {
        return Err(InvalidHistogram("bucket index out of range"));
    }
    Ok(())
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_float(out: &mut Vec<u8>, value: f64) {
    out.extend(value.to_bits().to_le_bytes());
}

fn put_spans(out: &mut Vec<u8>, spans: &[Span]) {
    put_varint(out, spans.len() as u64);
    for span in spans {
        put_varint(out, zigzag(span.offset.into()));
        put_varint(out, span.length.into());
    }
}

fn put_integers(out: &mut Vec<u8>, values: &[i64]) {
    put_varint(out, values.len() as u64);
    for &value in values {
        put_varint(out, value as u64);
    }
}

/// Whole numbers below 2^53 as varints, others by their bits: counts are nearly always whole.
fn put_floats(out: &mut Vec<u8>, values: &[f64]) {
    put_varint(out, values.len() as u64);
    for &value in values {
        let whole = value as u64;
        if whole < 1 << 53 && (whole as f64).to_bits() == value.to_bits() {
            put_varint(out, whole << 1);
        } else {
            out.push(1);
            put_float(out, value);
        }
    }
}

struct Reader<'a>(&'a [u8]);

const SHORT: InvalidHistogram = InvalidHistogram("bytes end early");

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, InvalidHistogram> {
        let (&first, rest) = self.0.split_first().ok_or(SHORT)?;
        self.0 = rest;
        Ok(first)
    }

    fn varint(&mut self) -> Result<u64, InvalidHistogram> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(InvalidHistogram("a number of more than 64 bits"))
    }

    fn zigzag(&mut self) -> Result<i64, InvalidHistogram> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn float(&mut self) -> Result<f64, InvalidHistogram> {
        let (bits, rest) = self.0.split_first_chunk::<8>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(f64::from_bits(u64::from_le_bytes(*bits)))
    }

    /// A count of things of at least `bytes` each, so that no length makes us allocate.
    fn count(&mut self, bytes: usize) -> Result<usize, InvalidHistogram> {
        let count = usize::try_from(self.varint()?).map_err(|_| SHORT)?;
        match count.checked_mul(bytes) {
            Some(needed) if needed <= self.0.len() => Ok(count),
            _ => Err(SHORT),
        }
    }

    fn floats(&mut self) -> Result<Vec<f64>, InvalidHistogram> {
        (0..self.count(1)?)
            .map(|_| match self.varint()? {
                1 => self.float(),
                whole if whole & 1 == 0 => Ok((whole >> 1) as f64),
                _ => Err(InvalidHistogram("unknown form of a number")),
            })
            .collect()
    }

    fn spans(&mut self) -> Result<Vec<Span>, InvalidHistogram> {
        let out_of_range = |_| InvalidHistogram("span out of range");
        (0..self.count(2)?)
            .map(|_| {
                Ok(Span {
                    offset: i32::try_from(self.zigzag()?).map_err(out_of_range)?,
                    length: u32::try_from(self.varint()?).map_err(out_of_range)?,
                })
            })
            .collect()
    }

    fn whole(&mut self) -> Result<Vec<i64>, InvalidHistogram> {
        let count = self.count(1)?;
        (0..count).map(|_| Ok(self.varint()? as i64)).collect()
    }

    /// From the zero count to the last bucket, as floats.
    fn counts(&mut self, histogram: &mut Histogram) -> Result<(), InvalidHistogram> {
        histogram.zero_count = self.float()?;
        histogram.count = self.float()?;
        histogram.sum = self.float()?;
        histogram.positive_spans = self.spans()?;
        histogram.positive_buckets = self.floats()?;
        histogram.negative_spans = self.spans()?;
        histogram.negative_buckets = self.floats()?;
        Ok(())
    }

    /// From the zero count to the last bucket, as integers.
    fn integers(&mut self, histogram: &mut Histogram) -> Result<(), InvalidHistogram> {
        let (zero_count, count) = (self.varint()?, self.varint()?);
        histogram.sum = self.float()?;
        histogram.positive_spans = self.spans()?;
        let positive_buckets = self.whole()?;
        histogram.negative_spans = self.spans()?;
        histogram.set_integers(Integers {
            count,
            zero_count,
            positive_buckets,
            negative_buckets: self.whole()?,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn side() -> impl Strategy<Value = (Vec<Span>, Vec<f64>)> {
        let span = (0i32..9, 0u32..5).prop_map(|(offset, length)| Span { offset, length });
        prop::collection::vec(span, 0..4).prop_flat_map(|spans| {
            let buckets = spans.iter().map(|s| s.length as usize).sum::<usize>();
            let counts = prop_oneof![(0u32..99).prop_map(f64::from), any::<f64>()];
            (Just(spans), prop::collection::vec(counts, buckets))
        })
    }

    fn histogram() -> impl Strategy<Value = Histogram> {
        let numbers = (any::<f64>(), any::<f64>(), any::<f64>(), any::<f64>());
        let kind = (any::<bool>(), 0u8..4, SCHEMA_MIN..=SCHEMA_MAX);
        (side(), side(), numbers, kind).prop_map(|(positive, negative, numbers, kind)| Histogram {
            is_integer: kind.0,
            reset_hint: ResetHint::of_number(kind.1).unwrap(),
            schema: kind.2,
            zero_threshold: numbers.0,
            zero_count: numbers.1,
            count: numbers.2,
            sum: numbers.3,
            positive_spans: positive.0,
            positive_buckets: positive.1,
            negative_spans: negative.0,
            negative_buckets: negative.1,
            ..Histogram::default()
        })
    }

    /// Around where floats end to tell every integer, and at both ends.
    fn integer() -> impl Strategy<Value = u64> {
        prop_oneof![
            0u64..99,
            (0u64..9).prop_map(|n| (1 << 53) - 4 + n),
            (0u64..9).prop_map(|n| i64::MAX as u64 - n),
            (0u64..9).prop_map(|n| u64::MAX - n),
            any::<u64>(),
        ]
    }

    /// Of integers, with them as they are.
    fn integer_histogram() -> impl Strategy<Value = (Histogram, Integers)> {
        let buckets = prop::collection::vec(integer(), 40);
        (histogram(), integer(), integer(), buckets).prop_map(
            |(mut histogram, count, zero_count, buckets)| {
                let mut buckets = buckets.into_iter().map(|count| count as i64);
                let positive = histogram.positive_buckets.len();
                let negative = histogram.negative_buckets.len();
                let integers = Integers {
                    count,
                    zero_count,
                    positive_buckets: buckets.by_ref().take(positive).collect(),
                    negative_buckets: buckets.take(negative).collect(),
                };
                histogram.set_integers(integers.clone());
                (histogram, integers)
            },
        )
    }

    proptest! {
        #[test]
        fn bytes_give_back_every_bit(histogram in histogram()) {
            let mut bytes = Vec::new();
            histogram.encode(&mut bytes);
            let decoded = Histogram::decode(&bytes).unwrap();
            prop_assert!(decoded.same_bits(&histogram));
            for cut in 0..bytes.len() {
                prop_assert!(Histogram::decode(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn bytes_give_back_every_integer((histogram, integers) in integer_histogram()) {
            prop_assert_eq!(histogram.validate(), Ok(()));
            let mut bytes = Vec::new();
            histogram.encode(&mut bytes);
            let decoded = Histogram::decode(&bytes).unwrap();
            prop_assert!(decoded.same_bits(&histogram));
            prop_assert_eq!(&decoded.integers, &histogram.integers);
            prop_assert_eq!(decoded.whole_count(), integers.count);
            prop_assert_eq!(decoded.whole_zero_count(), integers.zero_count);
            prop_assert!(decoded.whole_positive().eq(integers.positive_buckets.clone()));
            prop_assert!(decoded.whole_negative().eq(integers.negative_buckets.clone()));
            for cut in 0..bytes.len() {
                prop_assert!(Histogram::decode(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_a_histogram_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(histogram) = Histogram::decode(&bytes) {
                prop_assert_eq!(histogram.validate(), Ok(()));
            }
        }
    }

    #[test]
    fn integers_next_to_each_other_are_not_the_same() {
        let of = |count| {
            let mut histogram = Histogram::default();
            histogram.set_integers(Integers {
                count,
                ..Integers::default()
            });
            histogram
        };
        let exact = 1 << 53;
        assert_eq!(of(exact).count, of(exact + 1).count);
        assert!(!of(exact).same_bits(&of(exact + 1)));
        assert!(!of(u64::MAX).same_bits(&of(u64::MAX - 1)));
        assert!(of(u64::MAX).same_bits(&of(u64::MAX)));
    }

    #[test]
    fn what_floats_tell_has_one_form() {
        let mut histogram = Histogram::default();
        histogram.set_integers(Integers {
            count: (1 << 53) + 1,
            ..Integers::default()
        });
        let mut bytes = Vec::new();
        histogram.encode(&mut bytes);
        assert_eq!(bytes[0], INTEGER_FLAG | INEXACT_FLAG);
        assert_eq!(Histogram::decode(&bytes), Ok(histogram));
        for flags in [INEXACT_FLAG, INTEGER_FLAG | 1 << 4] {
            let other = [&[flags], &bytes[1..]].concat();
            assert!(Histogram::decode(&other).is_err());
        }
        // The varint of the count stands behind flags, schema, threshold and zero count.
        let place = 1 + 1 + 8 + 1;
        assert_eq!(bytes[place], 0x81);
        bytes[place] = 0x80;
        let told = InvalidHistogram("integers that floats tell");
        assert_eq!(Histogram::decode(&bytes), Err(told));
    }

    #[test]
    fn custom_bounds_are_checked() {
        let good = Histogram {
            schema: CUSTOM_SCHEMA,
            custom_values: vec![1.0, 2.0],
            positive_spans: vec![Span {
                offset: 0,
                length: 3,
            }],
            positive_buckets: vec![1.0, 0.0, 4.0],
            ..Histogram::default()
        };
        assert_eq!(good.validate(), Ok(()));
        for bad in [
            Histogram {
                custom_values: vec![1.0],
                ..good.clone()
            },
            Histogram {
                custom_values: vec![2.0, 1.0],
                ..good.clone()
            },
            Histogram {
                zero_count: 1.0,
                ..good.clone()
            },
            Histogram { schema: 3, ..good },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }
}
