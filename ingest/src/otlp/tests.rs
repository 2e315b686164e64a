//! Requests in JSON and the series they are, one a line.

use model::histogram::ResetHint;
use proptest::prelude::{any, prop, prop_assert_eq, proptest};

use super::*;

fn read_with(text: &str, settings: &Settings) -> (Vec<String>, Decoded) {
    let decoded = decode_json(text.as_bytes(), settings).unwrap();
    assert_eq!(decoded.batch.validate(), Ok(()));
    assert_eq!(decoded.points.len(), decoded.batch.rows.len());
    let rows = &decoded.batch.rows;
    let line = |row: usize| {
        let labels = &decoded.batch.series[rows.series[row] as usize];
        let value = match rows.histogram(row) {
            Some(h) if h.is_stale() => "stale".to_owned(),
            Some(h) => format!(
                "schema {} count {} sum {} zero {} {:?} {:?} | {:?} {:?} {:?}",
                h.schema,
                h.count,
                h.sum,
                h.zero_count,
                spans(&h.positive_spans),
                h.positive_buckets,
                spans(&h.negative_spans),
                h.negative_buckets,
                h.custom_values
            ),
            None if model::sample::is_stale(rows.values[row]) => "stale".to_owned(),
            None => rows.values[row].to_string(),
        };
        format!("{labels} {value} @{}", rows.timestamps[row].0)
    };
    let mut lines: Vec<String> = (0..rows.len()).map(line).collect();
    lines.sort();
    (lines, decoded)
}

fn spans(spans: &[model::histogram::Span]) -> Vec<(i32, u32)> {
    spans.iter().map(|s| (s.offset, s.length)).collect()
}

fn read(text: &str) -> Vec<String> {
    let (lines, decoded) = read_with(text, &Settings::default());
    assert_eq!((decoded.rejected, decoded.problems), (0, Vec::new()));
    lines
}

/// One metric of a resource with nothing but a name.
fn request(metric: &str) -> String {
    format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[
        {{"key":"service.name","value":{{"stringValue":"shop"}}}}]}},
        "scopeMetrics":[{{"scope":{{"name":"s","version":"1"}},"metrics":[{metric}]}}]}}]}}"#
    )
}

#[test]
fn numbers_are_series_and_counters_are_called_so() {
    let point = r#"{"attributes":[{"key":"a.b","value":{"stringValue":"x"}},{"key":"a_b","value":{"intValue":"7"}}],
        "timeUnixNano":"5000000","asInt":"3"}"#;
    let gauge = format!(r#"{{"name":"temp","unit":"Cel","gauge":{{"dataPoints":[{point}]}}}}"#);
    assert_eq!(
        read(&request(&gauge)),
        [r#"{__name__="temp_celsius", a_b="x;7", job="shop"} 3 @5"#]
    );
    let sum = r#"{"name":"http.requests","sum":{"aggregationTemporality":2,"isMonotonic":true,
        "dataPoints":[{"timeUnixNano":7000000,"asDouble":1.5},{"timeUnixNano":8999999,"flags":1}]}}"#;
    assert_eq!(
        read(&request(sum)),
        [
            r#"{__name__="http_requests_total", job="shop"} 1.5 @7"#,
            r#"{__name__="http_requests_total", job="shop"} stale @8"#,
        ]
    );
}

#[test]
fn what_a_resource_is_stands_in_target_info() {
    let attribute = |key: &str, value: &str| {
        format!(r#"{{"key":"{key}","value":{{"stringValue":"{value}"}}}}"#)
    };
    let attributes = [
        attribute("service.name", "shop"),
        attribute("service.namespace", "eu"),
        attribute("service.instance.id", "i1"),
        attribute("host.name", "h"),
    ];
    let text = format!(
        r#"{{"resourceMetrics":[{{"resource":{{"attributes":[{}]}},"scopeMetrics":[{{"scope":{{"name":"s","version":"1",
        "attributes":[{}]}},"metrics":[
        {{"name":"g","gauge":{{"dataPoints":[{{"timeUnixNano":"1000000","asInt":1}},{{"timeUnixNano":"400001000000","asInt":2}}]}}}}]}}]}}]}}"#,
        attributes.join(","),
        attribute("k", "v")
    );
    let own = r#"instance="i1", job="eu/shop"}"#;
    let target = format!(r#"{{__name__="target_info", host_name="h", {own} 1"#);
    let rows = |extra: &str, scope: &str| {
        vec![
            format!(r#"{{__name__="g"{extra}, {own}{scope} 1 @1"#),
            format!(r#"{{__name__="g"{extra}, {own}{scope} 2 @400001"#),
        ]
    };
    let infos = [1, 150_001, 300_001, 400_001].map(|at| format!("{target} @{at}"));
    let mut expected = rows("", "");
    expected.extend(infos.clone());
    expected.sort();
    assert_eq!(read(&text), expected);

    let settings = Settings {
        promote: Promote::AllBut(["service.name".to_owned()].into()),
        strategy: Strategy::NoTranslation,
        keep_identifying: true,
        promote_scope: true,
        ..Settings::default()
    };
    let (lines, _) = read_with(&text, &settings);
    assert_eq!(
        lines[0],
        r#"{__name__="g", "host.name"="h", instance="i1", job="eu/shop", otel_scope_k="v", otel_scope_name="s", otel_scope_version="1", "service.instance.id"="i1", "service.namespace"="eu"} 1 @1"#
    );
    assert_eq!(
        lines[2],
        r#"{__name__="target_info", "host.name"="h", instance="i1", job="eu/shop", "service.instance.id"="i1", "service.name"="shop", "service.namespace"="eu"} 1 @1"#
    );
}

const BUCKETS: &str = r#"{"name":"lat","unit":"s","histogram":{"aggregationTemporality":2,"dataPoints":[
    {"timeUnixNano":"1000000","count":"6","sum":2.5,"bucketCounts":["1","2","3"],"explicitBounds":[0.5,10],
     "exemplars":[{"timeUnixNano":"2000000","asDouble":3,"traceId":"0102030405060708090a0b0c0d0e0f10"}]}]}}"#;

#[test]
fn explicit_buckets_are_a_classic_histogram() {
    let (lines, decoded) = read_with(&request(BUCKETS), &Settings::default());
    assert_eq!(
        lines,
        [
            r#"{__name__="lat_seconds_bucket", job="shop", le="+Inf"} 6 @1"#,
            r#"{__name__="lat_seconds_bucket", job="shop", le="0.5"} 1 @1"#,
            r#"{__name__="lat_seconds_bucket", job="shop", le="10"} 3 @1"#,
            r#"{__name__="lat_seconds_count", job="shop"} 6 @1"#,
            r#"{__name__="lat_seconds_sum", job="shop"} 2.5 @1"#,
        ]
    );
    let [(series, exemplar)] = &decoded.batch.exemplars[..] else {
        panic!("{:?}", decoded.batch.exemplars);
    };
    let series = &decoded.batch.series[*series as usize];
    assert_eq!(series.get("le"), Some("10"));
    assert_eq!(
        exemplar.labels.to_string(),
        r#"{trace_id="0102030405060708090a0b0c0d0e0f10"}"#
    );
    assert_eq!(exemplar.timestamp, Timestamp(2));
}

#[test]
fn or_a_native_one() {
    let settings = Settings {
        convert_histograms: true,
        ..Settings::default()
    };
    let (lines, decoded) = read_with(&request(BUCKETS), &settings);
    assert_eq!(
        lines,
        [
            r#"{__name__="lat_seconds", job="shop"} schema -53 count 6 sum 2.5 zero 0 [(0, 3)] [1.0, 2.0, 3.0] | [] [] [0.5, 10.0] @1"#
        ]
    );
    assert_eq!(decoded.batch.exemplars.len(), 1);
}

#[test]
fn exponential_buckets_are_a_native_histogram() {
    let metric = |scale: i32| {
        format!(
            r#"{{"name":"e","exponentialHistogram":{{"aggregationTemporality":"AGGREGATION_TEMPORALITY_CUMULATIVE","dataPoints":[
            {{"timeUnixNano":"1000000","count":"16","sum":1,"scale":{scale},"zeroCount":"1",
              "positive":{{"offset":-3,"bucketCounts":["1","0","2","0","0","0","4"]}},
              "negative":{{"offset":1,"bucketCounts":["8"]}}}}]}}}}"#
        )
    };
    assert_eq!(
        read(&request(&metric(2))),
        [
            r#"{__name__="e", job="shop"} schema 2 count 16 sum 1 zero 1 [(-2, 3), (3, 1)] [1.0, 0.0, 2.0, 4.0] | [(2, 1)] [8.0] [] @1"#
        ]
    );
    // Two buckets become one: -3 and -2 the bucket -1, -1 and 0 ... by halves.
    assert_eq!(
        read(&request(&metric(9))),
        [
            r#"{__name__="e", job="shop"} schema 8 count 16 sum 1 zero 1 [(-1, 4)] [1.0, 2.0, 0.0, 4.0] | [(1, 1)] [8.0] [] @1"#
        ]
    );
    let (lines, decoded) = read_with(&request(&metric(-5)), &Settings::default());
    assert_eq!((lines.len(), decoded.rejected), (0, 1));
    assert!(
        decoded.problems[0].contains("scale -5"),
        "{:?}",
        decoded.problems
    );
}

#[test]
fn summaries_have_quantiles() {
    let metric = r#"{"name":"s","summary":{"dataPoints":[{"timeUnixNano":"1000000","count":3,"sum":4,
        "quantileValues":[{"quantile":0.5,"value":1},{"quantile":1,"value":"NaN"}]}]}}"#;
    assert_eq!(
        read(&request(metric)),
        [
            r#"{__name__="s", job="shop", quantile="0.5"} 1 @1"#,
            r#"{__name__="s", job="shop", quantile="1"} NaN @1"#,
            r#"{__name__="s_count", job="shop"} 3 @1"#,
            r#"{__name__="s_sum", job="shop"} 4 @1"#,
        ]
    );
}

#[test]
fn a_bad_data_point_takes_nothing_with_it() {
    let metrics = r#"{"name":"delta","sum":{"aggregationTemporality":1,"dataPoints":[{"asInt":1},{"asInt":2}]}},
        {"name":"???","gauge":{"dataPoints":[{"timeUnixNano":"1000000","asInt":1}]}},
        {"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"1000000","count":1,
          "attributes":[{"key":"le","value":{"stringValue":"x"}}]}]}},
        {"name":"good","gauge":{"dataPoints":[{"timeUnixNano":"1000000","asInt":1}]}}"#;
    let (lines, decoded) = read_with(&request(metrics), &Settings::default());
    assert_eq!(
        lines,
        [
            r#"{__name__="good", job="shop"} 1 @1"#,
            r#"{__name__="h_count", job="shop", le="x"} 1 @1"#,
        ]
    );
    assert_eq!(decoded.rejected, 4);
    assert_eq!(
        decoded.problems,
        [
            r#"metric "delta": invalid temporality and type combination"#,
            r#"metric "delta": invalid temporality and type combination"#,
            r#"metric "???": series {__name__="", job="shop"}: no metric name"#,
            r#"metric "h": series {__name__="h_bucket", job="shop", le="+Inf", le="x"}: label "le" given twice"#,
        ]
    );
    // What of a rejected point is stored is not counted again.
    let counted = decoded.points.iter().filter(|point| **point != NO_POINT);
    assert_eq!(counted.count(), 1);
}

#[test]
fn a_resource_may_not_fill_the_memory() {
    let long = "x".repeat(60_000);
    let point = r#"{"timeUnixNano":"1000000","asInt":1}"#;
    let points = vec![point; 5000].join(",");
    let metric = format!(r#"{{"name":"g","gauge":{{"dataPoints":[{points}]}}}}"#);
    let text = request(&metric).replace("\"shop\"", &format!("\"{long}\""));
    assert!(matches!(
        decode_json(text.as_bytes(), &Settings::default()),
        Err(OtlpError::TooMuch { .. })
    ));
    let attributes = vec![r#"{"key":"a"}"#; limits::OTLP_ATTRIBUTES_MAX].join(",");
    let many = request(&metric).replacen('[', &format!("[{{\"resource\":{{\"attributes\":[{attributes},{{\"key\":\"b\"}}]}},\"scopeMetrics\":[{{\"metrics\":[{metric}]}}]}},"), 1);
    let (_, decoded) = read_with(&many, &Settings::default());
    assert_eq!((decoded.rejected, decoded.batch.rows.len()), (5000, 5000));
    assert_eq!(decoded.problems.len(), limits::WRITE_PROBLEMS_MAX);
    assert!(decoded.problems[0].contains("a resource of 257 attributes"));
}

#[test]
fn bad_texts_name_the_field() {
    for (text, expected) in [
        ("[]", "the request: expected an object"),
        (
            r#"{"resourceMetrics":{}}"#,
            "resourceMetrics: expected a list",
        ),
        (
            r#"{"resource_metrics":[{"scope_metrics":[{"metrics":[{"gauge":{"dataPoints":[{"asInt":"x"}]}}]}]}]}"#,
            "asInt: expected a whole number",
        ),
        ("{", "EOF while parsing"),
    ] {
        let error = json::read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = decode(&bytes, &Settings::default());
        let _ = decode_json(&bytes, &Settings::default());
    }

    #[test]
    fn damaged_requests_never_panic(
        which in 0..3usize,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        convert_histograms in any::<bool>(),
    ) {
        let exponential = r#"{"name":"e","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[
            {"timeUnixNano":"1","count":"3","scale":20,"positive":{"offset":-3,"bucketCounts":["1","0","2"]}}]}}"#;
        let gauge = r#"{"name":"g","gauge":{"dataPoints":[{"timeUnixNano":"1","asInt":1,
            "attributes":[{"key":"a","value":{"arrayValue":{"values":[{"intValue":1}]}}}]}]}}"#;
        let text = request([BUCKETS, exponential, gauge][which]);
        let mut message = json::read(text.as_bytes()).unwrap().encode_to_vec();
        let at = at.index(message.len());
        message[at] = byte;
        let settings = Settings { convert_histograms, ..Settings::default() };
        if let Ok(decoded) = decode(&message, &settings) {
            prop_assert_eq!(decoded.batch.validate(), Ok(()));
            prop_assert_eq!(decoded.points.len(), decoded.batch.rows.len());
        }
    }
}

#[test]
fn what_metrics_say_of_themselves_is_gathered_under_the_name_of_their_series() {
    let metric = r#"{"name":"req","unit":"s","description":"Requests.","sum":{"isMonotonic":true,
        "aggregationTemporality":2,"dataPoints":[{"timeUnixNano":"5000000","asInt":"3"}]}},
        {"name":"refused","description":"Delta.","sum":{"aggregationTemporality":1,
        "dataPoints":[{"timeUnixNano":"5000000","asInt":"3"}]}},
        {"name":"lat","description":"Latency.","histogram":{"aggregationTemporality":2,
        "dataPoints":[]}}"#;
    let (_, decoded) = read_with(&request(metric), &Settings::default());
    let families = decoded.metadata.families().iter();
    let families: Vec<_> = families
        .map(|f| (f.name.as_str(), f.kind, f.help.as_str(), f.unit.as_str()))
        .collect();
    let counter = ("req_seconds_total", MetricKind::Counter, "Requests.", "s");
    let histogram = ("lat", MetricKind::Histogram, "Latency.", "");
    assert_eq!(families, [counter, histogram]);
}

#[test]
fn points_of_delta_temporality_are_rows_of_their_own_where_they_are_taken() {
    let metrics = r#"{"name":"sum","sum":{"isMonotonic":true,"aggregationTemporality":1,"dataPoints":[
        {"startTimeUnixNano":"1000000","timeUnixNano":"2000001","asInt":"3"}]}},
        {"name":"h","histogram":{"aggregationTemporality":1,"dataPoints":[
        {"startTimeUnixNano":"1000000","timeUnixNano":"2000000","count":"3","sum":4.5,"bucketCounts":["1","2"],"explicitBounds":[1]}]}},
        {"name":"x","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[
        {"timeUnixNano":"2000000","count":"1","sum":2,"scale":0,"positive":{"bucketCounts":["1"]}}]}},
        {"name":"unspecified","sum":{"dataPoints":[{"timeUnixNano":"2000000","asInt":"1"}]}},
        {"name":"g","gauge":{"dataPoints":[{"timeUnixNano":"2000000","asInt":"7"}]}}"#;
    let settings = Settings {
        adds_deltas: true,
        ..Settings::default()
    };
    let (lines, decoded) = read_with(&request(metrics), &settings);
    assert_eq!(lines, [r#"{__name__="g", job="shop"} 7 @2"#]);
    let why = r#"metric "unspecified": invalid temporality and type combination"#;
    assert_eq!(
        (decoded.rejected, &decoded.problems[..]),
        (1, &[why.to_owned()][..])
    );
    let deltas = &decoded.deltas;
    assert_eq!(deltas.validate(), Ok(()));
    let names = deltas.series.iter().map(|labels| labels.metric_name());
    let names: Vec<_> = names.collect();
    assert_eq!(
        names,
        ["sum_total", "h_sum", "h_count", "h_bucket", "h_bucket", "x"]
    );
    let span = |start_ns, end_ns| DeltaSpan { start_ns, end_ns };
    assert_eq!(deltas.deltas[0], span(1_000_000, 2_000_001));
    assert_eq!(deltas.deltas[1..5], [span(1_000_000, 2_000_000); 4]);
    assert_eq!(deltas.deltas[5], span(0, 2_000_000));
    assert_eq!(deltas.rows.values[..5], [3.0, 4.5, 3.0, 1.0, 3.0]);
    assert_eq!(decoded.delta_points, [0, 1, 1, 1, 1, 2]);
    assert!(deltas.rows.histogram(5).is_some());
}

/// As `otlp-native-delta-ingestion` has it: every form as it comes, of no type.
#[test]
fn or_they_stay_what_they_are() {
    let metrics = r#"{"name":"sum","description":"Some.","sum":{"isMonotonic":true,"aggregationTemporality":1,
        "dataPoints":[{"startTimeUnixNano":"1000000","timeUnixNano":"2000000","asInt":"3"},
        {"startTimeUnixNano":"2000000","timeUnixNano":"3000000","asInt":"2"}]}},
        {"name":"x","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[
        {"timeUnixNano":"2000000","count":"1","sum":2,"scale":0,"positive":{"bucketCounts":["1"]}}]}},
        {"name":"total","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[
        {"timeUnixNano":"2000000","count":"1","sum":2,"scale":0,"positive":{"bucketCounts":["1"]}}]}},
        {"name":"unspecified","sum":{"dataPoints":[{"timeUnixNano":"2000000","asInt":"1"}]}}"#;
    let settings = Settings {
        keeps_deltas: true,
        type_and_unit_labels: true,
        ..Settings::default()
    };
    let (lines, decoded) = read_with(&request(metrics), &settings);
    assert!(decoded.deltas.is_empty());
    assert_eq!(decoded.rejected, 1, "{:?}", decoded.problems);
    assert_eq!(
        lines,
        [
            r#"{__name__="sum_total", job="shop"} 2 @3"#,
            r#"{__name__="sum_total", job="shop"} 3 @2"#,
            r#"{__name__="total", __type__="histogram", job="shop"} schema 0 count 1 sum 2 zero 0 [(1, 1)] [1.0] | [] [] [] @2"#,
            r#"{__name__="x", job="shop"} schema 0 count 1 sum 2 zero 0 [(1, 1)] [1.0] | [] [] [] @2"#,
        ]
    );
    let rows = &decoded.batch.rows;
    let hints = (0..rows.len()).filter_map(|row| rows.histogram(row).map(|h| h.reset_hint));
    let hints: Vec<_> = hints.collect();
    assert_eq!(hints, [ResetHint::Gauge, ResetHint::Unknown]);
    let families = decoded.metadata.families().iter();
    let kinds: Vec<_> = families.map(|f| (f.name.as_str(), f.kind)).collect();
    assert!(
        kinds.contains(&("sum_total", MetricKind::Unknown)),
        "{kinds:?}"
    );
}

#[test]
fn type_and_unit_are_labels_where_they_are_wanted() {
    let settings = Settings {
        type_and_unit_labels: true,
        ..Settings::default()
    };
    let own = r#"{"attributes":[{"key":"__type__","value":{"stringValue":"own"}}],
        "timeUnixNano":"5000000","asInt":"3"}"#;
    let metrics = [
        format!(r#"{{"name":"speed","unit":"m/s","gauge":{{"dataPoints":[{own}]}}}}"#),
        format!(
            r#"{{"name":"done","sum":{{"aggregationTemporality":2,"isMonotonic":true,"dataPoints":[{own}]}}}}"#
        ),
        r#"{"name":"took","unit":"ms","summary":{"dataPoints":[{"timeUnixNano":"5000000","count":"3",
            "sum":4,"quantileValues":[{"quantile":0.5,"value":1}]}]}}"#
            .to_owned(),
    ];
    let (lines, decoded) = read_with(&request(&metrics.join(",")), &settings);
    assert_eq!(decoded.rejected, 0);
    assert_eq!(
        lines,
        [
            r#"{__name__="done_total", __type__="counter", job="shop"} 3 @5"#,
            r#"{__name__="speed_meters_per_second", __type__="gauge", __unit__="meters_per_second", job="shop"} 3 @5"#,
            r#"{__name__="took_milliseconds", __type__="summary", __unit__="milliseconds", job="shop", quantile="0.5"} 1 @5"#,
            r#"{__name__="took_milliseconds_count", __type__="summary", __unit__="milliseconds", job="shop"} 3 @5"#,
            r#"{__name__="took_milliseconds_sum", __type__="summary", __unit__="milliseconds", job="shop"} 4 @5"#,
        ]
    );
}
