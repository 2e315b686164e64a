//! What a query may not do, and how it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use model::limits::{QUERY_HEIGHT_MAX, TASK_STACK_BYTES};
use model::port::Clock;
use model::source::{MetadataSelection, Selection, Source, SourceError};
use model::{Labels, Series, ShardId, Timestamp};
use promql::{Engine, EngineOptions, QueryError, QueryParams, QueryResult, Value};

use crate::memory::Memory;
use crate::run::{Still, block_on};

/// So many series `x`, each with a sample every second of an hour.
fn hour(series: usize) -> Memory {
    let mut memory = Memory::default();
    for i in 0..series {
        let labels = Labels::from_pairs([("__name__", "x"), ("i", &i.to_string())]);
        for second in 0..3600 {
            memory.add(&labels, second * 1000, second as f64);
        }
    }
    memory
}

fn engine(options: EngineOptions) -> Engine {
    Engine::new(options, Arc::new(Still))
}

fn range(
    engine: &Engine,
    source: &dyn Source,
    query: &str,
    end_s: i64,
    step: Duration,
) -> Result<QueryResult, QueryError> {
    let (start, end) = (Timestamp(0), Timestamp(end_s * 1000));
    block_on(engine.range(source, query, start, end, step, &QueryParams::default()))
}

fn instant(engine: &Engine, source: &dyn Source, query: &str) -> Result<QueryResult, QueryError> {
    let at = Timestamp(1_800_000);
    block_on(engine.instant(source, query, at, &QueryParams::default()))
}

#[test]
fn resolution_and_times_are_checked() {
    let (engine, memory) = (engine(EngineOptions::default()), Memory::default());
    let second = Duration::from_secs(1);
    assert!(range(&engine, &memory, "1", 11_000, second).is_ok());
    let error = range(&engine, &memory, "1", 11_001, second).unwrap_err();
    assert_eq!(
        error.to_string(),
        "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"
    );
    assert!(matches!(error, QueryError::Invalid(_)));
    let error = range(&engine, &memory, "1", -1, second).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("end timestamp must not be before start time")
    );
    let error = range(&engine, &memory, "1", 1, Duration::ZERO).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("zero or negative query resolution step widths")
    );
    let error = range(&engine, &memory, "x[5m]", 1, second).unwrap_err();
    assert_eq!(
        error.to_string(),
        "invalid expression type \"range vector\" for range query, must be Scalar or instant Vector"
    );
    let params = QueryParams::default();
    let wide = engine.range(
        &memory,
        "1",
        Timestamp::MIN,
        Timestamp::MAX,
        second,
        &params,
    );
    assert!(matches!(block_on(wide), Err(QueryError::Invalid(_))));
}

#[test]
fn too_many_samples_are_refused_before_they_are_held() {
    let options = EngineOptions {
        samples_max: 3_000,
        ..EngineOptions::default()
    };
    let (engine, memory) = (engine(options), hour(2));
    for query in [
        "rate(x[1h] @ 3600)",
        "count_over_time(vector(1)[2h:1s])",
        "count_over_time(vector(1)[100y:1ms])",
        "sum_over_time(x[40m:1s])",
    ] {
        let error = instant(&engine, &memory, query).unwrap_err();
        assert_eq!(error, QueryError::TooManySamples, "{query}");
        assert_eq!(
            error.to_string(),
            "query processing would load too many samples into memory in query execution"
        );
    }
    assert!(instant(&engine, &memory, "rate(x[10m])").is_ok());
    let second = Duration::from_secs(1);
    assert_eq!(
        range(&engine, &memory, "x", 3_000, second).unwrap_err(),
        QueryError::TooManySamples
    );
}

/// A clock that moves a second whenever it is read.
struct Hasty(AtomicU64);

impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[test]
fn long_work_stops_at_its_deadline() {
    let memory = hour(3);
    let timeout = |seconds| {
        let options = EngineOptions {
            timeout: Duration::from_secs(seconds),
            ..EngineOptions::default()
        };
        let engine = Engine::new(options, Arc::new(Hasty(AtomicU64::new(0))));
        range(
            &engine,
            &memory,
            "sum(rate(x[10m]))",
            3_599,
            Duration::from_secs(1),
        )
    };
    let error = timeout(5).unwrap_err();
    assert_eq!(error, QueryError::Timeout);
    assert_eq!(
        error.to_string(),
        "query timed out in expression evaluation"
    );
    assert!(timeout(100_000).is_ok());
}

#[test]
fn a_closed_engine_cancels() {
    let engine = engine(EngineOptions::default());
    engine.close();
    let error = instant(&engine, &Memory::default(), "1").unwrap_err();
    assert_eq!(error, QueryError::Canceled);
}

/// A source that never answers, or only with an error.
struct Silent(Option<SourceError>);

#[async_trait]
impl Source for Silent {
    async fn select(&self, _: &Selection) -> Result<Vec<Series>, SourceError> {
        match &self.0 {
            Some(error) => Err(error.clone()),
            None => std::future::pending().await,
        }
    }

    async fn series(&self, _: &MetadataSelection) -> Result<Vec<Labels>, SourceError> {
        std::future::pending().await
    }

    async fn label_names(&self, _: &MetadataSelection) -> Result<Vec<String>, SourceError> {
        std::future::pending().await
    }

    async fn label_values(
        &self,
        _: &str,
        _: &MetadataSelection,
    ) -> Result<Vec<String>, SourceError> {
        std::future::pending().await
    }
}

#[test]
fn a_source_that_fails_or_hangs_is_an_error() {
    let engine = engine(EngineOptions::default());
    let lost = SourceError::Unavailable(vec![ShardId(3)]);
    let error = instant(&engine, &Silent(Some(lost.clone())), "x + y").unwrap_err();
    assert_eq!(error, QueryError::Source(lost));
    let params = QueryParams {
        timeout: Some(Duration::from_millis(1)),
        ..QueryParams::default()
    };
    let silent = Silent(None);
    let error = block_on(engine.instant(&silent, "x", Timestamp(0), &params)).unwrap_err();
    assert_eq!(error, QueryError::Timeout);
}

#[test]
fn evaluation_lets_others_run() {
    let (engine, memory) = (engine(EngineOptions::default()), hour(3));
    let params = QueryParams::default();
    let others = AtomicU64::new(0);
    let query = async {
        let (start, end) = (Timestamp(0), Timestamp(3_599_000));
        let step = Duration::from_secs(1);
        engine
            .range(&memory, "avg(rate(x[10m]))", start, end, step, &params)
            .await
    };
    let heartbeat = async {
        loop {
            others.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    };
    let result = block_on(async {
        tokio::select! { result = query => result, () = heartbeat => unreachable!() }
    });
    assert!(result.is_ok());
    assert!(others.load(Ordering::Relaxed) > 10, "turns: {others:?}");
}

/// Of one series at very many instants, or one window of as many samples.
#[test]
fn nothing_long_is_done_in_one_go() {
    let options = EngineOptions {
        experimental_functions: true,
        ..EngineOptions::default()
    };
    let (engine, memory) = (engine(options), hour(1));
    for inner in [
        "vector(time() % 7)",
        "-(vector(time() % 7) == 3)",
        "sum(x)",
        "topk(1, x)",
        "limitk(1, x) or quantile(0.5, x)",
        "x * on (i) x",
    ] {
        for call in ["quantile_over_time(0.5, ", "mad_over_time(", "rate("] {
            let query = format!("{call}({inner})[10m:1ms])");
            let others = AtomicU64::new(0);
            let heartbeat = async {
                loop {
                    others.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            };
            let result = block_on(async {
                let params = QueryParams::default();
                let asked = engine.instant(&memory, &query, Timestamp(1_800_000), &params);
                tokio::select! { result = asked => result, () = heartbeat => unreachable!() }
            });
            assert!(result.is_ok(), "{query}: {result:?}");
            // Made, counted, made samples of, and looked at: six turns of a column each.
            let turns = others.load(Ordering::Relaxed);
            assert!(turns > 24, "{query}: {turns} turns");
        }
    }
}

#[test]
fn what_many_instants_take_is_held_against_a_query() {
    let query = "sum_over_time(vector(time() * 2)[10m:1ms])";
    for (bytes_max, is_ok) in [(4 << 20, false), (32 << 20, true)] {
        let options = EngineOptions {
            bytes_max,
            ..EngineOptions::default()
        };
        let outcome = instant(&engine(options), &Memory::default(), query);
        assert_eq!(outcome.is_ok(), is_ok, "{outcome:?}");
    }
}

#[test]
fn each_selector_is_selected_once_over_the_whole_window() {
    let (engine, memory) = (engine(EngineOptions::default()), hour(1));
    let query = "rate(x[1m]) / rate(x[1m]) + avg_over_time(rate(x[2m])[10m:1m])";
    let result = range(&engine, &memory, query, 3_000, Duration::from_secs(10)).unwrap();
    assert!(matches!(result.value, Value::Matrix(series) if series.len() == 1));
    assert_eq!(*memory.selections.lock().unwrap(), 2);
}

#[test]
fn a_range_vector_is_handed_out_as_it_is() {
    let (engine, memory) = (engine(EngineOptions::default()), hour(2));
    let result = instant(&engine, &memory, "x[3s]").unwrap();
    let Value::Matrix(series) = result.value else {
        panic!("{:?}", result.value);
    };
    let series: Vec<_> = series.into_iter().collect();
    assert_eq!(series.len(), 2);
    let times: Vec<i64> = series[0].samples.timestamps.iter().map(|t| t.0).collect();
    assert_eq!(times, [1_798_000, 1_799_000, 1_800_000]);
}

#[test]
fn the_lookback_can_be_set_by_query() {
    let (engine, mut memory) = (engine(EngineOptions::default()), Memory::default());
    memory.add(&Labels::from_pairs([("__name__", "x")]), 0, 1.0);
    let found = |lookback, at_ms| {
        let params = QueryParams {
            lookback: Some(Duration::from_secs(lookback)),
            ..QueryParams::default()
        };
        let result = block_on(engine.instant(&memory, "x", Timestamp(at_ms), &params)).unwrap();
        matches!(result.value, Value::Vector(vector) if vector.len() == 1)
    };
    assert!(found(10, 9_999));
    assert!(!found(10, 10_000));
    assert!(found(3_600, 3_599_999));
}

#[test]
fn labels_cannot_be_doubled_without_end() {
    let (engine, memory) = (engine(EngineOptions::default()), hour(1));
    for (call, tail) in [
        ("label_join(", ", \"i\", \"\", \"i\", \"i\")"),
        ("label_replace(", ", \"i\", \"$1$1\", \"i\", \"(.*)\")"),
    ] {
        let nested = |times: usize| format!("{}x{}", call.repeat(times), tail.repeat(times));
        assert!(instant(&engine, &memory, &nested(10)).is_ok());
        let error = instant(&engine, &memory, &nested(60)).unwrap_err();
        assert!(error.to_string().contains("longer than"), "{error}");
    }
}

#[test]
fn long_labels_of_many_series_are_bounded_together() {
    let mut memory = Memory::default();
    for i in 0..2_200 {
        let labels = Labels::from_pairs([("__name__", "x"), ("i", &i.to_string())]);
        memory.add(&labels, 1_800_000, 1.0);
    }
    let engine = engine(EngineOptions::default());
    let query = |bytes| {
        let text = "a".repeat(bytes);
        format!("label_replace(x, \"long\", \"{text}\", \"i\", \"(.*)\")")
    };
    assert!(instant(&engine, &memory, &query(30_000)).is_ok());
    let error = instant(&engine, &memory, &query(61_500)).unwrap_err();
    assert!(error.to_string().contains("together"), "{error}");
}

/// On half the stack that a server's tasks have.
#[test]
fn the_highest_trees_are_computed() {
    let compute = || {
        let (engine, memory) = (engine(EngineOptions::default()), hour(2));
        for operator in [" + ", " or ", " - on (i) "] {
            let query = format!("x{operator}").repeat(QUERY_HEIGHT_MAX - 12) + "x";
            for nested in [query.clone(), format!("sum(rate(x[5m])) or ({query})")] {
                let params = QueryParams::default();
                let at = Timestamp(1_800_000);
                let outcome = block_on(engine.instant(&memory, &nested, at, &params));
                assert!(outcome.is_ok(), "{operator}: {outcome:?}");
            }
        }
    };
    #[allow(
        clippy::disallowed_methods,
        reason = "a test of how much stack walking takes"
    )]
    let computed = std::thread::Builder::new()
        .stack_size(TASK_STACK_BYTES / 2)
        .spawn(compute);
    computed.unwrap().join().unwrap();
}

#[test]
fn whatever_parses_has_an_answer_or_an_error() {
    let (engine, memory) = (engine(EngineOptions::default()), hour(2));
    let texts = include_str!("../../src/parser/formats.txt").lines();
    let texts = texts.filter_map(|line| line.split_once(" => "));
    for (text, _) in texts {
        for at in [Timestamp::MIN, Timestamp(1_800_000), Timestamp::MAX] {
            let params = QueryParams::default();
            let _outcome = block_on(engine.instant(&memory, text, at, &params));
        }
        let far = Timestamp(i64::MAX - 1);
        let step = Duration::from_millis(i64::MAX as u64 / 2);
        let params = QueryParams::default();
        let _outcome = block_on(engine.range(&memory, text, Timestamp(0), far, step, &params));
    }
}
