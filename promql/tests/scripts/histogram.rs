//! Histograms in scripts: `{{schema:0 sum:5 count:4 buckets:[1 2 1]}}`, and series of them.
//!
//! Sums are computed the slow, obvious way, bucket by bucket in a map.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Histogram;
use model::histogram::{ResetHint, Span};

/// A histogram as a script tells it.
#[derive(Debug, Clone)]
pub struct Told {
    pub histogram: Arc<Histogram>,
    /// Whether the reset hint was told; one that was not is not compared.
    pub has_hint: bool,
}

/// Buckets by index.
type Side = BTreeMap<i32, f64>;

/// What stands between `{{` and `}}`.
pub fn parse(body: &str) -> Told {
    let mut histogram = Histogram::default();
    let (mut positive, mut negative) = ((0, Vec::new()), (0, Vec::new()));
    let mut has_hint = false;
    let mut rest = body.trim();
    while !rest.is_empty() {
        let (key, tail) = rest.split_once(':').expect(body);
        let tail = tail.trim_start();
        let end = match tail.strip_prefix('[') {
            Some(_) => tail.find(']').expect("a closing bracket") + 1,
            None => tail.find(' ').unwrap_or(tail.len()),
        };
        let (value, tail) = tail.split_at(end);
        let list = || {
            let inside = value.trim_matches(['[', ']']);
            inside.split_whitespace().map(float).collect::<Vec<f64>>()
        };
        match key.trim() {
            "schema" => histogram.schema = value.parse().expect(value),
            "sum" => histogram.sum = float(value),
            "count" => histogram.count = float(value),
            "z_bucket" => histogram.zero_count = float(value),
            "z_bucket_w" => histogram.zero_threshold = float(value),
            "custom_values" => histogram.custom_values = list(),
            "buckets" => positive.1 = list(),
            "offset" => positive.0 = value.parse().expect(value),
            "n_buckets" => negative.1 = list(),
            "n_offset" => negative.0 = value.parse().expect(value),
            "counter_reset_hint" => {
                has_hint = true;
                histogram.reset_hint = match value {
                    "unknown" => ResetHint::Unknown,
                    "reset" => ResetHint::CounterReset,
                    "not_reset" => ResetHint::NotCounterReset,
                    "gauge" => ResetHint::Gauge,
                    other => panic!("reset hint {other}?"),
                };
            }
            other => panic!("{other} in {body}?"),
        }
        rest = tail.trim_start();
    }
    let spans = |(offset, buckets): &(i32, Vec<f64>)| match u32::try_from(buckets.len()) {
        Ok(length) if length > 0 => vec![Span {
            offset: *offset,
            length,
        }],
        _ => Vec::new(),
    };
    histogram.positive_spans = spans(&positive);
    histogram.negative_spans = spans(&negative);
    histogram.positive_buckets = positive.1;
    histogram.negative_buckets = negative.1;
    Told {
        histogram: Arc::new(histogram),
        has_hint,
    }
}

fn float(text: &str) -> f64 {
    match text.to_lowercase().as_str() {
        "nan" => f64::NAN,
        text => text.parse().expect(text),
    }
}

/// `a + sign · b`, in the coarser schema.
pub fn combine(a: &Told, b: &Told, sign: f64) -> Told {
    let schema = a.histogram.schema.min(b.histogram.schema);
    let (left, right) = (&a.histogram, &b.histogram);
    let sides = |h: &Histogram| {
        [
            side(&h.positive_spans, &h.positive_buckets),
            side(&h.negative_spans, &h.negative_buckets),
        ]
        .map(|side| reduce(side, h.schema, schema))
    };
    let mut combined = sides(left);
    for (into, from) in combined.iter_mut().zip(sides(right)) {
        for (index, count) in from {
            *into.entry(index).or_default() += sign * count;
        }
    }
    let [positive, negative] = combined.map(|side| spans(&side));
    let histogram = Histogram {
        schema,
        zero_threshold: left.zero_threshold.max(right.zero_threshold),
        zero_count: left.zero_count + sign * right.zero_count,
        count: left.count + sign * right.count,
        sum: left.sum + sign * right.sum,
        positive_spans: positive.0,
        positive_buckets: positive.1,
        negative_spans: negative.0,
        negative_buckets: negative.1,
        ..(**left).clone()
    };
    Told {
        histogram: Arc::new(histogram),
        has_hint: a.has_hint,
    }
}

fn side(spans: &[Span], buckets: &[f64]) -> Side {
    let mut side = Side::new();
    let (mut index, mut buckets) = (0, buckets.iter());
    for span in spans {
        index += span.offset;
        for _ in 0..span.length {
            side.insert(
                index,
                *buckets.next().expect("as many buckets as spans say"),
            );
            index += 1;
        }
    }
    side
}

fn reduce(side: Side, from: i32, to: i32) -> Side {
    let mut reduced = Side::new();
    for (index, count) in side {
        let index = if from == to {
            index
        } else {
            ((index - 1) >> (from - to)) + 1
        };
        *reduced.entry(index).or_default() += count;
    }
    reduced
}

/// Without empty buckets.
fn spans(side: &Side) -> (Vec<Span>, Vec<f64>) {
    let (mut spans, mut buckets) = (Vec::<Span>::new(), Vec::new());
    let mut end = 0;
    for (&index, &count) in side.iter().filter(|(_, count)| **count != 0.0) {
        match spans.last_mut() {
            Some(span) if index == end => span.length += 1,
            _ => spans.push(Span {
                offset: index - end,
                length: 1,
            }),
        }
        buckets.push(count);
        end = index + 1;
    }
    (spans, buckets)
}

/// A classic histogram as one of custom buckets: cumulative counts by upper bound.
pub fn from_classic(buckets: &[(f64, f64)], count: Option<f64>, sum: Option<f64>) -> Histogram {
    let mut buckets = buckets.to_vec();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let most = buckets.iter().map(|b| b.1).fold(0.0, f64::max);
    let count = count.unwrap_or(most);
    let mut counts = Side::new();
    let mut before = 0.0;
    let finite: Vec<_> = buckets.iter().filter(|b| b.0.is_finite()).collect();
    for (index, bucket) in (0..).zip(&finite) {
        counts.insert(index, bucket.1 - before);
        before = bucket.1;
    }
    let top = buckets.last().filter(|b| b.0 == f64::INFINITY);
    let top = top.map_or(count, |b| b.1).max(count);
    counts.insert(finite.len() as i32, top - before);
    let (positive_spans, positive_buckets) = spans(&counts);
    Histogram {
        schema: model::histogram::CUSTOM_SCHEMA,
        count,
        sum: sum.unwrap_or_default(),
        positive_spans,
        positive_buckets,
        custom_values: finite.iter().map(|b| b.0).collect(),
        ..Histogram::default()
    }
}

/// Whether `got` is what was told, as far as `is_same` tells floats apart; empty buckets do not
/// count.
pub fn is_same(told: &Told, got: &Histogram, is_same: impl Fn(f64, f64) -> bool) -> bool {
    let want = &told.histogram;
    let sides = |h: &Histogram| {
        [
            spans(&side(&h.positive_spans, &h.positive_buckets)),
            spans(&side(&h.negative_spans, &h.negative_buckets)),
        ]
    };
    let same_sides = sides(want).iter().zip(&sides(got)).all(|(want, got)| {
        want.0 == got.0 && want.1.iter().zip(&got.1).all(|(w, g)| is_same(*g, *w))
    });
    let numbers = |h: &Histogram| [h.zero_count, h.count, h.sum];
    let same_numbers = numbers(got)
        .iter()
        .zip(numbers(want))
        .all(|(g, w)| is_same(*g, w));
    same_sides
        && same_numbers
        && got.schema == want.schema
        && got.zero_threshold == want.zero_threshold
        && got.custom_values == want.custom_values
        && (!told.has_hint || got.reset_hint == want.reset_hint)
}
