//! The bombs: what each is, and how it is asked.

use jepsen_tests::differ::question::escaped;

/// Name and query; those that are asked as a range say over how many seconds in which step.
pub struct Bomb {
    pub name: &'static str,
    pub query: String,
    pub range: Option<(i64, &'static str)>,
}

fn instant(name: &'static str, query: impl Into<String>) -> Bomb {
    Bomb {
        name,
        query: query.into(),
        range: None,
    }
}

fn range(name: &'static str, query: impl Into<String>, span_s: i64, step: &'static str) -> Bomb {
    Bomb {
        name,
        query: query.into(),
        range: Some((span_s, step)),
    }
}

/// `open` so many times, then `core`, then as many times `close`.
fn nested(open: &str, core: &str, close: &str, times: usize) -> String {
    [&open.repeat(times), core, &close.repeat(times)].concat()
}

pub fn bombs() -> Vec<Bomb> {
    let names: Vec<String> = (0..6_000).map(|n| format!("pod-{n:05}")).collect();
    vec![
        instant("parentheses, 20,000 deep", nested("(", "1", ")", 20_000)),
        instant("abs, 10,000 deep", nested("abs(", "up", ")", 10_000)),
        instant(
            "sums, 100 deep",
            nested("sum(", "{__name__=~\".+\"}", ")", 100),
        ),
        instant("minus, 50,000 times", nested("-", "1", "", 50_000)),
        instant(
            "1 + 1 + ..., 10,000 times",
            format!("1{}", "+1".repeat(10_000)),
        ),
        range("10^9 steps", "up", 1_000_000, "0.001"),
        range(
            "11,000 steps of everything",
            "{__name__=~\".+\"}",
            10_900,
            "1",
        ),
        range(
            "11,000 steps of all rates",
            "rate({__name__=~\".+\"}[1h])",
            10_900,
            "1",
        ),
        instant(
            "2.6 * 10^9 subquery steps",
            "count_over_time(vector(1)[30d:1ms])",
        ),
        instant(
            "3.6 * 10^6 subquery steps of a metric",
            "sum_over_time(up[1h:1ms])",
        ),
        instant(
            "nested subqueries of everything",
            "max_over_time(avg_over_time(rate({__name__=~\".+\"}[5m])[1h:10s])[1h:10s])",
        ),
        range(
            "sorted windows of everything",
            "quantile_over_time(0.5, {__name__=~\".+\"}[1h])",
            3_600,
            "15",
        ),
        instant(
            "regex of 6,000 words",
            format!("up{{pod=~\"{}\"}}", names.join("|")),
        ),
        instant(
            "regex of repetitions",
            "up{pod=~\"((((a{0,100}){0,100}){0,100}){0,100})\"}",
        ),
        instant(
            "regex with a large table",
            "up{pod=~\"(.*.*.*.*.*.*.*.*.*x){50}\"}",
        ),
        instant(
            "regex nested 1,000 deep",
            format!("up{{pod=~\"{}\"}}", nested("(", "a", ")", 1_000)),
        ),
        instant(
            "cross join",
            "{__name__=~\"http_.+|node_.+\"} * on (job) group_left () {__name__=~\"http_.+|node_.+\"}",
        ),
        range(
            "everything and everything",
            "{__name__=~\".+\"} and on () {__name__=~\".+\"}",
            3_600,
            "15",
        ),
        instant(
            "everything counted by value",
            "count_values(\"x\", {__name__=~\".+\"})",
        ),
        range(
            "labels rewritten at every step",
            "label_replace({__name__=~\".+\"}, \"x\", \"$1$1$1$1\", \"pod\", \"(.*)\")",
            3_600,
            "15",
        ),
        range(
            "topk of everything",
            "topk(100000, {__name__=~\".+\"})",
            3_600,
            "15",
        ),
    ]
}

impl Bomb {
    /// The form to post; evaluation ends at `end_s`.
    pub fn form(&self, end_s: i64, timeout_s: u64) -> String {
        let query = escaped(&self.query);
        match self.range {
            None => format!("query={query}&time={end_s}&timeout={timeout_s}s"),
            Some((span_s, step)) => format!(
                "query={query}&start={}&end={end_s}&step={step}&timeout={timeout_s}s",
                end_s - span_s
            ),
        }
    }

    pub fn path(&self) -> &'static str {
        match self.range {
            None => "/api/v1/query",
            Some(_) => "/api/v1/query_range",
        }
    }
}
