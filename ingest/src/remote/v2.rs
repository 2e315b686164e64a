//! Remote write 2.0: a request's body to a batch.
//!
//! Format: prometheus.io/docs/specs/prw/remote_write_spec_2_0 — snappy around a protobuf
//! `io.prometheus.write.v2.Request`, whose texts stand once in a table of symbols and are referred
//! to by index. One bad series, histogram, exemplar or metadata is left out and named; everything
//! else of the request stays. Prometheus 3.5 answers a histogram it refuses with 500 and panics at
//! a symbol that is not there.
//!
//! Metadata stands with each series; it is gathered under the name of the family that the series
//! belongs to by its name and type. Creation times are not read: Prometheus 3.5 does not show them
//! unless it is told to by a feature. Not here: headers, and what the shards refuse.

use std::sync::Arc;

use model::labels::METRIC_NAME;
use model::metadata::family_of;
use model::{Exemplar, Histogram, Labels, Timestamp, limits};
use proto::remote::{Field, Fields, WireError};

use super::{
    Decoded, Flaw, RemoteError, decompress, excess, histogram, kind_of, name_series, note,
    read_sample, shorten, show_labels,
};
use crate::exemplar;
use crate::metadata::Gathered;

/// Decompresses and decodes a body.
pub fn decode(body: &[u8]) -> Result<Decoded, RemoteError> {
    decode_message(&decompress(body)?)
}

/// Decodes a `Request`.
pub fn decode_message(message: &[u8]) -> Result<Decoded, RemoteError> {
    let mut reader = Reader {
        symbols: read_symbols(message)?,
        ..Reader::default()
    };
    let mut decoded = Decoded::default();
    for field in Fields::new(message) {
        let field = field?;
        if field.number == 5 {
            reader.read(field.bytes()?, &mut decoded)?;
        }
    }
    Ok(decoded)
}

/// The table of symbols, wherever in the message its parts stand. Whether one is text shows when a
/// series refers to it.
fn read_symbols(message: &[u8]) -> Result<Vec<&[u8]>, RemoteError> {
    let mut symbols = Vec::new();
    for field in Fields::new(message) {
        let field = field?;
        if field.number != 4 {
            continue;
        }
        if symbols.len() == limits::WRITE_SYMBOLS_MAX {
            return Err(RemoteError::TooManySymbols);
        }
        symbols.push(field.bytes()?);
    }
    Ok(symbols)
}

/// One `TimeSeries` at a time, in buffers that are used again.
#[derive(Default)]
struct Reader<'a> {
    symbols: Vec<&'a [u8]>,
    refs: Vec<u32>,
    samples: Vec<(Timestamp, f64)>,
    histograms: Vec<&'a [u8]>,
    exemplars: Vec<&'a [u8]>,
    metadata: Option<&'a [u8]>,
    /// What the request takes in memory so far: a symbol is one text on the wire, and one for each
    /// series here.
    memory_bytes: usize,
}

impl<'a> Reader<'a> {
    fn read(&mut self, message: &'a [u8], decoded: &mut Decoded) -> Result<(), RemoteError> {
        self.clear();
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => field.append_uint32s(&mut self.refs)?,
                2 => self.samples.push(read_sample(field.bytes()?)?),
                3 => self.histograms.push(field.bytes()?),
                4 => self.exemplars.push(field.bytes()?),
                5 => self.metadata = Some(field.bytes()?),
                _ => {}
            }
        }
        self.put(decoded)
    }

    fn clear(&mut self) {
        self.refs.clear();
        self.samples.clear();
        self.histograms.clear();
        self.exemplars.clear();
        self.metadata = None;
    }

    fn put(&mut self, decoded: &mut Decoded) -> Result<(), RemoteError> {
        let mut labels = match resolve(&self.symbols, &self.refs) {
            Ok(labels) => labels,
            Err(problem) => {
                let text = || format!("labels of references {}: {problem}", show(&self.refs));
                note(&mut decoded.problems, text);
                return Ok(());
            }
        };
        if !labels.is_sorted_by(|a, b| a.0 < b.0) {
            labels.sort_unstable();
        }
        if let Some(problem) = excess(&labels).or_else(|| refusal(&labels)) {
            note(&mut decoded.problems, || problem);
            return Ok(());
        }
        if self.samples.is_empty() && self.histograms.is_empty() {
            let series = || name_series(&labels);
            let text = || format!("{}: neither a sample nor a histogram", series());
            note(&mut decoded.problems, text);
            return Ok(());
        }
        self.count(labels.iter().map(|(n, v)| n.len() + v.len() + 4).sum())?;
        let batch = &mut decoded.batch;
        let series = batch.add_series(Labels::from_sorted(labels.iter().copied()));
        for &(timestamp, value) in &self.samples {
            batch.rows.push(series, timestamp, value);
        }
        // A native histogram's series has its family's name.
        let has_suffix = self.histograms.is_empty();
        self.put_histograms(series, &labels, decoded)?;
        self.put_exemplars(series, &labels, decoded)?;
        if let Some(message) = self.metadata
            && let Err(problem) =
                self.put_metadata(message, &labels, has_suffix, &mut decoded.metadata)?
        {
            let series = || name_series(&labels);
            note(&mut decoded.problems, || format!("{}: {problem}", series()));
        }
        Ok(())
    }

    fn put_histograms(
        &mut self,
        series: u32,
        labels: &[(&str, &str)],
        decoded: &mut Decoded,
    ) -> Result<(), RemoteError> {
        for message in std::mem::take(&mut self.histograms) {
            match read_histogram(message)? {
                Ok((at, histogram)) => {
                    self.count(histogram.size())?;
                    let rows = &mut decoded.batch.rows;
                    rows.push_histogram(series, at, Arc::new(histogram));
                }
                Err(problem) => {
                    let series = || name_series(labels);
                    note(&mut decoded.problems, || format!("{}: {problem}", series()));
                }
            }
        }
        Ok(())
    }

    /// One whose labels are too long is dropped without a word, as in Prometheus.
    fn put_exemplars(
        &mut self,
        series: u32,
        labels: &[(&str, &str)],
        decoded: &mut Decoded,
    ) -> Result<(), RemoteError> {
        for message in std::mem::take(&mut self.exemplars) {
            match self.read_exemplar(message)? {
                Ok(Some(exemplar)) => {
                    self.count(exemplar::size(&exemplar))?;
                    decoded.batch.exemplars.push((series, exemplar));
                }
                Ok(None) => {}
                Err(problem) => {
                    let series = || name_series(labels);
                    let text = || format!("{}: exemplar: {problem}", series());
                    note(&mut decoded.problems, text);
                }
            }
        }
        Ok(())
    }

    fn read_exemplar(&self, message: &[u8]) -> Result<Result<Option<Exemplar>, String>, WireError> {
        let mut refs = Vec::new();
        let (mut value, mut timestamp) = (0.0, Timestamp(0));
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => field.append_uint32s(&mut refs)?,
                2 => value = field.double()?,
                3 => timestamp = Timestamp(field.int64()?),
                _ => {}
            }
        }
        let labels = resolve(&self.symbols, &refs).map(|mut pairs| exemplar::labels(&mut pairs));
        Ok(labels.map(|labels| {
            labels.map(|labels| Exemplar {
                labels,
                value,
                timestamp,
            })
        }))
    }

    /// The problem is a text that is not there.
    fn put_metadata(
        &self,
        message: &[u8],
        labels: &[(&str, &str)],
        has_suffix: bool,
        gathered: &mut Gathered,
    ) -> Result<Result<(), String>, WireError> {
        let (mut kind, mut help, mut unit) = (0, 0, 0);
        for field in Fields::new(message) {
            let field = field?;
            match field.number {
                1 => kind = field.int64()?,
                3 => help = read_ref(&field)?,
                4 => unit = read_ref(&field)?,
                _ => {}
            }
        }
        let text = |what: &str, index| match index {
            // Prometheus' own table begins with the empty text; others may leave the field out.
            0 => Ok(""),
            index => symbol(&self.symbols, index).map_err(|p| format!("metadata: {what}: {p}")),
        };
        let texts = text("help", help).and_then(|help| Ok((help, text("unit", unit)?)));
        Ok(texts.map(|(help, unit)| {
            let name = labels.iter().find(|(name, _)| *name == METRIC_NAME);
            let series = name.map_or("", |(_, name)| name);
            let kind = kind_of(kind);
            let family = match has_suffix {
                true => family_of(series, kind),
                false => series,
            };
            gathered.add(family, kind, help, unit);
        }))
    }

    fn count(&mut self, bytes: usize) -> Result<(), RemoteError> {
        self.memory_bytes += bytes;
        let bytes_max = limits::WRITE_MEMORY_BYTES_MAX;
        match self.memory_bytes > bytes_max {
            true => Err(RemoteError::TooMuch { bytes_max }),
            false => Ok(()),
        }
    }
}

fn read_histogram(message: &[u8]) -> Result<Result<(Timestamp, Histogram), String>, WireError> {
    let (bytes, max) = (message.len(), limits::HISTOGRAM_SENT_BYTES_MAX);
    if bytes > max {
        let text = format!("a histogram of {bytes} bytes, the limit is {max}");
        return Ok(Err(text));
    }
    let (at, histogram, checked) = histogram::read(message)?;
    let checked = checked.map_err(|problem| format!("{problem} (at {at})"));
    Ok(checked.map(|()| (at, histogram)))
}

/// What keeps labels from being a series; Prometheus' words come first.
fn refusal(labels: &[(&str, &str)]) -> Option<String> {
    let flaw = Flaw::of(labels)?;
    let shown = show_labels(labels);
    Some(match flaw {
        Flaw::Twice(name) => {
            let name = shorten(name);
            format!("invalid labels for series, labels {shown}, duplicated label {name}")
        }
        Flaw::NoLabelName | Flaw::NoMetricName => {
            format!("invalid metric name or labels, got {shown}: {flaw}")
        }
    })
}

fn read_ref(field: &Field<'_>) -> Result<u32, WireError> {
    field.int64().map(|word| word as u32)
}

/// References in pairs to names and values.
fn resolve<'a>(symbols: &[&'a [u8]], refs: &[u32]) -> Result<Vec<(&'a str, &'a str)>, String> {
    let (pairs, rest) = refs.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a name without a value".to_owned());
    }
    if pairs.len() > limits::LABELS_MAX {
        let (count, max) = (pairs.len(), limits::LABELS_MAX);
        return Err(format!("{count} labels, the limit is {max}"));
    }
    let one = |&[name, value]: &[u32; 2]| Ok((symbol(symbols, name)?, symbol(symbols, value)?));
    pairs.iter().map(one).collect()
}

fn symbol<'a>(symbols: &[&'a [u8]], index: u32) -> Result<&'a str, String> {
    let found = symbols.get(index as usize);
    let bytes = found.ok_or_else(|| {
        format!(
            "reference {index} into a table of {} symbols",
            symbols.len()
        )
    })?;
    std::str::from_utf8(bytes).map_err(|_| format!("symbol {index} is not UTF-8"))
}

/// The references as a message shows them, however many they are.
fn show(refs: &[u32]) -> String {
    let shown = refs.iter().take(16).map(ToString::to_string);
    let more = if refs.len() > 16 { ", …" } else { "" };
    format!("[{}{more}]", shown.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use model::sample::STALE_NAN;
    use model::{Batch, FamilyMetadata, MetricKind};
    use proptest::prelude::*;
    use prost::Message;
    use proto::remote_v2::{self as wire, Request, Sample, TimeSeries};

    use super::*;

    const SYMBOLS: [&str; 8] = ["", "__name__", "m", "job", "a", "b", "trace_id", "x"];

    fn series(refs: &[u32], samples: &[(i64, f64)]) -> TimeSeries {
        let one = |&(timestamp, value)| Sample { value, timestamp };
        TimeSeries {
            labels_refs: refs.to_vec(),
            samples: samples.iter().map(one).collect(),
            ..TimeSeries::default()
        }
    }

    fn request(timeseries: Vec<TimeSeries>) -> Vec<u8> {
        let request = Request {
            symbols: SYMBOLS.map(str::to_owned).to_vec(),
            timeseries,
        };
        request.encode_to_vec()
    }

    fn read(timeseries: Vec<TimeSeries>) -> Decoded {
        let decoded = decode_message(&request(timeseries)).unwrap();
        assert_eq!(decoded.batch.validate(), Ok(()));
        assert!(decoded.invalid.is_empty());
        decoded
    }

    #[test]
    fn symbols_become_labels_and_each_bad_series_is_named() {
        let decoded = read(vec![
            series(&[3, 4, 1, 2, 5, 0], &[(1, 1.0), (2, STALE_NAN)]),
            series(&[3, 4], &[(1, 1.0)]),
            series(&[1, 2, 3], &[(1, 1.0)]),
            series(&[1, 2, 3, 99], &[(1, 1.0)]),
            series(&[1, 2, 3, 4, 3, 5], &[(1, 1.0)]),
            series(&[1, 2, 0, 4], &[(1, 1.0)]),
            series(&[1, 2], &[]),
            series(&[], &[(1, 1.0)]),
            series(&[1, 4], &[(3, 3.0)]),
        ]);
        let named = |pairs: &[(&str, &str)]| Labels::from_pairs(pairs.iter().copied());
        assert_eq!(
            decoded.batch.series,
            [
                named(&[("__name__", "m"), ("job", "a")]),
                named(&[("__name__", "a")])
            ]
        );
        assert_eq!(decoded.batch.rows.series, [0, 0, 1]);
        assert_eq!(
            decoded.problems,
            [
                r#"invalid metric name or labels, got {job="a"}: no metric name"#,
                "labels of references [1, 2, 3]: a name without a value",
                "labels of references [1, 2, 3, 99]: reference 99 into a table of 8 symbols",
                r#"invalid labels for series, labels {__name__="m", job="a", job="b"}, duplicated label job"#,
                r#"invalid metric name or labels, got {""="a", __name__="m"}: a label without a name"#,
                r#"series {__name__="m"}: neither a sample nor a histogram"#,
                "invalid metric name or labels, got {}: no metric name",
            ]
        );
    }

    #[test]
    fn histograms_exemplars_and_metadata_fail_alone() {
        let histogram = |count| wire::Histogram {
            count: Some(wire::histogram::Count::CountInt(count)),
            positive_spans: vec![wire::BucketSpan {
                offset: 0,
                length: 2,
            }],
            positive_deltas: vec![2, 1],
            timestamp: count as i64,
            ..wire::Histogram::default()
        };
        let exemplar = |refs: &[u32]| wire::Exemplar {
            labels_refs: refs.to_vec(),
            value: 0.5,
            timestamp: 4,
        };
        let mut mixed = series(&[1, 2], &[(1, 1.0)]);
        mixed.histograms = vec![histogram(5), histogram(6)];
        mixed.exemplars = vec![exemplar(&[6, 7]), exemplar(&[6, 77])];
        mixed.metadata = Some(wire::Metadata {
            r#type: 1,
            help_ref: 8,
            unit_ref: 0,
        });
        let decoded = read(vec![mixed]);
        assert_eq!(decoded.batch.rows.len(), 2);
        assert_eq!(
            decoded.batch.rows.histogram(1).unwrap().positive_buckets,
            [2.0, 3.0]
        );
        let [(0, kept)] = &decoded.batch.exemplars[..] else {
            panic!("{:?}", decoded.batch.exemplars);
        };
        assert_eq!(kept.labels.get("trace_id"), Some("x"));
        assert_eq!(decoded.problems.len(), 3, "{:?}", decoded.problems);
        assert!(decoded.problems[0].contains("but the Count field is 6"));
        assert!(decoded.problems[1].contains("exemplar: reference 77"));
        assert!(decoded.problems[2].contains("metadata: help: reference 8"));
    }

    #[test]
    fn metadata_is_that_of_the_family() {
        let symbols = ["", "__name__", "m_bucket", "m_sum", "m", "help", "seconds"];
        let metadata = |kind| {
            Some(wire::Metadata {
                r#type: kind,
                help_ref: 5,
                unit_ref: 6,
            })
        };
        let one = |name, kind| TimeSeries {
            metadata: metadata(kind),
            ..series(&[1, name], &[(1, 1.0)])
        };
        let native = TimeSeries {
            samples: Vec::new(),
            histograms: vec![wire::Histogram::default()],
            ..one(2, 3)
        };
        let says_nothing = TimeSeries {
            metadata: Some(wire::Metadata::default()),
            ..one(4, 0)
        };
        let request = Request {
            symbols: symbols.map(str::to_owned).to_vec(),
            timeseries: vec![one(2, 3), one(3, 3), native, one(4, 99), says_nothing],
        };
        let decoded = decode_message(&request.encode_to_vec()).unwrap();
        assert!(decoded.problems.is_empty(), "{:?}", decoded.problems);
        let family = |name: &str, kind| FamilyMetadata {
            name: name.to_owned(),
            kind,
            help: "help".to_owned(),
            unit: "seconds".to_owned(),
        };
        assert_eq!(
            decoded.metadata.families(),
            [
                family("m", MetricKind::Histogram),
                family("m_bucket", MetricKind::Histogram),
                family("m", MetricKind::Unknown),
            ]
        );
    }

    #[test]
    fn texts_may_stand_behind_what_refers_to_them_and_need_not_be_texts() {
        let mut message = series(&[1, 2], &[(1, 1.0)]).encode_to_vec();
        message.splice(0..0, [0x2a, message.len() as u8]);
        message.extend(b"\x22\x00\x22\x08__name__\x22\x01m\x22\x01\xff");
        let decoded = decode_message(&message).unwrap();
        assert_eq!(decoded.batch.series[0].metric_name(), "m");
        let bad = series(&[1, 3], &[(1, 1.0)]).encode_to_vec();
        message.extend([0x2a, bad.len() as u8]);
        message.extend(bad);
        let decoded = decode_message(&message).unwrap();
        assert_eq!(decoded.batch.rows.len(), 1);
        assert_eq!(
            decoded.problems,
            ["labels of references [1, 3]: symbol 3 is not UTF-8"]
        );
    }

    #[test]
    fn a_long_text_of_many_series_does_not_fill_the_memory() {
        let mut request = Request {
            symbols: vec![
                String::new(),
                "__name__".to_owned(),
                "x".repeat(limits::LABEL_BYTES_MAX),
            ],
            timeseries: Vec::new(),
        };
        request.timeseries = vec![series(&[1, 2], &[(1, 1.0)]); 5000];
        assert!(matches!(
            decode_message(&request.encode_to_vec()),
            Err(RemoteError::TooMuch { .. })
        ));
        let many = b"\x22\x00".repeat(limits::WRITE_SYMBOLS_MAX + 1);
        assert!(matches!(
            decode_message(&many),
            Err(RemoteError::TooManySymbols)
        ));
    }

    /// The slow, obvious twin.
    fn expected(timeseries: &[TimeSeries]) -> Batch {
        let mut batch = Batch::default();
        for ts in timeseries {
            let pairs: Vec<_> = ts.labels_refs.chunks(2).collect();
            let whole = pairs.iter().all(|pair| pair.len() == 2)
                && ts.labels_refs.iter().all(|r| (*r as usize) < SYMBOLS.len());
            if !whole || ts.samples.is_empty() {
                continue;
            }
            let text = |index: u32| SYMBOLS[index as usize];
            let names: std::collections::BTreeSet<_> = pairs.iter().map(|p| text(p[0])).collect();
            let labels = Labels::from_pairs(pairs.iter().map(|p| (text(p[0]), text(p[1]))));
            let named = !labels.metric_name().is_empty() && !names.contains("");
            if names.len() == pairs.len() && named {
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
                prop::collection::vec(0u32..9, 0..6),
                prop::collection::vec((any::<i64>(), -1e9..1e9), 0..4),
            ), 0..6)
        ) {
            let timeseries: Vec<_> = timeseries.iter().map(|(refs, samples)| series(refs, samples)).collect();
            prop_assert_eq!(read(timeseries.clone()).batch, expected(&timeseries));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode(&bytes);
            let _ = decode_message(&bytes);
        }

        #[test]
        fn damaged_requests_never_panic(
            refs in prop::collection::vec(0u32..9, 0..6),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut message = request(vec![series(&refs, &[(1, 1.0)])]);
            let at = at.index(message.len());
            message[at] = byte;
            if let Ok(decoded) = decode_message(&message) {
                prop_assert_eq!(decoded.batch.validate(), Ok(()));
            }
        }
    }
}
