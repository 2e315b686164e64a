//! Newest samples as protobuf families, as Prometheus' `/federate` writes them.
//!
//! Promise: byte for byte Prometheus 3.5 for floats and for exponential histograms, which leave as
//! floats; a family ends where the name or the kind changes, or where it grows beyond
//! [`FAMILY_BYTES_MAX`]. Two of its faults are not copied:
//! every histogram shows its own buckets, and one with custom bounds, whose bounds have no field,
//! leaves as the classic histogram it stands for. Not here: choosing and sorting the series.

use model::histogram::{ResetHint, Span};
use model::limits::FAMILY_BYTES_MAX;
use model::{Histogram, Labels, Newest};
use prost::Message;
use proto::exposition as wire;
use proto::exposition::MetricType;

use crate::exposition::{Additions, Writer, labels_of};
use crate::format::{Encoding, Format};
use crate::prototext;

/// Writes newest samples that come sorted by metric name; nameless ones are skipped.
pub struct Families {
    additions: Additions,
    format: Format,
    /// What is gathered of the family that comes now.
    family: Option<Family>,
}

struct Family {
    /// As it is stored.
    name: String,
    kind: Kind,
    metrics: Vec<wire::Metric>,
    bytes: usize,
}

/// What a family's metrics have in common besides its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Untyped,
    Histogram,
    Gauge,
    /// From custom bounds.
    Classic,
}

impl Families {
    /// In one of the protobuf encodings.
    pub fn new(external: &Labels, format: Format) -> Self {
        Self {
            additions: Additions::new(external),
            format,
            family: None,
        }
    }

    fn metric(&self, newest: &Newest) -> wire::Metric {
        let histogram = newest.histogram.as_deref();
        let labels = labels_of(&newest.labels, &self.additions);
        wire::Metric {
            label: labels
                .map(|(name, value)| wire::LabelPair {
                    name: Some(self.format.escaping.escape(name).into_owned()),
                    value: Some(value.to_owned()),
                })
                .collect(),
            untyped: histogram.is_none().then_some(wire::Untyped {
                value: Some(newest.value),
            }),
            histogram: histogram.map(|histogram| match histogram.uses_custom_buckets() {
                true => classic(histogram),
                false => native(histogram),
            }),
            timestamp_ms: Some(newest.at.0),
            ..wire::Metric::default()
        }
    }

    fn write_family(&self, family: Family, out: &mut Vec<u8>) {
        let family = wire::MetricFamily {
            name: Some(self.format.escaping.escape(&family.name).into_owned()),
            help: None,
            r#type: Some(family.kind.metric_type().into()),
            metric: family.metrics,
            unit: None,
        };
        encode(&family, self.format.encoding, out);
    }
}

/// Appends a family in one of the protobuf encodings.
pub fn encode(family: &wire::MetricFamily, encoding: Encoding, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Text | Encoding::Delimited => {
            out.extend_from_slice(&family.encode_length_delimited_to_vec());
        }
        Encoding::ProtoText => out.extend_from_slice(prototext::lines(family).as_bytes()),
        Encoding::CompactText => out.extend_from_slice(prototext::compact(family).as_bytes()),
    }
}

impl Writer for Families {
    fn write(&mut self, newest: &Newest, out: &mut Vec<u8>) {
        let (name, kind) = (newest.labels.metric_name(), kind_of(newest));
        if name.is_empty() {
            return;
        }
        let goes_on = self.family.as_ref().is_some_and(|family| {
            family.name == name && family.kind == kind && family.bytes < FAMILY_BYTES_MAX
        });
        if !goes_on {
            self.finish(out);
        }
        let metric = self.metric(newest);
        let family = self.family.get_or_insert_with(|| Family {
            name: name.to_owned(),
            kind,
            metrics: Vec::new(),
            bytes: 0,
        });
        family.bytes += metric.encoded_len();
        family.metrics.push(metric);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(family) = self.family.take() {
            self.write_family(family, out);
        }
    }
}

impl Kind {
    fn metric_type(self) -> MetricType {
        match self {
            Self::Untyped => MetricType::Untyped,
            Self::Histogram | Self::Classic => MetricType::Histogram,
            Self::Gauge => MetricType::GaugeHistogram,
        }
    }
}

fn kind_of(newest: &Newest) -> Kind {
    match newest.histogram.as_deref() {
        None => Kind::Untyped,
        Some(h) if h.reset_hint == ResetHint::Gauge => Kind::Gauge,
        Some(h) if h.uses_custom_buckets() => Kind::Classic,
        Some(_) => Kind::Histogram,
    }
}

fn native(histogram: &Histogram) -> wire::Histogram {
    wire::Histogram {
        sample_count_float: Some(histogram.count),
        sample_sum: Some(histogram.sum),
        schema: Some(histogram.schema),
        zero_threshold: Some(histogram.zero_threshold),
        zero_count_float: Some(histogram.zero_count),
        negative_span: spans(&histogram.negative_spans),
        negative_count: histogram.negative_buckets.clone(),
        positive_span: spans(&histogram.positive_spans),
        positive_count: histogram.positive_buckets.clone(),
        ..wire::Histogram::default()
    }
}

fn spans(spans: &[Span]) -> Vec<wire::BucketSpan> {
    let spans = spans.iter().map(|span| wire::BucketSpan {
        offset: Some(span.offset),
        length: Some(span.length),
    });
    spans.collect()
}

/// Every bound with what lies at or below it, +Inf last.
fn classic(histogram: &Histogram) -> wire::Histogram {
    let mut counts = vec![0.0; histogram.custom_values.len() + 1];
    let mut index = 0i64;
    let mut buckets = histogram.positive_buckets.iter();
    for span in &histogram.positive_spans {
        index += i64::from(span.offset);
        for count in buckets.by_ref().take(span.length as usize) {
            let place = usize::try_from(index).ok();
            if let Some(bucket) = place.and_then(|at| counts.get_mut(at)) {
                *bucket = *count;
            }
            index += 1;
        }
    }
    let bounds = histogram.custom_values.iter().copied();
    let mut below = 0.0;
    let bucket = bounds
        .chain([f64::INFINITY])
        .zip(counts)
        .map(|(bound, count)| {
            below += count;
            wire::Bucket {
                cumulative_count_float: Some(below),
                upper_bound: Some(bound),
                ..wire::Bucket::default()
            }
        });
    wire::Histogram {
        bucket: bucket.collect(),
        sample_count_float: Some(histogram.count),
        sample_sum: Some(histogram.sum),
        ..wire::Histogram::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::Timestamp;
    use model::histogram::CUSTOM_SCHEMA;

    use super::*;

    const AT: Timestamp = Timestamp(1_795_734_028_178);

    fn series(name: &str, histogram: Option<Histogram>) -> Newest {
        Newest {
            labels: Labels::from_pairs([("__name__", name)]),
            at: AT,
            value: histogram.as_ref().map_or(2.5, |h| h.sum),
            histogram: histogram.map(Arc::new),
        }
    }

    fn histogram() -> Histogram {
        Histogram {
            is_integer: true,
            count: 6.0,
            sum: 3.0,
            zero_threshold: 0.001,
            zero_count: 1.0,
            positive_spans: vec![Span {
                offset: 0,
                length: 2,
            }],
            positive_buckets: vec![2.0, 3.0],
            ..Histogram::default()
        }
    }

    fn written(all: Vec<Newest>, encoding: Encoding) -> Vec<u8> {
        let format = Format {
            encoding,
            ..Format::default()
        };
        let external = Labels::from_pairs([("region", "eu")]);
        let mut writer = Families::new(&external, format);
        let mut out = Vec::new();
        all.iter().for_each(|newest| writer.write(newest, &mut out));
        writer.finish(&mut out);
        out
    }

    fn decoded(mut bytes: &[u8]) -> Vec<wire::MetricFamily> {
        let mut families = Vec::new();
        while !bytes.is_empty() {
            families.push(wire::MetricFamily::decode_length_delimited(&mut bytes).unwrap());
        }
        families
    }

    /// Prometheus 3.5.3 with `external_labels: {region: eu}` after a remote write of the
    /// histogram: `/federate?match[]=probe_1`.
    const DELIMITED: &[u8] = b"p\n\x07probe_1\x18\x04\"c\n\x0c\n\x08instance\x12\x00\n\x0c\n\x06region\x12\x02eu0\x92\xff\xda\xd0\xa14:>\x11\x00\x00\x00\x00\x00\x00\x08@!\x00\x00\x00\x00\x00\x00\x18@(\x001\xfc\xa9\xf1\xd2MbP?A\x00\x00\x00\x00\x00\x00\xf0?b\x04\x08\x00\x10\x02q\x00\x00\x00\x00\x00\x00\x00@q\x00\x00\x00\x00\x00\x00\x08@";
    const COMPACT: &str = "name:\"probe_1\" type:HISTOGRAM metric:{label:{name:\"instance\" value:\"\"} label:{name:\"region\" value:\"eu\"} histogram:{sample_count_float:6 sample_sum:3 schema:0 zero_threshold:0.001 zero_count_float:1 positive_span:{offset:0 length:2} positive_count:2 positive_count:3} timestamp_ms:1795734028178}\n";
    const LINES: &str = "name: \"probe_1\"\ntype: HISTOGRAM\nmetric: {\n  label: {\n    name: \"instance\"\n    value: \"\"\n  }\n  label: {\n    name: \"region\"\n    value: \"eu\"\n  }\n  histogram: {\n    sample_count_float: 6\n    sample_sum: 3\n    schema: 0\n    zero_threshold: 0.001\n    zero_count_float: 1\n    positive_span: {\n      offset: 0\n      length: 2\n    }\n    positive_count: 2\n    positive_count: 3\n  }\n  timestamp_ms: 1795734028178\n}\n\n";

    #[test]
    fn bytes_are_those_of_prometheus() {
        let one = || vec![series("probe_1", Some(histogram()))];
        assert_eq!(written(one(), Encoding::Delimited), DELIMITED);
        let text = |encoding| String::from_utf8(written(one(), encoding)).unwrap();
        // Go puts one or two blanks between fields, by build; a reader takes any number.
        assert_eq!(text(Encoding::CompactText), COMPACT);
        assert_eq!(text(Encoding::ProtoText), LINES);
    }

    #[test]
    fn a_family_ends_where_the_kind_changes() {
        let gauge = Histogram {
            reset_hint: ResetHint::Gauge,
            ..histogram()
        };
        let all = vec![
            series("a", None),
            series("a", None),
            series("a", Some(histogram())),
            series("a", Some(gauge)),
            series("", None),
            series("b", Some(histogram())),
        ];
        let families = decoded(&written(all, Encoding::Delimited));
        let seen = families.iter();
        let seen: Vec<_> = seen
            .map(|f| (f.name().to_owned(), f.r#type(), f.metric.len()))
            .collect();
        let a = |kind, metrics| ("a".to_owned(), kind, metrics);
        assert_eq!(
            seen,
            [
                a(MetricType::Untyped, 2),
                a(MetricType::Histogram, 1),
                a(MetricType::GaugeHistogram, 1),
                ("b".to_owned(), MetricType::Histogram, 1),
            ]
        );
    }

    #[test]
    fn custom_bounds_leave_as_a_classic_histogram() {
        let custom = Histogram {
            schema: CUSTOM_SCHEMA,
            custom_values: vec![1.0, 2.0, 5.0],
            zero_threshold: 0.0,
            zero_count: 0.0,
            count: 5.0,
            positive_spans: vec![
                Span {
                    offset: 0,
                    length: 1,
                },
                Span {
                    offset: 2,
                    length: 1,
                },
            ],
            ..histogram()
        };
        let families = decoded(&written(
            vec![series("h", Some(custom))],
            Encoding::Delimited,
        ));
        let histogram = families[0].metric[0].histogram.as_ref().unwrap();
        let buckets = histogram.bucket.iter();
        let buckets: Vec<_> = buckets
            .map(|b| (b.upper_bound(), b.cumulative_count_float()))
            .collect();
        assert_eq!(
            buckets,
            [(1.0, 2.0), (2.0, 2.0), (5.0, 2.0), (f64::INFINITY, 5.0)]
        );
        assert_eq!(
            (histogram.sample_count_float(), histogram.schema),
            (5.0, None)
        );
    }
}
