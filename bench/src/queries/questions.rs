//! What dashboards and alerts ask, as requests.

use jepsen_tests::differ::question::escaped;

use super::options::Shape;
use super::population::instance;
use crate::shape::INTERVAL_MS;

/// How a question is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Instant,
    Range,
    Both,
    /// The text is a path of the metadata API, to which the times are added.
    Metadata,
}

use How::{Both, Instant, Metadata, Range};

/// Name, query, how it is asked. ONE stands for an instance.
const QUESTIONS: &[(&str, &str, How)] = &[
    ("one series", "node_load1{instance=\"ONE\"}", Both),
    ("a selector", "node_load1", Instant),
    (
        "sum by job of rates",
        "sum by (job) (rate(http_requests_total[5m]))",
        Both,
    ),
    (
        "quantile of a histogram",
        "histogram_quantile(0.99, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))",
        Both,
    ),
    (
        "quantiles of one job's histograms",
        "histogram_quantile(0.9, sum by (instance, le) (rate(http_request_duration_seconds_bucket{job=\"job-1\"}[5m])))",
        Instant,
    ),
    (
        "topk",
        "topk(10, sum by (pod) (rate(container_cpu_usage_seconds_total[5m])))",
        Instant,
    ),
    (
        "avg_over_time",
        "avg by (job) (avg_over_time(node_load1[10m]))",
        Both,
    ),
    (
        "max by",
        "max by (namespace) (container_memory_working_set_bytes)",
        Both,
    ),
    (
        "group_left",
        "sum by (node) (container_memory_working_set_bytes * on (instance) group_left (node) kube_pod_info)",
        Both,
    ),
    (
        "quantile_over_time",
        "max by (job) (quantile_over_time(0.9, node_load1[10m]))",
        Both,
    ),
    ("count by", "count by (code) (http_requests_total)", Both),
    (
        "regular expressions",
        "sum(rate(http_requests_total{code=~\"5..\",pod=~\"web-1.*\"}[5m]))",
        Both,
    ),
    (
        "error ratio",
        "sum by (job) (rate(http_requests_total{code=~\"5..\"}[5m])) / sum by (job) (rate(http_requests_total[5m]))",
        Range,
    ),
    (
        "subquery",
        "max_over_time(sum(rate(http_requests_total[5m]))[30m:1m])",
        Instant,
    ),
    ("absent", "absent(up{job=\"nothing\"})", Both),
    (
        "cpu in use",
        "1 - avg by (namespace) (rate(node_cpu_seconds_total{mode=\"idle\"}[5m]))",
        Range,
    ),
    (
        "increase of an hour",
        "sum(increase(http_requests_total[1h]))",
        Instant,
    ),
    ("count of what is up", "count(up == 1)", Both),
    (
        "stddev",
        "stddev by (job) (node_memory_MemAvailable_bytes)",
        Range,
    ),
    (
        "one target's panel",
        "rate(container_cpu_usage_seconds_total{instance=\"ONE\"}[5m])",
        Range,
    ),
    ("label values", "/api/v1/label/pod/values?", Metadata),
    (
        "label values of a metric",
        "/api/v1/label/instance/values?match[]=node_load1&",
        Metadata,
    ),
    (
        "label names",
        "/api/v1/labels?match[]=http_requests_total&",
        Metadata,
    ),
    ("series", "/api/v1/series?match[]=up&", Metadata),
];

/// One request, ready to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub name: String,
    pub path: String,
    pub is_metadata: bool,
    /// Which series are in the answer hangs on the last digits.
    pub is_choice: bool,
    /// The figure of bytes between nodes is told of this one.
    pub is_distributed_sum: bool,
}

/// All questions about data of `shape` that ends at `end_ms`.
pub fn questions(shape: Shape, end_ms: i64) -> Vec<Question> {
    let mut all = Vec::new();
    for (name, text, how) in QUESTIONS {
        let query = text.replace("ONE", &instance(7));
        let mut add = |suffix: &str, path: String| {
            all.push(Question {
                name: format!("{name}{suffix}"),
                path,
                is_metadata: *how == Metadata,
                is_choice: *name == "topk",
                is_distributed_sum: *name == "sum by job of rates",
            });
        };
        if *how == Metadata {
            let start_s = (end_ms - i64::from(shape.samples) * INTERVAL_MS) / 1000;
            add("", format!("{text}start={start_s}&end={}", end_ms / 1000));
        }
        if matches!(how, Instant | Both) {
            add("", instant(&query, end_ms));
        }
        if matches!(how, Range | Both) {
            let (steps, step_ms) = steps(shape);
            add(
                &format!(", {steps} steps"),
                range(&query, end_ms, steps, step_ms),
            );
        }
    }
    all
}

pub fn instant(query: &str, end_ms: i64) -> String {
    format!(
        "/api/v1/query?query={}&time={}&nocache=1",
        escaped(query),
        end_ms / 1000
    )
}

/// As a panel asks: a day in steps of 6 minutes, the last 50 minutes of an hour in steps of 30 s.
/// A window of ten minutes before the first step lies within the data: at the edge Prometheus
/// extrapolates and VictoriaMetrics does not.
fn steps(shape: Shape) -> (i64, i64) {
    let span_ms = i64::from(shape.samples) * INTERVAL_MS;
    match span_ms > 6 * 3_600_000 {
        true => (238, 360_000),
        false => (100, 30_000),
    }
}

fn range(query: &str, end_ms: i64, steps: i64, step_ms: i64) -> String {
    let start_ms = end_ms - (steps - 1) * step_ms;
    format!(
        "/api/v1/query_range?query={}&start={}&end={}&step={}&nocache=1",
        escaped(query),
        start_ms / 1000,
        end_ms / 1000,
        step_ms / 1000
    )
}
