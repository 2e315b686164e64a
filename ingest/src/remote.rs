//! Remote write: a request's body to a batch. This file is version 1.0, [`v2`] is 2.0.
//!
//! Format: prometheus.io/docs/specs/prw/remote_write_spec — snappy's block format around a
//! protobuf `WriteRequest`. The length snappy declares is judged before anything is allocated. A
//! series or a histogram that breaks the data model is left out and named; everything else of the
//! request stays. Prometheus' own receiver keeps nothing of a request with a histogram it refuses.
//! Exemplars that cannot be kept are dropped without a word, as there.
//! Metadata is gathered; an entry that is not text is left out.
//! Headers are the web layer's business, timestamps the shard's.

mod histogram;
pub mod seen;
pub mod v2;

use std::fmt;
use std::sync::Arc;

use model::labels::{METRIC_NAME, is_legacy_name};
use model::quote::quote;
use model::{Batch, Exemplar, Histogram, Labels, MetricKind, Timestamp, limits};
use proto::remote::{Fields, WireError};

use crate::exemplar;
use crate::metadata::Gathered;
use seen::Reading;

/// Why nothing of a request can be taken.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Larger than this node takes; a smaller request may pass.
    #[error("request of {bytes} {what} bytes, the limit is {bytes_max}")]
    TooLarge {
        what: &'static str,
        bytes: usize,
        bytes_max: usize,
    },
    /// Each text of the decoder's begins with the name of the format.
    #[error("{0}")]
    Snappy(String),
    #[error("write request: {0}")]
    Protobuf(#[from] WireError),
    #[error("more than {} symbols", limits::WRITE_SYMBOLS_MAX)]
    TooManySymbols,
    /// More labels, histograms and exemplars than this node holds at once; a smaller request may pass.
    #[error("labels, histograms and exemplars of more than {bytes_max} bytes in memory")]
    TooMuch { bytes_max: usize },
}

/// A decoded request.
#[derive(Debug, Default, PartialEq)]
pub struct Decoded {
    pub batch: Batch,
    /// One text for each series left out, wholly or in part; it names the series.
    pub problems: Vec<String>,
    /// The same of series that Prometheus' 1.0 receiver drops while it answers with success:
    /// nameless, or with labels that are none. Version 2.0 never puts one here.
    pub invalid: Vec<String>,
    /// Types, helps and units.
    pub metadata: Gathered,
}

/// Adds a text, unless there are enough: whoever sends a million bad series learns of the first.
pub(crate) fn note(problems: &mut Vec<String>, problem: impl FnOnce() -> String) {
    if problems.len() < limits::WRITE_PROBLEMS_MAX {
        problems.push(problem());
    }
}

/// Snappy's longest copy: 64 bytes from 3. A stream that declares more than this for each of its
/// bytes cannot be whole.
const SNAPPY_EXPANSION_MAX: usize = 22;

/// Decompresses and decodes a body.
pub fn decode(body: &[u8]) -> Result<Decoded, RemoteError> {
    decode_message(&decompress(body)?)
}

/// How many bytes a body says that it becomes; none where it says nothing, or cannot hold them.
pub fn declared_bytes(body: &[u8]) -> usize {
    let declared = snap::raw::decompress_len(body).unwrap_or_default();
    let most = body.len().saturating_mul(SNAPPY_EXPANSION_MAX);
    match declared > most {
        true => 0,
        false => declared,
    }
}

/// Undoes snappy's block format.
pub fn decompress(body: &[u8]) -> Result<Vec<u8>, RemoteError> {
    let mut memory = Vec::new();
    let bytes = decompress_into(&mut memory, body)?.len();
    memory.truncate(bytes);
    Ok(memory)
}

/// The same into memory that was used before; it grows as needed, and what stood there is written over.
fn decompress_into<'a>(memory: &'a mut Vec<u8>, body: &[u8]) -> Result<&'a [u8], RemoteError> {
    check_size("compressed", body.len(), limits::WRITE_BODY_BYTES_MAX)?;
    let declared =
        snap::raw::decompress_len(body).map_err(|e| RemoteError::Snappy(e.to_string()))?;
    if declared > limits::WRITE_DECODED_BYTES_MAX {
        let max = limits::WRITE_DECODED_BYTES_MAX;
        let text = format!("snappy: decoded length {declared} exceeds limit {max}");
        return Err(RemoteError::Snappy(text));
    }
    if declared > body.len().saturating_mul(SNAPPY_EXPANSION_MAX) {
        let held = body.len();
        let text = format!("snappy: corrupt input: {held} bytes cannot hold {declared}");
        return Err(RemoteError::Snappy(text));
    }
    if memory.len() < declared {
        *memory = vec![0; declared];
    }
    let bytes = snap::raw::Decoder::new()
        .decompress(body, memory)
        .map_err(|e| RemoteError::Snappy(e.to_string()))?;
    Ok(&memory[..bytes])
}

/// Decodes a `WriteRequest`.
pub fn decode_message(message: &[u8]) -> Result<Decoded, RemoteError> {
    read_message(message, None)
}

/// A `Sample` of few bytes: its field's header, a value and an instant of this century.
const SAMPLE_BYTES: usize = 18;

/// Makes room for what a message holds if all its series are like this first one, which has so many rows.
fn reserve(batch: &mut Batch, message: &[u8], first: &[u8]) {
    let rows = batch.rows.len();
    let series = message.len() / first.len().max(SAMPLE_BYTES);
    batch.series.reserve(series);
    let most = message.len() / SAMPLE_BYTES;
    batch.rows.reserve(series.saturating_mul(rows).min(most));
}

fn read_message(
    message: &[u8],
    mut seen: Option<&mut Reading<'_>>,
) -> Result<Decoded, RemoteError> {
    let mut decoded = Decoded::default();
    let mut series = SeriesReader::default();
    let mut is_first = true;
    for field in Fields::new(message) {
        let field = field?;
        let one = match field.number {
            1 => field.bytes()?,
            3 => {
                read_metadata(field.bytes()?, &mut decoded.metadata)?;
                continue;
            }
            _ => continue,
        };
        let is_known = match &mut seen {
            Some(seen) => seen.read(one, &mut decoded.batch),
            None => false,
        };
        if !is_known {
            let place = decoded.batch.series.len();
            series.read(one, &mut decoded)?;
            if let (Some(seen), Some(labels)) = (&mut seen, decoded.batch.series.get(place)) {
                seen.learn(one, labels);
            }
        }
        if std::mem::take(&mut is_first) {
            reserve(&mut decoded.batch, message, one);
        }
    }
    Ok(decoded)
}

fn check_size(what: &'static str, bytes: usize, bytes_max: usize) -> Result<(), RemoteError> {
    if bytes > bytes_max {
        return Err(RemoteError::TooLarge {
            what,
            bytes,
            bytes_max,
        });
    }
    Ok(())
}

/// One `TimeSeries` at a time, in buffers that are used again.
#[derive(Default)]
struct SeriesReader<'a> {
    labels: Vec<(&'a str, &'a str)>,
    samples: Vec<(Timestamp, f64)>,
    histograms: Vec<(Timestamp, Histogram)>,
    exemplars: Vec<Exemplar>,
    /// Why histograms of this series are left out.
    refused: Vec<String>,
    /// Whether a label of this series is not UTF-8.
    is_text_broken: bool,
    /// What the request's histograms and exemplars take so far.
    memory_bytes: usize,
}

impl<'a> SeriesReader<'a> {
    fn read(&mut self, message: &'a [u8], decoded: &mut Decoded) -> Result<(), RemoteError> {
        self.clear();
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => self.read_label(field.bytes()?)?,
                2 => self.samples.push(read_sample(field.bytes()?)?),
                3 => self.read_exemplar(field.bytes()?)?,
                4 => self.read_histogram(field.bytes()?)?,
                _ => {}
            }
        }
        // Senders sort by the specification, but Prometheus takes any order.
        if !self.labels.is_sorted_by(|a, b| a.0 < b.0) {
            self.labels.sort_unstable();
        }
        if let Some(problem) = excess(&self.labels) {
            note(&mut decoded.problems, || problem);
        } else if self.is_text_broken {
            let series = name_series(&self.labels);
            note(&mut decoded.invalid, || {
                format!("{series}: a label is not UTF-8")
            });
        } else if let Some(problem) = invalid(&self.labels) {
            note(&mut decoded.invalid, || problem);
        } else {
            self.put(decoded);
        }
        Ok(())
    }

    fn read_label(&mut self, message: &'a [u8]) -> Result<(), WireError> {
        match read_label(message) {
            Ok(label) => self.labels.push(label),
            Err(WireError::NotUtf8(_)) => self.is_text_broken = true,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.labels.clear();
        self.samples.clear();
        self.histograms.clear();
        self.exemplars.clear();
        self.refused.clear();
        self.is_text_broken = false;
    }

    fn read_histogram(&mut self, message: &[u8]) -> Result<(), RemoteError> {
        if message.len() > limits::HISTOGRAM_SENT_BYTES_MAX {
            let (bytes, max) = (message.len(), limits::HISTOGRAM_SENT_BYTES_MAX);
            let refused = || format!("a histogram of {bytes} bytes, the limit is {max}");
            note(&mut self.refused, refused);
            return Ok(());
        }
        let (at, histogram, checked) = histogram::read(message)?;
        match checked {
            Err(problem) => note(&mut self.refused, || format!("{problem} (at {at})")),
            Ok(()) => {
                self.count(histogram.size())?;
                self.histograms.push((at, histogram));
            }
        }
        Ok(())
    }

    fn read_exemplar(&mut self, message: &[u8]) -> Result<(), RemoteError> {
        if let Some(exemplar) = read_exemplar(message)? {
            self.count(exemplar::size(&exemplar))?;
            self.exemplars.push(exemplar);
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), RemoteError> {
        self.memory_bytes += bytes;
        let bytes_max = limits::WRITE_MEMORY_BYTES_MAX;
        match self.memory_bytes > bytes_max {
            true => Err(RemoteError::TooMuch { bytes_max }),
            false => Ok(()),
        }
    }

    fn put(&mut self, decoded: &mut Decoded) {
        for refused in self.refused.drain(..) {
            let series = || name_series(&self.labels);
            note(&mut decoded.problems, || format!("{}: {refused}", series()));
        }
        if self.samples.is_empty() && self.histograms.is_empty() && self.exemplars.is_empty() {
            return;
        }
        let batch = &mut decoded.batch;
        let series = batch.add_series(Labels::from_sorted(self.labels.iter().copied()));
        for &(timestamp, value) in &self.samples {
            batch.rows.push(series, timestamp, value);
        }
        for (timestamp, histogram) in self.histograms.drain(..) {
            let histogram = Arc::new(histogram);
            batch.rows.push_histogram(series, timestamp, histogram);
        }
        let exemplars = self.exemplars.drain(..);
        batch.exemplars.extend(exemplars.map(|e| (series, e)));
    }
}

/// Labels beyond what this node takes; a series that breaks no rule of the data model.
pub(crate) fn excess(labels: &[(&str, &str)]) -> Option<String> {
    let series = || name_series(labels);
    if labels.len() > limits::LABELS_MAX {
        let (count, max) = (labels.len(), limits::LABELS_MAX);
        return Some(format!("{}: {count} labels, the limit is {max}", series()));
    }
    let max = limits::LABEL_BYTES_MAX;
    let bytes = |(name, value): &(&str, &str)| name.len().max(value.len());
    let long = labels.iter().find(|label| bytes(label) > max)?;
    Some(format!(
        "{}: {} bytes in label {:?}, the limit is {max}",
        series(),
        bytes(long),
        shorten(long.0)
    ))
}

/// What keeps sorted labels from being a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw<'a> {
    NoLabelName,
    Twice(&'a str),
    NoMetricName,
}

impl<'a> Flaw<'a> {
    fn of(labels: &[(&'a str, &'a str)]) -> Option<Self> {
        if labels.iter().any(|(name, _)| name.is_empty()) {
            return Some(Self::NoLabelName);
        }
        if let Some(two) = labels.windows(2).find(|two| two[0].0 == two[1].0) {
            return Some(Self::Twice(two[0].0));
        }
        match labels.iter().find(|(name, _)| *name == METRIC_NAME) {
            Some((_, name)) if !name.is_empty() => None,
            _ => Some(Self::NoMetricName),
        }
    }
}

impl fmt::Display for Flaw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLabelName => f.write_str("a label without a name"),
            Self::Twice(name) => write!(f, "label {name:?} given twice"),
            Self::NoMetricName => f.write_str("no metric name"),
        }
    }
}

/// The flaw of sorted labels, and whose it is.
pub(crate) fn invalid(labels: &[(&str, &str)]) -> Option<String> {
    let flaw = Flaw::of(labels)?;
    Some(format!("{}: {flaw}", name_series(labels)))
}

/// The series as a message shows it, however long its labels are.
fn name_series(labels: &[(&str, &str)]) -> String {
    format!("series {}", show_labels(labels))
}

fn show_labels(labels: &[(&str, &str)]) -> String {
    let mut text = String::from("{");
    for (i, (name, value)) in labels.iter().enumerate() {
        if i == NAMED_LABELS_MAX {
            text.push_str(", …");
            break;
        }
        let comma = if i == 0 { "" } else { ", " };
        let (name, value) = (shorten(name), shorten(value));
        text.push_str(&match is_legacy_name(name, false) {
            true => format!("{comma}{name}={}", quote(value)),
            false => format!("{comma}{}={}", quote(name), quote(value)),
        });
    }
    text + "}"
}

/// Labels and bytes of each that a message repeats.
const NAMED_LABELS_MAX: usize = 32;
const NAMED_BYTES_MAX: usize = 128;

pub(crate) fn shorten(text: &str) -> &str {
    let end = text.floor_char_boundary(NAMED_BYTES_MAX.min(text.len()));
    text.get(..end).unwrap_or_default()
}

fn read_label(message: &[u8]) -> Result<(&str, &str), WireError> {
    let mut label = ("", "");
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => label.0 = field.text()?,
            2 => label.1 = field.text()?,
            _ => {}
        }
    }
    Ok(label)
}

/// One `MetricMetadata`.
fn read_metadata(message: &[u8], gathered: &mut Gathered) -> Result<(), WireError> {
    let (mut kind, mut texts) = (0, [&b""[..]; 3]);
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => kind = field.int64()?,
            2 => texts[0] = field.bytes()?,
            4 => texts[1] = field.bytes()?,
            5 => texts[2] = field.bytes()?,
            _ => {}
        }
    }
    if let [Ok(name), Ok(help), Ok(unit)] = texts.map(std::str::from_utf8) {
        gathered.add(name, kind_of(kind), help, unit);
    }
    Ok(())
}

/// A type that has no name here is unknown.
fn kind_of(number: i64) -> MetricKind {
    let number = u64::try_from(number).ok();
    number.and_then(MetricKind::of_number).unwrap_or_default()
}

fn read_sample(message: &[u8]) -> Result<(Timestamp, f64), WireError> {
    let mut sample = (Timestamp(0), 0.0);
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => sample.1 = field.double()?,
            2 => sample.0 = Timestamp(field.int64()?),
            _ => {}
        }
    }
    Ok(sample)
}

/// `None` when its labels are none, or more than an exemplar may have.
fn read_exemplar(message: &[u8]) -> Result<Option<Exemplar>, WireError> {
    let mut labels = Vec::new();
    let (mut value, mut timestamp) = (0.0, Timestamp(0));
    for field in Fields::new(message) {
        let field = field?;
        match field.number {
            1 => labels.push(read_label(field.bytes()?)?),
            2 => value = field.double()?,
            3 => timestamp = Timestamp(field.int64()?),
            _ => {}
        }
    }
    let labels = exemplar::labels(&mut labels);
    Ok(labels.map(|labels| Exemplar {
        labels,
        value,
        timestamp,
    }))
}

#[cfg(test)]
mod tests {
    use model::limits::HISTOGRAM_SENT_BYTES_MAX;
    use model::sample::{STALE_NAN, is_stale};
    use proptest::prelude::*;
    use prost::Message;
    use proto::remote::{self as wire, Label, Sample, TimeSeries, WriteRequest};

    use super::*;

    fn series(labels: &[(&str, &str)], samples: &[(i64, f64)]) -> TimeSeries {
        TimeSeries {
            labels: labels
                .iter()
                .map(|(name, value)| Label {
                    name: (*name).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect(),
            samples: samples
                .iter()
                .map(|&(timestamp, value)| Sample { value, timestamp })
                .collect(),
            ..TimeSeries::default()
        }
    }

    fn body(timeseries: Vec<TimeSeries>) -> Vec<u8> {
        let request = WriteRequest {
            timeseries,
            metadata: Vec::new(),
        };
        snap::raw::Encoder::new()
            .compress_vec(&request.encode_to_vec())
            .unwrap()
    }

    #[test]
    fn unsorted_labels_are_sorted_and_bad_series_named() {
        let long = "x".repeat(limits::LABEL_BYTES_MAX + 1);
        let decoded = decode(&body(vec![
            series(
                &[("job", "a"), ("__name__", "up"), ("zone", "")],
                &[(1, 1.0), (2, 0.5)],
            ),
            series(&[("job", "a")], &[(1, 1.0)]),
            series(&[("__name__", "x"), ("a", "1"), ("a", "2")], &[(1, 1.0)]),
            series(&[("__name__", ""), ("a", "1")], &[(1, 1.0)]),
            series(&[("__name__", "y"), ("a", &long)], &[(1, 1.0)]),
            series(&[("__name__", "z"), ("", "1")], &[(1, 1.0)]),
            series(&[("__name__", "none")], &[]),
            series(&[("__name__", "last")], &[(3, 3.0)]),
        ]))
        .unwrap();
        assert_eq!(
            decoded.batch.series,
            [
                Labels::from_pairs([("__name__", "up"), ("job", "a")]),
                Labels::from_pairs([("__name__", "last")])
            ]
        );
        assert_eq!(decoded.batch.rows.series, [0, 0, 1]);
        assert_eq!(decoded.batch.rows.values, [1.0, 0.5, 3.0]);
        let problems: Vec<_> = decoded.invalid.iter().map(String::as_str).collect();
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert_eq!(problems[0], r#"series {job="a"}: no metric name"#);
        assert_eq!(
            problems[1],
            r#"series {__name__="x", a="1", a="2"}: label "a" given twice"#
        );
        assert!(problems[3].ends_with("a label without a name"));
        let [long] = &decoded.problems[..] else {
            panic!("{:?}", decoded.problems);
        };
        assert!(long.contains("65537 bytes in label \"a\"") && long.len() < 300);
    }

    #[test]
    fn a_label_that_is_no_text_takes_nothing_with_it() {
        let bad = series(&[("__name__", "a"), ("b", "??")], &[(1, 1.0)]);
        let mut message = WriteRequest {
            timeseries: vec![bad, series(&[("__name__", "last")], &[(3, 3.0)])],
            metadata: Vec::new(),
        }
        .encode_to_vec();
        let at = message.windows(2).position(|two| two == b"??").unwrap();
        message[at..at + 2].copy_from_slice(b"\xff\xff");
        let decoded = decode_message(&message).unwrap();
        assert_eq!(
            decoded.batch.series,
            [Labels::from_pairs([("__name__", "last")])]
        );
        assert_eq!(
            decoded.invalid,
            [r#"series {__name__="a"}: a label is not UTF-8"#]
        );
    }

    #[test]
    fn a_million_bad_series_are_told_of_once() {
        let decoded = decode_message(&b"\x0a\x00".repeat(1 << 20)).unwrap();
        assert_eq!(decoded.invalid.len(), limits::WRITE_PROBLEMS_MAX);
    }

    #[test]
    fn a_lying_length_is_refused_before_it_is_believed() {
        let huge = decode(b"\xff\xff\xff\xff\x0f\x00").unwrap_err().to_string();
        assert_eq!(
            huge,
            "snappy: decoded length 4294967295 exceeds limit 33554432"
        );
        let lying = b"\x80\x80\x80\x08\x00a";
        assert!(matches!(decode(lying), Err(RemoteError::Snappy(_))));
        assert!(matches!(decode(b"\x05ab"), Err(RemoteError::Snappy(_))));
    }

    #[test]
    fn the_densest_honest_body_passes() {
        let dense = vec![b'a'; 1 << 20];
        let body = snap::raw::Encoder::new().compress_vec(&dense).unwrap();
        assert_eq!(decompress(&body).unwrap(), dense);
    }

    fn integer_histogram(count: u64, at: i64) -> wire::Histogram {
        wire::Histogram {
            count: Some(wire::histogram::Count::CountInt(count)),
            positive_spans: vec![wire::BucketSpan {
                offset: 0,
                length: 2,
            }],
            positive_deltas: vec![2, 1],
            timestamp: at,
            ..wire::Histogram::default()
        }
    }

    #[test]
    fn metadata_is_gathered_and_what_is_no_text_left_out() {
        let metadata = |name: &str, kind, help: &str| wire::MetricMetadata {
            r#type: kind,
            metric_family_name: name.to_owned(),
            help: help.to_owned(),
            unit: String::new(),
        };
        let request = WriteRequest {
            timeseries: vec![series(&[("__name__", "up")], &[(1, 1.0)])],
            metadata: vec![metadata("up", 2, "h"), metadata("lat", 3, "<")],
        };
        let mut message = request.encode_to_vec();
        message.extend(b"\x1a\x05\x12\x01x\x22\x00");
        message.extend(b"\x1a\x06\x12\x01y\x22\x01\xff");
        let decoded = decode_message(&message).unwrap();
        assert_eq!(decoded.batch.rows.len(), 1);
        let families = decoded.metadata.families().iter();
        let families: Vec<_> = families
            .map(|f| (f.name.as_str(), f.kind, f.help.as_str()))
            .collect();
        let lat = ("lat", MetricKind::Histogram, "<");
        assert_eq!(families, [("up", MetricKind::Gauge, "h"), lat]);
    }

    #[test]
    fn a_bad_histogram_takes_nothing_with_it() {
        let stale = wire::Histogram {
            sum: STALE_NAN,
            timestamp: 3,
            ..wire::Histogram::default()
        };
        let mut mixed = series(&[("__name__", "h")], &[(1, 2.0)]);
        mixed.histograms = vec![
            integer_histogram(5, 2),
            integer_histogram(6, 2),
            wire::Histogram {
                positive_deltas: vec![2; HISTOGRAM_SENT_BYTES_MAX],
                ..integer_histogram(5, 2)
            },
            stale,
        ];
        let decoded = decode(&body(vec![
            mixed,
            series(&[("__name__", "last")], &[(3, 3.0)]),
        ]))
        .unwrap();
        let rows = &decoded.batch.rows;
        assert_eq!(rows.series, [0, 0, 0, 1]);
        assert_eq!(rows.timestamps, [1, 2, 3, 3].map(Timestamp));
        let histogram = rows.histogram(1).unwrap();
        assert_eq!(histogram.positive_buckets, [2.0, 3.0]);
        assert!(rows.histogram(2).unwrap().is_stale());
        assert!(is_stale(rows.values[2]));
        assert_eq!(
            decoded.problems,
            [
                r#"series {__name__="h"}: 5 observations found in buckets, but the Count field is 6: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN) (at 2)"#,
                r#"series {__name__="h"}: a histogram of 65548 bytes, the limit is 65536"#,
            ]
        );
    }

    #[test]
    fn exemplars_come_with_their_series() {
        let exemplar = |value: &str, at| wire::Exemplar {
            labels: vec![Label {
                name: "trace_id".to_owned(),
                value: value.to_owned(),
            }],
            value: 1.5,
            timestamp: at,
        };
        let mut with = series(&[("__name__", "a")], &[(1, 2.0)]);
        with.exemplars = vec![exemplar("x", 7), exemplar(&"x".repeat(200), 8)];
        let mut alone = series(&[("__name__", "b")], &[]);
        alone.exemplars = vec![exemplar("y", 9)];
        let decoded = decode(&body(vec![with, alone])).unwrap();
        assert_eq!(decoded.problems, [""; 0]);
        let seen = decoded.batch.exemplars.iter();
        let seen: Vec<_> = seen
            .map(|(series, e)| (*series, e.labels.to_string(), e.timestamp.0))
            .collect();
        assert_eq!(
            seen,
            [
                (0, r#"{trace_id="x"}"#.to_owned(), 7),
                (1, r#"{trace_id="y"}"#.to_owned(), 9)
            ]
        );
    }

    #[test]
    fn a_few_bytes_for_each_histogram_do_not_fill_the_memory() {
        let mut message = series(&[("__name__", "h")], &[]).encode_to_vec();
        message.extend(b"\x22\x00".repeat(4 << 20));
        let mut request = vec![0x0a];
        prost::encoding::encode_varint(message.len() as u64, &mut request);
        request.extend(message);
        assert!(matches!(
            decode_message(&request),
            Err(RemoteError::TooMuch { .. })
        ));
    }

    /// The slow, obvious twin.
    fn expected(request: &WriteRequest) -> Batch {
        let mut batch = Batch::default();
        for ts in &request.timeseries {
            let names: std::collections::BTreeSet<_> = ts.labels.iter().map(|l| &l.name).collect();
            let labels = Labels::from_pairs(ts.labels.iter().map(|l| (&l.name, &l.value)));
            let whole = names.len() == ts.labels.len() && !labels.metric_name().is_empty();
            if whole && !ts.samples.is_empty() {
                let index = batch.add_series(labels);
                for s in &ts.samples {
                    batch.rows.push(index, Timestamp(s.timestamp), s.value);
                }
            }
        }
        batch
    }

    proptest! {
        #[test]
        fn decodes_as_the_generated_types_do(
            timeseries in prop::collection::vec((
                prop::collection::vec(("__name__|[a-c]", "[x-z]{0,2}|é"), 0..5),
                prop::collection::vec((any::<i64>(), -1e9..1e9), 0..4),
            ), 0..6)
        ) {
            let timeseries: Vec<_> = timeseries.iter().map(|(labels, samples)| {
                let labels: Vec<_> = labels.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
                series(&labels, samples)
            }).collect();
            let decoded = decode(&body(timeseries.clone())).unwrap();
            prop_assert_eq!(decoded.batch.validate(), Ok(()));
            prop_assert_eq!(decoded.batch, expected(&WriteRequest { timeseries, metadata: vec![] }));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode(&bytes);
            let _ = decode_message(&bytes);
        }
    }
}
