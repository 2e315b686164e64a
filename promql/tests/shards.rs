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
use promql::{Engine, EngineOptions, QueryError, QueryParams, Value};
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

async fn ask(source: &dyn Source, query: &str, is_range: bool) -> Result<Value, QueryError> {
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
    result.map(|result| result.value)
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
                (Ok(whole), Ok(one)) => {
                    let (whole, one) = (flat(whole), flat(one));
                    assert_eq!(whole.len(), one.len(), "{query}");
                    for (whole, one) in whole.iter().zip(&one) {
                        assert_eq!(whole.0, one.0, "{query}");
                        assert!(close(&whole.1, &one.1), "{query}: {whole:?} {one:?}");
                    }
                }
                (whole, one) => {
                    let text = |r: Result<Value, QueryError>| r.unwrap_err().to_string();
                    assert_eq!(text(whole), text(one), "{query}");
                }
            }
        }
    }
}
