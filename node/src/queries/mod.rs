//! Running queries on the node's engine, under limits that all of them share.
//!
//! Promise: no more than `--query.max-concurrency` at a time, the others wait in order and within
//! their own time; together they hold no more than [`QUERIES_BYTES_MAX`] of selected data; a query
//! whose asker went away ends at once, since dropping the future ends it everywhere. What runs for
//! longer than 20 ms is noted in a file, so that a crash tells what it died of.
//!
//! In reading order: [`memory`], [`active`], [`log`], [`metrics`].
//!
//! [`QUERIES_BYTES_MAX`]: model::limits::QUERIES_BYTES_MAX

pub mod active;
pub mod log;
pub mod memory;
pub mod metrics;

use std::sync::Arc;
use std::time::Duration;

use model::Timestamp;
use model::port::Clock;
use model::source::Source;
use model::trail::Trail;
use promql::{Engine, QueryError, QueryParams, QueryResult, Stats};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use active::ActiveQueries;
use log::{Origin, QueryLog, Took};
use memory::{Budgeted, Full, Memory};
use metrics::{Metrics, Slice};

use crate::web::json::Json;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    pub text: &'a str,
    pub span: Span,
    pub params: QueryParams,
    /// Waiting included.
    pub time_max: Duration,
    /// Where it is noted who was asked for what, if anybody wants to know.
    pub trail: Option<Arc<Trail>>,
    pub origin: Option<Origin>,
}

/// The instants of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    Instant(Timestamp),
    Range {
        start: Timestamp,
        end: Timestamp,
        step: Duration,
    },
}

impl Span {
    fn ends(self) -> (Timestamp, Timestamp, Duration) {
        match self {
            Self::Instant(at) => (at, at, Duration::ZERO),
            Self::Range { start, end, step } => (start, end, step),
        }
    }
}

/// How long the parts of a query took; of one that failed, as far as it came.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    pub queue: Duration,
    /// Of the whole evaluation.
    pub evaluation: Duration,
    pub total: Duration,
    /// What the engine measured within.
    pub engine: promql::Timings,
}

impl Timings {
    /// The `timings` of Prometheus' statistics.
    pub fn write(&self, json: &mut Json) {
        let all = [
            ("evalTotalTime", self.evaluation),
            ("resultSortTime", self.engine.result_sort),
            ("queryPreparationTime", self.engine.preparation),
            ("innerEvalTime", self.engine.inner_eval),
            ("execQueueTime", self.queue),
            ("execTotalTime", self.total),
        ];
        json.raw("\"timings\":{");
        for (at, (name, duration)) in all.iter().enumerate() {
            json.raw(if at > 0 { ",\"" } else { "\"" }).raw(name);
            json.raw("\":").number(duration.as_secs_f64());
        }
        json.raw("}");
    }
}

/// The `samples` of Prometheus' statistics.
pub fn write_samples(json: &mut Json, stats: &Stats, per_step: bool) {
    json.raw("\"samples\":{");
    if per_step {
        json.raw("\"totalQueryableSamplesPerStep\":");
        json.list(&stats.samples_read_at, |json, (at, samples)| {
            json.raw("[").number(at.seconds()).raw(",");
            json.value(samples).raw("]");
        });
        json.raw(",");
    }
    json.raw("\"totalQueryableSamples\":")
        .value(&stats.samples_read);
    json.raw(",\"peakSamples\":")
        .value(&stats.samples_peak)
        .raw("}");
}

/// A whole answer and what it took.
#[derive(Debug)]
pub struct Answer {
    pub result: QueryResult,
    pub timings: Timings,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure {
    /// It never ran; in Go's words, which Prometheus passes on.
    #[error("context deadline exceeded")]
    Queue,
    #[error("query timed out in expression evaluation")]
    Timeout,
    #[error(transparent)]
    Memory(#[from] Full),
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Runs queries.
pub struct Queries {
    pub engine: Arc<Engine>,
    /// The whole cluster.
    pub source: Arc<dyn Source>,
    pub clock: Arc<dyn Clock>,
    /// One permit per query that may be evaluated at a time.
    pub slots: Arc<Semaphore>,
    pub memory: Memory,
    pub active: ActiveQueries,
    pub log: Arc<QueryLog>,
    pub metrics: Metrics,
}

impl Queries {
    /// The answer to `query`, whose future may be dropped at any time.
    pub async fn run(&self, query: Query<'_>) -> Result<Answer, Failure> {
        let _counted = self.metrics.begin();
        let begin = self.clock.monotonic();
        let mut timings = Timings::default();
        let answered = self.run_timed(&query, &mut timings).await;
        timings.total = self.clock.monotonic().saturating_sub(begin);
        self.metrics.observe(Slice::Queue, timings.queue);
        if let Ok(result) = &answered {
            timings.engine = result.stats.timings;
            self.metrics.samples.inc_by(result.stats.samples_read);
        }
        for (slice, duration) in [
            (Slice::Preparation, timings.engine.preparation),
            (Slice::InnerEvaluation, timings.engine.inner_eval),
            (Slice::ResultSort, timings.engine.result_sort),
        ] {
            self.metrics.observe(slice, duration);
        }
        let failure = answered.as_ref().err().map(ToString::to_string);
        let stats = answered.as_ref().map(|result| result.stats.clone());
        let took = Took {
            failure: failure.as_deref(),
            timings,
            stats: &stats.unwrap_or_default(),
        };
        self.log.note(&*self.clock, &query, took);
        Ok(Answer {
            result: answered?,
            timings,
        })
    }

    async fn run_timed(
        &self,
        query: &Query<'_>,
        timings: &mut Timings,
    ) -> Result<QueryResult, Failure> {
        if query.time_max.is_zero() {
            return Err(Failure::Queue);
        }
        let begin = self.clock.monotonic();
        let slot = timeout(query.time_max, Arc::clone(&self.slots).acquire_owned()).await;
        let slot = slot.map_err(|_elapsed| Failure::Queue)?;
        let slot = slot.map_err(|_closed| QueryError::Canceled)?;
        timings.queue = self.clock.monotonic().saturating_sub(begin);
        let left = query.time_max.saturating_sub(timings.queue);
        let evaluation = timeout(left, self.evaluate(query));
        let evaluated = self.active.watch(query.text, slot, evaluation).await;
        let total = self.clock.monotonic().saturating_sub(begin);
        timings.evaluation = total.saturating_sub(timings.queue);
        evaluated.map_err(|_elapsed| Failure::Timeout)?
    }

    async fn evaluate(&self, query: &Query<'_>) -> Result<QueryResult, Failure> {
        let noting = query.trail.clone();
        let noting = noting.and_then(|trail| self.source.noting(trail));
        let source = noting.as_deref().unwrap_or(&*self.source);
        let source = Budgeted::new(source, &self.memory);
        let (engine, text, params) = (&self.engine, query.text, &query.params);
        let result = match query.span {
            Span::Instant(at) => engine.instant(&source, text, at, params).await,
            Span::Range { start, end, step } => {
                engine.range(&source, text, start, end, step, params).await
            }
        };
        match source.refused() {
            Some(full) => Err(Failure::Memory(full)),
            None => Ok(result?),
        }
    }
}
