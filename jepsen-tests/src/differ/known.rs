//! Where the two may differ, each with its reason. Whatever is here is counted and told, not
//! failed; an entry that nothing needs any more should go.

use super::answer::{Answer, Outcome, Row, Sample};
use super::question::{Asked, At};

pub struct Known {
    pub name: &'static str,
    pub reason: &'static str,
    /// Given the question, and Prometheus' answer and ours.
    applies: fn(&Asked, &Answer, &Answer) -> bool,
}

pub const KNOWN: &[Known] = &[
    Known {
        name: "reference-crash",
        reason: "Prometheus 3.5.3 panics inside its engine and answers with the runtime's error; \
                 there is no right answer to compare with",
        applies: |_, reference, _| match &reference.outcome {
            Outcome::Error { text, .. } => text.contains("runtime error"),
            Outcome::Data { .. } => false,
        },
    },
    Known {
        name: "not-yet",
        reason: "quorate itself says that it does not support this yet",
        applies: |_, _, own| match &own.outcome {
            Outcome::Error { text, .. } => text.ends_with("is not supported yet"),
            Outcome::Data { .. } => false,
        },
    },
    Known {
        name: "tie",
        reason: "which of several equal values topk and bottomk take hangs on the order in which \
                 Prometheus' head met the series; quorate goes by labels",
        applies: |asked, reference, own| {
            (asked.query.contains("topk") || asked.query.contains("bottomk"))
                && same_rows(reference, own, values_of)
        },
    },
    Known {
        name: "limitk",
        reason: "limitk takes the first series in the order in which Prometheus' head met them; \
                 how many there are must agree, where no set is made of them",
        applies: |asked, reference, own| {
            let is_set = [" unless ", " and "]
                .iter()
                .any(|name| asked.query.contains(name));
            asked.query.contains("limitk") && (is_set || same_rows(reference, own, |_| Vec::new()))
        },
    },
    Known {
        name: "last-digit-label",
        reason: "count_values makes a label of all digits, and the last one of a logarithm, a power \
                 or an angle is Go's own library's",
        applies: |asked, reference, own| {
            asked.query.contains("count_values") && same_rows(reference, own, rounded_labels)
        },
    },
    Known {
        name: "info-range",
        reason: "over several steps, of a range or a subquery, Prometheus finds the info series of a \
                 series by its place among those of the first step, and so another's once one comes \
                 or goes; instants must agree",
        applies: |asked, _, _| {
            let has_steps = matches!(asked.at, At::Range { .. }) || asked.query.contains(':');
            asked.query.contains("info(") && has_steps
        },
    },
    Known {
        name: "counts-alone",
        reason: "below histogram_count, histogram_sum and histogram_avg inside anything else Prometheus \
                 reads no buckets: bounds that do not fit are added up, and a gauge was reset only where \
                 its count fell",
        applies: |asked, _, _| {
            let names = ["histogram_count(", "histogram_sum(", "histogram_avg("];
            let inside = |name: &&str| asked.query.rfind(*name).is_some_and(|at| at > 0);
            let shows = ["latg", "latc", "mixed"]
                .iter()
                .any(|m| asked.query.contains(m));
            shows && names.iter().any(inside)
        },
    },
    Known {
        name: "empty-buckets",
        reason: "Prometheus reads all histograms of a chunk with the same buckets, so one has empty ones that \
                 others of its chunk count in: infinity times nothing, how far the zero bucket reaches, whether \
                 a gauge was reset, and the same histogram in two chunks is a change",
        applies: |asked, reference, own| {
            let is_native = ["lat", "mixed"].iter().any(|m| asked.query.contains(m));
            is_native && same_points(reference, own, |a, b| differ_by_nothing(&asked.query, a, b))
        },
    },
    Known {
        name: "subnormal",
        reason: "Go's assembly for amd64 takes no logarithm of a subnormal number right; on other \
                 machines Prometheus answers as quorate does",
        applies: |asked, reference, own| {
            let takes_logarithm = ["ln(", "log10("]
                .iter()
                .any(|name| asked.query.contains(name));
            takes_logarithm
                && ["special", "e-31", "e-32"]
                    .iter()
                    .any(|tiny| asked.query.contains(tiny))
                && same_rows(reference, own, |row| vec![format!("{:?}", row.labels)])
        },
    },
    Known {
        name: "magnified",
        reason: "the rest of a division by something tiny, and an angle many turns long, are made of the last \
                 digits alone, and those of a logarithm, a power or an angle are Go's own library's",
        applies: |asked, reference, own| {
            let of_library = [
                "sin", "cos", "tan", "ln(", "log", "exp(", "^", "sqrt", "atan2",
            ];
            // The aggregations add up in the order of series.
            let adds_up = ["stdvar(", "stddev(", "sum(", "avg("];
            let is_angle = ["sin(", "cos(", "tan("]
                .iter()
                .any(|name| asked.query.contains(name))
                && adds_up.iter().any(|name| asked.query.contains(name));
            (is_angle || asked.query.contains(" % "))
                && of_library.iter().any(|name| asked.query.contains(name))
                && same_rows(reference, own, |row| vec![format!("{:?}", row.labels)])
        },
    },
];

/// Found by asking again; see `instants`.
pub static RANGE: Known = Known {
    name: "range",
    reason: "Prometheus' range query says something else than its own instant queries, which say what \
             quorate says: it joins info series by their place once one has gone, and histograms that \
             windows share are overwritten",
    applies: |_, _, _| false,
};

/// The reason why this difference is none, if there is one.
pub fn known(asked: &Asked, reference: &Answer, own: &Answer) -> Option<&'static Known> {
    let mut all = KNOWN.iter();
    all.find(|known| (known.applies)(asked, reference, own))
}

/// Both have as many series, and `of` makes the same of them in some order.
fn same_rows(a: &Answer, b: &Answer, of: fn(&Row) -> Vec<String>) -> bool {
    let (Outcome::Data { rows: a, .. }, Outcome::Data { rows: b, .. }) = (&a.outcome, &b.outcome)
    else {
        return false;
    };
    let sorted = |rows: &[Row]| {
        // Point by point: over a range one series may take another's place at any step.
        let mut all: Vec<String> = rows.iter().flat_map(of).collect();
        all.sort();
        all
    };
    let counts = |rows: &[Row]| rows.iter().map(|row| row.points.len()).sum::<usize>();
    counts(a) == counts(b) && sorted(a) == sorted(b)
}

/// Both have the same series at the same instants, and `are_alike` holds for all their samples.
fn same_points(a: &Answer, b: &Answer, are_alike: impl Fn(&Sample, &Sample) -> bool) -> bool {
    let (Outcome::Data { rows: a, .. }, Outcome::Data { rows: b, .. }) = (&a.outcome, &b.outcome)
    else {
        return false;
    };
    let mut sorted: Vec<(&Row, &Row)> = Vec::new();
    for row in a {
        let Some(other) = b.iter().find(|other| other.labels == row.labels) else {
            return false;
        };
        sorted.push((row, other));
    }
    a.len() == b.len()
        && sorted.iter().all(|(a, b)| {
            let both = a.points.iter().zip(&b.points);
            a.points.len() == b.points.len()
                && both
                    .into_iter()
                    .all(|(a, b)| a.0 == b.0 && are_alike(&a.1, &b.1))
        })
}

/// Whether two samples, Prometheus' and ours, are what buckets of nothing make of one.
fn differ_by_nothing(query: &str, reference: &Sample, own: &Sample) -> bool {
    let same = |a: &f64, b: &f64| a == b || a.is_nan() && b.is_nan();
    match (reference, own) {
        (
            Sample::Histogram(count, sum, buckets),
            Sample::Histogram(own_count, own_sum, own_buckets),
        ) => {
            let counted = |buckets: &[[f64; 4]]| {
                let buckets = buckets.iter().filter(|bucket| !bucket[3].is_nan());
                buckets
                    .map(|bucket| format!("{bucket:?}"))
                    .collect::<Vec<_>>()
            };
            // Whether a gauge was reset is told of the bucket behind the last one that counts; and one
            // that counts less than nothing behind an empty one is a reset.
            let sees_resets = ["rate(", "increase("]
                .iter()
                .any(|name| query.contains(name));
            let is_gauge = query.contains("latg") || *count < 0.0 && *own_count < 0.0;
            sees_resets && is_gauge
                || same(count, own_count)
                    && same(sum, own_sum)
                    && counted(buckets) == counted(own_buckets)
        }
        (Sample::Float(reference), Sample::Float(own)) if !same(reference, own) => {
            // No change of theirs is missed, and none is far from zero that lies in its bucket.
            let is_change =
                query.contains("changes(") && reference.fract() == 0.0 && reference > own;
            let in_zero = |value: &f64| value.abs() <= ZERO_BUCKET_MAX;
            let is_reset = query.contains("resets(latg")
                && reference.fract() == 0.0
                && (reference - own).abs() <= 2.0;
            is_change
                || is_reset
                || query.contains("histogram_quantile(") && in_zero(reference) && in_zero(own)
        }
        (reference, own) => rounded(reference) == rounded(own),
    }
}

/// As far as the zero buckets of the data reach.
const ZERO_BUCKET_MAX: f64 = 0.6;

fn values_of(row: &Row) -> Vec<String> {
    let points = row.points.iter();
    points
        .map(|(at_ms, sample)| format!("{at_ms} {}", rounded(sample)))
        .collect()
}

fn rounded(sample: &Sample) -> String {
    match sample {
        Sample::Float(value) => format!("{value:.9e}"),
        other => format!("{other:?}"),
    }
}

fn rounded_labels(row: &Row) -> Vec<String> {
    let labels = row
        .labels
        .iter()
        .map(|(name, value)| match value.parse::<f64>() {
            Ok(number) => format!("{name}={number:.9e}"),
            Err(_) => format!("{name}={value}"),
        });
    let mut all = labels.collect::<Vec<_>>().join(",");
    for value in values_of(row) {
        all.push_str(&value);
    }
    vec![all]
}

#[cfg(test)]
mod tests {
    use super::super::question::At;
    use super::*;

    fn answer(rows: &[(&str, &str)]) -> Answer {
        let rows: Vec<String> = rows
            .iter()
            .map(|(label, value)| {
                format!(r#"{{"metric":{{"a":"{label}"}},"value":[1,"{value}"]}}"#)
            })
            .collect();
        let rows = rows.join(",");
        let text =
            format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{rows}]}}}}"#);
        Answer::read(200, text.as_bytes()).unwrap()
    }

    fn name(query: &str, a: &[(&str, &str)], b: &[(&str, &str)]) -> Option<&'static str> {
        let asked = Asked {
            query: query.to_owned(),
            at: At::Instant(0),
            ordered: false,
        };
        known(&asked, &answer(a), &answer(b)).map(|known| known.name)
    }

    #[test]
    fn ties_are_equal_values_of_other_series() {
        let (a, b) = ([("x", "1"), ("y", "2")], [("z", "2"), ("x", "1")]);
        assert_eq!(name("topk(2, v)", &a, &b), Some("tie"));
        assert_eq!(name("max(v)", &a, &b), None);
        assert_eq!(name("topk(2, v)", &a, &[("x", "1"), ("y", "3")]), None);
        assert_eq!(name("topk(2, v)", &a, &a[..1]), None);
    }

    #[test]
    fn what_empty_buckets_make_is_known_of_natives_only() {
        let (a, b) = ([("x", "7"), ("y", "2")], [("x", "6"), ("y", "2")]);
        assert_eq!(name("changes(lat[5m])", &a, &b), Some("empty-buckets"));
        assert_eq!(name("changes(lat[5m])", &b, &a), None);
        assert_eq!(name("changes(temp[5m])", &a, &b), None);
        assert_eq!(name("resets(lat[5m])", &a, &b), None);
        let (a, b) = ([("x", "0"), ("y", "2")], [("x", "-0.5"), ("y", "2")]);
        let query = "histogram_quantile(0, lat)";
        assert_eq!(name(query, &a, &b), Some("empty-buckets"));
        assert_eq!(name(query, &a, &[("x", "-1"), ("y", "2")]), None);
        assert_eq!(name(query, &a, &b[..1]), None);
        let (a, b) = ([("x", "49"), ("y", "2")], [("x", "50"), ("y", "2")]);
        assert_eq!(name("resets(latg[5m])", &a, &b), Some("empty-buckets"));
        assert_eq!(name("resets(lat[5m])", &a, &b), None);
        let (a, b) = ([("x", "0"), ("y", "NaN")], [("x", "-0.5"), ("y", "NaN")]);
        assert_eq!(name(query, &a, &b), Some("empty-buckets"));
        assert_eq!(name(query, &a, &[("x", "0"), ("y", "0.1")]), None);
    }

    #[test]
    fn labels_may_differ_in_the_last_digit_only() {
        let query = "count_values(\"a\", ln(v))";
        let near = name(query, &[("0.30000000000000004", "1")], &[("0.3", "1")]);
        assert_eq!(near, Some("last-digit-label"));
        assert_eq!(name(query, &[("0.3", "1")], &[("0.31", "1")]), None);
        assert_eq!(name(query, &[("0.3", "1")], &[("0.3", "2")]), None);
    }
}
