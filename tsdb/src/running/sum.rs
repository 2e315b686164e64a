//! A running total and one more difference: what the series stands at then.
//!
//! Floats add up. Histograms add up bucket by bucket, in the coarser of both schemas, and in a coarser
//! one still while a side spans more than [`BUCKETS_MAX`]. What cannot be added (a float and a
//! histogram, other custom bounds or another zero bucket) begins anew.

use std::collections::BTreeMap;

use model::Histogram;
use model::histogram::{Integers, SCHEMA_MIN, Span, indexed};
use model::sample::is_stale;

use crate::histogram::canonical;
use crate::value::Value;

/// As the OpenTelemetry collector's processor has it.
const BUCKETS_MAX: i64 = 160;

type Side<C> = BTreeMap<i64, C>;

/// How much a bucket counts.
trait Count: Copy + Default {
    fn plus(self, more: Self) -> Self;
}

impl Count for f64 {
    fn plus(self, more: Self) -> Self {
        self + more
    }
}

/// Stays at the most there can be.
impl Count for i64 {
    fn plus(self, more: Self) -> Self {
        self.saturating_add(more)
    }
}

/// `total` with `delta`; the total alone where the difference says that the series ended.
pub fn add(total: &Value, delta: &Value) -> Value {
    match (total, delta) {
        (Value::Float(total), Value::Float(delta)) => {
            let (total, delta) = (f64::from_bits(*total), f64::from_bits(*delta));
            let sum = if is_stale(delta) {
                total
            } else {
                total + delta
            };
            Value::Float(sum.to_bits())
        }
        (Value::Histogram(a), Value::Histogram(b)) => {
            match (Histogram::decode(a), Histogram::decode(b)) {
                (_, Ok(b)) if b.is_stale() => total.clone(),
                (Ok(a), Ok(b)) if fit(&a, &b) => Value::Histogram(canonical(&join(&a, &b))),
                _ => delta.clone(),
            }
        }
        (Value::Float(_), Value::Histogram(_)) | (Value::Histogram(_), Value::Float(_)) => {
            delta.clone()
        }
    }
}

fn fit(a: &Histogram, b: &Histogram) -> bool {
    a.uses_custom_buckets() == b.uses_custom_buckets()
        && a.custom_values == b.custom_values
        && a.zero_threshold.to_bits() == b.zero_threshold.to_bits()
        && !a.is_stale()
}

fn join(a: &Histogram, b: &Histogram) -> Histogram {
    let joined = Histogram {
        reset_hint: a.reset_hint,
        schema: a.schema.min(b.schema),
        zero_threshold: a.zero_threshold,
        sum: a.sum + b.sum,
        custom_values: a.custom_values.clone(),
        ..Histogram::default()
    };
    match a.is_integer && b.is_integer {
        true => join_integers(a, b, joined),
        false => join_floats(a, b, joined),
    }
}

fn join_integers(a: &Histogram, b: &Histogram, mut joined: Histogram) -> Histogram {
    let mut sides = [Side::new(), Side::new()];
    for one in [a, b] {
        let steps = one.schema - joined.schema;
        add_side(
            &mut sides[0],
            &one.positive_spans,
            one.whole_positive(),
            steps,
        );
        add_side(
            &mut sides[1],
            &one.negative_spans,
            one.whole_negative(),
            steps,
        );
    }
    let [positive_buckets, negative_buckets] = lay_out(sides, &mut joined);
    joined.set_integers(Integers {
        count: a.whole_count().saturating_add(b.whole_count()),
        zero_count: a.whole_zero_count().saturating_add(b.whole_zero_count()),
        positive_buckets,
        negative_buckets,
    });
    joined
}

fn join_floats(a: &Histogram, b: &Histogram, mut joined: Histogram) -> Histogram {
    let mut sides = [Side::new(), Side::new()];
    for one in [a, b] {
        let steps = one.schema - joined.schema;
        let [positive, negative] =
            [&one.positive_buckets, &one.negative_buckets].map(|buckets| buckets.iter().copied());
        add_side(&mut sides[0], &one.positive_spans, positive, steps);
        add_side(&mut sides[1], &one.negative_spans, negative, steps);
    }
    [joined.positive_buckets, joined.negative_buckets] = lay_out(sides, &mut joined);
    joined.zero_count = a.zero_count + b.zero_count;
    joined.count = a.count + b.count;
    joined
}

/// Adds buckets, in a schema lower by `steps`.
fn add_side<C: Count>(
    side: &mut Side<C>,
    spans: &[Span],
    counts: impl Iterator<Item = C>,
    steps: i32,
) {
    for (index, count) in indexed(spans, counts) {
        add_to(side, coarser(index, steps), count);
    }
}

fn add_to<C: Count>(side: &mut Side<C>, index: i64, count: C) {
    let sum = side.entry(index).or_default();
    *sum = sum.plus(count);
}

/// The counts of both sides, whose spans the histogram gets, and the schema that they came to.
fn lay_out<C: Count>(mut sides: [Side<C>; 2], joined: &mut Histogram) -> [Vec<C>; 2] {
    let is_wide = |side: &Side<C>| match (side.first_key_value(), side.last_key_value()) {
        (Some((first, _)), Some((last, _))) => last - first >= BUCKETS_MAX,
        _ => false,
    };
    while !joined.uses_custom_buckets() && joined.schema > SCHEMA_MIN && sides.iter().any(is_wide) {
        joined.schema -= 1;
        sides = sides.map(|side| halved(&side));
    }
    [joined.positive_spans, joined.negative_spans] = [spans_of(&sides[0]), spans_of(&sides[1])];
    sides.map(|side| side.into_values().collect())
}

/// The bucket of a schema lower by `steps` that holds this one: buckets are named by their ends.
fn coarser(index: i64, steps: i32) -> i64 {
    ((index - 1) >> steps.clamp(0, 62)) + 1
}

fn halved<C: Count>(side: &Side<C>) -> Side<C> {
    let mut joined = Side::new();
    for (index, count) in side {
        add_to(&mut joined, coarser(*index, 1), *count);
    }
    joined
}

fn spans_of<C>(side: &Side<C>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut next = 0i64;
    for &index in side.keys() {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(Span {
                offset: i32::try_from(index - next).expect("indexes came from spans"),
                length: 1,
            }),
        }
        next = index + 1;
    }
    spans
}

#[cfg(test)]
mod tests {
    use model::histogram::CUSTOM_SCHEMA;
    use model::sample::STALE_NAN;

    use super::*;

    fn exponential(schema: i32, first: i32, counts: &[f64]) -> Histogram {
        let total: f64 = counts.iter().sum();
        Histogram {
            is_integer: true,
            schema,
            zero_threshold: 1e-128,
            zero_count: 1.0,
            count: total + 1.0,
            sum: total,
            positive_spans: vec![Span {
                offset: first,
                length: counts.len() as u32,
            }],
            positive_buckets: counts.to_vec(),
            ..Histogram::default()
        }
    }

    fn custom(bounds: &[f64]) -> Histogram {
        Histogram {
            is_integer: true,
            schema: CUSTOM_SCHEMA,
            count: 2.0,
            sum: 1.5,
            positive_spans: vec![Span {
                offset: 0,
                length: 1,
            }],
            positive_buckets: vec![2.0],
            custom_values: bounds.to_vec(),
            ..Histogram::default()
        }
    }

    fn added(a: &Histogram, b: &Histogram) -> Histogram {
        let value = |h: &Histogram| Value::Histogram(canonical(h));
        let Value::Histogram(bytes) = add(&value(a), &value(b)) else {
            panic!("a histogram");
        };
        let sum = Histogram::decode(&bytes).unwrap();
        assert_eq!(sum.validate(), Ok(()));
        sum
    }

    fn buckets_of(sum: &Histogram) -> Vec<(i64, f64)> {
        indexed(&sum.positive_spans, sum.positive_buckets.iter().copied()).collect()
    }

    #[test]
    fn integers_add_up_to_what_is_no_float() {
        let large = |count: i64| {
            let mut histogram = exponential(0, 1, &[1.0, 1.0]);
            histogram.set_integers(Integers {
                count: 2 * count as u64,
                zero_count: 0,
                positive_buckets: vec![count, count],
                negative_buckets: Vec::new(),
            });
            histogram
        };
        let sum = added(&large(1 << 53), &large(1));
        assert!(sum.whole_positive().eq([(1 << 53) + 1; 2]));
        assert_eq!(sum.whole_count(), (1 << 54) + 2);
        let sum = added(&sum, &large(i64::MAX - 1));
        assert!(sum.whole_positive().eq([i64::MAX; 2]));
        assert_eq!(sum.whole_count(), u64::MAX);
    }

    #[test]
    fn floats_add_up_and_an_end_adds_nothing() {
        let float = |value: f64| Value::Float(value.to_bits());
        assert_eq!(add(&float(1.5), &float(2.0)), float(3.5));
        assert_eq!(add(&float(1.5), &float(STALE_NAN)), float(1.5));
        let histogram = Value::Histogram(canonical(&custom(&[1.0])));
        assert_eq!(add(&float(1.5), &histogram), histogram);
    }

    #[test]
    fn buckets_add_up_in_the_coarser_schema() {
        let sum = added(
            &exponential(1, 1, &[1.0, 2.0, 3.0]),
            &exponential(0, -1, &[5.0, 0.0, 7.0]),
        );
        // Of schema 1 the buckets 1, 2 and 3 lie in 1, 1 and 2 of schema 0.
        assert_eq!((sum.schema, sum.count, sum.zero_count), (0, 20.0, 2.0));
        let buckets = buckets_of(&sum);
        assert_eq!(buckets, [(-1, 5.0), (0, 0.0), (1, 10.0), (2, 3.0)]);
    }

    #[test]
    fn a_wide_sum_becomes_coarser() {
        let sum = added(&exponential(3, 1, &[1.0]), &exponential(3, 400, &[1.0]));
        assert_eq!(sum.schema, 1);
        let buckets = buckets_of(&sum);
        assert_eq!(buckets, [(1, 1.0), (100, 1.0)]);
    }

    #[test]
    fn what_does_not_fit_begins_anew() {
        let (one, two) = (custom(&[1.0]), custom(&[1.0, 2.0]));
        assert_eq!(added(&one, &two), two);
        assert_eq!(added(&one, &one).count, 4.0);
        let ended = Histogram {
            is_integer: true,
            sum: STALE_NAN,
            ..Histogram::default()
        };
        assert_eq!(added(&one, &ended), one);
        let exponential = exponential(0, 0, &[1.0]);
        assert_eq!(added(&one, &exponential), exponential);
    }
}
