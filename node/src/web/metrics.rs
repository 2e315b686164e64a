//! Requests counted and timed, under the names of Prometheus' web handlers.

use std::sync::Arc;

use axum::body::HttpBody;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use model::port::Clock;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// Built once per node; labelled with the routes there are, never with a path that was asked for.
#[derive(Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    bytes: HistogramVec,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let opts = HistogramOpts::new(format!("prometheus_http_{name}"), help);
            let made = HistogramVec::new(opts.buckets(buckets), &["handler"]);
            made.expect("names are constants")
        };
        let requests = Opts::new(
            "prometheus_http_requests_total",
            "Counter of HTTP requests.",
        );
        let requests = IntCounterVec::new(requests, &["code", "handler"]);
        Self {
            requests: requests.expect("names are constants"),
            seconds: histogram(
                "request_duration_seconds",
                "Histogram of latencies for HTTP requests.",
                vec![0.1, 0.2, 0.4, 1.0, 3.0, 8.0, 20.0, 60.0, 120.0],
            ),
            bytes: histogram(
                "response_size_bytes",
                "Histogram of response size for HTTP requests.",
                (2..10).map(|exponent| 10f64.powi(exponent)).collect(),
            ),
        }
    }
}

impl Metrics {
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.requests.clone()))?;
        registry.register(Box::new(self.seconds.clone()))?;
        registry.register(Box::new(self.bytes.clone()))
    }
}

/// What measuring needs.
#[derive(Clone)]
pub struct Measure {
    pub metrics: Metrics,
    pub clock: Arc<dyn Clock>,
    /// In front of every route, and no part of a handler's name.
    pub prefix: Arc<str>,
}

/// Measures until the head of the answer is there; the size is what is known of it then.
pub async fn measure(State(measure): State<Measure>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let handler = path.map_or_else(String::new, |path| handler(path.as_str(), &measure.prefix));
    let begin = measure.clock.monotonic();
    let response = next.run(request).await;
    let duration = measure.clock.monotonic().saturating_sub(begin);
    let metrics = &measure.metrics;
    let code = response.status();
    metrics
        .requests
        .with_label_values(&[code.as_str(), &handler])
        .inc();
    let of_handler = [handler.as_str()];
    metrics
        .seconds
        .with_label_values(&of_handler)
        .observe(duration.as_secs_f64());
    let bytes = response.body().size_hint().lower();
    metrics
        .bytes
        .with_label_values(&of_handler)
        .observe(bytes as f64);
    response
}

/// A route as Prometheus writes it: `/api/v1/label/:name/values`.
fn handler(route: &str, prefix: &str) -> String {
    let route = route.strip_prefix(prefix).unwrap_or(route);
    route.replace('{', ":").replace('}', "")
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::super::twin::Twin;
    use super::*;

    #[test]
    fn handlers_are_named_as_prometheus_names_them() {
        let route = "/p/api/v1/label/{name}/values";
        assert_eq!(handler(route, "/p"), "/api/v1/label/:name/values");
        assert_eq!(handler("/", ""), "/");
    }

    #[tokio::test]
    async fn requests_are_counted_by_route_and_code() {
        let twin = Twin::new();
        twin.get("/api/v1/query?query=1").await;
        twin.get("/api/v1/query").await;
        twin.get("/api/v1/label/job/values").await;
        twin.get("/nosuch").await;
        let registry = Registry::new();
        twin.http_metrics.register(&registry).unwrap();
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        for line in [
            "prometheus_http_requests_total{code=\"200\",handler=\"/api/v1/query\"} 1",
            "prometheus_http_requests_total{code=\"400\",handler=\"/api/v1/query\"} 1",
            "prometheus_http_requests_total{code=\"200\",handler=\"/api/v1/label/:name/values\"} 1",
            "prometheus_http_request_duration_seconds_count{handler=\"/api/v1/query\"} 2",
            "prometheus_http_response_size_bytes_bucket{handler=\"/api/v1/query\",le=\"1000\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        assert!(!text.contains("nosuch"), "{text}");
    }
}
