//! The same query over the same series, however they lie on shards.
//!
//! With shards the answer must be the same to the last bit for any number of them, and what one
//! place computes from all series to within rounding.

#[path = "scripts/memory.rs"]
mod memory;
#[path = "scripts/sharded.rs"]
mod sharded;

use std::sync::Arc;
use std::time::Duration;

use memory::Memory;
use model::histogram::Span;
use model::port::Clock;
use model::source::Source;
use model::{Histogram, Labels, Timestamp};
use promql::{Engine, EngineOptions, QueryError, QueryParams, QueryResult, Value};
use sharded::Shards;

struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// Counters, gauges and oddities: 60 samples 15 s apart, each value a function of its place.
fn data() -> Memory {
    let mut memory = Memory::default();
    for name in ["requests_total", "temperature", "odd"] {
        for series in 0..40_i64 {
            let labels = Labels::from_pairs([
                ("__name__", name.to_owned()),
                ("job", format!("j{}", series % 3)),
                ("instance", format!("i{series}")),
            ]);
            for sample in 0..60_i64 {
                let dice = model::hash::xxh3(series as u64, &sample.to_le_bytes());
                let value = match name {
                    "requests_total" => (sample % 47 * (series + 1)) as f64 * 0.1,
                    "temperature" => (dice % 2_000_003) as f64 / 977.0 - 900.0,
                    _ => [0.0, -0.0, f64::NAN, 1e-300, 1e280, -1e280, 3.5][dice as usize % 7],
                };
                if !dice.is_multiple_of(11) {
                    memory.add(&labels, sample * 15_000, value);
                }
            }
        }
    }
    for series in 0..10_i64 {
        let labels = Labels::from_pairs([
            ("__name__", "latency".to_owned()),
            ("job", format!("j{}", series % 3)),
            ("instance", format!("i{series}")),
        ]);
        for sample in 0..60_i64 {
            let histogram = growing(series, sample);
            memory.add_histogram(&labels, sample * 15_000, Arc::new(histogram));
        }
    }
    memory
}

/// A native histogram of two buckets; the schema is another for some series.
fn growing(series: i64, sample: i64) -> Histogram {
    let (low, high) = ((sample * series) as f64, sample as f64 * 0.5);
    Histogram {
        schema: (series % 2) as i32,
        count: low + high,
        sum: (sample * 7) as f64 * 0.1,
        positive_spans: vec![Span {
            offset: 1,
            length: 2,
        }],
        positive_buckets: vec![low, high],
        ..Histogram::default()
    }
}

const QUERIES: [&str; 38] = [
    "sum(requests_total)",
    "sum by (job) (rate(requests_total[2m]))",
    "avg by (job) (rate(requests_total[2m]))",
    "avg without (instance) (temperature)",
    "sum(odd)",
    "avg by (job) (odd)",
    "min by (job) (odd)",
    "max by (job) (odd)",
    "count by (job) (temperature > 0)",
    "group by (job) (temperature)",
    "stddev by (job) (temperature)",
    "quantile by (job) (0.7, rate(requests_total[2m]))",
    "topk by (job) (2, rate(requests_total[2m]))",
    "sum(rate({job=\"j1\"}[2m]))",
    "sum(last_over_time({job=\"j1\"}[2m]))",
    "rate(requests_total[2m])",
    "-temperature",
    "temperature * 2 + 1",
    "abs(temperature) > bool 3",
    "sum(temperature) / count(temperature)",
    "sum by (job) (rate(requests_total[2m])) / on (job) group_left sum by (job) (temperature)",
    "max_over_time(sum(temperature)[3m:30s])",
    "sum_over_time(rate(requests_total[2m])[3m:30s])",
    "sum(sum_over_time(temperature[2m:20s]))",
    "sum(temperature @ end())",
    "sum(temperature offset 1m)",
    "temperature - on (job, instance) requests_total",
    "sum by (job) (timestamp(temperature))",
    "sum(clamp(temperature, 0, scalar(sum(requests_total))))",
    "rate(latency[2m])",
    "sum by (job) (rate(latency[2m]))",
    "avg(latency)",
    "histogram_quantile(0.9, sum by (job) (rate(latency[2m])))",
    "histogram_count(latency) / 3",
    "sum({job=\"j1\"})",
    "Inf == year({__name__=~\"requests_total|temperature\"})",
    "-rate({__name__=~\"requests_total|temperature\"}[2m])",
    "count_values(\"v\", round(temperature, 500))",
];

/// A value, and what it took: samples held at most, and read for each instant.
type Answer = (Value, (u64, Vec<(Timestamp, u64)>));

async fn ask(source: &dyn Source, query: &str, is_range: bool) -> Result<Answer, QueryError> {
    let engine = Engine::new(EngineOptions::default(), Arc::new(Still));
    let params = QueryParams::default();
    let (start, end) = (Timestamp(300_000), Timestamp(800_000));
    let result = match is_range {
        true => {
            let step = Duration::from_secs(50);
            engine.range(source, query, start, end, step, &params).await
        }
        false => engine.instant(source, query, end, &params).await,
    };
    result.map(|result| {
        let stats = result.stats;
        (result.value, (stats.samples_peak, stats.samples_read_at))
    })
}

/// Labels and values, by labels.
fn flat(value: Value) -> Vec<(String, Vec<f64>)> {
    let mut rows: Vec<_> = match value {
        Value::Scalar(_, value) => vec![(String::new(), vec![value])],
        Value::String(..) => Vec::new(),
        Value::Vector(samples) => samples
            .into_iter()
            .map(|s| (s.labels.to_string(), vec![float(&s.value)]))
            .collect(),
        Value::Matrix(series) => series
            .into_iter()
            .map(|s| (s.labels.to_string(), s.samples.values))
            .collect(),
    };
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows
}

fn float(value: &model::Value) -> f64 {
    match value {
        model::Value::Float(value) => *value,
        model::Value::Histogram(histogram) => histogram.sum,
    }
}

fn close(a: &[f64], b: &[f64]) -> bool {
    let near = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
    };
    a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| near(a, b))
}

#[tokio::test]
async fn shards_do_not_show() {
    let memory = data();
    let sharded = [1, 3, 16].map(|count| Shards::of(&memory, count, Arc::new(Still)));
    assert!(sharded.iter().all(|shards| shards.empty() == 0));
    for query in QUERIES {
        for is_range in [false, true] {
            let whole = ask(&memory, query, is_range).await;
            let one = ask(&sharded[0], query, is_range).await;
            for more in &sharded[1..] {
                let more = ask(more, query, is_range).await;
                assert_eq!(format!("{more:?}"), format!("{one:?}"), "{query}");
            }
            match (whole, one) {
                (Ok((whole, taken)), Ok((one, taken_of_one))) => {
                    assert_eq!(taken, taken_of_one, "{query}");
                    let (whole, one) = (flat(whole), flat(one));
                    assert_eq!(whole.len(), one.len(), "{query}");
                    for (whole, one) in whole.iter().zip(&one) {
                        assert_eq!(whole.0, one.0, "{query}");
                        assert!(close(&whole.1, &one.1), "{query}: {whole:?} {one:?}");
                    }
                }
                (whole, one) => {
                    let text = |r: Result<Answer, QueryError>| r.unwrap_err().to_string();
                    assert_eq!(text(whole), text(one), "{query}");
                }
            }
        }
    }
}

/// Nine series, two hours of samples every 15 s.
fn nine() -> Memory {
    let mut memory = Memory::default();
    for series in 0..9_i64 {
        let pairs = [("__name__", "l".to_owned()), ("a", series.to_string())];
        let labels = Labels::from_pairs(pairs);
        for sample in 0..480_i64 {
            let value = (100 + series + sample % 5) as f64;
            memory.add(&labels, sample * 15_000, value);
        }
    }
    memory
}

/// What Prometheus 3.5.3 tells as `peakSamples` of such series: at an instant, and over 1200 s by 67 s.
/// One sample fewer may be held, and it refuses.
const PEAKS: [(&str, u64, u64); 12] = [
    ("l + 2", 29, 352),
    ("2 * -l", 29, 352),
    ("abs(l) > 1", 29, 352),
    ("timestamp(l)", 18, 171),
    ("timestamp(-l)", 27, 333),
    ("sum by (a) (l * 2)", 29, 352),
    ("nope @ 1 + 1", 2, 2),
    ("rate(l[5m])", 29, 182),
    ("sum(rate(l[5m]))", 29, 182),
    // Subqueries go on to the end, which no step may meet.
    ("sum_over_time(l[5m:1m])", 59, 392),
    ("max_over_time(rate(l[1m])[5m:30s])", 109, 622),
    ("limitk(2, l)", 10, 180),
];

#[tokio::test]
async fn samples_held_are_counted_as_in_prometheus_wherever_series_lie() {
    let memory = nine();
    let sharded = [1, 3, 7].map(|count| Shards::of(&memory, count, Arc::new(Still)));
    let mut sources: Vec<&dyn Source> = vec![&memory];
    sources.extend(sharded.iter().map(|shards| shards as &dyn Source));
    let params = QueryParams::default();
    for (query, at_instant, over_range) in PEAKS {
        for source in &sources {
            for (samples_max, suffices) in [(50_000_000, true), (0, true), (1, false)] {
                // The peak itself is enough, one less is not.
                let limited = |peak: u64| match samples_max {
                    50_000_000 => samples_max,
                    less => peak as usize - less,
                };
                let engine = |peak| {
                    let options = EngineOptions {
                        samples_max: limited(peak),
                        experimental_functions: true,
                        ..EngineOptions::default()
                    };
                    Engine::new(options, Arc::new(Still))
                };
                let peak = |result: Result<QueryResult, QueryError>| match result {
                    Ok(result) => Some(result.stats.samples_peak),
                    Err(QueryError::TooManySamples) => None,
                    Err(other) => panic!("{query}: {other}"),
                };
                let at = Timestamp(7_185_000);
                let instant = engine(at_instant);
                let instant = instant.instant(*source, query, at, &params).await;
                assert_eq!(peak(instant), suffices.then_some(at_instant), "{query}");
                let (start, end) = (Timestamp(6_000_000), Timestamp(7_200_000));
                let step = Duration::from_secs(67);
                let range = engine(over_range);
                let range = range.range(*source, query, start, end, step, &params).await;
                assert_eq!(peak(range), suffices.then_some(over_range), "{query}");
            }
        }
    }
}
