//! What keeps a histogram from being stored, in the words of Prometheus 3.5.
//!
//! Promise: what passes satisfies [`Histogram::validate`], and what Prometheus refuses is refused.
//! Beyond it, schemas and bounds that Prometheus 3.5 takes unseen (a schema it does not know, a
//! bound that is NaN) are refused too: nothing could be computed from them.

use model::Histogram;
use model::histogram::{SCHEMA_MAX, SCHEMA_MIN, Span};

/// The first thing wrong with the histogram.
pub fn check(histogram: &Histogram) -> Result<(), String> {
    match histogram.uses_custom_buckets() {
        true => check_custom(histogram).map_err(|e| format!("custom buckets: {e}"))?,
        false => check_exponential(histogram)?,
    }
    check_buckets(histogram, Side::Positive)?;
    if histogram.is_integer {
        check_count(histogram)?;
    }
    histogram.validate().map_err(|e| e.to_string())
}

fn check_exponential(histogram: &Histogram) -> Result<(), String> {
    if !(SCHEMA_MIN..=SCHEMA_MAX).contains(&histogram.schema) {
        return Err(format!(
            "histogram has the schema {}, which must be {SCHEMA_MIN} to {SCHEMA_MAX} or -53",
            histogram.schema
        ));
    }
    let sides = [
        (
            &histogram.positive_spans,
            &histogram.positive_buckets,
            "positive",
        ),
        (
            &histogram.negative_spans,
            &histogram.negative_buckets,
            "negative",
        ),
    ];
    for (spans, buckets, side) in sides {
        let offsets = spans.iter().enumerate().skip(1);
        check_spans(spans, offsets, buckets.len()).map_err(|e| format!("{side} side: {e}"))?;
    }
    check_buckets(histogram, Side::Negative)?;
    if !histogram.custom_values.is_empty() {
        return Err("histogram with exponential schema must not have custom bounds".to_owned());
    }
    Ok(())
}

fn check_custom(histogram: &Histogram) -> Result<(), String> {
    let bounds = &histogram.custom_values;
    check_bounds(bounds)?;
    let spans = &histogram.positive_spans;
    let buckets = histogram.positive_buckets.len();
    check_spans(spans, spans.iter().enumerate(), buckets)?;
    let lengths = spans
        .iter()
        .map(|s| i64::from(s.length) + i64::from(s.offset));
    let covered: i64 = lengths.sum();
    if (bounds.len() as i64) + 1 < covered {
        return Err(format!(
            "only {} custom bounds defined which is insufficient to cover total span length of \
             {covered}: histogram custom bounds are too few",
            bounds.len()
        ));
    }
    let refused = [
        (histogram.zero_count != 0.0, "must have zero count of 0"),
        (
            histogram.zero_threshold != 0.0,
            "must have zero threshold of 0",
        ),
        (
            !histogram.negative_spans.is_empty(),
            "must not have negative spans",
        ),
        (
            !histogram.negative_buckets.is_empty(),
            "must not have negative buckets",
        ),
    ];
    match refused.into_iter().find(|(wrong, _)| *wrong) {
        Some((_, text)) => Err(text.to_owned()),
        None => Ok(()),
    }
}

fn check_bounds(bounds: &[f64]) -> Result<(), String> {
    let mut previous = f64::NEG_INFINITY;
    for &bound in bounds {
        if bound <= previous {
            return Err(format!(
                "previous bound is {} and current is {}: \
                 histogram custom bounds must be in strictly increasing order",
                six_digits(previous),
                six_digits(bound)
            ));
        }
        previous = bound;
    }
    if previous == f64::INFINITY {
        return Err("last +Inf bound must not be explicitly defined: \
                    histogram custom bounds must be finite"
            .to_owned());
    }
    Ok(())
}

fn check_spans<'a>(
    spans: &[Span],
    offsets: impl Iterator<Item = (usize, &'a Span)>,
    buckets: usize,
) -> Result<(), String> {
    for (at, span) in offsets {
        if span.offset < 0 {
            return Err(format!(
                "span number {} with offset {}: histogram has a span whose offset is negative",
                at + 1,
                span.offset
            ));
        }
    }
    let described: u64 = spans.iter().map(|s| u64::from(s.length)).sum();
    if described != buckets as u64 {
        return Err(format!(
            "spans need {described} buckets, have {buckets} buckets: \
             histogram spans specify different number of buckets than provided"
        ));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Side {
    Positive,
    Negative,
}

fn check_buckets(histogram: &Histogram, side: Side) -> Result<(), String> {
    let (name, buckets) = match side {
        Side::Positive => ("positive", &histogram.positive_buckets),
        Side::Negative => ("negative", &histogram.negative_buckets),
    };
    let Some(at) = buckets.iter().position(|count| *count < 0.0) else {
        return Ok(());
    };
    let whole = match side {
        _ if histogram.integers.is_none() => None,
        Side::Positive => histogram.whole_positive().nth(at),
        Side::Negative => histogram.whole_negative().nth(at),
    };
    let count = whole.map_or_else(|| buckets[at].to_string(), |count| count.to_string());
    Err(format!(
        "{name} side: bucket number {} has observation count of {count}: \
         histogram has a bucket whose observation count is negative",
        at + 1,
    ))
}

/// Of an integer histogram. Prometheus' sum of the buckets wraps, and so does this one.
fn check_count(histogram: &Histogram) -> Result<(), String> {
    let buckets = histogram.whole_positive().chain(histogram.whole_negative());
    let zero_count = histogram.whole_zero_count();
    let found = buckets.fold(zero_count, |sum, count| sum.wrapping_add(count as u64));
    let count = histogram.whole_count();
    let (wrong, rule, absence) = match histogram.sum.is_nan() {
        true => (
            found > count,
            "be at least the number of observations found",
            "",
        ),
        false => (
            found != count,
            "equal the number of observations found",
            " (in absence of NaN)",
        ),
    };
    if wrong {
        return Err(format!(
            "{found} observations found in buckets, but the Count field is {count}: \
             histogram's observation count should {rule} in the buckets{absence}"
        ));
    }
    Ok(())
}

/// As Go's `%f` writes it.
fn six_digits(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => format!("{value:.6}"),
    }
}

#[cfg(test)]
mod tests {
    use model::histogram::{CUSTOM_SCHEMA, Integers};

    use super::*;

    fn span(offset: i32, length: u32) -> Span {
        Span { offset, length }
    }

    fn good() -> Histogram {
        Histogram {
            is_integer: true,
            count: 6.0,
            sum: 3.0,
            zero_threshold: 0.001,
            zero_count: 1.0,
            positive_spans: vec![span(0, 2)],
            positive_buckets: vec![2.0, 3.0],
            ..Histogram::default()
        }
    }

    fn custom(bounds: &[f64]) -> Histogram {
        Histogram {
            schema: CUSTOM_SCHEMA,
            count: 5.0,
            zero_threshold: 0.0,
            zero_count: 0.0,
            custom_values: bounds.to_vec(),
            ..good()
        }
    }

    /// What Prometheus 3.5.3's receiver answered to these, with 500 for each.
    #[test]
    fn refusals_are_worded_as_in_prometheus() {
        let cases = [
            (
                Histogram {
                    count: 5.0,
                    ..good()
                },
                "6 observations found in buckets, but the Count field is 5: histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)",
            ),
            (
                Histogram {
                    count: 5.0,
                    sum: f64::NAN,
                    ..good()
                },
                "6 observations found in buckets, but the Count field is 5: histogram's observation count should be at least the number of observations found in the buckets",
            ),
            (
                Histogram {
                    positive_buckets: vec![2.0, -3.5],
                    ..good()
                },
                "positive side: bucket number 2 has observation count of -3.5: histogram has a bucket whose observation count is negative",
            ),
            (
                Histogram {
                    negative_spans: vec![span(0, 3)],
                    ..good()
                },
                "negative side: spans need 3 buckets, have 0 buckets: histogram spans specify different number of buckets than provided",
            ),
            (
                Histogram {
                    positive_spans: vec![span(0, 1), span(-1, 1)],
                    ..good()
                },
                "positive side: span number 2 with offset -1: histogram has a span whose offset is negative",
            ),
            (
                Histogram {
                    custom_values: vec![2.0],
                    ..good()
                },
                "histogram with exponential schema must not have custom bounds",
            ),
            (
                Histogram {
                    positive_spans: vec![span(1, 2)],
                    ..custom(&[1.0])
                },
                "custom buckets: only 1 custom bounds defined which is insufficient to cover total span length of 3: histogram custom bounds are too few",
            ),
            (
                custom(&[2.0, 1.0]),
                "custom buckets: previous bound is 2.000000 and current is 1.000000: histogram custom bounds must be in strictly increasing order",
            ),
            (
                custom(&[2.0, f64::INFINITY]),
                "custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must be finite",
            ),
            (
                custom(&[f64::NEG_INFINITY, 3.0]),
                "custom buckets: previous bound is -Inf and current is -Inf: histogram custom bounds must be in strictly increasing order",
            ),
            (
                Histogram {
                    zero_count: 1.0,
                    ..custom(&[1.0, 2.0])
                },
                "custom buckets: must have zero count of 0",
            ),
            (
                Histogram {
                    negative_buckets: vec![1.0],
                    ..custom(&[1.0, 2.0])
                },
                "custom buckets: must not have negative buckets",
            ),
            (
                Histogram {
                    positive_spans: vec![span(-1, 2)],
                    ..custom(&[1.0, 2.0])
                },
                "custom buckets: span number 1 with offset -1: histogram has a span whose offset is negative",
            ),
        ];
        for (histogram, text) in cases {
            assert_eq!(check(&histogram), Err(text.to_owned()));
        }
    }

    #[test]
    fn integers_that_floats_cannot_tell_are_compared_as_integers() {
        let large = (1 << 53) + 1;
        let of = |count, bucket| {
            let mut histogram = good();
            histogram.set_integers(Integers {
                count,
                zero_count: 1,
                positive_buckets: vec![bucket; 2],
                negative_buckets: Vec::new(),
            });
            histogram
        };
        let found = 2 * large as u64 + 1;
        assert_eq!(check(&of(found, large)), Ok(()));
        let text = check(&of(found - 1, large)).unwrap_err();
        let expected = "18014398509481987 observations found in buckets, but the Count field is 18014398509481986:";
        assert!(text.starts_with(expected), "{text}");
        assert!(check(&of(3 * large as u64, large)).is_err());
        assert_eq!(check(&of(u64::MAX, i64::MAX)), Ok(()));
        let text = check(&of(u64::MAX, -large)).unwrap_err();
        let expected = "positive side: bucket number 1 has observation count of -9007199254740993:";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn what_prometheus_takes_is_taken() {
        let gauge = Histogram {
            is_integer: false,
            count: -5.5,
            zero_count: -1.0,
            ..good()
        };
        let nan = Histogram {
            sum: f64::NAN,
            count: 9.0,
            ..good()
        };
        for histogram in [good(), gauge, nan, custom(&[1.0, 2.0])] {
            assert_eq!(check(&histogram), Ok(()), "{histogram:?}");
        }
        assert!(check(&custom(&[1.0, f64::NAN])).is_err());
        assert!(
            check(&Histogram {
                schema: 53,
                ..good()
            })
            .is_err()
        );
    }
}
