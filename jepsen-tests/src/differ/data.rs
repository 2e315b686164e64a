//! The data both sides get: some 130 series over 160 minutes, every sample from one seed.
//!
//! Counters with resets, gauges, special values, gaps, staleness markers, classic histograms right
//! and broken, native histograms of every kind, label values in many scripts. The first sample is
//! 80 minutes before a multiple of two hours, so that a store that cuts blocks there has sealed
//! half of it. [`Data::slices`] is the order in which it is sent.

use std::fmt::Write;
use std::sync::Arc;

use model::{Histogram, Value};

use super::shapes;
use crate::splitmix::SplitMix64;

/// The newest sample lies behind this by less than a minute, the oldest is `SPAN_MS` older.
pub const END_MS: i64 = 236_112 * 7_200_000 + SPAN_MS / 2;
pub const SPAN_MS: i64 = 160 * 60_000;
pub const BEGIN_MS: i64 = END_MS - SPAN_MS;
/// What arrives together when the order of arrival is shuffled, and the window that allows it.
pub const SLICE_MS: i64 = 4 * 60_000;
pub const WINDOW: &str = "10m";

#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    pub at_ms: i64,
    pub value: Value,
}

/// Labels sorted by name, points by time.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub labels: Vec<(String, String)>,
    pub points: Vec<Point>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Data {
    pub series: Vec<Series>,
    /// Most of them rest before anything is asked.
    pub rests: bool,
}

impl Data {
    /// The data of a seed, the same in every version of this program that has the same shapes.
    pub fn generate(seed: u64, native: bool) -> Self {
        let mut dice = SplitMix64::new(seed ^ 0xda7a);
        let mut series = shapes::floats(&mut dice);
        if native {
            series.extend(shapes::natives(&mut dice));
        }
        let rests = false;
        Self { series, rests }
    }

    pub fn points(&self) -> usize {
        self.series.iter().map(|s| s.points.len()).sum()
    }

    /// Time slices, each the part of every series in it.
    pub fn slices(&self) -> Vec<Vec<Series>> {
        let first = BEGIN_MS.div_euclid(SLICE_MS);
        let last = END_MS.div_euclid(SLICE_MS);
        (first..=last)
            .map(|slice| self.part(slice * SLICE_MS, (slice + 1) * SLICE_MS))
            .filter(|part| !part.is_empty())
            .collect()
    }

    fn part(&self, begin_ms: i64, end_ms: i64) -> Vec<Series> {
        let cut = |series: &Series| Series {
            labels: series.labels.clone(),
            points: between(&series.points, begin_ms, end_ms).to_vec(),
        };
        let parts = self.series.iter().map(cut);
        parts.filter(|part| !part.points.is_empty()).collect()
    }

    /// For people: a line for each series, samples as seconds since the first sample of the data.
    pub fn listing(&self) -> String {
        let origin = self.series.iter().filter_map(|s| s.points.first());
        let origin = origin.map(|p| p.at_ms).min().unwrap_or(0);
        let mut text = format!("t0 = {}\n", origin as f64 / 1000.0);
        for series in &self.series {
            put(&mut text, format_args!("{}", selector(&series.labels)));
            for point in series.points.iter().take(40) {
                let at_s = (point.at_ms - origin) as f64 / 1000.0;
                put(&mut text, format_args!("  {at_s}:{}", shown(&point.value)));
            }
            let more = series.points.len().saturating_sub(40);
            if more > 0 {
                put(&mut text, format_args!("  and {more} more"));
            }
            text.push('\n');
        }
        text
    }
}

fn between(points: &[Point], begin_ms: i64, end_ms: i64) -> &[Point] {
    let from = points.partition_point(|p| p.at_ms < begin_ms);
    let upto = points.partition_point(|p| p.at_ms < end_ms);
    &points[from..upto]
}

/// A series' labels as PromQL selects it.
pub fn selector(labels: &[(String, String)]) -> String {
    let pairs: Vec<String> = labels.iter().map(|(n, v)| format!("{n:?}={v:?}")).collect();
    format!("{{{}}}", pairs.join(","))
}

fn shown(value: &Value) -> String {
    match value {
        Value::Float(float) if model::sample::is_stale(*float) => "stale".to_owned(),
        Value::Float(float) => format!("{float:?}"),
        Value::Histogram(h) if h.is_stale() => "stale histogram".to_owned(),
        Value::Histogram(h) => format!(
            "{{schema:{} count:{} sum:{} zero:{}@{} pos:{:?}{:?} neg:{:?}{:?} custom:{:?} {:?}}}",
            h.schema,
            h.count,
            h.sum,
            h.zero_count,
            h.zero_threshold,
            spans(&h.positive_spans),
            h.positive_buckets,
            spans(&h.negative_spans),
            h.negative_buckets,
            h.custom_values,
            h.reset_hint,
        ),
    }
}

fn spans(spans: &[model::histogram::Span]) -> Vec<(i32, u32)> {
    spans.iter().map(|s| (s.offset, s.length)).collect()
}

/// A value as the text of a case file, and back.
pub fn encode(value: &Value) -> String {
    match value {
        Value::Float(float) => format!("{:016x}", float.to_bits()),
        Value::Histogram(histogram) => {
            let mut bytes = Vec::new();
            histogram.encode(&mut bytes);
            let mut text = "h".to_owned();
            for byte in bytes {
                put(&mut text, format_args!("{byte:02x}"));
            }
            text
        }
    }
}

pub fn decode(text: &str) -> anyhow::Result<Value> {
    let Some(digits) = text.strip_prefix('h') else {
        return Ok(Value::Float(f64::from_bits(u64::from_str_radix(text, 16)?)));
    };
    let pairs = digits.as_bytes().chunks(2);
    let bytes: Vec<u8> = pairs
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect::<anyhow::Result<_>>()?;
    Ok(Value::Histogram(Arc::new(Histogram::decode(&bytes)?)))
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("a String grows");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn one_seed_is_one_set_of_valid_series() {
        let data = Data::generate(7, true);
        assert_eq!(data.listing(), Data::generate(7, true).listing());
        assert_ne!(data.listing(), Data::generate(8, true).listing());
        let mut seen = BTreeSet::new();
        for series in &data.series {
            assert!(seen.insert(selector(&series.labels)), "{:?}", series.labels);
            assert!(series.labels.windows(2).all(|w| w[0].0 < w[1].0));
            assert!(series.points.windows(2).all(|w| w[0].at_ms < w[1].at_ms));
            for point in &series.points {
                assert!((BEGIN_MS..=END_MS).contains(&point.at_ms));
                if let Value::Histogram(histogram) = &point.value {
                    histogram.validate().unwrap();
                }
            }
        }
    }

    #[test]
    fn slices_hold_every_point_once_in_order() {
        let data = Data::generate(1, true);
        let slices = data.slices();
        let sent: usize = slices.iter().flatten().map(|s| s.points.len()).sum();
        assert_eq!(sent, data.points());
        assert!(slices.len() > 30, "{}", slices.len());
    }

    #[test]
    fn values_survive_a_case_file() {
        for series in Data::generate(3, true).series {
            for point in series.points.iter().take(20) {
                let read = decode(&encode(&point.value)).unwrap();
                assert_eq!(encode(&read), encode(&point.value));
            }
        }
        assert!(decode("hzz").is_err() && decode("x").is_err());
    }
}
