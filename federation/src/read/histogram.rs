//! Native histograms as a chunk of Prometheus' histogram or float histogram encoding.
//!
//! All histograms of a chunk share one description of their buckets, and none is stale but those
//! at its end (see `sequence`). A stale histogram has no buckets.

use model::histogram::{ResetHint, Span};
use model::{Histogram, Timestamp};

use super::bits::{Bits, XorFloat};

/// A chunk that is being written.
#[derive(Debug)]
pub struct HistogramChunk {
    bits: Bits,
    count: u16,
    last: Timestamp,
    delta: i64,
    columns: Columns,
}

/// What is kept of the histogram before.
#[derive(Debug)]
enum Columns {
    /// Count, zero count and buckets as numbers and their last changes; the sum as a float.
    Integers { numbers: Vec<Number>, sum: XorFloat },
    /// Count, zero count, sum and buckets.
    Floats(Vec<XorFloat>),
}

#[derive(Debug, Default, Clone, Copy)]
struct Number {
    value: i64,
    delta: i64,
}

impl HistogramChunk {
    /// A chunk that begins with this histogram. Like those of Prometheus' remote read its header
    /// tells gauges from counters; whether a counter began anew the reader finds by comparing.
    pub fn new(at: Timestamp, histogram: &Histogram) -> Self {
        let header = match histogram.reset_hint {
            ResetHint::Gauge => 0b1100_0000,
            _ => 0b0000_0000,
        };
        let mut bits = Bits::behind(vec![0, 1, header]);
        match histogram.is_stale() {
            true => put_layout(&mut bits, &Histogram::default()),
            false => put_layout(&mut bits, histogram),
        }
        bits.put_varbit(at.0);
        let columns = match histogram.is_integer {
            true => first_integers(&mut bits, histogram),
            false => first_floats(&mut bits, histogram),
        };
        Self {
            bits,
            count: 1,
            last: at,
            delta: 0,
            columns,
        }
    }

    /// How many samples it holds, never none.
    pub fn count(&self) -> usize {
        self.count.into()
    }

    pub fn push(&mut self, at: Timestamp, histogram: &Histogram) {
        let is_second = self.count == 1;
        let delta = at.0.wrapping_sub(self.last.0);
        let change = if is_second {
            delta
        } else {
            delta.wrapping_sub(self.delta)
        };
        self.bits.put_varbit(change);
        match &mut self.columns {
            Columns::Integers { numbers, sum } => {
                next_integers(&mut self.bits, numbers, sum, histogram, is_second);
            }
            Columns::Floats(floats) => {
                for (float, value) in floats.iter_mut().zip(float_columns(histogram)) {
                    float.put(&mut self.bits, value);
                }
            }
        }
        (self.last, self.delta) = (at, delta);
        self.count += 1;
        self.bits.bytes_mut()[..2].copy_from_slice(&self.count.to_be_bytes());
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bits.into_bytes()
    }
}

fn first_integers(bits: &mut Bits, histogram: &Histogram) -> Columns {
    let counts = counts(histogram);
    bits.put_varbit_unsigned(counts[0] as u64);
    bits.put_varbit_unsigned(counts[1] as u64);
    bits.put_float(histogram.sum);
    for delta in bucket_deltas(histogram) {
        bits.put_varbit(delta);
    }
    let values = counts.into_iter().chain(bucket_deltas(histogram));
    Columns::Integers {
        numbers: values.map(|value| Number { value, delta: 0 }).collect(),
        sum: XorFloat::first(histogram.sum),
    }
}

/// Changes for the second histogram, and changes of changes behind it.
fn next_integers(
    bits: &mut Bits,
    numbers: &mut [Number],
    sum: &mut XorFloat,
    histogram: &Histogram,
    is_second: bool,
) {
    let stale = histogram.is_stale();
    let put = |bits: &mut Bits, number: &mut Number, value: i64, still: bool| {
        let delta = value.wrapping_sub(number.value);
        let delta = if is_second && still { 0 } else { delta };
        let change = match is_second {
            true => delta,
            false if still => 0,
            false => delta.wrapping_sub(number.delta),
        };
        bits.put_varbit(change);
        *number = Number { value, delta };
    };
    let (counted, buckets) = numbers.split_at_mut(2.min(numbers.len()));
    for (number, value) in counted.iter_mut().zip(counts(histogram)) {
        put(bits, number, value, stale);
    }
    sum.put(bits, histogram.sum);
    if !stale {
        for (number, value) in buckets.iter_mut().zip(bucket_deltas(histogram)) {
            put(bits, number, value, false);
        }
    }
}

fn first_floats(bits: &mut Bits, histogram: &Histogram) -> Columns {
    let values = float_columns(histogram);
    for value in &values {
        bits.put_float(*value);
    }
    Columns::Floats(values.into_iter().map(XorFloat::first).collect())
}

/// Count and zero count; of a stale histogram nothing but its sum means anything.
fn counts(histogram: &Histogram) -> [i64; 2] {
    match histogram.is_stale() {
        true => [0; 2],
        false => [
            histogram.whole_count() as i64,
            histogram.whole_zero_count() as i64,
        ],
    }
}

fn float_columns(histogram: &Histogram) -> Vec<f64> {
    if histogram.is_stale() {
        return vec![0.0, 0.0, histogram.sum];
    }
    let mut columns = vec![histogram.count, histogram.zero_count, histogram.sum];
    columns.extend(&histogram.positive_buckets);
    columns.extend(&histogram.negative_buckets);
    columns
}

/// Each bucket as the difference to the one before it on its side.
pub fn bucket_deltas(histogram: &Histogram) -> impl Iterator<Item = i64> + '_ {
    let stale = histogram.is_stale();
    let sides = deltas(histogram.whole_positive()).chain(deltas(histogram.whole_negative()));
    sides.filter(move |_| !stale)
}

fn deltas(counts: impl Iterator<Item = i64>) -> impl Iterator<Item = i64> {
    counts.scan(0i64, |before, count| {
        Some(count.wrapping_sub(std::mem::replace(before, count)))
    })
}

/// Schema, zero bucket's width, spans and custom bounds.
fn put_layout(bits: &mut Bits, histogram: &Histogram) {
    put_zero_threshold(bits, histogram.zero_threshold);
    bits.put_varbit(histogram.schema.into());
    put_spans(bits, &histogram.positive_spans);
    put_spans(bits, &histogram.negative_spans);
    if histogram.uses_custom_buckets() {
        bits.put_varbit_unsigned(histogram.custom_values.len() as u64);
        for bound in &histogram.custom_values {
            put_bound(bits, *bound);
        }
    }
}

/// A power of two between 2^-243 and 2^10 in a byte, 0 as 0, anything else behind a 255.
fn put_zero_threshold(bits: &mut Bits, threshold: f64) {
    let exponent = ((threshold.to_bits() >> 52) & 0x7ff) as i64 - 1023;
    let is_power = threshold > 0.0 && threshold.to_bits() << 12 == 0;
    if threshold == 0.0 {
        bits.put_byte(0);
    } else if is_power && (-243..=10).contains(&exponent) {
        bits.put_byte((exponent + 244) as u8);
    } else {
        bits.put_byte(255);
        bits.put_float(threshold);
    }
}

fn put_spans(bits: &mut Bits, spans: &[Span]) {
    bits.put_varbit_unsigned(spans.len() as u64);
    for span in spans {
        bits.put_varbit_unsigned(span.length.into());
        bits.put_varbit(span.offset.into());
    }
}

/// Whole thousandths up to 33,554.430 as a number, anything else behind a zero bit.
fn put_bound(bits: &mut Bits, bound: f64) {
    let thousandths = (bound * 1000.0).round();
    let whole = (0.0..=33_554_430.0).contains(&(bound * 1000.0)) && thousandths / 1000.0 == bound;
    if whole {
        bits.put_varbit_unsigned(thousandths as u64 + 1);
    } else {
        bits.put(0, 1);
        bits.put_float(bound);
    }
}
