//! Bodies made with the generated types; what comes out of each is what Prometheus 3.5.3 stored
//! after scraping the same bytes.

use model::number;
use proptest::prelude::*;
use prost::Message;
use proto::exposition as wire;

use super::*;
use crate::exposition::Entry;

/// Series with values, or buckets; exemplars behind a `#`, with their time in milliseconds.
fn shown(body: &[u8], keep_classic: bool) -> Result<Vec<String>, Malformed> {
    let mut parser = Parser::new(body, keep_classic);
    let mut lines = Vec::new();
    while let Some(entry) = parser.next_entry()? {
        let (value, timestamp) = match entry {
            Entry::Sample(line) => (number::exposition(line.value), line.timestamp),
            Entry::Histogram(line) => {
                let h = line.histogram;
                let kind = if h.is_integer { "int" } else { "float" };
                let spans = h.positive_spans.iter();
                let spans: Vec<_> = spans.map(|s| (s.offset, s.length)).collect();
                let text = format!(
                    "{kind} {:?} schema={} count={} sum={} zero={} {spans:?} {:?}",
                    h.reset_hint, h.schema, h.count, h.sum, h.zero_count, h.positive_buckets
                );
                (text, line.timestamp)
            }
            Entry::Type { kind, .. } => {
                lines.push(format!("# {}", kind.as_str()));
                continue;
            }
            Entry::Help { help, .. } => {
                lines.push(format!("# {help:?}"));
                continue;
            }
            Entry::Unit { unit, .. } => {
                lines.push(format!("# unit {unit}"));
                continue;
            }
        };
        let mut line = format!("{} {value}", parser.labels().unwrap());
        line += &timestamp.map_or(String::new(), |at| format!(" @{at}"));
        for exemplar in parser.exemplars() {
            let at = exemplar
                .timestamp
                .map_or(String::new(), |at| format!(" @{at}"));
            line += &format!(" # {} {}{at}", exemplar.labels, exemplar.value);
        }
        lines.push(line);
    }
    Ok(lines)
}

fn family(name: &str, kind: wire::MetricType, metric: Vec<wire::Metric>) -> wire::MetricFamily {
    wire::MetricFamily {
        name: Some(name.to_owned()),
        help: Some("text".to_owned()),
        r#type: Some(kind as i32),
        metric,
        unit: None,
    }
}

fn histogram_family(name: &str, kind: wire::MetricType, h: wire::Histogram) -> wire::MetricFamily {
    let metric = wire::Metric {
        histogram: Some(h),
        ..Default::default()
    };
    family(name, kind, vec![metric])
}

fn exemplar(trace: &str, value: f64, seconds: Option<i64>) -> wire::Exemplar {
    wire::Exemplar {
        label: vec![pair("trace_id", trace)],
        value: Some(value),
        timestamp: seconds.map(|seconds| wire::Timestamp {
            seconds: Some(seconds),
            nanos: Some(500_999_999),
        }),
    }
}

fn pair(name: &str, value: &str) -> wire::LabelPair {
    wire::LabelPair {
        name: Some(name.to_owned()),
        value: Some(value.to_owned()),
    }
}

fn bucket(bound: f64, count: u64, exemplar: Option<wire::Exemplar>) -> wire::Bucket {
    wire::Bucket {
        cumulative_count: Some(count),
        upper_bound: Some(bound),
        exemplar,
        ..Default::default()
    }
}

fn classic() -> wire::Histogram {
    wire::Histogram {
        sample_count: Some(5),
        sample_sum: Some(12.5),
        bucket: vec![
            bucket(1.0, 2, Some(exemplar("a", 0.7, Some(7)))),
            bucket(5.0, 4, Some(exemplar("b", 3.7, None))),
        ],
        ..Default::default()
    }
}

fn native() -> wire::Histogram {
    let span = |offset, length| wire::BucketSpan {
        offset: Some(offset),
        length: Some(length),
    };
    wire::Histogram {
        schema: Some(3),
        zero_threshold: Some(0.001),
        zero_count: Some(1),
        positive_span: vec![span(0, 3), span(3, 1)],
        positive_delta: vec![1, -1, 2, -1],
        ..classic()
    }
}

fn body(families: &[wire::MetricFamily]) -> Vec<u8> {
    families
        .iter()
        .flat_map(Message::encode_length_delimited_to_vec)
        .collect()
}

const HISTOGRAM: wire::MetricType = wire::MetricType::Histogram;

#[test]
fn plain_kinds_are_read() {
    let metric = wire::Metric {
        label: vec![pair("b", "2"), pair("a", "1")],
        counter: Some(wire::Counter {
            value: Some(5.0),
            exemplar: Some(exemplar("x", 1.0, Some(7))),
            ..Default::default()
        }),
        timestamp_ms: Some(99),
        ..Default::default()
    };
    let summary = wire::Metric {
        summary: Some(wire::Summary {
            sample_count: Some(7),
            sample_sum: Some(9.5),
            quantile: vec![wire::Quantile {
                quantile: Some(1.0),
                value: Some(2.0),
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    let gauge = wire::Metric {
        gauge: Some(wire::Gauge { value: Some(-1.5) }),
        ..Default::default()
    };
    let mut gauge = family("g_seconds", wire::MetricType::Gauge, vec![gauge]);
    gauge.unit = Some("seconds".to_owned());
    let bytes = body(&[
        family("c_total", wire::MetricType::Counter, vec![metric]),
        family("none", wire::MetricType::Gauge, vec![]),
        gauge,
        family("s", wire::MetricType::Summary, vec![summary]),
        family(
            "u",
            wire::MetricType::Untyped,
            vec![wire::Metric::default()],
        ),
    ]);
    assert_eq!(
        shown(&bytes, false).unwrap(),
        [
            "# \"text\"",
            "# counter",
            r#"{__name__="c_total", a="1", b="2"} 5 @99 # {trace_id="x"} 1 @7500"#,
            "# \"text\"",
            "# unit seconds",
            "# gauge",
            r#"{__name__="g_seconds"} -1.5"#,
            "# \"text\"",
            "# summary",
            r#"{__name__="s_count"} 7"#,
            r#"{__name__="s_sum"} 9.5"#,
            r#"{__name__="s", quantile="1.0"} 2"#,
            "# \"text\"",
            "# unknown",
            r#"{__name__="u"} 0"#,
        ]
    );
}

#[test]
fn a_native_part_hides_the_classic_one() {
    let classic_series = [
        r#"{__name__="h_count"} 5"#,
        r#"{__name__="h_sum"} 12.5"#,
        r#"{__name__="h_bucket", le="1.0"} 2 # {trace_id="a"} 0.7 @7500"#,
        r#"{__name__="h_bucket", le="5.0"} 4 # {trace_id="b"} 3.7"#,
        r#"{__name__="h_bucket", le="+Inf"} 5"#,
    ];
    let native_series = r#"{__name__="h"} int Unknown schema=3 count=5 sum=12.5 zero=1 [(0, 1), (1, 1), (3, 1)] [1.0, 2.0, 1.0] # {trace_id="a"} 0.7 @7500"#;
    let bytes = body(&[histogram_family("h", HISTOGRAM, classic())]);
    assert_eq!(shown(&bytes, false).unwrap()[2..], classic_series);
    let bytes = body(&[histogram_family("h", HISTOGRAM, native())]);
    assert_eq!(shown(&bytes, false).unwrap()[2..], [native_series]);
    let both = shown(&bytes, true).unwrap();
    assert_eq!(both[2], native_series);
    assert_eq!(both[3..], classic_series);
    let own = wire::Histogram {
        exemplars: vec![exemplar("n", 1.0, Some(1)), exemplar("m", 1.0, None)],
        ..native()
    };
    let bytes = body(&[histogram_family("h", HISTOGRAM, own)]);
    let line = &shown(&bytes, false).unwrap()[2];
    assert!(
        line.ends_with(r#"# {trace_id="n"} 1 @1500"#),
        "one exemplar: {line}"
    );
}

#[test]
fn floats_and_gauges_are_told_apart() {
    let float = wire::Histogram {
        sample_count_float: Some(4.5),
        sample_sum: Some(12.5),
        zero_count_float: Some(0.5),
        zero_threshold: Some(0.001),
        positive_span: vec![wire::BucketSpan {
            offset: Some(0),
            length: Some(3),
        }],
        positive_count: vec![1.5, 0.0, 2.5],
        ..Default::default()
    };
    let empty = wire::Histogram {
        schema: Some(3),
        positive_span: vec![wire::BucketSpan::default()],
        ..Default::default()
    };
    let bytes = body(&[
        histogram_family("h", wire::MetricType::GaugeHistogram, float),
        histogram_family("e", HISTOGRAM, empty),
    ]);
    let lines = shown(&bytes, false).unwrap();
    assert_eq!(
        lines[2],
        r#"{__name__="h"} float Gauge schema=0 count=4.5 sum=12.5 zero=0.5 [(0, 1), (1, 1)] [1.5, 2.5]"#
    );
    assert_eq!(
        lines[5],
        r#"{__name__="e"} int Unknown schema=3 count=0 sum=0 zero=0 [] []"#
    );
}

#[test]
fn broken_bodies_are_named() {
    let gauge = || vec![wire::Metric::default()];
    let mut unit = family("g", wire::MetricType::Gauge, gauge());
    unit.unit = Some("seconds".to_owned());
    let mut kind = family("g", wire::MetricType::Gauge, gauge());
    kind.r#type = Some(9);
    let large = wire::Metric {
        label: vec![pair("a", &"x".repeat(limits::METRIC_BYTES_MAX))],
        ..Default::default()
    };
    for (family, text) in [
        (
            family("", wire::MetricType::Gauge, gauge()),
            "invalid metric name: ",
        ),
        (unit, "unit \"seconds\" not a suffix of metric \"g\""),
        (kind, "unknown metric type for metric \"g\": 9"),
        (
            family("g", wire::MetricType::Gauge, vec![large]),
            "metric of more than 1048576 bytes",
        ),
    ] {
        assert_eq!(
            shown(&body(&[family]), false).unwrap_err().to_string(),
            text
        );
    }
    assert_eq!(
        shown(b"\x05ab", false).unwrap_err().to_string(),
        "protobuf: the message ends in the middle of a field"
    );
}

#[test]
fn one_long_label_is_not_repeated_without_end() {
    let many = wire::Metric {
        label: vec![pair("a", &"x".repeat(100_000))],
        histogram: Some(wire::Histogram {
            bucket: (0..10_000).map(|i| bucket(f64::from(i), 0, None)).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let bytes = body(&[family("h", HISTOGRAM, vec![many])]);
    let mut parser = Parser::new(&bytes, false);
    let end = loop {
        match parser.next_entry() {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Err(Malformed::TooLarge { .. })));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = shown(&bytes, true);
        let mut behind_length = vec![bytes.len() as u8];
        behind_length.extend(&bytes);
        if let Ok(lines) = shown(&behind_length, true) {
            prop_assert!(lines.len() <= 10 * bytes.len() + 10);
        }
    }

    #[test]
    fn flipped_bytes_never_panic(at in 0usize..200, bit in 0u8..8) {
        let mut bytes = body(&[histogram_family("h", HISTOGRAM, native())]);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let _ = shown(&bytes, true);
    }
}
