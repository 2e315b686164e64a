//! What is asked of a store whose series rest: every way to ask for series, drawn from tables of
//! selectors, labels and times.

use super::call::{Call, Matchers, selector};
use super::data::{BEGIN_MS, END_MS};
use super::question::{Asked, At};
use super::stages::{FAR_MS, HOUR_MS, LATER_MS, MIDDLE_MS};
use crate::splitmix::SplitMix64;

const ANY: (&str, &str, &str) = ("__name__", "=~", ".+");

/// Each has a matcher that an empty value does not meet.
const SELECTORS: &[Matchers] = &[
    &[ANY],
    &[("__name__", "=", "temp")],
    &[("__name__", "=", "odd")],
    &[("__name__", "=~", "temp|mem_bytes|odd_bucket")],
    &[("__name__", "!~", "onward|dur.*"), ("job", "=~", ".+")],
    &[("job", "=", "web")],
    &[("job", "!=", "api"), ANY],
    &[("job", "=~", "web|clock"), ("instance", "!=", "a")],
    &[("instance", "=", ""), ANY],
    &[("instance", "!~", "a|b"), ANY],
    &[("instance", "=~", "|a"), ANY],
    &[("instance", "=~", "(?i)[A-B]")],
    &[("v", "=~", ".*é.*|日本語|.*\\s.*")],
    &[("v", "!=", "")],
    &[("case", "!~", "falls|"), ("le", "!=", "2")],
    &[("le", "=~", ".+"), ("le", "!~", "0.*")],
    &[("le", "=", "+Inf")],
    &[("nothing", "=", ""), ("job", "=", "api")],
    &[("nothing", "=~", ".+")],
    &[("__name__", "=", "nothing")],
    &[("zone", "=~", ".*"), ("__name__", "=", "flap")],
    &[("http.method", "=", "GET")],
    &[("__name__", "=", "onward"), ("n", "=~", "1.|7")],
    &[("__name__", "=", "newcomer")],
    &[("__name__", "=~", "lat.*|mixed")],
    &[
        ("job", "=", "api"),
        ("instance", "=", "b"),
        ("code", "!=", ""),
    ],
];

/// Exemplars of these are in every store.
const WITH_EXEMPLARS: &[Matchers] = &[
    &[("__name__", "=", "dur_bucket")],
    &[("__name__", "=", "dur_bucket"), ("job", "!=", "api")],
    &[("__name__", "=", "dur_bucket"), ("le", "=~", "0.1|1")],
];

/// As they stand in a path.
const LABELS: &[&str] = &[
    "__name__",
    "job",
    "instance",
    "v",
    "le",
    "n",
    "zone",
    "code",
    "region",
    "nothing",
    "U__http_2e_method",
];

/// Names and values of labels are those of the blocks that a range meets.
pub const RANGES: &[(i64, i64)] = &[
    (BEGIN_MS, END_MS),
    (BEGIN_MS, MIDDLE_MS - HOUR_MS / 2),
    (MIDDLE_MS - HOUR_MS / 2, MIDDLE_MS + HOUR_MS / 2),
    (MIDDLE_MS + HOUR_MS / 2, END_MS),
    (BEGIN_MS, FAR_MS),
    (MIDDLE_MS + HOUR_MS, LATER_MS),
    (BEGIN_MS - 99 * HOUR_MS, BEGIN_MS - 50 * HOUR_MS),
    (FAR_MS + 50 * HOUR_MS, FAR_MS + 99 * HOUR_MS),
    (END_MS, BEGIN_MS),
];
/// They meet the same whether or not blocks of twelve hours have become one; nor do they lie between samples
/// of a series, which only a chunk that ends there tells.
pub const WIDE_RANGES: &[(i64, i64)] = &[
    (BEGIN_MS, MIDDLE_MS - HOUR_MS / 2),
    (BEGIN_MS, FAR_MS),
    (MIDDLE_MS + HOUR_MS, FAR_MS),
    (FAR_MS - 60_000, FAR_MS),
    (BEGIN_MS - 99 * HOUR_MS, BEGIN_MS - 50 * HOUR_MS),
    (FAR_MS + 50 * HOUR_MS, FAR_MS + 99 * HOUR_MS),
    (END_MS, BEGIN_MS),
];

/// What an expression does with a selector.
const EXPRESSIONS: &[&str] = &[
    "S",
    "count(S)",
    "count by (__name__, job) (S)",
    "absent(S)",
    "absent_over_time(S[7m])",
    "present_over_time(S[3h])",
    "topk(3, S)",
    "bottomk by (job) (2, S)",
    "sum by (job) (rate(S[10m]))",
    "last_over_time(S[20h])",
    "count by (__name__) (last_over_time(S[8h] offset 1h))",
    "quantile by (instance) (0.5, S)",
    "S offset 6h",
    "S offset -1h",
    "S @ 1700007200",
    "S @ start()",
    "S[15m]",
    "S[40m:10m]",
    "count_values(\"x\", S)",
    "group without (instance) (S)",
    "S unless on (job) {__name__=\"onward\"}",
    "S and on (job, instance) temp",
    "timestamp(S)",
    "max_over_time(S[1h:10m])",
    "changes(S[2h])",
    "histogram_quantile(0.9, sum by (le, job) (rate(S[10m])))",
    "label_replace(S, \"x\", \"$1\", \"instance\", \"(.)\")",
    "sort_by_label(S, \"job\", \"instance\")",
    "count(S) or vector(-1)",
    "delta(S[13h])",
    "info(S)",
];

const INSTANTS: &[i64] = &[
    BEGIN_MS + 10 * 60_000,
    MIDDLE_MS,
    END_MS - 60_000,
    END_MS,
    END_MS + 4 * 60_000,
    END_MS + 20 * 60_000,
    MIDDLE_MS + 3 * HOUR_MS,
    LATER_MS,
    LATER_MS + 5 * 60_000,
    FAR_MS,
    FAR_MS + 60_000,
];

/// First, last, step.
const STEPS: &[(i64, i64, i64)] = &[
    (BEGIN_MS, END_MS, 10 * 60_000),
    (END_MS - 10 * 60_000, END_MS + 10 * 60_000, 60_000),
    (MIDDLE_MS - 6 * 60_000, MIDDLE_MS + 6 * 60_000, 45_000),
    (BEGIN_MS, FAR_MS, 40 * 60_000),
    (END_MS, LATER_MS, 20 * 60_000),
    (LATER_MS - 60_000, LATER_MS + 6 * 60_000, 30_000),
];

const PROTOBUF: &[(&str, &str)] = &[(
    "accept",
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
)];

/// Draws calls; a seed's are always the same.
pub struct Calls {
    dice: SplitMix64,
    /// The next of [`EXPRESSIONS`].
    next: usize,
}

impl Calls {
    pub fn new(seed: u64) -> Self {
        Self {
            dice: SplitMix64::new(seed ^ 0x4e57),
            next: 0,
        }
    }

    /// Of labels and series in one of these ranges, `count` of each kind.
    pub fn of_labels(&mut self, count: usize, ranges: &[(i64, i64)]) -> Vec<Call> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(Call::get("/api/v1/labels", &self.chosen(70, ranges), &[]));
            let path = format!("/api/v1/label/{}/values", self.pick(LABELS));
            all.push(Call::get(&path, &self.chosen(70, ranges), &[]));
            all.push(Call::get("/api/v1/series", &self.chosen(100, ranges), &[]));
        }
        all
    }

    /// Of `/federate`, remote reads and exemplars.
    pub fn of_samples(&mut self, count: usize) -> Vec<Call> {
        let mut all = Vec::new();
        for nth in 0..count {
            let matches = self.matches();
            let headers = if nth % 3 == 2 { PROTOBUF } else { &[] };
            all.push(Call::get("/federate", &matches, headers));
            let (start_ms, end_ms) = self.pick(RANGES);
            let matchers = self.pick(SELECTORS);
            all.push(Call::read(matchers, start_ms, end_ms, nth % 2 == 1));
            let query = selector(self.pick(WITH_EXEMPLARS));
            let (start_ms, end_ms) = self.pick(RANGES);
            let parameters = [
                ("query", query),
                ("start", seconds(start_ms)),
                ("end", seconds(end_ms)),
            ];
            all.push(Call::get("/api/v1/query_exemplars", &parameters, &[]));
        }
        all
    }

    pub fn of_queries(&mut self, count: usize) -> Vec<Call> {
        (0..count).map(|_| self.query()).collect()
    }

    fn query(&mut self) -> Call {
        let expression = EXPRESSIONS[self.next % EXPRESSIONS.len()];
        self.next += 1;
        let query = expression.replace('S', &selector(self.pick(SELECTORS)));
        let is_matrix = expression.ends_with(']');
        let at = match is_matrix || self.dice.chance(60) {
            true => At::Instant(self.pick(INSTANTS)),
            false => {
                let (start_ms, end_ms, step_ms) = self.pick(STEPS);
                At::Range {
                    start_ms,
                    end_ms,
                    step_ms,
                }
            }
        };
        let asked = Asked {
            query,
            at,
            ordered: false,
        };
        match self.dice.chance(20) {
            true => Call::far_query(&asked),
            false => Call::query(&asked),
        }
    }

    /// Selectors and a range, or one of them, or none.
    fn chosen(&mut self, percent: u64, ranges: &[(i64, i64)]) -> Vec<(&'static str, String)> {
        let mut parameters = match self.dice.chance(percent) {
            true => self.matches(),
            false => Vec::new(),
        };
        if self.dice.chance(70) {
            let (start_ms, end_ms) = self.pick(ranges);
            parameters.push(("start", seconds(start_ms)));
            parameters.push(("end", seconds(end_ms)));
        }
        parameters
    }

    fn matches(&mut self) -> Vec<(&'static str, String)> {
        let count = 1 + u64::from(self.dice.chance(20));
        let one = |_| ("match[]", selector(self.pick(SELECTORS)));
        (0..count).map(one).collect()
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.dice.between(0, from.len() as u64) as usize]
    }
}

/// What is deleted in the end: series that are there, that rest and that came back, whole and in part.
pub fn deletions() -> Vec<Call> {
    let path = "/api/v1/admin/tsdb/delete_series";
    let delete = |matchers: Matchers, range: Option<(i64, i64)>| {
        let mut parameters = vec![("match[]", selector(matchers))];
        if let Some((start_ms, end_ms)) = range {
            parameters.push(("start", seconds(start_ms)));
            parameters.push(("end", seconds(end_ms)));
        }
        Call::order(path, &parameters)
    };
    vec![
        delete(&[("__name__", "=", "odd")], None),
        delete(&[("job", "=", "web")], Some((BEGIN_MS, MIDDLE_MS))),
        delete(
            &[("__name__", "=", "temp"), ("instance", "=~", "a|b")],
            Some((END_MS - HOUR_MS, LATER_MS)),
        ),
        delete(
            &[("le", "=~", "1|2"), ("case", "!=", "")],
            Some((BEGIN_MS - 1, END_MS + 1)),
        ),
        delete(&[("__name__", "=", "newcomer"), ("n", "!=", "2")], None),
    ]
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_one_list_of_calls() {
        let all = |seed| {
            let mut calls = Calls::new(seed);
            let mut all = calls.of_labels(10, RANGES);
            all.extend(calls.of_samples(10));
            all.extend(calls.of_queries(31));
            all
        };
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        assert_eq!(all(1).len(), 91);
    }

    #[test]
    fn every_expression_is_asked() {
        let calls = Calls::new(1).of_queries(EXPRESSIONS.len());
        for name in ["absent_over_time(", "topk(", "offset -1h", "[40m:10m]"] {
            assert!(calls.iter().any(|call| call.line.contains(name)), "{name}");
        }
    }

    #[test]
    fn seconds_have_three_digits() {
        assert_eq!(seconds(1_005), "1.005");
        assert!(
            deletions()
                .iter()
                .all(|call| call.path.contains("match%5B%5D="))
        );
    }
}
