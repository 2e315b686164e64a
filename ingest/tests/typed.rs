//! Scrapes of jobs whose series carry type and unit. What is expected was stored by Prometheus 3.5.3
//! with `--enable-feature=type-and-unit-labels` for the same bodies.

use std::sync::Arc;
use std::time::Duration;

use ingest::scrape::{Fetched, Histograms, MetadataCell, Scrape, ScrapeJob, Target};
use model::{Labels, Timestamp};

const TEXT: &str = "text/plain; version=0.0.4";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0";

/// What the series of a body are called, without the target's own.
fn series(histograms: Histograms, content_type: &str, body: &str) -> Vec<String> {
    let job = ScrapeJob {
        type_and_unit_labels: true,
        histograms,
        ..ScrapeJob::new("j")
    };
    let found = Labels::from_pairs([("__address__", "h:1"), ("__type__", "target's")]);
    let target = Target::from_discovered(&found, &job).unwrap().unwrap();
    let mut scrape = Scrape::new(Arc::new(target), MetadataCell::default());
    let fetched = Fetched {
        content_type: content_type.to_owned(),
        body: body.to_owned().into(),
    };
    let ingested = scrape.ingest(Timestamp(0), Duration::ZERO, Ok(fetched));
    assert_eq!(ingested.error, None);
    let mut series: Vec<String> = Vec::new();
    for labels in &ingested.batch.series {
        let mut own = labels.to_builder();
        own.retain(|name, _| name != "job" && name != "instance");
        let name = labels.metric_name();
        if name == "up" || name.starts_with("scrape_") {
            assert_eq!(labels.get("__type__"), None, "{labels}");
        } else {
            series.push(own.build().to_string());
        }
    }
    series.sort();
    series
}

#[test]
fn text_knows_types() {
    let body = "# TYPE a_total counter\n\
        a_total{x=\"1\"} 1\n\
        a_total{x=\"2\",__type__=\"gauge\"} 1\n\
        a_total{x=\"3\",__unit__=\"own\"} 1\n\
        behind_a 2\n\
        # TYPE u untyped\n\
        u{__type__=\"mine\",__unit__=\"mu\"} 1\n\
        # TYPE h histogram\n\
        h_bucket{le=\"1\"} 1\n\
        h_bucket{le=\"+Inf\"} 1\n\
        h_sum 1\n\
        h_count 1\n";
    assert_eq!(
        series(Histograms::default(), TEXT, body),
        [
            r#"{__name__="a_total", __type__="counter", __unit__="own", x="3"}"#,
            r#"{__name__="a_total", __type__="counter", x="1"}"#,
            r#"{__name__="a_total", __type__="counter", x="2"}"#,
            r#"{__name__="behind_a", __type__="counter"}"#,
            r#"{__name__="h_bucket", __type__="histogram", le="+Inf"}"#,
            r#"{__name__="h_bucket", __type__="histogram", le="1.0"}"#,
            r#"{__name__="h_count", __type__="histogram"}"#,
            r#"{__name__="h_sum", __type__="histogram"}"#,
            r#"{__name__="u", __type__="mine", __unit__="mu"}"#,
        ]
    );
}

/// The unit said last holds until another is said, whichever family it was said of.
const UNITS: &str = "# TYPE a_seconds counter\n\
    # UNIT a_seconds seconds\n\
    a_seconds_total{x=\"1\"} 1\n\
    # UNIT g_bytes bytes\n\
    # TYPE g_bytes gauge\n\
    g_bytes{__type__=\"counter\",__unit__=\"own\"} 1\n\
    # TYPE st stateset\n\
    st{st=\"a\"} 1\n\
    # TYPE h_seconds histogram\n\
    # UNIT h_seconds seconds\n\
    h_seconds_bucket{le=\"1.0\"} 1\n\
    h_seconds_bucket{le=\"+Inf\"} 1\n\
    h_seconds_sum 1\n\
    h_seconds_count 1\n\
    # TYPE u unknown\n\
    # UNIT u_bytes bytes\n\
    u{__type__=\"x\",__unit__=\"y\"} 1\n\
    # EOF\n";

#[test]
fn open_metrics_knows_units_too() {
    assert_eq!(
        series(Histograms::default(), OPEN_METRICS, UNITS),
        [
            r#"{__name__="a_seconds_total", __type__="counter", __unit__="seconds", x="1"}"#,
            r#"{__name__="g_bytes", __type__="gauge", __unit__="bytes"}"#,
            r#"{__name__="h_seconds_bucket", __type__="histogram", __unit__="seconds", le="+Inf"}"#,
            r#"{__name__="h_seconds_bucket", __type__="histogram", __unit__="seconds", le="1.0"}"#,
            r#"{__name__="h_seconds_count", __type__="histogram", __unit__="seconds"}"#,
            r#"{__name__="h_seconds_sum", __type__="histogram", __unit__="seconds"}"#,
            r#"{__name__="st", __type__="stateset", __unit__="bytes", st="a"}"#,
            r#"{__name__="u", __type__="x", __unit__="bytes"}"#,
        ]
    );
}

#[test]
fn a_converted_histogram_has_what_its_series_had() {
    let converts = Histograms {
        native: true,
        convert_classic: true,
        ..Histograms::default()
    };
    let found = series(converts, OPEN_METRICS, UNITS);
    let histogram = r#"{__name__="h_seconds", __type__="histogram", __unit__="seconds"}"#;
    assert!(found.contains(&histogram.to_owned()), "{found:?}");
}
