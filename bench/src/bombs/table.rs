//! The bombs: what each is, and how it is asked.

use bytes::Bytes;
use jepsen_tests::differ::question::escaped;
use prost::Message;
use proto::remote::label_matcher::Type;
use proto::remote::{LabelMatcher, Query, ReadRequest};

/// Something that asks for too much.
pub struct Bomb {
    pub name: &'static str,
    ask: Ask,
}

enum Ask {
    Instant(String),
    /// Over so many seconds in which step.
    Range(String, i64, &'static str),
    /// Names and values, posted there.
    Form(&'static str, Vec<(&'static str, String)>),
    /// Remote read of all that matches, so many times in one request, as samples.
    Read(&'static str, usize),
}

/// A bomb as it is posted.
pub struct Posted {
    pub path: &'static str,
    pub content_type: &'static str,
    pub body: Bytes,
}

fn instant(name: &'static str, query: impl Into<String>) -> Bomb {
    let ask = Ask::Instant(query.into());
    Bomb { name, ask }
}

fn range(name: &'static str, query: impl Into<String>, span_s: i64, step: &'static str) -> Bomb {
    let ask = Ask::Range(query.into(), span_s, step);
    Bomb { name, ask }
}

fn form(name: &'static str, path: &'static str, pairs: Vec<(&'static str, String)>) -> Bomb {
    let ask = Ask::Form(path, pairs);
    Bomb { name, ask }
}

/// `open` so many times, then `core`, then as many times `close`.
fn nested(open: &str, core: &str, close: &str, times: usize) -> String {
    [&open.repeat(times), core, &close.repeat(times)].concat()
}

pub fn bombs() -> Vec<Bomb> {
    let names: Vec<String> = (0..6_000).map(|n| format!("pod-{n:05}")).collect();
    let long = [
        nested("sum(a + ", "b", ")", 30),
        format!(" + rate(x{{a=\"{}\"}}[5m])", "b".repeat(300)).repeat(180),
    ]
    .concat();
    let one = "up{instance=\"10.0.0.1:9100\"}";
    let rate = |minutes| {
        format!("sum without (pod) (rate(http_request_duration_seconds_bucket[{minutes}m]))")
    };
    let rates: Vec<String> = (5..45).map(rate).collect();
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
        range(
            "11,000 steps of a quarter of everything",
            "{__name__=~\"http_requests_total|up\"}",
            10_900,
            "1",
        ),
        range(
            "11,000 steps of sums with a number",
            "http_request_duration_seconds_bucket + 1",
            10_900,
            "1",
        ),
        instant(
            "4.6 * 10^7 subquery steps of a number",
            "sum_over_time(vector(time() ^ 2 + time())[13h:1ms])",
        ),
        instant(
            "4.6 * 10^7 subquery steps of a constant",
            "count_over_time(vector(1)[13h:1ms])",
        ),
        instant(
            "one window of 1.1 * 10^7 samples, sorted",
            "quantile_over_time(0.5, vector(time() % 1000)[3h:1ms])",
        ),
        instant(
            "1.1 * 10^7 subquery steps of a deviation",
            format!("stddev_over_time(stddev({one})[3h:1ms])"),
        ),
        instant(
            "1.1 * 10^7 subquery steps of a histogram",
            format!(
                "max_over_time(histogram_quantile(0.5, label_replace({one}, \"le\", \"1\", \"\", \"\"))[3h:1ms])"
            ),
        ),
        range("rates over 40 ranges", rates.join(" or "), 3_600, "15"),
        instant(
            "3.6 * 10^6 subquery steps of few series",
            "quantile_over_time(0.5, up{instance=~\"10.0.0.[0-5]:9100\"}[1h:1ms])",
        ),
        instant(
            "3.6 * 10^6 subquery steps of a join",
            "max_over_time((node_load1{instance=~\"10.0.0.[0-2]:9100\"} * on (instance) up)[1h:1ms])",
        ),
        instant(
            "sorted subqueries",
            "sort(quantile_over_time(0.5, http_request_duration_seconds_bucket[1h:1s]))",
        ),
        instant(
            "long labels",
            format!(
                "label_replace({{__name__=~\".+\"}}, \"x\", \"{}\", \"pod\", \"(.*)\")",
                "$1".repeat(4_000)
            ),
        ),
        instant(
            "labels that double",
            nested(
                "label_join(",
                "{__name__=~\".+\"}",
                ", \"pod\", \"\", \"pod\", \"pod\")",
                12,
            ),
        ),
        range(
            "everything counted by value at every step",
            "count_values(\"x\", {__name__=~\".+\"})",
            3_600,
            "15",
        ),
        range(
            "everything or everything, 100 times",
            vec!["{__name__=~\".+\"}"; 100].join(" or "),
            3_600,
            "15",
        ),
        range("topk of 10^9", "topk(1e9, {__name__=~\".+\"})", 3_600, "15"),
        range(
            "large fan-out",
            "http_request_duration_seconds_bucket * on (instance) group_left () up",
            3_600,
            "15",
        ),
        form(
            "series of everything, 1,000 times",
            "/api/v1/series",
            vec![("match[]", "{__name__=~\".+\"}".to_owned()); 1_000],
        ),
        form(
            "labels of everything, 1,000 times",
            "/api/v1/labels",
            vec![("match[]", "{pod=~\".+-.+\"}".to_owned()); 1_000],
        ),
        form(
            "exemplars of everything",
            "/api/v1/query_exemplars",
            vec![("query", vec!["{__name__=~\".+\"}"; 500].join(" or "))],
        ),
        form(
            "a long expression laid out",
            "/api/v1/format_query",
            vec![("query", long.clone())],
        ),
        form(
            "a long expression as a tree",
            "/api/v1/parse_query",
            vec![("query", long)],
        ),
        Bomb {
            name: "everything read remotely",
            ask: Ask::Read(".+", 1),
        },
        Bomb {
            name: "everything read remotely, 60 times",
            ask: Ask::Read(".+", 60),
        },
    ]
}

impl Bomb {
    /// What to post; evaluation ends at `end_s`.
    pub fn post(&self, end_s: i64, timeout_s: u64) -> Posted {
        let timeout = ("timeout", format!("{timeout_s}s"));
        let (path, pairs) = match &self.ask {
            Ask::Instant(query) => (
                "/api/v1/query",
                vec![
                    ("query", query.clone()),
                    ("time", end_s.to_string()),
                    timeout,
                ],
            ),
            Ask::Range(query, span_s, step) => (
                "/api/v1/query_range",
                vec![
                    ("query", query.clone()),
                    ("start", (end_s - span_s).to_string()),
                    ("end", end_s.to_string()),
                    ("step", (*step).to_owned()),
                    timeout,
                ],
            ),
            Ask::Form(path, pairs) => (*path, pairs.clone()),
            Ask::Read(names, times) => return read(names, *times, end_s),
        };
        let pairs: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
            .collect();
        Posted {
            path,
            content_type: "application/x-www-form-urlencoded",
            body: pairs.join("&").into(),
        }
    }
}

/// Remote read of the hour before `end_s`, the same query so many times.
fn read(names: &str, times: usize, end_s: i64) -> Posted {
    let matcher = LabelMatcher {
        r#type: Type::Re.into(),
        name: "__name__".into(),
        value: names.to_owned(),
    };
    let query = Query {
        start_timestamp_ms: (end_s - 3_600) * 1_000,
        end_timestamp_ms: end_s * 1_000,
        matchers: vec![matcher],
        ..Query::default()
    };
    let request = ReadRequest {
        queries: vec![query; times],
        ..ReadRequest::default()
    };
    let packed = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec());
    Posted {
        path: "/api/v1/read",
        content_type: "application/x-protobuf",
        body: packed.expect("a short text is packed").into(),
    }
}
