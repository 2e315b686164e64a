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
use super::sequence::{Step, step};

/// Collects one result for each query of a request.
#[derive(Debug, Default)]
pub struct SamplesAnswer {
    results: Vec<Vec<Series>>,
    samples: usize,
}

/// More samples than one answer may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("exceeded sample limit ({0})")]
pub struct TooManySamples(pub usize);

impl SamplesAnswer {
    /// Adds the result of the next query. `samples_max` bounds each, 0 does not; of several queries it
    /// bounds all together, which Prometheus does not.
    pub fn add(&mut self, series: Vec<Series>, samples_max: usize) -> Result<(), TooManySamples> {
        self.samples += series.iter().map(|s| s.samples.len()).sum::<usize>();
        if samples_max > 0 && self.samples > samples_max {
            return Err(TooManySamples(samples_max));
        }
        self.results.push(series);
        Ok(())
    }

    /// How many samples it holds.
    pub fn len(&self) -> usize {
        self.samples
    }

    pub fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// What was added, for an answer of another form.
    pub fn into_results(self) -> Vec<Vec<Series>> {
        self.results
    }

    /// The body; an answer larger than snappy's 4 GiB is an error.
    pub fn into_body(self, external: External) -> Result<SamplesBody, snap::Error> {
        let result_len = |result: &Vec<Series>| {
            let series = result.iter().map(|series| time_series(series, &external));
            series.map(|series| field_len(series.encoded_len())).sum()
        };
        let result_lens: Vec<usize> = self.results.iter().map(result_len).collect();
        let given: u64 = result_lens.iter().map(|len| field_len(*len) as u64).sum();
        let max = u64::from(u32::MAX);
        if given > max {
            return Err(snap::Error::TooBig { given, max });
        }
        let mut begin = Vec::new();
        encode_varint(given, &mut begin);
        Ok(SamplesBody {
            external,
            results: self.results.into_iter().zip(result_lens),
            series: Vec::new().into_iter(),
            begin,
            plain: Vec::new(),
            encoder: snap::raw::Encoder::new(),
        })
    }
}

/// What snappy compresses by itself, without a look at what is before.
const BLOCK_BYTES: usize = 64 << 10;

/// A body in pieces, for each of which a few series are let go.
///
/// Snappy's raw format is the length of the whole and then one compressed block after the other: the
/// same bytes as if it had stood in memory.
pub struct SamplesBody {
    external: External,
    results: std::iter::Zip<std::vec::IntoIter<Vec<Series>>, std::vec::IntoIter<usize>>,
    series: std::vec::IntoIter<Series>,
    /// The length of the whole, before the first piece.
    begin: Vec<u8>,
    /// What is written and not compressed yet.
    plain: Vec<u8>,
    encoder: snap::raw::Encoder,
}

impl SamplesBody {
    /// Writes until there is a block; `false` when nothing is left to write.
    fn write_block(&mut self) -> bool {
        while self.plain.len() < BLOCK_BYTES {
            if let Some(series) = self.series.next() {
                let series = time_series(&series, &self.external);
                self.plain.push(FIELD);
                let encoded = series.encode_length_delimited(&mut self.plain);
                encoded.expect("a vector has room for all");
            } else if let Some((result, len)) = self.results.next() {
                self.plain.push(FIELD);
                encode_varint(len as u64, &mut self.plain);
                self.series = result.into_iter();
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
fn field_len(len: usize) -> usize {
    1 + length_delimiter_len(len) + len
}

fn time_series(series: &Series, external: &External) -> wire::TimeSeries {
    let samples = &series.samples;
    let floats = (0..samples.len()).filter(|i| samples.histogram(*i).is_none());
    wire::TimeSeries {
        labels: external.add(&series.labels),
        samples: floats
            .map(|i| wire::Sample {
                value: samples.values[i],
                timestamp: samples.timestamps[i].0,
            })
            .collect(),
        exemplars: Vec::new(),
        histograms: histograms(samples),
    }
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
