//! Newest samples as protobuf families, as Prometheus' `/federate` writes them.
//!
//! Promise: byte for byte Prometheus 3.5 for floats and for exponential histograms, which leave as
//! floats; a family ends where the name or the kind changes, or where it grows beyond
//! [`FAMILY_BYTES_MAX`]. Two of its faults are not copied:
//! every histogram shows its own buckets, and one with custom bounds, whose bounds have no field,
//! leaves as the classic histogram it stands for. Where it is told of families, they have their types
//! and helps, and the parts of classic histograms and summaries are one metric again. Not here: choosing and sorting the series.

use model::group::FamilyKind;
use model::histogram::{ResetHint, Span};
use model::limits::FAMILY_BYTES_MAX;
use model::{Histogram, Labels, Newest};
use prost::Message;
use proto::exposition as wire;
use proto::exposition::MetricType;

use crate::exposition::{Additions, Writer, labels_of};
use crate::format::{Encoding, Format};
use crate::grouped::FamilyWriter;
use crate::parts::Parts;
use crate::{prototext, types};

/// Writes newest samples that come sorted by metric name; nameless ones are skipped.
pub struct Families {
    additions: Additions,
    format: Format,
    /// What is gathered of the family that comes now.
    family: Option<Family>,
    /// Or of one that has parts.
    parts: Option<Parts>,
    /// The family of which there were more parts than may be held.
    untyped: String,
}

struct Family {
    /// As it is stored.
    name: String,
    kind: Kind,
    help: String,
    metrics: Vec<wire::Metric>,
    bytes: usize,
}

/// What a family's metrics have in common besides its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Untyped,
    Counter,
    Gauge,
    Summary,
    Histogram,
    GaugeHistogram,
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
            parts: None,
            untyped: String::new(),
        }
    }

    fn metric(&self, newest: &Newest, kind: Kind) -> wire::Metric {
        let histogram = newest.histogram.as_deref();
        let value = Some(newest.value);
        let is = |one| kind == one;
        wire::Metric {
            label: self.labels(&newest.labels),
            counter: is(Kind::Counter).then(|| wire::Counter {
                value,
                ..wire::Counter::default()
            }),
            gauge: is(Kind::Gauge).then_some(wire::Gauge { value }),
            untyped: is(Kind::Untyped).then_some(wire::Untyped { value }),
            histogram: histogram.map(|histogram| match histogram.uses_custom_buckets() {
                true => classic(histogram),
                false => native(histogram),
            }),
            timestamp_ms: Some(newest.at.0),
            ..wire::Metric::default()
        }
    }

    fn labels(&self, labels: &Labels) -> Vec<wire::LabelPair> {
        let labels = labels_of(labels, &self.additions);
        labels
            .map(|(name, value)| wire::LabelPair {
                name: Some(self.format.escaping.escape(name).into_owned()),
                value: Some(value.to_owned()),
            })
            .collect()
    }

    /// A series that is a metric of its own.
    fn write_alone(&mut self, newest: &Newest, told: types::Family<'_>, out: &mut Vec<u8>) {
        let kind = kind_of(newest, told.kind);
        let goes_on = self.family.as_ref().is_some_and(|family| {
            family.name == told.name && family.kind == kind && family.bytes < FAMILY_BYTES_MAX
        });
        if !goes_on {
            self.finish_family(out);
        }
        let metric = self.metric(newest, kind);
        self.add(told.name, kind, told.help, metric);
    }

    fn add(&mut self, name: &str, kind: Kind, help: &str, metric: wire::Metric) {
        let family = self.family.get_or_insert_with(|| Family {
            name: name.to_owned(),
            kind,
            help: help.to_owned(),
            metrics: Vec::new(),
            bytes: 0,
        });
        family.bytes += metric.encoded_len();
        family.metrics.push(metric);
    }

    fn write_part(&mut self, newest: &Newest, told: types::Family<'_>, out: &mut Vec<u8>) {
        let parts = self.parts.take_if(|parts| parts.name == told.name);
        let mut parts = match parts {
            Some(parts) => parts,
            None => {
                self.finish(out);
                Parts::new(told.name, told.kind, told.help)
            }
        };
        parts.add(newest);
        if parts.bytes > FAMILY_BYTES_MAX {
            told.name.clone_into(&mut self.untyped);
            for newest in parts.take_all() {
                let family = types::Family::untyped(newest.labels.metric_name());
                self.write_alone(&newest, family, out);
            }
            return;
        }
        self.parts = Some(parts);
    }

    fn finish_parts(&mut self, mut parts: Parts, out: &mut Vec<u8>) {
        let kind = match parts.kind {
            FamilyKind::Summary => Kind::Summary,
            _ => Kind::Histogram,
        };
        let (whole, rest) = parts.take();
        for set in whole {
            let metric = wire::Metric {
                label: self.labels(&set.labels),
                ..set.metric
            };
            self.add(&parts.name, kind, &parts.help, metric);
        }
        self.finish_family(out);
        for newest in rest {
            let family = types::Family::untyped(newest.labels.metric_name());
            self.write_alone(&newest, family, out);
        }
        self.finish_family(out);
    }

    fn finish_family(&mut self, out: &mut Vec<u8>) {
        if let Some(family) = self.family.take() {
            self.write_family(family, out);
        }
    }

    fn write_family(&self, family: Family, out: &mut Vec<u8>) {
        let family = wire::MetricFamily {
            name: Some(self.format.escaping.escape(&family.name).into_owned()),
            help: (!family.help.is_empty()).then_some(family.help),
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
        let name = newest.labels.metric_name();
        if !name.is_empty() {
            self.write_alone(newest, types::Family::untyped(name), out);
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.finish_family(out);
        if let Some(parts) = self.parts.take() {
            self.finish_parts(parts, out);
        }
    }
}

impl FamilyWriter for Families {
    fn write_as(&mut self, newest: &Newest, family: types::Family<'_>, out: &mut Vec<u8>) {
        let has_parts = family.kind.has_parts();
        if has_parts && self.untyped != family.name {
            return self.write_part(newest, family, out);
        }
        if let Some(parts) = self.parts.take() {
            self.finish_parts(parts, out);
        }
        match has_parts {
            true => {
                let untyped = types::Family::untyped(newest.labels.metric_name());
                self.write_alone(newest, untyped, out);
            }
            false => self.write_alone(newest, family, out),
        }
    }
}

impl Kind {
    fn metric_type(self) -> MetricType {
        match self {
            Self::Untyped => MetricType::Untyped,
            Self::Histogram | Self::Classic => MetricType::Histogram,
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Summary => MetricType::Summary,
            Self::GaugeHistogram => MetricType::GaugeHistogram,
        }
    }
}

/// `told` is what is known of a float; a histogram says it itself.
fn kind_of(newest: &Newest, told: FamilyKind) -> Kind {
    match newest.histogram.as_deref() {
        None => match told {
            FamilyKind::Counter => Kind::Counter,
            FamilyKind::Gauge => Kind::Gauge,
            _ => Kind::Untyped,
        },
        Some(h) if h.reset_hint == ResetHint::Gauge => Kind::GaugeHistogram,
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

    use model::histogram::CUSTOM_SCHEMA;
    use model::{MetricKind, Timestamp};

    use super::*;
    use crate::{Grouped, Types};

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

    fn told(all: &[Newest], encoding: Encoding) -> Vec<u8> {
        let format = Format {
            encoding,
            ..Format::default()
        };
        let types = Types::new([
            ("c", MetricKind::Counter, "C."),
            ("g", MetricKind::Gauge, ""),
            ("h", MetricKind::Histogram, "H."),
            ("s", MetricKind::Summary, ""),
        ]);
        let mut writer = Grouped::new(types, Families::new(&Labels::default(), format));
        let mut out = Vec::new();
        all.iter().for_each(|newest| writer.write(newest, &mut out));
        writer.finish(&mut out);
        out
    }

    fn float(name: &str, more: &[(&str, &str)], value: f64) -> Newest {
        let pairs = [&[("__name__", name)], more].concat();
        Newest {
            labels: Labels::from_pairs(pairs),
            value,
            ..series(name, None)
        }
    }

    #[test]
    fn told_types_are_those_of_the_messages() {
        let late = Newest {
            at: AT.plus_ms(1),
            ..float("h_sum", &[("p", "b")], 1.0)
        };
        let all = [
            float("c_total", &[], 5.0),
            float("g", &[], 6.0),
            series("g", Some(histogram())),
            float("h_bucket", &[("le", "+Inf"), ("p", "a")], 3.0),
            float("h_bucket", &[("le", "+Inf"), ("p", "b")], 3.0),
            float("h_bucket", &[("le", "0.5"), ("p", "a")], 1.5),
            float("h_count", &[("p", "a")], 3.0),
            float("h_count", &[("p", "b")], 3.0),
            float("h_sum", &[("p", "a")], 0.7),
            late,
            float("s", &[("quantile", "0.5")], 9.0),
            float("s_count", &[], 2.0),
            float("s_sum", &[], 4.0),
            float("z", &[], 7.0),
        ];
        let ends = "timestamp_ms:1795734028178}\n";
        let i = r#"metric:{label:{name:"instance" value:""}"#;
        let p = |p| {
            format!(r#"metric:{{label:{{name:"p" value:"{p}"}} label:{{name:"instance" value:""}}"#)
        };
        let inf = r#"metric:{label:{name:"le" value:"+Inf"} label:{name:"p" value:"b"} label:{name:"instance" value:""}"#;
        let native = COMPACT.split_once("histogram:").unwrap().1;
        let expected = [
            format!(r#"name:"c_total" help:"C." type:COUNTER {i} counter:{{value:5}} {ends}"#),
            format!(r#"name:"g" type:GAUGE {i} gauge:{{value:6}} {ends}"#),
            format!(r#"name:"g" type:HISTOGRAM {i} histogram:{native}"#),
            format!(
                r#"name:"h" help:"H." type:HISTOGRAM {} histogram:{{sample_count:3 sample_sum:0.7 bucket:{{cumulative_count_float:1.5 upper_bound:0.5}} bucket:{{cumulative_count:3 upper_bound:inf}}}} {ends}"#,
                p("a")
            ),
            format!(r#"name:"h_bucket" type:UNTYPED {inf} untyped:{{value:3}} {ends}"#),
            format!(
                r#"name:"h_count" type:UNTYPED {} untyped:{{value:3}} {ends}"#,
                p("b")
            ),
            format!(
                r#"name:"h_sum" type:UNTYPED {} untyped:{{value:1}} timestamp_ms:1795734028179}}{}"#,
                p("b"),
                "\n"
            ),
            format!(
                r#"name:"s" type:SUMMARY {i} summary:{{sample_count:2 sample_sum:4 quantile:{{quantile:0.5 value:9}}}} {ends}"#
            ),
            format!(r#"name:"z" type:UNTYPED {i} untyped:{{value:7}} {ends}"#),
        ];
        let text = String::from_utf8(told(&all, Encoding::CompactText)).unwrap();
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        assert_eq!(lines, expected);
        let families = decoded(&told(&all, Encoding::Delimited));
        assert_eq!(families.len(), expected.len());
        assert_eq!(
            families[3].metric[0]
                .histogram
                .as_ref()
                .unwrap()
                .bucket
                .len(),
            2
        );
    }

    #[test]
    fn of_too_many_parts_none_is_lost() {
        let long = "x".repeat(FAMILY_BYTES_MAX / 100);
        let label = |n: usize| format!("{n:03}{long}");
        let parts = (0..80).map(|n| float("h_bucket", &[("le", "+Inf"), ("l", &label(n))], 1.0));
        let counts = (0..80).map(|n| float("h_count", &[("l", &label(n))], 1.0));
        let all: Vec<_> = parts.chain(counts).collect();
        let families = decoded(&told(&all, Encoding::Delimited));
        let metrics: usize = families.iter().map(|family| family.metric.len()).sum();
        assert_eq!(metrics, all.len());
        assert!(families.iter().all(|f| f.r#type() == MetricType::Untyped));
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
