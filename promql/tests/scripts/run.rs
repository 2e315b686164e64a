//! Runs a script's commands and compares.

use std::sync::Arc;
use std::time::Duration;

use model::port::Clock;
use model::source::Source;
use model::{Labels, Timestamp};
use promql::{Engine, EngineOptions, QueryError, QueryParams, QueryResult, Value};

use crate::histogram;
use crate::memory::Memory;
use crate::script::{Command, Eval, Item, Note, parse};
use crate::sharded::Shards;

/// How far a value may be from what is expected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    None,
    /// What Prometheus grants its own scripts.
    Millionth,
}

#[derive(Debug)]
pub enum Outcome {
    Passed,
    Failed(String),
}

/// A clock that stands still.
pub struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp(0)
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().build().expect("a runtime");
    runtime.block_on(future)
}

/// The outcome of every `eval`, with its line.
pub fn run(text: &str, options: EngineOptions, tolerance: Tolerance) -> Vec<(usize, Outcome)> {
    run_over(text, options, tolerance, None)
}

/// The same with the series on so many shards.
pub fn run_over(
    text: &str,
    mut options: EngineOptions,
    mut tolerance: Tolerance,
    shards: Option<usize>,
) -> Vec<(usize, Outcome)> {
    let mut memory = Memory::default();
    let mut outcomes = Vec::new();
    for command in parse(text) {
        match command {
            Command::Clear => memory = Memory::default(),
            Command::Options(names) => names.iter().for_each(|name| match name.as_str() {
                "experimental_functions" => options.experimental_functions = true,
                "delayed_name_removal" => options.delayed_name_removal = true,
                "type_and_unit_labels" => options.type_and_unit_labels = true,
                "tolerance" => tolerance = Tolerance::Millionth,
                other => panic!("option {other}?"),
            }),
            Command::Load(loaded) => {
                for series in loaded {
                    for (at, item) in series.samples {
                        match item {
                            Item::Float(value) => memory.add(&series.labels, at, value),
                            Item::Histogram(told) => {
                                memory.add_histogram(&series.labels, at, told.histogram);
                            }
                        }
                    }
                }
            }
            Command::Eval(eval) => {
                let sharded = shards.map(|count| Shards::of(&memory, count, Arc::new(Still)));
                let check = Check {
                    eval: &eval,
                    source: match &sharded {
                        Some(sharded) => sharded,
                        None => &memory,
                    },
                    engine: Engine::new(options.clone(), Arc::new(Still)),
                    tolerance,
                };
                let outcome = match block_on(check.all()) {
                    Ok(()) => Outcome::Passed,
                    Err(why) => Outcome::Failed(format!("{}: {why}", eval.query)),
                };
                outcomes.push((eval.line, outcome));
            }
        }
    }
    outcomes
}

struct Check<'a> {
    eval: &'a Eval,
    source: &'a dyn Source,
    engine: Engine,
    tolerance: Tolerance,
}

/// A series of an answer, with the values at the expected instants.
type Row = (Labels, Vec<Option<model::Value>>);
type Expected = (Labels, Vec<Option<Item>>);

impl Check<'_> {
    async fn all(&self) -> Result<(), String> {
        let eval = self.eval;
        if eval.is_range_vector {
            let at = Timestamp(eval.end);
            let params = QueryParams::default();
            let result = self
                .engine
                .instant(self.source, &eval.query, at, &params)
                .await;
            return self.compare(result, &|value| rows(value, eval.start, eval.step));
        }
        if eval.step > 0 {
            let result = self.range(eval.start, eval.end, eval.step).await;
            return self.compare(result, &|value| rows(value, eval.start, eval.step));
        }
        let params = QueryParams::default();
        let at = Timestamp(eval.start);
        let result = self
            .engine
            .instant(self.source, &eval.query, at, &params)
            .await;
        let is_plain =
            matches!(&result, Ok(r) if matches!(r.value, Value::Vector(_) | Value::Scalar(..)));
        self.compare(result, &|value| rows(value, eval.start, 1))?;
        if !is_plain
            || eval.is_ordered
            || eval.query.contains("start()")
            || eval.query.contains("end()")
        {
            return Ok(());
        }
        // The same instant in the middle of a range must say the same.
        let minute = 60_000;
        let result = self
            .range(eval.start - minute, eval.start + minute, minute)
            .await;
        let middle = |value| {
            let rows = rows(value, eval.start - minute, minute).into_iter();
            let rows =
                rows.map(|(labels, values)| (labels, values.into_iter().skip(1).take(1).collect()));
            let there = |(_, values): &Row| values.first().is_some_and(Option::is_some);
            rows.filter(there).collect()
        };
        match result {
            Ok(result) => {
                let rows: Vec<Row> = middle(result.value);
                self.compare_rows(rows)
                    .map_err(|why| format!("in a range: {why}"))
            }
            // Another instant of the range may well be wrong in itself.
            Err(QueryError::Execution(_)) => Ok(()),
            Err(error) => Err(format!("in a range: {error}")),
        }
    }

    async fn range(&self, start: i64, end: i64, step: i64) -> Result<QueryResult, QueryError> {
        let step = Duration::from_millis(step as u64);
        let (start, end) = (Timestamp(start), Timestamp(end));
        let params = QueryParams::default();
        self.engine
            .range(self.source, &self.eval.query, start, end, step, &params)
            .await
    }

    fn compare(
        &self,
        result: Result<QueryResult, QueryError>,
        rows: &dyn Fn(Value) -> Vec<Row>,
    ) -> Result<(), String> {
        let eval = self.eval;
        let result = match result {
            Err(error) if eval.fails => return self.compare_message(&error.to_string()),
            Err(error) => return Err(error.to_string()),
            Ok(result) if eval.fails => return Err(format!("no failure but {:?}", result.value)),
            Ok(result) => result,
        };
        self.compare_notes(&result)?;
        if let (Some(expected), Value::String(_, got)) = (&eval.string, &result.value) {
            return if expected == got {
                Ok(())
            } else {
                Err(format!("got {got:?}"))
            };
        }
        self.compare_rows(rows(result.value))
    }

    fn compare_message(&self, message: &str) -> Result<(), String> {
        let is_right = match (&self.eval.message, &self.eval.pattern) {
            (Some(expected), _) => message.trim_end() == expected,
            (None, Some(pattern)) => regex::Regex::new(pattern).expect(pattern).is_match(message),
            (None, None) => true,
        };
        if is_right {
            Ok(())
        } else {
            Err(format!("failed with {message:?}"))
        }
    }

    fn compare_notes(&self, result: &QueryResult) -> Result<(), String> {
        for (must_be, expected, got) in [
            (self.eval.warns, &self.eval.warnings, &result.warnings),
            (self.eval.informs, &self.eval.infos, &result.infos),
        ] {
            let is_silent = self.tolerance == Tolerance::None && must_be.is_none();
            let must_be = if is_silent { Some(false) } else { must_be };
            if must_be.is_some_and(|must_be| must_be == got.is_empty()) {
                return Err(format!("annotations {got:?}"));
            }
            if expected.is_empty() {
                continue;
            }
            let missed = expected
                .iter()
                .find(|note| !got.iter().any(|got| tells(note, got)));
            let extra = got
                .iter()
                .find(|got| !expected.iter().any(|note| tells(note, got)));
            if missed.is_some() || extra.is_some() {
                return Err(format!("want {missed:?}, not {extra:?}, in {got:?}"));
            }
        }
        Ok(())
    }

    fn compare_rows(&self, mut got: Vec<Row>) -> Result<(), String> {
        let mut expected: Vec<Expected> = match self.eval.scalar {
            Some(value) => vec![(Labels::default(), vec![Some(Item::Float(value))])],
            None => self.eval.series.clone(),
        };
        for (_, values) in &mut expected {
            while values.last().is_some_and(Option::is_none) {
                values.pop();
            }
        }
        expected.retain(|(_, values)| !values.is_empty());
        if !self.eval.is_ordered {
            expected.sort_by(|a, b| a.0.cmp(&b.0));
            got.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let same = got.len() == expected.len()
            && got.iter().zip(&expected).all(|(g, e)| {
                g.0 == e.0
                    && g.1.len() == e.1.len()
                    && g.1.iter().zip(&e.1).all(|(g, e)| self.is_same(g, e))
            });
        if same {
            Ok(())
        } else {
            Err(format!("\n  want {expected:?}\n  got  {got:?}"))
        }
    }

    fn is_same(&self, got: &Option<model::Value>, expected: &Option<Item>) -> bool {
        match (got, expected) {
            (None, None) => true,
            (Some(model::Value::Float(got)), Some(Item::Float(expected))) => {
                self.is_same_float(*got, *expected)
            }
            (Some(model::Value::Histogram(got)), Some(Item::Histogram(told))) => {
                histogram::is_same(told, got, |got, want| self.is_same_float(got, want))
            }
            _ => false,
        }
    }

    fn is_same_float(&self, got: f64, expected: f64) -> bool {
        if got == expected || got.is_nan() && expected.is_nan() {
            return true;
        }
        let sum = got.abs() + expected.abs();
        self.tolerance == Tolerance::Millionth
            && ((got - expected).abs() / sum.min(f64::MAX) < 1e-6
                || (got == 0.0 || expected == 0.0) && sum < 1e-6 * f64::MIN_POSITIVE)
    }
}

/// Whether an annotation is the expected one; scripts may leave the position out.
fn tells(note: &Note, got: &str) -> bool {
    let without_position = got.rsplit_once(" (").map_or(got, |(text, _)| text);
    match note {
        Note::Text(text) => text == got || text == without_position,
        Note::Pattern(pattern) => {
            let pattern = regex::Regex::new(pattern).expect(pattern);
            pattern.is_match(got) || pattern.is_match(without_position)
        }
    }
}

fn rows(value: Value, start: i64, step: i64) -> Vec<Row> {
    match value {
        Value::Scalar(_, value) => {
            vec![(Labels::default(), vec![Some(model::Value::Float(value))])]
        }
        Value::String(_, text) => panic!("an unexpected string {text:?}"),
        Value::Vector(samples) => {
            let samples = samples.into_iter();
            samples.map(|s| (s.labels, vec![Some(s.value)])).collect()
        }
        Value::Matrix(series) => series
            .into_iter()
            .map(|series| {
                let mut values = Vec::new();
                for (i, timestamp) in series.samples.timestamps.iter().enumerate() {
                    let at = ((timestamp.0 - start) / step) as usize;
                    values.resize(at, None);
                    values.push(Some(series.samples.value(i)));
                }
                (series.labels, values)
            })
            .collect(),
    }
}
