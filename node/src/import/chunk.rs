//! Prometheus' chunks, decoded: floats (XOR), native histograms, native histograms of floats (its
//! `tsdb/docs/format/chunks.md`, `tsdb/chunkenc`).
//!
//! Hints about counter resets are left out but for gauges: in a chunk they say how it was cut, not
//! what a scrape has seen, and the same sample must be the same bytes each time it is imported.

use model::sample::is_stale;
use proto::remote as wire;
use tsdb::bits::BitStream;

use super::input::Bad;

const XOR: u8 = 1;
const HISTOGRAM: u8 = 2;
const FLOAT_HISTOGRAM: u8 = 3;

/// Buckets of one histogram; Prometheus' finest schemas have some thousands in use.
const BUCKETS_MAX: u64 = 1 << 16;
/// Spans and bounds of all histograms of a chunk, each of which has its own in memory: in a chunk they stand once.
const LAYOUTS_MAX: u64 = 1 << 23;
/// The schema of histograms with bounds of their own.
const CUSTOM_SCHEMA: i64 = -53;

/// Samples of one series.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Samples {
    pub floats: Vec<wire::Sample>,
    pub histograms: Vec<wire::Histogram>,
}

impl Samples {
    pub fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn retain(&mut self, wanted: impl Fn(i64) -> bool) {
        self.floats.retain(|sample| wanted(sample.timestamp));
        self.histograms.retain(|sample| wanted(sample.timestamp));
    }
}

/// Appends a chunk's samples.
pub fn decode(encoding: u8, data: &[u8], samples: &mut Samples) -> Result<(), Bad> {
    let mut bits = Bits {
        stream: BitStream::new(data),
    };
    match encoding {
        XOR => floats(&mut bits, &mut samples.floats),
        HISTOGRAM => histograms(&mut bits, true, &mut samples.histograms),
        FLOAT_HISTOGRAM => histograms(&mut bits, false, &mut samples.histograms),
        _ => Err(Bad {
            at: 0,
            what: "a chunk of an unknown encoding",
        }),
    }
}

/// Bits of a chunk; past its end is an error.
struct Bits<'a> {
    stream: BitStream<'a>,
}

impl Bits<'_> {
    fn bad(&self, what: &'static str) -> Bad {
        Bad {
            at: self.stream.position() / 8,
            what,
        }
    }

    fn read(&mut self, bits: u32) -> Result<u64, Bad> {
        let read = self.stream.read(bits);
        read.ok_or_else(|| self.bad("the chunk ends early"))
    }

    fn bit(&mut self) -> Result<bool, Bad> {
        Ok(self.read(1)? == 1)
    }

    fn float(&mut self) -> Result<f64, Bad> {
        self.read(64).map(f64::from_bits)
    }

    fn uvarint(&mut self) -> Result<u64, Bad> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.read(8)?;
            value |= (byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.bad("a number of more than 64 bits"))
    }

    fn varint(&mut self) -> Result<i64, Bad> {
        let word = self.uvarint()?;
        Ok((word >> 1) as i64 ^ -((word & 1) as i64))
    }

    /// How many of the next bits are set, at most `max`.
    fn ones(&mut self, max: usize) -> Result<usize, Bad> {
        for count in 0..max {
            if !self.bit()? {
                return Ok(count);
            }
        }
        Ok(max)
    }

    fn class(&mut self) -> Result<u32, Bad> {
        const BITS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];
        Ok(BITS[self.ones(8)?])
    }

    fn varbit(&mut self) -> Result<i64, Bad> {
        let bits = self.class()?;
        Ok(signed(self.read(bits)?, bits))
    }

    fn varbit_unsigned(&mut self) -> Result<u64, Bad> {
        let bits = self.class()?;
        self.read(bits)
    }
}

/// Of so many bits the highest number is `2^(bits-1)`, and not the lowest.
fn signed(word: u64, bits: u32) -> i64 {
    match bits {
        0 => 0,
        64 => word as i64,
        _ if word > 1 << (bits - 1) => word as i64 - (1 << bits),
        _ => word as i64,
    }
}

/// A float by what differs from the one before.
#[derive(Debug, Default, Clone, Copy)]
struct Xor {
    value: u64,
    leading: u32,
    trailing: u32,
}

impl Xor {
    fn first(bits: &mut Bits<'_>) -> Result<Self, Bad> {
        Ok(Self {
            value: bits.read(64)?,
            ..Self::default()
        })
    }

    fn next(&mut self, bits: &mut Bits<'_>) -> Result<(), Bad> {
        if !bits.bit()? {
            return Ok(());
        }
        if bits.bit()? {
            self.leading = bits.read(5)? as u32;
            let significant = match bits.read(6)? as u32 {
                0 => 64,
                some => some,
            };
            let trailing = 64u32.checked_sub(self.leading + significant);
            self.trailing = trailing.ok_or_else(|| bits.bad("more than 64 bits of a float"))?;
        }
        self.value ^= bits.read(64 - self.leading - self.trailing)? << self.trailing;
        Ok(())
    }

    fn float(self) -> f64 {
        f64::from_bits(self.value)
    }
}

fn floats(bits: &mut Bits<'_>, samples: &mut Vec<wire::Sample>) -> Result<(), Bad> {
    let count = bits.read(16)?;
    let (mut at, mut delta) = (0i64, 0i64);
    let mut value = Xor::default();
    for place in 0..count {
        match place {
            0 => (at, value) = (bits.varint()?, Xor::first(bits)?),
            1 => delta = bits.uvarint()? as i64,
            _ => {
                let width = [0, 14, 17, 20, 64][bits.ones(4)?];
                let change = signed(bits.read(width)?, width);
                delta = delta.wrapping_add(change);
            }
        }
        if place > 0 {
            at = at.wrapping_add(delta);
            value.next(bits)?;
        }
        samples.push(wire::Sample {
            value: value.float(),
            timestamp: at,
        });
    }
    Ok(())
}

/// What all histograms of a chunk share.
#[derive(Debug, Default)]
struct Layout {
    is_gauge: bool,
    schema: i32,
    zero_threshold: f64,
    positive: Vec<wire::BucketSpan>,
    negative: Vec<wire::BucketSpan>,
    custom: Vec<f64>,
}

impl Layout {
    fn read(bits: &mut Bits<'_>) -> Result<Self, Bad> {
        let is_gauge = bits.read(8)? >> 6 == 0b11;
        let zero_threshold = match bits.read(8)? {
            0 => 0.0,
            255 => bits.float()?,
            power => 2f64.powi(power as i32 - 244),
        };
        let schema = bits.varbit()?;
        let positive = spans(bits)?;
        let negative = spans(bits)?;
        let mut custom = Vec::new();
        if schema == CUSTOM_SCHEMA {
            let count = bits.varbit_unsigned()?;
            if count > BUCKETS_MAX {
                return Err(bits.bad("too many bounds of buckets"));
            }
            for _ in 0..count {
                custom.push(match bits.varbit_unsigned()? {
                    0 => bits.float()?,
                    thousandths => (thousandths - 1) as f64 / 1000.0,
                });
            }
        }
        let schema = i32::try_from(schema).map_err(|_| bits.bad("schema out of range"))?;
        Ok(Self {
            is_gauge,
            schema,
            zero_threshold,
            positive,
            negative,
            custom,
        })
    }

    /// Spans and bounds.
    fn len(&self) -> usize {
        self.positive.len() + self.negative.len() + self.custom.len()
    }

    fn histogram(&self, at: i64, sum: f64) -> wire::Histogram {
        let reset_hint = match self.is_gauge {
            true => wire::histogram::ResetHint::Gauge,
            false => wire::histogram::ResetHint::Unknown,
        };
        wire::Histogram {
            sum,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            positive_spans: self.positive.clone(),
            negative_spans: self.negative.clone(),
            custom_values: self.custom.clone(),
            reset_hint: reset_hint.into(),
            timestamp: at,
            ..wire::Histogram::default()
        }
    }
}

fn spans(bits: &mut Bits<'_>) -> Result<Vec<wire::BucketSpan>, Bad> {
    let count = bits.varbit_unsigned()?;
    if count > BUCKETS_MAX {
        return Err(bits.bad("too many spans"));
    }
    let mut spans = Vec::new();
    let mut buckets = 0u64;
    for _ in 0..count {
        let length = bits.varbit_unsigned()?;
        let offset = bits.varbit()?;
        buckets = buckets.saturating_add(length);
        let span = u32::try_from(length).ok().zip(i32::try_from(offset).ok());
        match span {
            Some((length, offset)) if buckets <= BUCKETS_MAX => {
                spans.push(wire::BucketSpan { offset, length });
            }
            _ => return Err(bits.bad("too many buckets")),
        }
    }
    Ok(spans)
}

fn width(spans: &[wire::BucketSpan]) -> usize {
    spans.iter().map(|span| span.length as usize).sum()
}

/// A whole number by the change of its change.
#[derive(Debug, Default, Clone, Copy)]
struct Number {
    value: i64,
    change: i64,
}

impl Number {
    fn next(&mut self, bits: &mut Bits<'_>, place: u64) -> Result<(), Bad> {
        let read = bits.varbit()?;
        match place {
            0 => self.value = read,
            1 => self.change = read,
            _ => self.change = self.change.wrapping_add(read),
        }
        if place > 0 {
            self.value = self.value.wrapping_add(self.change);
        }
        Ok(())
    }
}

fn histograms(
    bits: &mut Bits<'_>,
    is_integer: bool,
    out: &mut Vec<wire::Histogram>,
) -> Result<(), Bad> {
    let count = bits.read(16)?;
    if count == 0 {
        return Ok(());
    }
    let layout = Layout::read(bits)?;
    if count.saturating_mul(layout.len() as u64) > LAYOUTS_MAX {
        return Err(bits.bad("too many spans and bounds"));
    }
    let (positive, negative) = (width(&layout.positive), width(&layout.negative));
    let mut integers = Integers::new(positive + negative);
    let mut floats = vec![Xor::default(); 3 + positive + negative];
    let (mut at, mut delta) = (0i64, 0i64);
    for place in 0..count {
        match place {
            0 => at = bits.varbit()?,
            // Signed and never negative, which read unsigned is the same; versions of ours exported it unsigned.
            1 => delta = bits.varbit_unsigned()? as i64,
            _ => delta = delta.wrapping_add(bits.varbit()?),
        }
        if place > 0 {
            at = at.wrapping_add(delta);
        }
        let mut histogram = match is_integer {
            true => integers.next(bits, place, &layout, at, positive)?,
            false => next_floats(&mut floats, bits, place, &layout, at, positive)?,
        };
        if is_stale(histogram.sum) {
            histogram = stale(&histogram, is_integer);
        }
        out.push(histogram);
    }
    Ok(())
}

/// A marker has nothing but its sum.
pub(super) fn stale(marker: &wire::Histogram, is_integer: bool) -> wire::Histogram {
    use wire::histogram::{Count, ZeroCount};
    let (count, zero) = match is_integer {
        true => (Count::CountInt(0), ZeroCount::ZeroCountInt(0)),
        false => (Count::CountFloat(0.0), ZeroCount::ZeroCountFloat(0.0)),
    };
    wire::Histogram {
        count: Some(count),
        zero_count: Some(zero),
        sum: marker.sum,
        timestamp: marker.timestamp,
        ..wire::Histogram::default()
    }
}

/// Histograms of whole counts, whose buckets are differences.
struct Integers {
    count: Number,
    zero: Number,
    sum: Xor,
    buckets: Vec<Number>,
}

impl Integers {
    fn new(buckets: usize) -> Self {
        Self {
            count: Number::default(),
            zero: Number::default(),
            sum: Xor::default(),
            buckets: vec![Number::default(); buckets],
        }
    }

    fn next(
        &mut self,
        bits: &mut Bits<'_>,
        place: u64,
        layout: &Layout,
        at: i64,
        positive: usize,
    ) -> Result<wire::Histogram, Bad> {
        use wire::histogram::{Count, ZeroCount};
        if place == 0 {
            self.count.value = bits.varbit_unsigned()? as i64;
            self.zero.value = bits.varbit_unsigned()? as i64;
            self.sum = Xor::first(bits)?;
        } else {
            self.count.next(bits, place)?;
            self.zero.next(bits, place)?;
            self.sum.next(bits)?;
        }
        let mut histogram = layout.histogram(at, self.sum.float());
        if is_stale(histogram.sum) {
            return Ok(histogram);
        }
        for bucket in &mut self.buckets {
            bucket.next(bits, place)?;
        }
        let mut deltas: Vec<i64> = self.buckets.iter().map(|bucket| bucket.value).collect();
        histogram.negative_deltas = deltas.split_off(positive);
        histogram.positive_deltas = deltas;
        histogram.count = Some(Count::CountInt(self.count.value as u64));
        histogram.zero_count = Some(ZeroCount::ZeroCountInt(self.zero.value as u64));
        Ok(histogram)
    }
}

/// Count, zero count, sum and buckets as floats.
fn next_floats(
    columns: &mut [Xor],
    bits: &mut Bits<'_>,
    place: u64,
    layout: &Layout,
    at: i64,
    positive: usize,
) -> Result<wire::Histogram, Bad> {
    use wire::histogram::{Count, ZeroCount};
    let (counted, buckets) = columns.split_at_mut(3);
    next_all(counted, bits, place)?;
    let mut histogram = layout.histogram(at, counted[2].float());
    if is_stale(histogram.sum) {
        return Ok(histogram);
    }
    next_all(buckets, bits, place)?;
    let mut counts: Vec<f64> = buckets.iter().map(|bucket| bucket.float()).collect();
    histogram.negative_counts = counts.split_off(positive);
    histogram.positive_counts = counts;
    histogram.count = Some(Count::CountFloat(counted[0].float()));
    histogram.zero_count = Some(ZeroCount::ZeroCountFloat(counted[1].float()));
    Ok(histogram)
}

fn next_all(columns: &mut [Xor], bits: &mut Bits<'_>, place: u64) -> Result<(), Bad> {
    for column in columns {
        match place {
            0 => *column = Xor::first(bits)?,
            _ => column.next(bits)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_layout_stands_once_and_is_held_by_few() {
        for (spans, count, fits) in [
            (BUCKETS_MAX, 128, true),
            (BUCKETS_MAX, 129, false),
            (BUCKETS_MAX + 1, 1, false),
            (10, 2_000, true),
        ] {
            // No gauge, no threshold, schema 0; then a number of 18 bits and so many empty spans.
            let mut bits = format!("{count:016b}{:017b}111110{spans:018b}", 0);
            bits += &"00".repeat(spans as usize);
            // No negative ones, 64 bits of the first sum, and nothing that changes.
            bits += &"0".repeat(1 + 3 + 64 + 4 * count);
            let bits: Vec<u8> = bits.bytes().map(|digit| digit - b'0').collect();
            let bytes = bits.chunks(8);
            let bytes = bytes.map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit));
            let mut samples = Samples::default();
            let read = decode(HISTOGRAM, &bytes.collect::<Vec<u8>>(), &mut samples);
            assert_eq!(read.is_ok(), fits, "{spans} {count} {read:?}");
            assert_eq!(samples.len(), if fits { count } else { 0 });
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_samples_or_told(
            encoding in 0u8..5,
            data in prop::collection::vec(any::<u8>(), 0..200),
            count in 0u8..130,
        ) {
            let mut samples = Samples::default();
            for data in [data.clone(), [&[0, count], &data[..]].concat()] {
                if let Err(bad) = decode(encoding, &data, &mut samples) {
                    prop_assert!(bad.at <= data.len());
                }
            }
            // A sample takes a bit at least.
            prop_assert!(samples.len() <= 16 * data.len() + 64);
        }

        #[test]
        fn what_our_own_export_writes_comes_back(
            steps in prop::collection::vec((1i64..1 << 40, any::<u64>()), 1..=250),
            from in -1_000i64..1 << 41,
        ) {
            let samples: Vec<(i64, f64)> = steps.iter().scan(from, |at, (step, bits)| {
                *at += step;
                Some((*at, f64::from_bits(*bits)))
            }).collect();
            let mut read = Samples::default();
            let mut sent = model::Samples::default();
            samples.iter().for_each(|(at, value)| sent.push(model::Timestamp(*at), *value));
            for chunk in federation::read::Chunks::new(&sent) {
                decode(chunk.r#type as u8, &chunk.data, &mut read).unwrap();
            }
            let read: Vec<_> = read.floats.iter().map(|s| (s.timestamp, s.value.to_bits())).collect();
            let sent: Vec<_> = samples.iter().map(|(at, v)| (*at, v.to_bits())).collect();
            prop_assert_eq!(read, sent);
        }
    }
}
