//! A series' samples as chunks.
//!
//! Cuts: after [`CHUNK_SAMPLES_MAX`] samples, where floats and histograms of either kind meet,
//! where a counter began anew, and where histograms have other buckets than those before.

use std::sync::Arc;

use model::{Histogram, Samples, Timestamp};
use proto::remote as wire;
use proto::remote::chunk::Encoding;

use super::histogram::HistogramChunk;
use super::sequence::{Step, same_layout, step};
use super::xor::XorChunk;

/// Samples of one chunk, as Prometheus cuts them.
pub const CHUNK_SAMPLES_MAX: usize = 120;

/// A series' chunks, by time.
#[derive(Debug)]
pub struct Chunks<'a> {
    samples: &'a Samples,
    next: usize,
}

impl<'a> Chunks<'a> {
    pub fn new(samples: &'a Samples) -> Self {
        Self { samples, next: 0 }
    }

    fn floats(&mut self, at: Timestamp, value: f64) -> Vec<u8> {
        let mut chunk = XorChunk::new(at, value);
        self.next += 1;
        while chunk.count() < CHUNK_SAMPLES_MAX
            && let Some(&at) = self.samples.timestamps.get(self.next)
            && self.samples.histogram(self.next).is_none()
        {
            chunk.push(at, self.samples.values[self.next]);
            self.next += 1;
        }
        chunk.into_bytes()
    }

    fn histograms(&mut self, at: Timestamp, first: &Arc<Histogram>) -> Vec<u8> {
        let mut chunk = HistogramChunk::new(at, first);
        self.next += 1;
        let mut before = first;
        while chunk.count() < CHUNK_SAMPLES_MAX
            && let Some(&at) = self.samples.timestamps.get(self.next)
            && let Some(histogram) = self.samples.histogram(self.next)
            && step(before, histogram) == Step::Continues
            && (histogram.is_stale() || same_layout(before, histogram))
        {
            chunk.push(at, histogram);
            before = histogram;
            self.next += 1;
        }
        chunk.into_bytes()
    }
}

impl Iterator for Chunks<'_> {
    type Item = wire::Chunk;

    fn next(&mut self) -> Option<wire::Chunk> {
        let samples = self.samples;
        let min = *samples.timestamps.get(self.next)?;
        let (encoding, data) = match samples.histogram(self.next) {
            None => (Encoding::Xor, self.floats(min, samples.values[self.next])),
            Some(histogram) => {
                let encoding = match histogram.is_integer {
                    true => Encoding::Histogram,
                    false => Encoding::FloatHistogram,
                };
                (encoding, self.histograms(min, histogram))
            }
        };
        let max = samples.timestamps[self.next - 1];
        Some(wire::Chunk {
            min_time_ms: min.0,
            max_time_ms: max.0,
            r#type: encoding.into(),
            data: data.into(),
        })
    }
}
