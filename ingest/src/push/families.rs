//! The page of a Pushgateway as protobuf: all groups as `io.prometheus.client.MetricFamily`.
//!
//! Laid out as [`super::render`] lays out text, but what was pushed is shown as it was pushed: a
//! histogram has the buckets it came with, classic and native. Where groups give a family different
//! types, it is shown once for each of them. Not here: escaping of names and the bytes.

use std::collections::BTreeMap;

use model::Histogram;
use model::group::{FamilyKind, Group};
use model::histogram::Span;
use model::number;
use proto::exposition as wire;

use super::body;
use super::check::{Building, Value};
use super::render::{Line, Metric, merge};

/// The families of all groups, by name.
pub fn families(groups: &[Group]) -> Vec<wire::MetricFamily> {
    let mut families = Vec::new();
    for (name, merged) in &mut merge(groups) {
        merged.sort();
        let mut by_kind: BTreeMap<FamilyKind, Vec<wire::Metric>> = BTreeMap::new();
        for metric in &merged.metrics {
            let shown = by_kind.entry(metric.kind).or_default();
            shown.push(of_group(metric));
        }
        let of_kind = |(kind, metrics)| family(name, merged.help(), kind, metrics);
        families.extend(by_kind.into_iter().map(of_kind));
    }
    families
}

/// The families of a page in the text format, as they stand there; what is no exposition is none.
pub fn of_text(text: &str) -> Vec<wire::MetricFamily> {
    let buildings = body::buildings(text.as_bytes()).unwrap_or_default();
    let shown = buildings.iter().filter(|family| !family.metrics.is_empty());
    shown.map(of_building).collect()
}

fn of_building(building: &Building) -> wire::MetricFamily {
    let kind = building.kind.unwrap_or_default();
    let metrics = building.metrics.iter().map(|metric| {
        let labels = metric.labels.iter();
        let labels = labels.map(|(name, value)| (name.as_str(), value.as_str()));
        let numbers = match &metric.value {
            Value::Single(value) => Numbers::Single(*value),
            Value::Compound {
                bounds, sum, count, ..
            } => Numbers::Compound {
                bounds: bounds.clone(),
                sum: *sum,
                count: *count,
                native: None,
            },
        };
        shown(kind, labels, numbers)
    });
    let help = building.help.as_deref();
    family(&building.name, help, kind, metrics.collect())
}

fn family(
    name: &str,
    help: Option<&str>,
    kind: FamilyKind,
    metric: Vec<wire::Metric>,
) -> wire::MetricFamily {
    let kind = match kind {
        FamilyKind::Counter => wire::MetricType::Counter,
        FamilyKind::Gauge => wire::MetricType::Gauge,
        FamilyKind::Histogram => wire::MetricType::Histogram,
        FamilyKind::Summary => wire::MetricType::Summary,
        FamilyKind::Untyped => wire::MetricType::Untyped,
    };
    wire::MetricFamily {
        name: Some(name.to_owned()),
        help: help.map(str::to_owned),
        r#type: Some(kind.into()),
        metric,
        unit: None,
    }
}

/// What a metric counts.
enum Numbers<'a> {
    Single(f64),
    Compound {
        bounds: Vec<(f64, f64)>,
        sum: f64,
        count: f64,
        native: Option<&'a Histogram>,
    },
}

fn of_group(metric: &Metric<'_>) -> wire::Metric {
    // As in text: no metric has a label of the bound's name beside its bounds.
    let bound_label = metric.lines.iter().find_map(|line| Some(line.bound?.0));
    let labels = metric.labels.iter().map(|(name, value)| (*name, *value));
    let labels = labels.filter(|(name, _)| Some(*name) != bound_label);
    let of_part = |suffix: &str| metric.lines.iter().find(|line| line.suffix == suffix);
    let value = |suffix: &str| of_part(suffix).map_or(0.0, |line| line.value);
    let numbers = match metric.kind {
        FamilyKind::Histogram | FamilyKind::Summary => Numbers::Compound {
            bounds: metric.lines.iter().filter_map(bound).collect(),
            sum: value("_sum"),
            count: value("_count"),
            native: of_part("_count").and_then(|line| line.native),
        },
        _ => Numbers::Single(value("")),
    };
    shown(metric.kind, labels, numbers)
}

/// A bucket or quantile that was pushed.
fn bound(line: &Line<'_>) -> Option<(f64, f64)> {
    let (_, text) = line.bound.filter(|_| !line.implied)?;
    Some((number::parse(text)?, line.value))
}

fn shown<'a>(
    kind: FamilyKind,
    labels: impl Iterator<Item = (&'a str, &'a str)>,
    numbers: Numbers<'_>,
) -> wire::Metric {
    let pair = |(name, value): (&str, &str)| wire::LabelPair {
        name: Some(name.to_owned()),
        value: Some(value.to_owned()),
    };
    let mut metric = wire::Metric {
        label: labels.map(pair).collect(),
        ..wire::Metric::default()
    };
    match numbers {
        Numbers::Single(value) => {
            let value = Some(value);
            match kind {
                FamilyKind::Counter => {
                    metric.counter = Some(wire::Counter {
                        value,
                        ..wire::Counter::default()
                    });
                }
                FamilyKind::Gauge => metric.gauge = Some(wire::Gauge { value }),
                _ => metric.untyped = Some(wire::Untyped { value }),
            }
        }
        Numbers::Compound {
            bounds, sum, count, ..
        } if kind == FamilyKind::Summary => metric.summary = Some(summary(&bounds, sum, count)),
        Numbers::Compound {
            bounds,
            sum,
            count,
            native,
        } => {
            let mut histogram = classic(&bounds, sum, count);
            if let Some(native) = native {
                add_native(&mut histogram, native);
            }
            metric.histogram = Some(histogram);
        }
    }
    metric
}

fn summary(bounds: &[(f64, f64)], sum: f64, count: f64) -> wire::Summary {
    let quantile = |&(quantile, value): &(f64, f64)| wire::Quantile {
        quantile: Some(quantile),
        value: Some(value),
    };
    wire::Summary {
        sample_count: Some(count as u64),
        sample_sum: Some(sum),
        quantile: bounds.iter().map(quantile).collect(),
        ..wire::Summary::default()
    }
}

/// Counts are whole numbers where all of them are.
fn classic(bounds: &[(f64, f64)], sum: f64, count: f64) -> wire::Histogram {
    let whole = is_whole(count) && bounds.iter().all(|(_, count)| is_whole(*count));
    let both = |count: f64| match whole {
        true => (Some(count as u64), None),
        false => (None, Some(count)),
    };
    let bucket = |&(bound, count): &(f64, f64)| {
        let (cumulative_count, cumulative_count_float) = both(count);
        wire::Bucket {
            cumulative_count,
            cumulative_count_float,
            upper_bound: Some(bound),
            exemplar: None,
        }
    };
    let (sample_count, sample_count_float) = both(count);
    wire::Histogram {
        sample_count,
        sample_count_float,
        sample_sum: Some(sum),
        bucket: bounds.iter().map(bucket).collect(),
        ..wire::Histogram::default()
    }
}

/// Whether it is a whole number of 64 bits.
fn is_whole(count: f64) -> bool {
    (0.0..18_446_744_073_709_551_616.0).contains(&count) && count.trunc() == count
}

fn add_native(shown: &mut wire::Histogram, native: &Histogram) {
    shown.schema = Some(native.schema);
    shown.zero_threshold = Some(native.zero_threshold);
    shown.negative_span = spans(&native.negative_spans);
    shown.positive_span = spans(&native.positive_spans);
    match native.is_integer {
        true => {
            shown.sample_count = Some(native.whole_count());
            shown.sample_count_float = None;
            shown.zero_count = Some(native.whole_zero_count());
            shown.negative_delta = deltas(native.whole_negative());
            shown.positive_delta = deltas(native.whole_positive());
        }
        false => {
            shown.sample_count = None;
            shown.sample_count_float = Some(native.count);
            shown.zero_count_float = Some(native.zero_count);
            shown.negative_count = native.negative_buckets.clone();
            shown.positive_count = native.positive_buckets.clone();
        }
    }
}

fn spans(spans: &[Span]) -> Vec<wire::BucketSpan> {
    let spans = spans.iter().map(|span| wire::BucketSpan {
        offset: Some(span.offset),
        length: Some(span.length),
    });
    spans.collect()
}

fn deltas(buckets: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut last = 0i64;
    let deltas = buckets.map(|count| count.wrapping_sub(std::mem::replace(&mut last, count)));
    deltas.collect()
}

#[cfg(test)]
mod tests {
    use model::Timestamp;
    use model::group::GroupingKey;
    use prost::Message;

    use super::*;
    use crate::push::{Names, parse, parse_delimited};

    fn key() -> GroupingKey {
        GroupingKey::new([("job".to_owned(), "j".to_owned())]).unwrap()
    }

    fn group(families: Vec<model::group::Family>) -> Group {
        Group {
            families,
            push_time: Timestamp(1),
            ..Group::new(key())
        }
    }

    /// A histogram with classic buckets and native ones on both sides, and an empty label.
    fn histogram(is_integer: bool) -> wire::MetricFamily {
        let mut shown = classic(&[(0.5, 2.0)], 4.5, 9.0);
        let native = Histogram {
            is_integer,
            schema: 1,
            zero_threshold: 0.001,
            zero_count: 1.0,
            count: 9.0,
            sum: 4.5,
            positive_spans: vec![
                Span {
                    offset: 0,
                    length: 2,
                },
                Span {
                    offset: 1,
                    length: 1,
                },
            ],
            positive_buckets: vec![3.0, 2.0, 1.0],
            negative_spans: vec![Span {
                offset: -1,
                length: 2,
            }],
            negative_buckets: vec![1.0, 1.0],
            ..Histogram::default()
        };
        add_native(&mut shown, &native);
        let label = |name: &str, value: &str| wire::LabelPair {
            name: Some(name.to_owned()),
            value: Some(value.to_owned()),
        };
        let metric = wire::Metric {
            label: vec![label("instance", ""), label("job", "j"), label("x", "")],
            histogram: Some(shown),
            ..wire::Metric::default()
        };
        family("h", Some("help"), FamilyKind::Histogram, vec![metric])
    }

    #[test]
    fn what_is_pushed_as_protobuf_is_shown_as_it_was_pushed() {
        for is_integer in [true, false] {
            let mut pushed = histogram(is_integer);
            let body = pushed.encode_length_delimited_to_vec();
            let families = parse_delimited(&body, &key(), Names::Legacy).unwrap();
            let shown = super::families(&[group(families)]);
            if !is_integer {
                // Of classic counts nobody says which they were.
                let histogram = pushed.metric[0].histogram.as_mut().unwrap();
                histogram.sample_count = None;
            }
            assert_eq!(shown[0], pushed);
        }
    }

    #[test]
    fn integers_that_are_no_floats_are_shown_as_they_were_pushed() {
        let mut pushed = histogram(true);
        let shown = pushed.metric[0].histogram.as_mut().unwrap();
        let large = (1 << 53) + 1;
        shown.zero_count = Some(large);
        shown.positive_delta = vec![large as i64, -1, 2];
        shown.sample_count = Some(4 * large + 2);
        let body = pushed.encode_length_delimited_to_vec();
        let families = parse_delimited(&body, &key(), Names::Legacy).unwrap();
        assert_eq!(super::families(&[group(families)])[0], pushed);
    }

    #[test]
    fn a_page_of_text_is_shown_as_it_stands() {
        let text = "# HELP s h\n# TYPE s summary\ns{a=\"b\",quantile=\"0.5\"} 1\ns_sum{a=\"b\"} 2\n\
                    s_count{a=\"b\"} 3\n# TYPE g gauge\ng 1.5\n";
        let families = of_text(text);
        assert_eq!(families.len(), 2);
        let summary = families[0].metric[0].summary.as_ref().unwrap();
        assert_eq!((summary.sample_count, summary.quantile.len()), (Some(3), 1));
        assert_eq!(
            families[1].metric[0].gauge.as_ref().unwrap().value,
            Some(1.5)
        );
        assert!(of_text("no exposition").is_empty());
    }

    #[test]
    fn the_bucket_that_follows_is_text_only() {
        let body = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_count 2\nh_sum 3\n";
        let group = group(parse(body.as_bytes(), &key(), Names::Legacy).unwrap());
        assert!(
            super::super::render(std::slice::from_ref(&group), &|n| n.into())
                .contains("le=\"+Inf\"} 2\n")
        );
        let shown = super::families(&[group]);
        let histogram = shown[0].metric[0].histogram.as_ref().unwrap();
        assert_eq!(histogram.bucket.len(), 1);
    }
}
