//! The slow, obvious reader of what this module writes, written from the format's description
//! alone; and tests that hold the writers against it and against bytes of Prometheus 3.5.3.

use std::sync::Arc;

use model::histogram::{CUSTOM_SCHEMA, Integers, ResetHint, Span};
use model::sample::STALE_NAN;
use model::{Histogram, Labels, Samples, Series, Timestamp};
use proptest::prelude::*;
use prost::Message;
use proto::remote as wire;
use proto::remote::histogram::{Count, ZeroCount};

use super::bits::CLASSES;
use super::chunk::Chunks;
use super::{Answer, Body, External, Frames, Results, SamplesBody, TooManySamples};

struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn bit(&mut self) -> u64 {
        let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
        self.at += 1;
        bit.into()
    }

    fn bits(&mut self, count: u32) -> u64 {
        (0..count).fold(0, |word, _| word << 1 | self.bit())
    }

    fn float(&mut self) -> f64 {
        f64::from_bits(self.bits(64))
    }

    fn uvarint(&mut self) -> u64 {
        let (mut word, mut shift) = (0, 0);
        loop {
            let byte = self.bits(8);
            word |= (byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return word;
            }
        }
    }

    fn varint(&mut self) -> i64 {
        let word = self.uvarint();
        (word >> 1) as i64 ^ -((word & 1) as i64)
    }

    fn class(&mut self) -> u32 {
        let ones = (0..8).take_while(|_| self.bit() == 1).count();
        *CLASSES.get(ones).unwrap_or(&64)
    }

    fn varbit(&mut self) -> i64 {
        let bits = self.class();
        signed(self.bits(bits), bits)
    }

    fn varbit_unsigned(&mut self) -> u64 {
        let bits = self.class();
        self.bits(bits)
    }

    fn xor(&mut self, value: &mut f64, window: &mut (u32, u32)) {
        if self.bit() == 0 {
            return;
        }
        if self.bit() == 1 {
            let leading = self.bits(5) as u32;
            let significant = match self.bits(6) as u32 {
                0 => 64,
                bits => bits,
            };
            *window = (leading, 64 - leading - significant);
        }
        let delta = self.bits(64 - window.0 - window.1) << window.1;
        *value = f64::from_bits(value.to_bits() ^ delta);
    }
}

/// `2^(bits-1)` is the highest number of that many bits, not the lowest.
fn signed(word: u64, bits: u32) -> i64 {
    match bits {
        0 => 0,
        64 => word as i64,
        bits if word > 1 << (bits - 1) => word as i64 - (1 << bits),
        _ => word as i64,
    }
}

fn read_xor(data: &[u8], samples: &mut Samples) {
    let mut r = BitReader {
        bytes: data,
        at: 16,
    };
    let count = u16::from_be_bytes([data[0], data[1]]);
    let (mut at, mut delta, mut window) = (0, 0, (0, 0));
    let mut value = 0.0;
    for i in 0..count {
        match i {
            0 => {
                at = r.varint();
                value = r.float();
            }
            1 => delta = r.uvarint() as i64,
            _ => {
                let ones = (0..4).take_while(|_| r.bit() == 1).count();
                let bits = [0, 14, 17, 20, 64][ones];
                delta += signed(r.bits(bits), bits);
            }
        }
        if i > 0 {
            at += delta;
            r.xor(&mut value, &mut window);
        }
        samples.push(Timestamp(at), value);
    }
}

fn read_layout(r: &mut BitReader<'_>) -> Histogram {
    let zero_threshold = match r.bits(8) {
        0 => 0.0,
        255 => r.float(),
        byte => 2f64.powi(byte as i32 - 244),
    };
    let schema = r.varbit() as i32;
    let mut spans = || -> Vec<Span> {
        let spans = (0..r.varbit_unsigned()).map(|_| {
            let length = r.varbit_unsigned() as u32;
            let offset = r.varbit() as i32;
            Span { offset, length }
        });
        spans.collect()
    };
    let (positive_spans, negative_spans) = (spans(), spans());
    let mut custom_values = Vec::new();
    if schema == CUSTOM_SCHEMA {
        for _ in 0..r.varbit_unsigned() {
            custom_values.push(match r.varbit_unsigned() {
                0 => r.float(),
                thousandths => (thousandths - 1) as f64 / 1000.0,
            });
        }
    }
    Histogram {
        schema,
        zero_threshold,
        positive_spans,
        negative_spans,
        custom_values,
        ..Histogram::default()
    }
}

fn read_histograms(data: &[u8], is_integer: bool, samples: &mut Samples) {
    let mut r = BitReader {
        bytes: data,
        at: 24,
    };
    let count = u16::from_be_bytes([data[0], data[1]]);
    let layout = Histogram {
        is_integer,
        ..read_layout(&mut r)
    };
    let length = |spans: &[Span]| spans.iter().map(|s| s.length as usize).sum::<usize>();
    let positive = length(&layout.positive_spans);
    let buckets = positive + length(&layout.negative_spans);
    let header = [
        ResetHint::Unknown,
        ResetHint::NotCounterReset,
        ResetHint::CounterReset,
        ResetHint::Gauge,
    ][usize::from(data[2] >> 6)];
    let (mut at, mut delta) = (0, 0);
    let mut numbers = vec![(0i64, 0i64); 2 + buckets];
    let mut floats = vec![(0.0, (0, 0)); 3 + buckets];
    let mut sum = (0.0, (0, 0));
    for i in 0..count {
        match i {
            0 => at = r.varbit(),
            1 => delta = r.varbit(),
            _ => delta += r.varbit(),
        }
        at += if i == 0 { 0 } else { delta };
        let mut h = Histogram {
            reset_hint: match (i, header) {
                (_, ResetHint::Gauge) => header,
                (0, _) => ResetHint::Unknown,
                _ => ResetHint::NotCounterReset,
            },
            ..layout.clone()
        };
        if is_integer {
            let mut next = |r: &mut BitReader<'_>, at: usize| {
                let (value, change) = &mut numbers[at];
                match i {
                    0 if at < 2 => *value = r.varbit_unsigned() as i64,
                    0 => *value = r.varbit(),
                    1 => {
                        *change = r.varbit();
                        *value = value.wrapping_add(*change);
                    }
                    _ => {
                        *change = change.wrapping_add(r.varbit());
                        *value = value.wrapping_add(*change);
                    }
                }
                *value
            };
            let mut integers = Integers {
                count: next(&mut r, 0) as u64,
                zero_count: next(&mut r, 1) as u64,
                ..Integers::default()
            };
            match i {
                0 => sum.0 = r.float(),
                _ => r.xor(&mut sum.0, &mut sum.1),
            }
            h.sum = sum.0;
            if !h.is_stale() {
                let deltas: Vec<_> = (0..buckets).map(|b| next(&mut r, 2 + b)).collect();
                integers.positive_buckets = absolute(&deltas[..positive]);
                integers.negative_buckets = absolute(&deltas[positive..]);
                h.set_integers(integers);
            }
        } else {
            for at in 0..3 + buckets {
                if at == 3 && model::sample::is_stale(floats[2].0) {
                    break;
                }
                let (value, window) = &mut floats[at];
                match i {
                    0 => *value = r.float(),
                    _ => r.xor(value, window),
                }
            }
            let values: Vec<f64> = floats.iter().map(|(value, _)| *value).collect();
            (h.count, h.zero_count, h.sum) = (values[0], values[1], values[2]);
            h.positive_buckets = values[3..3 + positive].to_vec();
            h.negative_buckets = values[3 + positive..].to_vec();
        }
        if h.is_stale() {
            h = stale(is_integer);
        }
        samples.push_histogram(Timestamp(at), Arc::new(h));
    }
}

fn absolute(deltas: &[i64]) -> Vec<i64> {
    let counts = deltas.iter().scan(0i64, |count, delta| {
        *count = count.wrapping_add(*delta);
        Some(*count)
    });
    counts.collect()
}

fn stale(is_integer: bool) -> Histogram {
    Histogram {
        is_integer,
        sum: STALE_NAN,
        ..Histogram::default()
    }
}

fn read_chunks(chunks: impl Iterator<Item = wire::Chunk>) -> Samples {
    let mut samples = Samples::default();
    for chunk in chunks {
        let before = samples.len();
        match chunk.r#type() {
            wire::chunk::Encoding::Xor => read_xor(&chunk.data, &mut samples),
            wire::chunk::Encoding::Histogram => read_histograms(&chunk.data, true, &mut samples),
            wire::chunk::Encoding::FloatHistogram => {
                read_histograms(&chunk.data, false, &mut samples);
            }
            wire::chunk::Encoding::Unknown => panic!("unknown encoding"),
        }
        assert!(samples.len() - before <= 120);
        assert_eq!(samples.timestamps[before].0, chunk.min_time_ms);
        assert_eq!(samples.last().unwrap().timestamp.0, chunk.max_time_ms);
    }
    samples
}

/// Equal but for hints, by bits.
fn assert_same(read: &Samples, sent: &Samples) {
    assert_eq!(read.timestamps, sent.timestamps);
    for i in 0..sent.len() {
        match (read.histogram(i), sent.histogram(i)) {
            (Some(a), Some(b)) => {
                let mut a = Histogram::clone(a);
                a.reset_hint = b.reset_hint;
                assert!(a.same_bits(b), "{a:?} {b:?}");
            }
            (None, None) => assert_eq!(read.values[i].to_bits(), sent.values[i].to_bits()),
            (a, b) => panic!("{a:?} {b:?}"),
        }
    }
}

fn side() -> impl Strategy<Value = (Vec<Span>, Vec<u32>)> {
    let span = (0i32..300, 0u32..4).prop_map(|(offset, length)| Span { offset, length });
    prop::collection::vec(span, 0..3).prop_flat_map(|spans| {
        let buckets = spans.iter().map(|s| s.length as usize).sum::<usize>();
        (Just(spans), prop::collection::vec(0u32..1 << 20, buckets))
    })
}

/// Few layouts and many histograms of each, so that chunks go on.
fn histograms() -> impl Strategy<Value = Vec<Histogram>> {
    let kind = (any::<bool>(), 0u8..4, -4i32..=8, 0u8..4, any::<f64>());
    let large = prop_oneof![Just(0), 1i64 << 52..1 << 54, Just(1 << 60)];
    let run = (side(), side(), kind, 1usize..5, any::<bool>(), large);
    let runs = run.prop_map(|(positive, negative, kind, length, ends, large)| {
        let (is_integer, hint, schema, threshold, sum) = kind;
        let zero_threshold = [0.0, 0.001, 2f64.powi(-128), 1.0][usize::from(threshold)];
        let mut run: Vec<_> = (1..=length as u32)
            .map(|i| {
                let grown = |counts: &[u32]| -> Vec<f64> {
                    let factor = if is_integer { 1.0 } else { 0.3 };
                    counts.iter().map(|c| f64::from(c * i) * factor).collect()
                };
                let buckets = (grown(&positive.1), grown(&negative.1));
                Histogram {
                    is_integer,
                    reset_hint: ResetHint::of_number(hint).unwrap(),
                    schema,
                    zero_threshold,
                    zero_count: f64::from(i),
                    count: f64::from(i) + buckets.0.iter().chain(&buckets.1).sum::<f64>(),
                    sum,
                    positive_spans: positive.0.clone(),
                    positive_buckets: buckets.0,
                    negative_spans: negative.0.clone(),
                    negative_buckets: buckets.1,
                    ..Histogram::default()
                }
            })
            .collect();
        for h in run.iter_mut().filter(|_| is_integer) {
            h.set_integers(enlarged(h, large));
        }
        run.extend(ends.then(|| stale(is_integer)));
        run
    });
    prop::collection::vec(runs, 0..4).prop_map(|runs| runs.concat())
}

/// Its integers, with so much more in every bucket.
fn enlarged(h: &Histogram, large: i64) -> Integers {
    let positive_buckets: Vec<_> = h.whole_positive().map(|count| count + large).collect();
    let negative_buckets: Vec<_> = h.whole_negative().map(|count| count + large).collect();
    let zero_count = h.whole_zero_count() + large as u64;
    let buckets = positive_buckets.iter().chain(&negative_buckets);
    Integers {
        count: buckets.fold(zero_count, |sum, count| sum.saturating_add(*count as u64)),
        zero_count,
        positive_buckets,
        negative_buckets,
    }
}

fn samples() -> impl Strategy<Value = Samples> {
    let floats = prop::collection::vec(
        prop_oneof![any::<f64>(), (0u8..4).prop_map(f64::from)],
        0..300,
    );
    // Of each length in bits.
    let gap = (0u32..40).prop_flat_map(|bits| 1i64 << bits..2 << bits);
    let gaps = prop::collection::vec(prop_oneof![Just(15_000i64), gap], 330);
    (floats, histograms(), gaps, -1i64 << 50..1 << 50).prop_map(|(floats, histograms, gaps, at)| {
        let mut samples = Samples::default();
        let mut at = at;
        let half = floats.len() / 2;
        let mut gaps = gaps.into_iter();
        let mut next = || {
            at += gaps.next().unwrap();
            Timestamp(at)
        };
        for value in &floats[..half] {
            samples.push(next(), *value);
        }
        for histogram in histograms {
            samples.push_histogram(next(), Arc::new(histogram));
        }
        for value in &floats[half..] {
            samples.push(next(), *value);
        }
        samples
    })
}

/// An answer of samples, as the series it tells of.
fn read_samples(message: &[u8]) -> Vec<Series> {
    let response = wire::ReadResponse::decode(message).unwrap();
    let series = response.results[0].timeseries.iter().map(|series| {
        let mut all: Vec<(i64, Option<Histogram>, f64)> = Vec::new();
        all.extend(series.samples.iter().map(|s| (s.timestamp, None, s.value)));
        let histograms = series.histograms.iter();
        all.extend(histograms.map(|h| (h.timestamp, Some(read_histogram(h)), h.sum)));
        all.sort_by_key(|(at, ..)| *at);
        let mut samples = Samples::default();
        for (at, histogram, value) in all {
            match histogram {
                Some(h) => samples.push_histogram(Timestamp(at), Arc::new(h)),
                None => samples.push(Timestamp(at), value),
            }
        }
        let labels = series.labels.iter().filter(|l| l.name != "region");
        Series {
            labels: Labels::from_pairs(labels.map(|l| (&l.name, &l.value))),
            samples,
        }
    });
    series.collect()
}

fn read_histogram(h: &wire::Histogram) -> Histogram {
    let spans = |spans: &[wire::BucketSpan]| -> Vec<Span> {
        let spans = spans.iter().map(|s| Span {
            offset: s.offset,
            length: s.length,
        });
        spans.collect()
    };
    // As a scrape or a write would have brought it: only gauges are told.
    let hint = ResetHint::of_number(h.reset_hint as u8).unwrap();
    let is_told = hint == ResetHint::Gauge;
    let mut histogram = Histogram {
        reset_hint: if is_told { hint } else { ResetHint::Unknown },
        schema: h.schema,
        zero_threshold: h.zero_threshold,
        sum: h.sum,
        positive_spans: spans(&h.positive_spans),
        positive_buckets: h.positive_counts.clone(),
        negative_spans: spans(&h.negative_spans),
        negative_buckets: h.negative_counts.clone(),
        custom_values: match h.schema {
            CUSTOM_SCHEMA => BOUNDS.to_vec(),
            _ => Vec::new(),
        },
        ..Histogram::default()
    };
    match (h.count.unwrap(), h.zero_count.unwrap()) {
        (Count::CountInt(count), ZeroCount::ZeroCountInt(zero_count)) => {
            histogram.set_integers(Integers {
                count,
                zero_count,
                positive_buckets: absolute(&h.positive_deltas),
                negative_buckets: absolute(&h.negative_deltas),
            });
        }
        (Count::CountFloat(count), ZeroCount::ZeroCountFloat(zero_count)) => {
            (histogram.count, histogram.zero_count) = (count, zero_count);
        }
        mixed => panic!("{mixed:?}"),
    }
    histogram
}

/// Plain samples of Prometheus 3.5.3 have lost the custom bounds; its chunks have them.
const BOUNDS: [f64; 6] = [0.001, 0.0015, 0.1, 1.0, 33_554.43, 33_554.5];

/// What Prometheus 3.5.3 with `external_labels: {region: eu}` answered to one query in both
/// forms: floats with odd gaps and values; histograms of both kinds that grow, begin anew, end,
/// are gauges, change their schema, have custom bounds; all of them in one series. Written by
/// remote write, one sample a request. Left out: histograms that get further buckets, where
/// Prometheus rewrites the chunk and we begin another; and hints that do not follow from counts,
/// which plain samples lose.
const SAMPLES: &[u8] = include_bytes!("fixtures/samples.bin");
const FRAMES: &[u8] = include_bytes!("fixtures/frames.bin");

/// An answer of plain samples to as many queries.
fn answer(queries: Vec<Vec<Series>>, external: &External) -> SamplesBody {
    let mut results = Results::new(Answer::Samples, external.clone());
    for series in queries {
        results.begin(samples_in(&series), 0).unwrap();
        series.into_iter().for_each(|one| results.add(one));
    }
    match results.into_body().unwrap() {
        Body::Samples(body) => *body,
        Body::Chunks(_) => panic!("samples were asked for"),
    }
}

fn samples_in(series: &[Series]) -> usize {
    series.iter().map(|one| one.samples.len()).sum()
}

/// The message in a body, whose bytes are those that snappy makes of the whole.
fn decompressed(pieces: SamplesBody) -> Vec<u8> {
    let pieces: Vec<Vec<u8>> = pieces.map(Result::unwrap).collect();
    let body = pieces.concat();
    let plain = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let whole = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    assert!(body == whole, "{} bytes of {}", body.len(), plain.len());
    plain
}

#[test]
fn a_long_answer_leaves_in_pieces() {
    let mut samples = Samples::default();
    (0..9_000).for_each(|at| samples.push(Timestamp(at * 15_000), (at * 7_919 % 1_000) as f64));
    let series = |count: usize| -> Vec<Series> {
        let one = |n: usize| Series {
            labels: Labels::from_pairs([("n", n.to_string())]),
            samples: samples.clone(),
        };
        (0..count).map(one).collect()
    };
    let queries = || [3, 0, 1].map(series).to_vec();
    assert!(answer(queries(), &External::default()).count() > 3);
    let plain = decompressed(answer(queries(), &External::default()));
    let results = wire::ReadResponse::decode(&plain[..]).unwrap().results;
    let counts: Vec<usize> = results.iter().map(|of| of.timeseries.len()).collect();
    assert_eq!(counts, [3, 0, 1]);
    let mut all = results.iter().flat_map(|of| &of.timeseries);
    assert!(all.all(|series| series.samples.len() == 9_000));
}

#[test]
fn several_queries_have_one_limit() {
    let mut results = Results::new(Answer::Samples, External::default());
    assert_eq!(results.begin(20, 36), Ok(()));
    assert_eq!(results.begin(16, 36), Ok(()));
    assert_eq!(results.begin(1, 36), Err(TooManySamples(36)));
    assert_eq!(TooManySamples(36).to_string(), "exceeded sample limit (36)");
    assert_eq!(results.begin(1, 0), Ok(()));
}

#[test]
fn bytes_are_those_of_prometheus() {
    let series = read_samples(SAMPLES);
    assert_eq!(series.len(), 16);
    let external = External(Labels::from_pairs([("region", "eu")]));
    let body = decompressed(answer(vec![series.clone()], &external));
    let [mut ours, theirs] = [&body[..], SAMPLES].map(|b| wire::ReadResponse::decode(b).unwrap());
    for series in &mut ours.results[0].timeseries {
        for histogram in &mut series.histograms {
            histogram.custom_values.clear();
        }
    }
    assert_eq!(ours.encoded_len(), SAMPLES.len());
    let ours = ours.results[0].timeseries.iter();
    for (ours, theirs) in ours.zip(&theirs.results[0].timeseries) {
        // Not by `==`: some values are NaN.
        assert!(
            ours.encode_to_vec() == theirs.encode_to_vec(),
            "{ours:?} {theirs:?}"
        );
    }
    let mut rest = FRAMES;
    for series in series {
        let name = series.labels.metric_name().to_owned();
        for frame in Frames::new([series].into_iter(), external.clone(), 0) {
            let (theirs, behind) = rest.split_at(frame.len().min(rest.len()));
            assert_eq!(&frame[..], theirs, "{name}");
            rest = behind;
        }
    }
    assert!(rest.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn chunks_hold_what_was_selected(samples in samples()) {
        assert_same(&read_chunks(Chunks::new(&samples)), &samples);
    }

    #[test]
    fn both_answers_give_the_same_hints(samples in samples()) {
        let read = read_chunks(Chunks::new(&samples));
        let hints: Vec<_> = read.histograms.iter().map(|(_, h)| i32::from(h.reset_hint.number())).collect();
        let labels = Labels::from_pairs([("a", "b")]);
        let series = Series { labels, samples: samples.clone() };
        let body = decompressed(answer(vec![vec![series]], &External::default()));
        let series = wire::ReadResponse::decode(&body[..]).unwrap().results.remove(0).timeseries.remove(0);
        let plain: Vec<_> = series.histograms.iter().map(|h| h.reset_hint).collect();
        prop_assert_eq!(plain, hints);
        prop_assert_eq!(series.samples.len() + series.histograms.len(), samples.len());
    }

    #[test]
    fn frames_are_whole_and_of_one_series(many in prop::collection::vec(samples(), 0..3), bytes_max in 20usize..5000) {
        let external = External(Labels::from_pairs([("region", "eu")]));
        let series: Vec<_> = many.iter().enumerate().map(|(i, samples)| Series {
            labels: Labels::from_pairs([("n", i.to_string())]),
            samples: samples.clone(),
        }).collect();
        let frames = Frames::new(series.clone().into_iter(), external, 3).with_bytes_max(bytes_max);
        let mut chunks: Vec<Vec<wire::Chunk>> = vec![Vec::new(); series.len()];
        for frame in frames {
            let mut reader = BitReader { bytes: &frame, at: 0 };
            let length = reader.uvarint() as usize;
            let message = &frame[frame.len() - length..];
            prop_assert_eq!(reader.bits(32) as u32, crc32c::crc32c(message));
            prop_assert_eq!(reader.at / 8 + length, frame.len());
            let message = wire::ChunkedReadResponse::decode(message).unwrap();
            prop_assert_eq!((message.query_index, message.chunked_series.len()), (3, 1));
            let part = &message.chunked_series[0];
            prop_assert_eq!(&part.labels[1].value, "eu");
            let chunk_bytes: usize = part.chunks.iter().rev().skip(1).map(Message::encoded_len).sum();
            prop_assert!(chunk_bytes < bytes_max, "a frame ends with the chunk that fills it");
            let index: usize = part.labels[0].value.parse().unwrap();
            chunks[index].extend(part.chunks.clone());
        }
        for (series, chunks) in series.iter().zip(chunks) {
            assert_same(&read_chunks(chunks.into_iter()), &series.samples);
        }
    }
}
