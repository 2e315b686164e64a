//! An answer of plain samples: one snappy block around a `ReadResponse`.
//!
//! Byte for byte that of Prometheus 3.5 but for custom bounds, which it leaves out.

use model::histogram::{ResetHint, Span};
use model::{Histogram, Samples, Series, Timestamp};
use prost::Message;
use proto::remote as wire;
use proto::remote::histogram::{Count, ZeroCount};

use super::External;
use super::histogram::bucket_deltas;
use super::sequence::{Step, step};

/// Collects one result for each query of a request.
#[derive(Debug, Default)]
pub struct SamplesAnswer {
    response: wire::ReadResponse,
    samples: usize,
}

/// More samples than one answer may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("exceeded sample limit ({0})")]
pub struct TooManySamples(pub usize);

impl SamplesAnswer {
    /// Adds the result of the next query; `samples_max` bounds each, 0 does not.
    pub fn add(
        &mut self,
        series: Vec<Series>,
        external: &External,
        samples_max: usize,
    ) -> Result<(), TooManySamples> {
        let samples: usize = series.iter().map(|s| s.samples.len()).sum();
        if samples_max > 0 && samples > samples_max {
            return Err(TooManySamples(samples_max));
        }
        self.samples += samples;
        let timeseries = series
            .into_iter()
            .map(|series| time_series(series, external));
        self.response.results.push(wire::QueryResult {
            timeseries: timeseries.collect(),
        });
        Ok(())
    }

    /// How many samples it holds.
    pub fn len(&self) -> usize {
        self.samples
    }

    pub fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// The body; an answer larger than snappy's 4 GiB is an error.
    pub fn encode(self) -> Result<Vec<u8>, snap::Error> {
        snap::raw::Encoder::new().compress_vec(&self.response.encode_to_vec())
    }
}

fn time_series(series: Series, external: &External) -> wire::TimeSeries {
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
