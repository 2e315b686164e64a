//! An answer of plain samples: one snappy block around a `ReadResponse`.
//!
//! Byte for byte that of Prometheus 3.5 but for custom bounds, which it leaves out.

use model::histogram::{ResetHint, Span};
use model::{Histogram, Samples, Series, Timestamp};
use prost::encoding::encode_varint;
use prost::{Message, length_delimiter_len};
use proto::remote as wire;
use proto::remote::histogram::{Count, ZeroCount};

use super::External;
use super::histogram::bucket_deltas;
use super::kept::Kept;
use super::results::OfQuery;
use super::sequence::{Step, step};

/// What snappy compresses by itself, without a look at what is before.
const BLOCK_BYTES: usize = 64 << 10;

/// A body in pieces, for each of which a few series are let go.
///
/// Snappy's raw format is the length of the whole and then one compressed block after the other: the
/// same bytes as if it had stood in memory.
pub struct SamplesBody {
    external: External,
    results: std::vec::IntoIter<OfQuery>,
    series: std::vec::IntoIter<Kept>,
    /// The length of the whole, before the first piece.
    begin: Vec<u8>,
    /// What is written and not compressed yet.
    plain: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl SamplesBody {
    pub(super) fn new(results: Vec<OfQuery>, external: External) -> Result<Self, snap::Error> {
        let lens = results.iter().map(|result| field_len(result.message_len));
        let given = lens.map(|len| len as u64).sum();
        let max = u64::from(u32::MAX);
        if given > max {
            return Err(snap::Error::TooBig { given, max });
        }
        let mut begin = Vec::new();
        encode_varint(given, &mut begin);
        Ok(Self {
            external,
            results: results.into_iter(),
            series: Vec::new().into_iter(),
            begin,
            plain: Vec::new(),
            encoder: snap::raw::Encoder::new(),
        })
    }

    /// Writes until there is a block; `false` when nothing is left to write.
    fn write_block(&mut self) -> bool {
        while self.plain.len() < BLOCK_BYTES {
            if let Some(series) = self.series.next() {
                let series = time_series(&series.into_series(), &self.external);
                self.plain.push(FIELD);
                let encoded = series.encode_length_delimited(&mut self.plain);
                encoded.expect("a vector has room for all");
            } else if let Some(result) = self.results.next() {
                self.plain.push(FIELD);
                encode_varint(result.message_len as u64, &mut self.plain);
                self.series = result.series.into_iter();
            } else {
                return false;
            }
        }
        true
    }
}

impl Iterator for SamplesBody {
    type Item = Result<Vec<u8>, snap::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut piece = std::mem::take(&mut self.begin);
        let is_whole = !self.write_block();
        let len = match is_whole {
            true => self.plain.len(),
            false => self.plain.len() / BLOCK_BYTES * BLOCK_BYTES,
        };
        for block in self.plain[..len].chunks(BLOCK_BYTES) {
            match self.encoder.compress_vec(block) {
                Ok(compressed) => piece.extend(&compressed[length_delimiter_len(block.len())..]),
                Err(error) => return Some(Err(error)),
            }
        }
        self.plain.drain(..len);
        (!piece.is_empty()).then_some(Ok(piece))
    }
}

/// The key of the only field of a response, and of a result: number 1, of so many bytes.
const FIELD: u8 = 1 << 3 | 2;

/// What such a field takes, with its key.
pub(super) fn field_len(len: usize) -> usize {
    1 + length_delimiter_len(len) + len
}

fn time_series(series: &Series, external: &External) -> wire::TimeSeries {
    wire::TimeSeries {
        labels: external.add(&series.labels),
        samples: floats(&series.samples).collect(),
        exemplars: Vec::new(),
        histograms: histograms(&series.samples),
    }
}

/// What [`time_series`] takes, without it.
pub(super) fn series_len(series: &Series, external: &External) -> usize {
    let samples = &series.samples;
    let histograms = histograms(samples).into_iter();
    let histograms = histograms.map(|histogram| field_len(histogram.encoded_len()));
    let floats = match floats_in_step_len(samples) {
        Some(len) => len,
        None => floats(samples)
            .map(|float| field_len(float.encoded_len()))
            .sum(),
    };
    external.encoded_len(&series.labels) + floats + histograms.sum::<usize>()
}

/// Of floats alone whose instants are numbers of one length, which nobody has to look at.
fn floats_in_step_len(samples: &Samples) -> Option<usize> {
    let (first, last) = (samples.timestamps.first()?, samples.timestamps.last()?);
    let at = |timestamp: &Timestamp| wire::Sample {
        timestamp: timestamp.0,
        ..wire::Sample::default()
    };
    let time_len = at(first).encoded_len();
    let is_one_length = first.0 > 0 && time_len == at(last).encoded_len();
    if !samples.histograms.is_empty() || !is_one_length {
        return None;
    }
    let value_len = |&value: &f64| {
        let sample = wire::Sample {
            value,
            ..wire::Sample::default()
        };
        sample.encoded_len()
    };
    let values_len: usize = samples.values.iter().map(value_len).sum();
    // Each is so short that one byte tells its length.
    Some(samples.len() * field_len(time_len) + values_len)
}

fn floats(samples: &Samples) -> impl Iterator<Item = wire::Sample> + '_ {
    let floats = (0..samples.len()).filter(|i| samples.histogram(*i).is_none());
    floats.map(|i| wire::Sample {
        value: samples.values[i],
        timestamp: samples.timestamps[i].0,
    })
}

fn histograms(samples: &Samples) -> Vec<wire::Histogram> {
    let mut out = Vec::with_capacity(samples.histograms.len());
    let mut before: Option<(u32, &Histogram)> = None;
    for (index, histogram) in &samples.histograms {
        let beside = before.filter(|(at, _)| at + 1 == *index).map(|(_, h)| h);
        let hint = hint(beside, histogram);
        out.push(message(
            samples.timestamps[*index as usize],
            histogram,
            hint,
        ));
        before = Some((*index, histogram));
    }
    out
}

/// The hint Prometheus gives: of the first histogram behind a reset, a gap or a change of scale it
/// says nothing, so that a reader compares the counts itself.
fn hint(before: Option<&Histogram>, histogram: &Histogram) -> ResetHint {
    if histogram.is_stale() {
        return ResetHint::Unknown;
    }
    if histogram.reset_hint == ResetHint::Gauge {
        return ResetHint::Gauge;
    }
    match before.map(|before| step(before, histogram)) {
        Some(Step::Continues) => ResetHint::NotCounterReset,
        _ => ResetHint::Unknown,
    }
}

/// A histogram as protobuf, integer buckets as differences. Of a stale one nothing but its sum.
pub fn message(at: Timestamp, histogram: &Histogram, hint: ResetHint) -> wire::Histogram {
    let stale = Histogram {
        is_integer: histogram.is_integer,
        sum: histogram.sum,
        ..Histogram::default()
    };
    let histogram = if histogram.is_stale() {
        &stale
    } else {
        histogram
    };
    let mut message = wire::Histogram {
        sum: histogram.sum,
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        positive_spans: spans(&histogram.positive_spans),
        negative_spans: spans(&histogram.negative_spans),
        reset_hint: hint.number().into(),
        timestamp: at.0,
        custom_values: histogram.custom_values.clone(),
        ..wire::Histogram::default()
    };
    if histogram.is_integer {
        message.count = Some(Count::CountInt(histogram.whole_count()));
        message.zero_count = Some(ZeroCount::ZeroCountInt(histogram.whole_zero_count()));
        let mut deltas = bucket_deltas(histogram);
        let positive = histogram.positive_buckets.len();
        message.positive_deltas = deltas.by_ref().take(positive).collect();
        message.negative_deltas = deltas.collect();
    } else {
        message.count = Some(Count::CountFloat(histogram.count));
        message.zero_count = Some(ZeroCount::ZeroCountFloat(histogram.zero_count));
        message.positive_counts = histogram.positive_buckets.clone();
        message.negative_counts = histogram.negative_buckets.clone();
    }
    message
}

fn spans(spans: &[Span]) -> Vec<wire::BucketSpan> {
    let spans = spans.iter().map(|span| wire::BucketSpan {
        offset: span.offset,
        length: span.length,
    });
    spans.collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::Labels;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lengths_are_known_before_anything_is_written(
            times in prop::collection::btree_set(prop_oneof![
                8 => 1_700_000_000_000i64..1_700_000_000_050,
                1 => -5i64..300,
                1 => any::<i64>(),
            ], 0..9),
            values in prop::collection::vec(prop_oneof![Just(0.0), Just(-0.0), any::<f64>()], 9),
            has_histograms in any::<bool>(),
            external in prop_oneof![Just("a"), Just("region")],
        ) {
            let mut samples = Samples::default();
            for (at, value) in times.into_iter().map(Timestamp).zip(values) {
                match has_histograms && at.0 % 3 == 0 {
                    true => samples.push_histogram(at, Arc::default()),
                    false => samples.push(at, value),
                }
            }
            let series = Series {
                labels: Labels::from_pairs([("a", "b".repeat(200)), ("c", "d".to_owned())]),
                samples,
            };
            let external = External(Labels::from_pairs([(external, "eu")]));
            let whole = time_series(&series, &external).encoded_len();
            prop_assert_eq!(series_len(&series, &external), whole);
        }
    }
}
