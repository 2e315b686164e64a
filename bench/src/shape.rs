//! The data, the same for every system: series with eight labels, values as exporters make them
//! (half counters, some gauges of two decimals, some constant, some noise), one sample every 15
//! seconds up to now. Two shapes of request: *wide* is what a scrape sends, one sample for each of
//! many series; *deep* is what a backlog sends, twenty samples for each of few.
//!
//! A request is encoded here from prepared label bytes, so that the sender costs little beside the
//! system it measures.

use anyhow::bail;
use jepsen_tests::splitmix::SplitMix64;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde::Serialize;

/// Milliseconds between two samples of a series.
pub const INTERVAL_MS: i64 = 15_000;
/// Samples in one request, as Prometheus' remote write sends by default.
const REQUEST_SAMPLES: u32 = 2_000;
/// Series that share a metric name.
pub const SERIES_PER_METRIC: u32 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    Wide,
    Deep,
}

impl Shape {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        match text {
            "wide" => Ok(Self::Wide),
            "deep" => Ok(Self::Deep),
            _ => bail!("no requests {text:?}; there are wide, deep"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Wide => "1 sample per series",
            Self::Deep => "20 samples per series",
        }
    }

    pub fn samples_per_series(self) -> u32 {
        match self {
            Self::Wide => 1,
            Self::Deep => 20,
        }
    }

    pub fn series_per_request(self) -> u32 {
        REQUEST_SAMPLES / self.samples_per_series()
    }
}

/// What the series of a measurement are, by number.
#[derive(Debug, Clone, Copy)]
pub struct Population {
    /// Sorted by name.
    pub labels: fn(u32) -> Vec<(&'static str, String)>,
    /// Of a series in a round.
    pub value: fn(u32, u32) -> f64,
}

/// The series of this module: what is written, rather than what is asked.
pub const PLAIN: Population = Population {
    labels: |series| labels(series).to_vec(),
    value,
};

/// A part of all series, which one sender sends in order.
pub struct Part {
    /// Number and encoded labels of each series.
    series: Vec<(u32, Vec<u8>)>,
    of: Population,
    base_ms: i64,
    /// After so many rounds another series takes the place of one.
    life_rounds: Option<u32>,
}

impl Part {
    /// Every `senders`th series from `sender` on; round 0 lies at `base_ms` since 1970.
    pub fn new(of: Population, series: u32, sender: u32, senders: u32, base_ms: i64) -> Self {
        let mine = (sender..series).step_by(senders as usize);
        Self {
            series: mine.map(|n| (n, encoded(&(of.labels)(n)))).collect(),
            of,
            base_ms,
            life_rounds: None,
        }
    }

    /// The same series, each of which lives for so many rounds: then one with another pod goes on.
    pub fn living(self, life_rounds: Option<u32>) -> Self {
        Self {
            life_rounds,
            ..self
        }
    }

    /// Encoded labels of what stands for a series in a round, if that is another one than at first.
    fn successor(&self, number: u32, round: u32) -> Option<Vec<u8>> {
        let life = self.life_rounds?;
        // Spread, so that about as many end in each round.
        let age = u64::from(round) + u64::from(number) * 7_919 % u64::from(life);
        let generation = Some(age / u64::from(life)).filter(|generation| *generation > 0)?;
        let mut labels = (self.of.labels)(number);
        let pod = labels.iter_mut().find(|(name, _)| *name == "pod")?;
        pod.1.push_str(&format!("-{generation}"));
        Some(encoded(&labels))
    }

    /// The requests that carry `rounds`, each as its encoded, uncompressed message and its number
    /// of samples.
    pub fn requests(
        &self,
        shape: Shape,
        rounds: std::ops::Range<u32>,
    ) -> impl Iterator<Item = (Vec<u8>, u32)> {
        self.series
            .chunks(shape.series_per_request() as usize)
            .map(move |chunk| {
                let samples = chunk.len() as u32 * rounds.len() as u32;
                (self.message(chunk, rounds.clone()), samples)
            })
    }

    fn message(&self, chunk: &[(u32, Vec<u8>)], rounds: std::ops::Range<u32>) -> Vec<u8> {
        let mut message = Vec::new();
        let mut series = Vec::new();
        let mut sample = Vec::new();
        for (number, labels) in chunk {
            series.clear();
            match self.successor(*number, rounds.start) {
                Some(labels) => series.extend(labels),
                None => series.extend_from_slice(labels),
            }
            for round in rounds.clone() {
                let at_ms = self.base_ms + i64::from(round) * INTERVAL_MS;
                sample.clear();
                encode_key(1, WireType::SixtyFourBit, &mut sample);
                sample.extend_from_slice(&(self.of.value)(*number, round).to_le_bytes());
                encode_key(2, WireType::Varint, &mut sample);
                encode_varint(at_ms as u64, &mut sample);
                put(2, &sample, &mut series);
            }
            put(1, &series, &mut message);
        }
        message
    }
}

/// The value of a series in a round; counters never fall.
pub fn value(series: u32, round: u32) -> f64 {
    let mut dice = SplitMix64::new(u64::from(series) << 32 | u64::from(round));
    let mut own = SplitMix64::new(u64::from(series));
    let size = own.between(10, 5_000);
    match series % 10 {
        0..=4 => {
            (own.between(0, 1_000_000) + u64::from(round) * size + dice.between(0, size)) as f64
        }
        5..=7 => (size * 100 + dice.between(0, 500)) as f64 / 100.0,
        8 => size as f64,
        _ => dice.word() as f64 / u64::MAX as f64,
    }
}

/// Labels of a series, sorted by name.
pub fn labels(series: u32) -> [(&'static str, String); 8] {
    let metric = series / SERIES_PER_METRIC;
    let instance = series % SERIES_PER_METRIC;
    [
        ("__name__", format!("bench_metric_{metric}_total")),
        ("cluster", "eu-west-1".to_owned()),
        ("container", format!("app-{}", instance % 7)),
        (
            "instance",
            format!("10.0.{}.{}:9100", instance / 250, instance % 250),
        ),
        ("job", "bench".to_owned()),
        ("namespace", format!("team-{}", metric % 10)),
        (
            "pod",
            format!("app-{}-{instance:x}-{metric:x}", instance % 7),
        ),
        ("zone", format!("z{}", instance % 3)),
    ]
}

fn encoded(labels: &[(&str, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        put(1, name.as_bytes(), &mut label);
        put(2, value.as_bytes(), &mut label);
        put(1, &label, &mut bytes);
    }
    bytes
}

fn put(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use proto::remote::WriteRequest;

    use super::*;

    #[test]
    fn requests_decode_to_the_data() {
        let part = Part::new(PLAIN, 5_000, 1, 4, 1_700_000_000_000);
        let (message, samples) = part.requests(Shape::Deep, 20..40).next().unwrap();
        let request = WriteRequest::decode(&message[..]).unwrap();
        assert_eq!((request.timeseries.len(), samples), (100, 2_000));
        let second = &request.timeseries[1];
        for (label, (name, value)) in second.labels.iter().zip(labels(5)) {
            assert_eq!((&*label.name, &*label.value), (name, &*value));
        }
        assert_eq!(second.samples.len(), 20);
        assert_eq!(second.samples[0].timestamp, 1_700_000_300_000);
        assert_eq!(second.samples[0].value, value(5, 20));
    }

    #[test]
    fn parts_hold_every_series_once_in_either_shape() {
        for shape in [Shape::Wide, Shape::Deep] {
            let mut seen = BTreeSet::new();
            let mut samples = 0;
            for sender in 0..4 {
                let part = Part::new(PLAIN, 4_321, sender, 4, 0);
                let rounds = 0..shape.samples_per_series();
                for (message, count) in part.requests(shape, rounds) {
                    samples += count;
                    for series in WriteRequest::decode(&message[..]).unwrap().timeseries {
                        assert!(seen.insert(format!("{:?}", series.labels)));
                    }
                }
            }
            assert_eq!(seen.len(), 4_321);
            assert_eq!(samples, 4_321 * shape.samples_per_series());
        }
    }

    #[test]
    fn a_share_of_the_series_is_replaced_in_time() {
        let part = Part::new(PLAIN, 3_000, 0, 1, 0).living(Some(100));
        let seen = |round: u32| -> BTreeSet<String> {
            let requests = part.requests(Shape::Wide, round..round + 1);
            let messages = requests.map(|(message, _)| WriteRequest::decode(&message[..]).unwrap());
            let series = messages.flat_map(|message| message.timeseries);
            series
                .map(|series| format!("{:?}", series.labels))
                .collect()
        };
        let (first, next, later) = (seen(0), seen(10), seen(100));
        assert_eq!(
            (first.len(), next.len(), later.len()),
            (3_000, 3_000, 3_000)
        );
        assert_eq!(first.difference(&next).count(), 300);
        assert!(first.is_disjoint(&later));
        let same = Part::new(PLAIN, 3_000, 0, 1, 0);
        assert!(
            same.requests(Shape::Deep, 0..20)
                .eq(part.requests(Shape::Deep, 0..20))
        );
    }

    #[test]
    fn counters_never_fall() {
        for series in (0..100).filter(|n| n % 10 <= 4) {
            assert!((1..50).all(|round| value(series, round) >= value(series, round - 1)));
        }
    }
}
